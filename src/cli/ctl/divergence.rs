//! `hedgerow ctl divergence`: the questions that members of a pool answer differently, with the members of
//! each answer.

use super::table::at;
use crate::sight::divergence::{Divergence, Divergences};

pub(super) fn text(all: &Divergences) -> String {
    let mut parts: Vec<_> = all.divergences.iter().map(paragraph).collect();
    if parts.is_empty() {
        parts.push("no divergence is known".to_owned());
    }
    if !all.not_compared.is_empty() {
        let pools = all.not_compared.join(", ");
        parts.push(format!("not compared, as neither compare nor audit is set: {pools}"));
    }
    parts.join("\n\n")
}

fn paragraph(divergence: &Divergence) -> String {
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
mod tests {
    use super::*;
    use crate::sight::divergence::DivergentAnswer;

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
        assert_eq!(text(&one), format!("{head}\n{lines}"));
        let chaos = Divergence { class: Some("CH".to_owned()), flags: Vec::new(), said: Vec::new(), ..divergence };
        let other = Divergences { divergences: vec![chaos], not_compared: vec!["b".to_owned(), "c".to_owned()] };
        let head = "ts  www.example.org. CH A  data  since 2026-09-21T14:13:20Z";
        assert_eq!(text(&other), format!("{head}\n\nnot compared, as neither compare nor audit is set: b, c"));
        assert_eq!(text(&Divergences::default()), "no divergence is known");
    }
}
