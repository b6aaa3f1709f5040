//! Messages to compare on: generated with many shapes of compression, EDNS and sections, and damaged.
//!
//! The octets are written here and by neither of the two sides that are compared, so that names may be
//! compressed in RDATA where hickory-proto would not, and the OPT record may stand anywhere among the
//! additional records.

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A name as its labels.
pub(super) type Labels = Vec<Vec<u8>>;

/// A message to be written.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) id: u16,
    pub(super) bits: u16,
    pub(super) qname: Labels,
    /// The question's type and class.
    pub(super) qtype: [u16; 2],
    pub(super) sections: [Vec<Record>; 3],
    /// The OPT record and its place among the additional records.
    pub(super) opt: Option<(Opt, Index)>,
}

/// A record to be written.
#[derive(Clone, Debug)]
pub(super) struct Record {
    owner: Labels,
    rtype: u16,
    ttl: u32,
    /// Octets in front of the names in the RDATA.
    front: Vec<u8>,
    names: Vec<Labels>,
    back: Vec<u8>,
}

/// An OPT record to be written.
#[derive(Clone, Debug)]
pub(super) struct Opt {
    pub(super) udp_size: u16,
    /// The high 8 bits of the rcode.
    pub(super) extended_rcode: u8,
    pub(super) dnssec_ok: bool,
    pub(super) options: Vec<(u16, Vec<u8>)>,
}

/// Damage to a message.
#[derive(Clone, Debug)]
pub(super) enum Damage {
    /// One bit is the other way.
    Flip(Index, u8),
    /// One octet is another.
    Overwrite(Index, u8),
    /// A pointer to somewhere stands where it does not belong.
    Point(Index, Index),
    /// The end is missing.
    Cut(Index),
    /// A count lies: which, and what it says.
    Count(usize, u16),
    /// There is more at the end.
    Append(Vec<u8>),
}

/// Queries with and without EDNS, some with a record or two.
pub(super) fn query() -> impl Strategy<Value = Spec> {
    let authority = prop::collection::vec(record(), 0..2);
    // RD, AD, CD and the bit without a name.
    let bits = any::<u16>().prop_map(|bits| bits & 0x0170);
    (bits, authority, spec(0..=0)).prop_map(|(bits, authority, mut spec)| {
        spec.bits = bits;
        spec.sections = [vec![], authority, vec![]];
        spec
    })
}

/// Replies with a few records in each section.
pub(super) fn reply() -> impl Strategy<Value = Spec> {
    let section = || prop::collection::vec(record(), 0..5);
    let bits = (any::<u16>(), select(vec![0, 0, 2, 3, 5, 7])).prop_map(|(bits, rcode)| bits & 0x07F0 | 0x8000 | rcode);
    (bits, [section(), section(), section()], spec(0..=1)).prop_map(|(bits, sections, mut spec)| {
        spec.bits = bits;
        spec.sections = sections;
        spec
    })
}

/// Some damage, or none.
pub(super) fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        4 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        3 => (any::<Index>(), any::<u8>()).prop_map(|(at, octet)| Damage::Overwrite(at, octet)),
        3 => any::<(Index, Index)>().prop_map(|(at, target)| Damage::Point(at, target)),
        1 => any::<Index>().prop_map(Damage::Cut),
        1 => (0..4_usize, prop_oneof![0..6_u16, any::<u16>()]).prop_map(|(which, count)| Damage::Count(which, count)),
        1 => prop::collection::vec(any::<u8>(), 1..20).prop_map(Damage::Append),
    ];
    prop::collection::vec(one, 0..4)
}

/// A question and perhaps an OPT record, without flags and records.
fn spec(extended_rcode: std::ops::RangeInclusive<u8>) -> impl Strategy<Value = Spec> {
    let option = prop_oneof![
        (select(vec![3, 10, 11, 12, 15, 65001]), prop::collection::vec(any::<u8>(), 0..12)),
        // A client subnet that hickory-proto takes: 192.0.2.0/24.
        Just((8, vec![0, 1, 24, 0, 192, 0, 2])),
    ];
    let options = prop::collection::vec(option, 0..4);
    let opt = (any::<u16>(), extended_rcode, any::<bool>(), options, any::<Index>()).prop_map(
        |(udp_size, extended_rcode, dnssec_ok, options, at)| {
            let opt = Opt { udp_size, extended_rcode, dnssec_ok, options };
            (opt, at)
        },
    );
    let qtype = [select(vec![1, 2, 15, 28, 65, 97, 255, 65280]), select(vec![1, 3, 255, 4096])];
    (any::<u16>(), labels(), qtype, prop::option::of(opt)).prop_map(|(id, qname, qtype, opt)| Spec {
        id,
        bits: 0,
        qname,
        qtype,
        sections: [vec![], vec![], vec![]],
        opt,
    })
}

/// A record of a type whose RDATA both sides can read.
fn record() -> impl Strategy<Value = Record> {
    let octets = |len: usize| prop::collection::vec(any::<u8>(), len);
    let names = |count: usize| prop::collection::vec(labels(), count);
    let rdata = prop_oneof![
        4 => (Just(1), octets(4), names(0), octets(0)),
        2 => (Just(28), octets(16), names(0), octets(0)),
        4 => (select(vec![2, 5, 12]), octets(0), names(1), octets(0)),
        2 => (Just(15), octets(2), names(1), octets(0)),
        2 => (Just(33), octets(6), names(1), octets(0)),
        2 => (Just(6), octets(0), names(2), octets(20)),
        1 => (Just(35), Just(b"\0\x01\0\x02\x01u\x03sip\0".to_vec()), names(1), octets(0)),
        1 => (Just(16), Just(b"\x05hello\x02it".to_vec()), names(0), octets(0)),
        2 => (Just(65280), prop::collection::vec(any::<u8>(), 1..150), names(0), octets(0)),
    ];
    (labels(), any::<u32>(), rdata).prop_map(|(owner, ttl, (rtype, front, names, back))| Record {
        owner,
        rtype,
        ttl,
        front,
        names,
        back,
    })
}

/// A name of few different labels, so that suffixes repeat.
fn labels() -> impl Strategy<Value = Labels> {
    let label = select(vec!["www", "WWW", "Example", "example", "org", "a", "\u{0}."]);
    prop::collection::vec(label.prop_map(|label| label.as_bytes().to_vec()), 0..5)
}

impl Spec {
    /// The octets of the message.
    pub(super) fn to_wire(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        let [answers, authority, additional] = &self.sections;
        let arcount = additional.len() + usize::from(self.opt.is_some());
        for field in [self.id, self.bits, 1] {
            writer.u16(field);
        }
        for count in [answers.len(), authority.len(), arcount] {
            writer.u16(count as u16);
        }
        writer.name(&self.qname);
        writer.u16(self.qtype[0]);
        writer.u16(self.qtype[1]);
        answers.iter().chain(authority).for_each(|record| writer.record(record));
        let opt = self.opt.as_ref().map(|(opt, at)| (opt, at.index(additional.len() + 1)));
        for index in 0..=additional.len() {
            if let Some((opt, _)) = opt.filter(|(_, at)| *at == index) {
                writer.opt(opt);
            }
            if let Some(record) = additional.get(index) {
                writer.record(record);
            }
        }
        writer.octets
    }
}

/// Writes a message and remembers where its names are.
#[derive(Default)]
struct Writer {
    octets: Vec<u8>,
    /// Names, and where they stand.
    names: Vec<(Labels, usize)>,
}

impl Writer {
    fn u16(&mut self, number: u16) {
        self.octets.extend_from_slice(&number.to_be_bytes());
    }

    /// Appends a name, compressed as far as it can be.
    fn name(&mut self, labels: &[Vec<u8>]) {
        for index in 0..labels.len() {
            let rest = &labels[index..];
            if let Some((_, at)) = self.names.iter().find(|(name, _)| name == rest) {
                return self.u16(0xC000 | *at as u16);
            }
            self.names.push((rest.to_vec(), self.octets.len()));
            self.octets.push(rest[0].len() as u8);
            self.octets.extend_from_slice(&rest[0]);
        }
        self.octets.push(0);
    }

    fn record(&mut self, record: &Record) {
        self.name(&record.owner);
        self.u16(record.rtype);
        self.u16(1);
        self.octets.extend_from_slice(&record.ttl.to_be_bytes());
        self.u16(0);
        let start = self.octets.len();
        self.octets.extend_from_slice(&record.front);
        record.names.iter().for_each(|name| self.name(name));
        self.octets.extend_from_slice(&record.back);
        let rdlength = (self.octets.len() - start) as u16;
        self.octets[start - 2..start].copy_from_slice(&rdlength.to_be_bytes());
    }

    /// Appends an OPT record.
    fn opt(&mut self, opt: &Opt) {
        let rdlength: usize = opt.options.iter().map(|(_, data)| 4 + data.len()).sum();
        self.octets.push(0);
        self.u16(41);
        self.u16(opt.udp_size);
        self.octets.extend_from_slice(&[opt.extended_rcode, 0, u8::from(opt.dnssec_ok) << 7, 0]);
        self.u16(rdlength as u16);
        for (code, data) in &opt.options {
            self.u16(*code);
            self.u16(data.len() as u16);
            self.octets.extend_from_slice(data);
        }
    }
}

pub(super) fn apply(damage: &[Damage], octets: &mut Vec<u8>) {
    for one in damage {
        let len = octets.len();
        if len < 14 {
            return;
        }
        match one {
            Damage::Flip(at, bit) => octets[at.index(len)] ^= 1 << bit,
            Damage::Overwrite(at, octet) => octets[at.index(len)] = *octet,
            Damage::Point(at, target) => {
                let at = 12 + at.index(len - 13);
                let pointer = 0xC000 | target.index(len) as u16;
                octets[at..at + 2].copy_from_slice(&pointer.to_be_bytes());
            }
            Damage::Cut(at) => octets.truncate(at.index(len)),
            Damage::Count(which, count) => {
                octets[4 + 2 * which..6 + 2 * which].copy_from_slice(&count.to_be_bytes());
            }
            Damage::Append(more) => octets.extend_from_slice(more),
        }
    }
}
