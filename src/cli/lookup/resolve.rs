//! From a question to its records: follows a CNAME chain, within the replies and by further queries.

use std::fmt;
use std::io;
use std::time::Duration;

use super::exchange::{Answer, Exchange, Lost, Server};
use super::list::Question;
use super::message::Record;
use crate::wire::{Name, Rcode, RecordClass, RecordType, eq_ignore_case};

/// Looks a question up; with `follow`, a CNAME chain is followed by further queries.
///
/// ```text
/// ask for the name
/// lost?                                  that is the verdict
/// walk the CNAMEs in the answer from the name as far as they lead
/// came back to a name seen before?       loop
/// an rcode other than NOERROR?           that is the verdict
/// records of the type at the end?        answered
/// led nowhere new?                       not found
/// ask for the end of the chain, at most 8 times
/// ```
pub(super) async fn resolve(server: &Server, question: &Question, follow: bool) -> io::Result<Resolution> {
    let mut resolution = Resolution {
        verdict: Verdict::ChainTooLong,
        chain: vec![question.name.clone()],
        rtype: question.rtype,
        answers: Vec::new(),
        last: None,
        tries: 0,
        elapsed: Duration::ZERO,
        ignored: 0,
    };
    for _ in 0..=MAX_MORE_QUERIES {
        let exchange = server.ask(resolution.end(), question.rtype).await?;
        if let Some(verdict) = resolution.take_in(exchange, follow) {
            resolution.verdict = verdict;
            break;
        }
    }
    Ok(resolution)
}

/// What a look-up came to.
#[derive(Debug)]
pub(super) struct Resolution {
    /// The short of it.
    pub(super) verdict: Verdict,
    /// The name asked for and all that its CNAMEs led to. Never empty.
    chain: Vec<Name>,
    /// The type asked for.
    rtype: RecordType,
    /// The answer sections of all replies, moved here from them. Not filled when chains are not followed.
    answers: Vec<Record>,
    /// The last reply.
    pub(super) last: Option<Answer>,
    /// Tries made, over all queries.
    pub(super) tries: u32,
    /// Time taken, over all queries.
    pub(super) elapsed: Duration,
    /// Datagrams that came but did not match or did not parse.
    pub(super) ignored: u64,
}

impl Resolution {
    /// All records of the answer sections, chain included.
    pub(super) fn answers(&self) -> &[Record] {
        &self.answers
    }

    /// The records asked for, at the end of the chain.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &Record> {
        self.answers.iter().filter(|record| self.is_wanted(record))
    }

    /// Takes in how one query went; `None` if the chain leads on.
    fn take_in(&mut self, exchange: Exchange, follow: bool) -> Option<Verdict> {
        self.tries += exchange.tries;
        self.elapsed += exchange.elapsed;
        self.ignored += exchange.ignored;
        let mut answer = match exchange.outcome {
            Ok(answer) => answer,
            Err(lost) => return Some(Verdict::Lost(lost)),
        };
        let rcode = answer.reply.rcode;
        let walk = self.walk(&answer.reply.answers);
        if follow {
            self.answers.append(&mut answer.reply.answers);
        }
        self.last = Some(answer);
        match (rcode, walk) {
            (_, Walk::Loop) => Some(Verdict::ChainLoops),
            (_, Walk::TooLong) => Some(Verdict::ChainTooLong),
            (Rcode::NOERROR, Walk::Found) => Some(Verdict::Answered),
            (Rcode::NOERROR, Walk::NothingNew) => Some(Verdict::NotFound),
            (Rcode::NOERROR, Walk::Moved) => (!follow).then_some(Verdict::Answered),
            // RFC 6604 section 3: with a chain in the answer, the rcode is that of its end.
            (Rcode::NXDOMAIN, Walk::Found | Walk::Moved | Walk::NothingNew) => Some(Verdict::NotFound),
            (rcode, Walk::Found | Walk::Moved | Walk::NothingNew) => Some(Verdict::Failed(rcode)),
        }
    }

    /// The name at the end of the chain.
    fn end(&self) -> &Name {
        self.chain.last().expect("a chain begins with the name asked for")
    }

    /// Whether the name at the end of the chain owns a record.
    fn is_at_end(&self, record: &Record) -> bool {
        record.class == RecordClass::IN && is_same(&record.owner, self.end())
    }

    /// Whether a record is of the type asked for and at the end of the chain.
    fn is_wanted(&self, record: &Record) -> bool {
        self.is_at_end(record) && (record.rtype == self.rtype || self.rtype == RecordType::ANY)
    }

    /// Follows the chain through one answer section, whatever the order of its records.
    fn walk(&mut self, answers: &[Record]) -> Walk {
        let before = self.chain.len();
        loop {
            if answers.iter().any(|record| self.is_wanted(record)) {
                return Walk::Found;
            }
            let here = answers.iter().filter(|record| self.is_at_end(record));
            let Some(target) = here.filter_map(|record| record.target.clone()).next() else {
                return if self.chain.len() > before { Walk::Moved } else { Walk::NothingNew };
            };
            if self.chain.iter().any(|known| is_same(known, &target)) {
                return Walk::Loop;
            }
            if self.chain.len() > MAX_LINKS {
                return Walk::TooLong;
            }
            self.chain.push(target);
        }
    }
}

/// Whether two names are equal, in whatever case (RFC 4343 section 3).
fn is_same(a: &Name, b: &Name) -> bool {
    eq_ignore_case(a.as_wire(), b.as_wire())
}

/// How far an answer section led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    /// To records of the type asked for.
    Found,
    /// Along a CNAME, to a name without such records.
    Moved,
    /// Nowhere.
    NothingNew,
    /// Back to a name of the chain.
    Loop,
    /// Further than we go.
    TooLong,
}

/// The short of a look-up. Displays as the error that results show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There are records.
    Answered,
    /// NXDOMAIN or NODATA.
    NotFound,
    /// Any other response code.
    Failed(Rcode),
    /// A CNAME chain that comes back to itself.
    ChainLoops,
    /// A CNAME chain longer than we follow.
    ChainTooLong,
    /// The server never replied.
    Lost(Lost),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => f.write_str("NOERROR"),
            Self::NotFound => f.write_str("HOST NOT FOUND"),
            Self::Failed(rcode) => rcode.fmt(f),
            Self::ChainLoops => f.write_str("CNAME LOOP"),
            Self::ChainTooLong => f.write_str("CNAME CHAIN TOO LONG"),
            Self::Lost(Lost::Silent | Lost::Unreachable) => f.write_str("TIMED OUT"),
            Self::Lost(Lost::Truncated) => f.write_str("TRUNCATED"),
        }
    }
}

/// docs/src/contract.md, Lookup: a chain is followed by up to 8 more queries.
const MAX_MORE_QUERIES: usize = 8;

/// Links followed at most, so that a hostile reply of thousands of CNAMEs costs little.
const MAX_LINKS: usize = 64;
