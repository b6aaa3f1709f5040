//! DNS messages, written byte by byte, so that what goes out is exactly what a test says, however
//! wrong. They are read by hickory-proto, which knows nothing of hedgerow.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU16, Ordering};

use hickory_proto::op::Message;

/// RFC 1035 section 3.2.2: a host address.
pub const A: u16 = 1;
/// RFC 1035 section 3.2.2: a name server.
pub const NS: u16 = 2;
/// RFC 1035 section 3.2.2: the start of a zone.
pub const SOA: u16 = 6;
/// RFC 1035 section 3.2.2: text.
pub const TXT: u16 = 16;
/// RFC 3596 section 2.1: an IPv6 address.
pub const AAAA: u16 = 28;
/// RFC 2782: where a service is.
pub const SRV: u16 = 33;
/// RFC 6891 section 6.1.1: the pseudo-record of EDNS.
pub const OPT: u16 = 41;
/// A signature of a whole message.
pub const TSIG: u16 = 250;
/// RFC 1995 section 3: a transfer of what changed.
pub const IXFR: u16 = 251;
/// RFC 5936 section 2: a transfer of a whole zone.
pub const AXFR: u16 = 252;
/// RFC 8482 section 1: whatever there is.
pub const ANY: u16 = 255;

/// RFC 1035 section 3.2.4: the Internet.
pub const IN: u16 = 1;
/// RFC 1035 section 3.2.4: Chaosnet.
pub const CH: u16 = 3;

/// RFC 1035 section 4.1.1: no error.
pub const NOERROR: u16 = 0;
/// RFC 1035 section 4.1.1: the query could not be read.
pub const FORMERR: u16 = 1;
/// RFC 1035 section 4.1.1: the server failed.
pub const SERVFAIL: u16 = 2;
/// RFC 1035 section 4.1.1: there is no such name.
pub const NXDOMAIN: u16 = 3;
/// RFC 1035 section 4.1.1: not implemented.
pub const NOTIMP: u16 = 4;
/// RFC 1035 section 4.1.1: refused.
pub const REFUSED: u16 = 5;
/// RFC 6891 section 9: a version of EDNS that is not spoken.
pub const BADVERS: u16 = 16;
/// RFC 7873 section 8: the cookie of the server is missing or wrong.
pub const BADCOOKIE: u16 = 23;

/// RFC 1035 section 4.1.1: a response, no query.
pub const QR: u16 = 0x8000;
/// RFC 1035 section 4.1.1: from an authority.
pub const AA: u16 = 0x0400;
/// RFC 1035 section 4.1.1: truncated.
pub const TC: u16 = 0x0200;
/// RFC 1035 section 4.1.1: recursion desired.
pub const RD: u16 = 0x0100;
/// RFC 1035 section 4.1.1: recursion available.
pub const RA: u16 = 0x0080;
/// RFC 4035 section 3.2.3: authentic data.
pub const AD: u16 = 0x0020;
/// RFC 4035 section 3.2.2: checking disabled.
pub const CD: u16 = 0x0010;

/// RFC 8914 section 4.1: an error without a specific code.
pub const OTHER: u16 = 0;
/// RFC 8914 section 4.23: no authority could be reached.
pub const NO_REACHABLE_AUTHORITY: u16 = 22;
/// RFC 8914 section 4.4: the answer is stale.
pub const STALE: u16 = 3;
/// RFC 8914 section 4.14: the failure is remembered.
pub const CACHED_ERROR: u16 = 13;
/// RFC 8914 section 4.20: that there is no such name is stale.
pub const STALE_NXDOMAIN: u16 = 19;
/// The registry of RFC 8914 section 5.2: the answer is of the server's own making.
pub const SYNTHESIZED: u16 = 29;

/// RFC 7871 section 6.
pub const CLIENT_SUBNET: u16 = 8;
/// RFC 7873 section 4.
pub const COOKIE: u16 = 10;
/// RFC 7828 section 3.1.
pub const KEEPALIVE: u16 = 11;
/// RFC 7830 section 3.
pub const PADDING: u16 = 12;
/// RFC 8914 section 2.
pub const EXTENDED_ERROR: u16 = 15;

/// A query for `name` and `rtype`: class IN, RD=1, no OPT, and an ID that no other pending query of this
/// process has.
pub fn query(name: &str, rtype: u16) -> Query {
    static NEXT_ID: AtomicU16 = AtomicU16::new(0x1234);
    Query { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), flags: RD, name: wire_name(name), rtype, class: IN, opt: None }
}

/// A client's query; its methods change one thing each.
#[derive(Clone, Debug)]
pub struct Query {
    /// The ID of the message.
    pub id: u16,
    /// Flags, as the word in which they stand.
    flags: u16,
    /// In wire form, in its case.
    name: Vec<u8>,
    rtype: u16,
    class: u16,
    /// The OPT record, which comes last.
    opt: Option<Opt>,
}

impl Query {
    /// Sets the ID.
    pub fn id(self, id: u16) -> Self {
        Self { id, ..self }
    }

    /// The whole second word of the header: flags, opcode, rcode.
    pub fn flags(self, flags: u16) -> Self {
        Self { flags, ..self }
    }

    /// Sets the opcode.
    pub fn opcode(self, opcode: u16) -> Self {
        Self { flags: self.flags & !0x7800 | opcode << 11, ..self }
    }

    /// Sets the class.
    pub fn class(self, class: u16) -> Self {
        Self { class, ..self }
    }

    /// With an OPT record that offers `udp_size` bytes.
    pub fn edns(self, udp_size: u16) -> Self {
        Self { opt: Some(Opt::new(udp_size)), ..self }
    }

    /// With DO set (and an OPT record, if there was none yet).
    pub fn dnssec_ok(self) -> Self {
        self.with_opt(|opt| opt.flags |= 0x8000)
    }

    /// Of this version of EDNS.
    pub fn version(self, version: u8) -> Self {
        self.with_opt(|opt| opt.version = version)
    }

    /// With one more EDNS option.
    pub fn option(self, code: u16, data: &[u8]) -> Self {
        self.with_opt(|opt| opt.options.push((code, data.to_vec())))
    }

    /// Returns the message with a TSIG record, which comes last.
    pub fn to_signed_vec(&self) -> Vec<u8> {
        let mut out = self.to_vec();
        out.extend_from_slice(&tsig(self.id).0);
        out[11] += 1;
        out
    }

    /// Returns the message.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = header(self.id, self.flags, [1, 0, 0, self.opt.is_some().into()]);
        out.extend_from_slice(&self.question());
        if let Some(opt) = &self.opt {
            out.extend_from_slice(&opt.to_vec());
        }
        out
    }

    /// The question as it stands in the message: name in its case, type, class.
    pub fn question(&self) -> Vec<u8> {
        [&self.name[..], &self.rtype.to_be_bytes(), &self.class.to_be_bytes()].concat()
    }

    /// With the OPT record changed; there is one from then on.
    fn with_opt(mut self, change: impl FnOnce(&mut Opt)) -> Self {
        change(self.opt.get_or_insert_with(|| Opt::new(1232)));
        self
    }
}

/// A reply to `query`: its ID, RD and question, QR=1, NOERROR, no records, and an OPT record if the
/// query has one.
pub fn reply_to(query: &[u8]) -> Reply {
    Reply {
        id: word(query, 0),
        flags: QR | word(query, 2) & RD,
        question: question_of(query).to_vec(),
        sections: Default::default(),
        opt: opt_of(query).map(|_| Opt::new(1232)),
    }
}

/// A backend's reply; its methods change one thing each.
#[derive(Clone, Debug)]
pub struct Reply {
    id: u16,
    /// Flags, as the word in which they stand.
    flags: u16,
    question: Vec<u8>,
    /// Answers, authorities, additional records.
    sections: [Vec<Record>; 3],
    /// The OPT record, which comes last.
    opt: Option<Opt>,
}

impl Reply {
    /// With this rcode. What of it does not fit into the header stands in the OPT record, which there must be
    /// then.
    pub fn rcode(mut self, rcode: u16) -> Self {
        if let Some(opt) = &mut self.opt {
            opt.extended_rcode = (rcode >> 4) as u8;
        }
        Self { flags: self.flags & !0xf | rcode & 0xf, ..self }
    }

    /// These flags as well.
    pub fn with_flags(self, flags: u16) -> Self {
        Self { flags: self.flags | flags, ..self }
    }

    /// With one more answer.
    pub fn answer(mut self, record: Record) -> Self {
        self.sections[0].push(record);
        self
    }

    /// With one more authority record.
    pub fn authority(mut self, record: Record) -> Self {
        self.sections[1].push(record);
        self
    }

    /// With one more additional record.
    pub fn additional(mut self, record: Record) -> Self {
        self.sections[2].push(record);
        self
    }

    /// With one more EDNS option.
    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        self.opt.get_or_insert_with(|| Opt::new(1232)).options.push((code, data.to_vec()));
        self
    }

    /// Without OPT, even if the query has one.
    pub fn without_opt(self) -> Self {
        Self { opt: None, ..self }
    }

    /// Returns the message.
    pub fn to_vec(&self) -> Vec<u8> {
        let [answers, authorities, additionals] = self.sections.each_ref().map(|s| s.len() as u16);
        let opts = u16::from(self.opt.is_some());
        let counts = [1, answers, authorities, additionals + opts];
        let mut out = header(self.id, self.flags, counts);
        out.extend_from_slice(&self.question);
        for record in self.sections.iter().flatten() {
            out.extend_from_slice(&record.0);
        }
        if let Some(opt) = &self.opt {
            out.extend_from_slice(&opt.to_vec());
        }
        out
    }
}

/// A resource record in wire form.
#[derive(Clone, Debug, PartialEq)]
pub struct Record(Vec<u8>);

impl Record {
    /// With this TTL, in seconds.
    pub fn lasting(mut self, ttl: u32) -> Self {
        let owner =
            if self.0[0] == 0xc0 { 2 } else { self.0.iter().position(|octet| *octet == 0).expect("a root") + 1 };
        self.0[owner + 4..owner + 8].copy_from_slice(&ttl.to_be_bytes());
        self
    }

    /// Returns the record in wire form.
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.clone()
    }
}

/// A record of class IN with a TTL of 60 s. The owner `"@"` is the name of the question, by a pointer.
pub fn record(owner: &str, rtype: u16, data: &[u8]) -> Record {
    let mut out = if owner == "@" { vec![0xc0, 12] } else { wire_name(owner) };
    out.extend_from_slice(&rtype.to_be_bytes());
    out.extend_from_slice(&IN.to_be_bytes());
    out.extend_from_slice(&60u32.to_be_bytes());
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
    Record(out)
}

/// An A record of the name of the question.
pub fn a(address: &str) -> Record {
    record("@", A, &ipv4(address))
}

/// The bytes of an IPv4 address.
pub fn ipv4(address: &str) -> [u8; 4] {
    address.parse::<std::net::Ipv4Addr>().expect("a test names an IPv4 address").octets()
}

/// A TSIG record (RFC 8945 section 4.2) with this ID, of a key unknown to all servers in the test; its
/// signature cannot be verified.
pub fn tsig(id: u16) -> Record {
    // Time signed, fudge, 32 bytes of MAC, the original ID, no error, no other data.
    let mut data = wire_name("hmac-sha256");
    data.extend([0, 0, 0x5f, 0, 0, 0, 1, 44, 0, 32]);
    data.extend([0xa5; 32]);
    data.extend(id.to_be_bytes());
    data.extend([0; 4]);
    let mut record = record("key.example", TSIG, &data).lasting(0);
    let class = wire_name("key.example").len() + 2;
    record.0[class + 1] = 255;
    record
}

/// A TXT record of about `length` bytes that belongs to the name of the question.
pub fn txt(length: usize) -> Record {
    let mut data = Vec::with_capacity(length + length / 200);
    for chunk in vec![b'x'; length].chunks(200) {
        data.push(chunk.len() as u8);
        data.extend_from_slice(chunk);
    }
    record("@", TXT, &data)
}

/// An OPT record (RFC 6891 section 6.1.2).
#[derive(Clone, Debug)]
pub struct Opt {
    /// Bytes that its sender takes over UDP.
    udp_size: u16,
    /// The upper bits of the rcode.
    extended_rcode: u8,
    version: u8,
    /// Flags, as the word in which they stand.
    flags: u16,
    options: Vec<(u16, Vec<u8>)>,
}

impl Opt {
    /// Version 0, no flags, no options.
    pub fn new(udp_size: u16) -> Self {
        Self { udp_size, extended_rcode: 0, version: 0, flags: 0, options: Vec::new() }
    }

    /// Returns the OPT record in wire form.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut data = Vec::new();
        for (code, value) in &self.options {
            data.extend_from_slice(&code.to_be_bytes());
            data.extend_from_slice(&(value.len() as u16).to_be_bytes());
            data.extend_from_slice(value);
        }
        let mut out = vec![0];
        out.extend_from_slice(&OPT.to_be_bytes());
        out.extend_from_slice(&self.udp_size.to_be_bytes());
        out.extend_from_slice(&[self.extended_rcode, self.version]);
        out.extend_from_slice(&self.flags.to_be_bytes());
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(&data);
        out
    }
}

/// A response as the client received it.
#[derive(Clone)]
pub struct Response {
    /// The message as it came.
    pub bytes: Vec<u8>,
}

impl Response {
    /// The message as hickory-proto reads it.
    pub fn message(&self) -> Message {
        Message::from_vec(&self.bytes).unwrap_or_else(|e| panic!("{e} in a response: {self:?}"))
    }

    /// Returns the ID of the message.
    pub fn id(&self) -> u16 {
        word(&self.bytes, 0)
    }

    /// Returns true if a flag of the header is set.
    pub fn has(&self, flag: u16) -> bool {
        word(&self.bytes, 2) & flag != 0
    }

    /// Returns the opcode.
    pub fn opcode(&self) -> u16 {
        word(&self.bytes, 2) >> 11 & 0xf
    }

    /// With the bits that an OPT record adds.
    pub fn rcode(&self) -> u16 {
        self.message().metadata.response_code.into()
    }

    /// The RDATA of all answer records, as text, sorted.
    pub fn answers(&self) -> Vec<String> {
        let mut answers: Vec<_> = self.message().answers.iter().map(|record| record.data.to_string()).collect();
        answers.sort();
        answers
    }

    /// The TTLs of all answer records.
    pub fn ttls(&self) -> Vec<u32> {
        self.message().answers.iter().map(|record| record.ttl).collect()
    }

    /// The question in the case in which it came back.
    pub fn question(&self) -> &[u8] {
        question_of(&self.bytes)
    }

    /// Returns true if there is an OPT record.
    pub fn has_opt(&self) -> bool {
        self.message().edns.is_some()
    }

    /// Codes and data of the EDNS options.
    pub fn options(&self) -> Vec<(u16, Vec<u8>)> {
        opt_of(&self.bytes).unwrap_or_default()
    }

    /// The data of the COOKIE option, if there is one.
    pub fn cookie(&self) -> Option<Vec<u8>> {
        cookie_of(&self.bytes)
    }

    /// The code of the Extended DNS Error, if there is one.
    pub fn extended_error(&self) -> Option<u16> {
        let options = self.options();
        let (_, data) = options.iter().find(|(code, _)| *code == EXTENDED_ERROR)?;
        Some(word(data, 0))
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hex = self.bytes.iter().fold(String::new(), |mut hex, octet| {
            let _ = write!(hex, "{octet:02x}");
            hex
        });
        match Message::from_vec(&self.bytes) {
            Ok(message) => write!(f, "{message} [{hex}]"),
            Err(e) => write!(f, "{e} [{hex}]"),
        }
    }
}

/// Header words and counts, as twelve bytes.
pub fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    [[id, flags].as_slice(), &counts].concat().into_iter().flat_map(u16::to_be_bytes).collect()
}

/// `www.example.org` as length-prefixed labels, in its case; `.` is the root.
pub fn wire_name(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out
}

/// Name, type and class of the only question; a message of these tests always has one.
pub fn question_of(message: &[u8]) -> &[u8] {
    let mut end = 12;
    while message[end] != 0 {
        end += 1 + usize::from(message[end]);
    }
    &message[12..end + 5]
}

/// The options of a message's OPT record, if it has one.
pub fn opt_of(message: &[u8]) -> Option<Vec<(u16, Vec<u8>)>> {
    let message = Message::from_vec(message).ok()?;
    let options = &message.edns.as_ref()?.options().options;
    let plain = options.iter().map(|(code, option)| {
        let data = Vec::<u8>::try_from(option).expect("an option that was read can be written");
        (u16::from(*code), data)
    });
    Some(plain.collect())
}

/// The data of a message's COOKIE option, if it has one. There are never two.
pub(crate) fn cookie_of(message: &[u8]) -> Option<Vec<u8>> {
    let cookies: Vec<_> = opt_of(message)?.into_iter().filter(|(code, _)| *code == COOKIE).collect();
    assert!(cookies.len() < 2, "{message:?}");
    cookies.into_iter().next().map(|(_, data)| data)
}

/// Adds an option to a message that ends with an OPT record without any.
pub fn add_option(message: &mut Vec<u8>, code: u16, data: &[u8]) {
    let opt = message.len() - 11;
    assert_eq!((&message[opt..opt + 3], &message[opt + 9..]), (&[0, 0, 41][..], &[0, 0][..]), "{message:?}");
    let [code, length, whole] = [code, data.len() as u16, data.len() as u16 + 4].map(u16::to_be_bytes);
    message[opt + 9..].copy_from_slice(&whole);
    message.extend([&code[..], &length, data].concat());
}

/// The 16 bits at `at`.
pub fn word(message: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([message[at], message[at + 1]])
}
