//! A connection to one endpoint of etcd, by HTTP/1 with or without TLS: sequential requests, or one watch.

use std::error::Error;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{HttpEndpoint, TlsName};
use crate::discover::etcd::{self, EtcdError};
use crate::net::http_client::{self, HttpError, is_too_long};
use crate::net::tasks::{Task, TaskKind, Tasks};
use crate::net::to_backends::tls::TlsRoots;

pub(super) struct EtcdConnection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    _driver: Task,
}

/// The body of a watch, line by line.
pub(super) struct WatchLines {
    body: Incoming,
    rest: Vec<u8>,
    seen: usize,
    _connection: EtcdConnection,
}

impl EtcdConnection {
    pub(super) async fn open(
        endpoint: &HttpEndpoint,
        roots: Option<&TlsRoots>,
        patience: Duration,
        tasks: &Tasks,
    ) -> Result<Self, EtcdError> {
        let open = async {
            let stream = TcpStream::connect(endpoint.address).await?;
            stream.set_nodelay(true)?;
            match (&endpoint.tls, roots) {
                (None, _) => Self::over(stream, endpoint, tasks).await,
                (Some(TlsName::Address(ip)), Some(roots)) => {
                    Self::over(roots.connect_to_address(stream, *ip).await?, endpoint, tasks).await
                }
                (Some(TlsName::Name(name)), Some(roots)) => {
                    Self::over(roots.connect_to_name(stream, name).await?, endpoint, tasks).await
                }
                (Some(_), None) => Err("no trusted certificate authorities are known".into()),
            }
        };
        match timeout(patience, open).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(failed(endpoint, &*error)),
            Err(_) => Err(EtcdError::Failed(format!("{endpoint}: no connection within {patience:?}"))),
        }
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        endpoint: &HttpEndpoint,
        tasks: &Tasks,
    ) -> Result<Self, HttpError> {
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tasks.start(TaskKind::Discovery, async move {
            // A caller that waits for a reply gets the error too.
            let _ = driver.await;
        });
        Ok(Self { sender, host: endpoint.address.to_string(), _driver: driver })
    }

    pub(super) async fn call(&mut self, request: &etcd::EtcdRequest, token: Option<&str>) -> Result<Bytes, EtcdError> {
        let response = self.sender.send_request(self.request(request, token)?).await.map_err(broken)?;
        read_whole(response.status(), response.into_body()).await
    }

    /// Posts a request whose reply does not end.
    pub(super) async fn stream(
        mut self,
        request: &etcd::EtcdRequest,
        token: Option<&str>,
    ) -> Result<WatchLines, EtcdError> {
        let response = self.sender.send_request(self.request(request, token)?).await.map_err(broken)?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            return Err(match read_whole(status, response.into_body()).await {
                Ok(_) => EtcdError::Failed(format!("HTTP status {status}")),
                Err(error) => error,
            });
        }
        Ok(WatchLines { body: response.into_body(), rest: Vec::new(), seen: 0, _connection: self })
    }

    fn request(&self, request: &etcd::EtcdRequest, token: Option<&str>) -> Result<Request<Full<Bytes>>, EtcdError> {
        let mut built = http_client::request(Method::POST, request.path, &self.host);
        // Without this header, a watch on an etcd member without a majority stays silent forever. With it,
        // such a member refuses even serializable reads.
        if request.body["serializable"] != true {
            built = built.header("Grpc-Metadata-hasleader", "true");
        }
        if let Some(token) = token {
            built = built.header(header::AUTHORIZATION, token);
        }
        built
            .body(Full::new(Bytes::from(request.body.to_string())))
            .map_err(|error| EtcdError::Failed(error.to_string()))
    }
}

impl WatchLines {
    /// Returns the next line. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, EtcdError> {
        loop {
            let end = self.rest.iter().skip(self.seen).position(|octet| *octet == b'\n');
            if let Some(end) = end {
                let mut line: Vec<u8> = self.rest.drain(..=self.seen + end).collect();
                line.pop();
                self.seen = 0;
                if line.iter().any(|octet| !octet.is_ascii_whitespace()) {
                    return Ok(line);
                }
                continue;
            }
            self.seen = self.rest.len();
            if self.rest.len() > MAX_LINE {
                return Err(EtcdError::TooLong);
            }
            match self.body.frame().await {
                None => return Err(EtcdError::Failed("the watch has ended".to_owned())),
                Some(Err(error)) => return Err(broken(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

async fn read_whole(status: StatusCode, body: Incoming) -> Result<Bytes, EtcdError> {
    let body = http_client::read_body(body, MAX_REPLY).await.map_err(|error| match is_too_long(&error) {
        true => EtcdError::TooLong,
        false => EtcdError::Failed(error.to_string()),
    })?;
    if status == StatusCode::OK { Ok(body) } else { Err(etcd::read_error(status.as_u16(), &body)) }
}

fn broken(error: hyper::Error) -> EtcdError {
    // hyper's message lacks the cause; its source has the error of the system.
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    EtcdError::Failed(format!("{error}{cause}"))
}

fn failed(endpoint: &HttpEndpoint, error: &(dyn Error + Send + Sync)) -> EtcdError {
    EtcdError::Failed(format!("{endpoint}: {error}"))
}

/// Bytes of the longest reply: lists are paged.
const MAX_REPLY: usize = 16 << 20;

/// Bytes of the longest line of a watch: more than etcd accepts in one request.
const MAX_LINE: usize = 4 << 20;
