//! `hedgerow ctl`: shows and changes a running server through its admin server
//! (docs/src/contract.md, Commands).
//!
//! `connection` finds the server and sends requests; each command that shows something has a function from
//! the server's JSON to text, most of them by `table`. This module only knows the HTTP interface of the
//! server.

mod cache;
mod certificates;
pub(super) mod connection;
mod explain;
mod members;
mod names;
mod record;
mod replicas;
mod slow;
mod status;
pub(super) mod table;
mod wait;
mod zones;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use config::{limits, words};
use dns::address::BackendAddress;
use net::sys::clock::{unix_now, unix_seconds};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use self::connection::{AdminConnection, AdminOrder, AdminTarget, encoded};
use super::{failure, print, usage};
use crate::admin::CertificateSnapshot;
use crate::control::observe::sight::serials::Serials;
use crate::load::user_name;

/// Show and change a running server
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The admin server, http://HOST:PORT or unix:PATH [default: the config's, or http://127.0.0.1:5380 if it
    /// has none]
    #[arg(long, value_name = "URL", global = true)]
    admin: Option<AdminTarget>,
    /// The token for changes by HTTP [default: that of the config, for its admin server]
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the server with its pools and backends
    Status(Show),
    /// Show the backends
    Backends(Show),
    /// Add a backend to a pool, and probe it before it receives queries
    Add {
        /// Name of the pool
        pool: String,
        /// Address of the backend: IP and port, with tcp:// or tls:// before it if needed
        #[arg(value_parser = words::member_address)]
        address: BackendAddress,
        /// Share of the load
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = weight())]
        weight: u16,
    },
    /// Stop new queries to a backend, and let pending ones finish
    Drain(WhatToStop),
    /// Remove a backend from its pool
    Remove(WhichBackend),
    /// Force a backend up, regardless of probes, until auto
    Up(WhatToDo),
    /// Force a backend down, regardless of probes, until auto
    Down(WhatToStop),
    /// Let the probes decide again if a backend is up
    Auto(WhatToDo),
    /// Show the sources of members, and the members that each source lists
    Members(members::MembersArgs),
    /// Reload the config and the zones
    Reload,
    /// Show the processes: supervisor, server, standbys
    Processes(Show),
    /// Start a new process with the config on disk, and hand over to it
    Restart(NewProcessArgs),
    /// Start a new process from the program file on disk, and hand over to it
    Upgrade(NewProcessArgs),
    /// Drain and stop all processes
    Stop,
    /// Run one query and explain it: the backends, the reasons, the response
    Explain(explain::ExplainArgs),
    /// List slow and failed races with their reasons, newest first
    Slow(slow::SlowArgs),
    /// Write the latencies of races to a file, for hedgerow simulate --trace
    Record(record::RecordArgs),
    /// Show the most frequent names and clients of the last ten minutes
    Names(Show),
    /// Show the zone versions of the members of a pool, and the members that lag
    Serials(OfPool),
    /// List the questions that members of a pool answer differently, with their replies
    Divergence(OfPool),
    /// Show the certificates of encrypted listeners: names, expiry, problems
    Certificates(Show),
    /// Show all zones, and the state of catalog zones
    Zones(Show),
    /// Accept a held-back change of the members of a pool or of a catalog zone
    Accept {
        /// Name of the pool or of the catalog zone
        name: String,
    },
    /// Show or flush the cache
    #[command(subcommand)]
    Cache(cache::CacheAction),
}

#[derive(Debug, clap::Args)]
struct Show {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

impl Show {
    fn print<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> String {
        if self.json { to_json(value) } else { text(value) }
    }

    /// Fetches a value from a path below `/api/v1/`, and formats it.
    fn fetch<T: DeserializeOwned + Serialize>(
        &self,
        connection: &AdminConnection,
        path: &str,
        query: &[(&str, Option<&str>)],
        text: impl FnOnce(&T) -> String,
    ) -> Result<String, CommandFailure> {
        Ok(self.print(&connection.fetch_with(path, query)?, text))
    }
}

#[derive(Debug, clap::Args)]
struct OfPool {
    /// Name of the pool [default: all]
    pool: Option<String>,
    #[command(flatten)]
    show: Show,
}

impl OfPool {
    fn query(&self) -> [(&str, Option<&str>); 1] {
        [("pool", self.pool.as_deref())]
    }
}

#[derive(Debug, clap::Args)]
struct NewProcessArgs {
    /// Start with an empty cache
    #[arg(long)]
    cold: bool,
}

#[derive(Debug, clap::Args)]
struct WhichBackend {
    /// Name of the pool
    pool: String,
    /// Name or address of the backend; the port may be left out if the address has only one
    backend: String,
}

#[derive(Debug, clap::Args)]
struct WhatToStop {
    #[command(flatten)]
    what: WhatToDo,
    /// Return once no query is pending at the backend
    #[arg(long)]
    wait: bool,
}

impl WhatToStop {
    fn obey(&self, connection: &AdminConnection, action: &str) -> Result<String, CommandFailure> {
        let done = connection.change(&self.what.order(action))?;
        if !self.wait {
            return Ok(done);
        }
        Ok(format!("{done}\n{}", wait::until_idle(connection, &self.what.which)?))
    }
}

#[derive(Debug, clap::Args)]
struct WhatToDo {
    #[command(flatten)]
    which: WhichBackend,
    /// Apply it to all forwarders that use the same etcd
    #[arg(long)]
    fleet: bool,
    /// End it automatically after this time; then the probes decide again
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// Apply it even if no other backend of the pool receives queries
    #[arg(long)]
    force: bool,
}

impl WhichBackend {
    fn path(&self) -> String {
        format!("pools/{}/backends/{}", encoded(&self.pool), encoded(&self.backend))
    }
}

impl WhatToDo {
    fn order(&self, action: &str) -> AdminOrder {
        let order = AdminOrder::post(format!("{}/{action}", self.which.path()));
        let seconds = self.lasts.map(|lasts| lasts.as_secs());
        if self.fleet {
            return order.with(&json!({ "fleet": true, "by": who(), "for_seconds": seconds, "force": self.force }));
        }
        if !self.force && seconds.is_none() {
            return order;
        }
        order.with(&json!({ "for_seconds": seconds, "force": self.force }))
    }
}

fn who() -> String {
    let uid = nix::unistd::getuid().as_raw();
    let user = user_name(uid).unwrap_or_else(|| uid.to_string());
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok());
    format!("{user}@{}", host.unwrap_or_default())
}

fn weight() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(i64::from(limits::WEIGHT.min)..=i64::from(limits::WEIGHT.max))
}

/// Runs the command. Exit status 0: done. 1: the server refused or cannot be reached. 2: wrong command line
/// or config.
pub(super) fn run(args: &Args, config: Option<&Path>) -> ExitCode {
    let answer = AdminConnection::find(args.admin.as_ref(), args.token_file.as_deref(), config)
        .and_then(|connection| obey(&connection, &args.action));
    answer.map_or_else(|failure| failure.report("hedgerow"), |text| print(format!("{text}\n").as_bytes()))
}

#[derive(Debug, thiserror::Error)]
pub(super) enum CommandFailure {
    /// The command line or the config is wrong.
    #[error("{0}")]
    Usage(String),
    /// The server or this host failed.
    #[error("{0}")]
    Server(String),
}

impl CommandFailure {
    /// Reports the failure of a program on stderr, and returns its exit status.
    pub(super) fn report(&self, program: &str) -> ExitCode {
        match self {
            Self::Usage(message) => usage(format_args!("{program}: {message}")),
            Self::Server(message) => failure(format_args!("{program}: {message}")),
        }
    }
}

fn obey(connection: &AdminConnection, action: &Action) -> Result<String, CommandFailure> {
    let order = match action {
        Action::Status(show) => return show.fetch(connection, "status", &[], status::status),
        Action::Backends(show) => {
            return Ok(show.print(&status::in_pools(&connection.status()?), |all| status::backends(all)));
        }
        Action::Processes(show) => {
            return Ok(show.print(&connection.status()?.processes.processes, |all| status::processes(all)));
        }
        Action::Members(which) => return members::obey(connection, which),
        Action::Explain(asked) => return explain::obey(connection, asked),
        Action::Slow(which) => return slow::obey(connection, which),
        Action::Record(asked) => return record::obey(connection, asked),
        Action::Names(show) => return show.fetch(connection, "names", &[], names::text),
        Action::Serials(which) => {
            let text = |all: &Serials| replicas::serials(all, unix_seconds(Duration::ZERO));
            return which.show.fetch(connection, "serials", &which.query(), text);
        }
        Action::Divergence(which) => {
            return which.show.fetch(connection, "divergence", &which.query(), replicas::divergences);
        }
        Action::Certificates(show) => {
            let text = |all: &Vec<CertificateSnapshot>| certificates::text(all, unix_now());
            return show.fetch(connection, "certificates", &[], text);
        }
        Action::Zones(show) => return show.fetch(connection, "zones", &[], zones::text),
        Action::Cache(action) => return cache::obey(connection, action),
        Action::Add { pool, address, weight } => AdminOrder::post(format!("pools/{}/backends", encoded(pool)))
            .with(&json!({ "address": address, "weight": weight })),
        Action::Drain(what) => return what.obey(connection, "drain"),
        Action::Remove(place) => AdminOrder::delete(place.path()),
        Action::Up(what) => what.order("up"),
        Action::Down(what) => return what.obey(connection, "down"),
        Action::Auto(what) => what.order("auto"),
        Action::Reload => AdminOrder::post("reload"),
        Action::Restart(NewProcessArgs { cold }) => AdminOrder::post("restart").with(&json!({ "cold": cold })),
        Action::Upgrade(NewProcessArgs { cold }) => AdminOrder::post("upgrade").with(&json!({ "cold": cold })),
        Action::Stop => AdminOrder::post("stop"),
        Action::Accept { name } => AdminOrder::post(format!("accept/{}", encoded(name))),
    };
    connection.change(&order)
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("plain data with text for keys")
}
