//! One client's connection by TCP, plain or encrypted: a task that polls the protocol of the connection, DNS
//! frames ([`DnsFrames`]) or HTTP.
//!
//! A turn ends when the protocol makes no progress, or has read enough. Then the task waits for the first of:
//! a response, input, room to write, the end of the address, a request to make room, a timeout
//! (`limit/timeouts.rs`), a move to another process (`moved.rs`).

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dns::address::{HttpPath, ListenAddress};
use h2::server::Handshake;
use limit::{Doing, TableFullness};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::sleep_until;

use super::exchange::{AlarmAction, Exchange};
use super::frames::DnsFrames;
use super::moved::{MovedConnection, WayOut};
use super::stream::{ClientStream, Flow};
use crate::from_clients::http::HttpVersion;
use crate::from_clients::http::http1::Http1;
use crate::from_clients::http::http2::{self, Http2};
use crate::from_clients::service::ServedAddresses;

pub(crate) struct ConnectionTask {
    protocol: Protocol,
    exchange: Rc<RefCell<Exchange>>,
    flow: Rc<Flow>,
    /// True if this process serves the connection to its end, even if a successor starts.
    stays: bool,
}

enum Protocol {
    Dns(DnsFrames),
    /// HTTP of a version that the first bytes decide.
    AnyHttp(ClientStream, HttpPath),
    Http1(Http1),
    BeginningHttp2(Pin<Box<Handshake<ClientStream, Bytes>>>, HttpPath),
    Http2(Box<Http2>),
    Over,
}

enum Event {
    Ended(io::Result<()>),
    /// Other tasks run first.
    TurnOver,
    Unserved,
    Alarm,
    /// The connection is idle and may move to another process.
    Movable,
}

impl ConnectionTask {
    /// `http` is the path of a connection by HTTP.
    pub(crate) fn new(
        stream: ClientStream,
        http: Option<(HttpVersion, HttpPath)>,
        exchange: Exchange,
        stays: bool,
    ) -> Self {
        let (flow, rules) = (Rc::clone(&stream.flow), exchange.account.slot.rules);
        let exchange = Rc::new(RefCell::new(exchange));
        let protocol = match http {
            None => Protocol::Dns(DnsFrames::new(stream, Rc::clone(&exchange))),
            Some((HttpVersion::Http1, path)) => Protocol::Http1(Http1::new(stream, path, Rc::clone(&exchange))),
            Some((HttpVersion::Http2, path)) => Protocol::BeginningHttp2(http2::begin(stream, &rules), path),
            Some((HttpVersion::Unknown, path)) => Protocol::AnyHttp(stream, path),
        };
        Self { protocol, exchange, flow, stays }
    }

    /// Serves the connection until it ends, or until its queries are answered once `served` no longer covers
    /// `local`.
    pub(crate) async fn run(
        mut self,
        local: ListenAddress,
        mut served: watch::Receiver<ServedAddresses>,
    ) -> io::Result<()> {
        let (seat, mut pressure, mut way_out) = {
            let slot = &self.exchange.borrow().account.slot;
            (Arc::clone(&slot.seat), slot.pressure.clone(), slot.way_out.clone())
        };
        let seen = pressure.clone();
        let mut alarm = pin!(sleep_until((Instant::now() + FAR).into()));
        let mut is_reported = false;
        loop {
            let is_leaving = self.is_leaving(&mut way_out);
            let event = poll_fn(|cx| {
                if let Poll::Ready(event) = self.poll_event(cx, is_leaving) {
                    return Poll::Ready(event);
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
                () = seat.closed() => return Ok(()),
                // If the address ends at the same time, the connection moves.
                _ = way_out.changed() => continue,
                _ = served.wait_for(|served| !served.covers(local)), if !is_reported && !is_leaving => Event::Unserved,
                _ = pressure.changed() => continue,
                event = event => event,
            };
            match event {
                Event::Ended(ended) => return ended,
                Event::TurnOver => yield_now().await,
                Event::Movable => return self.leave(&way_out),
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
                    if let Some(ended) = self.on_alarm(*seen.borrow(), now) {
                        return ended;
                    }
                    alarm.as_mut().reset(self.alarm(&seen).unwrap_or(now + FAR).into());
                }
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>, is_leaving: bool) -> Poll<Event> {
        if let Poll::Ready(ended) = self.poll(cx) {
            return Poll::Ready(Event::Ended(ended));
        }
        if is_leaving && self.exchange.borrow().doing() == Doing::Reading {
            return Poll::Ready(Event::Movable);
        }
        if self.flow.is_turn_over() { Poll::Ready(Event::TurnOver) } else { Poll::Pending }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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

    fn poll_protocol(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.protocol {
                Protocol::Dns(frames) => return frames.poll(cx),
                Protocol::AnyHttp(stream, _) => {
                    let is_http2 = ready!(stream.poll_is_http2(cx))?;
                    let Protocol::AnyHttp(stream, path) = mem::replace(&mut self.protocol, Protocol::Over) else {
                        return Poll::Ready(Ok(()));
                    };
                    let rules = self.exchange.borrow().account.slot.rules;
                    self.protocol = match is_http2 {
                        true => Protocol::BeginningHttp2(http2::begin(stream, &rules), path),
                        false => Protocol::Http1(Http1::new(stream, path, Rc::clone(&self.exchange))),
                    };
                }
                Protocol::BeginningHttp2(beginning, path) => {
                    let connection = ready!(beginning.as_mut().poll(cx)).map_err(http2::to_io)?;
                    let mut http2 = Box::new(Http2::new(connection, path.clone(), Rc::clone(&self.exchange)));
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

    /// Begins a graceful close: queries sent before the client learns of it are still answered.
    fn end(&mut self) {
        self.exchange.borrow_mut().begin_end();
        match &mut self.protocol {
            Protocol::Dns(frames) => frames.end(),
            Protocol::Http1(http1) => http1.end(),
            Protocol::Http2(http2) => http2.end(),
            Protocol::AnyHttp(..) | Protocol::BeginningHttp2(..) | Protocol::Over => {}
        }
    }

    fn alarm(&self, pressure: &watch::Receiver<TableFullness>) -> Option<Instant> {
        let of_bodies = if let Protocol::Http2(http2) = &self.protocol { http2.alarm() } else { None };
        let own = self.exchange.borrow().alarm(*pressure.borrow());
        [own, of_bodies].into_iter().flatten().min()
    }

    /// Returns the result of the connection if it is over.
    fn on_alarm(&mut self, fullness: TableFullness, now: Instant) -> Option<io::Result<()>> {
        if let Protocol::Http2(http2) = &mut self.protocol {
            http2.on_alarm(now);
        }
        let due = self.exchange.borrow().on_alarm(fullness, now);
        match due {
            AlarmAction::Nothing => None,
            AlarmAction::End => {
                self.end();
                None
            }
            AlarmAction::Close(result) => {
                if let Protocol::Dns(frames) = &mut self.protocol {
                    frames.notify_end();
                }
                Some(result)
            }
        }
    }

    /// Returns true if the connection is to move, and can. A connection at its end stays, and so does a TLS
    /// session.
    fn is_leaving(&mut self, way_out: &mut watch::Receiver<Option<WayOut>>) -> bool {
        let is_to_move = way_out.borrow_and_update().is_some();
        let Protocol::Dns(frames) = &mut self.protocol else { return false };
        let is_ending = self.exchange.borrow().account.is_ending();
        frames.is_leaving = is_to_move && frames.is_movable() && !self.stays && !is_ending;
        frames.is_leaving
    }

    fn leave(self, way_out: &watch::Receiver<Option<WayOut>>) -> io::Result<()> {
        let Protocol::Dns(frames) = self.protocol else { return Ok(()) };
        let Some((socket, input)) = frames.into_parts() else { return Ok(()) };
        // The runtime must stop watching the socket, because the other process may use it before our copy is
        // closed.
        let socket = socket.into_std()?.into();
        if let Some(WayOut { section, to }) = &*way_out.borrow() {
            let _ = to.send(MovedConnection { section: section.clone(), input, socket });
        }
        Ok(())
    }
}

const FAR: Duration = Duration::from_secs(24 * 3600);
