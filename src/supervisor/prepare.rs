//! The preparation of a process: it loads the config and its files, opens the listening sockets, and gives up
//! rights.
//!
//! Rights belong to a thread and are inherited by the threads that it starts. The loading thread ends before
//! the rights are given up, so no thread keeps them.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use hedge::backoff::Backoff;
use metrics::Role;
use net::from_clients::listening::Endpoint;
use tokio::sync::oneshot;
use tokio::time::sleep_until;

use super::message::{GivenUp, ProcessPart, Upward};
use super::process::{MemberProcess, duplicates};
use crate::control::{Interfaces, Listeners, SavedZones, StartError, confine, harden, warn_of_root};
use crate::load::{ConfigText, Confinement, LoadError, Setup};

pub(super) struct PreparedProcess {
    pub(super) setup: Setup,
    pub(super) saved: SavedZones,
    /// `None` in a standby, which binds nothing before it serves: queries in a socket without a reader would
    /// be lost.
    pub(super) listeners: Option<Listeners>,
    pub(super) interfaces: Interfaces,
    pub(super) confinement: Confinement,
    pub(super) edition: u64,
}

#[derive(Debug, thiserror::Error)]
enum PrepareProblem {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot start: {0}")]
    Resources(#[from] io::Error),
    #[error("loading has panicked")]
    Panic,
    #[error("user: {0} keeps capabilities: {1}")]
    Capabilities(String, io::Error),
}

impl MemberProcess {
    /// Loads, opens sockets and gives up rights. A standby tries again after a failure; another process ends
    /// with the status.
    pub(super) async fn prepare(&mut self) -> io::Result<Result<PreparedProcess, ExitCode>> {
        let mut delays = Backoff::new(MIN_DELAY);
        loop {
            self.say(Role::Starting, None);
            let (message, status, prefix) = match self.try_to_prepare().await {
                Ok(prepared) => return Ok(Ok(prepared)),
                Err(PrepareProblem::Load(problem)) => (problem.to_string(), EXIT_LOAD, ""),
                Err(problem) => (problem.to_string(), EXIT_START, "hedgerow: "),
            };
            match self.part {
                ProcessPart::First | ProcessPart::Supervisor { .. } => {
                    eprintln!("{prefix}{message}");
                    return Ok(Err(ExitCode::from(status)));
                }
                ProcessPart::Newcomer { .. } => {
                    self.send(&Upward::GaveUp(message), None);
                    return Ok(Err(ExitCode::from(status)));
                }
                ProcessPart::Standby => {}
            }
            let delay = delays.wait(MAX_DELAY);
            tracing::warn!("standby failed: {message}; trying again in {}", humantime::format_duration(delay));
            self.say(Role::Failed, Some(message));
            self.attend(sleep_until((Instant::now() + delay).into())).await?;
        }
    }

    async fn try_to_prepare(&mut self) -> Result<PreparedProcess, PrepareProblem> {
        // A newcomer and the first server read the config on the disk.
        let active = self.common.edition.as_ref().filter(|_| self.part == ProcessPart::Standby);
        let edition = active.map(|(edition, _)| edition.number);
        let text = active.map(|(edition, text)| edition.config(text)).transpose()?;
        let (mut setup, saved) = self.load(text).await?;
        if self.part == ProcessPart::First {
            setup.log_start();
            warn_of_root(&setup.config);
        }
        let listeners = match self.part {
            ProcessPart::Standby | ProcessPart::Supervisor { .. } => None,
            ProcessPart::First => Some(Listeners::open(&setup.config, duplicates(&self.common.sockets)?)?.0),
            // The newcomer may never serve, so it only inherits sockets.
            ProcessPart::Newcomer { .. } => {
                Some(Listeners::inherit(&setup.config, duplicates(&self.common.sockets)?)?.0)
            }
        };
        let is_first = matches!(self.part, ProcessPart::First);
        let interfaces = Interfaces::prepare(&setup.config, is_first).map_err(StartError::from)?;
        let confinement = self.give_up_rights(&mut setup, listeners.as_ref())?;
        let following = self.common.edition.as_ref().map_or(1, |(edition, _)| edition.number);
        let edition = match self.part {
            ProcessPart::Newcomer { .. } => following + 1,
            ProcessPart::First | ProcessPart::Standby | ProcessPart::Supervisor { .. } => edition.unwrap_or(1),
        };
        self.state.edition = edition;
        Ok(PreparedProcess { setup, saved, listeners, interfaces, confinement, edition })
    }

    /// Loads the active config, or else the one on the disk, with all its files.
    async fn load(&mut self, text: Option<ConfigText>) -> Result<(Setup, SavedZones), PrepareProblem> {
        let mut reader = std::mem::take(&mut self.reader);
        let given_up = self.common.facts.given_up.as_ref();
        let confinement = given_up.and_then(|given_up| given_up.confinement.clone()).unwrap_or_default();
        let (sender, loaded) = oneshot::channel();
        let thread = thread::Builder::new().spawn(move || {
            let loaded = catch_unwind(AssertUnwindSafe(|| {
                let setup = reader.read(text, &confinement)?;
                let mut saved = SavedZones::default();
                saved.read_all(&setup.config);
                Ok::<_, LoadError>((setup, saved))
            }));
            let _ = sender.send((reader, loaded));
        })?;
        let loaded = self.attend(loaded).await?;
        let _ = thread.join();
        let (reader, loaded) = loaded.map_err(|_| PrepareProblem::Panic)?;
        self.reader = reader;
        Ok(loaded.map_err(|_| PrepareProblem::Panic)??)
    }

    /// Gives up all rights that serving does not need, and reports that to the supervisor.
    fn give_up_rights(
        &mut self,
        setup: &mut Setup,
        listeners: Option<&Listeners>,
    ) -> Result<Confinement, PrepareProblem> {
        let given_up = self.common.facts.given_up.clone().unwrap_or_default();
        let confinement = match given_up.confinement {
            Some(confinement) => {
                // Loading needed these capabilities.
                match (harden(), &given_up.user) {
                    (Ok(()), _) => {}
                    (Err(error), Some(user)) => return Err(PrepareProblem::Capabilities(user.name.clone(), error)),
                    (Err(error), None) => {
                        tracing::warn!(%error, "the process keeps its capabilities, since they cannot be dropped");
                    }
                }
                confinement
            }
            None => {
                if let Some(files) = &mut setup.files {
                    files.programs = vec![self.common.facts.origin.path.clone()];
                    files.programs.extend(std::env::current_exe());
                }
                let socket = listeners.map_or_else(|| self.passed_admin_socket(), Listeners::admin_socket);
                confine(setup, socket)?
            }
        };
        // A process keeps its user, even if the config has changed since.
        let user = given_up.user.or_else(|| setup.config.process.user.clone());
        let has_interfaces = setup.config.has_interfaces();
        let given_up = GivenUp { user, confinement: Some(confinement.clone()), has_interfaces };
        if matches!(self.part, ProcessPart::First | ProcessPart::Newcomer { .. }) {
            self.send(&Upward::Confined(given_up.clone()), None);
        }
        self.common.facts.given_up = Some(given_up);
        Ok(confinement)
    }

    fn passed_admin_socket(&self) -> Option<&Path> {
        self.common.sockets.iter().find_map(|socket| match socket.endpoint() {
            Endpoint::Unix(path) => Some(path.as_path()),
            Endpoint::Udp(_) | Endpoint::Tcp(_) => None,
        })
    }
}

const MIN_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);

/// For a wrong config or zone file.
const EXIT_LOAD: u8 = 2;
const EXIT_START: u8 = 1;
