//! `GET /api/v1/names`: the most queried names and the clients with most queries, and `GET /api/v1/slow`: the
//! recorded slow races, filtered by pool, time and number.

use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use config::words;
use engine::slow::{RaceFilter, SlowRacesReport};
use net::sys::clock;
use net::tasks::blocking;

use super::routes::{HttpError, SharedServer, decoded, parameters};
use crate::control::observe::sight::names::{NamesReport, TopNames};
use crate::control::observe::taps;

pub(super) async fn names(State(server): SharedServer) -> Result<Json<NamesReport>, HttpError> {
    let names = server.read(|server| server.top_names()).await?.ok_or_else(|| HttpError::absent(NO_NAMES))?;
    // The report adds up ten minutes of a thousand names each.
    let report = move || taps::lock(&names).report(TopNames::minute_of(clock::unix_now()));
    Ok(Json(blocking(report).await))
}

pub(super) async fn slow(
    State(server): SharedServer,
    RawQuery(query): RawQuery,
) -> Result<Json<SlowRacesReport>, HttpError> {
    let filter = read(&query.unwrap_or_default())?;
    let races = server.read(|server| server.slow_races()).await?.ok_or_else(|| HttpError::absent(NO_SLOW_RACES))?;
    // A hundred thousand races take a while.
    let list = move || {
        let now = clock::unix_seconds(Duration::ZERO);
        let mut races = taps::lock(&races);
        races.settle(now);
        races.list(&filter, now)
    };
    Ok(Json(SlowRacesReport { races: blocking(list).await }))
}

fn read(query: &str) -> Result<RaceFilter, String> {
    let mut filter = RaceFilter::default();
    for (key, value) in parameters(query) {
        let value = decoded(key, value)?;
        match key {
            "pool" => filter.pool = Some(value),
            "since" => {
                let since = words::duration(&value).map_err(|expected| format!("since {value:?}: {expected}"))?;
                filter.since = Some(since);
            }
            "limit" => filter.limit = Some(value.parse().map_err(|_| format!("limit {value:?}: expected a number"))?),
            key => return Err(format!("there is no {key:?}, expected one of pool, since, limit")),
        }
    }
    Ok(filter)
}

const NO_NAMES: &str = "no names are counted: that takes names = true in [admin]";
const NO_SLOW_RACES: &str = "no slow races are kept";
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_races_are_asked_for_is_read_or_explained() {
        assert_eq!(read(""), Ok(RaceFilter::default()));
        let expected =
            RaceFilter { pool: Some("a b".to_owned()), since: Some(Duration::from_secs(600)), limit: Some(3) };
        assert_eq!(read("pool=a%20b&since=10m&limit=3"), Ok(expected));
        for (query, expected) in [
            ("since=10", "since \"10\": "),
            ("limit=-1", "limit \"-1\": "),
            ("pol=ts", "there is no \"pol\""),
            ("pool=%ff", "pool: expected UTF-8"),
        ] {
            let error = read(query).expect_err("it makes no sense");
            assert!(error.contains(expected), "{error}");
        }
    }
}
