//! `/api/v1/divergence` and `/api/v1/serials`: divergent answers and zone versions of one pool or all pools.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use percent_encoding::percent_decode_str;

use super::AdminRequest;
use super::routes::{AdminServer, HttpError};
use crate::sight::divergence::Divergences;
use crate::sight::serials::Serials;

pub(super) async fn divergence(
    State(server): State<Arc<AdminServer>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Divergences>, HttpError> {
    let pool = read(&query.unwrap_or_default()).map_err(HttpError::Invalid)?;
    let divergences = server.ask(|way_back| AdminRequest::Divergences(pool, way_back)).await?;
    divergences.map(Json).map_err(HttpError::Refused)
}

pub(super) async fn serials(
    State(server): State<Arc<AdminServer>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Serials>, HttpError> {
    let pool = read(&query.unwrap_or_default()).map_err(HttpError::Invalid)?;
    let serials = server.ask(|way_back| AdminRequest::Serials(pool, way_back)).await?;
    serials.map(Json).map_err(HttpError::Refused)
}

fn read(query: &str) -> Result<Option<String>, String> {
    let mut pool = None;
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=').unwrap_or((part, "")) {
            ("pool", name) => {
                let name = percent_decode_str(name).decode_utf8().map_err(|_| "pool: expected UTF-8".to_owned())?;
                pool = Some(name.into_owned());
            }
            (key, _) => return Err(format!("there is no {key:?}, expected pool")),
        }
    }
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_pool_is_asked_for_is_read_or_explained() {
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("pool=a%20b"), Ok(Some("a b".to_owned())));
        assert_eq!(read("pol=ts"), Err("there is no \"pol\", expected pool".to_owned()));
        assert_eq!(read("pool=%ff"), Err("pool: expected UTF-8".to_owned()));
    }
}
