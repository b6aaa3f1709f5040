//! Reloads, as the parts of the server go through them: each part prepares what may fail, and only then all
//! of them commit.

use std::sync::Arc;

use config::{Config, CookieConfig};
use limit::Cookies;
use net::to_backends::tls::KnownRoots;

use super::process::{AddressChanges, Listening, LoadedConfig, PreparedReload, ending};
use super::workers::Workers;
use super::{Answer, Server, ServerEvent, StartError};
use crate::load::LoadError;
use crate::worker::WorkerCommand;

/// The means of a commit that the parts share.
pub(super) struct Reload<'a> {
    pub(super) workers: &'a mut Workers,
    pub(super) listening: &'a Listening,
    pub(super) addresses: AddressChanges,
    /// Makes the cookie generator of a section, if cookies are enabled.
    pub(super) cookies: &'a dyn Fn(&CookieConfig) -> Option<Arc<Cookies>>,
    pub(super) roots: Arc<KnownRoots>,
}

impl Server {
    /// Reads config and zones again: now, or after the running reload. `answer` receives the result.
    pub fn reload(&mut self, answer: Option<Answer>) {
        if self.process.draining.is_ending {
            answer.into_iter().for_each(|answer| drop(answer.send(Err(ending()))));
        } else {
            self.process.reloads.request(answer);
            self.begin_reload();
        }
    }

    fn begin_reload(&mut self) {
        if self.process.reloads.begin(|| (self.zones.base(), self.pools.cache_size())) {
            self.events.push_back(ServerEvent::Reloading);
        }
    }

    /// Applies the result or keeps the current state, reports to the requesters, and starts the next reload.
    pub(super) fn finish_reload(&mut self, loaded: LoadedConfig) {
        if self.process.reloads.running.is_none() {
            return;
        }
        let mut changes = String::new();
        // The status page needs no token, so it shows no lines of the config.
        let with_headlines = |error: LoadError| (error.to_string(), error.headlines());
        let result = loaded.map_err(with_headlines).and_then(|mut prepared| {
            changes = std::mem::take(&mut prepared.changes);
            self.commit(*prepared).map_err(|error| (error.to_string(), error.to_string()))
        });
        let error = result.as_ref().err().map(|(problems, _)| problems.clone());
        if let Some(problems) = &error {
            self.process.on_failed_reload(problems);
        }
        let edition = self.process.reloads.finish(result);
        if error.is_none() {
            tracing::info!("reloaded: edition {edition}: {changes}");
        }
        self.events.push_back(ServerEvent::Reloaded { edition, error });
        self.begin_reload();
    }

    /// Swaps a config in. Returns it with a message for the operator. If anything is not available, nothing
    /// has changed.
    fn commit(&mut self, prepared: PreparedReload) -> Result<(Config, String), StartError> {
        let PreparedReload { mut setup, pools, zones, .. } = prepared;
        let process = self.process.prepare(&setup.config, self.pools.owed_for())?;
        self.observe.apply(&setup.config)?;
        // Nothing below can fail.
        self.links.workers.broadcast(|| WorkerCommand::SetTaps(self.observe.taps.set().clone()));
        let (mut notices, addresses) = self.process.commit(process, &mut setup);
        let cookies = |config: &CookieConfig| self.process.own_secret.cookies(config, &setup.cookie_secrets);
        let (workers, listening) = (&mut self.workers, &self.process.listening);
        let mut reload = Reload { workers, listening, addresses, cookies: &cookies, roots: setup.roots };
        notices.extend(self.pools.commit(pools, &mut setup.config, &mut reload));
        notices.extend(self.zones.commit(zones, &mut reload));
        self.zones.register(&self.process.listening.listeners, self.pools.membership.discoverer.access(), &[]);
        // A missing interface has logged a warning.
        let _ = self.follow_interfaces();
        notices.iter().for_each(|notice| tracing::warn!("reload: {notice}"));
        notices.insert(0, "reloaded".to_owned());
        Ok((setup.config, notices.join("; ")))
    }
}
