//! Queries in other than a client's form: without the OPT record that a backend refuses, and of our own making.

use super::codes::{RecordClass, RecordType};
use super::header::{HEADER_LEN, Header};
use super::name::Name;

/// Writes `query`, whose OPT record starts at `opt_start`, into `out` without that record (RFC 6891 section 6.2.2: for a
/// server that knows no EDNS).
/// One that has none, as `opt_start` then is its end, stays as it is.
pub fn write_without_opt(query: &[u8], opt_start: usize, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(query.get(..opt_start).unwrap_or(query));
    if opt_start < query.len()
        && let Some(header) = Header::read(out)
    {
        let plain = header.with_counts([header.qdcount(), header.ancount(), header.nscount(), 0]);
        out[..HEADER_LEN].copy_from_slice(&plain.to_wire());
    }
}

/// Writes a query without OPT and with RD=0 into `out`: the form that every server understands.
pub fn write_plain_query(id: u16, qname: &Name, qtype: RecordType, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&Header::new(id).with_counts([1, 0, 0, 0]).to_wire());
    out.extend_from_slice(qname.as_wire());
    out.extend_from_slice(&qtype.0.to_be_bytes());
    out.extend_from_slice(&RecordClass::IN.0.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{read_query, write_query};

    #[test]
    fn a_plain_query_reads_as_what_was_asked() {
        let mut message = Vec::new();
        write_plain_query(7, &"Www.example.org".parse().unwrap(), RecordType::NS, &mut message);
        let query = read_query(&message).unwrap();
        assert_eq!((query.header.id(), query.question.qtype()), (7, RecordType::NS));
        assert_eq!(query.question.qname(), b"\x03Www\x07example\x03org\x00");
        assert!(query.edns.is_none() && !query.header.recursion_desired());
    }

    #[test]
    fn without_opt_all_else_stays() {
        let with_opt = b"\x00\x01\x01\x10\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x00\x00\x01\x00\x01\
            \x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00";
        let (mut query, mut plain) = (Vec::new(), Vec::new());
        let opt_start = write_query(&read_query(with_opt).unwrap(), 1232, &mut query);
        assert!(opt_start < query.len());
        write_without_opt(&query, opt_start, &mut plain);
        let read = read_query(&plain).unwrap();
        assert!(read.edns.is_none() && read.header.recursion_desired() && read.header.checking_disabled());
        assert_eq!(plain.len(), opt_start);
    }
}
