//! A connection to one endpoint of etcd, by HTTP/1 with or without TLS: sequential requests, or one watch.

use std::error::Error;
use std::time::Duration;

use config::{HttpEndpoint, TlsName};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, StatusCode, header};
use hyper_util::rt::TokioIo;
use net::http_client::{self, HttpError, is_too_long};
use net::tasks::{Task, TaskKind, Tasks};
use net::to_backends::tls::TlsRoots;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::control::pools::discover::etcd::{self, EtcdError, EtcdRequest};

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
            Ok(opened) => opened.map_err(|error: HttpError| EtcdError::Failed(format!("{endpoint}: {error}"))),
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

    pub(super) async fn call(&mut self, request: &EtcdRequest, token: Option<&str>) -> Result<Bytes, EtcdError> {
        read_whole(self.post(request, token).await?).await
    }

    /// Posts a request whose reply does not end.
    pub(super) async fn watch(mut self, request: &EtcdRequest, token: Option<&str>) -> Result<WatchLines, EtcdError> {
        let body = self.post(request, token).await?;
        Ok(WatchLines { body, rest: Vec::new(), seen: 0, _connection: self })
    }

    async fn post(&mut self, request: &EtcdRequest, token: Option<&str>) -> Result<Incoming, EtcdError> {
        let mut built = http_client::request(Method::POST, request.path, &self.host);
        // Without this header, a watch on an etcd member without a majority stays silent forever. With it,
        // such a member refuses even serializable reads.
        if request.body["serializable"] != true {
            built = built.header("Grpc-Metadata-hasleader", "true");
        }
        if let Some(token) = token {
            built = built.header(header::AUTHORIZATION, token);
        }
        let built = built.body(Full::new(Bytes::from(request.body.to_string())));
        let built = built.map_err(|error| EtcdError::Failed(error.to_string()))?;
        let (head, body) = self.sender.send_request(built).await.map_err(broken)?.into_parts();
        match head.status {
            StatusCode::OK => Ok(body),
            status => Err(etcd::read_error(status.as_u16(), &read_whole(body).await?)),
        }
    }
}

impl WatchLines {
    /// Returns the next line. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, EtcdError> {
        loop {
            if let Some(end) = self.rest.iter().skip(self.seen).position(|octet| *octet == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=self.seen + end).collect();
                self.seen = 0;
                if !line.trim_ascii().is_empty() {
                    return Ok(line);
                }
                continue;
            }
            self.seen = self.rest.len();
            if self.rest.len() > MAX_LINE {
                return Err(EtcdError::TooLong);
            }
            let frame = self.body.frame().await.ok_or_else(|| EtcdError::Failed("the watch has ended".to_owned()))?;
            self.rest.extend(frame.map_err(broken)?.into_data().into_iter().flatten());
        }
    }
}

async fn read_whole(body: Incoming) -> Result<Bytes, EtcdError> {
    http_client::read_body(body, MAX_REPLY).await.map_err(|error| match is_too_long(&error) {
        true => EtcdError::TooLong,
        false => EtcdError::Failed(error.to_string()),
    })
}

fn broken(error: hyper::Error) -> EtcdError {
    // hyper's message lacks the cause; its source has the error of the system.
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    EtcdError::Failed(format!("{error}{cause}"))
}

/// Bytes of the longest reply: lists are paged.
const MAX_REPLY: usize = 16 << 20;

/// Bytes of the longest line of a watch: more than etcd accepts in one request.
const MAX_LINE: usize = 4 << 20;
