//! A server within this process, whose owner is the test: what a supervisor does with one can be done
//! without.

use std::any::Any;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use hedgerow::control::{
    CarriedPools, CarriedState, Interfaces, Learnt, Listeners, Server as HedgerowServer, ServerEvent,
};
use hedgerow::load::{self, Confinement, Loader};
use hedgerow::worker::QueuedQueryFate;
use metrics::Snapshot;
use net::from_clients::listening::ListeningSocket;
use tempfile::TempDir;
use testkit::{Admin, Client, PATIENCE};
use tokio::runtime;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

/// Something to be done with a server, on its control thread.
type Errand = Box<dyn FnOnce(&mut HedgerowServer) -> Pin<Box<dyn Future<Output = Box<dyn Any + Send>>>> + Send>;

/// The reply channel of an errand.
type WayBack = std::sync::mpsc::Sender<Box<dyn Any + Send>>;

/// A server within this process.
pub(crate) struct Running {
    /// The channel to the control thread, each errand with its reply channel.
    errands: Option<UnboundedSender<(Errand, WayBack)>>,
    /// The changes reported to the owner.
    pub(crate) reported: Arc<Mutex<Vec<CarriedPools>>>,
    pub(crate) forwarder: SocketAddr,
    /// The address of the last authority.
    pub(crate) authority: Option<SocketAddr>,
    pub(crate) admin: Admin,
    thread: Option<JoinHandle<()>>,
    folder: TempDir,
}

impl Running {
    /// Starts a server of a config with `[admin]`, with what `carry` makes of what was read.
    pub(crate) fn start(config: &str, carry: impl FnOnce(&load::Setup) -> CarriedState + Send + 'static) -> Self {
        Self::on(config, Vec::new(), carry)
    }

    /// Starts a server on the listening sockets of another.
    pub(crate) fn beside(
        other: &Self,
        config: &str,
        carry: impl FnOnce(&load::Setup) -> CarriedState + Send + 'static,
    ) -> Self {
        let sockets = other.run(|server| std::future::ready(server.process.listeners().to_pass()));
        Self::on(config, sockets.expect("there are descriptors"), carry)
    }

    fn on(
        config: &str,
        sockets: Vec<ListeningSocket>,
        carry: impl FnOnce(&load::Setup) -> CarriedState + Send + 'static,
    ) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let file = folder.path().join("config.toml");
        let socket = folder.path().join("admin.sock");
        std::fs::write(&file, config.replace("SOCKET", &socket.display().to_string())).expect("our own folder");
        let (errands, mut received) = unbounded_channel::<(Errand, WayBack)>();
        let (bound, is_bound) = std::sync::mpsc::channel();
        let reported: Arc<Mutex<Vec<CarriedPools>>> = Arc::default();
        let known = Arc::clone(&reported);
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(LocalSet::new().run_until(async {
                let setup = read(&file);
                let carried = carry(&setup);
                let (listeners, _) = Listeners::open(&setup.config, sockets).expect("free ports");
                let confinement = Confinement::default();
                let read = Box::new(move |_: &Confinement| Ok(read(&file)));
                let interfaces = Interfaces::prepare(&setup.config, false).expect("none is required");
                let mut server = HedgerowServer::start(setup, listeners, interfaces, confinement, carried, read)
                    .expect("nothing is short");
                bound.send(server.process.bound()).expect("the test waits");
                loop {
                    tokio::select! {
                        event = server.supervise() => match event {
                            ServerEvent::Known(change) => known.lock().expect("nothing panics here").push(change),
                            event => panic!("{event:?}"),
                        },
                        errand = received.recv() => match errand {
                            Some((errand, way_back)) => drop(way_back.send(errand(&mut server).await)),
                            None => break,
                        },
                    }
                }
                let _ = server.drain(QueuedQueryFate::Taken).await;
            }));
        });
        let line = is_bound.recv_timeout(PATIENCE).expect("it starts");
        // LS, authorities, admin server.
        let addresses = line.split(' ').map(|pair| {
            let (_, address) = pair.split_once('=').expect("pairs of NAME=ADDRESS");
            address.parse().expect("an address")
        });
        let addresses: Vec<SocketAddr> = addresses.collect();
        let [forwarder, authorities @ .., admin] = &addresses[..] else { panic!("it listens: {line}") };
        let (forwarder, authority) = (*forwarder, authorities.last().copied());
        let admin = Admin::of(*admin, socket);
        Self { errands: Some(errands), reported, forwarder, authority, admin, thread: Some(thread), folder }
    }

    /// Does something on the control thread.
    pub(crate) fn run<T: Send + 'static, F: Future<Output = T> + 'static>(
        &self,
        errand: impl FnOnce(&mut HedgerowServer) -> F + Send + 'static,
    ) -> T {
        let errand: Errand = Box::new(move |server| {
            let done = errand(server);
            Box::pin(async move { Box::new(done.await) as Box<dyn Any + Send> })
        });
        let (way_back, answer) = std::sync::mpsc::channel();
        assert!(self.errands.as_ref().expect("it runs").send((errand, way_back)).is_ok(), "it runs");
        let answer = answer.recv_timeout(PATIENCE).expect("an answer in time");
        *answer.downcast().expect("what was sent")
    }

    pub(crate) fn known(&self) -> CarriedPools {
        self.run(|server| std::future::ready(server.known()))
    }

    pub(crate) fn counted(&self) -> Snapshot {
        self.run(|server| std::future::ready(server.snapshot()))
    }

    pub(crate) fn learnt(&self) -> Learnt {
        self.run(|server| server.pools.learnt())
    }

    /// The bytes of its cache.
    pub(crate) fn cache(&self) -> Vec<u8> {
        self.run(|server| {
            let save = server.pools.save_cache();
            async move {
                let mut octets = Vec::new();
                save.expect("a cache")(&mut octets).expect("there is memory");
                octets
            }
        })
    }

    pub(crate) fn client(&self) -> Client {
        Client::of(self.forwarder)
    }

    /// Moves all TCP connections to another server, each as it falls idle. Returns the counter of moved ones.
    pub(crate) fn move_connections_to(&self, other: &Self) -> Arc<AtomicUsize> {
        let mut moved = self.run(|server| std::future::ready(server.process.move_connections()));
        let errands = other.errands.as_ref().expect("it runs").downgrade();
        let count = Arc::<AtomicUsize>::default();
        let reported = Arc::clone(&count);
        // Ends with the server that gives them up.
        thread::spawn(move || {
            while let (Some(connection), Some(errands)) = (moved.blocking_recv(), errands.upgrade()) {
                let adopt: Errand = Box::new(move |server| {
                    server.process.adopt(connection);
                    Box::pin(async { Box::new(()) as Box<dyn Any + Send> })
                });
                reported.fetch_add(1, Ordering::Relaxed);
                let _ = errands.send((adopt, std::sync::mpsc::channel().0));
            }
        });
        count
    }

    /// All counters but those of probes and of the process, which go on by themselves.
    pub(crate) fn counters(&self) -> Vec<String> {
        let is_counter = |line: &&str| {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let is_by_itself = name.starts_with("process_") || name.contains("_cpu_") || line.contains("\"probe\"");
            ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end)) && !is_by_itself
        };
        self.admin.metrics().0.lines().filter(is_counter).map(str::to_owned).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.errands.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("a server panicked in {}", self.folder.path().display());
        }
    }
}

/// Reads a config and all that it names.
fn read(file: &Path) -> load::Setup {
    let (config, _) = load::load(Some(file)).expect("a config");
    load::load_files_to_serve(config, None, &mut Loader::default()).expect("nothing else is named")
}
