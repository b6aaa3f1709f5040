//! The descriptor store of the service manager, as far as our listening sockets are concerned: what it keeps, under which name, and
//! what is to be said so that it keeps others.
//!
//! It removes all descriptors of a name at once, and takes one that it has already for none, whatever the name. An address
//! that was the second of a section and is now the first so stays what it was called, until its old name leaves.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::message::MAX_FDS;
use crate::net::listening::{Endpoint, ListeningSocket};

/// What the manager keeps.
#[derive(Debug, Default)]
pub(super) struct Store(Vec<Kept>);

/// The sockets of one kind and address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    endpoint: Endpoint,
    name: String,
    count: usize,
}

/// What is to be said to the manager.
#[derive(Debug)]
pub(super) enum StoreChange {
    /// All of this name go.
    Remove {
        /// The name.
        name: String,
    },
    /// These come.
    Add {
        /// Their name.
        name: String,
        /// Duplicates, at most [`MAX_FDS`].
        fds: Vec<OwnedFd>,
    },
}

impl Store {
    /// The store of a manager that has passed these sockets.
    pub(super) fn of(passed: &[ListeningSocket]) -> Self {
        Self(listed(passed))
    }

    /// What is to be said so that it keeps these sockets and no others, in this order.
    pub(super) fn change(&mut self, sockets: &[ListeningSocket]) -> io::Result<Vec<StoreChange>> {
        let wanted = listed(sockets);
        let is_wanted = |kept: &&Kept| wanted.iter().any(|wanted| wanted.endpoint == kept.endpoint);
        let mut left: Vec<String> =
            self.0.iter().filter(|kept| !is_wanted(kept)).map(|kept| kept.name.clone()).collect();
        left.dedup();
        // Those that stay under a name that goes come back under their own.
        let mut kept: Vec<Kept> = self.0.iter().filter(|kept| !left.contains(&kept.name)).cloned().collect();
        let mut changes: Vec<_> = left.into_iter().map(|name| StoreChange::Remove { name }).collect();
        for wanted in wanted {
            let known = kept.iter_mut().find(|kept| kept.endpoint == wanted.endpoint);
            let name = match &known {
                Some(known) if known.count >= wanted.count => continue,
                // More of them: those that it has already count for nothing.
                Some(known) => known.name.clone(),
                None => wanted.name.clone(),
            };
            let same = sockets.iter().filter(|socket| *socket.endpoint() == wanted.endpoint);
            let fds = same.map(|socket| socket.as_fd().try_clone_to_owned()).collect::<io::Result<Vec<_>>>()?;
            let mut fds = fds.into_iter().peekable();
            while fds.peek().is_some() {
                changes.push(StoreChange::Add { name: name.clone(), fds: fds.by_ref().take(MAX_FDS).collect() });
            }
            match known {
                Some(known) => known.count = wanted.count,
                None => kept.push(wanted),
            }
        }
        self.0 = kept;
        Ok(changes)
    }
}

/// Kinds and addresses of sockets that can be kept, each once.
fn listed(sockets: &[ListeningSocket]) -> Vec<Kept> {
    let mut listed: Vec<Kept> = Vec::new();
    for socket in sockets {
        let endpoint = match socket.endpoint() {
            endpoint @ (Endpoint::Udp(_) | Endpoint::Tcp(_)) => endpoint.clone(),
            Endpoint::Unix(_) => continue,
        };
        match listed.iter_mut().find(|kept| kept.endpoint == endpoint) {
            Some(kept) => kept.count += 1,
            None => listed.push(Kept { endpoint, name: fd_name(&socket.name), count: 1 }),
        }
    }
    listed
}

/// A name as systemd takes it: ASCII that can be printed, no colon, 255 octets at most.
fn fd_name(name: &str) -> String {
    let fitting = |c: char| if c.is_ascii_graphic() && c != ':' { c } else { '_' };
    name.chars().map(fitting).take(255).collect()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// Sockets of these addresses, each with its name.
    fn sockets(listed: &[(&str, &UdpSocket)]) -> Vec<ListeningSocket> {
        let socket = |(name, socket): &(&str, &UdpSocket)| {
            let fd = socket.try_clone().expect("a descriptor").into();
            ListeningSocket::inherited(fd, (*name).to_owned(), 3).expect("it is bound")
        };
        listed.iter().map(socket).collect()
    }

    /// What is said: `-NAME`, or `+NAME` with the number of sockets.
    fn said(store: &mut Store, listed: &[(&str, &UdpSocket)]) -> Vec<String> {
        let changes = store.change(&sockets(listed)).expect("descriptors");
        let said = |change: &StoreChange| match change {
            StoreChange::Remove { name } => format!("-{name}"),
            StoreChange::Add { name, fds } => format!("+{name} {}", fds.len()),
        };
        changes.iter().map(said).collect()
    }

    #[test]
    fn what_comes_is_kept_and_what_leaves_is_removed_by_its_name() {
        let bound: [UdpSocket; 3] = std::array::from_fn(|_| UdpSocket::bind("127.0.0.1:0").expect("loopback"));
        let [a, b, c] = &bound;
        let mut store = Store::default();
        assert_eq!(said(&mut store, &[("f.0", a), ("f.0", a), ("f.1", b)]), ["+f.0 2", "+f.1 1"]);
        assert_eq!(said(&mut store, &[("f.0", a), ("f.0", a), ("f.1", b)]), [""; 0]);
        // More sockets of an address.
        assert_eq!(said(&mut store, &[("f.0", a), ("f.0", a), ("f.1", b), ("f.1", b)]), ["+f.1 2"]);
        // The second has become the first; it keeps the name that it is known by ...
        assert_eq!(said(&mut store, &[("f.0", b), ("f.0", b)]), ["-f.0"]);
        // ... which the next one has as well, and when that leaves the other comes back.
        assert_eq!(said(&mut store, &[("f.0", b), ("f.0", b), ("f.1", c)]), ["+f.1 1"]);
        assert_eq!(said(&mut store, &[("f.0", b), ("f.0", b)]), ["-f.1", "+f.0 2"]);
        assert_eq!(said(&mut store, &[]), ["-f.0"]);
    }

    #[test]
    fn what_was_passed_is_kept_already() {
        let bound = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let mut store = Store::of(&sockets(&[("hedgerow.socket", &bound)]));
        assert_eq!(said(&mut store, &[("f.0", &bound)]), [""; 0]);
        assert_eq!(said(&mut store, &[("f.0", &bound), ("f.0", &bound)]), ["+hedgerow.socket 2"]);
        assert_eq!(said(&mut store, &[]), ["-hedgerow.socket"]);
    }

    #[test]
    fn a_message_takes_so_many_descriptors() {
        let bound = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let many = vec![("f.0", &bound); 300];
        assert_eq!(said(&mut Store::default(), &many), ["+f.0 253", "+f.0 47"]);
    }

    #[test]
    fn names_are_those_that_systemd_takes() {
        for (name, expected) in [("ts1.0", "ts1.0"), ("a:b.0", "a_b.0"), ("ä b.1", "__b.1")] {
            assert_eq!(fd_name(name), expected);
        }
        assert_eq!(fd_name(&"x".repeat(300)).len(), 255);
    }
}
