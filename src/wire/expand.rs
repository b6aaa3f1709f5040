//! Moves records to another place of a message.
//!
//! Needed only for what stands behind an OPT record that was not the last one: the OPT record leaves or changes its length,
//! and what follows moves. Compression pointers to names before it stay right, because nothing moved there; the others are
//! followed, and what they mean is written out. So it is for records that leave their message (`sections.rs`). Where the names
//! in RDATA are is told by the table of its forms (`rdata.rs`).

use super::body::{Piece, Record, skip_name};
use super::rdata::{NameRule, RdataForm};

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

/// Appends RDATA, name by name where its type has names that may be compressed. `None` if the data are not in the form of their type.
/// With `fixed` 0 no pointer is left.
pub(super) fn append_rdata(message: &[u8], record: &Record, fixed: usize, out: &mut Vec<u8>) -> Option<()> {
    let rdata = message.get(..record.end)?;
    let form = RdataForm::of(record.rtype).filter(|form| form.name_rule >= NameRule::MayComeCompressed);
    let names = form.map_or(0, |form| form.names);
    let mut at = record.rdata + form.map_or(Some(0), |form| form.names_start(rdata.get(record.rdata..)?))?;
    append_octets(message, record.rdata, at, out);
    for _ in 0..names {
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
