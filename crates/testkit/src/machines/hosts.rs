//! Hosts on one network, each a network namespace that hangs on a bridge in the namespace of the test. Tests
//! use them for daemons that give several machines one address. The test is the router, or a client beside
//! the hosts.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::{Process, Server, find_program, load_table, namespace, need_program, until};

/// Enters a namespace for the test of this name, in which hosts can be made. Says so, and gives `false`, if
/// one of these programs is missing, or no namespace can be made; or if the test has run inside already.
pub fn enter(test: &str, programs: &[&str]) -> bool {
    programs.iter().all(|program| need_program(test, program).is_some()) && namespace::enter(test)
}

/// Runs a command, which must succeed, and returns its output.
pub fn run(program: &str, arguments: &str) -> String {
    output(&mut Command::new(find_program(program).expect("it is installed")), arguments)
}

fn output(command: &mut Command, arguments: &str) -> String {
    let output = command.args(arguments.split_whitespace()).stdin(Stdio::null()).output().expect("it is installed");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {stdout}{stderr}");
    stdout.into_owned()
}

/// A network with the test in it: a bridge, which has this address (with its prefix).
pub fn network(address: &str) {
    run("ip", "link add br0 type bridge");
    run("ip", "link set br0 up");
    run("ip", &format!("address add {address} dev br0"));
}

/// A host: a network namespace with one interface.
pub struct Host {
    /// Holds the namespace, and does nothing else.
    holder: Child,
    /// True if the host has its own mount namespace, too.
    has_mounts: bool,
}

impl Host {
    /// Makes a host whose eth0 has this address (with its prefix). Its number is that of no other.
    pub fn new(number: usize, address: &str) -> Self {
        let mut command = Command::new("unshare");
        // Ends when this process does, however that comes.
        let holder = command.args(["--net", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let holder = holder.spawn().expect("a namespace can be made: this is one");
        let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
        let ours = namespace("self");
        until("the host has a namespace of its own", || (namespace(&holder.id().to_string()) != ours).then_some(()));
        let host = Self { holder, has_mounts: false };
        run("ip", &format!("link add v{number} type veth peer name eth0 netns {}", host.holder.id()));
        run("ip", &format!("link set v{number} master br0 up"));
        host.run("ip", "link set lo up");
        host.run("ip", "link set eth0 up");
        host.run("ip", &format!("address add {address} dev eth0"));
        host
    }

    /// Makes a host that hangs on nothing yet. What is mounted at /sys shows its devices, as that of a
    /// machine does. It does not forward: a machine with containers does, and new namespaces begin as it is.
    pub fn apart() -> Self {
        let mut command = Command::new("unshare");
        let script = "mount -t sysfs none /sys && ip link set lo up && echo 0 >/proc/sys/net/ipv4/ip_forward && \
                      echo there && exec cat";
        let holder = command.args(["--net", "--mount", "--", "sh", "-c", script]);
        let mut holder =
            holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a namespace can be made: this is one");
        let mut line = String::new();
        let stdout = holder.stdout.as_mut().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a pipe can be read");
        assert_eq!(line, "there\n", "the host has namespaces of its own");
        Self { holder, has_mounts: true }
    }

    /// The process that holds the namespace.
    pub fn id(&self) -> u32 {
        self.holder.id()
    }

    /// A command on this host; its process is that of the program.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        let holder = self.holder.id();
        command.arg(format!("--net=/proc/{holder}/ns/net"));
        if self.has_mounts {
            command.arg(format!("--mount=/proc/{holder}/ns/mnt"));
        }
        command.arg("--").arg(program.as_ref());
        command
    }

    /// Runs a command on this host, which must succeed, and returns its output.
    pub fn run(&self, program: &str, arguments: &str) -> String {
        output(&mut self.command(find_program(program).expect("it is installed")), arguments)
    }

    /// Starts an LS here, with this line in its section, and the TS that it asks.
    pub fn start(&self, listen: &str) -> Server {
        let folder = TempDir::new().expect("a temporary folder");
        let config = CONFIG.replace("LISTEN", listen);
        fs::write(folder.path().join("config.toml"), config).expect("our own folder");
        fs::write(folder.path().join("hosts.txt"), load_table()).expect("our own folder");
        let mut command = self.command(crate::program());
        command.args(["serve", "-c"]).arg(folder.path().join("config.toml"));
        Server::ready(Process::run_by(command, |_| {}), folder)
    }

    /// How many clients' queries the LS here has answered by a backend.
    pub(crate) fn answered(&self) -> usize {
        let metrics = self.run("curl", "--silent --fail http://127.0.0.1:5380/metrics");
        let count = |line: &str| line.strip_prefix(ANSWERED)?.trim().parse().ok();
        metrics.lines().find_map(count).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// The series that counts answers from a backend.
const ANSWERED: &str = "hedgerow_responses_total{rcode=\"NOERROR\",source=\"backend\"}";

/// How long queries run between two changes: at 1,000 a second, 300 queries.
pub const WHILE: Duration = Duration::from_millis(300);

/// A forwarder that waits longer for an address than any test, and an authority; no client is limited.
const CONFIG: &str = "workers = 1
drain_delay = '5m'
[forwarder]
LISTEN
allow = ['0.0.0.0/0']
rate_limit = { answers = 0, referrals = 0, nxdomains = 0, errors = 0, total = 0 }
[pools.ts]
backends = ['127.0.0.1:5301']
[authorities.ts]
listen = ['127.0.0.1:5301']
zones = ['hosts.txt']
[admin]
listen = '127.0.0.1:5380'
";
