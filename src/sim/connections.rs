//! Connections in a scenario: they are opened, stand still, and end, and the engine is told what was lost.

use std::time::Duration;

use super::backend::Fate;
use super::event::{Event, Happening, LinkId};
use super::links::{LinkState, Look};
use super::world::World;
use crate::policy::query_slots::SlotState;

impl<F: FnMut(Duration, Happening<'_>)> World<'_, F> {
    /// Sees to it that connections end when they are to.
    pub(super) fn schedule_ends(&mut self) {
        for backend in 0..self.network.backends.len() {
            let places = self.network.links[backend].as_ref().map_or(0, |links| links.all.len());
            (0..places).for_each(|place| self.schedule_end(backend, Some(place)));
            if places > 0 {
                self.schedule_end(backend, None);
            }
        }
    }

    /// The next end of a connection to a backend, or of all.
    fn schedule_end(&mut self, backend: usize, place: Option<usize>) {
        let now = self.network.elapsed();
        let next = match place {
            None => self.network.backends[backend].next_crash(now),
            Some(place) => {
                let link = self.network.links[backend].as_mut().and_then(|links| links.all.get_mut(place));
                let ends = link.into_iter().flat_map(|link| &mut link.ends);
                let next = ends.filter_map(|ends| {
                    ends.forget(now);
                    let next = ends.next(now)?;
                    if next.start > now { Some(next.start) } else { ends.next(next.end).map(|next| next.start) }
                });
                next.min()
            }
        };
        if let Some(next) = next {
            self.schedule(self.network.at(next), Event::Ends { backend, place });
        }
    }

    /// A connection to a backend ends, or all do, whatever waits there.
    pub(super) fn on_end(&mut self, backend: usize, place: Option<usize>) {
        let all = self.network.links[backend].as_ref().map_or(0, |links| links.all.len());
        let places = place.map_or(0..all, |place| place..place + 1);
        places.for_each(|place| self.lose(backend, place));
        self.schedule_end(backend, place);
    }

    /// What waits on a connection is lost with it.
    fn lose(&mut self, backend: usize, place: usize) {
        let now = self.network.now;
        let taken = self.network.take_link(backend, place);
        if let Some(links) = &mut self.network.links[backend] {
            links.close(place);
        }
        if let Some((sockets, taken)) = taken {
            self.engine.on_connection_lost(&mut self.network, sockets, taken, now);
        }
    }

    /// A connection that was dialled is open, or could not be opened.
    pub(super) fn on_dialled(&mut self, id: LinkId, is_open: bool, is_refused: bool) {
        let LinkId { backend, place, .. } = id;
        if self.network.link(id).is_none_or(|link| link.state != LinkState::Dialling) {
            return;
        }
        let (now, elapsed) = (self.network.now, self.network.elapsed());
        if !is_open {
            let taken = self.network.take_link(backend, place);
            if let Some(links) = &mut self.network.links[backend] {
                links.failed(place, elapsed);
            }
            if let Some((sockets, taken)) = taken {
                self.engine.on_connection_failed(&mut self.network, sockets, taken, is_refused, now);
            }
            return;
        }
        if let Some(links) = &mut self.network.links[backend] {
            links.opened(place, elapsed);
        }
        let queued = self.network.link(id).map(|link| std::mem::take(&mut link.queued)).unwrap_or_default();
        for query in queued {
            // What nobody waits for any more is not sent.
            match self.network.slots.find(query.slot) {
                Some(SlotState::InFlight(_)) => self.network.post_by_stream(backend, place, query),
                Some(SlotState::Quarantined(_)) | None => {}
            }
        }
    }

    /// Looks at a connection on which something waits: if it is quiet for too long, it is asked for a sign of life, and given up without one.
    pub(super) fn look_at(&mut self, id: LinkId) {
        let LinkId { backend, place, .. } = id;
        let now = self.network.elapsed();
        let sign = self.scenario.pools[self.pool_of(backend)].rules.health.timeout;
        let p99 = self.network.set_of_backend(backend).and_then(|sockets| self.engine.p99(sockets));
        let patience = p99.map_or(MIN_PATIENCE, |p99| (4 * p99).max(MIN_PATIENCE));
        let Some(link) = self.network.link(id) else { return };
        match link.look(now, patience, sign) {
            Look::Leave => link.is_watched = false,
            Look::Again(at) => self.schedule(self.network.at(at), Event::Look(id)),
            Look::GiveUp => self.lose(backend, place),
            Look::Suspect => {
                let arrival = link.arrival(now);
                let fate = self.network.ask_by_stream(backend);
                let heard = match (arrival, fate) {
                    (Some(arrival), Fate::Replied(at)) => {
                        self.network.link(id).and_then(|link| link.thawed(at + (arrival - now)))
                    }
                    (Some(_), Fate::Lost | Fate::Unreachable(_)) | (None, _) => None,
                };
                if let Some(heard) = heard {
                    self.schedule(self.network.at(heard), Event::Sign(id));
                }
                self.schedule(self.network.at(now + sign), Event::Look(id));
            }
        }
    }

    /// A connection gives a sign of life.
    pub(super) fn on_sign(&mut self, id: LinkId) {
        let now = self.network.elapsed();
        if let Some(link) = self.network.link(id) {
            link.heard(now);
        }
    }
}

/// For so long a connection may be quiet that answers much sooner.
const MIN_PATIENCE: Duration = Duration::from_millis(100);
