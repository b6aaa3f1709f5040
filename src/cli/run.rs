//! Running a server in the foreground until a signal ends it: what `serve`, `ls` and `ts` have in common.

use std::io;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime;
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::{ProcessChange, Refused};
use crate::load::{Confinement, LoadError, Setup};
use crate::net::listening::ListeningSocket;
use crate::server::{Carried, Listeners, Loss, Read, Rest, Server, ServerEvent, StartError, Xdp, confine};
use crate::service_manager::{Contact, ServiceManager, passed_sockets};
use crate::signals::{Blocked, SignalRequest};

/// Serves until SIGTERM or SIGINT, and returns the exit status. `read` reads config and zones again, on a thread that nobody
/// waits for.
pub(super) fn foreground(
    setup: Setup,
    read: impl FnMut(&Confinement) -> Result<Setup, LoadError> + Send + 'static,
) -> ExitCode {
    control(setup, Box::new(read)).unwrap_or_else(|error| {
        eprintln!("hedgerow: {error}");
        ExitCode::FAILURE
    })
}

/// Runs the control thread.
fn control(setup: Setup, read: Read) -> io::Result<ExitCode> {
    // Before anything is opened that stays open.
    let passed = match passed_sockets() {
        Ok(passed) => passed,
        Err(error) => {
            eprintln!("hedgerow: {error}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let signals = Blocked::new()?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(LocalSet::new().run_until(serve(setup, read, signals, passed)));
    // Threads that read or write files may hang in a stalled disk; they end with the process.
    runtime.shutdown_background();
    status
}

/// Opens what is listened on, gives up what is not needed any more, and starts to serve.
fn start(setup: Setup, read: Read, passed: Vec<ListeningSocket>) -> Result<Server, StartError> {
    let (listeners, unused) = Listeners::open(&setup.config, passed)?;
    for socket in unused {
        tracing::warn!(name = socket.name, "passed socket for {} closed: it is not in the config", socket.endpoint());
    }
    let mut xdp = Xdp::prepare(&setup.config);
    xdp.as_mut().map_or(Ok(()), |xdp| xdp.require(&setup.config))?;
    let confinement = confine(&setup, listeners.admin_socket())?;
    Server::start(setup, listeners, xdp, confinement, Carried::default(), read)
}

/// The life of the control thread.
async fn serve(setup: Setup, read: Read, signals: Blocked, passed: Vec<ListeningSocket>) -> io::Result<ExitCode> {
    let mut manager = ServiceManager::new(Contact::from_environment(), &passed);
    let mut server = match start(setup, read, passed) {
        Ok(server) => server,
        Err(error) => {
            eprintln!("hedgerow: {error}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let mut signals = signals.take()?;
    server.ask_sources().await;
    tracing::info!("ready {}", server.bound());
    keep(&mut manager, &server);
    manager.ready(&format!("serving {}", server.bound()));
    // Never, without a manager.
    let mut tick = interval(manager.interval().unwrap_or(Duration::from_secs(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Ok(SignalRequest::Reload) => server.reload(None),
                Ok(SignalRequest::Upgrade) => tracing::warn!("SIGUSR2: upgrade refused: {NO_SUPERVISOR}"),
                Ok(SignalRequest::End(name)) => {
                    tracing::info!("{name}: {}; a second signal ends at once", server.stopping());
                    break;
                }
                Err(lost) => end_with(&Loss { worker: None, lost }),
            },
            _ = tick.tick(), if manager.interval().is_some() => manager.tick(server.makes_progress()),
            event = server.supervise() => match event {
                ServerEvent::Lost(loss) => end_with(&loss),
                // There is nobody to tell.
                ServerEvent::Known(_) | ServerEvent::ZoneSaved => {}
                ServerEvent::Asked(ProcessChange::Stop, answer) => {
                    tracing::info!("stop: {}", server.stopping());
                    let _ = answer.send(Ok(server.stopping()));
                    break;
                }
                ServerEvent::Asked(
                    change @ (ProcessChange::Restart { .. } | ProcessChange::Upgrade { .. }),
                    answer,
                ) => {
                    tracing::warn!("{} refused: {NO_SUPERVISOR}", change.label());
                    let _ = answer.send(Err(Refused::Conflict(NO_SUPERVISOR.to_owned())));
                }
                ServerEvent::Reloading => manager.reloading(),
                ServerEvent::Reloaded { edition, error } => {
                    keep(&mut manager, &server);
                    let result = error.map_or_else(|| format!("edition {edition}"), |error| format!("reload failed: {error}"));
                    manager.ready(&format!("serving {}; {result}", server.bound()));
                }
            },
        }
    }
    manager.stopping();
    let rest = if manager.is_keeping() { Rest::Kept } else { Rest::Taken };
    let mut drain = pin!(server.drain(rest));
    let (drained, summary, _) = loop {
        tokio::select! {
            drained = &mut drain => break drained,
            // It ends by itself.
            _ = tick.tick(), if manager.interval().is_some() => manager.tick(true),
        }
    };
    // Threads may still run; they end with the process.
    std::process::exit(drained.report(&summary))
}

/// Has the service manager keep what the server listens on.
fn keep(manager: &mut ServiceManager, server: &Server) {
    let kept = server.listeners().to_pass().and_then(|sockets| manager.keep(&sockets));
    kept.unwrap_or_else(|error| {
        tracing::warn!(%error, "the service manager does not keep what is listened on: raise the limit of descriptors");
    });
}

/// Ends the process at once, since a part of it is lost.
fn end_with(loss: &Loss) -> ! {
    loss.report();
    std::process::exit(1);
}

/// What is said to whoever asks one process to have another take over.
const NO_SUPERVISOR: &str = "there is no supervisor to start another process: set [supervisor] in the config and start hedgerow anew, the way it was started";
