//! Moves records to another place of a message.
//!
//! Needed only for what stands behind an OPT record that was not the last one: the OPT record leaves or changes its length,
//! and what follows moves. Compression pointers to names before it stay right, because nothing moved there; the others are
//! followed, and what they mean is written out. So it is for records that leave their message (`sections.rs`). This is the one
//! place that looks into RDATA.

use super::body::{Piece, Record, skip_name};
use super::codes::RecordType;

/// Appends the records of a sound `message` from `from` to its end to `out`, which equals `message` before `fixed`. Stops
/// where `out` is longer than `limit`: written out, names may be much longer than they were.
pub(super) fn append_records(message: &[u8], from: usize, fixed: usize, limit: usize, out: &mut Vec<u8>) {
    let mut at = from;
    while out.len() <= limit
        && let Some(record) = Record::read(message, at)
    {
        append_record(message, &record, fixed, out);
        at = record.end;
    }
}

/// Appends one record.
fn append_record(message: &[u8], record: &Record, fixed: usize, out: &mut Vec<u8>) {
    append_name(message, record.start, fixed, out);
    append_octets(message, record.owner_end, record.rdata, out);
    let rdata = out.len();
    // RDATA that is not as its type wants it was passed by the backend, and passes as it is.
    if append_rdata(message, record, fixed, out).is_none() {
        out.truncate(rdata);
        append_octets(message, record.rdata, record.end, out);
    }
    // Only a record that is itself over any limit, and so will not be sent, can be over this one.
    let rdlength = u16::try_from(out.len() - rdata).unwrap_or(u16::MAX);
    if let Some(octets) = out.get_mut(rdata - 2..rdata) {
        octets.copy_from_slice(&rdlength.to_be_bytes());
    }
}

/// Appends RDATA, name by name where its type has names that may be compressed. `None` if the type's layout does not fit.
/// With `fixed` 0 no pointer is left.
pub(super) fn append_rdata(message: &[u8], record: &Record, fixed: usize, out: &mut Vec<u8>) -> Option<()> {
    let layout = Layout::of(record.rtype);
    let rdata = message.get(..record.end)?;
    let mut at = record.rdata + layout.octets;
    for _ in 0..layout.strings {
        at += 1 + usize::from(*rdata.get(at)?);
    }
    rdata.get(record.rdata..at)?;
    append_octets(message, record.rdata, at, out);
    for _ in 0..layout.names {
        let end = skip_name(rdata, at)?;
        append_name(message, at, fixed, out);
        at = end;
    }
    append_octets(message, at, record.end, out);
    Some(())
}

/// Appends the sound name at `at`, written out up to where a pointer leads to a name that lies before `fixed` as a whole.
fn append_name(message: &[u8], mut at: usize, fixed: usize, out: &mut Vec<u8>) {
    let unmoved = message.get(..fixed).unwrap_or_default();
    while let Some(piece) = Piece::read(message, at) {
        match piece {
            Piece::Label(label) => {
                out.push(label.len() as u8);
                out.extend_from_slice(label);
                at += 1 + label.len();
            }
            Piece::Pointer(target) if skip_name(unmoved, target).is_some() => {
                append_octets(message, at, at + 2, out);
                return;
            }
            Piece::Pointer(target) => at = target,
            Piece::Root => {
                out.push(0);
                return;
            }
        }
    }
}

/// Appends octets of the message as they are.
fn append_octets(message: &[u8], from: usize, to: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(message.get(from..to).unwrap_or_default());
}

/// Where the names are in the RDATA of a type: behind some octets and some character strings, in a row; then anything.
#[derive(Clone, Copy)]
struct Layout {
    /// Octets in front.
    octets: usize,
    /// Character strings behind those (RFC 1035 section 3.3).
    strings: usize,
    /// Names behind those.
    names: usize,
}

impl Layout {
    /// The layout of a type; without names if its names, if any, may not be compressed.
    ///
    /// RFC 3597 section 4 has the types that receivers must or should take with compressed names; KX and DNAME look the
    /// same, and software older than RFC 6672 section 2.5 compressed the latter.
    fn of(rtype: RecordType) -> Self {
        let (octets, strings, names) = match rtype {
            RecordType::NS
            | RecordType::MD
            | RecordType::MF
            | RecordType::CNAME
            | RecordType::MB
            | RecordType::MG
            | RecordType::MR
            | RecordType::PTR
            | RecordType::NXT
            | RecordType::DNAME => (0, 0, 1),
            RecordType::SOA | RecordType::MINFO | RecordType::RP => (0, 0, 2),
            RecordType::MX | RecordType::AFSDB | RecordType::RT | RecordType::KX => (2, 0, 1),
            RecordType::PX => (2, 0, 2),
            RecordType::SRV => (6, 0, 1),
            RecordType::NAPTR => (4, 3, 1),
            RecordType::SIG => (18, 0, 1),
            _ => (0, 0, 0),
        };
        Self { octets, strings, names }
    }
}
