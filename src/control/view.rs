//! The state that operators see: each part reports its own.

use std::sync::{Arc, Mutex};

use engine::slow::SlowRaces;
use metrics::Snapshot;

use super::Server;
use crate::admin::status::{Status, ZonesReport};
use crate::admin::{CacheAccess, CertificateSnapshot, ChangeRefusal, ServerView};
use crate::control::observe::sight::divergence::Divergences;
use crate::control::observe::sight::live::{HistoryFigures, Second, Span};
use crate::control::observe::sight::names::TopNames;
use crate::control::observe::sight::serials::Serials;

impl ServerView for Server {
    fn status(&self, snapshot: &Snapshot) -> Status {
        self.zones.show(self.observe.status(snapshot))
    }

    fn zones(&self) -> ZonesReport {
        self.zones.report()
    }

    fn cache(&self) -> Option<CacheAccess> {
        self.pools.cache_access()
    }

    fn second(&self) -> Option<Second> {
        self.observe.sight.as_ref().map(|sight| sight.latest().clone())
    }

    fn history(&self, span: Span) -> Option<HistoryFigures> {
        self.observe.sight.as_ref().map(|sight| sight.history().show(span, &self.snapshot()))
    }

    fn slow_races(&self) -> Option<Arc<Mutex<SlowRaces>>> {
        self.observe.taps.slow_races()
    }

    fn top_names(&self) -> Option<Arc<Mutex<TopNames>>> {
        self.observe.taps.top_names()
    }

    fn serials(&self, pool: Option<&str>) -> Result<Serials, ChangeRefusal> {
        self.pools.serials(pool)
    }

    fn divergences(&self, pool: Option<&str>) -> Result<Divergences, ChangeRefusal> {
        self.pools.divergences(pool)
    }

    fn certificates(&self) -> Vec<CertificateSnapshot> {
        self.process.listeners().certificates().snapshot()
    }
}
