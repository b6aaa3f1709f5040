//! What is seen at a glance: taken once a second, and told to whoever asks the admin server.
//!
//! There is none without an admin server, which alone could show it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};

use super::Server;
use crate::admin::Listener;
use crate::admin::status::Status;
use crate::metrics::{ExpiredZone, Snapshot};
use crate::sight::live::{History, Second, Span};
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
}

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
        let snapshot = self.snapshot();
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let Seen { sight, listeners, .. } = &mut self.seen;
        let Some(sight) = sight else {
            *sight = Some(Sight::new(now, at, &snapshot));
            return;
        };
        if let Some(event) = sight.take(now, at, &snapshot) {
            // Who has no room left loses its stream, and gets what it has missed when it comes again.
            listeners.retain(|listener| listener.try_send(event.clone()).is_ok());
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
