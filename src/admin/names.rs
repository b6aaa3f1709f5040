//! The names asked for most, by HTTP.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::routes::{HttpError, Server};
use super::{Refused, Request};
use crate::net::clock;
use crate::net::tasks::blocking;
use crate::sight::names::{NamesReport, TopNames};
use crate::taps;

/// `GET /api/v1/names`.
pub(super) async fn names(State(server): State<Arc<Server>>) -> Result<Json<NamesReport>, HttpError> {
    let names = server.ask(Request::TopNames).await?;
    let names = names.ok_or_else(|| HttpError::Refused(Refused::NotFound(NONE.to_owned())))?;
    // Ten minutes of a thousand names each are added up.
    let report = move || taps::lock(&names).report(TopNames::minute_of(clock::unix_now()));
    Ok(Json(blocking(report).await))
}

/// Said where none are counted.
const NONE: &str = "no names are counted: that takes names = true in [admin]";
