//! Responses that begin with a CNAME record of hedgerow: the query for its target, and the composed response.

use super::body::{records, skip_name};
use super::codes::RecordType;
use super::edns::set_rest_length;
use super::expand;
use super::header::{Flag, HEADER_LEN, set_id};
use super::local::name_pointer;
use super::name::Name;
use super::query::{Query, write_query};
use super::question::Question;
use super::reply::Reply;

/// Writes a query for another name or type into `out`, with the ID, flags, class and EDNS of a client's
/// query.
pub fn write_query_instead(query: &Query<'_>, qname: &Name, qtype: RecordType, own_udp_size: u16, out: &mut Vec<u8>) {
    let mut message = query.header.to_wire().to_vec();
    message.extend_from_slice(qname.as_wire());
    message.extend_from_slice(&qtype.0.to_be_bytes());
    message.extend_from_slice(&query.question.qclass().0.to_be_bytes());
    let Some(question) = Question::read(&message) else { return out.clear() };
    write_query(&Query { question, is_signed: false, ..*query }, own_udp_size, out);
    set_id(out, query.header.id());
}

/// Writes a whole response to a question into `out`: a CNAME record to the name of the reply's question, and
/// then answer, authority, rcode and options of the reply. AA and AD are clear, because one of the records is
/// made up. [`write_response`](super::write_response) gives it the form of the client.
pub fn write_behind_cname(question_wire: &[u8], ttl: u32, reply: &Reply<'_>, out: &mut Vec<u8>) {
    out.clear();
    let Some(target) = reply.question().map(|question| question.qname()) else { return };
    out.extend_from_slice(&[0; HEADER_LEN]);
    out.extend_from_slice(question_wire);
    out.extend_from_slice(&name_pointer(HEADER_LEN));
    out.extend_from_slice(&RecordType::CNAME.0.to_be_bytes());
    // The record has the class of the question.
    out.extend_from_slice(question_wire.last_chunk::<2>().unwrap_or(&[0, 1]));
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&[0; 2]);
    let target_at = out.len();
    out.extend_from_slice(target);
    set_rest_length(out, target_at);

    let message = reply.as_wire();
    // Pointers into the question of the reply now point into the CNAME record.
    let qname = message.get(..HEADER_LEN + target.len()).unwrap_or_default();
    let moved = |at: usize| skip_name(qname, at).map(|_| at - HEADER_LEN + target_at);
    let end = reply.additional_start();
    for record in records(message, reply.answers_start()).take_while(|record| record.end <= end) {
        expand::append_record(message, &record, moved, out);
    }
    if let Some(opt) = reply.opt() {
        out.extend_from_slice(message.get(opt.start..opt.end).unwrap_or_default());
    }
    let header = reply.header();
    let counts = [1, header.ancount().saturating_add(1), header.nscount(), u16::from(reply.opt().is_some())];
    let header = header.with(Flag::Authoritative, false).with(Flag::AuthenticData, false);
    header.with(Flag::RecursionAvailable, true).with_counts(counts).overwrite(out);
}

#[cfg(test)]
mod tests {
    use super::super::query::read_query;
    use super::super::reply::read_reply;
    use super::super::sample::*;
    use super::super::sections::Message;
    use super::*;

    #[test]
    fn the_query_for_the_target_has_the_form_of_the_client() {
        let target = "safe.test".parse::<Name>().expect("a name");
        let mut out = b"left over".to_vec();
        let client = with_edns();
        let query = read_query(&client).expect("a query");
        write_query_instead(&query, &target, RecordType::AAAA, 1232, &mut out);
        assert_eq!(out, message(0x0110, [1, 0, 0, 1], &[b"\x04safe\x04test\0\0\x1C\0\x01", &our_opt(0, b"")]));
    }

    #[test]
    fn records_of_the_target_stand_behind_the_cname() {
        let target = b"\x01t\x07Example\x03org\0\0\x01\0\x01";
        // A CNAME to a name below the zone, the address of that, and an authority record with names.
        let below = record(WWW, RecordType::CNAME, b"\x01x\xC0\x0E");
        let address = a(b"\x01x\xC0\x0E");
        let soa = record(b"\xC0\x0E", RecordType::SOA, &[&b"\xC0\x0E\x01m\xC0\x2B"[..], &[0; 20]].concat());
        let reply = message(0x8580, [1, 2, 1, 1], &[target, &below, &address, &soa, &opt(0, 0, b"\0\x0F\0\x02\0\x12")]);
        let reply = read_reply(&reply).expect("a reply");
        let mut out = b"left over".to_vec();
        write_behind_cname(QUESTION, 60, &reply, &mut out);
        let composed = read_reply(&out).expect("a reply");
        assert_eq!((composed.header().ancount(), composed.header().nscount()), (3, 1));
        assert!(!composed.header().is_authoritative() && composed.header().recursion_available());
        assert_eq!(composed.extended_errors().map(|error| error.0).collect::<Vec<_>>(), [18]);
        let shown: Vec<_> = Message::read(&out)
            .expect("sound")
            .records()
            .map(|record| record.expect("sound"))
            .map(|record| (record.owner.to_string(), record.rtype, record.rdata.to_vec()))
            .filter(|(_, rtype, _)| *rtype != RecordType::OPT)
            .collect();
        let owned = |owner: &str, rtype, rdata: &[u8]| (owner.to_owned(), rtype, rdata.to_vec());
        assert_eq!(
            shown,
            [
                owned("www.Example.org.", RecordType::CNAME, b"\x01t\x07Example\x03org\0"),
                owned("t.Example.org.", RecordType::CNAME, b"\x01x\x07Example\x03org\0"),
                owned("x.Example.org.", RecordType::A, &[192, 0, 2, 1]),
                owned(
                    "Example.org.",
                    RecordType::SOA,
                    &[&b"\x07Example\x03org\0\x01m\x01x\x07Example\x03org\0"[..], &[0; 20]].concat()
                ),
            ]
        );
    }

    #[test]
    fn a_longer_name_before_the_target_moves_no_pointer_astray() {
        let target = b"\x03abc\x03org\0\0\x01\0\x01";
        // A pointer into the middle of a label: its name ends outside the question.
        let odd = record(b"\xC0\x0D", RecordType::A, &[1; 4]);
        let octets = message(0x8180, [1, 1, 0, 0], &[target, &odd]);
        if let Ok(reply) = read_reply(&octets) {
            let mut out = Vec::new();
            write_behind_cname(QUESTION, 60, &reply, &mut out);
            assert!(read_reply(&out).is_ok());
        }
    }
}
