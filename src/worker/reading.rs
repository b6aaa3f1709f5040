//! The sockets of one address that a worker reads, and the synchronization of workers about them.

use std::future::pending;
use std::io;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use net::Bypass;
use net::from_clients::udp::ListenerSocket;
use net::tasks::{Endless, LostTask, TaskKind};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::control::FrameListener;
use crate::control::process::{AddressSockets, ServedAddress};

pub(super) struct AddressReading {
    pub(super) address: Arc<ServedAddress>,
    pub(super) sockets: Vec<Rc<ListenerSocket>>,
    /// Receives the datagrams that bypass the kernel.
    pub(super) frames: Option<Rc<FrameListener>>,
    pub(super) readers: Endless,
    pub(super) connections: Endless,
}

impl AddressReading {
    /// Registers the sockets of an address with this thread's runtime. Does not read yet.
    pub(super) fn new(sockets: AddressSockets, bypass: &Rc<Bypass>) -> io::Result<(Self, Vec<TcpListener>)> {
        let AddressSockets { address, udp, tcp } = sockets;
        let proxies = Arc::clone(address.proxies());
        let listener = |socket| ListenerSocket::new(socket, Arc::clone(&proxies), Rc::clone(bypass)).map(Rc::new);
        let udp = udp.into_iter().map(listener);
        let tcp = tcp.into_iter().map(TcpListener::from_std);
        let (readers, connections) = (Endless::new(TaskKind::Listener), Endless::new(TaskKind::Connections));
        Ok((
            Self { address, sockets: udp.collect::<io::Result<_>>()?, frames: None, readers, connections },
            tcp.collect::<io::Result<_>>()?,
        ))
    }

    /// Returns the end of the reading, for an owner of QUIC connections, which continue when reading stops,
    /// like TCP connections.
    pub(super) fn read_until_stopped(&mut self) -> oneshot::Receiver<()> {
        let (reads, is_over) = oneshot::channel::<()>();
        self.readers.start(async move {
            let _reads = reads;
            pending().await
        });
        is_over
    }

    /// Takes the readers away; dropped readers leave pending datagrams in the sockets.
    pub(super) fn take_readers(&mut self) -> Endless {
        mem::replace(&mut self.readers, Endless::new(TaskKind::Listener))
    }

    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<LostTask> {
        match self.readers.poll_lost(cx) {
            Poll::Ready(lost) => Poll::Ready(lost),
            Poll::Pending => self.connections.poll_lost(cx),
        }
    }
}

/// The point where workers wait for each other when addresses change. A worker reads a new address when all
/// can answer its clients, and forgets an old one when no worker reads it, because one worker may answer
/// another's query (single-flight).
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    all: Arc<watch::Sender<()>>,
    /// The checkpoint opens when all receivers are dropped.
    _mine: watch::Receiver<()>,
}

impl Checkpoint {
    /// Builds a checkpoint; each clone must pass.
    pub(crate) fn new() -> Self {
        let (all, mine) = watch::channel(());
        Self { all: Arc::new(all), _mine: mine }
    }

    /// Passes the checkpoint. The future completes when all others have passed or died, or after a short
    /// timeout.
    pub(super) fn pass(self) -> impl Future<Output = ()> + 'static {
        let all = self.all;
        async move {
            let _ = timeout(PATIENCE, all.closed()).await;
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(1);
