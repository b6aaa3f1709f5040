//! Programs that XDP runs for each frame, as bytecode of BPF (RFC 9669): an assembler, and the program that decides which frames go to the
//! sockets of AF_XDP. Nothing here asks the kernel for anything.
//!
//! The program passes a frame on to the kernel wherever it is in doubt, so each of its checks is a jump to the same end. It looks at no
//! checksum: whoever reads the frame does (`frame.rs`).

mod assembler;

pub use self::assembler::{Arithmetic, Assembler, Condition, Helper, Label, Operand, Register, Width};

use Register::*;
use Width::*;

/// What XDP is told to do with a frame: let the kernel have it, or hand it elsewhere. Others would drop it or send it back.
pub const XDP_PASS: i32 = 2;
/// See [`XDP_PASS`].
pub const XDP_REDIRECT: i32 = 4;

/// The maps of the filter, by the descriptors that it is loaded with.
#[derive(Clone, Copy, Debug)]
pub struct Maps {
    /// Addresses and ports to which clients send: keys of [`LISTENING_KEY`] octets.
    pub listening: i32,
    /// For each local port of IPv4, and behind these of IPv6, who has a socket there that is connected to a backend: values of [`HELD`] octets.
    pub held: i32,
    /// The socket of each queue.
    pub sockets: i32,
    /// How many frames the kernel has been let have, by queue: values of [`PASSED`] octets, of which the first eight count.
    pub passed: i32,
    /// How many values that last one has. Queues beyond share them.
    pub counters: u32,
}

/// A key of `listening`: the address, the port as it is in a header, and two octets of 0. An address of IPv4 is that in the form of IPv6
/// (`::ffff:192.0.2.1`).
pub const LISTENING_KEY: usize = 20;

/// A value of `held`: the number of a worker and 1 more, or 0 for nobody (32 bits), the remote port as it is in a header and two octets of 0;
/// the remote address and the local one, both in the form of IPv6.
pub const HELD: usize = 40;

/// Where the ports of IPv6 begin among the values of `held`.
pub const HELD_IPV6: u32 = 1 << 16;

/// A value of `passed`: a cache line, so that queues that are served by different processors do not share one.
pub const PASSED: usize = 64;

/// The program of the filter: which frames go to the socket of their queue.
///
/// They are for the interface's own Ethernet address and have UDP right behind IPv4 without options, of which they are no fragment, or right
/// behind IPv6, and are no longer than [`MAX_FRAME`]. And they are
///
/// - to an address and port at which there is a listener, or
/// - from the very address and port to which a socket of ours at their destination is connected, and on a queue of that socket's worker,
///   which are those that leave its number when divided by how many workers there are. Another worker could not take the reply.
///
/// All else goes to the kernel and is counted, as is what comes while a queue has no socket.
pub fn filter(mac: [u8; 6], workers: u32, maps: Maps) -> Vec<u64> {
    let mut code = Assembler::default();
    let [ipv4, ipv6, known, redirect, pass, counted] = [(); 6].map(|()| code.label());
    code.copy(CONTEXT, R1);
    code.load(Word, FRAME, (R1, CTX_DATA));
    code.load(Word, END, (R1, CTX_DATA_END));
    check_length(&mut code, ETHERNET + IPV4 + UDP, pass);
    // The socket would lose it.
    code.copy(R1, FRAME);
    code.compute(Arithmetic::Add, R1, MAX_FRAME as i32);
    code.jump_if(Condition::Above, END, R1, pass);

    let [m0, m1, m2, m3, m4, m5] = mac;
    code.load(Word, R1, (FRAME, 0));
    code.jump_if(Condition::NotEqualWord, R1, i32::from_ne_bytes([m0, m1, m2, m3]), pass);
    code.load(Half, R1, (FRAME, 4));
    code.jump_if(Condition::NotEqual, R1, i32::from(u16::from_ne_bytes([m4, m5])), pass);
    code.load(Half, R1, (FRAME, 12));
    code.jump_if(Condition::Equal, R1, in_memory(ETHER_TYPE_IPV4), ipv4);
    code.jump_if(Condition::Equal, R1, in_memory(ETHER_TYPE_IPV6), ipv6);
    code.jump(pass);

    code.place(ipv4);
    // Version 4, five words of header: no options.
    code.load(Octet, R1, (FRAME, ETHERNET));
    code.jump_if(Condition::NotEqual, R1, 0x45, pass);
    // Neither more fragments nor an offset.
    code.load(Half, R1, (FRAME, ETHERNET + 6));
    code.compute(Arithmetic::And, R1, in_memory(0x3FFF));
    code.jump_if(Condition::NotEqual, R1, 0, pass);
    code.load(Octet, R1, (FRAME, ETHERNET + 9));
    code.jump_if(Condition::NotEqual, R1, PROTOCOL_UDP, pass);
    for (from, to) in [(ETHERNET + 12, REMOTE), (ETHERNET + 16, LOCAL)] {
        code.store(Long, (R10, to), 0);
        code.store(Word, (R10, to + 8), i32::from_ne_bytes([0, 0, 0xFF, 0xFF]));
        copy(&mut code, Word, from, to + 12);
    }
    copy(&mut code, Half, ETHERNET + IPV4, REMOTE_PORT);
    copy(&mut code, Half, ETHERNET + IPV4 + 2, LOCAL_PORT);
    code.copy(FIRST_PORT, 0);
    code.jump(known);

    code.place(ipv6);
    check_length(&mut code, ETHERNET + IPV6 + UDP, pass);
    code.load(Octet, R1, (FRAME, ETHERNET));
    code.compute(Arithmetic::And, R1, 0xF0);
    code.jump_if(Condition::NotEqual, R1, 0x60, pass);
    // The next header is that of UDP, and no extension.
    code.load(Octet, R1, (FRAME, ETHERNET + 6));
    code.jump_if(Condition::NotEqual, R1, PROTOCOL_UDP, pass);
    for (from, to) in [(ETHERNET + 8, REMOTE), (ETHERNET + 24, LOCAL)] {
        copy(&mut code, Long, from, to);
        copy(&mut code, Long, from + 8, to + 8);
    }
    copy(&mut code, Half, ETHERNET + IPV6, REMOTE_PORT);
    copy(&mut code, Half, ETHERNET + IPV6 + 2, LOCAL_PORT);
    code.copy(FIRST_PORT, HELD_IPV6 as i32);

    code.place(known);
    code.store(Half, (R10, LOCAL_PORT + 2), 0);
    look_up(&mut code, maps.listening, LOCAL);
    code.jump_if(Condition::NotEqual, R0, 0, redirect);
    code.load(Half, R1, (R10, LOCAL_PORT));
    code.from_network(R1);
    code.compute(Arithmetic::Add, R1, FIRST_PORT);
    code.store(Word, (R10, INDEX), R1);
    look_up(&mut code, maps.held, INDEX);
    code.jump_if(Condition::Equal, R0, 0, pass);
    code.load(Word, R1, (R0, 0));
    code.load(Word, R2, (CONTEXT, CTX_QUEUE));
    code.compute(Arithmetic::Modulo, R2, workers as i32);
    code.compute(Arithmetic::Add, R2, 1);
    code.jump_if(Condition::NotEqual, R1, R2, pass);
    for (width, held, here) in
        [(Half, 4, REMOTE_PORT), (Long, 8, REMOTE), (Long, 16, REMOTE + 8), (Long, 24, LOCAL), (Long, 32, LOCAL + 8)]
    {
        code.load(width, R1, (R0, held));
        code.load(width, R2, (R10, here));
        code.jump_if(Condition::NotEqual, R1, R2, pass);
    }

    code.place(redirect);
    code.load(Word, R2, (CONTEXT, CTX_QUEUE));
    code.load_map(R1, maps.sockets);
    // What is returned where there is no socket.
    code.copy(R3, XDP_PASS);
    code.call(Helper::RedirectMap);
    code.jump_if(Condition::Equal, R0, XDP_PASS, pass);
    code.exit();

    code.place(pass);
    code.load(Word, R1, (CONTEXT, CTX_QUEUE));
    code.compute(Arithmetic::Modulo, R1, maps.counters as i32);
    code.store(Word, (R10, INDEX), R1);
    look_up(&mut code, maps.passed, INDEX);
    code.jump_if(Condition::Equal, R0, 0, counted);
    code.copy(R1, 1);
    code.atomic_add(Long, (R0, 0), R1);
    code.place(counted);
    code.copy(R0, XDP_PASS);
    code.exit();
    code.finish()
}

/// Jumps where a frame has fewer octets. The kernel wants to see this before it lets a program read them.
fn check_length(code: &mut Assembler, octets: i16, label: Label) {
    code.copy(R1, FRAME);
    code.compute(Arithmetic::Add, R1, i32::from(octets));
    code.jump_if(Condition::Above, R1, END, label);
}

/// Copies from the frame to the stack.
fn copy(code: &mut Assembler, width: Width, from: i16, to: i16) {
    code.load(width, R1, (FRAME, from));
    code.store(width, (R10, to), R1);
}

/// Has R0 point to the value of a key on the stack, or be 0.
fn look_up(code: &mut Assembler, map: i32, key: i16) {
    code.load_map(R1, map);
    code.copy(R2, R10);
    code.compute(Arithmetic::Add, R2, i32::from(key));
    code.call(Helper::LookUp);
}

/// A number of a header as the processor reads it from memory.
pub fn in_memory(number: u16) -> i32 {
    i32::from(number.to_be())
}

/// Registers that calls of helpers leave alone: the context, where the frame begins and ends, and where its ports begin in `held`.
const CONTEXT: Register = R6;
const FRAME: Register = R7;
const END: Register = R8;
const FIRST_PORT: Register = R9;

/// Places on the stack, which ends at R10. The local address and what follows it are a key of `listening`.
const LOCAL: i16 = -24;
const LOCAL_PORT: i16 = LOCAL + 16;
const REMOTE: i16 = -40;
const REMOTE_PORT: i16 = -44;
const INDEX: i16 = -48;

/// Places in the context (`struct xdp_md`): where the frame begins and ends, and the number of the queue.
pub const CTX_DATA: i16 = 0;
/// See [`CTX_DATA`].
pub const CTX_DATA_END: i16 = 4;
/// See [`CTX_DATA`].
pub const CTX_QUEUE: i16 = 16;

/// Octets of the longest frame that sockets take: what is left of 2 KiB beside the room that the kernel wants.
pub const MAX_FRAME: usize = 2048 - 256;

/// Octets of each header.
const ETHERNET: i16 = 14;
const IPV4: i16 = 20;
const IPV6: i16 = 40;
const UDP: i16 = 8;

const ETHER_TYPE_IPV4: u16 = 0x0800;
const ETHER_TYPE_IPV6: u16 = 0x86DD;

/// The number of UDP, as protocol and as next header.
const PROTOCOL_UDP: i32 = 17;

#[cfg(test)]
pub(super) mod cases;
#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod tests;
