//! `hedgerow ctl slow`: the slow and failed races, newest first, each with its reason.

use std::time::Duration;

use config::words;
use engine::slow::{SlowRace, SlowRacesReport, time};

use super::connection::AdminConnection;
use super::table::{WIDTH, at, wrap};
use super::{CommandFailure, Show};

#[derive(Debug, clap::Args)]
pub(super) struct SlowArgs {
    /// Name of the pool [default: all]
    pool: Option<String>,
    /// Only races that ended within this time
    #[arg(long, value_name = "TIME", value_parser = words::duration)]
    since: Option<Duration>,
    /// The maximum number of races
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    #[command(flatten)]
    show: Show,
}

pub(super) fn obey(connection: &AdminConnection, which: &SlowArgs) -> Result<String, CommandFailure> {
    let SlowArgs { pool, since, limit, show } = which;
    let since = since.map(|since| humantime::format_duration(since).to_string().replace(' ', ""));
    let limit = limit.to_string();
    let query = [("pool", pool.as_deref()), ("since", since.as_deref()), ("limit", Some(&limit))];
    show.fetch(connection, "slow", &query, |listing: &SlowRacesReport| list(&listing.races))
}

fn list(races: &[SlowRace]) -> String {
    if races.is_empty() {
        return "no slow races".to_owned();
    }
    races.iter().map(paragraph).collect::<Vec<_>>().join("\n\n")
}

fn paragraph(race: &SlowRace) -> String {
    let SlowRace { pool, name, qtype, took_ms, outcome, rcode, waiters, why, .. } = race;
    let at = humantime::format_rfc3339_millis(at(race.at));
    let rcode = rcode.as_ref().map(|rcode| format!(" {rcode}")).unwrap_or_default();
    let clients = match waiters {
        0 => "no client".to_owned(),
        1 => "1 client".to_owned(),
        many => format!("{many} clients"),
    };
    let head = format!("{at}  {pool}  {name} {qtype}  {}  {}{rcode}  {clients}", time(*took_ms), outcome.label());
    format!("{head}\n{}", wrap(&format!("  {why}"), WIDTH, "  "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::observe::sight::sample_race;

    #[test]
    fn races_are_two_lines_each() {
        let expected = "\
2026-09-21T14:13:20.250Z  ts  www.example.org. A  186 ms  won NOERROR  1 client
  ts1 silent; hedge to ts2 denied for 180 ms: budget spent; ts2 replied in 2 ms

2026-09-21T14:13:20.250Z  ts  www.example.org. A  186 ms  won  3 clients
  ts1 silent; hedge to ts2 denied for 180 ms: budget spent; ts2 replied in 2 ms";
        let second = SlowRace { rcode: None, waiters: 3, ..sample_race() };
        assert_eq!(list(&[sample_race(), second]), expected);
        assert_eq!(list(&[]), "no slow races");
    }
}
