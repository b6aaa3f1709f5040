//! The programs of the bench: one hands datagrams to a port to the socket, one passes all.

use af_xdp::program::Register::{R0, R1, R2, R3, R4, R5};
use af_xdp::program::Width::{Half, Octet, Word};
use af_xdp::program::{
    Arithmetic, Assembler, CTX_DATA, CTX_DATA_END, CTX_QUEUE, Helper, JumpCondition, XDP_PASS, in_memory,
};

/// Hands UDP datagrams over IPv4 to a port to the socket that stands in the map under the number of the
/// queue. All else passes: other ports and protocols, IP options, fragments, and everything while no socket
/// stands there.
pub(crate) fn redirecting(port: u16, map: i32) -> Vec<u64> {
    let mut code = Assembler::default();
    let pass = code.label();
    code.load(Word, R2, (R1, CTX_DATA));
    code.load(Word, R3, (R1, CTX_DATA_END));
    code.copy(R4, R2);
    code.compute(Arithmetic::Add, R4, HEADERS);
    code.jump_if(JumpCondition::Above, R4, R3, pass);
    for (width, place, mask, wanted) in [
        // EtherType IPv4.
        (Half, 12, None, in_memory(0x0800)),
        // Version 4, five words: no options.
        (Octet, 14, None, 0x45),
        // Neither more fragments nor an offset.
        (Half, 20, Some(in_memory(0x3FFF)), 0),
        // UDP.
        (Octet, 23, None, 17),
        (Half, 36, None, in_memory(port)),
    ] {
        code.load(width, R5, (R2, place));
        if let Some(mask) = mask {
            code.compute(Arithmetic::And, R5, mask);
        }
        code.jump_if(JumpCondition::NotEqual, R5, wanted, pass);
    }
    code.load(Word, R2, (R1, CTX_QUEUE));
    code.load_map(R1, map);
    // What is returned where the map is empty.
    code.copy(R3, XDP_PASS);
    code.call(Helper::RedirectMap);
    code.exit();
    code.place(pass);
    code.copy(R0, XDP_PASS);
    code.exit();
    code.finish()
}

/// Lets the kernel have everything.
pub(crate) fn passing() -> Vec<u64> {
    let mut code = Assembler::default();
    code.copy(R0, XDP_PASS);
    code.exit();
    code.finish()
}

/// Bytes of Ethernet, IPv4 and UDP headers, which are read without looking for their end again.
const HEADERS: i32 = 42;
