//! `hedgerow ctl certificates`: the certificates of encrypted listeners, their expiry, and problems of their
//! files.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::CellAlignment;

use super::connection::AdminConnection;
use super::table::{Column, table, time};
use super::{CommandFailure, Show, to_json};
use crate::admin::CertificateSnapshot;

pub(super) fn obey(connection: &AdminConnection, show: &Show) -> Result<String, CommandFailure> {
    let certificates: Vec<CertificateSnapshot> = connection.fetch_with("certificates", &[])?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(if show.json { to_json(&certificates) } else { text(&certificates, now) })
}

fn text(certificates: &[CertificateSnapshot], now: u64) -> String {
    if certificates.is_empty() {
        return "there are no certificates: add [certificates.NAME] to the config".to_owned();
    }
    let mut parts = vec![table(&COLUMNS, certificates.iter().map(|known| row(known, now)))];
    let wrong =
        |known: &CertificateSnapshot| Some(format!("{}: {}; the old one stays", known.name, known.error.as_ref()?));
    let wrong: Vec<_> = certificates.iter().filter_map(wrong).collect();
    if !wrong.is_empty() {
        parts.push(wrong.join("\n"));
    }
    parts.join("\n\n")
}

fn row(known: &CertificateSnapshot, now: u64) -> Vec<String> {
    let seconds = |time: i64| time.max(0).unsigned_abs();
    let end = seconds(known.not_after);
    let day = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(end)).to_string();
    let left = match end.checked_sub(now) {
        Some(left) => format!("in {}", time(left)),
        None => "expired".to_owned(),
    };
    let loaded = format!("{} ago", time(now.saturating_sub(seconds(known.loaded))));
    let names = if known.names.is_empty() { "-".to_owned() } else { known.names.join(" ") };
    vec![known.name.clone(), known.file.display().to_string(), names, day, left, loaded]
}

const COLUMNS: [Column; 6] = [
    ("NAME", CellAlignment::Left),
    ("FILE", CellAlignment::Left),
    ("NAMES", CellAlignment::Left),
    ("EXPIRES", CellAlignment::Left),
    ("", CellAlignment::Left),
    ("LOADED", CellAlignment::Left),
];

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
