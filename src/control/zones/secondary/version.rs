//! Makes a zone from the result of a transfer.

use std::sync::Arc;

use dns::Name;
use zone::transfer::catalog::{Catalog, CatalogFault};
use zone::transfer::{Difference, Records, TransferResult};
use zone::{FilePlace, Record, Zone, ZoneBuilder};

use super::PrimaryError;

pub(super) struct FetchedZone {
    pub(super) zone: Arc<Zone>,
    pub(super) size: usize,
    /// The differences from the previous version, if they are needed.
    pub(super) steps: Vec<Difference>,
    pub(super) is_whole: bool,
    pub(super) catalog: Option<Result<Catalog, CatalogFault>>,
}

/// Makes a zone from a transfer, which may be differences from `old`. Returns `None` if `old` is up to date.
/// For an `is_shared` zone the differences are computed in any case.
pub(super) fn load(
    name: &Name,
    received: TransferResult,
    old: Option<&Zone>,
    is_shared: bool,
) -> Result<Option<FetchedZone>, PrimaryError> {
    match received {
        TransferResult::UpToDate => Ok(None),
        TransferResult::Whole(records) => {
            let zone = build(name, records.iter())?;
            let steps = old.filter(|_| is_shared).and_then(|old| Difference::between(old.iter(), zone.iter()).ok());
            Ok(Some(fetched(zone, steps.into_iter().collect(), true)))
        }
        TransferResult::Steps(steps) => {
            let old = old.ok_or(PrimaryError::Inexact(zone::transfer::Inexact::Missing))?;
            let change = Difference::condensed(&steps).map_err(PrimaryError::Inexact)?;
            let records = change.apply(old.iter()).map_err(PrimaryError::Inexact)?;
            let zone = build(name, records.iter())?;
            Ok(Some(fetched(zone, steps, false)))
        }
    }
}

fn fetched(zone: Zone, steps: Vec<Difference>, is_whole: bool) -> FetchedZone {
    let size = Records::size_of(zone.iter());
    FetchedZone { zone: Arc::new(zone), size, steps, is_whole, catalog: None }
}

pub(super) fn build<'a>(name: &Name, records: impl Iterator<Item = Record<'a>>) -> Result<Zone, PrimaryError> {
    let mut builder = ZoneBuilder::new(name);
    records.for_each(|record| builder.add(&record, FilePlace::default()));
    match builder.finish() {
        // Cautions are for the operator of the primary.
        Ok((zone, _cautions)) => Ok(zone),
        Err(diagnostics) => {
            let errors = diagnostics.errors.iter().map(ToString::to_string);
            Err(PrimaryError::Flawed(errors.collect::<Vec<_>>().join("; ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use dns::RecordType;

    use super::*;

    #[test]
    fn a_record_that_is_sent_twice_counts_once() {
        let record = |owner, rtype, rdata| Record { owner, rtype, ttl: 300, rdata };
        let soa = [&b"\x01a\0\x01b\0"[..], &[0; 20]].concat();
        let host = record(&b"\x01h\x01z\0"[..], RecordType::A, &[192, 0, 2, 1][..]);
        let records =
            [record(b"\x01z\0", RecordType::SOA, &soa), record(b"\x01z\0", RecordType::NS, b"\x01a\0"), host, host];
        let zone = build(&"z".parse().expect("a name"), records.into_iter()).expect("it loads");
        assert_eq!(zone.iter().count(), 3);
    }
}
