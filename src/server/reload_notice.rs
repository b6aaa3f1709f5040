//! What an operator may not expect of a reload: what waits for a restart, what of changes by hand is undone, and zones that no
//! secondary will take.

use std::fmt;

use crate::config::Config;

/// What an operator may not expect of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadNotice {
    /// The setting at this key differs from what runs and takes effect at the next start only.
    NeedsRestart(String),
    /// The setting at this key differs from what runs, and another process puts it in force.
    Restarts(String),
    /// The cache has another size, so it is another one.
    CacheEmptied,
    /// A zone has changed, but not its serial: no secondary will notice.
    SameSerial {
        /// Name of the zone.
        zone: String,
        /// Its serial.
        serial: u32,
    },
    /// A zone has a serial that is older than the one before: no secondary will take it.
    OlderSerial {
        /// Name of the zone.
        zone: String,
        /// Its serial.
        serial: u32,
    },
    /// A backend that was added by hand is gone, since the config does not have it.
    Gone {
        /// Name of the pool.
        pool: String,
        /// Name of the backend.
        backend: String,
    },
    /// A backend that was removed by hand is back, since the config has it.
    Back {
        /// Name of the pool.
        pool: String,
        /// Name of the backend.
        backend: String,
    },
}

impl fmt::Display for ReloadNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restarts(key) => write!(f, "{key} has changed, which a restart puts in force now"),
            Self::NeedsRestart(key) => write!(f, "{key} has changed, which needs a restart to take effect"),
            Self::CacheEmptied => f.write_str("cache.size has changed, so the cache starts empty"),
            Self::SameSerial { zone, serial } => {
                write!(f, "zone {zone} has changed but not its serial {serial}, so no secondary will notice; raise it")
            }
            Self::OlderSerial { zone, serial } => {
                write!(f, "zone {zone} has gone back to serial {serial}, so no secondary will take it; raise it")
            }
            Self::Gone { pool, backend } => write!(f, "{backend}, added to pool {pool} by hand, is gone"),
            Self::Back { pool, backend } => write!(f, "{backend}, removed from pool {pool} by hand, is back"),
        }
    }
}

/// What of `new` takes effect only at the next start: what threads are made with, which a supervisor brings about by itself, and who
/// the process is.
pub(super) fn needs_restart(running: &Config, new: &Config, is_supervised: bool) -> Vec<ReloadNotice> {
    let of_threads = if is_supervised { ReloadNotice::Restarts } else { ReloadNotice::NeedsRestart };
    let mut notices = Vec::new();
    if running.workers != new.workers {
        notices.push(of_threads("workers".to_owned()));
    }
    if running.user != new.user {
        notices.push(ReloadNotice::NeedsRestart("user".to_owned()));
    }
    if running.busy_poll != new.busy_poll {
        notices.push(of_threads("busy_poll".to_owned()));
    }
    if running.xdp != new.xdp {
        notices.push(of_threads("xdp".to_owned()));
    }
    notices
}
