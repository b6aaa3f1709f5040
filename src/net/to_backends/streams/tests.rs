//! Tests of streams to backends, which are listeners of the test.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::*;

/// A report of the streams, in order.
#[derive(Debug, PartialEq)]
enum ReceivedReport {
    Message(StreamKey, Vec<u8>),
    Ended(StreamKey, &'static str),
}

fn streams() -> (Streams<char>, Rc<RefCell<Vec<ReceivedReport>>>) {
    let reported = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&reported);
    let report = move |key, report: StreamReport<'_>| {
        log.borrow_mut().push(match report {
            StreamReport::Message(message) => ReceivedReport::Message(key, message.to_vec()),
            StreamReport::Ended(StreamEnd::Unconnected(_)) => ReceivedReport::Ended(key, "unconnected"),
            StreamReport::Ended(StreamEnd::Lost(_)) => ReceivedReport::Ended(key, "lost"),
            StreamReport::Ended(StreamEnd::Closed) => ReceivedReport::Ended(key, "closed"),
        });
    };
    (Streams::new(Tasks::default(), report).expect("there is randomness"), reported)
}

/// Runs a test in a local task set, for the tasks of connections.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async { timeout(Duration::from_secs(30), test).await.expect("in time") });
}

/// Waits for `count` reports and returns them.
async fn next(reported: &RefCell<Vec<ReceivedReport>>, count: usize) -> Vec<ReceivedReport> {
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if reported.borrow().len() < count { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    reported.take()
}

async fn backend() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

async fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut message = vec![0; stream.read_u16().await.expect("a length").into()];
    stream.read_exact(&mut message).await.expect("a message");
    message
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

const KEPT: Duration = Duration::from_secs(60);

#[test]
fn messages_share_a_connection_and_are_answered_in_any_order() {
    run(async {
        let ((listener, address), (mut streams, reported)) = (backend().await, streams());
        let now = Instant::now();
        let key = streams.open(address, KEPT, &[], now);
        let ids = ['a', 'b', 'c'].map(|user_data| {
            streams
                .queue(key, user_data, now, |out| out.extend([0, 0, user_data as u8]))
                .expect("the connection is open")
        });
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        for (id, user_data) in ids.iter().zip(*b"abc") {
            let message = read(&mut stream).await;
            assert_eq!(message, [&id.to_be_bytes()[..], &[user_data]].concat());
            asked.push(message);
        }
        asked.reverse();
        let replies: Vec<u8> = asked.iter().flat_map(|message| framed(message)).collect();
        // The first bytes one at a time, then the rest at once.
        for octet in &replies[..7] {
            stream.write_all(&[*octet]).await.unwrap();
            stream.flush().await.unwrap();
        }
        stream.write_all(&replies[7..]).await.unwrap();
        let expected: Vec<_> = asked.into_iter().map(|message| ReceivedReport::Message(key, message)).collect();
        assert_eq!(next(&reported, 3).await, expected);
        for (id, user_data) in ids.into_iter().zip(['a', 'b', 'c']).rev() {
            assert_eq!(streams.hear(key, id, now), StreamMatch::Waiting(user_data));
            streams.settle(key, id, now);
            assert_eq!(streams.hear(key, id, now), StreamMatch::Unknown);
        }
        assert!(streams.get(key).unwrap().idle_since().is_some());
        assert_eq!(reported.take(), [], "it is kept");
    });
}

#[test]
fn reply_that_was_given_up_is_not_taken_for_another() {
    run(async {
        let ((_listener, address), (mut streams, _)) = (backend().await, streams());
        let now = Instant::now();
        let key = streams.open(address, KEPT, &[], now);
        let id = streams.queue(key, 'a', now, |out| out.extend([0; 12])).unwrap();
        streams.abandon(key, id, now);
        let connection = streams.get(key).unwrap();
        assert_eq!((connection.late(), connection.waiting().len()), (1, 0));
        assert_eq!(streams.hear(key, id, now), StreamMatch::Late);
        assert_eq!(streams.hear(key, id, now), StreamMatch::Unknown);
        assert_eq!(streams.get(key).unwrap().heard(), 2);
    });
}

#[test]
fn connection_ends_when_nobody_has_waited_for_its_time() {
    run(async {
        let ((listener, address), (mut streams, reported)) = (backend().await, streams());
        let key = streams.open(address, Duration::from_millis(20), &[], Instant::now());
        let id = streams.queue(key, 'a', Instant::now(), |out| out.extend([0; 12])).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let message = read(&mut stream).await;
        timeout(Duration::from_millis(100), stream.read_u8()).await.expect_err("a client waits on it");
        stream.write_all(&framed(&message)).await.unwrap();
        assert!(matches!(next(&reported, 1).await[..], [ReceivedReport::Message(..)]));
        streams.settle(key, id, Instant::now());
        assert_eq!(next(&reported, 1).await, [ReceivedReport::Ended(key, "closed")]);
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        assert!(streams.remove(key).unwrap().waiting().is_empty());
        assert!(streams.get(key).is_none() && streams.queue(key, 'b', Instant::now(), |_| {}).is_none());
    });
}

#[test]
fn end_by_the_backend_leaves_those_who_wait() {
    run(async {
        let ((listener, address), (mut streams, reported)) = (backend().await, streams());
        let now = Instant::now();
        let key = streams.open(address, KEPT, &[], now);
        streams.queue(key, 'a', now, |out| out.extend([0; 12])).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        read(&mut stream).await;
        drop(stream);
        assert_eq!(next(&reported, 1).await, [ReceivedReport::Ended(key, "lost")]);
        let connection = streams.remove(key).unwrap();
        assert_eq!(connection.waiting().iter().map(|waiting| waiting.user_data).collect::<Vec<_>>(), ['a']);
        // The slot gets another stream, and the old key becomes invalid.
        let next_key = streams.open(address, KEPT, &[], now);
        assert!(streams.get(key).is_none() && streams.get(next_key).is_some());
    });
}

#[test]
fn backend_that_does_not_listen_is_reported() {
    run(async {
        let ((listener, address), (mut streams, reported)) = (backend().await, streams());
        drop(listener);
        let key = streams.open(address, KEPT, &[], Instant::now());
        assert_eq!(next(&reported, 1).await, [ReceivedReport::Ended(key, "unconnected")]);
    });
}

#[test]
fn retired_connection_ends_when_nobody_waits_any_more() {
    run(async {
        let ((listener, address), (mut streams, reported)) = (backend().await, streams());
        let now = Instant::now();
        let key = streams.open(address, KEPT, &[], now);
        let id = streams.queue(key, 'a', now, |out| out.extend([0; 12])).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        streams.retire(key, now);
        let message = read(&mut stream).await;
        stream.write_all(&framed(&message)).await.unwrap();
        assert!(matches!(next(&reported, 1).await[..], [ReceivedReport::Message(..)]));
        streams.settle(key, id, now);
        assert_eq!(next(&reported, 1).await, [ReceivedReport::Ended(key, "closed")]);
    });
}

#[test]
fn backend_that_does_not_read_is_still_heard() {
    run(async {
        let ((listener, address), (mut streams, reported)) = (backend().await, streams());
        let now = Instant::now();
        let key = streams.open(address, KEPT, &[], now);
        // More than the kernel buffers for a peer that does not read.
        for _ in 0..200 {
            streams.queue(key, 'a', now, |out| out.resize(60_000, 0)).unwrap();
        }
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&framed(&[7; 12])).await.unwrap();
        assert_eq!(next(&reported, 1).await, [ReceivedReport::Message(key, vec![7; 12])]);
    });
}
