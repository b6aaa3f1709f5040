//! Detects replicas that disagree: questions that members of a pool answer differently for longer than an
//! update takes.
//!
//! ```text
//!            suspect                       they differ                  as before, 4 times since 1 s
//! (nothing) ────────▶ suspected ──ask all──▶ differing ──1 s, ask all──▶ ... ──▶ known: counted once, shown
//!     ▲                   │ they agree           │ they agree, or a member             │ asked again
//!     └───────────────────┴──────────────────────┘ says something else than before    │ after 10 s
//!     ▲                                                                               ▼
//!     └────────────────────────────────────────────── they agree, or none differs for 10 min
//! ```
//!
//! A question with rotating answers needs more confirmations each time, and rests for a while.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hedge::BackendIndex;

/// The questions that members of one pool answer differently.
#[derive(Debug, Default)]
pub struct DivergenceTable {
    suspected: BTreeMap<Box<[u8]>, DivergenceSuspicion>,
    known: BTreeMap<Box<[u8]>, ConfirmedDivergence>,
    unsteady: BTreeMap<Box<[u8]>, Unsteady>,
    next_ask: Option<Instant>,
}

/// The answer of one member to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberAnswer {
    /// The member.
    pub member: BackendIndex,
    /// The rcode.
    pub rcode: u16,
    /// A digest of the rest of the answer.
    pub digest: u32,
    /// The serial of its zone, if the answer contains one.
    pub serial: Option<u32>,
}

impl MemberAnswer {
    fn agrees(&self, other: &Self) -> bool {
        (self.rcode, self.digest) == (other.rcode, other.digest)
    }
}

dns::labels! {
    /// The way in which members differ.
    #[derive(PartialOrd, Ord)]
    pub enum DivergenceKind {
        /// Different rcodes.
        Rcode = "rcode",
        /// Different sets of answer records.
        Data = "data",
        /// Different versions of the zone: members with the same version agree.
        Serial = "serial",
    }
}

/// A confirmed difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmedDivergence {
    /// The way in which the members differ.
    pub kind: DivergenceKind,
    /// The latest answer of each member.
    pub said: Vec<MemberAnswer>,
    /// The time when the difference was seen first.
    pub since: Instant,
    /// The time when the difference was seen last.
    pub seen: Instant,
    due: Instant,
}

/// The result of a round of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundResult {
    /// Nothing to report: no difference, not confirmed yet, or unchanged.
    Nothing,
    /// The difference is confirmed: the caller counts and reports it.
    Confirmed(DivergenceKind),
    /// The difference is over.
    Gone,
}

/// A question for the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The question.
    pub question: Box<[u8]>,
    /// Members to include if not all are asked: those that answered before or are suspected.
    pub members: Vec<BackendIndex>,
}

#[derive(Debug)]
struct DivergenceSuspicion {
    member: Option<BackendIndex>,
    said: Vec<MemberAnswer>,
    since: Option<Instant>,
    repeated: u32,
    seen: Instant,
    due: Instant,
}

#[derive(Debug)]
struct Unsteady {
    times: u32,
    seen: Instant,
}

impl DivergenceTable {
    /// Suspects a question, unless its members just were asked or the question rests.
    pub fn suspect(&mut self, question: &[u8], member: Option<BackendIndex>, now: Instant) {
        if self.known.contains_key(question) {
            return;
        }
        if let Some(suspicion) = self.suspected.get_mut(question) {
            suspicion.seen = now;
            return;
        }
        if self.unsteady.get(question).is_some_and(|unsteady| now < unsteady.seen + unsteady.rest()) {
            return;
        }
        let suspicion = DivergenceSuspicion { member, said: Vec::new(), since: None, repeated: 0, seen: now, due: now };
        self.suspected.insert(question.into(), suspicion);
        make_room(&mut self.suspected, MAX_SUSPECTED, |suspicion| suspicion.seen, question);
    }

    /// Returns the next due question. The caller passes the answers to [`hear`](Self::hear).
    pub fn ask(&mut self, now: Instant) -> Option<Ask> {
        self.forget_old(now);
        if self.next()? > now {
            return None;
        }
        let question = match first_due(&self.suspected, |suspicion| suspicion.due, now) {
            Some(question) => question,
            None => first_due(&self.known, |known| known.due, now)?,
        };
        self.next_ask = Some(now + ASK_EVERY);
        let mut members = Vec::new();
        if let Some(suspicion) = self.suspected.get_mut(&question) {
            suspicion.due = now + LOST;
            members.extend(suspicion.said.iter().map(|said| said.member));
            members.extend(suspicion.member.filter(|_| suspicion.since.is_none()));
        }
        if let Some(known) = self.known.get_mut(&question) {
            known.due = now + LOST;
            members.extend(known.said.iter().map(|said| said.member));
        }
        Some(Ask { question, members })
    }

    /// Returns the time of the next question; `None` if none is suspected or known.
    pub fn next(&self) -> Option<Instant> {
        let dues = self.suspected.values().map(|suspicion| suspicion.due);
        let due = dues.chain(self.known.values().map(|known| known.due)).min()?;
        Some(self.next_ask.map_or(due, |next| next.max(due)))
    }

    /// Processes the answers of the members to a question.
    pub fn hear(&mut self, question: &[u8], said: &[MemberAnswer], now: Instant) -> RoundResult {
        if let Some(known) = self.known.get_mut(question) {
            // Silence is no proof that the difference is over.
            if said.len() < 2 {
                known.due = now + AGAIN;
                return RoundResult::Nothing;
            }
            let Some(kind) = kind_of(said) else {
                self.known.remove(question);
                return RoundResult::Gone;
            };
            *known = ConfirmedDivergence { kind, said: said.to_vec(), since: known.since, seen: now, due: now + AGAIN };
            return RoundResult::Nothing;
        }
        let Some(mut suspicion) = self.suspected.remove(question) else { return RoundResult::Nothing };
        let Some(since) = suspicion.since else {
            if kind_of(said).is_some() {
                let (said, since, due) = (said.to_vec(), Some(now), now + CONFIRM_AFTER);
                let suspicion = DivergenceSuspicion { said, since, due, seen: now, ..suspicion };
                self.suspected.insert(question.into(), suspicion);
            }
            return RoundResult::Nothing;
        };
        let before = |now: &MemberAnswer| suspicion.said.iter().find(|before| before.member == now.member);
        if said.iter().any(|now| before(now).is_some_and(|before| !before.agrees(now))) {
            self.note_unsteady(question, now);
            return RoundResult::Nothing;
        }
        let both: Vec<_> = said.iter().filter(|now| before(now).is_some()).copied().collect();
        let Some(kind) = kind_of(&both) else { return RoundResult::Nothing };
        suspicion.repeated += 1;
        let times = self.unsteady.get(question).map_or(0, |unsteady| unsteady.times);
        if suspicion.repeated < CONFIRMATIONS + times.min(MAX_MORE) {
            let suspicion = DivergenceSuspicion { said: both, seen: now, due: now + ASK_EVERY, ..suspicion };
            self.suspected.insert(question.into(), suspicion);
            return RoundResult::Nothing;
        }
        let divergence = ConfirmedDivergence { kind, said: said.to_vec(), since, seen: now, due: now + AGAIN };
        self.known.insert(question.into(), divergence);
        make_room(&mut self.known, MAX_KNOWN, |known| known.seen, question);
        RoundResult::Confirmed(kind)
    }

    /// Returns the questions with a confirmed difference.
    pub fn known(&self) -> impl ExactSizeIterator<Item = (&[u8], &ConfirmedDivergence)> {
        self.known.iter().map(|(question, divergence)| (&**question, divergence))
    }

    /// Returns the confirmed difference of a question.
    pub fn get(&self, question: &[u8]) -> Option<&ConfirmedDivergence> {
        self.known.get(question)
    }

    fn note_unsteady(&mut self, question: &[u8], now: Instant) {
        let unsteady = self.unsteady.entry(question.into()).or_insert(Unsteady { times: 0, seen: now });
        unsteady.times = unsteady.times.saturating_add(1);
        unsteady.seen = now;
        make_room(&mut self.unsteady, MAX_SUSPECTED, |unsteady| unsteady.seen, question);
    }

    fn forget_old(&mut self, now: Instant) {
        let is_fresh = |seen: Instant| now.saturating_duration_since(seen) < OLD;
        self.suspected.retain(|_, suspicion| is_fresh(suspicion.seen));
        self.known.retain(|_, known| is_fresh(known.seen));
        self.unsteady.retain(|_, unsteady| is_fresh(unsteady.seen));
    }
}

impl Unsteady {
    fn rest(&self) -> Duration {
        (MIN_REST * 2_u32.saturating_pow(self.times.saturating_sub(1))).min(MAX_REST)
    }
}

fn kind_of(said: &[MemberAnswer]) -> Option<DivergenceKind> {
    let first = said.first()?;
    if said.iter().all(|other| other.agrees(first)) {
        return None;
    }
    let mut versions = BTreeMap::new();
    let is_explained = said.iter().all(|one| {
        let Some(serial) = one.serial else { return false };
        versions.entry(serial).or_insert(one).agrees(one)
    });
    Some(match said.iter().any(|other| other.rcode != first.rcode) {
        _ if is_explained => DivergenceKind::Serial,
        true => DivergenceKind::Rcode,
        false => DivergenceKind::Data,
    })
}

fn first_due<T>(questions: &BTreeMap<Box<[u8]>, T>, due: impl Fn(&T) -> Instant, now: Instant) -> Option<Box<[u8]>> {
    let (question, value) = questions.iter().min_by_key(|(_, value)| due(value))?;
    (due(value) <= now).then(|| question.clone())
}

fn make_room<T>(questions: &mut BTreeMap<Box<[u8]>, T>, most: usize, seen: impl Fn(&T) -> Instant, but: &[u8]) {
    while questions.len() > most {
        let others = questions.iter().filter(|(question, _)| &***question != but);
        let Some(oldest) = others.min_by_key(|(_, value)| seen(value)).map(|(question, _)| question.clone()) else {
            return;
        };
        questions.remove(&oldest);
    }
}

/// The limit of suspected questions, and of unsteady ones.
pub const MAX_SUSPECTED: usize = 256;

/// The limit of questions with a confirmed difference.
pub const MAX_KNOWN: usize = 1024;

/// The age at which a difference can be confirmed.
pub const CONFIRM_AFTER: Duration = Duration::from_secs(1);

/// The interval between two questions to all members, low enough to cause no load.
pub const ASK_EVERY: Duration = Duration::from_millis(50);

/// The interval at which a known difference is checked.
pub const AGAIN: Duration = Duration::from_secs(10);

/// Entries that were not seen for this time are removed.
pub const OLD: Duration = Duration::from_secs(600);

/// Identical rounds that confirm a difference. With members that give one of two answers at random, this
/// confirms one suspicion in 500 by mistake; each time one more round is required.
const CONFIRMATIONS: u32 = 4;

const MAX_MORE: u32 = 6;

/// The first and the longest rest of an unsteady question. A difference that begins during a rest must be
/// found within 10 s.
const MIN_REST: Duration = Duration::from_secs(1);
const MAX_REST: Duration = Duration::from_secs(6);

const LOST: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
