//! The listening sockets in the descriptor store of the service manager.
//!
//! The manager removes all descriptors of a name at once, and ignores a descriptor that it already has, under
//! any name. An address that moves in its section therefore keeps its old name until that is removed.

use std::io;
use std::os::fd::AsFd;

use net::from_clients::listening::{Endpoint, ListeningSocket};

use super::{MAX_FDS, ManagerMessage};

#[derive(Debug, Default)]
pub(super) struct DescriptorStore(Vec<StoredSocket>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct StoredSocket {
    endpoint: Endpoint,
    name: String,
    count: usize,
}

impl DescriptorStore {
    pub(super) fn of(passed: &[ListeningSocket]) -> Self {
        Self(listed(passed))
    }

    /// Returns the messages, in order, after which the manager keeps these sockets and no others.
    pub(super) fn change(&mut self, sockets: &[ListeningSocket]) -> io::Result<Vec<ManagerMessage>> {
        let wanted = listed(sockets);
        let is_wanted = |kept: &&StoredSocket| wanted.iter().any(|wanted| wanted.endpoint == kept.endpoint);
        let mut left: Vec<String> =
            self.0.iter().filter(|kept| !is_wanted(kept)).map(|kept| kept.name.clone()).collect();
        left.dedup();
        // Sockets that stay, but have a removed name, come back under their own name.
        let mut kept: Vec<StoredSocket> = self.0.iter().filter(|kept| !left.contains(&kept.name)).cloned().collect();
        let removal = |name| ManagerMessage { text: format!("FDSTOREREMOVE=1\nFDNAME={name}"), fds: Vec::new() };
        let mut messages: Vec<_> = left.into_iter().map(removal).collect();
        for wanted in wanted {
            let known = kept.iter_mut().find(|kept| kept.endpoint == wanted.endpoint);
            let name = match &known {
                Some(known) if known.count >= wanted.count => continue,
                // Additional sockets: the manager ignores those that it already has.
                Some(known) => known.name.clone(),
                None => wanted.name.clone(),
            };
            let same = sockets.iter().filter(|socket| *socket.endpoint() == wanted.endpoint);
            let fds = same.map(|socket| socket.as_fd().try_clone_to_owned()).collect::<io::Result<Vec<_>>>()?;
            let mut fds = fds.into_iter().peekable();
            while fds.peek().is_some() {
                // FDPOLL=0: a client can provoke an error of a socket by ICMP, which must not drop it.
                let text = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0");
                messages.push(ManagerMessage { text, fds: fds.by_ref().take(MAX_FDS).collect() });
            }
            match known {
                Some(known) => known.count = wanted.count,
                None => kept.push(wanted),
            }
        }
        self.0 = kept;
        Ok(messages)
    }
}

fn listed(sockets: &[ListeningSocket]) -> Vec<StoredSocket> {
    let mut listed: Vec<StoredSocket> = Vec::new();
    for socket in sockets {
        let endpoint = match socket.endpoint() {
            endpoint @ (Endpoint::Udp(_) | Endpoint::Tcp(_)) => endpoint.clone(),
            Endpoint::Unix(_) => continue,
        };
        match listed.iter_mut().find(|kept| kept.endpoint == endpoint) {
            Some(kept) => kept.count += 1,
            None => listed.push(StoredSocket { endpoint, name: fd_name(&socket.name), count: 1 }),
        }
    }
    listed
}

/// Returns a name that systemd accepts: printable ASCII without a colon, 255 bytes at most.
fn fd_name(name: &str) -> String {
    let fitting = |c: char| if c.is_ascii_graphic() && c != ':' { c } else { '_' };
    name.chars().map(fitting).take(255).collect()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// Returns sockets of these addresses, each with its name.
    fn sockets(listed: &[(&str, &UdpSocket)]) -> Vec<ListeningSocket> {
        let socket = |(name, socket): &(&str, &UdpSocket)| {
            let fd = socket.try_clone().expect("a descriptor").into();
            ListeningSocket::inherited(fd, (*name).to_owned(), 3).expect("it is bound")
        };
        listed.iter().map(socket).collect()
    }

    /// Returns the messages: `-NAME`, or `+NAME` with the number of sockets.
    fn said(store: &mut DescriptorStore, listed: &[(&str, &UdpSocket)]) -> Vec<String> {
        let messages = store.change(&sockets(listed)).expect("descriptors");
        let said = |message: &ManagerMessage| match message.text.split_once("\nFDNAME=").expect("a name") {
            ("FDSTOREREMOVE=1", name) => format!("-{name}"),
            (_, name) => format!("+{} {}", name.strip_suffix("\nFDPOLL=0").expect("no poll"), message.fds.len()),
        };
        messages.iter().map(said).collect()
    }

    #[test]
    fn what_comes_is_kept_and_what_leaves_is_removed_by_its_name() {
        let bound: [UdpSocket; 3] = std::array::from_fn(|_| UdpSocket::bind("127.0.0.1:0").expect("loopback"));
        let [a, b, c] = &bound;
        let mut store = DescriptorStore::default();
        assert_eq!(said(&mut store, &[("f.0", a), ("f.0", a), ("f.1", b)]), ["+f.0 2", "+f.1 1"]);
        assert_eq!(said(&mut store, &[("f.0", a), ("f.0", a), ("f.1", b)]), [""; 0]);
        // More sockets of an address.
        assert_eq!(said(&mut store, &[("f.0", a), ("f.0", a), ("f.1", b), ("f.1", b)]), ["+f.1 2"]);
        // The second address has become the first and keeps its known name ...
        assert_eq!(said(&mut store, &[("f.0", b), ("f.0", b)]), ["-f.0"]);
        // ... which the next address gets as well. When that leaves, the other comes back.
        assert_eq!(said(&mut store, &[("f.0", b), ("f.0", b), ("f.1", c)]), ["+f.1 1"]);
        assert_eq!(said(&mut store, &[("f.0", b), ("f.0", b)]), ["-f.1", "+f.0 2"]);
        assert_eq!(said(&mut store, &[]), ["-f.0"]);
    }

    #[test]
    fn what_was_passed_is_kept_already() {
        let bound = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let mut store = DescriptorStore::of(&sockets(&[("hedgerow.socket", &bound)]));
        assert_eq!(said(&mut store, &[("f.0", &bound)]), [""; 0]);
        assert_eq!(said(&mut store, &[("f.0", &bound), ("f.0", &bound)]), ["+hedgerow.socket 2"]);
        assert_eq!(said(&mut store, &[]), ["-hedgerow.socket"]);
    }

    #[test]
    fn a_message_takes_so_many_descriptors() {
        let bound = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let many = vec![("f.0", &bound); 300];
        assert_eq!(said(&mut DescriptorStore::default(), &many), ["+f.0 253", "+f.0 47"]);
    }

    #[test]
    fn names_are_those_that_systemd_takes() {
        for (name, expected) in [("ts1.0", "ts1.0"), ("a:b.0", "a_b.0"), ("ä b.1", "__b.1")] {
            assert_eq!(fd_name(name), expected);
        }
        assert_eq!(fd_name(&"x".repeat(300)).len(), 255);
    }
}
