//! Overload: what can be answered is answered in time, the rest is dropped and counted, and soon all is as
//! before.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// How long after a flood all is as before; a busy machine may need twice that.
const NORMAL_AGAIN: Duration = Duration::from_secs(1);

/// A process that gets a small part of its time only: it is stopped again and again. Dropping this lets it
/// run.
struct Slowed {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Slowed {
    /// Lets the process run for `on`, then stand for `off`, and so on.
    fn new(process: &Process, on: Duration, off: Duration) -> Self {
        let pid = Pid::from_raw(process.id().cast_signed()).expect("no process has the number 0");
        let (stop, stopped) = channel();
        let signal = move |signal| kill_process(pid, signal).expect("the process is ours");
        signal(Signal::STOP);
        let thread = thread::spawn(move || {
            loop {
                signal(Signal::STOP);
                let is_over = stopped.recv_timeout(off) != Err(RecvTimeoutError::Timeout);
                signal(Signal::CONT);
                if is_over || stopped.recv_timeout(on) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        self.stop.take();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The result of a flood.
#[derive(Default)]
struct Met {
    sent: u64,
    /// How long those that were answered in the second half of it waited.
    waited: Vec<Duration>,
}

/// Sends different queries for so long, far more than can be answered, and reads what comes.
fn flood(server: SocketAddr, time: Duration) -> Met {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    socket.connect(server).expect("loopback can be reached");
    socket.set_nonblocking(true).expect("a socket need not block");
    let mut query = query("www.example", A).id(0).to_vec();
    let mut since = HashMap::new();
    let (mut met, begin) = (Met::default(), Instant::now());
    let mut buffer = [0; 512];
    while begin.elapsed() < time {
        for _ in 0..32 {
            let id = met.sent as u16;
            query[..2].copy_from_slice(&id.to_be_bytes());
            // A full buffer of our own says nothing about the server.
            if socket.send(&query).is_ok() {
                since.insert(id, Instant::now());
                met.sent += 1;
            }
        }
        while let Ok(length) = socket.recv(&mut buffer) {
            let id = u16::from_be_bytes([buffer[0], buffer[1]]);
            if let Some(since) = since.remove(&id).filter(|_| length > 12 && begin.elapsed() > time / 2) {
                met.waited.push(since.elapsed());
            }
        }
    }
    met.waited.sort_unstable();
    met
}

/// Returns the number of queries that an authority has dropped for overload.
fn overloaded(server: &Server) -> u64 {
    server.admin().metrics().sum("hedgerow_dropped_total", &[("reason", "overload")])
}

/// A TS with an admin server and one worker.
fn authority() -> Server {
    let config = "workers = 1\n[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt']\n\
                  [admin]\nlisten = '127.0.0.1:0'\n";
    Server::start_with_files(config, &[("hosts.txt", &format!("www.example {ADDRESS} A\n"))])
}

#[test]
fn flood_costs_neither_goodput_nor_time_nor_memory() {
    let ts = authority();
    let backend = Backend::new(answer_for(3600, ADDRESS));
    let ls = Forwarder::to(&[&backend], "").cache("").admin().start();
    assert_eq!(ls.client().ask(&query("www.example", A)).answers(), [ADDRESS]);
    for (server, address) in [(&ts, ts.listener("ts")), (&ls, ls.address())] {
        let memory = server.process.resident();
        // A tenth of its time: what this test sends is many times what it can answer then.
        let slowed = Slowed::new(&server.process, ms(3), ms(27));
        let met = flood(address, Duration::from_secs(4));
        drop(slowed);
        let dropped = overloaded(server);
        let answered = met.waited.len();
        eprintln!("{} sent, {answered} answered in 2 s, median {:?}, {dropped} dropped", met.sent, median(&met.waited));
        assert!(dropped > 0, "{} queries were no overload", met.sent);
        assert!(answered > 100, "{answered} of {} answered", met.sent);
        // 100 ms, and what a busy machine adds.
        assert!(median(&met.waited) < ms(400), "{:?}", median(&met.waited));
        assert!(server.process.resident() < memory + (32 << 20), "{} kB", server.process.resident() >> 10);
        // What is left of the flood is dropped first; a client that meets that asks again.
        let (asked, client) = (Instant::now(), Client::of(address));
        let response = until("all is as before", || client.try_ask(&query("www.example", A)));
        assert_eq!(response.answers(), [ADDRESS]);
        assert!(asked.elapsed() < 2 * NORMAL_AGAIN, "{:?}", asked.elapsed());
    }
}

#[test]
fn queries_that_waited_while_the_server_stood_still_are_answered() {
    let server = authority();
    let address = server.listener("ts");
    let clients: Vec<_> = (0..100).map(|_| Client::of(address)).collect();
    let question = query("www.example", A);
    assert_eq!(clients[0].ask(&question).answers(), [ADDRESS]);
    let stopped = Slowed::new(&server.process, PATIENCE, ms(300));
    for client in &clients {
        client.send(&question);
    }
    for client in &clients {
        assert_eq!(client.receive().answers(), [ADDRESS]);
    }
    drop(stopped);
    assert_eq!(overloaded(&server), 0);
}

/// The median of what is sorted.
fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or(Duration::MAX)
}
