//! A `hedgerow ts` process that a test kills, stops, continues and starts again at the same address.

use std::ffi::OsStr;
use std::io::Write;
use std::net::SocketAddr;

use rustix::process::Signal;
use tempfile::NamedTempFile;

use crate::{Process, Server, until};

/// A TS with one table.
pub struct Authority {
    process: Process,
    address: SocketAddr,
    table: NamedTempFile,
}

impl Authority {
    /// Starts one on a free port.
    pub fn start(content: &str) -> Self {
        let mut table = NamedTempFile::new().expect("a temporary file");
        table.write_all(content.as_bytes()).expect("a temporary file can be written");
        let server = Server::run(arguments("127.0.0.1:0", &table));
        let address = server.listener("authority");
        Self { process: server.process, address, table }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it as a crash does; its port is closed when this returns.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait_for_exit();
    }

    /// Keeps it from running: it says nothing, and its port stays open.
    pub fn stop(&self) {
        crate::tree::stop(self.process.id());
    }

    /// Lets it run on.
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Starts it again after a [`kill`](Self::kill).
    pub fn restart(&mut self) {
        // A socket of someone else may have been given the port meanwhile: not for long.
        self.process = until("the port is free again", || {
            let process = Process::run(arguments(&self.address.to_string(), &self.table));
            process.try_wait_for_log(" ready ").map(|_| process)
        });
    }
}

fn arguments<'a>(listen: &'a str, table: &'a NamedTempFile) -> [&'a OsStr; 4] {
    [OsStr::new("ts"), OsStr::new("-l"), OsStr::new(listen), table.path().as_os_str()]
}
