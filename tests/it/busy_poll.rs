//! `busy_poll`: a server whose workers stay awake after work still does all else in time.

use std::net::TcpStream;

use rustix::process::Signal;
use testkit::*;

/// The address that is right.
const ADDRESS: &str = "192.0.2.1";

/// The first line of a config: the longest `busy_poll`, so that starved tasks show.
const BUSY: &str = "busy_poll = '1ms'\n";

#[test]
fn both_servers_answer_by_udp_and_tcp_while_queries_keep_them_awake() {
    let backend = Backend::new(answer(ADDRESS));
    let authority = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt']\n";
    let config = format!("{BUSY}{}{authority}", Forwarder::to(&[&backend], "").to_toml());
    let server = Server::start_with_files(&config, &[("hosts.txt", "www.example 192.0.2.1 A\n")]);
    for name in ["forwarder", "ts"] {
        let address = server.listener(name);
        let (client, mut stream) = (Client::of(address), TcpClient::of(address));
        for _ in 0..100 {
            assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
            assert_eq!(stream.ask(&query("www.example", A)).answers(), [ADDRESS]);
        }
    }
}

#[test]
fn deadlines_are_kept_while_awake() {
    let backend = Backend::new(silent());
    let config = BUSY.to_owned() + &Forwarder::to(&[&backend], "timeout = '50ms'\non_timeout = 'servfail'").to_toml();
    let server = Server::start(&config);
    assert_eq!(server.client().ask(&query("www.example", A)).rcode(), SERVFAIL);
}

#[test]
fn drain_answers_what_is_in_flight_and_ends() {
    let backend = Backend::new(answer(ADDRESS).held());
    let mut server = Server::start(&(BUSY.to_owned() + &Forwarder::to(&[&backend], "").workers(2).to_toml()));
    let client = server.client();
    client.send(&query("www.example", A));
    backend.wait_for(1);
    server.process.signal(Signal::TERM);
    until("it takes no more", || TcpStream::connect(server.address()).is_err().then_some(()));
    backend.release();
    assert_eq!(client.receive().answers(), [ADDRESS]);
    assert_eq!(server.process.wait_for_exit().code(), Some(0));
}

#[test]
fn change_needs_a_restart_and_says_so() {
    let backend = Backend::new(answer(ADDRESS));
    let config = Forwarder::to(&[&backend], "").to_toml();
    let server = Server::start(&config);
    server.reload("config.toml", &format!("{BUSY}{config}"));
    let line = server.process.wait_for_log("needs a restart");
    assert!(line.contains("busy_poll"), "{line}");
}
