//! The takeover of a newcomer from the server, on a channel between the two.
//!
//! ```text
//!   newcomer                                    server, which serves
//!     Ask ───────────────────────────────────────▶
//!     ◀───────────────── Known, Learnt, Cache (a pipe)     nothing has changed yet
//!     takes the place next in line
//!     Now ───────────────────────────────────────▶
//!     ◀──────────────────────────── Known, Counted         and gives the lock up
//!     has the lock, serves
//!     Serves ────────────────────────────────────▶         drains
//!     ◀───────────────── connections, each as it falls idle
//!     ◀──────────────────────── Counted (the rest)         ends
//! ```
//! If the channel closes before `Now`, the newcomer ends and the process with the lock serves on.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::pipe::{PipeFlags, pipe_with};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixDatagram;

use super::channel::Channel;
use super::live::{receive, watch};
use super::message::{from_memory, to_memory};
use crate::cache::Cache;
use crate::config::Config;
use crate::metrics::Snapshot;
use crate::net::from_clients::tcp::MovedConnection;
use crate::net::tasks::blocking;
use crate::server::{CarriedPools, Learnt, Server};

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
    Connection {
        section: String,
        /// Data that was read and not handled.
        input: Vec<u8>,
    },
}

pub(super) struct TakeoverChannel {
    channel: Arc<Channel>,
    watched: UnixDatagram,
}

impl TakeoverChannel {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let channel = Channel::from(fd);
        Ok(Self { watched: watch(&channel)?, channel: Arc::new(channel) })
    }

    pub(super) async fn next(&self) -> Option<(TakeoverMessage, Option<OwnedFd>)> {
        let (message, mut descriptors) = receive(&self.channel, &self.watched).await?;
        Some((message, descriptors.pop()))
    }

    pub(super) fn send(&self, message: &TakeoverMessage) -> io::Result<()> {
        self.channel.send(message, &[])
    }

    pub(super) fn pass(&self, message: &TakeoverMessage, value: &impl Serialize) -> io::Result<()> {
        pass(&self.channel, message, value)
    }

    pub(super) fn pass_connection(&self, moved: MovedConnection) -> io::Result<()> {
        let MovedConnection { section, input, socket } = moved;
        self.channel.send(&TakeoverMessage::Connection { section, input }, &[socket.as_fd()])
    }

    /// Sends a newcomer the learned state while the server continues to serve.
    pub(super) fn give(&self, server: &Server, is_cold: bool) -> impl Future<Output = io::Result<()>> + use<> {
        let channel = Arc::clone(&self.channel);
        let (known, learnt) = (server.known(), server.pools.learnt());
        let cache = if is_cold { None } else { server.pools.save_cache() };
        async move {
            pass(&channel, &TakeoverMessage::Known, &known)?;
            pass(&channel, &TakeoverMessage::Learnt, &learnt.await)?;
            if let Some(save) = cache {
                let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
                channel.send(&TakeoverMessage::Cache, &[reader.as_fd()])?;
                drop(reader);
                blocking(move || {
                    let mut writer = BufWriter::new(File::from(writer));
                    save(&mut writer).and_then(|_| writer.flush())
                })
                .await?;
            }
            channel.send(&TakeoverMessage::Complete, &[])
        }
    }
}

#[derive(Default)]
pub(super) struct TakeoverState {
    pub(super) known: CarriedPools,
    pub(super) learnt: Option<Learnt>,
    pub(super) cache: Option<Arc<Cache>>,
}

impl TakeoverState {
    pub(super) async fn ask(way: &TakeoverChannel, config: &Config, is_cold: bool) -> io::Result<Self> {
        let mut taken = Self::default();
        way.send(&TakeoverMessage::Ask { is_cold })?;
        loop {
            let ended = || io::Error::other("the server has ended");
            match way.next().await.ok_or_else(ended)? {
                (TakeoverMessage::Known, Some(known)) => taken.known = unpack(&known)?,
                (TakeoverMessage::Learnt, Some(learnt)) => taken.learnt = Some(unpack(&learnt)?),
                (TakeoverMessage::Cache, Some(pipe)) => {
                    let Some(learnt) = taken.learnt.take() else { continue };
                    let (config, known) = (config.clone(), taken.known.clone());
                    let (learnt, loaded) = blocking(move || {
                        let stream = BufReader::new(File::from(pipe));
                        let loaded = learnt.load_cache(&config, &known, stream);
                        (learnt, loaded)
                    })
                    .await;
                    taken.learnt = Some(learnt);
                    taken.cache = loaded.map_err(|error| io::Error::other(error.to_string()))?.map(|(cache, _)| cache);
                }
                (TakeoverMessage::Complete, _) => return Ok(taken),
                _ => {}
            }
        }
    }
}

pub(super) fn unpack<T: DeserializeOwned>(memory: &OwnedFd) -> io::Result<T> {
    Ok(serde_json::from_slice(&from_memory(memory.as_fd())?)?)
}

fn pass(channel: &Channel, message: &TakeoverMessage, value: &impl Serialize) -> io::Result<()> {
    channel.send(message, &[to_memory(&serde_json::to_vec(value)?)?.as_fd()])
}

pub(super) fn add_counted(server: &mut Server, counted: Option<&OwnedFd>) {
    match counted.map(unpack::<Snapshot>) {
        Some(Ok(counted)) => server.add_counted(&counted),
        Some(Err(error)) => tracing::warn!(%error, "the counters of the previous process are lost"),
        None => {}
    }
}
