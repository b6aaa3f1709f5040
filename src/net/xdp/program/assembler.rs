//! The assembler: instructions of BPF one after the other, and labels to which they jump.
//!
//! An instruction is eight octets: the operation, two registers of four bits each, a place in memory or a jump in 16 bits and a number in
//! 32 (RFC 9669 section 3). Those are here that the programs need.

use Register::R0;

/// A program in the making.
#[derive(Default)]
pub struct Assembler {
    /// Instructions so far.
    instructions: Vec<u64>,
    /// Those that jump, and where to.
    jumps: Vec<(usize, Label)>,
    /// Where the labels are that have a place.
    places: Vec<Option<usize>>,
}

/// A place in a program.
#[derive(Clone, Copy, Debug)]
pub struct Label(usize);

/// A register. R0 is what a call or the program returns, R1 to R5 are arguments of calls, of which nothing is left behind those, and R10 is
/// the end of the stack, which is read only. R1 is the context at first.
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

/// What an operation is done with: a register, or a number that is extended with its sign to 64 bits.
#[derive(Clone, Copy, Debug)]
pub enum Operand {
    /// A register.
    Register(Register),
    /// A number.
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

/// How much of memory is read or written (RFC 9669 section 5).
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

/// What is reckoned, with all 64 bits of a register and without a sign (RFC 9669 section 4.1).
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Arithmetic {
    /// A sum.
    Add = 0x07,
    /// The bits that both have.
    And = 0x57,
    /// What a division leaves.
    Modulo = 0x97,
}

/// When a jump is made (RFC 9669 section 4.3).
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Condition {
    /// Both are the same.
    Equal = 0x15,
    /// The first is greater, both without a sign.
    Above = 0x25,
    /// They differ.
    NotEqual = 0x55,
    /// They differ in their lower 32 bits.
    NotEqualWord = 0x56,
}

/// The helper functions of the kernel that are called (`linux/bpf.h`).
#[derive(Clone, Copy, Debug)]
pub enum Helper {
    /// `bpf_map_lookup_elem`: the address of the value at a key, or 0.
    LookUp = 1,
    /// `bpf_redirect_map`: hands a frame to what a map has at a number, or returns what it is told to.
    RedirectMap = 51,
}

impl Assembler {
    /// A label, which gets its place later.
    pub fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// Gives a label the place of the next instruction.
    pub fn place(&mut self, label: Label) {
        self.places[label.0] = Some(self.instructions.len());
    }

    /// Reads memory at so many octets behind where a register points.
    pub fn load(&mut self, width: Width, to: Register, (base, offset): (Register, i16)) {
        self.add(LOAD | width as u8, to, base, offset, 0);
    }

    /// Writes memory there.
    pub fn store(&mut self, width: Width, (base, offset): (Register, i16), value: impl Into<Operand>) {
        match value.into() {
            Operand::Register(from) => self.add(STORE | width as u8, base, from, offset, 0),
            Operand::Number(number) => self.add(STORE_NUMBER | width as u8, base, R0, offset, number),
        }
    }

    /// Adds a register to a word of memory or a long one, as one step (RFC 9669 section 5.3).
    pub fn atomic_add(&mut self, width: Width, (base, offset): (Register, i16), addend: Register) {
        self.add(ATOMIC | width as u8, base, addend, offset, 0);
    }

    /// Sets a register.
    pub fn copy(&mut self, to: Register, value: impl Into<Operand>) {
        self.operate(SET, to, value.into());
    }

    /// Changes a register.
    pub fn compute(&mut self, arithmetic: Arithmetic, to: Register, by: impl Into<Operand>) {
        self.operate(arithmetic as u8, to, by.into());
    }

    /// Turns 16 bits of a header into the number that they are, or a number into those (RFC 9669 section 4.2).
    pub fn from_network(&mut self, register: Register) {
        self.add(TO_BIG_ENDIAN, register, R0, 0, 16);
    }

    /// Sets a register to a map, by its descriptor (RFC 9669 section 5.4).
    pub fn load_map(&mut self, to: Register, map: i32) {
        self.instructions.push(encode(LOAD_LONG, to as u8, PSEUDO_MAP_FD, 0, map));
        // A number of 64 bits takes two places.
        self.instructions.push(0);
    }

    /// Jumps.
    pub fn jump(&mut self, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.add(JUMP, R0, R0, 0, 0);
    }

    /// Jumps where a condition holds.
    pub fn jump_if(&mut self, condition: Condition, left: Register, right: impl Into<Operand>, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.operate(condition as u8, left, right.into());
    }

    /// Calls a helper function.
    pub fn call(&mut self, helper: Helper) {
        self.add(CALL, R0, R0, 0, helper as i32);
    }

    /// Ends the program, which returns what R0 holds.
    pub fn exit(&mut self) {
        self.add(EXIT, R0, R0, 0, 0);
    }

    /// The program, with its jumps.
    pub fn finish(mut self) -> Vec<u64> {
        for (at, label) in self.jumps {
            let place = self.places[label.0].expect("a label to which something jumps has a place");
            // A jump counts from the instruction behind it.
            let distance = i16::try_from(place as i64 - at as i64 - 1).expect("a program is shorter than a jump");
            self.instructions[at] |= encode(0, 0, 0, distance, 0);
        }
        self.instructions
    }

    /// Adds an operation with a register or a number.
    fn operate(&mut self, op: u8, to: Register, by: Operand) {
        match by {
            Operand::Register(from) => self.add(op | BY_REGISTER, to, from, 0, 0),
            Operand::Number(number) => self.add(op, to, R0, 0, number),
        }
    }

    /// Adds an instruction.
    fn add(&mut self, op: u8, to: Register, from: Register, offset: i16, number: i32) {
        self.instructions.push(encode(op, to as u8, from as u8, offset, number));
    }
}

/// An instruction as a processor has it that stores the lower octet first.
fn encode(op: u8, to: u8, from: u8, offset: i16, number: i32) -> u64 {
    let ([o0, o1], [n0, n1, n2, n3]) = (offset.to_le_bytes(), number.to_le_bytes());
    u64::from_le_bytes([op, from << 4 | to, o0, o1, n0, n1, n2, n3])
}

// Operations; the width is added to those of memory.
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

/// Added where the second operand is a register.
const BY_REGISTER: u8 = 0x08;

/// In place of a source register: the number is the descriptor of a map.
const PSEUDO_MAP_FD: u8 = 1;
