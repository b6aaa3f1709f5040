#![no_main]

#[allow(dead_code, reason = "each binary runs one of the targets")]
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(
    init: {
        // libFuzzer has its own `main`, so the standard library does not ignore the signal.
        // SAFETY: no handler is installed, and no other thread runs yet.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    },
    |octets: &[u8]| targets::clients::clients(octets)
);
