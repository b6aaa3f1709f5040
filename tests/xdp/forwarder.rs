//! Tests of the forwarder from the client's side, by sockets and by XDP: cache, races, hedges, and backends
//! behind a separate device.

use std::collections::HashSet;
use std::time::Instant;

use testkit::*;

use crate::world::{
    self, BACKEND, BACKEND_2, BACKEND_6, BACKEND_DEVICE, DEVICE, NEAR_BACKENDS, NEAR_BACKENDS_6, SERVER, SERVER_6, Way,
    World, at, both_ways, forwarder,
};

both_ways! {
    cache_answers_what_it_has
    both_are_asked_and_the_quick_one_wins
    hedge_wins_over_a_slow_backend
    unreachable_port_moves_the_race_on_at_once
    backend_that_ends_is_replaced_by_the_other
    answers_of_a_backend_come_as_they_are
    many_queries_at_once_are_all_answered
    backends_of_both_families_are_asked
    ports_and_numbers_cannot_be_guessed
    backends_by_a_device_without_xdp_are_asked
    rules_hold_for_their_listener
}

const ONE: &str = "192.0.2.1";
const TWO: &str = "192.0.2.2";

/// Starts a backend at this address, on a free port.
pub(crate) fn backend(address: &str, script: Script) -> Backend {
    Backend::at(&at(address, 0).to_string(), script)
}

/// Returns a name that no earlier query has used.
pub(crate) fn unique() -> String {
    format!("u{}.example", query("", A).id)
}

/// Timeouts so long that only the events of a test move a race on.
pub(crate) const PATIENT: &str = "balance = 'ordered'\ntimeout = '20s'\nattempt_timeout = '20s'\n";

fn cache_answers_what_it_has(way: Way) {
    let world = World::with_backends(way);
    let backend = backend(BACKEND, answer_for(300, ONE));
    let server = world.start(&forwarder(&[SERVER, SERVER_6], &[&backend], "").cache("").to_toml(), &[]);
    world.ask_until_sent(&server, BACKEND_DEVICE, || drop(Client::of(at(SERVER, 53)).ask(&query(&unique(), A))));
    let before = backend.queries().len();
    for (address, prefix) in [(SERVER, "four"), (SERVER_6, "six")] {
        let client = Client::of(at(address, 53));
        for round in 0..3 {
            for number in 0..50 {
                let response = client.ask(&query(&format!("{prefix}{number}.example"), A).edns(1232));
                assert_eq!(response.answers(), [ONE], "round {round}");
            }
        }
    }
    assert_eq!(backend.queries().len() - before, 100, "each is asked for once");
    let metrics = world::metrics(&server);
    assert_eq!(metrics.sum("hedgerow_responses_total", &[("source", "cache"), ("rcode", "NOERROR")]), 200);
    assert_eq!(metrics.attempts(backend.address(), Some("first")), backend.queries().len() as u64);
    world.check_served(&server, DEVICE, [300, 300]);
    world.check_served(&server, BACKEND_DEVICE, [100, 100]);
}

fn both_are_asked_and_the_quick_one_wins(way: Way) {
    let world = World::with_backends(way);
    let (slow, quick) = (backend(BACKEND, answer(ONE).held()), backend(BACKEND_2, answer(TWO)));
    let keys = format!("dispatch = 'race'\nfanout = 2\n{PATIENT}");
    let server = world.start(&forwarder(&[SERVER], &[&slow, &quick], &keys).to_toml(), &[]);
    let client = Client::of(at(SERVER, 53));
    world.ask_until_sent(&server, BACKEND_DEVICE, || drop(client.ask(&query(&unique(), A))));
    let before = slow.queries().len();
    for number in 0..50 {
        assert_eq!(client.ask(&query(&format!("n{number}.example"), A)).answers(), [TWO]);
    }
    slow.wait_for(before + 50);
    slow.release();
    // The server drops the late replies: the next answer belongs to the next query.
    assert_eq!(client.ask(&query("last.example", A)).answers(), [TWO]);
    world.check_served(&server, DEVICE, [51, 51]);
    world.check_served(&server, BACKEND_DEVICE, [90, 90]);
}

fn hedge_wins_over_a_slow_backend(way: Way) {
    let world = World::with_backends(way);
    let (slow, quick) = (backend(BACKEND, answer(ONE).held()), backend(BACKEND_2, answer(TWO)));
    let keys = format!("dispatch = 'hedge'\n{PATIENT}[hedge]\ndelay = '20ms'\nbudget = 1.0\n");
    let server = world.start(&forwarder(&[SERVER], &[&slow, &quick], &keys).to_toml(), &[]);
    let client = Client::of(at(SERVER, 53));
    for number in 0..10 {
        assert_eq!(client.ask(&query(&format!("n{number}.example"), A)).answers(), [TWO]);
    }
    assert_eq!((slow.queries().len(), quick.queries().len()), (10, 10));
    let metrics = world::metrics(&server);
    assert_eq!(metrics.attempts(quick.address(), Some("hedge")), 10);
    world.ask_until_sent(&server, BACKEND_DEVICE, || drop(client.ask(&query(&unique(), A))));
    world.check_served(&server, BACKEND_DEVICE, [1, 1]);
}

fn unreachable_port_moves_the_race_on_at_once(way: Way) {
    let world = World::with_backends(way);
    let quick = backend(BACKEND_2, answer(TWO));
    // No socket listens at the first backend's port, so the kernel there sends an ICMP error.
    let closed = [at(BACKEND, 5_399), at(BACKEND_6, 5_399)];
    for (number, closed) in closed.iter().enumerate() {
        let keys = format!("dispatch = 'sequential'\n{PATIENT}[health]\ninterval = '60s'\n");
        let server = world.start(&forwarder(&[SERVER], &[closed, &quick], &keys).to_toml(), &[]);
        let client = Client::of(at(SERVER, 53));
        let asked = Instant::now();
        for name in 0..5 {
            assert_eq!(client.ask(&query(&format!("n{name}x{number}.example"), A)).answers(), [TWO]);
        }
        // Without the ICMP error, each query would have waited for its deadline.
        assert!(asked.elapsed() < ms(10_000), "{:?}", asked.elapsed());
        world.check_served(&server, DEVICE, [5, 5]);
    }
}

fn backend_that_ends_is_replaced_by_the_other(way: Way) {
    let world = World::with_backends(way);
    let (first, second) = (backend(BACKEND, answer(ONE)), backend(BACKEND_2, answer(TWO)));
    let keys = format!("dispatch = 'sequential'\n{PATIENT}");
    let server = world.start(&forwarder(&[SERVER], &[&first, &second], &keys).to_toml(), &[]);
    let client = Client::of(at(SERVER, 53));
    world.ask_until_sent(&server, BACKEND_DEVICE, || drop(client.ask(&query(&unique(), A))));
    for number in 0..20 {
        assert_eq!(client.ask(&query(&format!("before{number}.example"), A)).answers(), [ONE]);
    }
    drop(first);
    let asked = Instant::now();
    for number in 0..20 {
        assert_eq!(client.ask(&query(&format!("after{number}.example"), A)).answers(), [TWO]);
    }
    assert!(asked.elapsed() < ms(10_000), "{:?}", asked.elapsed());
    world.check_served(&server, DEVICE, [40, 40]);
    world.check_served(&server, BACKEND_DEVICE, [20, 20]);
}

fn answers_of_a_backend_come_as_they_are(way: Way) {
    let world = World::with_backends(way);
    let big = reply(|reply| reply.with_flags(AA).answer(txt(1_100)));
    let script = answer(ONE)
        .except("servfail", servfail())
        .except("refused", rcode(REFUSED))
        .except("nxdomain", nxdomain())
        .except("nodata", nodata_authoritative())
        .except("referral", referral())
        .except("big", big)
        .except("cut", truncated().by_tcp(reply(|reply| reply.with_flags(AA).answer(txt(1_100)))));
    let backend = backend(BACKEND, script);
    let keys = "dispatch = 'sequential'\naccept = 'any'\ntimeout = '5s'\nattempt_timeout = '4s'\n";
    let config = |port: u16| {
        let rates = "rate_limit = { answers = 0, referrals = 0, nxdomains = 0, errors = 0, total = 0 }";
        let listen = format!("['{}', '{}']", at(SERVER, port), at(SERVER_6, port));
        Forwarder::to(&[&backend], keys).listen(&listen).keys(&format!("{rates}\ncookies = false")).admin().to_toml()
    };
    let server = world.start(&config(53), &[]);
    let oracle = world.start_exactly(&config(5_353), &[], |_| {});
    world.ask_until_sent(&server, BACKEND_DEVICE, || drop(Client::of(at(SERVER, 53)).ask(&query(&unique(), A))));
    let mut count = 0;
    for address in [SERVER, SERVER_6] {
        let [client, other] = [53, 5_353].map(|port| Client::of(at(address, port)));
        for name in ["www", "servfail", "refused", "nxdomain", "nodata", "referral", "big", "cut"] {
            for question in [query(&format!("{name}.example"), TXT), query(&format!("{name}.example"), TXT).edns(1232)]
            {
                let [response, expected] = [&client, &other].map(|client| client.ask(&question).bytes);
                assert_eq!(response, expected, "{name}, {address}");
                count += 1;
            }
        }
    }
    world.check_served(&server, DEVICE, [count, count]);
    world.check_served(&server, BACKEND_DEVICE, [20, 20]);
    drop(oracle);
}

fn many_queries_at_once_are_all_answered(way: Way) {
    for workers in [1, 2] {
        let world = World::with_backends(way);
        let (first, second) = (backend(BACKEND, load_answer()), backend(BACKEND_2, load_answer()));
        let keys = "dispatch = 'sequential'\n";
        let config = forwarder(&[SERVER], &[&first, &second], keys).workers(workers).to_toml();
        let server = world.start(&config, &[]);
        let load = Load::start(at(SERVER, 53), 2_000);
        load.run_for(ms(1_000));
        let report = load.stop();
        let sent = report.queries.len();
        assert_eq!((report.lost(), report.wrong(), report.strays, report.refused), (0, 0, 0, 0), "of {sent}");
        let sent = sent as u64;
        world.check_served(&server, DEVICE, [sent, sent]);
        // A reply that arrives on another worker's queue goes through the kernel.
        world.check_served(&server, BACKEND_DEVICE, [sent / 4, sent / 4]);
    }
}

fn backends_of_both_families_are_asked(way: Way) {
    let world = World::with_backends(way);
    let (four, six) = (backend(BACKEND, answer(ONE)), backend(BACKEND_6, answer(TWO)));
    let keys = "dispatch = 'sequential'\nbalance = 'round-robin'\n";
    let server = world.start(&forwarder(&[SERVER_6], &[&four, &six], keys).to_toml(), &[]);
    let client = Client::of(at(SERVER_6, 53));
    world.ask_until_sent(&server, BACKEND_DEVICE, || drop(client.ask(&query(&unique(), A))));
    let answers: Vec<_> = (0..40).flat_map(|n| client.ask(&query(&format!("n{n}.example"), A)).answers()).collect();
    for address in [ONE, TWO] {
        assert!(answers.iter().filter(|answer| *answer == address).count() >= 10, "{answers:?}");
    }
    let near: HashSet<_> =
        [&four, &six].iter().flat_map(|backend| backend.queries()).map(|seen| seen.peer.ip()).collect();
    let expected = [NEAR_BACKENDS, NEAR_BACKENDS_6].map(|address| at(address, 0).ip());
    assert_eq!(near, HashSet::from(expected), "each from the address towards it");
    world.check_served(&server, BACKEND_DEVICE, [15, 15]);
}

fn ports_and_numbers_cannot_be_guessed(way: Way) {
    let world = World::with_backends(way);
    let backend = backend(BACKEND, answer(ONE));
    let server = world.start(&forwarder(&[SERVER], &[&backend], "").to_toml(), &[]);
    let client = Client::of(at(SERVER, 53));
    world.ask_until_sent(&server, BACKEND_DEVICE, || drop(client.ask(&query(&unique(), A))));
    for number in 0..400 {
        assert_eq!(client.ask(&query(&format!("n{number}.example"), A)).answers(), [ONE]);
    }
    let seen = backend.queries();
    let ids: HashSet<_> = seen.iter().map(Seen::id).collect();
    let ports: HashSet<_> = seen.iter().map(|seen| seen.peer.port()).collect();
    // RFC 5452 section 9.2: queries use many ports and the whole range of IDs.
    assert!(ids.len() >= 350 && ports.len() >= 8, "{} IDs, {} ports", ids.len(), ports.len());
    assert!(ids.iter().filter(|id| **id >= 0x8000).count() >= 100, "all of them");
    // IDs are not sequential.
    let rising = seen.windows(2).filter(|pair| pair[1].id() == pair[0].id().wrapping_add(1)).count();
    assert!(rising <= 5, "{rising} IDs follow the one before");
    world.check_served(&server, BACKEND_DEVICE, [350, 350]);
}

fn backends_by_a_device_without_xdp_are_asked(way: Way) {
    let world = World::with_backends(way);
    let backend = backend(BACKEND, answer(ONE));
    let config = forwarder(&[SERVER], &[&backend], "").to_toml();
    let section = world.section().replace(", { name = 'v1' }", "");
    let server = world.start_exactly(&format!("{config}{section}"), &[], |_| {});
    let client = Client::of(at(SERVER, 53));
    for number in 0..50 {
        assert_eq!(client.ask(&query(&format!("n{number}.example"), A)).answers(), [ONE]);
    }
    world.check_served(&server, DEVICE, [50, 50]);
    assert_eq!(world::metrics(&server).sum("hedgerow_xdp_frames_total", &[("interface", BACKEND_DEVICE)]), 0);
}

fn rules_hold_for_their_listener(way: Way) {
    let world = World::with_backends(way);
    let backend = backend(BACKEND, answer(ONE));
    let rules = format!(
        "rules = [{{ name = 'listener', listeners = ['{SERVER}:53'], names = ['a.example'], then = 'nxdomain' }},
         {{ name = 'alias', transports = ['udp'], names = ['b.example'], then = {{ cname = 'c.example' }} }}]"
    );
    let server = world.start(&forwarder(&[SERVER, SERVER_6], &[&backend], "").keys(&rules).to_toml(), &[]);
    world.ask_until_sent(&server, BACKEND_DEVICE, || drop(Client::of(at(SERVER, 53)).ask(&query(&unique(), A))));
    for (address, rcode) in [(SERVER, NXDOMAIN), (SERVER_6, NOERROR)] {
        let client = Client::of(at(address, 53));
        assert_eq!(client.ask(&query("a.example", A)).rcode(), rcode, "{address}");
        assert_eq!(client.ask(&query("b.example", A)).answers(), [ONE, "c.example."], "{address}");
    }
    world.check_served(&server, DEVICE, [4, 4]);
}
