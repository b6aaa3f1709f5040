//! Tests of `client_subnet` (RFC 7871): the network that backends see, and answers that are for one network.

use std::net::UdpSocket;

use proxy_header::{ProxiedAddress, ProxyHeader};
use testkit::*;

const PREFIX: &str = "client_subnet = { ipv4 = 24, ipv6 = 56 }";

/// Answers `192.0.2.N`, where N is the third octet of the client's network, 99 without one. The scope of the
/// reply is the number in the first label: `s16` has scope 16; any other name has no option.
fn by_network() -> Script {
    Script::new(|seen| Some(reply_of(seen, &sent(seen)).to_vec()))
}

fn reply_of(seen: &Seen, option: &[u8]) -> Reply {
    let number = option.get(6).copied().unwrap_or(99);
    let reply = reply_to(&seen.bytes).answer(record("@", A, &[192, 0, 2, number]).lasting(300));
    let scope = seen.name().strip_prefix('s').and_then(|rest| rest.split('.').next()?.parse().ok());
    match scope.filter(|_| !option.is_empty()) {
        Some(scope) => reply.option(CLIENT_SUBNET, &[&option[..3], &[scope], &option[4..]].concat()),
        None => reply,
    }
}

/// The data of the option in a query to a backend; empty without one.
fn sent(seen: &Seen) -> Vec<u8> {
    let options = seen.options().unwrap_or_default();
    options.into_iter().find(|(code, _)| *code == CLIENT_SUBNET).map(|(_, data)| data).unwrap_or_default()
}

fn given(response: &Response) -> Option<Vec<u8>> {
    response.options().into_iter().find(|(code, _)| *code == CLIENT_SUBNET).map(|(_, data)| data)
}

/// A forwarder whose clients have the addresses that PROXY headers name.
struct Site {
    backend: Backend,
    server: Server,
    proxy: UdpSocket,
}

impl Site {
    fn start(script: Script, keys: &str) -> Self {
        let backend = Backend::new(script);
        let server = Server::start(&Self::config(&backend, keys));
        let proxy = UdpSocket::bind("127.0.0.2:0").expect("all of 127/8 is ours");
        proxy.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        Self { backend, server, proxy }
    }

    fn config(backend: &Backend, keys: &str) -> String {
        let config = Forwarder::to(&[backend], keys).keys("allow = ['0.0.0.0/0', '::/0']");
        let listen = "[{ address = '127.0.0.1:0', proxy_from = ['127.0.0.2'] }]";
        config.listen(listen).cache("").admin().to_toml()
    }

    fn send(&self, client: &str, query: &Query) {
        let address = |text: &str| text.parse().expect("an address with a port");
        let (client, listener) = match client.contains(':') {
            true => (address(&format!("[{client}]:4000")), address("[::1]:53")),
            false => (address(&format!("{client}:4000")), address("127.0.0.1:53")),
        };
        let mut octets = Vec::new();
        let header = ProxyHeader::with_address(ProxiedAddress::datagram(client, listener));
        header.encode_v2(&mut octets).expect("a vector takes everything");
        octets.extend(query.to_vec());
        self.proxy.send_to(&octets, self.server.address()).expect("loopback takes it");
    }

    fn receive(&self) -> Response {
        let mut buffer = [0; 1500];
        let (length, _) = self.proxy.recv_from(&mut buffer).expect("a response");
        Response { bytes: buffer[..length].to_vec() }
    }

    fn ask(&self, client: &str, query: &Query) -> Response {
        self.send(client, query);
        self.receive()
    }

    /// The last octet of the answer for a client, and the number of queries that backends got for it.
    fn answer(&self, client: &str, name: &str) -> (u8, usize) {
        let before = self.backend.queries().len();
        let response = self.ask(client, &query(name, A).edns(1232));
        assert_eq!(given(&response), None, "a client that sent no option gets none");
        let answers = response.answers();
        let last = answers[0].strip_prefix("192.0.2.").and_then(|last| last.parse().ok());
        (last.expect("an answer of the script"), self.backend.queries().len() - before)
    }
}

#[test]
fn the_prefix_of_public_clients_is_sent_and_answers_are_kept_for_their_scope() {
    let site = Site::start(by_network(), PREFIX);
    // Scope 24: for one /24.
    assert_eq!(site.answer("198.51.100.7", "s24.example"), (100, 1));
    assert_eq!(sent(&site.backend.queries()[0]), [0, 1, 24, 0, 198, 51, 100]);
    assert_eq!(site.answer("198.51.100.200", "s24.example"), (100, 0), "of the same network");
    assert_eq!(site.answer("198.51.101.1", "s24.example"), (101, 1));
    assert_eq!(site.answer("198.51.101.1", "s24.example"), (101, 0));
    assert_eq!(site.answer("198.51.100.7", "s24.example"), (100, 0), "the first one is still there");
    // Scope 16 is shared by several /24; a scope above 24 is for the /24.
    assert_eq!(site.answer("198.51.100.7", "s16.example"), (100, 1));
    assert_eq!(site.answer("198.51.101.1", "s16.example"), (100, 0));
    assert_eq!(site.answer("198.52.3.1", "s16.example"), (3, 1));
    assert_eq!(site.answer("198.51.100.7", "s32.example"), (100, 1));
    assert_eq!(site.answer("198.51.100.8", "s32.example"), (100, 0));
    assert_eq!(site.answer("198.51.101.1", "s32.example"), (101, 1));
    // Scope 0, and replies without the option, are for all clients.
    for name in ["s0.example", "www.example"] {
        assert_eq!(site.answer("198.51.100.7", name), (100, 1), "{name}");
        assert_eq!(site.answer("203.0.113.1", name), (100, 0), "{name}");
        assert_eq!(site.answer("10.0.0.1", name), (100, 0), "{name}");
    }
    // The network of a private address is not sent, and the answer is for no other client.
    assert_eq!(site.answer("10.0.0.1", "s8.example"), (99, 1));
    assert_eq!(site.answer("192.168.0.1", "s8.example"), (99, 0));
    assert_eq!(site.answer("198.51.100.7", "s8.example"), (100, 1));
    // IPv6, cut to 56 bits.
    assert_eq!(site.answer("2001:db8:1:2ff::1", "s56.example").1, 1);
    let queries = site.backend.queries();
    assert_eq!(sent(queries.last().expect("one")), [0, 2, 56, 0, 0x20, 1, 0x0D, 0xB8, 0, 1, 2]);
    assert_eq!(site.answer("2001:db8:1:201::1", "s56.example").1, 0);
    assert_eq!(site.answer("2001:db8:1:300::1", "s56.example").1, 1);
    // A client without EDNS.
    let plain = site.ask("198.51.100.7", &query("plain.example", A));
    assert_eq!((plain.answers(), plain.has_opt()), (vec!["192.0.2.100".to_owned()], false));
}

#[test]
fn a_clients_own_option_is_cut_respected_and_given_back() {
    let site = Site::start(by_network(), PREFIX);
    let with = |name: &str, data: &[u8]| query(name, A).edns(1232).option(CLIENT_SUBNET, data);
    for (name, own, expected, back) in [
        // A longer prefix is cut; the client gets its own back, with the scope.
        (
            "s20",
            &[0, 1, 32, 0, 203, 0, 113, 5][..],
            &[0, 1, 24, 0, 203, 0, 113][..],
            &[0, 1, 32, 20, 203, 0, 113, 5][..],
        ),
        ("s20.a", &[0, 1, 16, 0, 203, 0], &[0, 1, 16, 0, 203, 0], &[0, 1, 16, 20, 203, 0]),
        // A client that wants its address to stay private.
        ("s0.b", &[0, 1, 0, 0], &[0, 1, 0, 0], &[0, 1, 0, 0]),
        // A server without the option.
        ("www", &[0, 1, 24, 0, 203, 0, 113], &[0, 1, 24, 0, 203, 0, 113], &[0, 1, 24, 0, 203, 0, 113]),
    ] {
        let name = format!("{name}.example");
        let response = site.ask("198.51.100.7", &with(&name, own));
        assert_eq!(sent(&site.backend.queries_for(&name)[0]), expected, "{name}");
        assert_eq!(given(&response).as_deref(), Some(back), "{name}");
    }
    // From the cache: its own option with the scope of the answer.
    let response = site.ask("198.51.100.7", &with("s20.example", &[0, 1, 24, 0, 203, 0, 127]));
    assert_eq!(given(&response), Some(vec![0, 1, 24, 20, 203, 0, 127]));
    assert_eq!(site.backend.queries_for("s20.example").len(), 1);
}

#[test]
fn pass_sends_the_option_as_it_is_and_refuses_a_malformed_one() {
    let site = Site::start(by_network(), "client_subnet = 'pass'");
    let with = |name: &str, data: &[u8]| query(name, A).edns(1232).option(CLIENT_SUBNET, data);
    let own = [0, 1, 32, 0, 10, 0, 113, 5];
    let response = site.ask("198.51.100.7", &with("s24.example", &own));
    assert_eq!(sent(&site.backend.queries()[0]), own);
    assert_eq!(
        (response.answers(), given(&response)),
        (vec!["192.0.2.113".to_owned()], Some(vec![0, 1, 32, 24, 10, 0, 113, 5]))
    );
    assert_eq!(site.answer("198.51.100.7", "s24.example"), (99, 1), "without an option none is sent");
    for malformed in [
        &[][..],
        &[0, 1, 24],
        &[0, 3, 0, 0],
        &[0, 1, 33, 0, 1, 2, 3, 4, 0],
        &[0, 1, 24, 24, 1, 2, 3],
        &[0, 1, 17, 0, 1, 2, 255],
    ] {
        let response = site.ask("198.51.100.7", &with("s24.example", malformed));
        assert_eq!((response.rcode(), given(&response)), (FORMERR, None), "{malformed:?}");
    }
    assert_eq!(site.backend.queries().len(), 2);
}

#[test]
fn without_the_key_no_network_passes_in_either_direction() {
    let site = Site::start(by_network(), "");
    let malformed = query("s24.example", A).edns(1232).option(CLIENT_SUBNET, &[7]);
    let response = site.ask("198.51.100.7", &malformed);
    assert_eq!((response.answers(), given(&response)), (vec!["192.0.2.99".to_owned()], None));
    assert_eq!(sent(&site.backend.queries()[0]), [0; 0]);
    assert_eq!(site.answer("203.0.113.1", "s24.example"), (99, 0));
}

#[test]
fn a_reply_for_another_network_is_dropped_and_the_wait_continues() {
    let script = Script::each_of(|seen| {
        let option = sent(seen);
        let wrong = [&[0, 1, 24, 0, 198, 51, 7], &[0, 1, 23, 0, 198, 51, 100], &[0, 2, 24, 0, 198, 51, 100]]
            .map(|wrong: &[u8; 7]| reply_to(&seen.bytes).answer(a("192.0.2.66")).option(CLIENT_SUBNET, wrong).to_vec());
        let all = wrong.into_iter().chain([reply_of(seen, &option).to_vec()]);
        all.flat_map(|bytes| Script::new(move |_| Some(bytes.clone())).react(seen)).collect()
    });
    let site = Site::start(script, PREFIX);
    assert_eq!(site.answer("198.51.100.7", "s24.example"), (100, 1));
    let metrics = site.server.admin().metrics();
    let dropped = |reason| metrics.sum("hedgerow_dropped_total", &[("reason", reason)]);
    assert_eq!((dropped("client-subnet"), dropped("spoofed")), (3, 0));
}

#[test]
fn queries_with_one_prefix_share_a_race_and_others_do_not() {
    let site = Site::start(by_network().held(), PREFIX);
    for client in ["198.51.100.1", "198.51.100.2", "198.51.101.1", "198.51.100.3", "10.0.0.1", "192.168.0.1"] {
        site.send(client, &query("s24.example", A));
    }
    let queries = site.backend.wait_for(3);
    site.send("198.51.102.1", &query("s24.example", A));
    assert_eq!(site.backend.wait_for(4).len(), 4, "three networks and the private ones: {queries:?}");
    site.backend.release();
    let mut answers: Vec<_> = (0..7).flat_map(|_| site.receive().answers()).collect();
    answers.sort();
    let expected = [100, 100, 100, 101, 102, 99, 99].map(|number| format!("192.0.2.{number}"));
    assert_eq!(answers, expected);
}

#[test]
fn a_reload_turns_it_on_and_finds_no_answer_of_before() {
    let site = Site::start(by_network(), "");
    let config = |keys: &str| site.server.reload("config.toml", &Site::config(&site.backend, keys));
    assert_eq!(site.answer("198.51.100.7", "s24.example"), (99, 1));
    config(PREFIX);
    until("networks are sent", || (site.answer("198.51.100.7", "s24.example").0 == 100).then_some(()));
    assert_eq!(site.answer("198.51.101.7", "s24.example"), (101, 1));
    config("");
    until("no network is sent", || (site.answer("198.51.100.7", "s24.example").0 == 99).then_some(()));
    config(PREFIX);
    until("networks are sent", || (site.answer("198.51.100.7", "s24.example").0 == 100).then_some(()));
    assert_eq!(site.answer("198.51.101.7", "s24.example"), (101, 1), "earlier answers are forgotten");
}
