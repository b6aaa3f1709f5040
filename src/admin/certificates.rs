//! The certificates that encrypted listeners show, by HTTP.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::Request;
use super::routes::{HttpError, Server};
pub use crate::metrics::CertificateSnapshot;

/// `GET /api/v1/certificates`.
pub(super) async fn certificates(
    State(server): State<Arc<Server>>,
) -> Result<Json<Vec<CertificateSnapshot>>, HttpError> {
    Ok(Json(server.ask(Request::Snapshot).await?.certificates))
}
