//! XDP programs as BPF bytecode (RFC 9669): an assembler, and the program that selects frames for AF_XDP
//! sockets. In doubt it passes a frame to the kernel. `frame.rs` verifies checksums.

mod assembler;

pub use self::assembler::{Arithmetic, Assembler, Helper, JumpCondition, JumpLabel, Operand, Register, Width};

use Register::*;
use Width::*;

/// XDP verdict: pass the frame to the kernel.
pub const XDP_PASS: i32 = 2;
/// XDP verdict: redirect the frame.
pub const XDP_REDIRECT: i32 = 4;

/// Descriptors of the maps that the program uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maps {
    /// Listening addresses and ports: keys of [`LISTENING_KEY`] bytes.
    pub listening: i32,
    /// The holder of each local port, IPv4 first, then IPv6: values of [`HELD`] bytes.
    pub held: i32,
    /// The socket of each queue.
    pub sockets: i32,
    /// Frames passed to the kernel, by queue: values of [`PASSED`] bytes, with the counter in the first
    /// eight.
    pub passed: i32,
    /// The number of values in `passed`. Higher queues share them.
    pub counters: u32,
}

/// Length of a `listening` key: address in IPv6 form, port in network order, two zero bytes.
pub(crate) const LISTENING_KEY: usize = 20;

/// Length of a value of `held`: the worker's number plus 1, or 0 for no holder (32 bits), the remote port in
/// network order, two zero bytes, then the remote and the local address in IPv6 form.
pub(crate) const HELD: usize = 40;

/// The index of the first IPv6 port in `held`.
pub(crate) const HELD_IPV6: u32 = 1 << 16;

/// Length of a value of `passed`: a cache line, so that queues on different processors do not share one.
pub(crate) const PASSED: usize = 64;

/// Assembles the filter, which redirects a frame to the socket of its queue if all of this is true:
///
/// - it is for the interface's own Ethernet address and no longer than [`MAX_FRAME`],
/// - it has UDP right behind IPv6, or behind IPv4 without options and not fragmented,
/// - it is for a listening address and port; or it comes from the address and port to which a socket of ours
///   at its destination is connected, on a queue of that socket's worker (queue modulo `workers`), because
///   another worker could not handle the reply.
///
/// All other frames, and frames on a queue without a socket, go to the kernel and are counted.
pub(crate) fn filter(mac: [u8; 6], workers: u32, maps: Maps) -> Vec<u64> {
    let mut code = Assembler::default();
    let [ipv6, known, redirect, pass, counted] = [(); 5].map(|()| code.label());
    check_ethernet(&mut code, mac, pass);
    code.load(Half, R1, (FRAME, 12));
    code.jump_if(JumpCondition::Equal, R1, in_memory(ETHER_TYPE_IPV6), ipv6);
    code.jump_if(JumpCondition::NotEqual, R1, in_memory(ETHER_TYPE_IPV4), pass);
    read_ipv4(&mut code, pass);
    code.jump(known);
    code.place(ipv6);
    read_ipv6(&mut code, pass);
    code.place(known);
    code.store(Half, (R10, LOCAL_PORT + 2), 0);
    look_up(&mut code, maps.listening, LOCAL);
    code.jump_if(JumpCondition::NotEqual, R0, 0, redirect);
    check_holder(&mut code, workers, maps.held, pass);

    code.place(redirect);
    code.load(Word, R2, (CONTEXT, CTX_QUEUE));
    code.load_map(R1, maps.sockets);
    // The result if the queue has no socket.
    code.copy(R3, XDP_PASS);
    code.call(Helper::RedirectMap);
    code.jump_if(JumpCondition::Equal, R0, XDP_PASS, pass);
    code.exit();

    code.place(pass);
    code.load(Word, R1, (CONTEXT, CTX_QUEUE));
    code.compute(Arithmetic::Modulo, R1, maps.counters as i32);
    code.store(Word, (R10, INDEX), R1);
    look_up(&mut code, maps.passed, INDEX);
    code.jump_if(JumpCondition::Equal, R0, 0, counted);
    code.copy(R1, 1);
    code.atomic_add(Long, (R0, 0), R1);
    code.place(counted);
    code.copy(R0, XDP_PASS);
    code.exit();
    code.finish()
}

/// Checks the length of the frame and its Ethernet address.
fn check_ethernet(code: &mut Assembler, [m0, m1, m2, m3, m4, m5]: [u8; 6], pass: JumpLabel) {
    code.copy(CONTEXT, R1);
    code.load(Word, FRAME, (R1, CTX_DATA));
    code.load(Word, END, (R1, CTX_DATA_END));
    check_length(code, ETHERNET + IPV4 + UDP, pass);
    // The socket would drop a longer frame.
    code.copy(R1, FRAME);
    code.compute(Arithmetic::Add, R1, MAX_FRAME as i32);
    code.jump_if(JumpCondition::Above, END, R1, pass);
    let (first, last) = (i32::from_ne_bytes([m0, m1, m2, m3]), i32::from(u16::from_ne_bytes([m4, m5])));
    check_fields(code, &[(Word, 0, ALL, first), (Half, 4, ALL, last)], pass);
}

/// Copies addresses and ports of an IPv4 frame to the stack.
fn read_ipv4(code: &mut Assembler, pass: JumpLabel) {
    let not_fragmented = (Half, ETHERNET + 6, in_memory(0x3FFF), 0);
    // Version 4, no options.
    let version = (Octet, ETHERNET, ALL, 0x45);
    check_fields(code, &[version, not_fragmented, (Octet, ETHERNET + 9, ALL, PROTOCOL_UDP)], pass);
    for to in [REMOTE, LOCAL] {
        code.store(Long, (R10, to), 0);
        code.store(Word, (R10, to + 8), i32::from_ne_bytes([0, 0, 0xFF, 0xFF]));
    }
    copy_fields(code, &[(Word, ETHERNET + 12, REMOTE + 12), (Word, ETHERNET + 16, LOCAL + 12)]);
    copy_fields(code, &[(Half, ETHERNET + IPV4, REMOTE_PORT), (Half, ETHERNET + IPV4 + 2, LOCAL_PORT)]);
    code.copy(FIRST_PORT, 0);
}

/// Copies addresses and ports of an IPv6 frame to the stack.
fn read_ipv6(code: &mut Assembler, pass: JumpLabel) {
    check_length(code, ETHERNET + IPV6 + UDP, pass);
    check_fields(code, &[(Octet, ETHERNET, 0xF0, 0x60), (Octet, ETHERNET + 6, ALL, PROTOCOL_UDP)], pass);
    for (from, to) in [(ETHERNET + 8, REMOTE), (ETHERNET + 24, LOCAL)] {
        copy_fields(code, &[(Long, from, to), (Long, from + 8, to + 8)]);
    }
    copy_fields(code, &[(Half, ETHERNET + IPV6, REMOTE_PORT), (Half, ETHERNET + IPV6 + 2, LOCAL_PORT)]);
    code.copy(FIRST_PORT, HELD_IPV6 as i32);
}

/// Checks that a worker of this queue holds the local port for the sender.
fn check_holder(code: &mut Assembler, workers: u32, held: i32, pass: JumpLabel) {
    code.load(Half, R1, (R10, LOCAL_PORT));
    code.network_to_host(R1);
    code.compute(Arithmetic::Add, R1, FIRST_PORT);
    code.store(Word, (R10, INDEX), R1);
    look_up(code, held, INDEX);
    code.jump_if(JumpCondition::Equal, R0, 0, pass);
    code.load(Word, R1, (R0, 0));
    code.load(Word, R2, (CONTEXT, CTX_QUEUE));
    code.compute(Arithmetic::Modulo, R2, workers as i32);
    code.compute(Arithmetic::Add, R2, 1);
    code.jump_if(JumpCondition::NotEqual, R1, R2, pass);
    for (width, held, here) in
        [(Half, 4, REMOTE_PORT), (Long, 8, REMOTE), (Long, 16, REMOTE + 8), (Long, 24, LOCAL), (Long, 32, LOCAL + 8)]
    {
        code.load(width, R1, (R0, held));
        code.load(width, R2, (R10, here));
        code.jump_if(JumpCondition::NotEqual, R1, R2, pass);
    }
}

/// The verifier requires this check before a read.
fn check_length(code: &mut Assembler, octets: i16, label: JumpLabel) {
    code.copy(R1, FRAME);
    code.compute(Arithmetic::Add, R1, i32::from(octets));
    code.jump_if(JumpCondition::Above, R1, END, label);
}

/// Checks fields of the frame: the width, the offset, a mask, and the required value.
fn check_fields(code: &mut Assembler, fields: &[(Width, i16, i32, i32)], pass: JumpLabel) {
    for &(width, offset, mask, wanted) in fields {
        code.load(width, R1, (FRAME, offset));
        if mask != ALL {
            code.compute(Arithmetic::And, R1, mask);
        }
        code.jump_if(JumpCondition::NotEqualWord, R1, wanted, pass);
    }
}

/// Copies fields of the frame to the stack: the width, and the offsets of both.
fn copy_fields(code: &mut Assembler, fields: &[(Width, i16, i16)]) {
    for &(width, from, to) in fields {
        code.load(width, R1, (FRAME, from));
        code.store(width, (R10, to), R1);
    }
}

fn look_up(code: &mut Assembler, map: i32, key: i16) {
    code.load_map(R1, map);
    code.copy(R2, R10);
    code.compute(Arithmetic::Add, R2, i32::from(key));
    code.call(Helper::LookUp);
}

/// Converts a header field to the number that the processor loads.
pub fn in_memory(number: u16) -> i32 {
    i32::from(number.to_be())
}

/// A mask of all bits.
const ALL: i32 = -1;

/// Registers that helper calls preserve.
const CONTEXT: Register = R6;
const FRAME: Register = R7;
const END: Register = R8;
const FIRST_PORT: Register = R9;

/// Offsets on the stack, which ends at R10. A key of `listening` begins at `LOCAL`.
const LOCAL: i16 = -24;
const LOCAL_PORT: i16 = LOCAL + 16;
const REMOTE: i16 = -40;
const REMOTE_PORT: i16 = -44;
const INDEX: i16 = -48;

/// Offset of the frame's begin in the context (`struct xdp_md`).
pub const CTX_DATA: i16 = 0;
/// Offset of the frame's end in the context.
pub const CTX_DATA_END: i16 = 4;
/// Offset of the queue number in the context.
pub const CTX_QUEUE: i16 = 16;

/// The longest frame that sockets accept: 2 KiB minus the kernel's headroom.
pub(crate) const MAX_FRAME: usize = 2048 - 256;

const ETHERNET: i16 = 14;
const IPV4: i16 = 20;
const IPV6: i16 = 40;
const UDP: i16 = 8;

const ETHER_TYPE_IPV4: u16 = 0x0800;
const ETHER_TYPE_IPV6: u16 = 0x86DD;

const PROTOCOL_UDP: i32 = 17;

#[cfg(test)]
pub(crate) mod tests;
