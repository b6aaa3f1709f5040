//! An interpreter for tests. It panics on invalid reads, as the kernel's verifier rejects them.

use std::collections::HashMap;

#[derive(Default)]
pub(crate) struct InterpreterState {
    pub(crate) queue: u32,
    pub(crate) maps: HashMap<i32, Map>,
}

pub(crate) enum Map {
    Hash(Vec<(Vec<u8>, Vec<u8>)>),
    Array(Vec<u8>, usize),
    Sockets(Vec<u32>),
}

pub(crate) fn run(program: &[u64], frame: &[u8], world: &mut InterpreterState) -> i32 {
    let mut machine = Machine { frame, world, stack: [None; STACK], registers: [None; 11] };
    machine.registers[1] = Some(at(CONTEXT, 0));
    machine.registers[10] = Some(at(STACK_REGION, STACK as u64));
    machine.run(program)
}

struct Machine<'a> {
    frame: &'a [u8],
    world: &'a mut InterpreterState,
    stack: [Option<u8>; STACK],
    registers: [Option<u64>; 11],
}

impl Machine<'_> {
    fn run(&mut self, program: &[u64]) -> i32 {
        let mut next = 0;
        // Programs never jump backwards, so each instruction runs at most once.
        for _ in 0..program.len() {
            let [op, both, offset_low, offset_high, number @ ..] = program[next].to_le_bytes();
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            let offset = i64::from(i16::from_le_bytes([offset_low, offset_high]));
            let number = i32::from_le_bytes(number);
            next += 1;
            match (op & 7, op) {
                (1, _) => self.registers[to] = Some(self.load(width(op), self.register(from), offset)),
                (2, _) => self.store(width(op), self.register(to), offset, i64::from(number) as u64),
                (3, 0xC3 | 0xDB) => {
                    assert_eq!(number, 0, "an atomic sum");
                    let (place, addend) = (self.register(to), self.register(from));
                    let sum = self.load(width(op), place, offset).wrapping_add(addend);
                    self.store(width(op), place, offset, sum);
                }
                (3, _) => self.store(width(op), self.register(to), offset, self.register(from)),
                (0, 0x18) => {
                    assert_eq!((from, program[next]), (1, 0), "a map by its descriptor");
                    assert!(self.world.maps.contains_key(&number), "a map that is there");
                    self.registers[to] = Some(number as u64);
                    next += 1;
                }
                (4, 0xDC) => {
                    assert_eq!(number, 16, "16 bits");
                    self.registers[to] = Some(u64::from((self.register(to) as u16).to_be()));
                }
                (7, 0xB7 | 0xBF) => self.registers[to] = Some(self.operand(op, from, number)),
                (7, _) => {
                    let (value, by) = (self.register(to), self.operand(op, from, number));
                    self.registers[to] = Some(match op & 0xF0 {
                        0x00 => value.wrapping_add(by),
                        0x50 => value & by,
                        0x90 => value % by,
                        other => panic!("no arithmetic {other:#x}"),
                    });
                }
                (5, 0x85) => self.call(number),
                (5, 0x95) => return self.register(0) as i32,
                (5, 0x05) => next = next.wrapping_add_signed(offset as isize),
                (5 | 6, _) => {
                    let mask = if op & 7 == 5 { u64::MAX } else { u64::from(u32::MAX) };
                    let (left, right) = (self.register(to) & mask, self.operand(op, from, number) & mask);
                    let is_met = match op & 0xF0 {
                        0x10 => left == right,
                        0x20 => left > right,
                        0x50 => left != right,
                        other => panic!("no condition {other:#x}"),
                    };
                    assert!(offset >= 0, "a jump ahead");
                    next += if is_met { offset as usize } else { 0 };
                }
                _ => panic!("no operation {op:#x}"),
            }
        }
        panic!("the program has no end");
    }

    fn register(&self, number: usize) -> u64 {
        self.registers[number].unwrap_or_else(|| panic!("nothing is in R{number}"))
    }

    fn operand(&self, op: u8, from: usize, number: i32) -> u64 {
        if op & 0x08 == 0 { i64::from(number) as u64 } else { self.register(from) }
    }

    fn call(&mut self, function: i32) {
        let fd = self.register(1) as i32;
        let returned = match (function, &self.world.maps[&fd]) {
            (1, Map::Hash(values)) => {
                let length = values.first().map_or(0, |(key, _)| key.len());
                let key = self.octets(self.register(2), length);
                values
                    .iter()
                    .position(|(other, _)| *other == key)
                    .map_or(0, |place| at(VALUES + fd as u64, place as u64))
            }
            (1, Map::Array(values, length)) => {
                let [a, b, c, d] = self.octets(self.register(2), 4)[..] else { panic!("four octets") };
                let place = u32::from_ne_bytes([a, b, c, d]) as usize * length;
                if place < values.len() { at(VALUES + fd as u64, place as u64) } else { 0 }
            }
            (51, Map::Sockets(queues)) => {
                if queues.contains(&(self.register(2) as u32)) {
                    4
                } else {
                    self.register(3) & 3
                }
            }
            (other, _) => panic!("no function {other} for this map"),
        };
        self.registers[..6].fill(None);
        self.registers[0] = Some(returned);
    }

    fn load(&self, width: usize, base: u64, offset: i64) -> u64 {
        let place = base.wrapping_add_signed(offset);
        if place >> 32 == CONTEXT {
            assert_eq!(width, 4, "the context has words");
            return match offset {
                0 => at(FRAME, 0),
                4 => at(FRAME, self.frame.len() as u64),
                16 => u64::from(self.world.queue),
                other => panic!("the context has nothing at {other}"),
            };
        }
        let mut octets = [0; 8];
        octets[..width].copy_from_slice(&self.octets(place, width));
        u64::from_le_bytes(octets)
    }

    fn octets(&self, place: u64, length: usize) -> Vec<u8> {
        let from = place as u32 as usize;
        match place >> 32 {
            FRAME => self.frame[from..from + length].to_vec(),
            STACK_REGION => {
                let written = self.stack[from..from + length].iter();
                written.map(|octet| octet.expect("what was written")).collect()
            }
            region => match &self.world.maps[&((region - VALUES) as i32)] {
                Map::Array(values, _) => values[from..from + length].to_vec(),
                Map::Hash(_) | Map::Sockets(_) => panic!("nothing to read in this map"),
            },
        }
    }

    fn store(&mut self, width: usize, base: u64, offset: i64, value: u64) {
        let place = base.wrapping_add_signed(offset);
        let (from, octets) = (place as u32 as usize, value.to_le_bytes());
        match place >> 32 {
            STACK_REGION => {
                assert_eq!(from % width, 0, "a place on the stack that is a multiple of what is written");
                self.stack[from..from + width].copy_from_slice(&octets.map(Some)[..width]);
            }
            region => match self.world.maps.get_mut(&(region.wrapping_sub(VALUES) as i32)) {
                Some(Map::Array(values, _)) => values[from..from + width].copy_from_slice(&octets[..width]),
                _ => panic!("nothing to write at {place:#x}"),
            },
        }
    }
}

fn width(op: u8) -> usize {
    [4, 2, 1, 8][usize::from(op >> 3 & 3)]
}

fn at(region: u64, place: u64) -> u64 {
    region << 32 | place
}

/// The values of a map are in a region after these, by descriptor.
const CONTEXT: u64 = 1;
const FRAME: u64 = 2;
const STACK_REGION: u64 = 3;
const VALUES: u64 = 4;

const STACK: usize = 512;
