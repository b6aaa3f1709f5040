//! Records of the query log on their way to the writer: about a hundred bytes, already without private data.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use dns::Transport;
use hedge::race::AttemptKind;
use metrics::ResponseSource;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct QueryRecord<'a> {
    pub(super) at: Duration,
    pub(super) client: Option<RecordAddress>,
    pub(super) transport: Option<Transport>,
    /// The queried name in wire form, cut for privacy.
    pub(super) qname: &'a [u8],
    pub(super) qtype_qclass: Option<(u16, u16)>,
    /// The source of the response and its rcode; `None` without a response.
    pub(super) said: Option<(ResponseSource, u16)>,
    pub(super) origin: RecordOrigin<'a>,
    /// The time from the query to the response, if measured.
    pub(super) took: Option<Duration>,
    pub(super) size: u16,
    /// The code of the first extended error of the response (RFC 8914).
    pub(super) ede: Option<u16>,
    /// The number of queries that the response answers: retransmissions count.
    pub(super) queries: u32,
    /// True if the query is logged regardless of the sample.
    pub(super) is_certain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control::observe::taps) struct RecordAddress {
    pub(in crate::control::observe::taps) ip: IpAddr,
    pub(in crate::control::observe::taps) prefix: Option<u8>,
}

/// The rule, pool, winner and race behind a response; empty if no pool was responsible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordOrigin<'a> {
    /// Empty if no rule matched.
    pub(super) rule: &'a str,
    pub(super) pool: &'a str,
    pub(super) backend: &'a str,
    pub(super) kind: Option<AttemptKind>,
    pub(super) attempts: u8,
}

impl<'a> QueryRecord<'a> {
    pub(super) fn max_len(&self) -> usize {
        let RecordOrigin { rule, pool, backend, .. } = self.origin;
        FIXED + self.qname.len() + rule.len() + pool.len() + backend.len()
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.at.as_nanos() as u64).to_be_bytes());
        out.extend_from_slice(&self.took.map_or(ABSENT_TIME, |took| took.as_nanos() as u64).to_be_bytes());
        out.extend_from_slice(&self.queries.to_be_bytes());
        let (qtype, qclass) = self.qtype_qclass.unwrap_or_default();
        let (source, rcode) = self.said.map_or((ABSENT, 0), |(source, rcode)| (source as u8, rcode));
        for number in [qtype, qclass, rcode, self.size, self.ede.unwrap_or_default()] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        let prefix = self.client.and_then(|client| client.prefix).unwrap_or(ABSENT);
        let family = self.client.map_or(ABSENT, |client| if client.ip.is_ipv4() { 4 } else { 6 });
        let flags =
            u8::from(self.qtype_qclass.is_some()) | u8::from(self.ede.is_some()) << 1 | u8::from(self.is_certain) << 2;
        let transport = self.transport.map_or(ABSENT, |transport| transport as u8);
        let kind = self.origin.kind.map_or(ABSENT, |kind| kind as u8);
        out.extend_from_slice(&[source, prefix, family, flags, transport, kind, self.origin.attempts]);
        match self.client.map(|client| client.ip) {
            Some(IpAddr::V4(ip)) => out.extend_from_slice(&ip.octets()),
            Some(IpAddr::V6(ip)) => out.extend_from_slice(&ip.octets()),
            None => {}
        }
        let RecordOrigin { rule, pool, backend, .. } = self.origin;
        for octets in [self.qname, rule.as_bytes(), pool.as_bytes(), backend.as_bytes()] {
            out.extend_from_slice(&(octets.len() as u16).to_be_bytes());
            out.extend_from_slice(octets);
        }
    }

    pub(super) fn read(record: &'a [u8]) -> Option<Self> {
        let mut rest = RecordBytes(record);
        let at = Duration::from_nanos(u64::from_be_bytes(rest.take()?));
        let took = Some(u64::from_be_bytes(rest.take()?)).filter(|took| *took != ABSENT_TIME);
        let queries = u32::from_be_bytes(rest.take()?);
        let mut number = || rest.take().map(u16::from_be_bytes);
        let (qtype, qclass, rcode, size, ede) = (number()?, number()?, number()?, number()?, number()?);
        let [source, prefix, family, flags, transport, kind, attempts] = rest.take()?;
        let ip = match family {
            4 => Some(IpAddr::V4(Ipv4Addr::from(rest.take::<4>()?))),
            6 => Some(IpAddr::V6(Ipv6Addr::from(rest.take::<16>()?))),
            _ => None,
        };
        let prefix = Some(prefix).filter(|prefix| *prefix != ABSENT);
        let mut octets = || {
            let len = u16::from_be_bytes(rest.take()?);
            rest.take_octets(len.into())
        };
        let (qname, rule, pool, backend) = (octets()?, octets()?, octets()?, octets()?);
        Some(Self {
            at,
            client: ip.map(|ip| RecordAddress { ip, prefix }),
            transport: Transport::ALL.into_iter().find(|known| *known as u8 == transport),
            qname,
            qtype_qclass: (flags & 1 != 0).then_some((qtype, qclass)),
            said: ResponseSource::ALL.into_iter().find(|known| *known as u8 == source).map(|source| (source, rcode)),
            origin: RecordOrigin {
                rule: str::from_utf8(rule).ok()?,
                pool: str::from_utf8(pool).ok()?,
                backend: str::from_utf8(backend).ok()?,
                kind: AttemptKind::ALL.into_iter().find(|known| *known as u8 == kind),
                attempts,
            },
            took: took.map(Duration::from_nanos),
            size,
            ede: (flags & 2 != 0).then_some(ede),
            queries,
            is_certain: flags & 4 != 0,
        })
    }
}

struct RecordBytes<'a>(&'a [u8]);

impl<'a> RecordBytes<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn take_octets(&mut self, len: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(first)
    }
}

/// The code for an absent number.
const ABSENT: u8 = u8::MAX;

const ABSENT_TIME: u64 = u64::MAX;

const FIXED: usize = 2 * 8 + 4 + 5 * 2 + 7 + 16 + 4 * 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(record: &QueryRecord<'_>) {
        let mut written = Vec::new();
        record.write(&mut written);
        assert!(written.len() <= record.max_len());
        assert_eq!(QueryRecord::read(&written).as_ref(), Some(record));
        for short in 0..written.len() {
            assert_eq!(QueryRecord::read(&written[..short]), None);
        }
    }

    #[test]
    fn what_was_written_is_read() {
        check(&QueryRecord::default());
        let mut record = QueryRecord {
            at: Duration::new(1_700_000_000, 123_456_789),
            client: Some(RecordAddress { ip: "2001:db8::".parse().expect("an address"), prefix: Some(56) }),
            transport: Some(Transport::Tcp),
            qname: b"\x03www\x07example\0",
            qtype_qclass: Some((28, 1)),
            said: Some((ResponseSource::Error, 23)),
            origin: RecordOrigin {
                rule: "kids",
                pool: "ts",
                backend: "ts-1",
                kind: Some(AttemptKind::Failover),
                attempts: 8,
            },
            took: Some(Duration::from_nanos(1)),
            size: u16::MAX,
            ede: Some(0),
            queries: 2,
            is_certain: true,
        };
        check(&record);
        for source in ResponseSource::ALL {
            record.said = Some((source, 0));
            check(&record);
        }
        record.client = Some(RecordAddress { ip: "192.0.2.1".parse().expect("an address"), prefix: None });
        record.took = Some(Duration::ZERO);
        check(&record);
    }
}
