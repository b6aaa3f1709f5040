//! The chain of signatures from a query through the messages of its response (RFC 8945 section 5.3).

use dns::{Header, Rcode};
use subtle::ConstantTimeEq;

use super::{BADSIG, TIME_MASK, Tsig, TsigKey, prefixed};

/// Signs a query in place. The returned chain verifies the response.
pub fn sign_query(key: &TsigKey, now: u64, query: &mut Vec<u8>) -> ClientChain {
    let id = Header::read(query).map_or(0, Header::id);
    let mut tsig = Tsig::new(key, id, now);
    tsig.mac = key.mac(&[&query[..], &tsig.variables()].concat());
    tsig.append(query);
    ClientChain { key: key.clone(), previous: tsig.mac, pending: Vec::new(), unsigned: 0, is_first: true, last_time: 0 }
}

/// The server's side of an exchange: signs the messages of the response.
#[derive(Clone, Debug)]
pub struct ServerChain {
    key: TsigKey,
    previous: Vec<u8>,
    is_first: bool,
}

impl ServerChain {
    pub(super) fn new(key: TsigKey, query_mac: Vec<u8>) -> Self {
        Self { key, previous: query_mac, is_first: true }
    }

    /// Returns the key of the query.
    pub fn key(&self) -> &TsigKey {
        &self.key
    }

    /// Signs the next message of the response in place. RFC 8945 section 5.3.1 allows 99 of 100 messages
    /// without a signature, but a receiver must then keep up to 99 messages that may be forged.
    pub fn sign(&mut self, now: u64, message: &mut Vec<u8>) {
        let id = Header::read(message).map_or(0, Header::id);
        let mut tsig = Tsig::new(&self.key, id, now);
        tsig.mac = self.key.mac(&digest(&self.previous, &[], message, &tsig, self.is_first));
        tsig.append(message);
        self.previous = tsig.mac;
        self.is_first = false;
    }
}

/// The client's side of an exchange: verifies the messages of the response.
#[derive(Clone, Debug)]
pub struct ClientChain {
    key: TsigKey,
    previous: Vec<u8>,
    pending: Vec<u8>,
    unsigned: usize,
    is_first: bool,
    last_time: u64,
}

/// The reason that a response is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TsigFailure {
    /// The TSIG record cannot be read or is not the last record.
    #[error("its TSIG record is broken")]
    Format,
    /// A required TSIG record is missing.
    #[error("it is not signed, does the primary have the key?")]
    Missing,
    /// The signature is from another key.
    #[error("it is signed by another key")]
    OtherKey,
    /// The MAC is wrong or truncated.
    #[error("its signature is wrong, is the secret the same?")]
    BadMac,
    /// The signature is too old, in the future, or earlier than the previous one.
    #[error("it was signed at another time, do the clocks agree?")]
    BadTime,
    /// The clock of the server differs too much. The rejection is signed.
    #[error(
        "the clocks of the primary and this host differ (BADTIME): synchronize them, the primary has {0} (Unix time)"
    )]
    OtherClock(u64),
    /// The server rejected the TSIG of the query. An unsigned rejection may be forged.
    #[error("{}", rejection(*.0))]
    Refused(Rcode),
}

fn rejection(rcode: Rcode) -> String {
    let text = match rcode {
        BADSIG => "the primary rejects the signature (BADSIG): use the same secret on both sides",
        Rcode::BADKEY => {
            "the primary does not know the key (BADKEY): use the same key name and algorithm on both sides"
        }
        Rcode::BADTIME => "the clocks of the primary and this host differ (BADTIME): synchronize them",
        other => return format!("the primary rejects the signature: {other}"),
    };
    text.to_owned()
}

impl ClientChain {
    /// Verifies the next message of the response. An unsigned message is verified only with the next signed
    /// one, so do not use any of a response before [`ClientChain::finish`].
    pub fn verify(&mut self, message: &[u8], now: u64) -> Result<(), TsigFailure> {
        let Some((tsig, start)) = Tsig::find(message).map_err(|_| TsigFailure::Format)? else {
            // RFC 8945 section 5.3.1: the first is signed, and so is at least every 100th.
            self.unsigned += 1;
            if self.is_first || self.unsigned > MAX_UNSIGNED {
                return Err(TsigFailure::Missing);
            }
            self.pending.extend_from_slice(message);
            return Ok(());
        };
        let is_ours = tsig.owner.folded() == *self.key.name() && tsig.algorithm.folded() == self.key.algorithm().name();
        // RFC 8945 section 5.3.2: BADKEY and BADSIG come without a MAC.
        if tsig.mac.is_empty() && matches!(tsig.error, Rcode::BADKEY | BADSIG) {
            return Err(TsigFailure::Refused(tsig.error));
        }
        if !is_ours {
            return Err(TsigFailure::OtherKey);
        }
        let unsigned = tsig.unsigned(message, start);
        let mac = self.key.mac(&digest(&self.previous, &self.pending, &unsigned, &tsig, self.is_first));
        if !bool::from(mac.ct_eq(&tsig.mac)) {
            return Err(TsigFailure::BadMac);
        }
        if tsig.error != Rcode::NOERROR {
            let theirs = tsig.server_time().filter(|_| tsig.error == Rcode::BADTIME);
            return Err(theirs.map_or(TsigFailure::Refused(tsig.error), TsigFailure::OtherClock));
        }
        // RFC 8945 section 5.3.1: the times of a response never go back.
        if (now & TIME_MASK).abs_diff(tsig.time) > u64::from(tsig.fudge) || tsig.time < self.last_time {
            return Err(TsigFailure::BadTime);
        }
        self.previous = tsig.mac;
        self.last_time = tsig.time;
        self.pending.clear();
        self.unsigned = 0;
        self.is_first = false;
        Ok(())
    }

    /// Returns `Ok` if the whole response is verified: the last message was signed (RFC 8945 section 5.3.1).
    pub fn finish(&self) -> Result<(), TsigFailure> {
        if self.is_first || self.unsigned > 0 { Err(TsigFailure::Missing) } else { Ok(()) }
    }
}

/// Returns the input of a message's MAC (RFC 8945 section 5.3 and section 5.3.1).
fn digest(previous: &[u8], pending: &[u8], unsigned: &[u8], tsig: &Tsig, is_first: bool) -> Vec<u8> {
    let said = if is_first { tsig.variables() } else { tsig.timers().to_vec() };
    [&prefixed(previous), pending, unsigned, &said[..]].concat()
}

const MAX_UNSIGNED: usize = 99;
