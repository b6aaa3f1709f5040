//! Tests of the turns of clients, and of the choice of a connection.

use std::pin::Pin;
use std::task::{Context, Waker};

use tokio::task::LocalSet;

use super::*;

/// A bench where connections are opened but their tasks never run.
struct Bench(Rc<FetchPool>);

/// A query on a connection.
struct Pending {
    connection: Rc<SharedClient>,
    _asked: Pin<Box<dyn Future<Output = ()>>>,
}

impl Bench {
    /// Queues a client's fetch for a backend, if there is room.
    fn add(&self, client: u8, backend: u16) -> Option<FetchTurn> {
        let client = Some(Ipv4Addr::new(192, 0, 2, client).into());
        let may_wait = self.0.may_wait(client, address(backend));
        let turn = self.0.enqueue(client, address(backend), false);
        (may_wait || turn.has_come()).then_some(turn)
    }

    /// Queues several fetches, which must all find room.
    fn add_many(&self, client: u8, count: usize) -> Vec<FetchTurn> {
        (0..count).map(|_| self.add(client, 1).expect("there is room")).collect()
    }

    fn ask(&self, backend: u16, choice: ConnectionChoice) -> Option<Pending> {
        let connection = self.0.choose(address(backend), None, choice)?;
        let client = Rc::clone(&connection);
        let mut asked: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move { drop(client.ask(vec![0; 17]).await) });
        assert!(asked.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        Some(Pending { connection, _asked: asked })
    }

    /// Asks several queries, which must all find a connection.
    fn ask_many(&self, backend: u16, count: usize) -> Vec<Pending> {
        (0..count).map(|_| self.ask(backend, ConnectionChoice::Any).expect("a connection")).collect()
    }

    fn connections(&self, backend: u16) -> usize {
        self.0.shares.borrow().connections.of(&address(backend))
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

#[test]
fn a_few_connections_carry_all_and_one_carries_few() {
    run(|bench| {
        let first = bench.ask_many(1, SPREAD);
        assert_eq!(bench.connections(1), 1);
        let more = bench.ask_many(1, HALF);
        assert_eq!(bench.connections(1), CONNECTIONS_A_BACKEND);
        assert!(more.iter().all(|query| query.connection.pending() <= PIPELINE));
        drop((first, more));
        assert_eq!(bench.connections(1), CONNECTIONS_A_BACKEND, "their ends are reported later");
    });
}

#[test]
fn client_takes_half_of_the_places_and_another_finds_one() {
    run(|bench| {
        let mut greedy = bench.add_many(1, 2 * HALF);
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
        let _pending: Vec<_> = (0..20).map(|backend| bench.ask_many(backend, SPREAD * CONNECTIONS_A_BACKEND)).collect();
        let all: usize = (0..20).map(|backend| bench.connections(backend)).sum();
        assert!(all <= CONNECTIONS, "{all}");
        assert!((0..20).all(|backend| bench.connections(backend) > 0), "each has one at least");
    });
}

#[test]
fn idle_connection_makes_room_for_a_backend_without() {
    run(|bench| {
        let mut pending: Vec<_> = (0..CONNECTIONS as u16).flat_map(|backend| bench.ask_many(backend, 1)).collect();
        assert!(bench.ask(1000, ConnectionChoice::Any).is_none());
        let idle = Rc::downgrade(&pending.swap_remove(7).connection);
        assert!(idle.upgrade().is_some(), "it is kept");
        assert!(bench.ask(1000, ConnectionChoice::Any).is_none());
        assert!(idle.upgrade().is_none(), "it closes, and its task reports that");
        bench.0.ended(address(7), &ClientEnd::Closed);
        assert!(bench.ask(1000, ConnectionChoice::Any).is_some());
    });
}

#[test]
fn backend_that_closes_after_one_reply_gets_one_query_on_a_connection() {
    run(|bench| {
        let pending = bench.ask_many(1, 4);
        assert!(pending.iter().all(|query| Rc::ptr_eq(&query.connection, &pending[0].connection)));
        bench.0.ended(address(1), &ClientEnd::Lost { idle: None, is_for_one: true });
        let apart = bench.ask_many(1, CONNECTIONS_A_BACKEND);
        assert!(apart.iter().all(|query| query.connection.pending() == 1));
        assert!(bench.ask(1, ConnectionChoice::Any).is_none());
        assert_eq!(granted(&bench.add_many(1, PIPELINE)), CONNECTIONS_A_BACKEND / 2);
    });
}

#[test]
fn backend_that_closes_idle_connections_is_kept_for_less() {
    run(|bench| {
        bench.ask_many(1, 1);
        bench.0.ended(address(1), &ClientEnd::Lost { idle: Some(Duration::from_secs(5)), is_for_one: false });
        assert_eq!(bench.0.shares.borrow().backends[&address(1)].idle.idle(IDLE), Duration::from_secs(4));
    });
}

#[test]
fn present_connection_suffices_where_no_other_can_be_opened() {
    run(|bench| {
        let pending = bench.ask_many(1, SPREAD);
        let present = bench.ask(1, ConnectionChoice::Present).expect("a connection");
        assert!(Rc::ptr_eq(&present.connection, &pending[0].connection));
        let fresh = bench.ask(1, ConnectionChoice::Fresh).expect("a connection");
        assert!(!Rc::ptr_eq(&fresh.connection, &pending[0].connection));
    });
}

#[test]
fn a_holder_of_many_addresses_is_one_party() {
    let party = |text: &str| party_of(Some(text.parse().expect("an address")));
    assert_eq!(party("2001:db8:0:12::1"), party("2001:db8:0:34:5::6"));
    assert_ne!(party("2001:db8:0:112::1"), party("2001:db8:0:12::1"));
    assert_ne!(party("192.0.2.1"), party("192.0.2.2"));
}
