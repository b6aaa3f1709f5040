//! How a newcomer takes over from the server: what they tell each other on a channel of their own.
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
//! If the channel closes before "now", the newcomer ends: whoever has the lock by then serves as if there had been none.

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
use crate::net::tasks::blocking;
use crate::net::tcp::MovedConnection;
use crate::server::{Known, Learnt, Server};

/// What is told. What is large comes along as a memory file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Passing {
    /// Tell what is known; without the cache, if that is cold.
    Ask {
        /// Whether the newcomer begins without a cache.
        is_cold: bool,
    },
    Learnt,
    /// The cache is written into this pipe.
    Cache,
    /// That is all for now.
    Told,
    /// Let the newcomer serve.
    Now,
    /// By-hand changes and states of backends.
    Known,
    /// Numbers to be added.
    Counted,
    /// The newcomer serves.
    Serves,
    /// A connection of a client, with what was read of it.
    Connection {
        /// Whose it is.
        section: String,
        /// What was read and not handled.
        input: Vec<u8>,
    },
}

/// One end of the way between server and newcomer.
pub(super) struct Way {
    channel: Arc<Channel>,
    watched: UnixDatagram,
}

impl Way {
    /// The end that came with a message.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let channel = Channel::from(fd);
        Ok(Self { watched: watch(&channel)?, channel: Arc::new(channel) })
    }

    /// The next message; none if the other end is closed.
    pub(super) async fn next(&self) -> Option<(Passing, Option<OwnedFd>)> {
        let (message, mut descriptors) = receive(&self.channel, &self.watched).await?;
        Some((message, descriptors.pop()))
    }

    /// Tells the other something.
    ///
    /// # Errors
    /// If it is not there any more.
    pub(super) fn tell(&self, message: &Passing) -> io::Result<()> {
        self.channel.send(message, &[])
    }

    /// Tells it what comes along.
    ///
    /// # Errors
    /// If it is not there any more.
    pub(super) fn pass(&self, message: &Passing, value: &impl Serialize) -> io::Result<()> {
        pass(&self.channel, message, value)
    }

    /// Passes a connection on.
    ///
    /// # Errors
    /// If the other is not there any more, or does not keep up.
    pub(super) fn pass_connection(&self, moved: MovedConnection) -> io::Result<()> {
        let MovedConnection { section, input, socket } = moved;
        self.channel.send(&Passing::Connection { section, input }, &[socket.as_fd()])
    }

    /// Tells a newcomer what the server has learnt, while that goes on to serve.
    pub(super) fn give(&self, server: &Server, is_cold: bool) -> impl Future<Output = io::Result<()>> + use<> {
        let channel = Arc::clone(&self.channel);
        let (known, learnt) = (server.known(), server.learnt());
        let cache = if is_cold { None } else { server.save_cache() };
        async move {
            pass(&channel, &Passing::Known, &known)?;
            pass(&channel, &Passing::Learnt, &learnt.await)?;
            if let Some(save) = cache {
                let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
                channel.send(&Passing::Cache, &[reader.as_fd()])?;
                drop(reader);
                blocking(move || {
                    let mut writer = BufWriter::new(File::from(writer));
                    save(&mut writer).and_then(|_| writer.flush())
                })
                .await?;
            }
            channel.send(&Passing::Told, &[])
        }
    }
}

/// What a newcomer was told before it serves.
#[derive(Default)]
pub(super) struct Told {
    pub(super) known: Known,
    pub(super) learnt: Option<Learnt>,
    pub(super) cache: Option<Arc<Cache>>,
}

impl Told {
    /// Asks for all of it.
    ///
    /// # Errors
    /// If the server ends meanwhile, or tells nonsense.
    pub(super) async fn ask(way: &Way, config: &Config, is_cold: bool) -> io::Result<Self> {
        let mut told = Self::default();
        way.tell(&Passing::Ask { is_cold })?;
        loop {
            let ended = || io::Error::other("the server has ended meanwhile");
            match way.next().await.ok_or_else(ended)? {
                (Passing::Known, Some(known)) => told.known = unpack(&known)?,
                (Passing::Learnt, Some(learnt)) => told.learnt = Some(unpack(&learnt)?),
                (Passing::Cache, Some(pipe)) => {
                    let Some(learnt) = told.learnt.take() else { continue };
                    let (config, known) = (config.clone(), told.known.clone());
                    let (learnt, loaded) = blocking(move || {
                        let stream = BufReader::new(File::from(pipe));
                        let loaded = learnt.load_cache(&config, &known, stream);
                        (learnt, loaded)
                    })
                    .await;
                    told.learnt = Some(learnt);
                    told.cache = loaded.map_err(|error| io::Error::other(error.to_string()))?.map(|(cache, _)| cache);
                }
                (Passing::Told, _) => return Ok(told),
                _ => {}
            }
        }
    }
}

/// What came along.
///
/// # Errors
/// If it is something else.
pub(super) fn unpack<T: DeserializeOwned>(memory: &OwnedFd) -> io::Result<T> {
    Ok(serde_json::from_slice(&from_memory(memory.as_fd())?)?)
}

fn pass(channel: &Channel, message: &Passing, value: &impl Serialize) -> io::Result<()> {
    channel.send(message, &[to_memory(&serde_json::to_vec(value)?)?.as_fd()])
}

/// Numbers that are added to those of a newcomer.
pub(super) fn add_counted(server: &mut Server, counted: Option<&OwnedFd>) {
    match counted.map(unpack::<Snapshot>) {
        Some(Ok(counted)) => server.add_counted(&counted),
        Some(Err(error)) => tracing::warn!(%error, "the numbers of the process before are lost"),
        None => {}
    }
}
