//! Servers over a veth pair between namespaces, by sockets and by XDP: hedgerow beside itself and beside Knot
//! DNS by the same, dnsdist, and the bare echo by XDP, which is the least cost of a server by XDP.
//!
//! The server has a separate core. All time of that core counts, interrupts too, because by XDP and by
//! sockets alike the kernel does much of the work where no process is charged for it. All else, kxdpgun, our
//! own client and backends in another namespace, is on another core, which as the sender over a veth pair
//! also pays for queries up to the server's socket or ring. Nothing else should run on the machine.
//!
//! Subjects take turns within a round, each started afresh on a new pair, each round beginning with another.

mod report;
mod row;

use std::env;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use self::row::Row;
use crate::common::gun;
use crate::common::message::Lengths;
use crate::common::process::Cores;
use crate::common::sample::{Sample, noise};
use crate::common::{veth, xdp_echo};
use crate::machine::Machine;
use crate::peer::Peer;
use crate::subject::Rates;

/// The parameters of the measurement.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) cores: Cores,
    /// Seconds of each load.
    pub(crate) secs: f64,
    /// Queries a second of loads at a rate.
    pub(crate) rates: Rates,
    pub(crate) lengths: Lengths,
}

/// Rates that all servers can reach, on a machine of some years ago with one core for each side.
pub(crate) const RATES: Rates = Rates { forward: 20_000.0, others: 60_000.0 };

/// All that was measured.
pub(crate) struct XdpResults {
    setting: Setting,
    rows: Vec<Row>,
    rounds: Vec<Round>,
    /// Subjects that are left out, and why.
    left_out: Vec<String>,
}

#[derive(Serialize)]
struct Round {
    /// How busy both cores were at most while nothing was sent, which is looked at before each subject.
    noise: [f64; 2],
    /// The outcome of each row, or the reason why there is none.
    outcomes: Vec<Result<Loads, String>>,
}

/// The results of a subject in a round.
#[derive(Serialize)]
struct Loads {
    /// Our client's closed loop.
    closed: Sample,
    /// The sample of the same client at a fixed rate.
    open: Sample,
    /// kxdpgun at that rate, if it is there.
    gun: Option<Sample>,
    /// Bytes in memory after that.
    resident: u64,
}

/// Returns the missing requirements of this machine; `None` if all are there.
pub(crate) fn missing() -> Option<String> {
    veth::missing().or_else(xdp_echo::missing)
}

/// Returns true if missing programs are an error (`HEDGEROW_REQUIRED`).
pub(crate) fn is_required() -> bool {
    env::var_os("HEDGEROW_REQUIRED").is_some()
}

/// The servers of others that are measured.
pub(crate) const PEERS: [Peer; 3] = [Peer::Knot, Peer::Dnsdist, Peer::DnsdistBatched];

impl XdpResults {
    /// Runs all rounds, of the rows in whose name this text is, and of the echo.
    pub(crate) fn measure(rounds: u32, only: Option<&str>, setting: Setting, files: &Path) -> io::Result<Self> {
        let mut left_out = Vec::new();
        if !gun::is_there() {
            left_out.push("kxdpgun (package knot-dnsutils) is not installed".to_owned());
        }
        for peer in PEERS.into_iter().filter(|peer| peer.find().is_none()) {
            left_out.push(format!("{} is not installed", peer.name()));
        }
        if let Some(what) = left_out.first().filter(|_| is_required()) {
            return Err(io::Error::other(what.clone()));
        }
        let mut rows = Row::all();
        rows.retain(|row| row.is_there() && (row.is_echo() || only.is_none_or(|text| row.name().contains(text))));
        let measure = |round: u32| {
            let mut busiest = [0.0_f64, 0.0];
            let mut outcomes = Vec::new();
            for turn in 0..rows.len() {
                let index = (round as usize + turn) % rows.len();
                let busy = noise(setting.cores)?;
                busiest = [0, 1].map(|core| busiest[core].max(busy[core]));
                // A failure is reported, and the others are measured all the same.
                let outcome = rows[index].measure(setting, files).map_err(|error| error.to_string());
                let said = match &outcome {
                    Ok(Loads { closed, open, .. }) => format!(
                        "{:.2} s per million, in a closed loop {:.2} at {:.0} answers/s",
                        open.server_cpu, closed.server_cpu, closed.rate
                    ),
                    Err(why) => why.clone(),
                };
                eprintln!("round {} of {rounds}: {}: {said}", round + 1, rows[index].name());
                outcomes.push((index, outcome));
            }
            outcomes.sort_by_key(|(index, _)| *index);
            Ok(Round { noise: busiest, outcomes: outcomes.into_iter().map(|(_, outcome)| outcome).collect() })
        };
        let rounds = (0..rounds).map(measure).collect::<io::Result<_>>()?;
        Ok(Self { setting, rows, rounds, left_out })
    }

    /// Returns the failures of hedgerow and the echo.
    pub(crate) fn failure(&self) -> Option<String> {
        let outcomes = self.rounds.iter().flat_map(|round| self.rows.iter().zip(&round.outcomes));
        let mut failures = outcomes.filter(|(row, _)| row.is_ours());
        failures.find_map(|(row, outcome)| Some(format!("{}: {}", row.name(), outcome.as_ref().err()?)))
    }

    /// All that was measured as JSON.
    pub(crate) fn json(&self, machine: &Machine) -> Value {
        let Setting { secs, rates, lengths, .. } = self.setting;
        let names: Vec<_> = self.rows.iter().map(|row| row.name()).collect();
        json!({
            "machine": machine, "secs": secs, "rates": rates, "lengths": lengths.word(), "left_out": self.left_out,
            "rows": names, "rounds": self.rounds,
        })
    }
}
