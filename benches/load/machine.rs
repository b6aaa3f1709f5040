//! What the figures were measured on: the machine, the compiler, the commit, and the versions of the peers.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::SystemTime;

use serde::Serialize;

use crate::peer::Peer;

/// The properties of a machine that a reader needs to compare figures with those of another day.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    /// Cores that this process may use.
    cores: usize,
    kernel: String,
    rustc: String,
    /// The commit, `-dirty` if files have changed since; empty outside of a checkout.
    commit: String,
    date: String,
    /// The peers with their versions.
    peers: Vec<(String, String)>,
}

impl Machine {
    pub(crate) fn find(peers: &[Peer]) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: model.map_or("unknown CPU", |(_, model)| model).to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
            rustc: said("rustc", &["-V"]),
            commit: said("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            peers: peers.iter().map(|peer| (peer.name(), peer.version())).collect(),
        }
    }

    /// When the run began, as a part of a file name.
    pub(crate) fn file_stamp(&self) -> String {
        self.date.replace(':', "")
    }

    /// All of it, above the tables.
    pub(crate) fn markdown(&self) -> String {
        let Self { cpu, cores, kernel, rustc, commit, date, peers } = self;
        let commit = if commit.is_empty() { "of unknown commit" } else { commit };
        let mut text = format!("{cpu}, {cores} cores, Linux {kernel}, {rustc}; hedgerow {commit}; {date}\n");
        if !peers.is_empty() {
            let peers: Vec<String> = peers.iter().map(|(name, version)| format!("{name} {version}")).collect();
            text.push_str(&format!("\nPeers, each with one worker: {}\n", peers.join(", ")));
        }
        text
    }
}

/// The first line that a command prints; empty if it cannot be run or fails.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}
