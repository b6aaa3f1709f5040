//! The messages of a load run: one question for each number, and the one answer that is right for it.
//!
//! The address in an answer follows from the number in the name, so that the client tells a right answer from
//! a mixed-up one without a table. Plain octets throughout: the tools must cost less than what they measure.

use std::net::Ipv4Addr;

/// Octets of a query: header, name, type and class.
const QUERY_LEN: usize = HEADER_LEN + QUESTION_LEN;
/// Octets of the header (RFC 1035 section 4.1.1).
const HEADER_LEN: usize = 12;
/// Octets of the question: the name, type A, class IN.
const QUESTION_LEN: usize = 1 + LABEL_LEN + ZONE.len() + 4;
/// Octets of the first label: `h` and the number in eight hexadecimal digits.
const LABEL_LEN: usize = 9;
/// All labels but the first.
const ZONE: &[u8] = b"\x05bench\x04test\x00";
/// The flag QR, in the third octet of a header.
const QR: u8 = 0x80;
/// The flag RD, in the third octet of a header.
const RD: u8 = 0x01;
/// RCODE REFUSED (RFC 1035 section 4.1.1), in the fourth octet of a header.
const REFUSED: u8 = 5;

/// What counts as the right response.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Expect {
    /// The query itself, with QR set.
    Echo,
    /// One address, the one of the name.
    Answer,
}

/// The first label of a number's host, in the zone `bench.test`.
pub(crate) fn label(number: u32) -> String {
    format!("h{number:08x}")
}

/// The address of a number's host: in 10.0.0.0/8, far apart for neighbors.
pub(crate) fn address(number: u32) -> Ipv4Addr {
    // An odd factor permutes the 24 bits that are kept, so that no two neighbors share an address.
    let [_, b, c, d] = number.wrapping_mul(0x009E_3779).to_be_bytes();
    Ipv4Addr::new(10, b, c, d)
}

/// Writes the query for a number.
pub(crate) fn write_query(number: u32, id: u16, out: &mut Vec<u8>) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[high, low, RD, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&question(number));
}

/// Writes the query back with QR set.
pub(crate) fn write_echo(query: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(query);
    if let Some(flags) = out.get_mut(2) {
        *flags |= QR;
    }
}

/// Writes the reply of a backend: the address of a host of ours, REFUSED to all else (probes). Whatever
/// follows the question (an OPT record) is left out.
pub(crate) fn write_reply(query: &[u8], ttl: u32, out: &mut Vec<u8>) {
    let Some(number) = query.get(HEADER_LEN..QUERY_LEN).and_then(number) else {
        write_echo(query, out);
        if let Some(rcode) = out.get_mut(3) {
            *rcode = REFUSED;
        }
        return;
    };
    out.extend_from_slice(&query[..QUERY_LEN]);
    out[2] |= QR;
    // One answer record, no others.
    out[6..HEADER_LEN].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    // Owner: a pointer to the question's name. Type A, class IN, the TTL, four octets of data.
    out.extend_from_slice(&[0xC0, HEADER_LEN as u8, 0, 1, 0, 1]);
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&[0, 4]);
    out.extend_from_slice(&address(number).octets());
}

/// Whether a response with the right ID is the right one for the number.
pub(crate) fn is_right(response: &[u8], number: u32, expect: Expect) -> bool {
    let Some((header, rest)) = response.split_at_checked(HEADER_LEN) else { return false };
    let is_response = header[2] & QR != 0;
    let answers = u16::from_be_bytes([header[6], header[7]]);
    let is_success = header[3] & 0x0F == 0;
    let data = match expect {
        Expect::Echo => rest.len() == QUESTION_LEN && answers == 0,
        Expect::Answer => rest.ends_with(&address(number).octets()) && answers == 1,
    };
    is_response && is_success && data && rest.starts_with(&question(number))
}

/// The question for a number.
fn question(number: u32) -> [u8; QUESTION_LEN] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut octets = [0; QUESTION_LEN];
    octets[0] = LABEL_LEN as u8;
    octets[1] = b'h';
    for (place, octet) in octets[2..=LABEL_LEN].iter_mut().enumerate() {
        *octet = DIGITS[(number >> (28 - 4 * place) & 0xF) as usize];
    }
    octets[1 + LABEL_LEN..][..ZONE.len()].copy_from_slice(ZONE);
    octets[QUESTION_LEN - 4..].copy_from_slice(&[0, 1, 0, 1]);
    octets
}

/// The number whose question this is, whatever its case: some forwarders make forgery harder by it.
fn number(question: &[u8]) -> Option<u32> {
    let digits = question.get(2..=LABEL_LEN)?;
    let number = digits.iter().try_fold(0, |number: u32, &digit| {
        let value = char::from(digit).to_digit(16)?;
        Some(number << 4 | value)
    })?;
    self::question(number).eq_ignore_ascii_case(question).then_some(number)
}
