//! Injected faults, only in test builds (cargo feature `faults`).

use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// Panics if a message of any type asks for `panic.hedgerow.test.`.
pub fn on_message(message: &[u8]) {
    let asked = message.get(12..12 + NAME.len());
    assert!(!asked.is_some_and(|name| name.eq_ignore_ascii_case(NAME)), "asked for panic.hedgerow.test.");
}

/// Blocks like a stalled disk while a file with this name plus `.stall` exists.
pub fn on_open(path: &Path) {
    let mut stall = path.as_os_str().to_owned();
    stall.push(".stall");
    while Path::new(&stall).exists() {
        sleep(Duration::from_millis(5));
    }
}

/// Panics or blocks for ever at the start of a task of the kind that `HEDGEROW_LOST_TASK` or
/// `HEDGEROW_STUCK_TASK` names.
pub(crate) fn on_task(kind: &str) {
    let is_asked = |variable| std::env::var_os(variable).is_some_and(|asked| asked == kind);
    assert!(!is_asked("HEDGEROW_LOST_TASK"), "asked to lose {kind}");
    while is_asked("HEDGEROW_STUCK_TASK") {
        sleep(Duration::from_secs(1));
    }
}

/// Fails if `HEDGEROW_REFUSED_THREAD` names the thread that is about to start.
///
/// # Errors
/// WouldBlock, as if the system had no thread left.
pub fn on_thread(name: &str) -> io::Result<()> {
    let is_asked = std::env::var_os("HEDGEROW_REFUSED_THREAD").is_some_and(|asked| asked == name);
    if is_asked { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
}

const NAME: &[u8] = b"\x05panic\x08hedgerow\x04test\0";
