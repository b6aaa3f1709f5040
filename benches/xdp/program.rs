//! The programs that XDP runs for each frame, assembled here: one hands datagrams to a port to the socket, one passes all.
//!
//! An instruction is eight octets: the operation, two registers of four bits each, a jump or place in 16 bits and a number in 32
//! (RFC 9669 section 3).

/// What XDP is told to do with a frame: drop it with a warning, drop it, let the kernel have it, send it back, hand it elsewhere.
pub(crate) const XDP_PASS: u32 = 2;
/// The last of these.
pub(crate) const XDP_REDIRECT: u32 = 4;

/// Hands UDP datagrams over IPv4 to a port to the socket that stands in the map under the number of the queue. All else passes: other
/// ports and protocols, IP options, fragments, and everything while no socket stands there.
pub(crate) fn redirecting(port: u16, map: i32) -> Vec<u64> {
    let mut code = Assembler::default();
    code.add(Op::LoadWord, R2, R1, CTX_DATA, 0);
    code.add(Op::LoadWord, R3, R1, CTX_DATA_END, 0);
    code.add(Op::Copy, R4, R2, 0, 0);
    code.add(Op::Add, R4, 0, 0, FIRST_HEADERS);
    code.pass_if(Op::JumpIfAbove, R4, R3, 0);
    for (op, place, mask, wanted) in [
        // EtherType IPv4.
        (Op::LoadHalf, 12, None, in_memory(0x0800)),
        // Version 4, five words: no options.
        (Op::LoadOctet, 14, None, 0x45),
        // Neither more fragments nor an offset.
        (Op::LoadHalf, 20, Some(in_memory(0x3FFF)), 0),
        // UDP.
        (Op::LoadOctet, 23, None, 17),
        (Op::LoadHalf, 36, None, in_memory(port)),
    ] {
        code.add(op, R5, R2, place, 0);
        if let Some(mask) = mask {
            code.add(Op::And, R5, 0, 0, mask);
        }
        code.pass_if(Op::JumpIfNot, R5, 0, wanted);
    }
    code.add(Op::LoadWord, R2, R1, CTX_QUEUE, 0);
    code.add(Op::LoadLong, R1, PSEUDO_MAP_FD, 0, map);
    // A number of 64 bits takes two places.
    code.instructions.push(0);
    // What is returned where the map is empty.
    code.add(Op::Set, R3, 0, 0, XDP_PASS as i32);
    code.add(Op::Call, 0, 0, 0, REDIRECT_MAP);
    code.add(Op::Exit, 0, 0, 0, 0);
    code.finish()
}

/// Lets the kernel have everything.
pub(crate) fn passing() -> Vec<u64> {
    Assembler::default().finish()
}

/// A number of the network as the processor reads it from memory.
fn in_memory(number: u16) -> i32 {
    i32::from(number.to_be())
}

/// Octets of Ethernet, IPv4 and UDP headers, which are read without looking for their end again.
const FIRST_HEADERS: i32 = 42;

/// Registers: R0 returns, R1 to R5 are arguments of calls, and R1 holds the context at first.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;

/// Places in the context (`struct xdp_md`): where the frame begins and ends, and the number of the queue.
const CTX_DATA: i16 = 0;
const CTX_DATA_END: i16 = 4;
const CTX_QUEUE: i16 = 16;

/// In place of a source register: the number is the descriptor of a map.
const PSEUDO_MAP_FD: u8 = 1;
/// The number of the helper function `bpf_redirect_map`.
const REDIRECT_MAP: i32 = 51;

/// The operations in use (RFC 9669 section 4 for numbers, section 5 for memory).
#[derive(Clone, Copy)]
#[repr(u8)]
enum Op {
    /// Copies 32 bits of memory.
    LoadWord = 0x61,
    /// Copies 16 bits.
    LoadHalf = 0x69,
    /// Copies 8 bits.
    LoadOctet = 0x71,
    /// Sets a register to 64 bits.
    LoadLong = 0x18,
    /// Copies a register.
    Copy = 0xBF,
    /// Sets a register to a number.
    Set = 0xB7,
    /// Adds a number.
    Add = 0x07,
    /// Keeps the bits that a number has.
    And = 0x57,
    /// Jumps if a register is above another.
    JumpIfAbove = 0x2D,
    /// Jumps if a register is not a number.
    JumpIfNot = 0x55,
    /// Calls a helper function.
    Call = 0x85,
    /// Returns what R0 holds.
    Exit = 0x95,
}

/// A program in the making.
#[derive(Default)]
struct Assembler {
    /// Instructions so far.
    instructions: Vec<u64>,
    /// Which of them jump to where the frame passes.
    jumps: Vec<usize>,
}

impl Assembler {
    /// Adds an instruction.
    fn add(&mut self, op: Op, to: u8, from: u8, offset: i16, number: i32) {
        let [offset_low, offset_high] = offset.to_le_bytes();
        let [a, b, c, d] = number.to_le_bytes();
        self.instructions.push(u64::from_le_bytes([op as u8, from << 4 | to, offset_low, offset_high, a, b, c, d]));
    }

    /// Adds a jump to where the frame passes.
    fn pass_if(&mut self, op: Op, to: u8, from: u8, number: i32) {
        self.jumps.push(self.instructions.len());
        self.add(op, to, from, 0, number);
    }

    /// Ends the program with what lets the frame pass, and lets the jumps lead there.
    fn finish(mut self) -> Vec<u64> {
        let end = self.instructions.len();
        for jump in self.jumps {
            // A jump counts from the instruction behind it.
            self.instructions[jump] |= ((end - jump - 1) as u64) << 16;
        }
        self.jumps = Vec::new();
        self.add(Op::Set, R0, 0, 0, XDP_PASS as i32);
        self.add(Op::Exit, 0, 0, 0, 0);
        self.instructions
    }
}
