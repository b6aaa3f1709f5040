//! Failures of two hosts that share one address, by whatever means the address moves: the first gets SIGTERM
//! and comes back, is killed, and is cut off. A client sends queries all the while, and each step reports how
//! long the address took to move.

use std::net::SocketAddr;
use std::time::Instant;

use rustix::process::Signal;

use crate::hosts::{Host, WHILE};
use crate::{Load, Report, Server};

/// Two hosts with one address.
pub struct OneAddress<'a> {
    /// The host that has the address at first.
    pub first: &'a Host,
    /// The host that takes the address over.
    pub second: &'a Host,
    /// The shared address.
    pub address: SocketAddr,
    /// The listener lines of the config.
    pub listen: &'a str,
    /// Waits until the first host alone has the address.
    pub wait_for_first: &'a dyn Fn(),
    /// Waits until the second host alone has the address.
    pub wait_for_second: &'a dyn Fn(),
}

impl OneAddress<'_> {
    /// The server of the first host gets SIGTERM, and later another is started there: no query is lost, and
    /// each is answered by one host. Returns the other.
    pub fn end_and_come_back(&self, mut one: Server) -> Server {
        let Self { first, second, .. } = self;
        let load = self.load();
        // It says that it is not ready, and answers until the address is the other's.
        let before = Instant::now();
        one.process.signal(Signal::TERM);
        (self.wait_for_second)();
        eprintln!("SIGTERM until the other machine alone has the address: {:?}", before.elapsed());
        load.run_for(WHILE);
        let (moved, ended) = (second.answered(), first.answered());
        load.run_for(WHILE);
        assert_eq!(first.answered(), ended, "no query goes there any more");
        assert!(second.answered() > moved, "everybody asks here");
        // A second signal ends the server at once, without a grace period.
        one.process.signal(Signal::TERM);
        assert_eq!(one.process.wait_for_exit().code(), Some(1));
        load.run_for(WHILE);

        one = first.start(self.listen);
        let before = Instant::now();
        (self.wait_for_first)();
        eprintln!("start until the first machine has the address again: {:?}", before.elapsed());
        load.run_for(WHILE);
        let report = load.stop();
        let (sent, answered) = (report.queries.len(), ended + first.answered() + second.answered());
        check_nothing_lost(&report);
        assert_eq!(answered, sent, "each by one machine, once");
        one
    }

    /// Kills the server of the first host. Returns the number of queries without an answer.
    pub fn crash(&self, one: &Server) -> usize {
        self.lose("kill -9", || one.process.signal(Signal::KILL), self.wait_for_second)
    }

    /// Cuts off the first host without a message. `wait` until the other has the address: the first may still
    /// own it, too.
    pub fn cut_off(&self, wait: &dyn Fn()) -> usize {
        self.lose("a machine cut off", || drop(self.first.run("ip", "link set eth0 down")), wait)
    }

    /// Fails the first host by `end`, and waits until the second has the address. Returns the number of
    /// queries without an answer.
    fn lose(&self, what: &str, end: impl FnOnce(), wait: &dyn Fn()) -> usize {
        let load = self.load();
        let before = Instant::now();
        end();
        wait();
        let took = before.elapsed();
        load.run_for(WHILE);
        // The server that owes the other answers is gone, and the server that is left has answered for a
        // while.
        let report = load.stop_within(WHILE);
        let unanswered = report.lost() + report.refused;
        eprintln!(
            "{what} until the other machine has the address: {took:?}; unanswered: {unanswered} of 1000 a second"
        );
        assert_eq!(report.wrong(), 0);
        unanswered
    }

    /// Checks that a client gets a response to each query.
    pub fn check(&self) {
        check_nothing_lost(&self.load().stop());
    }

    /// A client that has asked for a while.
    fn load(&self) -> Load {
        let load = Load::start(self.address, 1000);
        load.run_for(WHILE);
        load
    }
}

fn check_nothing_lost(report: &Report) {
    let sent = report.queries.len();
    assert_eq!((report.lost(), report.wrong(), report.strays, report.refused), (0, 0, 0, 0), "of {sent}");
}
