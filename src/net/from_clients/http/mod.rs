//! The server side of DNS over HTTP (RFC 8484): HTTP/2 and HTTP/1.1, encrypted or plain.
//!
//! ```text
//!   stream ◀──▶ io (what is read in a turn, what is written) ◀──▶ http2 (h2) or http1 (hyper)
//!                                                                     │ requests        ▲ responses
//!                                                                     ▼ (request.rs)    │ (response.rs)
//!                                                                    exchange ──▶ handler ──▶ Responder
//! ```
//!
//! A connection is one task with one `Responder`, as with TCP; a query carries its stream number. When the
//! address ends, an HTTP/2 client gets GOAWAY twice, so that requests sent before the first one arrives are
//! answered. An HTTP/1.1 client gets `connection: close` in the current response.

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

use self::exchange::{AlarmAction, Handle, HttpExchange};
use self::http1::Http1;
use self::http2::Http2;
use self::io::{Flow, HttpStream};
use crate::address::{HttpPath, ListenAddress};
use crate::limit::TableFullness;
use crate::metrics::Counters;
use crate::net::from_clients::account::ConnectionAccount;
use crate::net::from_clients::tcp::WayBack;
use crate::net::from_clients::tcp::connection::UNSENT_IN_KERNEL;
use crate::net::from_clients::tcp::served::ServedAddresses;
use crate::net::from_clients::tcp::stream::ClientStream;
use crate::wire::Transport;

pub(crate) struct HttpConnection {
    protocol: Protocol,
    exchange: Rc<RefCell<HttpExchange>>,
    flow: Rc<Flow>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    Http1,
    Http2,
    /// Detected from the first bytes.
    Unknown,
}

enum Protocol {
    Unknown(HttpStream),
    Http1(Http1),
    Beginning(Pin<Box<Handshake<HttpStream, Bytes>>>),
    Http2(Box<Http2>),
    Over,
}

impl HttpConnection {
    pub(crate) fn new(
        stream: ClientStream,
        (version, path): (HttpVersion, HttpPath),
        account: ConnectionAccount,
        peer: SocketAddr,
        counters: Arc<Counters>,
        handle: Handle,
    ) -> Self {
        let socket = SockRef::from(stream.socket());
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_tcp_notsent_lowat(UNSENT_IN_KERNEL);
        let transport = if stream.transport() == Transport::Tls { Transport::Https } else { Transport::Http };
        let asked = stream.socket().local_addr().ok();
        let rules = *account.rules();
        let way = WayBack { peer, asked, transport, idle: rules.idle };
        let (stream, flow) = HttpStream::new(stream);
        let exchange = HttpExchange::new(account, path, way, counters, handle, Rc::clone(&flow));
        let exchange = Rc::new(RefCell::new(exchange));
        let protocol = match version {
            HttpVersion::Http1 => Protocol::Http1(Http1::new(stream, Rc::clone(&exchange))),
            HttpVersion::Http2 => Protocol::Beginning(http2::begin(stream, &rules)),
            HttpVersion::Unknown => Protocol::Unknown(stream),
        };
        Self { protocol, exchange, flow }
    }

    pub(crate) async fn run(
        mut self,
        local: ListenAddress,
        mut served: watch::Receiver<ServedAddresses>,
    ) -> Result<()> {
        let (seat, mut pressure) = {
            let exchange = self.exchange.borrow();
            (Arc::clone(&exchange.account.slot.seat), exchange.account.slot.pressure.clone())
        };
        let seen = pressure.clone();
        let mut alarm = pin!(sleep_until((Instant::now() + FAR).into()));
        let mut is_reported = false;
        loop {
            let event = poll_fn(|cx| {
                if let Poll::Ready(ended) = self.poll(cx) {
                    return Poll::Ready(Event::Ended(ended));
                }
                // The timer may fire early: the events that postpone it are more frequent than it is.
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
                _ = served.wait_for(|served| !served.covers(local)), if !is_reported => Event::Unserved,
                _ = pressure.changed() => continue,
            };
            match event {
                Event::Ended(ended) => return ended,
                Event::Unserved => {
                    is_reported = true;
                    // Input that has already arrived comes first: the runtime polls its sockets before this
                    // task continues.
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
                        AlarmAction::Nothing => {}
                        AlarmAction::End => self.end(),
                        AlarmAction::Close(result) => return result,
                    }
                    alarm.as_mut().reset(self.alarm(&seen).unwrap_or(now + FAR).into());
                }
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.flow.begin_turn();
        let polled = self.poll_protocol(cx);
        let mut exchange = self.exchange.borrow_mut();
        exchange.end_turn();
        if exchange.account.is_noise() && !exchange.account.is_ending() && polled.is_pending() {
            drop(exchange);
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
                    let rules = *self.exchange.borrow().account.rules();
                    self.protocol = match is_http2 {
                        true => Protocol::Beginning(http2::begin(stream, &rules)),
                        false => Protocol::Http1(Http1::new(stream, Rc::clone(&self.exchange))),
                    };
                }
                Protocol::Beginning(beginning) => {
                    let connection = ready!(beginning.as_mut().poll(cx)).map_err(http2::to_io)?;
                    let mut http2 = Box::new(Http2::new(connection, Rc::clone(&self.exchange)));
                    if self.exchange.borrow().account.is_ending() {
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

    /// Begins a graceful close: requests sent before the client learns of it are still answered.
    fn end(&mut self) {
        self.exchange.borrow_mut().begin_end();
        match &mut self.protocol {
            Protocol::Http1(http1) => http1.end(),
            Protocol::Http2(http2) => http2.end(),
            Protocol::Unknown(_) | Protocol::Beginning(_) | Protocol::Over => {}
        }
    }

    fn alarm(&self, pressure: &watch::Receiver<TableFullness>) -> Option<Instant> {
        let of_bodies = match &self.protocol {
            Protocol::Http2(http2) => http2.alarm(),
            Protocol::Unknown(_) | Protocol::Beginning(_) | Protocol::Http1(_) | Protocol::Over => None,
        };
        let own = self.exchange.borrow().alarm(*pressure.borrow());
        [own, of_bodies].into_iter().flatten().min()
    }
}

enum Event {
    Ended(Result<()>),
    Unserved,
    Alarm,
}

const FAR: Duration = Duration::from_secs(24 * 3600);
