//! The messages of a scenario: queries for numbered names, and what modelled backends reply.

use crate::policy::Rank;

/// What a modelled backend replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A reply of this rank.
    Ranked(Rank),
    /// FORMERR, because of OPT.
    OptRefused,
    /// A failure of twelve octets.
    Bare,
}

/// Writes a client's query for the address of a name.
pub(super) fn write_query(id: u16, name: u32, pool: usize, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&RD);
    out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 1]);
    write_question(name, pool, out);
    // RFC 6891 section 6.1.2: OPT, 1232 octets.
    out.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
}

/// Writes a reply to a query for a name. What it says is good for `ttl` seconds.
pub(super) fn write_reply(id: u16, name: u32, pool: usize, answer: Answer, ttl: u32, out: &mut Vec<u8>) {
    let (flags, answers, authorities) = match answer {
        Answer::Ranked(Rank::Positive) => (REPLY, 1, 0),
        Answer::Ranked(Rank::NodataAuthoritative) => (REPLY | AA, 0, 1),
        Answer::Ranked(Rank::Nodata) => (REPLY, 0, 1),
        // A model has no versions of zones.
        Answer::Ranked(Rank::Nxdomain | Rank::Outdated) => (REPLY | AA | 3, 0, 1),
        // Nor has it extended errors.
        Answer::Ranked(Rank::Failure | Rank::Doubtful | Rank::Decided) | Answer::Bare => (REPLY | 2, 0, 0),
        Answer::OptRefused => (REPLY | 1, 0, 0),
    };
    let questions = u8::from(answer != Answer::Bare);
    out.clear();
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&[0, questions, 0, answers, 0, authorities, 0, 0]);
    if questions > 0 {
        write_question(name, pool, out);
    }
    if answers > 0 {
        // The name of the question, A, IN.
        out.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1]);
        out.extend_from_slice(&ttl.to_be_bytes());
        out.extend_from_slice(&[0, 4, 192, 0, 2, 1]);
    }
    if authorities > 0 {
        // Of the root: SOA, IN, by which negative answers are cached (RFC 2308 section 5).
        out.extend_from_slice(&[0, 0, 6, 0, 1]);
        out.extend_from_slice(&ttl.to_be_bytes());
        out.extend_from_slice(&[0, 22, 0, 0]);
        out.extend_from_slice(&[0; 16]);
        out.extend_from_slice(&ttl.to_be_bytes());
    }
}

/// The number of the name that a query to a backend is for, and whether it bears OPT.
pub(super) fn read(query: &[u8]) -> (u32, bool) {
    let label = query.get(HEADER + 1..).unwrap_or_default();
    let digits = label.iter().map_while(|octet| char::from(*octet).to_digit(10));
    let name = digits.fold(0, |name: u32, digit| name.wrapping_mul(10).wrapping_add(digit));
    (name, query.get(HEADER - 1).is_some_and(|records| *records > 0))
}

/// Writes the question for the address of a name: its number, below the number of the pool.
fn write_question(name: u32, pool: usize, out: &mut Vec<u8>) {
    let at = out.len();
    out.push(0);
    write_number(name, out);
    out[at] = (out.len() - at - 1) as u8;
    write_suffix(pool, out);
    out.extend_from_slice(&[0, 1, 0, 1]);
}

/// Writes the name below which all names of a pool are.
pub(super) fn write_suffix(pool: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&[2, b'p', b'a' + (pool % 26) as u8, 0]);
}

/// Writes a number in decimal.
fn write_number(number: u32, out: &mut Vec<u8>) {
    if number >= 10 {
        write_number(number / 10, out);
    }
    out.push(b'0' + (number % 10) as u8);
}

/// Octets of a header.
const HEADER: usize = 12;
/// The flags of a client's query: RD.
const RD: [u8; 2] = [1, 0];
/// The flags of a reply: QR, RD and RA.
const REPLY: u16 = 0x8180;
const AA: u16 = 0x0400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rank;
    use crate::wire::{read_query, read_reply};

    #[test]
    fn replies_answer_queries_and_rank_as_they_are_meant_to() {
        let (mut query, mut reply) = (Vec::new(), Vec::new());
        for name in [0, 7, 1_234_567, u32::MAX] {
            write_query(5, name, 1, &mut query);
            let asked = read_query(&query).expect("a query");
            assert_eq!((read(&query), asked.edns.is_some()), ((name, true), true));
            for expected in [Rank::Failure, Rank::Nodata, Rank::Nxdomain, Rank::NodataAuthoritative, Rank::Positive] {
                write_reply(9, name, 1, Answer::Ranked(expected), 60, &mut reply);
                let read = read_reply(&reply).expect("a reply");
                assert!(read.answers_question(asked.question.as_wire()) && read.header().id() == 9);
                assert_eq!((rank(&read), read.is_bare_failure()), (expected, false));
            }
            write_reply(9, name, 1, Answer::Bare, 60, &mut reply);
            assert!(read_reply(&reply).expect("a reply").is_bare_failure());
        }
    }
}
