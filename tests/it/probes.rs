//! Life and death of backends: results of probes and ICMP errors, which backends are spared, and the answer
//! when all are down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use testkit::*;

const ONE: &str = "192.0.2.1";
const TWO: &str = "192.0.2.2";

/// Deadlines that must not matter.
const PATIENT: &str = "timeout = '20s'\nattempt_timeout = '20s'\n";

#[test]
fn death_of_all_backends_is_answered_as_on_all_down_says() {
    let (one, two) = (Closed::new(), Closed::new());
    for (word, rcode) in [("nxdomain", NXDOMAIN), ("servfail", SERVFAIL), ("refused", REFUSED)] {
        let on_timeout = if word == "refused" { "servfail" } else { "refused" };
        let keys = format!("{PATIENT}on_all_down = '{word}'\non_timeout = '{on_timeout}'");
        let server = Forwarder::to(&[&one, &two], &keys).start();
        let client = server.client();
        let mut names = 0..;
        let response = until("both are found down", || {
            let name = format!("{}.example", names.next()?);
            let response = client.ask(&query(&name, A).edns(1232));
            (response.rcode() == rcode).then_some(response)
        });
        assert_eq!(response.extended_error(), Some(NO_REACHABLE_AUTHORITY));
        assert!(response.has(RA) && !response.has(AA));
    }
}

#[test]
fn missed_probes_tell_death_from_silence() {
    let backend = Backend::dead();
    let keys = "timeout = '20s'\nattempt_timeout = '100ms'\non_all_down = 'servfail'\n\
                [health]\ninterval = '100ms'\ntimeout = '50ms'\nfall = 2";
    let server = Forwarder::to(&[&backend], keys).start();
    let mut names = 0..;
    let name = until("it is asked as a backend that is down, for attempt_timeout", || {
        let (name, start) = (format!("{}.example", names.next()?), Instant::now());
        let response = server.client().ask(&query(&name, A).edns(1232));
        let is_all_down = response.extended_error() == Some(NO_REACHABLE_AUTHORITY);
        (response.rcode() == SERVFAIL && is_all_down && start.elapsed() >= ms(100)).then_some(name)
    });
    assert_eq!(backend.queries_for(&name).len(), 1);
}

#[test]
fn backend_that_is_down_is_spared_until_its_probes_are_answered() {
    let failing = Backend::dead();
    let backend = Backend::new(answer(TWO));
    let keys = "dispatch = 'sequential'\nbalance = 'ordered'\ntimeout = '20s'\n\
                attempt_timeout = '20ms'\n\
                [health]\ninterval = '100ms'\ntimeout = '50ms'\nfall = 2\nrise = 2";
    let server = Forwarder::to(&[&failing, &backend], keys).start();
    let client = server.client();
    let mut names = 0..;
    let mut asks_failing = || {
        let name = format!("{}.example", names.next().expect("there are many numbers"));
        assert_eq!(client.ask(&query(&name, A)).answers(), [TWO]);
        !failing.queries_for(&name).is_empty()
    };
    until("the dead backend is left alone", || (!asks_failing()).then_some(()));
    failing.play_dead(false);
    until("the risen backend is asked", || asks_failing().then_some(()));
}

#[test]
fn probe_expects_a_reply_and_the_status_says_why_it_is_bad() {
    let is_silent = Arc::new(AtomicBool::new(false));
    let silence = Arc::clone(&is_silent);
    let script = move |seen: &Seen| (!silence.load(Relaxed)).then(|| reply_to(&seen.bytes).answer(a(ONE)).to_vec());
    let [good, other, negative] = [Script::new(script), answer(TWO), nxdomain()].map(Backend::new);
    let probe = "probe = { name = 'probe.example', type = 'A' }";
    let keys = format!(
        "{PATIENT}dispatch = 'sequential'\n\
         [health]\ninterval = '100ms'\nfall = 2\nrise = 2\n{probe}\nexpect = {{ answer = '{ONE}' }}"
    );
    let server = Forwarder::to(&[&good, &other, &negative], &keys).admin().start();
    let admin = server.admin();
    for (backend, reason) in [(&other, "no answer record 192.0.2.1"), (&negative, "replied NXDOMAIN, expected NOERROR")]
    {
        admin.wait_for_state(backend.address(), false);
        let name = backend.address().to_string();
        assert_eq!(admin.backend(&name)["probe_problem"], reason);
        let line = server.process.wait_for_log(reason);
        assert!(line.contains(" down") && line.contains(&name), "{line}");
        let url = format!("http://{}", admin.address());
        let status = server.process.ctl(&["--admin", &url, "status"]);
        let status = String::from_utf8(status.stdout).expect("UTF-8");
        assert!(status.contains(&format!("{name} of pool all: the last probe failed: {reason}")), "{status}");
    }
    assert_eq!(admin.backend(&good.address().to_string())["probe_problem"], serde_json::Value::Null);
    // All are asked if none is up, and a reply that probes do not expect proves nothing.
    let client = server.client();
    is_silent.store(true, Relaxed);
    admin.wait_for_state(good.address(), false);
    assert_eq!(admin.backend(&good.address().to_string())["probe_problem"], "no reply within 1s");
    for name in ["one.example", "two.example", "three.example"] {
        client.ask(&query(name, A));
    }
    let metrics = admin.metrics();
    assert_eq!(metrics.sum("hedgerow_backend_up", &[]), 0);
    is_silent.store(false, Relaxed);
    admin.wait_for_state(good.address(), true);
}

#[test]
fn log_tells_of_death_and_of_life() {
    let backend = Backend::new(answer(ONE));
    backend.play_dead(true);
    let keys = format!("{PATIENT}balance = 'ordered'\n[health]\ninterval = '100ms'\ntimeout = '50ms'\nfall = 2");
    let server = Forwarder::to(&[&backend], &keys).start();
    server.process.wait_for_log(" down ");
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ONE]);
    server.process.wait_for_log(" up ");
}

#[test]
fn probes_go_out_after_so_many_queries() {
    let backend = Backend::new(answer(ONE));
    // By the clock alone there would be one at the start and none before the test is over; and a busy machine
    // has time to answer before a probe repeats its question.
    let keys = format!("{PATIENT}[health]\ninterval = '1h'\ntimeout = '20s'\nevery_queries = 10");
    let server = Forwarder::to(&[&backend], &keys).start();
    backend.wait_for_probes(1);
    let client = server.client();
    for count in [2, 3] {
        let seen = backend.queries().len();
        until("a probe goes out", || {
            client.ask(&query(&format!("{}.example", backend.queries().len()), A));
            (backend.probes().len() >= count).then_some(())
        });
        assert!(backend.queries().len() >= seen.next_multiple_of(10), "not before the tenth");
    }
}

#[test]
fn ls_probes_after_so_many_queries() {
    let backend = Backend::new(answer(ONE));
    let address = backend.address().to_string();
    let server = Server::run(["ls", "-l", "127.0.0.1:0", "-R", "10", "-N", "1", &address]);
    backend.wait_for_probes(1);
    let client = server.client();
    let start = Instant::now();
    until("a second probe goes out", || {
        client.ask(&query(&format!("{}.example", backend.queries().len()), A));
        (backend.probes().len() >= 2).then_some(())
    });
    assert!(start.elapsed() < ms(4000), "that was the clock, whose interval is 5 s");
}

#[test]
fn what_one_worker_meets_frees_the_queries_of_all() {
    let (dies, other) = (Backend::new(answer(ONE).held()), Backend::new(answer(TWO)));
    let keys = format!("balance = 'ordered'\ndispatch = 'sequential'\n{PATIENT}[health]\ninterval = '1h'");
    let server = Forwarder::to(&[&dies, &other], &keys).workers(2).start();
    dies.wait_for_probes(1);
    let clients: Vec<_> = (0..16).map(|_| server.client()).collect();
    for (i, client) in clients.iter().enumerate() {
        client.send(&query(&format!("{i}.example"), A));
    }
    dies.wait_for(16);
    drop(dies);
    // One worker meets with the error; the other has asked before, and nothing will ever come to it.
    assert_eq!(server.client().ask(&query("last.example", A)).answers(), [TWO]);
    for client in clients {
        assert_eq!(client.receive().answers(), [TWO]);
    }
}

#[test]
fn a_resolver_that_fails_probes_is_down_and_an_authority_that_refuses_them_is_not() {
    let resolver = Backend::probed(rcode(NOERROR), rcode(SERVFAIL));
    let authority = Backend::new(answer(TWO));
    let keys = "serves = 'same'\ndispatch = 'sequential'\nbalance = 'ordered'\ntimeout = '20s'\nattempt_timeout = '20s'\n\
                [health]\ninterval = '100ms'\ntimeout = '20s'";
    let server = Forwarder::to(&[&resolver, &authority], keys).start();
    let client = server.client();
    let mut names = 0..;
    let mut asks_resolver = || {
        let name = format!("{}.example", names.next().expect("there are many numbers"));
        assert_eq!(client.ask(&query(&name, A)).answers(), [TWO]);
        !resolver.queries_for(&name).is_empty()
    };
    resolver.wait_for_probes(1);
    for failure in [SERVFAIL, REFUSED] {
        resolver.answer_probes(rcode(failure));
        until("the resolver is left alone", || (!asks_resolver()).then_some(()));
        resolver.answer_probes(rcode(NOERROR));
        until("the resolver is asked again", || asks_resolver().then_some(()));
    }
    let probes = authority.probes().len();
    authority.wait_for_probes(probes + 3);
    assert_eq!(client.ask(&query("www.example", A)).answers(), [TWO]);
}
