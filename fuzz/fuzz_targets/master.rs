#![no_main]

#[allow(dead_code, reason = "each binary runs one of the targets")]
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| targets::zones::master_file(octets));
