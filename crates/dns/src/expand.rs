//! Moves records to another place of a message.
//!
//! Records behind an OPT record move when it is removed or changes its length. Compression pointers to names
//! before it stay valid. Other pointers are expanded.

use super::body::{NamePiece, RecordBounds, records, skip_name};
use super::edns::set_rest_length;
use super::header::HEADER_LEN;
use super::local::name_pointer;
use super::rdata::{NameRule, RdataForm};

/// Appends the records of a valid `message` from `from` to its end to `out`, which equals `message` before
/// `fixed`. Stops when `out` is longer than `limit`, because uncompressed names may be much longer.
pub(super) fn append_records(message: &[u8], from: usize, fixed: usize, limit: usize, out: &mut Vec<u8>) {
    for record in records(message, from) {
        if out.len() > limit {
            break;
        }
        append_record(message, &record, unmoved(message, fixed), out);
    }
}

/// Returns the places of names that lie before `fixed` as a whole, which stay. The header may change.
pub(super) fn unmoved(message: &[u8], fixed: usize) -> impl Fn(usize) -> Option<usize> {
    let unmoved = message.get(..fixed).unwrap_or_default();
    move |target| skip_name(unmoved, target).map(|_| target).filter(|target| *target >= HEADER_LEN)
}

/// Appends a record. `moved` returns the new place of the name at an offset, or `None` if the name is to be
/// expanded.
pub(super) fn append_record(
    message: &[u8],
    record: &RecordBounds,
    moved: impl Fn(usize) -> Option<usize>,
    out: &mut Vec<u8>,
) {
    append_name(message, record.start, &moved, out);
    append_octets(message, record.owner_end, record.rdata, out);
    let rdata = out.len();
    // RDATA that does not match its type passes unchanged.
    if append_rdata(message, record, moved, out).is_none() {
        out.truncate(rdata);
        append_octets(message, record.rdata, record.end, out);
    }
    // Only a record that is over any limit, and so is not sent, can be over this one.
    set_rest_length(out, rdata);
}

/// Appends RDATA and expands its names if its type allows compression. Returns `None` if the RDATA does not
/// match its type. If `moved` always returns `None`, no pointer is left.
pub(super) fn append_rdata(
    message: &[u8],
    record: &RecordBounds,
    moved: impl Fn(usize) -> Option<usize>,
    out: &mut Vec<u8>,
) -> Option<()> {
    let rdata = message.get(..record.end)?;
    let form = RdataForm::of(record.rtype).filter(|form| form.name_rule >= NameRule::MayComeCompressed);
    let names = form.map_or(0, |form| form.names);
    let mut at = record.rdata + form.map_or(Some(0), |form| form.names_start(rdata.get(record.rdata..)?))?;
    append_octets(message, record.rdata, at, out);
    for _ in 0..names {
        let end = skip_name(rdata, at)?;
        append_name(message, at, &moved, out);
        at = end;
    }
    append_octets(message, at, record.end, out);
    Some(())
}

/// Appends the valid name at `at`, expanded up to a pointer to a name that `moved` knows.
fn append_name(message: &[u8], mut at: usize, moved: impl Fn(usize) -> Option<usize>, out: &mut Vec<u8>) {
    while let Some(piece) = NamePiece::read(message, at) {
        match piece {
            NamePiece::Label(label) => {
                out.push(label.len() as u8);
                out.extend_from_slice(label);
                at += 1 + label.len();
            }
            NamePiece::Pointer(target) => match moved(target) {
                Some(target) => return out.extend_from_slice(&name_pointer(target)),
                None => at = target,
            },
            NamePiece::Root => {
                out.push(0);
                return;
            }
        }
    }
}

fn append_octets(message: &[u8], from: usize, to: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(message.get(from..to).unwrap_or_default());
}
