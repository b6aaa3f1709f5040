//! What `benches/common/xdp_echo` does to frames is right: the program that chooses them, run here by the
//! interpreter of the library's tests, and the turn that makes an echo of a query. The benches themselves
//! have the kernel try the same frames.

#[path = "../benches/common/xdp_echo/frame.rs"]
mod frame;
#[path = "../benches/common/xdp_echo/program.rs"]
mod program;

#[path = "../benches/common/xdp_echo/frames.rs"]
mod frames;
#[path = "../crates/xdp/src/program/tests/interpreter.rs"]
#[allow(dead_code, reason = "it is a part of the tests of the library too")]
mod interpreter;

use af_xdp::program::XDP_PASS;

use interpreter::{InterpreterState, Map};

/// Neither 0 nor the same byte twice.
const PORT: u16 = 0x1253;
const MAP: i32 = 77;

#[test]
fn queries_to_the_port_go_to_the_socket_and_all_else_passes() {
    let program = program::redirecting(PORT, MAP);
    for (what, frame, wanted) in frames::all(PORT) {
        assert_eq!(run(&program, &frame), wanted, "{what}");
        assert_eq!(run(&program::passing(), &frame), XDP_PASS, "{what}");
    }
    for length in 0..42 {
        assert_eq!(run(&program, &frames::query(PORT)[..length]), XDP_PASS, "{length} octets of a query");
    }
}

#[test]
fn echo_goes_back_with_sums_that_hold() {
    let query = frames::query(PORT);
    assert_eq!(sum(&query[14..34]), 0xFFFF, "the sum of the query's IP header");
    let mut echo = query.clone();
    assert!(frame::turn(&mut echo));
    assert_eq!(sum(&echo[14..34]), 0xFFFF, "the sum of the echo's IP header");
    assert_eq!((&echo[..6], &echo[6..12]), (&query[6..12], &query[..6]), "the devices");
    assert_eq!((&echo[26..30], &echo[30..34]), (&query[30..34], &query[26..30]), "the hosts");
    assert_eq!((&echo[34..36], &echo[36..38]), (&query[36..38], &query[34..36]), "the ports");
    assert_eq!(&echo[38..40], &query[38..40], "the length");
    assert_eq!(&echo[40..42], &[0, 0], "no checksum of UDP");
    assert_eq!(echo[44], query[44] | 0x80, "the flag QR");
    assert_eq!((&echo[..44].len(), &echo[45..]), (&44, &query[45..]), "all other octets");
}

#[test]
fn short_frame_is_left_alone() {
    let query = frames::query(PORT);
    let mut short = query[..44].to_vec();
    assert!(!frame::turn(&mut short));
    assert_eq!(short, query[..44]);
}

/// The sum of RFC 1071 over a header; all ones if its checksum holds.
fn sum(header: &[u8]) -> u32 {
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    (sum & 0xFFFF) + (sum >> 16)
}

/// Runs a program on a frame and returns what it says, with a socket in the map.
fn run(program: &[u64], frame: &[u8]) -> i32 {
    let maps = [(MAP, Map::Sockets(vec![0]))].into();
    interpreter::run(program, frame, &mut InterpreterState { queue: 0, maps })
}
