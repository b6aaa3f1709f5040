//! A pool as one worker sees it: its links to the backends, what it has learnt of their latency, whose turn it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;

use crate::net::exchange::{Exchange, Link};
use crate::plan::SharedPool;
use crate::policy::balance::{Balance, Sight, Turns};
use crate::policy::latency::Latency;
use crate::policy::race::{BackendIndex, Candidates, Field};

/// A worker's part of a pool.
pub(super) struct Pool {
    /// What all workers share.
    pub(super) shared: Arc<SharedPool>,
    /// Its backends, by [`BackendIndex`].
    members: Vec<Member>,
    /// Their latency, by [`BackendIndex`].
    pub(super) latency: Vec<Latency>,
    /// In which order they are asked.
    turns: Turns,
    /// The state of the backends for which `turns` was made.
    epoch: u64,
    /// Races that are not over.
    pub(super) in_flight: usize,
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
    /// A worker's part of `shared`. Latencies that `earlier` has learnt of the same backends are taken over.
    pub(super) fn new<T: Copy>(
        shared: Arc<SharedPool>,
        exchange: &mut Exchange<T>,
        earlier: Option<&Self>,
        now: Instant,
    ) -> Self {
        let known = |address| {
            let pool = earlier?;
            let index = pool.shared.backends.iter().position(|known| known.address == address)?;
            Some(pool.latency[index].clone())
        };
        let latency = shared.backends.iter().map(|backend| known(backend.address).unwrap_or_else(|| Latency::new(now)));
        let latency = latency.collect();
        let members = shared.backends.iter().map(|backend| Member {
            link: exchange.add(backend.address, USUAL_QUERY),
            is_up: backend.is_up(),
            without_opt_until: None,
        });
        let members = members.collect();
        let epoch = shared.epoch();
        let turns = turns(&shared);
        Self { shared, members, latency, turns, epoch, in_flight: 0 }
    }

    /// Looks at the state of the backends, if it has changed, and reports those that went down.
    pub(super) fn refresh(&mut self, mut went_down: impl FnMut(BackendIndex)) {
        let epoch = self.shared.epoch();
        if epoch == self.epoch {
            return;
        }
        self.epoch = epoch;
        self.turns = turns(&self.shared);
        for (index, (member, backend)) in self.members.iter_mut().zip(&self.shared.backends).enumerate() {
            let was_up = std::mem::replace(&mut member.is_up, backend.is_up());
            if was_up && !member.is_up {
                went_down(BackendIndex(index as u16));
            }
        }
    }

    /// Whom to ask for the next query, in order.
    pub(super) fn candidates(&self, now: Instant, rng: &mut impl Rng) -> Candidates {
        let balance = self.shared.rules().balance;
        let turn = match balance {
            Balance::RoundRobin | Balance::Sticky => self.shared.take_turn(),
            Balance::Ordered | Balance::Random | Balance::Hash | Balance::LeastLoad | Balance::Fastest => 0,
        };
        self.turns.candidates(balance, &Sight { turn, ..Sight::new(now) }, rng)
    }

    /// What a race looks at.
    pub(super) fn field(&self) -> Field<'_> {
        Field { rules: self.shared.rules(), latency: &self.latency, budget: &self.shared.budget }
    }

    /// The sockets of a backend.
    pub(super) fn link(&self, backend: BackendIndex) -> Link {
        self.members[usize::from(backend.0)].link
    }

    /// All links.
    pub(super) fn links(&self) -> impl Iterator<Item = Link> + '_ {
        self.members.iter().map(|member| member.link)
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

/// The order of asking for the present state of the backends.
fn turns(shared: &SharedPool) -> Turns {
    let weights: Vec<u16> = shared.backends.iter().map(|backend| backend.weight).collect();
    let identities: Vec<u64> = (0..shared.backends.len() as u64).collect();
    Turns::new(&weights, &identities, |index| shared.backends[index].is_up())
}

/// Octets for which a query's buffer has room at once; longer names make it grow, once.
const USUAL_QUERY: usize = 128;

/// How long a backend that knows no EDNS is asked without (RFC 6891 section 6.2.2 leaves it open). Such servers are
/// rarely mended, and a mended one loses nothing but a few minutes of EDNS.
const WITHOUT_OPT: Duration = Duration::from_secs(600);
