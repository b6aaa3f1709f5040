//! What there is at the admin address: paths, methods, and what each of them answers.
//!
//! What fails is told as `{"error": ...}` with the status 400 (it makes no sense), 403 (not from there), 404 (no such thing),
//! 405, 409 (not as things are), 503 (the server ends, or has enough to do) or 504 (a reload, or a newcomer, takes longer than is
//! waited for it).

use std::ops::RangeInclusive;
use std::str;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use axum::{Json, Router};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::cache::{CacheAccess, Scope};
use super::certificates;
use super::divergence;
use super::explain::{self, ExplainTurn};
use super::live::Streams;
use super::names;
use super::page;
use super::slow;
use super::status::{Done, EntryStatus, Failed, Flushed, Status, ZonesReport};
use super::usage::usage;
use super::{Change, Condition, FleetOrder, ManualHealth, OrderWord, ProcessChange, Refused, Request, live};
use crate::address::BackendAddress;
use crate::config::{limits, words};
use crate::metrics::exposition::{self, Format};
use crate::net::tasks::blocking;
use crate::wire::Name;

/// All paths, for requests that may be asked and are there with all of their body.
pub(super) fn router(requests: mpsc::Sender<Request>, condition: Arc<Condition>, streams: Streams) -> Router {
    let server = Arc::new(Server {
        requests,
        condition,
        cache_turn: Arc::default(),
        explain_turn: ExplainTurn::default(),
        streams,
    });
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .route(EXPLAIN, post(explain::explain))
        .route("/api/v1/live", get(live::second))
        .route("/api/v1/history", get(live::history))
        .route("/api/v1/slow", get(slow::slow))
        .route("/api/v1/names", get(names::names))
        .route("/api/v1/certificates", get(certificates::certificates))
        .route("/api/v1/divergence", get(divergence::divergence))
        .route("/api/v1/serials", get(divergence::serials))
        .route("/api/v1/zones", get(zones))
        .route("/api/v1/accept/{name}", post(accept))
        .route(RELOAD, post(reload))
        .route(RESTART, post(restart))
        .route(UPGRADE, post(upgrade))
        .route("/api/v1/stop", post(stop))
        .route("/api/v1/cache", delete(flush_all))
        .route("/api/v1/cache/names/{name}", get(show_name).delete(flush_name))
        .route("/api/v1/cache/subtrees/{name}", delete(flush_subtree))
        .route("/api/v1/pools/{pool}/backends", post(add))
        .route("/api/v1/pools/{pool}/backends/{backend}", delete(remove))
        .route("/api/v1/pools/{pool}/backends/{backend}/{action}", post(act))
        .merge(page::routes())
        .fallback(any(async || HttpError::NoSuchPath))
        .method_not_allowed_fallback(async || HttpError::WrongMethod)
        .with_state(server)
}

/// What handlers ask.
pub(super) struct Server {
    /// The way to the control thread.
    requests: mpsc::Sender<Request>,
    /// Places for those who listen.
    pub(super) streams: Streams,
    condition: Arc<Condition>,
    /// Held by whoever goes through the cache: however many ask, workers meet no more than one of them there.
    cache_turn: Arc<Mutex<()>>,
    /// Held by whoever has a question explained.
    pub(super) explain_turn: ExplainTurn,
}

impl Server {
    /// Asks the control thread for something and waits for it.
    pub(super) async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, HttpError> {
        let (way_back, answer) = oneshot::channel();
        self.requests.send(request(way_back)).await.map_err(|_| HttpError::Ending)?;
        answer.await.map_err(|_| HttpError::Ending)
    }

    /// Has a change carried out.
    async fn change(&self, change: Change) -> Result<Json<Done>, HttpError> {
        tracing::debug!(?change, "admin: asked for a change");
        let message = self.ask(|way_back| Request::Change(change, way_back)).await?.map_err(HttpError::Refused)?;
        tracing::info!("admin: {message}");
        Ok(Json(Done { message }))
    }

    /// Has a change carried out that may take long. It goes on if the client does not wait for it.
    async fn patient_change(&self, change: Change, what: &'static str) -> Result<Json<Done>, HttpError> {
        timeout(CHANGE_PATIENCE, self.change(change)).await.unwrap_or(Err(HttpError::StillGoing(what)))
    }

    /// Goes through the cache, beside the control thread.
    async fn visit_cache<T: Send + 'static>(
        &self,
        visit: impl FnOnce(&CacheAccess) -> T + Send + 'static,
    ) -> Result<T, HttpError> {
        let turn = Arc::clone(&self.cache_turn).lock_owned().await;
        let access = self.ask(Request::Cache).await?;
        let access = access.ok_or_else(|| HttpError::Refused(Refused::NotFound(NO_CACHE.to_owned())))?;
        let visit = move || {
            // A client that goes away does not end the visit, so neither does it end the turn.
            let _turn = turn;
            visit(&access)
        };
        Ok(blocking(visit).await)
    }

    /// Has entries of the cache forgotten.
    async fn flush(&self, what: Scope) -> Result<Json<Flushed>, HttpError> {
        tracing::info!(%what, "admin: asked to flush the cache");
        let flush = move |access: &CacheAccess| {
            let flushed = access.flush(&what);
            Flushed { message: what.message(flushed), flushed }
        };
        self.visit_cache(flush).await.map(Json)
    }
}

/// Whether a path is answered at once, whatever else is being carried out: who asks whether we are well must not hear that others ask
/// much.
pub(super) fn is_about_health(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

/// Whether a path is that of something which may wait for long: until all is read again, by this process or by another, or until the
/// last late reply to a question that is explained.
pub(super) fn may_wait(path: &str) -> bool {
    [EXPLAIN, RELOAD, RESTART, UPGRADE].contains(&path)
}

/// `/healthz`.
async fn health(State(server): State<Arc<Server>>) -> (StatusCode, String) {
    match server.condition.stall() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(stall) => (StatusCode::SERVICE_UNAVAILABLE, format!("{stall}\n")),
    }
}

/// `/readyz`; with `?pool=NAME` also whether anybody of that pool is up, of each that is named.
async fn readiness(
    State(server): State<Arc<Server>>,
    RawQuery(query): RawQuery,
) -> Result<(StatusCode, String), HttpError> {
    let pools = pools_asked_for(query.as_deref().unwrap_or_default()).map_err(HttpError::Invalid)?;
    let mut down = None;
    for pool in pools {
        // One that is not there is told even while the server ends: it is a mistake of whoever asks.
        if !server.condition.is_pool_up(&pool).map_err(HttpError::Refused)? {
            down.get_or_insert(pool);
        }
    }
    Ok(match (server.condition.is_ready(), down) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
        (true, Some(pool)) => (StatusCode::SERVICE_UNAVAILABLE, format!("no backend of pool {pool:?} is up\n")),
        (true, None) => (StatusCode::OK, "ready\n".to_owned()),
    })
}

/// The pools that `/readyz` is asked about.
fn pools_asked_for(query: &str) -> Result<Vec<String>, String> {
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    let pools = parameters.map(|parameter| match parameter.split_once('=').unwrap_or((parameter, "")) {
        ("pool", name) => match percent_decode_str(name).decode_utf8() {
            Ok(name) => Ok(name.into_owned()),
            Err(_) => Err("pool: expected UTF-8".to_owned()),
        },
        // A check that asks for something else by mistake must not pass.
        (key, _) => Err(format!("there is no {key:?}, expected pool")),
    });
    pools.collect()
}

async fn metrics(State(server): State<Arc<Server>>, headers: HeaderMap) -> Result<impl IntoResponse, HttpError> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = Format::accepted_by(accept);
    let snapshot = server.ask(Request::Snapshot).await?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], exposition::write(snapshot, usage(), format)))
}

/// `/api/v1/status`.
async fn status(State(server): State<Arc<Server>>) -> Result<Json<Status>, HttpError> {
    let snapshot = Box::new(server.ask(Request::Snapshot).await?);
    server.ask(|way_back| Request::Status(snapshot, way_back)).await.map(Json)
}

/// `/api/v1/zones`.
async fn zones(State(server): State<Arc<Server>>) -> Result<Json<ZonesReport>, HttpError> {
    server.ask(Request::Zones).await.map(Json)
}

/// `POST /api/v1/accept/{name}`.
async fn accept(
    State(server): State<Arc<Server>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Done>, HttpError> {
    let Path(name) = name?;
    server.change(Change::Accept { name }).await
}

/// `/api/v1/reload`.
async fn reload(State(server): State<Arc<Server>>) -> Result<Json<Done>, HttpError> {
    server.patient_change(Change::Reload, "the reload still reads").await
}

/// How another process is to take over, as JSON. That is all there is to say: nobody names a file to run.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewProcess {
    /// Without the cache.
    #[serde(default)]
    cold: bool,
}

impl NewProcess {
    /// Reads it; nothing at all says nothing special.
    fn read(body: &[u8]) -> Result<Self, HttpError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let read = serde_json::from_slice(body);
        read.map_err(|error| HttpError::Invalid(format!("{error}; expected JSON such as {{\"cold\": false}}")))
    }
}

/// `/api/v1/restart`.
async fn restart(
    State(server): State<Arc<Server>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Done>, HttpError> {
    let NewProcess { cold: is_cold } = NewProcess::read(&body?)?;
    server.patient_change(Change::Processes(ProcessChange::Restart { is_cold }), NOT_YET_SERVING).await
}

/// `/api/v1/upgrade`.
async fn upgrade(
    State(server): State<Arc<Server>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Done>, HttpError> {
    let NewProcess { cold: is_cold } = NewProcess::read(&body?)?;
    server.patient_change(Change::Processes(ProcessChange::Upgrade { is_cold }), NOT_YET_SERVING).await
}

/// `/api/v1/stop`.
async fn stop(State(server): State<Arc<Server>>) -> Result<Json<Done>, HttpError> {
    server.change(Change::Processes(ProcessChange::Stop)).await
}

/// `DELETE /api/v1/cache`.
async fn flush_all(State(server): State<Arc<Server>>) -> Result<Json<Flushed>, HttpError> {
    server.flush(Scope::All).await
}

/// `GET /api/v1/cache/names/{name}`.
async fn show_name(
    State(server): State<Arc<Server>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Vec<EntryStatus>>, HttpError> {
    let name = read_name(name)?;
    server.visit_cache(move |access| access.show(&name)).await.map(Json)
}

/// `DELETE /api/v1/cache/names/{name}`.
async fn flush_name(
    State(server): State<Arc<Server>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Flushed>, HttpError> {
    server.flush(Scope::Name(read_name(name)?)).await
}

/// `DELETE /api/v1/cache/subtrees/{name}`.
async fn flush_subtree(
    State(server): State<Arc<Server>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Flushed>, HttpError> {
    server.flush(Scope::Subtree(read_name(name)?)).await
}

/// Reads the domain name at the end of a path.
fn read_name(name: Result<Path<String>, PathRejection>) -> Result<Name, HttpError> {
    let Path(text) = name?;
    words::domain_name(&text).map_err(|expected| HttpError::Invalid(format!("name {text:?}: {expected}")))
}

/// A new backend, as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBackend {
    /// Its address and port.
    address: String,
    /// Its share of the load.
    #[serde(default = "one")]
    weight: u16,
}

/// The default of a weight.
fn one() -> u16 {
    1
}

/// `POST /api/v1/pools/{pool}/backends`.
async fn add(
    State(server): State<Arc<Server>>,
    pool: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Done>, HttpError> {
    let Path(pool) = pool?;
    let (address, weight) = read_backend(&body?).map_err(HttpError::Invalid)?;
    server.change(Change::Add { pool, address, weight }).await
}

/// Reads a new backend.
fn read_backend(body: &[u8]) -> Result<(BackendAddress, u16), String> {
    let NewBackend { address, weight } = serde_json::from_slice(body)
        .map_err(|error| format!("{error}; expected JSON such as {{\"address\": \"192.0.2.1:53\", \"weight\": 1}}"))?;
    let address = words::member_address(&address).map_err(|expected| format!("address {address:?}: {expected}"))?;
    if !limits::WEIGHT.holds(&weight) {
        return Err(format!("weight {weight}: expected an integer {}", limits::WEIGHT));
    }
    Ok((address, weight))
}

/// `DELETE /api/v1/pools/{pool}/backends/{backend}`.
async fn remove(
    State(server): State<Arc<Server>>,
    place: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Done>, HttpError> {
    let Path((pool, backend)) = place?;
    server.change(Change::Remove { pool, backend }).await
}

/// `POST /api/v1/pools/{pool}/backends/{backend}/{action}`.
async fn act(
    State(server): State<Arc<Server>>,
    place: Result<Path<(String, String, String)>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Done>, HttpError> {
    let Path((pool, backend, action)) = place?;
    let ForWhom { fleet: is_for_all, by, for_seconds, force: is_forced } = ForWhom::read(&body?)?;
    if is_for_all {
        let order = match action.as_str() {
            "drain" => Some(OrderWord::Drain),
            "up" => Some(OrderWord::Up),
            "down" => Some(OrderWord::Down),
            "auto" => None,
            action => return Err(no_such_action(action)),
        };
        let lasts = for_seconds.map(Duration::from_secs);
        let order = FleetOrder { pool, backend, order, by, lasts, is_forced };
        return server.patient_change(Change::Order(Box::new(order)), "etcd has not answered").await;
    }
    let to = match action.as_str() {
        "drain" => return server.change(Change::Drain { pool, backend, is_forced }).await,
        "up" => ManualHealth::Up,
        "down" => ManualHealth::Down,
        "auto" => ManualHealth::Auto,
        action => return Err(no_such_action(action)),
    };
    server.change(Change::Set { pool, backend, to, is_forced }).await
}

fn no_such_action(action: &str) -> HttpError {
    HttpError::Refused(Refused::no_such("action", action, ["drain", "up", "down", "auto"]))
}

/// Whether something is to be done by this LS alone or by all, as JSON.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ForWhom {
    /// By all.
    #[serde(default)]
    fleet: bool,
    /// Who wants it.
    #[serde(default)]
    by: String,
    /// After how long it ends by itself.
    #[serde(default)]
    for_seconds: Option<u64>,
    /// Even if nobody would take queries.
    #[serde(default)]
    force: bool,
}

impl ForWhom {
    /// Reads a body; without one, this LS alone does it.
    fn read(body: &[u8]) -> Result<Self, HttpError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let read: Self = serde_json::from_slice(body).map_err(|error| {
            HttpError::Invalid(format!("{error}; expected JSON such as {{\"fleet\": true, \"for_seconds\": 3600}}"))
        })?;
        match (read.fleet, read.for_seconds) {
            (true, Some(seconds)) if !ORDER_SECONDS.contains(&seconds) => {
                let (min, max) = (ORDER_SECONDS.start(), ORDER_SECONDS.end());
                Err(HttpError::Invalid(format!("for_seconds {seconds}: expected an integer from {min} to {max}")))
            }
            (false, Some(_)) => Err(HttpError::Invalid("for_seconds is for \"fleet\": true".to_owned())),
            (true, _) | (false, None) => Ok(read),
        }
    }
}

/// Why a request is not answered as was hoped.
pub(super) enum HttpError {
    /// It may not be asked from there, or so; this would be right.
    Denied(String),
    /// It makes no sense.
    Invalid(String),
    /// It could not be done.
    Refused(Refused),
    /// There is nothing there.
    NoSuchPath,
    /// There is something, but not for this method.
    WrongMethod,
    /// The control thread does not listen any more.
    Ending,
    /// Too many others are being carried out.
    Busy,
    /// Too many listen already.
    NoPlace,
    /// What was asked for takes longer than is waited for it; says what it still does.
    StillGoing(&'static str),
}

impl From<PathRejection> for HttpError {
    /// Percent signs that hide no text.
    fn from(rejection: PathRejection) -> Self {
        Self::Invalid(rejection.body_text())
    }
}

impl From<BytesRejection> for HttpError {
    /// A body that is too large or broke off.
    fn from(rejection: BytesRejection) -> Self {
        Self::Invalid(rejection.body_text())
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Denied(remedy) => (StatusCode::FORBIDDEN, remedy),
            Self::Invalid(message) | Self::Refused(Refused::Invalid(message)) => (StatusCode::BAD_REQUEST, message),
            Self::Refused(Refused::NotFound(message)) => (StatusCode::NOT_FOUND, message),
            Self::Refused(Refused::Conflict(message)) => (StatusCode::CONFLICT, message),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, NO_SUCH_PATH.to_owned()),
            Self::WrongMethod => {
                (StatusCode::METHOD_NOT_ALLOWED, "GET reads; POST and DELETE change; see the Allow header".to_owned())
            }
            Self::Ending => (StatusCode::SERVICE_UNAVAILABLE, "the server is ending".to_owned()),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "too much is asked at once, try again".to_owned()),
            Self::NoPlace => (StatusCode::SERVICE_UNAVAILABLE, NO_PLACE.to_owned()),
            Self::StillGoing(what) => (
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "{what} after {} s and goes on; what comes of it is in the log and in /api/v1/status",
                    CHANGE_PATIENCE.as_secs()
                ),
            ),
        };
        (status, Json(Failed { error })).into_response()
    }
}

/// How long an order may last that ends by itself: what etcd takes at least, and a month.
pub(super) const ORDER_SECONDS: RangeInclusive<u64> = 5..=31 * 86_400;
/// Where a question is explained.
const EXPLAIN: &str = "/api/v1/explain";
/// Where a reload is asked for.
const RELOAD: &str = "/api/v1/reload";
/// Where a restart is asked for.
const RESTART: &str = "/api/v1/restart";
/// Where an upgrade is asked for.
const UPGRADE: &str = "/api/v1/upgrade";
/// Said of a newcomer for which nobody waits any longer.
const NOT_YET_SERVING: &str = "the newcomer does not serve yet";
/// How long a client is made to wait for a change: less than `hedgerow ctl` waits. Tests of builds with faults wait for it.
const CHANGE_PATIENCE: Duration = Duration::from_secs(if cfg!(feature = "faults") { 3 } else { 50 });
/// Said of paths that do not exist.
const NO_SUCH_PATH: &str =
    "there is nothing here; see /metrics, /healthz, /readyz, /api/v1/status, /api/v1/live, /api/v1/history";
/// Said of a stream too many.
const NO_PLACE: &str = "as many listen already as may; /api/v1/live?once gives one second";
/// Said of whatever is asked of a cache that is not there.
const NO_CACHE: &str = "there is no cache: the config has no [cache]";
/// Largest body, octets. A new backend takes 60.
pub(super) const MAX_BODY: usize = 4096;
