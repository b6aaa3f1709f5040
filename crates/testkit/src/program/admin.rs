//! The admin server as a script meets it: a few lines of HTTP/1.1, and the numbers of `/metrics`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::PATIENCE;

/// The admin server of one process.
pub struct Admin {
    address: SocketAddr,
    /// The socket that takes changes.
    socket: PathBuf,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// All behind the header.
    pub body: String,
}

impl Admin {
    /// The admin server at this address, which takes changes over this socket.
    pub fn of(address: SocketAddr, socket: PathBuf) -> Self {
        Self { address, socket }
    }

    /// Returns the address of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a GET request.
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "")
    }

    /// Reads a path; `None` if no server listens just then.
    pub fn try_get(&self, path: &str) -> Option<Answer> {
        let stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        self.exchange(stream, "GET", path, &[], "").ok()
    }

    /// Makes a change over the socket, as `ctl` does; it must be carried out.
    pub fn post(&self, path: &str, body: &str) {
        let answer = self.try_post(path, body);
        assert_eq!(answer.status, 200, "POST {path}: {answer:?}");
    }

    /// Makes a change, which may be refused.
    pub fn try_post(&self, path: &str, body: &str) -> Answer {
        self.send_over_socket("POST", path, body)
    }

    /// Takes something out, if that is not refused.
    pub fn try_delete(&self, path: &str) -> Answer {
        self.send_over_socket("DELETE", path, "")
    }

    /// Sends a request over the unix socket.
    pub fn send_over_socket(&self, method: &str, path: &str, body: &str) -> Answer {
        let stream = UnixStream::connect(&self.socket).expect("the admin server listens at its socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        self.exchange(stream, method, path, &[], body).expect("an answer in time")
    }

    /// Sends a request by TCP with these header lines besides `Host`, unless that is one of them.
    pub fn send(&self, method: &str, path: &str, lines: &[(&str, &str)], body: &str) -> Answer {
        let stream = TcpStream::connect(self.address).expect("the admin server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        self.exchange(stream, method, path, lines, body).expect("an answer in time")
    }

    /// One request and its answer.
    fn exchange(
        &self,
        mut stream: impl Read + Write,
        method: &str,
        path: &str,
        lines: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Answer> {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if lines.iter().all(|(name, _)| *name != "Host") {
            request.push_str(&format!("Host: {}\r\n", self.address));
        }
        for (name, value) in lines {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{request}\r\n{body}").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        // A header ends with an empty line, and begins with a status code.
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(ErrorKind::InvalidData)?;
        Ok(Answer { status, body: body.to_owned() })
    }

    /// All numbers as of now.
    pub fn metrics(&self) -> Metrics {
        Metrics(self.get("/metrics").body)
    }

    /// Returns the entry of one backend in `/api/v1/status`, by its name; `Value::Null` if it is in no pool.
    pub fn backend(&self, name: &str) -> Value {
        let answer = self.get("/api/v1/status");
        let status: Value = serde_json::from_str(&answer.body).expect("the status is JSON");
        let pools = status["pools"].as_array().expect("a list of pools");
        let mut backends = pools.iter().flat_map(|pool| pool["backends"].as_array().expect("a list of backends"));
        backends.find(|backend| backend["name"] == name).cloned().unwrap_or_default()
    }

    /// Waits until the metrics are as they should be.
    pub fn wait_for(&self, what: &str, is_so: impl Fn(&Metrics) -> bool) -> Metrics {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metrics = self.metrics();
            if is_so(&metrics) {
                return metrics;
            }
            assert!(Instant::now() < deadline, "waited in vain: {what}: {}", metrics.0);
            thread::sleep(POLL);
        }
    }

    /// Waits until the status has a value that is looked for.
    pub fn wait_for_status<T>(&self, what: &str, find: impl Fn(&Value) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let body = self.get("/api/v1/status").body;
            if let Some(found) = find(&serde_json::from_str(&body).expect("the status is JSON")) {
                return found;
            }
            assert!(Instant::now() < deadline, "waited in vain: {what}: {body}");
            thread::sleep(POLL);
        }
    }

    /// Waits until a backend is up, or is not, in all its pools.
    pub fn wait_for_state(&self, backend: SocketAddr, is_up: bool) {
        let name = backend.to_string();
        self.wait_for(&format!("{name} is up: {is_up}"), |metrics| {
            let samples = metrics.samples("hedgerow_backend_up", &[("backend", &name)]);
            !samples.is_empty() && samples.iter().all(|&up| up == u64::from(is_up))
        });
    }
}

/// The text of `/metrics`.
#[derive(Debug)]
pub struct Metrics(pub String);

impl Metrics {
    /// The sum over all samples of this name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.samples(name, labels).iter().sum()
    }

    /// Attempts of one kind, or of all but probes.
    pub fn attempts(&self, backend: SocketAddr, kind: Option<&str>) -> u64 {
        let backend = backend.to_string();
        let count = |kind| self.sum("hedgerow_attempts_total", &[("backend", &backend), ("kind", kind)]);
        kind.map_or_else(|| count("first") + count("hedge") + count("failover"), count)
    }

    /// The values of all samples of this name that have these labels.
    fn samples(&self, name: &str, labels: &[(&str, &str)]) -> Vec<u64> {
        let split = |line: &'_ str| -> Option<(String, String)> {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((labels.to_owned(), value.to_owned()))
        };
        let ours = self.0.lines().filter_map(split);
        let labelled = ours.filter(|(found, _)| labels.iter().all(|(k, v)| found.contains(&format!("{k}=\"{v}\""))));
        labelled.map(|(_, value)| value.trim().parse().expect("a whole number")).collect()
    }
}

/// How often a state is asked for while we wait for it. Asking without a break would keep the control thread,
/// which probes, from its work.
const POLL: Duration = Duration::from_millis(5);
