//! What a real etcd will not give: each is a source that cannot be asked, and ends nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use testkit::peers::etcd::{Gateway, Reply, section};

use super::*;

/// A list of one member, at a revision.
fn page(backend: &Backend, revision: u64) -> String {
    let encode = |text: &str| data_encoding_of(text);
    let key = encode(&format!("hedgerow/pools/ts/members/{}", backend.address()));
    let value = encode(&member(backend.address()));
    format!(r#"{{"header":{{"revision":"{revision}"}},"kvs":[{{"key":"{key}","value":"{value}"}}],"count":"1"}}"#)
}

/// Base64, for tests are no place for a dependency.
fn data_encoding_of(text: &str) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let chunk = |three: &[u8]| {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(three.get(at).copied().unwrap_or(0)));
        let letter = |at: usize| match at <= three.len() {
            true => char::from(LETTERS[(bits >> (18 - 6 * at)) as usize & 63]),
            false => '=',
        };
        (0..4).map(letter).collect::<String>()
    };
    text.as_bytes().chunks(3).map(chunk).collect()
}

const CREATED: &str = "{\"result\":{\"header\":{\"revision\":\"5\"},\"created\":true}}\n";

/// A server whose members come from a gateway with this script, which gives a sound list while it is not
/// `bad`.
fn check(bad: impl Fn(&str, usize) -> Option<Reply> + Send + Sync + 'static) {
    let backend = Arc::new(Backend::new(answer("192.0.2.1")));
    let is_bad = Arc::new(AtomicBool::new(false));
    let (reported, of) = (Arc::clone(&is_bad), Arc::clone(&backend));
    let gateway = Gateway::start(move |path, number| {
        let reply = reported.load(Ordering::SeqCst).then(|| bad(path, number)).flatten();
        reply.unwrap_or_else(|| match path {
            "/v3/watch" => Reply::Stream(CREATED.to_owned()),
            _ => Reply::Whole(200, page(&of, 5)),
        })
    });
    let config = forwarder("etcd = 'ts'\nhold = '0s'", &section(gateway.address()));
    let server = Server::start(&config);
    wait_for_up(&server, 1);
    wait_for_source(&server, "fresh");
    is_bad.store(true, Ordering::SeqCst);
    wait_for_source(&server, "stale");
    let asked = gateway.asked();
    until("it is asked again", || (gateway.asked() > asked + 2).then_some(()));
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), ["192.0.2.1"]);
    is_bad.store(false, Ordering::SeqCst);
    wait_for_source(&server, "fresh");
    wait_for_members(&server, &[backend.address()]);
}

#[test]
fn broken_json() {
    check(|_, _| Some(Reply::Whole(200, "{\"header\":".to_owned())));
}

#[test]
fn an_empty_object_is_no_empty_list() {
    check(|_, _| Some(Reply::Whole(200, "{}".to_owned())));
}

#[test]
fn not_now() {
    check(|_, _| Some(Reply::Whole(503, "<html>".to_owned())));
}

#[test]
fn silence() {
    check(|_, _| Some(Reply::Silence));
}

#[test]
fn half_a_line_and_then_nothing() {
    check(|path, _| match path {
        "/v3/watch" => Some(Reply::Stream("{\"result\":{\"events\":[{".to_owned())),
        // Only so is it found that nothing comes: there is no leader.
        _ => Some(Reply::Whole(503, r#"{"error":"etcdserver: no leader","code":14}"#.to_owned())),
    });
}

#[test]
fn a_reply_that_has_no_end() {
    check(|_, _| Some(Reply::Long(64 << 20)));
}

#[test]
fn a_revision_that_goes_back_is_a_list_like_any_other() {
    let backends = [(); 2].map(|()| Backend::new(answer("192.0.2.1")));
    let pages = [page(&backends[0], 100), page(&backends[1], 7)];
    let is_restored = Arc::new(AtomicBool::new(false));
    let reported = Arc::clone(&is_restored);
    let gateway = Gateway::start(move |path, _| match path {
        "/v3/watch" => Reply::Stream(CREATED.to_owned()),
        _ => Reply::Whole(200, pages[usize::from(reported.load(Ordering::SeqCst))].clone()),
    });
    let server = Server::start(&forwarder("etcd = 'ts'\nhold = '0s'", &section(gateway.address())));
    wait_for_up(&server, 1);
    is_restored.store(true, Ordering::SeqCst);
    // The one before is up and alone: it stays until the new one is up.
    wait_for_members(&server, &[backends[1].address()]);
}

#[test]
fn pools_of_one_etcd_hear_the_same_signs_of_life() {
    let backend = Arc::new(Backend::new(answer("192.0.2.1")));
    let of = Arc::clone(&backend);
    let gateway = Gateway::start(move |path, _| match path {
        "/v3/watch" => Reply::Stream(CREATED.to_owned()),
        _ => Reply::Whole(200, page(&of, 5)),
    });
    let more: String = (1..5).map(|number| format!("[pools.ts{number}.discover]\netcd = 'ts{number}'\n")).collect();
    let routes = "[forwarder.routes]\n'.' = 'ts'\n";
    let server = Server::start(&forwarder("etcd = 'ts'", &format!("{more}{routes}{}", section(gateway.address()))));
    wait_for_up(&server, 1);
    let is_fresh = || {
        let metrics = server.admin().metrics();
        metrics.sum("hedgerow_discovery_fresh", &[]) == 5
    };
    until("all are fresh", || is_fresh().then_some(()));
    // Five pools and the orders watch; from here on only keep-alives are requested.
    until("all watch", || (gateway.asked() >= 12).then_some(()));
    let (asked, began) = (gateway.asked(), Instant::now());
    until("there are three more signs", || (gateway.asked() >= asked + 3).then_some(()));
    assert!(began.elapsed() > Duration::from_secs(4), "one each two seconds: {:?}", began.elapsed());
    assert!(is_fresh());
}

#[test]
fn a_watch_at_an_endpoint_that_falls_silent_moves_though_the_other_answers() {
    let backends = [(); 2].map(|()| Backend::new(answer("192.0.2.1")));
    let pages = [page(&backends[0], 5), page(&backends[1], 9)];
    let is_changed = Arc::new(AtomicBool::new(false));
    let is_silent = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let watches = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let gateways = [0, 1].map(|number: usize| {
        let (changed, silent) = (Arc::clone(&is_changed), Arc::clone(&is_silent[number]));
        let (watches, pages) = (Arc::clone(&watches[number]), pages.clone());
        Gateway::start(move |path, _| match path {
            _ if silent.load(Ordering::SeqCst) => Reply::Silence,
            "/v3/watch" => {
                watches.fetch_add(1, Ordering::SeqCst);
                Reply::Stream(CREATED.to_owned())
            }
            _ => Reply::Whole(200, pages[usize::from(changed.load(Ordering::SeqCst))].clone()),
        })
    });
    let endpoints = gateways.each_ref().map(|gateway| format!("'http://{}'", gateway.address())).join(", ");
    let etcd = format!("[etcd]\nendpoints = [{endpoints}]\ntimeout = '1s'\n");
    let server = Server::start(&forwarder("etcd = 'ts'\nhold = '0s'", &etcd));
    wait_for_members(&server, &[backends[0].address()]);
    let seen = |number: usize| watches[number].load(Ordering::SeqCst);
    until("members and orders are watched", || (seen(0) + seen(1) == 2).then_some(()));
    is_silent[0].store(true, Ordering::SeqCst);
    until("both are watched at the second endpoint", || (seen(1) == 2).then_some(()));
    is_silent[0].store(false, Ordering::SeqCst);
    is_silent[1].store(true, Ordering::SeqCst);
    is_changed.store(true, Ordering::SeqCst);
    wait_for_members(&server, &[backends[1].address()]);
}
