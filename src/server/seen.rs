//! What is seen at a glance: taken once a second, and told to whoever asks the admin server.
//!
//! There is none without an admin server, which alone could show it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};

use super::Server;
use super::authorities::ServedAuthority;
use crate::admin::Listener;
use crate::admin::status::Status;
use crate::metrics::{BackendState, ExpiredZone, Snapshot};
use crate::sight::live::{History, Second, Span, Verdict, VerdictState};
use crate::sight::{Event, Sight};
use crate::wire::Name;

/// What is seen of a server, and who is told.
#[derive(Default)]
pub(super) struct Seen {
    /// None, if nobody could look.
    sight: Option<Sight>,
    /// Who wants to be told each second.
    listeners: Vec<mpsc::Sender<Event>>,
    /// The zones that were told to have expired.
    expired_zones: BTreeSet<ExpiredZone>,
    /// The zones of other servers that have never come, each since it was first seen so.
    absent_zones: AbsentZones,
    /// The pools that the log has as dead.
    dead_pools: DeadPools,
}

/// The pools of which no backend is up.
#[derive(Default)]
struct DeadPools(BTreeSet<String>);

impl DeadPools {
    /// Takes the states of the backends of a pool; returns whether a backend is up, if that has changed. One that is new may be up.
    fn take(&mut self, pool: &str, mut states: impl Iterator<Item = BackendState> + Clone) -> Option<bool> {
        if states.clone().any(BackendState::is_up) {
            return self.0.remove(pool).then_some(true);
        }
        let is_dead = states.clone().next().is_some() && states.all(|state| state != BackendState::New);
        (is_dead && self.0.insert(pool.to_owned())).then_some(false)
    }
}

/// Logs a verdict that is worse than before, or well again.
fn log_verdict(before: VerdictState, verdict: &Verdict) {
    if verdict.state > before {
        tracing::warn!("verdict: {}: {}", verdict.state.label(), reasons(verdict));
    } else if verdict.state < before && verdict.state == VerdictState::Well {
        tracing::info!("verdict: well again");
    }
}

/// The reasons of a verdict, in a line.
fn reasons(verdict: &Verdict) -> String {
    let reasons: Vec<_> = verdict.reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.text)).collect();
    reasons.join("; ")
}

/// Zones that have never come, each since it was first seen so.
#[derive(Default)]
struct AbsentZones(BTreeMap<ExpiredZone, Instant>);

impl AbsentZones {
    /// Takes those of this moment, as many as there is room for.
    fn take(&mut self, now: Instant, absent: impl Iterator<Item = ExpiredZone>) {
        let earlier = std::mem::take(&mut self.0);
        let since = |zone: &ExpiredZone| earlier.get(zone).copied().unwrap_or(now);
        self.0 = absent.take(MAX_ABSENT).map(|zone| (since(&zone), zone)).map(|(since, zone)| (zone, since)).collect();
    }

    /// Those that have been absent for long.
    fn old(&self, now: Instant) -> Vec<ExpiredZone> {
        let is_old = |since: Instant| now.saturating_duration_since(since) >= ABSENT_AFTER;
        self.0.iter().filter(|(_, since)| is_old(**since)).map(|(zone, _)| zone.clone()).collect()
    }
}

/// A first transfer takes seconds; one that has not succeeded by then has a reason.
const ABSENT_AFTER: Duration = Duration::from_secs(60);
/// Absent zones that are known by name.
const MAX_ABSENT: usize = 1_000;

impl Seen {
    /// Whether nobody has looked yet.
    pub(super) fn is_new(&self) -> bool {
        self.sight.is_none()
    }

    /// The status that these numbers make.
    pub(super) fn status(&self, snapshot: &Snapshot) -> Status {
        Status::of(snapshot, self.sight.as_ref(), SystemTime::now())
    }

    /// Tells the last second. Who gets no answer has asked a server that is to have no admin server any more.
    pub(super) fn tell_second(&self, answer: oneshot::Sender<Second>) {
        if let Some(sight) = &self.sight {
            let _ = answer.send(sight.latest().clone());
        }
    }

    /// Tells somebody each second from now on.
    pub(super) fn listen(&mut self, listener: Listener) {
        let Some(sight) = &self.sight else { return };
        let Listener { last, missed, seconds } = listener;
        // Who comes for the first time has missed nothing but the second that is shown just now.
        let last = last.unwrap_or_else(|| sight.latest_id().saturating_sub(1));
        if missed.send(sight.missed(last)).is_ok() {
            self.listeners.retain(|listener| !listener.is_closed());
            self.listeners.push(seconds);
        }
    }

    /// Whether all is well, as a number.
    pub(super) fn verdict_number(&self) -> Option<u64> {
        self.sight.as_ref().map(Sight::verdict_number)
    }

    /// Notes what has become of a zone of another server.
    pub(super) fn note_zone(&mut self, authority: &str, apex: &Name, is_expired: bool) {
        let zone = ExpiredZone { authority: authority.to_owned(), zone: apex.to_string() };
        if is_expired {
            self.expired_zones.insert(zone);
        } else {
            self.expired_zones.remove(&zone);
        }
    }

    /// The counters were given at once what another process has counted.
    pub(super) fn carry(&mut self, counted: &Snapshot) {
        if let Some(sight) = &mut self.sight {
            sight.carry(counted);
        }
    }
}

impl Server {
    /// Looks at the second that ends now, and tells of it.
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
        let Seen { sight, listeners, .. } = &mut self.seen;
        let Some(sight) = sight else {
            *sight = Some(Sight::new(now, at, &snapshot));
            return;
        };
        let before = sight.verdict().state;
        if let Some(event) = sight.take(now, at, &snapshot) {
            log_verdict(before, sight.verdict());
            // Who has no room left loses its stream, and gets what it has missed when it comes again.
            listeners.retain(|listener| listener.try_send(event.clone()).is_ok());
        }
    }

    /// Logs the pools that have lost their last backend, or have one again.
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

    /// Tells what was.
    pub(super) fn tell_history(&self, span: Span, answer: oneshot::Sender<History>) {
        if let Some(sight) = &self.seen.sight {
            let _ = answer.send(sight.history().show(span, &self.snapshot()));
        }
    }

    /// The zones that have expired, as far as there are such zones still.
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
