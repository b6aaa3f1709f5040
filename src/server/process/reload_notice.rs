//! Notices for the operator about a reload: settings that need a restart, undone changes, and zones with bad
//! serials.

use std::fmt;

use crate::config::Config;

/// A side effect of a reload that the operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadNotice {
    /// The changed setting at this key takes effect at the next start only.
    NeedsRestart(String),
    /// The changed setting at this key takes effect in another process.
    Restarts(String),
    /// The cache has another size, so it starts empty.
    CacheEmptied,
    /// The content of a zone has changed, but not its serial: no secondary will notice.
    SameSerial {
        /// The name of the zone.
        zone: String,
        /// The serial of the zone.
        serial: u32,
    },
    /// The serial of a zone has decreased: no secondary will transfer it.
    OlderSerial {
        /// The name of the zone.
        zone: String,
        /// The serial of the zone.
        serial: u32,
    },
    /// The reload removed a backend that an operator had added.
    Gone {
        /// The name of the pool.
        pool: String,
        /// The name of the backend.
        backend: String,
    },
    /// The reload restored a backend that an operator had removed.
    Back {
        /// The name of the pool.
        pool: String,
        /// The name of the backend.
        backend: String,
    },
}

impl fmt::Display for ReloadNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restarts(key) => write!(f, "{key} has changed; restart to apply it"),
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

/// Lists the settings of `new` that need a new process: threads, which a supervisor restarts itself, and the
/// user.
pub(in crate::server) fn needs_restart(running: &Config, new: &Config, is_supervised: bool) -> Vec<ReloadNotice> {
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
