//! The paths, methods and responses of the admin server.
//!
//! Errors are `{"error": ...}` with the status 400 (malformed), 403 (denied), 404 (unknown), 405, 409
//! (conflict), 503 (shutdown or overload) or 504 (a reload or a new process takes too long).

use std::ops::RangeInclusive;
use std::str;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, delete, get, post};
use axum::{Extension, Json, Router};
use config::{limits, words};
use dns::Name;
use dns::address::BackendAddress;
use metrics::exposition::{self, ExpositionFormat};
use net::tasks::blocking;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::cache::{CacheAccess, Scope};
use super::explain;
use super::live::LiveStreams;
use super::page;
use super::record;
use super::reports;
use super::status::{ChangeResponse, EntryStatus, ErrorResponse, FlushResponse, Status};
use super::usage::usage;
use super::{
    AdminRequest, ChangeRefusal, FleetOrder, HealthCondition, ManualHealth, OrderWord, ProcessChange, ServerChange,
    ServerView, live,
};

/// Builds the router. Requests must be authorized and have their complete body.
pub(super) fn router(
    requests: mpsc::Sender<AdminRequest>,
    condition: Arc<HealthCondition>,
    streams: LiveStreams,
) -> Router {
    let server = Arc::new(AdminServer {
        requests,
        condition,
        cache_turn: Arc::default(),
        explain_turn: Mutex::new(Instant::now()),
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
        .route("/api/v1/record", get(record::record))
        .route("/api/v1/slow", get(reports::slow))
        .route("/api/v1/names", get(reports::names))
        .route("/api/v1/certificates", reads(|server| server.certificates()))
        .route("/api/v1/divergence", reads_of_pool(|server, pool| server.divergences(pool)))
        .route("/api/v1/serials", reads_of_pool(|server, pool| server.serials(pool)))
        .route("/api/v1/zones", reads(|server| server.zones()))
        .route("/api/v1/accept/{name}", post(accept))
        .route(RELOAD, post(reload))
        .route(RESTART, starts(|is_cold| ProcessChange::Restart { is_cold }))
        .route(UPGRADE, starts(|is_cold| ProcessChange::Upgrade { is_cold }))
        .route("/api/v1/stop", post(stop))
        .route("/api/v1/cache", delete(async |State(server): SharedServer| server.flush(Scope::All).await))
        .route("/api/v1/cache/names/{name}", get(show_name).merge(flushes(Scope::Name)))
        .route("/api/v1/cache/subtrees/{name}", flushes(Scope::Subtree))
        .route("/api/v1/pools/{pool}/backends", post(add))
        .route("/api/v1/pools/{pool}/backends/{backend}", delete(remove))
        .route("/api/v1/pools/{pool}/backends/{backend}/{action}", post(act))
        .merge(page::routes())
        .fallback(any(async || HttpError::no_such_path()))
        .method_not_allowed_fallback(async || HttpError(StatusCode::METHOD_NOT_ALLOWED, WRONG_METHOD.to_owned()))
        .with_state(server)
}

pub(super) struct AdminServer {
    requests: mpsc::Sender<AdminRequest>,
    pub(super) streams: LiveStreams,
    condition: Arc<HealthCondition>,
    /// Serializes visits of the cache, so that workers contend with one visitor at most.
    cache_turn: Arc<Mutex<()>>,
    /// The earliest time of the next explained question. The lock is held while one is explained.
    pub(super) explain_turn: Mutex<Instant>,
}

impl AdminServer {
    pub(super) async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> AdminRequest,
    ) -> Result<T, HttpError> {
        let (way_back, answer) = oneshot::channel();
        self.requests.send(request(way_back)).await.map_err(|_| HttpError::ending())?;
        answer.await.map_err(|_| HttpError::ending())
    }

    /// Lets the control thread call `read` with its state.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn ServerView) -> T + Send + 'static,
    ) -> Result<T, HttpError> {
        self.ask(|answer| AdminRequest::Read(Box::new(move |server| drop(answer.send(read(server)))))).await
    }

    async fn change(&self, change: ServerChange) -> Reply<ChangeResponse> {
        let message = self.ask(|way_back| AdminRequest::Change(change, way_back)).await??;
        Ok((Extension(ChangeSummary(message.clone())), Json(ChangeResponse { message })))
    }

    /// Carries out a change that may take long. It continues if the client disconnects.
    async fn patient_change(&self, change: ServerChange, what: &'static str) -> Reply<ChangeResponse> {
        timeout(CHANGE_PATIENCE, self.change(change)).await.unwrap_or_else(|_| {
            let waited = CHANGE_PATIENCE.as_secs();
            let result = "the log and /api/v1/status show the result";
            Err(HttpError::too_slow(format!("{what} after {waited} s and continues; {result}")))
        })
    }

    async fn visit_cache<T: Send + 'static>(
        &self,
        visit: impl FnOnce(&CacheAccess) -> T + Send + 'static,
    ) -> Result<T, HttpError> {
        let turn = Arc::clone(&self.cache_turn).lock_owned().await;
        let access = self.read(|server| server.cache()).await?;
        let access = access.ok_or_else(|| HttpError::absent(NO_CACHE))?;
        let visit = move || {
            // If the client disconnects, the visit continues and so must its turn.
            let _turn = turn;
            visit(&access)
        };
        Ok(blocking(visit).await)
    }

    async fn flush(&self, what: Scope) -> Reply<FlushResponse> {
        let flush = move |access: &CacheAccess| {
            let flushed = access.flush(&what);
            FlushResponse { message: what.message(flushed), flushed }
        };
        self.visit_cache(flush).await.map(|flushed| (Extension(ChangeSummary(flushed.message.clone())), Json(flushed)))
    }
}

#[derive(Clone)]
pub(super) struct ChangeSummary(pub(super) String);

/// The response to a change, with a sentence about it for the log.
type Reply<T> = Result<(Extension<ChangeSummary>, Json<T>), HttpError>;

pub(super) type SharedServer = State<Arc<AdminServer>>;

/// The variable parts of a path.
type PathOf<T> = Result<Path<T>, PathRejection>;

pub(super) type RequestBody = Result<Bytes, BytesRejection>;

/// Reads a JSON body. The error shows an example.
pub(super) fn read_json<T: DeserializeOwned>(body: &[u8], example: &str) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("{error}; expected JSON such as {example}"))
}

/// Reads a JSON body that may be absent.
fn read_options<T: DeserializeOwned + Default>(body: &[u8], example: &str) -> Result<T, String> {
    if body.is_empty() { Ok(T::default()) } else { read_json(body, example) }
}

/// Returns true if a request changes something. Explaining a question changes nothing, although it is a POST.
pub(super) fn is_change(method: &Method, path: &str) -> bool {
    !method.is_safe() && path != EXPLAIN
}

/// Returns true for health checks, which are answered at once even under overload.
pub(super) fn is_about_health(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

pub(super) fn may_wait(path: &str) -> bool {
    [EXPLAIN, RELOAD, RESTART, UPGRADE].contains(&path)
}

async fn health(State(server): SharedServer) -> (StatusCode, String) {
    match server.condition.stall() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(stall) => (StatusCode::SERVICE_UNAVAILABLE, format!("{stall}\n")),
    }
}

/// `/readyz`; with `?pool=NAME`, every named pool must have a backend that is up.
async fn readiness(State(server): SharedServer, RawQuery(query): RawQuery) -> Result<(StatusCode, String), HttpError> {
    let pools = pools_asked_for(query.as_deref().unwrap_or_default())?;
    let mut down = None;
    for pool in pools {
        // An unknown pool is reported even during shutdown, because the mistake is the client's.
        if !server.condition.is_pool_up(&pool)? {
            down.get_or_insert(pool);
        }
    }
    Ok(match (server.condition.is_ready(), down) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
        (true, Some(pool)) => (StatusCode::SERVICE_UNAVAILABLE, format!("no backend of pool {pool:?} is up\n")),
        (true, None) => (StatusCode::OK, "ready\n".to_owned()),
    })
}

fn pools_asked_for(query: &str) -> Result<Vec<String>, String> {
    let pools = parameters(query).map(|(key, value)| match key {
        "pool" => decoded(key, value),
        // A check with a misspelled parameter must not pass.
        key => Err(format!("there is no {key:?}, expected pool")),
    });
    pools.collect()
}

/// Splits a query string into names and values.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

/// Decodes the value of a parameter.
pub(super) fn decoded(key: &str, value: &str) -> Result<String, String> {
    let text = percent_decode_str(value).decode_utf8().map_err(|_| format!("{key}: expected UTF-8"))?;
    Ok(text.into_owned())
}

async fn metrics(State(server): SharedServer, headers: HeaderMap) -> Result<impl IntoResponse, HttpError> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = ExpositionFormat::accepted_by(accept);
    let snapshot = server.ask(AdminRequest::Snapshot).await?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], exposition::write(&snapshot, &usage(), format)))
}

async fn status(State(server): SharedServer) -> Result<Json<Status>, HttpError> {
    let snapshot = server.ask(AdminRequest::Snapshot).await?;
    server.read(move |server| server.status(&snapshot)).await.map(Json)
}

/// Serves a part of the state as JSON.
fn reads<T: Serialize + Send + 'static>(read: fn(&dyn ServerView) -> T) -> MethodRouter<Arc<AdminServer>> {
    get(async move |State(server): SharedServer| server.read(read).await.map(Json))
}

/// Serves a part of the state as JSON, of all pools or of the pool in the query string.
fn reads_of_pool<T: Serialize + Send + 'static>(
    read: fn(&dyn ServerView, Option<&str>) -> Result<T, ChangeRefusal>,
) -> MethodRouter<Arc<AdminServer>> {
    get(async move |State(server): SharedServer, RawQuery(query): RawQuery| {
        let pool = pools_asked_for(&query.unwrap_or_default())?.pop();
        Ok::<_, HttpError>(Json(server.read(move |server| read(server, pool.as_deref())).await??))
    })
}

async fn accept(State(server): SharedServer, name: PathOf<String>) -> Reply<ChangeResponse> {
    let Path(name) = name?;
    server.change(ServerChange::Accept { name }).await
}

async fn reload(State(server): SharedServer) -> Reply<ChangeResponse> {
    server.patient_change(ServerChange::Reload, "the reload is still reading").await
}

/// The options of a restart, as JSON. The client cannot name a program to run.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NewProcess {
    cold: bool,
}

/// Starts a new process, and waits until it serves.
fn starts(change: fn(bool) -> ProcessChange) -> MethodRouter<Arc<AdminServer>> {
    post(async move |State(server): SharedServer, body: RequestBody| {
        let NewProcess { cold } = read_options(&body?, "{\"cold\": false}")?;
        server.patient_change(ServerChange::Processes(change(cold)), NOT_YET_SERVING).await
    })
}

async fn stop(State(server): SharedServer) -> Reply<ChangeResponse> {
    server.change(ServerChange::Processes(ProcessChange::Stop)).await
}

/// Flushes the entries of the name in the path.
fn flushes(scope: fn(Name) -> Scope) -> MethodRouter<Arc<AdminServer>> {
    delete(async move |State(server): SharedServer, name: PathOf<String>| server.flush(scope(read_name(name)?)).await)
}

async fn show_name(State(server): SharedServer, name: PathOf<String>) -> Result<Json<Vec<EntryStatus>>, HttpError> {
    let name = read_name(name)?;
    server.visit_cache(move |access| access.show(&name)).await.map(Json)
}

fn read_name(name: PathOf<String>) -> Result<Name, HttpError> {
    let Path(text) = name?;
    Ok(words::domain_name(&text).map_err(|expected| format!("name {text:?}: {expected}"))?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBackend {
    address: String,
    #[serde(default = "one")]
    weight: u16,
}

fn one() -> u16 {
    1
}

async fn add(State(server): SharedServer, pool: PathOf<String>, body: RequestBody) -> Reply<ChangeResponse> {
    let Path(pool) = pool?;
    let (address, weight) = read_backend(&body?)?;
    server.change(ServerChange::Add { pool, address, weight }).await
}

fn read_backend(body: &[u8]) -> Result<(BackendAddress, u16), String> {
    let NewBackend { address, weight } = read_json(body, "{\"address\": \"192.0.2.1:53\", \"weight\": 1}")?;
    let address = words::member_address(&address).map_err(|expected| format!("address {address:?}: {expected}"))?;
    if !limits::WEIGHT.holds(&weight) {
        return Err(format!("weight {weight}: expected an integer {}", limits::WEIGHT));
    }
    Ok((address, weight))
}

async fn remove(State(server): SharedServer, place: PathOf<(String, String)>) -> Reply<ChangeResponse> {
    let Path((pool, backend)) = place?;
    server.change(ServerChange::Remove { pool, backend }).await
}

async fn act(
    State(server): SharedServer,
    place: PathOf<(String, String, String)>,
    body: RequestBody,
) -> Reply<ChangeResponse> {
    let Path((pool, backend, action)) = place?;
    let ForWhom { fleet: is_for_all, by, for_seconds, force: is_forced } = ForWhom::read(&body?)?;
    let (order, to) = match action.as_str() {
        "drain" => (Some(OrderWord::Drain), None),
        "up" => (Some(OrderWord::Up), Some(ManualHealth::Up)),
        "down" => (Some(OrderWord::Down), Some(ManualHealth::Down)),
        "auto" => (None, Some(ManualHealth::Auto)),
        action => {
            return Err(ChangeRefusal::no_such("action", action, ["drain", "up", "down", "auto"]).into());
        }
    };
    let lasts = for_seconds.map(Duration::from_secs);
    if lasts.is_some() && action == "auto" {
        return Err("for_seconds is for drain, up and down: auto leaves nothing to end".to_owned().into());
    }
    if is_for_all {
        let order = FleetOrder { pool, backend, order, by, lasts, is_forced };
        return server.patient_change(ServerChange::Order(Box::new(order)), "etcd has not answered").await;
    }
    server
        .change(match to {
            Some(to) => ServerChange::Set { pool, backend, to, lasts, is_forced },
            None => ServerChange::Drain { pool, backend, lasts, is_forced },
        })
        .await
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ForWhom {
    fleet: bool,
    by: String,
    for_seconds: Option<u64>,
    force: bool,
}

impl ForWhom {
    fn read(body: &[u8]) -> Result<Self, String> {
        let read: Self = read_options(body, "{\"fleet\": true, \"for_seconds\": 3600}")?;
        let seconds = if read.fleet { ORDER_SECONDS } else { 1..=*ORDER_SECONDS.end() };
        match read.for_seconds.filter(|lasts| !seconds.contains(lasts)) {
            Some(lasts) => {
                let (min, max) = (seconds.start(), seconds.end());
                Err(format!("for_seconds {lasts}: expected an integer from {min} to {max}"))
            }
            None => Ok(read),
        }
    }
}

/// The status of a refused or failed request, and the reason with a hint.
pub(super) struct HttpError(pub(super) StatusCode, pub(super) String);

impl HttpError {
    pub(super) fn no_such_path() -> Self {
        Self(StatusCode::NOT_FOUND, NO_SUCH_PATH.to_owned())
    }

    pub(super) fn absent(reason: &str) -> Self {
        Self(StatusCode::NOT_FOUND, reason.to_owned())
    }

    pub(super) fn ending() -> Self {
        Self::unavailable("the server is ending")
    }

    pub(super) fn unavailable(reason: &str) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, reason.to_owned())
    }

    pub(super) fn too_slow(reason: String) -> Self {
        Self(StatusCode::GATEWAY_TIMEOUT, reason)
    }
}

/// The error of a request that does not parse.
impl From<String> for HttpError {
    fn from(problem: String) -> Self {
        Self(StatusCode::BAD_REQUEST, problem)
    }
}

impl From<PathRejection> for HttpError {
    fn from(rejection: PathRejection) -> Self {
        rejection.body_text().into()
    }
}

impl From<BytesRejection> for HttpError {
    fn from(rejection: BytesRejection) -> Self {
        rejection.body_text().into()
    }
}

impl From<ChangeRefusal> for HttpError {
    fn from(refusal: ChangeRefusal) -> Self {
        match refusal {
            ChangeRefusal::NotFound(reason) => Self(StatusCode::NOT_FOUND, reason),
            ChangeRefusal::Conflict(reason) => Self(StatusCode::CONFLICT, reason),
            ChangeRefusal::Invalid(reason) => Self(StatusCode::BAD_REQUEST, reason),
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let Self(status, error) = self;
        (status, Extension(ChangeSummary(error.clone())), Json(ErrorResponse { error })).into_response()
    }
}

/// The lifetime of an order: the minimum lease of etcd to a month.
pub(super) const ORDER_SECONDS: RangeInclusive<u64> = 5..=31 * 86_400;
const EXPLAIN: &str = "/api/v1/explain";
const RELOAD: &str = "/api/v1/reload";
const RESTART: &str = "/api/v1/restart";
const UPGRADE: &str = "/api/v1/upgrade";
const NOT_YET_SERVING: &str = "the new process does not serve yet";
/// The wait for a change, less than the timeout of `hedgerow ctl`. Tests of builds with faults wait for it.
const CHANGE_PATIENCE: Duration = Duration::from_secs(if cfg!(feature = "faults") { 3 } else { 50 });
const NO_SUCH_PATH: &str =
    "there is nothing here; see /metrics, /healthz, /readyz, /api/v1/status, /api/v1/live, /api/v1/history";
const WRONG_METHOD: &str = "GET reads; POST and DELETE change; see the Allow header";
const NO_CACHE: &str = "there is no cache: the config has no [cache]";
/// Bytes. A new backend takes 60.
pub(super) const MAX_BODY: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_of_a_query_string_are_read_or_explained() {
        let pools = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
        for (query, expected) in [
            ("", pools(&[])),
            ("pool=a%20b", pools(&["a b"])),
            ("pool=a&&pool=b", pools(&["a", "b"])),
            ("pol=ts", Err("there is no \"pol\", expected pool".to_owned())),
            ("pool=%ff", Err("pool: expected UTF-8".to_owned())),
        ] {
            assert_eq!(pools_asked_for(query), expected, "{query}");
        }
    }
}
