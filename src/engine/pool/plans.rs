//! How a pool goes from one state to the next: members that stay keep all that is known of them, and races go on by the plan that they
//! began with.

use std::sync::Arc;
use std::time::Instant;

use super::super::io::Io;
use super::super::plan::{Plan, PlanNumber};
use super::versions::Told;
use super::{Member, Pool, behind, known_cookies, sure, turns};
use crate::policy::backend_load::BackendLoad;
use crate::policy::balance::FEW;
use crate::policy::latency::Latency;
use crate::policy::race::BackendIndex;
use crate::state::{SharedBackend, SharedPool};

impl Pool {
    /// Puts another plan in force. Races that run end by theirs. It costs as much as there are members that come or go.
    pub(in crate::engine) fn set_plan<I: Io>(&mut self, io: &mut I, shared: Arc<SharedPool>, now: Instant) {
        let before = Arc::clone(&self.shared);
        let number = self.plan.next();
        let is_alike = shared.id == before.id && shared.rules() == before.rules();
        let earlier = Plan {
            shared: std::mem::replace(&mut self.shared, shared),
            unhurried: std::mem::take(&mut self.unhurried),
            number: std::mem::replace(&mut self.plan, number),
            in_flight: std::mem::take(&mut self.in_flight),
        };
        if !is_alike {
            self.alike_since = number;
        }
        if earlier.in_flight > 0 {
            self.earlier.push(earlier);
        }
        let shared = Arc::clone(&self.shared);
        self.unhurried = Plan::unhurried(&shared);
        self.sure = sure(shared.config.max_in_flight.into(), shared.backends.first().map_or(1, |b| b.workers()) as u64);
        self.make_room(now);
        if shared.config.cookies != before.config.cookies {
            self.renew_all_cookies(&shared, now);
        }
        if shared.edition == before.edition + 1 {
            self.leaving.extend(&shared.left);
            for index in &shared.joined {
                self.welcome(io, shared.backend(*index), now);
            }
        } else {
            // A worker that has missed one.
            let is_gone = |member: &Member| {
                let known = member.backend.as_ref();
                known.is_some_and(|known| shared.find(known.index).is_none_or(|same| !Arc::ptr_eq(same, known)))
            };
            let gone = (0..).map(BackendIndex).zip(&self.members).filter(|(_, member)| is_gone(member));
            self.leaving = gone.map(|(index, _)| index).collect();
            for backend in &shared.backends {
                self.welcome(io, backend, now);
            }
        }
        self.leaving.iter().for_each(|index| self.members[index.get()].takes_queries = false);
        self.turns = turns(&shared);
        self.behind = behind(&shared);
        if shared.config.replicas != self.told.is_some() {
            self.told = shared.config.replicas.then(|| Told::new(now));
        }
        self.forget_left(io, now);
    }

    /// Room for all members of the present plan.
    pub(super) fn make_room(&mut self, now: Instant) {
        let places = self.shared.places().max(self.members.len());
        if self.shared.is_crowd() {
            let missing = CROWD_ROOM.saturating_sub(self.members.len());
            self.members.reserve_exact(missing);
            self.latency.reserve_exact(missing);
            self.loads.reserve_exact(missing);
        }
        self.members.resize_with(places, || Member::nobody(now));
        self.latency.resize_with(places, || Latency::new(now));
        self.loads.resize_with(places, || BackendLoad::new(now));
    }

    /// A member of the present plan, unless it is known.
    pub(super) fn welcome<I: Io>(&mut self, io: &mut I, backend: &Arc<SharedBackend>, now: Instant) {
        let place = backend.index.get();
        let member = &mut self.members[place];
        if member.backend.as_ref().is_some_and(|known| Arc::ptr_eq(known, backend)) {
            return;
        }
        let is_asked_soon = self.shared.backends.len() <= FEW;
        *member = Member {
            is_up: backend.is_up(),
            takes_queries: backend.takes_queries(),
            cookies: known_cookies(&self.shared, backend),
            backend: Some(Arc::clone(backend)),
            ..Member::nobody(now)
        };
        (self.latency[place], self.loads[place]) = (Latency::new(now), BackendLoad::new(now));
        self.note_way(backend);
        if is_asked_soon {
            self.sockets(io, backend.index);
        }
    }

    /// Forgets members that have left, once no race knows them any more, with what still waits on their sockets.
    pub(in crate::engine) fn forget_left<I: Io>(&mut self, io: &mut I, now: Instant) {
        if self.leaving.is_empty() {
            return;
        }
        let is_known = |earlier: &[Plan], index: BackendIndex, backend: &Arc<SharedBackend>| {
            earlier.iter().any(|plan| plan.shared.find(index).is_some_and(|same| Arc::ptr_eq(same, backend)))
        };
        for index in std::mem::take(&mut self.leaving) {
            match &self.members[index.get()].backend {
                Some(backend) if is_known(&self.earlier, index, backend) => self.leaving.push(index),
                Some(_) => self.forget_member(io, index, now),
                None => {}
            }
        }
    }

    /// Forgets a member, its sockets, and what waits on them.
    fn forget_member<I: Io>(&mut self, io: &mut I, index: BackendIndex, now: Instant) {
        let member = std::mem::replace(&mut self.members[index.get()], Member::nobody(now));
        self.latency[index.get()] = Latency::new(now);
        let load = std::mem::replace(&mut self.loads[index.get()], BackendLoad::new(now));
        let Some(backend) = member.backend else { return };
        if let Some(sockets) = member.sockets {
            self.by_sockets.remove(&sockets);
            io.remove_backend(sockets);
        }
        self.out = self.out.saturating_sub(load.in_flight().into());
        if let Some(counters) = backend.counted_by(self.me) {
            counters.in_flight.subtract(load.in_flight().into());
        }
    }

    /// Closes all sockets. What still waits on them, after every race is over, is not waited for.
    pub(in crate::engine) fn forget<I: Io>(mut self, io: &mut I, now: Instant) {
        for place in 0..self.members.len() {
            self.forget_member(io, BackendIndex(place as u16), now);
        }
    }

    /// Whether no race knows it any more.
    pub(in crate::engine) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.earlier.is_empty()
    }

    /// Races of all plans that are not over.
    pub(in crate::engine) fn races(&self) -> usize {
        self.in_flight + self.earlier.iter().map(|plan| plan.in_flight).sum::<usize>()
    }

    /// Works by this plan until [`resume`](Self::resume), if it is an earlier one.
    #[inline]
    pub(in crate::engine) fn work_by(&mut self, plan: PlanNumber) {
        if self.plan != plan {
            self.exchanged = self.earlier.iter().position(|earlier| earlier.number == plan);
            self.exchange();
        }
    }

    /// Works by the present plan again.
    #[inline]
    pub(in crate::engine) fn resume(&mut self) {
        if self.exchanged.is_some() {
            self.exchange();
            self.exchanged = None;
        }
    }

    /// Exchanges the plan at work for the other.
    fn exchange(&mut self) {
        if let Some(earlier) = self.exchanged.and_then(|place| self.earlier.get_mut(place)) {
            std::mem::swap(&mut self.shared, &mut earlier.shared);
            std::mem::swap(&mut self.unhurried, &mut earlier.unhurried);
            std::mem::swap(&mut self.plan, &mut earlier.number);
            std::mem::swap(&mut self.in_flight, &mut earlier.in_flight);
        }
    }

    /// A race of this plan is over. Returns whether that was the last one of an earlier plan, which is to be forgotten.
    pub(in crate::engine) fn race_over(&mut self, plan: PlanNumber) -> bool {
        if self.plan == plan {
            self.in_flight -= 1;
            return false;
        }
        let Some(place) = self.earlier.iter().position(|earlier| earlier.number == plan) else { return false };
        self.earlier[place].in_flight -= 1;
        let is_over = self.earlier[place].in_flight == 0;
        if is_over {
            self.earlier.swap_remove(place);
        }
        is_over
    }

    /// What the plan of an attempt says of the pool, if that plan has races still, or the present one says the same; and if it has the
    /// backend. Nothing is remembered of a late reply whose plan is not known any more.
    pub(in crate::engine) fn shared_of(&self, plan: PlanNumber, backend: BackendIndex) -> Option<&Arc<SharedPool>> {
        let earlier = self.earlier.iter().find(|earlier| earlier.number == plan).map(|earlier| &earlier.shared);
        let present = (self.plan == plan || plan.is_between(self.alike_since, self.plan)).then_some(&self.shared);
        let known = self.members.get(backend.get())?.backend.as_ref()?;
        earlier.or(present).filter(|shared| shared.find(backend).is_some_and(|same| Arc::ptr_eq(same, known)))
    }
}

/// Places that there is room for at once in a pool of very many members: to move what is known of thousands takes a millisecond, and this is
/// more than most pools ever have. What is not used yet takes addresses and no memory.
const CROWD_ROOM: usize = 1 << 14;
