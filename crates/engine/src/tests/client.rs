//! A client for tests.

use std::net::{IpAddr, Ipv4Addr};

use dns::Transport;

use crate::io::ClientHandle;

/// A client by UDP with this port. It is as large as a client of the program may be.
#[derive(Clone, Debug)]
pub(crate) struct TestClient {
    pub(crate) port: u16,
    _room: [u64; 5],
    _is_some: bool,
}

impl TestClient {
    pub(crate) fn new(port: u16) -> Self {
        Self { port, _room: [0; 5], _is_some: true }
    }
}

impl ClientHandle for TestClient {
    fn ip(&self) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, 1).into()
    }

    fn transport(&self) -> Transport {
        Transport::Udp
    }

    fn is_admin(&self) -> bool {
        false
    }

    fn is_same_socket(&self, other: &Self) -> bool {
        self.port == other.port
    }
}
