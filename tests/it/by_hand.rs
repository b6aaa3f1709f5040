//! `hedgerow ctl drain` and `down` on one forwarder: how a backend is named, `--for`, `--wait`, `--force`.

use std::net::SocketAddr;
use std::process::Output;

use testkit::*;

const ONE: &str = "192.0.2.1";
const TWO: &str = "192.0.2.2";

/// A backend with a name of its own.
struct Labeled<'a>(&'static str, &'a Backend);

impl Asked for Labeled<'_> {
    fn address(&self) -> SocketAddr {
        self.1.address()
    }

    fn entry(&self) -> String {
        format!("{{ address = \"{}\", name = \"{}\" }}", self.1.address(), self.0)
    }
}

fn ctl(server: &Server, words: &[&str]) -> Output {
    let url = format!("http://{}", server.admin().address());
    server.process.ctl(&[&["--admin", &url], words].concat())
}

fn check(server: &Server, words: &[&str], status: i32, text: &str) {
    let output = ctl(server, words);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.code() == Some(status) && said.contains(text), "{words:?}: {} {said}", output.status);
}

#[test]
fn setting_ends_after_its_time_and_survives_a_reload() {
    let (one, other) = (Backend::new(answer(ONE)), Backend::new(answer(TWO)));
    let config = |keys: &str| Forwarder::to(&[&Labeled("main", &one), &other], keys).admin().to_toml();
    let server = Server::start(&config(""));
    let admin = server.admin();
    check(&server, &["down", "all", "main", "--for", "1h"], 0, "main of pool all is set down by hand until 20");
    let state = admin.backend("main");
    let until = state["by_hand_until"].as_str().expect("it ends").to_owned();
    let left = humantime::parse_rfc3339(&until).expect("a time").duration_since(std::time::SystemTime::now());
    assert!((3_500..=3_600).contains(&left.expect("it is later").as_secs()), "{until}");
    check(&server, &["status"], 0, &format!("down (by hand until {until})"));
    server.reload("config.toml", &config("timeout = '2s'"));
    server.process.wait_for_log("reloaded: edition 2: 1 pool changed");
    assert_eq!(
        (&admin.backend("main")["state"], admin.backend("main")["by_hand_until"].as_str()),
        (&"down".into(), Some(&*until))
    );
    // Another setting takes its place, with an end of its own.
    check(&server, &["drain", "all", "main", "--for", "2s"], 0, "main of pool all gets no new queries until 20");
    assert_eq!(admin.backend("main")["state"], "draining");
    server.process.wait_for_log("the setting by hand has ended: probes decide again");
    assert_eq!(
        (&admin.backend("main")["state"], &admin.backend("main")["by_hand_until"]),
        (&"up".into(), &serde_json::Value::Null)
    );
    check(
        &server,
        &["drain", "all", "main", "--for", "10ms"],
        1,
        "for_seconds 0: expected an integer from 1 to 2678400",
    );
    check(&server, &["auto", "all", "main", "--for", "1h"], 1, "auto leaves nothing to end");
}

#[test]
fn wait_returns_once_no_query_is_pending() {
    let (busy, other) = (Backend::new(answer(ONE).held()), Backend::new(answer(TWO)));
    let keys = "dispatch = 'sequential'\nbalance = 'ordered'\ntimeout = '60s'\nattempt_timeout = '60s'";
    let server = Forwarder::to(&[&Labeled("busy", &busy), &other], keys).admin().start();
    let client = server.client();
    client.send(&query("pending.example", A));
    busy.wait_for(1);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ctl(&server, &["drain", "all", "busy", "--wait"]));
        let admin = server.admin();
        admin.wait_for_status("it drains", |_| (admin.backend("busy")["state"] == "draining").then_some(()));
        assert_eq!(server.client().ask(&query("next.example", A)).answers(), [TWO]);
        assert!(!waiting.is_finished(), "a query is pending");
        busy.release();
        assert_eq!(client.receive().answers(), [ONE]);
        let output = waiting.join().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.ends_with("no query is pending at busy of pool all\n"), "{text}");
    });
    assert_eq!(busy.queries().len(), 1);
}

#[test]
fn backend_may_be_named_without_its_port() {
    let [one, other, third] =
        ["127.0.0.2:0", "127.0.0.3:0", "127.0.0.3:0"].map(|address| Backend::at(address, answer(ONE)));
    let server = Forwarder::to(&[&one, &other, &third], "").admin().start();
    let first = one.address();
    check(&server, &["drain", "all", "127.0.0.2"], 0, &format!("{first} of pool all gets no new queries"));
    check(&server, &["auto", "all", &first.to_string()], 0, "follows its probes");
    let several = format!("\"127.0.0.3\" may be any of {}, {}: name one of them", other.address(), third.address());
    check(&server, &["down", "all", "127.0.0.3"], 1, &several);
    check(&server, &["down", "all", "127.0.0.4"], 1, "there is no backend \"127.0.0.4\"");
    check(&server, &["down", "all", &other.address().to_string(), "--wait"], 0, "no query is pending at");
}

#[test]
fn last_backend_that_is_up_is_taken_by_force_alone() {
    let (one, other) = (Backend::new(answer(ONE)), Backend::new(answer(TWO)));
    let server = Forwarder::to(&[&Labeled("one", &one), &Labeled("other", &other)], "").admin().start();
    check(&server, &["drain", "all", "other"], 0, "other of pool all gets no new queries");
    for word in ["drain", "down"] {
        let refused = "one is the last backend of pool all that is up: it still gets queries, since no other backend \
                       takes them; add --force to do it anyway";
        check(&server, &[word, "all", "one", "--for", "1h"], 1, refused);
    }
    check(
        &server,
        &["down", "all", "one", "--force"],
        0,
        "one of pool all is set down by hand, but it still gets queries",
    );
}
