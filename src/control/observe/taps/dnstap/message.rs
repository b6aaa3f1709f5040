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
        out.extend_from_slice(server);
        if let Some(DnstapAttempt { pool, backend, kind }) = self.attempt {
            let parts = ["pool=", pool, " backend=", backend, " kind=", kind.label()];
            let len: usize = parts.iter().map(|part| part.len()).sum();
            write_head(EXTRA, len, out);
            parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        }
        write_number(DNSTAP_TYPE, 1, out);
        let start = out.len();
        // The length is filled in later, in as many bytes as the longest takes: a number may have leading
        // zeros.
        write_key(MESSAGE, DELIMITED, out);
        let len_at = out.len();
        out.extend_from_slice(&[0; LEN_OCTETS]);
        self.write_fields(out);
        let len = out.len() - len_at - LEN_OCTETS;
        if let Some(place) = out.get_mut(len_at..len_at + LEN_OCTETS) {
            place.copy_from_slice(&[len as u8 | 0x80, (len >> 7) as u8 | 0x80, (len >> 14) as u8]);
        }
        debug_assert!(out.len() - start <= self.max_len(), "a message is longer than was said");
    }

    fn write_fields(&self, out: &mut Vec<u8>) {
        write_number(TYPE, self.kind as u64, out);
        let ip = self.asked.ip.or(self.asker.ip);
        if let Some(ip) = ip {
            write_number(SOCKET_FAMILY, if ip.is_ipv4() { 1 } else { 2 }, out);
        }
        let protocol = match self.transport {
            Transport::Udp => 1,
            Transport::Tcp => 2,
            // DOT, DOH and DOQ of dnstap.proto, which has no value for HTTP in the clear.
            Transport::Tls => 3,
            Transport::Https | Transport::Http => 4,
            Transport::Quic => 7,
        };
        write_number(SOCKET_PROTOCOL, protocol, out);
        for (address, port, end) in
            [(QUERY_ADDRESS, QUERY_PORT, self.asker), (RESPONSE_ADDRESS, RESPONSE_PORT, self.asked)]
        {
            match end.ip {
                Some(IpAddr::V4(ip)) => write_octets(address, &ip.octets(), out),
                Some(IpAddr::V6(ip)) => write_octets(address, &ip.octets(), out),
                None => {}
            }
            if let Some(number) = end.port {
                write_number(port, number.into(), out);
            }
        }
        write_time(QUERY_TIME_SEC, self.query_time, out);
        let octets = if self.response_time.is_some() { RESPONSE_MESSAGE } else { QUERY_MESSAGE };
        if let Some(time) = self.response_time {
            write_time(RESPONSE_TIME_SEC, time, out);
        }
        if let Some(message) = self.octets {
            write_octets(octets, message, out);
        }
    }
}

pub(super) fn server_fields(identity: &str, version: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_octets(IDENTITY, identity.as_bytes(), &mut out);
    write_octets(VERSION, version.as_bytes(), &mut out);
    out
}

/// Writes the seconds to one field, the nanoseconds to the next.
fn write_time(field: u8, time: Duration, out: &mut Vec<u8>) {
    write_number(field, time.as_secs(), out);
    write_key(field + 1, FIXED32, out);
    out.extend_from_slice(&time.subsec_nanos().to_le_bytes());
}

fn write_octets(field: u8, octets: &[u8], out: &mut Vec<u8>) {
    write_head(field, octets.len(), out);
    out.extend_from_slice(octets);
}

fn write_head(field: u8, len: usize, out: &mut Vec<u8>) {
    write_key(field, DELIMITED, out);
    write_varint(len as u64, out);
}

fn write_number(field: u8, number: u64, out: &mut Vec<u8>) {
    write_key(field, VARINT, out);
    write_varint(number, out);
}

/// Writes a key of one byte, because all field numbers are below 16.
fn write_key(field: u8, wire_type: u8, out: &mut Vec<u8>) {
    out.push(field << 3 | wire_type);
}

fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
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

const LEN_OCTETS: usize = 3;

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
        let fields: &[u8] = b"\x08\x07\x10\x01\x18\x01\x30\xAC\x02\x2A\x04\xC0\x00\x02\x01\x38\x35\
            \x40\xC8\x01\x4D\x01\0\0\0\x52\x03abc";
        let server: &[u8] = b"\x0A\x03ls1\x12\x03h 1";
        let extra: &[u8] = b"\x1A\x1Bpool=p backend=b kind=hedge";
        // The length of the fields has leading zeros.
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
