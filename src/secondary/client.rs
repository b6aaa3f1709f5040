//! Asking a primary: for its SOA by UDP, for the zone by TCP. How long it may take is for whoever asks to say.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PrimaryError;
use crate::net::bind;
use crate::net::clock::unix_now;
use crate::transfer::tsig::{ClientChain, Key, sign_query};
use crate::transfer::{Progress, Reader, Received, Serial, read_soa_reply, write_transfer_query};
use crate::wire::{Header, Name, Rcode, RecordType, write_plain_query};
use crate::zone::Zone;

/// A server that a zone comes from.
pub(super) struct Primary {
    /// Where it is asked.
    pub(super) address: SocketAddr,
    pub(super) zone: Name,
    /// What signs the queries.
    pub(super) key: Option<Key>,
}

impl Primary {
    /// Asks for the serial number of the zone: by UDP a few times, and by TCP if the reply is cut.
    pub(super) async fn ask_serial(&self) -> Result<Serial, PrimaryError> {
        let id = rand::random();
        let mut query = Vec::new();
        write_plain_query(id, &self.zone, RecordType::SOA, &mut query);
        let mut chain = self.sign(&mut query);
        let mut reply = self.ask_by_udp(id, &query).await?;
        if Header::read(&reply).is_some_and(Header::is_truncated) {
            let mut stream = self.connect(&query).await?;
            reply = read_message(&mut stream).await?;
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
        let mut stream = self.connect(&query).await?;
        loop {
            let message = read_message(&mut stream).await?;
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

    /// Asks by UDP until something with this ID comes, but not without end.
    async fn ask_by_udp(&self, id: u16, query: &[u8]) -> Result<Vec<u8>, PrimaryError> {
        // A socket and so a port of its own for each question, and only the primary is heard (RFC 5452 section 9.2).
        let socket = bind::asking(self.address.is_ipv6())?;
        socket.connect(self.address).await?;
        let mut buffer = vec![0; MAX_REPLY];
        for _ in 0..SENDS {
            socket.send(query).await?;
            let reply = async {
                loop {
                    let len = socket.recv(&mut buffer).await?;
                    let is_ours = |header: &Header| header.is_response() && header.id() == id;
                    if buffer.get(..len).and_then(Header::read).as_ref().is_some_and(is_ours) {
                        return io::Result::Ok(len);
                    }
                }
            };
            if let Ok(len) = timeout(SILENCE, reply).await {
                buffer.truncate(len?);
                return Ok(buffer);
            }
        }
        Err(PrimaryError::Silent)
    }

    /// A connection on which the query has been sent.
    async fn connect(&self, query: &[u8]) -> Result<BufReader<TcpStream>, PrimaryError> {
        let mut stream = TcpStream::connect(self.address).await?;
        let length = u16::try_from(query.len()).unwrap_or_default();
        stream.write_all(&[&length.to_be_bytes()[..], query].concat()).await?;
        Ok(BufReader::with_capacity(READ_AHEAD, stream))
    }
}

/// Reads one message behind its length (RFC 1035 section 4.2.2).
async fn read_message(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// How often a question is sent by UDP.
const SENDS: usize = 3;

/// How long a reply is waited for each time.
const SILENCE: Duration = Duration::from_secs(2);

/// Octets of the longest reply by UDP that is read whole.
const MAX_REPLY: usize = 4096;

/// Octets read from a connection at a time.
const READ_AHEAD: usize = 64 << 10;
