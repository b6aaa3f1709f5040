//! Queries to a primary: its SOA by UDP, the zone by TCP, or both by TCP or TLS (RFC 9103) if configured so.
//! The caller sets the time limits.

use std::io;
use std::time::{Duration, Instant};

use dns::address::BackendAddress;
use dns::{Header, Name, Rcode, RecordType, is_reply_to, write_plain_query};
use net::sys::clock::unix_now;
use net::to_backends::client::UdpClient;
use net::to_backends::connection::StreamProtocol;
use net::to_backends::server_client::ServerClient;
use net::to_backends::tls::ClientTls;
use tokio::time::timeout;
use zone::Zone;
use zone::transfer::tsig::{ClientChain, TsigKey, sign_query};
use zone::transfer::{Serial, TransferProgress, TransferReader, TransferResult, read_soa_reply, write_transfer_query};

use super::PrimaryError;

/// A server that a zone comes from.
pub(super) struct Primary {
    pub(super) address: BackendAddress,
    /// The TLS settings, or the reason why there are none; `None` without TLS.
    pub(super) tls: Option<Result<ClientTls, String>>,
    pub(super) zone: Name,
    pub(super) key: Option<TsigKey>,
}

impl Primary {
    /// Asks for the serial number of the zone: by UDP a few times, and by TCP if the reply is truncated or
    /// refuses. A primary that is configured for connections gets no UDP.
    pub(super) async fn ask_serial(&self) -> Result<Serial, PrimaryError> {
        let id = rand::random();
        let mut query = Vec::new();
        write_plain_query(id, &self.zone, RecordType::SOA, &mut query);
        let mut chain = self.sign(&mut query);
        let by_stream = self.address.scheme.is_stream();
        let mut reply = match by_stream {
            true => self.connect(&query).await?.receive().await?,
            false => self.ask_by_udp(&query).await?,
        };
        let header = Header::read(&reply);
        if by_stream {
            // TCP is the last resort.
        } else if header.is_some_and(Header::is_truncated) {
            reply = self.connect(&query).await?.receive().await?;
        } else if header.is_some_and(|header| header.rcode() == Rcode::REFUSED)
            && let Ok(mut client) = self.connect(&query).await
            && let Ok(by_tcp) = client.receive().await
        {
            // Knot answers queries for catalog zones by TCP only.
            reply = by_tcp;
        }
        if let Some(chain) = &mut chain {
            let verified = chain.verify(&reply, unix_now()).and_then(|()| chain.finish());
            verified.map_err(PrimaryError::Unsigned)?;
        }
        let rcode = Header::read(&reply).map_or(Rcode::FORMERR, Header::rcode);
        read_soa_reply(&reply, id, &self.zone).ok_or(PrimaryError::NoSerial(rcode))
    }

    /// Transfers the zone, or the changes since the present version. Calls `on_progress` for each message.
    pub(super) async fn transfer(
        &self,
        known: Option<&Zone>,
        limit: usize,
        on_progress: impl Fn(),
    ) -> Result<TransferResult, PrimaryError> {
        let id = rand::random();
        let mut query = Vec::new();
        let asked = write_transfer_query(id, &self.zone, known.and_then(Zone::soa), &mut query);
        let chain = self.sign(&mut query);
        let mut reader = TransferReader::new(self.zone.clone(), id, asked, chain, limit);
        let mut client = self.connect(&query).await?;
        loop {
            let message = client.receive().await?;
            on_progress();
            if let TransferProgress::Done(received) = reader.take(&message, unix_now())? {
                return Ok(received);
            }
        }
    }

    fn sign(&self, query: &mut Vec<u8>) -> Option<ClientChain> {
        self.key.as_ref().map(|key| sign_query(key, unix_now(), query))
    }

    /// Asks by UDP a few times until a reply comes.
    async fn ask_by_udp(&self, query: &[u8]) -> Result<Vec<u8>, PrimaryError> {
        let times = (0..SENDS).map(|_| Instant::now() + SILENCE);
        let client = UdpClient::bind(self.address.socket)?;
        client.exchange(query, times, |message| is_reply_to(message, query)).await.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => PrimaryError::Silent,
            _ => error.into(),
        })
    }

    async fn connect(&self, query: &[u8]) -> Result<ServerClient, PrimaryError> {
        let tls = match &self.tls {
            Some(Ok(tls)) => Some(tls),
            Some(Err(problem)) => return Err(PrimaryError::Untrusted(problem.clone())),
            None => None,
        };
        let connected =
            timeout(CONNECT, ServerClient::connect(self.address.socket, &StreamProtocol::Frames, tls)).await;
        let mut client = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        client.queue(query)?;
        Ok(client)
    }
}

/// The time limit for connecting: thousands of zones may wait for a turn, and the next primary may be up. The
/// kernel has sent three SYN by then.
const CONNECT: Duration = Duration::from_secs(5);

const SENDS: usize = 3;

const SILENCE: Duration = Duration::from_secs(2);
