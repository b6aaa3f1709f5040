//! Messages for the tests of this module, made of parts.

use super::codes::RecordType;
use super::header::{HEADER_LEN, Header};

/// `www.Example.org. A IN`; the pointers below point into it.
pub(super) const QUESTION: &[u8] = b"\x03www\x07Example\x03org\0\0\x01\0\x01";

pub(super) const WWW: &[u8] = &[0xC0, 12];

pub(super) const EXAMPLE: &[u8] = &[0xC0, 16];

pub(super) const REPLY: u16 = 0x8000;

pub(super) const ID: u16 = 0x1234;

pub(super) fn message(bits: u16, counts: [u16; 4], parts: &[&[u8]]) -> Vec<u8> {
    let [b0, b1] = bits.to_be_bytes();
    let mut head = Header::new(ID).with_counts(counts).to_wire();
    head[2..4].copy_from_slice(&[b0, b1]);
    [&head[..], &parts.concat()].concat()
}

pub(super) fn record(owner: &[u8], rtype: RecordType, rdata: &[u8]) -> Vec<u8> {
    let [t0, t1] = rtype.0.to_be_bytes();
    let [l0, l1] = (rdata.len() as u16).to_be_bytes();
    [owner, &[t0, t1, 0, 1, 0, 0, 1, 44, l0, l1], rdata].concat()
}

pub(super) fn a(owner: &[u8]) -> Vec<u8> {
    record(owner, RecordType::A, &[192, 0, 2, 1])
}

/// An OPT record: UDP size 1400, these high bits of the rcode, version, and options; DO is set.
pub(super) fn opt(extended_rcode: u8, version: u8, options: &[u8]) -> Vec<u8> {
    let [l0, l1] = (options.len() as u16).to_be_bytes();
    let fixed = [0, 0, 41, 0x05, 0x78, extended_rcode, version, 0x80, 0, l0, l1];
    [&fixed, options].concat()
}

pub(super) const RECORDS: usize = HEADER_LEN + QUESTION.len();

pub(super) fn plain() -> Vec<u8> {
    message(0x0100, [1, 0, 0, 0], &[QUESTION])
}

pub(super) fn with_edns() -> Vec<u8> {
    message(0x0110, [1, 0, 0, 1], &[QUESTION, &opt(0, 0, b"")])
}

pub(super) fn our_opt(extended_rcode: u8, options: &[u8]) -> Vec<u8> {
    let mut record = opt(extended_rcode, 0, options);
    record[3..5].copy_from_slice(&1232_u16.to_be_bytes());
    record
}
