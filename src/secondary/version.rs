//! From what a transfer brought to a zone that can be answered from.

use std::sync::Arc;

use super::PrimaryError;
use crate::transfer::catalog::{Broken, Catalog};
use crate::transfer::{Difference, Received, Records};
use crate::wire::Name;
use crate::zone::{Place, Record, Zone, ZoneBuilder};

/// A new version of a zone.
pub(super) struct Fetched {
    pub(super) zone: Arc<Zone>,
    /// Octets of its records.
    pub(super) size: usize,
    /// How it came to be from the version before, if anybody is to know.
    pub(super) steps: Vec<Difference>,
    /// Whether it came as a whole.
    pub(super) is_whole: bool,
    /// What it says as a catalog, if it is one.
    pub(super) catalog: Option<Result<Catalog, Broken>>,
}

/// Makes a zone of what came, which may be differences from `old`; `None` if that is up to date. If the zone `is_shared`,
/// what has changed is found out in any case.
pub(super) fn load(
    name: &Name,
    received: Received,
    old: Option<&Zone>,
    is_shared: bool,
) -> Result<Option<Fetched>, PrimaryError> {
    match received {
        // By TCP, nobody is told to come by TCP.
        Received::UpToDate | Received::ComeByTcp => Ok(None),
        Received::Whole(records) => {
            let zone = build(name, records.iter())?;
            let steps = old.filter(|_| is_shared).and_then(|old| Difference::between(old.iter(), zone.iter()).ok());
            Ok(Some(fetched(zone, steps.into_iter().collect(), true)))
        }
        Received::Steps(steps) => {
            let old = old.ok_or(PrimaryError::Inexact(crate::transfer::Inexact::Missing))?;
            let change = Difference::condensed(&steps).map_err(PrimaryError::Inexact)?;
            let records = change.apply(old.iter()).map_err(PrimaryError::Inexact)?;
            let zone = build(name, records.iter())?;
            Ok(Some(fetched(zone, steps, false)))
        }
    }
}

/// A new version, measured.
fn fetched(zone: Zone, steps: Vec<Difference>, is_whole: bool) -> Fetched {
    let size = Records::size_of(zone.iter());
    Fetched { zone: Arc::new(zone), size, steps, is_whole, catalog: None }
}

/// Compiles a zone.
pub(super) fn build<'a>(name: &Name, records: impl Iterator<Item = Record<'a>>) -> Result<Zone, PrimaryError> {
    let mut builder = ZoneBuilder::new(name);
    records.for_each(|record| builder.add(&record, Place::default()));
    match builder.finish() {
        // What is odd in it is for the operator of the primary to see.
        Ok((zone, _cautions)) => Ok(zone),
        Err(diagnostics) => {
            let errors = diagnostics.errors.iter().map(ToString::to_string);
            Err(PrimaryError::Flawed(errors.collect::<Vec<_>>().join("; ")))
        }
    }
}
