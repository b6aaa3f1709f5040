//! Running a server in the foreground until a signal ends it: what `serve`, `ls` and `ts` have in common.

use std::io;
use std::process::ExitCode;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;

use super::load::LoadError;
use crate::admin::Refused;
use crate::server::{Call, Confinement, Drained, Server, Setup};

/// Serves until SIGTERM or SIGINT, and returns the exit status. `reload` is called on SIGHUP.
pub(super) fn foreground(setup: Setup, reload: impl FnMut(&Confinement) -> Result<Setup, LoadError>) -> ExitCode {
    let result = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(LocalSet::new().run_until(serve(setup, reload))));
    result.unwrap_or_else(|error| {
        eprintln!("hedgerow: {error}");
        ExitCode::FAILURE
    })
}

/// The life of the control thread.
async fn serve(setup: Setup, mut reload: impl FnMut(&Confinement) -> Result<Setup, LoadError>) -> io::Result<ExitCode> {
    // Before anything is bound: a signal that comes early must not kill us half-way.
    let mut signals = Signals::new()?;
    let mut server = match Server::start(setup) {
        Ok(server) => server,
        Err(error) => {
            eprintln!("hedgerow: {error}");
            return Ok(ExitCode::FAILURE);
        }
    };
    tracing::info!("ready {}", server.bound());
    loop {
        tokio::select! {
            _ = signals.hang_up.recv() => {
                let read = reload(server.confinement());
                drop(put_in_force(&mut server, read));
            }
            name = Signals::end(&mut signals.terminate, &mut signals.interrupt) => {
                tracing::info!("{name}: taking no more queries, finishing those in flight; a second signal ends at once");
                break;
            }
            call = server.supervise() => match call {
                Call::Reload(answer) => {
                    let read = reload(server.confinement());
                    let result = put_in_force(&mut server, read);
                    let _ = answer.send(result.map_err(Refused::Invalid));
                }
                Call::Lost(why) => end_with(&why),
            },
        }
    }
    let status = tokio::select! {
        (drained, summary) = server.drain() => {
            tracing::info!("{summary}");
            match drained {
                Drained::Whole => {
                    tracing::info!("drained");
                    return Ok(ExitCode::SUCCESS);
                }
                // No failure of ours: a client by TCP that does not take its responses can keep us for longer than is waited.
                Drained::Late => {
                    tracing::warn!("not drained in time: some clients did not get their responses");
                    0
                }
                Drained::Lost(why) => end_with(&why),
            }
        }
        name = Signals::end(&mut signals.terminate, &mut signals.interrupt) => {
            tracing::warn!("{name} again: ending at once");
            1
        }
    };
    // Threads may still run; they end with the process.
    std::process::exit(status)
}

/// Ends the process at once, since a part of it is lost. Going on would leave those clients without an answer for ever whom the kernel
/// sends there; whoever started us starts us anew.
fn end_with(why: &str) -> ! {
    tracing::error!("{why}; the process ends");
    std::process::exit(1);
}

/// Puts what was read again in force, or keeps what is. Logs and returns what came of it.
fn put_in_force(server: &mut Server, read: Result<Setup, LoadError>) -> Result<String, String> {
    let setup = read.map_err(|problems| {
        tracing::error!("reload failed, what was in force stays:\n{problems}");
        problems.to_string()
    })?;
    let mut said = "reloaded".to_owned();
    for remark in server.reload(setup) {
        tracing::warn!("reload: {remark}");
        said.push_str(&format!("; {remark}"));
    }
    tracing::info!("reloaded");
    Ok(said)
}

/// The signals that a server obeys.
struct Signals {
    /// SIGTERM: drain and end.
    terminate: Signal,
    /// SIGINT: the same.
    interrupt: Signal,
    /// SIGHUP: reload.
    hang_up: Signal,
}

impl Signals {
    /// Listens to all of them.
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal to end; returns its name.
    async fn end(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    }
}
