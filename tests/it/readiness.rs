//! `/readyz`: whether queries are taken, and, of a pool, whether anybody in it is up.

use rustix::process::Signal;
use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// Returns the response of `/readyz` with these parameters.
fn ready(server: &Server, parameters: &str) -> (u16, String) {
    let answer = server.admin().get(&format!("/readyz{parameters}"));
    (answer.status, answer.body)
}

/// Probed often, and down at the first probe that gets no reply.
const SOON: &str = "[health]\ninterval = '100ms'\ntimeout = '100ms'\nfall = 1\nrise = 1";

#[test]
fn a_pool_is_ready_while_a_backend_of_it_is_up() {
    let backends = [(); 2].map(|()| Backend::new(answer(ADDRESS)));
    let other = Backend::new(answer(ADDRESS));
    let server = Forwarder::new()
        .pool("ts", ".", &[&backends[0], &backends[1]], SOON)
        .pool("other", "other.example", &[&other], SOON)
        .admin()
        .start();
    let up = (200, "ready\n".to_owned());
    let down = (503, "no backend of pool \"ts\" is up\n".to_owned());
    assert_eq!(ready(&server, "?pool=ts"), up);
    backends[0].play_dead(true);
    server.admin().wait_for_state(backends[0].address(), false);
    assert_eq!(ready(&server, "?pool=ts"), up);
    backends[1].play_dead(true);
    server.admin().wait_for_state(backends[1].address(), false);
    assert_eq!(ready(&server, "?pool=ts"), down);
    // Without a pool backends do not matter, and of several pools each does.
    assert_eq!(ready(&server, ""), up);
    assert_eq!(ready(&server, "?pool=%6Fther"), up);
    assert_eq!(ready(&server, "?pool=%6Fther&pool=ts"), down);
    backends[1].play_dead(false);
    server.admin().wait_for_state(backends[1].address(), true);
    assert_eq!(ready(&server, "?pool=ts"), up);
}

#[test]
fn who_is_drained_or_set_down_by_hand_does_not_make_a_pool_ready() {
    let backends = [(); 2].map(|()| Backend::new(answer(ADDRESS)));
    let server = Forwarder::to(&[&backends[0], &backends[1]], "").admin().start();
    let [drained, set] = backends.each_ref().map(|backend| backend.address().to_string());
    server.admin().post(&format!("/api/v1/pools/all/backends/{drained}/drain"), "");
    assert_eq!(ready(&server, "?pool=all").0, 200);
    server.admin().post(&format!("/api/v1/pools/all/backends/{set}/down"), r#"{"force": true}"#);
    assert_eq!(ready(&server, "?pool=all").0, 503);
    server.admin().post(&format!("/api/v1/pools/all/backends/{set}/up"), "");
    assert_eq!(ready(&server, "?pool=all").0, 200);
}

#[test]
fn a_pool_that_is_not_there_is_not_found() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Forwarder::to(&[&backend], "").admin().start();
    let (status, body) = ready(&server, "?pool=al");
    assert_eq!(status, 404);
    assert!(body.contains("there is no pool \\\"al\\\", did you mean \\\"all\\\"?"), "{body}");
    assert_eq!(ready(&server, "?pool=all&pool=").0, 404);
    // A check that is misspelt must not pass.
    let (status, body) = ready(&server, "?pol=all");
    assert_eq!(status, 400);
    assert!(body.contains("there is no \\\"pol\\\", expected pool"), "{body}");
    assert_eq!(ready(&server, "?pool=%ff").0, 400);
}

#[test]
fn pools_of_a_reload_are_the_ones_that_are_looked_at() {
    let backend = Backend::new(answer(ADDRESS));
    let config = |pool: &str| Forwarder::new().pool(pool, ".", &[&backend], "").admin().to_toml();
    let server = Server::start(&config("old"));
    assert_eq!((ready(&server, "?pool=old").0, ready(&server, "?pool=new").0), (200, 404));
    server.rewrite("config.toml", &config("new"));
    server.admin().post("/api/v1/reload", "");
    assert_eq!(ready(&server, "?pool=old").0, 404);
    server.admin().wait_for_state(backend.address(), true);
    assert_eq!(ready(&server, "?pool=new").0, 200);
}

#[test]
fn while_the_drain_delay_lasts_no_pool_is_ready_and_queries_are_answered() {
    let backend = Backend::new(answer(ADDRESS));
    let config = Forwarder::to(&[&backend], "").admin().to_toml();
    let mut server = Server::start(&format!("drain_delay = '5m'\n{config}"));
    server.process.signal(Signal::TERM);
    server.process.wait_for_log("SIGTERM: not ready any more");
    for (parameters, status) in [("", 503), ("?pool=all", 503), ("?pool=al", 404)] {
        assert_eq!(ready(&server, parameters).0, status, "{parameters}");
    }
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ADDRESS]);
    assert_eq!(server.tcp_client().ask(&query("www.example", A)).answers(), [ADDRESS]);
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.wait_for_exit().code(), Some(1));
}
