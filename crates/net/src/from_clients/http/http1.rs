//! HTTP/1.1 (RFC 9112) of one client, by `hyper`: one request at a time.
//!
//! Pipelined requests wait in the kernel, except for the bytes of one read. A head has at most [`MAX_HEAD`]
//! bytes and [`MAX_FIELDS`] fields. The clock of the connection limits the time of each request.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use dns::address::HttpPath;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, Connection};
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use metrics::HttpStatus;

use super::request::{MAX_MESSAGE, RequestContent, check_message, read_head};
use crate::from_clients::tcp::exchange::Exchange;
use crate::from_clients::tcp::stream::ClientStream;

pub(crate) struct Http1(Pin<Box<Connection<TokioIo<ClientStream>, Answering>>>);

impl Http1 {
    pub(crate) fn new(stream: ClientStream, path: HttpPath, exchange: Rc<RefCell<Exchange>>) -> Self {
        let mut builder = Builder::new();
        builder.auto_date_header(false).header_read_timeout(None).max_buf_size(MAX_HEAD).max_headers(MAX_FIELDS);
        Self(Box::pin(builder.serve_connection(TokioIo::new(stream), Answering(exchange, path.into()))))
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll(cx).map_err(io::Error::other)
    }

    /// Accepts no request after the current one, whose response says `connection: close`.
    pub(crate) fn end(&mut self) {
        self.0.as_mut().graceful_shutdown();
    }
}

struct Answering(Rc<RefCell<Exchange>>, Rc<HttpPath>);

impl Service<Request<Incoming>> for Answering {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (exchange, path) = (Rc::clone(&self.0), Rc::clone(&self.1));
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let message = match read_head(&head, &path) {
                RequestContent::Message(message) => Ok(message.into()),
                RequestContent::Body => whole(body).await,
                RequestContent::Refused(status) => Err(status),
            };
            let (head, octets) = match message {
                Ok(message) => {
                    exchange.borrow_mut().hand_over(&message, 0);
                    match poll_fn(|cx| exchange.borrow_mut().poll_message(cx)).await {
                        Some(message) => exchange.borrow_mut().answer(message),
                        None => (exchange.borrow_mut().refuse(HttpStatus::GatewayTimeout), Vec::new()),
                    }
                }
                Err(status) => (exchange.borrow_mut().refuse(status), Vec::new()),
            };
            exchange.borrow_mut().give(octets.len());
            Ok(head.map(|()| Full::new(octets.into())))
        })
    }
}

async fn whole(body: Incoming) -> Result<Bytes, HttpStatus> {
    let body = Limited::new(body, MAX_MESSAGE).collect().await;
    let octets = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => HttpStatus::ContentTooLarge,
        None => HttpStatus::BadRequest,
    })?;
    let octets = octets.to_bytes();
    check_message(&octets).map(|()| octets)
}

/// The byte limit of a head and of read-ahead. A GET request has room for a query of 11,000 bytes.
const MAX_HEAD: usize = 16 << 10;

const MAX_FIELDS: usize = 64;
