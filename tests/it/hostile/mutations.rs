//! Octets at random, from clients and from backends: nothing of it stops the server or costs others their
//! answer. A failing run prints its seed; `HEDGEROW_SEED=n` repeats it.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// How many mutated messages each test sends.
const COUNT: usize = 2000;

/// A generator, whose seed is in the output of a test that fails.
fn generator() -> StdRng {
    let given = std::env::var("HEDGEROW_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    eprintln!("HEDGEROW_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// One to four changes: an octet replaced, a bit flipped, octets cut off, added, or repeated.
fn mutate(message: &mut Vec<u8>, random: &mut StdRng) {
    for _ in 0..random.random_range(1..=4) {
        if message.is_empty() {
            return;
        }
        let at = random.random_range(0..message.len());
        match random.random_range(0..6) {
            0 => message[at] = random.random(),
            1 => message[at] ^= 1 << random.random_range(0..8),
            2 => message.truncate(at),
            3 => message.extend((0..random.random_range(1..40)).map(|_| random.random::<u8>())),
            4 => message.insert(at, *[0, 1, 12, 41, 63, 64, 0xc0, 0xff].choose(random).expect("some")),
            _ => message.extend_from_within(at..),
        }
    }
}

/// Queries of many forms.
fn some_query(random: &mut StdRng) -> Query {
    let name = *[".", "www.example.org", "missing.example.org", "org"].choose(random).expect("some");
    let rtype = *[A, NS, AAAA, ANY, AXFR, 65_280].choose(random).expect("some");
    let question = query(name, rtype);
    if random.random() { question } else { question.edns(random.random()).option(random.random(), b"data") }
}

#[test]
fn no_query_stops_the_server() {
    let mut random = generator();
    let backend = Backend::new(answer(ADDRESS));
    let config = Forwarder::to(&[&backend], "timeout = '50ms'").to_toml()
        + "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt']\nmiss = 'nxdomain'\n";
    let server = Server::start_with_files(&config, &[("hosts.txt", "www.example.org 192.0.2.1 A\n")]);
    for listener in ["forwarder", "ts"] {
        let address = server.listener(listener);
        for _ in 0..COUNT / 20 {
            let client = Client::of(address);
            let mut tcp = Vec::new();
            for _ in 0..20 {
                let mut message = some_query(&mut random).to_vec();
                mutate(&mut message, &mut random);
                client.send_bytes(&message);
                tcp.extend(framed(&message));
            }
            TcpClient::of(address).try_send_bytes(&tcp);
        }
        // Fresh sockets, because responses are still on their way to the old ones.
        let question = query("www.example.org", A);
        assert_eq!(Client::of(address).ask(&question).answers(), [ADDRESS], "{listener}");
        assert_eq!(TcpClient::of(address).ask(&question).answers(), [ADDRESS], "{listener}");
    }
}

#[test]
fn no_reply_stops_the_forwarder() {
    let mut random = generator();
    let mutated = Script::new(move |seen| {
        let reply = reply_to(&seen.bytes).with_flags(AA).answer(a(ADDRESS));
        let reply = reply.authority(record("org", NS, &wire_name("ns.org"))).additional(txt(50));
        let mut reply = reply.to_vec();
        mutate(&mut reply, &mut random);
        Some(reply)
    });
    let backend = Backend::new(mutated.and(answer(ADDRESS)));
    let server = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").start();
    let client = server.client();
    for number in 0..COUNT {
        let question = query(&format!("{number}.example.org"), A);
        let question = if number % 2 == 0 { question } else { question.edns(1232) };
        let response = client.ask(&question);
        assert!(response.has(QR));
        assert_eq!(response.question(), question.question());
        assert!(response.bytes.len() <= if number % 2 == 0 { 512 } else { 1232 });
    }
}
