//! Programs of others that run beside a test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::{env, thread};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{leave_out, until};

/// A program with its files in a folder, and its output in a file there. Dropping it ends it; if the test
/// fails, its output is shown.
pub struct Daemon {
    child: Child,
    folder: TempDir,
}

impl Daemon {
    /// Starts a program by the command that `make` builds for a new folder.
    pub fn start(make: impl FnOnce(&Path) -> Command) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let command = make(folder.path());
        Self::start_in(folder, command)
    }

    /// Starts a program that has its files in this folder.
    pub(crate) fn start_in(folder: TempDir, mut command: Command) -> Self {
        let log = File::create(folder.path().join("log")).expect("our own folder");
        let copy = log.try_clone().expect("a descriptor");
        let child = command.stdin(Stdio::null()).stdout(copy).stderr(log).spawn().expect("it is installed");
        Self { child, folder }
    }

    /// Returns the path of a file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a file in its folder.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("our own folder");
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is ours");
    }

    /// Ends the program in order.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        until("it has ended", || {
            thread::yield_now();
            self.child.try_wait().expect("the process is ours")
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The first process of a program of several ends the others when it gets the signal. A process that
        // the test has stopped gets it when it continues.
        for signal in [Signal::TERM, Signal::CONT] {
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
        let _ = self.child.wait();
        if thread::panicking() {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            eprintln!("--- output of {} ---\n{log}\n---", self.folder.path().display());
        }
    }
}

/// Returns the path of a program. Daemons are in folders that are not on the path of every user.
pub fn find_program(program: &str) -> Option<PathBuf> {
    let path = env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/usr/local/sbin", "/sbin"]);
    folders.map(|folder| Path::new(folder).join(program)).find(|file| file.is_file())
}

/// Returns the path of a program that a test needs, or `None` with a message if it is not installed.
pub fn need_program(test: &str, program: &str) -> Option<PathBuf> {
    let found = find_program(program);
    if found.is_none() {
        leave_out(test, &format!("{program} is not installed"));
    }
    found
}
