//! Transfers in: messages in, the new version of a zone out, or why there is none (RFC 5936 section 2.2, RFC 1995 section 4).
//!
//! A [`Reader`] takes the messages of one response until it says that it is done. What comes out is checked as far as a
//! transfer can be: ID, question, rcode, owners, the order of SOA records, TSIG to the last message, and size. Whether it makes
//! a zone is the zone store's question.

use std::fmt;

use super::difference::{Difference, Inexact};
use super::records::{Records, Soa};
use super::serial::Serial;
use super::tsig::{ClientChain, TsigFailure};
use crate::wire::{Message, Name, Rcode, RecordClass, RecordType, Section, SectionRecord};
use crate::zone::Record;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferKind {
    /// The whole zone.
    Axfr,
    /// What changed since this version.
    Ixfr {
        /// The version that we have.
        from: Serial,
    },
}

impl TransferKind {
    /// The type of the question.
    pub fn qtype(self) -> RecordType {
        match self {
            Self::Axfr => RecordType::AXFR,
            Self::Ixfr { .. } => RecordType::IXFR,
        }
    }
}

/// What came of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Our version is no older than the primary's.
    UpToDate,
    /// The primary has a newer version, which did not fit into a datagram (RFC 1995 section 2): ask by TCP.
    ComeByTcp,
    /// The whole new version, its SOA first.
    Whole(Records),
    /// What changed, as steps in a row, at least one.
    Steps(Vec<Difference>),
}

/// Whether more messages are to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Read on.
    More,
    /// This was the last.
    Done(Received),
}

/// Why a transfer failed. A failed IXFR is to be tried again as AXFR, whatever the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// Not a DNS message, a message cut short, or one to something else: ID, QR, question.
    NotOurs,
    /// The primary does not give the zone.
    Refused(Rcode),
    /// TSIG is missing or wrong.
    Tsig(TsigFailure),
    /// A message without any answer, which would let a primary keep us forever.
    Empty,
    /// The first record is no SOA of the zone.
    NoSoaFirst,
    /// A record of another class, outside the zone, or that is no data.
    NotOfTheZone,
    /// The SOA records are not in an order that makes sense, or something follows the last.
    OutOfOrder,
    /// More than the limit.
    TooLarge,
    /// The steps do not make sense.
    Inexact(Inexact),
    /// A message came after the last one, or after a failure.
    Over,
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOurs => f.write_str("its reply is broken, or to another question"),
            Self::Refused(rcode) => write!(f, "it does not give the zone: {rcode}"),
            Self::Tsig(failure) => write!(f, "its reply is not to be trusted: {failure}"),
            Self::Empty => f.write_str("a message without records"),
            Self::NoSoaFirst => f.write_str("the transfer does not begin with the SOA record of the zone"),
            Self::NotOfTheZone => f.write_str("a record that cannot be one of the zone"),
            Self::OutOfOrder => f.write_str("SOA records in an order that makes no sense"),
            Self::TooLarge => f.write_str("the zone is larger than max_size"),
            Self::Inexact(inexact) => write!(f, "differences that do not fit: {inexact}"),
            Self::Over => f.write_str("more came after the end"),
        }
    }
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
pub struct Reader {
    zone: Name,
    /// The ID of the query.
    id: u16,
    asked: TransferKind,
    /// Whether the response comes in one datagram.
    is_datagram: bool,
    /// The TSIG state, if the query was signed.
    chain: Option<ClientChain>,
    /// Where we are.
    state: State,
    /// Whether a message has come.
    is_started: bool,
    /// Octets of memory that the result may take.
    limit: usize,
    /// Octets of memory that it takes now.
    size: usize,
}

/// Where in a response a reader is.
#[derive(Debug)]
enum State {
    /// Before the first record.
    Nothing,
    /// Behind the first SOA.
    First(Records, Serial),
    /// In an AXFR, or an IXFR that came as one.
    Whole(Records, Serial),
    /// In an IXFR, in what goes.
    Removing {
        /// The newest version.
        to: Serial,
        /// The steps before this one.
        steps: Vec<Difference>,
        /// What goes.
        removed: Records,
    },
    /// In an IXFR, in what comes.
    Adding {
        /// The newest version.
        to: Serial,
        /// The steps before this one.
        steps: Vec<Difference>,
        /// What goes.
        removed: Records,
        /// What comes.
        added: Records,
    },
    /// At the end.
    Over(Received),
    /// It failed, or the result was taken.
    Ended,
}

impl Reader {
    /// Reads the response to a query with this ID, which was signed if there is a `chain`. The result may take about `limit`
    /// octets of memory.
    pub fn new(zone: Name, id: u16, asked: TransferKind, chain: Option<ClientChain>, limit: usize) -> Self {
        let zone = zone.folded();
        Self { zone, id, asked, is_datagram: false, chain, state: State::Nothing, is_started: false, limit, size: 0 }
    }

    /// The same for IXFR by UDP, where the response is one datagram.
    pub fn by_datagram(self) -> Self {
        Self { is_datagram: true, ..self }
    }

    /// Takes the next message. `now`: seconds since 1970, for TSIG. After a failure, the transfer is over.
    pub fn take(&mut self, octets: &[u8], now: u64) -> Result<Progress, TransferError> {
        let taken = self.try_take(octets, now);
        if taken.is_err() {
            self.state = State::Ended;
        }
        taken
    }

    /// Takes the next message.
    fn try_take(&mut self, octets: &[u8], now: u64) -> Result<Progress, TransferError> {
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

    /// Checks header and question.
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
            // RFC 5936 section 2.2.1: only messages after the first may leave it out. Old servers left it out of the first
            // too, but none that answers IXFR or TSIG.
            None if self.is_started => {}
            None => return Err(TransferError::NotOurs),
        }
        self.is_started = true;
        Ok(())
    }

    /// Takes one record.
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

    /// Says whether the message was the last, `answers` records long.
    fn finish_message(&mut self, answers: usize) -> Result<Progress, TransferError> {
        // A lone SOA that is not the start of more: nothing new, or no room.
        if let (State::First(_, serial), TransferKind::Ixfr { from }, 1) = (&self.state, self.asked, answers) {
            if !serial.is_newer_than(from) {
                self.state = State::Over(Received::UpToDate);
            } else if self.is_datagram {
                self.state = State::Over(Received::ComeByTcp);
            }
        }
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Over(received) => {
                // RFC 8945 section 5.3.1: the last message is signed, or what is behind the last signature is anybody's.
                if let Some(chain) = &self.chain {
                    chain.finish().map_err(TransferError::Tsig)?;
                }
                Ok(Progress::Done(received))
            }
            // A datagram has it all or nothing.
            _ if self.is_datagram => Err(TransferError::OutOfOrder),
            state => {
                self.state = state;
                Ok(Progress::More)
            }
        }
    }
}

impl State {
    /// The state after one more record, which is an SOA if `soa` has its serial.
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
                // A zone of an SOA alone. It has no NS and will not load, but was transferred in order.
                Ok(Self::Over(Received::Whole(first)))
            }
            (Self::First(_, to), Some(serial)) => match asked {
                TransferKind::Ixfr { from } if serial == from => {
                    Ok(Self::Removing { to, steps: Vec::new(), removed: one(record) })
                }
                TransferKind::Ixfr { .. } | TransferKind::Axfr => Err(TransferError::OutOfOrder),
            },
            (Self::First(first, to), None) => Ok(Self::Whole(with(first, record), to)),
            (Self::Whole(records, to), None) => Ok(Self::Whole(with(records, record), to)),
            // RFC 5936 section 2.2: first and last are the same SOA. If they are not, the zone changed meanwhile.
            (Self::Whole(records, to), Some(serial)) if serial == to => Ok(Self::Over(Received::Whole(records))),
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
                    return Ok(Self::Over(Received::Steps(steps)));
                }
                Ok(Self::Removing { to, steps, removed: one(record) })
            }
            (Self::Whole(..) | Self::Over(_) | Self::Ended, _) => Err(TransferError::OutOfOrder),
        }
    }
}

/// The largest TTL (RFC 2181 section 8).
const MAX_TTL: u32 = i32::MAX as u32;

/// Octets that a record takes besides its own: see `Records`.
const RECORD_OVERHEAD: usize = 24;
