//! A real etcd of one member in a folder of its own, a relay before it that cuts and stalls, and a gateway that gives what a real etcd
//! will not.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{PATIENCE, free_address, leave_out, until};

/// A running etcd. Dropping it kills it.
pub(crate) struct Etcd {
    child: Child,
    client: SocketAddr,
    peer: SocketAddr,
    folder: TempDir,
}

impl Etcd {
    /// Starts one; `None` with a message if it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let is_there = |program: &str| Command::new(program).arg("--version").output().is_ok();
        if !["etcd", "etcdctl"].into_iter().all(is_there) {
            leave_out("fleet", "etcd-server and etcd-client are not installed");
            return None;
        }
        let (client, peer) = (free_address(), free_address());
        let folder = TempDir::new().expect("a temporary folder");
        let child = run(folder.path(), client, peer);
        let etcd = Self { child, client, peer, folder };
        etcd.wait();
        Some(etcd)
    }

    /// Where it is asked.
    pub(crate) fn address(&self) -> SocketAddr {
        self.client
    }

    /// The section of a config for it.
    pub(crate) fn section(&self) -> String {
        section(self.client)
    }

    /// Runs `etcdctl`; gives what it prints.
    pub(crate) fn ctl(&self, words: &[&str]) -> String {
        let output = self.try_ctl(words);
        assert!(output.status.success(), "etcdctl {words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn try_ctl(&self, words: &[&str]) -> std::process::Output {
        let endpoint = format!("http://{}", self.client);
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoint]).args(words);
        command.output().expect("it is installed")
    }

    /// Writes a value of any length.
    pub(crate) fn put(&self, key: &str, value: &str) {
        let mut put = Command::new("etcdctl");
        put.env("ETCDCTL_API", "3").args(["--endpoints", &format!("http://{}", self.client), "put", key]);
        let mut put = put.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it is installed");
        put.stdin.take().expect("piped").write_all(value.as_bytes()).expect("it reads");
        assert!(put.wait().expect("it ends").success(), "etcdctl put {key}");
    }

    /// Writes a member.
    pub(crate) fn put_member(&self, key: &str, name: &str, value: &str) {
        self.put(&format!("hedgerow/pools/{key}/members/{name}"), value);
    }

    /// Waits until it answers.
    pub(crate) fn wait(&self) {
        until("etcd answers", || {
            let output = self.try_ctl(&["get", "x"]);
            // Whoever must say who he is is told so by one that is well.
            let is_told = String::from_utf8_lossy(&output.stderr).contains("user name is empty");
            (output.status.success() || is_told).then_some(())
        });
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::KILL).expect("the process is ours");
        self.child.wait().expect("it ends");
    }

    /// Starts it again, with what it had.
    pub(crate) fn restart(&mut self) {
        self.child = run(self.folder.path(), self.client, self.peer);
        self.wait();
    }

    /// Keeps it from running.
    pub(crate) fn stop(&self) {
        super::tree::stop(self.child.id());
    }

    /// Lets it run on.
    pub(crate) fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("the process is ours");
    }

    /// Its files, for what is restored later.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// An etcd that is asked by TLS alone, with a certificate for 127.0.0.1 and etcd.example; `None` with a message if something for that is
/// not installed. In its folder, `ca.pem` is what made the certificate, and `other.pem` something that did not.
pub(crate) fn start_tls() -> Option<(SocketAddr, TempDir, TlsEtcd)> {
    let is_there = |program: &str, word: &str| Command::new(program).arg(word).output().is_ok();
    if !is_there("etcd", "--version") || !is_there("openssl", "version") {
        leave_out("fleet", "etcd-server and openssl are not installed");
        return None;
    }
    let folder = TempDir::new().expect("a temporary folder");
    let openssl = |line: &str| {
        let output = Command::new("openssl").args(line.split(' ')).current_dir(folder.path()).output();
        let output = output.expect("it is installed");
        assert!(output.status.success(), "openssl {line}: {output:?}");
    };
    for name in ["ca", "other"] {
        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem"
        ));
    }
    openssl(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=etcd -keyout etcd.key -out etcd.csr",
    );
    let names = "subjectAltName=IP:127.0.0.1,DNS:etcd.example\n";
    std::fs::write(folder.path().join("names"), names).expect("our own folder");
    openssl("x509 -req -in etcd.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out etcd.pem");
    let (client, peer) = (free_address(), free_address());
    let (url, peer) = (format!("https://{client}"), format!("http://{peer}"));
    let child = Command::new("etcd")
        .args(["--data-dir", "data", "--cert-file", "etcd.pem", "--key-file", "etcd.key"])
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it is installed");
    Some((client, folder, TlsEtcd(child)))
}

/// Such a process. Dropping it kills it.
pub(crate) struct TlsEtcd(Child);

impl Drop for TlsEtcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The section of a config for an etcd at an address.
pub(crate) fn section(address: SocketAddr) -> String {
    format!("[etcd]\nendpoints = ['http://{address}']\ntimeout = '1s'\n")
}

fn run(folder: &Path, client: SocketAddr, peer: SocketAddr) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).expect("our own folder");
    let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
    Command::new("etcd")
        .args(["--data-dir", &folder.join("data").display().to_string()])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("it is installed")
}

/// A relay of TCP before something, which a test cuts and mends.
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<RelayShared>,
}

struct RelayShared {
    target: SocketAddr,
    open: Mutex<Way>,
}

/// What a relay does with connections.
#[derive(Default)]
struct Way {
    /// It ends them as they come.
    is_cut: bool,
    /// Those that are open.
    connections: Vec<TcpStream>,
}

impl Relay {
    /// Before this address.
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(RelayShared { target, open: Mutex::default() });
        let relayed = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // The relay itself is gone when nobody else knows of it.
                if Arc::strong_count(&relayed) == 1 {
                    return;
                }
                relayed.relay(client);
            }
        });
        Self { address, shared }
    }

    /// Where it is asked.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections, and those that come.
    pub(crate) fn cut(&self) {
        let mut way = self.shared.open.lock().expect("nothing panics here");
        way.is_cut = true;
        way.connections.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    /// Takes connections again.
    pub(crate) fn mend(&self) {
        self.shared.open.lock().expect("nothing panics here").is_cut = false;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
    }
}

impl RelayShared {
    fn relay(&self, client: TcpStream) {
        let mut way = self.open.lock().expect("nothing panics here");
        if way.is_cut {
            return drop(client.shutdown(Shutdown::Both));
        }
        let Ok(server) = TcpStream::connect(self.target) else { return drop(client.shutdown(Shutdown::Both)) };
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (mut from, mut to) = (from.try_clone().expect("descriptors"), to.try_clone().expect("descriptors"));
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            });
        }
        way.connections.extend([client, server]);
    }
}

/// A gateway that answers each request by a script: the path, and how many requests to it came before.
pub(crate) struct Gateway {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

/// What a gateway does with a request.
pub(crate) enum Reply {
    /// This status and body.
    Whole(u16, String),
    /// These octets after the head of a chunked reply, which then stays open.
    Stream(String),
    /// A body of so many octets, if anybody reads them.
    Long(usize),
    /// Nothing at all.
    Silence,
}

impl Gateway {
    /// Starts one.
    pub(crate) fn start(script: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, script) = (Arc::clone(&asked), Arc::new(script));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (count, script) = (Arc::clone(&count), Arc::clone(&script));
                thread::spawn(move || drop(serve(client, &count, &*script)));
            }
        });
        Self { address, asked }
    }

    /// Where it is asked.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Answers the requests of one connection.
fn serve(mut client: TcpStream, asked: &AtomicUsize, script: &dyn Fn(&str, usize) -> Reply) -> io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut octet = [0];
            client.read_exact(&mut octet)?;
            head.push(octet[0]);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next()?.parse().ok());
        client.read_exact(&mut vec![0; length.unwrap_or(0)])?;
        match script(&path, asked.fetch_add(1, Ordering::SeqCst)) {
            Reply::Whole(status, body) => {
                let length = body.len();
                client
                    .write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())?;
            }
            Reply::Stream(text) => {
                let length = text.len();
                let reply = format!("HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{text}\r\n");
                client.write_all(reply.as_bytes())?;
                client.set_read_timeout(Some(PATIENCE))?;
                return client.read(&mut [0]).map(drop);
            }
            Reply::Long(length) => {
                client.write_all(format!("HTTP/1.1 200 X\r\nContent-Length: {length}\r\n\r\n").as_bytes())?;
                let part = [b' '; 64 << 10];
                for _ in 0..length / part.len() {
                    client.write_all(&part)?;
                }
            }
            Reply::Silence => {
                client.set_read_timeout(Some(PATIENCE))?;
                return client.read(&mut [0]).map(drop);
            }
        }
    }
}
