//! DNS over HTTP to clients (RFC 8484): HTTP/2 and HTTP/1.1, encrypted or in the clear, with the clients that
//! people use and with one that sends frame by frame. What floods do is in `http_floods.rs`.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;

use data_encoding::BASE64URL_NOPAD;
use rustix::process::Signal;
use testkit::http2::{self, DATA, END_STREAM, GOAWAY, HEADERS, Http2Client};
use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// A forwarder that listens by HTTPS and by HTTP, in this order behind plain DNS.
pub(crate) fn forwarder(backend: &Backend, keys: &str) -> Forwarder {
    let certificate = "[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n";
    Forwarder::to(&[backend], &format!("timeout = '20s'\nattempt_timeout = '20s'\n{certificate}"))
        .keys(&format!("{keys}\n"))
        .listen("['127.0.0.1:0', 'https://127.0.0.1:0', 'http://127.0.0.1:0/q']")
        .admin()
}

/// Starts a server with a certificate for `dns.example` of this authority, whose own certificate is in
/// `ca.pem`.
pub(crate) fn start(forwarder: &Forwarder, authorities: &CertificateAuthority) -> Server {
    let (chain, key) = authorities.issue("dns.example");
    let files = [("chain.pem", &*chain), ("key.pem", &key), ("ca.pem", &authorities.pem())];
    Server::start_with_files(&forwarder.to_toml(), &files)
}

/// The response that `curl` got.
#[derive(Debug)]
pub(crate) struct Curled {
    version: String,
    status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Curled {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    fn answers(self) -> Vec<String> {
        Response { bytes: self.body }.answers()
    }
}

/// Asks a listener of this number with `curl`.
pub(crate) fn curl(server: &Server, listener: usize, target: &str, words: &[&str]) -> Curled {
    let at = server.listeners("forwarder")[listener];
    let scheme = if listener == 1 { "https" } else { "http" };
    let output = Command::new("curl")
        .args(["-sS", "-i", "--max-time", "30", "--cacert"])
        .arg(server.path("ca.pem"))
        .args(["--resolve", &format!("dns.example:{}:127.0.0.1", at.port())])
        .args(words)
        .arg(format!("{scheme}://dns.example:{}{target}", at.port()))
        .output()
        .expect("curl is there");
    let octets = output.stdout;
    let end = octets.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("curl {words:?}: {}", String::from_utf8_lossy(&output.stderr)));
    let head = String::from_utf8_lossy(&octets[..end]).into_owned();
    let mut first = head.split_whitespace();
    let version = first.next().expect("a version").to_owned();
    let status = first.next().and_then(|status| status.parse().ok()).expect("a status");
    Curled { version, status, body: octets[end + 4..].to_vec(), head }
}

/// The path of a GET with this message.
pub(crate) fn get(path: &str, message: &[u8]) -> String {
    format!("{path}?dns={}", BASE64URL_NOPAD.encode(message))
}

#[test]
fn get_and_post_are_answered_by_both_versions_encrypted_or_not() {
    let (backend, authorities) = (Backend::new(answer_for(300, ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    let query = query("www.example.org", A);
    fs::write(server.path("query"), query.to_vec()).expect("a file of the test");
    let body = format!("@{}", server.path("query").display());
    let post = ["-H", "content-type: application/dns-message", "--data-binary", &*body];
    for (listener, path, version, word) in [
        (1, "/dns-query", "HTTP/2", "--http2"),
        (1, "/dns-query", "HTTP/1.1", "--http1.1"),
        (2, "/q", "HTTP/2", "--http2-prior-knowledge"),
        (2, "/q", "HTTP/1.1", "--http1.1"),
        // A client that asks to change the version goes on with the version it has.
        (2, "/q", "HTTP/1.1", "--http2"),
    ] {
        let target = get(path, &query.to_vec());
        for (target, words) in [(&*target, &[][..]), (path, &post[..])] {
            let answer = curl(&server, listener, target, &[&[word], words].concat());
            assert_eq!((&*answer.version, answer.status), (version, 200), "{answer:?}");
            assert_eq!(answer.header("content-type"), Some("application/dns-message"), "{answer:?}");
            assert_eq!(answer.header("cache-control"), Some("max-age=300"), "{answer:?}");
            assert_eq!(answer.body[..2], query.id.to_be_bytes(), "any ID is echoed");
            assert_eq!(answer.answers(), [ADDRESS]);
        }
    }
    let metrics = server.admin().metrics();
    for (transport, expected) in [("https", 4), ("http", 6)] {
        let labels = [("transport", transport)];
        assert_eq!(metrics.sum("hedgerow_queries_total", &labels), expected);
        let accepted = [labels[0], ("result", "accepted")];
        assert_eq!(metrics.sum("hedgerow_connections_total", &accepted), expected);
    }
    assert_eq!(metrics.sum("hedgerow_handshakes_total", &[("transport", "https")]), 4);
    assert_eq!(metrics.sum("hedgerow_http_responses_total", &[("status", "200")]), 10);
    until("none is open", || {
        let metrics = server.admin().metrics();
        let open = |by| metrics.sum("hedgerow_connections", &[("transport", by)]);
        (open("https") + open("http") == 0).then_some(())
    });
}

#[test]
fn what_is_no_query_has_a_status_of_its_own() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    let query = query("www.example.org", A).to_vec();
    for (name, octets) in
        [("query", &query[..]), ("short", &query[..11]), ("long", &[0; 65_536]), ("longest", &[0xFF; 65_535])]
    {
        fs::write(server.path(name), octets).expect("a file of the test");
    }
    let body = |name: &str| format!("@{}", server.path(name).display());
    let (dns, chunked) = ("content-type: application/dns-message", "transfer-encoding: chunked");
    let target = get("/dns-query", &query);
    for version in ["--http2", "--http1.1"] {
        let ask = |target: &str, words: &[&str]| {
            let answer = curl(&server, 1, target, &[&[version], words].concat());
            if answer.status != 200 {
                assert!(answer.body.is_empty(), "{answer:?}");
                assert_eq!(answer.header("allow"), (answer.status == 405).then_some("GET, POST"), "{answer:?}");
            }
            answer.status
        };
        let post = |name: &str, header: &str| ask("/dns-query", &["-H", header, "--data-binary", &body(name)]);
        assert_eq!(ask("/dns-query", &[]), 400);
        assert_eq!(ask(&format!("{target}="), &[]), 400, "padding");
        assert_eq!(ask(&get("/dns-query", &query[..11]), &[]), 400, "shorter than a header");
        assert_eq!(ask(&get("/", &query), &[]), 404);
        assert_eq!(ask(&get("/dns-query/", &query), &[]), 404);
        assert_eq!(ask(&target, &["--head"]), 405);
        assert_eq!(ask(&target, &["-X", "DELETE"]), 405);
        assert_eq!(post("query", "content-type: application/json"), 415);
        assert_eq!(post("short", dns), 400);
        assert_eq!(post("query", dns), 200);
        // A response, of the greatest length: it is answered by nothing.
        assert_eq!(post("longest", dns), 504);
        if version == "--http1.1" {
            assert_eq!(post("long", dns), 413);
            let long = ["-H", dns, "-H", chunked, "--data-binary", &body("long")];
            assert_eq!(ask("/dns-query", &long), 413, "of an undeclared length");
        }
    }
    // By HTTP/2 the response comes before the body is complete, and the client learns that it need not go on
    // (RFC 9113 section 8.1), which not every curl takes for an answer.
    let mut fields = vec![0x83, 0x86];
    fields.extend(http2::field(":path", "/q"));
    fields.extend(http2::field("content-type", "application/dns-message"));
    let said = [&fields[..], &http2::field("content-length", "65536")].concat();
    for (fields, frames) in [(said, 0), (fields, 4)] {
        let mut client = Http2Client::new(server.listeners("forwarder")[2]);
        client.receive_until(|frame| frame.kind == http2::WINDOW_UPDATE).expect("how much a body may have");
        client.send(HEADERS, http2::END_HEADERS, 1, &fields);
        (0..frames).for_each(|_| assert!(client.send(DATA, 0, 1, &[0; 16_384])));
        let answer = client.receive_until(|frame| frame.stream == 1).expect("a response");
        assert_eq!((answer.kind, answer.flags & END_STREAM), (HEADERS, END_STREAM));
        let end = client.receive_until(|frame| frame.stream == 1).expect("an end");
        assert_eq!((end.kind, end.payload), (http2::RST_STREAM, vec![0; 4]), "NO_ERROR");
    }
    let metrics = server.admin().metrics();
    for (status, expected) in [("200", 2), ("400", 8), ("404", 4), ("405", 4), ("413", 4), ("415", 2), ("504", 2)] {
        assert_eq!(metrics.sum("hedgerow_http_responses_total", &[("status", status)]), expected, "{status}");
    }
}

#[test]
fn a_client_that_sends_too_much_reads_why() {
    let server = start(&forwarder(&Backend::new(answer(ADDRESS)), ""), &CertificateAuthority::new());
    let at = server.listeners("forwarder")[2];
    let mut client = TcpStream::connect(at).expect("the server listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    write!(
        client,
        "POST /q HTTP/1.1\r\nhost: a\r\ncontent-type: application/dns-message\r\ncontent-length: 200000\r\n\r\n"
    )
    .expect("it is sent");
    // The response is there, and the client is not through.
    let mut first = [0; 12];
    assert_eq!(client.peek(&mut first).expect("a response"), 12);
    assert_eq!(&first, b"HTTP/1.1 413");
    (0..200).for_each(|_| client.write_all(&[0; 1000]).expect("the server discards it"));
    client.shutdown(std::net::Shutdown::Write).expect("a socket");
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).expect("an end without a reset");
    assert!(heard.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&heard));
    let mut client = Http2Client::new(at);
    let mut fields = vec![0x83, 0x86];
    fields.extend(http2::field(":path", "/q"));
    fields.extend(http2::field("content-type", "application/dns-message"));
    fields.extend(http2::field("content-length", "200000"));
    client.send(HEADERS, http2::END_HEADERS, 1, &fields);
    let answer = client.receive_until(|frame| frame.stream == 1).expect("a response");
    assert_eq!((answer.kind, answer.flags & END_STREAM), (HEADERS, END_STREAM));
    let end = client.receive_until(|frame| frame.stream == 1).expect("an end");
    assert_eq!((end.kind, end.payload), (http2::RST_STREAM, vec![0; 4]), "NO_ERROR");
    // What was on its way does no harm to the connection.
    (0..3).for_each(|_| assert!(client.send(DATA, 0, 1, &[0; 16_384])));
    client.send(http2::PING, 0, 0, &[1; 8]);
    client.receive_until(|frame| frame.kind == http2::PING).expect("the connection goes on");
}

#[test]
fn who_is_to_get_no_response_is_told_so() {
    let (backend, authorities) =
        (Backend::new(answer(ADDRESS).except("silent", silent())), CertificateAuthority::new());
    let pool = "timeout = '100ms'\nattempt_timeout = '100ms'\non_timeout = 'drop'\n[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n";
    let config = Forwarder::to(&[&backend], pool).listen("['127.0.0.1:0', 'https://127.0.0.1:0']");
    let server = start(&config, &authorities);
    for version in ["--http2", "--http1.1"] {
        let target = get("/dns-query", &query("silent.example.org", A).to_vec());
        assert_eq!(curl(&server, 1, &target, &[version]).status, 504);
    }
}

#[test]
fn responses_may_be_kept_as_long_as_their_records_last_and_what_was_made_up_not_at_all() {
    let script = answer_for(60, ADDRESS)
        .except("negative", nxdomain_for(40))
        .except("nodata", nodata_for(30))
        .except("failing", servfail())
        .except("silent", silent());
    let (backend, authorities) = (Backend::new(script), CertificateAuthority::new());
    let pool =
        "timeout = '100ms'\nattempt_timeout = '100ms'\n[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n";
    let config = Forwarder::to(&[&backend], pool)
        .listen("['127.0.0.1:0', 'https://127.0.0.1:0']")
        .keys("designated_resolver = 'dns.example'");
    let server = start(&config, &authorities);
    for (name, rtype, rcode, expected) in [
        ("www.example.org", A, 0, "max-age=60"),
        ("negative.example.org", A, 3, "max-age=40"),
        ("nodata.example.org", A, 0, "max-age=30"),
        ("failing.example.org", A, 2, "max-age=0"),
        // NXDOMAIN, because no backend has answered.
        ("silent.example.org", A, 3, "max-age=0"),
        // What the server says of itself (RFC 9462), and a transfer, which is refused.
        ("_dns.resolver.arpa", 64, 0, "max-age=300"),
        ("example.org", AXFR, 5, "max-age=0"),
    ] {
        let answer = curl(&server, 1, &get("/dns-query", &query(name, rtype).to_vec()), &[]);
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some(expected)), "{name}");
        assert_eq!(Response { bytes: answer.body }.rcode(), rcode, "{name}");
    }
}

#[test]
fn kdig_and_dig_ask_by_https() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    let [https, http] = [1, 2].map(|place| server.listeners("forwarder")[place].port().to_string());
    let ca = server.path("ca.pem").display().to_string();
    let (trusted, trusted_by_dig) = (format!("+tls-ca={ca}"), format!("+tls-ca={ca}"));
    let by_kdig = ["+tls-hostname=dns.example", &trusted];
    let by_dig = ["+tls-hostname=dns.example", &trusted_by_dig];
    for (program, port, words, options) in [
        ("kdig", &https, &["+https"][..], &by_kdig[..]),
        ("kdig", &https, &["+https-get"], &by_kdig),
        ("kdig", &https, &["+https", "+padding"], &by_kdig),
        ("dig", &https, &["+https"], &by_dig),
        ("dig", &https, &["+https-get"], &by_dig),
        ("dig", &http, &["+http-plain=/q"], &[]),
        ("dig", &http, &["+http-plain-get=/q"], &[]),
    ] {
        let mut command = Command::new(program);
        command.args(["@127.0.0.1", "-p", port]).args(words).args(options).args(["www.example.org", "A"]);
        let Ok(output) = command.output() else {
            leave_out("HTTPS by a client of others", &format!("{program} is not installed"));
            continue;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(ADDRESS), "{program} {words:?}: {said}");
    }
}

#[test]
fn responses_of_a_connection_come_as_they_are_there() {
    let backend = Backend::new(answer(ADDRESS).except("slow", answer(ADDRESS).held()));
    let server = start(&forwarder(&backend, ""), &CertificateAuthority::new());
    let mut client = Http2Client::new(server.listeners("forwarder")[2]);
    let fields = |message: &[u8]| {
        let mut fields = vec![0x82, 0x86];
        fields.extend(http2::field(":path", &get("/q", message)));
        fields.extend(http2::field(":authority", "dns.example"));
        fields
    };
    let slow = query("slow.example.org", A);
    client.send(HEADERS, http2::END_HEADERS | END_STREAM, 1, &fields(&slow.to_vec()));
    for number in 1..100 {
        let query = query(&format!("{number}.example.org"), A).id(number);
        client.send(HEADERS, http2::END_HEADERS | END_STREAM, 2 * u32::from(number) + 1, &fields(&query.to_vec()));
    }
    let mut ids = std::collections::BTreeMap::new();
    while ids.len() < 99 {
        let frame = client.receive().expect("a frame");
        if frame.kind == DATA {
            ids.insert(frame.stream, Response { bytes: frame.payload }.id());
        }
    }
    assert!(ids.iter().all(|(stream, id)| *stream == 2 * u32::from(*id) + 1), "each by its own stream: {ids:?}");
    backend.release();
    assert_eq!(Response { bytes: client.body_of(1).expect("a response") }.id(), slow.id);
}

#[test]
fn large_answers_go_through_small_windows() {
    let backend = Backend::new(truncated().by_tcp(reply(|reply| {
        (0..3000).fold(reply, |reply, i| reply.answer(a(&format!("10.0.{}.{}", i / 250, i % 250))))
    })));
    let server = start(&forwarder(&backend, ""), &CertificateAuthority::new());
    // RFC 8484 section 6: the payload size of UDP counts for nothing here.
    let many = query("many.example.org", A).edns(512);
    let curled = curl(&server, 1, &get("/dns-query", &many.to_vec()), &["--http2"]);
    assert_eq!(curled.answers().len(), 3000);
    // The client opens its window by 1000 octets at a time.
    let mut client = Http2Client::with(server.listeners("forwarder")[2], &[(4, 1000)]);
    let mut fields = vec![0x82, 0x86];
    fields.extend(http2::field(":path", &get("/q", &query("many.example.org", A).to_vec())));
    client.send(HEADERS, http2::END_HEADERS | END_STREAM, 1, &fields);
    let mut body = Vec::new();
    loop {
        let frame = client.receive().expect("a frame");
        if frame.kind == DATA {
            assert!(frame.payload.len() <= 1000);
            body.extend_from_slice(&frame.payload);
            if frame.flags & END_STREAM != 0 {
                break;
            }
            let opened = u32::try_from(frame.payload.len()).expect("few").to_be_bytes();
            client.send(http2::WINDOW_UPDATE, 0, 1, &opened);
            client.send(http2::WINDOW_UPDATE, 0, 0, &opened);
        }
    }
    assert_eq!(Response { bytes: body }.answers().len(), 3000);
}

#[test]
fn padding_is_for_what_is_encrypted() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    // Padding, and the keepalive that HTTP has no use for.
    let query = query("www.example.org", A).edns(1232).option(12, b"").option(11, b"").to_vec();
    let encrypted = curl(&server, 1, &get("/dns-query", &query), &[]);
    assert_eq!(encrypted.body.len(), 468);
    let options = Response { bytes: encrypted.body }.options();
    assert!(options.iter().all(|(code, _)| *code == 12), "{options:?}");
    let clear = curl(&server, 2, &get("/q", &query), &[]);
    assert!(clear.body.len() < 128 && Response { bytes: clear.body }.options().is_empty());
}

/// A connection by TLS that speaks HTTP/1.1 without having said so.
fn ask_by_http1(at: SocketAddr, authorities: &CertificateAuthority, message: &[u8]) -> String {
    let mut client = TlsClient::of(at, &authorities.trusted(&[]), "dns.example");
    client.send_bytes(
        format!("GET {} HTTP/1.1\r\nhost: dns.example\r\nconnection: close\r\n\r\n", get("/dns-query", message))
            .as_bytes(),
    );
    client.rest()
}

#[test]
fn a_port_is_shared_with_tls_and_a_reload_binds_nothing_anew() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let shared = free_address();
    let config = |listen: &str| {
        let certificate = "[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n";
        Forwarder::to(&[&backend], certificate).listen(listen).admin().workers(2).to_toml()
    };
    let (chain, key) = authorities.issue("dns.example");
    let files = [("chain.pem", &*chain), ("key.pem", &key), ("ca.pem", &authorities.pem())];
    let [tls, https] = ["tls", "https"].map(|scheme| format!("'{scheme}://{shared}'"));
    let server = Server::start_with_files(&config(&format!("[{https}, {tls}]")), &files);
    let ready = server.process.log();
    assert!(ready.contains(&format!("forwarder=https://{shared},tls://{shared}")), "{ready}");
    let trusted = |alpn: &[&str]| authorities.trusted(alpn);
    let question = query("www.example.org", A);
    let target = get("/dns-query", &question.to_vec());
    let is_dot = |alpn: &[&str]| {
        let client = TlsClient::try_of(shared, &trusted(alpn), "dns.example");
        client.is_ok_and(|mut client| client.ask(&question).answers() == [ADDRESS])
    };
    let by_curl = |version| {
        let output = Command::new("curl")
            .args(["-sS", "-i", version, "--max-time", "30", "--cacert"])
            .arg(server.path("ca.pem"))
            .args(["--resolve", &format!("dns.example:{}:127.0.0.1", shared.port())])
            .arg(format!("https://dns.example:{}{target}", shared.port()))
            .output()
            .expect("curl is there");
        output.stdout.windows(3).any(|three| three == b"200")
    };
    assert!(is_dot(&["dot"]) && is_dot(&[]) && by_curl("--http2") && by_curl("--http1.1"));
    let count = |name: &str, labels: &[(&str, &str)]| server.admin().metrics().sum(name, labels);
    for transport in ["tls", "https"] {
        let labels = [("transport", transport), ("result", "accepted")];
        assert_eq!(count("hedgerow_connections_total", &labels), 2, "{transport}");
        assert_eq!(count("hedgerow_handshakes_total", &labels[..1]), 2, "{transport}");
    }
    // One goes, then the other comes in its place, while a client of what stays asks without a pause.
    let mut open = TlsClient::of(shared, &trusted(&["dot"]), "dns.example");
    open.ask(&question);
    let inode = |server: &Server| {
        let listed = fs::read_to_string(format!("/proc/{}/net/tcp", server.process.id())).expect("a list");
        let at = format!("0100007F:{:04X}", shared.port());
        let listening = listed.lines().filter(|line| line.contains(&at) && line.contains(" 0A "));
        let mut inodes: Vec<_> =
            listening.filter_map(|line| line.split_whitespace().nth(9)).map(str::to_owned).collect();
        inodes.sort();
        inodes
    };
    let bound = inode(&server);
    assert_eq!(bound.len(), 2, "one socket for each worker, and not for each protocol");
    let reload = |listen: &str| {
        server.rewrite("config.toml", &config(listen));
        let answer = server.admin().try_post("/api/v1/reload", "");
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(inode(&server), bound, "{listen}");
    };
    reload(&format!("[{tls}]"));
    assert!(is_dot(&["dot"]) && is_dot(&[]) && !by_curl("--http2") && !by_curl("--http1.1"));
    reload(&format!("[{https}]"));
    assert!(!is_dot(&["dot"]) && by_curl("--http2") && by_curl("--http1.1"));
    let answer = ask_by_http1(shared, &authorities, &question.to_vec());
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("connection: close"), "{answer}");
    assert_eq!(open.ask(&question).answers(), [ADDRESS], "who was there is served on");
    reload(&format!("['https://{shared}/other', {tls}]"));
    assert!(is_dot(&["dot"]) && is_dot(&[]) && !by_curl("--http2"), "under another path");
}

#[test]
fn a_drain_answers_what_is_in_flight_and_says_goodbye() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS).held()), CertificateAuthority::new());
    let mut server = start(&forwarder(&backend, ""), &authorities);
    let at = server.listeners("forwarder")[2];
    let message = query("www.example.org", A).to_vec();
    let mut fields = vec![0x82, 0x86];
    fields.extend(http2::field(":path", &get("/q", &message)));
    let mut by_two = Http2Client::new(at);
    by_two.send(HEADERS, http2::END_HEADERS | END_STREAM, 1, &fields);
    let mut by_one = TcpStream::connect(at).expect("the server listens");
    by_one.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    write!(by_one, "GET {} HTTP/1.1\r\nhost: a\r\n\r\n", get("/q", &query("one.example.org", A).to_vec()))
        .expect("it is sent");
    backend.wait_for(2);
    server.process.signal(Signal::TERM);
    server.process.wait_for_log("finishing those in flight");
    // It hears of the end, and what it has sent before it says that it has is still taken (RFC 9113 section
    // 6.8).
    let goaway = by_two.receive_until(|frame| frame.kind == GOAWAY).expect("it is sent");
    assert_eq!(goaway.payload[..4], [0x7F, 0xFF, 0xFF, 0xFF], "all that are on their way");
    by_two.send(HEADERS, http2::END_HEADERS | END_STREAM, 3, &fields);
    thread::scope(|scope| {
        scope.spawn(|| {
            let frames = by_two.rest();
            for stream in [1, 3] {
                let body = frames.iter().find(|frame| frame.kind == DATA && frame.stream == stream);
                let body = body.unwrap_or_else(|| panic!("no response by {stream}: {frames:?}"));
                assert_eq!(Response { bytes: body.payload.clone() }.answers(), [ADDRESS]);
            }
            let is_last = |frame: &http2::Frame| frame.kind == GOAWAY && frame.payload[..4] == [0, 0, 0, 3];
            assert!(frames.iter().any(is_last), "{frames:?}");
        });
        scope.spawn(|| {
            let mut answer = Vec::new();
            by_one.read_to_end(&mut answer).expect("an end");
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("connection: close"), "{answer}");
        });
        backend.release();
    });
    assert!(server.process.wait_for_exit().success());
}

#[test]
fn who_is_idle_hears_that_it_ends() {
    let backend = Backend::new(answer(ADDRESS));
    let server = start(
        &forwarder(&backend, "[forwarder.connections]\nidle = '200ms'\nfirst_query = '200ms'"),
        &CertificateAuthority::new(),
    );
    let at = server.listeners("forwarder")[2];
    let mut client = Http2Client::new(at);
    let mut fields = vec![0x82, 0x86];
    fields.extend(http2::field(":path", &get("/q", &query("www.example.org", A).to_vec())));
    client.send(HEADERS, http2::END_HEADERS | END_STREAM, 1, &fields);
    assert!(client.body_of(1).is_some());
    assert_eq!(client.error_of_end(), Some(0), "in good order");
    // A client that sends nothing is disconnected; so is one that sends no query.
    let timed_out = [("transport", "http"), ("result", "timed_out")];
    let mut silent = TcpStream::connect(at).expect("the server listens");
    silent.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    assert_eq!(silent.read(&mut [0; 64]).expect("an end"), 0);
    let mut noisy = Http2Client::new(at);
    noisy.rest();
    until("both are counted", || {
        (server.admin().metrics().sum("hedgerow_connections_total", &timed_out) == 2).then_some(())
    });
}

#[test]
fn authorities_answer_by_https_and_transfer_nothing_by_it() {
    let authorities = CertificateAuthority::new();
    let (chain, key) = authorities.issue("ns.example");
    let config = "workers = 1\n[admin]\nlisten = '127.0.0.1:0'\n[authorities.ts]\nlisten = ['127.0.0.1:0', 'https://127.0.0.1:0', 'http://127.0.0.1:0']\n\
                  zones = [{ file = 'example.net.zone', origin = 'example.net', transfer_to = ['127.0.0.1'] }]\n[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n";
    let zone = "$ORIGIN example.net.\n$TTL 3600\n@ SOA ns.example.net. admin.example.net. 1 2 3 4 60\n@ NS ns\nns A 192.0.2.53\nwww 120 A 192.0.2.1\n";
    let files = [("example.net.zone", zone), ("chain.pem", &*chain), ("key.pem", &key)];
    let server = Server::start_with_files(config, &files);
    let ask = |name: &str, rtype| {
        let mut client = Http2Client::new(server.listeners("ts")[2]);
        client.post(1, &query(name, rtype).to_vec());
        Response { bytes: client.body_of(1).expect("a response") }
    };
    assert_eq!(ask("www.example.net", A).answers(), ["192.0.2.1"]);
    assert_eq!(ask("nowhere.example.net", A).rcode(), 3);
    assert_eq!(ask("example.net", AXFR).rcode(), REFUSED);
    let metrics = server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_queries_total", &[("transport", "http")]), 3);
}
