//! The plans of a pool: one is a state of the pool, by which races run until they are over. When the state
//! changes, members keep their data.

use std::sync::Arc;
use std::time::Instant;

use hedge::backend_load::BackendLoad;
use hedge::balance::FEW;
use hedge::latency::{Latency, LatencyImage};
use hedge::race::BackendIndex;
use hedge::{AttemptTimeout, Dispatch, Hedge, RaceRules};

use super::super::attempt::AttemptSlots;
use super::super::io::Io;
use super::versions::VersionReports;
use super::{Pool, PoolMember, behind, known_cookies, sure, turns};
use crate::state::{SharedBackend, SharedPool};

pub(crate) struct PoolPlan {
    pub(crate) number: PlanNumber,
    pub(crate) shared: Arc<SharedPool>,
    pub(crate) unhurried: RaceRules,
    pub(crate) in_flight: usize,
}

impl PoolPlan {
    pub(crate) fn new(shared: Arc<SharedPool>, number: PlanNumber) -> Self {
        let rules = shared.rules().race.clone();
        // The rules of refresh races have neither hedges nor early attempts, which trade load for time.
        let attempt_timeout = AttemptTimeout::after(rules.attempt_timeout.longest());
        let unhurried = RaceRules { hedge: Hedge { max: 0, ..rules.hedge }, attempt_timeout, ..rules };
        Self { number, shared, unhurried, in_flight: 0 }
    }

    fn is_tuned(&self) -> bool {
        self.shared.rules().race.dispatch == Dispatch::Auto
    }
}

/// The plans of running races that began before the present plan.
#[derive(Default)]
pub(super) struct EarlierPlans {
    plans: Vec<PoolPlan>,
    /// The earliest plan whose replies count as those of the present one.
    alike_since: PlanNumber,
    /// The index of the plan that is exchanged with the present one.
    exchanged: Option<usize>,
}

/// The number of a plan. It wraps after hours of changes, longer than any race.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlanNumber(u16);

impl PlanNumber {
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    pub(crate) fn is_between(self, first: Self, last: Self) -> bool {
        self.0.wrapping_sub(first.0) <= last.0.wrapping_sub(first.0)
    }
}

impl Pool {
    /// Activates another plan. Running races keep theirs. The cost is that of the members that come or go.
    pub(crate) fn set_plan<I: Io>(
        &mut self,
        io: &mut I,
        slots: &mut AttemptSlots,
        shared: Arc<SharedPool>,
        now: Instant,
    ) {
        let number = self.plan.number.next();
        let earlier = std::mem::replace(&mut self.plan, PoolPlan::new(Arc::clone(&shared), number));
        let before = Arc::clone(&earlier.shared);
        let is_alike = shared.id == before.id && shared.rules() == before.rules();
        if !is_alike {
            self.earlier.alike_since = number;
        }
        if earlier.in_flight > 0 {
            self.earlier.plans.push(earlier);
        }
        self.pending.sure = sure(&shared);
        self.make_room(now);
        if shared.config.spoofing.cookies != before.config.spoofing.cookies {
            for backend in &shared.backends {
                if let Some(member) = self.members.get_mut(backend.index.get()) {
                    (member.cookies, member.cookies_since) = (known_cookies(&shared, backend), now);
                }
            }
        }
        let joined = if shared.edition.number == before.edition.number + 1 {
            self.leaving.extend(&shared.edition.left);
            shared.edition.joined.clone()
        } else {
            let is_gone = |member: &PoolMember| {
                let known = member.backend.as_ref();
                known.is_some_and(|known| shared.find(known.index).is_none_or(|same| !Arc::ptr_eq(same, known)))
            };
            let gone = (0..).map(BackendIndex).zip(&self.members).filter(|(_, member)| is_gone(member));
            self.leaving = gone.map(|(index, _)| index).collect();
            let is_known = |backend: &SharedBackend, known: &PoolMember| {
                known.backend.as_ref().is_some_and(|known| std::ptr::eq(backend, Arc::as_ptr(known)))
            };
            let new = shared.backends.iter().filter(|new| !is_known(new, &self.members[new.index.get()]));
            new.map(|backend| backend.index).collect()
        };
        for index in &joined {
            self.welcome(io, shared.backend(*index), now);
        }
        if self.plan.is_tuned() {
            shared.backends.iter().for_each(|backend| self.share_latency(backend, now));
        }
        self.begin_latency(&joined, now);
        self.leaving.iter().for_each(|index| self.members[index.get()].takes_queries = false);
        self.health.turns = turns(&shared);
        self.health.behind = behind(&shared);
        if shared.config.replicas.enabled != self.reports.is_some() {
            self.reports = shared.config.replicas.enabled.then(|| VersionReports::new(now));
        }
        self.forget_left(io, slots, now);
    }

    pub(super) fn make_room(&mut self, now: Instant) {
        let places = self.plan.shared.places().max(self.members.len());
        if self.plan.shared.is_crowd() {
            let missing = CROWD_ROOM.saturating_sub(self.members.len());
            self.members.reserve_exact(missing);
            self.latency.reserve_exact(missing);
            self.loads.reserve_exact(missing);
        }
        self.members.resize_with(places, || PoolMember::vacant(now));
        self.latency.resize_with(places, || Latency::new(now));
        self.loads.resize_with(places, || BackendLoad::new(now));
    }

    pub(super) fn welcome<I: Io>(&mut self, io: &mut I, backend: &Arc<SharedBackend>, now: Instant) {
        let place = backend.index.get();
        let member = &mut self.members[place];
        if member.backend.as_ref().is_some_and(|known| Arc::ptr_eq(known, backend)) {
            return;
        }
        let is_asked_soon = self.plan.shared.backends.len() <= FEW;
        *member = PoolMember {
            is_up: backend.is_up(),
            takes_queries: backend.takes_queries(),
            cookies: known_cookies(&self.plan.shared, backend),
            backend: Some(Arc::clone(backend)),
            ..PoolMember::vacant(now)
        };
        self.latency[place] = backend.latency(self.plan.is_tuned(), now);
        self.loads[place] = backend.load(self.me, now);
        if self.plan.is_tuned() {
            self.loads[place].watch();
        }
        self.note_way(backend);
        if is_asked_soon {
            self.sockets(io, backend.index);
        }
    }

    /// Starts the latency of new members with that of the others, unless another worker has done so. For the
    /// first [`FEW`] only, because each takes memory that a member of a crowd may never need.
    pub(crate) fn begin_latency(&mut self, new: &[BackendIndex], now: Instant) {
        let new = &new[..new.len().min(FEW)];
        if new.iter().all(|index| !self.latency[index.get()].is_empty()) {
            return;
        }
        let places = self.plan.shared.backends.iter().map(|backend| backend.index.get());
        let up = places.filter(|place| self.members[*place].is_up);
        let known = up.map(|place| self.latency[place].image(now)).filter(|image| !image.is_empty());
        let known: Vec<_> = known.take(MERGED).collect();
        let usual = LatencyImage::merged(&known);
        for index in new {
            let latency = &mut self.latency[index.get()];
            if latency.is_empty() {
                latency.learn(&usual, now);
            }
        }
    }

    /// Moves what a worker alone has measured to where the control thread reads it.
    fn share_latency(&mut self, backend: &SharedBackend, now: Instant) {
        let latency = &mut self.latency[backend.index.get()];
        if !latency.is_shared() {
            let image = std::mem::replace(latency, backend.latency(true, now)).image(now);
            latency.learn(&image, now);
        }
        self.loads[backend.index.get()].watch();
    }

    fn note_way(&mut self, backend: &Arc<SharedBackend>) {
        if backend.is_by_stream() && self.by_stream.is_empty() {
            self.by_stream.resize(self.members.len(), false);
        }
        if !self.by_stream.is_empty() {
            self.by_stream.resize(self.members.len(), false);
            self.by_stream[backend.index.get()] = backend.is_by_stream();
        }
    }

    pub(crate) fn forget_left<I: Io>(&mut self, io: &mut I, slots: &mut AttemptSlots, now: Instant) {
        if self.leaving.is_empty() {
            return;
        }
        let is_known = |earlier: &[PoolPlan], index: BackendIndex, backend: &Arc<SharedBackend>| {
            earlier.iter().any(|plan| plan.shared.find(index).is_some_and(|same| Arc::ptr_eq(same, backend)))
        };
        for index in std::mem::take(&mut self.leaving) {
            match &self.members[index.get()].backend {
                Some(backend) if is_known(&self.earlier.plans, index, backend) => self.leaving.push(index),
                Some(_) => self.forget_member(io, slots, index, now),
                None => {}
            }
        }
    }

    fn forget_member<I: Io>(&mut self, io: &mut I, slots: &mut AttemptSlots, index: BackendIndex, now: Instant) {
        let member = std::mem::replace(&mut self.members[index.get()], PoolMember::vacant(now));
        self.latency[index.get()] = Latency::new(now);
        let load = std::mem::replace(&mut self.loads[index.get()], BackendLoad::new(now));
        let Some(backend) = member.backend else { return };
        if let Some(sockets) = member.sockets {
            self.by_sockets.remove(&sockets);
            let mut lost = Vec::new();
            io.remove_backend(sockets, &mut lost);
            for slot in lost {
                slots.take_back(slot);
            }
        }
        self.pending.out = self.pending.out.saturating_sub(load.in_flight().into());
        if let Some(counters) = backend.counted_by(self.me) {
            counters.pending.in_flight.subtract(load.in_flight().into());
        }
    }

    pub(crate) fn forget<I: Io>(mut self, io: &mut I, slots: &mut AttemptSlots, now: Instant) {
        for place in 0..self.members.len() {
            self.forget_member(io, slots, BackendIndex(place as u16), now);
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.plan.in_flight == 0 && self.earlier.plans.is_empty()
    }

    pub(crate) fn races(&self) -> usize {
        self.plan.in_flight + self.earlier.plans.iter().map(|plan| plan.in_flight).sum::<usize>()
    }

    #[inline]
    pub(crate) fn work_by(&mut self, plan: PlanNumber) {
        if self.plan.number != plan {
            self.earlier.exchanged = self.earlier.plans.iter().position(|earlier| earlier.number == plan);
            self.exchange();
        }
    }

    #[inline]
    pub(crate) fn resume(&mut self) {
        if self.earlier.exchanged.is_some() {
            self.exchange();
            self.earlier.exchanged = None;
        }
    }

    fn exchange(&mut self) {
        let EarlierPlans { plans, exchanged, .. } = &mut self.earlier;
        if let Some(earlier) = exchanged.and_then(|place| plans.get_mut(place)) {
            std::mem::swap(&mut self.plan, earlier);
        }
    }

    /// Counts the end of a race. Returns true if it was the last of an earlier plan, which can be removed.
    pub(crate) fn race_over(&mut self, plan: PlanNumber) -> bool {
        if self.plan.number == plan {
            self.plan.in_flight -= 1;
            return false;
        }
        let Some(place) = self.earlier.plans.iter().position(|earlier| earlier.number == plan) else { return false };
        self.earlier.plans[place].in_flight -= 1;
        let is_over = self.earlier.plans[place].in_flight == 0;
        if is_over {
            self.earlier.plans.swap_remove(place);
        }
        is_over
    }

    /// Returns the shared pool for a late reply: that of the attempt's plan if it has races, or the present
    /// one if that is equivalent; and only if it has the backend. Other late replies are not cached.
    pub(crate) fn shared_of(&self, plan: PlanNumber, backend: BackendIndex) -> Option<&Arc<SharedPool>> {
        let earlier = self.earlier.plans.iter().find(|earlier| earlier.number == plan).map(|earlier| &earlier.shared);
        let present = (self.plan.number == plan || plan.is_between(self.earlier.alike_since, self.plan.number))
            .then_some(&self.plan.shared);
        let known = self.members.get(backend.get())?.backend.as_ref()?;
        earlier.or(present).filter(|shared| shared.find(backend).is_some_and(|same| Arc::ptr_eq(same, known)))
    }
}

/// The initial capacity of a very large pool, because moving thousands of members takes a millisecond.
const CROWD_ROOM: usize = 1 << 14;

/// The most members whose latency a new one starts with, so that a merge takes some 100 µs.
const MERGED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_round() {
        let check = |number, first, last, expected| {
            let is_between = PlanNumber(number).is_between(PlanNumber(first), PlanNumber(last));
            assert_eq!(is_between, expected, "{number} between {first} and {last}");
        };
        check(5, 5, 5, true);
        check(4, 5, 9, false);
        check(9, 5, 9, true);
        check(10, 5, 9, false);
        check(1, u16::MAX - 1, 3, true);
        check(4, u16::MAX - 1, 3, false);
        assert_eq!(PlanNumber(u16::MAX).next(), PlanNumber(0));
    }
}
