//! Tests of the texts of `ctl serials` and `divergence`.

use super::*;
use crate::control::observe::sight::divergence::DivergentAnswer;

#[test]
fn zones_are_told_with_who_has_which_version() {
    let member = |backend: &str, serial, older_since: Option<f64>| MemberSerial {
        backend: backend.to_owned(),
        serial,
        heard: 99.5,
        older_since,
        behind: older_since.is_some(),
    };
    let zone = PoolZone {
        pool: "ts".to_owned(),
        zone: "example.org.".to_owned(),
        newest: Some(8),
        in_use: true,
        members: vec![member("ts1", 8, None), member("ts2", 7, Some(88.0))],
    };
    let lines = "\n  ts1: 8  heard 0.5 s ago\n  ts2: 7  heard 0.5 s ago  older for 12.0 s  behind";
    let one = Serials { zones: vec![zone.clone()], no_replicas: vec!["b".to_owned()] };
    let expected = format!("ts  example.org.  newest 8{lines}\n\nnot asked, as replicas is not set: b");
    assert_eq!(serials(&one, 100.0), expected);
    let unused = PoolZone { newest: None, in_use: false, members: Vec::new(), ..zone };
    let unused = Serials { zones: vec![unused], no_replicas: Vec::new() };
    assert_eq!(serials(&unused, 100.0), "ts  example.org.  no serial is the newest  not in use");
    assert_eq!(serials(&Serials::default(), 0.0), "no backend has reported the version of a zone yet");
}

fn said(backend: &str, rcode: &str, data: &str, serial: Option<u32>) -> DivergentAnswer {
    DivergentAnswer { backend: backend.to_owned(), rcode: rcode.to_owned(), data: data.to_owned(), serial }
}

#[test]
fn who_says_the_same_stands_together_and_the_odd_one_first() {
    let divergence = Divergence {
        pool: "ts".to_owned(),
        name: "www.example.org.".to_owned(),
        qtype: "A".to_owned(),
        class: None,
        flags: vec!["RD".to_owned(), "DO".to_owned()],
        kind: "data".to_owned(),
        since: 1_790_000_000.5,
        seen: 1_790_000_009.0,
        said: vec![
            said("ts1", "NOERROR", "A 192.0.2.1", Some(7)),
            said("ts2", "NOERROR", "A 192.0.2.9", Some(7)),
            said("ts3", "NOERROR", "A 192.0.2.1", Some(7)),
        ],
    };
    let head = "ts  www.example.org. A +RD +DO  data  since 2026-09-21T14:13:20Z";
    let lines = "  ts2: NOERROR A 192.0.2.9, serial 7\n  ts1, ts3: NOERROR A 192.0.2.1, serial 7";
    let one = Divergences { divergences: vec![divergence.clone()], not_compared: Vec::new() };
    assert_eq!(divergences(&one), format!("{head}\n{lines}"));
    let chaos = Divergence { class: Some("CH".to_owned()), flags: Vec::new(), said: Vec::new(), ..divergence };
    let other = Divergences { divergences: vec![chaos], not_compared: vec!["b".to_owned(), "c".to_owned()] };
    let head = "ts  www.example.org. CH A  data  since 2026-09-21T14:13:20Z";
    assert_eq!(divergences(&other), format!("{head}\n\nnot compared, as neither compare nor audit is set: b, c"));
    assert_eq!(divergences(&Divergences::default()), "no divergence is known");
}
