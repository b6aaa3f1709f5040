//! What is encrypted, beside dnsdist and beside our own TLS: listeners by TLS, HTTPS and QUIC that answer
//! from the cache, full handshakes, and backends by TLS, HTTPS and QUIC without a cache; and what handshakes
//! and idle connections do to the rest.
//!
//! The CPU time of the server is divided by what it did. All servers of a round are started first, and each
//! load is put on one after the other, by turns from round to round, so that drift of the machine is shared.
//! The backend is hedgerow as an authority.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::common::client::{Plan, SOCKETS, Seen};
use crate::common::encrypted::{self, CA, Key, Way};
use crate::common::message::{self, Expect, Lengths};
use crate::common::process::{Cores, Server};
use crate::common::spread::Spread;
use crate::launch::{self, Knocker, Launch};
use crate::machine::Machine;
use crate::peer::Peer;
use crate::stream_client::{Done, NAMES, StreamPlan, Task};
use crate::subject;

/// A comparison of two servers, each under a load.
#[derive(Clone, Copy)]
struct Row {
    /// The name in the report.
    name: &'static str,
    /// The server under test and its load.
    ours: (Who, Load),
    /// The server to compare with, and its load.
    other: (Who, Load),
    /// The most that ours may cost, as a share of the other.
    target: f64,
}

/// A server of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// hedgerow with a cache and listeners for everything, and a certificate with this key.
    Listeners(Key),
    /// dnsdist with the same.
    DnsdistListeners(Key),
    /// hedgerow without a cache, before a backend that is reached so.
    Before(Way),
    /// dnsdist without a cache, before the same by TLS.
    DnsdistBefore,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// `dnsperf -m dot -c 8 -q 64`, with at most so many queries a second.
    Dnsperf(Option<u32>),
    /// `h2load -c 8 -m 8 -d query`.
    H2load,
    /// Our own client: 8 connections with 8 queries outstanding on each.
    Own(Task),
    /// `openssl s_time -new`.
    Handshakes,
    /// Datagrams: a closed loop, or so many queries a second.
    Datagrams(Option<u32>),
}

/// The queries a second of loads that do not saturate.
const CALM: u32 = 5_000;

/// The comparisons with a target for encrypted transports.
const ROWS: [Row; 10] = {
    use Load::{Datagrams, Dnsperf, H2load, Handshakes, Own};
    use Who::{Before, DnsdistBefore};
    const LISTENERS: Who = Who::Listeners(Key::Ecdsa);
    const DNSDIST: Who = Who::DnsdistListeners(Key::Ecdsa);
    const fn row(name: &'static str, ours: (Who, Load), other: (Who, Load), target: f64) -> Row {
        Row { name, ours, other, target }
    }
    [
        row("clients by TLS, saturated", (LISTENERS, Dnsperf(None)), (DNSDIST, Dnsperf(None)), 0.5),
        row("clients by TLS, 5,000/s", (LISTENERS, Dnsperf(Some(CALM))), (DNSDIST, Dnsperf(Some(CALM))), 0.85),
        row("clients by HTTPS, saturated", (LISTENERS, H2load), (DNSDIST, H2load), 0.95),
        row("clients by QUIC, saturated, to TLS", (LISTENERS, Own(Task::Quic)), (LISTENERS, Own(Task::Tls)), 1.0),
        row("full handshake by TLS", (LISTENERS, Handshakes), (DNSDIST, Handshakes), 0.65),
        row(
            "full handshake by TLS, RSA",
            (Who::Listeners(Key::Rsa), Handshakes),
            (Who::DnsdistListeners(Key::Rsa), Handshakes),
            0.65,
        ),
        row("backend by TLS, saturated", (Before(Way::Tls), Datagrams(None)), (DnsdistBefore, Datagrams(None)), 0.4),
        row(
            "backend by TLS, 5,000/s",
            (Before(Way::Tls), Datagrams(Some(CALM))),
            (DnsdistBefore, Datagrams(Some(CALM))),
            0.4,
        ),
        row(
            "backend by HTTPS, saturated, to TLS",
            (Before(Way::Https), Datagrams(None)),
            (Before(Way::Tls), Datagrams(None)),
            1.8,
        ),
        row(
            "backend by QUIC, saturated, to TLS",
            (Before(Way::Quic), Datagrams(None)),
            (Before(Way::Tls), Datagrams(None)),
            1.2,
        ),
    ]
};

/// The results of one load.
#[derive(Clone, Copy, Debug, Serialize)]
struct Cost {
    /// CPU time of the server for each thing done, in microseconds.
    micros: f64,
    /// Things done in a second.
    rate: f64,
}

/// The effect of handshakes and idle connections in one round.
#[derive(Clone, Debug, Serialize)]
struct Crowded {
    /// The key of the certificate.
    key: Key,
    /// Datagrams alone. Times are in microseconds.
    alone: Seen,
    /// Datagrams beside [`STORM`] handshakes.
    beside: Seen,
    /// Seconds that the handshakes took.
    storm: f64,
    /// Bytes of memory for each of the idle connections.
    idle: f64,
}

/// All that was measured.
pub(crate) struct Encrypted {
    /// Ours and the other of each row, round by round.
    rounds: Vec<Vec<Option<(Cost, Cost)>>>,
    /// The rest, round by round.
    crowded: Vec<Crowded>,
}

/// Handshakes begun at once.
const STORM: usize = 1_000;
/// Connections that do nothing.
const IDLE: usize = 10_000;
/// How long a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The folder of DNS over HTTPS.
const PATH: &str = "/dns-query";

impl Encrypted {
    /// Runs all rounds of the rows whose name has the text in it.
    pub(crate) fn measure(
        rounds: u32,
        secs: f64,
        only: Option<&str>,
        cores: Option<Cores>,
        folder: &Path,
    ) -> io::Result<Self> {
        encrypted::certify(folder)?;
        let names: String = (0..NAMES).fold(String::new(), |mut names, number| {
            let _ = writeln!(names, "{}.bench.test A", message::label(number, Lengths::Mixed));
            names
        });
        fs::write(folder.join(QUERIES), names)?;
        let mut query = Vec::new();
        message::write_query(0, Lengths::Mixed, false, 0, &mut query);
        fs::write(folder.join(QUERY), query)?;
        let is_wanted = |name: &str| only.is_none_or(|text| name.contains(text));
        let mut all = Self { rounds: Vec::new(), crowded: Vec::new() };
        for round in 0..rounds {
            let mut stage = Stage { secs, cores, folder, running: Vec::new(), backend: None };
            let mut rows = Vec::new();
            for row in ROWS {
                if !is_wanted(row.name) || (Peer::Dnsdist.find().is_none() && row.is_beside_dnsdist()) {
                    rows.push(None);
                    continue;
                }
                // Neither is always the first after a pause.
                let (ours, other) = if round % 2 == 0 {
                    let ours = stage.cost(row.ours)?;
                    (ours, stage.cost(row.other)?)
                } else {
                    let other = stage.cost(row.other)?;
                    (stage.cost(row.ours)?, other)
                };
                let place = format!("round {} of {rounds}: {}", round + 1, row.name);
                eprintln!("{place}: {:.1} µs, {:.1} µs, {:.2}", ours.micros, other.micros, ours.micros / other.micros);
                rows.push(Some((ours, other)));
            }
            all.rounds.push(rows);
            drop(stage);
            if is_wanted(CROWDED) {
                for key in [Key::Ecdsa, Key::Rsa] {
                    let crowded = crowded(key, secs, cores, folder)?;
                    let Crowded { beside: Seen { p99, max, .. }, storm, .. } = &crowded;
                    let place = format!("round {} of {rounds}: handshakes at once, {}", round + 1, key.name());
                    eprintln!("{place}: {storm:.2} s, p99 {:.2} ms, max {:.2} ms", p99 / 1e3, max / 1e3);
                    all.crowded.push(crowded);
                }
            }
        }
        Ok(all)
    }

    /// The report in markdown.
    pub(crate) fn markdown(&self, secs: f64) -> String {
        let mut out = format!(
            "\nMedian (min–max) of {} rounds, {secs} s each; CPU µs of the server for an answer, or a handshake.\n\n\
             | what | µs | the other's µs | ratio | target | 1000/s | the other's |\n|{}\n",
            self.rounds.len(),
            "---|".repeat(7),
        );
        for (index, row) in ROWS.iter().enumerate() {
            let pairs: Vec<(Cost, Cost)> = self.rounds.iter().filter_map(|round| round[index]).collect();
            if pairs.is_empty() {
                continue;
            }
            let cell = |decimals, value: &dyn Fn(&(Cost, Cost)) -> f64| {
                Spread::of(pairs.iter().map(value).collect()).cell(decimals)
            };
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | ≤ {} | {} | {} |",
                row.name,
                cell(1, &|(ours, _)| ours.micros),
                cell(1, &|(_, other)| other.micros),
                cell(2, &|(ours, other)| ours.micros / other.micros),
                row.target,
                cell(1, &|(ours, _)| ours.rate / 1e3),
                cell(1, &|(_, other)| other.rate / 1e3),
            );
        }
        if self.crowded.is_empty() {
            return out;
        }
        let _ = writeln!(
            out,
            "\nDatagrams at {CALM}/s beside {STORM} full handshakes at once, and without; {IDLE} idle connections by TLS.\n\n\
             | key | handshakes, s | p99, ms | max, ms | lost | p99 without | max without | kB per idle connection |\n|{}",
            "---|".repeat(8),
        );
        for key in [Key::Ecdsa, Key::Rsa] {
            let cell = |decimals, value: &dyn Fn(&Crowded) -> f64| {
                let of_key = self.crowded.iter().filter(|crowded| crowded.key == key);
                Spread::of(of_key.map(value).collect()).cell(decimals)
            };
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                key.name(),
                cell(2, &|crowded| crowded.storm),
                cell(2, &|crowded| crowded.beside.p99 / 1e3),
                cell(2, &|crowded| crowded.beside.max / 1e3),
                cell(0, &|crowded| crowded.beside.lost as f64),
                cell(2, &|crowded| crowded.alone.p99 / 1e3),
                cell(2, &|crowded| crowded.alone.max / 1e3),
                cell(1, &|crowded| crowded.idle / 1e3),
            );
        }
        out
    }

    /// All samples as JSON.
    pub(crate) fn json(&self, machine: &Machine) -> Value {
        let row = |index: usize| {
            let rounds: Vec<_> = self.rounds.iter().map(|round| round[index]).collect();
            json!({ "name": ROWS[index].name, "target": ROWS[index].target, "rounds": rounds })
        };
        let rows: Vec<Value> = (0..ROWS.len()).map(row).collect();
        json!({ "machine": machine, "rows": rows, "crowded": self.crowded })
    }
}

/// The name of [`Crowded`] in reports.
const CROWDED: &str = "handshakes at once, idle connections";
/// The file of names for dnsperf.
const QUERIES: &str = "queries.txt";
/// The file of the one query for h2load.
const QUERY: &str = "query.bin";

impl Row {
    /// Returns true if the row involves dnsdist.
    fn is_beside_dnsdist(self) -> bool {
        matches!(self.other.0, Who::DnsdistListeners(_) | Who::DnsdistBefore)
    }
}

/// The servers and tools that run in a round.
struct Stage<'a> {
    secs: f64,
    cores: Option<Cores>,
    folder: &'a Path,
    running: Vec<(Who, Running)>,
    /// The backend, and where it is reached by each way.
    backend: Option<(Server, Addresses)>,
}

/// A server with its addresses.
struct Running {
    server: Server,
    at: Addresses,
}

/// The addresses of a server.
#[derive(Clone, Copy)]
struct Addresses {
    tls: SocketAddr,
    https: SocketAddr,
    quic: SocketAddr,
}

impl Addresses {
    /// Some that are free.
    fn free() -> io::Result<Self> {
        let [tls, https, quic] = [(); 3].map(|()| launch::free_address());
        Ok(Self { tls: tls?, https: https?, quic: quic? })
    }

    /// The listeners of a config.
    fn listeners(&self, udp: SocketAddr) -> String {
        let Self { tls, https, quic } = *self;
        [(Way::Udp, udp), (Way::Tls, tls), (Way::Https, https), (Way::Quic, quic)]
            .map(|(way, address)| way.listener(address))
            .join(", ")
    }

    /// The address of a way.
    fn of(&self, way: Way) -> SocketAddr {
        match way {
            Way::Tls => self.tls,
            Way::Https => self.https,
            Way::Bare | Way::Udp | Way::Quic => self.quic,
        }
    }
}

impl Stage<'_> {
    /// Measures the cost of a load on a server, which is started if it does not run yet.
    fn cost(&mut self, (who, load): (Who, Load)) -> io::Result<Cost> {
        if !self.running.iter().any(|(other, _)| *other == who) {
            let running = self.start(who)?;
            self.running.push((who, running));
        }
        let running = self.running.iter().find(|(other, _)| *other == who).map(|(_, running)| running);
        let running = running.ok_or_else(|| io::Error::other("it was started above"))?;
        let before = running.server.cpu_time()?;
        let Done { count, secs } = self.put(load, running)?;
        let used = (running.server.cpu_time()? - before).total();
        if count == 0 {
            return Err(io::Error::other(format!("{who:?} did nothing under {load:?}")));
        }
        Ok(Cost { micros: used.as_secs_f64() * 1e6 / count as f64, rate: count as f64 / secs })
    }

    /// Puts a load on a server.
    fn put(&self, load: Load, running: &Running) -> io::Result<Done> {
        let Self { secs, .. } = *self;
        let rest = self.cores.map(|cores| cores.rest);
        let Addresses { tls, https, .. } = running.at;
        let whole = secs.ceil() as u64;
        match load {
            Load::Dnsperf(rate) => {
                let rate = rate.map_or_else(String::new, |rate| format!(" -Q {rate}"));
                let (ip, port, secs) = (tls.ip(), tls.port(), whole);
                let said =
                    self.said(&format!("dnsperf -m dot -s {ip} -p {port} -d {QUERIES} -c 8 -q 64 -l {secs}{rate}"))?;
                Ok(Done { count: number_after(&said, "Queries completed:")?, secs: whole as f64 })
            }
            Load::H2load => {
                let said = self.said(&format!(
                    "h2load -c 8 -m 8 -D {whole} -d {QUERY} -H content-type:application/dns-message https://{https}{PATH}"
                ))?;
                Ok(Done { count: number_before(&said, " succeeded")?, secs: whole as f64 })
            }
            Load::Handshakes => {
                let said = self.said(&format!("openssl s_time -connect {tls} -new -time {whole} -tls1_3"))?;
                Ok(Done { count: number_before(&said, " connections in")?, secs: whole as f64 })
            }
            Load::Own(task) => {
                let server = if task == Task::Quic { running.at.quic } else { tls };
                let plan = StreamPlan { task, server, ca: self.folder.join(CA), connections: 8, secs };
                Ok(serde_json::from_str(&plan.start(rest)?.finish()?)?)
            }
            Load::Datagrams(rate) => {
                let seen = datagrams(running.server.address, rate.map(f64::from), secs).start(rest)?.finish()?;
                if seen.wrong > 0 || seen.lost > 0 {
                    eprintln!("of {} queries {} were lost, {} answers were wrong", seen.sent, seen.lost, seen.wrong);
                }
                Ok(Done { count: seen.answered, secs })
            }
        }
    }

    /// Runs a program on the core of the rest, in the folder, and returns its output.
    fn said(&self, command: &str) -> io::Result<String> {
        let mut words = vec![env::current_exe()?.into_os_string()];
        words.extend(self.cores.iter().flat_map(|cores| ["--core".into(), cores.rest.to_string().into()]));
        words
            .extend(["hold", "--silent"].into_iter().chain(command.split(' ')).map(|word| OsStr::new(word).to_owned()));
        let output = Command::new(&words[0]).args(&words[1..]).current_dir(self.folder).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(said),
            false => Err(io::Error::other(format!("{command}: {said}{}", String::from_utf8_lossy(&output.stderr)))),
        }
    }

    /// Starts a server, and warms it.
    fn start(&mut self, who: Who) -> io::Result<Running> {
        let rest = self.cores.map(|cores| cores.rest);
        if self.backend.is_none() {
            let at = Addresses::free()?;
            let hosts = self.folder.join("hosts.txt");
            fs::write(&hosts, subject::table(NAMES, Lengths::Mixed))?;
            let knocker = Knocker::new(NAMES, Lengths::Mixed)?;
            let config = format!(
                "workers = 1\n[authorities.bench]\nlisten = [{}]\nzones = [{hosts:?}]\nttl = \"86400s\"\nmiss = \"nxdomain\"\n\
                 [authorities.bench.connections]\nin_flight = 10000\n{}",
                at.listeners(knocker.address),
                encrypted::certificates(self.folder, Key::Ecdsa),
            );
            self.backend = Some((self.launch(knocker, &config, rest)?, at));
        }
        let (backend, reached) =
            self.backend.as_ref().map(|(backend, at)| (backend.address, *at)).ok_or(io::ErrorKind::NotFound)?;
        let at = Addresses::free()?;
        let knocker = Knocker::new(NAMES, Lengths::Mixed)?;
        let core = self.cores.map(|cores| cores.server);
        let server = match who {
            Who::Listeners(key) => {
                let backend = Way::Udp.backend(backend, self.folder);
                let config = listeners(knocker.address, &at, &backend, &encrypted::certificates(self.folder, key));
                self.launch(knocker, &config, core)?
            }
            Who::Before(way) => {
                let listen = Way::Udp.listener(knocker.address);
                let backend = way.backend(reached.of(way), self.folder);
                let config = format!(
                    "workers = 1\n[forwarder]\nlisten = [{listen}]\n[pools.bench]\nbackends = [{backend}]\n\
                     dispatch = \"sequential\"\non_timeout = \"servfail\"\non_all_down = \"servfail\"\n"
                );
                self.launch(knocker, &config, core)?
            }
            Who::DnsdistListeners(key) => {
                let [chain, key] = key.files().map(|file| self.folder.join(file));
                let config = format!(
                    "addTLSLocal('{tls}', {chain:?}, {key:?}, {{ maxInFlight = 64 }})\n\
                     addDOHLocal('{https}', {chain:?}, {key:?}, '{PATH}')\n\
                     newServer({{ address = '{backend}' }})\n\
                     getPool(''):setCache(newPacketCache(200000, {{ maxTTL = 86400 }}))\n",
                    tls = at.tls,
                    https = at.https,
                );
                self.dnsdist(knocker, &config)?
            }
            Who::DnsdistBefore => {
                let (address, ca) = (reached.tls, self.folder.join(CA));
                let config = format!(
                    "newServer({{ address = '{address}', tls = 'openssl', subjectName = '{name}', caStore = {ca:?}, maxInFlight = 100 }})\n",
                    name = encrypted::NAME,
                );
                self.dnsdist(knocker, &config)?
            }
        };
        // All names come to be known, and whatever else warms up.
        let mut asked = 0;
        while asked < NAMES + NAMES / 10 {
            asked += datagrams(server.address, None, 0.3).start(rest)?.finish()?.sent as u32;
        }
        Ok(Running { server, at })
    }

    /// Starts hedgerow with a config.
    fn launch(&self, knocker: Knocker, config: &str, core: Option<usize>) -> io::Result<Server> {
        let folder = self.folder.join(format!("hedgerow-{}", knocker.address.port()));
        fs::create_dir_all(&folder)?;
        let launch = subject::launch_hedgerow(config, &folder)?;
        knocker.start(&launch, &folder, core, START_TIMEOUT).map(|(server, _)| server)
    }

    /// Starts dnsdist with one thread for streams, and with these lines.
    fn dnsdist(&self, knocker: Knocker, lines: &str) -> io::Result<Server> {
        let folder = self.folder.join(format!("dnsdist-{}", knocker.address.port()));
        fs::create_dir_all(&folder)?;
        let address = knocker.address;
        let config = format!("setSecurityPollSuffix('')\nsetMaxTCPClientThreads(1)\nsetLocal('{address}')\n{lines}");
        fs::write(folder.join("config"), config)?;
        let program = Peer::Dnsdist.find().ok_or_else(|| io::Error::other("dnsdist is not installed"))?;
        let arguments = ["-C", "config", "--supervised", "--disable-syslog"].map(Into::into).to_vec();
        let core = self.cores.map(|cores| cores.server);
        knocker.start(&Launch { program, arguments }, &folder, core, START_TIMEOUT).map(|(server, _)| server)
    }
}

/// The config of a forwarder with a cache and all listeners.
fn listeners(udp: SocketAddr, at: &Addresses, backend: &str, certificates: &str) -> String {
    format!(
        "workers = 1\n[forwarder]\nlisten = [{}]\n[forwarder.connections]\nmax = {}\nper_client = 0\nidle = \"10m\"\n\
         [cache]\n[pools.bench]\nbackends = [{backend}]\ndispatch = \"sequential\"\non_timeout = \"servfail\"\n\
         on_all_down = \"servfail\"\n{certificates}",
        at.listeners(udp),
        // Above half of that, idle connections have less time.
        IDLE + IDLE / 2,
    )
}

/// A load of datagrams, in a closed loop or at a rate.
fn datagrams(server: SocketAddr, rate: Option<f64>, secs: f64) -> Plan {
    Plan {
        server,
        expect: Expect::Answer,
        secs,
        rate,
        burst: 1,
        first: 0,
        names: NAMES,
        lengths: Lengths::Mixed,
        edns: false,
        timeout: 1.0,
        sockets: SOCKETS,
        slots: false,
    }
}

/// Measures the effect of simultaneous handshakes on datagrams, and the cost of idle connections.
fn crowded(key: Key, secs: f64, cores: Option<Cores>, folder: &Path) -> io::Result<Crowded> {
    let mut stage = Stage { secs, cores, folder, running: Vec::new(), backend: None };
    let Running { server, at } = stage.start(Who::Listeners(key))?;
    let rest = cores.map(|cores| cores.rest);
    let plan = |task, connections| StreamPlan { task, server: at.tls, ca: folder.join(CA), connections, secs };
    // The client of the datagrams goes before that of the handshakes, or its own delays would be measured.
    let first = ["chrt", "-f", "10"].map(str::to_owned);
    let asked = datagrams(server.address, Some(f64::from(CALM)), secs);
    let alone = asked.start_under(&first, rest)?.finish()?;
    let client = asked.start_under(&first, rest)?;
    thread::sleep(Duration::from_secs_f64(secs / 4.0));
    let storm: Done = serde_json::from_str(&plan(Task::Storm, STORM).start(rest)?.finish()?)?;
    let beside = client.finish()?;
    let before = server.memory()?.anonymous;
    let held = plan(Task::Idle, IDLE).start(rest)?;
    let idle = server.memory()?.anonymous.saturating_sub(before) as f64 / IDLE as f64;
    drop(held);
    Ok(Crowded { key, alone, beside, storm: storm.secs, idle })
}

/// The number that follows some words.
fn number_after(said: &str, words: &str) -> io::Result<u64> {
    let number = said.split_once(words).and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("no number after {words:?} in {said}")))
}

/// The number before the last of some words.
fn number_before(said: &str, words: &str) -> io::Result<u64> {
    let number = said.rsplit_once(words).and_then(|(before, _)| before.split_whitespace().last()?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("no number before {words:?} in {said}")))
}
