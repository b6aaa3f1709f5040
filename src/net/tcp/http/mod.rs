//! DNS over HTTP, the server's side (RFC 8484): HTTP/2 and HTTP/1.1, encrypted or in the clear.
//!
//! ```text
//!   stream.rs ◀──▶ io (what is read in a turn, what is written) ◀──▶ http2 (h2) or http1 (hyper)
//!                                                                     │ requests        ▲ responses
//!                                                                     ▼ (request.rs)    │ (response.rs)
//!                                                                    exchange ──▶ handler ──▶ Responder
//! ```
//!
//! A connection is one task here as well, whatever its version: no stream has one of its own. It stands in the same table, goes by the
//! same times, and hands over and takes back by the same [`Responder`] as one by TCP; a query has the number of its stream.
//!
//! At the end of its address a client by HTTP/2 hears GOAWAY, twice: what it has sent before it hears the first is still answered. By
//! HTTP/1.1 the response that is under way says `connection: close`.

mod exchange;
mod http1;
mod http2;
mod io;
pub mod request;
pub mod response;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::Result;
use std::mem;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::Handshake;
use socket2::SockRef;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::sleep_until;

use self::exchange::{Due, Exchange, Handle, Parts};
use self::http1::Http1;
use self::http2::Http2;
use self::io::{Flow, HttpStream};
use super::connection::UNSENT_IN_KERNEL;
use super::responder::{Responder, WayBack};
use super::served::Served;
use super::stream::Stream;
use super::table::ConnectionSlot;
use crate::address::{HttpPath, ListenAddress};
use crate::limit::Pressure;
use crate::metrics::Counters;
use crate::wire::Transport;

/// One client's connection by HTTP.
pub(super) struct HttpConnection {
    protocol: Protocol,
    exchange: Rc<RefCell<Exchange>>,
    flow: Rc<Flow>,
}

/// Which version of HTTP a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// It has said so: HTTP/1.1.
    Http1,
    /// It has said so: HTTP/2.
    Http2,
    /// What it sends first will show.
    Unknown,
}

/// A client that connects by HTTP.
pub(super) struct HttpClient {
    pub(super) stream: Stream,
    pub(super) version: Version,
    /// Its place among all connections.
    pub(super) place: ConnectionSlot,
    /// Under which path it may ask.
    pub(super) path: HttpPath,
    pub(super) peer: SocketAddr,
    /// When it was accepted.
    pub(super) accepted: Instant,
}

enum Protocol {
    Unknown(HttpStream),
    Http1(Http1),
    Beginning(Pin<Box<Handshake<HttpStream, Bytes>>>),
    Http2(Box<Http2>),
    /// Nothing is left of it.
    Over,
}

impl HttpConnection {
    /// A fresh connection. `handle` gets its queries.
    pub(super) fn new(client: HttpClient, counters: Arc<Counters>, handle: Handle) -> Self {
        let HttpClient { stream, version, place, path, peer, accepted } = client;
        let socket = SockRef::from(stream.socket());
        // As for every other connection (connection.rs).
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_tcp_notsent_lowat(UNSENT_IN_KERNEL);
        let transport = if stream.transport() == Transport::Tls { Transport::Https } else { Transport::Http };
        let asked = stream.socket().local_addr().ok();
        let (rules, way) = (place.rules, WayBack { peer, asked, transport, idle: place.rules.idle });
        let (responder, responses) = Responder::new(Arc::clone(&place.seat), way, rules.in_flight);
        let (stream, flow) = HttpStream::new(stream);
        let parts = Parts { place, path, counters, handle, responder, responses, flow: Rc::clone(&flow), accepted };
        let exchange = Rc::new(RefCell::new(Exchange::new(parts)));
        let protocol = match version {
            Version::Http1 => Protocol::Http1(Http1::new(stream, Rc::clone(&exchange))),
            Version::Http2 => Protocol::Beginning(http2::begin(stream, &rules)),
            Version::Unknown => Protocol::Unknown(stream),
        };
        Self { protocol, exchange, flow }
    }

    /// Serves the connection to its end; to the end of its queries where `local`, which it was made to, is not served any more.
    pub(super) async fn run(mut self, local: ListenAddress, mut served: watch::Receiver<Served>) -> Result<()> {
        let (seat, mut pressure) = {
            let exchange = self.exchange.borrow();
            (Arc::clone(&exchange.place.seat), exchange.place.pressure.clone())
        };
        let seen = pressure.clone();
        let mut alarm = pin!(sleep_until((Instant::now() + FAR).into()));
        let mut is_told = false;
        loop {
            let event = poll_fn(|cx| {
                if let Poll::Ready(ended) = self.poll(cx) {
                    return Poll::Ready(Event::Ended(ended));
                }
                // It may ring early, for what has put it off is more frequent than it is.
                if let Some(next) = self.alarm(&seen)
                    && next < alarm.deadline().into_std()
                {
                    alarm.as_mut().reset(next.into());
                }
                alarm.as_mut().poll(cx).map(|()| Event::Alarm)
            });
            let event = tokio::select! {
                biased;
                event = event => event,
                () = seat.closed() => return Ok(()),
                _ = served.wait_for(|served| !served.covers(local)), if !is_told => Event::Unserved,
                _ = pressure.changed() => continue,
            };
            match event {
                Event::Ended(ended) => return ended,
                Event::Unserved => {
                    is_told = true;
                    // What has come already is taken first: the runtime looks at its sockets before this goes on.
                    yield_now().await;
                    if let Poll::Ready(ended) = poll_fn(|cx| Poll::Ready(self.poll(cx))).await {
                        return ended;
                    }
                    self.end();
                }
                Event::Alarm => {
                    let now = Instant::now();
                    if let Protocol::Http2(http2) = &mut self.protocol {
                        http2.on_alarm(now);
                    }
                    let due = self.exchange.borrow().on_alarm(*seen.borrow(), now);
                    match due {
                        Due::Nothing => {}
                        Due::End => self.end(),
                        Due::Close(result) => return result,
                    }
                    alarm.as_mut().reset(self.alarm(&seen).unwrap_or(now + FAR).into());
                }
            }
        }
    }

    /// Does all that can be done in one turn; ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.flow.begin_turn();
        let polled = self.poll_protocol(cx);
        let mut exchange = self.exchange.borrow_mut();
        exchange.end_turn();
        if exchange.is_noise() && !exchange.is_ending() && polled.is_pending() {
            drop(exchange);
            // Nobody asks anything here, and RFC 7766 section 6.2.3 leaves it to the server when to close.
            self.end();
            return self.poll_protocol(cx);
        }
        polled
    }

    fn poll_protocol(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            match &mut self.protocol {
                Protocol::Unknown(stream) => {
                    let is_http2 = ready!(stream.poll_is_http2(cx))?;
                    let Protocol::Unknown(stream) = mem::replace(&mut self.protocol, Protocol::Over) else {
                        return Poll::Ready(Ok(()));
                    };
                    let rules = self.exchange.borrow().place.rules;
                    self.protocol = match is_http2 {
                        true => Protocol::Beginning(http2::begin(stream, &rules)),
                        false => Protocol::Http1(Http1::new(stream, Rc::clone(&self.exchange))),
                    };
                }
                Protocol::Beginning(beginning) => {
                    let connection = ready!(beginning.as_mut().poll(cx)).map_err(http2::to_io)?;
                    let mut http2 = Box::new(Http2::new(connection, Rc::clone(&self.exchange)));
                    if self.exchange.borrow().is_ending() {
                        http2.end();
                    }
                    self.protocol = Protocol::Http2(http2);
                }
                Protocol::Http1(http1) => return http1.poll(cx),
                Protocol::Http2(http2) => return http2.poll(cx),
                Protocol::Over => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Has the client go: what it has sent before it hears of that is still answered.
    fn end(&mut self) {
        self.exchange.borrow_mut().begin_end();
        match &mut self.protocol {
            Protocol::Http1(http1) => http1.end(),
            Protocol::Http2(http2) => http2.end(),
            Protocol::Unknown(_) | Protocol::Beginning(_) | Protocol::Over => {}
        }
    }

    /// When something is to be done even if nothing happens until then.
    fn alarm(&self, pressure: &watch::Receiver<Pressure>) -> Option<Instant> {
        let of_bodies = match &self.protocol {
            Protocol::Http2(http2) => http2.alarm(),
            Protocol::Unknown(_) | Protocol::Beginning(_) | Protocol::Http1(_) | Protocol::Over => None,
        };
        let own = self.exchange.borrow().alarm(*pressure.borrow());
        [own, of_bodies].into_iter().flatten().min()
    }
}

/// What wakes a connection.
enum Event {
    /// It is over.
    Ended(Result<()>),
    /// Its address is served no more.
    Unserved,
    /// Time is up for something.
    Alarm,
}

/// Later than anything that is waited for.
const FAR: Duration = Duration::from_secs(24 * 3600);
