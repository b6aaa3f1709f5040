//! The real server, started as a user starts it: the binary, a config file, its log on stderr.

use std::collections::HashMap;
use std::env;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, kill_process_group, prlimit};
use tempfile::TempDir;

use crate::{Admin, Client, PATIENCE, TcpClient};

/// Returns the path of the `hedgerow` program. Cargo builds it for the tests and benchmarks of the root
/// package, in the folder that holds the folder of this executable.
pub fn program() -> PathBuf {
    let executable = env::current_exe().expect("the path of this executable");
    let mut places = executable.ancestors().skip(1).take(2).map(|folder| folder.join("hedgerow"));
    let program = places.find(|place| place.is_file());
    program.unwrap_or_else(|| panic!("no `hedgerow` near {}: build it first", executable.display()))
}

/// Copies a program by another process. A child of another test inherits a descriptor by which this process
/// writes, and the kernel runs no file that any process may write (ETXTBSY).
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status().expect("cp is a program of every system");
    assert!(status.success(), "{} is copied", from.display());
}

/// A run of the `hedgerow` binary. Dropping it kills the process; if the test fails, its log is shown.
pub struct Process {
    child: Child,
    /// Where it puts the socket of its admin server.
    runtime: TempDir,
    /// Filled by a thread that reads stderr.
    log: Arc<Log>,
    /// True if the process leads a process group, which ends with it.
    leads: bool,
}

/// The stderr of the process.
#[derive(Default)]
struct Log {
    written: Mutex<Written>,
    /// Notified after each change.
    changed: Condvar,
}

#[derive(Default)]
struct Written {
    lines: Vec<String>,
    /// True if stderr was closed, as it is when the process has ended.
    ended: bool,
}

impl Process {
    /// Runs `hedgerow` with these arguments.
    pub fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self::run_as(arguments, |_| {})
    }

    /// Runs the program with a limit on descriptors.
    pub(crate) fn run_limited(descriptors: usize, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={descriptors}:{descriptors}")).arg("--").arg(program());
        command.args(arguments);
        Self::spawn(command, |_| {})
    }

    /// Runs a command that becomes `hedgerow` in the end, with what `set_up` changes of it.
    pub fn run_by(command: Command, set_up: impl FnOnce(&mut Command)) -> Self {
        Self::spawn(command, set_up)
    }

    /// Runs the program after `set_up` has changed the command: its user, its environment.
    pub fn run_as(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>, set_up: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(program());
        command.args(arguments);
        Self::spawn(command, set_up)
    }

    /// Runs a program as the leader of a process group, so that its children end with the test, too.
    pub(crate) fn run_group(program: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).process_group(0);
        let mut process = Self::spawn(command, |_| {});
        process.leads = true;
        process
    }

    /// Starts it, and reads what it says.
    fn spawn(mut command: Command, set_up: impl FnOnce(&mut Command)) -> Self {
        let runtime = TempDir::new().expect("a temporary folder");
        command
            .env("RUNTIME_DIRECTORY", runtime.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        set_up(&mut command);
        let mut child = command.spawn().expect("cargo has built the binary");
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let log = Arc::new(Log::default());
        thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in stderr.lines().map_while(Result::ok) {
                    log.written.lock().expect("nothing panics here").lines.push(line);
                    log.changed.notify_all();
                }
                log.written.lock().expect("nothing panics here").ended = true;
                log.changed.notify_all();
            }
        });
        Self { child, runtime, log, leads: false }
    }

    /// Where the socket for changes is, if the admin server has this address.
    pub fn admin_socket(&self, address: SocketAddr) -> PathBuf {
        self.runtime.path().join(format!("admin-{address}.sock"))
    }

    /// Returns the process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Runs `hedgerow ctl` with these words, as this process's user would.
    pub fn ctl(&self, words: &[&str]) -> Output {
        let mut command = Command::new(program());
        command.arg("ctl").args(words).env("RUNTIME_DIRECTORY", self.runtime.path());
        command.output().expect("cargo has built the binary")
    }

    /// Waits for a line that holds `text`, and returns it.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.try_wait_for_log(text).unwrap_or_else(|| panic!("no log line says {text:?}: {}", self.log()))
    }

    /// Waits for a log line; returns `None` if the process ends without such a line.
    pub(crate) fn try_wait_for_log(&self, text: &str) -> Option<String> {
        let line = self.wait(|written| {
            let line = written.lines.iter().find(|line| line.contains(text));
            line.cloned().map(Some).or_else(|| written.ended.then_some(None))
        });
        line.flatten()
    }

    /// All that was written so far.
    pub fn log(&self) -> String {
        self.log.written.lock().expect("nothing panics here").lines.join("\n")
    }

    /// Returns the child process.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is ours");
    }

    /// Bytes of memory that the process has resident, without pages of files: those of the program come and
    /// go as its code is used.
    pub fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it is running");
        let kibibytes = |field: &str| -> usize {
            let value = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of the status");
            value.trim_end_matches(" kB").trim().parse().expect("a number")
        };
        (kibibytes("RssAnon:") + kibibytes("RssShmem:")) * 1024
    }

    /// Lets the process have no more descriptors than this, or as many as it may have at most. What is open
    /// stays open.
    pub fn limit_descriptors(&self, limit: Option<u64>) {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: limit.or(maximum), maximum };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Nofile, limit).expect("the process is ours");
    }

    /// Returns the number of open descriptors of the process.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it is running").count()
    }

    /// Waits until the process has ended by itself.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        // Only the end of the process closes stderr.
        let ended = self.wait(|written| written.ended.then_some(()));
        assert!(ended.is_some(), "still running: {}", self.log());
        // No process of its group is left, either.
        self.leads = false;
        self.child.wait().expect("the process is ours")
    }

    /// Waits until `find` gives a value; `None` when patience is at its end.
    fn wait<T>(&self, find: impl Fn(&Written) -> Option<T>) -> Option<T> {
        let written = self.log.written.lock().expect("nothing panics here");
        let waited = self.log.changed.wait_timeout_while(written, PATIENCE, |w| find(w).is_none());
        find(&waited.expect("nothing panics here").0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.leads {
            // The number is not given to another before the child was waited for.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of hedgerow ---\n{}\n---", self.log());
        }
    }
}

/// A server that is ready, and the addresses that it listens on.
pub struct Server {
    /// The process of the server.
    pub process: Process,
    listeners: HashMap<String, Vec<SocketAddr>>,
    /// Holds the config and zones.
    folder: TempDir,
}

impl Server {
    /// `hedgerow serve` with this config.
    pub fn start(config: &str) -> Self {
        Self::start_with_files(config, &[])
    }

    /// Starts a server with a limit on descriptors.
    pub fn start_limited(config: &str, descriptors: usize) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let file = folder.path().join("config.toml");
        write(&file, config);
        let arguments = [OsStr::new("serve"), OsStr::new("-c"), file.as_os_str()];
        Self::ready(Process::run_limited(descriptors, arguments), folder)
    }

    /// Starts a server with files (zones) in the folder of the config.
    pub fn start_with_files(config: &str, files: &[(&str, &str)]) -> Self {
        Self::start_as(config, files, |_| {})
    }

    /// Starts a server with files (zones) in the folder of the config, after `set_up` has changed the
    /// command.
    pub fn start_as(config: &str, files: &[(&str, &str)], set_up: impl FnOnce(&mut Command)) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        for (name, content) in files {
            write(&folder.path().join(name), content);
        }
        let file = folder.path().join("config.toml");
        write(&file, config);
        Self::ready(Process::run_as([OsStr::new("serve"), OsStr::new("-c"), file.as_os_str()], set_up), folder)
    }

    /// Starts a server by a program, as a process group with all its children.
    pub fn start_group(program: &Path, config: &str, files: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        for (name, content) in files {
            write(&folder.path().join(name), content);
        }
        let file = folder.path().join("config.toml");
        write(&file, config);
        Self::ready(Process::run_group(program, [OsStr::new("serve"), OsStr::new("-c"), file.as_os_str()]), folder)
    }

    /// Any command that serves, such as `ls` and `ts`; files are named by their paths.
    pub fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self::ready(Process::run(arguments), TempDir::new().expect("a temporary folder"))
    }

    /// The forwarder's first address.
    pub fn address(&self) -> SocketAddr {
        self.listener("forwarder")
    }

    /// The first address of the listener with this name.
    pub fn listener(&self, name: &str) -> SocketAddr {
        self.listeners(name)[0]
    }

    /// All addresses of one listener.
    pub fn listeners(&self, name: &str) -> &[SocketAddr] {
        match self.listeners.get(name) {
            Some(addresses) => addresses,
            None => panic!("no listener {name:?} in the ready line: {}", self.process.log()),
        }
    }

    /// A client of the forwarder.
    pub fn client(&self) -> Client {
        Client::of(self.address())
    }

    /// A client of the forwarder over TCP.
    pub fn tcp_client(&self) -> TcpClient {
        TcpClient::of(self.address())
    }

    /// Returns a client of the admin server.
    pub fn admin(&self) -> Admin {
        let address = self.listener("admin");
        Admin::of(address, self.process.admin_socket(address))
    }

    /// Where a file of the config's folder is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a file of the config's folder.
    pub fn rewrite(&self, name: &str, content: &str) {
        write(&self.path(name), content);
    }

    /// Replaces a file of the config's folder and asks for a reload; the effect is the caller's to
    /// wait for.
    pub fn reload(&self, name: &str, content: &str) {
        self.rewrite(name, content);
        self.process.signal(Signal::HUP);
    }

    /// Waits for the `ready` line and reads the addresses.
    pub fn ready(process: Process, folder: TempDir) -> Self {
        let line = process.wait_for_log(" ready ");
        let (_, pairs) = line.split_once(" ready ").expect("the line was found by it");
        let mut listeners = HashMap::new();
        for pair in pairs.split_whitespace() {
            let (name, addresses) = pair.split_once('=').expect("pairs of NAME=ADDRESSES");
            let addresses = addresses.split(',').map(|address| {
                let address = address.split_once("://").map_or(address, |(_, address)| address);
                address.parse().expect("an address and port")
            });
            listeners.insert(name.to_owned(), addresses.collect());
        }
        Self { process, listeners, folder }
    }
}

fn write(path: &Path, content: &str) {
    std::fs::write(path, content).expect("a file in our own temporary folder");
}
