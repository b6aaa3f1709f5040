//! Faults on demand, in builds for tests alone (cargo feature `faults`): a worker that panics, a disk that stalls, a task that is lost,
//! a thread that does not start.

use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// Panics if a message asks for `panic.hedgerow.test.`, of whatever type.
pub fn on_message(message: &[u8]) {
    // Behind the header (RFC 1035 section 4.1.1).
    let asked = message.get(12..12 + NAME.len());
    assert!(!asked.is_some_and(|name| name.eq_ignore_ascii_case(NAME)), "asked for panic.hedgerow.test.");
}

/// Waits for as long as there is a file of this name with `.stall` behind it, as one waits for a disk that has gone.
pub fn on_open(path: &Path) {
    let mut stall = path.as_os_str().to_owned();
    stall.push(".stall");
    while Path::new(&stall).exists() {
        sleep(Duration::from_millis(5));
    }
}

/// At the begin of a task of this kind, the environment may ask for its loss (`HEDGEROW_LOST_TASK=probe`), or for it to keep its
/// thread for ever (`HEDGEROW_STUCK_TASK=probe`).
pub fn on_task(kind: &str) {
    let is_asked = |variable| std::env::var_os(variable).is_some_and(|asked| asked == kind);
    assert!(!is_asked("HEDGEROW_LOST_TASK"), "asked to lose {kind}");
    while is_asked("HEDGEROW_STUCK_TASK") {
        sleep(Duration::from_secs(1));
    }
}

/// Fails where a thread of this name is about to start, if the environment asks for that (`HEDGEROW_REFUSED_THREAD=taps`).
///
/// # Errors
/// As the operating system has it that has no thread left.
pub fn on_thread(name: &str) -> io::Result<()> {
    let is_asked = std::env::var_os("HEDGEROW_REFUSED_THREAD").is_some_and(|asked| asked == name);
    if is_asked { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
}

/// The name, as a message has it.
const NAME: &[u8] = b"\x05panic\x08hedgerow\x04test\0";
