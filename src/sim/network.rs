//! The I/O of an engine in a scenario: modelled backends in place of sockets, and clients who only wait.
//!
//! What an engine sends is read, the modelled backend says what comes back and when, and that becomes an event. IDs are drawn, taken
//! and quarantined by the table that the server has.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rand::rngs::{StdRng, Xoshiro256PlusPlus};
use rand::{RngExt, SeedableRng};

use super::backend::{Backend, CONNECT_TIMEOUT, Fate};
use super::delay::exponential;
use super::event::{Back, Event, Happening, LinkId};
use super::links::{Link, LinkState, Links, Queued};
use super::message::{self, Answer};
use super::spells::Unfolding;
use crate::cache::ResponseFor;
use crate::engine::single_flight::WorkerId;
use crate::engine::{
    self, AskedFor, Destination, FetchQuery, Io, LateReport, NotSent, Outstanding, Quarantined, RaceRef, RaceReport,
    Resolution, Said, SentAttempt, TakenSlot, TcpQuery, Waiter, response_limit,
};
use crate::policy::Rank;
use crate::policy::query_slots::{QUARANTINE, QuerySlot, QuerySlots, SlotState, SocketId, SocketSetId};
use crate::policy::timers::Timers;
use crate::state::{HealthSignal, SharedBackend};
use crate::wire::{Reply, Transport};

/// The client of a query, by the number of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller(pub(super) u32);

impl engine::Client for Caller {
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

/// A client that waits, or has asked more than once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) since: Instant,
    pub(super) name: u32,
    pub(super) pool: usize,
    /// How often it has asked.
    pub(super) asked: u32,
    /// How many responses it got.
    pub(super) told: u32,
}

/// Modelled backends, and clients who wait.
pub(super) struct Network<'a, F> {
    /// The fake clock.
    pub(super) now: Instant,
    /// When the scenario began.
    start: Instant,
    /// Who is told.
    pub(super) observe: F,
    /// The backends of all pools.
    pub(super) backends: Vec<Backend<'a>>,
    /// Their connections, of those that are asked by stream.
    pub(super) links: Vec<Option<Links>>,
    /// For each set of sockets, the backend that it leads to.
    sets: Vec<Option<usize>>,
    /// What is waited for.
    pub(super) slots: QuerySlots<Outstanding, Quarantined>,
    /// Draws IDs.
    ids: StdRng,
    /// What is going to happen.
    pub(super) events: Timers<Event>,
    /// How slow everything is.
    slow: Unfolding<'a, f64>,
    /// Tells which names a backend knows.
    knowledge: u64,
    /// Those who wait, by number.
    pub(super) clients: HashMap<u32, Waiting, foldhash::fast::FixedState>,
    /// What the prober is to be told, with the backend that it is about.
    pub(super) signals: Vec<(usize, HealthSignal)>,
    /// The name that was asked for from each slot, if somebody wants to know.
    pub(super) asked: Option<HashMap<QuerySlot, u32, foldhash::fast::FixedState>>,
    /// What an ICMP error that comes now is about.
    struck: Option<QuerySlot>,
    /// Where messages are written.
    scratch: Vec<u8>,
}

impl<'a, F: FnMut(Duration, Happening<'_>)> Network<'a, F> {
    /// In which nothing is on its way.
    pub(super) fn new(
        start: Instant,
        backends: Vec<Backend<'a>>,
        slow: Unfolding<'a, f64>,
        seeds: &mut impl FnMut() -> u64,
        observe: F,
    ) -> Self {
        let links = backends.iter().map(|backend| {
            let connections = backend.model.connections.as_ref()?;
            Some(Links::new(connections, seeds))
        });
        let links = links.collect();
        Self {
            now: start,
            start,
            observe,
            links,
            backends,
            sets: Vec::new(),
            slots: QuerySlots::new(),
            ids: StdRng::seed_from_u64(seeds()),
            events: Timers::new(),
            slow,
            knowledge: seeds(),
            clients: HashMap::default(),
            signals: Vec::new(),
            asked: None,
            struck: None,
            scratch: Vec::new(),
        }
    }

    pub(super) fn tell(&mut self, happening: Happening<'_>) {
        (self.observe)(self.now - self.start, happening);
    }

    /// How long the scenario has lasted.
    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// What becomes of a datagram that this backend is sent now, and when.
    pub(super) fn ask(&mut self, backend: usize) -> Fate {
        let slow = *self.slow.at(self.now - self.start);
        let elapsed = self.elapsed();
        self.backends[backend].ask(elapsed, slow)
    }

    /// What becomes of something that comes to this backend by a connection now.
    pub(super) fn ask_by_stream(&mut self, backend: usize) -> Fate {
        let slow = *self.slow.at(self.now - self.start);
        let elapsed = self.elapsed();
        self.backends[backend].ask_by_stream(elapsed, slow)
    }

    /// The set of sockets that leads to a backend, if there is one.
    pub(super) fn set_of_backend(&self, backend: usize) -> Option<SocketSetId> {
        let set = self.sets.iter().position(|known| *known == Some(backend))?;
        Some(SocketSetId(set as u32))
    }

    /// A time that counts from the start.
    pub(super) fn at(&self, time: Duration) -> Instant {
        self.start + time
    }

    /// Something is going to come back.
    fn schedule(&mut self, at: Instant, slot: QuerySlot, outstanding: Outstanding, name: u32, back: Back) {
        self.events.push(at, Event::Back { slot, outstanding, name, back });
    }

    /// A query goes to a backend: what is going to come back, and when?
    fn post(&mut self, index: usize, slot: QuerySlot, outstanding: Outstanding, name: u32, has_opt: bool) {
        let at = match self.ask(index) {
            Fate::Lost => return,
            Fate::Unreachable(at) => return self.schedule(self.at(at), slot, outstanding, name, Back::Unreachable),
            Fate::Replied(at) => self.at(at),
        };
        self.reply(index, Queued { slot, outstanding, name, has_opt }, at, true);
    }

    /// What has arrived at a backend is replied to by this time.
    fn reply(&mut self, index: usize, query: Queued, at: Instant, may_be_unreachable: bool) {
        let Queued { slot, outstanding, name, has_opt } = query;
        let mut at = at;
        let Backend { model, rng, .. } = &mut self.backends[index];
        let bare = rng.random_bool(model.bare).then_some(at);
        if bare.is_some() {
            at += exponential(at - self.now, rng);
        }
        let back = if may_be_unreachable && rng.random_bool(model.unreachable) {
            Some(Back::Unreachable)
        } else if has_opt && model.refuses_opt {
            Some(Back::Reply(Answer::OptRefused))
        } else if rng.random_bool(model.failure) {
            Some(Back::Reply(Answer::Ranked(Rank::Failure)))
        } else if knows(self.knowledge, name, index, model.knows) {
            Some(Back::Reply(Answer::Ranked(Rank::Positive)))
        } else {
            model.miss.map(|rank| Back::Reply(Answer::Ranked(rank)))
        };
        if let Some(bare) = bare {
            self.schedule(bare, slot, outstanding, name, Back::Reply(Answer::Bare));
        }
        if let Some(back) = back {
            self.schedule(at, slot, outstanding, name, back);
        }
    }

    /// An ICMP error is about the query in this slot.
    pub(super) fn strike(&mut self, slot: QuerySlot) {
        self.struck = Some(slot);
    }

    /// Takes back a query that could not leave, with the set of sockets that it was to leave from.
    pub(super) fn withdraw_unsent(&mut self, slot: QuerySlot) -> Option<(SocketSetId, TakenSlot)> {
        let taken_by = self.slots.remove(slot)?;
        self.left(slot);
        Some((set_of(slot.socket()), taken_by))
    }

    /// The backend behind a socket.
    pub(super) fn backend_of(&self, socket: SocketId) -> Option<usize> {
        self.sets.get(socket.index() / SOCKETS).copied().flatten()
    }

    /// A query goes to a backend by a connection that is open: what is going to come back, and when?
    pub(super) fn post_by_stream(&mut self, index: usize, place: usize, query: Queued) {
        let (now, slow) = (self.elapsed(), *self.slow.at(self.now - self.start));
        let is_resent = self.backends[index].loses(now);
        let Some(link) = self.links[index].as_mut().and_then(|links| links.all.get_mut(place)) else { return };
        if is_resent {
            link.resend(now);
        }
        link.sent(now);
        let generation = link.generation;
        if !std::mem::replace(&mut link.is_watched, true) {
            self.events.push(self.now, Event::Look(LinkId { backend: index, place, generation }));
        }
        let Some(arrival) = link.arrival(now) else { return };
        let Fate::Replied(replied) = self.backends[index].ask_by_stream(now, slow) else { return };
        let replied = link.thawed(replied + (arrival - now));
        if let Some(replied) = replied {
            self.reply(index, query, self.at(replied), false);
        }
    }

    /// Begins to open a connection to a backend, if that may be.
    fn dial_one(&mut self, backend: usize) {
        let (now, slow) = (self.elapsed(), *self.slow.at(self.now - self.start));
        let Some(links) = &mut self.links[backend] else { return };
        let Some(place) = links.dial(now) else { return };
        let link = LinkId { backend, place, generation: links.all[place].generation };
        let (at, is_open, is_refused) = match self.backends[backend].open(now, slow) {
            Fate::Replied(at) => (at, true, false),
            Fate::Unreachable(at) => (at, false, true),
            Fate::Lost => (now + CONNECT_TIMEOUT, false, false),
        };
        self.events.push(self.at(at), Event::Dialled { link, is_open, is_refused });
    }

    /// The connection that a query takes, by its place; `None`: it is asked by UDP.
    fn place_for(&mut self, backend: usize, avoid: Option<usize>) -> Option<Result<usize, NotSent>> {
        self.links[backend].as_ref()?;
        self.dial_one(backend);
        let place = self.links[backend].as_ref()?.choose(avoid);
        Some(place.ok_or(NotSent::Full))
    }

    /// The connection that is at this place of a backend still, if it is the same one.
    pub(super) fn link(&mut self, link: LinkId) -> Option<&mut Link> {
        let known = self.links[link.backend].as_mut()?.all.get_mut(link.place)?;
        (known.generation == link.generation).then_some(known)
    }

    /// The connection of a slot, if that is on one.
    pub(super) fn link_of(&mut self, slot: QuerySlot) -> Option<&mut Link> {
        let backend = self.backend_of(slot.socket())?;
        self.links[backend].as_mut()?.all.get_mut(slot.socket().index() % SOCKETS)
    }

    /// Nothing waits in this slot any more.
    pub(super) fn left(&mut self, slot: QuerySlot) {
        if let Some(link) = self.link_of(slot) {
            link.left();
        }
    }

    /// Takes back what waits on a socket, with the set that it belongs to.
    pub(super) fn take_socket(&mut self, socket: SocketId) -> Option<(SocketSetId, Vec<TakenSlot>)> {
        self.backend_of(socket)?;
        let mut taken = Vec::new();
        self.take(|slot| slot.socket() == socket, &mut taken);
        Some((set_of(socket), taken))
    }

    /// Takes back what waits on a connection, with the set that it belongs to.
    pub(super) fn take_link(&mut self, backend: usize, place: usize) -> Option<(SocketSetId, Vec<TakenSlot>)> {
        let sockets = self.set_of_backend(backend)?;
        let mut taken = Vec::new();
        self.take(|slot| slot.socket().index() == sockets.0 as usize * SOCKETS + place, &mut taken);
        Some((sockets, taken))
    }

    /// Takes back what waits in these slots.
    fn take(&mut self, is_meant: impl Fn(QuerySlot) -> bool, taken: &mut Vec<TakenSlot>) {
        let mut meant: Vec<_> = self.slots.taken().filter(|slot| is_meant(*slot)).collect();
        // The table has no order, and the same seed makes the same scenario.
        meant.sort_unstable_by_key(|slot| slot.number());
        for slot in meant {
            taken.extend(self.slots.remove(slot));
            self.left(slot);
        }
    }

    /// A client has its response, or is told that there is none.
    fn responded(&mut self, client: Caller, said: Option<Said>) {
        let waiting = self.clients.get_mut(&client.0).expect("who is responded to has asked");
        waiting.told += 1;
        // Who has asked again may find in the cache what its first query waits for, and then gets both.
        assert!(waiting.told <= waiting.asked, "no query gets two responses");
        let (since, is_first) = (waiting.since, waiting.told == 1);
        if waiting.asked == 1 {
            self.clients.remove(&client.0);
        }
        if is_first {
            self.tell(Happening::Responded { query: client.0, waited: self.now - since, said });
        }
    }
}

impl<F: FnMut(Duration, Happening<'_>)> Io for Network<'_, F> {
    type Client = Caller;

    fn add_backend(&mut self, backend: &Arc<SharedBackend>) -> SocketSetId {
        let set = self.sets.iter().position(Option::is_none).unwrap_or_else(|| {
            self.sets.push(None);
            self.sets.len() - 1
        });
        self.sets[set] = Some(usize::from(backend.address.port()) - 1);
        SocketSetId(set as u32)
    }

    fn is_cold(&self, sockets: SocketSetId) -> bool {
        let backend = self.sets.get(sockets.0 as usize).copied().flatten();
        backend.and_then(|backend| self.links[backend].as_ref()).is_some_and(Links::are_cold)
    }

    fn dial(&mut self, sockets: SocketSetId, _now: Instant) {
        if let Some(backend) = self.sets.get(sockets.0 as usize).copied().flatten() {
            self.dial_one(backend);
        }
    }

    fn opened(&self, socket: SocketId) -> Option<Instant> {
        let links = self.links[self.backend_of(socket)?].as_ref()?;
        Some(self.at(links.all.get(socket.index() % SOCKETS)?.opened_at))
    }

    fn remove_backend(&mut self, sockets: SocketSetId) -> usize {
        let mut taken = Vec::new();
        self.take(|slot| set_of(slot.socket()) == sockets, &mut taken);
        self.sets[sockets.0 as usize] = None;
        taken.len()
    }

    fn send(
        &mut self,
        Destination { sockets, avoid, asked_for: _ }: Destination<'_, Caller>,
        outstanding: Outstanding,
        _attempt: &SentAttempt<'_>,
        _now: Instant,
        write: impl FnOnce(QuerySlot, &mut Vec<u8>),
    ) -> Result<QuerySlot, NotSent> {
        let Some(index) = self.sets.get(sockets.0 as usize).copied().flatten() else {
            return Err(NotSent::Unreachable);
        };
        let avoid = avoid.filter(|socket| set_of(*socket) == sockets).map(|socket| socket.index() % SOCKETS);
        let place = self.place_for(index, avoid).transpose()?;
        let number = place.map_or_else(|| self.ids.random_range(0..SOCKETS as u32), |place| place as u32);
        let socket = SocketId(sockets.0 * SOCKETS as u32 + number);
        let slot = self.slots.draw(socket, outstanding, &mut self.ids);
        let mut query = std::mem::take(&mut self.scratch);
        query.clear();
        write(slot, &mut query);
        let (name, has_opt) = message::read(&query);
        self.scratch = query;
        if let Some(asked) = &mut self.asked {
            asked.insert(slot, name);
        }
        let Some(place) = place else {
            self.post(index, slot, outstanding, name, has_opt);
            return Ok(slot);
        };
        let query = Queued { slot, outstanding, name, has_opt };
        let Some(link) = self.link_of(slot) else { return Err(NotSent::Unreachable) };
        link.waiting += 1;
        if link.state == LinkState::Open {
            self.post_by_stream(index, place, query);
        } else {
            link.queued.push(query);
        }
        Ok(slot)
    }

    fn heard(&mut self, _attempt: &SentAttempt<'_>, _sent: Instant, _reply: &Reply<'_>, _now: Instant) {}

    fn find(&self, socket: SocketId, id: u16) -> Option<(QuerySlot, TakenSlot)> {
        let slot = QuerySlot::new(socket, id)?;
        self.slots.find(slot).map(|taken_by| (slot, taken_by))
    }

    /// Whatever comes back was asked for.
    fn was_in_use(&self, _socket: SocketId, _id: u16) -> bool {
        true
    }

    fn release(&mut self, slot: QuerySlot, _now: Instant) {
        self.slots.remove(slot);
        self.left(slot);
    }

    fn quarantine(&mut self, slot: QuerySlot, now: Instant, note: impl FnOnce(Outstanding) -> Quarantined) {
        self.slots.quarantine(slot, now + QUARANTINE, note);
    }

    fn withdraw(&mut self, slot: QuerySlot) {
        self.slots.remove(slot);
        self.left(slot);
    }

    /// Nobody forges here.
    fn shun(&mut self, _slot: QuerySlot) {}

    fn is_suspicious(&mut self, _socket: SocketId) -> bool {
        false
    }

    fn void(&mut self, socket: SocketId, _now: Instant, taken: &mut Vec<TakenSlot>) {
        self.take(|slot| slot.socket() == socket, taken);
    }

    fn set_of(&self, socket: SocketId) -> Option<SocketSetId> {
        self.backend_of(socket).map(|_| set_of(socket))
    }

    fn tell_struck(&mut self, _socket: SocketId, told: &mut Vec<Outstanding>) {
        told.extend(self.struck.take().and_then(|slot| match self.slots.find(slot)? {
            SlotState::InFlight(outstanding) => Some(outstanding),
            SlotState::Quarantined(_) => None,
        }));
    }

    fn take_struck(&mut self, _socket: SocketId, taken: &mut Vec<TakenSlot>) {
        if let Some(slot) = self.struck.take() {
            taken.extend(self.slots.remove(slot));
            self.left(slot);
        }
    }

    fn take_waiting(&mut self, sockets: SocketSetId, taken: &mut Vec<TakenSlot>) {
        self.take(|slot| set_of(slot.socket()) == sockets, taken);
    }

    /// There is no TCP here.
    fn ask_by_tcp(&mut self, _outstanding: Outstanding, _query: TcpQuery, _asked_for: AskedFor<'_, Caller>) -> bool {
        false
    }

    fn fetch(&mut self, _race: RaceRef, _query: FetchQuery, _asked_for: AskedFor<'_, Caller>, _now: Instant) -> bool {
        false
    }

    fn respond(
        &mut self,
        waiter: &Waiter<Caller>,
        _resolution: &Resolution<'_>,
        _now: Instant,
        write: impl FnOnce(&ResponseFor<'_>, &mut Vec<u8>) -> Option<Said>,
    ) {
        let mut response = std::mem::take(&mut self.scratch);
        response.clear();
        let limit = response_limit(Transport::Udp, &waiter.form, UDP_SIZE);
        let receiver = ResponseFor { form: &waiter.form, own_udp_size: UDP_SIZE, limit };
        let said = write(&receiver, &mut response);
        self.scratch = response;
        if said.is_some() {
            self.responded(waiter.client, said);
        }
    }

    fn respond_nothing(&mut self, waiter: &Waiter<Caller>, _: &Resolution<'_>, _question: &[u8], _now: Instant) {
        self.responded(waiter.client, None);
    }

    /// There is one worker, and so nobody to hand over to.
    fn hand_over(&mut self, _to: WorkerId, _message: &[u8], client: Caller) {
        self.responded(client, None);
    }

    fn tell_prober(&mut self, backend: &Arc<SharedBackend>, signal: HealthSignal) {
        self.signals.push((usize::from(backend.address.port()) - 1, signal));
    }

    fn race_over(&mut self, report: RaceReport<'_>) -> bool {
        self.tell(Happening::RaceOver(report));
        false
    }

    /// None is told.
    fn late_reply(&mut self, _late: LateReport<'_>) {}
}

/// The address of a backend, by its number.
pub(super) fn address(backend: usize) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), backend as u16 + 1).into()
}

/// The set that a socket belongs to.
fn set_of(socket: SocketId) -> SocketSetId {
    SocketSetId(socket.0 / SOCKETS as u32)
}

/// Whether a backend knows a name: the same in each attempt.
fn knows(knowledge: u64, name: u32, backend: usize, part: f64) -> bool {
    let chance =
        || Xoshiro256PlusPlus::seed_from_u64(knowledge ^ u64::from(name) << 16 ^ backend as u64).random::<f64>();
    part >= 1.0 || (part > 0.0 && chance() < part)
}

/// Sockets to one backend, as many as the server has.
pub(super) const SOCKETS: usize = 64;

/// The UDP size that is offered to clients and backends, octets.
pub(super) const UDP_SIZE: u16 = 1232;
