//! The processes of a run: started on their core, asked for their address and for what they use, ended when
//! dropped.
//!
//! Nothing is signalled but what was started here, and nothing outlives the run: the kernel ends each process
//! when the one that started it ends, however that ends.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use super::account::{CpuTime, Memory};

/// Two cores: one for the server under load alone, one for all else. Free to roam they would take turns at
/// each other's cache, and the spread of the rates would be several times wider.
#[derive(Clone, Copy)]
pub(crate) struct Cores {
    /// The core of the server.
    pub(crate) server: usize,
    /// The core of the client and the responders.
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

/// Where a process that this program starts has its place.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Place {
    /// The core to run on; without it, any.
    #[arg(long, hide = true)]
    core: Option<usize>,
}

impl Place {
    /// Goes to the core, and asks the kernel to end this process with the one that started it, even while it
    /// is stopped. Every role does that first; what the process becomes afterwards stays bound by it.
    pub(crate) fn settle(self) -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let Some(core) = self.core else { return Ok(()) };
        let mut set = CpuSet::new();
        set.set(core);
        Ok(sched_setaffinity(None, &set)?)
    }
}

/// A process that this program started. Dropped, it is ended, with all that it started itself.
pub(crate) struct Process {
    pub(crate) child: Child,
    /// The output of a role of this program.
    pub(crate) stdout: Option<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts a role of this program. Its first line, which is returned too, says that it is at work.
    pub(crate) fn role(arguments: &[String], core: Option<usize>) -> io::Result<(Self, String)> {
        Self::role_under(&[], arguments, core)
    }

    /// Starts a role of this program by another one: the command, to which the role's own is added.
    pub(crate) fn role_under(
        command: &[String],
        arguments: &[String],
        core: Option<usize>,
    ) -> io::Result<(Self, String)> {
        let mut words = Vec::new();
        if !command.is_empty() {
            words.extend(myself(None)?);
            words.extend(["hold".into(), "--silent".into()]);
        }
        words.extend(command.iter().map(OsString::from));
        words.extend(myself(core)?);
        words.extend(arguments.iter().map(OsString::from));
        let mut process = Self::spawn(words, |command| command.stdin(Stdio::piped()))?;
        let line = process.line()?;
        Ok((process, line))
    }

    /// Starts another program in a folder.
    pub(crate) fn program(
        program: &Path,
        arguments: &[impl AsRef<OsStr>],
        folder: &Path,
        core: Option<usize>,
        stderr: Stdio,
    ) -> io::Result<Self> {
        let arguments = arguments.iter().map(|argument| argument.as_ref().to_owned());
        let words = myself(core)?.into_iter().chain(["hold".into(), program.into()]).chain(arguments);
        Self::spawn(words, |command| command.stdin(Stdio::null()).stderr(stderr).current_dir(folder))
    }

    /// Starts a command as the leader of a process group, so that its children end with it.
    fn spawn(
        words: impl IntoIterator<Item = OsString>,
        set: impl FnOnce(&mut Command) -> &mut Command,
    ) -> io::Result<Self> {
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).stdout(Stdio::piped()).process_group(0);
        let mut child = set(&mut command).spawn()?;
        let stdout = child.stdout.take().map(BufReader::new);
        Ok(Self { child, stdout })
    }

    /// The next line of its stdout.
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stdout.as_mut().map_or(Ok(0), |stdout| stdout.read_line(&mut line))?;
        Ok(line.trim().to_owned())
    }

    /// When it became the other program, on the clock of [`now`].
    pub(crate) fn began(&mut self) -> io::Result<Duration> {
        let line = self.line()?;
        let nanos = line.parse();
        nanos.map(Duration::from_nanos).map_err(|_| io::Error::other(format!("the time of the start is {line:?}")))
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
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to do. Until it is waited for, its number is
        // its own.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// A process that answers at an address.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a role of this program whose first line is its address.
    pub(crate) fn role(arguments: &[String], core: Option<usize>) -> io::Result<Self> {
        Self::role_under(&[], arguments, core)
    }

    /// Starts such a role by another command, to which the role's own is added.
    pub(crate) fn role_under(command: &[String], arguments: &[String], core: Option<usize>) -> io::Result<Self> {
        let (process, line) = Process::role_under(command, arguments, core)?;
        let address = line.parse();
        let address = address.map_err(|_| io::Error::other(format!("{arguments:?} said {line:?} and no address")))?;
        Ok(Self { process, address })
    }

    /// Starts `hedgerow serve` with a config and waits until the listener of that name is ready.
    pub(crate) fn hedgerow(config: &Path, listener: &str, core: Option<usize>) -> io::Result<Self> {
        let arguments = ["--log", "info", "serve", "-c"].map(OsStr::new);
        let arguments = [&arguments[..], &[config.as_os_str()]].concat();
        let mut process = Process::program(Path::new(HEDGEROW), &arguments, Path::new("."), core, Stdio::piped())?;
        let log = process.child.stderr.take().map(lines_of);
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

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.process.child), signal)?)
    }

    /// CPU time that the server has used.
    pub(crate) fn cpu_time(&self) -> io::Result<CpuTime> {
        CpuTime::of(self.process.child.id())
    }

    /// Memory that the server holds.
    pub(crate) fn memory(&self) -> io::Result<Memory> {
        Memory::of(self.process.child.id())
    }
}

/// A program that is to end with the process that started it: the role that starts servers which are not our
/// roles.
#[derive(clap::Args)]
pub(crate) struct Hold {
    /// True if the process must print nothing more on stdout, which its parent reads.
    #[arg(long)]
    silent: bool,
    program: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Hold {
    /// Says when, and becomes the program, the stdout of which goes where its stderr goes. Returns only if
    /// that fails.
    pub(crate) fn run(&self) -> io::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        if !self.silent {
            println!("{}", now().as_nanos());
            io::stdout().flush()?;
            command.stdout(io::stderr());
        }
        Err(command.exec())
    }
}

/// The time on a clock that all processes share.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// The binary that is measured.
pub(crate) const HEDGEROW: &str = env!("CARGO_BIN_EXE_hedgerow");

/// How long a server may take to become ready.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The words that start this program once more, on a core.
fn myself(core: Option<usize>) -> io::Result<Vec<OsString>> {
    let mut words = vec![env::current_exe()?.into_os_string()];
    words.extend(core.into_iter().flat_map(|core| ["--core".into(), core.to_string().into()]));
    Ok(words)
}

/// The lines that a child logs. They are read to the end, so that a full pipe never stops the child.
fn lines_of(stderr: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // The receiver is gone once the server is ready.
            let _ = sender.send(line);
        }
    });
    receiver
}

/// The address in `... ready forwarder=127.0.0.1:41234 ...`, and in `... forwarder=tls://127.0.0.1:41234
/// ...`.
fn ready_address(line: &str, listener: &str) -> Option<SocketAddr> {
    let (_, listeners) = line.split_once("ready")?;
    listeners.split_whitespace().find_map(|field| {
        let url = field.strip_prefix(listener)?.strip_prefix('=')?;
        url.split_once("://").map_or(url, |(_, address)| address).parse().ok()
    })
}
