//! Names that the forwarder answers itself: `[forwarder.names]`, hosts files, special names, and routes that
//! name only what is below a suffix.

use testkit::*;

const ADDRESS: &str = "192.0.2.1";
const PTR: u16 = 12;
const MX: u16 = 15;

/// A pool whose backend has a public address that does not answer.
const PUBLIC: &str = "[pools.p]\nbackends = ['203.0.113.1:53']\n[admin]\nlisten = '127.0.0.1:0'\n";

const NAMES: &str = "names = { 'NAS.home.arpa' = ['192.168.1.10', 'fd00::10'], 'files.home.arpa' = ['192.168.1.10'] }";

fn start(keys: &str, files: &[(&str, &str)]) -> Server {
    Server::start_with_files(&config(keys), files)
}

fn config(keys: &str) -> String {
    format!("[forwarder]\nlisten = ['127.0.0.1:0']\n{keys}\n{PUBLIC}")
}

/// Asks by both transports, and returns the rcode and the answers.
fn ask(server: &Server, name: &str, rtype: u16) -> (u16, Vec<String>) {
    let [datagram, stream] = [server.client().ask(&query(name, rtype)), server.tcp_client().ask(&query(name, rtype))];
    assert_eq!((datagram.rcode(), datagram.answers()), (stream.rcode(), stream.answers()), "{name}");
    assert!(datagram.has(AA) && datagram.has(RA) && !datagram.has(TC), "{datagram:?}");
    (datagram.rcode(), datagram.answers())
}

fn found(answers: &[&str]) -> (u16, Vec<String>) {
    (NOERROR, answers.iter().map(|&answer| answer.to_owned()).collect())
}

fn reload(server: &Server) -> (u16, String) {
    let answer = server.admin().try_post("/api/v1/reload", "");
    (answer.status, answer.body)
}

#[test]
fn names_of_the_config_have_addresses_and_reverse_names() {
    let server = start(NAMES, &[]);
    for name in ["nas.home.arpa", "Nas.Home.ARPA"] {
        assert_eq!(ask(&server, name, A), found(&["192.168.1.10"]));
        assert_eq!(ask(&server, name, AAAA), found(&["fd00::10"]));
    }
    assert_eq!(ask(&server, "nas.home.arpa", ANY), found(&["192.168.1.10", "fd00::10"]));
    assert_eq!(ask(&server, "files.home.arpa", A), found(&["192.168.1.10"]));
    // The first name of the address.
    assert_eq!(ask(&server, "10.1.168.192.in-addr.arpa", PTR), found(&["NAS.home.arpa."]));
    let reverse = "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
    assert_eq!(ask(&server, reverse, PTR), found(&["NAS.home.arpa."]));
    // NODATA, with the SOA record that stubs need to keep it.
    for (name, rtype) in [("nas.home.arpa", MX), ("files.home.arpa", AAAA), ("10.1.168.192.in-addr.arpa", A)] {
        assert_eq!(ask(&server, name, rtype), found(&[]), "{name}");
    }
    let response = server.client().ask(&query("nas.home.arpa", A).edns(1232).option(COOKIE, b"clientsc"));
    assert_eq!((response.ttls(), response.cookie().map(|cookie| cookie.len())), (vec![60], Some(24)));
    let nodata = server.client().ask(&query("nas.home.arpa", MX)).message().authorities;
    assert!(nodata.len() == 1 && nodata[0].ttl == 60, "{nodata:?}");
    assert_eq!(server.client().ask(&query("nas.home.arpa", A).class(CH)).rcode(), REFUSED);
    let metrics = server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_responses_total", &[("source", "authority"), ("rcode", "NOERROR")]), 24);
}

#[test]
fn names_above_a_local_name_exist() {
    let server = start("names = { 'a.b.home.arpa' = ['192.168.1.10'] }", &[]);
    assert_eq!(ask(&server, "b.home.arpa", A), found(&[]));
    assert_eq!(ask(&server, "home.arpa", A), found(&[]));
    assert_eq!(ask(&server, "1.168.192.in-addr.arpa", PTR), found(&[]));
    assert_eq!(ask(&server, "c.b.home.arpa", A).0, NXDOMAIN);
    assert_eq!(ask(&server, "2.168.192.in-addr.arpa", PTR).0, NXDOMAIN);
}

#[test]
fn what_does_not_fit_into_a_datagram_is_had_by_tcp() {
    let addresses: Vec<_> = (0..64).map(|last| format!("'192.168.1.{last}'")).collect();
    let server = start(&format!("names = {{ 'many.lan' = [{}] }}", addresses.join(", ")), &[]);
    let cut = server.client().ask(&query("many.lan", A));
    assert!(cut.has(TC) && cut.bytes.len() <= 512 && cut.answers().is_empty(), "{cut:?}");
    assert_eq!(server.tcp_client().ask(&query("many.lan", A)).answers().len(), 64);
    assert_eq!(server.client().ask(&query("many.lan", A).edns(1232)).answers().len(), 64);
}

#[test]
fn hosts_files_are_read_again_and_a_wrong_line_changes_nothing() {
    let keys = format!("hosts_files = ['hosts', 'more']\n{NAMES}");
    let hosts = "127.0.1.1 box.lan box # this host\n192.168.1.10 other.lan\nfd00::7 box\n";
    let server = start(&keys, &[("hosts", hosts), ("more", "192.168.1.11 printer.lan\n")]);
    assert_eq!(ask(&server, "box", A), found(&["127.0.1.1"]));
    assert_eq!(ask(&server, "box", AAAA), found(&["fd00::7"]));
    assert_eq!(ask(&server, "1.1.0.127.in-addr.arpa", PTR), found(&["box.lan."]));
    assert_eq!(ask(&server, "printer.lan", A), found(&["192.168.1.11"]));
    // Names of the config come first.
    assert_eq!(ask(&server, "10.1.168.192.in-addr.arpa", PTR), found(&["NAS.home.arpa."]));

    let wrong = "192.168.1 box\n".repeat(25);
    server.rewrite("hosts", &wrong);
    let (status, problems) = reload(&server);
    assert_eq!(status, 400, "{problems}");
    let place = "hosts:1:1: bad address ";
    assert!(problems.contains(place) && problems.contains("hosts: and 5 more errors"), "{problems}");
    assert_eq!(problems.matches("bad address").count(), 20);
    assert_eq!(ask(&server, "box", A), found(&["127.0.1.1"]));

    server.rewrite("hosts", "192.168.1.12 box\n");
    assert_eq!(reload(&server).0, 200);
    assert_eq!(ask(&server, "box", A), found(&["192.168.1.12"]));
    assert_eq!(ask(&server, "box", AAAA), found(&[]));
    // A config without them.
    server.rewrite("config.toml", &config("special_names = true"));
    assert_eq!(reload(&server).0, 200);
    assert_eq!(ask(&server, "nas.home.arpa", A).0, NXDOMAIN);
}

#[test]
fn hosts_files_are_watched() {
    let text = format!("watch = true\n{}", config("hosts_files = ['hosts']"));
    let server = Server::start_with_files(&text, &[("hosts", "192.168.1.10 box\n")]);
    assert_eq!(ask(&server, "box", A), found(&["192.168.1.10"]));
    server.rewrite("hosts", "192.168.1.11 box\n");
    until("the new address is there", || {
        (server.client().ask(&query("box", A)).answers() == ["192.168.1.11"]).then_some(())
    });
}

#[test]
fn special_names_are_not_forwarded() {
    let server = start("", &[]);
    assert_eq!(ask(&server, "localhost", A), found(&["127.0.0.1"]));
    assert_eq!(ask(&server, "a.localhost", AAAA), found(&["::1"]));
    assert_eq!(ask(&server, "1.0.0.127.in-addr.arpa", PTR), found(&["localhost."]));
    for name in ["a.onion", "a.invalid", "2.0.192.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa"] {
        assert_eq!(ask(&server, &format!("x.{name}"), A).0, NXDOMAIN, "{name}");
    }
    for name in ["nas.home.arpa", "printer.local", "1.0.0.10.in-addr.arpa", "1.0.64.100.in-addr.arpa"] {
        let response = server.client().ask(&query(name, A));
        assert_eq!((response.rcode(), response.message().authorities.len()), (NXDOMAIN, 1), "{name}");
    }
    assert_eq!(ask(&server, "home.arpa", SOA).1.len(), 1);
    assert_eq!(ask(&server, "home.arpa", NS), found(&["home.arpa."]));
}

#[test]
fn names_of_private_networks_go_to_a_backend_in_one() {
    let backend = Backend::new(answer(ADDRESS));
    let forwarded = ["nas.home.arpa", "printer.local", "1.0.0.10.in-addr.arpa", "test", "a.test"];
    let ask = |server: &Server, name: &str| server.client().ask(&query(name, A));
    let server = Forwarder::to(&[&backend], "").start();
    for name in forwarded {
        assert_eq!(ask(&server, name).answers(), [ADDRESS], "{name}");
    }
    assert_eq!(ask(&server, "a.onion").rcode(), NXDOMAIN);
    let server = Forwarder::to(&[&backend], "").keys("special_names = true").start();
    assert_eq!(forwarded.map(|name| ask(&server, name).rcode()), [NXDOMAIN, NXDOMAIN, NXDOMAIN, NOERROR, NOERROR]);
    let server = Forwarder::to(&[&backend], "").keys("special_names = false").start();
    for name in ["localhost", "a.onion", "a.invalid"] {
        assert_eq!(ask(&server, name).answers(), [ADDRESS], "{name}");
    }
}

#[test]
fn a_route_at_above_or_below_a_special_name_covers_it() {
    let [most, own] = [(); 2].map(|()| Backend::new(answer(ADDRESS)));
    for (suffix, name) in [("onion", "a.onion"), ("a.onion", "b.onion"), ("arpa", "1.2.0.192.in-addr.arpa")] {
        let server = Forwarder::to(&[&most], "").pool("own", suffix, &[&own], "").start();
        assert_eq!(server.client().ask(&query(name, A)).answers(), [ADDRESS], "{name} by {suffix}");
        assert_eq!(server.client().ask(&query("a.invalid", A)).rcode(), NXDOMAIN, "by {suffix}");
    }
    assert_eq!((most.queries().len(), own.queries().len()), (1, 2));
}

#[test]
fn a_route_may_name_only_what_is_below() {
    let [most, below] = ["192.0.2.1", "192.0.2.2"].map(|address| Backend::new(answer(address)));
    let server = Forwarder::to(&[&most], "").pool("below", "*.corp.example", &[&below], "").start();
    for (name, address) in [
        ("corp.example", "192.0.2.1"),
        ("badcorp.example", "192.0.2.1"),
        ("a.corp.example", "192.0.2.2"),
        ("a.b.Corp.example", "192.0.2.2"),
    ] {
        assert_eq!(server.client().ask(&query(name, A)).answers(), [address], "{name}");
    }
}

#[test]
fn an_operator_sees_why_no_backend_is_asked() {
    let server = start(NAMES, &[]);
    for (name, why) in
        [("nas.home.arpa", "[forwarder.names]"), ("a.onion", "special name"), ("x.local", "special name")]
    {
        let body = format!("{{\"name\": \"{name}\"}}");
        let explained = server.admin().try_post("/api/v1/explain", &body);
        assert!(explained.status == 200 && explained.body.contains(why), "{name}: {explained:?}");
    }
}

#[test]
fn an_authority_serves_a_hosts_file() {
    let config = "[authorities.a]\nlisten = ['127.0.0.1:0']\nzones = ['hosts', 'table']\nmiss = 'nxdomain'\n";
    let files = [
        ("hosts", "# hosts\n192.0.2.1 www.example alias.example\n::1 www.example\n"),
        ("table", "b.example 192.0.2.2 A\n"),
    ];
    let server = Server::start_with_files(config, &files);
    let client = Client::of(server.listener("a"));
    for (name, rtype, address) in [
        ("www.example", A, "192.0.2.1"),
        ("alias.example", A, "192.0.2.1"),
        ("www.example", AAAA, "::1"),
        ("b.example", A, "192.0.2.2"),
    ] {
        assert_eq!(client.ask(&query(name, rtype)).answers(), [address], "{name}");
    }
    assert_eq!(client.ask(&query("c.example", A)).rcode(), NXDOMAIN);
}

/// A NAS with its reverse name, a name with an address of its own, a blocked domain, the zone of an employer,
/// and two resolvers for the rest, with hedging.
#[test]
fn a_home_network_takes_fifteen_lines() {
    let [one, two] = [(); 2].map(|()| Backend::new(answer("192.0.2.1")));
    let corp = Backend::new(answer("192.0.2.2"));
    let config = format!(
        "[forwarder]
listen = ['127.0.0.1:0']
names = {{ 'nas.home.arpa' = ['192.168.1.10'] }}
routes = {{ '.' = 'resolvers', 'corp.example' = 'corp' }}
rules = [
  {{ name = 'own', names = ['=app.example'], then = {{ addresses = ['192.168.1.80'] }} }},
  {{ name = 'blocked', names = ['ads.example'], then = 'nxdomain' }},
]
[pools.resolvers]
backends = ['{}', '{}']
serves = 'same'
[pools.corp]
backends = ['{}']
serves = 'same'
",
        one.address(),
        two.address(),
        corp.address()
    );
    assert!(config.lines().count() <= 15);
    let server = Server::start(&config);
    for (name, rtype, answer) in [
        ("nas.home.arpa", A, "192.168.1.10"),
        ("10.1.168.192.in-addr.arpa", PTR, "nas.home.arpa."),
        ("app.example", A, "192.168.1.80"),
        ("www.app.example", A, "192.0.2.1"),
        ("www.corp.example", A, "192.0.2.2"),
        ("www.example", A, "192.0.2.1"),
    ] {
        assert_eq!(server.client().ask(&query(name, rtype)).answers(), [answer], "{name}");
    }
    assert_eq!(server.client().ask(&query("x.ads.example", A)).rcode(), NXDOMAIN);
    assert_eq!(corp.queries().len(), 1);
}
