//! A pool as one worker sees it: the sockets of its backends, their measured latency, and their order.
//!
//! The data of a member stays at its [`BackendIndex`] when other members come and go: a new state of the pool
//! is a new [`PoolPlan`], and nothing else moves. Races keep the plan that they began with. A member in no
//! plan of the present or of a race is removed with its sockets, and its index may be reused.

mod gives;
mod plans;
mod versions;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns::{CookiePair, Name, QuestionHasher, Reply};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hedge::backend_load::{AttemptEnd, BackendLoad};
use hedge::balance::{Balance, BalanceInput, Balancer, Crowd, TierTurns};
use hedge::health::HealthState;
use hedge::latency::{Latency, TimeBucket};
use hedge::ordering::{BackendPath, BackendStats, order, order_ways};
use hedge::race::{BackendIndex, Candidates, MAX_ATTEMPTS, RaceContext};
use hedge::regret::RegretTally;
use hedge::{Dispatch, Expect, latency};
use metrics::BackendCounters;
use rand::Rng;

use self::plans::EarlierPlans;
pub(super) use self::plans::{PlanNumber, PoolPlan};
use self::versions::VersionReports;
use super::attempt::TakenSlot;
use super::io::Io;
use super::query_slots::{SlotState, SocketSetId};
use super::single_flight::WorkerId;
use super::{QTYPE_QCLASS, signal_prober};
use crate::state::{BackendDomain, HealthSignal, ManualHealth, SharedBackend, SharedPool};

pub(super) struct Pool {
    /// The active plan: the present one, or for a moment that of an earlier race.
    pub(super) plan: PoolPlan,
    earlier: EarlierPlans,
    pub(super) members: Vec<PoolMember>,
    pub(super) latency: Vec<Latency>,
    pub(super) loads: Vec<BackendLoad>,
    by_stream: Vec<bool>,
    leaving: Vec<BackendIndex>,
    by_sockets: HashMap<SocketSetId, BackendIndex, FixedState>,
    pending: PendingAttempts,
    health: KnownHealth,
    reports: Option<VersionReports>,
    me: usize,
}

/// The attempts of this worker to all members.
struct PendingAttempts {
    /// The number of attempts whose reply may come.
    out: u64,
    /// The number of these that a race waits for.
    waited_for: u64,
    /// The share of `max_in_flight` that each worker uses without reading the counts of other workers.
    sure: u64,
}

/// The health of the members as this worker has read it.
struct KnownHealth {
    epoch: u64,
    turns: PoolTurns,
    behind: Vec<BackendIndex>,
    recovered: Option<Instant>,
}

impl KnownHealth {
    fn of(shared: &SharedPool) -> Self {
        // Read before the backends, so that a change meanwhile is noticed.
        let epoch = shared.state.epoch();
        Self { epoch, turns: turns(shared), behind: behind(shared), recovered: None }
    }
}

enum PoolTurns {
    OfFew(TierTurns<Balancer>),
    OfMany(Arc<TierTurns<Crowd>>),
}

impl PoolTurns {
    #[inline]
    fn has_spares(&self) -> bool {
        match self {
            Self::OfFew(tiered) => !tiered.spares.is_empty(),
            Self::OfMany(tiered) => !tiered.spares.is_empty(),
        }
    }

    /// Returns the spares in the order of asking, with those of lower tiers first.
    #[cold]
    #[inline(never)]
    fn spares(
        &self,
        balance: Balance,
        sight: &BalanceInput<'_>,
        takes_queries: impl Fn(BackendIndex) -> bool,
        rng: &mut impl Rng,
    ) -> Candidates {
        let mut spares = Candidates::new(true);
        let mut add = |of_tier: Candidates| {
            if !of_tier.all_down() {
                spares = Candidates::of(spares.iter().chain(of_tier.iter()), false);
            }
        };
        match self {
            Self::OfFew(tiered) => tiered.spares.iter().for_each(|tier| add(tier.candidates(balance, sight, rng))),
            Self::OfMany(tiered) => {
                tiered.spares.iter().for_each(|tier| add(tier.candidates(balance, sight, &takes_queries, rng)));
            }
        }
        spares
    }
}

pub(super) struct PoolMember {
    backend: Option<Arc<SharedBackend>>,
    sockets: Option<SocketSetId>,
    is_up: bool,
    takes_queries: bool,
    /// True if a reply lacked proof and its query could not be repeated: the next query finds out.
    pub(super) is_doubted: bool,
    cookies: Option<CookiePair>,
    cookies_since: Instant,
}

impl PoolMember {
    fn vacant(now: Instant) -> Self {
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
    pub(super) fn new<I: Io>(shared: Arc<SharedPool>, io: &mut I, me: WorkerId, now: Instant) -> Self {
        let mut pool = Self {
            earlier: EarlierPlans::default(),
            members: Vec::new(),
            latency: Vec::new(),
            loads: Vec::new(),
            by_stream: Vec::new(),
            leaving: Vec::new(),
            by_sockets: HashMap::default(),
            pending: PendingAttempts { out: 0, waited_for: 0, sure: sure(&shared) },
            health: KnownHealth::of(&shared),
            reports: shared.config.replicas.enabled.then(|| VersionReports::new(now)),
            me: usize::from(me.0),
            plan: PoolPlan::new(shared, PlanNumber::default()),
        };
        let shared = Arc::clone(&pool.plan.shared);
        pool.make_room(now);
        for backend in &shared.backends {
            pool.welcome(io, backend, now);
        }
        pool
    }

    /// Reads the health and the cookies of the backends, if they changed, and reports those that went down.
    pub(super) fn refresh(&mut self, now: Instant, mut went_down: impl FnMut(BackendIndex)) {
        let epoch = self.plan.shared.state.epoch();
        if epoch == self.health.epoch {
            return;
        }
        let shared = Arc::clone(&self.plan.shared);
        let is_crowd = shared.is_crowd();
        let (changed, epoch) = shared.state.changed_since(self.health.epoch);
        let recovered = self.health.recovered;
        self.health = KnownHealth { epoch, turns: turns(&shared), behind: behind(&shared), recovered };
        match changed {
            Some(changed) if is_crowd => {
                for index in changed {
                    if let Some(backend) = shared.find(index) {
                        self.look_at(backend, &mut went_down, now);
                    }
                }
            }
            Some(_) | None => {
                for backend in &shared.backends {
                    self.look_at(backend, &mut went_down, now);
                }
            }
        }
    }

    fn look_at(&mut self, backend: &Arc<SharedBackend>, went_down: &mut impl FnMut(BackendIndex), now: Instant) {
        let member = &mut self.members[backend.index.get()];
        member.takes_queries = backend.takes_queries();
        let was_up = std::mem::replace(&mut member.is_up, backend.is_up());
        if !was_up && member.is_up {
            self.health.recovered = Some(now);
        }
        let cookies = known_cookies(&self.plan.shared, backend);
        if std::mem::replace(&mut member.cookies, cookies) != cookies {
            member.cookies_since = now;
        }
        if was_up && !member.is_up {
            went_down(backend.index);
        }
        // An operator that sets a backend up wants it asked, so it does not start slowly.
        if !was_up && member.is_up && backend.manual() == ManualHealth::Auto {
            self.loads[backend.index.get()].came_back(now);
        }
    }

    pub(super) fn takes_queries(&self) -> bool {
        match &self.health.turns {
            PoolTurns::OfFew(_) => self.plan.shared.backends.iter().any(|backend| backend.takes_queries()),
            PoolTurns::OfMany(crowd) => !crowd.turns.all_down(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        match &self.health.turns {
            PoolTurns::OfFew(_) => self.plan.shared.backends.iter().any(|backend| backend.is_up()),
            PoolTurns::OfMany(crowd) => !crowd.turns.all_down(),
        }
    }

    pub(super) fn is_crowd(&self) -> bool {
        matches!(self.health.turns, PoolTurns::OfMany(_))
    }

    pub(super) fn candidates<I: Io>(
        &mut self,
        io: &mut I,
        qname: &[u8],
        hasher: &QuestionHasher,
        rng: &mut impl Rng,
        now: Instant,
    ) -> Candidates {
        let (balance, state) = (self.plan.shared.rules().race.balance, &self.plan.shared.state);
        let name = match balance {
            Balance::Sticky => name_hash(hasher, qname),
            // Equal in all processes, so that caches behind two balancers see the same names.
            Balance::Hash => FixedState::default().hash_one(qname),
            Balance::Ordered | Balance::RoundRobin | Balance::Random | Balance::LeastLoad | Balance::Fastest => 0,
        };
        let remembered = (balance == Balance::Sticky).then(|| self.plan.shared.affinity.get(name)).flatten();
        let remembered = remembered.and_then(|number| self.plan.shared.by_affinity(number));
        let is_in_turn = balance == Balance::RoundRobin || balance == Balance::Sticky && remembered.is_none();
        let turn = if is_in_turn { state.take_turn() } else { 0 };
        let sight = BalanceInput { now, turn, name, loads: &self.loads, out: self.pending.out, remembered };
        let takes_queries =
            |backend: BackendIndex| self.members.get(backend.get()).is_some_and(|member| member.takes_queries);
        let mut candidates = match &self.health.turns {
            PoolTurns::OfFew(balancer) => balancer.turns.candidates(balance, &sight, rng),
            PoolTurns::OfMany(crowd) => crowd.turns.candidates(balance, &sight, takes_queries, rng),
        };
        let mut spares = None;
        if self.health.turns.has_spares() {
            let of_all_tiers = self.health.turns.spares(balance, &sight, takes_queries, rng);
            // The control thread builds a crowd anew some time after all its members have gone down.
            match candidates.all_down() && !of_all_tiers.all_down() {
                true => candidates = of_all_tiers,
                false => spares = Some(of_all_tiers),
            }
        }
        if balance == Balance::Sticky
            && let Some(first) = candidates.get(0)
            && remembered != Some(first)
        {
            self.plan.shared.affinity.insert(name, self.plan.shared.backend(first).affinity_number);
        }
        let mut candidates = if self.by_stream.is_empty() && !self.plan.shared.has_domains() {
            let known = BackendStats { loads: &self.loads, latency: &self.latency, now };
            let weight = |backend: BackendIndex| self.plan.shared.weight(backend);
            order(&candidates, &self.plan.shared.rules().race, &known, weight, rng)
        } else {
            self.order_ways(io, &candidates, rng, now)
        };
        if self.plan.shared.has_tiers() && self.plan.shared.rules().race.dispatch == Dispatch::Race {
            candidates = candidates.lowest_tier_first(|backend| self.plan.shared.tier(backend));
        }
        if !candidates.all_down() {
            spares.iter().flat_map(Candidates::iter).for_each(|spare| candidates.push_last(spare));
            self.health.behind.iter().for_each(|backend| candidates.push_last(*backend));
        }
        candidates
    }

    /// Orders the candidates if some are stream backends or several lead to one machine. Opens a connection
    /// to a cold backend whose turn it was.
    #[cold]
    #[inline(never)]
    fn order_ways<I: Io>(
        &mut self,
        io: &mut I,
        candidates: &Candidates,
        rng: &mut impl Rng,
        now: Instant,
    ) -> Candidates {
        let is_cold = |pool: &Self, io: &I, backend: BackendIndex| {
            pool.is_by_stream(backend) && pool.known_sockets(backend).is_none_or(|sockets| io.is_cold(sockets))
        };
        let way = |backend| {
            let BackendDomain { machine, site } = self.plan.shared.domain(backend);
            BackendPath { is_cold: is_cold(self, io, backend), machine, site }
        };
        let known = BackendStats { loads: &self.loads, latency: &self.latency, now };
        let weight = |backend: BackendIndex| self.plan.shared.weight(backend);
        let ordered = order_ways(candidates, &self.plan.shared.rules().race, &known, weight, way, rng);
        let in_turn = candidates.get(0).filter(|first| ordered.get(0) != Some(*first));
        if let Some(passed_over) = in_turn.filter(|first| is_cold(self, io, *first)) {
            let sockets = self.sockets(io, passed_over);
            io.dial(sockets, now);
        }
        ordered
    }

    /// Learns that a backend gave a positive answer: a `sticky` pool asks it first for that name.
    pub(super) fn learn_place(&self, backend: BackendIndex, question: &[u8], hasher: &QuestionHasher) {
        if self.plan.shared.rules().race.balance != Balance::Sticky {
            return;
        }
        let qname = question.len().saturating_sub(QTYPE_QCLASS);
        let mut folded = [0; Name::MAX_LEN];
        if let (Some(folded), Some(qname)) = (folded.get_mut(..qname), question.get(..qname)) {
            folded.copy_from_slice(qname);
            dns::fold(folded);
            self.plan.shared.affinity.insert(name_hash(hasher, folded), self.backend(backend).affinity_number);
        }
    }

    /// Returns true if fewer than `max_in_flight` queries to a backend are out, over all workers. Two workers
    /// that check at the same time may both take the last place. Each worker has a guaranteed share, which it
    /// uses without reading the counts of other workers.
    pub(super) fn has_place(&self, backend: BackendIndex) -> bool {
        if self.counters(backend).pending.waited_for.get() < self.pending.sure {
            return true;
        }
        let backend = self.backend(backend);
        let taken =
            (0..backend.workers()).map(|worker| backend.counted_by(worker).map_or(0, |w| w.pending.waited_for.get()));
        taken.map(|waited_for| waited_for.max(self.pending.sure)).sum::<u64>()
            < u64::from(self.plan.shared.config.max_in_flight)
    }

    pub(super) fn asked(&mut self, backend: BackendIndex, now: Instant) {
        self.loads[backend.get()].asked(now);
        self.pending.out += 1;
        self.pending.waited_for += 1;
        let counters = self.counters(backend);
        counters.pending.in_flight.increment();
        counters.pending.waited_for.increment();
    }

    pub(super) fn lost(&mut self, backend: BackendIndex, now: Instant) {
        self.is_waited_for_no_more(backend);
        self.ended(backend, AttemptEnd::Void, false, now);
    }

    pub(super) fn is_waited_for_no_more(&mut self, backend: BackendIndex) {
        self.pending.waited_for = self.pending.waited_for.saturating_sub(1);
        self.counters(backend).pending.waited_for.subtract(1);
    }

    pub(super) fn is_not_waited_for(&self) -> bool {
        self.pending.waited_for == 0
    }

    pub(super) fn charge(&mut self, backend: BackendIndex, asked: Instant) -> bool {
        self.is_waited_for_no_more(backend);
        latency::charge(&self.loads[backend.get()], &mut self.latency[backend.get()], asked)
    }

    pub(super) fn ended(
        &mut self,
        backend: BackendIndex,
        end: AttemptEnd,
        is_charged: bool,
        now: Instant,
    ) -> Option<TimeBucket> {
        let (load, latency) = (&mut self.loads[backend.get()], &mut self.latency[backend.get()]);
        let bucket = latency::ended(load, latency, end, is_charged, now);
        self.pending.out = self.pending.out.saturating_sub(1);
        let counters = self.counters(backend);
        counters.pending.in_flight.subtract(1);
        match end {
            AttemptEnd::Reply(took) => counters.latency.record(took),
            AttemptEnd::Failure(took) => {
                counters.latency.record(took);
                counters.errors.increment();
            }
            AttemptEnd::Unreachable => counters.errors.increment(),
            AttemptEnd::Silence(_) | AttemptEnd::Unsent | AttemptEnd::Void => {}
        }
        bucket
    }

    /// Counts an attempt that ended without a reply: its backend is unreachable or the query was not sent.
    pub(super) fn end_without_reply(
        &mut self,
        backend: BackendIndex,
        taken_by: &TakenSlot,
        end: AttemptEnd,
        now: Instant,
    ) {
        let is_charged = match taken_by {
            SlotState::InFlight(_) => {
                self.is_waited_for_no_more(backend);
                false
            }
            SlotState::Quarantined(late) => match late.is_charged {
                Some(is_charged) => is_charged,
                None => return,
            },
        };
        self.ended(backend, end, is_charged, now);
    }

    pub(super) fn learn<I: Io>(
        &mut self,
        io: &mut I,
        index: BackendIndex,
        is_charged: bool,
        end: AttemptEnd,
        now: Instant,
    ) -> Option<TimeBucket> {
        let bucket = self.ended(index, end, is_charged, now);
        let backend = self.backend(index);
        let proves_health = match self.plan.shared.rules().health.expect {
            Expect::Reply => true,
            Expect::NoFailure => !matches!(end, AttemptEnd::Failure(_)),
            // Only a probe asks the question whose answer is known.
            Expect::Match => false,
        };
        if !proves_health {
            return bucket;
        }
        // The attempt may be older than the backend's failure unless this worker knows of that.
        if backend.health() != HealthState::Up && self.knows_health(index) {
            // Any reply means up, unless probes expect a success. A new backend may be asked before its first
            // probe, if no other was up.
            if backend.set_health(HealthState::Up) {
                self.plan.shared.state.announce(backend);
                tracing::info!(pool = self.plan.shared.config.name, backend = backend.name, "up");
            }
            signal_prober(io, backend, HealthSignal::Replied);
        }
        bucket
    }

    pub(super) fn asks_versions(&self) -> bool {
        self.reports.is_some()
    }

    /// Notes the zone version in a reply (see [`VersionReports::hear`]).
    pub(super) fn hear_version(
        &mut self,
        backend: BackendIndex,
        reply: &Reply<'_>,
        hasher: &QuestionHasher,
        now: Instant,
    ) -> Option<BackendIndex> {
        self.reports.as_mut()?.hear(&self.plan.shared, backend, reply, hasher, now)
    }

    pub(super) fn is_outdated(&self, reply: &Reply<'_>) -> bool {
        let is_reported = self.asks_versions() && reply.is_negative();
        is_reported && reply.zone_serial().is_some_and(|serial| self.plan.shared.state.serials.is_outdated(&serial))
    }

    /// Returns this worker's counts of attempts and races.
    #[inline]
    pub(super) fn regret_tally(&self) -> &RegretTally {
        self.plan.shared.state.regret.tally(self.me)
    }

    pub(super) fn counters(&self, backend: BackendIndex) -> &BackendCounters {
        self.backend(backend).counters(self.me)
    }

    /// Returns the backend at this index: a member of the present plan or a race's, or one with queries out.
    #[inline]
    pub(super) fn backend(&self, index: BackendIndex) -> &Arc<SharedBackend> {
        self.members[index.get()].backend.as_ref().expect("a backend stays known until its sockets are closed")
    }

    pub(super) fn backends(&self) -> impl Iterator<Item = &Arc<SharedBackend>> {
        self.members.iter().filter_map(|member| member.backend.as_ref())
    }

    pub(super) fn labels(&self, backend: BackendIndex) -> (&str, &str) {
        (&self.plan.shared.config.name, &self.backend(backend).name)
    }

    /// Returns true if this worker has seen the present health of a backend.
    pub(super) fn knows_health(&self, backend: BackendIndex) -> bool {
        self.members[backend.get()].is_up == self.backend(backend).is_up()
    }

    /// Returns true if a backend came up within this time, so that remembered silence may be outdated.
    pub(super) fn has_recovered_within(&self, time: Duration, now: Instant) -> bool {
        self.health.recovered.is_some_and(|at| now.saturating_duration_since(at) < time)
    }

    pub(super) fn race_context(&self, is_waited_for: bool) -> RaceContext<'_> {
        let rules = if is_waited_for { &self.plan.shared.rules().race } else { &self.plan.unhurried };
        let Self { latency, loads, by_stream, .. } = self;
        RaceContext { rules, latency, loads, by_stream, budget: self.plan.shared.budget() }
    }

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

    pub(super) fn known_sockets(&self, index: BackendIndex) -> Option<SocketSetId> {
        self.members.get(index.get())?.sockets
    }

    pub(super) fn backend_of(&self, sockets: SocketSetId) -> Option<BackendIndex> {
        self.by_sockets.get(&sockets).copied()
    }
}

/// Returns each worker's guaranteed share of the queries to one backend: all for a single worker, part of a
/// large limit so that workers seldom read other counters, none of a small one, which one worker may need.
fn sure(shared: &SharedPool) -> u64 {
    let most = u64::from(shared.config.max_in_flight);
    let workers = shared.backends.first().map_or(1, |backend| backend.workers()) as u64;
    match (most, workers) {
        (_, 0 | 1) => most,
        (MANY.., _) => most / 4 / workers,
        (_, _) => 0,
    }
}

const MANY: u64 = 1000;

fn behind(shared: &SharedPool) -> Vec<BackendIndex> {
    if !shared.config.replicas.enabled {
        return Vec::new();
    }
    let behind = shared.backends.iter().filter(|backend| backend.is_behind() && backend.takes_queries());
    behind.map(|backend| backend.index).take(MAX_ATTEMPTS).collect()
}

fn known_cookies(shared: &SharedPool, backend: &SharedBackend) -> Option<CookiePair> {
    shared.config.spoofing.cookies.then(|| backend.cookies.pair()).flatten()
}

fn turns(shared: &SharedPool) -> PoolTurns {
    if let Some(crowd) = shared.crowd() {
        return PoolTurns::OfMany(crowd);
    }
    PoolTurns::OfFew(shared.balancer())
}

fn name_hash(hasher: &QuestionHasher, qname: &[u8]) -> u64 {
    hasher.hash_one(qname)
}

#[cfg(test)]
mod tests;
