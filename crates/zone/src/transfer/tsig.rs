//! TSIG (RFC 8945): authentication of messages.
//!
//! ```text
//!   client                                     server
//!   sign_query ──────── query, TSIG ─────────▶ verify_query ──▶ ServerChain or Refusal
//!   ClientChain::verify ◀── messages, TSIG ─── ServerChain::sign, once a message
//! ```
//!
//! A secret is never printed, and MACs are compared in constant time. `now` counts seconds since 1970.

use std::fmt;

use dns::{Flag, HEADER_LEN, Header, Message, Name, Rcode, RecordClass, RecordType, Section};
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use subtle::ConstantTimeEq;

use super::records::split_name;

mod chain;
mod key;

pub use chain::{ClientChain, ServerChain, TsigFailure, sign_query};
pub use key::{Algorithm, TsigKey, TsigKeys};

/// The error in the TSIG of a query. [`TsigRefusal::write`] writes the answer.
#[derive(Clone, Debug)]
pub struct TsigRefusal {
    /// The rcode of the response: FORMERR or NOTAUTH.
    pub rcode: Rcode,
    /// The error in the TSIG record of the response; NOERROR if it has none.
    pub error: Rcode,
    found: Option<Tsig>,
    key: Option<TsigKey>,
}

impl TsigRefusal {
    fn format() -> Self {
        Self { rcode: Rcode::FORMERR, error: Rcode::NOERROR, found: None, key: None }
    }

    /// Refuses a query with this error, signed if there is a key (RFC 8945 section 5.2).
    fn not_auth(error: Rcode, found: Tsig, key: Option<TsigKey>) -> Self {
        Self { rcode: Rcode::NOTAUTH, error, found: Some(found), key }
    }

    /// Returns the name of the error for people.
    pub fn error_name(&self) -> &'static str {
        match self.error {
            BADSIG => "BADSIG",
            Rcode::BADKEY => "BADKEY",
            Rcode::BADTIME => "BADTIME",
            Rcode::BADTRUNC => "BADTRUNC",
            _ => "FORMERR",
        }
    }

    /// Writes the response to `query` into `out`.
    pub fn write(&self, query: &[u8], now: u64, out: &mut Vec<u8>) {
        out.clear();
        let Some(header) = Header::read(query) else {
            return;
        };
        let question = Message::read(query).ok().and_then(|message| message.question);
        let header = header.to_response().with(Flag::CheckingDisabled, false).with_rcode(self.rcode);
        out.extend_from_slice(&header.with_counts([u16::from(question.is_some()), 0, 0, 0]).to_wire());
        out.extend_from_slice(question.map_or(&[], |question| question.as_wire()));
        let Some(found) = &self.found else {
            return;
        };
        let mut tsig = Tsig { error: self.error, mac: Vec::new(), other: Vec::new(), ..found.clone() };
        if self.error == Rcode::BADTIME {
            // RFC 8945 section 5.2.3: the response carries the client's time and the server's time.
            tsig.other = now.to_be_bytes()[2..].to_vec();
        } else {
            tsig.time = now;
        }
        if let Some(key) = &self.key {
            tsig.mac = key.mac(&[&prefixed(&found.mac)[..], out, &tsig.variables()].concat());
        }
        tsig.append(out);
    }
}

/// Returns true if a message has a TSIG record at its place, which is not verified here.
pub fn is_signed(message: &[u8]) -> bool {
    Tsig::find(message).is_ok_and(|found| found.is_some())
}

/// Verifies the signature of a query. `None` if the query is not signed.
pub fn verify_query(keys: &TsigKeys, query: &[u8], now: u64) -> Result<Option<ServerChain>, Box<TsigRefusal>> {
    let Some((tsig, start)) = Tsig::find(query).map_err(|NoTsig| Box::new(TsigRefusal::format()))? else {
        return Ok(None);
    };
    let refuse = |error, key, tsig| Box::new(TsigRefusal::not_auth(error, tsig, key));
    // RFC 8945 section 5.2.1: the key is unknown or has another algorithm.
    let Some(key) = keys.find(&tsig.owner, &tsig.algorithm) else {
        return Err(refuse(Rcode::BADKEY, None, tsig));
    };
    let signed = [&tsig.unsigned(query, start)[..], &tsig.variables()].concat();
    // RFC 8945 section 5.2.2.1: a MAC that is too short or too long is a format error.
    let full = key.mac(&signed);
    if tsig.mac.len() > full.len() || tsig.mac.len() < MIN_MAC.max(full.len() / 2) {
        return Err(Box::new(TsigRefusal::format()));
    }
    let is_right = full.get(..tsig.mac.len()).is_some_and(|full| bool::from(full.ct_eq(&tsig.mac)));
    if !is_right {
        return Err(refuse(BADSIG, None, tsig));
    }
    // RFC 8945 section 5.2.3: the time is checked after the MAC.
    if now.abs_diff(tsig.time) > u64::from(tsig.fudge) {
        return Err(refuse(Rcode::BADTIME, Some(key.clone()), tsig));
    }
    // RFC 8945 section 5.2.4: the server decides which truncated MACs it accepts. This one accepts none.
    if tsig.mac.len() < full.len() {
        return Err(refuse(Rcode::BADTRUNC, Some(key.clone()), tsig));
    }
    Ok(Some(ServerChain::new(key.clone(), tsig.mac)))
}

/// A TSIG record (RFC 8945 section 4.2).
#[derive(Clone)]
struct Tsig {
    owner: Name,
    algorithm: Name,
    time: u64,
    fudge: u16,
    mac: Vec<u8>,
    original_id: u16,
    error: Rcode,
    other: Vec<u8>,
}

struct NoTsig;

impl Tsig {
    fn new(key: &TsigKey, id: u16, now: u64) -> Self {
        Self {
            owner: key.name().clone(),
            algorithm: key.algorithm().name(),
            time: now & TIME_MASK,
            fudge: FUDGE,
            mac: Vec::new(),
            original_id: id,
            error: Rcode::NOERROR,
            other: Vec::new(),
        }
    }

    /// Returns the TSIG record of a message and its offset. RFC 8945 section 5.1: it is the last record of
    /// the additional section, and the only one.
    fn find(octets: &[u8]) -> Result<Option<(Self, usize)>, NoTsig> {
        let message = Message::read(octets).map_err(|_| NoTsig)?;
        let mut found = None;
        for record in message.records() {
            let record = record.map_err(|_| NoTsig)?;
            if found.is_some() {
                return Err(NoTsig);
            }
            if record.rtype != RecordType::TSIG {
                continue;
            }
            if record.section != Section::Additional || record.class != RecordClass::ANY || record.ttl != 0 {
                return Err(NoTsig);
            }
            let tsig = Self::read(record.owner, &record.rdata).ok_or(NoTsig)?;
            found = Some((tsig, record.start));
        }
        Ok(found)
    }

    fn read(owner: Name, rdata: &[u8]) -> Option<Self> {
        let (algorithm, rest) = split_name(rdata)?;
        let (&[t0, t1, t2, t3, t4, t5, f0, f1, m0, m1], rest) = rest.split_first_chunk()?;
        let (mac, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([m0, m1])))?;
        let (&[i0, i1, e0, e1, o0, o1], other) = rest.split_first_chunk()?;
        (other.len() == usize::from(u16::from_be_bytes([o0, o1]))).then_some(())?;
        Some(Self {
            owner,
            algorithm: Name::from_wire(algorithm).ok()?,
            time: u64::from_be_bytes([0, 0, t0, t1, t2, t3, t4, t5]),
            fudge: u16::from_be_bytes([f0, f1]),
            mac: mac.to_vec(),
            original_id: u16::from_be_bytes([i0, i1]),
            error: Rcode(u16::from_be_bytes([e0, e1])),
            other: other.to_vec(),
        })
    }

    /// Returns the signed form of the message: without this record, which starts at `start`, and with the
    /// original ID (RFC 8945 section 4.3.2).
    fn unsigned(&self, octets: &[u8], start: usize) -> Vec<u8> {
        let mut unsigned = octets.get(..start).unwrap_or_default().to_vec();
        if let Some(header) = Header::read(&unsigned) {
            let counts = [header.qdcount(), header.ancount(), header.nscount(), header.arcount().saturating_sub(1)];
            unsigned[..HEADER_LEN].copy_from_slice(&header.with_id(self.original_id).with_counts(counts).to_wire());
        }
        unsigned
    }

    /// Returns the time of the server, which a BADTIME response carries (RFC 8945 section 5.2.3).
    fn server_time(&self) -> Option<u64> {
        let &[t0, t1, t2, t3, t4, t5] = self.other.first_chunk().filter(|time| time.len() == self.other.len())?;
        Some(u64::from_be_bytes([0, 0, t0, t1, t2, t3, t4, t5]))
    }

    /// Returns the signed fields for the first message (RFC 8945 section 4.3.3), names in canonical form.
    fn variables(&self) -> Vec<u8> {
        let mut out = self.owner.folded().as_wire().to_vec();
        out.extend_from_slice(&RecordClass::ANY.0.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(self.algorithm.folded().as_wire());
        out.extend_from_slice(&self.timers());
        out.extend_from_slice(&self.error.0.to_be_bytes());
        out.extend_from_slice(&prefixed(&self.other));
        out
    }

    /// Returns the signed fields of this record for later messages (RFC 8945 section 4.3.3.1).
    fn timers(&self) -> [u8; 8] {
        let [_, _, t0, t1, t2, t3, t4, t5] = self.time.to_be_bytes();
        let [f0, f1] = self.fudge.to_be_bytes();
        [t0, t1, t2, t3, t4, t5, f0, f1]
    }

    fn append(&self, message: &mut Vec<u8>) {
        let rdata = [
            self.algorithm.as_wire(),
            &self.timers(),
            &prefixed(&self.mac),
            &self.original_id.to_be_bytes(),
            &self.error.0.to_be_bytes(),
            &prefixed(&self.other),
        ]
        .concat();
        message.extend_from_slice(self.owner.as_wire());
        message.extend_from_slice(&RecordType::TSIG.0.to_be_bytes());
        message.extend_from_slice(&RecordClass::ANY.0.to_be_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(&prefixed(&rdata));
        if let Some(header) = Header::read(message) {
            let arcount = header.arcount().saturating_add(1);
            let counts = [header.qdcount(), header.ancount(), header.nscount(), arcount];
            message[..HEADER_LEN].copy_from_slice(&header.with_counts(counts).to_wire());
        }
    }
}

impl fmt::Debug for Tsig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tsig({}, {}, {})", self.owner, self.time, self.error)
    }
}

fn prefixed(octets: &[u8]) -> Vec<u8> {
    [&(octets.len() as u16).to_be_bytes()[..], octets].concat()
}

/// Bytes of the largest TSIG record that hedgerow writes: two names, 64 bytes of MAC, and the fixed parts.
pub const ROOM: usize = 2 * Name::MAX_LEN + 64 + 64;

/// Allowed clock difference in seconds, as RFC 8945 section 10 recommends.
const FUDGE: u16 = 300;

/// BADSIG (RFC 8945 section 3). 16 is also BADVERS, its meaning in an OPT record.
const BADSIG: Rcode = Rcode(16);

const TIME_MASK: u64 = (1 << 48) - 1;

/// The shortest valid MAC in bytes (RFC 8945 section 5.2.2.1).
const MIN_MAC: usize = 10;

fn library_algorithm(algorithm: Algorithm) -> TsigAlgorithm {
    match algorithm {
        Algorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
        Algorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
    }
}
