//! What reloads, restarts, upgrades and deaths cost those who ask: every query of a steady load is counted on both sides, by UDP from
//! eight sockets and on twenty kept TCP connections. `cargo test --release --test it nothing_lost:: -- --nocapture` prints the table
//! of docs/src/lifecycle.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::*;

/// Queries a second. A debug build, beside other tests, is asked for less.
const RATE: u32 = if cfg!(debug_assertions) { 1_000 } else { 5_000 };

/// Kept connections.
const CONNECTIONS: usize = 20;

/// A forwarder with a supervisor before an authority of its own process, and load on it.
struct Scene {
    server: Server,
    _authority: Authority,
    /// The program that runs, which an upgrade replaces.
    program: PathBuf,
    config: String,
}

/// A process of the tree, as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    role: String,
    pid: i32,
}

impl Scene {
    /// With so many standbys. `keys`: further lines of `[supervisor]`.
    fn start(standbys: usize, keys: &str) -> Self {
        let authority = Authority::start(&load_table());
        let forwarder = Forwarder::to(&[&authority], "").workers(2).admin().cache("").to_toml();
        let config = format!("{forwarder}[supervisor]\nstandbys = {standbys}\n{keys}\n");
        let folder = tempfile::tempdir().expect("a folder for the test").keep();
        let program = folder.join("hedgerow");
        fs::copy(env!("CARGO_BIN_EXE_hedgerow"), &program).expect("cargo has built the binary");
        let server = Server::start_program(&program, &config, &[]);
        let scene = Self { server, _authority: authority, program, config };
        scene.wait_for_full_strength();
        scene
    }

    /// All processes, by the server's word.
    fn members(&self) -> Vec<Member> {
        self.try_members().unwrap_or_default()
    }

    /// The same, if somebody serves.
    fn try_members(&self) -> Option<Vec<Member>> {
        let answer = self.server.admin().try_get("/api/v1/status")?;
        let status: Value = serde_json::from_str(&answer.body).ok()?;
        let member = |process: &Value| {
            let role = process["role"].as_str()?.to_owned();
            Some(Member { role, pid: i32::try_from(process["pid"].as_i64()?).ok()? })
        };
        status["processes"].as_array()?.iter().map(member).collect()
    }

    /// The processes of a role.
    fn of_role(&self, role: &str) -> Vec<i32> {
        self.members().into_iter().filter(|member| member.role == role).map(|member| member.pid).collect()
    }

    /// How many standbys there are to be.
    fn standbys(&self) -> usize {
        let (_, count) = self.config.split_once("standbys = ").expect("a key of the test");
        count.split_whitespace().next().and_then(|count| count.parse().ok()).expect("a number")
    }

    /// Waits until there is one supervisor, one server, and each standby, and says how long that took.
    fn wait_for_full_strength(&self) -> Duration {
        let began = Instant::now();
        let is_full = || {
            let members = self.try_members()?;
            let count = |role: &str| members.iter().filter(|member| member.role == role).count();
            let is_full = (count("supervisor"), count("server"), count("standby")) == (1, 1, self.standbys());
            (is_full && members.len() == 2 + self.standbys()).then_some(())
        };
        until("full strength", is_full);
        began.elapsed()
    }

    fn load(&self) -> Load {
        Load::start_with(self.server.address(), RATE, CONNECTIONS)
    }

    fn ctl(&self, words: &[&str]) -> std::process::Output {
        let admin = format!("unix:{}", self.server.process.admin_socket(self.server.listener("admin")).display());
        self.server.process.ctl(&[words, &["--admin", &admin]].concat())
    }

    /// Has a change made that must succeed.
    fn change(&self, words: &[&str]) {
        let output = self.ctl(words);
        assert!(output.status.success(), "{words:?}: {output:?}\n{}", self.server.process.log());
    }

    /// Octets that all processes have resident.
    fn resident(&self) -> usize {
        let size = |member: &Member| {
            let statm = fs::read_to_string(format!("/proc/{}/statm", member.pid)).unwrap_or_default();
            statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0) * rustix::param::page_size()
        };
        self.members().iter().map(size).sum()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Whoever is left after a failure would be replaced by the others for ever.
        let group = rustix::process::getpgid(Pid::from_raw(self.server.process.id().cast_signed()));
        for member in self.members() {
            let _ = Pid::from_raw(member.pid).map(|pid| kill_process(pid, Signal::STOP));
        }
        drop(group);
        for member in self.members() {
            kill(member.pid);
        }
        if let Some(folder) = self.program.parent() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn kill(pid: i32) {
    let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
}
