//! `hedgerow ctl zones`: all zones, and the state of catalog zones.

use super::table::{TextTable, or_dash};
use crate::admin::status::{CatalogStatus, ZoneStatus, ZonesReport};

pub(super) fn text(report: &ZonesReport) -> String {
    let zones = match report.zones.as_slice() {
        [] => "no zones".to_owned(),
        all => zones(all),
    };
    match report.catalogs.as_slice() {
        [] => zones,
        all => format!("{}\n\n{zones}", catalogs(all)),
    }
}

fn zones(zones: &[ZoneStatus]) -> String {
    let groups = |zone: &ZoneStatus| Some(zone.groups.join(",")).filter(|groups| !groups.is_empty());
    TextTable::of(zones)
        .left("AUTHORITY", |zone| &zone.authority)
        .left("ZONE", |zone| &zone.name)
        .left("STATE", |zone| &zone.state)
        .right("SERIAL", |zone| or_dash(zone.serial))
        .left("CATALOG", |zone| or_dash(zone.catalog.as_ref()))
        .left("GROUPS", |zone| or_dash(groups(zone)))
        .text()
}

fn catalogs(catalogs: &[CatalogStatus]) -> String {
    TextTable::of(catalogs)
        .left("AUTHORITY", |catalog| &catalog.authority)
        .left("CATALOG", |catalog| &catalog.catalog)
        .right("MEMBERS", |catalog| catalog.members)
        .left("STATE", |catalog| &catalog.state)
        .left("REASON", |catalog| or_dash(catalog.reason.as_ref()))
        .text()
}

#[cfg(test)]
mod tests;
