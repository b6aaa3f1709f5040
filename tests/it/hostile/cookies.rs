//! DNS cookies (RFC 7873, RFC 9018): a client that has proved its address is not taken for one that has not.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use dns::CookieOption;
use limit::CookieSecrets;
use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// A client's own cookie.
const CLIENT: &[u8; 8] = b"\x01\x02\x03\x04\x05\x06\x07\x08";

/// Secrets of a fleet.
const ONE: &str = "000102030405060708090a0b0c0d0e0f\n";
const TWO: &str = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff\n";

/// A query with a COOKIE option.
fn asking(cookie: &[u8]) -> Query {
    query("www.example.org", A).edns(1232).option(COOKIE, cookie)
}

/// An authority whose rate is limited, with these keys.
fn limited(keys: &str) -> Server {
    let config = format!(
        "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt']\n{keys}\n\
         [authorities.ts.rate_limit]\nanswers = 5\nslip = 2\nwindow = '1h'\nloopback = true\n"
    );
    Server::start_with_files(&config, &[("hosts.txt", "www.example.org 192.0.2.1 A\n")])
}

/// The rcode and TC of what comes for so many queries.
fn flood(client: &Client, question: &Query, count: usize) -> Vec<(u16, bool)> {
    (0..count).for_each(|_| client.send(question));
    // A query by another transport is not limited, but proves nothing about earlier ones. A query that is
    // refused at once does.
    let fence = query("fence.example.org", A).opcode(2);
    client.send(&fence);
    let mut heard = Vec::new();
    loop {
        let response = client.receive();
        if response.id() == fence.id {
            return heard;
        }
        // What takes the place of an answer is longer than the query by a server cookie at most.
        let most = question.to_vec().len() + if response.answers().is_empty() { 16 } else { 32 };
        assert!(response.bytes.len() <= most, "no amplifier: {response:?}");
        heard.push((response.rcode(), response.has(TC)));
    }
}

/// Returns the cookie that a server with this secret would give the client on this host.
fn forged(secrets: &str) -> Vec<u8> {
    let secrets = CookieSecrets::parse(secrets).expect("secrets");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as u32;
    let option = CookieOption { client: *CLIENT, server: b"" };
    let cookie = secrets.answer(option, IpAddr::V4(Ipv4Addr::LOCALHOST), now);
    [&cookie.client[..], &cookie.server].concat()
}

/// Returns true if a server accepts a cookie: then it returns it unchanged. The query is one that is refused
/// at once, because a client that has waited gets a new cookie.
fn takes(address: SocketAddr, cookie: &[u8]) -> bool {
    let query = query("www.example.org", AXFR).edns(1232).option(COOKIE, cookie);
    Client::of(address).ask(&query).cookie().expect("a cookie") == cookie
}

#[test]
fn a_good_cookie_exempts_from_rate_limits() {
    let server = limited("");
    let client = Client::of(server.listener("ts"));
    let given = client.ask(&asking(CLIENT)).cookie().expect("a cookie");
    // Far above the rate, without a cookie: TC or nothing.
    let plain = flood(&client, &query("www.example.org", A).edns(1232), 100);
    assert!(plain.len() <= 60 && plain.contains(&(NOERROR, true)), "{plain:?}");
    for _ in 0..100 {
        let response = client.ask(&asking(&given));
        assert_eq!((response.answers(), response.cookie()), (vec![ADDRESS.to_owned()], Some(given.clone())));
    }
    // The others are limited still.
    assert!(!flood(&client, &query("www.example.org", A).edns(1232), 20).contains(&(NOERROR, false)));
}

#[test]
fn above_the_rate_a_client_cookie_gets_badcookie_and_then_its_answer() {
    let server = limited("");
    let client = Client::of(server.listener("ts"));
    let bad = [&CLIENT[..], &[1; 16]].concat();
    let mut heard = flood(&client, &asking(CLIENT), 60);
    // Below the rate there is no such word.
    let before = heard.iter().take_while(|said| **said == (NOERROR, false)).count();
    assert!((4..=6).contains(&before), "{heard:?}");
    heard.drain(..before);
    assert!(heard.len() >= 25 && heard.len() <= 30, "every second one, as TC: {heard:?}");
    assert!(heard.iter().all(|said| *said == (BADCOOKIE, false)), "{heard:?}");
    let invalid = flood(&client, &asking(&bad), 20);
    assert!(invalid.iter().all(|said| *said == (BADCOOKIE, false)) && invalid.len() >= 9, "{invalid:?}");
    // By TCP never, because a connection proves the address.
    let mut tcp = TcpClient::of(server.listener("ts"));
    assert_eq!(tcp.ask(&asking(CLIENT)).answers(), [ADDRESS]);
    // What comes with the word is good.
    let given = until("BADCOOKIE", || {
        let response = client.try_ask(&asking(&bad))?;
        assert_eq!((response.rcode(), response.answers().len(), response.has(AA)), (BADCOOKIE, 0, false));
        response.cookie()
    });
    let response = client.ask(&asking(&given));
    assert_eq!((response.answers(), response.cookie()), (vec![ADDRESS.to_owned()], Some(given)));
}

#[test]
fn without_cookies_there_is_tc_and_never_badcookie() {
    let server = limited("cookies = false");
    let client = Client::of(server.listener("ts"));
    let heard = flood(&client, &asking(CLIENT), 60);
    assert!(heard.contains(&(NOERROR, true)) && heard.iter().all(|(rcode, _)| *rcode == NOERROR), "{heard:?}");
}

/// A config with a forwarder and an authority, one of which goes by a file.
fn fleet(backend: &Backend) -> String {
    let forwarder = Forwarder::to(&[backend], "").keys("cookie_secrets_file = 'fleet.secret'").to_toml();
    forwarder + "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt']\nmiss = 'nxdomain'\n"
}

#[test]
fn a_fleet_shares_secrets_in_a_file_and_changes_them_while_it_runs() {
    let backend = Backend::new(answer(ADDRESS));
    let config = fleet(&backend);
    let server = Server::start_with_files(&config, &[("fleet.secret", ONE), ("hosts.txt", "")]);
    let (ls, ts) = (server.address(), server.listener("ts"));
    assert!(takes(ls, &forged(ONE)) && !takes(ls, &forged(TWO)));
    // The authority has one of its own, which a reload keeps.
    assert!(!takes(ts, &forged(ONE)));
    let own = Client::of(ts).ask(&asking(CLIENT)).cookie().expect("a cookie");
    let learnt = Client::of(ls).ask(&asking(CLIENT)).cookie().expect("a cookie");
    server.rewrite("fleet.secret", &(TWO.to_owned() + ONE));
    server.reload("config.toml", &config);
    until("the new secret signs", || takes(ls, &forged(TWO)).then_some(()));
    // RFC 7873 section 7.1: what the old one has made is taken, and replaced.
    let response = Client::of(ls).ask(&asking(&learnt)).cookie().expect("a cookie");
    assert!(response != learnt && takes(ls, &response));
    assert!(takes(ts, &own));
    // A file that is wrong leaves all as it is.
    server.rewrite("fleet.secret", "hush, hush\n");
    server.reload("config.toml", &config);
    let line = server.process.wait_for_log("fleet.secret:1: expected 32 hexadecimal digits");
    assert!(line.contains("openssl rand -hex 16"), "{line}");
    assert!(takes(ls, &forged(TWO)) && takes(ts, &own));
    for secret in ["hush", ONE.trim(), TWO.trim()] {
        assert!(!server.process.log().contains(secret));
    }
}

#[test]
fn a_file_of_secrets_that_is_wrong_is_told_before_anything_runs() {
    let backend = Backend::new(answer(ADDRESS));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("config.toml"), fleet(&backend)).expect("our own folder");
    std::fs::write(file("hosts.txt"), "").expect("our own folder");
    for (content, expected) in [
        (None, "fleet.secret: the secrets of cookies cannot be read: No such file"),
        (Some("0123\n"), "fleet.secret:1: expected 32 hexadecimal digits, as from `openssl rand -hex 16`"),
        (Some("000102030405060708090a0b0c0d0e0f\nx\n"), "fleet.secret:2: expected 32 hexadecimal digits"),
    ] {
        if let Some(content) = content {
            std::fs::write(file("fleet.secret"), content).expect("our own folder");
        }
        let config = file("config.toml").display().to_string();
        for command in ["serve", "check"] {
            let mut process = Process::run([command, "-c", &config]);
            assert_eq!(process.wait_for_exit().code(), Some(2));
            assert!(process.log().contains(expected), "{}", process.log());
        }
    }
}
