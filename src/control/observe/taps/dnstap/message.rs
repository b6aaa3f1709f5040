//! Messages of dnstap (dnstap.proto), encoded in one pass.

use std::net::IpAddr;
use std::time::Duration;

use dns::Transport;
use hedge::race::AttemptKind;

/// The field `Message.Type` of dnstap.proto.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageType {
    AuthQuery = 1,
    AuthResponse = 2,
    ClientQuery = 5,
    ClientResponse = 6,
    ForwarderQuery = 7,
    ForwarderResponse = 8,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct DnstapMessage<'a> {
    pub(super) kind: MessageType,
    pub(super) transport: Transport,
    /// The sender of the query, cut for privacy.
    pub(super) asker: DnstapEndpoint,
    pub(super) asked: DnstapEndpoint,
    pub(super) query_time: Duration,
    pub(super) response_time: Option<Duration>,
    /// The message in wire form, unless privacy forbids it.
    pub(super) octets: Option<&'a [u8]>,
    pub(super) attempt: Option<DnstapAttempt<'a>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DnstapEndpoint {
    pub(super) ip: Option<IpAddr>,
    pub(super) port: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct DnstapAttempt<'a> {
    pub(super) pool: &'a str,
    pub(super) backend: &'a str,
    pub(super) kind: AttemptKind,
}

impl DnstapMessage<'_> {
    /// Returns the maximum length in bytes, without identity and version.
    pub(super) fn max_len(&self) -> usize {
        let names = self.attempt.map_or(0, |attempt| attempt.pool.len() + attempt.backend.len());
        FIXED + names + self.octets.map_or(0, <[u8]>::len)
    }

    /// Appends the message behind `server`: identity and version as written by [`server_fields`].
    pub(super) fn write(&self, server: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(server);
        if let Some(DnstapAttempt { pool, backend, kind }) = self.attempt {
            let parts = ["pool=", pool, " backend=", backend, " kind=", kind.label()];
            let len: usize = parts.iter().map(|part| part.len()).sum();
            let mut head = Head::default();
            head.put_len(EXTRA, len);
            out.extend_from_slice(head.written());
            parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        }
        let octets = self.octets.unwrap_or_default();
        let mut head = Head::default();
        head.put([DNSTAP_TYPE << 3 | VARINT, 1]);
        let len_at = head.len;
        head.put([0; LEN_OCTETS]);
        self.put_fields(&mut head);
        let end = std::mem::replace(&mut head.len, len_at);
        let [a, b, c] = varint((end - len_at - LEN_OCTETS + octets.len()) as u64);
        head.put::<LEN_OCTETS>([MESSAGE << 3 | DELIMITED, a, b, c]);
        head.len = end;
        out.extend_from_slice(head.written());
        out.extend_from_slice(octets);
        debug_assert!(out.len() - start - server.len() <= self.max_len(), "a message is longer than was said");
    }

    fn put_fields(&self, head: &mut Head) {
        let protocol = match self.transport {
            Transport::Udp => 1,
            Transport::Tcp => 2,
            // DOT, DOH and DOQ of dnstap.proto, which has no value for HTTP in the clear.
            Transport::Tls => 3,
            Transport::Https | Transport::Http => 4,
            Transport::Quic => 7,
        };
        head.put([TYPE << 3 | VARINT, self.kind as u8]);
        if let Some(ip) = self.asked.ip.or(self.asker.ip) {
            head.put([SOCKET_FAMILY << 3 | VARINT, if ip.is_ipv4() { 1 } else { 2 }]);
        }
        head.put([SOCKET_PROTOCOL << 3 | VARINT, protocol]);
        for (address, port, end) in
            [(QUERY_ADDRESS, QUERY_PORT, self.asker), (RESPONSE_ADDRESS, RESPONSE_PORT, self.asked)]
        {
            match end.ip {
                Some(IpAddr::V4(ip)) => {
                    head.put([address << 3 | DELIMITED, 4]);
                    head.put(ip.octets());
                }
                Some(IpAddr::V6(ip)) => {
                    head.put([address << 3 | DELIMITED, 16]);
                    head.put(ip.octets());
                }
                None => {}
            }
            if let Some(number) = end.port {
                let [a, b, c] = varint(number.into());
                head.put([port << 3 | VARINT, a, b, c]);
            }
        }
        head.put_time(QUERY_TIME_SEC, self.query_time);
        if let Some(time) = self.response_time {
            head.put_time(RESPONSE_TIME_SEC, time);
        }
        if let Some(message) = self.octets {
            let field = if self.response_time.is_some() { RESPONSE_MESSAGE } else { QUERY_MESSAGE };
            head.put_len(field, message.len());
        }
    }
}

/// The fields before a DNS message. Most numbers have a fixed length, so that their bytes need no branches: a
/// number may have leading zeros.
struct Head {
    octets: [u8; FIXED],
    len: usize,
}

impl Default for Head {
    fn default() -> Self {
        Self { octets: [0; FIXED], len: 0 }
    }
}

impl Head {
    fn put<const N: usize>(&mut self, part: [u8; N]) {
        if let Some(place) = self.octets.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut) {
            *place = part;
            self.len += N;
        }
    }

    /// Puts the key and the length of a field of bytes.
    fn put_len(&mut self, field: u8, len: usize) {
        self.put([field << 3 | DELIMITED]);
        match len {
            0..0x80 => self.put([len as u8]),
            0x80..0x4000 => self.put(varint::<2>(len as u64)),
            _ => self.put(varint::<3>(len as u64)),
        }
    }

    /// Puts the seconds in one field, the nanoseconds in the next.
    fn put_time(&mut self, field: u8, time: Duration) {
        self.put([field << 3 | VARINT]);
        match time.as_secs() >> 35 {
            0 => self.put(varint::<5>(time.as_secs())),
            _ => self.put(varint::<10>(time.as_secs())),
        }
        self.put([(field + 1) << 3 | FIXED32]);
        self.put(time.subsec_nanos().to_le_bytes());
    }

    fn written(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

/// Encodes a number of at most 7 N bits, little end first, 7 bits in each byte.
fn varint<const N: usize>(number: u64) -> [u8; N] {
    std::array::from_fn(|at| (number >> (7 * at)) as u8 & 0x7F | if at + 1 < N { 0x80 } else { 0 })
}

pub(super) fn server_fields(identity: &str, version: &str) -> Vec<u8> {
    let field = |number, text: &str| {
        let mut head = Head::default();
        head.put_len(number, text.len());
        [head.written(), text.as_bytes()].concat()
    };
    [field(IDENTITY, identity), field(VERSION, version)].concat()
}

const VARINT: u8 = 0;
const DELIMITED: u8 = 2;
const FIXED32: u8 = 5;

const IDENTITY: u8 = 1;
const VERSION: u8 = 2;
const EXTRA: u8 = 3;
const MESSAGE: u8 = 14;
const DNSTAP_TYPE: u8 = 15;

/// Field numbers of `Message`; the field after a time in seconds has its nanoseconds.
const TYPE: u8 = 1;
const SOCKET_FAMILY: u8 = 2;
const SOCKET_PROTOCOL: u8 = 3;
const QUERY_ADDRESS: u8 = 4;
const RESPONSE_ADDRESS: u8 = 5;
const QUERY_PORT: u8 = 6;
const RESPONSE_PORT: u8 = 7;
const QUERY_TIME_SEC: u8 = 8;
const QUERY_MESSAGE: u8 = 10;
const RESPONSE_TIME_SEC: u8 = 12;
const RESPONSE_MESSAGE: u8 = 14;

/// The key of the message and its length.
const LEN_OCTETS: usize = 4;

/// The maximum size without the DNS message, the names of `extra`, identity and version.
const FIXED: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(message: &DnstapMessage<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        message.write(&server_fields("ls1", "h 1"), &mut out);
        out
    }

    #[test]
    fn a_query_is_written_as_the_schema_says() {
        let message = DnstapMessage {
            kind: MessageType::ForwarderQuery,
            transport: Transport::Udp,
            asker: DnstapEndpoint { ip: None, port: Some(300) },
            asked: DnstapEndpoint { ip: Some("192.0.2.1".parse().expect("an address")), port: Some(53) },
            query_time: Duration::new(200, 1),
            response_time: None,
            octets: Some(b"abc"),
            attempt: Some(DnstapAttempt { pool: "p", backend: "b", kind: AttemptKind::Hedge }),
        };
        let fields: &[u8] = b"\x08\x07\x10\x01\x18\x01\x30\xAC\x82\0\x2A\x04\xC0\x00\x02\x01\x38\xB5\x80\0\
            \x40\xC8\x81\x80\x80\0\x4D\x01\0\0\0\x52\x03abc";
        let server: &[u8] = b"\x0A\x03ls1\x12\x03h 1";
        let extra: &[u8] = b"\x1A\x1Bpool=p backend=b kind=hedge";
        // Some numbers have leading zeros.
        let head: &[u8] = &[0x78, 1, 0x72, fields.len() as u8 | 0x80, 0x80, 0];
        let expected = [server, extra, head, fields].concat();
        assert_eq!(written(&message), expected);
    }

    #[test]
    fn the_longest_message_has_room() {
        let octets = vec![7; 65_535];
        let message = DnstapMessage {
            kind: MessageType::ClientResponse,
            transport: Transport::Tcp,
            asker: DnstapEndpoint { ip: Some("2001:db8::1".parse().expect("an address")), port: Some(65_535) },
            asked: DnstapEndpoint { ip: Some("2001:db8::2".parse().expect("an address")), port: Some(65_535) },
            query_time: Duration::new(u64::MAX, 999_999_999),
            response_time: Some(Duration::new(u64::MAX, 999_999_999)),
            octets: Some(&octets),
            attempt: None,
        };
        let out = written(&message);
        assert!(out.len() - server_fields("ls1", "h 1").len() <= message.max_len());
        assert!(out.ends_with(&octets));
    }
}
