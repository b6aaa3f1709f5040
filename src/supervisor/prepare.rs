//! The preparation of a process: it loads the config and its files, opens the listening sockets, and gives up
//! rights.
//!
//! Rights belong to a thread and are inherited by the threads that it starts. The loading thread ends before
//! the rights are given up, so no thread keeps them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::channel::{Channel, ChannelEvent};
use super::common::Common;
use super::locks;
use super::message::{Downward, Edition, GivenUp, Introduction, PROTOCOL, ProcessPart, State, Upward, from_memory};
use super::spawn::{Image, name_process};
use super::tree::ProcessOrder;
use crate::backoff::Backoff;
use crate::load::{ConfigReader, ConfigText, Confinement, LoadError, Setup};
use crate::metrics::Role;
use crate::net::from_clients::listening::{Endpoint, ListeningSocket};
use crate::server::{Listeners, SavedZones, StartError, Xdp, confine, harden, warn_of_root};

pub(super) struct MemberProcess {
    pub(super) common: Common,
    pub(super) part: ProcessPart,
    pub(super) channel: Channel,
    pub(super) state: State,
    pub(super) reader: ConfigReader,
    pub(super) coming: Vec<ListeningSocket>,
    pub(super) way: Option<OwnedFd>,
    /// True if the server has saved a zone that this process has not read.
    pub(super) is_zone_saved: bool,
    pub(super) is_same_protocol: bool,
}

pub(super) struct PreparedProcess {
    pub(super) setup: Setup,
    pub(super) saved: SavedZones,
    /// `None` in a standby, which binds nothing before it serves: queries in a socket without a reader would
    /// be lost.
    pub(super) listeners: Option<Listeners>,
    pub(super) xdp: Option<Xdp>,
    pub(super) confinement: Confinement,
    pub(super) edition: u64,
}

enum PrepareProblem {
    Load(String),
    Start(String),
}

impl MemberProcess {
    pub(super) fn introduce(&mut self) -> io::Result<()> {
        let (ours, theirs) = Channel::pair()?;
        self.channel = ours;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let introduction = Introduction { protocol: PROTOCOL, version, state: self.state.clone() };
        self.common.introductions[0].send(&introduction, &[theirs.as_fd()])
    }

    pub(super) fn say(&mut self, role: Role, problem: Option<String>) {
        name_process(role);
        self.state = State { role: Some(role), problem, ..self.state.clone() };
        self.send(&Upward::Says(self.state.clone()), None);
    }

    /// If the supervisor does not read, the channel turns out closed, and everything is sent again.
    pub(super) fn send(&self, message: &Upward, descriptor: Option<&OwnedFd>) {
        let descriptor = descriptor.map(AsFd::as_fd);
        let _ = self.channel.send(message, descriptor.as_slice());
    }

    /// Loads, opens sockets and gives up rights. A standby tries again after a failure.
    pub(super) fn prepare(&mut self) -> Result<PreparedProcess, ExitCode> {
        let mut delays = Backoff::new(MIN_DELAY);
        loop {
            self.say(Role::Starting, None);
            let (message, status) = match self.try_to_prepare() {
                Ok(prepared) => return Ok(prepared),
                Err(PrepareProblem::Load(message)) => (message, EXIT_LOAD),
                Err(PrepareProblem::Start(message)) => (message, EXIT_START),
            };
            match self.part {
                ProcessPart::First | ProcessPart::Supervisor { .. } => {
                    let prefix = if status == EXIT_START { "hedgerow: " } else { "" };
                    eprintln!("{prefix}{message}");
                    return Err(ExitCode::from(status));
                }
                ProcessPart::Newcomer { .. } => {
                    self.send(&Upward::GaveUp(message), None);
                    return Err(ExitCode::from(status));
                }
                ProcessPart::Standby => {}
            }
            let delay = delays.wait(MAX_DELAY);
            tracing::warn!("standby failed: {message}; trying again in {}", humantime::format_duration(delay));
            self.say(Role::Failed, Some(message));
            self.attend(Some(Instant::now() + delay), None);
        }
    }

    fn try_to_prepare(&mut self) -> Result<PreparedProcess, PrepareProblem> {
        let unable = |error: io::Error| PrepareProblem::Start(format!("cannot start: {error}"));
        // A newcomer and the first server read the config on the disk.
        let active = self.common.edition.as_ref().filter(|_| self.part == ProcessPart::Standby);
        let edition = active.map(|(edition, _)| edition.number);
        let text = active.map(|(edition, text)| text_of(edition, text)).transpose().map_err(unable)?;
        let (done, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| unable(error.into()))?;
        let mut reader = std::mem::take(&mut self.reader);
        let confinement = self.common.given_up.as_ref().and_then(|given_up| given_up.confinement.clone());
        let setup = std::thread::scope(|scope| {
            let loading = scope.spawn(|| {
                // Closed when the thread ends, even by a panic.
                let _writer = writer;
                let setup = reader.read(text, &confinement.unwrap_or_default())?;
                let mut saved = SavedZones::default();
                saved.read_all(&setup.config);
                Ok((setup, saved))
            });
            self.attend(None, Some(&done));
            loading.join()
        });
        self.reader = reader;
        let (mut setup, saved) = match setup {
            Ok(setup) => setup.map_err(|problems: LoadError| PrepareProblem::Load(problems.to_string()))?,
            Err(_) => return Err(PrepareProblem::Start("loading has panicked".to_owned())),
        };
        if matches!(self.part, ProcessPart::First) {
            setup.log_start();
            warn_of_root(&setup.config);
        }
        let failed = |error: StartError| PrepareProblem::Start(error.to_string());
        let inherited = || duplicates(&self.common.sockets).map_err(unable);
        let listeners = match self.part {
            ProcessPart::Standby | ProcessPart::Supervisor { .. } => None,
            ProcessPart::First => Some(Listeners::open(&setup.config, inherited()?)),
            // The newcomer may never serve, so it only inherits sockets.
            ProcessPart::Newcomer { .. } => Some(Listeners::inherit(&setup.config, inherited()?)),
        };
        let listeners = listeners.transpose().map_err(failed)?.map(|(listeners, _)| listeners);
        let mut xdp = Xdp::prepare(&setup.config);
        if let (ProcessPart::First, Some(xdp)) = (&self.part, &mut xdp) {
            xdp.require(&setup.config).map_err(|error| failed(error.into()))?;
        }
        let passed = self.common.sockets.iter().find_map(|socket| match socket.endpoint() {
            Endpoint::Unix(path) => Some(path.as_path()),
            Endpoint::Udp(_) | Endpoint::Tcp(_) => None,
        });
        let socket = listeners.as_ref().map_or(passed, Listeners::admin_socket);
        let has_xdp = setup.config.xdp.is_some();
        let (user, confinement) = match &self.common.given_up {
            Some(given_up) => (given_up.user.as_ref(), given_up.confinement.clone()),
            None => (None, None),
        };
        let confinement = match confinement {
            Some(confinement) => {
                // Loading needed these capabilities.
                match (harden(), user) {
                    (Ok(()), _) => {}
                    (Err(error), Some(user)) => {
                        let problem = format!("user: {} keeps capabilities: {error}", user.name);
                        return Err(PrepareProblem::Start(problem));
                    }
                    (Err(error), None) => {
                        tracing::warn!(%error, "the process keeps its capabilities, since they cannot be dropped")
                    }
                }
                confinement
            }
            None => {
                if let Some(files) = &mut setup.files {
                    files.programs = vec![self.common.origin.path.clone()];
                    files.programs.extend(std::env::current_exe());
                }
                confine(&setup, socket).map_err(failed)?
            }
        };
        // A process keeps its user, even if the config has changed since.
        let user = self.common.given_up.take().and_then(|given_up| given_up.user).or_else(|| setup.config.user.clone());
        let given_up = GivenUp { user, confinement: Some(confinement.clone()), has_xdp };
        if matches!(self.part, ProcessPart::First | ProcessPart::Newcomer { .. }) {
            self.send(&Upward::Confined(given_up.clone()), None);
        }
        self.common.given_up = Some(given_up);
        let following = self.common.edition.as_ref().map_or(1, |(edition, _)| edition.number);
        let edition = match self.part {
            ProcessPart::Newcomer { .. } => following + 1,
            ProcessPart::First | ProcessPart::Standby | ProcessPart::Supervisor { .. } => edition.unwrap_or(1),
        };
        self.state.edition = edition;
        Ok(PreparedProcess { setup, saved, listeners, xdp, confinement, edition })
    }

    fn attend(&mut self, until: Option<Instant>, done: Option<&OwnedFd>) {
        loop {
            while self.hear_all() {}
            let span = until.map_or(LOOK, |until| until.saturating_duration_since(Instant::now()).min(LOOK));
            let span = Timespec { tv_sec: span.as_secs() as i64, tv_nsec: i64::from(span.subsec_nanos()) };
            let is_done = {
                let mut polled = vec![PollFd::new(&self.channel, PollFlags::IN)];
                polled.extend(done.map(|done| PollFd::new(done, PollFlags::IN)));
                let _ = poll(&mut polled, Some(&span));
                polled.get(1).is_some_and(|done| !done.revents().is_empty())
            };
            if is_done || until.is_some_and(|until| Instant::now() >= until) {
                return;
            }
        }
    }

    fn hear_all(&mut self) -> bool {
        match self.channel.receive::<Downward>() {
            Ok(ChannelEvent::Message(message, descriptors)) => {
                self.hear(message, descriptors);
                true
            }
            Ok(ChannelEvent::Nothing) => false,
            Ok(ChannelEvent::Closed) | Err(_) => {
                self.succeed_if_free();
                // The next periodic check introduces the process again if this fails for lack of descriptors.
                let _ = self.introduce();
                false
            }
        }
    }

    pub(super) fn hear(&mut self, message: Downward, mut descriptors: Vec<OwnedFd>) {
        match message {
            Downward::Word(ProcessOrder::Ping) => self.send(&Upward::Pong, None),
            Downward::Word(ProcessOrder::End | ProcessOrder::Drain | ProcessOrder::HandOver) => std::process::exit(0),
            Downward::View(view) => self.common.view = view,
            Downward::Sockets(sockets) => {
                if sockets.add_to(&mut self.coming, descriptors) {
                    self.common.sockets = std::mem::take(&mut self.coming);
                }
            }
            Downward::Edition(edition) => {
                if let Some(text) = descriptors.pop() {
                    self.common.rules = edition.rules;
                    self.common.edition = Some((edition, text));
                }
            }
            Downward::Known => self.common.known = descriptors.pop(),
            Downward::ZoneSaved => self.is_zone_saved = true,
            Downward::Reload | Downward::Successor | Downward::Changed(_) | Downward::Conflict(_) => {}
        }
    }

    fn succeed_if_free(&self) {
        if matches!(self.common.supervise.try_take(locks::LockPart::Whole), Ok(true)) {
            self.succeed();
        }
    }

    /// Becomes the supervisor, or exits if that is not wanted. This process holds the supervisor's lock.
    pub(super) fn succeed(&self) -> ! {
        if !self.common.succession {
            tracing::warn!("the supervisor has ended and succession is off: ending");
            std::process::exit(1);
        }
        let error = match Image::running() {
            Ok(image) => self.common.become_supervisor(&image, true),
            Err(error) => error,
        };
        // Exiting passes the lock to the next process.
        tracing::error!(%error, "cannot become the supervisor: ending");
        std::process::exit(1);
    }
}

pub(super) fn text_of(edition: &Edition, text: &OwnedFd) -> io::Result<ConfigText> {
    Ok(ConfigText { file: edition.file.clone(), octets: from_memory(text.as_fd())?.into() })
}

pub(super) fn duplicates(sockets: &[ListeningSocket]) -> io::Result<Vec<ListeningSocket>> {
    let duplicate = |socket: &ListeningSocket| {
        let (name, endpoint) = (socket.name.clone(), socket.endpoint().clone());
        Ok(ListeningSocket::new(name, socket.is_kept, endpoint, socket.as_fd().try_clone_to_owned()?))
    };
    sockets.iter().map(duplicate).collect()
}

const MIN_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);

const LOOK: Duration = Duration::from_secs(1);

/// For a wrong config or zone file.
const EXIT_LOAD: u8 = 2;
const EXIT_START: u8 = 1;
