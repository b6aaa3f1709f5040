//! Tests of the tables of `ctl zones`.

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
