//! Tests of the turns of clients, and of the choice of a connection.

use tokio::task::LocalSet;

use super::*;

/// A bench where connections are opened but their tasks never run.
struct Bench(Rc<FetchPool>);

impl Bench {
    /// Queues a client's fetch for a backend, if there is room.
    fn add(&self, client: u8, backend: u16) -> Option<FetchTurn> {
        let client = Some(Ipv4Addr::new(192, 0, 2, client).into());
        let may_wait = self.0.may_wait(client, address(backend));
        let turn = self.0.enqueue(client, address(backend), None, false);
        (may_wait || turn.has_come()).then_some(turn)
    }

    /// Queues several fetches, which must all find room.
    fn add_many(&self, client: u8, backend: u16, count: usize) -> Vec<FetchTurn> {
        (0..count).map(|_| self.add(client, backend).expect("there is room")).collect()
    }

    fn place(&self, client: u8, backend: u16) -> FetchPlace {
        let mut turn = self.add(client, backend).expect("there is room");
        turn.grant.try_recv().expect("there is a place")
    }

    fn connections(&self, backend: u16) -> usize {
        self.0.shares.borrow().connections.of(&address(backend))
    }

    /// Ends the connection of a place, as its task would.
    fn end(&self, place: &FetchPlace, end: &ClientEnd) {
        self.0.ended(place.address, &Rc::downgrade(&place.connection), end);
    }
}

/// Runs a test in a runtime for connection tasks.
fn run(test: impl FnOnce(Bench)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let pool = FetchPool::new(CONNECTIONS, Tasks::default(), Arc::default());
    LocalSet::new().block_on(&runtime, async { test(Bench(pool)) });
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn granted(turns: &[FetchTurn]) -> usize {
    turns.iter().filter(|turn| turn.has_come()).count()
}

const CONNECTIONS: usize = 64;

/// The places at a backend that one client alone gets.
const HALF: usize = CONNECTIONS_A_BACKEND * PIPELINE / 2;

const LOST: ClientEnd = ClientEnd::Lost { idle: None, is_for_one: false };

#[test]
fn a_few_connections_carry_all_and_one_carries_few() {
    run(|bench| {
        let first = bench.add_many(1, 1, SPREAD);
        assert_eq!((bench.connections(1), granted(&first)), (1, SPREAD));
        let more = bench.add_many(1, 1, HALF);
        assert_eq!((bench.connections(1), granted(&more)), (CONNECTIONS_A_BACKEND, HALF - SPREAD));
        drop((first, more));
        assert_eq!(bench.connections(1), CONNECTIONS_A_BACKEND, "they are kept");
        let place = bench.place(1, 1);
        assert!(Rc::ptr_eq(&place.connection, &bench.0.shares.borrow().backends[&address(1)].connections[0]));
    });
}

#[test]
fn client_takes_half_of_the_places_and_another_finds_one() {
    run(|bench| {
        let mut greedy = bench.add_many(1, 1, 2 * HALF);
        assert_eq!(granted(&greedy), HALF);
        assert!(bench.add(2, 1).expect("there is room").has_come(), "the other client is served at once");
        // One place is free: it goes to the client whose turn it is.
        drop(greedy.swap_remove(0));
        assert_eq!(granted(&greedy), HALF);
    });
}

#[test]
fn queue_is_bounded_and_shared() {
    run(|bench| {
        let queued = |client| std::iter::from_fn(|| bench.add(client, 1)).collect::<Vec<_>>();
        // The backend's share is not larger than the free part of the queue.
        let first = queued(1);
        assert_eq!(first.len(), HALF + QUEUE.div_ceil(3));
        let second = queued(2);
        assert!(second.len() > HALF / 2 + QUEUE / 10, "{}", second.len());
        let others = (bench.add(1, 2), bench.add(2, 2));
        assert!(others.0.is_some() && others.1.is_some(), "another backend has room for both");
        assert!(bench.0.shares.borrow().queued_of_parties.held() <= QUEUE / 2);
        drop((first, second, others));
        let shares = bench.0.shares.borrow();
        assert_eq!((shares.queued_of_parties.held(), shares.queued_for_backends.held()), (0, 0));
    });
}

#[test]
fn backends_share_the_connections_of_a_worker() {
    run(|bench| {
        let add = |backend| bench.add_many(backend as u8, backend, SPREAD * CONNECTIONS_A_BACKEND);
        let _turns: Vec<_> = (0..20).map(add).collect();
        let all: usize = (0..20).map(|backend| bench.connections(backend)).sum();
        assert!(all <= CONNECTIONS, "{all}");
        assert!((0..20).all(|backend| bench.connections(backend) > 0), "each has one at least");
    });
}

#[test]
fn idle_connection_makes_room_for_a_backend_without() {
    run(|bench| {
        let mut places: Vec<_> = (0..CONNECTIONS as u16).map(|backend| bench.place(1, backend)).collect();
        let late = bench.add(1, 1000).expect("there is room");
        assert!(!late.has_come());
        let idle = places.swap_remove(7);
        let (address, connection) = (idle.address, Rc::downgrade(&idle.connection));
        drop(idle);
        assert!(connection.upgrade().is_none(), "it is closed, and its task reports that");
        bench.0.ended(address, &connection, &ClientEnd::Closed);
        assert!(late.has_come());
    });
}

#[test]
fn query_after_a_lost_connection_has_a_fresh_one() {
    run(|bench| {
        let lost = bench.place(1, 1);
        bench.end(&lost, &LOST);
        let next = bench.place(1, 1);
        assert!(!Rc::ptr_eq(&lost.connection, &next.connection));
        assert_eq!(bench.connections(1), 1);
    });
}

#[test]
fn backend_that_closes_after_one_reply_gets_one_query_on_a_connection() {
    run(|bench| {
        let places: Vec<_> = (0..4).map(|_| bench.place(1, 1)).collect();
        assert!(places.iter().all(|place| Rc::ptr_eq(&place.connection, &places[0].connection)));
        bench.end(&places[0], &ClientEnd::Lost { idle: None, is_for_one: true });
        let apart = [bench.place(1, 1), bench.place(1, 1)];
        assert!(!Rc::ptr_eq(&apart[0].connection, &apart[1].connection));
        let [used, _] = apart;
        let connection = Rc::downgrade(&used.connection);
        drop(used);
        assert!(connection.upgrade().is_none(), "it is not used again");
    });
}

#[test]
fn backend_that_closes_idle_connections_is_kept_for_less() {
    run(|bench| {
        let place = bench.place(1, 1);
        let idle = Some(Duration::from_secs(5));
        bench.end(&place, &ClientEnd::Lost { idle, is_for_one: false });
        assert_eq!(bench.0.shares.borrow().backends[&address(1)].idle.idle(IDLE), Duration::from_secs(4));
    });
}

#[test]
fn want_of_descriptors_is_not_the_backends_failure() {
    run(|bench| {
        let unconnected = |error| ClientEnd::Unconnected(ConnectError::Io(error));
        let place = bench.place(1, 1);
        bench.end(&place, &unconnected(io::Error::from_raw_os_error(libc::EMFILE)));
        assert_eq!(place.connection.failure.get(), Some(ConnectFailure::Ours));
        // A connection exists, so it must suffice for a while.
        let places: Vec<_> = (0..=SPREAD).map(|_| bench.place(1, 2)).collect();
        assert!(!Rc::ptr_eq(&places[SPREAD].connection, &places[0].connection));
        bench.end(&places[SPREAD], &unconnected(io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(Rc::ptr_eq(&bench.place(1, 2).connection, &places[0].connection));
        let place = bench.place(1, 3);
        bench.end(&place, &unconnected(io::Error::from_raw_os_error(libc::ECONNREFUSED)));
        assert_eq!(place.connection.failure.get(), Some(ConnectFailure::OfBackend));
    });
}

#[test]
fn a_holder_of_many_addresses_is_one_party() {
    let party = |text: &str| party_of(Some(text.parse().expect("an address")));
    assert_eq!(party("2001:db8:0:12::1"), party("2001:db8:0:34:5::6"));
    assert_ne!(party("2001:db8:0:112::1"), party("2001:db8:0:12::1"));
    assert_ne!(party("192.0.2.1"), party("192.0.2.2"));
}
