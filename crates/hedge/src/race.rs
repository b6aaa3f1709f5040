//! One request, several backends, one outcome.
//!
//! A [`Race`] decides which backends to ask, how long to wait and which reply wins. It has no message bytes,
//! sockets or clock: the caller reports events, then calls [`Race::poll`] until it says to wait or that the
//! race is finished.
//!
//! The algorithm:
//!
//! 1. The first candidates are asked at once: `fanout` in a race, one in hedge or sequential, and all if none
//!    is up.
//! 2. An accepted reply wins, and the race is over.
//! 3. Any other reply is kept if it ranks above the kept one. In both cases, and after a failure, the next
//!    candidate is asked at once. The same holds for a network error such as ICMP, which may be forged: its
//!    attempt stays open, and ends only if its backend is found down.
//! 4. The race keeps its initial number of attempts open that have not been silent for `attempt_timeout`.
//!    Where one is missing, the next candidate is asked; after all candidates, the silent ones are asked
//!    again in the same order, each up to `tries` times. With [`AttemptTimeout::AUTO`], an attempt is due
//!    after the retransmission timeout of its backend, which doubles from its second repetition on, if the
//!    allowance of the silent backend pays. A denied attempt is tried again after twice the time, and is free
//!    after 1 s. An attempt less than 1 s after the previous one to its backend is no try. With
//!    [`Dispatch::Auto`], an attempt that may wait in a queue is not repeated early.
//! 5. Hedge only: when the newest silent attempt exceeds the delay of its backend, another candidate is asked
//!    as well if the budget pays. A denied hedge is counted once per attempt, and tried again after twice the
//!    delay: by then slightly late replies have arrived, and the budget pays for the attempts that are really
//!    late.
//!    With [`Dispatch::Auto`], a hedge also needs a backend with room (see [`tuning`](crate::tuning)), and is
//!    tried again after a quarter of its wait.
//! 6. A retransmission by the client asks the next candidate at once, or the backend that was silent for
//!    longest.
//! 7. An attempt that timed out stays in the race. A race makes eight attempts at most.
//! 8. An attempt that could not be sent because a local resource was missing does not count. Its backend is
//!    tried once more from another socket, then the next candidate.
//! 9. A reply from older data than another backend has is never accepted. The newer backend is asked at once
//!    (or waited for), and its reply is final. It need not be a candidate.
//! 10. An attempt that was lost with its connection says nothing: the next candidate is asked at once, and
//!     the backend is queued again for another connection. A stream backend may also be hedged by another
//!     connection to itself if no candidate is left.
//! 11. A provisional reply is kept, and only a validated reply replaces it.
//! 12. The race ends without an accepted reply when no attempt is waited for and no candidate is left, when
//!     the grace of a kept weak reply is over, or at the deadline. Then the best kept reply wins.
//!
//! The race waits for silent attempts, attempts with a network error, and attempts with a bare failure until
//! their `attempt_timeout`. A weak reply speaks for the backend, so its other attempts are not waited
//! for; a failure speaks for its own attempt only.
//!
//! If some backend could not be asked, silence of the others proves nothing: the race ends as
//! [`RaceEnd::Unsent`], unless a reply is kept.

mod attempts;
mod hedging;
mod out_of_turn;
mod patience;
mod rank;
mod step;

use std::time::{Duration, Instant};

pub use self::attempts::{Attempt, AttemptId, AttemptKind, AttemptState, MAX_ATTEMPTS, Offset};
use self::attempts::{AttemptList, AttemptRecord};
pub use self::rank::ReplyRank;
pub use self::step::{ExtensionRefusal, RaceEnd, RaceStep, ReplyValue, Retry};
use super::backend_load::BackendLoad;
use super::budget::Budget;
pub use super::candidates::{BackendIndex, Candidates};
use super::latency::Latency;
use super::rules::{AttemptTimeout, Dispatch, Grace, RaceRules};

/// The race of one request. The module documentation describes the algorithm.
///
/// ```text
///                  on_reply (not accepted), on_failure, on_unreachable, on_bare_failure,
///              on_extension_refused, on_retransmission, on_unsent, on_lost, time passes
///                               ┌─────────────────┐
///                               │                 │
///             start     ┌───────┴─────────────────▼────┐
///           ───────────▶│           running            │
///                       │   poll: Ask* … WaitUntil   │
///                       └──┬────────────────────────┬──┘
///        on_reply: accepted│                        │poll: deadline, grace over, or
///                          │                        │no attempt to wait for or to make
///                       ┌──▼────────────────────────▼──┐
///                       │          finished            │ every input: ignored
///                       │   poll: Finished(outcome)  │ poll: the same outcome again
///                       └──────────────────────────────┘
///
/// an attempt:  silent ──▶ replied | failed | lost (its backend is queued once more)
///                │ network error ──▶ unreachable ──▶ replied | failed | bare
///                │ bare failure ──▶ bare ──▶ replied | failed
///                │ its backend gave a weak reply elsewhere ──▶ spoken ──▶ replied | failed
///                ├ extension refused ──▶ replaced, by a new attempt without it
///                └ unsent
/// ```
///
/// The deadline does not end a race by itself: a reply that is read after the deadline but before the late
/// timer still counts, because it is better for the client than a synthesized answer.
#[derive(Clone, Debug)]
pub struct Race<R> {
    start: Instant,
    deadline: Offset,
    candidates: Candidates,
    attempts: AttemptList,
    turns: RaceTurns,
    hedges: HedgeTally,
    hedge_again: Option<Offset>,
    ranks: RankTally<R>,
    weak_at: Option<Offset>,
    marked: MarkedBackends,
    met: u8,
    outcome: Option<RaceEnd>,
}

/// The places in the list of candidates, each as one bit, and the turns to come.
#[derive(Clone, Debug)]
struct RaceTurns {
    asked: u8,
    unsendable: u8,
    width: u8,
    owed: u8,
    hints: u8,
}

#[derive(Clone, Debug)]
struct HedgeTally {
    made: u8,
    denied: u8,
    from: AttemptId,
}

#[derive(Clone, Debug)]
struct RankTally<R> {
    accept: R,
    kept: Option<(AttemptId, R)>,
}

/// The backends that are asked out of turn: one without the extension, and the one with the newest data.
#[derive(Clone, Debug)]
struct MarkedBackends {
    plain: BackendIndex,
    newest: BackendIndex,
}

impl<R: ReplyRank> Race<R> {
    /// Starts a race. A reply of the rank `accept` or a better one wins at once.
    #[inline]
    pub fn start(context: &RaceContext<'_>, candidates: &Candidates, accept: R, now: Instant) -> Self {
        let RaceContext { rules, .. } = context;
        let all = candidates.first_in_line();
        let (width, time) = if candidates.all_down() {
            // There is little hope, so the client does not have to wait its whole timeout.
            (all, rules.timeout.min(rules.attempt_timeout.longest()))
        } else {
            let width = match rules.dispatch {
                Dispatch::Race if rules.fanout == 0 => all,
                Dispatch::Race => u8::try_from(rules.fanout).map_or(all, |fanout| fanout.min(all)),
                Dispatch::Hedge | Dispatch::Auto | Dispatch::Sequential => all.min(1),
            };
            (width, rules.timeout)
        };
        Self {
            start: now,
            deadline: Offset::default().after(time),
            candidates: *candidates,
            attempts: AttemptList::new(),
            turns: RaceTurns { asked: 0, unsendable: 0, width, owed: 0, hints: 0 },
            hedges: HedgeTally {
                made: if candidates.is_unhedged() { rules.hedge.max } else { 0 },
                denied: 0,
                from: AttemptId(0),
            },
            hedge_again: None,
            ranks: RankTally { accept, kept: None },
            weak_at: None,
            marked: MarkedBackends { plain: NO_BACKEND, newest: NO_BACKEND },
            met: 0,
            outcome: None,
        }
    }

    /// Processes a reply of this rank to an attempt.
    #[inline]
    pub fn on_reply(&mut self, attempt: AttemptId, rank: R, now: Instant) -> ReplyValue {
        let Some((backend, before)) = self.replied(attempt) else { return ReplyValue::NotNeeded };
        let is_final = rank >= self.ranks.accept || self.is_final(backend) && !rank.is_failure();
        if is_final && !rank.is_provisional() && !self.is_doubted() {
            self.outcome = Some(RaceEnd::Reply(attempt));
            return ReplyValue::Accepted;
        }
        self.move_on(before);
        if !rank.is_failure() {
            self.attempts.mark_spoken(backend);
            if !rank.is_provisional() && !self.is_doubted() {
                self.weak_at = self.weak_at.or_else(|| Some(Offset::between(self.start, now)));
            }
        }
        if self.ranks.kept.is_some_and(|(_, best)| best >= rank || best.is_provisional()) {
            return ReplyValue::NotNeeded;
        }
        self.ranks.kept = Some((attempt, rank));
        ReplyValue::Kept
    }

    /// Ends an attempt without a reply: a send error, or its backend is down.
    pub fn on_failure(&mut self, attempt: AttemptId) {
        if let Some(entry) = self.attempts.get_mut(attempt)
            && entry.state.is_open()
        {
            let before = std::mem::replace(&mut entry.state, AttemptState::Failed);
            self.move_on(before);
        }
    }

    /// Withdraws an attempt that lacked a local resource. A hedge returns its budget.
    pub fn on_unsent(&mut self, attempt: AttemptId, retry: Retry, budget: &Budget) {
        let asked = self.attempts.get(attempt).filter(|entry| entry.state == AttemptState::Silent);
        let Some(&AttemptRecord { backend, kind, .. }) = asked else { return };
        self.attempts.withdraw(attempt);
        for special in [&mut self.marked.newest, &mut self.marked.plain] {
            if *special == backend {
                *special = NO_BACKEND;
            }
        }
        if let Some(place) = self.candidates.iter().position(|candidate| candidate == backend) {
            let bit = 1 << place;
            let is_again = retry == Retry::Once && self.attempts.unsent & bit == 0;
            // A lost attempt has queued the backend already.
            let is_in_line = self.has_lost() && self.attempts.is_lost(backend);
            if !is_in_line && (is_again || kind == AttemptKind::Hedge && !self.attempts.has_asked(backend)) {
                self.turns.asked &= !bit;
            }
            if !is_again {
                self.turns.unsendable |= bit;
            }
            self.attempts.unsent |= bit;
        }
        if kind == AttemptKind::Hedge {
            budget.give_back();
            self.hedges.made -= 1;
            let late = self.attempts.in_state(AttemptState::Silent).next_back();
            self.hedges.from = late.map_or(self.hedges.from, |(id, _)| self.hedges.from.min(id));
        } else if self.turns.asked.count_ones() >= u32::from(self.turns.width) {
            self.turns.owed += 1;
        }
    }

    /// Processes a network error such as ICMP, which may be forged: another candidate is asked, and the
    /// attempt stays open.
    pub fn on_unreachable(&mut self, attempt: AttemptId) {
        if let Some(entry) = self.attempts.get_mut(attempt)
            && entry.state == AttemptState::Silent
        {
            entry.state = AttemptState::Unreachable;
            self.move_on(AttemptState::Silent);
        }
    }

    /// Processes a failure without proof of its sender, which may be forged: another candidate is asked, and
    /// the attempt stays open.
    pub fn on_bare_failure(&mut self, attempt: AttemptId) {
        if let Some(entry) = self.attempts.get_mut(attempt)
            && matches!(entry.state, AttemptState::Silent | AttemptState::Unreachable)
        {
            let before = std::mem::replace(&mut entry.state, AttemptState::Bare);
            self.met |= BARE;
            self.move_on(before);
        }
    }

    /// Processes a refusal of the extension as the reply to an attempt.
    pub fn on_extension_refused(&mut self, attempt: AttemptId) -> ExtensionRefusal {
        let waiting = self.attempts.in_state(AttemptState::ExtensionRefused).count();
        let Some(&AttemptRecord { backend, state, .. }) = self.attempts.get(attempt) else {
            return ExtensionRefusal::IsFailure;
        };
        if matches!(state, AttemptState::ExtensionRefused | AttemptState::Replaced) {
            return ExtensionRefusal::AskedAgain;
        }
        let is_waited_for = state.is_open() && state != AttemptState::Spoken && !self.is_finished();
        let is_known = self.attempts.refuses_extension(backend);
        let has_room = is_known || waiting < self.attempts.room();
        if !is_waited_for || !self.attempts.is_extended(attempt) || !has_room {
            return ExtensionRefusal::IsFailure;
        }
        let new_state = if is_known { AttemptState::Replaced } else { AttemptState::ExtensionRefused };
        self.met |= REFUSED;
        if let Some(entry) = self.attempts.get_mut(attempt) {
            entry.state = new_state;
        }
        ExtensionRefusal::AskedAgain
    }

    /// Processes a bare refusal of the extension, which may be forged: asks the next candidate, and the same
    /// backend without the extension.
    pub fn on_bare_extension_refused(&mut self, attempt: AttemptId) {
        let asked = self.attempts.get(attempt);
        let asked = asked.filter(|entry| matches!(entry.state, AttemptState::Silent | AttemptState::Unreachable));
        let asked = asked.filter(|_| self.attempts.is_extended(attempt));
        if let Some(backend) = asked.map(|entry| entry.backend)
            && !self.attempts.refuses_extension(backend)
            && self.marked.plain == NO_BACKEND
        {
            self.marked.plain = backend;
        }
        self.on_bare_failure(attempt);
    }

    /// Counts a resend of an open attempt from another socket. Returns false if none is allowed.
    pub fn ask_again(&mut self, attempt: AttemptId) -> bool {
        let is_open = self.attempts.get(attempt).is_some_and(|entry| entry.state.is_open());
        let may = is_open && !self.is_finished() && !self.attempts.is_full();
        if may {
            self.attempts.ask_again();
        }
        may
    }

    /// Returns the number of attempts that were sent again.
    pub fn times_asked_again(&self) -> u8 {
        self.attempts.times_asked_again()
    }

    /// Records a retransmission by the client, a hint that a datagram was lost.
    pub fn on_retransmission(&mut self) {
        self.turns.hints = self.turns.hints.saturating_add(1);
    }

    /// Returns the next step. Call this after each input and [`RaceStep::Ask`], and when a wait ends.
    pub fn poll(&mut self, context: &RaceContext<'_>, now: Instant) -> RaceStep {
        if let Some(outcome) = self.outcome {
            return RaceStep::Finished(outcome);
        }
        let now = Offset::between(self.start, now);
        let grace_ends = self.grace_ends(context);
        if now >= self.deadline || grace_ends.is_some_and(|end| now >= end) {
            return self.finish();
        }
        if let Some((backend, kind)) = self.take_turn(context, now) {
            return self.ask(backend, kind, now);
        }
        let mut hedge_due = self.hedge_due(context);
        if hedge_due.is_some_and(|due| due <= now) {
            if let Some(backend) = self.take_hedge(context, now) {
                return self.ask(backend, AttemptKind::Hedge, now);
            }
            hedge_due = self.hedge_again;
        }
        let Some(patience_ends) = self.patience_ends(context.rules, now) else {
            return self.finish();
        };
        let wake = [self.turn_due(context, now), hedge_due, grace_ends, Some(patience_ends)];
        let wake = wake.into_iter().flatten().fold(self.deadline, Offset::min);
        RaceStep::WaitUntil(wake.since(self.start))
    }

    /// Returns the start time.
    pub fn started(&self) -> Instant {
        self.start
    }

    /// Returns the time when the client must have its response.
    pub fn deadline(&self) -> Instant {
        self.deadline.since(self.start)
    }

    /// Returns true if no backend of the pool was up when the race started.
    pub fn all_down(&self) -> bool {
        self.candidates.all_down()
    }

    /// Returns true if the race is over.
    pub fn is_finished(&self) -> bool {
        self.outcome.is_some()
    }

    /// Returns true if a backend could not be asked because a local resource was missing.
    pub fn is_incomplete(&self) -> bool {
        self.attempts.unsent != 0
            && self
                .candidates
                .iter()
                .enumerate()
                .any(|(place, candidate)| self.attempts.unsent & 1 << place != 0 && !self.attempts.has_asked(candidate))
    }

    /// Returns the best reply that was not accepted: its attempt and rank.
    pub fn kept(&self) -> Option<(AttemptId, R)> {
        self.ranks.kept
    }

    /// Returns the number of attempts whose hedge was denied for lack of budget or room, at first or for
    /// good.
    pub fn hedges_denied(&self) -> u8 {
        self.hedges.denied
    }

    /// Returns the number of sent attempts, and true if one of them was a hedge.
    pub fn tally(&self) -> (u8, bool) {
        let left = self.attempts.iter().filter(|(_, entry)| entry.state != AttemptState::Unsent);
        left.fold((0, false), |(count, is_hedged), (_, entry)| {
            (count + 1, is_hedged || entry.kind == AttemptKind::Hedge)
        })
    }

    /// Returns true if exactly one attempt has ended. The others wait for a reply.
    pub fn has_one_ended(&self) -> bool {
        self.attempts.iter().filter(|(_, entry)| !entry.state.is_open()).count() == 1
    }

    /// Returns the attempt whose reply has won.
    pub fn winner(&self) -> Option<Attempt> {
        match self.outcome? {
            RaceEnd::Reply(winner) => self.attempt(winner),
            RaceEnd::Failed | RaceEnd::Nothing | RaceEnd::Unsent => None,
        }
    }

    /// Returns the candidates in order.
    pub fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// Returns the attempts, oldest first.
    pub fn attempts(&self) -> impl Iterator<Item = Attempt> + '_ {
        self.attempts.iter().map(|(id, entry)| self.attempts.view(id, entry, self.start))
    }

    /// Returns one attempt.
    pub fn attempt(&self, id: AttemptId) -> Option<Attempt> {
        self.attempts.get(id).map(|entry| self.attempts.view(id, entry, self.start))
    }

    #[inline]
    fn replied(&mut self, attempt: AttemptId) -> Option<(BackendIndex, AttemptState)> {
        if self.is_finished() {
            return None;
        }
        let entry = self.attempts.get_mut(attempt)?;
        Some((entry.backend, std::mem::replace(&mut entry.state, AttemptState::Replied)))
    }

    fn move_on(&mut self, before: AttemptState) {
        if before == AttemptState::Silent {
            self.turns.owed += 1;
        }
    }

    fn finish(&mut self) -> RaceStep {
        let outcome = match self.ranks.kept {
            Some((attempt, _)) => RaceEnd::Reply(attempt),
            None if self.is_incomplete() => RaceEnd::Unsent,
            None if self.met & BARE != 0 => RaceEnd::Failed,
            None => RaceEnd::Nothing,
        };
        self.outcome = Some(outcome);
        RaceStep::Finished(outcome)
    }

    fn ask(&mut self, backend: BackendIndex, kind: AttemptKind, now: Offset) -> RaceStep {
        let extended = !self.attempts.refuses_extension(backend) && self.marked.plain != backend;
        let attempt = self.attempts.push(backend, kind, extended, now);
        self.hedge_again = None;
        RaceStep::Ask { attempt, backend, kind, extended }
    }

    fn unasked(&self) -> Option<u8> {
        let place = self.turns.asked.trailing_ones();
        (place < self.candidates.len() as u32).then_some(place as u8)
    }

    fn strike(&mut self, place: u8) -> Option<BackendIndex> {
        self.turns.asked |= 1 << place;
        self.turns.unsendable &= !(1 << place);
        self.candidates.get(usize::from(place))
    }

    fn take_turn(&mut self, context: &RaceContext<'_>, now: Offset) -> Option<(BackendIndex, AttemptKind)> {
        if self.attempts.is_full() {
            return None;
        }
        if self.met & REFUSED != 0
            && let Some(backend) = self.take_refused()
        {
            return Some((backend, AttemptKind::Failover));
        }
        if (self.marked.plain, self.marked.newest) != (NO_BACKEND, NO_BACKEND)
            && let Some(backend) = self.take_marked()
        {
            return Some((backend, AttemptKind::Failover));
        }
        if let Some(place) = self.unasked() {
            let kind = if self.turns.asked.count_ones() < u32::from(self.turns.width) {
                AttemptKind::First
            } else if spend(&mut self.turns.owed) || spend(&mut self.turns.hints) || self.may_ask(context, now) {
                AttemptKind::Failover
            } else {
                return None;
            };
            return self.strike(place).map(|backend| (backend, kind));
        }
        if self.has_lost()
            && let Some(backend) = self.lost_again()
        {
            let is_due = spend(&mut self.turns.owed) || spend(&mut self.turns.hints) || self.may_ask(context, now);
            return is_due.then_some((backend, AttemptKind::Failover));
        }
        self.turns.owed = 0;
        if spend(&mut self.turns.hints) {
            if self.turns.unsendable != 0 {
                return self
                    .strike(self.turns.unsendable.trailing_zeros() as u8)
                    .map(|backend| (backend, AttemptKind::Failover));
            }
            let silent = self.silences(context.rules).min_by_key(|&(_, _, last)| last);
            return silent.map(|(backend, ..)| (backend, AttemptKind::Failover));
        }
        if !self.has_too_few(context, now) {
            return None;
        }
        let (longest, is_free) = (context.rules.attempt_timeout.longest(), self.is_free(context, now));
        let late = self
            .silences(context.rules)
            .filter(|&(_, tries, last)| is_free && tries < context.rules.tries && last.after(longest) <= now)
            .min_by_key(|&(_, tries, _)| tries)
            .map(|(backend, ..)| backend);
        late.or_else(|| self.repeat_early(context, now)).map(|backend| (backend, AttemptKind::Failover))
    }

    /// Returns the backend that was silent for longest, if its timeout is over and an attempt is paid.
    #[cold]
    fn repeat_early(&self, context: &RaceContext<'_>, now: Offset) -> Option<BackendIndex> {
        if !context.rules.attempt_timeout.is_auto() {
            return None;
        }
        let is_over = |backend| {
            let (id, last) = self.attempts.last_of(backend)?;
            let patience = self.attempts.patience(context, id, last.backend);
            Some(patience < AttemptTimeout::LONGEST && last.asked.after(patience) <= now)
        };
        let late = self.silences(context.rules).filter(|&(backend, ..)| is_over(backend) == Some(true));
        let (backend, ..) = late.min_by_key(|&(_, _, last)| last)?;
        self.attempts.pay(context, self.start, now).then_some(backend)
    }

    /// Returns true if another attempt is due because of silence, and free or paid.
    #[inline]
    fn may_ask(&self, context: &RaceContext<'_>, now: Offset) -> bool {
        self.has_too_few(context, now) && (self.is_free(context, now) || self.attempts.pay(context, self.start, now))
    }

    #[inline]
    fn has_too_few(&self, context: &RaceContext<'_>, now: Offset) -> bool {
        self.attempts.fresh(context, now).count() < usize::from(self.turns.width)
    }

    /// Returns true if too few attempts are younger than the longest timeout.
    #[inline]
    fn is_free(&self, context: &RaceContext<'_>, now: Offset) -> bool {
        let is_auto = context.rules.attempt_timeout.is_auto();
        !is_auto || self.attempts.young(now).count() < usize::from(self.turns.width)
    }

    /// Returns a backend that refused the extension, to be asked without it.
    #[cold]
    fn take_refused(&mut self) -> Option<BackendIndex> {
        let (attempt, _) = self.attempts.in_state(AttemptState::ExtensionRefused).next()?;
        let entry = self.attempts.get_mut(attempt)?;
        entry.state = AttemptState::Replaced;
        Some(entry.backend)
    }

    fn turn_due(&self, context: &RaceContext<'_>, now: Offset) -> Option<Offset> {
        let is_auto = context.rules.attempt_timeout.is_auto();
        let someone_left = self.unasked().is_some()
            || self.lost_again().is_some()
            || self.silences(context.rules).any(|(_, tries, _)| is_auto || tries < context.rules.tries);
        if self.attempts.is_full() || !someone_left {
            return None;
        }
        if is_auto {
            return self.attempts.due_early(context, self.has_too_few(context, now), now);
        }
        let mut ends = self.attempts.fresh(context, now);
        let first = ends.next()?;
        match (1 + ends.count()).saturating_sub(usize::from(self.turns.width)) {
            0 => Some(first),
            surplus => self.attempts.fresh(context, now).nth(surplus),
        }
    }

    fn grace_ends(&self, context: &RaceContext<'_>) -> Option<Offset> {
        let since = self.weak_at?;
        let rules = context.rules;
        let grace = match rules.grace {
            Grace::Off => return None,
            Grace::After(time) => time,
            Grace::Auto => {
                let silent = self.attempts.waited_for();
                let p99s = silent.map(|(_, entry)| context.latency.get(entry.backend.get())?.quantile(0.99));
                let longest = rules.attempt_timeout.longest();
                let times = p99s.map(|p99| p99.map_or(longest, |p99| 3 * p99));
                times.fold(MIN_GRACE, Duration::max).min(longest)
            }
        };
        Some(since.after(grace))
    }

    fn patience_ends(&self, rules: &RaceRules, now: Offset) -> Option<Offset> {
        if self.attempts.waited_for().next().is_some() {
            return Some(self.deadline);
        }
        let patience = rules.attempt_timeout.longest();
        let bare = self.attempts.in_state(AttemptState::Bare).map(|(_, entry)| entry.asked.after(patience));
        bare.max().filter(|&end| now < end)
    }

    fn silences(&self, rules: &RaceRules) -> impl Iterator<Item = (BackendIndex, u8, Offset)> + '_ {
        let sendable = self.candidates.iter().enumerate().filter(|(place, _)| self.turns.unsendable & 1 << place == 0);
        let is_auto = rules.attempt_timeout.is_auto();
        sendable.filter_map(move |(_, backend)| {
            let (tries, last) = self.attempts.silence_of(backend)?;
            let early = if is_auto { self.attempts.early_of(backend) } else { 0 };
            Some((backend, tries.saturating_sub(early), last))
        })
    }
}

/// The external state that a race reads.
#[derive(Clone, Copy, Debug)]
pub struct RaceContext<'a> {
    /// The rules of the pool.
    pub rules: &'a RaceRules,
    /// The latency of each backend, by [`BackendIndex`].
    pub latency: &'a [Latency],
    /// The load of each backend; empty if it is not known. Only [`Dispatch::Auto`] reads it.
    pub loads: &'a [BackendLoad],
    /// True for each backend by stream, where a connection holds many attempts; empty if there is none.
    pub by_stream: &'a [bool],
    /// The budget for hedges.
    pub budget: &'a Budget,
}

fn spend(count: &mut u8) -> bool {
    let left = count.checked_sub(1);
    *count = left.unwrap_or(0);
    left.is_some()
}

const BARE: u8 = 1;

const LOST: u8 = 2;

const REFUSED: u8 = 4;

const NO_BACKEND: BackendIndex = BackendIndex(u16::MAX);

const MIN_WAIT: Duration = Duration::from_millis(1);

const MIN_GRACE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests;
