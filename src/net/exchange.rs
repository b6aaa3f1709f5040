//! The way to the backends and back: connected UDP sockets in pools, and who waits for which reply.
//!
//! One worker owns one exchange. A caller queues messages for a [`Link`] (a backend's address) with a ticket of its
//! own making; the exchange picks the socket, draws the message ID, sends in batches, and hands the ticket back for the
//! reply that bears the same ID on the same socket. It never looks behind the ID: whether a reply is the right one, the
//! caller decides, and either settles the ticket, leaves it waiting, or abandons it, which makes a note of the ticket.
//!
//! What makes replies hard to forge (RFC 5452 section 9.2): sockets are connected, so the kernel drops what comes from
//! elsewhere; they are bound to random ports over the whole unprivileged range and renewed all the time; IDs are drawn
//! uniformly for each message. All of it comes from a CSPRNG seeded by the operating system.
//!
//! No more sockets are open than there is room for, divided fairly (`room.rs`); beyond that, messages share those that there are.
//! The last socket of a backend is given up only when its successor is open, so that a shortage never leaves it without.
//!
//! ```text
//!            flush                      reply, settled                 nothing waits, and retired
//!   queue ──────────▶ waiting on its socket ──────────▶ ticket gone ──────────▶ socket closed
//!                          │ abandon
//!                          ▼
//!                     late: the ID stays taken ──────────▶ ticket gone
//!                                       reply, or QUARANTINE over
//! ```

mod port;
mod room;
mod sent;
mod tickets;
mod void;

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::event::epoll;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use self::port::{Port, Renewals};
use self::room::Room;
use self::sent::SentIds;
use self::tickets::Tickets;
pub use self::tickets::{Held, TicketKey};
pub use self::void::MAX_NEAR_MISSES;
use self::void::{Returned, Voided};
use super::batch::{BATCH, RecvBatch, SendBatch};
use super::options::take_trains_whole;
use super::refusal::Refusal;

/// The sockets of one worker towards all its backends. `T` is the caller's ticket, and `L` its note of one that it has
/// abandoned.
pub struct Exchange<T, L> {
    /// Watches all sockets and the alarm; itself watched by the runtime.
    epoll: OwnedFd,
    /// Fires at the time given to [`wake_at`](Self::wake_at).
    alarm: OwnedFd,
    /// When the alarm is set to fire.
    alarm_at: Option<Instant>,
    /// Backends by [`Link`]; `None` is free.
    links: Vec<Option<Peer>>,
    /// Sockets by number; `None` is free.
    ports: Vec<Option<Port>>,
    /// Free numbers in `ports`.
    free_ports: Vec<u32>,
    /// Numbers that will be free once nobody can still hold a reply that was received under them.
    closed_ports: Vec<u32>,
    /// Who waits for what, by socket and ID.
    tickets: Tickets<T, L>,
    /// Sockets that nobody uses any more, to be closed when there is time.
    closing: Vec<UdpSocket>,
    /// IDs that were in use not long ago.
    returned: Returned,
    /// Sockets that nothing is believed of any more.
    voided: Voided,
    /// For how many sockets there is room.
    room: Room,
    /// Room for IDs, of sockets that are closed.
    spare: Vec<SentIds>,
    /// When idle sockets are closed, in the order of opening; those that were closed before are left out when they are met.
    ages: VecDeque<(Instant, u32)>,
    /// Sockets to which ICMP errors came when something was sent from them.
    struck: Vec<u32>,
    /// Links with something to flush.
    dirty: Vec<Link>,
    /// When sockets were last renewed for their own sake.
    renewals: Renewals,
    /// Source of ports, IDs and choices.
    rng: StdRng,
}

/// A backend's address as an exchange knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link(u32);

/// What [`Exchange::ready`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A socket has replies, or an error.
    Socket(u32),
    /// The time given to [`Exchange::wake_at`] has come.
    Alarm,
}

/// Whether an ICMP error says that a backend is unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsUnreachable(pub bool);

/// A message that could not be sent.
#[derive(Debug)]
pub struct Refused<T, L> {
    /// The caller's own.
    pub held: Held<T, L>,
    /// Whom the message was for.
    pub link: Link,
    /// Why.
    pub why: Refusal,
}

/// One backend.
struct Peer {
    /// Its address.
    address: SocketAddr,
    /// Numbers of the sockets that may be chosen.
    live: Vec<u32>,
    /// How many sockets are open, retired ones included.
    open: usize,
    /// The socket of the batch that is being filled.
    current: Option<u32>,
    /// The batch that is being filled.
    batch: SendBatch,
    /// For each message of the batch, whose it is.
    keys: Vec<TicketKey>,
    /// How many sockets are still opened for whole trains of replies, since one came.
    for_trains: u32,
}

impl<T: Copy, L: Copy> Exchange<T, L> {
    /// An exchange without backends, seeded by the operating system, with room for so many sockets. To each backend a first one
    /// is opened, whether there is room or not.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new(room: usize) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let alarm = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &alarm, epoll::EventData::new_u64(ALARM), EDGE)?;
        Ok(Self {
            epoll,
            alarm,
            alarm_at: None,
            links: Vec::new(),
            ports: Vec::with_capacity(WARM_PORTS),
            free_ports: Vec::with_capacity(WARM_PORTS),
            closed_ports: Vec::with_capacity(WARM_PORTS),
            tickets: Tickets::new(),
            returned: Returned::new(),
            voided: Voided::new(),
            spare: Vec::with_capacity(WARM_PORTS),
            ages: VecDeque::with_capacity(2 * WARM_PORTS),
            struck: Vec::new(),
            dirty: Vec::with_capacity(16),
            closing: Vec::with_capacity(WARM_PORTS),
            room: Room::new(room),
            renewals: Renewals::new(),
            rng: StdRng::try_from_rng(&mut rand::rngs::SysRng).map_err(io::Error::other)?,
        })
    }

    /// Makes a backend known. `message_size` is what a usual message takes, octets.
    pub fn add(&mut self, address: SocketAddr, message_size: usize) -> Link {
        let peer = Peer {
            address,
            // One more while a socket is being replaced.
            live: Vec::with_capacity(PORTS_PER_BACKEND + 1),
            open: 0,
            current: None,
            batch: SendBatch::new(BATCH, message_size),
            keys: Vec::with_capacity(BATCH),
            for_trains: 0,
        };
        let link = match self.links.iter().position(Option::is_none) {
            Some(free) => {
                self.links[free] = Some(peer);
                Link(free as u32)
            }
            None => {
                self.links.push(Some(peer));
                Link(self.links.len() as u32 - 1)
            }
        };
        self.divide_room();
        link
    }

    /// Divides the room for sockets among the backends that there are.
    fn divide_room(&mut self) {
        let open: Vec<_> = self.links.iter().flatten().map(|peer| peer.open).collect();
        self.room.divide(open.into_iter());
    }

    /// Forgets a backend, its sockets and all that waits for it; returns how many tickets that were.
    pub fn remove(&mut self, link: Link) -> usize {
        self.links[link.0 as usize] = None;
        self.dirty.retain(|dirty| *dirty != link);
        let mut forgotten = Vec::new();
        for number in self.ports_of(link) {
            self.take_from(number, SentIds::all, &mut forgotten);
            self.voided.forget(number);
            self.close(number);
        }
        self.divide_room();
        forgotten.len()
    }

    /// Queues a message for the next [`flush`](Self::flush): `fill` is told its place and writes it, and its first two octets
    /// become a fresh ID.
    ///
    /// # Errors
    /// If there is no socket to send from and none can be opened, or half of the IDs of all are taken.
    pub fn queue(
        &mut self,
        link: Link,
        ticket: T,
        now: Instant,
        fill: impl FnOnce(TicketKey, &mut Vec<u8>),
    ) -> Result<TicketKey, Refusal> {
        let number = match self.peer(link).current {
            Some(number) => number,
            None => {
                let number = self.choose_port(link, now).map_err(|error| Refusal::of(&error))?;
                self.peer(link).current = Some(number);
                self.dirty.push(link);
                number
            }
        };
        let key = self.tickets.draw(number, ticket, &mut self.rng);
        let port = self.ports[number as usize].as_mut().expect("a current socket is open");
        let tickets = &self.tickets;
        port.sent.push(key.id(), port.tickets, |id| TicketKey::new(number, id).is_some_and(|key| tickets.has(key)));
        port.tickets += 1;
        let peer = self.peer(link);
        peer.batch.push(None, None, |out| {
            fill(key, out);
            if let Some(id) = out.first_chunk_mut() {
                *id = key.id().to_be_bytes();
            }
        });
        peer.keys.push(key);
        Ok(key)
    }

    /// Whether the next [`queue`](Self::queue) for this backend needs a flush before it.
    pub fn is_full(&self, link: Link) -> bool {
        self.links[link.0 as usize].as_ref().is_some_and(|peer| peer.batch.is_full())
    }

    /// Sends all that is queued, one call for each backend. What could not be sent goes to `refused`.
    pub fn flush(&mut self, refused: &mut Vec<Refused<T, L>>) {
        while let Some(link) = self.dirty.pop() {
            let Some(peer) = &mut self.links[link.0 as usize] else { continue };
            let Some(number) = peer.current.take() else { continue };
            let port = self.ports[number as usize].as_mut().expect("a current socket is open");
            port.batches += 1;
            let first_refused = refused.len();
            let waited = peer.batch.flush(&port.socket, |index, error| {
                let key = peer.keys[index];
                if let Some(held) = self.tickets.remove(key) {
                    port.tickets -= 1;
                    refused.push(Refused { held, link, why: Refusal::of(error) });
                }
            });
            let sent = peer.keys.len();
            peer.keys.clear();
            let is_struck = waited.as_ref().is_some_and(|error| Refusal::of(error) == Refusal::Unreachable);
            if is_struck {
                // What has just left is not what it is about.
                port.sent.strike(sent);
                self.struck.push(number);
            }
            if refused.len() > first_refused || is_struck {
                self.spend(number);
            }
            self.close_if_done(number);
        }
    }

    /// The descriptor that becomes readable when [`ready`](Self::ready) has something to tell.
    pub fn watched(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Collects what has happened, without waiting, and returns whether there may be more. What was reported or received
    /// before must have been dealt with.
    pub fn ready(&mut self, events: &mut Vec<Event>) -> bool {
        self.free_ports.append(&mut self.closed_ports);
        let mut buffer = [MaybeUninit::<epoll::Event>::uninit(); BATCH];
        let Ok((found, _)) = epoll::wait(&self.epoll, &mut buffer, Some(&Timespec::default())) else { return false };
        for event in found.iter() {
            let data = event.data.u64();
            if data == ALARM {
                self.alarm_at = None;
                events.push(Event::Alarm);
            } else {
                events.push(Event::Socket(data as u32));
            }
        }
        found.len() == BATCH
    }

    /// Receives from a socket that was reported. `Ok(0)` means that nothing is there.
    ///
    /// # Errors
    /// An ICMP error, and whether that says that the backend is unreachable. What was sent from there before is then the business
    /// of [`tell_struck`](Self::tell_struck) or [`take_struck`](Self::take_struck). The socket is not chosen again.
    pub fn recv(&mut self, socket: u32, batch: &mut RecvBatch) -> Result<usize, IsUnreachable> {
        let Some(port) = self.ports.get(socket as usize).and_then(Option::as_ref) else { return Ok(0) };
        match batch.recv(&port.socket) {
            Ok(count) => {
                let link = port.link;
                if batch.has_trains() {
                    self.peer(link).for_trains = FOR_TRAINS;
                }
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => {
                let is_unreachable = Refusal::of(&error) == Refusal::Unreachable;
                if is_unreachable {
                    self.port(socket).sent.strike(0);
                }
                self.spend(socket);
                Err(IsUnreachable(is_unreachable))
            }
        }
    }

    /// A socket to which an ICMP error came when something was to be sent from it, if there is another: it met what was sent
    /// before.
    pub fn pop_struck(&mut self) -> Option<u32> {
        self.struck.pop()
    }

    /// The backend that a socket is connected to.
    pub fn link(&self, socket: u32) -> Option<Link> {
        self.ports.get(socket as usize)?.as_ref().map(|port| port.link)
    }

    /// Tells of those that wait on a socket and that ICMP errors are about, of each once.
    pub fn tell_struck(&mut self, socket: u32, told: &mut Vec<T>) {
        let Some(port) = self.ports.get_mut(socket as usize).and_then(Option::as_mut) else { return };
        let keys = port.sent.tell().iter().filter_map(|id| TicketKey::new(socket, *id));
        told.extend(keys.filter_map(|key| match self.tickets.find(key)? {
            Held::Waiting(ticket) => Some(ticket),
            Held::Late(_) => None,
        }));
    }

    /// Takes back all tickets on a socket that ICMP errors are about, late ones included: their backend is known to be dead.
    pub fn take_struck(&mut self, socket: u32, taken: &mut Vec<Held<T, L>>) {
        if self.link(socket).is_some() {
            self.take_from(socket, SentIds::struck, taken);
            self.close_if_done(socket);
        }
    }

    /// Who waits for a reply with this ID on this socket.
    pub fn find(&self, socket: u32, id: u16) -> Option<(TicketKey, Held<T, L>)> {
        let key = TicketKey::new(socket, id)?;
        self.tickets.find(key).map(|held| (key, held))
    }

    /// The address behind a socket, for logs.
    pub fn address(&self, link: Link) -> Option<SocketAddr> {
        self.links.get(link.0 as usize)?.as_ref().map(|peer| peer.address)
    }

    /// The reply came: the ID is free again. With time to spare, an empty socket is not used again, so that the next query
    /// leaves from another port.
    pub fn settle(&mut self, key: TicketKey, now: Instant) {
        if self.tickets.remove(key).is_some() {
            self.is_over(key, now);
        }
    }

    /// A ticket is gone, and its ID free.
    fn is_over(&mut self, key: TicketKey, now: Instant) {
        self.returned.note(key);
        let number = key.port();
        let port = self.port(number);
        port.free_one();
        let is_due = port.tickets == 0 && !port.is_retired;
        if is_due && self.renewals.allow(now) {
            self.spend(number);
        }
        self.close_if_done(number);
    }

    /// Nobody needs the reply any more. The ID stays taken for some seconds, so that a late reply cannot be taken for
    /// another's, and its sender's latency can be learnt: `note` says what the caller wants to know by then.
    pub fn abandon(&mut self, key: TicketKey, now: Instant, note: impl FnOnce(T) -> L) {
        self.tickets.abandon(key, now + QUARANTINE, note);
    }

    /// Takes back all tickets of a backend that was found dead, late ones included.
    pub fn take_waiting(&mut self, link: Link, taken: &mut Vec<Held<T, L>>) {
        for number in self.ports_of(link) {
            self.take_from(number, SentIds::all, taken);
            self.spend(number);
            self.close_if_done(number);
        }
    }

    /// Takes back tickets on a socket: those that `which` says, as far as they are held.
    fn take_from(&mut self, number: u32, which: impl Fn(&SentIds) -> &[u16], taken: &mut Vec<Held<T, L>>) {
        let port = self.ports[number as usize].as_mut().expect("whoever takes from a socket has seen it open");
        let before = taken.len();
        let keys = which(&port.sent).iter().filter_map(|id| TicketKey::new(number, *id));
        taken.extend(keys.filter_map(|key| self.tickets.remove(key)));
        port.tickets -= (taken.len() - before) as u32;
        if port.tickets == 0 {
            port.sent.clear();
        }
    }

    /// The numbers of a backend's sockets.
    fn ports_of(&self, link: Link) -> Vec<u32> {
        let ports = (0..).zip(&self.ports);
        let is_its = |port: &Option<Port>| port.as_ref().is_some_and(|port| port.link == link);
        ports.filter(|(_, port)| is_its(port)).map(|(number, _)| number).collect()
    }

    /// Ends quarantines, of which `ended` is told the replies that never came, and closes sockets. For the end of a turn, when
    /// all that somebody waits for is on its way.
    pub fn tidy(&mut self, now: Instant, mut ended: impl FnMut(&L)) {
        while let Some((key, late)) = self.tickets.pop_ended(now) {
            ended(&late);
            self.is_over(key, now);
        }
        while let Some(number) = self.voided.pop_due(now) {
            self.close(number);
        }
        while let Some((_, number)) = self.oldest().filter(|(end, _)| *end <= now) {
            self.ages.pop_front();
            let port = self.port(number);
            let was_used = std::mem::replace(&mut port.batches_before, port.batches) != port.batches;
            let (is_idle, link) = (port.tickets == 0, port.link);
            let Peer { live, current, .. } = self.peer(link);
            // The last one of a backend that is asked stays until its successor is open, which may not be had.
            let is_needed = was_used && live.len() == 1;
            if is_idle && !is_needed && *current != Some(number) {
                // An open port is one that a forger may find.
                self.retire(number);
            } else {
                self.ages.push_back((now + PORT_LIFETIME, number));
            }
        }
        self.closing.clear();
    }

    /// When [`tidy`](Self::tidy) has something to do next.
    pub fn next_tidy(&mut self) -> Option<Instant> {
        let idle = self.oldest().map(|(end, _)| end);
        [self.tickets.next_end(), self.voided.next_due(), idle].into_iter().flatten().min()
    }

    /// The first of the sockets that may be chosen to be looked at, and when.
    fn oldest(&mut self) -> Option<(Instant, u32)> {
        loop {
            let &(end, number) = self.ages.front()?;
            let port = self.ports.get(number as usize).and_then(Option::as_ref);
            if port.is_some_and(|port| !port.is_retired && port.opened + PORT_LIFETIME <= end) {
                return Some((end, number));
            }
            // Most are closed long before, and the number may be another's.
            self.ages.pop_front();
        }
    }

    /// Asks for an [`Event::Alarm`] at `at`. An earlier alarm that is still to come is kept.
    pub fn wake_at(&mut self, at: Instant, now: Instant) {
        if self.alarm_at.is_some_and(|set| set <= at) {
            return;
        }
        self.alarm_at = Some(at);
        // Zero would switch the timer off.
        let wait = at.saturating_duration_since(now).max(Duration::from_nanos(1));
        let it_value = Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos() as _ };
        let spec = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &spec)
            .expect("the timer is ours and the time is sound");
    }

    /// Chooses the socket of a batch: a fresh one while there are few, otherwise any by chance. Where none can be opened, those
    /// that are open must do.
    fn choose_port(&mut self, link: Link, now: Instant) -> io::Result<u32> {
        let live = self.peer(link).live.len();
        if live < PORTS_PER_BACKEND {
            match self.open(link, now) {
                Ok(number) => {
                    self.retire_spent(link);
                    return Ok(number);
                }
                Err(error) if live == 0 => return Err(error),
                Err(_) => {}
            }
        }
        let index = self.rng.random_range(0..live);
        let number = self.peer(link).live[index];
        let port = self.port(number);
        let has_ids = port.tickets < TICKETS_PER_PORT;
        if has_ids && port.batches < BATCHES_PER_PORT && now.duration_since(port.opened) < PORT_LIFETIME {
            return Ok(number);
        }
        if let Ok(fresh) = self.open(link, now) {
            self.retire(number);
            return Ok(fresh);
        }
        let mut live = self.peer(link).live.clone().into_iter();
        let with_ids =
            if has_ids { Some(number) } else { live.find(|live| self.port(*live).tickets < TICKETS_PER_PORT) };
        with_ids.ok_or_else(|| io::ErrorKind::ResourceBusy.into())
    }

    /// Opens a socket on a random port.
    fn open(&mut self, link: Link, now: Instant) -> io::Result<u32> {
        let Peer { address, open, .. } = *self.peer(link);
        if !self.peer(link).live.is_empty() && !self.room.has_place(open) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        // A backend's own port is never taken: on one machine, a socket there would hear itself instead of ICMP while the
        // backend is down, and would be in its way when it starts.
        let is_backends = |port| self.links.iter().flatten().any(|peer| peer.address.port() == port);
        let socket = port::connected(address, is_backends, &mut self.rng)?;
        let left = &mut self.peer(link).for_trains;
        let is_expected = *left > 0;
        *left = left.saturating_sub(1);
        if is_expected || self.rng.random_ratio(1, TRIAL) {
            take_trains_whole(&socket);
        }
        let number = match self.free_ports.pop() {
            Some(number) => number,
            None if self.ports.len() < TicketKey::PORTS => {
                self.ports.push(None);
                self.ports.len() as u32 - 1
            }
            None => return Err(io::ErrorKind::ResourceBusy.into()),
        };
        if let Err(error) = epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(number.into()), EDGE) {
            self.free_ports.push(number);
            return Err(error.into());
        }
        let sent = self.spare.pop().unwrap_or_else(SentIds::new);
        let port = Port {
            socket,
            link,
            opened: now,
            batches: 0,
            batches_before: 0,
            tickets: 0,
            sent,
            is_retired: false,
            is_spent: false,
            near_misses: 0,
            is_void: false,
        };
        self.ages.push_back((now + PORT_LIFETIME, number));
        self.ports[number as usize] = Some(port);
        let peer = self.peer(link);
        peer.live.push(number);
        peer.open += 1;
        self.room.add(open);
        Ok(number)
    }

    /// A socket should not be used again: it is retired at once if its backend has another, else when that has been opened.
    fn spend(&mut self, number: u32) {
        let Some(port) = self.ports.get_mut(number as usize).and_then(Option::as_mut) else { return };
        let link = port.link;
        port.is_spent = true;
        if self.peer(link).live.len() > 1 {
            self.retire(number);
        }
    }

    /// Retires the socket that had to stay until another was open.
    fn retire_spent(&mut self, link: Link) {
        // It was the only one.
        if let [before, _] = self.peer(link).live[..]
            && self.port(before).is_spent
        {
            self.retire(before);
        }
    }

    /// Takes a socket out of the choice, and closes it if nothing waits on it.
    fn retire(&mut self, number: u32) {
        let Some(port) = self.ports.get_mut(number as usize).and_then(Option::as_mut) else { return };
        let (link, was_retired) = (port.link, std::mem::replace(&mut port.is_retired, true));
        if !was_retired {
            self.peer(link).live.retain(|live| *live != number);
        }
        self.close_if_done(number);
    }

    /// Closes a retired socket on which nothing waits and for which no batch is being filled. The kernel takes it
    /// out of the epoll set.
    fn close_if_done(&mut self, number: u32) {
        let Some(port) = &self.ports[number as usize] else { return };
        let (is_idle, link) = (port.is_retired && port.tickets == 0 && !port.is_void, port.link);
        if is_idle && self.peer(link).current != Some(number) {
            self.close(number);
        }
    }

    /// Closes a socket. Its number stays taken until the next [`ready`](Self::ready): the caller may be in the midst of a
    /// batch of replies from it, which must not pass for replies on the next socket, perhaps another backend's.
    fn close(&mut self, number: u32) {
        self.closed_ports.push(number);
        let Some(Port { socket, link, mut sent, .. }) = self.ports[number as usize].take() else { return };
        self.closing.push(socket);
        sent.clear();
        self.spare.push(sent);
        // Of a backend that is being forgotten, all is.
        if let Some(peer) = &mut self.links[link.0 as usize] {
            self.room.remove(peer.open);
            peer.open -= 1;
        }
    }

    /// The backend of a link.
    fn peer(&mut self, link: Link) -> &mut Peer {
        self.links[link.0 as usize].as_mut().expect("links are removed only when no pool has them")
    }

    /// An open socket.
    fn port(&mut self, number: u32) -> &mut Port {
        self.ports[number as usize].as_mut().expect("a socket with tickets is open")
    }
}

/// Sockets of one backend that are open for choice: with 16 random bits of ID, 64 ports at a time add 6 bits, and
/// their renewal the rest.
const PORTS_PER_BACKEND: usize = 64;

/// One of so many sockets is opened for whole trains to find out whether any come. A socket that waits for trains in vain costs:
/// with every datagram the kernel looks for more (an LS before backends that send none: 2 % of its time).
const TRIAL: u32 = 16;

/// Sockets that are opened for whole trains after one came: the trials among as many find the next one if trains are usual.
const FOR_TRAINS: u32 = PORTS_PER_BACKEND as u32;

/// Batches after which a socket is replaced.
const BATCHES_PER_PORT: u32 = 64;

/// Tickets that one socket may have, late ones included, so that a free ID is found by the second draw on average. With
/// [`BATCHES_PER_PORT`] it never comes near that, but where no other socket can be opened.
const TICKETS_PER_PORT: u32 = 1 << 15;

/// Time after which a socket is replaced, or closed if nothing waits on it.
const PORT_LIFETIME: Duration = Duration::from_secs(3);

/// How long an ID stays taken after its attempt was given up.
const QUARANTINE: Duration = Duration::from_secs(2);

/// Sockets for which there is room before anything has to grow.
const WARM_PORTS: usize = 1024;

/// What epoll says of the alarm, where sockets have their number.
const ALARM: u64 = u64::MAX;

/// Sockets are read until they are empty, so one word for each arrival is enough.
const EDGE: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);

#[cfg(test)]
mod tests;
