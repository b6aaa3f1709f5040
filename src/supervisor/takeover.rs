//! The takeover of a newcomer from the server, on a channel between the two.
//!
//! ```text
//!   newcomer                                    server, which serves
//!     Ask ───────────────────────────────────────▶
//!     ◀───────────────── Known, Learnt, Cache (a pipe)     nothing has changed yet
//!     takes the place next in line
//!     Now ───────────────────────────────────────▶
//!     ◀─────────────── Known, Counted (with the history)   and gives the lock up
//!     has the lock, serves
//!     Serves ────────────────────────────────────▶         drains
//!     ◀───────────────── connections, each as it falls idle
//!     ◀──────────────────────── Counted (the rest)         ends
//! ```
//! If the channel closes before `Now`, the newcomer ends and the process with the lock serves on.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write as _};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use config::Config;
use metrics::Snapshot;
use net::from_clients::tcp::MovedConnection;
use net::tasks::blocking;
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::channel::WatchedChannel;
use super::message::{from_memory, pack, to_memory, unpack};
use crate::control::observe::sight::SavedHistory;
use crate::control::{CarriedCache, CarriedState, Server};

/// A message of the takeover. Large data accompanies it in a memory file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum TakeoverMessage {
    Ask {
        is_cold: bool,
    },
    Learnt,
    /// The server writes the cache into this pipe.
    Cache,
    Complete,
    /// Allows the newcomer to serve: the server must release the lock.
    Now,
    /// Manual changes and states of backends.
    Known,
    Counted,
    Serves,
    /// With the socket, and data that was read and not handled, if there is any.
    Connection {
        section: String,
    },
}

/// Asks the server for its state.
pub(super) async fn ask(way: &WatchedChannel, config: &Config, is_cold: bool) -> io::Result<CarriedState> {
    let cache = if is_cold { CarriedCache::Cold } else { CarriedCache::Persisted };
    let mut carried = CarriedState { cache, ..CarriedState::default() };
    way.send(&TakeoverMessage::Ask { is_cold }, &[])?;
    loop {
        let (message, mut descriptors) = way.next().await.ok_or_else(|| io::Error::other("the server has ended"))?;
        match (message, descriptors.pop()) {
            (TakeoverMessage::Known, Some(known)) => carried.known = unpack(&known)?,
            (TakeoverMessage::Learnt, Some(learnt)) => carried.learnt = Some(unpack(&learnt)?),
            (TakeoverMessage::Cache, Some(pipe)) => {
                let Some(learnt) = carried.learnt.take() else { continue };
                let (config, known) = (config.clone(), carried.known.clone());
                let (learnt, loaded) = blocking(move || {
                    let loaded = learnt.load_cache(&config, &known, BufReader::new(File::from(pipe)));
                    (learnt, loaded)
                })
                .await;
                carried.learnt = Some(learnt);
                if let Some((cache, _)) = loaded.map_err(|error| io::Error::other(error.to_string()))? {
                    carried.cache = CarriedCache::Sent(cache);
                }
            }
            (TakeoverMessage::Complete, _) => return Ok(carried),
            _ => {}
        }
    }
}

/// Sends a newcomer the learned state while the server continues to serve.
pub(super) fn give(
    way: &Arc<WatchedChannel>,
    server: &Server,
    is_cold: bool,
) -> impl Future<Output = io::Result<()>> + use<> {
    let way = Arc::clone(way);
    let (known, learnt) = (server.known(), server.pools.learnt());
    let cache = if is_cold { None } else { server.pools.save_cache() };
    async move {
        pass(&way, &TakeoverMessage::Known, &known)?;
        pass(&way, &TakeoverMessage::Learnt, &learnt.await)?;
        if let Some(save) = cache {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            way.send(&TakeoverMessage::Cache, &[reader.as_fd()])?;
            drop(reader);
            blocking(move || {
                let mut writer = BufWriter::new(File::from(writer));
                save(&mut writer).and_then(|_| writer.flush())
            })
            .await?;
        }
        way.send(&TakeoverMessage::Complete, &[])
    }
}

/// Sends a newcomer the connections that have fallen idle, as fast as it takes them. Returns when no more can
/// come, or if the newcomer has not taken all soon after the end of the drain.
pub(super) async fn give_connections(
    way: &WatchedChannel,
    mut connections: UnboundedReceiver<MovedConnection>,
    drained: oneshot::Receiver<()>,
) {
    let given = async {
        let mut is_logged = false;
        while let Some(moved) = connections.recv().await {
            if let Err(error) = give_connection(way, moved).await
                && !mem::replace(&mut is_logged, true)
            {
                tracing::warn!(%error, "connections of clients cannot move to the new process");
            }
        }
    };
    let late = async {
        let _ = drained.await;
        sleep_until(Instant::now() + TAKING).await;
    };
    tokio::select! {
        () = given => {}
        () = late => tracing::warn!("the new process does not take all connections of clients: the others close"),
    }
}

/// The time that a newcomer gets to take the last connections.
const TAKING: Duration = Duration::from_secs(1);

async fn give_connection(way: &WatchedChannel, moved: MovedConnection) -> io::Result<()> {
    let MovedConnection { section, input, socket } = moved;
    // A long message that has come in part does not fit in a message of the channel.
    let input = if input.is_empty() { None } else { Some(to_memory(&input)?) };
    let files: Vec<_> = input.iter().chain([&socket]).map(AsFd::as_fd).collect();
    way.send_in_turn(&TakeoverMessage::Connection { section }, &files).await
}

pub(super) fn take_connection(
    server: &Server,
    section: String,
    socket: OwnedFd,
    input: Option<&OwnedFd>,
) -> io::Result<()> {
    let input = input.map(|input| from_memory(input.as_fd())).transpose()?.unwrap_or_default();
    server.process.adopt(MovedConnection { section, input, socket });
    Ok(())
}

pub(super) fn pass(way: &WatchedChannel, message: &TakeoverMessage, value: &impl Serialize) -> io::Result<()> {
    way.send(message, &[pack(value)?.as_fd()])
}

/// Sends the counters and, in another memory file, the history. A process that knows no history takes the
/// last file only.
pub(super) fn give_counted(way: &WatchedChannel, counted: &Snapshot, history: Option<&SavedHistory>) -> io::Result<()> {
    let (history, counted) = (history.map(pack).transpose()?, pack(counted)?);
    let files: Vec<_> = history.iter().chain([&counted]).map(AsFd::as_fd).collect();
    way.send(&TakeoverMessage::Counted, &files)
}

pub(super) fn add_counted(server: &mut Server, counted: Option<&OwnedFd>, history: Option<&OwnedFd>) {
    match counted.map(unpack::<Snapshot>) {
        Some(Ok(counted)) => server.add_counted(&counted),
        Some(Err(error)) => tracing::warn!(%error, "the counters of the previous process are lost"),
        None => {}
    }
    match history.map(unpack) {
        Some(Ok(history)) => server.take_history(&history),
        Some(Err(error)) => tracing::warn!(%error, "the history of the previous process is lost"),
        None => {}
    }
}
