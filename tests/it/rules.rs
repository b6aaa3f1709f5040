//! Rules through sockets: which query gets which answer, by client, listener, transport, name and type.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use proxy_header::{ProxiedAddress, ProxyHeader};
use testkit::*;

use crate::{https, quic};

const ADDRESS: &str = "192.0.2.1";
const OTHER_ADDRESS: &str = "192.0.2.2";

/// Long enough that equal queries meet in flight.
const SLOW: Duration = Duration::from_millis(300);

const BLOCKED: u16 = 15;
const CNAME: u16 = 5;

/// A forwarder to one backend with these rules, as inline tables.
fn ruled(backend: &Backend, rules: &str) -> Forwarder {
    Forwarder::to(&[backend], "").keys(&format!("rules = [{rules}]")).admin()
}

fn matches(server: &Server, rule: &str) -> u64 {
    server.admin().metrics().sum("hedgerow_rule_matches_total", &[("rule", rule)])
}

fn asked(name: &str, rtype: u16) -> Query {
    query(name, rtype).edns(1232)
}

#[test]
fn each_result_has_its_response() {
    let backend = Backend::new(answer(ADDRESS));
    let server = ruled(
        &backend,
        "{ name = 'gone', names = ['gone.example'], then = 'nxdomain', ttl = '7s' },
         { name = 'empty', names = ['empty.example'], then = 'nodata' },
         { name = 'refused', names = ['refused.example'], then = 'refused' },
         { name = 'drop', names = ['drop.example'], then = 'drop' },
         { name = 'made', names = ['made.example'], then = { addresses = ['192.0.2.7', '192.0.2.8', '2001:db8::7'] } },
         { name = 'routes', names = ['routes.example'], then = 'routes' }",
    );
    let server = server.start();
    let client = server.client();
    for (name, rcode, soa, error) in [
        ("gone.example", NXDOMAIN, Some(7), Some(BLOCKED)),
        ("empty.example", NOERROR, Some(60), Some(BLOCKED)),
        ("refused.example", REFUSED, None, Some(BLOCKED)),
    ] {
        let response = client.ask(&asked(name, A).flags(RD | CD));
        assert_eq!((response.rcode(), response.extended_error()), (rcode, error), "{response:?}");
        assert!(response.has(RA) && response.has(RD) && response.has(CD) && !response.has(AA), "{response:?}");
        let message = response.message();
        let found = message.authorities.first().map(|record| (record.name.to_string(), record.ttl));
        assert_eq!(found, soa.map(|ttl| (format!("{name}."), ttl)), "stubs keep it for so long");
        assert!(!client.ask(&query(name, A)).has_opt(), "no OPT record without one in the query");
    }
    assert_eq!(client.ask(&asked("made.example", A)).answers(), ["192.0.2.7", "192.0.2.8"]);
    assert_eq!(client.ask(&asked("a.MADE.example", AAAA)).answers(), ["2001:db8::7"]);
    let other = client.ask(&asked("made.example", TXT));
    assert_eq!((other.rcode(), other.answers().len(), other.message().authorities.len()), (NOERROR, 0, 1));
    assert_eq!(client.ask(&asked("made.example", A).class(CH)).answers().len(), 0, "class IN alone");
    assert_eq!(client.ask(&asked("www.routes.example", A)).answers(), [ADDRESS]);
    client.send(&asked("drop.example", A));
    assert_eq!(client.receive_only(&asked("fence.example", A)).answers(), [ADDRESS]);
    let metrics = server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_dropped_total", &[("reason", "rule")]), 1);
    assert_eq!(metrics.sum("hedgerow_responses_total", &[("source", "rule"), ("rcode", "NXDOMAIN")]), 2);
    for (rule, count) in [("gone", 2), ("empty", 2), ("refused", 2), ("drop", 1), ("made", 4), ("routes", 1)] {
        assert_eq!(matches(&server, rule), count, "{rule}");
    }
    let names: Vec<_> = backend.queries().iter().map(|seen| seen.name()).collect();
    assert_eq!(names, ["www.routes.example", "fence.example"], "no backend is asked for the rest");
}

#[test]
fn cname_answers_with_the_target_behind_it() {
    let signed = |reply: Reply| reply.answer(a(ADDRESS)).with_flags(QR | RD | AD).option(EXTENDED_ERROR, &[0, 3]);
    let backend = Backend::new(reply(signed).except("gone", nxdomain()).except("dead", silent()));
    let server = ruled(
        &backend,
        "{ name = 'safe', names = ['search.example'], then = { cname = 'safe.search.example' }, ttl = '9s' },
         { name = 'gone', names = ['old.example'], then = { cname = 'gone.example' } },
         { name = 'dead', names = ['slow.example'], then = { cname = 'dead.example' } },
         { name = 'made', names = ['alias.example'], then = { cname = 'made.example' } },
         { name = 'never', names = ['made.example'], then = 'nxdomain' }",
    );
    let server = server.start();
    let client = server.client();
    let response = client.ask(&asked("WWW.search.example", A).dnssec_ok());
    assert_eq!(response.answers(), ["192.0.2.1", "safe.search.example."]);
    let owners: Vec<_> =
        response.message().answers.iter().map(|record| (record.name.to_string(), record.ttl)).collect();
    assert_eq!(owners, [("WWW.search.example.".to_owned(), 9), ("safe.search.example.".to_owned(), 60)]);
    assert_eq!(response.question(), asked("WWW.search.example", A).question());
    assert!(!response.has(AA) && !response.has(AD) && response.has(RA), "{response:?}");
    assert_eq!(response.extended_error(), Some(3), "that of the target");
    assert_eq!(client.ask(&asked("search.example", CNAME)).answers(), ["safe.search.example."], "the record alone");
    assert_eq!(client.ask(&query("safe.search.example", A)).answers(), [ADDRESS], "no alias of itself");
    let gone = client.ask(&query("old.example", A));
    assert_eq!((gone.rcode(), gone.answers()), (NXDOMAIN, vec!["gone.example.".to_owned()]));
    assert_eq!(
        client.ask(&query("alias.example", A)).answers(),
        [ADDRESS, "made.example."],
        "rules are not applied again"
    );
    let seen: Vec<_> = backend.queries().iter().map(|seen| seen.name()).collect();
    assert_eq!(seen, ["safe.search.example", "safe.search.example", "gone.example", "made.example"]);
    // One after the other, and both are answered when their race is over.
    client.send(&query("slow.example", A).id(7));
    client.send(&query("slow.example", A).id(7));
    let late = client.receive();
    assert_eq!((late.id(), late.answers()), (7, vec!["dead.example.".to_owned()]), "{late:?}");
    let metrics = server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_queries_total", &[]), 7);
    assert_eq!(metrics.sum("hedgerow_responses_total", &[("source", "rule")]), 6, "a retransmission counts");
}

#[test]
fn a_long_chain_is_cut_for_udp_and_whole_by_tcp() {
    let many = |reply: Reply| (0..40).fold(reply, |reply, _| reply.answer(txt(20)));
    let backend = Backend::new(truncated().by_tcp(reply(many)));
    let server =
        ruled(&backend, "{ name = 'a', names = ['long.example'], then = { cname = 'target.example' } }").start();
    let short = server.client().ask(&query("long.example", TXT));
    assert!(short.has(TC) && short.answers().is_empty(), "{short:?}");
    let whole = server.tcp_client().ask(&query("long.example", TXT));
    assert_eq!((whole.has(TC), whole.answers().len()), (false, 41));
}

#[test]
fn the_first_rule_whose_conditions_hold_decides() {
    let backend = Backend::new(answer(ADDRESS));
    let server = ruled(
        &backend,
        "{ name = 'exception', names = ['=good.ads.example'], then = 'routes' },
         { name = 'ads', names = ['ads.example'], then = 'nxdomain' },
         { name = 'below', names = ['*.below.example'], then = 'refused' },
         { name = 'type', names = ['typed.example'], types = ['AAAA', 'ANY'], then = 'nodata' },
         { name = 'client', clients = ['127.0.0.9'], then = 'refused' },
         { name = 'tcp', transports = ['tcp'], names = ['tcp.example'], then = 'refused' },
         { name = 'listener', listeners = ['tcp://127.0.0.1:0'], names = ['here.example'], then = 'refused' }",
    );
    let server = server.listen("['127.0.0.1:0', 'tcp://127.0.0.1:0']").start();
    let client = server.client();
    for (name, rtype, rcode) in [
        ("good.ads.example", A, NOERROR),
        ("x.good.ads.example", A, NXDOMAIN),
        ("ads.example", A, NXDOMAIN),
        ("badads.example", A, NOERROR),
        ("below.example", A, NOERROR),
        ("a.b.below.example", A, REFUSED),
        ("typed.example", A, NOERROR),
        ("tcp.example", A, NOERROR),
        ("here.example", A, NOERROR),
    ] {
        assert_eq!(client.ask(&query(name, rtype)).rcode(), rcode, "{name}");
    }
    for (rtype, answers) in [(A, 1), (AAAA, 0), (ANY, 0)] {
        assert_eq!(client.ask(&query("typed.example", rtype)).answers().len(), answers, "{rtype}");
    }
    assert_eq!(Client::at("127.0.0.9", server.address()).ask(&query("a.example", A)).rcode(), REFUSED);
    let tcp = |listener: usize, name: &str| {
        TcpClient::of(server.listeners("forwarder")[listener]).ask(&query(name, A)).rcode()
    };
    assert_eq!((tcp(0, "tcp.example"), tcp(1, "tcp.example")), (REFUSED, REFUSED));
    assert_eq!((tcp(0, "here.example"), tcp(1, "here.example")), (NOERROR, REFUSED));
    let mut from = TcpClient::from("127.0.0.9", server.address());
    assert_eq!(from.ask(&query("b.example", A)).rcode(), REFUSED);
}

#[test]
fn pools_of_rules_do_not_share_answers() {
    let (usual, kids) = (Backend::new(answer(ADDRESS)), Backend::new(answer(OTHER_ADDRESS)));
    let server = Forwarder::new()
        .pool("usual", ".", &[&usual], "")
        .pool("kids", "kids.test", &[&kids], "")
        .keys("rules = [{ name = 'kids', clients = ['127.0.0.9'], then = 'pool:kids' }]")
        .cache("")
        .workers(2)
        .start();
    let (parent, child) = (server.client(), Client::at("127.0.0.9", server.address()));
    for _ in 0..3 {
        assert_eq!(parent.ask(&query("www.example", A)).answers(), [ADDRESS]);
        assert_eq!(child.ask(&query("www.example", A)).answers(), [OTHER_ADDRESS]);
    }
    assert_eq!((usual.queries().len(), kids.queries().len()), (1, 1), "the rest comes from the cache");
}

#[test]
fn queries_in_flight_join_only_within_a_pool() {
    let (usual, kids) = (Backend::new(answer(ADDRESS).after(SLOW)), Backend::new(answer(OTHER_ADDRESS).after(SLOW)));
    let server = Forwarder::new()
        .pool("usual", ".", &[&usual], "")
        .pool("kids", "kids.test", &[&kids], "")
        .keys("rules = [{ name = 'kids', clients = ['127.0.0.9'], then = 'pool:kids' }]")
        .workers(2)
        .start();
    let clients: Vec<_> = (0..8).map(|at| Client::at(["127.0.0.1", "127.0.0.9"][at % 2], server.address())).collect();
    clients.iter().for_each(|client| client.send(&query("www.example", A)));
    for (at, client) in clients.iter().enumerate() {
        assert_eq!(client.receive().answers(), [[ADDRESS, OTHER_ADDRESS][at % 2]], "{at}");
    }
}

#[test]
fn the_client_of_a_rule_is_the_one_behind_the_proxy() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Forwarder::to(&[&backend], "")
        .keys("allow = ['198.51.100.0/24', '127.0.0.0/8']\nrules = [{ name = 'a', clients = ['198.51.100.7'], then = 'refused' }]")
        .listen("[{ address = '127.0.0.1:0', proxy_from = ['127.0.0.2'] }]")
        .start();
    let proxy = UdpSocket::bind(("127.0.0.2", 0)).expect("all of 127/8 is ours");
    proxy.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    for (client, rcode) in [("198.51.100.7:4000", REFUSED), ("198.51.100.8:4000", NOERROR)] {
        let client: SocketAddr = client.parse().expect("an address");
        let mut datagram = Vec::new();
        let header = ProxyHeader::with_address(ProxiedAddress::datagram(client, server.address()));
        header.encode_v2(&mut datagram).expect("a vector takes everything");
        datagram.extend(query("www.example", A).to_vec());
        proxy.send_to(&datagram, server.address()).expect("loopback takes it");
        let mut buffer = [0; 1500];
        let (length, _) = proxy.recv_from(&mut buffer).expect("a response");
        assert_eq!(Response { bytes: buffer[..length].to_vec() }.rcode(), rcode, "{client}");
    }
}

#[test]
fn encrypted_listeners_have_their_own_rules() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let certificate = "[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n";
    let server = Forwarder::to(&[&backend], certificate)
        .keys(
            "rules = [{ name = 'listener', listeners = ['tls://127.0.0.1:0'], names = ['a.example'], then = 'refused' },
             { name = 'transport', transports = ['tls'], names = ['b.example'], then = 'refused' }]",
        )
        .listen("['127.0.0.1:0', 'tls://127.0.0.1:0']");
    let (chain, key) = authorities.issue("dns.example");
    let server = Server::start_with_files(&server.to_toml(), &[("chain.pem", &chain), ("key.pem", &key)]);
    let mut tls = TlsClient::of(server.listeners("forwarder")[1], &authorities.trusted(&["dot"]), "dns.example");
    for (name, plain) in [("a.example", NOERROR), ("b.example", NOERROR)] {
        assert_eq!(tls.ask(&query(name, A)).rcode(), REFUSED, "{name}");
        assert_eq!(server.client().ask(&query(name, A)).rcode(), plain, "{name}");
        assert_eq!(server.tcp_client().ask(&query(name, A)).rcode(), plain, "{name}");
    }
}

#[test]
fn quic_and_https_listeners_have_their_own_rules() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let rules = |scheme: &str| {
        format!(
            "rules = [{{ name = 'listener', listeners = ['{scheme}://127.0.0.1:0'], names = ['a.example'], then = 'refused' }},
             {{ name = 'transport', transports = ['{scheme}'], names = ['b.example'], then = {{ cname = 'c.example' }} }}]"
        )
    };
    let expected = [(REFUSED, vec![]), (NOERROR, vec![ADDRESS.to_owned(), "c.example.".to_owned()])];
    let found = |response: Response| (response.rcode(), response.answers());
    let names = ["a.example", "b.example"];
    let check_plain = |server: &Server| {
        names.iter().for_each(|name| assert_eq!(server.client().ask(&query(name, A)).answers(), [ADDRESS], "{name}"));
    };
    let server = quic::start(&quic::forwarder(&backend, &rules("quic")), &authorities);
    let mut client = quic::client_of(&server, &authorities);
    assert_eq!(names.map(|name| found(client.ask(&quic::asked(name)))), expected);
    check_plain(&server);
    let server = https::start(&https::forwarder(&backend, &rules("https")), &authorities);
    let get = |listener: usize, path: &str, name: &str| {
        let path = https::get(path, &query(name, A).id(0).to_vec());
        found(Response { bytes: https::curl(&server, listener, &path, &[]).body })
    };
    assert_eq!(names.map(|name| get(1, "/dns-query", name)), expected);
    assert_eq!(names.map(|name| get(2, "/q", name).1), [[ADDRESS], [ADDRESS]], "not by HTTP in the clear");
    check_plain(&server);
}

#[test]
fn responses_of_rules_have_the_cookie() {
    let backend = Backend::new(answer(ADDRESS));
    let rules = "{ name = 'gone', names = ['gone.example'], then = 'nxdomain' },
         { name = 'made', names = ['made.example'], then = { addresses = ['192.0.2.7'] } },
         { name = 'alias', names = ['alias.example'], then = { cname = 'target.example' } }";
    let server = ruled(&backend, rules).start();
    for (name, rcode) in [("gone.example", NXDOMAIN), ("made.example", NOERROR), ("alias.example", NOERROR)] {
        let asking = asked(name, A).option(COOKIE, b"8 octets");
        for response in [server.client().ask(&asking), server.tcp_client().ask(&asking)] {
            let cookie = response.cookie().unwrap_or_else(|| panic!("no cookie: {response:?}"));
            assert_eq!((response.rcode(), &cookie[..8], cookie.len()), (rcode, &b"8 octets"[..], 24), "{name}");
        }
    }
}

#[test]
fn queries_for_a_target_meet_in_one_race_whichever_worker_has_them() {
    let backend = Backend::new(answer(ADDRESS).held());
    let server = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'")
        .keys("rules = [{ name = 'a', names = ['alias.example'], then = { cname = 'target.example' } }]")
        .workers(2)
        .cache("")
        .admin()
        .start();
    let clients: Vec<_> = (0..16).map(|_| server.client()).collect();
    let name_of = |at: usize| ["alias.example", "target.example"][at % 2];
    clients.iter().enumerate().for_each(|(at, client)| client.send(&query(name_of(at), A)));
    server.admin().wait_for("all are read", |metrics| metrics.sum("hedgerow_queries_total", &[]) == 16);
    backend.wait_for(1);
    backend.release();
    for (at, client) in clients.iter().enumerate() {
        let expected = [&[ADDRESS, "target.example."][..], &[ADDRESS]][at % 2];
        assert_eq!(client.receive().answers(), expected, "{}", name_of(at));
    }
    // One that was still on its way to the other worker got its answer from the cache.
    assert_eq!(backend.queries().len(), 1);
}

#[test]
fn names_files_are_read_again_and_a_wrong_line_changes_nothing() {
    let backend = Backend::new(answer(ADDRESS));
    let rules = "{ name = 'ads', names = ['inline.example'], names_file = 'ads.txt', then = 'nxdomain' }";
    let config = ruled(&backend, rules).to_toml();
    let server = Server::start_with_files(&config, &[("ads.txt", "# ours\nads.example\n0.0.0.0 host.example\n")]);
    let client = server.client();
    let rcode = |name: &str| client.ask(&query(name, A)).rcode();
    let names = ["inline.example", "www.ads.example", "host.example", "www.host.example", "new.example"];
    assert_eq!(names.map(rcode), [NXDOMAIN, NXDOMAIN, NXDOMAIN, NOERROR, NOERROR]);
    assert_eq!(matches(&server, "ads"), 3);
    server.reload("ads.txt", "new.example\n");
    let log = server.process.wait_for_log("1 names file reloaded");
    assert!(log.contains("reloaded: edition 2"), "{log}");
    assert_eq!(names.map(rcode), [NXDOMAIN, NOERROR, NOERROR, NOERROR, NXDOMAIN]);
    assert_eq!(matches(&server, "ads"), 5, "a reload keeps the count");
    let wrong: String = (0..30).map(|line| format!("||{line}.example^\n")).collect();
    server.rewrite("ads.txt", &wrong);
    let refused = server.admin().try_post("/api/v1/reload", "");
    assert_eq!(refused.status, 400, "{refused:?}");
    let problem = "ads.txt:20: expected a name such as";
    assert!(refused.body.contains(problem) && refused.body.contains("and 10 more wrong lines"), "{refused:?}");
    assert!(!refused.body.contains("ads.txt:21:"), "{refused:?}");
    assert_eq!(names.map(rcode), [NXDOMAIN, NOERROR, NOERROR, NOERROR, NXDOMAIN]);
}

#[test]
fn a_watched_names_file_is_read_again_by_itself() {
    let backend = Backend::new(answer(ADDRESS));
    let rules = "{ name = 'ads', names_file = 'ads.txt', then = 'nxdomain' }";
    let config = format!("watch = true\n{}", ruled(&backend, rules).to_toml());
    let server = Server::start_with_files(&config, &[("ads.txt", "ads.example\n")]);
    let client = server.client();
    let rcodes = || ["ads.example", "new.example"].map(|name| client.ask(&query(name, A)).rcode());
    assert_eq!(rcodes(), [NXDOMAIN, NOERROR]);
    server.rewrite("ads.txt", "new.example\n");
    until("the new name is blocked", || (rcodes() == [NOERROR, NXDOMAIN]).then_some(()));
}

#[test]
fn check_shows_a_query_for_each_rule_and_those_that_none_reaches() {
    let config = |rules: &str| {
        format!(
            "[forwarder]\nlisten = ['192.0.2.1:53']\nallow = ['10.0.0.0/8']\nrules = [{rules}]\n\
             [pools.all]\nbackends = ['192.0.2.9']\n"
        )
    };
    let check = |rules: &str| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("c.toml"), config(rules)).expect("our own folder");
        let arguments = ["check", "--strict", "-c", "c.toml"];
        let output = Command::new(program()).args(arguments).current_dir(folder.path()).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_owned()).expect("UTF-8");
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (status, lines, warnings) = check(
        "{ name = 'good', names = ['=good.ads.example'], then = 'routes' },
         { name = 'ads', names = ['ads.example'], types = ['A'], then = 'nxdomain' },
         { name = 'pool', clients = ['10.1.0.0/16'], then = 'pool:all' }",
    );
    assert_eq!((status, &*warnings), (Some(0), ""), "{lines}");
    let expected = [
        "rule \"good\": reached by good.ads.example. ",
        "rule \"ads\": reached by ",
        "rule \"pool\": reached by ",
        "note: \"good\" comes before \"ads\" for some queries: routes, not nxdomain",
        "note: \"good\" comes before \"pool\" for some queries: routes, not pool:all",
        "note: \"ads\" comes before \"pool\" for some queries: nxdomain, not pool:all",
    ];
    let found: Vec<_> = lines.lines().skip(1).collect();
    assert_eq!(found.len(), expected.len(), "{lines}");
    for (line, expected) in found.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}, not {expected}");
    }
    assert!(found[1].ends_with("ads.example. A from 10.0.0.1 by udp to 192.0.2.1:53"), "{lines}");
    let (status, lines, warnings) = check(
        "{ name = 'a', clients = ['10.0.0.0/9'], then = 'refused' },
         { name = 'b', clients = ['10.128.0.0/9'], then = 'refused' },
         { name = 'late', names = ['x.example'], then = 'refused' },
         { name = 'denied', clients = ['192.168.0.0/16'], then = 'refused' }",
    );
    let expected = "warning: forwarder.rules[2]: rule \"late\" is never reached: rules \"a\" and \"b\" match all of it\n\
                    warning: forwarder.rules[3]: rule \"denied\" is never reached: no query that the forwarder takes \
                    meets its conditions\n";
    assert_eq!((status, &*warnings), (Some(2), expected), "{lines}");
    assert_eq!(lines.lines().count(), 3, "no pair has different results: {lines}");
}

#[test]
fn the_query_log_names_the_rule() {
    let backend = Backend::new(answer(ADDRESS));
    let rules = "{ name = 'made', names = ['made.example'], then = 'nxdomain' },
                 { name = 'alias', names = ['alias.example'], then = { cname = 'target.example' } },
                 { name = 'pool', names = ['WWW.example'], then = 'pool:all' }";
    let config = ruled(&backend, rules).to_toml() + "[query_log]\nto = 'queries.log'\n";
    let server = Server::start_with_files(&config, &[]);
    let names = ["made.example", "alias.example", "www.EXAMPLE", "other.example"];
    for name in names {
        server.client().ask(&query(name, A));
    }
    let lines: Vec<serde_json::Value> = until("all are logged", || {
        let text = std::fs::read_to_string(server.path("queries.log")).ok()?;
        (text.lines().count() == names.len())
            .then(|| text.lines().map(|line| serde_json::from_str(line).ok()).collect())?
    });
    let found: Vec<_> = lines.iter().map(|line| (line["rule"].as_str(), line["source"].as_str())).collect();
    let expected = [
        (Some("made"), Some("rule")),
        (Some("alias"), Some("rule")),
        (Some("pool"), Some("backend")),
        (None, Some("backend")),
    ];
    assert_eq!(found, expected);
    assert!(lines[1]["name"] == "alias.example." && lines[1]["pool"] == "all", "{lines:?}");
}

#[test]
fn explain_names_the_rule_and_shows_its_response() {
    let backend = Backend::new(answer(ADDRESS));
    let server = ruled(
        &backend,
        "{ name = 'made', clients = ['10.0.0.0/8'], names = ['a.example'], then = 'nxdomain' },
         { name = 'alias', names = ['b.example'], then = { cname = 'target.example' } },
         { name = 'drop', names = ['c.example'], transports = ['tcp'], then = 'drop' },
         { name = 'here', listeners = ['127.0.0.1:0'], names = ['d.example'], then = 'pool:all' }",
    );
    let server = server.start();
    let url = format!("http://{}", server.listener("admin"));
    let ctl = |words: &[&str]| server.process.ctl(&[&["--admin", &url, "explain"], words].concat());
    let explain = |words: &[&str]| {
        let output = ctl(words);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let made = explain(&["a.example", "--client", "10.1.2.3"]);
    assert!(made.starts_with("a.example. A: rule \"made\"") && made.contains("NXDOMAIN"), "{made}");
    let other = explain(&["a.example"]);
    assert!(other.starts_with("a.example. A: pool all by route ., ") && other.contains(ADDRESS), "{other}");
    let alias = explain(&["b.example"]);
    assert!(alias.starts_with("b.example. A: rule \"alias\"") && alias.contains("CNAME target.example."), "{alias}");
    let dropped = explain(&["c.example", "--transport", "tcp"]);
    assert!(dropped.starts_with("c.example. A: rule \"drop\""), "{dropped}");
    let listener = server.address().to_string();
    let here = explain(&["d.example", "--listener", &listener]);
    assert!(here.starts_with("d.example. A: pool all by rule \"here\", "), "{here}");
    let wrong = ctl(&["d.example", "--listener", "tls://127.0.0.1:1"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("is no listener of the forwarder"), "{wrong:?}");
    assert_eq!((matches(&server, "made"), matches(&server, "here")), (0, 0), "an operator is no client");
}
