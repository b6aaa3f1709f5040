//! What `benches/xdp` does to frames is right: the program that chooses them, run here by a small interpreter, and the turn that makes an
//! echo of a query. The bench itself has the kernel try the same frames.

#[path = "../benches/xdp/frame.rs"]
mod frame;
#[path = "../benches/xdp/program.rs"]
mod program;

use program::{XDP_PASS, XDP_REDIRECT};

#[path = "../benches/xdp/frames.rs"]
mod frames;

/// Neither 0 nor the same octet twice.
const PORT: u16 = 0x1253;
/// A descriptor.
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

/// Where the frame lies, to the program.
const FRAME: u64 = 0x10_0000;
/// Where the context lies.
const CONTEXT: u64 = 0x20_0000;

/// Runs a program on a frame and returns what it says, with a socket in the map.
fn run(program: &[u64], frame: &[u8]) -> u32 {
    let mut registers = [0_u64; 11];
    registers[1] = CONTEXT;
    let mut at = 0;
    loop {
        let [op, both, offset_low, offset_high, number @ ..] = program[at].to_le_bytes();
        let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
        let offset = i64::from(i16::from_le_bytes([offset_low, offset_high]));
        let number = i64::from(i32::from_le_bytes(number)) as u64;
        at += 1;
        let jump = at.wrapping_add_signed(offset as isize);
        match op {
            // Loads of four, two octets and one.
            0x61 if from == 1 => {
                registers[to] = match offset {
                    0 => FRAME,
                    4 => FRAME + frame.len() as u64,
                    16 => 0,
                    other => panic!("the context has nothing at {other}"),
                };
            }
            0x69 | 0x71 => {
                let place = registers[from].wrapping_add_signed(offset).wrapping_sub(FRAME) as usize;
                registers[to] = match op {
                    0x69 => u64::from(u16::from_ne_bytes([frame[place], frame[place + 1]])),
                    _ => u64::from(frame[place]),
                };
            }
            0x18 => {
                assert_eq!((from, number, program[at]), (1, MAP as u64, 0), "the map");
                registers[to] = number;
                at += 1;
            }
            0xBF => registers[to] = registers[from],
            0xB7 => registers[to] = number,
            0x07 => registers[to] = registers[to].wrapping_add(number),
            0x57 => registers[to] &= number,
            0x2D if registers[to] > registers[from] => at = jump,
            0x55 if registers[to] != number => at = jump,
            0x2D | 0x55 => {}
            0x85 => {
                assert_eq!(number, 51, "the function");
                assert_eq!(registers[1..4], [MAP as u64, 0, u64::from(XDP_PASS)], "its arguments");
                registers[0] = u64::from(XDP_REDIRECT);
            }
            0x95 => return registers[0] as u32,
            other => panic!("no operation {other:#x}"),
        }
    }
}
