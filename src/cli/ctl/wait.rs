//! `--wait` of `hedgerow ctl drain` and `down`: waits until no query is pending at the backend.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::connection::AdminConnection;
use super::{CommandFailure, WhichBackend};
use crate::admin::naming;

/// Waits until the backend gets no more queries and has no pending ones.
pub(super) fn until_idle(connection: &AdminConnection, which: &WhichBackend) -> Result<String, CommandFailure> {
    let deadline = Instant::now() + LONGEST;
    let mut attempts = None;
    loop {
        let status = connection.status()?;
        let pool = status.pools.iter().find(|pool| pool.name == which.pool);
        let backends = pool.map_or(&[][..], |pool| &pool.backends);
        let found = naming::find(&which.backend, backends.iter().map(|known| (&*known.name, known.address)));
        let Some(backend) = found.first().and_then(|place| backends.get(*place)) else {
            return Err(CommandFailure::Server(format!("{} is no longer in pool {}", which.backend, which.pool)));
        };
        let (name, pending, made) = (&backend.name, backend.work.in_flight, Some(backend.work.attempts.queries()));
        let is_asked = matches!(&*backend.state, "up" | "behind");
        // A worker may send a last query before it knows of the change, so one look is not enough.
        if !is_asked && pending == 0 && std::mem::replace(&mut attempts, made) == made {
            return Ok(format!("no query is pending at {name} of pool {}", which.pool));
        }
        if Instant::now() >= deadline {
            let time = humantime::format_duration(LONGEST);
            let pool = &which.pool;
            return Err(CommandFailure::Server(format!(
                "{pending} queries are pending at {name} of pool {pool} after {time}"
            )));
        }
        sleep(EVERY);
    }
}

/// Longer than any race and the wait for late replies.
const LONGEST: Duration = Duration::from_secs(120);

const EVERY: Duration = Duration::from_millis(100);
