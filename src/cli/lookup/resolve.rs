//! Resolves a question to its records: follows a CNAME chain within replies and by further queries.

use std::io;

use dns::{Name, Rcode, RecordClass, RecordType, Section, SectionRecord, eq_ignore_case};

use super::exchange::{LookupAnswer, LookupEffort, LookupServer, TryFailure};
use super::list::LookupQuestion;

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
        effort: LookupEffort::default(),
    };
    for _ in 0..=MAX_MORE_QUERIES {
        let name = resolution.end().clone();
        let outcome = server.ask(&name, question.rtype, &mut resolution.effort).await?;
        if let Some(verdict) = resolution.take_in(outcome, follow) {
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
    /// The answer sections of all replies. Empty if chains are not followed.
    pub(super) answers: Vec<SectionRecord>,
    pub(super) last: Option<LookupAnswer>,
    pub(super) effort: LookupEffort,
}

impl LookupResolution {
    pub(super) fn wanted(&self) -> impl Iterator<Item = &SectionRecord> {
        self.answers.iter().filter(|record| self.is_wanted(record))
    }

    /// Adds the result of one query; `None` if the chain continues.
    fn take_in(&mut self, outcome: Result<LookupAnswer, TryFailure>, follow: bool) -> Option<LookupVerdict> {
        let mut answer = match outcome {
            Ok(answer) => answer,
            Err(lost) => return Some(LookupVerdict::Lost(lost)),
        };
        let rcode = answer.reply.rcode;
        let walk = self.walk(&answer.reply.section(Section::Answer).collect::<Vec<_>>());
        if follow {
            let records = std::mem::take(&mut answer.reply.records).into_iter();
            self.answers.extend(records.filter(|record| record.section == Section::Answer));
        }
        self.last = Some(answer);
        Some(match (rcode, walk) {
            (_, ChainWalk::Broken(verdict)) => verdict,
            (Rcode::NOERROR, ChainWalk::Moved) if follow => return None,
            (Rcode::NOERROR, ChainWalk::Found | ChainWalk::Moved) => LookupVerdict::Answered,
            // RFC 6604 section 3: with a chain in the answer, the rcode is that of its end.
            (Rcode::NOERROR, ChainWalk::NothingNew) | (Rcode::NXDOMAIN, _) => LookupVerdict::NotFound,
            (rcode, _) => LookupVerdict::Failed(rcode),
        })
    }

    fn end(&self) -> &Name {
        self.chain.last().expect("a chain begins with the name asked for")
    }

    fn is_at_end(&self, record: &SectionRecord) -> bool {
        record.class == RecordClass::IN && is_same(&record.owner, self.end())
    }

    fn is_wanted(&self, record: &SectionRecord) -> bool {
        self.is_at_end(record) && (record.rtype == self.rtype || self.rtype == RecordType::ANY)
    }

    /// Follows the chain through one answer section, in any record order.
    fn walk(&mut self, answers: &[&SectionRecord]) -> ChainWalk {
        let before = self.chain.len();
        loop {
            if answers.iter().any(|record| self.is_wanted(record)) {
                return ChainWalk::Found;
            }
            let is_link = |record: &&&SectionRecord| record.rtype == RecordType::CNAME && self.is_at_end(record);
            let mut links = answers.iter().filter(is_link);
            let Some(target) = links.find_map(|record| Name::from_wire(&record.rdata).ok()) else {
                return if self.chain.len() > before { ChainWalk::Moved } else { ChainWalk::NothingNew };
            };
            if self.chain.iter().any(|known| is_same(known, &target)) {
                return ChainWalk::Broken(LookupVerdict::ChainLoops);
            }
            if self.chain.len() > MAX_LINKS {
                return ChainWalk::Broken(LookupVerdict::ChainTooLong);
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
    Broken(LookupVerdict),
}

/// The short result of a look-up. Displays as the error in results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LookupVerdict {
    #[error("NOERROR")]
    Answered,
    #[error("HOST NOT FOUND")]
    NotFound,
    #[error("{0}")]
    Failed(Rcode),
    #[error("CNAME LOOP")]
    ChainLoops,
    #[error("CNAME CHAIN TOO LONG")]
    ChainTooLong,
    #[error("{}", if *.0 == TryFailure::Truncated { "TRUNCATED" } else { "TIMED OUT" })]
    Lost(TryFailure),
}

/// The maximum number of further queries for a chain (docs/src/contract.md, Lookup).
const MAX_MORE_QUERIES: usize = 8;

/// The maximum number of links, so that a hostile reply with thousands of CNAMEs costs little.
const MAX_LINKS: usize = 64;
