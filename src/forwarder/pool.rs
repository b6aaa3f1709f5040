//! A pool as one worker sees it: its links to the backends, what it has learnt of their latency, whose turn it is.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::{FixedState, RandomState};
use rand::Rng;

use super::QTYPE_QCLASS;
use super::claims::WorkerId;
use crate::metrics::BackendCounters;
use crate::net::exchange::{Exchange, Link};
use crate::plan::{Manual, SharedBackend, SharedPool};
use crate::policy::Dispatch;
use crate::policy::balance::{Balance, Sight, Turns};
use crate::policy::latency::Latency;
use crate::policy::load::{End, Load};
use crate::policy::race::{BackendIndex, Candidates, Field};
use crate::wire::{self, Name};

/// A worker's part of a pool.
pub(super) struct Pool {
    /// What all workers share.
    pub(super) shared: Arc<SharedPool>,
    /// Its backends, by [`BackendIndex`].
    members: Vec<Member>,
    /// Their latency, by [`BackendIndex`].
    pub(super) latency: Vec<Latency>,
    /// Their load, by [`BackendIndex`].
    loads: Vec<Load>,
    /// In which order they are asked.
    turns: Turns,
    /// The standing of the backends for which `turns` was made.
    epoch: u64,
    /// Races that are not over.
    pub(super) in_flight: usize,
    /// The worker's number.
    me: usize,
}

/// A worker's view of one backend.
struct Member {
    /// Its sockets.
    link: Link,
    /// Whether it was up when we last looked.
    is_up: bool,
    /// It refused OPT, and is asked without until then.
    without_opt_until: Option<Instant>,
}

impl Pool {
    /// A worker's part of `shared`. What `earlier` has learnt of the same backends is taken over.
    pub(super) fn new<T: Copy>(
        shared: Arc<SharedPool>,
        exchange: &mut Exchange<T>,
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
            known(backend).map_or_else(|| Load::new(now), |(pool, index)| pool.loads[index].without_attempts())
        });
        let (latency, loads) = (latency.collect(), loads.collect());
        // Before a look at the backends: what changes meanwhile is then seen as a change.
        let epoch = shared.state.epoch();
        let members = shared.backends.iter().map(|backend| {
            let known = known(backend).map(|(pool, index)| &pool.members[index]);
            Member {
                link: exchange.add(backend.address, USUAL_QUERY),
                is_up: backend.is_up(),
                without_opt_until: known.and_then(|member| member.without_opt_until),
            }
        });
        let members = members.collect();
        let turns = turns(&shared);
        Self { shared, members, latency, loads, turns, epoch, in_flight: 0, me: usize::from(me.0) }
    }

    /// Looks at the standing of the backends, if it has changed, and reports those that went down.
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
            if was_up && !member.is_up {
                went_down(BackendIndex(index as u16));
            }
            // Who sets a backend up by hand wants it to be asked.
            if !was_up && member.is_up && backend.manual() == Manual::Auto {
                load.came_back(now);
            }
        }
    }

    /// Whom to ask for the next query, in order. `qname` is folded.
    pub(super) fn candidates(
        &self,
        qname: &[u8],
        hasher: &RandomState,
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
        let remembered = (balance == Balance::Sticky).then(|| self.shared.memory.recall(name)).flatten();
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
        let sight = Sight { now, turn, name, loads: &self.loads, remembered };
        let candidates = self.turns.candidates(balance, &sight, rng);
        if balance == Balance::Sticky
            && let Some(first) = candidates.get(0)
            && remembered != Some(first)
        {
            self.shared.memory.remember(name, self.shared.backends[first.get()].id);
        }
        // `ordered` means as in the config, whatever happens short of death.
        if balance == Balance::Ordered {
            return candidates;
        }
        let (mut candidates, fit) = self.stalled_last(&candidates, now);
        match self.shared.rules().dispatch {
            Dispatch::Hedge => {
                let most = usize::from(self.shared.rules().hedge.max);
                candidates.draw_hedges(most, fit, |backend| self.load_of(backend), rng);
            }
            Dispatch::Race | Dispatch::Sequential => {}
        }
        candidates
    }

    /// The same backends, but those that have fallen silent last, and how many have not: between the moment at which a
    /// backend dies without a word and the moment at which probes know, as few queries as possible should wait for it.
    ///
    /// If several have fallen silent, the one that was heard last is asked first. The whole machine may pause for a moment,
    /// and the one that is silent for good must not get its turn again whenever that happens.
    fn stalled_last(&self, candidates: &Candidates, now: Instant) -> (Candidates, usize) {
        let is_stalled = |backend: &BackendIndex| self.loads[backend.get()].is_stalled(self.patience(*backend), now);
        let fit = candidates.iter().filter(|backend| !is_stalled(backend));
        if candidates.all_down() || fit.clone().count() == candidates.len() {
            return (*candidates, candidates.len());
        }
        let mut list = Candidates::of(fit.clone(), false);
        while let Some(next) = candidates
            .iter()
            .filter(|backend| !list.contains(*backend))
            .min_by_key(|backend| self.loads[backend.get()].silence(now))
        {
            list.push(next);
        }
        (list, fit.count())
    }

    /// What a backend has to do, for its weight.
    fn load_of(&self, backend: BackendIndex) -> f64 {
        let weight = self.shared.config.backends[backend.get()].weight.max(1);
        f64::from(self.loads[backend.get()].in_flight()) / f64::from(weight)
    }

    /// How long a backend with many attempts out may be silent before others are asked first.
    ///
    /// By the latency that it usually has, not by that of its slowest replies: of many attempts not all are among the
    /// slowest. One that stalls on every hundredth query would be waited for as long as it stalls.
    fn patience(&self, backend: BackendIndex) -> Duration {
        let longest = self.shared.rules().attempt_timeout;
        let usual = self.latency[backend.get()].quantile(0.75);
        usual.map_or(longest, |usual| (3 * usual).max(SHORTEST_PATIENCE).min(longest))
    }

    /// A backend has given a positive answer to a question in wire form: a `sticky` pool asks it first for that name from
    /// now on.
    pub(super) fn learn_place(&self, backend: BackendIndex, question: &[u8], hasher: &RandomState) {
        if self.shared.rules().balance != Balance::Sticky {
            return;
        }
        let qname = question.len().saturating_sub(QTYPE_QCLASS);
        let mut folded = [0; Name::MAX_LEN];
        if let (Some(folded), Some(qname)) = (folded.get_mut(..qname), question.get(..qname)) {
            folded.copy_from_slice(qname);
            wire::fold(folded);
            self.shared.memory.remember(name_hash(hasher, folded), self.shared.backends[backend.get()].id);
        }
    }

    /// An attempt goes out.
    pub(super) fn asked(&mut self, backend: BackendIndex, now: Instant) {
        self.loads[backend.get()].asked(now);
        self.counters(backend).in_flight.increment();
    }

    /// The race of an attempt is over, or nobody waits for its reply any more, which has not come. Returns whether the
    /// backend's latency was charged with that, so that it can be corrected.
    ///
    /// Of a backend that was not heard since, nothing is said: it may be down. Charged with its silence, it would come
    /// back with a delay that is not its own.
    pub(super) fn charge(&mut self, backend: BackendIndex, asked: Instant) -> bool {
        let is_late = self.loads[backend.get()].was_heard_since(asked);
        if is_late {
            self.latency[backend.get()].give_up();
        }
        is_late
    }

    /// An attempt has ended, perhaps long after its race.
    pub(super) fn ended(&mut self, backend: BackendIndex, end: End, is_charged: bool, now: Instant) {
        if let End::Silence(waited) = end
            && !is_charged
            && let Some(asked) = now.checked_sub(waited)
        {
            self.charge(backend, asked);
        }
        self.loads[backend.get()].ended(end, now);
        let counters = self.counters(backend);
        counters.in_flight.subtract(1);
        match end {
            End::Reply(took) => counters.latency.record(took),
            End::Failure(took) => {
                counters.latency.record(took);
                counters.errors.increment();
            }
            End::Unreachable => counters.errors.increment(),
            End::Silence(_) => {}
        }
        let latency = &mut self.latency[backend.get()];
        match end {
            End::Reply(took) | End::Failure(took) if is_charged => latency.correct(took, now),
            End::Reply(took) | End::Failure(took) => latency.record(took, now),
            End::Unreachable if is_charged => latency.forgive(),
            End::Unreachable | End::Silence(_) => {}
        }
    }

    /// What this worker counts of a backend.
    pub(super) fn counters(&self, backend: BackendIndex) -> &BackendCounters {
        &self.shared.backends[backend.get()].counters[self.me]
    }

    /// The backend that has this identity, if the pool has it still.
    fn by_id(&self, id: u16) -> Option<BackendIndex> {
        let index = self.shared.backends.iter().position(|backend| backend.id == id)?;
        Some(BackendIndex(index as u16))
    }

    /// What a race looks at.
    pub(super) fn field(&self) -> Field<'_> {
        Field { rules: self.shared.rules(), latency: &self.latency, budget: self.shared.budget() }
    }

    /// The sockets of a backend.
    pub(super) fn link(&self, backend: BackendIndex) -> Link {
        self.members[usize::from(backend.0)].link
    }

    /// Closes the sockets. What still waits on them, after every race is over, is not waited for.
    pub(super) fn forget<T: Copy>(self, exchange: &mut Exchange<T>) {
        for (member, backend) in self.members.iter().zip(&self.shared.backends) {
            let forgotten = exchange.remove(member.link);
            backend.counters[self.me].in_flight.subtract(forgotten as u64);
        }
    }

    /// The backend behind a link.
    pub(super) fn backend(&self, link: Link) -> Option<BackendIndex> {
        let index = self.members.iter().position(|member| member.link == link)?;
        Some(BackendIndex(index as u16))
    }

    /// Whether a backend is asked without OPT for now.
    pub(super) fn is_without_opt(&self, backend: BackendIndex, now: Instant) -> bool {
        self.members[usize::from(backend.0)].without_opt_until.is_some_and(|until| now < until)
    }

    /// A backend that had refused OPT has answered the same question without.
    pub(super) fn remember_without_opt(&mut self, backend: BackendIndex, now: Instant) {
        self.members[usize::from(backend.0)].without_opt_until = Some(now + WITHOUT_OPT);
    }
}

/// The pool of a race, which is kept for as long as it has races.
pub(super) fn pool_at(pools: &mut [Option<Pool>], place: u16) -> &mut Pool {
    pools[usize::from(place)].as_mut().expect("a pool with races is kept")
}

/// The order of asking for the present standing of the backends.
fn turns(shared: &SharedPool) -> Turns {
    let weights: Vec<u16> = shared.config.backends.iter().map(|backend| backend.weight).collect();
    // By address, so that `hash` sends a name to the same backend after a restart.
    let identity = |backend: &Arc<SharedBackend>| FixedState::default().hash_one(backend.address);
    let identities: Vec<u64> = shared.backends.iter().map(identity).collect();
    Turns::new(&weights, &identities, |index| shared.backends[index].takes_queries())
}

/// The hash of a folded name, the same on all workers.
fn name_hash(hasher: &RandomState, qname: &[u8]) -> u64 {
    hasher.hash_one(qname)
}

/// Octets for which a query's buffer has room at once; longer names make it grow, once.
const USUAL_QUERY: usize = 128;

/// The least silence that is taken for a stall: a backend that pauses for less costs less than it would to avoid it.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(10);

/// How long a backend that knows no EDNS is asked without (RFC 6891 section 6.2.2 leaves it open). Such servers are
/// rarely mended, and a mended one loses nothing but a few minutes of EDNS.
const WITHOUT_OPT: Duration = Duration::from_secs(600);
