//! Transfers in: from messages to the new version of a zone or an error (RFC 5936 section 2.2, RFC 1995
//! section 4). A [`TransferReader`] checks the messages of one response. The zone store checks the zone.

use super::difference::{Difference, Inexact};
use super::records::{Records, Soa};
use super::serial::Serial;
use super::tsig::{ClientChain, TsigFailure};
use crate::wire::{Message, Name, Rcode, RecordClass, RecordType, Section, SectionRecord};
use crate::zone::Record;

/// The kind of a transfer query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferKind {
    /// The whole zone.
    Axfr,
    /// The changes since a version.
    Ixfr {
        /// The serial of the present version.
        from: Serial,
    },
}

impl TransferKind {
    /// Returns the type of the question.
    pub fn qtype(self) -> RecordType {
        match self {
            Self::Axfr => RecordType::AXFR,
            Self::Ixfr { .. } => RecordType::IXFR,
        }
    }
}

/// The result of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferResult {
    /// The primary has no newer version.
    UpToDate,
    /// The newer version did not fit into a datagram (RFC 1995 section 2): repeat by TCP.
    ComeByTcp,
    /// The whole new version, its SOA first.
    Whole(Records),
    /// Consecutive steps, at least one.
    Steps(Vec<Difference>),
}

/// The state of a transfer after a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferProgress {
    /// More messages follow.
    More,
    /// The transfer is complete.
    Done(TransferResult),
}

/// The reason that a transfer failed. After a failed IXFR, try AXFR for any reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The message is malformed or not a response to the query: ID, QR, question.
    #[error("its reply is malformed, or answers another question")]
    NotOurs,
    /// The primary refused with this rcode.
    #[error("it refuses the zone: {0}")]
    Refused(Rcode),
    /// TSIG is missing or wrong.
    #[error("its reply is not to be trusted: {0}")]
    Tsig(TsigFailure),
    /// A message without any answer, which would let a primary keep the transfer open forever.
    #[error("a message without records")]
    Empty,
    /// The first record is no SOA of the zone.
    #[error("the transfer does not begin with the SOA record of the zone")]
    NoSoaFirst,
    /// A record of another class, outside the zone, or of a meta-type.
    #[error("a record that cannot be one of the zone")]
    NotOfTheZone,
    /// The order of the SOA records is invalid, or a record follows the last.
    #[error("SOA records in an invalid order")]
    OutOfOrder,
    /// The result is larger than the limit.
    #[error("the zone is larger than max_size")]
    TooLarge,
    /// The steps do not fit together.
    #[error("the differences do not apply: {0}")]
    Inexact(Inexact),
    /// A message after the last one, or after a failure.
    #[error("more came after the end")]
    Over,
}

/// Reads the response to one transfer query.
///
/// ```text
///                  SOA                     SOA of the version that we have
///   ──▶ Nothing ───────▶ First ────────────────────────────────────▶ Removing ◀─┐
///                          │ anything else                      SOA │           │ SOA, older than the first
///                          ▼                                        ▼           │
///                        Whole ──── SOA, as the first ──▶ Over ◀── Adding ──────┘
///                                                           SOA, as the first
/// ```
#[derive(Debug)]
pub struct TransferReader {
    zone: Name,
    id: u16,
    asked: TransferKind,
    is_datagram: bool,
    chain: Option<ClientChain>,
    state: State,
    is_started: bool,
    limit: usize,
    size: usize,
}

#[derive(Debug)]
enum State {
    Nothing,
    First(Records, Serial),
    Whole(Records, Serial),
    Removing { to: Serial, steps: Vec<Difference>, removed: Records },
    Adding { to: Serial, steps: Vec<Difference>, removed: Records, added: Records },
    Over(TransferResult),
    Ended,
}

impl TransferReader {
    /// Reads the response to a query with this ID. The result may use about `limit` bytes of memory.
    pub fn new(zone: Name, id: u16, asked: TransferKind, chain: Option<ClientChain>, limit: usize) -> Self {
        let zone = zone.folded();
        Self { zone, id, asked, is_datagram: false, chain, state: State::Nothing, is_started: false, limit, size: 0 }
    }

    /// Expects an IXFR by UDP, with a response of one datagram.
    pub fn by_datagram(self) -> Self {
        Self { is_datagram: true, ..self }
    }

    /// Processes the next message. `now` is in seconds since 1970, for TSIG. A failure ends the transfer.
    pub fn take(&mut self, octets: &[u8], now: u64) -> Result<TransferProgress, TransferError> {
        let taken = self.try_take(octets, now);
        if taken.is_err() {
            self.state = State::Ended;
        }
        taken
    }

    fn try_take(&mut self, octets: &[u8], now: u64) -> Result<TransferProgress, TransferError> {
        if matches!(self.state, State::Over(_) | State::Ended) {
            return Err(TransferError::Over);
        }
        let message = Message::read(octets).map_err(|_| TransferError::NotOurs)?;
        if let Some(chain) = &mut self.chain {
            chain.verify(octets, now).map_err(TransferError::Tsig)?;
        }
        self.check_head(&message)?;
        let mut answers = 0;
        for record in message.records() {
            let record = record.map_err(|_| TransferError::NotOurs)?;
            // RFC 5936 section 2.2: only the answer section has records of the zone.
            if record.section == Section::Answer {
                answers += 1;
                self.take_record(&record)?;
            }
        }
        if answers == 0 {
            return Err(TransferError::Empty);
        }
        self.finish_message(answers)
    }

    fn check_head(&mut self, message: &Message<'_>) -> Result<(), TransferError> {
        let header = message.header;
        if header.id() != self.id || !header.is_response() || header.is_truncated() {
            return Err(TransferError::NotOurs);
        }
        if header.rcode() != Rcode::NOERROR {
            return Err(TransferError::Refused(header.rcode()));
        }
        match message.question {
            Some(question) => {
                let is_ours = question.qtype() == self.asked.qtype()
                    && question.qclass() == RecordClass::IN
                    && question.qname().eq_ignore_ascii_case(self.zone.as_wire());
                if !is_ours {
                    return Err(TransferError::NotOurs);
                }
            }
            // RFC 5936 section 2.2.1: only messages after the first may leave it out. Old servers left it out
            // of the first too, but not those with IXFR or TSIG.
            None if self.is_started => {}
            None => return Err(TransferError::NotOurs),
        }
        self.is_started = true;
        Ok(())
    }

    fn take_record(&mut self, record: &SectionRecord) -> Result<(), TransferError> {
        let is_ttl = record.ttl <= MAX_TTL;
        if record.class != RecordClass::IN
            || record.rtype.is_meta()
            || !record.owner.folded().is_at_or_below(&self.zone)
        {
            return Err(TransferError::NotOfTheZone);
        }
        let owner = record.owner.as_wire();
        // RFC 2181 section 8: a TTL with the highest bit set is 0.
        let ttl = if is_ttl { record.ttl } else { 0 };
        let plain = Record { owner, rtype: record.rtype, ttl, rdata: &record.rdata };
        self.size += owner.len() + record.rdata.len() + RECORD_OVERHEAD;
        if self.size > self.limit {
            return Err(TransferError::TooLarge);
        }
        let soa = match record.rtype {
            RecordType::SOA => {
                let is_apex = owner.eq_ignore_ascii_case(self.zone.as_wire());
                let soa = Soa::of(&plain).filter(|_| is_apex);
                Some(soa.ok_or(TransferError::OutOfOrder)?.serial)
            }
            _ => None,
        };
        self.state = std::mem::replace(&mut self.state, State::Ended).next(self.asked, plain, soa)?;
        Ok(())
    }

    fn finish_message(&mut self, answers: usize) -> Result<TransferProgress, TransferError> {
        // A lone SOA without more records: no new version, or no room.
        if let (State::First(_, serial), TransferKind::Ixfr { from }, 1) = (&self.state, self.asked, answers) {
            if !serial.is_newer_than(from) {
                self.state = State::Over(TransferResult::UpToDate);
            } else if self.is_datagram {
                self.state = State::Over(TransferResult::ComeByTcp);
            }
        }
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Over(received) => {
                // RFC 8945 section 5.3.1: messages behind the last signature may be forged.
                if let Some(chain) = &self.chain {
                    chain.finish().map_err(TransferError::Tsig)?;
                }
                Ok(TransferProgress::Done(received))
            }
            _ if self.is_datagram => Err(TransferError::OutOfOrder),
            state => {
                self.state = state;
                Ok(TransferProgress::More)
            }
        }
    }
}

impl State {
    fn next(self, asked: TransferKind, record: Record<'_>, soa: Option<Serial>) -> Result<Self, TransferError> {
        let one = |record| std::iter::once(record).collect::<Records>();
        let with = |mut records: Records, record| {
            records.push(record);
            records
        };
        match (self, soa) {
            (Self::Nothing, Some(serial)) => Ok(Self::First(one(record), serial)),
            (Self::Nothing, None) => Err(TransferError::NoSoaFirst),
            (Self::First(first, to), Some(serial)) if serial == to => {
                // A zone of an SOA alone. It has no NS and does not load, but the transfer is in order.
                Ok(Self::Over(TransferResult::Whole(first)))
            }
            (Self::First(_, to), Some(serial)) => match asked {
                TransferKind::Ixfr { from } if serial == from => {
                    Ok(Self::Removing { to, steps: Vec::new(), removed: one(record) })
                }
                TransferKind::Ixfr { .. } | TransferKind::Axfr => Err(TransferError::OutOfOrder),
            },
            (Self::First(first, to), None) => Ok(Self::Whole(with(first, record), to)),
            (Self::Whole(records, to), None) => Ok(Self::Whole(with(records, record), to)),
            // RFC 5936 section 2.2: first and last SOA are equal, or else the zone changed meanwhile.
            (Self::Whole(records, to), Some(serial)) if serial == to => Ok(Self::Over(TransferResult::Whole(records))),
            (Self::Removing { to, steps, removed }, None) => {
                Ok(Self::Removing { to, steps, removed: with(removed, record) })
            }
            (Self::Removing { to, steps, removed }, Some(_)) => {
                Ok(Self::Adding { to, steps, removed, added: one(record) })
            }
            (Self::Adding { to, steps, removed, added }, None) => {
                Ok(Self::Adding { to, steps, removed, added: with(added, record) })
            }
            (Self::Adding { to, mut steps, removed, added }, Some(serial)) => {
                let step = Difference::new(removed, added).map_err(TransferError::Inexact)?;
                // Each step ends where the next begins, and the last one at the newest version.
                if step.to() != serial {
                    return Err(TransferError::OutOfOrder);
                }
                steps.push(step);
                if serial == to {
                    return Ok(Self::Over(TransferResult::Steps(steps)));
                }
                Ok(Self::Removing { to, steps, removed: one(record) })
            }
            (Self::Whole(..) | Self::Over(_) | Self::Ended, _) => Err(TransferError::OutOfOrder),
        }
    }
}

/// The largest TTL (RFC 2181 section 8).
const MAX_TTL: u32 = i32::MAX as u32;

const RECORD_OVERHEAD: usize = 24;
