//! `hedgerow ctl serials`: the zone versions of the members of a pool.

use crate::sight::serials::{MemberSerial, PoolZone, Serials};

pub(super) fn text(all: &Serials, now: f64) -> String {
    let mut parts: Vec<_> = all.zones.iter().map(|zone| paragraph(zone, now)).collect();
    if parts.is_empty() {
        parts.push("no backend has reported the version of a zone yet".to_owned());
    }
    if !all.no_replicas.is_empty() {
        parts.push(format!("not asked, as replicas is not set: {}", all.no_replicas.join(", ")));
    }
    parts.join("\n\n")
}

fn paragraph(zone: &PoolZone, now: f64) -> String {
    let newest = zone.newest.map_or_else(|| "no serial is the newest".to_owned(), |newest| format!("newest {newest}"));
    let use_ = if zone.in_use { "" } else { "  not in use" };
    let lines = zone.members.iter().map(|member| line(member, now)).collect::<String>();
    format!("{}  {}  {newest}{use_}{lines}", zone.pool, zone.zone)
}

fn line(member: &MemberSerial, now: f64) -> String {
    let MemberSerial { backend, serial, heard, older_since, behind } = member;
    let ago = |at: f64| (now - at).max(0.0);
    let older = older_since.map_or(String::new(), |since| format!("  older for {:.1} s", ago(since)));
    let behind = if *behind { "  behind" } else { "" };
    format!("\n  {backend}: {serial}  heard {:.1} s ago{older}{behind}", ago(*heard))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(text(&one, 100.0), expected);
        let unused = PoolZone { newest: None, in_use: false, members: Vec::new(), ..zone };
        let unused = Serials { zones: vec![unused], no_replicas: Vec::new() };
        assert_eq!(text(&unused, 100.0), "ts  example.org.  no serial is the newest  not in use");
        assert_eq!(text(&Serials::default(), 0.0), "no backend has reported the version of a zone yet");
    }
}
