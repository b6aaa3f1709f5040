//! What hickory-proto makes of a message: its structure alone, with RDATA left opaque, and its records.

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// A record, all of it: the equality of hickory's own leaves the TTL out.
pub(super) type Record = (Name, DNSClass, u32, RData);

/// The structure of a message that follows all rules of `wire/`, found by hickory's readers of names and
/// numbers.
#[derive(Debug)]
pub(super) struct Structure {
    pub(super) header: Header,
    pub(super) qname: Name,
    /// The question's type and class.
    pub(super) qtype: [u16; 2],
    /// The OPT record's class and TTL.
    pub(super) opt: Option<(u16, u32)>,
}

impl Structure {
    /// Reads a message with one question; `None` if any rule is broken.
    pub(super) fn read(octets: &[u8]) -> Option<Self> {
        let mut decoder = BinDecoder::new(octets);
        let header = Header::read(&mut decoder).ok()?;
        if header.counts.queries != 1 {
            return None;
        }
        let qname = Name::read(&mut decoder).ok()?;
        // A compressed name takes less than it says.
        if decoder.index() - 12 != wire_len(&qname) {
            return None;
        }
        let qtype = [u16(&mut decoder)?, u16(&mut decoder)?];
        let counts = [header.counts.answers, header.counts.authorities, header.counts.additionals];
        let mut opt = None;
        for (section, count) in counts.into_iter().enumerate() {
            for _ in 0..count {
                let start = decoder.index();
                Name::read(&mut decoder).ok()?;
                let owner_len = decoder.index() - start;
                let (rtype, class) = (u16(&mut decoder)?, u16(&mut decoder)?);
                let ttl = decoder.read_u32().ok()?.unverified();
                let rdlength = usize::from(u16(&mut decoder)?);
                let rdata = decoder.read_slice(rdlength).ok()?.unverified();
                if rtype == u16::from(RecordType::OPT) {
                    let fits = section == 2 && owner_len == 1 && octets[start] == 0;
                    // In a query of a later version the options may look different.
                    let is_later = header.metadata.message_type == MessageType::Query && ttl >> 16 & 0xFF > 0;
                    if !fits || !(is_later || fills(rdata)) || opt.replace((class, ttl)).is_some() {
                        return None;
                    }
                }
            }
        }
        decoder.is_empty().then_some(Self { header, qname, qtype, opt })
    }

    /// Returns true if it is a message of the opcode QUERY of this kind.
    pub(super) fn is(&self, kind: MessageType) -> bool {
        self.header.metadata.message_type == kind && self.header.metadata.op_code == OpCode::Query
    }
}

/// The records of the three sections, without the OPT record.
pub(super) fn records(message: &Message) -> [Vec<Record>; 3] {
    [&message.answers, &message.authorities, &message.additionals].map(|section| {
        let all = section.iter();
        all.map(|record| (record.name.clone(), record.dns_class, record.ttl, record.data.clone())).collect()
    })
}

/// The options of an OPT record as codes and data.
pub(super) fn options(edns: &Edns) -> Vec<(u16, Vec<u8>)> {
    let options = edns.options().as_ref().iter();
    options.map(|(code, option)| ((*code).into(), Vec::try_from(option).expect("an option that was read"))).collect()
}

/// A name from its uncompressed wire form.
pub(super) fn name(wire: &[u8]) -> Name {
    Name::read(&mut BinDecoder::new(wire)).expect("a name")
}

/// The length of an uncompressed name.
fn wire_len(name: &Name) -> usize {
    name.iter().map(|label| label.len() + 1).sum::<usize>() + 1
}

fn u16(decoder: &mut BinDecoder<'_>) -> Option<u16> {
    decoder.read_u16().ok().map(|number| number.unverified())
}

/// Returns true if options fill an OPT record's RDATA.
fn fills(rdata: &[u8]) -> bool {
    let mut decoder = BinDecoder::new(rdata);
    while !decoder.is_empty() {
        let option = u16(&mut decoder).and_then(|_| u16(&mut decoder));
        if option.is_none_or(|len| decoder.read_slice(usize::from(len)).is_err()) {
            return false;
        }
    }
    true
}
