//! The admin server as a part of this one: it begins, moves to other addresses at a reload, and ends.

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::listeners::AdminListeners;
use crate::admin::{self, Condition, Ending, Request, Settings, Token};
use crate::config::Config;
use crate::net::tasks::{Endless, Lost, TaskKind, Tasks};

/// The admin server, if there is one.
pub(super) struct AdminTasks {
    /// Ends with this value.
    running: Endless,
    /// Tells it to end when it has answered.
    end: watch::Sender<Option<Ending>>,
    /// What a reload changes.
    settings: Rc<RefCell<Settings>>,
    /// What it asks.
    asks: mpsc::Sender<Request>,
    /// What health checks are told.
    condition: Arc<Condition>,
    /// How many connections there may be.
    connections: usize,
}

/// Duplicates of what it listens on.
pub(super) struct Doors {
    tcp: TcpListener,
    socket: Option<(UnixListener, PathBuf)>,
}

impl Doors {
    /// Duplicates what it is to listen on.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn new(listeners: &AdminListeners) -> io::Result<Self> {
        let socket = match &listeners.socket {
            Some(socket) => Some((socket.listener()?, socket.path().to_owned())),
            None => None,
        };
        Ok(Self { tcp: listeners.tcp.try_clone()?, socket })
    }
}

impl AdminTasks {
    /// Begins to serve, if there is something to serve at.
    pub(super) fn start(
        doors: Option<Doors>,
        connections: usize,
        settings: Settings,
        asks: mpsc::Sender<Request>,
        condition: Arc<Condition>,
    ) -> Self {
        let mut this = Self {
            running: Endless::new(TaskKind::Admin),
            end: watch::Sender::default(),
            settings: Rc::new(RefCell::new(settings)),
            asks,
            condition,
            connections,
        };
        this.serve(doors);
        this
    }

    fn serve(&mut self, doors: Option<Doors>) {
        let Some(Doors { tcp, socket }) = doors else { return };
        let condition = Arc::clone(&self.condition);
        let (settings, asks, end) = (Rc::clone(&self.settings), self.asks.clone(), self.end.subscribe());
        self.running.start(admin::serve(tcp, socket, self.connections, settings, asks, condition, end));
    }

    /// Takes other settings in place of those before.
    pub(super) fn set(&self, settings: Settings) {
        self.settings.replace(settings);
    }

    /// Serves elsewhere, or nowhere. Who is being answered still is, whoever has asked for this among them.
    pub(super) fn change_doors(&mut self, doors: Option<Doors>, tasks: &Tasks) {
        self.end(Ending::Closed, tasks);
        self.serve(doors);
    }

    /// Another process serves those who come from now on; who is being answered still is.
    pub(super) fn pass_on(&mut self, tasks: &Tasks) {
        self.end(Ending::PassedOn, tasks);
    }

    fn end(&mut self, ending: Ending, tasks: &Tasks) {
        let earlier = std::mem::replace(&mut self.running, Endless::new(TaskKind::Admin));
        std::mem::take(&mut self.end).send_replace(Some(ending));
        tasks.start_and_leave(TaskKind::Admin, async move {
            let _ = timeout(PATIENCE, earlier.finish()).await;
        });
    }

    /// Waits until it is lost.
    pub(super) async fn lost(&mut self) -> Lost {
        self.running.lost().await
    }

    /// Ends it at once.
    pub(super) async fn stop(self) {
        self.running.stop().await;
    }
}

/// What a config says of the admin server beside where it is, with the token that it names.
pub(super) fn admin_settings(config: &Config, token: Option<Token>) -> Settings {
    Settings { token, has_page: config.admin.as_ref().is_some_and(|admin| admin.page) }
}

/// How long responses may take to leave that an admin server owes which has moved: as long as a client has for each.
const PATIENCE: Duration = Duration::from_secs(10);
