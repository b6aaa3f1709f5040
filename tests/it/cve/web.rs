//! The admin server: requests without end, requests of other sites, and names of queries in what it shows.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::*;

/// Sends a start and then parts, until the server takes no more. Nothing of the response is read meanwhile.
fn send_until_it_ends(at: SocketAddr, start: &str, part: &[u8]) {
    const MOST: usize = 64 << 20;
    let mut stream = TcpStream::connect(at).expect("the admin server listens");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout above zero");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let _ = stream.write_all(start.as_bytes());
    let mut sent = 0;
    while sent < MOST && stream.write_all(part).is_ok() {
        sent += part.len();
    }
    assert!(sent < MOST, "{start:?}: all of it was taken");
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    assert!(heard.len() < 1 << 20 && !heard.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&heard));
}

#[test]
fn requests_without_end_take_little_memory() {
    // CVE-2026-33256, CVE-2026-33257, CVE-2026-33260 and CVE-2026-42005 (PowerDNS Recursor, dnsdist): a web
    // request could take any amount of memory. The advisories do not name the part that grew, so each part
    // grows here.
    let backend = Backend::new(answer(TRUE));
    let server = Forwarder::to(&[&backend], "").admin().start();
    let at = server.listener("admin");
    let before = server.process.resident();
    let host = format!("Host: {at}\r\n");
    let post = format!("POST /api/v1/reload HTTP/1.1\r\n{host}");
    for (start, part) in [
        (String::new(), "A".repeat(65_536)),
        ("GET /".to_owned(), "a".repeat(65_536)),
        ("GET /?".to_owned(), "a=b&".repeat(16_384)),
        (format!("GET / HTTP/1.1\r\n{host}"), "x: y\r\n".repeat(10_000)),
        (format!("GET / HTTP/1.1\r\n{host}x: "), "y".repeat(65_536)),
        (format!("GET / HTTP/1.1\r\n{host}cookie: "), "a=b; ".repeat(13_000)),
        (format!("{post}Content-Length: 999999999\r\n\r\n"), "{".repeat(65_536)),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n"), format!("10000\r\n{}\r\n", "{".repeat(65_536))),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n"), "1;ext=aaaaaaaa\r\n{\r\n".repeat(3000)),
    ] {
        send_until_it_ends(at, &start, part.as_bytes());
        assert_eq!(server.admin().get("/healthz").status, 200, "{start:?}");
    }
    let grown = server.process.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} octets");
    assert_served(&server);
}

#[test]
fn no_upgrade_to_http2_evades_the_token() {
    // CVE-2026-32136 (AdGuard Home): requests after an upgrade to HTTP/2 in the clear needed no password.
    let backend = Backend::new(answer(TRUE));
    let server = Forwarder::to(&[&backend], "").admin().start();
    let at = server.listener("admin");
    for (method, path) in [("GET", "/healthz"), ("POST", "/api/v1/reload"), ("OPTIONS", "*")] {
        let mut stream = TcpStream::connect(at).expect("the admin server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\n{upgrade}Content-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        // The change itself, by HTTP/2.
        let change = [http2::field(":path", "/api/v1/reload"), http2::field(":authority", &at.to_string())].concat();
        let frames = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            http2::frame(http2::SETTINGS, 0, 0, &[]),
            http2::frame(
                http2::HEADERS,
                http2::END_HEADERS | http2::END_STREAM,
                1,
                &[&[0x83, 0x86][..], &change].concat(),
            ),
        ];
        let _ = stream.write_all(&frames.concat());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        let heard = String::from_utf8_lossy(&heard);
        assert!(heard.starts_with("HTTP/1.1 ") && !heard.contains("101 Switching"), "{heard}");
        assert!(method == "GET" || !heard.contains(" 200 "), "{method}: {heard}");
    }
    assert!(!server.process.log().contains("reloaded"), "no change was made");
}

#[test]
fn names_of_queries_stand_in_no_metric_and_break_no_page() {
    // CVE-2026-40011 (dnsdist): a name in a label made /metrics unreadable. CVE-2026-0396 (dnsdist): a name
    // was HTML in the dashboard.
    let backend = Backend::new(servfail());
    let config = Forwarder::to(&[&backend], "timeout = '1s'").cache("").admin().to_toml();
    let config = config.replace("[admin]\n", "[admin]\nnames = true\n") + "[slow]\nthreshold = '1us'\n";
    let server = Server::start(&config);
    let (client, marks) =
        (server.client(), ["<script>alert(1)</script>", "\"}\nmade_up 1\n#", "\\\"\r\n\0", "&lt;img/src=x>"]);
    for number in 0..400 {
        let mark = marks[number % marks.len()];
        assert_eq!(client.ask(&query(&format!("{mark}{}", number % 8), A)).rcode(), SERVFAIL);
    }
    let admin = server.admin();
    let metrics = admin.get("/metrics").body;
    for line in metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
        assert!(name.starts_with("hedgerow_") || name.starts_with("process_"), "{line}");
        assert!(labels.ends_with('}') && labels.matches('"').count().is_multiple_of(2), "{line}");
    }
    for path in ["/metrics", "/"] {
        let body = admin.get(path).body;
        // The text form of a name has a backslash before a parenthesis.
        let found = ["alert(1", "alert\\(1", "made_up", "img/src"].iter().find(|part| body.contains(**part));
        assert_eq!(found, None, "{path}");
    }
    // Paths that show names have them as JSON.
    until("a path shows a name", || {
        let shows = |path: &&str| {
            let body = admin.send_over_socket("GET", path, "").body;
            serde_json::from_str::<serde_json::Value>(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
            body.contains("script>alert")
        };
        let shown = ["/api/v1/names", "/api/v1/slow", "/api/v1/status"].iter().filter(|path| shows(path)).count();
        (shown > 0).then_some(())
    });
}
