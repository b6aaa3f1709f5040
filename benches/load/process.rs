//! The processes of a run: started on their core, asked for their address and CPU time, ended when dropped.
//! Nothing is signalled but what was started here.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

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
    /// The first two cores that this process may use; `None` if there are no two.
    pub(crate) fn find() -> io::Result<Option<Self>> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        Ok(cores.next().zip(cores.next()).map(|(server, rest)| Self { server, rest }))
    }
}

/// Pins this thread, and what it starts from now on.
fn pin(core: Option<usize>) -> io::Result<()> {
    let Some(core) = core else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// A process that answers at an address until it is dropped.
pub(crate) struct Process {
    /// The process.
    child: Child,
    /// Where it answers.
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts a role of this program that prints its address as its first line.
    pub(crate) fn tool(role: &str, core: Option<usize>) -> io::Result<Self> {
        let mut child = spawn(myself()?.arg(role).stdin(Stdio::piped()).stdout(Stdio::piped()), core)?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(address) => Ok(Self { child, address }),
            Err(_) => Err(give_up(&mut child, format!("{role} said {line:?} and no address"))),
        }
    }

    /// Starts `hedgerow serve` with a config and waits until the listener of that name is ready.
    pub(crate) fn server(config: &Path, listener: &str, core: Option<usize>) -> io::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
        command.args(["--log", "info", "serve", "-c"]).arg(config).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = spawn(&mut command, core)?;
        let log = child.stderr.take().map(lines_of);
        let mut said = String::new();
        let until = Instant::now() + START_TIMEOUT;
        while let Some(line) =
            log.as_ref().and_then(|log| log.recv_timeout(until.saturating_duration_since(Instant::now())).ok())
        {
            if let Some(address) = ready_address(&line, listener) {
                return Ok(Self { child, address });
            }
            said.push_str(&line);
            said.push('\n');
        }
        Err(give_up(&mut child, format!("the server did not become ready:\n{said}")))
    }

    /// CPU time that the process has used, user and system, all threads.
    pub(crate) fn cpu_time(&self) -> io::Result<Duration> {
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
        end(&mut self.child);
    }
}

/// How long a server may take to become ready.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a role of this program to its end and returns what it printed.
pub(crate) fn output(arguments: &[String], core: Option<usize>) -> io::Result<String> {
    let child = spawn(myself()?.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()), core)?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("{} ended with {}", arguments.join(" "), output.status)));
    }
    String::from_utf8(output.stdout).map_err(io::Error::other)
}

/// This program, to be started once more.
fn myself() -> io::Result<Command> {
    std::env::current_exe().map(Command::new)
}

/// Starts a command on a core: a child inherits the cores of the thread that starts it.
fn spawn(command: &mut Command, core: Option<usize>) -> io::Result<Child> {
    pin(core)?;
    command.spawn()
}

/// Ends a process that is of no use, and says why it is not.
fn give_up(child: &mut Child, why: String) -> io::Error {
    end(child);
    io::Error::other(why)
}

/// Ends a process and waits for it. It may have ended by itself, and then there is nothing to do.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// The lines that a child logs. They are read to the end, so that a full pipe never stops the child.
fn lines_of(stderr: impl io::Read + Send + 'static) -> mpsc::Receiver<String> {
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
