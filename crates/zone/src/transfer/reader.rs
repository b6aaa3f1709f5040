//! Transfers in: from messages to the new version of a zone or an error (RFC 5936 section 2.2, RFC 1995
//! section 4). A [`TransferReader`] checks the messages of one response. The zone store checks the zone.

use crate::{Record, Records};
use dns::{Message, Name, Rcode, RecordClass, RecordType, Section, SectionRecord};

use super::difference::{Difference, Inexact};
use super::records::{Serial, Soa};
use super::tsig::{ClientChain, TsigFailure};

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
    pub(crate) fn qtype(self) -> RecordType {
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
    /// A message without answer and without OPT, which would let a primary keep the transfer open forever.
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
    chain: Option<ClientChain>,
    stage: TransferStage,
    is_started: bool,
    limit: usize,
    size: usize,
    /// The serial of the first SOA record, that of the newest version.
    newest: Serial,
    steps: Vec<Difference>,
    /// The removed records of the step whose added records follow.
    removed: Records,
    /// The records read since the last SOA record that begins a side.
    records: Records,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransferStage {
    Nothing,
    First,
    Whole,
    Removing,
    Adding,
    Over,
    Ended,
}

impl TransferReader {
    /// Reads the response to a query with this ID. The result may use about `limit` bytes of memory.
    pub fn new(zone: Name, id: u16, asked: TransferKind, chain: Option<ClientChain>, limit: usize) -> Self {
        Self {
            zone: zone.folded(),
            id,
            asked,
            chain,
            stage: TransferStage::Nothing,
            is_started: false,
            limit,
            size: 0,
            newest: Serial(0),
            steps: Vec::new(),
            removed: Records::new(),
            records: Records::new(),
        }
    }

    /// Processes the next message. `now` is in seconds since 1970, for TSIG. A failure ends the transfer.
    pub fn take(&mut self, octets: &[u8], now: u64) -> Result<TransferProgress, TransferError> {
        let taken = self.try_take(octets, now);
        if taken.is_err() {
            self.stage = TransferStage::Ended;
        }
        taken
    }

    fn try_take(&mut self, octets: &[u8], now: u64) -> Result<TransferProgress, TransferError> {
        if matches!(self.stage, TransferStage::Over | TransferStage::Ended) {
            return Err(TransferError::Over);
        }
        let message = Message::read(octets).map_err(|_| TransferError::NotOurs)?;
        if let Some(chain) = &mut self.chain {
            chain.verify(octets, now).map_err(TransferError::Tsig)?;
        }
        self.check_head(&message)?;
        let (mut answers, mut has_opt) = (0, false);
        for record in message.records() {
            let record = record.map_err(|_| TransferError::NotOurs)?;
            has_opt |= record.rtype == RecordType::OPT;
            // RFC 5936 section 2.2: only the answer section has records of the zone.
            if record.section == Section::Answer {
                answers += 1;
                self.take_record(&record)?;
            }
        }
        match (answers, has_opt) {
            // RFC 9103 section 7.9.1: a message may have padding alone. It counts toward the limit.
            (0, true) => self.count(octets.len()).map(|()| TransferProgress::More),
            (0, false) => Err(TransferError::Empty),
            (answers, _) => self.finish_message(answers),
        }
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
        if record.class != RecordClass::IN
            || record.rtype.is_meta()
            || !record.owner.folded().is_at_or_below(&self.zone)
        {
            return Err(TransferError::NotOfTheZone);
        }
        let owner = record.owner.as_wire();
        // RFC 2181 section 8: a TTL with the highest bit set is 0.
        let ttl = if record.ttl <= MAX_TTL { record.ttl } else { 0 };
        self.count(owner.len() + record.rdata.len() + RECORD_OVERHEAD)?;
        let soa = match record.rtype {
            RecordType::SOA => {
                let is_apex = owner.eq_ignore_ascii_case(self.zone.as_wire());
                let soa = Soa::in_message(record).filter(|_| is_apex);
                Some(soa.ok_or(TransferError::OutOfOrder)?.serial)
            }
            _ => None,
        };
        self.advance(Record { owner, rtype: record.rtype, ttl, rdata: &record.rdata }, soa)
    }

    fn count(&mut self, octets: usize) -> Result<(), TransferError> {
        self.size += octets;
        if self.size > self.limit { Err(TransferError::TooLarge) } else { Ok(()) }
    }

    /// Advances by one record. `soa` is its serial if it is an SOA record.
    fn advance(&mut self, record: Record<'_>, soa: Option<Serial>) -> Result<(), TransferError> {
        use TransferStage::{Adding, Ended, First, Nothing, Over, Removing, Whole};
        self.stage = match (self.stage, soa) {
            (Nothing, None) => return Err(TransferError::NoSoaFirst),
            (Nothing, Some(serial)) => {
                self.newest = serial;
                First
            }
            // RFC 5936 section 2.2: first and last SOA are equal, or else the zone changed meanwhile. A zone
            // of an SOA alone has no NS and does not load, but the transfer is in order.
            (First | Whole, Some(serial)) if serial == self.newest => {
                self.stage = Over;
                return Ok(());
            }
            (First, Some(from)) if self.asked == TransferKind::Ixfr { from } => {
                self.records = Records::new();
                Removing
            }
            (First | Whole, None) => Whole,
            (Removing, Some(_)) => {
                self.removed = std::mem::take(&mut self.records);
                Adding
            }
            (Adding, Some(serial)) => {
                let (removed, added) = (std::mem::take(&mut self.removed), std::mem::take(&mut self.records));
                let step = Difference::new(removed, added).map_err(TransferError::Inexact)?;
                // Each step ends where the next begins, and the last one at the newest version.
                if step.to != serial {
                    return Err(TransferError::OutOfOrder);
                }
                self.steps.push(step);
                if serial == self.newest { Over } else { Removing }
            }
            (Removing | Adding, None) => self.stage,
            (First | Whole, Some(_)) | (Over | Ended, _) => return Err(TransferError::OutOfOrder),
        };
        self.records.push(record);
        Ok(())
    }

    fn finish_message(&mut self, answers: usize) -> Result<TransferProgress, TransferError> {
        let received = match (self.stage, self.asked) {
            (TransferStage::Over, _) if self.steps.is_empty() => {
                TransferResult::Whole(std::mem::take(&mut self.records))
            }
            (TransferStage::Over, _) => TransferResult::Steps(std::mem::take(&mut self.steps)),
            // A lone SOA without more records: no new version.
            (TransferStage::First, TransferKind::Ixfr { from }) if answers == 1 && !self.newest.is_newer_than(from) => {
                TransferResult::UpToDate
            }
            _ => return Ok(TransferProgress::More),
        };
        self.stage = TransferStage::Ended;
        // RFC 8945 section 5.3.1: messages behind the last signature may be forged.
        if let Some(chain) = &self.chain {
            chain.finish().map_err(TransferError::Tsig)?;
        }
        Ok(TransferProgress::Done(received))
    }
}

/// The largest TTL (RFC 2181 section 8).
const MAX_TTL: u32 = i32::MAX as u32;

const RECORD_OVERHEAD: usize = 24;
