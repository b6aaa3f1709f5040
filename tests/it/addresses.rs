//! Addresses: IPv6, several listeners, and responses that leave from the address that was asked.

use std::net::{SocketAddr, UdpSocket};

use testkit::*;

const ADDRESS: &str = "192.0.2.1";

#[test]
fn forwarder_serves_ipv6_and_asks_backends_over_it() {
    let backend = Backend::at("[::1]:0", answer(ADDRESS));
    let server = Forwarder::to(&[&backend], "").listen("['[::1]:0']").start();
    assert!(server.address().is_ipv6());
    let question = query("www.example.org", A);
    assert_eq!(server.client().ask(&question).answers(), [ADDRESS]);
    assert_eq!(server.tcp_client().ask(&question).answers(), [ADDRESS]);
    assert!(backend.queries().iter().all(|seen| seen.peer.is_ipv6()));
}

#[test]
fn clients_and_backends_need_not_be_of_one_family() {
    let six = Backend::at("[::1]:0", answer(ADDRESS).except("four", silent()));
    let four = Backend::new(answer(ADDRESS).except("six", silent()));
    let server = Forwarder::to(&[&six, &four], "timeout = '20s'").listen("['127.0.0.1:0', '[::1]:0']").start();
    let listeners = server.listeners("forwarder");
    assert_eq!(listeners.len(), 2);
    for listener in listeners {
        for name in ["six.example", "four.example"] {
            let response = Client::of(*listener).ask(&query(name, A));
            assert_eq!(response.answers(), [ADDRESS], "{name} at {listener}");
        }
    }
}

/// On a wildcard listener, a client hears only what comes from where it asked: its socket is connected.
#[test]
fn response_leaves_from_the_address_that_was_asked() {
    let backend = Backend::new(answer(ADDRESS));
    let config = Forwarder::to(&[&backend], "timeout = '20s'").listen("['0.0.0.0:0']").to_toml()
        + "[authorities.ts]\nlisten = ['0.0.0.0:0']\nzones = ['hosts.txt']\n";
    let server = Server::start_with_files(&config, &[("hosts.txt", "www.example.org 192.0.2.1 A\n")]);
    for listener in ["forwarder", "ts"] {
        let port = server.listener(listener).port();
        for host in [1, 2, 3, 77] {
            let asked = ([127, 0, 0, host], port).into();
            let question = query("www.example.org", A);
            assert_eq!(Client::of(asked).ask(&question).answers(), [ADDRESS], "{asked}");
            assert_eq!(TcpClient::of(asked).ask(&question).answers(), [ADDRESS], "{asked}");
        }
    }
}

#[test]
fn ipv6_wildcard_listener_answers_from_the_address_that_was_asked() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Forwarder::to(&[&backend], "").listen("['[::]:0']").start();
    let asked = (std::net::Ipv6Addr::LOCALHOST, server.address().port()).into();
    let question = query("www.example.org", A);
    assert_eq!(Client::of(asked).ask(&question).answers(), [ADDRESS]);
    assert_eq!(TcpClient::of(asked).ask(&question).answers(), [ADDRESS]);
}

#[test]
fn late_response_leaves_from_the_address_that_was_asked_too() {
    let backend = Backend::new(answer(ADDRESS).held());
    let server = Forwarder::to(&[&backend], "timeout = '20s'").listen("['0.0.0.0:0']").workers(2).start();
    let port = server.address().port();
    let clients: Vec<_> = (1..10)
        .map(|host| {
            let client = Client::of(([127, 0, 0, host], port).into());
            client.send(&query(&format!("{host}.example.org"), A));
            client
        })
        .collect();
    backend.wait_for(clients.len());
    backend.release();
    for client in &clients {
        assert_eq!(client.receive().answers(), [ADDRESS]);
    }
}

#[test]
fn client_that_asks_two_addresses_hears_from_both() {
    let backend = Backend::new(answer(ADDRESS).held());
    let server = Forwarder::to(&[&backend], "timeout = '20s'").listen("['0.0.0.0:0']").start();
    let client = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    client.set_read_timeout(Some(PATIENCE)).expect("patience is not zero");
    let question = query("www.example.org", A).to_vec();
    let addresses = [1, 2].map(|host| SocketAddr::from(([127, 0, 0, host], server.address().port())));
    for address in addresses {
        client.send_to(&question, address).expect("it listens on every address");
    }
    // Answered after what came before it.
    Client::of(addresses[0]).send(&query("fence.example.org", A));
    backend.wait_for(2);
    backend.release();
    let mut buffer = [0; 512];
    let heard = [(); 2].map(|()| client.recv_from(&mut buffer).expect("a response to each").1);
    assert!(addresses.iter().all(|address| heard.contains(address)), "{heard:?}");
}
