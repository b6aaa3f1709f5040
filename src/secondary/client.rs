//! Asking a primary: for its SOA by UDP, for the zone by TCP; for both by TCP or TLS (RFC 9103) if the config says so. How long it may
//! take is for whoever asks to say.

use std::io;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::PrimaryError;
use crate::address::BackendAddress;
use crate::net::backend_connection::StreamProtocol;
use crate::net::client::UdpClient;
use crate::net::clock::unix_now;
use crate::net::server_client::ServerClient;
use crate::net::tls::ClientTls;
use crate::transfer::tsig::{ClientChain, Key, sign_query};
use crate::transfer::{Progress, Reader, Received, Serial, read_soa_reply, write_transfer_query};
use crate::wire::{Header, Name, Rcode, RecordType, is_reply_to, write_plain_query};
use crate::zone::Zone;

/// A server that a zone comes from.
pub(super) struct Primary {
    /// Where it is asked, and how.
    pub(super) address: BackendAddress,
    /// What a connection by TLS needs, or why there can be none; none where it is not asked so.
    pub(super) tls: Option<Result<ClientTls, String>>,
    pub(super) zone: Name,
    /// What signs the queries.
    pub(super) key: Option<Key>,
}

impl Primary {
    /// Asks for the serial number of the zone: by UDP a few times, and by TCP if the reply is cut or refuses. Where all is to go by
    /// connections, nothing goes by UDP.
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
            // All that there is to be had.
        } else if header.is_some_and(Header::is_truncated) {
            reply = self.connect(&query).await?.receive().await?;
        } else if header.is_some_and(|header| header.rcode() == Rcode::REFUSED)
            && let Ok(mut client) = self.connect(&query).await
            && let Ok(by_tcp) = client.receive().await
        {
            // Knot tells of catalog zones by TCP alone.
            reply = by_tcp;
        }
        if let Some(chain) = &mut chain {
            let verified = chain.verify(&reply, unix_now()).and_then(|()| chain.finish());
            verified.map_err(PrimaryError::Unsigned)?;
        }
        let rcode = Header::read(&reply).map_or(Rcode::FORMERR, Header::rcode);
        read_soa_reply(&reply, id, &self.zone).ok_or(PrimaryError::NoSerial(rcode))
    }

    /// Transfers the zone: what changed since the version that we have, if there is one. `on_progress` is called for each
    /// message.
    pub(super) async fn transfer(
        &self,
        known: Option<&Zone>,
        limit: usize,
        on_progress: impl Fn(),
    ) -> Result<Received, PrimaryError> {
        let id = rand::random();
        let mut query = Vec::new();
        let asked = write_transfer_query(id, &self.zone, known.and_then(Zone::soa), &mut query);
        let chain = self.sign(&mut query);
        let mut reader = Reader::new(self.zone.clone(), id, asked, chain, limit);
        let mut client = self.connect(&query).await?;
        loop {
            let message = client.receive().await?;
            on_progress();
            if let Progress::Done(received) = reader.take(&message, unix_now())? {
                return Ok(received);
            }
        }
    }

    /// Signs a query, if there is a key.
    fn sign(&self, query: &mut Vec<u8>) -> Option<ClientChain> {
        self.key.as_ref().map(|key| sign_query(key, unix_now(), query))
    }

    /// Asks by UDP until a reply comes, but not without end.
    async fn ask_by_udp(&self, query: &[u8]) -> Result<Vec<u8>, PrimaryError> {
        let client = UdpClient::bind(self.address.socket)?;
        client.connect().await?;
        let mut buffer = vec![0; MAX_REPLY];
        for _ in 0..SENDS {
            client.send(query).await?;
            let until = Instant::now() + SILENCE;
            match client.receive_by(until, &mut buffer, |message| is_reply_to(message, query)).await {
                Ok(len) => {
                    buffer.truncate(len);
                    return Ok(buffer);
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(PrimaryError::Silent)
    }

    /// A connection on which the query has been sent.
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

/// How long it may take to connect: thousands of zones may wait for a turn, and the next primary may be there. The kernel has sent
/// three SYN by then.
const CONNECT: Duration = Duration::from_secs(5);

/// How often a question is sent by UDP.
const SENDS: usize = 3;

/// How long a reply is waited for each time.
const SILENCE: Duration = Duration::from_secs(2);

/// Octets of the longest reply by UDP that is read whole.
const MAX_REPLY: usize = 4096;
