//! The messages of etcd's JSON gateway (etcd 3.4 or later, `/v3/...`): requests as JSON, replies as values.
//!
//! Keys and values are base64, 64-bit integers are strings, and zero or empty fields are omitted. A watch is
//! a stream of JSON objects, one a line.

use data_encoding::BASE64;
use dns::address::is_unseen;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

/// A lease, by its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseId(#[serde(deserialize_with = "integer")] pub i64);

/// A request: a path and the JSON to post there.
#[derive(Clone, Debug, PartialEq)]
pub struct EtcdRequest {
    /// The path of the request.
    pub path: &'static str,
    /// The JSON of the request.
    pub body: Value,
}

/// A key with its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KeyValue {
    /// The key in bytes.
    #[serde(deserialize_with = "base64")]
    pub key: Vec<u8>,
    /// The value in bytes.
    #[serde(deserialize_with = "base64")]
    pub value: Vec<u8>,
    /// The lease of the key, or 0.
    pub lease: LeaseId,
    /// The revision of the last change.
    #[serde(deserialize_with = "integer")]
    pub mod_revision: i64,
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Page {
    /// The header with the revision of the list.
    pub header: EtcdHeader,
    /// Items in the order of their keys.
    #[serde(rename = "kvs")]
    pub items: Vec<KeyValue>,
    /// True if there are more pages.
    #[serde(rename = "more")]
    pub has_more: bool,
}

/// The header of a reply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EtcdHeader {
    /// The revision of the data.
    #[serde(deserialize_with = "integer")]
    pub revision: i64,
}

/// A changed key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct WatchEvent {
    /// The kind of change. A put has none.
    #[serde(rename = "type")]
    kind: String,
    /// The key and its new value.
    pub kv: KeyValue,
}

impl WatchEvent {
    /// Returns true if the key is deleted.
    pub fn is_deletion(&self) -> bool {
        self.kind == "DELETE"
    }
}

/// The reason why a request has failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// The token is invalid or missing.
    #[error("{0} (see etcd.user and etcd.password_file)")]
    Unauthenticated(String),
    /// The reply is too long.
    #[error("the reply is too long")]
    TooLong,
    /// The watch is over, for instance because the revision is compacted.
    #[error("{0}")]
    Canceled(String),
    /// Any other failure.
    #[error("{0}")]
    Failed(String),
}

/// Lists `limit` keys with this prefix, from `from` on if given, at `revision` if given. `is_serializable`:
/// as this etcd member knows them, which may be old, but needs no majority.
pub fn range(
    prefix: &str,
    from: Option<&[u8]>,
    revision: Option<i64>,
    limit: usize,
    is_serializable: bool,
) -> EtcdRequest {
    let mut body = below(prefix);
    if let Some(from) = from {
        body["key"] = BASE64.encode(from).into();
    }
    body["limit"] = limit.to_string().into();
    body["serializable"] = is_serializable.into();
    if let Some(revision) = revision {
        body["revision"] = revision.to_string().into();
    }
    EtcdRequest { path: "/v3/kv/range", body }
}

/// Counts the keys with this prefix, which checks that etcd is up and has a leader.
pub fn count(prefix: &str) -> EtcdRequest {
    let mut body = below(prefix);
    body["count_only"] = true.into();
    EtcdRequest { path: "/v3/kv/range", body }
}

/// Reads one key.
pub fn get(key: &str) -> EtcdRequest {
    EtcdRequest { path: "/v3/kv/range", body: json!({ "key": BASE64.encode(key.as_bytes()) }) }
}

/// Watches the keys with this prefix, from this revision on.
pub fn watch(prefix: &str, revision: i64) -> EtcdRequest {
    let mut create = below(prefix);
    create["start_revision"] = revision.to_string().into();
    create["progress_notify"] = true.into();
    EtcdRequest { path: "/v3/watch", body: json!({ "create_request": create }) }
}

/// Requests a lease of this many seconds.
pub fn grant(seconds: u64) -> EtcdRequest {
    EtcdRequest { path: "/v3/lease/grant", body: json!({ "TTL": seconds.to_string() }) }
}

/// Renews a lease.
pub fn keep_alive(lease: LeaseId) -> EtcdRequest {
    EtcdRequest { path: "/v3/lease/keepalive", body: json!({ "ID": lease.0.to_string() }) }
}

/// Ends a lease and deletes its keys.
pub fn revoke(lease: LeaseId) -> EtcdRequest {
    EtcdRequest { path: "/v3/lease/revoke", body: json!({ "ID": lease.0.to_string() }) }
}

/// Writes a key, under a lease if one is given.
pub fn put(key: &str, value: &str, lease: Option<LeaseId>) -> EtcdRequest {
    let mut body = json!({ "key": BASE64.encode(key.as_bytes()), "value": BASE64.encode(value.as_bytes()) });
    if let Some(lease) = lease {
        body["lease"] = lease.0.to_string().into();
    }
    EtcdRequest { path: "/v3/kv/put", body }
}

/// Deletes one key.
pub fn delete(key: &str) -> EtcdRequest {
    EtcdRequest { path: "/v3/kv/deleterange", body: json!({ "key": BASE64.encode(key.as_bytes()) }) }
}

/// Writes a key under a lease if it does not exist; or, by the second request, if it has this lease.
pub fn claim(key: &str, value: &str, lease: LeaseId) -> [EtcdRequest; 2] {
    let put = put(key, value, Some(lease)).body;
    let key = BASE64.encode(key.as_bytes());
    [
        json!({ "key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0" }),
        json!({ "key": key, "target": "LEASE", "result": "EQUAL", "lease": lease.0.to_string() }),
    ]
    .map(|compare| {
        let body = json!({ "compare": [compare], "success": [{ "request_put": put }] });
        EtcdRequest { path: "/v3/kv/txn", body }
    })
}

/// Requests a token.
pub fn authenticate(user: &str, password: &str) -> EtcdRequest {
    EtcdRequest { path: "/v3/auth/authenticate", body: json!({ "name": user, "password": password }) }
}

/// Returns the fields for all keys with this prefix.
fn below(prefix: &str) -> Value {
    let mut end = prefix.as_bytes().to_vec();
    // The first key behind the prefix: a byte of UTF-8 is never 255.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    json!({ "key": BASE64.encode(prefix.as_bytes()), "range_end": BASE64.encode(&end) })
}

/// Reads a page of a list.
pub fn read_page(body: &[u8]) -> Result<Page, EtcdError> {
    let page: Page = read(body)?;
    // A server that sends an empty object is no etcd, so this is not an empty list.
    match page.header.revision {
        ..=0 => Err(EtcdError::Failed("no reply of etcd: a list without a revision".to_owned())),
        _ => Ok(page),
    }
}

/// Reads the reply to a [`claim`]. Returns true if it succeeded.
pub fn read_claim(body: &[u8]) -> Result<bool, EtcdError> {
    #[derive(Deserialize)]
    struct ClaimReply {
        #[serde(default)]
        succeeded: bool,
    }
    read::<ClaimReply>(body).map(|reply| reply.succeeded)
}

/// Reads a granted lease.
pub fn read_grant(body: &[u8]) -> Result<LeaseId, EtcdError> {
    match read::<LeaseReply>(body)?.id {
        LeaseId(0) => Err(EtcdError::Failed("no lease was granted".to_owned())),
        id => Ok(id),
    }
}

/// Returns true if the lease still existed.
pub fn read_keep_alive(body: &[u8]) -> Result<bool, EtcdError> {
    let StreamReply { result } = read(body)?;
    // The reply for an expired lease has an ID only.
    Ok(result.is_some_and(|result: LeaseReply| result.ttl > 0))
}

/// Reads a token.
pub fn read_token(body: &[u8]) -> Result<String, EtcdError> {
    #[derive(Deserialize)]
    struct TokenReply {
        token: String,
    }
    read::<TokenReply>(body).map(|reply| reply.token)
}

/// Reads a line of a watch. Without events, it only shows that the watch is up.
pub fn read_watch_line(line: &[u8]) -> Result<Vec<WatchEvent>, EtcdError> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct WatchReply {
        canceled: bool,
        cancel_reason: String,
        #[serde(deserialize_with = "integer")]
        compact_revision: i64,
        events: Vec<WatchEvent>,
    }
    let StreamReply { result } = read(line)?;
    let result: WatchReply = result.ok_or_else(|| EtcdError::Failed("a watch without a result".to_owned()))?;
    match (result.canceled, result.compact_revision) {
        (false, _) => Ok(result.events),
        (true, 0) if result.cancel_reason.is_empty() => Err(EtcdError::Canceled("the watch was canceled".to_owned())),
        (true, 0) => Err(EtcdError::Canceled(result.cancel_reason)),
        (true, revision) => Err(EtcdError::Canceled(format!("compacted at revision {revision}"))),
    }
}

/// Reads the error of a reply with this status.
pub fn read_error(status: u16, body: &[u8]) -> EtcdError {
    let error: GatewayError = serde_json::from_slice(body).unwrap_or_default();
    let message = Some(error.text()).filter(|text| !text.is_empty());
    let message = message.unwrap_or_else(|| format!("HTTP status {status}"));
    let kind = if status == 401 || error.is_unauthenticated() { EtcdError::Unauthenticated } else { EtcdError::Failed };
    kind(message)
}

/// Reads a reply, which may be an error despite status 200, as in streams.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, EtcdError> {
    #[derive(Deserialize)]
    struct InStream {
        error: GatewayError,
    }
    if let Ok(InStream { error }) = serde_json::from_slice(body) {
        return Err(error.into());
    }
    serde_json::from_slice(body).map_err(|error| EtcdError::Failed(format!("no reply of etcd: {error}")))
}

/// An error of the gateway. The message has different field names in streams and in replies; some have both.
#[derive(Default, Deserialize)]
#[serde(default)]
struct GatewayError {
    message: String,
    error: String,
    code: u32,
    grpc_code: u32,
}

impl GatewayError {
    fn text(&self) -> String {
        let text = if self.message.is_empty() { &self.error } else { &self.message };
        text.chars().filter(|letter| !is_unseen(*letter)).take(MAX_MESSAGE).collect()
    }

    /// gRPC's code 16, and texts of etcd that come with another code.
    fn is_unauthenticated(&self) -> bool {
        let text = self.text();
        let texts = ["invalid auth token", "user name is empty", "user name not found"];
        [self.code, self.grpc_code].contains(&16) || texts.iter().any(|known| text.contains(known))
    }
}

impl From<GatewayError> for EtcdError {
    fn from(error: GatewayError) -> Self {
        let kind = if error.is_unauthenticated() { Self::Unauthenticated } else { Self::Failed };
        kind(error.text())
    }
}

#[derive(Deserialize)]
struct StreamReply<T> {
    result: Option<T>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LeaseReply {
    #[serde(rename = "ID")]
    id: LeaseId,
    #[serde(rename = "TTL", deserialize_with = "integer")]
    ttl: i64,
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    BASE64.decode(String::deserialize(deserializer)?.as_bytes()).map_err(D::Error::custom)
}

/// A 64-bit integer, usually a string in this JSON. Some servers send a number.
fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Number(i64),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(D::Error::custom),
    }
}

const MAX_MESSAGE: usize = 200;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_written() {
        let request = range("a/", None, Some(7), 100, true);
        let expected =
            json!({ "key": "YS8=", "range_end": "YTA=", "limit": "100", "serializable": true, "revision": "7" });
        assert_eq!((request.path, request.body), ("/v3/kv/range", expected));
        let request = watch("a/", 8);
        let create = json!({ "key": "YS8=", "range_end": "YTA=", "start_revision": "8", "progress_notify": true });
        assert_eq!(request.body, json!({ "create_request": create }));
        let request = put("a", "b", Some(LeaseId(9)));
        assert_eq!(request.body, json!({ "key": "YQ==", "value": "Yg==", "lease": "9" }));
        let [fresh, ours] = claim("a", "b", LeaseId(9));
        assert_eq!(fresh.body["compare"][0]["create_revision"], "0");
        assert_eq!(ours.body["compare"][0]["lease"], "9");
    }

    fn key_value(key: &str, value: &str, mod_revision: i64) -> KeyValue {
        KeyValue { key: key.into(), value: value.into(), lease: LeaseId(0), mod_revision }
    }

    #[test]
    fn lists_are_read() {
        let body = br#"{"header":{"cluster_id":"1","revision":"12"},"kvs":[{"key":"YQ==","create_revision":"3","value":"Yg==","lease":"77"},{"key":"Yw=="}],"more":true,"count":"5"}"#;
        let page = read_page(body).expect("a page");
        assert_eq!((page.header.revision, page.has_more), (12, true));
        let first = KeyValue { lease: LeaseId(77), ..key_value("a", "b", 0) };
        assert_eq!(page.items, [first, key_value("c", "", 0)]);
        let empty = read_page(br#"{"header":{"revision":"1"}}"#).expect("a page");
        assert_eq!((empty.items.len(), empty.has_more), (0, false));
        for wrong in ["", "{", "{}", "[]", "null", r#"{"kvs":[{"key":"?"}]}"#, r#"{"header":{"revision":"x"}}"#] {
            assert!(read_page(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn watches_are_read() {
        let line = |text: &str| read_watch_line(text.as_bytes());
        assert_eq!(line(r#"{"result":{"header":{"revision":"3"},"created":true}}"#), Ok(Vec::new()));
        assert_eq!(
            line(
                r#"{"result":{"events":[{"kv":{"key":"YQ==","value":"Yg==","mod_revision":"5"}},{"type":"DELETE","kv":{"key":"Yw==","mod_revision":"6"}}]}}"#
            ),
            Ok(vec![
                WatchEvent { kind: String::new(), kv: key_value("a", "b", 5) },
                WatchEvent { kind: "DELETE".to_owned(), kv: key_value("c", "", 6) },
            ])
        );
        assert_eq!(
            line(r#"{"result":{"canceled":true,"compact_revision":"20"}}"#),
            Err(EtcdError::Canceled("compacted at revision 20".to_owned()))
        );
        assert_eq!(
            line(r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}"#),
            Err(EtcdError::Failed("etcdserver: no leader".to_owned()))
        );
        assert!(line(r#"{"result":{"events":[{"kv":{"key":"YQ="#).is_err());
    }

    #[test]
    fn leases_and_claims_are_read() {
        assert_eq!(read_grant(br#"{"header":{},"ID":"7587","TTL":"10"}"#), Ok(LeaseId(7587)));
        assert!(read_grant(br#"{"header":{}}"#).is_err());
        assert_eq!(read_keep_alive(br#"{"result":{"header":{},"ID":"7587","TTL":"10"}}"#), Ok(true));
        assert_eq!(read_keep_alive(br#"{"result":{"header":{},"ID":"7587"}}"#), Ok(false), "it is gone");
        assert_eq!(read_claim(br#"{"succeeded":true,"responses":[{"response_put":{}}]}"#), Ok(true));
        assert_eq!(read_claim(br#"{"header":{"revision":"3"}}"#), Ok(false), "another has it");
        assert_eq!(read_token(br#"{"token":"t.1"}"#), Ok("t.1".to_owned()));
    }

    #[test]
    fn errors_are_told_apart() {
        for (status, body, is_auth) in [
            (401, "", true),
            (401, r#"{"error":"etcdserver: invalid auth token","code":16}"#, true),
            (400, r#"{"error":"etcdserver: user name is empty","code":3}"#, true),
            (503, "<html>", false),
            (503, r#"{"error":"etcdserver: no leader","message":"etcdserver: no leader","code":14}"#, false),
        ] {
            let error = read_error(status, body.as_bytes());
            assert_eq!(matches!(error, EtcdError::Unauthenticated(_)), is_auth, "{body}: {error}");
        }
        assert_eq!(read_error(503, b"<html>").to_string(), "HTTP status 503");
    }

    proptest! {
        #[test]
        fn no_octets_end_anything(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (read_page(&body), read_watch_line(&body), read_claim(&body), read_error(500, &body));
        }
    }
}
