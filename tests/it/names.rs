//! The names and clients that ask most: which are counted, how far, and who may read them.

use hedgerow::control::observe::sight::names::{NameCount, NamesReport};
use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// Returns the names that a server reports, once there are any.
fn counted(server: &Server, is_so: impl Fn(&NamesReport) -> bool) -> NamesReport {
    until("names are counted", || {
        let answer = server.admin().get("/api/v1/names");
        assert_eq!(answer.status, 200, "{answer:?}");
        Some(serde_json::from_str(&answer.body).expect("JSON")).filter(|names| is_so(names))
    })
}

/// A config whose admin server counts names, or does not.
fn config(backend: &Backend, names: bool) -> String {
    Forwarder::to(&[backend], "").admin().to_toml() + &format!("names = {names}\n")
}

#[test]
fn names_asked_for_most_are_counted_by_one_question_of_sixteen() {
    const OFTEN: u64 = 3_200;
    const SELDOM: u64 = 800;
    let backend = Backend::new(answer(ADDRESS).except("broken", servfail()));
    let server = Server::start(&config(&backend, true));
    let (client, other) = (server.client(), Client::at("127.0.0.2", server.address()));
    for number in 0..OFTEN {
        // Case does not matter.
        let name = if number % 2 == 0 { "often.example" } else { "oFTEN.eXample" };
        assert_eq!(client.ask(&query(name, A)).answers(), [ADDRESS]);
        if number % (OFTEN / SELDOM) == 0 {
            assert_eq!(other.ask(&query("broken.example", AAAA)).rcode(), SERVFAIL);
        }
    }
    // All that were drawn are there when none has come any more for a while: both have far more than chance
    // takes away.
    let names =
        counted(&server, |names| names.names.iter().map(|one| one.queries).sum::<u64>() > OFTEN / 2 + SELDOM / 2);
    let shown: Vec<_> = names.names.iter().map(|one| (one.name.as_str(), one.qtype.as_str())).collect();
    assert_eq!(shown, [("often.example.", "A"), ("broken.example.", "AAAA")]);
    let [often, broken] = &names.names[..] else { panic!("two names") };
    for (one, asked) in [(often, OFTEN), (broken, SELDOM)] {
        let NameCount { queries, error, .. } = one;
        assert!(*error == 0 && *queries <= asked * 2 && queries.is_multiple_of(16), "{one:?}");
    }
    let failed: Vec<_> = names.servfail.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(failed, ["broken.example."]);
    // A question and its client are counted together.
    let clients: Vec<_> = names.clients.iter().map(|one| (one.client.to_string(), one.queries)).collect();
    assert_eq!(clients, [("127.0.0.1".to_owned(), often.queries), ("127.0.0.2".to_owned(), broken.queries)]);
    let url = format!("http://{}", server.listener("admin"));
    let output = server.process.ctl(&["--admin", &url, "names"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let expected = [
        &["NAME", "often.example.", "broken.example."][..],
        &["CLIENT", "127.0.0.1", "127.0.0.2"],
        &["SERVFAIL", "NAME", "broken.example."],
    ];
    assert_eq!(lines, expected.concat(), "{text}");
}

#[test]
fn names_are_counted_for_who_says_so_and_told_to_this_host() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Server::start(&config(&backend, false));
    let refused = server.admin().get("/api/v1/names");
    assert_eq!(refused.status, 404);
    assert!(refused.body.contains("names = true"), "{refused:?}");
    server.reload("config.toml", &config(&backend, true));
    until("a reload begins to count", || {
        server.client().ask(&query("www.example", A));
        let answer = server.admin().get("/api/v1/names");
        answer.body.contains("www.example.").then_some(())
    });
    for (key, value) in [("Host", "evil.example"), ("X-Forwarded-For", "127.0.0.1"), ("Sec-Fetch-Site", "cross-site")] {
        assert_eq!(server.admin().send("GET", "/api/v1/names", &[(key, value)], "").status, 403, "{key}");
    }
}

#[test]
fn without_a_forwarder_the_questions_of_an_authority_are_counted() {
    let config = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['hosts']\n[admin]\nlisten = '127.0.0.1:0'\nnames = true\n";
    let server = Server::start_with_files(config, &[("hosts", "www.example 192.0.2.7 A\n")]);
    let client = Client::of(server.listener("ts"));
    until("a name is counted", || {
        assert_eq!(client.ask(&query("www.example", A)).answers(), ["192.0.2.7"]);
        server.admin().get("/api/v1/names").body.contains("www.example.").then_some(())
    });
}
