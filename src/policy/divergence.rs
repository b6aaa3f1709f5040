//! Replicas that disagree: which questions members of a pool answer differently, whether that lasts, and of what kind it is. Fed by
//! whoever has reason to suspect a question; says when all members are to be asked, and hears what they have said.
//!
//! ```text
//!            suspect                       they differ                  as before, 4 times since 1 s
//! (nothing) ────────▶ suspected ──ask all──▶ differing ──1 s, ask all──▶ ... ──▶ known: counted once, shown
//!     ▲                   │ they agree           │ they agree, or somebody            │ asked again
//!     └───────────────────┴──────────────────────┘ says something else than before    │ after 10 s
//!     ▲                                                                               ▼
//!     └────────────────────────────────────────────── they agree, or nobody differs for 10 min
//! ```
//!
//! An update that goes from member to member is over within 1 s, or changes what they say meanwhile. Answers that rotate change from one
//! question to the next; of such a question more is asked each time before it is believed, and it rests for a while. Only members that
//! said something both times are compared: silence is for probes to judge.
//!
//! Questions and members are given by the caller, and what they mean is not known here. All is bounded: what was not seen for the longest
//! goes first.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::serials::MemberId;

/// What members of one pool answer differently.
#[derive(Debug, Default)]
pub struct Divergences {
    suspected: BTreeMap<Box<[u8]>, Suspicion>,
    known: BTreeMap<Box<[u8]>, Divergence>,
    /// Questions to which somebody has just said one thing and then another.
    unsteady: BTreeMap<Box<[u8]>, Unsteady>,
    /// When somebody may be asked again.
    next_ask: Option<Instant>,
}

/// What a member has said to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Who it was.
    pub member: MemberId,
    /// The rcode.
    pub rcode: u16,
    /// What else counts, in short.
    pub digest: u32,
    /// Of which version of its zone that is, if it says so.
    pub serial: Option<u32>,
}

impl Said {
    /// Whether another one says the same.
    fn agrees(&self, other: &Self) -> bool {
        (self.rcode, self.digest) == (other.rcode, other.digest)
    }
}

/// How members differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// In their rcodes.
    Rcode,
    /// In the set of answer records.
    Data,
    /// As the versions do that they have: who has the same version says the same.
    Serial,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Rcode, Self::Data, Self::Serial];

    /// The word for people and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Rcode => "rcode",
            Self::Data => "data",
            Self::Serial => "serial",
        }
    }
}

/// A difference that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// How they differ.
    pub kind: Kind,
    /// Who says what, as of when they were asked last.
    pub said: Vec<Said>,
    /// When it was seen first.
    pub since: Instant,
    /// When it was seen last.
    pub seen: Instant,
    /// When they are asked again.
    due: Instant,
}

/// What has become of a question by what members have said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing worth telling: they agree, or it is not known yet, or as it was.
    Nothing,
    /// They differ, and still do after a while: to be counted and told.
    Confirmed(Kind),
    /// They do not differ any more.
    Gone,
}

/// What is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The question.
    pub question: Box<[u8]>,
    /// Who is to be among those asked, if not all of many are: who has said something before, or is suspected.
    pub members: Vec<MemberId>,
}

#[derive(Debug)]
struct Suspicion {
    /// Who is suspected, if it is known.
    member: Option<MemberId>,
    /// What they said first, if they were asked already: of those who have said the same since.
    said: Vec<Said>,
    /// When they said that.
    since: Option<Instant>,
    /// How often they have said so since.
    repeated: u32,
    /// When it was last heard of.
    seen: Instant,
    /// When they are to be asked.
    due: Instant,
}

#[derive(Debug)]
struct Unsteady {
    /// How often.
    times: u32,
    /// When that was last.
    seen: Instant,
}

impl Divergences {
    /// Somebody may differ, this member perhaps: all are to be asked, unless they just were, or the question rests.
    pub fn suspect(&mut self, question: &[u8], member: Option<MemberId>, now: Instant) {
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
        let suspicion = Suspicion { member, said: Vec::new(), since: None, repeated: 0, seen: now, due: now };
        self.suspected.insert(question.into(), suspicion);
        make_room(&mut self.suspected, MAX_SUSPECTED, |suspicion| suspicion.seen, question);
    }

    /// The question that all members are to be asked now, if it is time for one. What they say is to be [heard](Self::hear).
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
        // If nothing is ever heard, they are asked again some time.
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

    /// When there is something to ask; none: not before somebody is suspected.
    pub fn next(&self) -> Option<Instant> {
        let dues = self.suspected.values().map(|suspicion| suspicion.due);
        let due = dues.chain(self.known.values().map(|known| known.due)).min()?;
        Some(self.next_ask.map_or(due, |next| next.max(due)))
    }

    /// Members that were asked have said this.
    pub fn hear(&mut self, question: &[u8], said: &[Said], now: Instant) -> Heard {
        if let Some(known) = self.known.get_mut(question) {
            // Of those who are silent the last word counts for nothing, nor do they prove that it is over.
            if said.len() < 2 {
                known.due = now + AGAIN;
                return Heard::Nothing;
            }
            let Some(kind) = kind_of(said) else {
                self.known.remove(question);
                return Heard::Gone;
            };
            *known = Divergence { kind, said: said.to_vec(), since: known.since, seen: now, due: now + AGAIN };
            return Heard::Nothing;
        }
        let Some(mut suspicion) = self.suspected.remove(question) else { return Heard::Nothing };
        let Some(since) = suspicion.since else {
            if kind_of(said).is_some() {
                let (said, since, due) = (said.to_vec(), Some(now), now + CONFIRM_AFTER);
                let suspicion = Suspicion { said, since, due, seen: now, ..suspicion };
                self.suspected.insert(question.into(), suspicion);
            }
            return Heard::Nothing;
        };
        let before = |now: &Said| suspicion.said.iter().find(|before| before.member == now.member);
        if said.iter().any(|now| before(now).is_some_and(|before| !before.agrees(now))) {
            self.note_unsteady(question, now);
            return Heard::Nothing;
        }
        let both: Vec<_> = said.iter().filter(|now| before(now).is_some()).copied().collect();
        let Some(kind) = kind_of(&both) else { return Heard::Nothing };
        suspicion.repeated += 1;
        let times = self.unsteady.get(question).map_or(0, |unsteady| unsteady.times);
        if suspicion.repeated < CONFIRMATIONS + times.min(MAX_MORE) {
            let suspicion = Suspicion { said: both, seen: now, due: now + ASK_EVERY, ..suspicion };
            self.suspected.insert(question.into(), suspicion);
            return Heard::Nothing;
        }
        let divergence = Divergence { kind, said: said.to_vec(), since, seen: now, due: now + AGAIN };
        self.known.insert(question.into(), divergence);
        make_room(&mut self.known, MAX_KNOWN, |known| known.seen, question);
        Heard::Confirmed(kind)
    }

    /// The questions of which it is known that members answer them differently.
    pub fn known(&self) -> impl ExactSizeIterator<Item = (&[u8], &Divergence)> {
        self.known.iter().map(|(question, divergence)| (&**question, divergence))
    }

    /// What is known of a question.
    pub fn get(&self, question: &[u8]) -> Option<&Divergence> {
        self.known.get(question)
    }

    /// How many questions are suspected, known and unsteady.
    pub fn size(&self) -> [usize; 3] {
        [self.suspected.len(), self.known.len(), self.unsteady.len()]
    }

    /// Somebody has said one thing and then another.
    fn note_unsteady(&mut self, question: &[u8], now: Instant) {
        let unsteady = self.unsteady.entry(question.into()).or_insert(Unsteady { times: 0, seen: now });
        unsteady.times = unsteady.times.saturating_add(1);
        unsteady.seen = now;
        make_room(&mut self.unsteady, MAX_SUSPECTED, |unsteady| unsteady.seen, question);
    }

    /// Forgets what was not seen for long.
    fn forget_old(&mut self, now: Instant) {
        let is_fresh = |seen: Instant| now.saturating_duration_since(seen) < OLD;
        self.suspected.retain(|_, suspicion| is_fresh(suspicion.seen));
        self.known.retain(|_, known| is_fresh(known.seen));
        self.unsteady.retain(|_, unsteady| is_fresh(unsteady.seen));
    }
}

impl Unsteady {
    /// How long the question rests.
    fn rest(&self) -> Duration {
        (MIN_REST * 2_u32.saturating_pow(self.times.saturating_sub(1))).min(MAX_REST)
    }
}

/// How members differ, if they do.
fn kind_of(said: &[Said]) -> Option<Kind> {
    let first = said.first()?;
    if said.iter().all(|other| other.agrees(first)) {
        return None;
    }
    // Members with equal serials agree, and all say which they have: so who differs has another one.
    let mut versions = BTreeMap::new();
    let is_explained = said.iter().all(|one| {
        let Some(serial) = one.serial else { return false };
        versions.entry(serial).or_insert(one).agrees(one)
    });
    Some(match said.iter().any(|other| other.rcode != first.rcode) {
        _ if is_explained => Kind::Serial,
        true => Kind::Rcode,
        false => Kind::Data,
    })
}

/// The question that is due for the longest.
fn first_due<T>(questions: &BTreeMap<Box<[u8]>, T>, due: impl Fn(&T) -> Instant, now: Instant) -> Option<Box<[u8]>> {
    let (question, value) = questions.iter().min_by_key(|(_, value)| due(value))?;
    (due(value) <= now).then(|| question.clone())
}

/// Forgets the question that was not seen for the longest if there are too many. This one stays.
fn make_room<T>(questions: &mut BTreeMap<Box<[u8]>, T>, most: usize, seen: impl Fn(&T) -> Instant, but: &[u8]) {
    while questions.len() > most {
        let others = questions.iter().filter(|(question, _)| &***question != but);
        let Some(oldest) = others.min_by_key(|(_, value)| seen(value)).map(|(question, _)| question.clone()) else {
            return;
        };
        questions.remove(&oldest);
    }
}

/// Questions that are suspected at a time, and that are unsteady.
pub const MAX_SUSPECTED: usize = 256;

/// Questions that are known to be answered differently.
pub const MAX_KNOWN: usize = 1024;

/// A difference counts if it is still there after so long.
pub const CONFIRM_AFTER: Duration = Duration::from_secs(1);

/// The time between two questions to all members: twenty a second are no load to a server that needs a load balancer.
pub const ASK_EVERY: Duration = Duration::from_millis(50);

/// A known difference is looked at again after so long.
pub const AGAIN: Duration = Duration::from_secs(10);

/// What nobody has seen for so long is forgotten: no two members may be up any more.
pub const OLD: Duration = Duration::from_secs(600);

/// How often members must say the same again. Of two that give one of two answers by chance, each question anew, that takes one
/// suspicion in 500 for a difference; and one more is wanted each time.
const CONFIRMATIONS: u32 = 4;

/// How many more are wanted at most of an unsteady question.
const MAX_MORE: u32 = 6;

/// How long an unsteady question rests at first, and at most: a difference that begins just then is to be found within 10 s.
const MIN_REST: Duration = Duration::from_secs(1);
const MAX_REST: Duration = Duration::from_secs(6);

/// Nobody takes so long to say anything.
const LOST: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
