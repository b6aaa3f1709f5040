//! A real etcd, of one member or of three, each in a separate folder; a relay before it that cuts
//! connections, and a gateway that gives responses that a real etcd does not give.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use data_encoding::BASE64;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use crate::{CertificateAuthority, Daemon, PATIENCE, free_address, leave_out, need_program, until};

/// A running etcd: a member of its cluster. Dropping it kills it.
pub struct Etcd {
    child: Child,
    member: Member,
    folder: TempDir,
}

/// The start parameters of a member.
struct Member {
    name: &'static str,
    client: SocketAddr,
    peer: SocketAddr,
    /// All members, as `--initial-cluster` has them.
    cluster: String,
    options: Vec<String>,
}

impl Etcd {
    /// Starts one; `None` with a message if it is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts etcd with additional options.
    pub fn start_with(options: &[&str]) -> Option<Self> {
        let [etcd] = Self::start_all(["default"], &[ALONE, options].concat())?;
        Some(etcd)
    }

    /// Starts three members of one cluster; `None` with a message if it is not installed.
    pub fn start_three() -> Option<[Self; 3]> {
        Self::start_all(["one", "two", "three"], &[])
    }

    fn start_all<const N: usize>(names: [&'static str; N], options: &[&str]) -> Option<[Self; N]> {
        let is_there = |program: &str| Command::new(program).arg("--version").output().is_ok();
        if !["etcd", "etcdctl"].into_iter().all(is_there) {
            leave_out("fleet", "etcd-server and etcd-client are not installed");
            return None;
        }
        let places = names.map(|name| (name, free_address(), free_address()));
        let cluster = places.map(|(name, _, peer)| format!("{name}=http://{peer}")).join(",");
        let all = places.map(|(name, client, peer)| {
            let options = options.iter().copied().map(str::to_owned).collect();
            let member = Member { name, client, peer, cluster: cluster.clone(), options };
            let folder = TempDir::new().expect("a temporary folder");
            Self { child: member.run(folder.path()), member, folder }
        });
        all.iter().for_each(Self::wait);
        Some(all)
    }

    /// Returns the address for clients.
    pub fn address(&self) -> SocketAddr {
        self.member.client
    }

    /// The section of a config for it.
    pub fn section(&self) -> String {
        section(self.address())
    }

    /// Runs `etcdctl`; gives what it prints.
    pub fn ctl(&self, words: &[&str]) -> String {
        let output = self.try_ctl(words);
        assert!(output.status.success(), "etcdctl {words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs `etcdctl`, which may fail.
    pub fn try_ctl(&self, words: &[&str]) -> Output {
        let endpoint = format!("http://{}", self.address());
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoint]).args(words);
        command.output().expect("it is installed")
    }

    /// Writes a value of any length.
    pub fn put(&self, key: &str, value: &str) {
        let output = self.try_put(key, value);
        assert!(output.status.success(), "etcdctl put {key}: {output:?}");
    }

    /// Puts a key; the command may fail.
    pub fn try_put(&self, key: &str, value: &str) -> Output {
        let mut put = Command::new("etcdctl");
        put.env("ETCDCTL_API", "3").args(["--endpoints", &format!("http://{}", self.address()), "put", key]);
        let put = put.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut put = put.expect("it is installed");
        put.stdin.take().expect("piped").write_all(value.as_bytes()).expect("it reads");
        put.wait_with_output().expect("it ends")
    }

    /// Writes the key of a member of a pool.
    pub fn put_member(&self, key: &str, name: &str, value: &str) {
        self.put(&format!("hedgerow/pools/{key}/members/{name}"), value);
    }

    /// Writes and removes keys in one transaction, for tests that do so more often than a process can be
    /// started.
    pub fn change(&self, items: &[(String, Option<Vec<u8>>)]) {
        let of_item = |(key, value): &(String, Option<Vec<u8>>)| {
            let key = BASE64.encode(key.as_bytes());
            match value {
                Some(value) => json!({ "request_put": { "key": key, "value": BASE64.encode(value) } }),
                None => json!({ "request_delete_range": { "key": key } }),
            }
        };
        let body = json!({ "success": items.iter().map(of_item).collect::<Vec<_>>() }).to_string();
        let answer = self.ask("POST /v3/kv/txn", &body).expect("an answer in time");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"succeeded\":true"), "{answer}");
    }

    /// Waits until it answers. `etcdctl` would wait a second between two tries.
    pub(crate) fn wait(&self) {
        until("etcd answers", || {
            thread::yield_now();
            // It is healthy after a read that a majority has agreed to.
            self.ask("GET /health", "").ok().filter(|health| health.contains("\"health\":\"true\""))
        });
    }

    /// Sends a request, and returns the reply with its head.
    fn ask(&self, request: &str, body: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!("{request} HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: {}", body.len());
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes())?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::KILL).expect("the process is ours");
        self.child.wait().expect("it ends");
    }

    /// Starts it again, with what it had.
    pub fn restart(&mut self) {
        self.start_again();
        self.wait();
    }

    /// Starts the member again without waiting for an answer: it may need the other members for that.
    pub fn start_again(&mut self) {
        self.child = self.member.run(self.folder.path());
    }

    /// Saves all that it has, as an operator does.
    pub fn save(&self) -> PathBuf {
        let file = self.folder.path().join("snapshot");
        self.ctl(&["snapshot", "save", &file.display().to_string()]);
        file
    }

    /// Ends it, and starts it again with what was saved and nothing else.
    pub fn restore(&mut self, file: &Path) {
        self.kill();
        fs::remove_dir_all(self.data()).expect("our own folder");
        let [file, data] = [file, &self.data()].map(|path| path.display().to_string());
        let peer = format!("http://{}", self.member.peer);
        let restore = ["snapshot", "restore", &file, "--data-dir", &data, "--name", self.member.name];
        let of_cluster = ["--initial-cluster", &self.member.cluster, "--initial-advertise-peer-urls", &peer];
        self.ctl(&[&restore[..], &of_cluster].concat());
        self.restart();
    }

    /// Keeps it from running.
    pub fn stop(&self) {
        crate::tree::stop(self.child.id());
    }

    /// Lets it run on.
    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("the process is ours");
    }

    /// Returns the data folder, for a later restore.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Options of a member without others. It elects itself after one to two election timeouts, which are 1 s by
/// default.
const ALONE: &[&str] = &["--heartbeat-interval", "10", "--election-timeout", "100"];

/// Starts an etcd that is asked by TLS alone, with a certificate for 127.0.0.1 and etcd.example. In its
/// folder, `ca.pem` is the authority of the certificate, and `other.pem` another one. Returns `None` with a
/// message if etcd is not installed.
pub fn start_tls() -> Option<(SocketAddr, Daemon)> {
    let mut command = Command::new(need_program("fleet", "etcd")?);
    let (client, peer) = (free_address(), free_address());
    let (url, peer) = (format!("https://{client}"), format!("http://{peer}"));
    let daemon = Daemon::start(|folder| {
        let (authority, other) = (CertificateAuthority::new(), CertificateAuthority::new());
        let (chain, key) = authority.issue("etcd.example");
        let files = [("ca.pem", authority.pem()), ("other.pem", other.pem()), ("etcd.pem", chain), ("etcd.key", key)];
        files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).expect("our own folder"));
        command
            .args(["--data-dir", "data", "--cert-file", "etcd.pem", "--key-file", "etcd.key"])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .current_dir(folder);
        command
    });
    Some((client, daemon))
}

/// The section of a config for an etcd at an address.
pub fn section(address: SocketAddr) -> String {
    format!("[etcd]\nendpoints = ['http://{address}']\ntimeout = '1s'\n")
}

impl Member {
    fn run(&self, folder: &Path) -> Child {
        let log = File::options().create(true).append(true).open(folder.join("log")).expect("our own folder");
        let [client, peer] = [self.client, self.peer].map(|address| format!("http://{address}"));
        Command::new("etcd")
            .args(["--data-dir", &folder.join("data").display().to_string(), "--name", self.name])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &self.cluster])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it is installed")
    }
}

/// A relay of TCP before something, which a test cuts and mends.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<RelayShared>,
}

struct RelayShared {
    target: SocketAddr,
    open: Mutex<Way>,
}

/// The behavior of a relay towards connections.
#[derive(Default)]
struct Way {
    /// It ends them as they come.
    is_cut: bool,
    /// The open connections of the relay.
    connections: Vec<TcpStream>,
}

impl Relay {
    /// Starts a relay to this address.
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(RelayShared { target, open: Mutex::default() });
        let relayed = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // The relay has been dropped when this is the last reference.
                if Arc::strong_count(&relayed) == 1 {
                    return;
                }
                relayed.relay(client);
            }
        });
        Self { address, shared }
    }

    /// Returns the address of the relay.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections, and those that come.
    pub fn cut(&self) {
        let mut way = self.shared.open.lock().expect("nothing panics here");
        way.is_cut = true;
        way.connections.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    /// Accepts connections again.
    pub fn mend(&self) {
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
pub struct Gateway {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

/// The reaction of a gateway to a request.
pub enum Reply {
    /// This status and body.
    Whole(u16, String),
    /// These bytes after the head of a chunked reply, which then stays open.
    Stream(String),
    /// A body of so many bytes, or fewer if the client stops reading.
    Long(usize),
    /// Nothing at all.
    Silence,
}

impl Gateway {
    /// Starts a gateway, whose script gets the path and the number of earlier requests.
    pub fn start(script: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Self {
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

    /// Returns the address of the gateway.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of requests.
    pub fn asked(&self) -> usize {
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
