//! TCP: no client uses more than its share of connections, of their time, and of the memory for what waits to
//! be sent, at the LS and the TS alike.

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::time::Instant;

use testkit::*;

/// The address that backends and zones give for every name here.
const ADDRESS: &str = "192.0.2.1";

/// The window of a client that does not read.
const SMALL: usize = 4096;

/// The window of any other.
const LARGE: usize = 1 << 20;

/// A server with an LS and a TS, and the backend of the LS.
struct Both {
    server: Server,
    /// Asked by the LS.
    backend: Backend,
}

impl Both {
    /// With these lines in both sections of connections, and two workers.
    fn start(keys: &str) -> Self {
        Self::before(Backend::new(answer(ADDRESS)), keys)
    }

    /// The same before a backend that has other answers.
    fn before(backend: Backend, keys: &str) -> Self {
        let forwarder = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").workers(2);
        let config = forwarder.cache("").admin().to_toml();
        let config = format!(
            "{config}[forwarder.connections]\n{keys}\n[authorities.ts]\nlisten = ['127.0.0.1:0']\n\
             zones = [{{ file = 'z.zone', origin = 'example.org', transfer_to = ['127.0.0.0/8'] }}]\n\
             [authorities.ts.connections]\n{keys}\n"
        );
        Self { server: Server::start_with_files(&config, &[("z.zone", &zone())]), backend }
    }

    /// Both listeners, by name.
    fn listeners(&self) -> [(&'static str, SocketAddr); 2] {
        ["forwarder", "ts"].map(|name| (name, self.server.listener(name)))
    }

    /// How often a limit of a listener was met.
    fn limited(&self, listener: &str, limit: &str) -> u64 {
        let labels = [("listener", listener), ("limit", limit)];
        self.server.admin().metrics().sum("hedgerow_limited_total", &labels)
    }
}

/// A zone with a small answer, one of 62 kB, and some megabytes in all.
fn zone() -> String {
    let mut zone = format!("$TTL 300\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A {ADDRESS}\nwww A {ADDRESS}\n");
    for name in std::iter::once("big".to_owned()).chain((0..40).map(|number| format!("big{number}"))) {
        (0..240).for_each(|number| zone += &format!("{name} TXT \"{number:03}{}\"\n", "x".repeat(250)));
    }
    zone
}

/// A query that everybody answers at once.
fn small() -> Query {
    query("www.example.org", A)
}

/// So many queries for an answer of some 60 kB.
fn large(count: usize) -> Vec<Query> {
    (0..count).map(|_| query("big.example.org", TXT)).collect()
}

/// An address of this host.
fn host(number: u8) -> IpAddr {
    IpAddr::from([127, 0, 1, number])
}

/// A client with this address.
fn client(number: u8, server: SocketAddr) -> TcpClient {
    TcpClient::with_window(host(number), LARGE, server)
}

#[test]
fn who_does_not_read_holds_64_kib_and_one_message() {
    const CLIENTS: usize = 40;
    let large_reply = reply(|reply| reply.with_flags(AA).answer(txt(60_000)));
    let backend = Backend::new(truncated().by_tcp(large_reply).except("www", answer(ADDRESS)));
    let both = Both::before(backend, "per_client = 0");
    for (name, address) in both.listeners() {
        assert!(client(1, address).ask(&large(1)[0]).bytes.len() > 60_000);
        let before = both.server.process.resident();
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| TcpClient::with_window(host(2), SMALL, address)).collect();
        let queries = large(128);
        clients.iter_mut().for_each(|client| client.send(&queries));
        // Both workers have handled all queries once the counter rises by no more than the query of this
        // loop.
        let taken = || both.server.admin().metrics().sum("hedgerow_queries_total", &[("transport", "tcp")]);
        let mut last = 0;
        until("no client sends any more", || {
            assert_eq!(client(1, address).ask(&small()).answers(), [ADDRESS]);
            let now = taken();
            // One more each time: that of the query above.
            (std::mem::replace(&mut last, now) + 1 == now).then_some(())
        });
        let each = (both.server.process.resident().saturating_sub(before)) / CLIENTS;
        assert!(each < 300_000, "{name}: {each} octets for each connection that does not read");
        // A client that begins to read gets all responses.
        let mut reader = clients.pop().expect("there are many");
        let responses = reader.receive_all(queries.len());
        assert!(responses.iter().all(|response| response.bytes.len() > 60_000), "{name}");
        assert_eq!(both.limited(name, "unsent"), 0, "{name}: no connection was closed");
    }
}

#[test]
fn responses_that_come_all_at_once_are_bounded_in_all() {
    let large_reply = reply(|reply| reply.with_flags(AA).answer(txt(60_000)));
    let backend = Backend::new(truncated().by_tcp(large_reply.held()).except("www", answer(ADDRESS)));
    let both = Both::before(backend, "unsent = '1MiB'");
    let address = both.server.address();
    let mut greedy: Vec<_> = (0..4).map(|_| TcpClient::with_window(host(1), SMALL, address)).collect();
    // All of them wait for one race.
    greedy.iter_mut().for_each(|client| client.send(&large(100)));
    let mut modest = client(2, address);
    modest.send(&large(1));
    let taken = |metrics: &Metrics| metrics.sum("hedgerow_queries_total", &[("transport", "tcp")]);
    both.server.admin().wait_for("all are taken", |metrics| taken(metrics) >= 401);
    let before = both.server.process.resident();
    both.backend.wait_for(2);
    both.backend.release();
    both.server.admin().wait_for("four connections have too much", |_| both.limited("forwarder", "unsent") >= 4);
    for client in &mut greedy {
        // What was written before it was closed comes, and then the end.
        while client.try_receive().is_ok() {}
    }
    let grown = both.server.process.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "24 MB were asked for, and {grown} octets are held");
    // This client had asked like all others, and may have been closed like them; but now there is room again
    // for a new one.
    drop(modest);
    until("others are served", || client(2, address).try_ask(&large(1)[0]));
    assert_eq!(client(2, address).ask(&small()).answers(), [ADDRESS]);
}

#[test]
fn who_reads_gets_large_responses_beside_twenty_who_do_not() {
    let large_reply = reply(|reply| reply.with_flags(AA).answer(txt(60_000)));
    let backend = Backend::new(truncated().by_tcp(large_reply).except("www", answer(ADDRESS)));
    let both = Both::before(backend, "per_client = 0\nunsent = '1MiB'\nidle = '1h'");
    for (name, address) in both.listeners() {
        let taken = || both.server.admin().metrics().sum("hedgerow_queries_total", &[("transport", "tcp")]);
        let mut greedy: Vec<_> = (0..20).map(|_| TcpClient::with_window(host(2), SMALL, address)).collect();
        greedy.iter_mut().for_each(|client| client.send(&large(20)));
        let mut last = 0;
        until("no client sends any more", || {
            let response = client(1, address).ask(&large(1)[0]);
            assert!(response.bytes.len() > 60_000, "{name}: who reads gets all");
            let now = taken();
            (std::mem::replace(&mut last, now) + 1 == now).then_some(())
        });
    }
}

#[test]
fn a_client_has_so_many_connections_and_no_more() {
    let both = Both::start("per_client = 3");
    for (name, address) in both.listeners() {
        let mut three: Vec<_> = (0..3).map(|_| client(1, address)).collect();
        three.iter_mut().for_each(|client| assert_eq!(client.ask(&small()).answers(), [ADDRESS]));
        client(1, address).expect_end();
        assert_eq!(client(2, address).ask(&small()).answers(), [ADDRESS], "{name}: others are served");
        three.iter_mut().for_each(|client| assert_eq!(client.ask(&small()).answers(), [ADDRESS]));
        assert_eq!(both.limited(name, "connections"), 1);
        three.pop();
        until("one that is gone makes room", || client(1, address).try_ask(&small()));
    }
}

#[test]
fn who_holds_everything_makes_room_for_others() {
    const ALL: usize = 30;
    let both = Both::start(&format!("max = {ALL}\nper_client = 0\nidle = '1h'\nfirst_query = '1m'"));
    for (name, address) in both.listeners() {
        // Spread over both workers, as the kernel likes.
        let mut greedy: Vec<_> = (0..ALL).map(|_| client(1, address)).collect();
        greedy.iter_mut().for_each(|client| assert_eq!(client.ask(&small()).answers(), [ADDRESS]));
        // All but the second ask again, so that it is the longest idle by far.
        let start = Instant::now();
        while start.elapsed() < ms(50) {
            greedy[0].ask(&small());
        }
        for client in greedy.iter_mut().skip(2) {
            client.ask(&small());
        }
        let mut other = client(2, address);
        assert_eq!(other.ask(&small()).answers(), [ADDRESS], "{name}: another client is let in");
        greedy[1].expect_end();
        assert_eq!(greedy[0].ask(&small()).answers(), [ADDRESS], "{name}: it was not idle for longest");
        assert_eq!(other.ask(&small()).answers(), [ADDRESS]);
        assert!(both.limited(name, "connections") >= 1);
    }
}

#[test]
fn a_slow_query_on_each_connection_keeps_nobody_out() {
    const ALL: usize = 10;
    let both = Both::before(
        Backend::new(answer(ADDRESS).held().except("www", answer(ADDRESS))),
        &format!("max = {ALL}\nper_client = 0"),
    );
    let address = both.server.address();
    let mut greedy: Vec<_> = (0..ALL).map(|_| client(1, address)).collect();
    for (number, client) in greedy.iter_mut().enumerate() {
        client.send(&[query(&format!("slow{number}.example.org"), A)]);
    }
    both.backend.wait_for(ALL);
    assert_eq!(client(2, address).ask(&small()).answers(), [ADDRESS]);
    both.backend.release();
    let answered = greedy.iter_mut().filter_map(|client| client.try_receive().ok()).count();
    // The one that made room may have had its answer before its worker came to close it.
    assert!((ALL - 1..=ALL).contains(&answered), "one made room, the others have their answers: {answered}");
}

#[test]
fn a_full_table_shrinks_the_idle_time() {
    let both = Both::start("max = 4\nidle = '1h'\nfirst_query = '1m'");
    for (name, address) in both.listeners() {
        let mut clients: Vec<_> = (1..=4).map(|number| client(number, address)).collect();
        clients.iter_mut().for_each(|client| assert_eq!(client.ask(&small()).answers(), [ADDRESS]));
        until("one of them was idle for too long", || {
            clients.iter_mut().any(|client| client.ends_within(ms(20))).then_some(name)
        });
    }
}

#[test]
fn a_full_table_shrinks_the_stated_idle_time_too() {
    // RFC 7828 section 3.3.2: the timeout that the connection has now, in tenths of a second.
    for (max, stated) in [(1, [0, 5]), (9, [0, 120])] {
        let both = Both::start(&format!("max = {max}\nidle = '12s'"));
        for (name, address) in both.listeners() {
            let response = client(1, address).ask(&small().option(KEEPALIVE, b""));
            assert_eq!(response.options(), [(KEEPALIVE, stated.to_vec())], "{name}, {max}");
        }
    }
}

#[test]
fn only_a_sound_query_is_activity() {
    let both = Both::start("idle = '1s'\nfirst_query = '1s'");
    let not_a_query = [&[0, 1, 0x80][..], &[0; 9]].concat();
    for (name, address) in both.listeners() {
        for message in [&[][..], &[0; 11], &not_a_query] {
            let mut client = client(1, address);
            client.ask(&small());
            // Fewer than end a connection by themselves, over more than twice the idle time.
            let ended = (0..7).any(|_| {
                client.try_send_bytes(&framed(message));
                client.ends_within(ms(300))
            });
            assert!(ended, "{name}: {message:?} renews the idle time");
        }
    }
}

#[test]
fn who_sends_nothing_sound_again_and_again_is_closed() {
    let both = Both::start("idle = '1h'\nfirst_query = '1m'");
    for (name, address) in both.listeners() {
        let mut client = client(1, address);
        client.ask(&small());
        client.send_bytes(&[0; 2 * 99]);
        assert_eq!(client.ask(&small()).answers(), [ADDRESS], "{name}: some empty frames are forgiven");
        client.send_bytes(&[0; 2 * 100]);
        client.expect_end();
        // Each query that cannot be read gets FORMERR, and the hundredth ends the connection.
        let mut client = TcpClient::with_window(host(1), LARGE, address);
        let broken = small().to_vec();
        client.send_bytes(&framed(&broken[..broken.len() - 1]).repeat(100));
        let responses = (0..100).map(|_| client.receive()).filter(|response| response.bytes[3] & 15 == FORMERR as u8);
        assert_eq!(responses.count(), 100, "{name}");
        client.expect_end();
    }
}

#[test]
fn the_first_query_is_waited_for_and_no_longer() {
    let both = Both::start("first_query = '300ms'\nidle = '1h'");
    for (_, address) in both.listeners() {
        let mut asking = client(1, address);
        asking.ask(&small());
        let (mut silent, mut stuck) = (client(1, address), client(1, address));
        stuck.send_bytes(&framed(&small().to_vec())[..9]);
        silent.expect_end();
        stuck.expect_end();
        assert_eq!(asking.ask(&small()).answers(), [ADDRESS], "who has asked may be idle");
    }
}

#[test]
fn a_connection_takes_queries_for_its_lifetime_and_answers_them_all() {
    let both = Both::before(
        Backend::new(answer(ADDRESS).except("slow", answer(ADDRESS).held())),
        "lifetime = '1s'\nidle = '1h'\nfirst_query = '1m'",
    );
    let mut waiting = client(1, both.server.address());
    let slow = query("slow.example.org", A);
    waiting.send(std::slice::from_ref(&slow));
    both.backend.wait_for_name("slow.example.org", 1);
    for (name, address) in both.listeners() {
        let mut busy = client(1, address);
        let start = Instant::now();
        while let Some(response) = busy.try_ask(&small()) {
            assert_eq!(response.answers(), [ADDRESS]);
            assert!(start.elapsed() < PATIENCE, "{name}: it takes queries for ever");
        }
        assert!(start.elapsed() >= ms(900), "{name}: it ended after {:?}", start.elapsed());
    }
    // Older than those, and its query is in flight.
    both.backend.release();
    assert_eq!(waiting.receive().id(), slow.id);
    waiting.expect_end();
}

#[test]
fn a_slow_secondary_gets_its_transfer() {
    // Longer than the lifetime, and all of it longer than the idle time.
    let both = Both::start("idle = '1s'\nlifetime = '1s'");
    let mut secondary = TcpClient::with_window(host(1), SMALL, both.server.listener("ts"));
    let transfer = query("example.org", AXFR);
    secondary.send(std::slice::from_ref(&transfer));
    let (_pace, paced) = mpsc::channel::<()>();
    let start = Instant::now();
    let (mut records, mut ends) = (0, 0);
    while ends < 2 {
        let response = secondary.try_receive().expect("the transfer goes on");
        assert_eq!(response.id(), transfer.id);
        let message = response.message();
        records += message.answers.len();
        ends += message.answers.iter().filter(|record| u16::from(record.record_type()) == SOA).count();
        let _ = paced.recv_timeout(ms(60));
    }
    assert_eq!(records, 41 * 240 + 3 + 2, "every record");
    assert!(start.elapsed() > ms(2_000), "it took {:?}: that is no slow secondary", start.elapsed());
}

#[test]
fn who_takes_nothing_of_a_transfer_is_closed() {
    let both = Both::start("idle = '500ms'");
    let mut secondary = TcpClient::with_window(host(1), SMALL, both.server.listener("ts"));
    secondary.send(&[query("example.org", AXFR)]);
    both.server.process.wait_for_log("broken off");
}

#[test]
fn out_of_descriptors_who_is_connected_is_served_and_who_connects_waits() {
    let both = Both::start("");
    let address = both.server.listener("ts");
    let mut connected = client(1, address);
    connected.ask(&small());
    both.server.process.limit_descriptors(Some(3));
    let mut waiting = client(2, address);
    waiting.send(&[small()]);
    both.server.process.wait_for_log("cannot accept connections");
    for _ in 0..100 {
        assert_eq!(connected.ask(&small()).answers(), [ADDRESS]);
    }
    assert_eq!(Client::of(address).ask(&small()).answers(), [ADDRESS], "by UDP too");
    both.server.process.limit_descriptors(None);
    assert_eq!(waiting.receive().answers(), [ADDRESS]);
}

#[test]
fn limits_are_changed_by_a_reload() {
    let config = |per_client: u32| {
        format!(
            "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ file = 'z.zone', origin = 'example.org' }}]\n\
             [authorities.ts.connections]\nper_client = {per_client}\n"
        )
    };
    let server = Server::start_with_files(&config(1), &[("z.zone", &zone())]);
    let address = server.listener("ts");
    let mut first = client(1, address);
    first.ask(&small());
    client(1, address).expect_end();
    server.reload("config.toml", &config(2));
    until("a second one is let in", || client(1, address).try_ask(&small()));
    assert_eq!(first.ask(&small()).answers(), [ADDRESS]);
}
