//! `hedgerow ctl certificates`: the certificates of encrypted listeners, their expiry, and problems of their
//! files.

use super::table::{TextTable, at, or_dash, time};
use crate::admin::CertificateSnapshot;

pub(super) fn text(certificates: &[CertificateSnapshot], now: u64) -> String {
    if certificates.is_empty() {
        return "there are no certificates: add [certificates.NAME] to the config".to_owned();
    }
    let seconds = |time: i64| time.max(0).unsigned_abs();
    let left = |known: &CertificateSnapshot| match seconds(known.not_after).checked_sub(now) {
        Some(left) => format!("in {}", time(left)),
        None => "expired".to_owned(),
    };
    let names = |known: &CertificateSnapshot| Some(known.names.join(" ")).filter(|names| !names.is_empty());
    let table = TextTable::of(certificates)
        .left("NAME", |known| &known.name)
        .left("FILE", |known| known.file.display())
        .left("NAMES", |known| or_dash(names(known)))
        .left("EXPIRES", |known| humantime::format_rfc3339_seconds(at(seconds(known.not_after) as f64)))
        .left("", |known| left(known))
        .left("LOADED", |known| format!("{} ago", time(now.saturating_sub(seconds(known.loaded)))));
    let wrong =
        |known: &CertificateSnapshot| Some(format!("\n{}: {}; the old one stays", known.name, known.error.as_ref()?));
    let wrong: String = certificates.iter().filter_map(wrong).collect();
    let gap = if wrong.is_empty() { "" } else { "\n" };
    format!("{}{gap}{wrong}", table.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_age_and_what_is_wrong_are_told() {
        let known = |name: &str, not_after, error: Option<&str>| CertificateSnapshot {
            name: name.to_owned(),
            file: format!("{name}.pem").into(),
            names: vec!["a.example".to_owned(), "*.example".to_owned()],
            not_before: 0,
            not_after,
            loaded: 990,
            error: error.map(str::to_owned),
            loads: 1,
            refusals: 0,
        };
        let expected = "NAME   FILE       NAMES                EXPIRES                           LOADED\n\
                        main   main.pem   a.example *.example  1970-01-01T01:00:00Z  in 43m 20s  10s ago\n\
                        other  other.pem  a.example *.example  1970-01-01T00:15:00Z  expired     10s ago\n\n\
                        other: half of it; the old one stays";
        assert_eq!(text(&[known("main", 3600, None), known("other", 900, Some("half of it"))], 1000), expected);
        assert_eq!(text(&[], 0), "there are no certificates: add [certificates.NAME] to the config");
    }
}
