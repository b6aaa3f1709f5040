//! Divides the file descriptors of the process among its parts.
//!
//! A part that opens sockets on demand keeps within its share: client connections, TCP fetches, backend
//! sockets. The rest is reserved for a socket per backend and worker, probes, the admin server and files, so
//! clients and backends cannot starve these.
//!
//! ```text
//!   limit ─┬─ what is open from the start: listeners, runtimes, standard streams
//!          ├─ reserved: a socket a backend and worker, a probe a backend (of 256 at most), admin, files
//!          └─ the rest: connections of clients ≤ half of all │ fetches │ further sockets to the backends
//! ```
//!
//! If the limit is too small, each part gets what is left, and [`Shares::least`] is the limit that the config
//! needs.

use std::fmt;

/// The parts of a config that need descriptors.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// The descriptor limit of the process (`RLIMIT_NOFILE`).
    pub limit: usize,
    /// The number of workers.
    pub workers: usize,
    /// The listening sockets for clients, including the duplicates that workers read.
    pub listeners: usize,
    /// The backends of all pools; 0 without a forwarder.
    pub backends: usize,
    /// True if there is an admin server.
    pub has_admin: bool,
}

/// The descriptors that each part of the process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// The limit of the process.
    pub limit: usize,
    /// The limit from which on every part gets its minimum.
    pub least: usize,
    /// Listening sockets of all workers.
    pub listeners: usize,
    /// Client connections of all listeners and workers.
    pub connections: usize,
    /// Connections of one worker for fetches from backends, at least one.
    pub fetches: usize,
    /// Sockets of one worker to all backends; the first one to each backend is always allowed.
    pub backend_sockets: usize,
    /// Concurrent probes.
    pub probes: usize,
    /// Connections of the admin server.
    pub admin: usize,
    /// Files, and connections for zone transfers.
    pub files: usize,
}

impl Shares {
    /// Divides the descriptors.
    pub fn of(demand: Demand) -> Self {
        let Demand { workers, listeners, backends, has_admin, .. } = demand;
        // Of thousands of backends few are used at a time: their sockets open with the first query, and close
        // when idle.
        let backends = backends.min(MAX_RESERVED);
        let workers = workers.max(1);
        let limit = demand.limit.min(MAX_DESCRIPTORS);
        let is_forwarder = backends > 0;
        let admin_listeners = if has_admin { ADMIN_LISTENERS } else { 0 };
        let open = PROCESS + workers * RUNTIME + listeners + admin_listeners;

        let least_admin = if has_admin { MIN_ADMIN } else { 0 };
        let reserved = backends + workers * backends;
        let least_fetches = if is_forwarder { workers } else { 0 };
        let least = open + reserved + least_fetches + least_admin + MIN_FILES + MIN_CONNECTIONS;

        let mut left = Purse(limit.saturating_sub(open));
        let probes = left.take(backends);
        let first_sockets = left.take(workers * backends);
        let first_fetches = left.take(least_fetches);
        // An eighth is plenty if there is much, and leaves enough to other parts if there is little.
        let eighth = left.0 / 8;
        let admin = left.take(if has_admin { eighth.clamp(MIN_ADMIN, MAX_ADMIN) } else { 0 });
        let files = left.take(eighth.clamp(MIN_FILES, MAX_FILES));
        let connections = match is_forwarder {
            true => (limit / 2).min(left.0 / 3 * 2),
            false => (limit / 2).min(left.0),
        };
        let connections = left.take(connections.max(MIN_CONNECTIONS)).max(1);
        let fetches = match is_forwarder {
            true => ((first_fetches + left.0 / 4) / workers).clamp(1, MAX_FETCHES),
            false => 0,
        };
        left.take((workers * fetches).saturating_sub(first_fetches));
        let backend_sockets = (first_sockets + left.0) / workers;
        Self { limit, least, listeners, connections, fetches, backend_sockets, probes, admin, files }
    }

    /// Returns true if every part has its minimum.
    pub fn is_enough(&self) -> bool {
        self.limit >= self.least
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, least: _, listeners, connections, fetches, backend_sockets, probes, admin, files } = self;
        write!(
            f,
            "of {limit} descriptors {listeners} listen, {connections} are for connections of clients, {fetches} a worker for \
             fetches by TCP, {backend_sockets} a worker for sockets to backends, {probes} for probes, {admin} for the admin \
             server, {files} for files"
        )
    }
}

struct Purse(usize);

impl Purse {
    fn take(&mut self, wanted: usize) -> usize {
        let taken = wanted.min(self.0);
        self.0 -= taken;
        taken
    }
}

/// The most descriptors that are divided: Linux allows no more unless `fs.nr_open` is raised, and no share
/// could use them.
const MAX_DESCRIPTORS: usize = 1 << 20;

/// The backends with a reserved probe and a reserved socket per worker. With more backends, probes take
/// turns, and idle sockets are closed on demand.
const MAX_RESERVED: usize = 256;

/// Open in every process: standard streams, the control thread's runtime with its signals, and a few of
/// libraries.
const PROCESS: usize = 16;

/// Open in every worker: its runtime, the epoll set of its backend sockets and their timer.
const RUNTIME: usize = 8;

/// The admin server's listeners: TCP and a unix socket, each with its duplicate.
const ADMIN_LISTENERS: usize = 4;

const MIN_ADMIN: usize = 4;

/// The connection limit of the admin server; a third of it is for event listeners.
pub(crate) const MAX_ADMIN: usize = 96;

const MIN_FILES: usize = 4;

const MAX_FILES: usize = 32;

const MIN_CONNECTIONS: usize = 4;

/// The concurrent fetches of one worker. They are rare with healthy backends: answers too large for UDP.
pub(crate) const MAX_FETCHES: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each has a UDP and a TCP socket for each worker, which reads a duplicate.
    fn of_addresses(addresses: usize, workers: usize) -> usize {
        2 * 2 * addresses * workers
    }

    /// The demand of a forwarder with an admin server.
    fn demand(limit: usize, workers: usize, addresses: usize, backends: usize) -> Demand {
        Demand { limit, workers, listeners: of_addresses(addresses, workers), backends, has_admin: true }
    }

    /// The sum of all shares.
    fn sum(demand: Demand, shares: &Shares) -> usize {
        let Shares { listeners, connections, fetches, backend_sockets, probes, admin, files, .. } = *shares;
        let open = PROCESS + demand.workers * RUNTIME + if demand.has_admin { ADMIN_LISTENERS } else { 0 };
        open + listeners + connections + demand.workers * (fetches + backend_sockets) + probes + admin + files
    }

    #[test]
    fn limits_are_divided_like_this() {
        let check = |of: Demand, expected: [usize; 6]| {
            let shares = Shares::of(of);
            let Shares { connections, fetches, backend_sockets, probes, admin, files, .. } = shares;
            assert_eq!([connections, fetches, backend_sockets, probes, admin, files], expected, "{of:?}");
        };
        // Connections, fetches and sockets of one worker, probes, admin, files. The usual limits of systemd
        // and of shells.
        check(demand(524_288, 2, 1, 2), [262_144, 64, 130_921, 2, 96, 32]);
        check(demand(1024, 2, 1, 2), [512, 42, 127, 2, 96, 32]);
        check(demand(1024, 1, 1, 2), [512, 64, 286, 2, 96, 32]);
        check(demand(256, 1, 1, 2), [110, 14, 44, 2, 27, 27]);
        check(demand(64, 1, 1, 2), [12, 2, 8, 2, 4, 4]);
        // Many of everything.
        check(demand(1152, 16, 4, 40), [26, 1, 40, 40, 6, 6]);
        check(demand(65_536, 16, 4, 40), [32_768, 64, 1948, 40, 96, 32]);
        // Too few: the reserved parts come first, in this order.
        check(demand(64, 4, 2, 8), [1, 1, 0, 0, 0, 0]);
        check(demand(90, 2, 4, 4), [1, 1, 4, 4, 4, 4]);
        // An authority has no backends, and nothing to fetch.
        let authority = Demand { has_admin: false, ..demand(1024, 2, 1, 0) };
        check(authority, [512, 0, 220, 0, 0, 32]);
    }

    #[test]
    fn a_config_says_what_it_needs() {
        let shares = Shares::of(demand(64, 4, 2, 8));
        assert_eq!((shares.least, shares.is_enough()), (140, false));
        let reported = shares.to_string();
        assert!(reported.starts_with("of 64 descriptors 32 listen"), "{reported}");
        assert!(Shares::of(demand(140, 4, 2, 8)).is_enough());
    }

    proptest! {
        #[test]
        fn whoever_has_enough_gets_the_least_and_all_fits(
            workers in 1..64_usize,
            addresses in 1..16_usize,
            backends in 0..200_usize,
            spare in 0..100_000_usize,
            has_admin: bool,
        ) {
            let listeners = of_addresses(addresses, workers);
            let with = |limit| Demand { limit, workers, listeners, backends, has_admin };
            let of = with(Shares::of(with(0)).least + spare);
            let shares = Shares::of(of);
            prop_assert!(shares.is_enough());
            prop_assert!(sum(of, &shares) <= of.limit, "{shares:?}");
            prop_assert!(shares.probes == backends && shares.backend_sockets >= backends);
            prop_assert!(shares.files >= MIN_FILES && shares.connections >= MIN_CONNECTIONS);
            prop_assert_eq!(shares.admin >= MIN_ADMIN, has_admin);
            prop_assert_eq!(shares.fetches >= 1, backends > 0);
        }

        #[test]
        fn nobody_gets_nothing_where_there_are_too_few(limit in 0..200_usize, workers in 1..64_usize) {
            let shares = Shares::of(demand(limit, workers, 2, 8));
            prop_assert!(shares.connections >= 1 && shares.fetches >= 1);
        }
    }
}
