//! Descriptors: how many of those that the process may open each of its parts may have.
//!
//! Whoever opens sockets because somebody outside asks for it keeps within its share: connections of clients
//! ([`super::tcp`]), fetches by TCP, the sockets to the backends ([`super::backend_sockets`]). What is left belongs to those that
//! must never be without: one socket for each backend in each worker, the probes, the admin server, files. So none of them
//! can be starved by what clients or backends do.
//!
//! ```text
//!   limit ─┬─ what is open from the start: listeners, runtimes, standard streams
//!          ├─ reserved: a socket a backend and worker, a probe a backend (of 256 at most), admin, files
//!          └─ the rest: connections of clients ≤ half of all │ fetches │ further sockets to the backends
//! ```
//!
//! A pure calculation. With a limit that is too small each share is what there is, and never nothing; [`Shares::least`] says
//! what limit the config needs.

use std::fmt;

/// What a config opens descriptors for.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Descriptors that the process may have open (`RLIMIT_NOFILE`).
    pub limit: usize,
    /// Workers.
    pub workers: usize,
    /// Sockets that clients are listened to on: those of the process, and the duplicates that its workers read.
    pub listeners: usize,
    /// Backends of all pools; none without a forwarder.
    pub backends: usize,
    /// Whether there is an admin server.
    pub has_admin: bool,
}

/// The descriptors that each part of the process may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// All there are.
    pub limit: usize,
    /// Below this limit the shares are not what they should be at the least.
    pub least: usize,
    /// Sockets to listen on, of all workers.
    pub listeners: usize,
    /// Connections of clients, of all listeners and workers.
    pub connections: usize,
    /// Connections by which one worker fetches answers from backends, at least one.
    pub fetches: usize,
    /// Sockets of one worker to all backends; a first one to each backend may be opened whatever this says.
    pub backend_sockets: usize,
    /// Probes at a time.
    pub probes: usize,
    /// Connections of the admin server.
    pub admin: usize,
    /// Files, and connections to other servers for zone transfers.
    pub files: usize,
}

impl Shares {
    /// Divides what there is.
    pub fn of(demand: Demand) -> Self {
        let Demand { workers, listeners, backends, has_admin, .. } = demand;
        // Of thousands of backends few are asked at a time: their sockets come with the first query, and go when nobody asks.
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
        // An eighth of what is left for each is plenty where there is much, and where there is little, too little is left to
        // others otherwise.
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

    /// Whether there are enough for every part to have the least that it needs.
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

/// What is not given away yet.
struct Purse(usize);

impl Purse {
    /// Takes so many out, or all that there are.
    fn take(&mut self, wanted: usize) -> usize {
        let taken = wanted.min(self.0);
        self.0 -= taken;
        taken
    }
}

/// No more are divided, whatever the limit: Linux lets no process have more than a million unless `fs.nr_open` is raised, and
/// no share could be used up.
const MAX_DESCRIPTORS: usize = 1 << 20;

/// Backends of which each has a probe and, in each worker, a socket for certain. Where there are more, probes take turns, and a socket that
/// is idle is closed where others are needed.
const MAX_RESERVED: usize = 256;

/// Open in every process: standard streams, the control thread's runtime with its signals, and a few that libraries keep.
const PROCESS: usize = 16;

/// Open in every worker: its runtime, the epoll set of its backend sockets and their alarm.
const RUNTIME: usize = 8;

/// Sockets that the admin server listens on: TCP, and a unix socket, each of the process with the duplicate that is read.
const ADMIN_LISTENERS: usize = 4;

/// Connections with which an operator and a scrape can be served at once.
const MIN_ADMIN: usize = 4;

/// Connections that the admin server takes at most; a third of them is for those who listen.
pub const MAX_ADMIN: usize = 96;

/// A zone file with an included one, the cache image, and a transfer.
const MIN_FILES: usize = 4;

/// What a reload of many zones, and transfers, may have open at a time.
const MAX_FILES: usize = 32;

/// Connections of clients that there are even where they are few.
const MIN_CONNECTIONS: usize = 4;

/// Fetches of one worker at a time. They are rare where backends are sound: answers that UDP cannot carry, for clients by TCP.
pub const MAX_FETCHES: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each has a UDP and a TCP socket for each worker, which reads a duplicate.
    fn of_addresses(addresses: usize, workers: usize) -> usize {
        2 * 2 * addresses * workers
    }

    /// What a forwarder with an admin server asks for.
    fn demand(limit: usize, workers: usize, addresses: usize, backends: usize) -> Demand {
        Demand { limit, workers, listeners: of_addresses(addresses, workers), backends, has_admin: true }
    }

    /// All that may be open at once.
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
        // Connections, fetches and sockets of one worker, probes, admin, files. The usual limits of systemd and of shells.
        check(demand(524_288, 2, 1, 2), [262_144, 64, 130_921, 2, 96, 32]);
        check(demand(1024, 2, 1, 2), [512, 42, 127, 2, 96, 32]);
        check(demand(1024, 1, 1, 2), [512, 64, 286, 2, 96, 32]);
        check(demand(256, 1, 1, 2), [110, 14, 44, 2, 27, 27]);
        check(demand(64, 1, 1, 2), [12, 2, 8, 2, 4, 4]);
        // Many of everything.
        check(demand(1152, 16, 4, 40), [26, 1, 40, 40, 6, 6]);
        check(demand(65_536, 16, 4, 40), [32_768, 64, 1948, 40, 96, 32]);
        // Too few: what there is goes to what must never be without, in this order.
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
        let told = shares.to_string();
        assert!(told.starts_with("of 64 descriptors 32 listen"), "{told}");
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
