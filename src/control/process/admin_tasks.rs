//! The tasks of the admin server: it starts, moves to other addresses at a reload, and ends.

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use config::Config;
use net::tasks::{Endless, TaskKind};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::listeners::AdminListeners;
use crate::admin::{self, AdminEnding, AdminRequest, Settings, Token};
use crate::control::links::ServerLinks;

pub(in crate::control) struct AdminTasks {
    pub(in crate::control) running: Endless,
    end: watch::Sender<Option<AdminEnding>>,
    ended: watch::Sender<Option<AdminEnding>>,
    pub(super) settings: Rc<RefCell<Settings>>,
    asks: mpsc::Sender<AdminRequest>,
    connections: usize,
    links: ServerLinks,
}

pub(in crate::control) struct Doors {
    tcp: TcpListener,
    socket: Option<(UnixListener, PathBuf)>,
}

impl Doors {
    pub(in crate::control) fn new(listeners: &AdminListeners) -> io::Result<Self> {
        let socket = match &listeners.socket {
            Some(socket) => Some((socket.listener()?, socket.path().to_owned())),
            None => None,
        };
        Ok(Self { tcp: listeners.tcp.try_clone()?, socket })
    }
}

impl AdminTasks {
    pub(in crate::control) fn start(
        doors: Option<Doors>,
        connections: usize,
        settings: Settings,
        asks: mpsc::Sender<AdminRequest>,
        links: &ServerLinks,
    ) -> Self {
        let mut this = Self {
            running: Endless::new(TaskKind::Admin),
            end: watch::Sender::default(),
            ended: watch::Sender::default(),
            settings: Rc::new(RefCell::new(settings)),
            asks,
            connections,
            links: links.clone(),
        };
        this.serve(doors);
        this
    }

    fn serve(&mut self, doors: Option<Doors>) {
        let Some(Doors { tcp, socket }) = doors else { return };
        let condition = Arc::clone(&self.links.condition);
        let (settings, asks, end) = (Rc::clone(&self.settings), self.asks.clone(), self.end.subscribe());
        self.running.start(admin::serve(tcp, socket, self.connections, settings, asks, condition, end));
    }

    /// Serves on other listeners or none. Pending requests still get responses.
    pub(in crate::control) fn change_doors(&mut self, doors: Option<Doors>) {
        self.end(AdminEnding::Closed);
        self.serve(doors);
    }

    /// Ends the server, which still answers pending requests.
    pub(in crate::control) fn end(&mut self, ending: AdminEnding) {
        let earlier = std::mem::replace(&mut self.running, Endless::new(TaskKind::Admin));
        self.ended = std::mem::take(&mut self.end);
        self.ended.send_replace(Some(ending));
        self.links.tasks.start_and_leave(TaskKind::Admin, async move {
            let _ = timeout(PATIENCE, earlier.finish()).await;
        });
    }

    /// Stops the server. Clients of one that has ended get their responses first, such as the operator whose
    /// command has started the next process.
    pub(in crate::control) async fn stop(self) {
        let _ = timeout(LAST_RESPONSES, self.ended.closed()).await;
        self.running.stop().await;
    }
}

pub(in crate::control) fn admin_settings(config: &Config, token: Option<Token>) -> Settings {
    Settings { token, has_page: config.admin.as_ref().is_some_and(|admin| admin.page) }
}

/// The time for pending responses of a moved admin server: the same that a client has for each response.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time for pending responses at the end of the process: a client may have sent no request yet.
const LAST_RESPONSES: Duration = Duration::from_secs(1);
