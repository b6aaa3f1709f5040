//! `hedgerow ctl`: shows and changes a running server by its admin server (docs/src/contract.md, Commands).
//!
//! `connection` finds the server and asks it; `table` shows what it says; `cache` is what there is to do with the cache.
//! Nothing here knows more of the server than its HTTP interface.

mod cache;
mod certificates;
pub(super) mod connection;
mod divergence;
mod explain;
mod members;
mod names;
mod serials;
mod slow;
pub(super) mod table;
mod zones;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;
use serde_json::json;

use self::connection::{Connection, Order, Target};
use super::{EXIT_USAGE, print};
use crate::address::BackendAddress;
use crate::admin::status::{BackendStatus, Status};
use crate::config::{limits, words};

/// Show and change a running server
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The admin server, http://HOST:PORT or unix:PATH [default: the config's, or http://127.0.0.1:5380 if it has none]
    #[arg(long, value_name = "URL", global = true)]
    admin: Option<Target>,
    /// The token that changes by HTTP need [default: the config's, if the admin server is]
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Action {
    /// Show the server with its pools and backends
    Status(Show),
    /// Show the backends only
    Backends(Show),
    /// Add a backend to a pool; it is probed before it gets queries
    Add {
        /// Name of the pool
        pool: String,
        /// Where the backend is asked: IP and port, or tcp:// or tls:// and that
        #[arg(value_parser = words::member_address)]
        address: BackendAddress,
        /// Share of the load
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = weight())]
        weight: u16,
    },
    /// Ask a backend no more, and let it finish what is in flight
    Drain(WhatToDo),
    /// Take a backend out of its pool
    Remove(WhichBackend),
    /// Ask a backend whatever probes say, until auto
    Up(WhatToDo),
    /// Do not ask a backend whatever probes say, until auto
    Down(WhatToDo),
    /// Leave it to the probes whether a backend is up
    Auto(WhatToDo),
    /// Show the sources of members, and the members that they list
    Members(members::Which),
    /// Read config and zones again
    Reload,
    /// Show the processes: supervisor, server, standbys
    Processes(Show),
    /// Let a new process serve, with the config on the disk
    Restart(NewProcess),
    /// Let a new process of the program file as it is now serve
    Upgrade(NewProcess),
    /// Drain and end, with all processes
    Stop,
    /// Ask a question now, and tell who is asked, why, and what comes of it
    Explain(explain::Asked),
    /// List the races that were slow or failed, newest first, each with the reason
    Slow(slow::Which),
    /// Show the names asked for most in the last ten minutes, and those with most SERVFAIL
    Names(Show),
    /// Show which version of which zone the members of a pool have, and who is behind
    Serials(serials::Which),
    /// List the questions that members of a pool answer differently, and who says what
    Divergence(divergence::Which),
    /// Show the certificates of encrypted listeners: names, expiry, what is wrong
    Certificates(Show),
    /// Show all zones, and how catalog zones stand
    Zones(Show),
    /// Take what is doubted: the members of a pool, or the last version of a catalog zone
    Accept {
        /// Name of the pool or of the catalog zone
        name: String,
    },
    /// Show the cache, or make it forget
    #[command(subcommand)]
    Cache(cache::Action),
}

/// How something is shown.
#[derive(Debug, clap::Args)]
struct Show {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a new process gets.
#[derive(Debug, clap::Args)]
struct NewProcess {
    /// Leave the cache behind
    #[arg(long)]
    cold: bool,
}

/// Which backend.
#[derive(Debug, clap::Args)]
struct WhichBackend {
    /// Name of the pool
    pool: String,
    /// Name or address of the backend
    backend: String,
}

/// Something to do with a backend, by this LS or by all.
#[derive(Debug, clap::Args)]
struct WhatToDo {
    #[command(flatten)]
    which: WhichBackend,
    /// Order it of all LS that have the same etcd
    #[arg(long)]
    fleet: bool,
    /// End the order by itself after this time
    #[arg(long = "for", value_name = "DURATION", requires = "fleet", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// Do it even if no other backend of the pool takes queries
    #[arg(long)]
    force: bool,
}

impl WhatToDo {
    /// The request for it.
    fn order(&self, action: &str) -> Order {
        let WhichBackend { pool, backend } = &self.which;
        if !self.fleet {
            let body = self.force.then(|| json!({ "force": true }));
            return Order::act(pool, backend, action, body.as_ref());
        }
        let seconds = self.lasts.map(|lasts| lasts.as_secs());
        let body = json!({ "fleet": true, "by": who(), "for_seconds": seconds, "force": self.force });
        Order::act(pool, backend, action, Some(&body))
    }
}

/// Who gives an order: the user and the host that he is at.
fn who() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    let user = user.map_or_else(|| nix::unistd::getuid().to_string(), |user| user.name);
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok());
    format!("{user}@{}", host.unwrap_or_default())
}

/// Reads a weight.
fn weight() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(i64::from(limits::WEIGHT.min)..=i64::from(limits::WEIGHT.max))
}

/// Runs the command.
///
/// 0: done. 1: the server says no, or cannot be reached. 2: the command line or the config is wrong.
pub(super) fn run(args: &Args, config: Option<&Path>) -> ExitCode {
    let answer = Connection::find(args.admin.as_ref(), args.token_file.as_deref(), config)
        .and_then(|connection| obey(&connection, &args.action));
    match answer {
        Ok(text) => print(format!("{text}\n").as_bytes()),
        Err(Trouble::Usage(message)) => {
            eprintln!("hedgerow: {message}");
            ExitCode::from(EXIT_USAGE)
        }
        Err(Trouble::Server(message)) => {
            eprintln!("hedgerow: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Why a command was not obeyed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The command line or the config is wrong.
    Usage(String),
    /// The server says no, or nothing.
    Server(String),
}

/// Does what is asked; returns what to print.
fn obey(connection: &Connection, action: &Action) -> Result<String, Trouble> {
    match action {
        Action::Status(show) => {
            let status = connection.status()?;
            Ok(if show.json { to_json(&status) } else { table::status(&status) })
        }
        Action::Backends(show) => {
            let status = connection.status()?;
            Ok(if show.json { to_json(&in_pools(&status)) } else { table::backends(&status) })
        }
        Action::Add { pool, address, weight } => connection.change(Order::add(pool, *address, *weight)),
        Action::Drain(what) => connection.change(what.order("drain")),
        Action::Remove(place) => connection.change(Order::remove(&place.pool, &place.backend)),
        Action::Up(what) => connection.change(what.order("up")),
        Action::Down(what) => connection.change(what.order("down")),
        Action::Auto(what) => connection.change(what.order("auto")),
        Action::Members(which) => members::obey(connection, which),
        Action::Reload => connection.change(Order::reload()),
        Action::Processes(show) => {
            let processes = connection.status()?.processes;
            Ok(if show.json { to_json(&processes) } else { table::processes(&processes) })
        }
        Action::Restart(NewProcess { cold }) => connection.change(Order::restart(*cold)),
        Action::Upgrade(NewProcess { cold }) => connection.change(Order::upgrade(*cold)),
        Action::Stop => connection.change(Order::stop()),
        Action::Explain(asked) => explain::obey(connection, asked),
        Action::Slow(which) => slow::obey(connection, which),
        Action::Names(show) => names::obey(connection, show),
        Action::Serials(which) => serials::obey(connection, which),
        Action::Divergence(which) => divergence::obey(connection, which),
        Action::Certificates(show) => certificates::obey(connection, show),
        Action::Zones(show) => zones::obey(connection, show),
        Action::Accept { name } => connection.change(Order::accept(name)),
        Action::Cache(action) => cache::obey(connection, action),
    }
}

/// A backend with the name of its pool.
#[derive(Serialize)]
struct InPool<'a> {
    /// The name of the pool.
    pool: &'a str,
    #[serde(flatten)]
    backend: &'a BackendStatus,
}

/// All backends of all pools.
fn in_pools(status: &Status) -> Vec<InPool<'_>> {
    let pools = status.pools.iter();
    pools.flat_map(|pool| pool.backends.iter().map(|backend| InPool { pool: &pool.name, backend })).collect()
}

/// JSON as people can read it too.
fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("plain data with text for keys")
}
