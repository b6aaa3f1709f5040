//! All processes of one start with `[supervisor]`: their IDs by the admin server and by the system, and
//! signals to them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::*;

/// The address in the table of the first start.
pub const ADDRESS: &str = "192.0.2.1";
/// Another address.
pub const OTHER_ADDRESS: &str = "192.0.2.2";

/// All processes of one start, in a process group of their own.
pub struct Tree {
    /// The first process.
    pub server: Server,
    group: Pid,
    standbys: usize,
}

/// Returns the config that all processes serve.
pub fn config(keys: &str) -> String {
    format!(
        "workers = 2\n[authorities.a]\nlisten = ['127.0.0.1:0']\nzones = ['a.txt']\n[admin]\nlisten = '127.0.0.1:0'\n\
         [supervisor]\n{keys}\n"
    )
}

/// A table in which the name has this address.
pub fn table(address: &str) -> String {
    format!("www.example {address} A\n")
}

impl Tree {
    /// Starts the server, its supervisor and two standby processes, with these keys of `[supervisor]`.
    pub fn start(keys: &str) -> Self {
        Self::start_as(keys, 2, |_| {})
    }

    /// Starts the processes from another executable.
    pub fn start_program(program: &std::path::Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("config.toml");
        std::fs::write(&file, config("")).expect("our own folder");
        std::fs::write(folder.path().join("a.txt"), table(ADDRESS)).expect("our own folder");
        let mut command = Command::new(program);
        command.args(["serve", "-c"]).arg(&file).process_group(0);
        let server = Server::ready(Process::run_by(command, |_| {}), folder);
        let group = Pid::from_child(server.process.child());
        let tree = Self { server, group, standbys: 2 };
        tree.wait_until_whole();
        tree
    }

    /// Starts the processes after `set_up` has changed the command of the first.
    pub fn start_as(keys: &str, standbys: usize, set_up: impl FnOnce(&mut Command)) -> Self {
        Self::start_config(&config(keys), &[("a.txt", &table(ADDRESS))], standbys, set_up)
    }

    /// Starts the processes with the test's config.
    pub fn start_config(
        config: &str,
        files: &[(&str, &str)],
        standbys: usize,
        set_up: impl FnOnce(&mut Command),
    ) -> Self {
        let server = Server::start_as(config, files, |command| {
            command.process_group(0);
            set_up(command);
        });
        let group = Pid::from_child(server.process.child());
        let tree = Self { server, group, standbys };
        tree.wait_until_whole();
        tree
    }

    /// Returns the status of all processes from the admin server. Asks again if a killed process does not
    /// answer.
    pub fn status(&self) -> Value {
        until("a status", || {
            let mut stream = TcpStream::connect(self.server.listener("admin")).ok()?;
            stream.write_all(b"GET /api/v1/status HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
        })
    }

    /// All processes as the admin server lists them.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let status: Value = self.status();
        let processes = status["processes"].as_array().expect("a list").iter();
        let process = |process: &Value| {
            let pid = process["pid"].as_u64().expect("a number");
            (u32::try_from(pid).expect("a small one"), process["role"].as_str().expect("a word").to_owned())
        };
        processes.map(process).collect()
    }

    /// Returns the process IDs of a role. A process that has just died may still be listed.
    pub fn pids(&self, role: &str) -> Vec<u32> {
        let pids = self.processes().into_iter().filter(|(_, found)| found == role).map(|(pid, _)| pid);
        pids.filter(|pid| is_running(*pid)).collect()
    }

    /// Returns the process ID of a role, waiting until the admin server lists it.
    pub fn pid(&self, role: &str) -> u32 {
        until(&format!("one {role}"), || match self.pids(role)[..] {
            [pid] => Some(pid),
            _ => None,
        })
    }

    /// A server that is none of these.
    pub fn server_other_than(&self, others: &[u32]) -> u32 {
        until("another server", || self.pids("server").into_iter().find(|pid| !others.contains(pid)))
    }

    /// Waits until there are a supervisor, a server and all that are to stand by, and nothing else.
    pub fn wait_until_whole(&self) -> Vec<(u32, String)> {
        let expected = [("supervisor", 1), ("server", 1), ("standby", self.standbys)];
        until("a whole tree", || {
            let processes = self.processes();
            let count = |role: &str| processes.iter().filter(|(_, found)| found == role).count();
            let is_whole = expected.iter().all(|(role, number)| count(role) == *number);
            (is_whole && processes.len() == self.standbys + 2 && self.left().len() == processes.len())
                .then_some(processes)
        })
    }

    /// Waits until all processes have this edition of the config.
    pub fn wait_for_edition(&self, number: u64) {
        until("the edition everywhere", || {
            let status = self.status();
            let mut processes = status["processes"].as_array().expect("a list").iter();
            processes.all(|process| process["edition"] == number).then_some(())
        });
    }

    /// All processes of the group that run, as the system has them.
    pub fn left(&self) -> Vec<u32> {
        let folders = std::fs::read_dir("/proc").expect("a /proc").filter_map(Result::ok);
        let pids = folders.filter_map(|folder| folder.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| state_of(*pid).is_some_and(|(_, group)| group == self.group.as_raw_nonzero().get())).collect()
    }

    /// Kills processes, all at once, and waits until they are dead.
    pub fn kill(&self, pids: &[u32]) {
        pids.iter().for_each(|pid| signal(*pid, Signal::KILL));
        for pid in pids {
            until("its end", || (!is_running(*pid)).then_some(()));
        }
    }

    /// Asks for the name, and returns the address in the answer.
    pub fn address(&self) -> String {
        self.client().ask(&query("www.example", A)).answers().remove(0)
    }

    /// Returns a client of the authority.
    pub fn client(&self) -> Client {
        Client::of(self.server.listener("a"))
    }

    /// Checks the last log lines of the first start after SIGTERM.
    pub fn assert_ended(&mut self) {
        let status = self.server.process.wait_for_exit();
        assert_eq!(status.code(), Some(0), "{}", self.server.process.log());
        assert_eq!(self.left(), [0; 0]);
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

/// Returns the ID as rustix needs it.
pub fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).expect("a small number"))
}

/// Sends a signal to a process, which may have ended.
pub fn signal(pid: u32, signal: Signal) {
    let _ = kill_process(pid_of(pid).expect("a number above zero"), signal);
}

/// Stops a process, and waits until none of its threads runs: what comes then, it does not read.
pub fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    until("all threads are stopped", || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it is there").filter_map(Result::ok);
        let mut states = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
        states.all(|state| state.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))).then_some(())
    });
}

/// Returns the state of a process that has not ended, and its process group.
pub fn state_of(pid: u32) -> Option<(char, i32)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = status.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    let group = fields.nth(1)?.parse().ok()?;
    (!matches!(state, 'Z' | 'X')).then_some((state, group))
}

/// Returns true if there is such a process that has not ended.
pub fn is_running(pid: u32) -> bool {
    state_of(pid).is_some()
}

/// `ctl restart` and the like; whether it was done, and what it said.
pub fn ctl(tree: &Tree, words: &[&str]) -> (Option<i32>, String) {
    let address = format!("http://{}", tree.server.listener("admin"));
    let processes = tree.left();
    let output = tree.server.process.ctl(&[&["--admin", &address], words].concat());
    if output.status.success() {
        // The one before takes requests until it has drained.
        until("the end of the one before", || (!processes.iter().all(|pid| is_running(*pid))).then_some(()));
    }
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}
