//! The processes of a run: started on their core, asked for their address and CPU time, ended when dropped.
//!
//! Nothing is signalled but what was started here, and nothing outlives the run: the kernel ends each process when the
//! one that started it ends, however that ends.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Two cores: one for the server under load alone, one for all else. Free to roam they would take turns at each
/// other's cache, and the spread of the rates would be several times wider.
#[derive(Clone, Copy)]
pub(crate) struct Cores {
    /// Where the server runs.
    pub(crate) server: usize,
    /// Where the client and the responders run.
    pub(crate) rest: usize,
}

impl Cores {
    /// The first two cores that this process may use; `None` if there are no two. Says which on stderr.
    pub(crate) fn find() -> io::Result<Option<Self>> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let found = cores.next().zip(cores.next()).map(|(server, rest)| Self { server, rest });
        match found {
            Some(Self { server, rest }) => eprintln!("server on core {server}, client and responders on core {rest}"),
            None => eprintln!("one core only: client, responders and server share it, the figures mean little"),
        }
        Ok(found)
    }
}

/// Pins this thread, and what it starts from now on.
fn pin(core: Option<usize>) -> io::Result<()> {
    let Some(core) = core else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// A process that this program started. Dropped, it is ended.
pub(crate) struct Process {
    /// The process.
    pub(crate) child: Child,
    /// What a role of this program prints.
    pub(crate) stdout: Option<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts a role of this program. Its first line, which is returned too, says that it is at work.
    pub(crate) fn role(arguments: &[String], core: Option<usize>) -> io::Result<(Self, String)> {
        let mut command = myself()?;
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(&mut command, core)?;
        let stdout = child.stdout.take().map(BufReader::new);
        let mut process = Self { child, stdout };
        let mut line = String::new();
        process.stdout.as_mut().map_or(Ok(0), |stdout| stdout.read_line(&mut line))?;
        Ok((process, line.trim().to_owned()))
    }

    /// Waits for the end of a role and returns what else it printed.
    pub(crate) fn finish(mut self) -> io::Result<String> {
        let mut printed = String::new();
        self.stdout.as_mut().map_or(Ok(0), |stdout| stdout.read_to_string(&mut printed))?;
        let status = self.child.wait()?;
        if !status.success() {
            return Err(io::Error::other(format!("a role of this program ended with {status}")));
        }
        Ok(printed)
    }

    /// CPU time that the process has used, user and system, all threads.
    fn cpu_time(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field is the name in parentheses, which may hold anything; utime and stime are fields 14 and 15.
        let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields = behind_name.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that answers at an address.
pub(crate) struct Server {
    /// The process.
    pub(crate) process: Process,
    /// Where it answers.
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a role of this program whose first line is its address.
    pub(crate) fn role(arguments: &[String], core: Option<usize>) -> io::Result<Self> {
        let (process, line) = Process::role(arguments, core)?;
        let address = line.parse();
        let address = address.map_err(|_| io::Error::other(format!("{arguments:?} said {line:?} and no address")))?;
        Ok(Self { process, address })
    }

    /// Starts `hedgerow serve` with a config and waits until the listener of that name is ready.
    pub(crate) fn hedgerow(config: &Path, listener: &str, core: Option<usize>) -> io::Result<Self> {
        let mut command = myself()?;
        command.args(["hold", env!("CARGO_BIN_EXE_hedgerow"), "--log", "info", "serve", "-c"]).arg(config);
        let mut child = spawn(command.stdin(Stdio::null()).stderr(Stdio::piped()), core)?;
        let log = child.stderr.take().map(lines_of);
        let process = Process { child, stdout: None };
        let mut said = String::new();
        let until = Instant::now() + START_TIMEOUT;
        while let Some(line) =
            log.as_ref().and_then(|log| log.recv_timeout(until.saturating_duration_since(Instant::now())).ok())
        {
            if let Some(address) = ready_address(&line, listener) {
                return Ok(Self { process, address });
            }
            said.push_str(&line);
            said.push('\n');
        }
        Err(io::Error::other(format!("the server did not become ready:\n{said}")))
    }

    /// CPU time that the server has used.
    pub(crate) fn cpu_time(&self) -> io::Result<Duration> {
        self.process.cpu_time()
    }
}

/// A command that is to end with the process that started it: the role that starts `hedgerow`.
#[derive(clap::Args)]
pub(crate) struct Hold {
    /// The program.
    program: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Hold {
    /// Becomes the command. Returns only if that fails.
    pub(crate) fn run(&self) -> io::Result<()> {
        // What was asked of the kernel stays in force when a program takes the place of this one.
        Err(Command::new(&self.program).args(&self.arguments).exec())
    }
}

/// Asks the kernel to end this process with the one that started it, even while it is stopped. Every role does.
pub(crate) fn end_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// How long a server may take to become ready.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// This program, to be started once more.
fn myself() -> io::Result<Command> {
    std::env::current_exe().map(Command::new)
}

/// Starts a command on a core: a child inherits the cores of the thread that starts it.
fn spawn(command: &mut Command, core: Option<usize>) -> io::Result<Child> {
    pin(core)?;
    command.spawn()
}

/// The lines that a child logs. They are read to the end, so that a full pipe never stops the child.
fn lines_of(stderr: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // Nobody listens once the server is ready.
            let _ = sender.send(line);
        }
    });
    receiver
}

/// The address in `... ready forwarder=127.0.0.1:41234 ...`.
fn ready_address(line: &str, listener: &str) -> Option<SocketAddr> {
    let (_, listeners) = line.split_once("ready")?;
    listeners.split_whitespace().find_map(|field| field.strip_prefix(listener)?.strip_prefix('=')?.parse().ok())
}
