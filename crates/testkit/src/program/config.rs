//! Config files for forwarders, so that a test names only what it is about.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::{Authority, Backend, Closed, Server};

/// A config under construction: a forwarder on port 0, its pools and routes.
pub struct Forwarder {
    /// The key of that name.
    workers: usize,
    /// A TOML array of addresses.
    listen: String,
    /// Further lines of `[forwarder]`.
    keys: String,
    routes: String,
    pools: String,
}

/// Whatever has an address to be asked at.
pub trait Asked {
    /// Returns the address for queries.
    fn address(&self) -> SocketAddr;

    /// Returns the entry for the list of backends.
    fn entry(&self) -> String {
        format!("\"{}\"", self.address())
    }
}

/// A backend with its share of the load.
pub struct Weighted<'a>(pub &'a dyn Asked, pub u16);

impl Asked for Weighted<'_> {
    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    fn entry(&self) -> String {
        format!("{{ address = \"{}\", weight = {} }}", self.address(), self.1)
    }
}

/// A backend that gets the client's address in a PROXY header, by UDP or, with `tcp://`, by TCP.
pub struct NamedClients<'a>(pub &'static str, pub &'a dyn Asked);

impl Asked for NamedClients<'_> {
    fn address(&self) -> SocketAddr {
        self.1.address()
    }

    fn entry(&self) -> String {
        format!("{{ address = '{}{}', proxy_protocol = true }}", self.0, self.address())
    }
}

impl Asked for Authority {
    fn address(&self) -> SocketAddr {
        self.address()
    }
}

impl Asked for Backend {
    fn address(&self) -> SocketAddr {
        self.address()
    }
}

impl Asked for Closed {
    fn address(&self) -> SocketAddr {
        self.address()
    }
}

impl Asked for SocketAddr {
    fn address(&self) -> SocketAddr {
        *self
    }
}

impl Forwarder {
    /// Nothing but a listener on 127.0.0.1; one worker, so that what is a matter of turns is exact.
    pub fn new() -> Self {
        Self {
            workers: 1,
            listen: String::from(r#"["127.0.0.1:0"]"#),
            keys: String::new(),
            routes: String::new(),
            pools: String::new(),
        }
    }

    /// One pool for all names. `keys` are lines of its section; tables below it come last.
    pub fn to(backends: &[&dyn Asked], keys: &str) -> Self {
        Self::new().pool("all", ".", backends, keys)
    }

    /// A pool, and the route that leads to it.
    pub fn pool(mut self, name: &str, suffix: &str, backends: &[&dyn Asked], keys: &str) -> Self {
        let addresses: Vec<_> = backends.iter().map(|b| b.entry()).collect();
        let keys = keys.replace("[hedge]", &format!("[pools.{name}.hedge]"));
        let keys = keys.replace("[health]", &format!("[pools.{name}.health]"));
        let _ = writeln!(self.routes, "{suffix:?} = {name:?}");
        let _ = writeln!(self.pools, "[pools.{name}]\nbackends = [{}]\n{keys}", addresses.join(", "));
        self
    }

    /// With more than one worker.
    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// Addresses as a TOML array.
    pub fn listen(self, addresses: &str) -> Self {
        Self { listen: addresses.into(), ..self }
    }

    /// Further lines of `[forwarder]`.
    pub fn keys(self, keys: &str) -> Self {
        Self { keys: keys.into(), ..self }
    }

    /// With an admin server.
    pub fn admin(mut self) -> Self {
        self.pools.push_str("[admin]\nlisten = '127.0.0.1:0'\n");
        self
    }

    /// With a cache. `keys` are lines of its section.
    pub fn cache(mut self, keys: &str) -> Self {
        let _ = writeln!(self.pools, "[cache]\n{keys}");
        self
    }

    /// Returns the text of the config file.
    pub fn to_toml(&self) -> String {
        let Self { workers, listen, keys, routes, pools } = self;
        format!(
            "workers = {workers}\n[forwarder]\nlisten = {listen}\n{keys}\n\
             [forwarder.routes]\n{routes}\n{pools}"
        )
    }

    /// Runs a server with it.
    pub fn start(&self) -> Server {
        Server::start(&self.to_toml())
    }

    /// Starts a server that logs what probes find, such as cookies, which is level debug.
    pub fn start_with_probes_logged(&self) -> Server {
        Server::start_as(&self.to_toml(), &[], |command| {
            command.env("HEDGEROW_LOG", "info,hedgerow::health=debug");
        })
    }
}
