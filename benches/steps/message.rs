//! Messages that steps begin with, built by hickory-proto, outside of what is measured. They last as long as
//! the process, so that what is read from them can be kept beside them.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// The UDP size that hedgerow offers (`edns_udp_size`).
pub(super) const UDP_SIZE: u16 = 1232;

/// A query as stub resolvers send it: RD, and an OPT record.
pub(super) fn query(name: &str) -> &'static [u8] {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(fqdn(name), RecordType::A));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_SIZE);
    message.set_edns(edns);
    message.to_vec().expect("a small message can be written").leak()
}

/// A reply with two addresses, and an OPT record.
pub(super) fn reply(name: &str) -> &'static [u8] {
    let mut message = Message::response(4711, OpCode::Query);
    message.add_query(Query::query(fqdn(name), RecordType::A));
    for last in 1..=2 {
        message.add_answer(Record::from_rdata(fqdn(name), 300, RData::A(A::new(192, 0, 2, last))));
    }
    message.set_edns(Edns::new());
    message.to_vec().expect("a small message can be written").leak()
}

/// A name that is known to be sound.
fn fqdn(name: &str) -> Name {
    Name::from_ascii(name).expect("the name is sound")
}
