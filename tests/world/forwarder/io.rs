//! The I/O of one worker's engine: datagrams and streams of the modelled network in place of sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns::address::BackendAddress;
use engine::query_slots::{QuerySlot, SocketId, SocketSetId};
use engine::state::{HealthSignal, SharedBackend};
use engine::{
    AskedFor, Destination, FetchQuery, Io, NotSent, Outstanding, RaceRef, RaceReport, ResponseOrigin, ResponseSummary,
    SentAttempt, TcpQuery, Waiter,
};
use hedge::race::{AttemptKind, RaceEnd};
use rand::RngExt;

use super::fetches::Fetch;
use super::{Caller, FETCHES};
use crate::world::checks;
use crate::world::clock::Around;
use crate::world::host::HostId;
use crate::world::network::{Endpoint, Frames, ProcessId, StreamId};

/// The sockets to each backend.
pub(super) const SOCKETS: u32 = 64;

/// The connections to each backend.
pub(super) const LINKS: usize = 4;

#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) host: HostId,
    pub(super) process: ProcessId,
    pub(super) worker: usize,
}

impl Place {
    pub(super) fn own(self, socket: SocketId) -> Endpoint {
        let port = (self.worker as u32) << 24 | socket.0;
        Endpoint::Own { host: self.host, process: self.process, port }
    }

    pub(super) fn fetching(self) -> Endpoint {
        Endpoint::Own { host: self.host, process: self.process, port: FETCHES + self.worker as u32 }
    }
}

/// Returns the worker and the socket of a port.
pub(super) fn socket_of(port: u32) -> (usize, SocketId) {
    ((port >> 24) as usize, SocketId(port & 0x00FF_FFFF))
}

pub(super) fn set_of(socket: SocketId) -> SocketSetId {
    SocketSetId(socket.0 / SOCKETS)
}

/// Returns the host of an address, which ends in its number and one.
pub(super) fn host_of(address: IpAddr) -> HostId {
    match address {
        IpAddr::V4(address) => HostId::from(address.octets()[3]) - 1,
        IpAddr::V6(_) => unreachable!("the world has IPv4 alone"),
    }
}

pub(crate) fn address_of(host: HostId) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, host as u8 + 1)
}

#[derive(Debug, Default)]
pub(super) struct WorkerSockets {
    pub(super) sets: Vec<Option<SocketSet>>,
    /// The slots of queries whose reply may come, each with its race if that is not over.
    pub(super) taken: BTreeMap<QuerySlot, Option<RaceRef>>,
    pub(super) fetches: Vec<Fetch>,
}

#[derive(Debug)]
pub(super) struct SocketSet {
    pub(super) address: BackendAddress,
    pub(super) links: [Option<Link>; LINKS],
    pub(super) again_at: Option<Instant>,
}

/// A connection to a backend.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stream: StreamId,
    pub(super) opened: Option<Instant>,
    pub(super) dialed: Instant,
    pub(super) queued: Vec<Vec<u8>>,
    /// The time since which queries wait and nothing has arrived.
    pub(super) quiet_since: Option<Instant>,
    pub(super) frames: Frames,
}

impl WorkerSockets {
    pub(super) fn is_taken(&self, slot: QuerySlot) -> bool {
        self.taken.contains_key(&slot)
    }

    pub(super) fn set(&mut self, sockets: SocketSetId) -> Option<&mut SocketSet> {
        self.sets.get_mut(sockets.0 as usize)?.as_mut()
    }

    pub(super) fn link(&mut self, socket: SocketId) -> Option<&mut Link> {
        self.set(set_of(socket))?.links.get_mut((socket.0 % SOCKETS) as usize)?.as_mut()
    }

    fn waiting_on(&self, socket: SocketId) -> usize {
        self.taken.keys().filter(|slot| slot.socket() == socket).count()
    }

    /// Takes the slots of one socket, or of all sockets of a set.
    pub(super) fn take(&mut self, is_meant: impl Fn(SocketId) -> bool) -> Vec<QuerySlot> {
        let lost: Vec<QuerySlot> = self.taken.keys().copied().filter(|slot| is_meant(slot.socket())).collect();
        for slot in &lost {
            self.taken.remove(slot);
        }
        lost
    }

    pub(super) fn open_streams(&self) -> usize {
        self.sets.iter().flatten().flat_map(|set| &set.links).flatten().count()
    }

    /// Returns the next time at which a connection or a fetch may be given up.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let links = self.sets.iter().flatten().flat_map(|set| &set.links).flatten();
        links.filter_map(Link::gives_up_at).chain(self.fetches.iter().map(|fetch| fetch.until)).min()
    }
}

impl Link {
    /// Returns the time at which this connection counts as dead, if nothing arrives.
    pub(super) fn gives_up_at(&self) -> Option<Instant> {
        match self.opened {
            None => Some(self.dialed + PATIENCE),
            Some(_) => self.quiet_since.map(|since| since + PATIENCE),
        }
    }
}

/// The time for a handshake, and that of silence on a connection with pending queries.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) const BACKOFF: Duration = Duration::from_millis(100);

pub(crate) struct Lines<'a> {
    pub(super) place: Place,
    pub(super) sockets: &'a mut WorkerSockets,
    pub(super) around: &'a mut Around,
    pub(super) waiting: &'a mut BTreeMap<usize, Vec<Instant>>,
    pub(super) signals: &'a mut Vec<(Arc<SharedBackend>, HealthSignal)>,
}

impl Lines<'_> {
    fn dial_one(&mut self, sockets: SocketSetId) {
        let (place, now) = (self.place, self.around.now);
        let Some(set) = self.sockets.set(sockets) else { return };
        let is_dialing = set.links.iter().flatten().any(|link| link.opened.is_none());
        let Some(free) = set.links.iter().position(Option::is_none) else { return };
        if is_dialing || set.again_at.is_some_and(|at| now < at) {
            return;
        }
        let (to, scheme) = (host_of(set.address.ip()), set.address.scheme);
        let own = place.own(SocketId(sockets.0 * SOCKETS + free as u32));
        let stream = self.around.dial(own, to, scheme);
        if let Some(set) = self.sockets.set(sockets) {
            let (queued, frames) = (Vec::new(), Frames::default());
            set.links[free] = Some(Link { stream, opened: None, dialed: now, queued, quiet_since: None, frames });
        }
    }

    fn choose_link(&mut self, sockets: SocketSetId, avoid: Option<SocketId>) -> Result<SocketId, NotSent> {
        let open = |lines: &mut Self| lines.sockets.set(sockets).map_or(0, |set| set.links.iter().flatten().count());
        if open(self) < 2 {
            self.dial_one(sockets);
        }
        let set = self.sockets.set(sockets).ok_or(NotSent::Unreachable)?;
        let all: Vec<_> =
            (0..LINKS).filter_map(|place| Some((place, set.links[place].as_ref()?.opened.is_some()))).collect();
        let sockets_of = |(place, is_open): (usize, bool)| (SocketId(sockets.0 * SOCKETS + place as u32), is_open);
        let all = all.into_iter().map(sockets_of);
        let best =
            all.min_by_key(|(socket, is_open)| (Some(*socket) == avoid, !is_open, self.sockets.waiting_on(*socket)));
        best.map(|(socket, _)| socket).ok_or(NotSent::Full)
    }

    fn is_by_stream(&mut self, sockets: SocketSetId) -> bool {
        self.sockets.set(sockets).is_some_and(|set| set.address.scheme.is_stream())
    }
}

impl Io for Lines<'_> {
    type Client = Caller;

    fn add_backend(&mut self, backend: &Arc<SharedBackend>) -> SocketSetId {
        let sets = &mut self.sockets.sets;
        let place = sets.iter().position(Option::is_none).unwrap_or_else(|| {
            sets.push(None);
            sets.len() - 1
        });
        sets[place] = Some(SocketSet { address: backend.address, links: Default::default(), again_at: None });
        SocketSetId(place as u32)
    }

    fn remove_backend(&mut self, sockets: SocketSetId, lost: &mut Vec<QuerySlot>) {
        let mut left = self.sockets.taken.iter().filter(|(slot, _)| set_of(slot.socket()) == sockets);
        assert!(left.all(|(_, race)| race.is_none()), "a member stays until all races of its plans are over");
        lost.extend(self.sockets.take(|socket| set_of(socket) == sockets));
        let set = self.sockets.sets[sockets.0 as usize].take();
        for (place, link) in set.into_iter().flat_map(|set| set.links).enumerate() {
            if let Some(link) = link {
                self.around.close(link.stream, self.place.own(SocketId(sockets.0 * SOCKETS + place as u32)));
            }
        }
    }

    fn is_cold(&self, sockets: SocketSetId) -> bool {
        let set = self.sockets.sets.get(sockets.0 as usize).and_then(Option::as_ref);
        let is_cold = |set: &SocketSet| set.links.iter().flatten().all(|link| link.opened.is_none());
        set.is_some_and(|set| set.address.scheme.is_stream() && is_cold(set))
    }

    fn dial(&mut self, sockets: SocketSetId, _now: Instant) {
        if self.is_by_stream(sockets) {
            self.dial_one(sockets);
        }
    }

    fn opened(&self, socket: SocketId) -> Option<Instant> {
        let set = self.sockets.sets.get(set_of(socket).0 as usize)?.as_ref()?;
        set.links.get((socket.0 % SOCKETS) as usize)?.as_ref()?.opened
    }

    fn choose(&mut self, to: &Destination<'_, Caller>, _now: Instant) -> Result<SocketId, NotSent> {
        if self.is_by_stream(to.sockets) {
            return self.choose_link(to.sockets, to.avoid);
        }
        self.sockets.set(to.sockets).ok_or(NotSent::Unreachable)?;
        Ok(SocketId(to.sockets.0 * SOCKETS + self.around.rng.random_range(0..SOCKETS)))
    }

    fn send(
        &mut self,
        slot: QuerySlot,
        to: &Destination<'_, Caller>,
        outstanding: Outstanding,
        attempt: &SentAttempt<'_>,
        now: Instant,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), NotSent> {
        let mut query = Vec::new();
        write(&mut query);
        dns::set_id(&mut query, slot.id());
        let set = self.sockets.set(to.sockets).ok_or(NotSent::Unreachable)?;
        let host = host_of(set.address.ip());
        self.around.log(format_args!("forwarder {}: asks host {host}, {:?}", self.place.host, attempt.kind));
        let own = self.place.own(slot.socket());
        if attempt.kind == AttemptKind::Hedge {
            let Place { host, process, .. } = self.place;
            self.around.truth.hedged((host, process), attempt.pool.budget().level().0);
        }
        if !self.is_by_stream(to.sockets) {
            self.sockets.taken.insert(slot, Some(outstanding.race()));
            self.around.send(own, Endpoint::Service(host), query);
            return Ok(());
        }
        let link = self.sockets.link(slot.socket()).ok_or(NotSent::Full)?;
        link.quiet_since.get_or_insert(now);
        let stream = link.stream;
        match link.opened {
            None => link.queued.push(query),
            Some(_) => self.around.write(stream, own, &query),
        }
        self.sockets.taken.insert(slot, Some(outstanding.race()));
        Ok(())
    }

    fn free(&mut self, slot: QuerySlot, _now: Instant) {
        let was_taken = self.sockets.taken.remove(&slot).is_some();
        assert!(was_taken, "each query ends once");
        if self.sockets.waiting_on(slot.socket()) == 0
            && let Some(link) = self.sockets.link(slot.socket())
        {
            link.quiet_since = None;
        }
    }

    fn take_back(&mut self, sockets: SocketSetId, lost: &mut Vec<QuerySlot>) {
        lost.extend(self.sockets.take(|socket| set_of(socket) == sockets));
    }

    /// Returns false: the world has no forgers, so no query needs this.
    fn ask_by_tcp(&mut self, _outstanding: Outstanding, _query: TcpQuery, _asked_for: AskedFor<'_, Caller>) -> bool {
        false
    }

    fn fetch(&mut self, race: RaceRef, query: FetchQuery, _asked_for: AskedFor<'_, Caller>, _now: Instant) -> bool {
        self.sockets.fetches.push(Fetch::begin(race, query, self.place.fetching(), self.around));
        true
    }

    fn respond(
        &mut self,
        waiter: &Waiter<Caller>,
        _origin: &ResponseOrigin<'_>,
        _summary: ResponseSummary,
        message: &mut Vec<u8>,
        now: Instant,
    ) {
        let Caller { client, stream } = waiter.client;
        let answered = waiter.queries as usize;
        let since = self.waiting.get_mut(&client).filter(|since| since.len() >= answered);
        since.expect("one response for each query").drain(..answered);
        let Place { host, process, .. } = self.place;
        self.around.log(format_args!("forwarder {host}: response to client {client}: {:?}", checks::read(message)));
        self.around.truth.responded(client, (host, process), waiter.queries, message, now);
        match stream {
            None => self.around.send(Endpoint::Service(host), Endpoint::Client(client), message.clone()),
            Some(stream) => {
                let by = Endpoint::Own { host, process, port: super::PROBES - 1 };
                self.around.write(stream, by, message);
            }
        }
    }

    fn respond_nothing(&mut self, _waiter: &Waiter<Caller>, _: &ResponseOrigin<'_>, _question: &[u8], _now: Instant) {
        panic!("the config asks for a response in any case");
    }

    fn signal_prober(&mut self, backend: &Arc<SharedBackend>, signal: HealthSignal) {
        self.signals.push((Arc::clone(backend), signal));
    }

    fn race_over(&mut self, report: RaceReport<'_>) -> bool {
        let its = self.sockets.taken.values_mut().filter(|race| **race == Some(report.id));
        its.for_each(|race| *race = None);
        let (attempts, _) = report.race.tally();
        let sent = |kind| report.race.attempts().filter(move |attempt| attempt.kind == kind && attempt.is_sent);
        let first: BTreeSet<_> = sent(AttemptKind::First).map(|attempt| attempt.backend.get()).collect();
        assert_eq!(first.len(), sent(AttemptKind::First).count(), "the first attempts go to different backends");
        assert!(sent(AttemptKind::Hedge).count() <= 1, "one hedge for each query, as the config has it");
        assert!(attempts <= 8, "{attempts} attempts for one query");
        if report.result.end == RaceEnd::Nothing && self.around.truth.longest_stop.is_zero() {
            let is_asked = |candidate| report.race.attempts().any(|attempt| attempt.backend == candidate);
            assert!(report.race.candidates().iter().all(is_asked), "a race in silence asks all candidates");
        }
        if report.result.won_by.is_some() {
            let Place { host, process, .. } = self.place;
            self.around.truth.earned((host, process));
        }
        true
    }
}
