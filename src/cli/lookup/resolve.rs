//! Resolves a question to its records: follows a CNAME chain within replies and by further queries.

use std::fmt;
use std::io;
use std::time::Duration;

use super::exchange::{LookupAnswer, LookupExchange, LookupServer, TryFailure};
use super::list::LookupQuestion;
use super::message::LookupRecord;
use crate::wire::{Name, Rcode, RecordClass, RecordType, eq_ignore_case};

/// Looks up a question; with `follow`, further queries follow a CNAME chain.
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
pub(super) async fn resolve(
    server: &LookupServer,
    question: &LookupQuestion,
    follow: bool,
) -> io::Result<LookupResolution> {
    let mut resolution = LookupResolution {
        verdict: LookupVerdict::ChainTooLong,
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

#[derive(Debug)]
pub(super) struct LookupResolution {
    pub(super) verdict: LookupVerdict,
    /// The query name and the targets of its CNAMEs. Never empty.
    chain: Vec<Name>,
    rtype: RecordType,
    /// The answer sections of all replies, moved out of them. Empty if chains are not followed.
    answers: Vec<LookupRecord>,
    pub(super) last: Option<LookupAnswer>,
    pub(super) tries: u32,
    pub(super) elapsed: Duration,
    pub(super) ignored: u64,
}

impl LookupResolution {
    pub(super) fn answers(&self) -> &[LookupRecord] {
        &self.answers
    }

    pub(super) fn wanted(&self) -> impl Iterator<Item = &LookupRecord> {
        self.answers.iter().filter(|record| self.is_wanted(record))
    }

    /// Adds the result of one query; `None` if the chain continues.
    fn take_in(&mut self, exchange: LookupExchange, follow: bool) -> Option<LookupVerdict> {
        self.tries += exchange.tries;
        self.elapsed += exchange.elapsed;
        self.ignored += exchange.ignored;
        let mut answer = match exchange.outcome {
            Ok(answer) => answer,
            Err(lost) => return Some(LookupVerdict::Lost(lost)),
        };
        let rcode = answer.reply.rcode;
        let walk = self.walk(&answer.reply.answers);
        if follow {
            self.answers.append(&mut answer.reply.answers);
        }
        self.last = Some(answer);
        match (rcode, walk) {
            (_, ChainWalk::Loop) => Some(LookupVerdict::ChainLoops),
            (_, ChainWalk::TooLong) => Some(LookupVerdict::ChainTooLong),
            (Rcode::NOERROR, ChainWalk::Found) => Some(LookupVerdict::Answered),
            (Rcode::NOERROR, ChainWalk::NothingNew) => Some(LookupVerdict::NotFound),
            (Rcode::NOERROR, ChainWalk::Moved) => (!follow).then_some(LookupVerdict::Answered),
            // RFC 6604 section 3: with a chain in the answer, the rcode is that of its end.
            (Rcode::NXDOMAIN, ChainWalk::Found | ChainWalk::Moved | ChainWalk::NothingNew) => {
                Some(LookupVerdict::NotFound)
            }
            (rcode, ChainWalk::Found | ChainWalk::Moved | ChainWalk::NothingNew) => Some(LookupVerdict::Failed(rcode)),
        }
    }

    fn end(&self) -> &Name {
        self.chain.last().expect("a chain begins with the name asked for")
    }

    fn is_at_end(&self, record: &LookupRecord) -> bool {
        record.class == RecordClass::IN && is_same(&record.owner, self.end())
    }

    fn is_wanted(&self, record: &LookupRecord) -> bool {
        self.is_at_end(record) && (record.rtype == self.rtype || self.rtype == RecordType::ANY)
    }

    /// Follows the chain through one answer section, in any record order.
    fn walk(&mut self, answers: &[LookupRecord]) -> ChainWalk {
        let before = self.chain.len();
        loop {
            if answers.iter().any(|record| self.is_wanted(record)) {
                return ChainWalk::Found;
            }
            let here = answers.iter().filter(|record| self.is_at_end(record));
            let Some(target) = here.filter_map(|record| record.target.clone()).next() else {
                return if self.chain.len() > before { ChainWalk::Moved } else { ChainWalk::NothingNew };
            };
            if self.chain.iter().any(|known| is_same(known, &target)) {
                return ChainWalk::Loop;
            }
            if self.chain.len() > MAX_LINKS {
                return ChainWalk::TooLong;
            }
            self.chain.push(target);
        }
    }
}

/// Returns true if two names are equal, ignoring case (RFC 4343 section 3).
fn is_same(a: &Name, b: &Name) -> bool {
    eq_ignore_case(a.as_wire(), b.as_wire())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChainWalk {
    Found,
    /// A CNAME leads to a name without such records.
    Moved,
    /// The end of the chain is unchanged.
    NothingNew,
    Loop,
    TooLong,
}

/// The short result of a look-up. Displays as the error in results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookupVerdict {
    Answered,
    NotFound,
    Failed(Rcode),
    ChainLoops,
    ChainTooLong,
    Lost(TryFailure),
}

impl fmt::Display for LookupVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => f.write_str("NOERROR"),
            Self::NotFound => f.write_str("HOST NOT FOUND"),
            Self::Failed(rcode) => rcode.fmt(f),
            Self::ChainLoops => f.write_str("CNAME LOOP"),
            Self::ChainTooLong => f.write_str("CNAME CHAIN TOO LONG"),
            Self::Lost(TryFailure::Silent | TryFailure::Unreachable) => f.write_str("TIMED OUT"),
            Self::Lost(TryFailure::Truncated) => f.write_str("TRUNCATED"),
        }
    }
}

/// The maximum number of further queries for a chain (docs/src/contract.md, Lookup).
const MAX_MORE_QUERIES: usize = 8;

/// The maximum number of links, so that a hostile reply with thousands of CNAMEs costs little.
const MAX_LINKS: usize = 64;
