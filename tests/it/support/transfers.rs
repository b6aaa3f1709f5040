//! A small zone, `example.`, in any version, and messages of it, for the tests of transfers.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use dns::{HEADER_LEN, Header, Message, Name, RecordType};
use zone::Record;
use zone::transfer::{Records, TransferWriter};

pub(crate) const ZONE: &[u8] = b"\x07example\0";

/// The ID of all queries.
pub(crate) const ID: u16 = 0x4242;

pub(crate) fn zone() -> Name {
    Name::from_wire(ZONE).unwrap()
}

/// The RDATA of the SOA of a version: refresh 100 s, retry 10 s, expire 1000 s.
pub(crate) fn soa_rdata(serial: u32) -> Vec<u8> {
    let numbers = [serial, 100, 10, 1_000, 60].map(u32::to_be_bytes).concat();
    [&b"\x02ns\x07example\0\x01h\0"[..], &numbers].concat()
}

/// A version of the zone: the SOA, then these hosts.
pub(crate) fn version(serial: u32, hosts: impl IntoIterator<Item = u8>) -> Records {
    let mut records = Records::new();
    records.push(Record { owner: ZONE, rtype: RecordType::SOA, ttl: 300, rdata: &soa_rdata(serial) });
    for host in hosts {
        let owner = [&[2, b'h', host], ZONE].concat();
        records.push(Record { owner: &owner, rtype: RecordType::A, ttl: 300, rdata: &[192, 0, 2, host] });
    }
    records
}

/// A query for the zone, of this type.
pub(crate) fn query(qtype: RecordType) -> Vec<u8> {
    let header = Header::new(ID).with_counts([1, 0, 0, 0]).to_wire();
    [&header[..], ZONE, &qtype.0.to_be_bytes(), b"\0\x01"].concat()
}

/// The messages of a response with these records, of so many bytes at most.
pub(crate) fn response<'a>(qtype: RecordType, records: impl Iterator<Item = Record<'a>>, limit: usize) -> Vec<Vec<u8>> {
    let query = query(qtype);
    let query = Message::read(&query).unwrap();
    let mut writer = TransferWriter::new(query.header, &query.question.unwrap(), records, limit);
    let mut messages = Vec::new();
    let mut out = Vec::new();
    while writer.next_message(&mut out) {
        messages.push(out.clone());
    }
    messages
}

/// Changes the header of a message.
pub(crate) fn with_header(mut message: Vec<u8>, change: impl Fn(Header) -> Header) -> Vec<u8> {
    let header = Header::read(&message).unwrap();
    message[..HEADER_LEN].copy_from_slice(&change(header).to_wire());
    message
}

/// Accepts a connection of a secondary, and reads its query.
pub(crate) fn accept_query(primary: &TcpListener) -> (TcpStream, Vec<u8>) {
    let (mut connection, _) = primary.accept().unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut length = [0; 2];
    connection.read_exact(&mut length).unwrap();
    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
    connection.read_exact(&mut query).unwrap();
    (connection, query)
}
