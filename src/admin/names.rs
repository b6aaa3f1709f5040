//! `GET /api/v1/names`: the most queried names.

use axum::Json;
use axum::extract::State;

use super::routes::{HttpError, SharedServer};
use crate::net::sys::clock;
use crate::net::tasks::blocking;
use crate::sight::names::{NamesReport, TopNames};
use crate::taps;

pub(super) async fn names(State(server): SharedServer) -> Result<Json<NamesReport>, HttpError> {
    let names = server.read(|server| server.top_names()).await?.ok_or_else(|| HttpError::absent(NONE))?;
    // The report adds up ten minutes of a thousand names each.
    let report = move || taps::lock(&names).report(TopNames::minute_of(clock::unix_now()));
    Ok(Json(blocking(report).await))
}

const NONE: &str = "no names are counted: that takes names = true in [admin]";
