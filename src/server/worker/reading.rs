//! What a worker reads of one address, and how workers agree on what they read.

use std::future::pending;
use std::io;
use std::mem;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::engine::single_flight::WorkerId;
use crate::metrics::Counters;
use crate::net::busy_poll::BusyPoll;
use crate::net::quic_server::{self, Listening};
use crate::net::tasks::{Endless, Lost, TaskKind};
use crate::net::tcp::{self, Connections, Gate, Responder, Served, Service};
use crate::net::udp::Socket;
use crate::server::listeners::{Address, AddressSockets};

/// What a worker reads of one address of a section.
pub(super) struct Reading {
    /// Held as long as responses to its clients may be owed.
    pub(super) address: Arc<Address>,
    /// Its UDP sockets; responses leave by the first.
    pub(super) sockets: Vec<Rc<Socket>>,
    /// Tasks that read them.
    pub(super) readers: Endless,
    /// Tasks that accept and serve connections.
    pub(super) connections: Endless,
}

impl Reading {
    /// Lets this thread's runtime watch the sockets of an address. Nothing is read yet.
    ///
    /// # Errors
    /// If the runtime's own descriptors are exhausted.
    pub(super) fn new(sockets: AddressSockets) -> io::Result<(Self, Vec<TcpListener>)> {
        let AddressSockets { address, udp, tcp } = sockets;
        let proxies = Arc::clone(address.proxies());
        let udp = udp.into_iter().map(|socket| Socket::new(socket, Arc::clone(&proxies)).map(Rc::new));
        let tcp = tcp.into_iter().map(TcpListener::from_std);
        let (readers, connections) = (Endless::new(TaskKind::Listener), Endless::new(TaskKind::Connections));
        Ok((
            Self { address, sockets: udp.collect::<io::Result<_>>()?, readers, connections },
            tcp.collect::<io::Result<_>>()?,
        ))
    }

    /// Accepts connections and serves them: those that `admits` takes; `handle` gets their queries.
    pub(super) fn accept(
        &mut self,
        listener: TcpListener,
        table: &Arc<Connections>,
        served: watch::Receiver<Served>,
        (counters, gate): (&Arc<Counters>, &Rc<Gate>),
        admits: impl Fn(IpAddr) -> bool + 'static,
        handle: impl Fn(&[u8], &Responder) + 'static,
    ) {
        let tls = self.address.tls().map(|tls| (Arc::clone(tls), Rc::clone(gate)));
        let (address, proxies) = (self.address.listens_at(), Arc::clone(self.address.proxies()));
        let spoken = Arc::clone(self.address.spoken());
        let service = Service { address, counters: Arc::clone(counters), spoken, tls, proxies };
        let serving = tcp::serve(listener, service, Arc::clone(table), served, admits, handle);
        self.connections.start(async {
            serving.await;
            Ok(())
        });
    }

    /// Serves clients by QUIC, if that is spoken there, and says whether it is: those that `admits` takes; `handle` gets their queries.
    pub(super) fn serve_quic(
        &mut self,
        table: &Arc<Connections>,
        served: watch::Receiver<Served>,
        (worker, busy_poll): (WorkerId, BusyPoll),
        (counters, gate): (&Arc<Counters>, &Rc<Gate>),
        admits: impl Fn(IpAddr) -> bool + 'static,
        handle: impl Fn(&[u8], &Responder) + 'static,
    ) -> bool {
        let Some(listener) = self.address.quic() else { return false };
        let listening = Listening {
            sockets: self.sockets.clone(),
            address: self.address.listens_at(),
            listener: Arc::clone(listener),
            worker: worker.0,
            counters: Arc::clone(counters),
            gate: Rc::clone(gate),
            busy_poll,
        };
        // Connections go on when no more is read, as those by TCP do.
        let (reads, is_over) = oneshot::channel::<()>();
        self.readers.start(async move {
            let _reads = reads;
            pending().await
        });
        let serving = quic_server::serve(listening, Arc::clone(table), served, is_over, admits, handle);
        self.connections.start(async {
            serving.await;
            Ok(())
        });
        true
    }

    /// Takes the readers away: stopped, they leave what waits in the sockets there.
    pub(super) fn take_readers(&mut self) -> Endless {
        mem::replace(&mut self.readers, Endless::new(TaskKind::Listener))
    }

    /// Whether one of its tasks is lost.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        match self.readers.poll_lost(cx) {
            Poll::Ready(lost) => Poll::Ready(lost),
            Poll::Pending => self.connections.poll_lost(cx),
        }
    }
}

/// Where the workers wait for each other when addresses come and go: one reads a new address when all can answer its clients, and forgets
/// an old one when nobody reads it. For what one worker reads, another may answer (single-flight).
#[derive(Clone, Debug)]
pub(in crate::server) struct Checkpoint {
    all: Arc<watch::Sender<()>>,
    /// Nobody is past it as long as somebody has this.
    _mine: watch::Receiver<()>,
}

impl Checkpoint {
    /// Each clone is to be passed.
    pub(in crate::server) fn new() -> Self {
        let (all, mine) = watch::channel(());
        Self { all: Arc::new(all), _mine: mine }
    }

    /// Passes it; what is returned ends when all others have. One that hangs is not waited for long, and one that is gone has let
    /// go of its own.
    pub(super) fn pass(self) -> impl Future<Output = ()> + 'static {
        let all = self.all;
        async move {
            let _ = timeout(PATIENCE, all.closed()).await;
        }
    }
}

/// How long a worker is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
