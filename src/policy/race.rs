//! One query, several backends, one outcome.
//!
//! A [`Race`] decides whom to ask, how long to wait and whose reply wins. It holds no bytes, sockets or
//! clock: tell it what happened, then take steps until one says to wait or that the race is finished.
//!
//! The algorithm, in plain lines:
//!
//! 1. Of the candidates, the first few are asked at once: `fanout` in a race, one in hedge or sequential,
//!    and all of them if none is up.
//! 2. An accepted reply wins, and the race is over.
//! 3. Any other reply is kept if it ranks above what was kept before. Kept or not, it moves the race on,
//!    as a failure does: the next candidate is asked at once. So does an ICMP error, which may be forged: its
//!    attempt stays, and is waited for as if nothing had come. If its backend is found down, that is its end.
//! 4. The race wants as many attempts out as it began with that have not been silent for `attempt_timeout`.
//!    Where one is missing, the next candidate is asked; once all were asked, those that stayed silent are
//!    asked again in the same order, each up to `tries` times.
//! 5. Hedge only: when the newest silent attempt has taken longer than the delay of its backend, another
//!    candidate is asked besides, if the budget pays. If it does not, that is counted, once for each attempt, and
//!    when the attempt has taken twice as long it is tried again: who was late by a hair is answered by then, and
//!    what there is pays for those who are late indeed.
//! 6. A retransmission by the client asks the next candidate at once, or whoever was silent for longest.
//! 7. An attempt that timed out stays in the race. Nothing is ever asked beyond eight attempts.
//! 8. An attempt that could not leave, for want of something of our own, was not made. Its backend is asked once more, from
//!    another socket, and then the next candidate in its stead.
//! 9. A negative reply of an older version of the zone than another backend has is not accepted, whatever the rules: that one is asked
//!    at once, or waited for if it was asked, and what it says is final. It need be no candidate.
//! 10. An attempt that was lost with its connection says nothing: the next candidate is asked at once, and the backend stands once
//!     more at the end of the line, to be asked by another connection. A backend by stream may also be hedged by another
//!     connection to itself, if nobody else is left.
//! 11. A decision of a backend is accepted, whatever the rules. One that its backend's clock may have caused is kept instead, and
//!     whatever else comes then is not accepted, nor kept in its place, but for a positive reply that is validated.
//! 12. The race ends without an accepted reply when nobody is waited for and nobody is left to ask, when
//!     the grace of a kept negative is over, or at the deadline. Then the best kept reply wins.
//!
//! Who is waited for: silent attempts, those with an ICMP error, and those with a bare failure until their `attempt_timeout`. A
//! negative reply is a backend's word, so its other attempts are not waited for; a failure speaks for its
//! own attempt only.
//!
//! Nothing is concluded from the silence of some while others could not be asked: then the race ends as [`Outcome::Unsent`],
//! unless a reply is kept, which is somebody's word whoever else was not asked.

mod attempts;
mod lost;
mod marked;
mod rank;
mod step;

use std::time::{Duration, Instant};

pub use self::attempts::{Attempt, AttemptId, Kind, MAX_ATTEMPTS, Offset, State};
use self::attempts::{AttemptRecord, Attempts};
pub use self::rank::{Accept, Rank};
pub use self::step::{Heard, OptRefusal, Outcome, Retry, Step};
use super::budget::Budget;
pub use super::candidates::{BackendIndex, Candidates};
use super::latency::Latency;
use super::rules::{Dispatch, Grace, Rules};

/// One query's race. See the head of this file for the algorithm.
///
/// ```text
///                  on_reply (not accepted), on_failure, on_unreachable, on_bare_failure,
///              on_opt_refused, on_retransmission, on_unsent, on_lost, time passes
///                               ┌─────────────────┐
///                               │                 │
///             start     ┌───────┴─────────────────▼────┐
///           ───────────▶│           running            │
///                       │ next_step: Ask* … WaitUntil  │
///                       └──┬────────────────────────┬──┘
///        on_reply: accepted│                        │next_step: deadline, grace over,
///                          │                        │or nobody waited for or left to ask
///                       ┌──▼────────────────────────▼──┐
///                       │          finished            │ every input: ignored
///                       │ next_step: Finished(outcome) │ next_step: the same outcome again
///                       └──────────────────────────────┘
///
/// an attempt:  silent ──▶ replied | failed | lost (its backend is in line once more)
///                │ ICMP error ──▶ unreachable ──▶ replied | failed | bare
///                │ bare failure ──▶ bare ──▶ replied | failed
///                │ its backend gave a negative elsewhere ──▶ spoken ──▶ replied | failed
///                ├ OPT refused ──▶ replaced, by a new attempt without OPT
///                └ unsent
/// ```
///
/// A race is over when it says so, not when the clock does: a reply that is read after the deadline, but
/// before the late timer, still counts, since the client is better served by it than by a made-up answer.
#[derive(Clone, Debug)]
pub struct Race {
    /// When it started; all offsets count from here.
    start: Instant,
    /// When the client must have its response.
    deadline: Offset,
    /// Who may be asked.
    candidates: Candidates,
    /// Who was asked.
    attempts: Attempts,
    /// Which of the candidates were asked, a bit for each place.
    asked: u8,
    /// How many attempts are to be out that have not timed out: as many as the race began with.
    width: u8,
    /// How many candidates are to be asked because an attempt ended without an accepted reply.
    owed: u8,
    /// How many attempts are to be made because the client asked again.
    hints: u8,
    /// The hedges made.
    hedges: u8,
    /// The attempts whose hedge was denied for lack of budget.
    hedges_denied: u8,
    /// When a hedge that was denied is tried again.
    hedge_again: Option<Offset>,
    /// Attempts before this one have had their hedge.
    hedge_from: AttemptId,
    /// Which replies win at once.
    accept: Accept,
    /// The best reply so far that does not win at once.
    kept: Option<(AttemptId, Rank)>,
    /// When the first NXDOMAIN or NODATA was kept.
    negative_at: Option<Offset>,
    /// What has come besides replies: [`BARE`] and [`LOST`], in one octet, for there may be a hundred thousand of these.
    met: u8,
    /// The backend that a bare refusal of OPT seems to come from, which is asked without; or [`NOBODY`].
    without_opt: BackendIndex,
    /// The backend whose word is final, since it has a newer version of the zone than one that gave a negative reply; or [`NOBODY`].
    newest: BackendIndex,
    /// Of the candidates whose attempt could not leave, those to whom another socket did not help either: no hedge goes there. A
    /// bit for each place.
    unsendable: u8,
    /// How it ended.
    outcome: Option<Outcome>,
}

impl Race {
    /// A race that starts now.
    pub fn start(context: &RaceContext<'_>, candidates: &Candidates, now: Instant) -> Self {
        let RaceContext { rules, .. } = context;
        let all = candidates.first_in_line();
        let (width, time) = if candidates.all_down() {
            // Nothing is to be hoped for, so the client is not made to wait its whole timeout.
            (all, rules.timeout.min(rules.attempt_timeout))
        } else {
            let width = match rules.dispatch {
                Dispatch::Race if rules.fanout == 0 => all,
                Dispatch::Race => u8::try_from(rules.fanout).map_or(all, |fanout| fanout.min(all)),
                Dispatch::Hedge | Dispatch::Sequential => all.min(1),
            };
            (width, rules.timeout)
        };
        Self {
            start: now,
            deadline: Offset::default().after(time),
            candidates: *candidates,
            attempts: Attempts::new(),
            asked: 0,
            width,
            owed: 0,
            hints: 0,
            hedges: 0,
            hedges_denied: 0,
            hedge_again: None,
            hedge_from: AttemptId(0),
            accept: rules.accept,
            kept: None,
            negative_at: None,
            met: 0,
            without_opt: NOBODY,
            newest: NOBODY,
            unsendable: 0,
            outcome: None,
        }
    }

    /// A reply of this rank came to an attempt.
    #[inline]
    pub fn on_reply(&mut self, attempt: AttemptId, rank: Rank, now: Instant) -> Heard {
        let Some((backend, before)) = self.replied(attempt) else { return Heard::NotNeeded };
        let is_final = self.is_final(backend) && rank > Rank::Outdated && rank != Rank::Doubtful;
        if (is_final || self.accept.accepts(rank)) && !self.is_doubted() {
            self.outcome = Some(Outcome::Reply(attempt));
            return Heard::Accepted;
        }
        self.move_on(before);
        if rank > Rank::Outdated {
            self.attempts.mark_spoken(backend);
        }
        if rank > Rank::Outdated && rank < Rank::Positive && !self.is_doubted() {
            self.negative_at = self.negative_at.or_else(|| Some(Offset::between(self.start, now)));
        }
        if self.kept.is_some_and(|(_, best)| best >= rank || best == Rank::Doubtful) {
            return Heard::NotNeeded;
        }
        self.kept = Some((attempt, rank));
        Heard::Kept
    }

    /// An attempt is over without a reply: a send error, or its backend is down.
    pub fn on_failure(&mut self, attempt: AttemptId) {
        let Some(entry) = self.attempts.get_mut(attempt) else {
            return;
        };
        match entry.state {
            State::Silent | State::Unreachable | State::Bare | State::Spoken => {
                let before = std::mem::replace(&mut entry.state, State::Failed);
                self.move_on(before);
            }
            State::OptRefused | State::Replaced | State::Replied | State::Failed | State::Unsent | State::Lost => {}
        }
    }

    /// An attempt that was just made could not leave, for want of something of our own. It costs nobody anything, a hedge not
    /// even its budget, which is given back.
    pub fn on_unsent(&mut self, attempt: AttemptId, retry: Retry, budget: &Budget) {
        let asked = self.attempts.get(attempt).filter(|entry| entry.state == State::Silent);
        let Some(&AttemptRecord { backend, kind, .. }) = asked else { return };
        self.attempts.withdraw(attempt);
        for special in [&mut self.newest, &mut self.without_opt] {
            // It is not tried again and again.
            if *special == backend {
                *special = NOBODY;
            }
        }
        if let Some(place) = self.candidates.iter().position(|candidate| candidate == backend) {
            let bit = 1 << place;
            let is_again = retry == Retry::Once && self.attempts.unsent & bit == 0;
            // Who has lost an attempt is in line for that. To whom no hedge could be sent, a failover may still go.
            let is_in_line = self.has_lost() && self.attempts.is_lost(backend);
            if !is_in_line && (is_again || kind == Kind::Hedge && !self.attempts.has_asked(backend)) {
                self.asked &= !bit;
            }
            if !is_again {
                self.unsendable |= bit;
            }
            self.attempts.unsent |= bit;
        }
        if kind == Kind::Hedge {
            budget.give_back();
            self.hedges -= 1;
            // The attempt that is late has not had its hedge.
            let late = self.attempts.in_state(State::Silent).next_back();
            self.hedge_from = late.map_or(self.hedge_from, |(id, _)| self.hedge_from.min(id));
        } else if self.asked.count_ones() >= u32::from(self.width) {
            self.owed += 1;
        }
    }

    /// ICMP says that an attempt has met nobody. It may be forged, for that takes no ID: it costs the race nothing but another
    /// attempt. The next candidate is asked at once, and this attempt stays as if nothing had come.
    pub fn on_unreachable(&mut self, attempt: AttemptId) {
        if let Some(entry) = self.attempts.get_mut(attempt)
            && entry.state == State::Silent
        {
            entry.state = State::Unreachable;
            self.move_on(State::Silent);
        }
    }

    /// A failure of twelve octets came to an attempt. It may be forged, so it costs the race nothing but
    /// another attempt: the next candidate is asked at once, and this attempt stays.
    pub fn on_bare_failure(&mut self, attempt: AttemptId) {
        if let Some(entry) = self.attempts.get_mut(attempt)
            && matches!(entry.state, State::Silent | State::Unreachable)
        {
            let before = std::mem::replace(&mut entry.state, State::Bare);
            self.met |= BARE;
            self.move_on(before);
        }
    }

    /// FORMERR or NOTIMP came to an attempt.
    pub fn on_opt_refused(&mut self, attempt: AttemptId) -> OptRefusal {
        let waiting = self.attempts.in_state(State::OptRefused).count();
        let room = waiting < self.attempts.room();
        let Some(&entry) = self.attempts.get(attempt) else {
            return OptRefusal::IsFailure;
        };
        let new_state = match entry.state {
            // A duplicate.
            State::OptRefused | State::Replaced => return OptRefusal::AskedAgain,
            State::Spoken | State::Replied | State::Failed | State::Unsent | State::Lost => {
                return OptRefusal::IsFailure;
            }
            State::Silent | State::Unreachable | State::Bare
                if self.is_finished() || !self.attempts.has_opt(attempt) =>
            {
                return OptRefusal::IsFailure;
            }
            // An earlier try refused it too, and the attempt without OPT stands for both.
            State::Silent | State::Unreachable | State::Bare if self.attempts.refuses_opt(entry.backend) => {
                State::Replaced
            }
            State::Silent | State::Unreachable | State::Bare if room => State::OptRefused,
            State::Silent | State::Unreachable | State::Bare => return OptRefusal::IsFailure,
        };
        if let Some(entry) = self.attempts.get_mut(attempt) {
            entry.state = new_state;
        }
        OptRefusal::AskedAgain
    }

    /// A bare FORMERR or NOTIMP came to an attempt with OPT. It may be forged, or it may be all that an old server says to
    /// OPT: besides what a bare failure does, the same backend is asked once more without OPT.
    pub fn on_bare_opt_refused(&mut self, attempt: AttemptId) {
        let asked = self.attempts.get(attempt);
        let asked = asked.filter(|entry| matches!(entry.state, State::Silent | State::Unreachable));
        let asked = asked.filter(|_| self.attempts.has_opt(attempt));
        if let Some(backend) = asked.map(|entry| entry.backend)
            && !self.attempts.refuses_opt(backend)
            && self.without_opt == NOBODY
        {
            self.without_opt = backend;
        }
        self.on_bare_failure(attempt);
    }

    /// Whether an attempt that waits for its reply may be asked once more, from another socket, because what came to the one
    /// that it was asked from may be forged. It stays the same attempt, and no other backend is asked for that; but all that is
    /// sent for one query counts towards the eight.
    pub fn ask_again(&mut self, attempt: AttemptId) -> bool {
        let is_open = self.attempts.get(attempt).is_some_and(|entry| entry.state.is_open());
        let may = is_open && !self.is_finished() && !self.attempts.is_full();
        if may {
            self.attempts.ask_again();
        }
        may
    }

    /// How often attempts were asked again.
    pub fn times_asked_again(&self) -> u8 {
        self.attempts.times_asked_again()
    }

    /// The client sent its query again: a hint that something was lost.
    pub fn on_retransmission(&mut self) {
        self.hints = self.hints.saturating_add(1);
    }

    /// What to do next: to be called after each input, after each [`Step::Ask`], and when the time of a
    /// [`Step::WaitUntil`] has come.
    pub fn next_step(&mut self, context: &RaceContext<'_>, now: Instant) -> Step {
        if let Some(outcome) = self.outcome {
            return Step::Finished(outcome);
        }
        let patience = context.rules.attempt_timeout;
        let now = Offset::between(self.start, now);
        let grace_ends = self.grace_ends(context);
        if now >= self.deadline || grace_ends.is_some_and(|end| now >= end) {
            return self.finish();
        }
        if let Some((backend, kind)) = self.take_turn(context.rules, now) {
            return self.ask(backend, kind, now);
        }
        let mut hedge_due = self.hedge_due(context);
        if hedge_due.is_some_and(|due| due <= now) {
            if let Some(backend) = self.take_hedge(context, now) {
                return self.ask(backend, Kind::Hedge, now);
            }
            hedge_due = self.hedge_again;
        }
        let Some(patience_ends) = self.patience_ends(patience, now) else {
            return self.finish();
        };
        let wake = [self.turn_due(context.rules, now), hedge_due, grace_ends, Some(patience_ends)];
        let wake = wake.into_iter().flatten().fold(self.deadline, Offset::min);
        Step::WaitUntil(wake.since(self.start))
    }

    /// When it started.
    pub fn started(&self) -> Instant {
        self.start
    }

    /// When the client must have its response.
    pub fn deadline(&self) -> Instant {
        self.deadline.since(self.start)
    }

    /// Whether no backend of the pool was up when the race started.
    pub fn all_down(&self) -> bool {
        self.candidates.all_down()
    }

    /// Whether the race is over.
    pub fn is_finished(&self) -> bool {
        self.outcome.is_some()
    }

    /// Whether somebody who was to be asked could not be, for want of something of our own.
    pub fn is_incomplete(&self) -> bool {
        // Nearly always none.
        self.attempts.unsent != 0
            && self
                .candidates
                .iter()
                .enumerate()
                .any(|(place, candidate)| self.attempts.unsent & 1 << place != 0 && !self.attempts.has_asked(candidate))
    }

    /// The best reply that was not accepted, if there was one: the attempt that it answered, and its rank.
    pub fn kept(&self) -> Option<(AttemptId, Rank)> {
        self.kept
    }

    /// How many attempts were late but had their hedge denied for lack of budget, at first or for good.
    pub fn hedges_denied(&self) -> u8 {
        self.hedges_denied
    }

    /// How many attempts have left, and whether a hedge was among them.
    pub fn tally(&self) -> (u8, bool) {
        let left = self.attempts.iter().filter(|(_, entry)| entry.state != State::Unsent);
        left.fold((0, false), |(count, is_hedged), (_, entry)| (count + 1, is_hedged || entry.kind == Kind::Hedge))
    }

    /// The attempt whose reply has won.
    pub fn winner(&self) -> Option<Attempt> {
        match self.outcome? {
            Outcome::Reply(winner) => self.attempt(winner),
            Outcome::Failed | Outcome::Nothing | Outcome::Unsent => None,
        }
    }

    /// Whom the next hedge would go to.
    pub fn next_hedge(&self) -> Option<BackendIndex> {
        self.unhedged().and_then(|place| self.candidates.get(usize::from(place)))
    }

    /// Who may be asked, in order.
    pub fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// The attempts, oldest first.
    pub fn attempts(&self) -> impl Iterator<Item = Attempt> + '_ {
        self.attempts.iter().map(|(id, entry)| self.attempts.view(id, entry, self.start))
    }

    /// One attempt.
    pub fn attempt(&self, id: AttemptId) -> Option<Attempt> {
        self.attempts.get(id).map(|entry| self.attempts.view(id, entry, self.start))
    }

    /// A reply came to an attempt: whose it is, and how the attempt stood; `None`: that changes nothing any more.
    #[inline]
    fn replied(&mut self, attempt: AttemptId) -> Option<(BackendIndex, State)> {
        if self.is_finished() {
            return None;
        }
        let entry = self.attempts.get_mut(attempt)?;
        Some((entry.backend, std::mem::replace(&mut entry.state, State::Replied)))
    }

    /// Notes that an attempt ended without an accepted reply: if it was waited for, the next candidate is due.
    fn move_on(&mut self, before: State) {
        // The other states have moved the race on before, or another attempt has on their behalf.
        if before == State::Silent {
            self.owed += 1;
        }
    }

    /// Ends the race without an accepted reply.
    fn finish(&mut self) -> Step {
        let outcome = match self.kept {
            Some((attempt, _)) => Outcome::Reply(attempt),
            None if self.is_incomplete() => Outcome::Unsent,
            None if self.met & BARE != 0 => Outcome::Failed,
            None => Outcome::Nothing,
        };
        self.outcome = Some(outcome);
        Step::Finished(outcome)
    }

    /// Makes an attempt.
    fn ask(&mut self, backend: BackendIndex, kind: Kind, now: Offset) -> Step {
        let edns = !self.attempts.refuses_opt(backend) && self.without_opt != backend;
        let attempt = self.attempts.push(backend, kind, edns, now);
        self.hedge_again = None;
        Step::Ask { attempt, backend, kind, edns }
    }

    /// The place of the next candidate that was not asked yet.
    fn unasked(&self) -> Option<u8> {
        let place = self.asked.trailing_ones();
        (place < self.candidates.len() as u32).then_some(place as u8)
    }

    /// The place of the candidate that the next hedge goes to.
    fn unhedged(&self) -> Option<u8> {
        self.candidates.hedge_places().find(|place| (self.asked | self.unsendable) & 1 << place == 0)
    }

    /// Notes that the candidate at this place is asked.
    fn strike(&mut self, place: u8) -> Option<BackendIndex> {
        self.asked |= 1 << place;
        self.unsendable &= !(1 << place);
        self.candidates.get(usize::from(place))
    }

    /// Whom to ask now for any reason but a hedge, and why.
    fn take_turn(&mut self, rules: &Rules, now: Offset) -> Option<(BackendIndex, Kind)> {
        if self.attempts.is_full() {
            return None;
        }
        let refused = self.attempts.in_state(State::OptRefused).next().map(|(id, entry)| (id, entry.backend));
        if let Some((attempt, backend)) = refused {
            if let Some(entry) = self.attempts.get_mut(attempt) {
                entry.state = State::Replaced;
            }
            return Some((backend, Kind::Failover));
        }
        // Nearly always there is neither.
        if (self.without_opt, self.newest) != (NOBODY, NOBODY)
            && let Some(backend) = self.take_marked()
        {
            return Some((backend, Kind::Failover));
        }
        let too_few = self.fresh(rules, now).count() < usize::from(self.width);
        if let Some(place) = self.unasked() {
            let kind = if self.asked.count_ones() < u32::from(self.width) {
                Kind::First
            } else if spend(&mut self.owed) || spend(&mut self.hints) || too_few {
                Kind::Failover
            } else {
                return None;
            };
            return self.strike(place).map(|backend| (backend, kind));
        }
        if self.has_lost()
            && let Some(backend) = self.lost_again()
        {
            let is_due = spend(&mut self.owed) || spend(&mut self.hints) || too_few;
            return is_due.then_some((backend, Kind::Failover));
        }
        self.owed = 0;
        if spend(&mut self.hints) {
            if self.unsendable != 0 {
                return self.strike(self.unsendable.trailing_zeros() as u8).map(|backend| (backend, Kind::Failover));
            }
            let silent = self.silences().min_by_key(|&(_, _, last)| last);
            return silent.map(|(backend, ..)| (backend, Kind::Failover));
        }
        if !too_few {
            return None;
        }
        let late = self
            .silences()
            .filter(|&(_, tries, last)| tries < rules.tries && last.after(rules.attempt_timeout) <= now)
            .min_by_key(|&(_, tries, _)| tries);
        late.map(|(backend, ..)| (backend, Kind::Failover))
    }

    /// When the next turn comes if nothing happens. To be asked only when none is due now.
    fn turn_due(&self, rules: &Rules, now: Offset) -> Option<Offset> {
        let someone_left = self.unasked().is_some()
            || self.lost_again().is_some()
            || self.silences().any(|(_, tries, _)| tries < rules.tries);
        if self.attempts.is_full() || !someone_left {
            return None;
        }
        // Attempts are in the order of asking, so they time out in that order too.
        let surplus = self.fresh(rules, now).count().saturating_sub(usize::from(self.width));
        self.fresh(rules, now).nth(surplus)
    }

    /// The backend to hedge with now that it is due, if it is paid.
    fn take_hedge(&mut self, context: &RaceContext<'_>, now: Offset) -> Option<BackendIndex> {
        let place = self.unhedged();
        let again = if place.is_none() { Some(self.hedge_by_stream(context)?) } else { None };
        if !context.budget.take() {
            self.hedges_denied += u8::from(self.hedge_again.is_none());
            let (_, late) = self.attempts.in_state(State::Silent).next_back()?;
            self.hedge_again = Some(now.after(late.asked.until(now).max(MIN_WAIT)));
            return None;
        }
        self.hedge_from = self.attempts.next_id();
        self.hedges += 1;
        again.or_else(|| place.and_then(|place| self.strike(place)))
    }

    /// When the newest silent attempt has taken so long that another is due besides, if that may be.
    ///
    /// Hedges go to candidates that were not asked yet: to ask the same backend again tests its luck, not another machine's. Only by
    /// another connection that is worth something, for one connection may stand still where another does not.
    fn hedge_due(&self, context: &RaceContext<'_>) -> Option<Offset> {
        let hedge = &context.rules.hedge;
        match context.rules.dispatch {
            Dispatch::Hedge => {}
            Dispatch::Race | Dispatch::Sequential => return None,
        }
        // Without a budget hedging is switched off: then nothing is denied either.
        if self.hedges >= hedge.max || hedge.budget <= 0.0 || self.attempts.is_full() {
            return None;
        }
        if self.unasked().is_none() {
            self.hedge_by_stream(context)?;
        }
        let (newest, entry) = self.attempts.in_state(State::Silent).next_back()?;
        if newest < self.hedge_from {
            return None;
        }
        let latency = context.latency.get(entry.backend.get());
        let delay = latency.map_or(hedge.max_delay, |latency| latency.hedge_delay(hedge));
        let due = entry.asked.after(delay);
        Some(self.hedge_again.map_or(due, |again| due.max(again)))
    }

    /// When the best kept reply goes out although others are silent, if it is a negative.
    fn grace_ends(&self, context: &RaceContext<'_>) -> Option<Offset> {
        let since = self.negative_at?;
        let rules = context.rules;
        let grace = match rules.grace {
            Grace::Off => return None,
            Grace::After(time) => time,
            Grace::Auto => {
                let silent = self.attempts.waited_for();
                let p99s = silent.map(|(_, entry)| context.latency.get(entry.backend.get())?.quantile(0.99));
                // A backend that is not known yet may take its whole time.
                let times = p99s.map(|p99| p99.map_or(rules.attempt_timeout, |p99| 3 * p99));
                times.fold(MIN_GRACE, Duration::max).min(rules.attempt_timeout)
            }
        };
        Some(since.after(grace))
    }

    /// Until when somebody is waited for; `None`: nobody is.
    fn patience_ends(&self, patience: Duration, now: Offset) -> Option<Offset> {
        if self.attempts.waited_for().next().is_some() {
            return Some(self.deadline);
        }
        let bare = self.attempts.in_state(State::Bare).map(|(_, entry)| entry.asked.after(patience));
        bare.max().filter(|&end| now < end)
    }

    /// When each silent attempt times out, of those that have not.
    #[inline]
    fn fresh(&self, rules: &Rules, now: Offset) -> impl Iterator<Item = Offset> + '_ {
        let patience = rules.attempt_timeout;
        let silent = self.attempts.waited_for().map(move |(_, entry)| entry.asked.after(patience));
        silent.filter(move |&end| now < end)
    }

    /// The backends that were asked, stayed silent and can be asked again: how often each was asked, and when last.
    fn silences(&self) -> impl Iterator<Item = (BackendIndex, u8, Offset)> + '_ {
        let sendable = self.candidates.iter().enumerate().filter(|(place, _)| self.unsendable & 1 << place == 0);
        sendable.filter_map(|(_, backend)| {
            let (tries, last) = self.attempts.silence_of(backend)?;
            Some((backend, tries, last))
        })
    }
}

/// What a race looks at but does not own.
#[derive(Clone, Copy, Debug)]
pub struct RaceContext<'a> {
    /// The rules of the pool.
    pub rules: &'a Rules,
    /// The latency of each backend, by [`BackendIndex`].
    pub latency: &'a [Latency],
    /// Which of them are asked by stream, where a connection holds many attempts; empty if none is.
    pub by_stream: &'a [bool],
    /// What pays for hedges.
    pub budget: &'a Budget,
}

/// Takes one off a count, if there is one.
fn spend(count: &mut u8) -> bool {
    let left = count.checked_sub(1);
    *count = left.unwrap_or(0);
    left.is_some()
}

/// A bare failure came.
const BARE: u8 = 1;

/// An attempt was lost with its connection.
const LOST: u8 = 2;

/// No backend has this place.
const NOBODY: BackendIndex = BackendIndex(u16::MAX);

/// The least time after which a denied hedge is tried again.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// The least that `grace = "auto"` waits (docs/src/contract.md, Races).
const MIN_GRACE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests;
