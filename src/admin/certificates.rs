//! `GET /api/v1/certificates`: the certificates of encrypted listeners.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::AdminRequest;
use super::routes::{AdminServer, HttpError};
pub use crate::metrics::CertificateSnapshot;

pub(super) async fn certificates(
    State(server): State<Arc<AdminServer>>,
) -> Result<Json<Vec<CertificateSnapshot>>, HttpError> {
    Ok(Json(server.ask(AdminRequest::Snapshot).await?.certificates))
}
