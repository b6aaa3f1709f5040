//! TCP on both sides (RFC 7766): framing, pipelining, order, half-closed connections, and what is too
//! large for UDP.

use std::io::{Read, Write};
use std::net::TcpStream;

use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// So many different queries.
fn queries(count: usize) -> Vec<Query> {
    (0..count).map(|i| query(&format!("{i}.example.org"), A)).collect()
}

/// Receives the responses to all of `queries`, whatever their order.
fn expect_all(client: &mut TcpClient, queries: &[Query]) {
    let mut ids: Vec<_> = queries.iter().map(|query| query.id).collect();
    ids.sort_unstable();
    let responses = client.receive_all(queries.len());
    let answered: Vec<_> = responses.iter().map(Response::id).collect();
    assert_eq!(answered, ids);
    for response in responses {
        assert_eq!(response.answers(), [ADDRESS]);
    }
}

#[test]
fn many_queries_in_one_segment_are_all_answered() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Forwarder::to(&[&backend], "").start();
    let mut client = server.tcp_client();
    let queries = queries(30);
    client.send(&queries);
    expect_all(&mut client, &queries);
    assert!(backend.queries().iter().all(|seen| !seen.tcp), "small answers are fetched by UDP");
}

#[test]
fn answers_leave_as_they_come() {
    let backend = Backend::new(answer(ADDRESS).except("slow", answer(ADDRESS).held()));
    let server = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").start();
    let mut client = server.tcp_client();
    let (slow, quick) = (query("slow.example.org", A), query("quick.example.org", A));
    client.send(&[slow.clone(), quick.clone()]);
    assert_eq!(client.receive().id(), quick.id);
    backend.release();
    assert_eq!(client.receive().id(), slow.id);
}

#[test]
fn queries_of_one_octet_segments_are_put_together() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Forwarder::to(&[&backend], "").start();
    let mut client = server.tcp_client();
    for query in queries(3) {
        client.send_octet_by_octet(&query);
        assert_eq!(client.receive().id(), query.id);
    }
}

#[test]
fn segments_need_not_end_where_queries_do() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Forwarder::to(&[&backend], "").start();
    let mut client = server.tcp_client();
    let queries = queries(10);
    let bytes: Vec<u8> = queries.iter().flat_map(|query| framed(&query.to_vec())).collect();
    for segment in bytes.chunks(47) {
        client.send_bytes(segment);
    }
    expect_all(&mut client, &queries);
}

#[test]
fn length_and_message_of_a_response_come_together() {
    // RFC 7766 section 8.
    let backend = Backend::new(answer(ADDRESS));
    let config =
        Forwarder::to(&[&backend], "").to_toml() + "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['t']\n";
    let server = Server::start_with_files(&config, &[("t", "www.example.org 192.0.2.1 A\n")]);
    for listener in ["forwarder", "ts"] {
        let mut client = TcpStream::connect(server.listener(listener)).expect("the server listens");
        for _ in 0..20 {
            client.write_all(&framed(&query("www.example.org", A).to_vec())).expect("the server takes it");
            let mut room = [0; 512];
            let octets = client.read(&mut room).expect("a response");
            assert_eq!(octets, 2 + usize::from(word(&room, 0)), "{listener}");
        }
    }
}

#[test]
fn more_queries_than_may_be_in_flight_wait_and_are_answered() {
    let backend = Backend::new(answer(ADDRESS).after(ms(5)));
    let server = Forwarder::to(&[&backend], "timeout = '10s'").start();
    let mut client = server.tcp_client();
    let queries = queries(1000);
    client.send(&queries);
    expect_all(&mut client, &queries);
}

#[test]
fn client_that_half_closes_gets_its_answers() {
    let backend = Backend::new(answer(ADDRESS).held());
    let server = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").start();
    let mut client = server.tcp_client();
    let queries = queries(5);
    client.send(&queries);
    client.close_sending();
    backend.wait_for(5);
    backend.release();
    expect_all(&mut client, &queries);
    client.expect_end();
}

#[test]
fn connection_without_queries_in_flight_ends_when_the_client_closes() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Forwarder::to(&[&backend], "").start();
    let mut client = server.tcp_client();
    client.ask(&query("www.example.org", A));
    client.close_sending();
    client.expect_end();
}

#[test]
fn half_a_query_before_the_end_does_no_harm() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Forwarder::to(&[&backend], "").start();
    let mut client = server.tcp_client();
    let whole = query("www.example.org", A);
    client.send(std::slice::from_ref(&whole));
    client.send_bytes(&framed(&query("half.example.org", A).to_vec())[..9]);
    client.close_sending();
    assert_eq!(client.receive().id(), whole.id);
    client.expect_end();
}

#[test]
fn messages_too_short_for_a_header_do_no_harm_to_others() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Forwarder::to(&[&backend], "").start();
    for length in [0, 1, 11] {
        let mut client = server.tcp_client();
        client.send_bytes(&framed(&vec![0; length]));
        let mut other = server.tcp_client();
        let response = other.ask(&query(&format!("{length}.example.org"), A));
        assert_eq!(response.answers(), [ADDRESS]);
    }
}

#[test]
fn client_that_vanishes_does_no_harm_to_others() {
    let backend = Backend::new(answer(ADDRESS).except("slow", answer(ADDRESS).held()));
    let server = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").start();
    let mut vanishing = server.tcp_client();
    vanishing.send(&[query("slow.example.org", A)]);
    backend.wait_for(1);
    drop(vanishing);
    let mut staying = server.tcp_client();
    assert_eq!(staying.ask(&query("before.example.org", A)).answers(), [ADDRESS]);
    backend.release();
    assert_eq!(staying.ask(&query("after.example.org", A)).answers(), [ADDRESS]);
}

#[test]
fn connection_that_says_nothing_is_closed() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Forwarder::to(&[&backend], "").start();
    let (mut silent, mut stuck) = (server.tcp_client(), server.tcp_client());
    silent.ask(&query("www.example.org", A));
    stuck.send_bytes(&framed(&query("www.example.org", A).to_vec())[..9]);
    silent.expect_end();
    stuck.expect_end();
}

#[test]
fn connections_above_the_limit_are_closed_and_cost_the_others_nothing() {
    const LIMIT: usize = 20;
    let backend = Backend::new(answer(ADDRESS).held().except("www", answer(ADDRESS)));
    let keys = "timeout = '20s'\nattempt_timeout = '20s'";
    let server = Forwarder::to(&[&backend], keys).keys(&format!("connections = {{ max = {LIMIT} }}")).start();
    // All of them are busy, so none makes room.
    let queries = queries(LIMIT);
    let mut clients: Vec<_> = queries.iter().map(|query| (server.tcp_client(), query)).collect();
    clients.iter_mut().for_each(|(client, query)| client.send(std::slice::from_ref(query)));
    backend.wait_for(LIMIT);
    server.tcp_client().expect_end();
    backend.release();
    for (client, query) in &mut clients {
        assert_eq!(client.receive().id(), query.id);
    }
    clients.truncate(LIMIT / 2);
    until("those that are gone make room", || server.tcp_client().try_ask(&query("www.example.org", A)));
}

#[test]
fn truncated_reply_is_fetched_by_tcp_for_a_client_over_tcp() {
    for length in [3000, 60_000] {
        let large = reply(move |reply| reply.with_flags(AA).answer(txt(length)));
        let backend = Backend::new(truncated().by_tcp(large));
        let server = Forwarder::to(&[&backend], "").start();
        let question = query("www.example.org", TXT);

        let over_udp = server.client().ask(&question);
        assert!(over_udp.has(TC) && over_udp.bytes.len() <= 512);
        assert!(backend.queries().iter().all(|seen| !seen.tcp), "a client over UDP comes back");

        let over_tcp = server.tcp_client().ask(&question);
        assert!(!over_tcp.has(TC));
        assert!(over_tcp.bytes.len() > length);
        assert!(backend.queries().last().expect("it was asked").tcp);
    }
}

#[test]
fn clients_over_udp_and_tcp_that_join_are_each_served() {
    let large = reply(|reply| reply.with_flags(AA).answer(txt(3000)));
    let backend = Backend::new(truncated().held().by_tcp(large).except("fence", answer(ADDRESS)));
    let server = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").start();
    let question = query("www.example.org", TXT);
    let udp = server.client();
    let mut tcp = server.tcp_client();
    udp.send(&question);
    backend.wait_for_name("www.example.org", 1);
    tcp.send(&[question.clone(), query("fence.example.org", A)]);
    tcp.receive();
    backend.release();
    assert!(udp.receive().has(TC));
    let whole = tcp.receive();
    assert!(!whole.has(TC) && whole.bytes.len() > 3000);
}

#[test]
fn backend_without_tcp_costs_only_the_answer_that_needs_it() {
    let backend = Backend::without_tcp(truncated().except("small", answer(ADDRESS)));
    let server = Forwarder::to(&[&backend], "timeout = '500ms'\non_timeout = 'servfail'").start();
    let mut client = server.tcp_client();
    let (large, small) = (query("large.example.org", TXT), query("small.example.org", A));
    client.send(&[large.clone(), small.clone()]);
    let responses = client.receive_all(2);
    assert_eq!(responses[0].id(), large.id);
    assert!(responses[0].answers().is_empty());
    assert_eq!((responses[1].id(), responses[1].answers()), (small.id, vec![ADDRESS.to_owned()]));
    // It is still thought to be up, too.
    let again = server.client().ask(&query("small.again.example", A));
    assert_eq!(again.answers(), [ADDRESS]);
}

#[test]
fn other_backend_can_give_what_one_without_tcp_cannot() {
    let without = Backend::without_tcp(truncated());
    let large = reply(|reply| reply.with_flags(AA).answer(txt(3000)));
    let with = Backend::new(truncated().by_tcp(large));
    let keys = "dispatch = 'sequential'\nbalance = 'ordered'\ntimeout = '20s'\n\
                attempt_timeout = '20s'";
    let server = Forwarder::to(&[&without, &with], keys).start();
    let response = server.tcp_client().ask(&query("www.example.org", TXT));
    assert!(!response.has(TC) && response.bytes.len() > 3000);
}

#[test]
fn denial_by_another_backend_is_no_whole_answer() {
    let without = Backend::without_tcp(truncated());
    let denying = Backend::new(nxdomain());
    let keys = "dispatch = 'sequential'\nbalance = 'ordered'\ntimeout = '20s'\n\
                attempt_timeout = '20s'";
    let server = Forwarder::to(&[&without, &denying], keys).start();
    let response = server.tcp_client().ask(&query("www.example.org", TXT));
    assert_eq!(response.rcode(), SERVFAIL);
}

#[test]
fn backend_that_refuses_opt_is_asked_without_by_tcp_too() {
    let by_udp = Script::new(|seen| {
        let reply = reply_to(&seen.bytes);
        Some(if seen.options().is_some() { reply.rcode(FORMERR).to_vec() } else { reply.with_flags(TC).to_vec() })
    });
    let backend = Backend::new(by_udp.by_tcp(refuses_opt(FORMERR, ADDRESS)));
    let server = Forwarder::to(&[&backend], "timeout = '20s'").start();
    for name in ["first.example.org", "second.example.org"] {
        let response = server.tcp_client().ask(&query(name, A).edns(1232));
        assert_eq!(response.answers(), [ADDRESS], "{name}");
    }
}

#[test]
fn client_over_udp_does_not_wait_for_what_is_fetched_by_tcp() {
    let backend = Backend::new(truncated().by_tcp(answer(ADDRESS).held()));
    let server = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").start();
    let question = query("www.example.org", A);
    let mut tcp = server.tcp_client();
    tcp.send(std::slice::from_ref(&question));
    backend.wait_for(2);
    assert!(server.client().ask(&question).has(TC));
    backend.release();
    assert_eq!(tcp.receive().answers(), [ADDRESS]);
    assert_eq!(backend.queries().len(), 2);
}

#[test]
fn authority_serves_tcp_as_the_forwarder_does() {
    let config = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt']\n";
    let hosts: String = (0..100).map(|i| format!("{i}.example.org {ADDRESS} A\n")).collect();
    let server = Server::start_with_files(config, &[("hosts.txt", &hosts)]);
    let mut client = TcpClient::of(server.listener("ts"));
    let queries = queries(100);
    client.send(&queries[..50]);
    client.send_octet_by_octet(&queries[50]);
    client.send(&queries[51..]);
    client.close_sending();
    expect_all(&mut client, &queries);
    client.expect_end();
}
