//! What a process does before it can stand by: it loads the config and all that it names, opens what is listened on, and gives up
//! what it does not need.
//!
//! No other thread of it runs meanwhile but the one that loads, which has ended before rights are given up: they are given up
//! by the thread that does so, and by those that it starts later.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::channel::{Channel, Received};
use super::common::Common;
use super::locks;
use super::message::{Downward, Edition, GivenUp, Introduction, PROTOCOL, Part, State, Upward, from_memory};
use super::spawn::{Image, name_process};
use super::tree::Word;
use crate::load::{ConfigText, Confinement, LoadError, Reader, Setup};
use crate::metrics::Role;
use crate::net::listening::{Endpoint, ListeningSocket};
use crate::server::{Listeners, SavedZones, StartError, Xdp, confine, harden};

/// A process as far as it is before it serves.
pub(super) struct Member {
    pub(super) common: Common,
    pub(super) part: Part,
    pub(super) channel: Channel,
    pub(super) state: State,
    pub(super) reader: Reader,
    /// Sockets that are being told of.
    pub(super) coming: Vec<ListeningSocket>,
    /// A newcomer's way to the server.
    pub(super) way: Option<OwnedFd>,
    /// Whether the server has saved a zone that this one has not read.
    pub(super) is_zone_saved: bool,
    /// Whether the server speaks as this one does.
    pub(super) is_same_protocol: bool,
}

/// All that it takes to serve.
pub(super) struct Prepared {
    pub(super) setup: Setup,
    /// What the server has saved of zones of other servers.
    pub(super) saved: SavedZones,
    /// Those of a process that binds what is new. One that stands by takes them when it serves: until then it binds nothing,
    /// for what waits in a socket that nobody reads is lost with it.
    pub(super) listeners: Option<Listeners>,
    /// What it takes rights to make of the interfaces with AF_XDP.
    pub(super) xdp: Option<Xdp>,
    pub(super) confinement: Confinement,
    /// The edition of the config that this is.
    pub(super) edition: u64,
}

/// Why there is nothing to serve.
enum Problem {
    /// Exit status 2.
    Load(String),
    /// Exit status 1.
    Start(String),
}

impl Member {
    /// Introduces itself to whoever supervises, or will.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn introduce(&mut self) -> io::Result<()> {
        let (ours, theirs) = Channel::pair()?;
        self.channel = ours;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let introduction = Introduction { protocol: PROTOCOL, version, state: self.state.clone() };
        self.common.introductions[0].send(&introduction, &[theirs.as_fd()])
    }

    /// Tells what it does now.
    pub(super) fn say(&mut self, role: Role, problem: Option<String>) {
        name_process(role);
        self.state = State { role: Some(role), problem, ..self.state.clone() };
        self.tell(&Upward::Says(self.state.clone()), None);
    }

    /// Tells the supervisor something. If that does not listen, the channel is found closed, and all is told anew.
    pub(super) fn tell(&self, message: &Upward, descriptor: Option<&OwnedFd>) {
        let descriptor = descriptor.map(AsFd::as_fd);
        let _ = self.channel.send(message, descriptor.as_slice());
    }

    /// Loads, opens and gives up, and tries again if that fails and this is to stand by. Ends the process if it is to end.
    ///
    /// # Errors
    /// The exit status of a process that is not to try again, which has told why.
    pub(super) fn prepare(&mut self) -> Result<Prepared, ExitCode> {
        let mut delay = MIN_DELAY;
        loop {
            self.say(Role::Starting, None);
            let (message, status) = match self.try_to_prepare() {
                Ok(prepared) => return Ok(prepared),
                Err(Problem::Load(message)) => (message, EXIT_LOAD),
                Err(Problem::Start(message)) => (message, EXIT_START),
            };
            match self.part {
                Part::First | Part::Supervisor { .. } => {
                    let prefix = if status == EXIT_START { "hedgerow: " } else { "" };
                    eprintln!("{prefix}{message}");
                    return Err(ExitCode::from(status));
                }
                Part::Newcomer { .. } => {
                    self.tell(&Upward::GaveUp(message), None);
                    return Err(ExitCode::from(status));
                }
                Part::Standby => {}
            }
            tracing::warn!("standby failed: {message}; again in {}", humantime::format_duration(delay));
            self.say(Role::Failed, Some(message));
            self.attend(Some(Instant::now() + delay), None);
            delay = (delay * 2).min(MAX_DELAY);
        }
    }

    fn try_to_prepare(&mut self) -> Result<Prepared, Problem> {
        let unable = |error: io::Error| Problem::Start(format!("cannot start: {error}"));
        // A newcomer and the first read what is on the disk.
        let told = self.common.edition.as_ref().filter(|_| self.part == Part::Standby);
        let edition = told.map(|(edition, _)| edition.number);
        let text = told.map(|(edition, text)| text_of(edition, text)).transpose().map_err(unable)?;
        let (done, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| unable(error.into()))?;
        let mut reader = std::mem::take(&mut self.reader);
        let confinement = self.common.given_up.as_ref().and_then(|given_up| given_up.confinement.clone());
        let setup = std::thread::scope(|scope| {
            let loading = scope.spawn(|| {
                // Closed at its end, however it ends.
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
            Ok(setup) => setup.map_err(|problems: LoadError| Problem::Load(problems.to_string()))?,
            Err(_) => return Err(Problem::Start("loading has panicked".to_owned())),
        };
        let failed = |error: StartError| Problem::Start(error.to_string());
        let inherited = || duplicates(&self.common.sockets).map_err(unable);
        let listeners = match self.part {
            Part::Standby | Part::Supervisor { .. } => None,
            Part::First => Some(Listeners::open(&setup.config, inherited()?)),
            // Whether it ever serves is to be seen.
            Part::Newcomer { .. } => Some(Listeners::inherit(&setup.config, inherited()?)),
        };
        let listeners = listeners.transpose().map_err(failed)?.map(|(listeners, _)| listeners);
        let mut xdp = Xdp::prepare(&setup.config);
        if let (Part::First, Some(xdp)) = (&self.part, &mut xdp) {
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
                // The capabilities that loading takes.
                match (harden(), user) {
                    (Ok(()), _) => {}
                    (Err(error), Some(user)) => {
                        let problem = format!("user: {} keeps capabilities: {error}", user.name);
                        return Err(Problem::Start(problem));
                    }
                    (Err(error), None) => tracing::warn!(%error, "capabilities cannot be given up"),
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
        // A process stays the user that it has become, whatever the config says by now.
        let user = self.common.given_up.take().and_then(|given_up| given_up.user).or_else(|| setup.config.user.clone());
        let given_up = GivenUp { user, confinement: Some(confinement.clone()), has_xdp };
        if matches!(self.part, Part::First | Part::Newcomer { .. }) {
            self.tell(&Upward::Confined(given_up.clone()), None);
        }
        self.common.given_up = Some(given_up);
        let following = self.common.edition.as_ref().map_or(1, |(edition, _)| edition.number);
        let edition = match self.part {
            Part::Newcomer { .. } => following + 1,
            Part::First | Part::Standby | Part::Supervisor { .. } => edition.unwrap_or(1),
        };
        self.state.edition = edition;
        Ok(Prepared { setup, saved, listeners, xdp, confinement, edition })
    }

    /// Attends to the supervisor until a moment, or until a descriptor is readable.
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

    /// Hears one message, if there is one.
    fn hear_all(&mut self) -> bool {
        match self.channel.receive::<Downward>() {
            Ok(Received::Message(message, descriptors)) => {
                self.hear(message, descriptors);
                true
            }
            Ok(Received::Nothing) => false,
            Ok(Received::Closed) | Err(_) => {
                self.succeed_if_free();
                // Told again when the time has come to look: who has no descriptors left cannot be in a hurry.
                let _ = self.introduce();
                false
            }
        }
    }

    /// Takes what the supervisor tells a process that does not serve.
    pub(super) fn hear(&mut self, message: Downward, mut descriptors: Vec<OwnedFd>) {
        match message {
            Downward::Word(Word::Ping) => self.tell(&Upward::Pong, None),
            Downward::Word(Word::End | Word::Drain | Word::HandOver) => std::process::exit(0),
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
            // For a server.
            Downward::Reload | Downward::Successor | Downward::Changed(_) | Downward::Conflict(_) => {}
        }
    }

    /// Becomes the supervisor if there is none.
    fn succeed_if_free(&self) {
        if matches!(self.common.supervise.try_take(locks::Part::Whole), Ok(true)) {
            self.succeed();
        }
    }

    /// The lock of the supervisor is ours: becomes it, or ends if nobody is to.
    pub(super) fn succeed(&self) -> ! {
        if !self.common.succession {
            tracing::warn!("the supervisor has ended, and nobody is to succeed it: ending");
            std::process::exit(1);
        }
        let error = match Image::running() {
            Ok(image) => self.common.become_supervisor(&image, true),
            Err(error) => error,
        };
        // The lock goes to the next one.
        tracing::error!(%error, "cannot become the supervisor: ending");
        std::process::exit(1);
    }
}

/// The config of an edition.
///
/// # Errors
/// If it cannot be read.
pub(super) fn text_of(edition: &Edition, text: &OwnedFd) -> io::Result<ConfigText> {
    Ok(ConfigText { file: edition.file.clone(), octets: from_memory(text.as_fd())?.into() })
}

/// Duplicates of sockets.
///
/// # Errors
/// If there are no descriptors left.
pub(super) fn duplicates(sockets: &[ListeningSocket]) -> io::Result<Vec<ListeningSocket>> {
    let duplicate = |socket: &ListeningSocket| {
        let (name, endpoint) = (socket.name.clone(), socket.endpoint().clone());
        Ok(ListeningSocket::new(name, socket.is_kept, endpoint, socket.as_fd().try_clone_to_owned()?))
    };
    sockets.iter().map(duplicate).collect()
}

/// How long a process waits until it loads anew what it could not load, the first time and at most.
const MIN_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);

/// How often it looks whether somebody supervises, if nothing else happens.
const LOOK: Duration = Duration::from_secs(1);

/// Exit status of a config or zone file that is wrong, and of anything else.
const EXIT_LOAD: u8 = 2;
const EXIT_START: u8 = 1;
