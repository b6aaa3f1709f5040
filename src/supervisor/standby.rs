//! The way of a loaded process to its place as the server.
//!
//! ```text
//!   first ────────────────────────────────────────────────┐
//!   newcomer ──gets the state of the server, and its lock──┼──▶ server (serving.rs)
//!   standby ──gets the lock to serve───────────────────────┘
//!      └──gets the lock to supervise──▶ exec: the supervisor
//! ```

use std::io;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use metrics::Role;
use net::sys::memory::release_unused;
use net::tasks::blocking;

use super::channel::{Channel, WatchedChannel};
use super::locks::LockPart;
use super::message::{ProcessPart, Upward, from_memory, unpack};
use super::prepare::PreparedProcess;
use super::process::{MemberProcess, ended};
use super::serving::Serving;
use super::takeover::{TakeoverMessage, ask};
use crate::control::{CarriedState, SavedZones};
use crate::load::{ConfigReader, Confinement, LoadError, Setup};
use crate::signals::{BlockedSignals, SignalRequest, Signals};

struct LoadedSetup {
    reader: ConfigReader,
    newer: Option<(u64, Result<Setup, LoadError>)>,
    saved: SavedZones,
}

impl MemberProcess {
    /// Runs this process until it ends.
    pub(super) async fn run(mut self, signals: BlockedSignals) -> io::Result<ExitCode> {
        self.introduce()?;
        let mut prepared = match self.prepare().await? {
            Ok(prepared) => prepared,
            Err(status) => return Ok(status),
        };
        self.supervise = Some(Box::pin(self.common.supervise.clone().wait(LockPart::Whole)));
        let mut signals = signals.take()?;
        let (since, carried, way) = match self.part {
            ProcessPart::First | ProcessPart::Supervisor { .. } => {
                self.common.serve.take(LockPart::First)?;
                (Instant::now(), CarriedState::default(), None)
            }
            ProcessPart::Standby => {
                let since = self.stand_by(&mut prepared, &mut signals).await?;
                let known = self.common.known.as_ref().map(unpack).transpose()?.unwrap_or_default();
                let mut carried = CarriedState { known, takes_over: true, ..CarriedState::default() };
                match self.common.latency.as_ref().map(|latency| from_memory(latency.as_fd())) {
                    Some(Ok(text)) => carried.read_saved(text),
                    Some(Err(error)) => tracing::warn!(%error, "the saved latency is ignored"),
                    None => {}
                }
                (since, carried, None)
            }
            ProcessPart::Newcomer { is_cold, .. } => match self.take_over(&prepared, is_cold).await {
                Ok((since, carried, way)) => (since, CarriedState { takes_over: true, ..carried }, Some(way)),
                Err(error) => {
                    self.send(&Upward::GaveUp(error.to_string()), None);
                    // Skip cleanup: the files belong to the server.
                    std::process::exit(1)
                }
            },
        };
        let mut serving = Serving::start(self, signals, prepared, carried, way).await?;
        serving.announce(since);
        serving.run().await
    }

    /// Follows the server's config and zones, until this process has the lock to serve. Returns the time of
    /// the lock.
    async fn stand_by(&mut self, prepared: &mut PreparedProcess, signals: &mut Signals) -> io::Result<Instant> {
        release_unused();
        let serve = self.common.serve.clone().wait(LockPart::Whole);
        tokio::pin!(serve);
        let mut loading = None;
        self.say(Role::Standby, None);
        loop {
            let is_newer = self.common.newer_than(self.state.edition).is_some();
            if loading.is_none() && (is_newer || self.is_zone_saved) {
                loading = Some(Box::pin(self.load_newer(prepared)?) as _);
            }
            tokio::select! {
                handled = self.next() => handled?,
                had = &mut serve => {
                    had?;
                    self.common.serve.release(LockPart::Second)?;
                    return Ok(Instant::now());
                }
                LoadedSetup { reader, newer, saved } = ended(&mut loading) => {
                    self.reader = reader;
                    prepared.saved = saved;
                    if let Some((edition, setup)) = newer {
                        self.take_edition(edition, setup, prepared);
                    }
                }
                asked = signals.next() => match asked {
                    // The supervisor handles these signals.
                    Ok(SignalRequest::Reload | SignalRequest::Upgrade) => {}
                    Ok(SignalRequest::End(_)) => std::process::exit(0),
                    Err(lost) => return Err(io::Error::other(lost.to_string())),
                },
            }
        }
    }

    fn load_newer(&mut self, prepared: &PreparedProcess) -> io::Result<impl Future<Output = LoadedSetup> + use<>> {
        self.is_zone_saved = false;
        let newer = self.common.newer_than(self.state.edition);
        let newer = newer.map(|(newer, text)| io::Result::Ok((newer.number, newer.config(text)?))).transpose()?;
        let mut reader = std::mem::take(&mut self.reader);
        let mut saved = prepared.saved.clone();
        let known = prepared.setup.config.clone();
        Ok(blocking(move || {
            // The server has already checked that the files of this config are within reach.
            let newer = newer.map(|(edition, text)| (edition, reader.read(Some(text), &Confinement::default())));
            let read = match &newer {
                Some((_, Ok(setup))) => saved.read_all(&setup.config),
                Some((_, Err(_))) | None => saved.read_all(&known),
            };
            tracing::debug!(zones = read, "standby: the saved zones are loaded");
            LoadedSetup { reader, newer, saved }
        }))
    }

    fn take_edition(&mut self, edition: u64, setup: Result<Setup, LoadError>, prepared: &mut PreparedProcess) {
        self.state.edition = edition;
        match setup {
            Ok(setup) => {
                prepared.setup = setup;
                prepared.edition = edition;
                self.say(Role::Standby, None);
            }
            Err(problem) => {
                tracing::warn!("standby keeps edition {}: {problem}", prepared.edition);
                self.say(Role::Standby, Some(problem.to_string()));
            }
        }
    }

    /// Takes over from the server. Returns also the time of the lock, and the channel to the server.
    async fn take_over(
        &mut self,
        prepared: &PreparedProcess,
        is_cold: bool,
    ) -> io::Result<(Instant, CarriedState, Arc<WatchedChannel>)> {
        let missing = || io::Error::other("the channel to the server is missing");
        let way = Arc::new(WatchedChannel::new(Channel::from(self.way.take().ok_or_else(missing)?))?);
        let carried = match self.is_same_protocol {
            true => self.attend(ask(&way, &prepared.setup.config, is_cold)).await??,
            false => CarriedState::default(),
        };
        let serve = self.common.serve.clone();
        let server = serve.holder(LockPart::First);
        self.attend(serve.clone().wait(LockPart::Second)).await??;
        // A standby gets both bytes at once and already serves.
        if serve.holder(LockPart::First) != server {
            return Err(io::Error::other("the server has ended"));
        }
        let _ = way.send(&TakeoverMessage::Now, &[]);
        self.attend(serve.clone().wait(LockPart::First)).await??;
        let since = Instant::now();
        serve.release(LockPart::Second)?;
        Ok((since, carried, way))
    }
}
