//! After warm-up, a query allocates nothing (the hot path's first rule), whether it is forwarded, matched by
//! a rule, answered from the cache, or answered by an authority, and whether it is tapped or not.
//!
//! The server runs in this process, so that its allocations can be counted; the client and the backends run
//! in threads that are not counted, and nor is the writer of the taps, for which no query waits. The test is
//! alone in its file: another test's allocations would be counted too.
//!
//! What grows to a new peak may allocate, so the peak comes while the server warms up, however busy the
//! machine is. At first the backends hold their replies until five times as many queries are in flight as are
//! later. From then on the client asks in lock step: the next batch leaves when all responses are there, the
//! backends have replied to every attempt, and the server has taken those replies. So nothing that is counted
//! has more in flight than the warm-up had, and it is measured once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use config::Config;
use hedgerow::control::{CarriedState, DrainResult, Interfaces, Listeners, Server};
use hedgerow::load::{Confinement, ForwarderFiles, Setup};
use hedgerow::worker::QueuedQueryFate;
use metrics::{Snapshot, Tap};
use tokio::task::LocalSet;
use zone::master::{self, ZoneFileContext, ZoneFileSource};
use zone::{DeferredZoneBuilder, Tables, ZoneDb};

/// Counts what the threads of the server allocate.
struct Counting;

/// Allocations of threads that are counted.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Queries to backends that bore the cookies which those give.
static BORE_COOKIES: AtomicU32 = AtomicU32::new(0);
/// True if the test has begun.
static HAS_BEGUN: AtomicBool = AtomicBool::new(false);
/// How many replies the backends hold, while they do.
static HELD: Mutex<Option<u32>> = Mutex::new(None);
/// Notified when they hold one more.
static HAS_HELD: Condvar = Condvar::new();
/// True if anything is counted yet.
static IS_COUNTING: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Set in threads of the test itself.
    static IS_EXEMPT: Cell<bool> = const { Cell::new(false) };
}

/// Counts one allocation of this thread.
fn count() {
    if !HAS_BEGUN.load(Relaxed) {
        // A thread of the test harness, which may report in the midst of it all that the test takes long.
        let _ = IS_EXEMPT.try_with(|is_exempt| is_exempt.set(true));
    } else if IS_COUNTING.load(Relaxed) && !IS_EXEMPT.try_with(Cell::get).unwrap_or(true) && !is_writer() {
        ALLOCATIONS.fetch_add(1, Relaxed);
    }
}

/// Returns true if this thread is the writer of the taps.
fn is_writer() -> bool {
    // To ask may allocate.
    IS_EXEMPT.set(true);
    let is_writer = thread::current().name() == Some("taps");
    IS_EXEMPT.set(is_writer);
    is_writer
}

// SAFETY: everything is passed on to the system's allocator as it is.
#[allow(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Queries that warm the server up.
const WARM_UP: u32 = 30_000;
/// Queries that are counted.
const COUNTED: u32 = 10_000;
/// More names than are asked for.
const ALL_NEW: u32 = u32::MAX;
/// So few that each is in the cache once the server is warm.
const FEW: u32 = 1000;
/// Queries sent before their responses are read: batches, as under load.
const AT_ONCE: u32 = 20;
/// The number of concurrent queries while the server warms up: the peak.
const PEAK: u32 = 5 * AT_ONCE;
/// How long the client waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// Sockets of a client of several workers, of which the kernel hands some to each.
const SOCKETS: usize = 8;
/// Bytes of an OPT record with an empty ZONEVERSION option.
const WISH_LEN: usize = 15;
/// The upper bound of allocations by chance where workers share nothing: the bytes of a query whose question
/// has the single-flight slot of a query of the other worker. Of 20 questions two do so once in some hundred
/// batches.
const BY_CHANCE: u64 = 16;

#[test]
fn after_warm_up_a_query_allocates_nothing() {
    IS_EXEMPT.set(true);
    HAS_BEGUN.store(true, Relaxed);
    for (dispatch, cookies) in [("race", false), ("race", true), ("hedge", true), ("sequential", true)] {
        let keys = format!("dispatch = {dispatch:?}\ncookies = {cookies}");
        assert_eq!(allocations(1, &keys, "", ALL_NEW, 1).allocated, 0, "{COUNTED} queries, {keys}");
        assert_eq!(BORE_COOKIES.swap(0, Relaxed) >= WARM_UP, cookies, "who gives cookies gets them back, {keys}");
    }
    let allocated = allocations(2, "", "", ALL_NEW, 1).allocated;
    assert!(allocated <= BY_CHANCE, "{allocated} for {COUNTED} queries to two workers");
    // Each question comes twice, from two sockets. If the kernel hands them to two workers, one hands its
    // query over to the other, which takes the bytes of that, and a block of the channel for each 32 at
    // most.
    let (allocated, twice) = (allocations(2, "", "", ALL_NEW, 2).allocated, u64::from(COUNTED / 2));
    assert!(allocated <= twice + twice / 32 + BY_CHANCE, "{allocated} for {twice} queries that join a race");
    // So small that it is full once the server is warm.
    let kept = allocations(1, "", "[cache]\nsize = '1MiB'", ALL_NEW, 1);
    assert_eq!(kept.allocated, 0, "{COUNTED} queries whose replies are kept");
    let Measured { allocated, summary, .. } = allocations(1, "", "[cache]", FEW, 1);
    assert_eq!(allocated, 0, "{COUNTED} queries answered from the cache");
    assert!(summary.contains(&format!(" {} cache,", WARM_UP + COUNTED - FEW)), "{summary}");
    let rules = "[[forwarder.rules]]\nname = 'a'\nnames_file = 'list'\nthen = 'drop'\n\
                 [[forwarder.rules]]\nname = 'b'\nclients = ['127.0.0.0/8']\nnames = ['.']\nthen = 'routes'";
    assert_eq!(allocations(1, "", rules, ALL_NEW, 1).allocated, 0, "{COUNTED} queries that a rule matches");
    for records in ZONES {
        assert_eq!(answering(zone_db_of(records), "").allocated, 0, "{COUNTED} queries answered from {records:?}");
    }
    ASKS_FOR_VERSION.store(true, Relaxed);
    for records in ZONES {
        let allocated = answering(zone_db_of(records), "").allocated;
        assert_eq!(allocated, 0, "{COUNTED} queries for the version too, answered from {records:?}");
    }
    ASKS_FOR_VERSION.store(false, Relaxed);
    // How many sockets hedges need at most is a matter of chance.
    for dispatch in ["race", "sequential"] {
        let keys = format!("dispatch = {dispatch:?}");
        check_tapped(&keys, WARM_UP + COUNTED, |taps| allocations(1, &keys, taps, ALL_NEW, 1));
    }
    check_tapped("the cache", FEW, |taps| allocations(1, "", &format!("[cache]\n{taps}"), FEW, 1));
    check_tapped("an authority", 0, |taps| answering(zone_db_of(ZONES[0]), taps));
}

/// Checks that nothing is allocated while the query log and dnstap record every query, and this many races
/// are slow.
fn check_tapped(what: &str, races: u32, measure: impl FnOnce(&str) -> Measured) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let place = folder.path().display();
    let Measured { allocated, counted, .. } = measure(&format!(
        "[query_log]\nto = '{place}/log'\nalways = ['slow', 'failed', 'hedged']\n\
         [dnstap]\nto = 'file:{place}/tap'\nmessages = ['client', 'backend', 'authority']\n\
         [slow]\nthreshold = '1us'\n"
    ));
    assert_eq!(allocated, 0, "{COUNTED} queries that are tapped, {what}");
    let records = |tap: Tap| counted.counts.taps[tap as usize].iter().sum::<u64>();
    assert!(records(Tap::QueryLog) > 0 && records(Tap::Dnstap) > 0, "{what}: {:?}", counted.counts.taps);
    assert_eq!(counted.pools.iter().map(|pool| pool.counts.slow_races).sum::<u64>(), u64::from(races), "{what}");
}

/// True if the client asks for the version of the zone, and expects it at the end of each answer.
static ASKS_FOR_VERSION: AtomicBool = AtomicBool::new(false);

/// Records of the root zone that make different answers to the client's queries: each ends with the same four
/// bytes.
const ZONES: [&str; 5] = [
    "*.test A 192.0.2.1",
    "*.test CNAME a\na CNAME b\nb A 192.0.2.1",
    "test DNAME other\n*.other A 192.0.2.1",
    "test NS ns.test\nns.test A 192.0.2.1",
    // What is denied ends with the last field of the SOA record.
    "other A 192.0.2.2",
];

/// A zone database of the root zone with these records.
fn zone_db_of(records: &str) -> ZoneDb {
    let minimum = u32::from_be_bytes([192, 0, 2, 1]);
    let octets = format!("$TTL 300\n@ SOA ns mail 1 2 3 4 {minimum}\n@ NS ns\n{records}\n").into_bytes();
    let (root, source) = (".".parse().expect("a name"), ZoneFileSource { name: "zone".to_owned(), octets });
    let mut builder = DeferredZoneBuilder::new(Some(&root));
    let mut include = |name: &str| Err(name.to_owned());
    let task = ZoneFileContext { origin: Some(&root), default_ttl: None, include: &mut include };
    master::read(&source, task, &mut |record, place| builder.add(&record, place)).expect("sound records");
    let Ok((zone, _)) = builder.finish() else { panic!("a sound zone") };
    ZoneDb::new(Arc::new(Tables::none())).with_zone(Arc::new(zone))
}

/// Measures a server with an authority that has this zone database, and further sections in its config.
fn answering(zone_db: ZoneDb, sections: &str) -> Measured {
    let text = format!("workers = 1\n[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['zone']\n{sections}");
    let config = Config::parse(&text, "test.toml", Path::new("")).expect("the config is right");
    measure(
        Setup {
            forwarder: ForwarderFiles::default(),
            roots: Default::default(),
            config,
            zone_dbs: vec![Arc::new(zone_db)],
            keys: Default::default(),
            token: None,
            certificates: Vec::new(),
            certificate_files: Default::default(),
            cookie_secrets: Default::default(),
            source: None,
            files: None,
            watch: None,
        },
        ALL_NEW,
        1,
        &[],
    )
}

/// Measures a server with so many workers, two backends, keys of their pool, and further sections in its
/// config, by queries for so many names in turn, of which each is asked for so many times at once.
fn allocations(workers: usize, keys: &str, sections: &str, names: u32, times: u32) -> Measured {
    let backends = [backend(), backend()];
    let text = format!(
        "workers = {workers}\n\
         [forwarder]\n\
         listen = [\"127.0.0.1:0\"]\n\
         [pools.p]\n\
         backends = [\"{}\", \"{}\"]\n\
         {keys}\n\
         [pools.p.health]\n\
         interval = \"1h\"\n\
         {sections}\n",
        backends[0], backends[1]
    );
    let config = Config::parse(&text, "test.toml", Path::new("")).expect("the config is right");
    measure(
        Setup {
            forwarder: ForwarderFiles::default(),
            roots: Default::default(),
            config,
            zone_dbs: Vec::new(),
            keys: Default::default(),
            token: None,
            certificates: Vec::new(),
            certificate_files: Default::default(),
            cookie_secrets: Default::default(),
            source: None,
            files: None,
            watch: None,
        },
        names,
        times,
        &backends,
    )
}

/// The observations of one server.
struct Measured {
    /// The number of allocations for [`COUNTED`] queries.
    allocated: u64,
    /// The summary printed at the end.
    summary: String,
    /// The counters at the end.
    counted: Snapshot,
}

/// Runs a server with one listener and these backends, and asks for so many names in turn, for each of them
/// so many times at once.
fn measure(setup: Setup, names: u32, times: u32, backends: &[SocketAddr]) -> Measured {
    let backends = backends.to_vec();
    let sockets = if setup.config.process.workers == Some(NonZeroUsize::MIN) { 1 } else { SOCKETS };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(LocalSet::new().run_until(async {
        let (listeners, _) = Listeners::open(&setup.config, Vec::new()).expect("the address is free");
        let read = Box::new(|_: &_| panic!("no request for a reload"));
        let interfaces = Interfaces::prepare(&setup.config, false).expect("there are none");
        let server = Server::start(setup, listeners, interfaces, Confinement::default(), CarriedState::default(), read)
            .expect("the server starts");
        let bound = server.process.bound();
        let (_, address) = bound.split_once('=').expect("a listener");
        let address = address.parse().expect("one address");
        let allocated = tokio::task::spawn_blocking(move || {
            IS_EXEMPT.set(true);
            let client = Client::new(address, sockets, names, times, backends);
            client.reach_peak();
            client.ask(WARM_UP / 2 - PEAK, PEAK);
            client.ask(WARM_UP / 2, AT_ONCE);
            ALLOCATIONS.store(0, Relaxed);
            IS_COUNTING.store(true, Relaxed);
            client.ask(COUNTED, AT_ONCE);
            IS_COUNTING.store(false, Relaxed);
            ALLOCATIONS.load(Relaxed)
        });
        let allocated = allocated.await.expect("every query is answered");
        let counted = server.snapshot();
        let (drained, summary, _) = server.drain(QueuedQueryFate::Taken).await;
        assert_eq!(drained, DrainResult::Whole);
        Measured { allocated, summary: summary.to_string(), counted }
    }))
}

/// A backend that turns every query into a response with an A record, and gives cookies; it ends with the
/// process.
fn backend() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
    let address = socket.local_addr().expect("it is bound");
    thread::spawn(move || {
        IS_EXEMPT.set(true);
        let (mut message, mut responses) = ([0; 512], Vec::new());
        while let Ok((length, peer)) = socket.recv_from(&mut message) {
            let answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01";
            let question =
                message[12..length].iter().position(|octet| *octet == 0).map_or(length, |root| 12 + root + 5);
            // An OPT record alone has 11 bytes; with a COOKIE option it has 23 or 39.
            let has_cookie = message[11] == 1 && length - question > 15;
            message[2] |= 0x84;
            message[7] = 1;
            let mut response = [&message[..question], answer].concat();
            if has_cookie {
                // Of the OPT record 11 bytes, of its only option 4, and of the cookies the client's.
                let (opt, cookies) = message[question..length].split_at(15);
                response.extend([&opt[..10], &[28, 0, 10, 0, 24], &cookies[..8], &[0xC5; 16]].concat());
                BORE_COOKIES.fetch_add((cookies.len() == 24).into(), Relaxed);
            } else if message[11] == 1 {
                // An OPT record without options.
                response.extend([&message[question..question + 9], &[0, 0]].concat());
            }
            responses.push((response, peer));
            if let Some(held) = &mut *HELD.lock().expect("nothing panics here") {
                *held += 1;
                HAS_HELD.notify_all();
                continue;
            }
            for (response, peer) in responses.drain(..) {
                let _ = socket.send_to(&response, peer);
            }
        }
    });
    address
}

/// A client of a server, which also knows the server's backends.
struct Client {
    sockets: Vec<UdpSocket>,
    backends: Vec<UdpSocket>,
    /// The number of different names.
    names: u32,
    /// How many times it asks for each, one after the other from different sockets.
    times: u32,
    sent: Cell<u32>,
}

impl Client {
    /// A client of `server`, which has these backends.
    fn new(server: SocketAddr, sockets: usize, names: u32, times: u32, backends: Vec<SocketAddr>) -> Self {
        let sockets = (0..sockets).map(|_| connected(server)).collect();
        Self { sockets, backends: backends.into_iter().map(connected).collect(), names, times, sent: Cell::new(0) }
    }

    /// Brings the peak: the backends hold their replies until the server has asked them for the last of so
    /// many queries.
    fn reach_peak(&self) {
        let held = || HELD.lock().expect("nothing panics here");
        *held() = (!self.backends.is_empty()).then_some(0);
        self.send(0..PEAK);
        let are_awaited = |held: &mut Option<u32>| held.is_some_and(|held| held < PEAK / self.times);
        let (mut held, waited) =
            HAS_HELD.wait_timeout_while(held(), PATIENCE, are_awaited).expect("nothing panics here");
        assert!(!waited.timed_out(), "the backends are asked only for {held:?}");
        *held = None;
        drop(held);
        // What the client asks of a backend lets go what that holds.
        self.wait_for_backends();
        self.receive(0..PEAK);
        self.sent.set(self.sent.get() + PEAK);
    }

    /// Sends so many queries in batches. Before a batch leaves, the server has taken all that the backends
    /// have replied.
    fn ask(&self, queries: u32, at_once: u32) {
        // A reply to the first query of each socket comes to the server after all replies to earlier batches.
        let first = self.sockets.len() as u32;
        for _ in 0..queries / at_once {
            for numbers in [0..first, first..at_once] {
                self.send(numbers.clone());
                self.receive(numbers);
            }
            self.sent.set(self.sent.get() + at_once);
            self.wait_for_backends();
        }
    }

    /// Sends these queries of a batch.
    fn send(&self, numbers: Range<u32>) {
        let asks_for_version = ASKS_FOR_VERSION.load(Relaxed);
        for number in numbers {
            let mut query = *b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x08aaaaaaaa\x04test\0\0\x01\0\x01\
                               \0\0\x29\x04\xD0\0\0\0\0\0\x04\0\x13\0\0";
            query[11] = u8::from(asks_for_version);
            query[..2].copy_from_slice(&(number as u16).to_be_bytes());
            let serial = (self.sent.get() + number) / self.times % self.names;
            (0..8).for_each(|digit| query[13 + digit] = b'a' + (serial >> (4 * digit) & 15) as u8);
            let query = if asks_for_version { &query[..] } else { &query[..query.len() - WISH_LEN] };
            self.socket(number).send(query).expect("loopback takes a datagram");
        }
    }

    /// Waits for the responses to these queries of a batch.
    fn receive(&self, numbers: Range<u32>) {
        let end = if ASKS_FOR_VERSION.load(Relaxed) { [0, 0, 0, 1] } else { [192, 0, 2, 1] };
        let mut response = [0; 512];
        for number in numbers {
            let length = self.socket(number).recv(&mut response).expect("a response comes");
            assert_eq!(&response[length - 4..length], end);
        }
    }

    /// The socket of this query of a batch.
    fn socket(&self, number: u32) -> &UdpSocket {
        &self.sockets[number as usize % self.sockets.len()]
    }

    /// Waits until the backends have replied to all that they were asked. The server has sent each attempt
    /// before the last response of its batch, and a backend takes what it is asked in turn: what the client
    /// asks of it now comes last.
    fn wait_for_backends(&self) {
        for backend in &self.backends {
            backend.send(b"\0\0\x01\0\0\0\0\0\0\0\0\0").expect("loopback takes a datagram");
        }
        for backend in &self.backends {
            backend.recv(&mut [0; 512]).expect("a backend replies");
        }
    }
}

/// A socket that talks to `peer` and waits for it, but not for ever.
fn connected(peer: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
    socket.connect(peer).expect("loopback can be reached");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    socket
}
