//! Faults on demand, in builds for tests alone (cargo feature `faults`).

/// Panics if a message asks for `panic.hedgerow.test.`, of whatever type.
pub fn on_message(message: &[u8]) {
    // Behind the header (RFC 1035 section 4.1.1).
    let asked = message.get(12..12 + NAME.len());
    assert!(!asked.is_some_and(|name| name.eq_ignore_ascii_case(NAME)), "asked for panic.hedgerow.test.");
}

/// The name, as a message has it.
const NAME: &[u8] = b"\x05panic\x08hedgerow\x04test\0";
