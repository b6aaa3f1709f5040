//! HTTP/1.1 (RFC 9112) of one client, by `hyper`: one request after the other, for who speaks nothing better.
//!
//! Requests that a client sends ahead wait in the kernel, but for what one read brings; the head of one has at most [`MAX_HEAD`] octets and
//! [`MAX_FIELDS`] fields. How long each may take is the business of the connection's clock: half a head is no query.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, Connection};
use hyper::service::Service;
use hyper_util::rt::TokioIo;

use super::exchange::Exchange;
use super::io::HttpStream;
use super::request::{Asked, MAX_MESSAGE, check_message, read_head};
use crate::metrics::HttpStatus;

/// A connection by HTTP/1.1.
pub(super) struct Http1(Pin<Box<Connection<TokioIo<HttpStream>, Answering>>>);

impl Http1 {
    pub(super) fn new(stream: HttpStream, exchange: Rc<RefCell<Exchange>>) -> Self {
        let mut builder = Builder::new();
        builder.auto_date_header(false).header_read_timeout(None).max_buf_size(MAX_HEAD).max_headers(MAX_FIELDS);
        Self(Box::pin(builder.serve_connection(TokioIo::new(stream), Answering(exchange))))
    }

    /// Does all that can be done; ready when the connection is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll(cx).map_err(io::Error::other)
    }

    /// Takes no request after the one that is under way, whose response says so.
    pub(super) fn end(&mut self) {
        self.0.as_mut().graceful_shutdown();
    }
}

/// Answers one request.
struct Answering(Rc<RefCell<Exchange>>);

impl Service<Request<Incoming>> for Answering {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let exchange = Rc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let asked = read_head(&head, &exchange.borrow().path);
            let message = match asked {
                Asked::Message(message) => Ok(message.into()),
                Asked::Body => whole(body).await,
                Asked::Refused(status) => Err(status),
            };
            let (head, octets) = match message {
                Ok(message) => {
                    exchange.borrow_mut().hand_over(&message, 0);
                    match poll_fn(|cx| exchange.borrow_mut().poll_response(cx)).await {
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

/// The message that is a body.
///
/// # Errors
/// The status of a request with one that is none.
async fn whole(body: Incoming) -> Result<Bytes, HttpStatus> {
    let body = Limited::new(body, MAX_MESSAGE).collect().await;
    let octets = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => HttpStatus::ContentTooLarge,
        None => HttpStatus::BadRequest,
    })?;
    let octets = octets.to_bytes();
    check_message(&octets).map(|()| octets)
}

/// Octets of the head of a request, and of what is read ahead of it: by GET there is room for a query of 11,000.
const MAX_HEAD: usize = 16 << 10;

/// Fields of the head of a request.
const MAX_FIELDS: usize = 64;
