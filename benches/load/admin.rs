//! Asking the admin server of a server under load, by TCP and over its socket.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// The addresses of an admin server.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) address: SocketAddr,
    /// The socket for requests that change something.
    pub(crate) socket: PathBuf,
}

impl Admin {
    /// The section of the config.
    pub(crate) fn config(&self) -> String {
        format!("[admin]\nlisten = \"{}\"\nsocket = {:?}\n", self.address, self.socket)
    }

    /// Requests a path and returns the body.
    pub(crate) fn get(&self, path: &str) -> io::Result<String> {
        self.exchange(TcpStream::connect(self.address)?, "GET", path, "")
    }

    pub(crate) fn change(&self, method: &str, path: &str, body: &str) -> io::Result<()> {
        self.exchange(UnixStream::connect(&self.socket)?, method, path, body).map(drop)
    }

    /// One request and the body of its answer.
    fn exchange(&self, mut stream: impl Read + Write, method: &str, path: &str, body: &str) -> io::Result<String> {
        let (host, length) = (self.address, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        write!(stream, "{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(io::Error::other(format!("{method} {path}: {answer}")));
        }
        Ok(body.to_owned())
    }
}

/// A free address for an admin server.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
