//! A pool as one worker sees it: the sockets of its backends, what it has learnt of their latency, whose turn it is.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use rand::Rng;

use super::QTYPE_QCLASS;
use super::io::Io;
use super::proof::Proof;
use super::single_flight::WorkerId;
use super::tell_prober;
use crate::config::Case;
use crate::metrics::BackendCounters;
use crate::policy::backend_load::{BackendLoad, End, LoadImage};
use crate::policy::balance::{Balance, BalanceInput, Balancer};
use crate::policy::health::HealthState;
use crate::policy::latency;
use crate::policy::latency::{Latency, LatencyImage};
use crate::policy::ordering::{BackendStats, order};
use crate::policy::query_slots::SocketSetId;
use crate::policy::race::{BackendIndex, Candidates, RaceContext};
use crate::policy::{Hedge, Rules};
use crate::state::backend_cookies::{HasChanged, RENEWAL, Urgency};
use crate::state::{HealthSignal, ManualHealth, SharedBackend, SharedPool};
use crate::wire::{self, CookiePair, Name, QuestionHasher, Reply};

/// Where a worker has its part of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolSlot(u16);

/// The pools of a worker.
#[derive(Default)]
pub(super) struct Pools(Vec<Option<Pool>>);

impl Pools {
    /// Adds a pool.
    pub(super) fn insert(&mut self, pool: Pool) -> PoolSlot {
        let place = self.0.iter().position(Option::is_none).unwrap_or_else(|| {
            self.0.push(None);
            self.0.len() - 1
        });
        self.0[place] = Some(pool);
        PoolSlot(place as u16)
    }

    pub(super) fn find(&self, is_meant: impl Fn(&Pool) -> bool) -> Option<PoolSlot> {
        self.iter().find(|(_, pool)| is_meant(pool)).map(|(slot, _)| slot)
    }

    /// The pool in a slot, if it is still there.
    pub(super) fn get(&self, slot: PoolSlot) -> Option<&Pool> {
        self.0.get(usize::from(slot.0))?.as_ref()
    }

    /// The pool in a slot, if it is still there.
    pub(super) fn get_mut(&mut self, slot: PoolSlot) -> Option<&mut Pool> {
        self.0.get_mut(usize::from(slot.0))?.as_mut()
    }

    /// The pool of a race, which is kept for as long as it has races.
    pub(super) fn at(&mut self, slot: PoolSlot) -> &mut Pool {
        self.get_mut(slot).expect("a pool with races is kept")
    }

    /// Takes a pool out.
    pub(super) fn take_if(&mut self, slot: PoolSlot, is_meant: impl FnOnce(&Pool) -> bool) -> Option<Pool> {
        self.0.get_mut(usize::from(slot.0))?.take_if(|pool| is_meant(pool))
    }

    /// All slots, free ones included.
    pub(super) fn slots(&self) -> impl Iterator<Item = PoolSlot> + use<> {
        (0..self.0.len() as u16).map(PoolSlot)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PoolSlot, &Pool)> {
        self.slots().zip(&self.0).filter_map(|(slot, pool)| Some((slot, pool.as_ref()?)))
    }

    /// How many slots there are, free ones included.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A worker's part of a pool.
pub(super) struct Pool {
    /// What all workers share.
    pub(super) shared: Arc<SharedPool>,
    /// Its backends, by [`BackendIndex`].
    members: Vec<Member>,
    /// The rules of its races while nobody waits for them: without hedges, which buy time with load.
    unhurried: Rules,
    /// When a backend came up last, while there is this worker.
    recovered: Option<Instant>,
    /// Their latency, by [`BackendIndex`].
    pub(super) latency: Vec<Latency>,
    /// Their load, by [`BackendIndex`].
    loads: Vec<BackendLoad>,
    /// In which order they are asked.
    turns: Balancer,
    /// The health of the backends for which `turns` was made.
    epoch: u64,
    /// Races that are not over.
    pub(super) in_flight: usize,
    /// How many of the queries that may be out to one backend are this worker's in any case.
    sure: u64,
    /// The worker's number.
    me: usize,
}

/// A worker's view of one backend.
struct Member {
    sockets: SocketSetId,
    /// Whether it was up when we last looked.
    is_up: bool,
    /// A reply lacked what it must bear, and its query could not be sent once more: the next one is to find out.
    is_doubted: bool,
    /// It gives cookies, and queries to it bear these.
    cookies: Option<CookiePair>,
    /// When the server's of them was seen last to be another.
    cookies_since: Instant,
}

impl Pool {
    /// A worker's part of `shared`. What `earlier` has learnt of the same backends is taken over.
    pub(super) fn new<I: Io>(
        shared: Arc<SharedPool>,
        io: &mut I,
        earlier: Option<&Self>,
        me: WorkerId,
        now: Instant,
    ) -> Self {
        let known = |backend: &Arc<SharedBackend>| {
            let pool = earlier?;
            let index = pool.shared.backends.iter().position(|known| Arc::ptr_eq(known, backend))?;
            Some((pool, index))
        };
        let latency = shared.backends.iter().map(|backend| {
            known(backend).map_or_else(|| Latency::new(now), |(pool, index)| pool.latency[index].clone())
        });
        let loads = shared.backends.iter().map(|backend| {
            known(backend).map_or_else(|| BackendLoad::new(now), |(pool, index)| pool.loads[index].without_attempts())
        });
        let (latency, loads) = (latency.collect(), loads.collect());
        // Before a look at the backends: what changes meanwhile is then seen as a change.
        let epoch = shared.state.epoch();
        let members = shared.backends.iter().map(|backend| Member {
            sockets: io.add_backend(backend.address),
            is_up: backend.is_up(),
            is_doubted: false,
            cookies: known_cookies(&shared, backend),
            cookies_since: now,
        });
        let members = members.collect();
        let turns = turns(&shared);
        let rules = shared.rules().clone();
        let unhurried = Rules { hedge: Hedge { max: 0, ..rules.hedge }, ..rules };
        let recovered = earlier.and_then(|pool| pool.recovered);
        let me = usize::from(me.0);
        let workers = shared.backends.first().map_or(1, |backend| backend.counters.len());
        let sure = sure(shared.config.max_in_flight.into(), workers as u64);
        Self { shared, members, unhurried, recovered, latency, loads, turns, epoch, in_flight: 0, sure, me }
    }

    /// Looks at the health of the backends and their cookies, if they have changed, and reports those that went down.
    pub(super) fn refresh(&mut self, now: Instant, mut went_down: impl FnMut(BackendIndex)) {
        let epoch = self.shared.state.epoch();
        if epoch == self.epoch {
            return;
        }
        self.epoch = epoch;
        self.turns = turns(&self.shared);
        let members = self.members.iter_mut().zip(&self.shared.backends).zip(&mut self.loads);
        for (index, ((member, backend), load)) in members.enumerate() {
            let was_up = std::mem::replace(&mut member.is_up, backend.is_up());
            if !was_up && member.is_up {
                self.recovered = Some(now);
            }
            let cookies = known_cookies(&self.shared, backend);
            if std::mem::replace(&mut member.cookies, cookies) != cookies {
                member.cookies_since = now;
            }
            if was_up && !member.is_up {
                went_down(BackendIndex(index as u16));
            }
            // Who sets a backend up by hand wants it to be asked.
            if !was_up && member.is_up && backend.manual() == ManualHealth::Auto {
                load.came_back(now);
            }
        }
    }

    /// Whom to ask for the next query, in order. `qname` is folded.
    pub(super) fn candidates(
        &self,
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
        let remembered = remembered.and_then(|id| self.by_id(id));
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
        let sight = BalanceInput { now, turn, name, loads: &self.loads, remembered };
        let candidates = self.turns.candidates(balance, &sight, rng);
        if balance == Balance::Sticky
            && let Some(first) = candidates.get(0)
            && remembered != Some(first)
        {
            self.shared.affinity.insert(name, self.shared.backends[first.get()].affinity_number);
        }
        let known = BackendStats { loads: &self.loads, latency: &self.latency, now };
        let weight = |backend: BackendIndex| self.shared.config.backends[backend.get()].weight;
        order(&candidates, self.shared.rules(), &known, weight, rng)
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
            self.shared.affinity.insert(name_hash(hasher, folded), self.shared.backends[backend.get()].affinity_number);
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
        let workers = self.shared.backends[backend.get()].counters.iter();
        let taken: u64 = workers.map(|worker| worker.waited_for.get().max(self.sure)).sum();
        taken < u64::from(self.shared.config.max_in_flight)
    }

    /// An attempt goes out.
    pub(super) fn asked(&mut self, backend: BackendIndex, now: Instant) {
        self.loads[backend.get()].asked(now);
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
    pub(super) fn is_waited_for_no_more(&self, backend: BackendIndex) {
        self.counters(backend).waited_for.subtract(1);
    }

    /// Whether no attempt is waited for.
    pub(super) fn is_not_waited_for(&self) -> bool {
        self.shared.backends.iter().all(|backend| backend.counters[self.me].waited_for.get() == 0)
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
        let backend = &self.shared.backends[index.get()];
        // Asked before this worker knew, it may have said that before it died.
        if backend.health() != HealthState::Up && self.knows_health(index) {
            // Any reply at all is life; a new backend may have been asked before its first probe because no other was up.
            if backend.set_health(HealthState::Up) {
                self.shared.state.announce();
                tracing::info!(pool = self.shared.config.name, backend = backend.name, "up: replied");
            }
            tell_prober(io, backend, HealthSignal::Replied);
        }
    }

    /// What each has to do, by [`BackendIndex`].
    pub(super) fn loads(&self) -> &[BackendLoad] {
        &self.loads
    }

    /// What is known of the latency and the load of a backend.
    pub(super) fn known(&self, index: usize) -> (&Latency, &BackendLoad) {
        (&self.latency[index], &self.loads[index])
    }

    /// Takes what another process knew of a backend.
    pub(super) fn learn_from(&mut self, index: usize, latency: &LatencyImage, load: &LoadImage, now: Instant) {
        self.latency[index] = Latency::of_image(latency, now);
        self.loads[index].learn(load, now);
    }

    /// What this worker counts of a backend.
    pub(super) fn counters(&self, backend: BackendIndex) -> &BackendCounters {
        &self.shared.backends[backend.get()].counters[self.me]
    }

    pub(super) fn backends(&self) -> impl Iterator<Item = BackendIndex> + use<> {
        (0..self.members.len() as u16).map(BackendIndex)
    }

    /// What the pool and one of its backends are called.
    pub(super) fn labels(&self, backend: BackendIndex) -> (&str, &str) {
        (&self.shared.config.name, &self.shared.backends[backend.get()].name)
    }

    /// The backend that has this identity, if the pool has it still.
    fn by_id(&self, id: u16) -> Option<BackendIndex> {
        let index = self.shared.backends.iter().position(|backend| backend.affinity_number == id)?;
        Some(BackendIndex(index as u16))
    }

    /// Whether this worker has seen the present health of a backend. What was asked before a backend went down is not waited
    /// for any more once it has.
    pub(super) fn knows_health(&self, backend: BackendIndex) -> bool {
        self.members[backend.get()].is_up == self.shared.backends[backend.get()].is_up()
    }

    /// Whether a backend has come up within this time: what was remembered of silence may be from before.
    pub(super) fn has_recovered_within(&self, time: Duration, now: Instant) -> bool {
        self.recovered.is_some_and(|at| now.saturating_duration_since(at) < time)
    }

    /// What a race looks at.
    pub(super) fn race_context(&self, is_waited_for: bool) -> RaceContext<'_> {
        let rules = if is_waited_for { self.shared.rules() } else { &self.unhurried };
        RaceContext { rules, latency: &self.latency, budget: self.shared.budget() }
    }

    pub(super) fn sockets(&self, backend: BackendIndex) -> SocketSetId {
        self.members[backend.get()].sockets
    }

    /// Closes the sockets. What still waits on them, after every race is over, is not waited for.
    pub(super) fn forget<I: Io>(self, io: &mut I) {
        for (member, backend) in self.members.iter().zip(&self.shared.backends) {
            let forgotten = io.remove_backend(member.sockets);
            backend.counters[self.me].in_flight.subtract(forgotten as u64);
        }
    }

    /// The backend with these sockets.
    pub(super) fn backend(&self, sockets: SocketSetId) -> Option<BackendIndex> {
        let index = self.members.iter().position(|member| member.sockets == sockets)?;
        Some(BackendIndex(index as u16))
    }

    /// Whether a backend is asked without OPT for now.
    pub(super) fn is_without_opt(&self, backend: BackendIndex, now: Instant) -> bool {
        self.shared.backends[backend.get()].is_without_opt(now)
    }

    /// Whether a backend is asked in a case drawn by chance (DNS 0x20).
    pub(super) fn is_case_random(&self, backend: BackendIndex, now: Instant) -> bool {
        self.shared.config.case == Case::Random && !self.shared.backends[backend.get()].is_case_lost(now)
    }

    /// Whether a backend is taken to give what a reply of it lacks.
    pub(super) fn gives(&self, lacking: Proof, backend: BackendIndex, now: Instant) -> bool {
        lacking.has(Proof::CASE) && self.is_case_random(backend, now)
            || lacking.has(Proof::COOKIE) && self.gives_cookies(backend)
    }

    /// A reply of a backend lacked what it must bear, and it could not be asked once more.
    pub(super) fn set_doubted(&mut self, backend: BackendIndex) {
        self.members[backend.get()].is_doubted = true;
    }

    /// Whether the query that is about to be sent is to find out what a backend gives.
    pub(super) fn take_doubt(&mut self, backend: BackendIndex) -> bool {
        std::mem::take(&mut self.members[backend.get()].is_doubted)
    }

    /// What a query to a backend bears as cookies, if it gives them (RFC 7873).
    pub(super) fn cookies(&self, backend: BackendIndex) -> Option<&CookiePair> {
        self.members[usize::from(backend.0)].cookies.as_ref()
    }

    /// Whether a backend gives still what this worker sends it, as far as others know.
    fn gives_cookies(&self, backend: BackendIndex) -> bool {
        let ours = self.cookies(backend).map(CookiePair::client);
        ours.is_some() && ours == self.shared.backends[backend.get()].cookies.pair().map(|pair| pair.client())
    }

    /// A reply has repeated our cookie: takes the server's that came with it, if it is another and it is time for that.
    pub(super) fn renew_cookies(&mut self, backend: BackendIndex, reply: &Reply<'_>, urgency: Urgency, now: Instant) {
        let member = &mut self.members[backend.get()];
        let fresh = reply.cookie().and_then(CookiePair::given).filter(|fresh| member.cookies != Some(*fresh));
        let is_due = urgency == Urgency::AtOnce || now.saturating_duration_since(member.cookies_since) >= RENEWAL;
        if let Some(fresh) = fresh.filter(|_| is_due) {
            (member.cookies, member.cookies_since) = (Some(fresh), now);
            let HasChanged(has_changed) = self.shared.backends[backend.get()].cookies.renew(&fresh, urgency, now);
            if has_changed {
                self.shared.state.announce();
            }
        }
    }

    /// A backend does not give cookies any more. Returns whether that was not known before.
    pub(super) fn remember_cookies_lost(&mut self, backend: BackendIndex, now: Instant) -> bool {
        let Some(lost) = self.members[backend.get()].cookies.take() else { return false };
        let HasChanged(is_news) = self.shared.backends[backend.get()].cookies.lose(lost.client(), now);
        if is_news {
            self.shared.state.announce();
        }
        is_news
    }

    /// A backend does not keep the case of names. Returns whether that was not known before.
    pub(super) fn remember_case_lost(&mut self, backend: BackendIndex, now: Instant) -> bool {
        let is_news = self.is_case_random(backend, now);
        self.shared.backends[backend.get()].set_case_lost(now);
        is_news
    }

    /// A backend that had refused OPT has answered the same question without.
    pub(super) fn remember_without_opt(&self, backend: BackendIndex, now: Instant) {
        self.shared.backends[backend.get()].set_without_opt(now);
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

/// What queries to a backend bear as cookies, if they may and it gives them.
fn known_cookies(shared: &SharedPool, backend: &SharedBackend) -> Option<CookiePair> {
    shared.config.cookies.then(|| backend.cookies.pair()).flatten()
}

/// The order of asking for the present health of the backends.
fn turns(shared: &SharedPool) -> Balancer {
    let weights: Vec<u16> = shared.config.backends.iter().map(|backend| backend.weight).collect();
    // By address, so that `hash` sends a name to the same backend after a restart.
    let identity = |backend: &Arc<SharedBackend>| FixedState::default().hash_one(backend.address);
    let identities: Vec<u64> = shared.backends.iter().map(identity).collect();
    Balancer::new(&weights, &identities, |index| shared.backends[index].takes_queries())
}

/// The hash of a folded name, the same on all workers.
fn name_hash(hasher: &QuestionHasher, qname: &[u8]) -> u64 {
    hasher.hash_one(qname)
}
