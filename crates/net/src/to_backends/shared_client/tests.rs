//! Tests of shared connections against a scripted server.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::to_backends::connection::StreamProtocol;
use testkit::TcpPeer;

const QUERY: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\0\0\x02\0\x01";

const KEPT: Duration = Duration::from_secs(60);

async fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

async fn accept(listener: &TcpListener) -> TcpPeer {
    TcpPeer::over(listener.accept().await.expect("a connection").0)
}

/// Begins a client. Its second part is the work of the task, which returns the unmatched replies too.
fn begin(server: SocketAddr, idle: Duration) -> (SharedClient, impl Future<Output = (ClientEnd, Vec<UnmatchedReply>)>) {
    let unmatched = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&unmatched);
    let connecting = async move { ServerClient::connect(server, &StreamProtocol::Frames, None).await };
    let note = move |reply| seen.lock().expect("no panic").push(reply);
    let (client, driven) = SharedClient::begin(connecting, idle, note);
    (client, async move { (driven.await, std::mem::take(&mut *unmatched.lock().expect("no panic"))) })
}

/// Returns the reply to a query: the query with QR set.
fn reply_to(query: &[u8]) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply[2] |= 0x80;
    reply
}

#[tokio::test]
async fn queries_share_a_connection_and_are_answered_in_any_order() {
    let (listener, address) = server().await;
    let (client, driven) = begin(address, KEPT);
    let driven = tokio::spawn(driven);
    let client = Arc::new(client);
    let ask = || {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.ask(QUERY.to_vec()).await })
    };
    let asked: Vec<_> = (0..3).map(|_| ask()).collect();
    let mut peer = accept(&listener).await;
    let mut queries = Vec::new();
    for _ in 0..3 {
        queries.push(peer.receive().await.expect("a query"));
    }
    for query in queries.iter().rev() {
        peer.send(&reply_to(query)).await.expect("it is sent");
    }
    for asked in asked {
        let (query, reply) = asked.await.expect("no panic").expect("a reply");
        assert_eq!(reply_to(&query), reply);
    }
    assert!(client.has_heard() && !client.is_retired());
    // An unused connection closes.
    drop(client);
    assert!(matches!(driven.await.expect("no panic").0, ClientEnd::Closed));
}

#[tokio::test]
async fn replies_to_other_questions_are_read_past() {
    let (listener, address) = server().await;
    let (client, driven) = begin(address, KEPT);
    let driven = tokio::spawn(driven);
    let asked = tokio::spawn(async move { client.ask(QUERY.to_vec()).await });
    let mut peer = accept(&listener).await;
    let query = peer.receive().await.expect("a query");
    let mut wrong_id = reply_to(&query);
    wrong_id[0] ^= 1;
    let mut wrong_type = reply_to(&query);
    wrong_type[14] = 1;
    for reply in [&wrong_id, &wrong_type, &reply_to(&query)] {
        peer.send(reply).await.expect("it is sent");
    }
    assert_eq!(asked.await.expect("no panic").expect("a reply").1, reply_to(&query));
    assert_eq!(driven.await.expect("no panic").1, [UnmatchedReply::Unknown; 2]);
}

#[tokio::test]
async fn query_that_was_given_up_retires_a_silent_connection() {
    let (listener, address) = server().await;
    let (client, driven) = begin(address, KEPT);
    let driven = tokio::spawn(driven);
    assert!(timeout(Duration::from_millis(50), client.ask(QUERY.to_vec())).await.is_err());
    assert!(client.is_retired());
    let mut peer = accept(&listener).await;
    let query = peer.receive().await.expect("a query");
    peer.send(&reply_to(&query)).await.expect("it is sent");
    while !client.has_heard() {
        tokio::task::yield_now().await;
    }
    drop(client);
    assert_eq!(driven.await.expect("no panic").1, [UnmatchedReply::Late]);
}

#[tokio::test]
async fn connection_closes_after_its_idle_time() {
    let (listener, address) = server().await;
    let (client, driven) = begin(address, Duration::from_millis(20));
    let driven = tokio::spawn(driven);
    let mut peer = accept(&listener).await;
    let (asked, ()) = tokio::join!(client.ask(QUERY.to_vec()), async {
        let query = peer.receive().await.expect("a query");
        assert!(timeout(Duration::from_millis(60), peer.receive()).await.is_err(), "a pending query keeps it");
        peer.send(&reply_to(&query)).await.expect("it is sent");
    });
    asked.expect("a reply");
    peer.receive().await.expect_err("it closes");
    assert!(matches!(driven.await.expect("no panic").0, ClientEnd::Closed));
    assert!(client.is_retired() && client.ask(QUERY.to_vec()).await.is_err());
}

#[tokio::test]
async fn end_by_the_server_is_described() {
    let (listener, address) = server().await;
    // A server that replies to one query, with another one pending or not.
    for (queries, is_for_one) in [(1, false), (2, true)] {
        let (client, driven) = begin(address, KEPT);
        let driven = tokio::spawn(driven);
        let asked = async {
            let ask = async || client.ask(QUERY.to_vec()).await.is_ok();
            let another = async { queries > 1 && ask().await };
            let (one, other) = tokio::join!(ask(), another);
            usize::from(one) + usize::from(other)
        };
        let (answered, ()) = tokio::join!(asked, async {
            let mut peer = accept(&listener).await;
            let first = peer.receive().await.expect("a query");
            for _ in 1..queries {
                peer.receive().await.expect("a query");
            }
            peer.send(&reply_to(&first)).await.expect("it is sent");
        });
        let ClientEnd::Lost { idle, is_for_one: found } = driven.await.expect("no panic").0 else {
            panic!("the server closed it")
        };
        assert_eq!((answered, found, idle.is_some()), (1, is_for_one, !is_for_one));
    }
    drop(listener);
    let (client, driven) = begin(address, KEPT);
    let (asked, driven) = tokio::join!(client.ask(QUERY.to_vec()), driven);
    assert!(matches!(driven.0, ClientEnd::Unconnected));
    assert_eq!(asked.expect_err("no server is there").kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn server_that_does_not_read_is_still_heard() {
    let (listener, address) = server().await;
    let (client, driven) = begin(address, KEPT);
    let driven = tokio::spawn(driven);
    let client = Arc::new(client);
    // More than the kernel buffers for a peer that does not read.
    for _ in 0..200 {
        let client = Arc::clone(&client);
        let query = [QUERY, &[0; 60_000]].concat();
        tokio::spawn(async move { client.ask(query).await });
    }
    let mut peer = accept(&listener).await;
    peer.send(&reply_to(QUERY)).await.expect("it is sent");
    while !client.has_heard() {
        tokio::task::yield_now().await;
    }
    driven.abort();
}
