//! Connections in a scenario: they open, stall and end, and the engine gets back the lost queries.

use std::time::Duration;

use super::backend::QueryFate;
use super::event::{Event, Happening, SimulatedLinkKey};
use super::links::{LinkAction, LinkState};
use super::world::SimulatedWorld;
use crate::query_slots::SlotState;

impl<F: FnMut(Duration, Happening<'_>)> SimulatedWorld<'_, F> {
    pub(super) fn schedule_ends(&mut self) {
        for worker in 0..self.engines.len() {
            self.network.worker = worker;
            self.schedule_ends_of_worker();
        }
    }

    fn schedule_ends_of_worker(&mut self) {
        for backend in 0..self.network.backends.len() {
            let places = self.network.sockets().links[backend].as_ref().map_or(0, |links| links.all.len());
            (0..places).for_each(|place| self.schedule_end(backend, Some(place)));
            if places > 0 {
                self.schedule_end(backend, None);
            }
        }
    }

    fn schedule_end(&mut self, backend: usize, place: Option<usize>) {
        let now = self.network.elapsed();
        let next = match place {
            None => self.network.backends[backend].next_crash(now),
            Some(place) => {
                let link =
                    self.network.sockets_mut().links[backend].as_mut().and_then(|links| links.all.get_mut(place));
                let ends = link.into_iter().flat_map(|link| &mut link.ends);
                ends.filter_map(|ends| {
                    ends.forget(now);
                    ends.next_start(now)
                })
                .min()
            }
        };
        if let Some(next) = next {
            self.schedule(self.network.at(next), Event::Ends { backend, place });
        }
    }

    pub(super) fn on_end(&mut self, backend: usize, place: Option<usize>) {
        let all = self.network.sockets().links[backend].as_ref().map_or(0, |links| links.all.len());
        let places = place.map_or(0..all, |place| place..place + 1);
        places.for_each(|place| self.lose(backend, place));
        self.schedule_end(backend, place);
    }

    fn lose(&mut self, backend: usize, place: usize) {
        let taken = self.network.take_link(backend, place);
        if let Some(links) = &mut self.network.sockets_mut().links[backend] {
            links.close(place);
        }
        if let Some((sockets, taken)) = taken {
            self.tick().on_connection_lost(sockets, &taken);
        }
    }

    pub(super) fn on_dialled(&mut self, id: SimulatedLinkKey, is_open: bool, is_refused: bool) {
        let SimulatedLinkKey { backend, place, .. } = id;
        if self.network.link(id).is_none_or(|link| link.state != LinkState::Dialling) {
            return;
        }
        let elapsed = self.network.elapsed();
        if !is_open {
            let taken = self.network.take_link(backend, place);
            if let Some(links) = &mut self.network.sockets_mut().links[backend] {
                links.failed(place, elapsed);
            }
            if let Some((sockets, taken)) = taken {
                self.tick().on_connection_failed(sockets, &taken, is_refused);
            }
            return;
        }
        if let Some(links) = &mut self.network.sockets_mut().links[backend] {
            links.opened(place, elapsed);
        }
        let queued = self.network.link(id).map(|link| std::mem::take(&mut link.queued)).unwrap_or_default();
        for query in queued {
            // A query that has no slot any more is not sent.
            match self.engine().slots().find(query.slot) {
                Some(SlotState::InFlight(_)) => self.network.post_by_stream(backend, place, query),
                Some(SlotState::Quarantined(_)) | None => {}
            }
        }
    }

    /// Checks a connection with pending queries: if it is quiet for too long, the engine pings it, and gives
    /// it up if no reply comes.
    pub(super) fn look_at(&mut self, id: SimulatedLinkKey) {
        let SimulatedLinkKey { backend, place, .. } = id;
        let now = self.network.elapsed();
        let sign = self.scenario.pools[self.pool_of(backend)].rules.health.timeout;
        let p99 = self.network.set_of_backend(backend).and_then(|sockets| self.engine().p99(sockets));
        let patience = p99.map_or(MIN_PATIENCE, |p99| (4 * p99).max(MIN_PATIENCE));
        let Some(link) = self.network.link(id) else { return };
        match link.look(now, patience, sign) {
            LinkAction::Leave => link.is_watched = false,
            LinkAction::Again(at) => self.schedule(self.network.at(at), Event::Look(id)),
            LinkAction::GiveUp => self.lose(backend, place),
            LinkAction::Suspect => {
                let arrival = link.arrival(now);
                let fate = self.network.ask_by_stream(backend);
                let heard = match (arrival, fate) {
                    (Some(arrival), QueryFate::Replied(at)) => {
                        self.network.link(id).and_then(|link| link.thawed(at + (arrival - now)))
                    }
                    (Some(_), QueryFate::Lost | QueryFate::Unreachable(_)) | (None, _) => None,
                };
                if let Some(heard) = heard {
                    self.schedule(self.network.at(heard), Event::Sign(id));
                }
                self.schedule(self.network.at(now + sign), Event::Look(id));
            }
        }
    }

    pub(super) fn on_sign(&mut self, id: SimulatedLinkKey) {
        let now = self.network.elapsed();
        if let Some(link) = self.network.link(id) {
            link.heard(now);
        }
    }
}

const MIN_PATIENCE: Duration = Duration::from_millis(100);
