//! The exchange over loopback: sockets, IDs, errors and the alarm.

use std::collections::HashSet;
use std::net::UdpSocket;

use rustix::event::{PollFd, PollFlags, poll};

use super::port::{UNPRIVILEGED, connected};
use super::*;
use crate::metrics::Want;

/// An exchange with one backend, whose socket is ours.
struct Fixture {
    /// What is tested.
    exchange: Exchange<u32, u32>,
    /// The backend as the exchange knows it.
    link: Link,
    /// The backend.
    backend: UdpSocket,
    /// The time; it passes only if a test says so.
    now: Instant,
}

impl Fixture {
    /// Nothing has been sent.
    fn new() -> Self {
        let backend = UdpSocket::bind("127.0.0.1:0").unwrap();
        backend.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut exchange = Exchange::new(PLENTY).unwrap();
        let link = exchange.add(backend.local_addr().unwrap(), 64);
        Self { exchange, link, backend, now: Instant::now() }
    }

    /// A backend where nobody listens: its socket takes from another peer only, and so keeps the port for itself.
    fn dead() -> Self {
        let fixture = Self::new();
        fixture.backend.connect("127.0.0.1:1").unwrap();
        fixture
    }

    /// Queues a message with this ticket.
    fn queue(&mut self, ticket: u32) -> TicketKey {
        self.exchange.queue(self.link, ticket, self.now, |_, out| out.extend_from_slice(MESSAGE)).unwrap()
    }

    /// Sends what is queued; returns what was refused.
    fn flush(&mut self) -> Vec<Refused<u32, u32>> {
        let mut refused = Vec::new();
        self.exchange.flush(&mut refused);
        refused
    }

    /// Queues a message and sends it.
    fn send(&mut self, ticket: u32) -> TicketKey {
        let key = self.queue(ticket);
        assert!(self.flush().is_empty());
        key
    }

    /// Receives a message as the backend; returns its ID and whence it came.
    fn receive(&self) -> (u16, SocketAddr) {
        let mut message = [0; 64];
        let (length, from) = self.backend.recv_from(&mut message).unwrap();
        assert_eq!(&message[2..length], &MESSAGE[2..]);
        (u16::from_be_bytes([message[0], message[1]]), from)
    }

    /// Waits until something has happened.
    fn wait(&mut self) -> Vec<Event> {
        wait(&mut self.exchange)
    }

    /// Sends a message, and has it replied to and settled.
    fn round_trip(&mut self) -> SocketAddr {
        let key = self.send(0);
        let (id, from) = self.receive();
        assert_eq!(id, key.id());
        self.backend.send_to(&id.to_be_bytes(), from).unwrap();
        assert_eq!(self.wait(), [Event::Socket(key.port())]);
        let mut batch = RecvBatch::new(4, 64);
        assert_eq!(self.exchange.recv(key.port(), &mut batch), Ok(1));
        assert_eq!(self.exchange.find(key.port(), id).map(|(found, _)| found), Some(key));
        self.exchange.settle(key, self.now);
        from
    }

    /// The open sockets.
    fn open(&self) -> impl Iterator<Item = &Port> {
        self.exchange.ports.iter().flatten()
    }
}

/// Waits until something has happened to an exchange.
fn wait(exchange: &mut Exchange<u32, u32>) -> Vec<Event> {
    let mut events = Vec::new();
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as _, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::from_borrowed_fd(exchange.watched(), PollFlags::IN)], Some(&patience)).unwrap();
    assert_eq!(ready, 1, "nothing has happened");
    assert!(!exchange.ready(&mut events));
    events
}

#[test]
fn with_time_to_spare_each_message_leaves_from_a_fresh_port() {
    let mut fixture = Fixture::new();
    let ports: HashSet<_> = (0..30).map(|_| fixture.round_trip().port()).collect();
    // By chance two may be the same, but not many.
    assert!(ports.len() > 25, "{ports:?}");
    // The last one stays until its successor is open.
    assert_eq!(fixture.open().count(), 1);
}

#[test]
fn last_socket_stays_where_no_other_can_be_opened() {
    let mut fixture = Fixture::new();
    let port = fixture.round_trip().port();
    // What there is is taken by others.
    fixture.exchange.room = Room::new(0);
    fixture.exchange.room.divide([1, 100].into_iter());
    for _ in 0..3 {
        assert_eq!(fixture.round_trip().port(), port);
    }
    fixture.exchange.room = Room::new(PLENTY);
    fixture.exchange.divide_room();
    assert_ne!(fixture.round_trip().port(), port);
    assert_eq!((fixture.open().count(), fixture.exchange.peer(fixture.link).live.len()), (1, 1));
}

#[test]
fn sockets_are_shared_where_there_is_room_for_few() {
    let mut fixture = Fixture::new();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = fixture.exchange.add(other.local_addr().unwrap(), 64);
    fixture.exchange.room = Room::new(8);
    fixture.exchange.divide_room();
    for ticket in 0..1000 {
        fixture.send(ticket);
    }
    // Two are kept for the other one.
    assert_eq!(fixture.open().count(), 6);
    for ticket in 0..10 {
        fixture.exchange.queue(other, ticket, fixture.now, |_, out| out.extend_from_slice(MESSAGE)).unwrap();
        assert!(fixture.flush().is_empty());
    }
    assert_eq!(fixture.open().count(), 8);
    // What is closed makes room.
    fixture.exchange.remove(fixture.link);
    fixture.exchange.queue(other, 0, fixture.now, |_, out| out.extend_from_slice(MESSAGE)).unwrap();
    assert_eq!(fixture.open().count(), 3);
}

#[test]
fn a_backend_that_sends_trains_gets_sockets_for_them() {
    let mut fixture = Fixture::new();
    let mut replies = SendBatch::new(2, 64);
    let mut batch = RecvBatch::for_trains(4, 64);
    let mut comes_whole = |fixture: &mut Fixture| {
        let keys = [fixture.queue(0), fixture.queue(1)];
        assert!(fixture.flush().is_empty());
        for _ in keys {
            let (id, from) = fixture.receive();
            replies.push(Some(from), None, |out| out.extend(id.to_be_bytes()));
        }
        replies.flush(&fixture.backend, |index, error| panic!("reply {index} refused: {error}"));
        assert_eq!(fixture.wait(), [Event::Socket(keys[0].port())]);
        assert_eq!(fixture.exchange.recv(keys[0].port(), &mut batch), Ok(2));
        // The next leave from a fresh port.
        fixture.now += Renewals::EVERY;
        keys.iter().for_each(|key| fixture.exchange.settle(*key, fixture.now));
        batch.has_trains()
    };
    // One of the first is a trial.
    assert!((0..100 * TRIAL).any(|_| comes_whole(&mut fixture)));
    for number in 0..2 * FOR_TRAINS {
        assert!(comes_whole(&mut fixture), "{number} after the first");
    }
    // Where none come any more, few are expected.
    for _ in 0..FOR_TRAINS {
        fixture.now += Renewals::EVERY;
        fixture.round_trip();
    }
    assert_eq!(fixture.exchange.peer(fixture.link).for_trains, 0);
}

#[test]
fn without_time_to_spare_sockets_stay() {
    let mut fixture = Fixture::new();
    fixture.exchange.renewals.credit = 0;
    fixture.exchange.renewals.since = Some(fixture.now);
    fixture.round_trip();
    assert_eq!(fixture.open().count(), 1);
}

#[test]
fn renewals_are_earned_by_time() {
    let now = Instant::now();
    let mut renewals = Renewals::new();
    let mut allowed = |after: Duration| (0..100).filter(|_| renewals.allow(now + after)).count();
    assert_eq!(allowed(Duration::ZERO), 64);
    assert_eq!(allowed(Renewals::EVERY - Duration::from_nanos(1)), 0);
    assert_eq!(allowed(3 * Renewals::EVERY), 3);
    assert_eq!(allowed(Duration::from_secs(60)), 64);
}

#[test]
fn messages_of_one_turn_share_a_socket_and_no_id() {
    let mut fixture = Fixture::new();
    let keys: HashSet<_> = (0..BATCH as u32).map(|ticket| fixture.queue(ticket)).collect();
    assert_eq!(keys.len(), BATCH);
    assert!(fixture.exchange.is_full(fixture.link));
    assert!(fixture.flush().is_empty());
    let received: HashSet<_> = (0..BATCH).map(|_| fixture.receive()).collect();
    let sources: HashSet<_> = received.iter().map(|(_, from)| from).collect();
    assert_eq!((received.len(), sources.len()), (BATCH, 1));
    assert!(!fixture.exchange.is_full(fixture.link));
}

#[test]
fn socket_with_half_of_its_ids_taken_takes_no_more() {
    let mut fixture = Fixture::new();
    fixture.exchange.room = Room::new(2);
    fixture.exchange.divide_room();
    let keys = [fixture.send(0), fixture.send(1)];
    fixture.exchange.port(keys[0].port()).tickets = TICKETS_PER_PORT;
    for ticket in 2..12 {
        assert_eq!(fixture.send(ticket).port(), keys[1].port(), "another has some left");
    }
    fixture.exchange.port(keys[1].port()).tickets = TICKETS_PER_PORT;
    let refused = fixture.exchange.queue(fixture.link, 12, fixture.now, |_, _| {});
    assert_eq!(refused, Err(Refusal::Unsent(Want::Ports)));
}

#[test]
fn abandoned_id_stays_taken_for_its_quarantine() {
    let mut fixture = Fixture::new();
    let key = fixture.send(7);
    fixture.exchange.abandon(key, fixture.now, |ticket| ticket);
    assert_eq!(fixture.exchange.find(key.port(), key.id()), Some((key, Held::Late(7))));
    let end = fixture.now + QUARANTINE;
    assert_eq!(fixture.exchange.next_tidy(), Some(end));
    fixture.exchange.tidy(end - Duration::from_nanos(1), |_| {});
    assert!(fixture.exchange.find(key.port(), key.id()).is_some());
    fixture.exchange.tidy(end, |_| {});
    assert!(fixture.exchange.find(key.port(), key.id()).is_none());
    assert_eq!((fixture.exchange.tickets.next_end(), fixture.open().count()), (None, 1));
}

#[test]
fn silence_opens_so_many_sockets_and_no_more() {
    let mut fixture = Fixture::new();
    for ticket in 0..500 {
        fixture.send(ticket);
    }
    assert_eq!(fixture.exchange.peer(fixture.link).live.len(), PORTS_PER_BACKEND);
    assert!(fixture.open().count() < PORTS_PER_BACKEND + 500 / BATCHES_PER_PORT as usize);
}

#[test]
fn socket_is_replaced_after_its_batches() {
    let mut fixture = Fixture::new();
    for ticket in 0..2 * BATCHES_PER_PORT * PORTS_PER_BACKEND as u32 {
        fixture.send(ticket);
    }
    assert!(fixture.open().all(|port| port.batches <= BATCHES_PER_PORT));
    let retired = fixture.open().filter(|port| port.is_retired);
    assert!(retired.count() > 0, "with tickets on it, a socket is kept");
    assert_eq!(fixture.exchange.peer(fixture.link).live.len(), PORTS_PER_BACKEND);
}

#[test]
fn socket_is_replaced_after_its_time() {
    let mut fixture = Fixture::new();
    for ticket in 0..PORTS_PER_BACKEND as u32 {
        fixture.send(ticket);
    }
    fixture.now += PORT_LIFETIME;
    let key = fixture.send(0);
    let (opened, now) = (fixture.exchange.port(key.port()).opened, fixture.now);
    assert_eq!(opened, now);
}

#[test]
fn number_of_a_closed_socket_is_not_given_away_in_the_same_turn() {
    let mut fixture = Fixture::new();
    let closed = fixture.send(0);
    fixture.exchange.settle(closed, fixture.now);
    let next = fixture.send(1);
    assert_eq!(fixture.open().count(), 1);
    assert_ne!(next.port(), closed.port());
    // What is left of the batch from the closed socket meets nobody.
    assert!(fixture.exchange.find(closed.port(), next.id()).is_none());
    fixture.exchange.ready(&mut Vec::new());
    assert_eq!(fixture.send(2).port(), closed.port());
}

#[test]
fn no_socket_believes_what_is_said_of_the_path_mtu() {
    use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
    let mut rng = StdRng::seed_from_u64(1);
    let mut connected = |address: &str| connected(address.parse().unwrap(), |_| false, &mut rng).unwrap();
    assert_eq!(sockopt::ip_mtu_discover(connected("127.0.0.1:53")), Ok(Ipv4PathMtuDiscovery::OMIT));
    assert_eq!(sockopt::ipv6_mtu_discover(connected("[::1]:53")), Ok(Ipv6PathMtuDiscovery::OMIT));
}

#[test]
fn ports_that_are_reserved_are_not_taken() {
    let backend = "127.0.0.1:53".parse().unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let odd = |port| port % 2 == 1;
    for _ in 0..20 {
        let port = connected(backend, odd, &mut rng).unwrap().local_addr().unwrap().port();
        assert!(port >= UNPRIVILEGED && !odd(port), "{port}");
    }
    let none = connected(backend, |_| true, &mut rng);
    assert_eq!(none.map(drop).map_err(|error| error.kind()), Err(io::ErrorKind::AddrInUse));
}

#[test]
fn dead_backend_is_reported_by_its_socket() {
    let mut fixture = Fixture::dead();
    let key = fixture.send(7);
    assert_eq!(fixture.wait(), [Event::Socket(key.port())]);
    assert_eq!(fixture.exchange.recv(key.port(), &mut RecvBatch::new(4, 64)), Err(IsUnreachable(true)));
    assert_eq!(fixture.exchange.link(key.port()), Some(fixture.link));
    let mut told = Vec::new();
    // It stays, and is told of once.
    fixture.exchange.tell_struck(key.port(), &mut told);
    fixture.exchange.tell_struck(key.port(), &mut told);
    assert_eq!(told, [7]);
    assert!(fixture.open().all(|port| port.is_spent && port.tickets == 1));
    let mut taken = Vec::new();
    fixture.exchange.take_struck(key.port(), &mut taken);
    assert_eq!(taken, [Held::Waiting(7)]);
    assert!(fixture.open().all(|port| port.is_spent && port.tickets == 0));
}

#[test]
fn error_that_waits_on_a_socket_costs_no_message() {
    let mut fixture = Fixture::dead();
    let first = fixture.send(1);
    // The ICMP error waits on that socket, and meets the next message from it.
    fixture.exchange.peer(fixture.link).current = Some(first.port());
    fixture.exchange.dirty.push(fixture.link);
    let second = fixture.queue(2);
    assert!(fixture.flush().is_empty());
    assert_eq!(second.port(), first.port());
    assert_eq!(fixture.exchange.pop_struck(), Some(first.port()));
    // It is about the first.
    let mut told = Vec::new();
    fixture.exchange.tell_struck(first.port(), &mut told);
    assert_eq!(told, [1]);
    // The second has left, and meets an error of its own.
    assert_eq!(fixture.wait(), [Event::Socket(second.port())]);
    assert_eq!(fixture.exchange.recv(second.port(), &mut RecvBatch::new(4, 64)), Err(IsUnreachable(true)));
    fixture.exchange.tell_struck(second.port(), &mut told);
    assert_eq!((told, fixture.exchange.pop_struck()), (vec![1, 2], None));
}

#[test]
fn message_that_the_kernel_does_not_take_is_handed_back() {
    let mut fixture = Fixture::new();
    let waits = fixture.queue(1);
    let too_long = |_, out: &mut Vec<u8>| out.resize(70_000, 0);
    let refused = fixture.exchange.queue(fixture.link, 2, fixture.now, too_long).unwrap();
    let handed_back = fixture.flush();
    assert_eq!(handed_back.len(), 1);
    let Refused { held, link, why } = handed_back[0];
    assert_eq!((held, link, why), (Held::Waiting(2), fixture.link, Refusal::Unsent(Want::Size)));
    assert!(fixture.exchange.find(refused.port(), refused.id()).is_none());
    assert!(fixture.exchange.find(waits.port(), waits.id()).is_some());
    assert!(fixture.open().all(|port| port.is_spent && port.tickets == 1));
}

#[test]
fn idle_sockets_are_closed_after_their_time() {
    let mut fixture = Fixture::new();
    fixture.exchange.renewals.credit = 0;
    fixture.exchange.renewals.since = Some(fixture.now);
    fixture.round_trip();
    let waits = fixture.send(1);
    assert_eq!(fixture.open().count(), 2);
    let end = fixture.now + PORT_LIFETIME;
    assert_eq!(fixture.exchange.next_tidy(), Some(end));
    fixture.exchange.tidy(end, |_| {});
    assert_eq!(fixture.open().count(), 1, "something waits on the other");
    fixture.exchange.settle(waits, end);
    let end = end + PORT_LIFETIME;
    fixture.exchange.tidy(end, |_| {});
    assert_eq!((fixture.open().count(), fixture.exchange.next_tidy()), (0, None));
}

#[test]
fn last_socket_of_a_backend_that_is_asked_is_not_idle() {
    let mut fixture = Fixture::new();
    let port = fixture.round_trip().port();
    // What there is is taken by others.
    fixture.exchange.room = Room::new(0);
    fixture.exchange.room.divide([1, 100].into_iter());
    for _ in 0..3 {
        fixture.now += PORT_LIFETIME;
        fixture.exchange.tidy(fixture.now, |_| {});
        assert_eq!(fixture.round_trip().port(), port);
    }
    let asked_last = fixture.now;
    for _ in 0..2 {
        fixture.now += PORT_LIFETIME;
        fixture.exchange.tidy(fixture.now, |_| {});
    }
    assert_eq!((fixture.open().count(), fixture.now - asked_last), (0, 2 * PORT_LIFETIME));
}

#[test]
fn taking_back_what_waits_leaves_other_backends_alone() {
    let mut fixture = Fixture::new();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = fixture.exchange.add(other.local_addr().unwrap(), 64);
    fixture.send(1);
    let late = fixture.send(2);
    fixture.exchange.abandon(late, fixture.now, |ticket| ticket);
    let kept = fixture.exchange.queue(other, 3, fixture.now, |_, out| out.extend_from_slice(MESSAGE)).unwrap();
    assert!(fixture.flush().is_empty());
    // In a batch that has not left yet.
    fixture.queue(4);
    let mut taken = Vec::new();
    fixture.exchange.take_waiting(fixture.link, &mut taken);
    taken.sort_unstable_by_key(|held| match held {
        Held::Waiting(ticket) | Held::Late(ticket) => *ticket,
    });
    assert_eq!(taken, [Held::Waiting(1), Held::Late(2), Held::Waiting(4)]);
    assert!(fixture.exchange.find(kept.port(), kept.id()).is_some());
    assert!(fixture.flush().is_empty());
    assert_eq!(fixture.open().filter(|port| port.tickets > 0).count(), 1);
    fixture.exchange.tidy(fixture.now, |_| {});
    assert_eq!(fixture.exchange.tickets.next_end(), None);
}

#[test]
fn removed_backend_leaves_nothing_behind() {
    let mut fixture = Fixture::new();
    let keys = [fixture.send(1), fixture.send(2), fixture.queue(3)];
    fixture.exchange.abandon(keys[0], fixture.now, |ticket| ticket);
    assert_eq!(fixture.exchange.remove(fixture.link), keys.len());
    assert_eq!(fixture.open().count(), 0);
    assert!(keys.iter().all(|key| !fixture.exchange.tickets.has(*key)));
    assert!(fixture.flush().is_empty());
    fixture.exchange.tidy(fixture.now, |_| {});
    assert_eq!(fixture.exchange.next_tidy(), None);
    assert_eq!(fixture.exchange.address(fixture.link), None);
    // The place is free for another.
    let address = fixture.backend.local_addr().unwrap();
    assert_eq!(fixture.exchange.add(address, 64), fixture.link);
    fixture.backend.set_nonblocking(true).unwrap();
    while fixture.backend.recv(&mut [0; 64]).is_ok() {}
    fixture.backend.set_nonblocking(false).unwrap();
    fixture.round_trip();
}

#[test]
fn alarm_fires_at_the_earliest_time_that_was_asked_for() {
    let (soon, far) = (Duration::from_millis(5), Duration::from_secs(3600));
    for times in [vec![soon], vec![soon, far], vec![far, soon], vec![far, Duration::ZERO]] {
        let mut exchange: Exchange<u32, u32> = Exchange::new(PLENTY).unwrap();
        let start = Instant::now();
        for time in &times {
            exchange.wake_at(start + *time, start);
        }
        assert_eq!(wait(&mut exchange), [Event::Alarm], "{times:?}");
        assert!(start.elapsed() >= *times.iter().min().unwrap());
        // It can be set again, and by then nothing is left of the earlier ones.
        exchange.wake_at(start, Instant::now());
        assert_eq!(wait(&mut exchange), [Event::Alarm], "{times:?}");
    }
}

/// Room for more sockets than any test opens.
const PLENTY: usize = 10_000;

/// What is sent; the ID takes the place of the first two octets.
const MESSAGE: &[u8] = b"??message";

/// How long something is waited for that must happen.
const PATIENCE: Duration = Duration::from_secs(10);
