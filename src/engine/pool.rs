//! A pool as one worker sees it: the sockets of its backends, what it has learnt of their latency, whose turn it is.
//!
//! What is known of a member stays where it is, by [`BackendIndex`], when others come and go: another state of the pool is another
//! [`Plan`], and nothing else changes hands. Races go on by the plan that they began with. A member that is in no plan any more, neither
//! the present one nor that of a race, is forgotten with its sockets; its place may then be another's.

mod gives;
mod plans;
mod streams;
mod versions;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use rand::Rng;

use self::versions::Told;
use super::QTYPE_QCLASS;
use super::io::Io;
use super::plan::{Plan, PlanNumber};
use super::single_flight::WorkerId;
use super::tell_prober;
use crate::metrics::BackendCounters;
use crate::policy::backend_load::{BackendLoad, End, LoadImage};
use crate::policy::balance::{Balance, BalanceInput, Balancer, Crowd};
use crate::policy::health::HealthState;
use crate::policy::latency;
use crate::policy::latency::{Latency, LatencyImage};
use crate::policy::ordering::{BackendStats, order};
use crate::policy::query_slots::SocketSetId;
use crate::policy::race::{BackendIndex, Candidates, MAX_ATTEMPTS, RaceContext};
use crate::policy::{Expect, Rules};
use crate::state::{HealthSignal, ManualHealth, SharedBackend, SharedPool, Since, hash_identity};
use crate::wire::{self, CookiePair, Name, QuestionHasher};

/// A worker's part of a pool.
pub(super) struct Pool {
    /// What all workers share, as the plan has it that is at work: the present one, or for a moment that of an earlier race.
    pub(super) shared: Arc<SharedPool>,
    /// The rules of its races while nobody waits for them: without hedges, which buy time with load.
    unhurried: Rules,
    /// The number of that plan.
    pub(super) plan: PlanNumber,
    /// Races of that plan that are not over.
    pub(super) in_flight: usize,
    /// The earliest plan whose replies are worth as much as those of the present one.
    alike_since: PlanNumber,
    /// Plans of before that have races.
    earlier: Vec<Plan>,
    /// Which of those the present one has changed places with.
    exchanged: Option<usize>,
    /// All backends of these plans, by [`BackendIndex`].
    members: Vec<Member>,
    /// When a backend came up last, while there is this worker.
    recovered: Option<Instant>,
    /// Their latency, by [`BackendIndex`].
    pub(super) latency: Vec<Latency>,
    /// Their load, by [`BackendIndex`].
    loads: Vec<BackendLoad>,
    /// Which of them are asked by stream, by [`BackendIndex`]; empty if none ever was.
    by_stream: Vec<bool>,
    /// Members that the present plan does not have any more.
    leaving: Vec<BackendIndex>,
    /// To whom sockets lead.
    by_sockets: HashMap<SocketSetId, BackendIndex, FixedState>,
    /// Attempts that all members have out.
    out: u64,
    /// Those of them that are waited for.
    waited_for: u64,
    /// In which order they are asked.
    turns: Turns,
    /// Members that are behind and take queries: asked after all others.
    behind: Vec<BackendIndex>,
    /// What was told of the versions of their zones, if they are replicas.
    told: Option<Told>,
    /// Which changes of the backends have been seen.
    epoch: u64,
    /// How many of the queries that may be out to one backend are this worker's in any case.
    sure: u64,
    /// The worker's number.
    me: usize,
}

/// In which order backends are asked, as they stand now.
enum Turns {
    /// This worker looks at each.
    OfFew(Balancer),
    /// All workers share this.
    OfMany(Arc<Crowd>),
}

/// A worker's view of one backend.
struct Member {
    /// Who it is; `None`: nobody, for now.
    backend: Option<Arc<SharedBackend>>,
    /// Its sockets, from the first query on.
    sockets: Option<SocketSetId>,
    /// Whether it was up when we last looked.
    is_up: bool,
    /// Whether it took queries then.
    takes_queries: bool,
    /// A reply lacked what it must bear, and its query could not be sent once more: the next one is to find out.
    is_doubted: bool,
    /// It gives cookies, and queries to it bear these.
    cookies: Option<CookiePair>,
    /// When the server's of them was seen last to be another.
    cookies_since: Instant,
}

impl Member {
    /// Nobody.
    fn nobody(now: Instant) -> Self {
        Self {
            backend: None,
            sockets: None,
            is_up: false,
            takes_queries: false,
            is_doubted: false,
            cookies: None,
            cookies_since: now,
        }
    }
}

impl Pool {
    /// A worker's part of `shared`, of which nothing is known.
    pub(super) fn new<I: Io>(shared: Arc<SharedPool>, io: &mut I, me: WorkerId, now: Instant) -> Self {
        // Before a look at the backends: what changes meanwhile is then seen as a change.
        let epoch = shared.state.epoch();
        let workers = shared.backends.first().map_or(1, |backend| backend.workers());
        let sure = sure(shared.config.max_in_flight.into(), workers as u64);
        let mut pool = Self {
            unhurried: Plan::unhurried(&shared),
            plan: PlanNumber::default(),
            in_flight: 0,
            alike_since: PlanNumber::default(),
            earlier: Vec::new(),
            exchanged: None,
            members: Vec::new(),
            recovered: None,
            latency: Vec::new(),
            loads: Vec::new(),
            by_stream: Vec::new(),
            leaving: Vec::new(),
            by_sockets: HashMap::default(),
            out: 0,
            waited_for: 0,
            turns: turns(&shared),
            behind: behind(&shared),
            told: shared.config.replicas.then(|| Told::new(now)),
            epoch,
            sure,
            me: usize::from(me.0),
            shared,
        };
        let shared = Arc::clone(&pool.shared);
        pool.make_room(now);
        for backend in &shared.backends {
            pool.welcome(io, backend, now);
        }
        pool
    }

    /// Looks at the health of the backends and their cookies, if they have changed, and reports those that went down.
    pub(super) fn refresh(&mut self, now: Instant, mut went_down: impl FnMut(BackendIndex)) {
        let epoch = self.shared.state.epoch();
        if epoch == self.epoch {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let is_crowd = shared.is_crowd();
        let (changed, epoch) = shared.state.changed_since(self.epoch);
        self.epoch = epoch;
        self.turns = turns(&shared);
        self.behind = behind(&shared);
        match changed {
            Since::Some(changed) if is_crowd => {
                for index in changed {
                    if let Some(backend) = shared.find(index) {
                        self.look_at(backend, &mut went_down, now);
                    }
                }
            }
            Since::Some(_) | Since::Any => {
                for backend in &shared.backends {
                    self.look_at(backend, &mut went_down, now);
                }
            }
        }
    }

    /// Looks at the health of a backend of the present plan and its cookies.
    fn look_at(&mut self, backend: &Arc<SharedBackend>, went_down: &mut impl FnMut(BackendIndex), now: Instant) {
        let member = &mut self.members[backend.index.get()];
        member.takes_queries = backend.takes_queries();
        let was_up = std::mem::replace(&mut member.is_up, backend.is_up());
        if !was_up && member.is_up {
            self.recovered = Some(now);
        }
        let cookies = known_cookies(&self.shared, backend);
        if std::mem::replace(&mut member.cookies, cookies) != cookies {
            member.cookies_since = now;
        }
        if was_up && !member.is_up {
            went_down(backend.index);
        }
        // Who sets a backend up by hand wants it to be asked.
        if !was_up && member.is_up && backend.manual() == ManualHealth::Auto {
            self.loads[backend.index.get()].came_back(now);
        }
    }

    /// Whether any backend takes queries, as far as this worker knows.
    pub(super) fn takes_queries(&self) -> bool {
        match &self.turns {
            Turns::OfFew(_) => self.shared.backends.iter().any(|backend| backend.takes_queries()),
            Turns::OfMany(crowd) => !crowd.all_down(),
        }
    }

    /// Whether any backend is up, as far as this worker knows.
    pub(super) fn is_up(&self) -> bool {
        match &self.turns {
            Turns::OfFew(_) => self.shared.backends.iter().any(|backend| backend.is_up()),
            Turns::OfMany(crowd) => !crowd.all_down(),
        }
    }

    /// Whether a query does not look at each of its backends, for they are too many.
    pub(super) fn is_crowd(&self) -> bool {
        matches!(self.turns, Turns::OfMany(_))
    }

    /// Whom to ask for the next query, in order. `qname` is folded.
    pub(super) fn candidates<I: Io>(
        &mut self,
        io: &mut I,
        qname: &[u8],
        hasher: &QuestionHasher,
        rng: &mut impl Rng,
        now: Instant,
    ) -> Candidates {
        let (balance, state) = (self.shared.rules().balance, &self.shared.state);
        let name = match balance {
            Balance::Sticky => name_hash(hasher, qname),
            // Of all processes alike, so that caches behind two balancers see the same names.
            Balance::Hash => FixedState::default().hash_one(qname),
            Balance::Ordered | Balance::RoundRobin | Balance::Random | Balance::LeastLoad | Balance::Fastest => 0,
        };
        let remembered = (balance == Balance::Sticky).then(|| self.shared.affinity.get(name)).flatten();
        let remembered = remembered.and_then(|number| self.shared.by_affinity(number));
        let turn = match balance {
            Balance::RoundRobin => state.take_turn(),
            Balance::Sticky if remembered.is_none() => state.take_turn(),
            Balance::Ordered
            | Balance::Random
            | Balance::Sticky
            | Balance::Hash
            | Balance::LeastLoad
            | Balance::Fastest => 0,
        };
        let sight = BalanceInput { now, turn, name, loads: &self.loads, out: self.out, remembered };
        let candidates = match &self.turns {
            Turns::OfFew(balancer) => balancer.candidates(balance, &sight, rng),
            Turns::OfMany(crowd) => {
                let takes_queries =
                    |backend: BackendIndex| self.members.get(backend.get()).is_some_and(|member| member.takes_queries);
                crowd.candidates(balance, &sight, takes_queries, rng)
            }
        };
        if balance == Balance::Sticky
            && let Some(first) = candidates.get(0)
            && remembered != Some(first)
        {
            self.shared.affinity.insert(name, self.shared.backend(first).affinity_number);
        }
        let mut candidates = if self.by_stream.is_empty() && !self.shared.has_machines() {
            let known = BackendStats { loads: &self.loads, latency: &self.latency, now };
            let weight = |backend: BackendIndex| self.shared.weight(backend);
            order(&candidates, self.shared.rules(), &known, weight, rng)
        } else {
            self.order_ways(io, &candidates, rng, now)
        };
        if !candidates.all_down() {
            self.behind.iter().for_each(|backend| candidates.push_last(*backend));
        }
        candidates
    }

    /// A backend has given a positive answer to a question in wire form: a `sticky` pool asks it first for that name from
    /// now on.
    pub(super) fn learn_place(&self, backend: BackendIndex, question: &[u8], hasher: &QuestionHasher) {
        if self.shared.rules().balance != Balance::Sticky {
            return;
        }
        let qname = question.len().saturating_sub(QTYPE_QCLASS);
        let mut folded = [0; Name::MAX_LEN];
        if let (Some(folded), Some(qname)) = (folded.get_mut(..qname), question.get(..qname)) {
            folded.copy_from_slice(qname);
            wire::fold(folded);
            self.shared.affinity.insert(name_hash(hasher, folded), self.backend(backend).affinity_number);
        }
    }

    /// Whether fewer than `max_in_flight` queries to a backend are waited for, by all workers together. Two workers that look at
    /// the same time may both take the last place.
    ///
    /// Each worker is sure of a few, of which it need not look at what the others count; those are kept for it.
    pub(super) fn has_place(&self, backend: BackendIndex) -> bool {
        if self.counters(backend).waited_for.get() < self.sure {
            return true;
        }
        let backend = self.backend(backend);
        let taken = (0..backend.workers()).map(|worker| backend.counted_by(worker).map_or(0, |w| w.waited_for.get()));
        taken.map(|waited_for| waited_for.max(self.sure)).sum::<u64>() < u64::from(self.shared.config.max_in_flight)
    }

    /// An attempt goes out.
    pub(super) fn asked(&mut self, backend: BackendIndex, now: Instant) {
        self.loads[backend.get()].asked(now);
        self.out += 1;
        self.waited_for += 1;
        let counters = self.counters(backend);
        counters.in_flight.increment();
        counters.waited_for.increment();
    }

    /// An attempt has lost its socket, and goes on by another way or not at all.
    pub(super) fn lost(&mut self, backend: BackendIndex, now: Instant) {
        self.is_waited_for_no_more(backend);
        self.ended(backend, End::Void, false, now);
    }

    /// An attempt has ended, or its race has.
    pub(super) fn is_waited_for_no_more(&mut self, backend: BackendIndex) {
        self.waited_for = self.waited_for.saturating_sub(1);
        self.counters(backend).waited_for.subtract(1);
    }

    /// Whether no attempt is waited for.
    pub(super) fn is_not_waited_for(&self) -> bool {
        self.waited_for == 0
    }

    /// The race of an attempt is over without its reply. Returns whether the backend's latency was charged with that.
    pub(super) fn charge(&mut self, backend: BackendIndex, asked: Instant) -> bool {
        self.is_waited_for_no_more(backend);
        latency::charge(&self.loads[backend.get()], &mut self.latency[backend.get()], asked)
    }

    /// An attempt has ended, perhaps long after its race.
    pub(super) fn ended(&mut self, backend: BackendIndex, end: End, is_charged: bool, now: Instant) {
        let (load, latency) = (&mut self.loads[backend.get()], &mut self.latency[backend.get()]);
        latency::ended(load, latency, end, is_charged, now);
        self.out = self.out.saturating_sub(1);
        let counters = self.counters(backend);
        counters.in_flight.subtract(1);
        match end {
            End::Reply(took) => counters.latency.record(took),
            End::Failure(took) => {
                counters.latency.record(took);
                counters.errors.increment();
            }
            End::Unreachable => counters.errors.increment(),
            End::Silence(_) | End::Unsent | End::Void => {}
        }
    }

    /// Learns from a reply: how long the backend takes, whether it works, and that it is up.
    pub(super) fn learn<I: Io>(&mut self, io: &mut I, index: BackendIndex, is_charged: bool, end: End, now: Instant) {
        self.ended(index, end, is_charged, now);
        let backend = self.backend(index);
        let is_failure = matches!(end, End::Failure(_));
        if is_failure && self.shared.rules().health.expect == Expect::NoFailure {
            return;
        }
        // Asked before this worker knew, it may have said that before it died.
        if backend.health() != HealthState::Up && self.knows_health(index) {
            // Any reply is life, unless probes expect one that is no failure; a new backend may have been asked before its first probe because no other was up.
            if backend.set_health(HealthState::Up) {
                self.shared.state.announce(backend);
                tracing::info!(pool = self.shared.config.name, backend = backend.name, "up");
            }
            tell_prober(io, backend, HealthSignal::Replied);
        }
    }

    /// What each has to do, by [`BackendIndex`].
    pub(super) fn loads(&self) -> &[BackendLoad] {
        &self.loads
    }

    /// What is known of the latency and the load of a backend.
    pub(super) fn known(&self, index: BackendIndex) -> (&Latency, &BackendLoad) {
        (&self.latency[index.get()], &self.loads[index.get()])
    }

    /// Takes what another process knew of a backend.
    pub(super) fn learn_from(&mut self, index: BackendIndex, latency: &LatencyImage, load: &LoadImage, now: Instant) {
        self.latency[index.get()] = Latency::of_image(latency, now);
        self.loads[index.get()].learn(load, now);
    }

    /// What this worker counts of a backend.
    pub(super) fn counters(&self, backend: BackendIndex) -> &BackendCounters {
        self.backend(backend).counters(self.me)
    }

    /// Who is at this place: a member of the present plan, or of that of a race, or one of which replies are waited for.
    #[inline]
    pub(super) fn backend(&self, index: BackendIndex) -> &Arc<SharedBackend> {
        self.members[index.get()].backend.as_ref().expect("whoever was asked is known until its sockets are closed")
    }

    /// All who are known.
    pub(super) fn backends(&self) -> impl Iterator<Item = &Arc<SharedBackend>> {
        self.members.iter().filter_map(|member| member.backend.as_ref())
    }

    /// What the pool and one of its backends are called.
    pub(super) fn labels(&self, backend: BackendIndex) -> (&str, &str) {
        (&self.shared.config.name, &self.backend(backend).name)
    }

    /// Whether this worker has seen the present health of a backend. What was asked before a backend went down is not waited
    /// for any more once it has.
    pub(super) fn knows_health(&self, backend: BackendIndex) -> bool {
        self.members[backend.get()].is_up == self.backend(backend).is_up()
    }

    /// Whether a backend has come up within this time: what was remembered of silence may be from before.
    pub(super) fn has_recovered_within(&self, time: Duration, now: Instant) -> bool {
        self.recovered.is_some_and(|at| now.saturating_duration_since(at) < time)
    }

    /// What a race looks at.
    pub(super) fn race_context(&self, is_waited_for: bool) -> RaceContext<'_> {
        let rules = if is_waited_for { self.shared.rules() } else { &self.unhurried };
        RaceContext { rules, latency: &self.latency, by_stream: &self.by_stream, budget: self.shared.budget() }
    }

    /// The sockets of a backend, which are made when it is asked first.
    #[inline]
    pub(super) fn sockets<I: Io>(&mut self, io: &mut I, index: BackendIndex) -> SocketSetId {
        match self.members[index.get()].sockets {
            Some(sockets) => sockets,
            None => self.make_sockets(io, index),
        }
    }

    #[cold]
    fn make_sockets<I: Io>(&mut self, io: &mut I, index: BackendIndex) -> SocketSetId {
        let sockets = io.add_backend(self.backend(index));
        self.members[index.get()].sockets = Some(sockets);
        self.by_sockets.insert(sockets, index);
        sockets
    }

    /// The sockets of a backend, if it was asked.
    pub(super) fn known_sockets(&self, index: BackendIndex) -> Option<SocketSetId> {
        self.members.get(index.get())?.sockets
    }

    /// The backend with these sockets.
    pub(super) fn backend_of(&self, sockets: SocketSetId) -> Option<BackendIndex> {
        self.by_sockets.get(&sockets).copied()
    }
}

/// Of so many queries that may be out to one backend, how many each worker is sure of: all if it is alone, some if there are
/// many, so that it seldom reads what others write. Where there are few, one worker may need them all.
fn sure(most: u64, workers: u64) -> u64 {
    match (most, workers) {
        (_, 0 | 1) => most,
        (MANY.., _) => most / 4 / workers,
        (_, _) => 0,
    }
}

/// Queries out to one backend that are enough to keep some of them for each worker.
const MANY: u64 = 1000;

/// The members that are behind and take queries. Who they are is only looked for where there may be some.
fn behind(shared: &SharedPool) -> Vec<BackendIndex> {
    if !shared.config.replicas {
        return Vec::new();
    }
    let behind = shared.backends.iter().filter(|backend| backend.is_behind() && backend.takes_queries());
    behind.map(|backend| backend.index).take(MAX_ATTEMPTS).collect()
}

/// What queries to a backend bear as cookies, if they may and it gives them.
fn known_cookies(shared: &SharedPool, backend: &SharedBackend) -> Option<CookiePair> {
    shared.config.cookies.then(|| backend.cookies.pair()).flatten()
}

/// The order of asking for the present health of the backends.
fn turns(shared: &SharedPool) -> Turns {
    if let Some(crowd) = shared.crowd() {
        return Turns::OfMany(crowd);
    }
    let members = shared.members().map(|(backend, weight)| (backend.index, weight, hash_identity(backend.address)));
    let is_anybody_ahead = shared.is_anybody_ahead();
    Turns::OfFew(Balancer::of(members, |index| shared.backend(index).takes_turns(is_anybody_ahead)))
}

/// The hash of a folded name, the same on all workers.
fn name_hash(hasher: &QuestionHasher, qname: &[u8]) -> u64 {
    hasher.hash_one(qname)
}

#[cfg(test)]
mod tests;
