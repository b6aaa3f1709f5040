//! The messages of a load run: one question for each number, and the one right answer to it.
//!
//! The address in an answer follows from the number in the name, so that the client finds mixed-up answers
//! without a table. Messages are plain bytes throughout: the tools must cost less than the servers they
//! measure.

use std::net::Ipv4Addr;

/// Bytes of the header (RFC 1035 section 4.1.1).
const HEADER_LEN: usize = 12;
/// Bytes of the shortest first label: `h` and the number in eight hexadecimal digits.
const LABEL_LEN: usize = 9;
/// How many lengths mixed labels have, each one byte longer than the one before.
const LENGTHS: u32 = 24;
/// Bytes of the longest question: the name, type A, class IN.
const MAX_QUESTION: usize = 1 + LABEL_LEN + LENGTHS as usize - 1 + ZONE.len() + 4;
/// All labels but the first.
const ZONE: &[u8] = b"\x05bench\x04test\x00";
/// The flag QR, in the third byte of a header.
const QR: u8 = 0x80;
/// The flag RD, in the third byte of a header.
const RD: u8 = 0x01;
/// RCODE REFUSED (RFC 1035 section 4.1.1), in the fourth byte of a header.
const REFUSED: u8 = 5;
/// An OPT record without options: the root, its type, the size of datagrams, no extended RCODE, version 0, no
/// flags (RFC 6891 section 6.1.2).
const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xD0, 0, 0, 0, 0, 0, 0];
/// The option ZONEVERSION of a query, without data (RFC 9660 section 2).
const ASKED_VERSION: [u8; 4] = [0, 19, 0, 0];
/// The option in a reply: the zone has the last two labels, and its version is the serial number of its SOA
/// record, 1.
const TOLD_VERSION: [u8; 10] = [0, 19, 0, 6, 2, 0, 0, 0, 0, 1];

/// The responses that count as right.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Expect {
    /// The query itself, with QR set.
    Echo,
    /// One address, the one of the name.
    Answer,
}

/// How long names are. A server that sends datagrams of equal length together gains by equal names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lengths {
    /// Of many lengths, as people ask.
    Mixed,
    /// All of one length, as most load tools ask.
    Equal,
}

impl Lengths {
    /// The word for it on a command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::Equal => "equal",
        }
    }

    /// Bytes of the first label of a number's host.
    fn of_label(self, number: u32) -> usize {
        match self {
            Self::Mixed => LABEL_LEN + (number.wrapping_mul(0x9E37_79B1) >> 16) as usize % LENGTHS as usize,
            Self::Equal => LABEL_LEN,
        }
    }
}

/// The first label of a number's host, in the zone `bench.test`.
pub(crate) fn label(number: u32, lengths: Lengths) -> String {
    format!("h{number:08x}{:x<1$}", "", lengths.of_label(number) - LABEL_LEN)
}

/// The address of a number's host: in 10.0.0.0/8, far apart for neighbors.
pub(crate) fn address(number: u32) -> Ipv4Addr {
    // An odd factor permutes the 24 bits that are kept, so that no two neighbors share an address.
    let [_, b, c, d] = number.wrapping_mul(0x009E_3779).to_be_bytes();
    Ipv4Addr::new(10, b, c, d)
}

/// Writes the query for a number, with an OPT record or without.
pub(crate) fn write_query(number: u32, lengths: Lengths, edns: bool, id: u16, out: &mut Vec<u8>) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[high, low, RD, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    out.extend_from_slice(Question::of(number, lengths.of_label(number)).as_wire());
    if edns {
        out.extend_from_slice(&OPT);
    }
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
    let Some((number, question)) = query.get(HEADER_LEN..).and_then(read) else {
        write_echo(query, out);
        if let Some(rcode) = out.get_mut(3) {
            *rcode = REFUSED;
        }
        return;
    };
    out.extend_from_slice(&query[..HEADER_LEN]);
    // As it was asked, whatever its case: some forwarders make forgery harder by it.
    out.extend_from_slice(question);
    out[2] |= QR;
    // One answer record, no others.
    out[6..HEADER_LEN].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    // Owner: a pointer to the question's name. Type A, class IN, the TTL, four bytes of data.
    out.extend_from_slice(&[0xC0, HEADER_LEN as u8, 0, 1, 0, 1]);
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&[0, 4]);
    out.extend_from_slice(&address(number).octets());
}

/// Writes a reply with an OPT record if the query has one, and with the version of the zone on request.
pub(crate) fn write_edns_reply(query: &[u8], ttl: u32, out: &mut Vec<u8>) {
    write_reply(query, ttl, out);
    let Some((_, question)) = query.get(HEADER_LEN..).and_then(read) else { return };
    let Some((opt, options)) = query[HEADER_LEN + question.len()..].split_first_chunk::<{ OPT.len() }>() else {
        return;
    };
    if opt[..3] != OPT[..3] {
        return;
    }
    out[HEADER_LEN - 1] = 1;
    out.extend_from_slice(&OPT);
    // A query for the version has that option last.
    if options.ends_with(&ASKED_VERSION) {
        if let Some(length) = out.last_mut() {
            *length = TOLD_VERSION.len() as u8;
        }
        out.extend_from_slice(&TOLD_VERSION);
    }
}

/// Returns true if a response with the right ID is the right one for the number. It has an OPT record without
/// options if the query had one.
pub(crate) fn is_right(response: &[u8], number: u32, lengths: Lengths, edns: bool, expect: Expect) -> bool {
    let Some((header, rest)) = response.split_at_checked(HEADER_LEN) else { return false };
    let Some(rest) = without_opt(rest, edns).filter(|_| !edns || header[8..] == [0, 0, 0, 1]) else { return false };
    let is_response = header[2] & QR != 0;
    let answers = u16::from_be_bytes([header[6], header[7]]);
    let is_success = header[3] & 0x0F == 0;
    let question = Question::of(number, lengths.of_label(number));
    let data = match expect {
        Expect::Echo => rest.len() == question.as_wire().len() && answers == 0,
        Expect::Answer => rest.ends_with(&address(number).octets()) && answers == 1,
    };
    is_response && is_success && data && rest.starts_with(question.as_wire())
}

/// Returns the bytes before the OPT record, if `edns` asks for one. The UDP size in the OPT record may be
/// any.
fn without_opt(octets: &[u8], edns: bool) -> Option<&[u8]> {
    if !edns {
        return Some(octets);
    }
    let (rest, opt) = octets.split_last_chunk::<{ OPT.len() }>()?;
    (opt[..3] == OPT[..3] && opt[5..] == OPT[5..]).then_some(rest)
}

/// The question for a host.
struct Question {
    /// Name, type and class, and what is left of the room.
    octets: [u8; MAX_QUESTION],
    len: usize,
}

impl Question {
    /// The question for a number, with a first label of so many bytes.
    fn of(number: u32, label_len: usize) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut octets = [b'x'; MAX_QUESTION];
        octets[0] = label_len as u8;
        octets[1] = b'h';
        for (place, octet) in octets[2..=LABEL_LEN].iter_mut().enumerate() {
            *octet = DIGITS[(number >> (28 - 4 * place) & 0xF) as usize];
        }
        let zone_at = 1 + label_len;
        octets[zone_at..][..ZONE.len()].copy_from_slice(ZONE);
        let len = zone_at + ZONE.len() + 4;
        octets[len - 4..len].copy_from_slice(&[0, 1, 0, 1]);
        Self { octets, len }
    }

    /// Name, type and class in wire form.
    fn as_wire(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

/// The number and the question that stands here, if it is one of ours, whatever its case.
fn read(octets: &[u8]) -> Option<(u32, &[u8])> {
    let label_len = usize::from(*octets.first()?);
    if !(LABEL_LEN..LABEL_LEN + LENGTHS as usize).contains(&label_len) {
        return None;
    }
    let digits = octets.get(2..=LABEL_LEN)?;
    let number = digits.iter().try_fold(0, |number: u32, &digit| {
        let value = char::from(digit).to_digit(16)?;
        Some(number << 4 | value)
    })?;
    let question = Question::of(number, label_len);
    let asked = octets.get(..question.len)?;
    asked.eq_ignore_ascii_case(question.as_wire()).then_some((number, asked))
}
