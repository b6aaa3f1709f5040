//! Runs a server in the foreground until a signal ends it, for `serve`, `ls` and `ts`.

use std::io;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use net::from_clients::listening::ListeningSocket;
use tokio::runtime::{self, LocalOptions};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::failure;
use crate::admin::{ChangeRefusal, ProcessChange};
use crate::control::{
    CarriedState, Interfaces, Listeners, Loss, Read, Server, ServerEvent, StartError, confine, warn_of_root,
};
use crate::load::{Confinement, LoadError, Setup};
use crate::service_manager::{Contact, ServiceManager, passed_sockets};
use crate::signals::{BlockedSignals, SignalRequest};
use crate::worker::QueuedQueryFate;

/// Serves until SIGTERM or SIGINT and returns the exit status. `read` reloads config and zones on a separate
/// thread.
pub(super) fn foreground(
    setup: Setup,
    read: impl FnMut(&Confinement) -> Result<Setup, LoadError> + Send + 'static,
) -> ExitCode {
    control(setup, Box::new(read)).unwrap_or_else(|error| failure(format_args!("hedgerow: {error}")))
}

fn control(setup: Setup, read: Read) -> io::Result<ExitCode> {
    // First, before other descriptors are opened.
    let passed = match passed_sockets() {
        Ok(passed) => passed,
        Err(error) => return Ok(failure(format_args!("hedgerow: {error}"))),
    };
    let signals = BlockedSignals::new()?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let status = runtime.block_on(serve(setup, read, signals, passed));
    // Threads that read or write files may hang on a stalled disk; they end with the process.
    runtime.shutdown_background();
    status
}

/// Opens the sockets, drops privileges and starts to serve.
fn start(setup: Setup, read: Read, passed: Vec<ListeningSocket>) -> Result<Server, StartError> {
    setup.log_start();
    warn_of_root(&setup.config);
    let (listeners, unused) = Listeners::open(&setup.config, passed)?;
    for socket in unused {
        tracing::warn!(name = socket.name, "passed socket for {} closed: it is not in the config", socket.endpoint());
    }
    let interfaces = Interfaces::prepare(&setup.config, true)?;
    let confinement = confine(&setup, listeners.admin_socket())?;
    Server::start(setup, listeners, interfaces, confinement, CarriedState::default(), read)
}

async fn serve(
    setup: Setup,
    read: Read,
    signals: BlockedSignals,
    passed: Vec<ListeningSocket>,
) -> io::Result<ExitCode> {
    let mut manager = ServiceManager::new(Contact::from_environment(), &passed)?;
    let mut server = match start(setup, read, passed) {
        Ok(server) => server,
        Err(error) => return Ok(failure(format_args!("hedgerow: {error}"))),
    };
    let mut signals = signals.take()?;
    server.pools.ask_sources().await;
    tracing::info!("ready {}", server.process.bound());
    keep(&mut manager, &server);
    manager.ready(&format!("serving {}", server.process.bound()));
    // Unused without a manager.
    let mut tick = interval(manager.interval().unwrap_or(Duration::from_secs(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Ok(SignalRequest::Reload) => server.reload(None),
                Ok(SignalRequest::Upgrade) => tracing::warn!("SIGUSR2: upgrade refused: {NO_SUPERVISOR}"),
                Ok(SignalRequest::End(name)) => {
                    tracing::info!("{name}: {}; a second signal ends at once", server.process.stopping());
                    break;
                }
                Err(lost) => end_with(&Loss { worker: None, lost }),
            },
            _ = tick.tick(), if manager.interval().is_some() => manager.tick(server.makes_progress()),
            event = server.supervise() => match event {
                ServerEvent::Lost(loss) => end_with(&loss),
                // Without a supervisor, these events have no receiver.
                ServerEvent::Known(_) | ServerEvent::ZoneSaved | ServerEvent::Latency(_) => {}
                ServerEvent::Asked(ProcessChange::Stop, answer) => {
                    tracing::info!("stop: {}", server.process.stopping());
                    let _ = answer.send(Ok(server.process.stopping()));
                    break;
                }
                ServerEvent::Asked(
                    change @ (ProcessChange::Restart { .. } | ProcessChange::Upgrade { .. }),
                    answer,
                ) => {
                    tracing::warn!("{} refused: {NO_SUPERVISOR}", change.label());
                    let _ = answer.send(Err(ChangeRefusal::Conflict(NO_SUPERVISOR.to_owned())));
                }
                ServerEvent::Reloading => manager.reloading(),
                ServerEvent::Reloaded { edition, error } => {
                    keep(&mut manager, &server);
                    let result = error.map_or_else(|| format!("edition {edition}"), |error| format!("reload failed: {error}"));
                    manager.ready(&format!("serving {}; {result}", server.process.bound()));
                }
            },
        }
    }
    end(server, manager, tick).await
}

/// Drains the server, and ends the process.
async fn end(server: Server, mut manager: ServiceManager, mut tick: Interval) -> ! {
    manager.stopping();
    let rest = if manager.contact().is_there() { QueuedQueryFate::Kept } else { QueuedQueryFate::Taken };
    let mut drain = pin!(server.drain(rest));
    let (drained, summary, _) = loop {
        tokio::select! {
            drained = &mut drain => break drained,
            // The drain ends by itself, so the watchdog always sees progress.
            _ = tick.tick(), if manager.interval().is_some() => manager.tick(true),
        }
    };
    std::process::exit(drained.report(&summary))
}

/// Passes the listening sockets to the service manager to keep.
fn keep(manager: &mut ServiceManager, server: &Server) {
    let kept = server.process.listeners().to_pass().and_then(|sockets| manager.keep(&sockets));
    kept.unwrap_or_else(|error| {
        tracing::warn!(%error, "the service manager cannot store the listening sockets: raise the limit of file descriptors");
    });
}

/// Ends the process at once, because a part of it failed.
fn end_with(loss: &Loss) -> ! {
    loss.report();
    std::process::exit(1);
}

const NO_SUPERVISOR: &str = "there is no supervisor to start another process: set [supervisor] in the config and start hedgerow again in the same way";
