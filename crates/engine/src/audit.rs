//! Invariants that hold between two events. Tests and the fuzzer check them after each event.

use std::collections::BTreeSet;
use std::sync::Arc;

use hedge::race::Attempt;

use super::Engine;
use super::entry::RaceEntry;
use super::io::ClientHandle;
use super::slots::RaceRef;

impl<C: ClientHandle> Engine<C> {
    /// Checks the invariants between two events. Returns the number of places that clients hold.
    ///
    /// # Errors
    /// The violated invariant.
    pub fn audit(&self) -> Result<usize, String> {
        let mut named = BTreeSet::new();
        for (at, entry) in self.in_flight.iter() {
            self.audit_race(at)?;
            let key = (entry.question().to_ascii_lowercase(), entry.query.flags.octet());
            if !entry.is_signed() && !named.insert(key) {
                return Err(format!("{at:?}: two races for one question"));
            }
        }
        for (slot, pool) in self.pools.iter() {
            let races = self.in_flight.iter().filter(|(_, entry)| entry.origin.pool == slot);
            let is_current = self.pool_slots.contains(&slot);
            if races.clone().count() != pool.races() {
                return Err(format!("{slot:?}: {} races are counted", pool.races()));
            }
            if pool.is_idle() && !is_current && self.pools.len() > self.pool_slots.len() {
                return Err(format!("{slot:?}: a pool of an earlier state is kept without a race"));
            }
            for backend in pool.backends() {
                let index = backend.index;
                let is_asked = |entry: &&RaceEntry<C>, attempt: &Attempt| {
                    let pool = self.pools.get(entry.origin.pool);
                    pool.is_some_and(|pool| Arc::ptr_eq(pool.backend(attempt.backend), backend))
                };
                let waited_for = self.in_flight.iter().flat_map(|(_, entry)| {
                    let asked = entry.query_slots().filter_map(|(attempt, _)| entry.race.attempt(attempt));
                    asked.filter(move |attempt| is_asked(&entry, attempt))
                });
                let (counted, waited_for) = (pool.counters(index).pending.waited_for.get(), waited_for.count());
                if counted != waited_for as u64 {
                    return Err(format!("{slot:?} {index:?}: {counted} are waited for, and {waited_for} are"));
                }
            }
        }
        Ok(self.in_flight.iter().map(|(_, entry)| entry.place_count()).sum())
    }

    /// Checks that a race has a timer or is being fetched, so no client waits forever.
    fn audit_race(&self, at: RaceRef) -> Result<(), String> {
        let Some(entry) = self.in_flight.get(at) else { return Ok(()) };
        if entry.is_fetching {
            return Ok(());
        }
        if entry.race.is_finished() {
            return Err(format!("{at:?}: a race that is over is in flight"));
        }
        match entry.armed() {
            Some(armed) if armed <= entry.race.deadline() => Ok(()),
            Some(_) => Err(format!("{at:?}: it sleeps beyond its deadline")),
            None => Err(format!("{at:?}: no alarm wakes it up")),
        }
    }
}
