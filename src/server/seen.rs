//! The overview of the server for the admin server, updated once a second. Without an admin server there is
//! none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use super::Server;
use super::authorities::ServedAuthority;
use crate::admin::LiveSubscriber;
use crate::admin::status::Status;
use crate::metrics::{BackendState, ExpiredZone, Snapshot};
use crate::sight::live::{Verdict, VerdictState};
use crate::sight::{Event, Sight};
use crate::wire::Name;

#[derive(Default)]
pub(super) struct ServerObserver {
    sight: Option<Sight>,
    listeners: Vec<mpsc::Sender<Event>>,
    expired_zones: BTreeSet<ExpiredZone>,
    absent_zones: AbsentZones,
    dead_pools: DeadPools,
}

#[derive(Default)]
struct DeadPools(BTreeSet<String>);

impl DeadPools {
    /// Takes the backend states of a pool. Returns whether a backend is up, if that has changed. A new
    /// backend may be up.
    fn take(&mut self, pool: &str, mut states: impl Iterator<Item = BackendState> + Clone) -> Option<bool> {
        if states.clone().any(BackendState::is_up) {
            return self.0.remove(pool).then_some(true);
        }
        let is_dead = states.clone().next().is_some() && states.all(|state| state != BackendState::New);
        (is_dead && self.0.insert(pool.to_owned())).then_some(false)
    }
}

/// Logs a verdict that is worse than before, or OK again.
fn log_verdict(before: VerdictState, verdict: &Verdict) {
    if verdict.state > before {
        tracing::warn!("verdict: {}: {}", verdict.state.label(), reasons(verdict));
    } else if verdict.state < before && verdict.state == VerdictState::Well {
        tracing::info!("verdict: OK again");
    }
}

fn reasons(verdict: &Verdict) -> String {
    let reasons: Vec<_> = verdict.reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.text)).collect();
    reasons.join("; ")
}

#[derive(Default)]
struct AbsentZones(BTreeMap<ExpiredZone, Instant>);

impl AbsentZones {
    fn take(&mut self, now: Instant, absent: impl Iterator<Item = ExpiredZone>) {
        let earlier = std::mem::take(&mut self.0);
        let since = |zone: &ExpiredZone| earlier.get(zone).copied().unwrap_or(now);
        self.0 = absent.take(MAX_ABSENT).map(|zone| (since(&zone), zone)).map(|(since, zone)| (zone, since)).collect();
    }

    fn old(&self, now: Instant) -> Vec<ExpiredZone> {
        let is_old = |since: Instant| now.saturating_duration_since(since) >= ABSENT_AFTER;
        self.0.iter().filter(|(_, since)| is_old(**since)).map(|(zone, _)| zone.clone()).collect()
    }
}

/// A first transfer takes seconds; a zone that is absent longer has a problem.
const ABSENT_AFTER: Duration = Duration::from_secs(60);
const MAX_ABSENT: usize = 1_000;

impl ServerObserver {
    /// Returns true before the first sample.
    pub(super) fn is_new(&self) -> bool {
        self.sight.is_none()
    }

    pub(super) fn status(&self, snapshot: &Snapshot) -> Status {
        Status::of(snapshot, self.sight.as_ref(), SystemTime::now())
    }

    /// Sends the last second. Drops `answer` if the admin server is to end.
    pub(super) fn sight(&self) -> Option<&Sight> {
        self.sight.as_ref()
    }

    pub(super) fn listen(&mut self, listener: LiveSubscriber) {
        let Some(sight) = &self.sight else { return };
        let LiveSubscriber { last, missed, seconds } = listener;
        // A new listener gets only the current second.
        let last = last.unwrap_or_else(|| sight.latest_id().saturating_sub(1));
        if missed.send(sight.missed(last)).is_ok() {
            self.listeners.retain(|listener| !listener.is_closed());
            self.listeners.push(seconds);
        }
    }

    pub(super) fn verdict_number(&self) -> Option<u64> {
        self.sight.as_ref().map(Sight::verdict_number)
    }

    pub(super) fn note_zone(&mut self, authority: &str, apex: &Name, is_expired: bool) {
        let zone = ExpiredZone { authority: authority.to_owned(), zone: apex.to_string() };
        if is_expired {
            self.expired_zones.insert(zone);
        } else {
            self.expired_zones.remove(&zone);
        }
    }

    pub(super) fn carry(&mut self, counted: &Snapshot) {
        if let Some(sight) = &mut self.sight {
            sight.carry(counted);
        }
    }
}

impl Server {
    pub(super) fn see(&mut self, now: Instant) {
        if self.listeners.admin().is_none() {
            (self.seen.sight, self.seen.listeners) = (None, Vec::new());
            return;
        }
        let expired: BTreeSet<_> = self.expired_zones().into_iter().collect();
        let absent = self.authorities.iter().flat_map(ServedAuthority::unserved).filter(|zone| !expired.contains(zone));
        self.seen.absent_zones.take(now, absent);
        let snapshot = Snapshot { absent_zones: self.seen.absent_zones.old(now), ..self.snapshot() };
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let ServerObserver { sight, listeners, .. } = &mut self.seen;
        let Some(sight) = sight else {
            *sight = Some(Sight::new(now, at, &snapshot));
            return;
        };
        let before = sight.verdict().state;
        if let Some(event) = sight.take(now, at, &snapshot) {
            log_verdict(before, sight.verdict());
            // A listener with a full queue is disconnected, and gets the missed seconds when it reconnects.
            listeners.retain(|listener| listener.try_send(event.clone()).is_ok());
        }
    }

    /// Logs pools that have lost their last backend or have one again.
    pub(super) fn log_pools(&mut self) {
        let pools = self.state.iter().flat_map(|state| &state.pools);
        for pool in pools {
            let name = &pool.config.name;
            let states: Vec<_> = pool.backends.iter().map(|backend| backend.state()).collect();
            match self.seen.dead_pools.take(name, states.into_iter()) {
                Some(false) => tracing::error!("pool {name}: no backend is up"),
                Some(true) => tracing::info!("pool {name}: a backend is up again"),
                None => {}
            }
        }
    }

    pub(super) fn expired_zones(&self) -> Vec<ExpiredZone> {
        if self.seen.expired_zones.is_empty() {
            return Vec::new();
        }
        let is_there = |expired: &&ExpiredZone| {
            let served = self.authorities.iter().find(|served| served.name() == expired.authority);
            served.is_some_and(|served| expired.zone.parse().is_ok_and(|zone| served.has_secondary(&zone)))
        };
        self.seen.expired_zones.iter().filter(is_there).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_dead_once_and_alive_once() {
        use BackendState::{Down, New, Up};
        let mut pools = DeadPools::default();
        let mut take = |states: &[BackendState]| pools.take("p", states.iter().copied());
        assert_eq!((take(&[]), take(&[New, Down]), take(&[Up, Down])), (None, None, None));
        assert_eq!((take(&[Down, Down]), take(&[Down, Down])), (Some(false), None));
        assert_eq!((take(&[Up, Down]), take(&[Up, Up])), (Some(true), None));
    }

    #[test]
    fn a_zone_is_absent_after_a_minute_and_no_more_once_it_comes() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let zone = |name: &str| ExpiredZone { authority: "ts1".to_owned(), zone: name.to_owned() };
        let mut absent = AbsentZones::default();
        absent.take(at(0), [zone("a.")].into_iter());
        absent.take(at(30), [zone("a."), zone("b.")].into_iter());
        assert_eq!((absent.old(at(59)), absent.old(at(60))), (Vec::new(), vec![zone("a.")]));
        absent.take(at(61), [zone("b.")].into_iter());
        absent.take(at(62), [zone("a."), zone("b.")].into_iter());
        assert_eq!(absent.old(at(90)), [zone("b.")]);
    }
}
