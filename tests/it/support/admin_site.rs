//! An admin server over a scripted control thread, and HTTP to it byte by byte, since what matters is also
//! what a well-behaved client never sends.

// Each file below `tests/` is a crate of its own and uses another part of this module, so what one of
// them leaves aside is not dead; nor can anything here be reached from outside of its crate.
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use config::AdminSocket;
use dns::Transport;
use engine::slow::SlowRaces;
use hedge::regret::{Regret, ReissueRule};
use hedgerow::admin::status::{Status, ZonesReport};
use hedgerow::admin::{
    self, AdminRequest, AdminUnixSocket, CacheAccess, CertificateSnapshot, ChangeRefusal, HealthCondition,
    ProcessChange, ServerChange, ServerView, Settings, SocketOwner, Token,
};
use hedgerow::control::observe::sight::Sight;
use hedgerow::control::observe::sight::divergence::Divergences;
use hedgerow::control::observe::sight::live::{HistoryFigures, Second, Span};
use hedgerow::control::observe::sight::names::TopNames;
use hedgerow::control::observe::sight::serials::Serials;
use metrics::{
    Aggregate, BackendCounts, BackendSnapshot, BackendState, CacheSnapshot, Gauge, Histogram, HistogramSnapshot,
    MemberOrigin, MembershipSnapshot, PendingCounts, PoolCounts, PoolSnapshot, ProcessSnapshot, ProcessesSnapshot,
    ResponseSource, Role, RunSnapshot, ServerCounts, Snapshot, SupervisorSnapshot,
};
use tempfile::TempDir;
use tokio::runtime;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::{oneshot, watch};
use tokio::task::LocalSet;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(15);

/// The token of the tests.
pub(crate) const TOKEN: &str = "0123456789abcdef";

/// A running admin server. Dropping it ends it.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    /// The socket that takes changes without a token.
    pub(crate) socket: PathBuf,
    _folder: TempDir,
    pub(crate) condition: Arc<HealthCondition>,
    changes: Arc<Mutex<Vec<ServerChange>>>,
    /// Dropped, it ends the thread.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Site {
    /// On loopback, with a token.
    pub(crate) fn start() -> Self {
        Self::listen("127.0.0.1:0", true)
    }

    /// At any address, with a token or without.
    pub(crate) fn listen(address: &str, has_token: bool) -> Self {
        Self::serve(address, has_token, None)
    }

    /// On loopback, with a token and a cache.
    pub(crate) fn with_cache(cache: CacheAccess) -> Self {
        Self::serve("127.0.0.1:0", true, Some(cache))
    }

    /// Runs an admin server.
    fn serve(address: &str, has_token: bool, cache: Option<CacheAccess>) -> Self {
        let listener = TcpListener::bind(address).expect("an address of this host");
        let address = listener.local_addr().expect("it is bound");
        let token = has_token.then(token);
        let folder = TempDir::new().expect("a folder for the test");
        let path = folder.path().join("admin.sock");
        let place = AdminSocket::At(path.clone());
        let socket =
            AdminUnixSocket::open(&place, address, SocketOwner::current(), &mut |_| None).expect("a free path");
        let condition = Arc::new(HealthCondition::default());
        condition.set_ready(true);
        let changes = Arc::new(Mutex::default());
        let (end, ended) = oneshot::channel();
        let (requests, received) = channel(16);
        let (reported, control) = (Arc::clone(&condition), control(received, Arc::clone(&changes), cache));
        let thread = thread::spawn(move || {
            // The socket file disappears with the listener.
            let listener_of =
                |socket: &AdminUnixSocket| (socket.listener().expect("a descriptor"), socket.path().to_owned());
            let door = socket.as_ref().map(listener_of);
            let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(LocalSet::new().run_until(async {
                let settings = Rc::new(RefCell::new(Settings { token, has_page: true }));
                let (_open, end) = watch::channel(None);
                tokio::select! {
                    result = admin::serve(listener, door, 96, settings, requests, reported, end) => {
                        result.expect("a listener that can be watched");
                    }
                    () = control => {}
                    _ = ended => {}
                }
            }));
        });
        Self { address, socket: path, _folder: folder, condition, changes, end: Some(end), thread: Some(thread) }
    }

    /// Returns the changes requested so far.
    pub(crate) fn changes(&self) -> Vec<ServerChange> {
        self.changes.lock().expect("nothing panics here").clone()
    }

    /// Asks for something as a script on this host does, a change or a name over the socket: `GET /metrics`.
    pub(crate) fn ask(&self, what: &str) -> Answer {
        if what.starts_with("GET ") && !what.contains("/cache/names/") {
            self.ask_with(what, &[HOST, JSON], "")
        } else {
            self.change(what, "")
        }
    }

    /// Asks for a change over the socket.
    pub(crate) fn change(&self, what: &str, body: &str) -> Answer {
        let stream = UnixStream::connect(&self.socket).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        exchange(stream, what, &[HOST], body)
    }

    /// Asks as a script does; gives the JSON of an answer that is no error.
    pub(crate) fn ask_json(&self, what: &str) -> serde_json::Value {
        let answer = self.ask(what);
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("no JSON: {answer:?}"))
    }

    /// Asks by TCP with these headers and nothing else.
    pub(crate) fn ask_with(&self, what: &str, headers: &[&str], body: &str) -> Answer {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        exchange(stream, what, headers, body)
    }
}

/// One request with its answer.
fn exchange(mut stream: impl Read + Write, what: &str, headers: &[&str], body: &str) -> Answer {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    let text = format!("{what} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    stream.write_all(text.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers in time, and in UTF-8");
    Answer::read(&answer)
}

/// The header of a client on this host.
pub(crate) const HOST: &str = "Host: localhost:5380";
/// The header of a client that is no web page.
pub(crate) const JSON: &str = "Content-Type: application/json";

impl Drop for Site {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The lines above the body.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Self { status: status.expect("a status line"), head: head.to_lowercase(), body: body.to_owned() }
    }

    /// The message of a JSON body: what was done, or what is wrong.
    pub(crate) fn message(&self) -> String {
        let json: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"));
        let key = if self.status == 200 { "message" } else { "error" };
        json[key].as_str().unwrap_or_else(|| panic!("no {key}: {self:?}")).to_owned()
    }
}

/// The token of the tests, as a file holds it.
fn token() -> Token {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = folder.path().join("admin.token");
    write(&file, TOKEN);
    Token::read(&file).expect("a token")
}

pub(crate) fn write(file: &Path, content: &str) {
    std::fs::write(file, content).expect("a file in our own temporary folder");
}

/// The control thread's part: knows the pool "ts" with the backends "ts1" and "busy", and does nothing but
/// say so.
async fn control(
    mut received: Receiver<AdminRequest>,
    changes: Arc<Mutex<Vec<ServerChange>>>,
    cache: Option<CacheAccess>,
) {
    let (start, began) = (Instant::now(), Duration::from_secs(1_767_225_600));
    let mut sight = Sight::new(start, began, &snapshot());
    let mut listeners = Vec::new();
    while let Some(request) = received.recv().await {
        match request {
            AdminRequest::Read(read) => read(&Scripted { sight: &sight, cache: cache.as_ref() }),
            AdminRequest::Seconds(listener) => {
                // A second passes whenever a client begins to listen.
                let passed = Duration::from_secs(listeners.len() as u64 + 1);
                sight.take(start + passed, began + passed, &snapshot());
                drop(listener.missed.send(sight.missed(listener.last.unwrap_or_default())));
                listeners.push(listener.seconds);
            }
            AdminRequest::Explain(_, way_back) => {
                drop(way_back.send(Err(ChangeRefusal::NotFound("there is no forwarder".to_owned()))));
            }
            AdminRequest::Record(.., way_back) => {
                drop(way_back.send(Err(ChangeRefusal::NotFound("there is no forwarder".to_owned()))));
            }
            AdminRequest::Snapshot(way_back) => {
                let cache = cache.as_ref().map(|access| CacheSnapshot { size: 4 << 20, stats: access.cache.stats() });
                drop(way_back.send(Snapshot { cache, ..snapshot() }));
            }
            AdminRequest::Change(change, way_back) => {
                let answer = carry_out(&change);
                changes.lock().expect("nothing panics here").push(change);
                drop(way_back.send(answer));
            }
        }
    }
}

/// The state that the scripted server shows.
struct Scripted<'a> {
    sight: &'a Sight,
    cache: Option<&'a CacheAccess>,
}

impl ServerView for Scripted<'_> {
    fn status(&self, snapshot: &Snapshot) -> Status {
        Status::of(snapshot, Some(self.sight), SystemTime::now())
    }

    fn second(&self) -> Option<Second> {
        Some(self.sight.latest().clone())
    }

    fn history(&self, span: Span) -> Option<HistoryFigures> {
        Some(self.sight.history().show(span, &snapshot()))
    }

    fn cache(&self) -> Option<CacheAccess> {
        self.cache.cloned()
    }

    fn slow_races(&self) -> Option<Arc<Mutex<SlowRaces>>> {
        None
    }

    fn top_names(&self) -> Option<Arc<Mutex<TopNames>>> {
        None
    }

    fn serials(&self, _: Option<&str>) -> Result<Serials, ChangeRefusal> {
        Ok(Serials::default())
    }

    fn divergences(&self, _: Option<&str>) -> Result<Divergences, ChangeRefusal> {
        Ok(Divergences::default())
    }

    fn zones(&self) -> ZonesReport {
        ZonesReport::default()
    }

    fn certificates(&self) -> Vec<CertificateSnapshot> {
        Vec::new()
    }
}

/// Returns the scripted result of a change.
fn carry_out(change: &ServerChange) -> Result<String, ChangeRefusal> {
    let (pool, backend) = match change {
        ServerChange::Processes(ProcessChange::Restart { is_cold: true }) => {
            return Err(ChangeRefusal::Conflict("another restart is under way".to_owned()));
        }
        ServerChange::Processes(ProcessChange::Upgrade { is_cold: true }) => {
            return Err(ChangeRefusal::Invalid("the new process has ended: status 2".to_owned()));
        }
        ServerChange::Processes(change) => return Ok(format!("{} is done", change.label())),
        ServerChange::Reload => return Err(ChangeRefusal::Invalid("config.toml:1:1: nothing to run".to_owned())),
        ServerChange::Add { pool, address, weight } => {
            known_pool(pool)?;
            return Ok(format!("{address} is added to {pool} with weight {weight}"));
        }
        ServerChange::Drain { pool, backend, .. } | ServerChange::Remove { pool, backend } => (pool, backend),
        ServerChange::Set { pool, backend, .. } => (pool, backend),
        ServerChange::Order(order) => (&order.pool, &order.backend),
        ServerChange::Accept { name } if name == "cat" => return Ok("catalog cat. is taken".to_owned()),
        ServerChange::Accept { name } => return Err(ChangeRefusal::no_such("catalog", name, ["cat."])),
    };
    known_pool(pool)?;
    match backend.as_str() {
        "ts1" | "[::1]:53" => Ok(format!("{backend} of {pool} is changed")),
        "busy" => Err(ChangeRefusal::Conflict("busy is the last backend of ts".to_owned())),
        other => Err(ChangeRefusal::no_such("backend", other, ["ts1", "busy"])),
    }
}

/// Refuses other pools than "ts".
fn known_pool(pool: &str) -> Result<(), ChangeRefusal> {
    if pool == "ts" { Ok(()) } else { Err(ChangeRefusal::no_such("pool", pool, ["ts"])) }
}

/// The numbers of the scripted server.
fn snapshot() -> Snapshot {
    let histogram = Histogram::default();
    histogram.record(Duration::from_millis(2));
    let mut latency = HistogramSnapshot::default();
    latency.collect(&histogram);
    let backend = BackendSnapshot {
        name: "ts1".to_owned(),
        address: "192.0.2.1:53".parse().expect("an address"),
        weight: 3,
        state: BackendState::Down,
        by_hand: true,
        by_hand_until: None,
        since: SystemTime::now() - Duration::from_secs(90),
        probes: 5,
        counts: BackendCounts {
            attempts: [10, 2, 1],
            wins: [9, 1, 0],
            pending: PendingCounts { in_flight: Gauge(1), ..PendingCounts::default() },
            errors: 3,
            timeouts: 4,
            latency: latency.clone(),
            ..BackendCounts::default()
        },
        connection_problem: None,
        probe_problem: None,
        membership: MembershipSnapshot { origin: vec![MemberOrigin::Config], ..MembershipSnapshot::default() },
    };
    let pool = PoolSnapshot {
        name: "ts".to_owned(),
        counts: PoolCounts {
            in_flight: Gauge(7),
            duration: latency,
            hedges_denied: 6,
            hedges_wasted: 9,
            prefetches: 8,
            ..PoolCounts::default()
        },
        tokens: 10,
        divergent: 0,
        tuning: None,
        regret: Some(Regret {
            target: 0.999,
            budget: 0.05,
            achieved: Duration::from_millis(5),
            best: ReissueRule { delay: Duration::from_millis(2), probability: 0.8, time: Duration::from_millis(4) },
        }),
        min_up: 1,
        backends: vec![backend],
        sources: Vec::new(),
    };
    let mut counts = ServerCounts::default();
    counts.queries[Transport::Udp as usize] = 13;
    counts.responses[ResponseSource::Backend as usize][0] = 13;
    Snapshot {
        run: RunSnapshot { uptime: Duration::from_secs(3_600), workers: 2, ..RunSnapshot::default() },
        counts,
        pools: vec![pool],
        processes: processes(),
        ..Snapshot::default()
    }
}

/// A supervisor, its server, and a standby that cannot start.
fn processes() -> ProcessesSnapshot {
    let since = SystemTime::now() - Duration::from_secs(90);
    let process = |pid, role, problem: Option<&str>| ProcessSnapshot {
        pid,
        role,
        version: "1.2.3".to_owned(),
        edition: 4,
        since,
        problem: problem.map(str::to_owned),
    };
    ProcessesSnapshot {
        supervisor: Some(SupervisorSnapshot { pid: 10, since, successions: 1 }),
        processes: vec![
            process(10, Role::Supervisor, None),
            process(11, Role::Server, None),
            process(12, Role::Failed, Some("a.txt:1: wrong")),
        ],
        takeovers: [1, 0, 2, 0, 0],
        crashed_at: None,
    }
}

/// Checks the exit code of a command and what it has printed.
pub(crate) fn check_output(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    assert!(out.contains(stdout), "{out}{err}");
    assert!(err.contains(stderr), "{out}{err}");
}
