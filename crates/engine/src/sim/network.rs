//! The I/O of an engine in a scenario: modelled backends in place of sockets, and clients that only wait.
//!
//! The network reads each query that the engine sends. The modelled backend decides the reply and its time,
//! which become an event.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Rank;
use dns::Transport;
use hashbrown::HashMap;
use hedge::timers::Timers;
use rand::rngs::{StdRng, Xoshiro256PlusPlus};
use rand::{RngExt, SeedableRng};

use super::backend::{CONNECT_TIMEOUT, QueryFate, SimulatedBackend};
use super::delay::exponential;
use super::event::{Back, Event, Happening, SimulatedLinkKey};
use super::links::{LinkState, QueuedQuery, SimulatedLink, SimulatedLinks};
use super::message::{self, ModelAnswer};
use super::replay::ReplayedTrace;
use super::spells::Unfolding;
use crate::query_slots::{QuerySlot, SocketId, SocketSetId};
use crate::state::{HealthSignal, SharedBackend};
use crate::{
    AskedFor, Destination, FetchQuery, Io, LateReport, NotSent, Outstanding, RaceRef, RaceReport, ResponseOrigin,
    ResponseSummary, SentAttempt, TcpQuery, Waiter,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller(pub(super) u32);

impl crate::ClientHandle for Caller {
    fn ip(&self) -> IpAddr {
        Ipv4Addr::from_bits(self.0).into()
    }

    fn transport(&self) -> Transport {
        Transport::Udp
    }

    fn is_admin(&self) -> bool {
        false
    }

    fn is_same_socket(&self, other: &Self) -> bool {
        self == other
    }
}

/// A client that waits, or has sent its query more than once.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingClient {
    pub(super) since: Instant,
    pub(super) name: u32,
    pub(super) pool: usize,
    pub(super) asked: u32,
    pub(super) responses: u32,
}

pub(super) struct Network<'a, F> {
    pub(super) now: Instant,
    start: Instant,
    pub(super) observe: F,
    pub(super) backends: Vec<SimulatedBackend<'a>>,
    sockets: Vec<SimulatedSockets>,
    /// The worker whose event is played.
    pub(super) worker: usize,
    /// The events, each with its worker.
    pub(super) events: Timers<(usize, Event)>,
    times: NetworkTimes<'a>,
    /// The seed that decides for each backend the names it knows.
    knowledge: u64,
    pub(super) clients: HashMap<u32, WaitingClient, foldhash::fast::FixedState>,
    pub(super) signals: Vec<(usize, HealthSignal)>,
    scratch: Vec<u8>,
}

/// The causes of latency that all backends share.
pub(super) struct NetworkTimes<'a> {
    pub(super) slow: Unfolding<'a, f64>,
    pub(super) replay: Option<&'a ReplayedTrace>,
}

/// The sockets and connections of one worker.
pub(super) struct SimulatedSockets {
    /// The connections to each backend; `None` for UDP.
    pub(super) links: Vec<Option<SimulatedLinks>>,
    /// The backend of each set of sockets.
    sets: Vec<Option<usize>>,
    /// The slots of outstanding queries.
    pub(super) taken: BTreeSet<QuerySlot>,
    rng: StdRng,
    /// The name asked for from each slot, if the caller needs it.
    pub(super) asked: Option<HashMap<QuerySlot, u32, foldhash::fast::FixedState>>,
}

impl<'a, F: FnMut(Duration, Happening<'_>)> Network<'a, F> {
    pub(super) fn new(
        start: Instant,
        backends: Vec<SimulatedBackend<'a>>,
        times: NetworkTimes<'a>,
        seeds: &mut impl FnMut() -> u64,
        observe: F,
    ) -> Self {
        let sockets = vec![SimulatedSockets::new(&backends, seeds)];
        Self {
            now: start,
            start,
            observe,
            backends,
            sockets,
            worker: 0,
            events: Timers::new(),
            times,
            knowledge: seeds(),
            clients: HashMap::default(),
            signals: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Adds the sockets of another worker.
    pub(super) fn add_worker(&mut self, seeds: &mut impl FnMut() -> u64) {
        self.sockets.push(SimulatedSockets::new(&self.backends, seeds));
    }

    pub(super) fn schedule(&mut self, at: Instant, event: Event) {
        self.events.push(at, (self.worker, event));
    }

    pub(super) fn sockets(&self) -> &SimulatedSockets {
        &self.sockets[self.worker]
    }

    pub(super) fn sockets_mut(&mut self) -> &mut SimulatedSockets {
        &mut self.sockets[self.worker]
    }

    pub(super) fn observe(&mut self, happening: Happening<'_>) {
        (self.observe)(self.now - self.start, happening);
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Returns the time since the start, and the factor by which the backend is slower now.
    fn pace(&mut self, backend: usize) -> (Duration, f64) {
        let elapsed = self.elapsed();
        (elapsed, self.times.slow.at(elapsed) * self.backends[backend].slow.at(elapsed))
    }

    pub(super) fn ask(&mut self, backend: usize) -> QueryFate {
        let (elapsed, slow) = self.pace(backend);
        self.backends[backend].ask(elapsed, slow)
    }

    pub(super) fn ask_by_stream(&mut self, backend: usize) -> QueryFate {
        let (elapsed, slow) = self.pace(backend);
        self.backends[backend].ask_by_stream(elapsed, slow)
    }

    pub(super) fn set_of_backend(&self, backend: usize) -> Option<SocketSetId> {
        let set = self.sockets().sets.iter().position(|known| *known == Some(backend))?;
        Some(SocketSetId(set as u32))
    }

    pub(super) fn at(&self, time: Duration) -> Instant {
        self.start + time
    }

    fn post(&mut self, index: usize, query: QueuedQuery) {
        let QueuedQuery { slot, outstanding, name, .. } = query;
        let fate = match self.times.replay {
            Some(trace) => {
                let latency = trace.latency(name, outstanding.attempt().0);
                latency.map_or(QueryFate::Lost, |latency| QueryFate::Replied(self.elapsed() + latency))
            }
            None => self.ask(index),
        };
        let at = match fate {
            QueryFate::Lost => return,
            QueryFate::Unreachable(at) => {
                let back = Back::Unreachable;
                return self.schedule(self.at(at), Event::Back { slot, outstanding, name, back });
            }
            QueryFate::Replied(at) => self.at(at),
        };
        self.reply(index, query, at, true);
    }

    fn reply(&mut self, index: usize, query: QueuedQuery, at: Instant, may_be_unreachable: bool) {
        let QueuedQuery { slot, outstanding, name, has_opt } = query;
        let mut at = at;
        let SimulatedBackend { model, rng, .. } = &mut self.backends[index];
        let bare = rng.random_bool(model.faults.bare).then_some(at);
        if bare.is_some() {
            at += exponential(at - self.now, rng);
        }
        let back = if may_be_unreachable && rng.random_bool(model.faults.unreachable) {
            Some(Back::Unreachable)
        } else if has_opt && model.faults.refuses_opt {
            Some(Back::Reply(ModelAnswer::OptRefused))
        } else if rng.random_bool(model.faults.failure) {
            Some(Back::Reply(ModelAnswer::Ranked(Rank::Failure)))
        } else if knows(self.knowledge, name, index, model.knows) {
            Some(Back::Reply(ModelAnswer::Ranked(Rank::Positive)))
        } else {
            model.miss.map(|rank| Back::Reply(ModelAnswer::Ranked(rank)))
        };
        if let Some(bare) = bare {
            let back = Back::Reply(ModelAnswer::Bare);
            self.schedule(bare, Event::Back { slot, outstanding, name, back });
        }
        if let Some(back) = back {
            self.schedule(at, Event::Back { slot, outstanding, name, back });
        }
    }

    pub(super) fn backend_of(&self, socket: SocketId) -> Option<usize> {
        self.backend_of_set(set_of(socket))
    }

    fn backend_of_set(&self, sockets: SocketSetId) -> Option<usize> {
        self.sockets().sets.get(sockets.0 as usize).copied().flatten()
    }

    pub(super) fn post_by_stream(&mut self, index: usize, place: usize, query: QueuedQuery) {
        let (now, slow) = self.pace(index);
        let is_resent = self.backends[index].loses(now);
        let links = self.sockets[self.worker].links[index].as_mut();
        let Some(link) = links.and_then(|links| links.all.get_mut(place)) else { return };
        if is_resent {
            link.resend(now);
        }
        link.sent(now);
        let generation = link.generation;
        if !std::mem::replace(&mut link.is_watched, true) {
            let key = SimulatedLinkKey { backend: index, place, generation };
            self.events.push(self.now, (self.worker, Event::Look(key)));
        }
        let Some(arrival) = link.arrival(now) else { return };
        let QueryFate::Replied(replied) = self.backends[index].ask_by_stream(now, slow) else { return };
        let replied = link.thawed(replied + (arrival - now));
        if let Some(replied) = replied {
            self.reply(index, query, self.at(replied), false);
        }
    }

    fn dial_one(&mut self, backend: usize) {
        let (now, slow) = self.pace(backend);
        let Some(links) = &mut self.sockets_mut().links[backend] else { return };
        let Some(place) = links.dial(now) else { return };
        let link = SimulatedLinkKey { backend, place, generation: links.all[place].generation };
        let (at, is_open, is_refused) = match self.backends[backend].open(now, slow) {
            QueryFate::Replied(at) => (at, true, false),
            QueryFate::Unreachable(at) => (at, false, true),
            QueryFate::Lost => (now + CONNECT_TIMEOUT, false, false),
        };
        self.schedule(self.at(at), Event::Dialled { link, is_open, is_refused });
    }

    /// Chooses the place of the connection for a query; `None` for UDP.
    fn place_for(&mut self, backend: usize, avoid: Option<usize>) -> Option<Result<usize, NotSent>> {
        self.sockets().links[backend].as_ref()?;
        self.dial_one(backend);
        let place = self.sockets().links[backend].as_ref()?.choose(avoid);
        Some(place.ok_or(NotSent::Full))
    }

    /// Returns the connection, unless another one has taken its place.
    pub(super) fn link(&mut self, link: SimulatedLinkKey) -> Option<&mut SimulatedLink> {
        let known = self.sockets_mut().links[link.backend].as_mut()?.all.get_mut(link.place)?;
        (known.generation == link.generation).then_some(known)
    }

    /// Returns the connection of a slot; `None` for UDP.
    pub(super) fn link_of(&mut self, slot: QuerySlot) -> Option<&mut SimulatedLink> {
        let backend = self.backend_of(slot.socket())?;
        self.sockets_mut().links[backend].as_mut()?.all.get_mut(slot.socket().index() % SOCKETS)
    }

    pub(super) fn left(&mut self, slot: QuerySlot) {
        if self.sockets_mut().taken.remove(&slot)
            && let Some(link) = self.link_of(slot)
        {
            link.left();
        }
    }

    pub(super) fn take_socket(&mut self, socket: SocketId) -> Option<(SocketSetId, Vec<QuerySlot>)> {
        self.backend_of(socket)?;
        let mut lost = Vec::new();
        self.take(|slot| slot.socket() == socket, &mut lost);
        Some((set_of(socket), lost))
    }

    pub(super) fn take_link(&mut self, backend: usize, place: usize) -> Option<(SocketSetId, Vec<QuerySlot>)> {
        let sockets = self.set_of_backend(backend)?;
        self.take_socket(SocketId(sockets.0 * SOCKETS as u32 + place as u32))
    }

    fn take(&mut self, is_meant: impl Fn(QuerySlot) -> bool, lost: &mut Vec<QuerySlot>) {
        lost.extend(self.sockets().taken.iter().filter(|slot| is_meant(**slot)));
        lost.iter().for_each(|slot| self.left(*slot));
    }

    fn responded(&mut self, client: Caller, said: Option<ResponseSummary>) {
        let waiting = self.clients.get_mut(&client.0).expect("who is responded to has asked");
        waiting.responses += 1;
        // A retransmission may hit the cache while the first query still waits; the client then gets both
        // responses.
        assert!(waiting.responses <= waiting.asked, "no query gets two responses");
        let (since, is_first) = (waiting.since, waiting.responses == 1);
        if waiting.asked == 1 {
            self.clients.remove(&client.0);
        }
        if is_first {
            self.observe(Happening::Responded { query: client.0, waited: self.now - since, said });
        }
    }
}

impl<F: FnMut(Duration, Happening<'_>)> Io for Network<'_, F> {
    type Client = Caller;

    fn add_backend(&mut self, backend: &Arc<SharedBackend>) -> SocketSetId {
        let sets = &mut self.sockets_mut().sets;
        let set = sets.iter().position(Option::is_none).unwrap_or_else(|| {
            sets.push(None);
            sets.len() - 1
        });
        sets[set] = Some(usize::from(backend.address.port()) - 1);
        SocketSetId(set as u32)
    }

    fn is_cold(&self, sockets: SocketSetId) -> bool {
        self.backend_of_set(sockets)
            .and_then(|backend| self.sockets().links[backend].as_ref())
            .is_some_and(SimulatedLinks::are_cold)
    }

    fn dial(&mut self, sockets: SocketSetId, _now: Instant) {
        if let Some(backend) = self.backend_of_set(sockets) {
            self.dial_one(backend);
        }
    }

    fn opened(&self, socket: SocketId) -> Option<Instant> {
        let links = self.sockets().links[self.backend_of(socket)?].as_ref()?;
        Some(self.at(links.all.get(socket.index() % SOCKETS)?.opened_at))
    }

    fn remove_backend(&mut self, sockets: SocketSetId, lost: &mut Vec<QuerySlot>) {
        self.take_back(sockets, lost);
        self.sockets_mut().sets[sockets.0 as usize] = None;
    }

    fn choose(&mut self, to: &Destination<'_, Caller>, _now: Instant) -> Result<SocketId, NotSent> {
        let Destination { sockets, avoid, asked_for: _ } = *to;
        let index = self.backend_of_set(sockets).ok_or(NotSent::Unreachable)?;
        let avoid = avoid.filter(|socket| set_of(*socket) == sockets).map(|socket| socket.index() % SOCKETS);
        let place = self.place_for(index, avoid).transpose()?;
        let number = place.unwrap_or_else(|| self.sockets_mut().rng.random_range(0..SOCKETS));
        Ok(SocketId(sockets.0 * SOCKETS as u32 + number as u32))
    }

    fn send(
        &mut self,
        slot: QuerySlot,
        _to: &Destination<'_, Caller>,
        outstanding: Outstanding,
        _attempt: &SentAttempt<'_>,
        _now: Instant,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), NotSent> {
        let index = self.backend_of(slot.socket()).ok_or(NotSent::Unreachable)?;
        self.sockets_mut().taken.insert(slot);
        let mut query = std::mem::take(&mut self.scratch);
        query.clear();
        write(&mut query);
        let (name, has_opt) = message::read(&query);
        self.scratch = query;
        if let Some(asked) = &mut self.sockets_mut().asked {
            asked.insert(slot, name);
        }
        let query = QueuedQuery { slot, outstanding, name, has_opt };
        let Some(link) = self.link_of(slot) else {
            self.post(index, query);
            return Ok(());
        };
        link.waiting += 1;
        if link.state == LinkState::Open {
            self.post_by_stream(index, slot.socket().index() % SOCKETS, query);
        } else {
            link.queued.push(query);
        }
        Ok(())
    }

    fn free(&mut self, slot: QuerySlot, _now: Instant) {
        self.left(slot);
    }

    fn take_back(&mut self, sockets: SocketSetId, lost: &mut Vec<QuerySlot>) {
        self.take(|slot| set_of(slot.socket()) == sockets, lost);
    }

    /// Returns false, because a scenario has no TCP.
    fn ask_by_tcp(&mut self, _outstanding: Outstanding, _query: TcpQuery, _asked_for: AskedFor<'_, Caller>) -> bool {
        false
    }

    fn fetch(&mut self, _race: RaceRef, _query: FetchQuery, _asked_for: AskedFor<'_, Caller>, _now: Instant) -> bool {
        false
    }

    fn respond(
        &mut self,
        waiter: &Waiter<Caller>,
        _resolution: &ResponseOrigin<'_>,
        summary: ResponseSummary,
        _message: &mut Vec<u8>,
        _now: Instant,
    ) {
        self.responded(waiter.client, Some(summary));
    }

    fn respond_nothing(&mut self, waiter: &Waiter<Caller>, _: &ResponseOrigin<'_>, _question: &[u8], _now: Instant) {
        self.responded(waiter.client, None);
    }

    fn signal_prober(&mut self, backend: &Arc<SharedBackend>, signal: HealthSignal) {
        self.signals.push((usize::from(backend.address.port()) - 1, signal));
    }

    fn race_over(&mut self, report: RaceReport<'_>) -> bool {
        self.observe(Happening::RaceOver(report));
        true
    }

    fn late_reply(&mut self, late: LateReport<'_>) {
        self.observe(Happening::RepliedLate(late));
    }
}

impl SimulatedSockets {
    fn new(backends: &[SimulatedBackend<'_>], seeds: &mut impl FnMut() -> u64) -> Self {
        let links = backends.iter().map(|backend| {
            let connections = backend.model.connections.as_ref()?;
            Some(SimulatedLinks::new(connections, seeds))
        });
        Self {
            links: links.collect(),
            sets: Vec::new(),
            taken: BTreeSet::new(),
            rng: StdRng::seed_from_u64(seeds()),
            asked: None,
        }
    }
}

pub(super) fn address(backend: usize) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), backend as u16 + 1).into()
}

pub(super) fn set_of(socket: SocketId) -> SocketSetId {
    SocketSetId(socket.0 / SOCKETS as u32)
}

/// Returns true if a backend knows a name, the same in each attempt.
fn knows(knowledge: u64, name: u32, backend: usize, part: f64) -> bool {
    let chance =
        || Xoshiro256PlusPlus::seed_from_u64(knowledge ^ u64::from(name) << 16 ^ backend as u64).random::<f64>();
    part >= 1.0 || (part > 0.0 && chance() < part)
}

/// The sockets to one backend, as many as the server has.
pub(super) const SOCKETS: usize = 64;

/// The UDP size offered to clients and backends, in bytes.
pub(super) const UDP_SIZE: u16 = 1232;
