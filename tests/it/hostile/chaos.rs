//! Everything at once: forged ICMP, forged replies, queries from forged sources, clients that do not read,
//! backends that lose datagrams, stop and die, reloads, and no descriptors. True clients get their right
//! answers all the while, no name that is there is denied, and memory stays. `HEDGEROW_CHAOS_SECONDS` makes
//! it longer, `HEDGEROW_SEED` repeats it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use socket2::{Domain, Socket, Type};
use testkit::*;

#[test]
fn true_clients_get_right_answers_amid_everything() {
    if !namespace::enter("hostile::chaos::true_clients_get_right_answers_amid_everything") {
        return;
    }
    let seed = number("HEDGEROW_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    let time = Duration::from_secs(number("HEDGEROW_CHAOS_SECONDS").unwrap_or(SECONDS));
    println!("HEDGEROW_SEED={seed} HEDGEROW_CHAOS_SECONDS={}", time.as_secs());
    let mut random = StdRng::seed_from_u64(seed);
    let table = load_table();
    let [well, stopping, mut dying] = [(); 3].map(|()| Authority::start(&table));
    let lossy = Lossy::before(well.address());
    let backends = [lossy.address, well.address(), stopping.address(), dying.address()];
    let asked = backends.each_ref().map(|backend| backend as &dyn Asked);
    let server = Forwarder::to(&asked, RULES).workers(2).admin().start();
    let target = server.address();

    let is_over = AtomicBool::new(false);
    let sent = [const { AtomicUsize::new(0) }; 3];
    let seeds: [u64; 3] = random.random();
    let (report, memory, faults) = thread::scope(|scope| {
        // Ends the others even where this one fails.
        let _end = End(&is_over);
        scope.spawn(|| {
            flood(&is_over, &sent[0], seeds[0], MANY, |forger, random| forge_icmp(forger, &backends, random))
        });
        scope.spawn(|| {
            flood(&is_over, &sent[1], seeds[1], MANY, |forger, random| forge_replies(forger, &backends, random))
        });
        scope
            .spawn(|| flood(&is_over, &sent[2], seeds[2], FEW, |forger, random| forge_queries(forger, target, random)));
        scope.spawn(|| do_not_read(&is_over, target));
        let load = Load::start(target, RATE);
        let (start, mut memory, mut faults) = (Instant::now(), Vec::new(), 0);
        while start.elapsed() < time {
            load.run_for(ms(random.random_range(100..300)));
            memory.push(server.process.resident());
            match faults % 6 {
                0 => stopping.stop(),
                1 => server.process.signal(Signal::HUP),
                2 => stopping.resume(),
                3 => dying.kill(),
                4 => take_descriptors(server.process.child()),
                _ => {
                    give_descriptors(server.process.child());
                    dying.restart();
                }
            }
            faults += 1;
        }
        stopping.resume();
        (load.stop(), memory, faults)
    });
    let sent = sent.map(|sent| sent.into_inner());
    let times = report.times(report.queries[0].at, Instant::now());
    println!(
        "{} queries, {faults} faults, forged: {} ICMP, {} replies, {} queries: {} lost, {} wrong; p50 {} µs, p99 {} ms",
        report.queries.len(),
        sent[0],
        sent[1],
        sent[2],
        report.lost(),
        report.wrong(),
        percentile(&times, 50).as_micros(),
        percentile(&times, 99).as_millis(),
    );
    let [first, last] = [memory[memory.len() / 3], memory[memory.len() - 1]].map(|octets| octets >> 20);
    println!("resident after a third of the time {first} MiB, at the end {last} MiB");
    assert!(sent.iter().all(|sent| *sent > 100), "forged: {sent:?}");
    let (all, lost, wrong, strays) = (report.queries.len(), report.lost(), report.wrong(), report.strays);
    let odd = &report.oddities;
    // A machine that is busy with other things has too little left for all of this: some then wait so long
    // that they are dropped.
    assert!(
        wrong == 0 && strays == 0 && lost * 20 <= all,
        "{lost} of {all} lost, {wrong} wrong, {strays} strays: {odd:#?}"
    );
    assert!(last <= first + first / 2 + 16, "memory grows: {memory:?}");
}

/// Ends threads when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Forges in bursts until it is over, some thousand datagrams a second.
fn flood(is_over: &AtomicBool, sent: &AtomicUsize, seed: u64, burst: usize, forge: impl Fn(&Forger, &mut StdRng)) {
    let (forger, mut random) = (Forger::new(), StdRng::seed_from_u64(seed));
    // A forged reply may reach a UDP port, and would wake a thread that waits there.
    let idle = UnixDatagram::unbound().expect("a socket");
    while !is_over.load(Relaxed) {
        for _ in 0..burst {
            forge(&forger, &mut random);
        }
        sent.fetch_add(burst, Relaxed);
        wait(&[&idle], BREATH);
    }
}

/// Says of some port that nothing at a backend takes what it sends.
fn forge_icmp(forger: &Forger, backends: &[SocketAddr], random: &mut StdRng) {
    let backend = v4(backends[random.random_range(0..backends.len())]);
    forger.port_unreachable(SocketAddrV4::new(Ipv4Addr::LOCALHOST, random.random_range(1024..=u16::MAX)), backend);
}

/// Sends some port what a backend could send: a name that is not there, or another address.
fn forge_replies(forger: &Forger, backends: &[SocketAddr], random: &mut StdRng) {
    let backend = v4(backends[random.random_range(0..backends.len())]);
    let query = query("h0.example", A).id(random.random()).to_vec();
    let reply = reply_to(&query).with_flags(AA);
    let reply = if random.random() { reply.rcode(NXDOMAIN) } else { reply.answer(a("203.0.113.66")) };
    let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, random.random_range(1024..=u16::MAX));
    forger.udp(backend, to, &reply.to_vec());
}

/// Sends queries with a forged source address for missing names: no backend replies, so each query waits.
fn forge_queries(forger: &Forger, target: SocketAddr, random: &mut StdRng) {
    let from = Ipv4Addr::new(127, random.random_range(1..=255), random.random(), random.random());
    let name = format!("{}.nowhere.example.org", random.random::<u32>());
    let from = SocketAddrV4::new(from, random.random_range(1024..=u16::MAX));
    forger.udp(from, v4(target), &query(&name, A).edns(1232).to_vec());
}

/// Asks by TCP without reading, again and again. Its address differs from those of the honest clients,
/// because the queries that one client has waiting are limited.
fn do_not_read(is_over: &AtomicBool, target: SocketAddr) {
    // A forged reply may reach a UDP port, and would wake a thread that waits there.
    let idle = UnixDatagram::unbound().expect("a socket");
    let mut clients = Vec::new();
    let queries: Vec<u8> =
        (0..50).flat_map(|number| framed(&query(&format!("h{number}.example"), A).to_vec())).collect();
    while !is_over.load(Relaxed) {
        let stream = Socket::new(Domain::IPV4, Type::STREAM, None).expect("this process has descriptors");
        stream.bind(&SocketAddr::from((ELSEWHERE, 0)).into()).expect("an address of loopback");
        if stream.connect_timeout(&target.into(), ms(100)).is_ok() {
            let _ = stream.set_nonblocking(true);
            let _ = stream.send(&queries);
            clients.push(stream);
        }
        if clients.len() > 60 {
            clients.drain(..30);
        }
        wait(&[&idle], ms(20));
    }
}

/// Leaves a process no descriptor more than it has.
fn take_descriptors(process: &Child) {
    let used = std::fs::read_dir(format!("/proc/{}/fd", process.id())).expect("it is running").count();
    limit_descriptors(process, used as u64);
}

/// Gives it enough of them.
fn give_descriptors(process: &Child) {
    limit_descriptors(process, 1024);
}

/// Sets how many descriptors a process may have.
fn limit_descriptors(process: &Child, count: u64) {
    // It has the bounds of this process, and the upper one cannot be raised again.
    let limit = Rlimit { current: Some(count), ..getrlimit(Resource::Nofile) };
    prlimit(Some(Pid::from_child(process)), Resource::Nofile, limit).expect("the process is ours");
}

/// A relay that loses one in ten datagrams each way.
struct Lossy {
    /// Where it is asked.
    address: SocketAddr,
}

impl Lossy {
    /// Before this backend, until the test ends.
    fn before(backend: SocketAddr) -> Self {
        let near = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let far = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        far.connect(backend).expect("loopback can be reached");
        let address = near.local_addr().expect("a bound socket has an address");
        thread::spawn(move || {
            let (mut buffer, mut askers) = ([0; 4096], vec![None; 1 << 16]);
            loop {
                wait(&[&near, &far], PATIENCE);
                for (from, is_reply) in [(&near, false), (&far, true)] {
                    from.set_nonblocking(true).expect("a socket");
                    while let Ok((length, peer)) = from.recv_from(&mut buffer) {
                        let id = usize::from(word(&buffer, 0));
                        if rand::random_ratio(1, 10) || length < 12 {
                            continue;
                        }
                        // Two clients with the same ID in flight cost one of them the reply: that is a loss
                        // like any other.
                        match (is_reply, askers[id]) {
                            (false, _) => {
                                askers[id] = Some(peer);
                                let _ = far.send(&buffer[..length]);
                            }
                            (true, Some(asker)) => drop(near.send_to(&buffer[..length], asker)),
                            (true, None) => {}
                        }
                    }
                }
            }
        });
        Self { address }
    }
}

/// Waits until one of some sockets has something, or for so long.
fn wait(sockets: &[&dyn AsFd], time: Duration) {
    let mut sockets: Vec<_> =
        sockets.iter().map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)).collect();
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    let _ = poll(&mut sockets, Some(&time));
}

/// An address of IPv4, as all are here.
fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address} is not of IPv4"),
    }
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value}: expected a number")))
}

/// The settings of the pool.
const RULES: &str = "dispatch = 'hedge'\naccept = 'conclusive'\ntries = 2\ntimeout = '5s'\nattempt_timeout = '500ms'\n\
                     [health]\ninterval = '500ms'\ntimeout = '500ms'";

/// Where the client is that does not read.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// Queries of true clients a second.
const RATE: u32 = 300;

/// How long it takes unless the environment says otherwise.
const SECONDS: u64 = 10;

/// Datagrams that are forged before the forger rests: some thousand a second.
const MANY: usize = 20;

/// The same of what has each backend asked twice: a hundred a second, for overload is not what this is about.
const FEW: usize = 1;

/// How long it rests.
const BREATH: Duration = ms(10);
