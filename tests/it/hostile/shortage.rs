//! What we lack ourselves is no failure of a backend: a query that could not leave is never answered with a
//! name that does not exist, and nothing is remembered of it. And what goes to backends is bounded: in
//! length, and in number.

use std::process::Command;

use testkit::*;

const ONE: &str = "192.0.2.1";
const TWO: &str = "192.0.2.2";

/// Attempts that could not leave, for this cause.
fn unsent(metrics: &Metrics, backend: &Backend, cause: &str) -> u64 {
    let backend = backend.address().to_string();
    metrics.sum("hedgerow_unsent_attempts_total", &[("backend", &backend), ("cause", cause)])
}

/// Asserts that the response reports a local failure, and nothing about the name.
#[track_caller]
fn check_is_our_want(response: &Response) {
    assert_eq!((response.rcode(), response.extended_error()), (SERVFAIL, Some(OTHER)), "{response:?}");
    let text = response.options().into_iter().find(|(code, _)| *code == EXTENDED_ERROR);
    assert!(text.is_some_and(|(_, data)| data.len() > 2), "a text says why: {response:?}");
}

/// A forwarder with a cache and an admin server, before two pools: all names but those below `other.` are
/// `good`'s.
fn two_pools(good: &Backend, other: &Backend) -> Server {
    let words = "on_timeout = 'nxdomain'\non_all_down = 'nxdomain'";
    let forwarder = Forwarder::new().pool("good", ".", &[good], words).pool("other", "other", &[other], words);
    forwarder.cache("").admin().start()
}

#[test]
fn without_descriptors_nothing_is_made_up_and_nothing_kept() {
    let (good, other) = (Backend::new(answer(ONE)), Backend::new(answer(TWO)));
    let server = two_pools(&good, &other);
    let client = server.client();
    // No descriptor has a number below 0, so none can be opened.
    client.ask(&query("first.example", A));
    server.process.limit_descriptors(Some(0));
    for number in 0..20 {
        // The socket that is there stays until another can be opened.
        let response = client.ask(&query(&format!("{number}.example"), A));
        assert_eq!(response.answers(), [ONE], "{number}");
    }
    let name = query("www.other", A).edns(1232);
    (0..5).for_each(|_| check_is_our_want(&client.ask(&name)));
    server.process.limit_descriptors(None);
    assert_eq!(client.ask(&name).answers(), [TWO]);
    let metrics = server.admin().metrics();
    assert!(unsent(&metrics, &other, "descriptors") >= 10, "each was tried twice: {metrics:?}");
    assert_eq!(metrics.sum("hedgerow_responses_total", &[("source", "synthesized")]), 0);
    let lines = server.process.log().lines().filter(|line| line.contains("out of file descriptors")).count();
    assert!((1..=4).contains(&lines), "a line a second: {}", server.process.log());
}

#[test]
fn silence_of_some_says_nothing_while_others_could_not_be_asked() {
    if !namespace::enter("hostile::shortage::silence_of_some_says_nothing_while_others_could_not_be_asked") {
        return;
    }
    let quiet = Backend::new(silent().except("known", nxdomain()));
    let barred = Backend::at("127.0.0.2:0", answer(TWO));
    let keys = "timeout = '300ms'\non_timeout = 'nxdomain'";
    let server = Forwarder::to(&[&quiet, &barred], keys).cache("").admin().start();
    let client = server.client();
    // As a firewall does.
    route("add");
    let name = query("www.example", A).edns(1232);
    check_is_our_want(&client.ask(&name));
    // What one has said is its word, but it is not kept as if all had been asked.
    let known = query("known.example", A).edns(1232);
    assert_eq!(client.ask(&known).rcode(), NXDOMAIN);
    route("del");
    assert_eq!(client.ask(&name).answers(), [TWO]);
    assert_eq!(client.ask(&known).answers(), [TWO]);
    let metrics = server.admin().metrics();
    assert_eq!((unsent(&metrics, &barred, "system"), unsent(&metrics, &quiet, "system")), (4, 0));
    // Neither in latency nor in health.
    assert_eq!(metrics.sum("hedgerow_backend_up", &[("backend", &barred.address().to_string())]), 1);
}

#[test]
fn what_could_not_leave_goes_to_the_next_backend_at_once() {
    if !namespace::enter("hostile::shortage::what_could_not_leave_goes_to_the_next_backend_at_once") {
        return;
    }
    let barred = Backend::at("127.0.0.2:0", answer(TWO));
    let good = Backend::new(answer(ONE));
    for dispatch in ["race", "hedge", "sequential"] {
        let keys = format!("balance = 'ordered'\ndispatch = '{dispatch}'\nattempt_timeout = '30s'\ntimeout = '40s'");
        let server = Forwarder::to(&[&barred, &good], &keys).start();
        route("add");
        for number in 0..10 {
            let response = server.client().ask(&query(&format!("{number}.example"), A));
            assert_eq!(response.answers(), [ONE], "{dispatch}");
        }
        route("del");
    }
}

/// Has the kernel refuse to send anything to 127.0.0.2, or not any more.
fn route(change: &str) {
    let status = Command::new("ip").args(["route", change, "prohibit", "127.0.0.2/32", "table", "local"]).status();
    assert!(status.is_ok_and(|status| status.success()), "the routes of a namespace are its own");
}

#[test]
fn small_limits_are_divided_and_told() {
    let (good, quiet) = (Backend::new(answer(ONE)), Backend::new(silent()));
    let health = "[health]\ninterval = '100ms'";
    let config = Forwarder::new().pool("good", ".", &[&good], health).pool("quiet", "quiet", &[&quiet], health);
    let server = Server::start_limited(&config.admin().to_toml(), 64);
    // One party takes all connections and all sockets to backends that it can have.
    let client = server.client();
    let connections: Vec<_> = (0..64).map(|_| server.tcp_client()).collect();
    (0..300).for_each(|number| client.send(&query(&format!("{number}.quiet"), A)));
    quiet.wait_for(200);
    let other = server.client();
    for number in 0..50 {
        assert_eq!(other.ask(&query(&format!("{number}.example"), A)).answers(), [ONE], "{number}");
    }
    let probes = good.probes().len();
    good.wait_for_probes(probes + 3);
    let metrics = server.admin().metrics();
    assert_eq!(unsent(&metrics, &good, "descriptors") + unsent(&metrics, &quiet, "descriptors"), 0);
    drop(connections);

    // The log reports a limit that is too low, with a sufficient one.
    let server = Server::start_limited(&config_of_many(&good), 64);
    let line = server.process.wait_for_log("too low");
    assert!(line.contains("the limit of 64 file descriptors is too low, raise it"), "{line}");
    let client = server.client();
    until("all probes are through", || (client.ask(&query("www.example", A)).answers() == [ONE]).then_some(()));
}

/// A config that needs more than 64 descriptors: 30 pools.
fn config_of_many(backend: &Backend) -> String {
    let pools = (0..30).fold(Forwarder::new(), |config, number| {
        let suffix = if number == 0 { ".".to_owned() } else { format!("{number}.test") };
        config.pool(&format!("p{number}"), &suffix, &[backend], "[health]\ninterval = '1h'")
    });
    pools.to_toml()
}

#[test]
fn a_query_to_a_backend_is_no_longer_than_a_datagram_should_be() {
    let backend = Backend::new(answer(ONE));
    let server = Forwarder::to(&[&backend], "").start();
    for length in [1_000, 1_100, 3_900, 20_000, 60_000, 65_400] {
        let name = format!("{length}.example");
        let question = query(&name, A).option(65_001, &vec![7; length]).option(65_002, b"short");
        assert_eq!(server.tcp_client().ask(&question).answers(), [ONE]);
        let seen = &backend.wait_for_name(&name, 1)[0];
        assert!(seen.bytes.len() <= 1232, "{} octets", seen.bytes.len());
        let options: Vec<_> = seen.options().expect("with OPT").into_iter().map(|(code, _)| code).collect();
        let expected: &[u16] = if length <= 1_100 { &[65_001, 65_002] } else { &[65_002] };
        assert_eq!(options, expected, "{length}");
    }
}

#[test]
fn no_backend_has_more_queries_out_than_it_may() {
    let (one, two) = (Backend::new(answer(ONE).held()), Backend::new(answer(TWO).held()));
    let keys =
        "dispatch = 'sequential'\nbalance = 'ordered'\nmax_in_flight = 3\ntimeout = '60s'\nattempt_timeout = '60s'";
    let forwarder = Forwarder::to(&[&one, &two], keys).workers(2).cache("").admin();
    let server = forwarder.start();
    // Clients of both workers.
    let clients: Vec<_> = (0..6).map(|_| server.client()).collect();
    for (number, client) in clients.iter().enumerate() {
        client.send(&query(&format!("{number}.example"), A));
        one.wait_for((number + 1).min(3));
        two.wait_for((number + 1).saturating_sub(3));
    }
    let name = query("one.too.many", A).edns(1232);
    check_is_our_want(&server.client().ask(&name));
    assert_eq!((one.queries().len(), two.queries().len()), (3, 3));
    let metrics = server.admin().metrics();
    assert_eq!((unsent(&metrics, &one, "in_flight"), unsent(&metrics, &two, "in_flight")), (4, 1));
    one.release();
    two.release();
    let answers: Vec<_> = clients.iter().map(|client| client.receive().answers().concat()).collect();
    assert_eq!(answers, [ONE, ONE, ONE, TWO, TWO, TWO]);
    // There is room again, and what was refused is not remembered.
    server.client().send(&name);
    one.wait_for_name("one.too.many", 1);
}

#[test]
fn silence_that_nobody_waits_for_takes_no_place() {
    let (quick, quiet) = (Backend::new(answer(ONE)), Backend::new(silent()));
    let server = Forwarder::to(&[&quick, &quiet], "max_in_flight = 2").start();
    let client = server.client();
    for number in 0..50 {
        assert_eq!(client.ask(&query(&format!("{number}.example"), A)).answers(), [ONE]);
    }
    quiet.wait_for(50);
}

/// Replies with a TSIG record, as a backend with the key does.
fn signing(address: &'static str) -> Script {
    reply(move |reply| reply.without_opt().with_flags(AA).answer(a(address)).additional(tsig(0x4321)))
}

/// Sends octets by TCP, and waits for the response.
fn ask_by_tcp(server: &Server, message: &[u8]) -> Response {
    let mut client = server.tcp_client();
    client.send_bytes(&framed(message));
    client.receive()
}

#[test]
fn a_signed_query_passes_whole_and_so_does_its_reply() {
    let backend = Backend::new(signing(ONE));
    let server = Forwarder::to(&[&backend], "case = 'random'").cache("").start();
    // What the forwarder does to others: it takes the cookie out, has its own size and spelling, and folds
    // equal queries into one race.
    let question = query("wWw.eXample", A).edns(4000).option(COOKIE, b"clientck").id(0x7777);
    let signed = question.to_signed_vec();
    let client = server.client();
    for number in 1..=3 {
        let response = if number < 3 {
            client.send_bytes(&signed);
            client.receive()
        } else {
            ask_by_tcp(&server, &signed)
        };
        let seen = backend.wait_for(number).pop().expect("it was waited for");
        assert_eq!(seen.bytes[2..], signed[2..], "all but the ID, each time");
        let reply = reply_to(&seen.bytes).without_opt().with_flags(AA).answer(a(ONE)).additional(tsig(0x4321));
        assert_eq!((response.id(), &response.bytes[2..]), (0x7777, &reply.to_vec()[2..]));
    }
    // An unsigned query shares its answer with no signed one, in neither direction.
    assert_eq!(client.ask(&query("www.example", A)).answers(), [ONE]);
    client.send_bytes(&signed);
    client.receive();
    assert_eq!(backend.wait_for(5).len(), 5);
}

#[test]
fn signed_queries_join_nobody_and_are_not_cut() {
    let backend = Backend::new(signing(ONE).held());
    let server = Forwarder::to(&[&backend], "").start();
    let clients = [server.client(), server.client(), server.client()];
    let question = query("www.example", A);
    clients[0].send(&question);
    backend.wait_for(1);
    clients[1].send_bytes(&question.clone().id(1).to_signed_vec());
    clients[2].send_bytes(&question.clone().id(2).to_signed_vec());
    backend.wait_for(3);
    // No option of a signed query can be left out.
    let long = query("long.example", A).option(65_001, &[0; 1_200]);
    let response = ask_by_tcp(&server, &long.to_signed_vec());
    assert_eq!((response.id(), response.rcode()), (long.id, FORMERR));
    backend.release();
    for client in &clients {
        assert_eq!(client.receive().answers(), [ONE]);
    }
    assert!(backend.queries_for("long.example").is_empty());
}

#[test]
fn a_signed_answer_that_udp_cannot_carry_comes_whole_by_tcp() {
    let large = reply(|reply| reply.with_flags(AA).answer(txt(2_000)).additional(tsig(9)));
    let cut = reply(|reply| reply.with_flags(TC).additional(tsig(9)));
    let backend = Backend::new(cut.by_tcp(large));
    let server = Forwarder::to(&[&backend], "").start();
    let question = query("www.example", TXT);
    let signed = question.to_signed_vec();
    let client = server.client();
    client.send_bytes(&signed);
    let response = client.receive();
    assert!(response.has(TC));
    let tsig_len = tsig(9).to_vec().len();
    assert_eq!(response.bytes[response.bytes.len() - tsig_len..], tsig(9).to_vec(), "TC is signed too");
    let response = ask_by_tcp(&server, &signed);
    assert_eq!(response.id(), question.id);
    assert!(response.bytes.len() > 2_000 && response.bytes.ends_with(&tsig(9).to_vec()));
    let by_tcp = backend.queries().into_iter().find(|seen| seen.tcp).expect("fetched by TCP");
    assert_eq!(by_tcp.bytes[2..], signed[2..]);
}

#[test]
fn who_signs_is_answered_by_who_signs() {
    let (plain, signer) = (Backend::new(answer(TWO)), Backend::new(signing(ONE).after(ms(50))));
    let server = Forwarder::to(&[&plain, &signer], "").start();
    let client = server.client();
    client.send_bytes(&query("www.example", A).to_signed_vec());
    assert_eq!(client.receive().answers(), [ONE]);
    // Without such a backend the client gets the unsigned answer.
    let server = Forwarder::to(&[&plain], "").start();
    let client = server.client();
    client.send_bytes(&query("www.example", A).to_signed_vec());
    assert_eq!(client.receive().answers(), [TWO]);
}
