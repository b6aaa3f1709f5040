//! Tests of the choice of backend and connection.

use super::*;

/// A bench where connections are opened but their tasks never run.
struct Bench {
    fetches: Fetches,
    races: u32,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let fetches = Fetches::new(CONNECTIONS, Tasks::default(), |_, _| {}).expect("there is randomness");
        Self { fetches, races: 0, now: Instant::now() }
    }

    /// Adds a client's fetch for these backends; returns its race if there was room.
    fn add(&mut self, client: u8, backends: &[u16]) -> Option<RaceRef> {
        let at = RaceRef::first_at(self.races);
        self.races += 1;
        let query = FetchQuery {
            backends: backends
                .iter()
                .map(|port| FetchFrom {
                    address: address(*port),
                    with_opt: true,
                    is_ad_trusted: true,
                    wants_header: false,
                })
                .collect(),
            message: vec![0; 17],
            opt_at: 17,
            question: vec![0; 5],
            patience: PATIENCE,
            deadline: self.now + DEADLINE,
            client: Some(client_at(client)),
        };
        self.fetches.add(at, query, Vec::new(), self.now).then_some(at)
    }

    /// Adds several fetches, which must all find room.
    fn add_many(&mut self, client: u8, backends: &[u16], count: usize) -> Vec<RaceRef> {
        (0..count).map(|_| self.add(client, backends).expect("there is room")).collect()
    }

    /// Returns the connection of a fetch.
    fn on(&self, at: RaceRef) -> Option<StreamKey> {
        match self.fetches.get(at)?.stage {
            FetchStage::Sent { on, .. } => Some(on),
            FetchStage::Queued | FetchStage::Nowhere => None,
        }
    }

    /// Returns the number of connections to a backend.
    fn connections(&self, port: u16) -> usize {
        self.fetches.streams.iter().filter(|(_, connection)| connection.address() == address(port)).count()
    }

    /// Delivers a good reply to a fetch.
    fn answer(&mut self, at: RaceRef) {
        let Some(FetchStage::Sent { on, id, .. }) = self.fetches.get(at).map(|fetch| fetch.stage) else {
            panic!("it was sent")
        };
        assert_eq!(self.fetches.hear(on, id, self.now), StreamMatch::Waiting(at));
        self.fetches.settle(at, self.now);
        self.fetches.end(at, self.now);
    }

    /// Ends a connection, as its task would report.
    fn lose(&mut self, key: StreamKey) -> Vec<RaceRef> {
        self.fetches.lose(key, &StreamEnd::Lost(io::ErrorKind::UnexpectedEof.into()), self.now)
    }
}

/// Runs a test in a runtime for connection tasks.
fn run(test: impl FnOnce(Bench)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async { test(Bench::new()) });
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn client_at(number: u8) -> Party {
    Ipv4Addr::new(192, 0, 2, number).into()
}

const CONNECTIONS: usize = 64;

const PATIENCE: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(3);

/// The slots on a backend's connections that one client alone gets.
const HALF: usize = CONNECTIONS_A_BACKEND * PIPELINE / 2;

#[test]
fn a_few_connections_carry_all_and_one_carries_few() {
    run(|mut bench| {
        let first = bench.add_many(1, &[1], SPREAD);
        assert_eq!(bench.connections(1), 1);
        bench.add_many(1, &[1], HALF);
        assert_eq!(bench.connections(1), CONNECTIONS_A_BACKEND);
        first.into_iter().for_each(|at| bench.answer(at));
        assert_eq!(bench.connections(1), CONNECTIONS_A_BACKEND, "they are kept");
    });
}

#[test]
fn client_takes_half_of_the_places_and_another_finds_one() {
    run(|mut bench| {
        let greedy = bench.add_many(1, &[1], 2 * HALF);
        assert_eq!(greedy.iter().filter(|at| bench.on(**at).is_some()).count(), HALF);
        let other = bench.add(2, &[1]).expect("there is room");
        assert!(bench.on(other).is_some(), "the other client is served at once");
        // One slot is free: it goes to the client whose turn it is.
        bench.answer(greedy[0]);
        assert!(bench.on(greedy[HALF]).is_some());
    });
}

#[test]
fn queue_is_bounded_and_shared() {
    run(|mut bench| {
        let queued = |bench: &mut Bench, client| std::iter::from_fn(|| bench.add(client, &[1])).count();
        // The backend's share is not larger than the free part of the queue.
        let first = queued(&mut bench, 1);
        assert_eq!(first, HALF + QUEUE.div_ceil(3));
        let second = queued(&mut bench, 2);
        assert!(second > HALF / 2 + QUEUE / 10, "{second}");
        assert!(bench.add(1, &[2]).is_some(), "another backend has room for both");
        assert!(bench.add(2, &[2]).is_some());
        assert!(bench.fetches.queued_of_parties.held() <= QUEUE / 2);
    });
}

#[test]
fn backends_share_the_connections_of_a_worker() {
    run(|mut bench| {
        for backend in 0..20 {
            bench.add_many(backend as u8, &[backend], SPREAD * CONNECTIONS_A_BACKEND);
        }
        let all: usize = (0..20).map(|backend| bench.connections(backend)).sum();
        assert!(all <= CONNECTIONS, "{all}");
        assert!((0..20).all(|backend| bench.connections(backend) > 0), "each has one at least");
    });
}

#[test]
fn idle_connection_makes_room_for_a_backend_without() {
    run(|mut bench| {
        let sent: Vec<_> = (0..CONNECTIONS as u16).map(|backend| bench.add(1, &[backend]).expect("room")).collect();
        let late = bench.add(1, &[1000]).expect("there is room");
        assert_eq!(bench.on(late), None);
        let idle = bench.on(sent[7]).expect("it was sent");
        bench.answer(sent[7]);
        // The connection is closed, and its task reports that.
        assert!(bench.fetches.streams.get(idle).is_some_and(StreamConnection::is_retired));
        assert!(bench.fetches.lose(idle, &StreamEnd::Closed, bench.now).is_empty());
        assert!(bench.on(late).is_some());
    });
}

#[test]
fn lost_connection_is_made_good_once() {
    run(|mut bench| {
        let kept = bench.add(1, &[1, 2]).expect("there is room");
        let first = bench.on(kept).expect("it was sent");
        bench.answer(kept);
        let at = bench.add(1, &[1, 2]).expect("there is room");
        assert_eq!(bench.on(at), Some(first), "the connection is kept");
        assert_eq!(bench.lose(first), []);
        let second = bench.on(at).expect("it was sent again");
        assert_eq!((bench.connections(1), second == first), (1, false));
        assert_eq!(bench.lose(second), [at]);
        assert_eq!(bench.fetches.pass_on(at, bench.now), FetchStep::Waits);
        assert_eq!(bench.connections(2), 1, "another backend is asked");
        let third = bench.on(at).expect("it was sent");
        assert_eq!(bench.lose(third), []);
        let fourth = bench.on(at).expect("it was sent again");
        assert_eq!(bench.lose(fourth), [at]);
        assert_eq!(bench.fetches.pass_on(at, bench.now), FetchStep::Over { is_unsent: false });
    });
}

#[test]
fn backend_that_closes_after_one_reply_gets_one_query_on_a_connection() {
    run(|mut bench| {
        let all = bench.add_many(1, &[1], 4);
        let on = bench.on(all[0]).expect("it was sent");
        assert!(all.iter().all(|at| bench.on(*at) == Some(on)));
        bench.answer(all[0]);
        assert_eq!(bench.lose(on), []);
        let apart: Vec<_> = all[1..].iter().map(|at| bench.on(*at).expect("it was sent")).collect();
        assert_eq!((bench.connections(1), apart.len()), (3, 3));
        assert!(apart[0] != apart[1] && apart[1] != apart[2]);
        bench.answer(all[1]);
        assert!(bench.fetches.streams.get(apart[0]).is_some_and(StreamConnection::is_retired), "it is not used again");
    });
}

#[test]
fn backend_that_closes_idle_connections_is_kept_for_less() {
    run(|mut bench| {
        let at = bench.add(1, &[1]).expect("there is room");
        let on = bench.on(at).expect("it was sent");
        bench.answer(at);
        bench.now += Duration::from_secs(2);
        bench.lose(on);
        assert_eq!(bench.fetches.backends[&address(1)].idle, Duration::from_secs(1));
        let at = bench.add(1, &[1]).expect("there is room");
        let on = bench.on(at).expect("it was sent");
        bench.answer(at);
        bench.fetches.lose(on, &StreamEnd::Closed, bench.now);
        assert_eq!(bench.fetches.backends[&address(1)].idle, Duration::from_secs(2), "it is tried again for longer");
    });
}

#[test]
fn silent_backend_costs_its_patience_and_its_connection() {
    run(|mut bench| {
        let at = bench.add(1, &[1, 2]).expect("there is room");
        let on = bench.on(at).expect("it was sent");
        assert_eq!(bench.fetches.on_due(at, bench.now), FetchStep::Waits);
        bench.now += PATIENCE;
        assert_eq!(bench.fetches.on_due(at, bench.now), FetchStep::Waits);
        assert!(bench.on(at).is_some_and(|next| next != on));
        assert!(bench.fetches.streams.get(on).is_some_and(StreamConnection::is_retired));
        bench.now += DEADLINE;
        assert_eq!(bench.fetches.on_due(at, bench.now), FetchStep::Over { is_unsent: false });
        assert!(bench.fetches.all.is_empty());
    });
}

#[test]
fn what_waits_for_a_place_goes_elsewhere_or_waits_on() {
    run(|mut bench| {
        bench.add_many(1, &[1], HALF);
        let (alone, elsewhere) = (bench.add(1, &[1]).expect("room"), bench.add(1, &[1, 2]).expect("room"));
        bench.now += PATIENCE;
        assert_eq!(bench.fetches.on_due(alone, bench.now), FetchStep::Waits);
        assert_eq!(bench.on(alone), None);
        assert_eq!(bench.fetches.on_due(elsewhere, bench.now), FetchStep::Waits);
        assert!(bench.on(elsewhere).is_some());
        bench.now += DEADLINE;
        assert_eq!(bench.fetches.on_due(alone, bench.now), FetchStep::Over { is_unsent: true });
        assert_eq!(bench.fetches.queued_of_parties.held(), 0);
        assert_eq!(bench.fetches.queued_for_backends.held(), 0);
    });
}

#[test]
fn want_of_descriptors_is_not_the_backends_failure() {
    run(|mut bench| {
        let at = bench.add(1, &[1]).expect("there is room");
        let on = bench.on(at).expect("it was sent");
        let end = StreamEnd::Unconnected(io::Error::from_raw_os_error(libc::EMFILE));
        assert_eq!(bench.fetches.lose(on, &end, bench.now), [at]);
        assert_eq!(bench.fetches.pass_on(at, bench.now), FetchStep::Over { is_unsent: true });

        // A connection exists, so it must suffice.
        let all = bench.add_many(1, &[2], SPREAD + 1);
        let (first, second) = (bench.on(all[0]).expect("sent"), bench.on(all[SPREAD]).expect("sent"));
        assert!(first != second);
        assert_eq!(bench.fetches.lose(second, &end, bench.now), []);
        assert_eq!(bench.on(all[SPREAD]), Some(first));

        let at = bench.add(1, &[3]).expect("there is room");
        let on = bench.on(at).expect("it was sent");
        let end = StreamEnd::Unconnected(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(bench.fetches.lose(on, &end, bench.now), [at]);
        assert_eq!(bench.fetches.pass_on(at, bench.now), FetchStep::Over { is_unsent: false });
    });
}

#[test]
fn a_holder_of_many_addresses_is_one_party() {
    let party = |text: &str| party_of(text.parse().expect("an address"));
    assert_eq!(party("2001:db8:0:12::1"), party("2001:db8:0:34:5::6"));
    assert_ne!(party("2001:db8:0:112::1"), party("2001:db8:0:12::1"));
    assert_ne!(party("192.0.2.1"), party("192.0.2.2"));
}
