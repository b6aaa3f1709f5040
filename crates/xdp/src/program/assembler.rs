//! The assembler for BPF. An instruction is eight bytes: the operation, two registers of 4 bits, a 16-bit
//! offset, and a 32-bit number (RFC 9669 section 3).

use Register::R0;

/// A program under construction.
#[derive(Default)]
pub struct Assembler {
    instructions: Vec<u64>,
    jumps: Vec<(usize, JumpLabel)>,
    places: Vec<Option<usize>>,
}

/// A jump target in a program.
#[derive(Clone, Copy, Debug)]
pub struct JumpLabel(usize);

/// A register. R0 holds results of calls and of the program, calls clobber their arguments R1 to R5, and R10
/// is the read-only end of the stack. At the start R1 holds the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "numbered")]
#[repr(u8)]
pub enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// The second operand: a register, or a number that is sign-extended to 64 bits.
#[derive(Clone, Copy, Debug)]
pub enum Operand {
    /// A register.
    Register(Register),
    /// An immediate number.
    Number(i32),
}

impl From<Register> for Operand {
    fn from(register: Register) -> Self {
        Self::Register(register)
    }
}

impl From<i32> for Operand {
    fn from(number: i32) -> Self {
        Self::Number(number)
    }
}

/// The width of a memory access (RFC 9669 section 5).
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Width {
    /// 32 bits.
    Word = 0x00,
    /// 16 bits.
    Half = 0x08,
    /// 8 bits.
    Octet = 0x10,
    /// 64 bits.
    Long = 0x18,
}

/// Unsigned 64-bit arithmetic (RFC 9669 section 4.1).
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Arithmetic {
    /// Addition.
    Add = 0x07,
    /// Bitwise and.
    And = 0x57,
    /// The remainder of a division.
    Modulo = 0x97,
}

/// The condition of a jump (RFC 9669 section 4.3).
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum JumpCondition {
    /// Both operands are equal.
    Equal = 0x15,
    /// The first operand is greater (unsigned).
    Above = 0x25,
    /// The operands differ.
    NotEqual = 0x55,
    /// The operands differ in their lower 32 bits.
    NotEqualWord = 0x56,
}

/// Kernel helper functions (`linux/bpf.h`).
#[derive(Clone, Copy, Debug)]
pub enum Helper {
    /// `bpf_map_lookup_elem`: the address of the value at a key, or 0.
    LookUp = 1,
    /// `bpf_redirect_map`: redirects a frame to a map's entry, or returns the fallback.
    RedirectMap = 51,
}

impl Assembler {
    /// Creates a label that is placed later.
    pub fn label(&mut self) -> JumpLabel {
        self.places.push(None);
        JumpLabel(self.places.len() - 1)
    }

    /// Places a label at the next instruction.
    pub fn place(&mut self, label: JumpLabel) {
        self.places[label.0] = Some(self.instructions.len());
    }

    /// Loads memory at the base register plus offset.
    pub fn load(&mut self, width: Width, to: Register, (base, offset): (Register, i16)) {
        self.add(LOAD | width as u8, to, base, offset, 0);
    }

    /// Stores to memory at the base register plus offset.
    pub fn store(&mut self, width: Width, (base, offset): (Register, i16), value: impl Into<Operand>) {
        match value.into() {
            Operand::Register(from) => self.add(STORE | width as u8, base, from, offset, 0),
            Operand::Number(number) => self.add(STORE_NUMBER | width as u8, base, R0, offset, number),
        }
    }

    /// Adds a register to memory atomically (RFC 9669 section 5.3).
    pub(crate) fn atomic_add(&mut self, width: Width, (base, offset): (Register, i16), addend: Register) {
        self.add(ATOMIC | width as u8, base, addend, offset, 0);
    }

    /// Sets a register.
    pub fn copy(&mut self, to: Register, value: impl Into<Operand>) {
        self.operate(SET, to, value.into());
    }

    /// Applies arithmetic to a register.
    pub fn compute(&mut self, arithmetic: Arithmetic, to: Register, by: impl Into<Operand>) {
        self.operate(arithmetic as u8, to, by.into());
    }

    /// Converts 16 bits between network order and a number (RFC 9669 section 4.2).
    pub(crate) fn network_to_host(&mut self, register: Register) {
        self.add(TO_BIG_ENDIAN, register, R0, 0, 16);
    }

    /// Sets a register to a map, by its descriptor (RFC 9669 section 5.4).
    pub fn load_map(&mut self, to: Register, map: i32) {
        self.instructions.push(encode(LOAD_LONG, to as u8, PSEUDO_MAP_FD, 0, map));
        self.instructions.push(0);
    }

    /// Jumps to a label.
    pub(crate) fn jump(&mut self, label: JumpLabel) {
        self.jumps.push((self.instructions.len(), label));
        self.add(JUMP, R0, R0, 0, 0);
    }

    /// Jumps if the condition holds.
    pub fn jump_if(&mut self, condition: JumpCondition, left: Register, right: impl Into<Operand>, label: JumpLabel) {
        self.jumps.push((self.instructions.len(), label));
        self.operate(condition as u8, left, right.into());
    }

    /// Calls a helper function.
    pub fn call(&mut self, helper: Helper) {
        self.add(CALL, R0, R0, 0, helper as i32);
    }

    /// Ends the program, which returns R0.
    pub fn exit(&mut self) {
        self.add(EXIT, R0, R0, 0, 0);
    }

    /// Resolves the jumps and returns the program.
    pub fn finish(mut self) -> Vec<u64> {
        for (at, label) in self.jumps {
            let place = self.places[label.0].expect("a label to which something jumps has a place");
            // A jump counts from the next instruction.
            let distance = i16::try_from(place as i64 - at as i64 - 1).expect("a program is shorter than a jump");
            self.instructions[at] |= encode(0, 0, 0, distance, 0);
        }
        self.instructions
    }

    fn operate(&mut self, op: u8, to: Register, by: Operand) {
        match by {
            Operand::Register(from) => self.add(op | BY_REGISTER, to, from, 0, 0),
            Operand::Number(number) => self.add(op, to, R0, 0, number),
        }
    }

    fn add(&mut self, op: u8, to: Register, from: Register, offset: i16, number: i32) {
        self.instructions.push(encode(op, to as u8, from as u8, offset, number));
    }
}

fn encode(op: u8, to: u8, from: u8, offset: i16, number: i32) -> u64 {
    let ([o0, o1], [n0, n1, n2, n3]) = (offset.to_le_bytes(), number.to_le_bytes());
    u64::from_le_bytes([op, from << 4 | to, o0, o1, n0, n1, n2, n3])
}

const LOAD: u8 = 0x61;
const STORE_NUMBER: u8 = 0x62;
const STORE: u8 = 0x63;
const ATOMIC: u8 = 0xC3;
const LOAD_LONG: u8 = 0x18;
const SET: u8 = 0xB7;
const TO_BIG_ENDIAN: u8 = 0xDC;
const JUMP: u8 = 0x05;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

const BY_REGISTER: u8 = 0x08;

const PSEUDO_MAP_FD: u8 = 1;
