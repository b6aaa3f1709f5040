//! Processes beside the one that serves: a supervisor, which starts and watches them, and standbys, which have all loaded and wait.
//!
//! ```text
//!     started process            supervisor     has lock 2, holds all sockets; starts, watches, takes signals, reaps
//!       ├─ server                 has lock 1     control thread and workers
//!       ├─ standby ─┐             wait for lock 1 (to serve) and lock 2 (to supervise); config and zones loaded, all sockets held
//!       └─ standby ─┘
//! ```
//! Three rules carry it. A socket outlives its reader: all hold all listening sockets, one reads them. The kernel says who: two
//! record locks (`locks.rs`). Any one that is left brings back the rest: nobody keeps a list, each process introduces itself
//! (`message.rs`, `channel.rs`), and again when its channel closes.
//!
//! What is decided is decided by a pure machine (`tree.rs`), which the supervisor obeys (`supervise.rs`). The others load
//! (`prepare.rs`), stand by and serve (`live.rs`), or take over from a server that knows of it (`takeover.rs`). How one begins is told in `spawn.rs`.

mod channel;
mod common;
mod live;
mod locks;
mod member;
mod message;
mod prepare;
mod serving;
mod spawn;
mod supervise;
mod takeover;
mod tree;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::runtime;
use tokio::task::LocalSet;

use self::channel::Channel;
use self::common::Common;
use self::live::Live;
use self::message::{GivenUp, PROTOCOL, Part, State};
use self::prepare::Member;
pub use self::spawn::is_member;
use self::supervise::Supervisor;
use crate::config::Config;
use crate::load::Reader;
use crate::metrics::Role;
use crate::server::give_up_early;
use crate::service_manager::passed_sockets;
use crate::signals::Blocked;

/// Supervises: starts the server and those that stand by, until all end. Returns the exit status.
pub fn run(config: &Config) -> ExitCode {
    // Before anything is opened that stays open.
    let passed = passed_sockets().map_err(io::Error::other);
    told(passed.and_then(|passed| Supervisor::first(config, passed)).and_then(Supervisor::run))
}

/// Is what the process that has started this one says: a server, a standby, a newcomer, or the supervisor. `file` is the config
/// file that was named.
pub fn join(file: Option<PathBuf>) -> ExitCode {
    told(try_to_join(file))
}

fn try_to_join(file: Option<PathBuf>) -> io::Result<ExitCode> {
    // Before anything is read that a server may have written: it may be taken over, and this process may be root's.
    let to_give_up = spawn::to_give_up()?;
    if let Some(GivenUp { user, confinement, has_xdp }) = &to_give_up {
        give_up_early(user.as_ref(), confinement.as_ref(), *has_xdp).map_err(io::Error::other)?;
    }
    let (handover, descriptors, sockets) = spawn::unpack()?;
    let (part, is_same_protocol) = (handover.part, handover.protocol == PROTOCOL);
    let (mut common, way) = Common::unpacked(handover, descriptors, sockets)?;
    common.given_up = to_give_up.or(common.given_up);
    if let Part::Supervisor { is_succession } = part {
        return Supervisor::succeeding(common, is_succession)?.run();
    }
    // A signal that comes early waits until somebody takes it.
    let signals = Blocked::new()?;
    let (channel, _) = Channel::pair()?;
    let state = State { role: Some(Role::Starting), ..State::default() };
    let (mut reader, coming) = (Reader::new(file), Vec::new());
    reader.set_user(common.given_up.as_ref().and_then(|given_up| given_up.user.clone()));
    let mut member =
        Member { common, part, channel, state, reader, coming, way, is_zone_saved: false, is_same_protocol };
    member.introduce()?;
    let prepared = match member.prepare() {
        Ok(prepared) => prepared,
        Err(status) => return Ok(status),
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(LocalSet::new().run_until(Live::run(member, prepared, signals)));
    runtime.shutdown_background();
    status
}

/// Says what has gone wrong.
fn told(result: io::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("hedgerow: {error}");
        ExitCode::FAILURE
    })
}
