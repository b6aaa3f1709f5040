//! RFC 9018, server cookies that all servers make alike: its examples (appendix A), for how long a cookie is
//! good, and that BIND and Knot accept ours and we theirs (a server that is not installed is reported and
//! left out).

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use dns::{Cookie, CookieOption, CookieState};
use limit::CookieSecrets;
use testkit::*;

/// The secret of the first examples.
const SECRET: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";

/// The client of the first examples.
const CLIENT: &str = "198.51.100.100";

/// The octets that these digits stand for.
fn octets(digits: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(digits.as_bytes()).expect("pairs of digits")
}

/// Returns the answer to a COOKIE option from a server with these secrets.
fn answer(secrets: &[&str], client: &str, option: &[u8], now: u32) -> Cookie {
    let secrets = CookieSecrets::parse(&secrets.join("\n")).expect("secrets");
    let address: IpAddr = client.parse().expect("an address");
    secrets.answer(CookieOption::read(option).expect("of a legal length"), address, now)
}

/// An option as it is sent.
fn option(cookie: &Cookie) -> Vec<u8> {
    [&cookie.client[..], &cookie.server].concat()
}

/// Checks that an option of a query gets this one in return.
fn check(secrets: &[&str], client: &str, asked: &str, now: u32, state: CookieState, given: &str) {
    let cookie = answer(secrets, client, &octets(asked), now);
    assert_eq!((option(&cookie), cookie.state), (octets(given), state), "{asked}");
    // What is given is good from then on.
    assert_eq!(answer(secrets, client, &option(&cookie), now), Cookie { state: CookieState::Valid, ..cookie });
}

#[test]
fn a_client_learns_a_new_cookie() {
    let given = "2464c4abcf10c957010000005cf79f111f8130c3eee29480";
    check(&[SECRET], CLIENT, "2464c4abcf10c957", 1_559_731_985, CookieState::Missing, given);
}

#[test]
fn a_cookie_is_renewed_after_half_an_hour() {
    let old = "2464c4abcf10c957010000005cf79f111f8130c3eee29480";
    let new = "2464c4abcf10c957010000005cf7a871d4a564a1442aca77";
    check(&[SECRET], CLIENT, old, 1_559_734_385, CookieState::Valid, new);
}

#[test]
fn reserved_octets_are_hashed_as_they_came() {
    let (client, old) = ("203.0.113.203", "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5");
    // As old as it is in the example it gets a new one, whether it counts still or not.
    check(
        &[SECRET],
        client,
        old,
        1_559_734_700,
        CookieState::Invalid,
        "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e",
    );
    assert_eq!(answer(&[SECRET], client, &octets(old), 0x5cf7_8f71).state, CookieState::Valid);
}

#[test]
fn a_cookie_of_the_secret_before_is_valid_and_replaced() {
    let secrets = ["445536bcd2513298075a5d379663c962", "dd3bdf9344b678b185a6f5cb60fca715"];
    let client = "2001:db8:220:1:59de:d0f4:8769:82b8";
    let (old, new) =
        ("22681ab97d52c298010000005cf7c57926556bd0934c72f8", "22681ab97d52c298010000005cf7c609a6bb79d16625507a");
    check(&secrets, client, old, 1_559_741_961, CookieState::Valid, new);
    assert_eq!(answer(&secrets[..1], client, &octets(old), 1_559_741_961).state, CookieState::Invalid);
}

#[test]
fn a_cookie_is_good_for_an_hour_and_five_minutes_ahead_of_time() {
    const NOW: u32 = 1_559_731_985;
    let old = octets("2464c4abcf10c957010000005cf79f111f8130c3eee29480");
    for (now, state, is_kept) in [
        (NOW, CookieState::Valid, true),
        (NOW + 1800, CookieState::Valid, true),
        (NOW + 1801, CookieState::Valid, false),
        (NOW + 3600, CookieState::Valid, false),
        (NOW + 3601, CookieState::Invalid, false),
        (NOW - 300, CookieState::Valid, true),
        (NOW - 301, CookieState::Invalid, false),
        (NOW ^ 1 << 31, CookieState::Invalid, false),
    ] {
        let cookie = answer(&[SECRET], CLIENT, &old, now);
        assert_eq!((cookie.state, option(&cookie) == old), (state, is_kept), "{}", i64::from(now) - i64::from(NOW));
    }
}

#[test]
fn time_is_a_serial_number() {
    for (made, now, state) in [
        (u32::MAX - 10, 20, CookieState::Valid),
        (u32::MAX, 3598, CookieState::Valid),
        (u32::MAX, 3600, CookieState::Invalid),
        (100, u32::MAX - 100, CookieState::Valid),
        (300, u32::MAX, CookieState::Invalid),
    ] {
        let cookie = answer(&[SECRET], CLIENT, &octets("2464c4abcf10c957"), made);
        assert_eq!(answer(&[SECRET], CLIENT, &option(&cookie), now).state, state, "{made} {now}");
    }
}

#[test]
fn a_cookie_is_bound_to_all_that_made_it() {
    const NOW: u32 = 1_559_731_985;
    let good = octets("2464c4abcf10c957010000005cf79f111f8130c3eee29480");
    let state = |secret: &str, client: &str, option: &[u8]| answer(&[secret], client, option, NOW).state;
    assert_eq!(state(SECRET, CLIENT, &good), CookieState::Valid);
    assert_eq!(state(SECRET, "198.51.100.101", &good), CookieState::Invalid);
    assert_eq!(state(SECRET, "2001:db8::1", &good), CookieState::Invalid);
    assert_eq!(state("e5e973e5a6b2a43f48e7dc849e37bfce", CLIENT, &good), CookieState::Invalid);
    for bit in 0..good.len() * 8 {
        let mut other = good.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(state(SECRET, CLIENT, &other), CookieState::Invalid, "bit {bit}");
    }
    for len in (16..=40).filter(|len| *len != 24) {
        let mut other = good.clone();
        other.resize(len, 0);
        assert_eq!(state(SECRET, CLIENT, &other), CookieState::Invalid, "{len} octets");
    }
}

/// A server of another program that answers only queries with a good cookie.
struct Strict {
    /// Where it is asked.
    address: SocketAddr,
    _daemon: Daemon,
}

impl Strict {
    /// Starts one with this config, in which `PLACE`, `ADDRESS` and `PORT` stand for its own; `None` if it is
    /// not installed.
    fn start(program: &str, arguments: &[&str], config: &str) -> Option<Self> {
        let mut command = Command::new(need_program("strict cookies", program)?);
        let address = free_address();
        let daemon = Daemon::start(|at| {
            let config = config.replace("PLACE", &at.display().to_string());
            let config = config.replace("ADDRESS", &address.ip().to_string());
            let config = config.replace("PORT", &address.port().to_string());
            fs::write(at.join("config"), config).expect("our own folder");
            let zone = "$ORIGIN example.org.\n$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 192.0.2.53\nwww A 192.0.2.1\n";
            fs::write(at.join("zone"), zone).expect("our own folder");
            command.args(arguments).arg(at.join("config")).current_dir(at);
            command
        });
        Some(Self { address, _daemon: daemon })
    }
}

/// A query with a COOKIE option.
fn asking(cookie: &[u8]) -> Query {
    query("www.example.org", A).edns(1232).option(COOKIE, cookie)
}

/// Has a strict server and ours, with one secret, take each other's cookies.
fn check_peer(peer: &Strict) {
    let config = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt']\ncookie_secrets_file = 'fleet'\n";
    let files = [("hosts.txt", "www.example.org 192.0.2.1 A\n"), ("fleet", SECRET)];
    let server = Server::start_with_files(config, &files);
    let ours = Client::of(server.listener("ts"));
    let own = CLIENT_COOKIE;
    let theirs = until("the peer answers", || {
        let response = Client::of(peer.address).try_ask(&asking(own))?;
        (response.rcode() == BADCOOKIE).then(|| response.cookie().expect("a cookie"))
    });
    let taken = ours.ask(&asking(&theirs));
    assert_eq!((taken.answers(), taken.cookie()), (vec!["192.0.2.1".to_owned()], Some(theirs)));
    let given = ours.ask(&asking(own)).cookie().expect("a cookie");
    let response = Client::of(peer.address).ask(&asking(&given));
    assert_eq!((response.rcode(), response.answers()), (NOERROR, vec!["192.0.2.1".to_owned()]));
    let mut other = given;
    other[23] ^= 1;
    assert_eq!(Client::of(peer.address).ask(&asking(&other)).rcode(), BADCOOKIE);
}

/// Asks a strict server by way of an LS: it gives cookies to the LS, which gives it back what it wants, by
/// UDP.
fn check_backend(peer: &Strict) {
    until("the peer answers", || Client::of(peer.address).try_ask(&asking(CLIENT_COOKIE)));
    let server =
        Forwarder::to(&[&peer.address], "timeout = '20s'\nattempt_timeout = '20s'").admin().start_with_probes_logged();
    server.process.wait_for_log("supports DNS cookies");
    let client = server.client();
    for name in ["www.example.org", "WWW.example.ORG", "ns.example.org"].into_iter().cycle().take(30) {
        let response = client.ask(&query(name, A));
        assert_eq!((response.rcode(), response.answers().len(), response.has_opt()), (NOERROR, 1, false));
    }
    assert_eq!(client.ask(&query("missing.example.org", A).edns(1232)).rcode(), NXDOMAIN);
    let metrics = server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_asked_again_total", &[]), 0);
    assert_eq!(metrics.sum("hedgerow_dropped_total", &[("reason", "spoofed")]), 0);
}

/// A client's own cookie.
const CLIENT_COOKIE: &[u8; 8] = b"\x24\x64\xc4\xab\xcf\x10\xc9\x57";

/// BIND as it is strict.
fn bind() -> Option<Strict> {
    let config = format!(
        "options {{ directory \"PLACE\"; pid-file \"PLACE/pid\"; session-keyfile \"PLACE/key\"; \
         listen-on port PORT {{ ADDRESS; }}; listen-on-v6 {{ none; }}; recursion no; dnssec-validation no; \
         cookie-algorithm siphash24; cookie-secret \"{SECRET}\"; require-server-cookie yes; }};\n\
         controls {{ }};\nzone example.org {{ type primary; file \"zone\"; }};\n"
    );
    Strict::start("named", &["-g", "-n", "1", "-c"], &config)
}

/// Knot as it is strict.
fn knot() -> Option<Strict> {
    let config = format!(
        "server:\n  listen: ADDRESS@PORT\n  rundir: PLACE\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
         log:\n  - target: stderr\n    any: info\ndatabase:\n  storage: PLACE\n\
         mod-cookies:\n  - id: strict\n    secret: 0x{SECRET}\n    badcookie-slip: 1\n\
         template:\n  - id: default\n    global-module: mod-cookies/strict\n\
         zone:\n  - domain: example.org\n    storage: PLACE\n    file: zone\n"
    );
    Strict::start("knotd", &["-c"], &config)
}

/// NSD, which gives cookies and does not ask for them.
fn nsd() -> Option<Strict> {
    let config = format!(
        "server:\n  ip-address: ADDRESS\n  port: PORT\n  username: \"\"\n  chroot: \"\"\n  server-count: 1\n  database: \"\"\n  \
         pidfile: PLACE/pid\n  xfrdfile: PLACE/xfrd.state\n  zonelistfile: PLACE/zone.list\n  xfrdir: PLACE\n  \
         answer-cookie: yes\n  cookie-secret: {SECRET}\n\
         remote-control:\n  control-enable: no\n\
         zone:\n  name: example.org\n  zonefile: PLACE/zone\n"
    );
    Strict::start("nsd", &["-d", "-c"], &config)
}

#[test]
fn bind_takes_our_cookies_and_we_take_those_of_bind() {
    bind().iter().for_each(check_peer);
}

#[test]
fn knot_takes_our_cookies_and_we_take_those_of_knot() {
    knot().iter().for_each(check_peer);
}

#[test]
fn bind_is_asked_with_its_own_cookies() {
    bind().iter().for_each(check_backend);
}

#[test]
fn knot_is_asked_with_its_own_cookies() {
    knot().iter().for_each(check_backend);
}

#[test]
fn nsd_is_asked_with_its_own_cookies() {
    nsd().iter().for_each(check_backend);
}
