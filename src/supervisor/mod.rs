//! The processes beside the server: a supervisor, which starts and watches the others, and standbys.
//!
//! ```text
//!     started process   supervisor   has lock 2, holds all sockets; starts, watches, takes signals, reaps
//!       ├─ server       has lock 1   control thread and workers
//!       ├─ standby ─┐   wait for lock 1 (to serve) and lock 2 (to supervise);
//!       └─ standby ─┘   config and zones loaded, all sockets held
//! ```
//! All processes hold all listening sockets, so a socket outlives its reader; only the server reads them. Two
//! record locks (`locks.rs`) decide which process serves and which supervises. Any process that is left
//! restores the others: each introduces itself (`message.rs`, `channel.rs`), and again when its channel
//! closes.
//!
//! A pure state machine (`tree.rs`) decides and the supervisor obeys it (`supervise.rs`). Other processes
//! (`process.rs`) load (`prepare.rs`), stand by or take over (`standby.rs`, `takeover.rs`), and serve
//! (`serving.rs`).

mod channel;
mod common;
mod locks;
mod member;
mod message;
mod prepare;
mod process;
mod serving;
mod spawn;
mod standby;
mod supervise;
mod takeover;
pub mod tree;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use config::Config;
use metrics::Role;
use tokio::runtime::{self, LocalOptions};

use self::channel::{Channel, WatchedChannel};
use self::common::Common;
use self::message::{GivenUp, PROTOCOL, ProcessPart, State};
use self::process::MemberProcess;
pub use self::spawn::is_member;
use self::supervise::Supervisor;
use crate::control::give_up_early;
use crate::load::ConfigReader;
use crate::service_manager::passed_sockets;
use crate::signals::BlockedSignals;

/// Runs the supervisor until all processes end. Returns the exit status.
pub fn run(config: &Config) -> ExitCode {
    // This must precede opening anything that stays open.
    let passed = passed_sockets().map_err(io::Error::other);
    report(passed.and_then(|passed| Supervisor::first(config, passed)).and_then(Supervisor::run))
}

/// Runs the role that the parent process has assigned. `file` is the config file of the command line.
pub fn join(file: Option<PathBuf>) -> ExitCode {
    report(try_to_join(file))
}

fn try_to_join(file: Option<PathBuf>) -> io::Result<ExitCode> {
    // This must precede reading data of the server, which may be compromised while this process may be root.
    let to_give_up = spawn::to_give_up()?;
    if let Some(GivenUp { user, confinement, has_interfaces }) = &to_give_up {
        give_up_early(user.as_ref(), confinement.as_ref(), *has_interfaces).map_err(io::Error::other)?;
    }
    let (handover, descriptors, sockets) = spawn::unpack()?;
    let (part, is_same_protocol) = (handover.part, handover.protocol == PROTOCOL);
    let (mut common, way) = Common::unpacked(handover, descriptors, sockets)?;
    common.facts.given_up = to_give_up.or(common.facts.given_up);
    if let ProcessPart::Supervisor { is_succession } = part {
        return Supervisor::succeeding(common, is_succession)?.run();
    }
    // An early signal stays pending until it is taken.
    let signals = BlockedSignals::new()?;
    let mut reader = ConfigReader::new(file);
    reader.set_user(common.facts.given_up.as_ref().and_then(|given_up| given_up.user.clone()));
    let runtime = runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let status = runtime.block_on(async {
        let process = MemberProcess {
            common,
            part,
            // The introduction replaces it.
            channel: WatchedChannel::new(Channel::pair()?.0)?,
            state: State { role: Some(Role::Starting), ..State::default() },
            reader,
            coming: Vec::new(),
            way,
            is_zone_saved: false,
            is_same_protocol,
            supervise: None,
        };
        process.run(signals).await
    });
    runtime.shutdown_background();
    status
}

fn report(result: io::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("hedgerow: {error}");
        ExitCode::FAILURE
    })
}
