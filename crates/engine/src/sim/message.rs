//! Messages of a scenario: queries for numbered names, and the replies of modelled backends.

use config::Rank;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelAnswer {
    Ranked(Rank),
    /// FORMERR, because of OPT.
    OptRefused,
    /// A failure that is only a header.
    Bare,
}

pub(super) fn write_query(id: u16, name: u32, pool: usize, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&RD);
    out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 1]);
    write_question(name, pool, out);
    // RFC 6891 section 6.1.2: OPT, 1232 bytes.
    out.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
}

/// Writes a reply to a query for a name, with this TTL in seconds.
pub(super) fn write_reply(id: u16, name: u32, pool: usize, answer: ModelAnswer, ttl: u32, out: &mut Vec<u8>) {
    let (flags, answers, authorities) = match answer {
        ModelAnswer::Ranked(Rank::Positive) => (REPLY, 1, 0),
        ModelAnswer::Ranked(Rank::NodataAuthoritative) => (REPLY | AA, 0, 1),
        ModelAnswer::Ranked(Rank::Nodata) => (REPLY, 0, 1),
        // A model has neither versions of zones nor extended errors.
        ModelAnswer::Ranked(Rank::Nxdomain | Rank::Outdated) => (REPLY | AA | 3, 0, 1),
        ModelAnswer::Ranked(Rank::Failure | Rank::Doubtful | Rank::Decided) | ModelAnswer::Bare => (REPLY | 2, 0, 0),
        ModelAnswer::OptRefused => (REPLY | 1, 0, 0),
    };
    let questions = u8::from(answer != ModelAnswer::Bare);
    out.clear();
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&[0, questions, 0, answers, 0, authorities, 0, 0]);
    if questions > 0 {
        write_question(name, pool, out);
    }
    if answers > 0 {
        out.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1]);
        out.extend_from_slice(&ttl.to_be_bytes());
        out.extend_from_slice(&[0, 4, 192, 0, 2, 1]);
    }
    if authorities > 0 {
        // SOA of the root, by which negative answers are cached (RFC 2308 section 5).
        out.extend_from_slice(&[0, 0, 6, 0, 1]);
        out.extend_from_slice(&ttl.to_be_bytes());
        out.extend_from_slice(&[0, 22, 0, 0]);
        out.extend_from_slice(&[0; 16]);
        out.extend_from_slice(&ttl.to_be_bytes());
    }
}

/// Returns the number of the name in a query to a backend, and true if the query has OPT.
pub(super) fn read(query: &[u8]) -> (u32, bool) {
    let label = query.get(HEADER + 1..).unwrap_or_default();
    let digits = label.iter().map_while(|octet| char::from(*octet).to_digit(10));
    let name = digits.fold(0, |name: u32, digit| name.wrapping_mul(10).wrapping_add(digit));
    (name, query.get(HEADER - 1).is_some_and(|records| *records > 0))
}

fn write_question(name: u32, pool: usize, out: &mut Vec<u8>) {
    let at = out.len();
    out.push(0);
    write_number(name, out);
    out[at] = (out.len() - at - 1) as u8;
    write_suffix(pool, out);
    out.extend_from_slice(&[0, 1, 0, 1]);
}

pub(super) fn write_suffix(pool: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&[2, b'p', b'a' + (pool % 26) as u8, 0]);
}

fn write_number(number: u32, out: &mut Vec<u8>) {
    if number >= 10 {
        write_number(number / 10, out);
    }
    out.push(b'0' + (number % 10) as u8);
}

const HEADER: usize = 12;
const RD: [u8; 2] = [1, 0];
const REPLY: u16 = 0x8180;
const AA: u16 = 0x0400;

#[cfg(test)]
mod tests {
    use dns::{read_query, read_reply};

    use super::*;
    use crate::rank;

    #[test]
    fn replies_answer_queries_and_rank_as_they_are_meant_to() {
        let (mut query, mut reply) = (Vec::new(), Vec::new());
        for name in [0, 7, 1_234_567, u32::MAX] {
            write_query(5, name, 1, &mut query);
            let asked = read_query(&query).expect("a query");
            assert_eq!((read(&query), asked.edns.is_some()), ((name, true), true));
            for expected in [Rank::Failure, Rank::Nodata, Rank::Nxdomain, Rank::NodataAuthoritative, Rank::Positive] {
                write_reply(9, name, 1, ModelAnswer::Ranked(expected), 60, &mut reply);
                let read = read_reply(&reply).expect("a reply");
                assert!(read.answers_question(asked.question.as_wire()) && read.header().id() == 9);
                assert_eq!((rank(&read), read.is_bare_failure()), (expected, false));
            }
            write_reply(9, name, 1, ModelAnswer::Bare, 60, &mut reply);
            assert!(read_reply(&reply).expect("a reply").is_bare_failure());
        }
    }
}
