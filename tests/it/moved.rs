//! TCP connections that go from one server to the next: none is closed, no answer is lost, and no octet is
//! read twice.

use std::sync::atomic::Ordering;

use dns::Transport;
use hedgerow::control::CarriedState;
use testkit::*;

use crate::support::running::Running;

const ADDRESS: &str = "192.0.2.1";

/// A server before this backend, with these keys of `[forwarder.connections]`.
fn start(backend: &Backend, keys: &str) -> Running {
    let keys = format!("[forwarder.connections]\n{keys}");
    let config = Forwarder::to(&[backend], "timeout = '20s'\nattempt_timeout = '20s'").workers(2).keys(&keys).to_toml();
    Running::start(&(config + "[admin]\nlisten = '127.0.0.1:0'\nsocket = 'SOCKET'\n"), |_| CarriedState::default())
}

/// Queries by TCP that a server has taken.
fn taken(server: &Running) -> u64 {
    server.counted().counts.queries[Transport::Tcp as usize]
}

#[test]
fn an_idle_connection_goes_with_the_octets_that_were_read() {
    let backend = Backend::new(answer(ADDRESS));
    let (first, second) = (start(&backend, ""), start(&backend, ""));
    let mut clients: Vec<_> = (0..8).map(|_| TcpClient::of(first.forwarder)).collect();
    for client in &mut clients {
        assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
    }
    // Each has sent another part of its next query, from nothing at all to all but an octet.
    let next = query("next.example", A);
    let message = framed(&next.to_vec());
    let parts = [0, 1, 2, 3, 10, message.len() / 2, message.len() - 2, message.len() - 1];
    for (client, sent) in clients.iter_mut().zip(parts) {
        client.send_bytes(&message[..sent]);
    }
    let moved = first.move_connections_to(&second);
    until("all have gone", || (moved.load(Ordering::Relaxed) == clients.len()).then_some(()));
    for (client, sent) in clients.iter_mut().zip(parts) {
        client.send_bytes(&message[sent..]);
        let response = client.receive();
        assert_eq!((response.id(), response.answers()), (next.id, vec![ADDRESS.to_owned()]), "{sent} octets");
    }
    assert_eq!((taken(&first), taken(&second)), (8, 8));
    // The one before may end; they go on.
    drop(first);
    for client in &mut clients {
        assert_eq!(client.ask(&query("last.example", A)).answers(), [ADDRESS]);
    }
}

#[test]
fn a_connection_goes_when_its_answers_have() {
    let backend = Backend::new(answer(ADDRESS).held());
    let other = Backend::new(answer("192.0.2.2"));
    let (first, second) = (start(&backend, ""), start(&other, ""));
    let mut client = TcpClient::of(first.forwarder);
    let queries = [query("one.example", A), query("two.example", A), query("three.example", A)];
    client.send(&queries[..2]);
    backend.wait_for(2);
    let moved = first.move_connections_to(&second);
    let mut idle = TcpClient::of(first.forwarder);
    idle.send(&queries[2..]);
    assert_eq!(idle.receive().answers(), ["192.0.2.2"]);
    assert_eq!(moved.load(Ordering::Relaxed), 1, "two wait for their answers");
    // This is for the next to read.
    client.send(&queries[2..]);
    backend.release();
    let answers: Vec<_> = client.receive_all(3).iter().map(Response::answers).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == [ADDRESS]).count(), 2);
    assert_eq!(answers.iter().filter(|answer| **answer == ["192.0.2.2"]).count(), 1);
    assert_eq!((taken(&first), taken(&second)), (2, 2));
}

#[test]
fn a_connection_that_asks_without_a_pause_loses_no_answer() {
    let backend = Backend::new(answer(ADDRESS).after(ms(1)));
    let (first, second) = (start(&backend, ""), start(&backend, ""));
    let mut clients: Vec<_> = (0..4).map(|_| TcpClient::of(first.forwarder)).collect();
    let queries: Vec<_> = (0..400).map(|number| query(&format!("n{number}.example"), A)).collect();
    let mut moved = None;
    for (batch, queries) in queries.chunks(20).enumerate() {
        clients.iter_mut().for_each(|client| client.send(queries));
        if batch == 8 {
            moved = Some(first.move_connections_to(&second));
        }
    }
    let mut expected: Vec<_> = queries.iter().map(|query| query.id).collect();
    expected.sort_unstable();
    for client in &mut clients {
        let ids: Vec<_> = client.receive_all(queries.len()).iter().map(Response::id).collect();
        assert_eq!(ids, expected);
    }
    assert_eq!(moved.expect("it was begun").load(Ordering::Relaxed), 4);
    assert_eq!(taken(&first) + taken(&second), 4 * 400);
    assert!(taken(&second) > 0);
}

#[test]
fn limits_count_anew() {
    let backend = Backend::new(answer(ADDRESS));
    let (first, second) = (start(&backend, ""), start(&backend, "per_client = 2"));
    let mut clients: Vec<_> = (0..3).map(|_| TcpClient::of(first.forwarder)).collect();
    for client in &mut clients {
        assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
    }
    let moved = first.move_connections_to(&second);
    until("all have gone", || (moved.load(Ordering::Relaxed) == 3).then_some(()));
    let query = query("again.example", A);
    let served = clients.iter_mut().filter_map(|client| client.try_ask(&query)).count();
    assert_eq!(served, 2, "the third is one too many for its client");
}

#[test]
fn a_connection_goes_to_its_section_whatever_that_is_called() {
    let backend = Backend::new(answer(ADDRESS));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let table = folder.path().join("hosts.txt");
    std::fs::write(&table, "www.example 192.0.2.7 A\n").expect("our own folder");
    let config = Forwarder::to(&[&backend], "").to_toml()
        + "[admin]\nlisten = '127.0.0.1:0'\nsocket = 'SOCKET'\n"
        + &format!("[authorities.forwarder]\nlisten = ['127.0.0.2:0']\nzones = ['{}']\n", table.display());
    let (first, second) =
        (Running::start(&config, |_| CarriedState::default()), Running::start(&config, |_| CarriedState::default()));
    let mut clients = [first.forwarder, first.authority.expect("there is one")].map(TcpClient::of);
    let answers = |clients: &mut [TcpClient; 2]| {
        clients.each_mut().map(|client| client.ask(&query("www.example", A)).answers().concat())
    };
    assert_eq!(answers(&mut clients), [ADDRESS, "192.0.2.7"]);
    let moved = first.move_connections_to(&second);
    until("both have gone", || (moved.load(Ordering::Relaxed) == 2).then_some(()));
    assert_eq!(answers(&mut clients), [ADDRESS, "192.0.2.7"]);
    assert_eq!((taken(&first), taken(&second)), (2, 2));
}
