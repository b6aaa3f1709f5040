//! Tests of programs: the interpreter runs the filter on the frames that the kernel tests use too.

pub(crate) mod cases;
mod interpreter;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;

use self::interpreter::{InterpreterState, Map, run};
use super::*;
use crate::frame;

const LISTENING: i32 = 11;
const HELD_PORTS: i32 = 12;
const SOCKETS: i32 = 13;
const PASSED_FRAMES: i32 = 14;
const QUEUES: u32 = 4;

fn program() -> Vec<u64> {
    let maps =
        Maps { listening: LISTENING, held: HELD_PORTS, sockets: SOCKETS, passed: PASSED_FRAMES, counters: QUEUES };
    filter(cases::MAC, cases::WORKERS, maps)
}

/// An address and its port as in keys and values of maps.
fn octets(text: &str) -> ([u8; 16], [u8; 2]) {
    let address: SocketAddr = text.parse().expect("an address");
    let ip: Ipv6Addr = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    (ip.octets(), address.port().to_be_bytes())
}

/// The maps of the cases, for a frame on a queue.
fn world(queue: u32) -> InterpreterState {
    let key = |text| {
        let (ip, port) = octets(text);
        ([&ip[..], &port, &[0, 0]].concat(), vec![1, 0, 0, 0])
    };
    let mut held = vec![0; HELD * 2 * HELD_IPV6 as usize];
    for (worker, local, remote) in cases::HELD {
        let ((local_ip, local_port), (remote_ip, remote_port)) = (octets(local), octets(remote));
        let value = [&(worker + 1).to_ne_bytes()[..], &remote_port, &[0, 0], &remote_ip, &local_ip].concat();
        let family = if local.starts_with('[') { 65_536 } else { 0 };
        let at = HELD * (family + usize::from(u16::from_be_bytes(local_port)));
        held[at..at + HELD].copy_from_slice(&value);
    }
    let maps = [
        (LISTENING, Map::Hash(cases::LISTENING.map(key).into())),
        (HELD_PORTS, Map::Array(held, HELD)),
        (SOCKETS, Map::Sockets((0..QUEUES).collect())),
        (PASSED_FRAMES, Map::Array(vec![0; PASSED * QUEUES as usize], PASSED)),
    ];
    InterpreterState { queue, maps: maps.into() }
}

fn passed(world: &InterpreterState) -> Vec<u64> {
    let Map::Array(values, _) = &world.maps[&PASSED_FRAMES] else { panic!("an array") };
    let counts = values.chunks(PASSED).map(|value| value.first_chunk().copied().expect("eight octets"));
    counts.map(u64::from_ne_bytes).collect()
}

#[test]
fn frames_go_where_they_belong() {
    let (program, mut world) = (program(), world(0));
    let mut count = 0;
    for (what, frame, wanted) in cases::all() {
        assert_eq!(run(&program, &frame, &mut world), wanted, "{what}");
        count += u64::from(wanted == XDP_PASS);
        assert_eq!(passed(&world)[0], count, "{what}");
    }
    for length in 0..14 {
        assert_eq!(run(&program, &cases::all()[0].1[..length], &mut world), XDP_PASS, "{length} octets");
    }
}

#[test]
fn reply_goes_to_the_queues_of_its_worker_only() {
    let program = program();
    let cases = cases::all();
    let is_about = |what: &str| cases.iter().find(|case| case.0 == what).expect("a case").1.clone();
    let (first, second, query) = (is_about("a reply"), is_about("a reply to another worker"), is_about("a query"));
    for queue in 0..QUEUES {
        let mut world = world(queue);
        let fates = [&first, &second, &query].map(|frame| run(&program, frame, &mut world));
        let [here, there] = if queue % 2 == 0 { [XDP_REDIRECT, XDP_PASS] } else { [XDP_PASS, XDP_REDIRECT] };
        assert_eq!(fates, [here, there, XDP_REDIRECT], "queue {queue}");
        let mut counts = vec![0; QUEUES as usize];
        counts[queue as usize] = 1;
        assert_eq!(passed(&world), counts);
    }
}

#[test]
fn queue_without_a_socket_passes_all() {
    let (program, mut world) = (program(), world(2));
    world.maps.insert(SOCKETS, Map::Sockets(vec![0, 1, 3]));
    for (what, frame, _) in cases::all() {
        assert_eq!(run(&program, &frame, &mut world), XDP_PASS, "{what}");
    }
    assert_eq!(passed(&world)[2], cases::all().len() as u64);
}

#[test]
fn queues_beyond_the_counters_share_them() {
    let (program, mut world) = (program(), world(7));
    for (_, frame, _) in cases::all() {
        assert_eq!(run(&program, &frame, &mut world), XDP_PASS);
    }
    assert_eq!(passed(&world), [0, 0, 0, cases::all().len() as u64]);
}

#[test]
fn labels_lead_ahead_from_several_places() {
    let mut code = Assembler::default();
    let [one, two] = [(); 2].map(|()| code.label());
    code.copy(R0, 1);
    code.jump_if(JumpCondition::NotEqual, R0, 1, one);
    code.jump_if(JumpCondition::Equal, R0, 1, two);
    code.place(one);
    code.copy(R0, 2);
    code.place(two);
    code.exit();
    let program = code.finish();
    let jumps = program.iter().map(|instruction| (instruction >> 16) as u16);
    assert_eq!(jumps.collect::<Vec<_>>(), [0, 1, 1, 0, 0]);
    assert_eq!(run(&program, &[], &mut InterpreterState::default()), 1);
}

#[test]
fn instructions_are_those_of_the_kernel() {
    // As printed by `bpftool prog dump xlated opcodes`.
    let mut code = Assembler::default();
    code.load(Half, R1, (R7, 12));
    code.store(Word, (R10, -8), R1);
    code.store(Long, (R10, -16), 0);
    code.copy(R2, R10);
    code.compute(Arithmetic::Add, R2, -16);
    code.atomic_add(Long, (R0, 0), R1);
    code.network_to_host(R1);
    code.load_map(R1, 5);
    code.exit();
    let octets: Vec<_> = code.finish().into_iter().map(u64::to_le_bytes).collect();
    let wanted = [
        [0x69, 0x71, 12, 0, 0, 0, 0, 0],
        [0x63, 0x1A, 0xF8, 0xFF, 0, 0, 0, 0],
        [0x7A, 0x0A, 0xF0, 0xFF, 0, 0, 0, 0],
        [0xBF, 0xA2, 0, 0, 0, 0, 0, 0],
        [0x07, 0x02, 0, 0, 0xF0, 0xFF, 0xFF, 0xFF],
        [0xDB, 0x10, 0, 0, 0, 0, 0, 0],
        [0xDC, 0x01, 0, 0, 16, 0, 0, 0],
        [0x18, 0x11, 0, 0, 5, 0, 0, 0],
        [0; 8],
        [0x95, 0, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(octets, wanted);
}

proptest! {
    /// The program redirects exactly the valid frames that are for hedgerow.
    #[test]
    fn program_agrees_with_the_reader_of_frames(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((0_usize..70, any::<u8>()), 0..4),
    ) {
        let cases = cases::all();
        let mut frame = which.get(&cases).1.clone();
        for (at, octet) in changes {
            if let Some(place) = frame.get_mut(at) {
                *place = octet;
            }
        }
        let fate = run(&program(), &frame, &mut world(0));
        let Some(datagram) = frame::read(&frame, frame::Checksums::MaybePartial) else { return Ok(()) };
        let is_listened = cases::LISTENING.iter().any(|text| text.parse() == Ok(datagram.destination));
        let is_held = cases::HELD.iter().any(|&(worker, local, remote)| {
            worker == 0 && local.parse() == Ok(datagram.destination) && remote.parse() == Ok(datagram.source)
        });
        let is_short = frame.len() <= MAX_FRAME;
        let is_ours = datagram.link.ours == cases::MAC && is_short && (is_listened || is_held);
        prop_assert_eq!(fate, if is_ours { XDP_REDIRECT } else { XDP_PASS });
    }
}
