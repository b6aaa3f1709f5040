//! `hedgerow ctl serials` and `divergence`: the zone versions of the members of a pool, and the questions
//! that they answer differently, with the members of each answer.

use super::table::at;
use crate::control::observe::sight::divergence::{Divergence, Divergences};
use crate::control::observe::sight::serials::{MemberSerial, PoolZone, Serials};

pub(super) fn serials(all: &Serials, now: f64) -> String {
    let mut parts: Vec<_> = all.zones.iter().map(|known| zone(known, now)).collect();
    if parts.is_empty() {
        parts.push("no backend has reported the version of a zone yet".to_owned());
    }
    if !all.no_replicas.is_empty() {
        parts.push(format!("not asked, as replicas is not set: {}", all.no_replicas.join(", ")));
    }
    parts.join("\n\n")
}

fn zone(zone: &PoolZone, now: f64) -> String {
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

pub(super) fn divergences(all: &Divergences) -> String {
    let mut parts: Vec<_> = all.divergences.iter().map(question).collect();
    if parts.is_empty() {
        parts.push("no divergence is known".to_owned());
    }
    if !all.not_compared.is_empty() {
        let pools = all.not_compared.join(", ");
        parts.push(format!("not compared, as neither compare nor audit is set: {pools}"));
    }
    parts.join("\n\n")
}

fn question(divergence: &Divergence) -> String {
    let Divergence { pool, name, qtype, class, flags, kind, .. } = divergence;
    let class = class.iter().map(|class| format!(" {class}")).collect::<String>();
    let flags = flags.iter().map(|flag| format!(" +{flag}")).collect::<String>();
    let since = humantime::format_rfc3339_seconds(at(divergence.since));
    let head = format!("{pool}  {name}{class} {qtype}{flags}  {kind}  since {since}");
    let groups = divergence.groups();
    let lines = groups.iter().map(|(said, who)| format!("\n  {}: {}", who.join(", "), said.line()));
    head + &lines.collect::<String>()
}

#[cfg(test)]
mod tests;
