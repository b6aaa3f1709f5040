//! Zones in tests: from text to a zone database, from a question to the lines of its response.
//!
//! [`read_zone`] reads master files. [`try_zone`] reads a shorter form, `OWNER [TTL] TYPE RDATA`, a record a
//! line, where DNSSEC records say only what an authority looks at. Responses are read by this file alone,
//! byte by byte, so that nothing that wrote them is taken on trust.
use std::collections::BTreeSet;
use std::sync::Arc;

use dns::{Flag, HEADER_LEN, Header, Name, OptRecord, Rcode, RecordClass, RecordType, Transport};
use zone::master::{self, ZoneFileContext, ZoneFileSource};
use zone::{Diagnostics, FilePlace, Miss, Reaction, Record, Tables, Zone, ZoneBuilder, ZoneDb, respond};

/// The largest UDP message of the server in tests.
pub(crate) const UDP_SIZE: u16 = 1232;

/// A name from text that is one.
pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The zone of a master file, whose first owner is the apex.
pub(crate) fn read_zone(text: &str) -> Result<(Zone, Diagnostics), Diagnostics> {
    let apex = name(text.split_whitespace().next().expect("a first record"));
    let mut builder = ZoneBuilder::new(&apex);
    let source = ZoneFileSource { name: "test.zone".to_owned(), octets: text.into() };
    let mut include = |name: &str| Err(format!("no file {name} in this test"));
    let task = ZoneFileContext { origin: Some(&apex), default_ttl: None, include: &mut include };
    let read = master::read(&source, task, &mut |record, place| builder.add(&record, place));
    read.unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    builder.finish()
}

/// The zone of a text, whose first owner is the apex.
pub(crate) fn try_zone(text: &str) -> Result<(Zone, Diagnostics), Diagnostics> {
    let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()).peekable();
    let apex = lines.peek().and_then(|(_, line)| line.split_whitespace().next()).expect("a first record");
    let mut builder = ZoneBuilder::new(&name(apex));
    let mut last_ttl = 300;
    for (line, text) in lines {
        let mut fields = text.split_whitespace();
        let owner = name(fields.next().expect("an owner"));
        let mut rest: Vec<&str> = fields.collect();
        if let Ok(ttl) = rest[0].parse() {
            last_ttl = ttl;
            rest.remove(0);
        }
        if rest[0] == "IN" {
            rest.remove(0);
        }
        let rtype: RecordType = rest[0].parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        let rdata = rdata(rtype, &rest[1..]);
        let record = Record { owner: owner.as_wire(), rtype, ttl: last_ttl, rdata: &rdata };
        builder.add(&record, FilePlace { file: 0, line, column: 1 });
    }
    builder.finish()
}

/// The zone of a text that is right.
pub(crate) fn zone(text: &str) -> Zone {
    match try_zone(text) {
        Ok((zone, _)) => zone,
        Err(diagnostics) => {
            let errors: Vec<_> = diagnostics.errors.iter().take(5).map(|error| error.to_string()).collect();
            panic!("{} errors: {errors:?}", diagnostics.errors.count())
        }
    }
}

/// A zone database of zones.
pub(crate) fn zone_db(texts: &[&str]) -> ZoneDb {
    texts.iter().fold(empty(), |zone_db, text| zone_db.with_zone(Arc::new(zone(text))))
}

/// A zone database of nothing.
pub(crate) fn empty() -> ZoneDb {
    ZoneDb::new(Arc::new(Tables::none()))
}

/// A zone database of zones beside a table.
pub(crate) fn zone_db_with_table(texts: &[&str], table: &str, miss: Miss) -> ZoneDb {
    let tables = ZoneDb::build(&[("table".to_owned(), table.into())], 300, miss).expect("a sound table");
    texts.iter().fold(tables, |zone_db, text| zone_db.with_zone(Arc::new(zone(text))))
}

/// RDATA from its fields.
fn rdata(rtype: RecordType, fields: &[&str]) -> Vec<u8> {
    let number = |text: &str| text.parse::<u32>().unwrap_or_else(|error| panic!("{text}: {error}"));
    let short = |text: &str| (number(text) as u16).to_be_bytes();
    let wire = |text: &str| name(text).as_wire().to_vec();
    if let ["\\#", _, digits @ ..] = fields {
        return hex(&digits.concat());
    }
    match (rtype, fields) {
        (RecordType::A, [address]) => address.parse::<std::net::Ipv4Addr>().expect("an address").octets().to_vec(),
        (RecordType::AAAA, [address]) => address.parse::<std::net::Ipv6Addr>().expect("an address").octets().to_vec(),
        (RecordType::NS | RecordType::CNAME | RecordType::DNAME | RecordType::PTR, [host]) => wire(host),
        (RecordType::MX, [preference, host]) => [&short(preference)[..], &wire(host)].concat(),
        (RecordType::SRV, [priority, weight, port, host]) => {
            [&short(priority)[..], &short(weight), &short(port), &wire(host)].concat()
        }
        (RecordType::SOA, [server, mailbox, times @ ..]) => {
            let times = times.iter().flat_map(|time| number(time).to_be_bytes());
            [wire(server), wire(mailbox), times.collect()].concat()
        }
        (RecordType::TXT, [..]) => {
            let text = fields.join(" ");
            let text = text.trim_matches('"');
            [&[text.len() as u8][..], text.as_bytes()].concat()
        }
        // Only the fields that an authority reads: the type that is signed, and the signer.
        (RecordType::RRSIG, [covered]) => [
            &covered.parse::<RecordType>().expect("a type").0.to_be_bytes()[..],
            &[8, 2],
            &[0; 14],
            b"\0",
            b"signature",
        ]
        .concat(),
        (RecordType::NSEC, [next, ..]) => [wire(next), b"\0\x01\x40".to_vec()].concat(),
        (RecordType::DS, [..]) => b"\0\x01\x08\x02digest".to_vec(),
        (RecordType::NSEC3PARAM, [iterations, salt]) => {
            let salt = hex(salt);
            [&[1, 0][..], &short(iterations), &[salt.len() as u8], &salt].concat()
        }
        (RecordType::NSEC3, [flags, iterations, salt]) => {
            let salt = hex(salt);
            [&[1, number(flags) as u8][..], &short(iterations), &[salt.len() as u8], &salt, &[20], &[0; 20]].concat()
        }
        _ => panic!("no text form of {rtype} {fields:?} here"),
    }
}

/// Bytes from hexadecimal digits, or from `-`, which is none.
fn hex(digits: &str) -> Vec<u8> {
    let digits = digits.trim_matches('-').as_bytes();
    let octets = digits.chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
    octets.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal digits")).collect()
}

/// A question, to be changed by a test.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) qname: Name,
    pub(crate) qtype: RecordType,
    pub(crate) qclass: RecordClass,
    /// UDP size and DO of an OPT record.
    pub(crate) edns: Option<(u16, bool)>,
    pub(crate) transport: Transport,
}

/// A plain question by UDP, without OPT.
pub(crate) fn asked(qname: &str, qtype: &str) -> Asked {
    Asked {
        qname: name(qname),
        qtype: qtype.parse().expect("a type"),
        qclass: RecordClass::IN,
        edns: None,
        transport: Transport::Udp,
    }
}

impl Asked {
    /// Asks as a client that wants DNSSEC records.
    pub(crate) fn with_do(self) -> Self {
        Self { edns: Some((4096, true)), ..self }
    }

    /// Asks by TCP instead.
    pub(crate) fn by_tcp(self) -> Self {
        Self { transport: Transport::Tcp, ..self }
    }

    /// The query in wire form.
    pub(crate) fn message(&self) -> Vec<u8> {
        let header = Header::new(0x1234).with_counts([1, 0, 0, u16::from(self.edns.is_some())]);
        let (qtype, qclass) = (self.qtype.0.to_be_bytes(), self.qclass.0.to_be_bytes());
        let mut message = [&header.to_wire()[..], self.qname.as_wire(), &qtype, &qclass].concat();
        if let Some((size, dnssec_ok)) = self.edns {
            OptRecord::new(size, dnssec_ok).append(&mut message);
        }
        message
    }

    /// The response of a zone database.
    pub(crate) fn of(&self, zone_db: &ZoneDb) -> Response {
        let mut out = Vec::new();
        match respond(zone_db, &self.message(), self.transport, UDP_SIZE, &mut out) {
            Reaction::Respond(_) => Response::read(out),
            other => panic!("{} {}: {other:?}", self.qname, self.qtype),
        }
    }
}

/// A response, taken apart.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) octets: Vec<u8>,
    pub(crate) header: Header,
    /// The answer, authority and additional sections, a line for each record; OPT left out.
    pub(crate) sections: [Vec<String>; 3],
}

impl Response {
    /// Reads a response to its last byte.
    fn read(octets: Vec<u8>) -> Self {
        let header = Header::read(&octets).expect("a header");
        let mut at = HEADER_LEN;
        read_name(&octets, &mut at);
        at += 4;
        let sections = [header.ancount(), header.nscount(), header.arcount()].map(|count| {
            let lines = (0..count).map(|_| read_record(&octets, &mut at));
            lines.collect::<Vec<_>>().into_iter().flatten().collect()
        });
        assert_eq!(at, octets.len(), "nothing is left behind the last record");
        Self { octets, header, sections }
    }

    pub(crate) fn rcode(&self) -> Rcode {
        self.header.rcode()
    }

    /// The flags that are set.
    pub(crate) fn flags(&self) -> String {
        let all = [(Flag::Authoritative, " AA"), (Flag::Truncated, " TC"), (Flag::RecursionAvailable, " RA")];
        let set = all.iter().filter(|(flag, _)| self.header.has(*flag)).map(|(_, name)| *name);
        ["QR"].into_iter().chain(set).collect()
    }

    /// All of it in a line: `NOERROR QR AA; an RECORD; ns RECORD; ar RECORD`.
    pub(crate) fn line(&self) -> String {
        let records = ["an", "ns", "ar"].into_iter().zip(&self.sections);
        let records = records.flat_map(|(section, lines)| lines.iter().map(move |line| format!("; {section} {line}")));
        format!("{} {}{}", self.rcode(), self.flags(), records.collect::<String>())
    }

    /// All of it in a line, of each record only owner and type: `NOERROR QR AA; an OWNER TYPE`.
    pub(crate) fn brief(&self) -> String {
        let records = ["an", "ns", "ar"].into_iter().zip(&self.sections);
        let records =
            records.flat_map(|(section, lines)| lines.iter().map(move |line| format!("; {section} {}", brief(line))));
        format!("{} {}{}", self.rcode(), self.flags(), records.collect::<String>())
    }

    /// The records of a section as a set.
    pub(crate) fn set(&self, section: usize) -> BTreeSet<&str> {
        self.sections[section].iter().map(String::as_str).collect()
    }
}

/// The owner and type of a record's line; of a signature also the type that it signs.
fn brief(line: &str) -> String {
    match line.split(' ').collect::<Vec<_>>()[..] {
        [owner, _, _, "RRSIG", covered] => format!("{owner} RRSIG {covered}"),
        [owner, _, _, rtype, ..] => format!("{owner} {rtype}"),
        _ => panic!("{line} is no record"),
    }
}

/// Reads a record as a line; nothing for an OPT record.
fn read_record(message: &[u8], at: &mut usize) -> Option<String> {
    let owner = read_name(message, at);
    let fixed: [u8; 10] = message[*at..*at + 10].try_into().expect("of that length");
    let rtype = RecordType(u16::from_be_bytes([fixed[0], fixed[1]]));
    let ttl = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    *at += 10;
    let end = *at + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    let rdata = read_rdata(&message[..end], at, rtype);
    *at = end;
    (rtype != RecordType::OPT).then(|| format!("{owner} {ttl} IN {rtype} {rdata}"))
}

/// Reads RDATA, which the message ends with.
fn read_rdata(message: &[u8], at: &mut usize, rtype: RecordType) -> String {
    let rest = &message[*at..];
    let numbers = |octets: &[u8]| {
        let numbers = octets.chunks(4).map(|word| u32::from_be_bytes(word.try_into().expect("whole words")));
        numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(" ")
    };
    let short = |index: usize| u16::from_be_bytes([rest[index], rest[index + 1]]);
    match rtype {
        RecordType::A => std::net::Ipv4Addr::from(<[u8; 4]>::try_from(rest).expect("four octets")).to_string(),
        RecordType::AAAA => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(rest).expect("16 octets")).to_string(),
        RecordType::NS | RecordType::CNAME | RecordType::DNAME | RecordType::PTR => read_name(message, at),
        RecordType::NSEC => read_name(message, at),
        RecordType::MX => {
            *at += 2;
            format!("{} {}", short(0), read_name(message, at))
        }
        RecordType::SRV => {
            *at += 6;
            format!("{} {} {} {}", short(0), short(2), short(4), read_name(message, at))
        }
        RecordType::SOA => {
            let (server, mailbox) = (read_name(message, at), read_name(message, at));
            format!("{server} {mailbox} {}", numbers(&message[*at..]))
        }
        RecordType::TXT => format!("{:?}", String::from_utf8_lossy(&rest[1..])),
        RecordType::RRSIG => RecordType(short(0)).to_string(),
        RecordType::NSEC3 | RecordType::DS => String::new(),
        _ => format!("{rest:02x?}"),
    }
}

/// Reads a name that may be compressed.
pub(crate) fn read_name(message: &[u8], at: &mut usize) -> String {
    let mut wire = Vec::new();
    let (mut from, mut end) = (*at, None);
    loop {
        let len = usize::from(message[from]);
        if len >= 0xC0 {
            let target = (len & 0x3F) << 8 | usize::from(message[from + 1]);
            assert!(target < from, "a pointer goes backwards");
            end.get_or_insert(from + 2);
            from = target;
            continue;
        }
        wire.extend_from_slice(&message[from..=from + len]);
        from += 1 + len;
        if len == 0 {
            break;
        }
    }
    *at = end.unwrap_or(from);
    Name::from_wire(&wire).expect("a name").to_string()
}
