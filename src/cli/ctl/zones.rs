//! `hedgerow ctl zones`: all zones, and the state of catalog zones.

use comfy_table::CellAlignment;

use super::connection::AdminConnection;
use super::table::{Column, table};
use super::{CommandFailure, Show, to_json};
use crate::admin::status::{CatalogStatus, ZoneStatus, ZonesReport};

pub(super) fn obey(connection: &AdminConnection, show: &Show) -> Result<String, CommandFailure> {
    let zones: ZonesReport = connection.fetch_with("zones", &[])?;
    Ok(if show.json { to_json(&zones) } else { text(&zones) })
}

fn text(report: &ZonesReport) -> String {
    let zones = match report.zones.as_slice() {
        [] => "no zones".to_owned(),
        zones => table(&ZONES, zones.iter().map(zone_row)),
    };
    match report.catalogs.as_slice() {
        [] => zones,
        catalogs => format!("{}\n\n{zones}", table(&CATALOGS, catalogs.iter().map(catalog_row))),
    }
}

const ZONES: [Column; 6] = [
    ("AUTHORITY", CellAlignment::Left),
    ("ZONE", CellAlignment::Left),
    ("STATE", CellAlignment::Left),
    ("SERIAL", CellAlignment::Right),
    ("CATALOG", CellAlignment::Left),
    ("GROUPS", CellAlignment::Left),
];

fn zone_row(zone: &ZoneStatus) -> Vec<String> {
    let ZoneStatus { authority, name, state, serial, catalog, groups } = zone;
    let nothing = || "-".to_owned();
    let groups = if groups.is_empty() { nothing() } else { groups.join(",") };
    vec![
        authority.clone(),
        name.clone(),
        state.clone(),
        serial.map_or_else(nothing, |serial| serial.to_string()),
        catalog.clone().unwrap_or_else(nothing),
        groups,
    ]
}

const CATALOGS: [Column; 5] = [
    ("AUTHORITY", CellAlignment::Left),
    ("CATALOG", CellAlignment::Left),
    ("MEMBERS", CellAlignment::Right),
    ("STATE", CellAlignment::Left),
    ("REASON", CellAlignment::Left),
];

fn catalog_row(catalog: &CatalogStatus) -> Vec<String> {
    let CatalogStatus { authority, catalog, members, state, reason } = catalog;
    let reason = reason.clone().unwrap_or_else(|| "-".to_owned());
    vec![authority.clone(), catalog.clone(), members.to_string(), state.clone(), reason]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalogs_come_before_zones() {
        let zone = |name: &str, catalog: Option<&str>| ZoneStatus {
            authority: "ts".to_owned(),
            name: name.to_owned(),
            state: if catalog.is_some() { "absent" } else { "primary" }.to_owned(),
            serial: catalog.is_none().then_some(7),
            catalog: catalog.map(str::to_owned),
            groups: catalog.map(|_| "red".to_owned()).into_iter().collect(),
        };
        let mut report = ZonesReport { zones: vec![zone("a.", None), zone("b.", Some("cat."))], catalogs: Vec::new() };
        let zones = "\
AUTHORITY  ZONE  STATE    SERIAL  CATALOG  GROUPS
ts         a.    primary       7  -        -
ts         b.    absent        -  cat.     red";
        assert_eq!(text(&report), zones);
        report.catalogs.push(CatalogStatus {
            authority: "ts".to_owned(),
            catalog: "cat.".to_owned(),
            members: 1,
            state: "doubted".to_owned(),
            reason: Some("why".to_owned()),
        });
        let catalogs = "\
AUTHORITY  CATALOG  MEMBERS  STATE    REASON
ts         cat.           1  doubted  why";
        assert_eq!(text(&report), format!("{catalogs}\n\n{zones}"));
        assert_eq!(text(&ZonesReport::default()), "no zones");
    }
}
