//! Fetches of whole answers by TCP, as a worker makes them: one backend after the other.

use std::time::Instant;

use config::Rank;
use dns::address::Scheme;
use engine::{FetchQuery, RaceRef, rank};
use metrics::FetchResult;

use super::io::{Place, host_of};
use super::{Around, Endpoint, FETCHES, Forwarder, Frames, StreamId, StreamNews};

#[derive(Debug)]
pub(super) struct Fetch {
    race: RaceRef,
    query: FetchQuery,
    /// The place of the backend that is asked.
    at: usize,
    stream: StreamId,
    frames: Frames,
    pub(super) until: Instant,
}

impl Fetch {
    /// Asks the first backend.
    pub(super) fn begin(race: RaceRef, query: FetchQuery, by: Endpoint, around: &mut Around) -> Self {
        let (stream, until) = dial(&query, 0, by, around);
        Self { race, query, at: 0, stream, frames: Frames::default(), until }
    }

    /// Asks the next backend. Returns false if there is none, or no time.
    fn go_on(&mut self, by: Endpoint, around: &mut Around) -> bool {
        self.at += 1;
        if self.at >= self.query.backends.len() || around.now >= self.query.deadline {
            return false;
        }
        (self.stream, self.until) = dial(&self.query, self.at, by, around);
        self.frames = Frames::default();
        true
    }

    /// Returns true if the reply is whole. The answer exists, so a negative reply of another backend is none.
    fn is_whole(&self, reply: &[u8]) -> bool {
        let least = if self.at > 0 { Rank::Positive } else { Rank::Nodata };
        dns::read_reply(reply).is_ok_and(|reply| !reply.is_truncated() && rank(&reply) >= least)
    }
}

fn dial(query: &FetchQuery, at: usize, by: Endpoint, around: &mut Around) -> (StreamId, Instant) {
    let to = host_of(query.backends[at].address.ip());
    around.log(format_args!("a whole answer is fetched from host {to}"));
    (around.dial(by, to, Scheme::Tcp), query.deadline.min(around.now + query.patience))
}

impl Forwarder {
    fn fetching(&self, worker: usize) -> Endpoint {
        Place { host: self.host, process: self.process, worker }.fetching()
    }

    pub(super) fn on_fetch_stream(&mut self, stream: StreamId, port: u32, what: StreamNews, around: &mut Around) {
        let worker = (port - FETCHES) as usize;
        let by = self.fetching(worker);
        let fetches = &mut self.sockets[worker].fetches;
        let Some(at) = fetches.iter().position(|fetch| fetch.stream == stream) else { return around.close(stream, by) };
        let fetch = &mut fetches[at];
        match what {
            StreamNews::Dialed(_) => {}
            StreamNews::Opened => around.write(stream, by, &fetch.query.message),
            StreamNews::Reset => self.fetch_fails(worker, at, around),
            StreamNews::Bytes(bytes) => {
                fetch.frames.push(&bytes);
                let Some(reply) = fetch.frames.next() else { return };
                around.close(stream, by);
                if !fetch.is_whole(&reply) {
                    return self.fetch_fails(worker, at, around);
                }
                let race = fetches.remove(at).race;
                around.truth.heard(self.host, &reply, around.now);
                let reply = dns::read_reply(&reply).expect("it was read");
                self.tick(worker, around, |tick| tick.on_fetched(race, &reply));
            }
        }
    }

    fn fetch_fails(&mut self, worker: usize, at: usize, around: &mut Around) {
        let by = self.fetching(worker);
        if !self.sockets[worker].fetches[at].go_on(by, around) {
            let race = self.sockets[worker].fetches.remove(at).race;
            self.tick(worker, around, |tick| tick.on_fetch_failed(race, FetchResult::Failed));
        }
    }

    /// Gives up the backends that are silent for too long.
    pub(super) fn look_at_fetches(&mut self, worker: usize, around: &mut Around) {
        while let Some(at) = self.sockets[worker].fetches.iter().position(|fetch| fetch.until <= around.now) {
            around.close(self.sockets[worker].fetches[at].stream, self.fetching(worker));
            self.fetch_fails(worker, at, around);
        }
    }
}
