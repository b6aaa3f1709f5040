//! Connections to the admin server: their limits, evictions and request deadlines.
//!
//! Every client may connect and stay silent, so a new connection is always admitted. If there are too many in
//! all or from one peer, the connection that has been idle longest is closed; if none is idle, the one whose
//! client has been slowest. Connections whose requests are in progress stay; their number is limited below
//! the number of connections. A client has ten seconds for each request.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::{CONNECTION, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::sleep;

use super::authorization::{Guard, RequestOrigin};
use super::deadline::{Handing, RequestTurn, TimedStream};
use super::listeners::{Accepted, AdminStream, Door};
use super::page;
use super::routes::{ChangeSummary, HttpError, MAX_BODY, is_about_health, is_change, may_wait};
use super::{AdminEnding, live};

pub(super) struct ConnectionParts {
    guard: Rc<Guard>,
    routes: TowerToHyperService<Router>,
    /// Requests in progress, and those that may wait for long: together fewer than the connections of one
    /// peer, so that one can always be evicted.
    at_work: Semaphore,
    waiting: Semaphore,
    max: usize,
    max_per_peer: usize,
}

impl ConnectionParts {
    /// Creates the parts of a listener with at most `max` connections.
    pub(super) fn new(guard: Rc<Guard>, routes: Router, max: usize) -> Rc<Self> {
        let max = max.max(3);
        Rc::new(Self {
            guard,
            routes: TowerToHyperService::new(routes),
            at_work: Semaphore::new((max / 4).max(1)),
            waiting: Semaphore::new((max / 8).max(1)),
            max,
            max_per_peer: (max / 2).max(3),
        })
    }

    /// Serves a listener until `end`, and answers the pending requests.
    pub(super) async fn serve(self: Rc<Self>, door: Door, end: watch::Receiver<Option<AdminEnding>>) -> io::Result<()> {
        let mut open = AdminConnections::default();
        let admit = |open: &mut AdminConnections, (stream, peer): Accepted| {
            let turn = RequestTurn::new();
            open.make_room_for(holder_of(peer), &self);
            open.add(peer, Rc::clone(&turn), Rc::clone(&self).converse(stream, peer, turn, end.clone()));
        };
        let mut ending = end.clone();
        loop {
            tokio::select! {
                // The sender was dropped without an ending.
                _ = ending.wait_for(Option::is_some) => break,
                accepted = door.accept() => match accepted {
                    Ok(accepted) => accepted.into_iter().for_each(|accepted| admit(&mut open, accepted)),
                    Err(error) => {
                        tracing::warn!(%error, "admin: a connection was not accepted");
                        // Most likely out of descriptors, and no event says when one is free: do not spin.
                        sleep(PAUSE).await;
                    }
                },
                Some(ended) = open.tasks.join_next_with_id() => open.forget(ended)?,
            }
        }
        if *ending.borrow() != Some(AdminEnding::PassedOn) {
            while let Ok(accepted) = door.accept_pending() {
                accepted.into_iter().for_each(|accepted| admit(&mut open, accepted));
            }
        }
        drop(door);
        while let Some(ended) = open.tasks.join_next_with_id().await {
            open.forget(ended)?;
        }
        Ok(())
    }

    async fn converse(
        self: Rc<Self>,
        stream: Box<dyn AdminStream>,
        peer: RequestOrigin,
        turn: Rc<RequestTurn>,
        mut end: watch::Receiver<Option<AdminEnding>>,
    ) {
        let (answering, is_ending) = (Rc::clone(&turn), end.clone());
        let service = service_fn(move |request| {
            let (site, turn, is_ending) = (Rc::clone(&self), Rc::clone(&answering), is_ending.clone());
            async move {
                let mut response = site.answer(request, peer, &turn).await;
                if is_ending.borrow().is_some() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                let is_stream = response.extensions().get::<live::LiveStream>().is_some();
                let handing = turn.note_answer(is_stream);
                let end = is_stream.then(|| -> Pin<Box<dyn Future<Output = ()>>> {
                    let mut end = is_ending.clone();
                    Box::pin(async move { drop(end.wait_for(Option::is_some).await) })
                });
                Ok::<_, Infallible>(response.map(|body| WatchedBody { body, handing, end }))
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(IDLE);
        let mut connection =
            pin!(http.serve_connection(TokioIo::new(TimedStream::new(stream, Rc::clone(&turn))), service));
        let ended = async {
            tokio::select! {
                ended = connection.as_mut() => return ended,
                _ = end.wait_for(Option::is_some) => {}
            }
            // Pending requests are answered before the close. hyper would close an unread connection.
            if turn.has_answered() {
                connection.as_mut().graceful_shutdown();
            }
            connection.await
        };
        tokio::select! {
            ended = ended => if let Err(error) = ended {
                tracing::debug!(?peer, %error, "an admin connection broke off");
            },
            () = turn.overdue() => tracing::debug!(?peer, "an admin connection timed out"),
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: RequestOrigin, turn: &RequestTurn) -> Response {
        let (mut head, body) = request.into_parts();
        if let Err(denied) = self.guard.check(&head.method, head.uri.path(), &head.headers, peer) {
            // The page asks for the token by this challenge (RFC 6750 section 3).
            let challenge = self.guard.wants_token(denied).then_some([(WWW_AUTHENTICATE, "Bearer")]);
            return (challenge, HttpError(StatusCode::FORBIDDEN, self.guard.remedy(denied))).into_response();
        }
        if page::is_part(head.uri.path()) && !self.guard.has_page() {
            return HttpError::no_such_path().into_response();
        }
        // A safe request needs no body, so its body is not awaited.
        let body = if head.method.is_safe() {
            Body::empty()
        } else {
            match Limited::new(body, MAX_BODY).collect().await {
                Ok(body) => Body::from(body.to_bytes()),
                Err(error) => return HttpError::from(format!("the body: {error}")).into_response(),
            }
        };
        let places = if may_wait(head.uri.path()) { &self.waiting } else { &self.at_work };
        let place = places.try_acquire();
        if place.is_err() && !is_about_health(head.uri.path()) {
            return HttpError::unavailable("too many admin requests at once, try again").into_response();
        }
        turn.note_read();
        head.extensions.insert(peer);
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let Ok(response) = self.routes.call(Request::from_parts(head, body)).await;
        if is_change(&method, &path)
            && let Some(ChangeSummary(result)) = response.extensions().get()
        {
            match response.status().is_success() {
                true => tracing::info!(by = %peer, %method, path, "admin: {result}"),
                false => tracing::warn!(by = %peer, %method, path, "admin: change refused: {result}"),
            }
        }
        response
    }
}

/// A response body. hyper drops it once it has taken all of it, which signals `handing`.
struct WatchedBody {
    body: Body,
    handing: Handing,
    end: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl hyper::body::Body for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Some(end) = &mut self.end
            && end.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.handing.hand();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[derive(Default)]
struct AdminConnections {
    tasks: JoinSet<()>,
    open: Vec<OpenAdminConnection>,
}

struct OpenAdminConnection {
    end: AbortHandle,
    holder: Option<IpAddr>,
    turn: Rc<RequestTurn>,
}

/// Returns the unit of the limit per peer: an IPv4 address, an IPv6 /56, this host, or `None` for the users
/// of the socket.
fn holder_of(peer: RequestOrigin) -> Option<IpAddr> {
    match peer {
        RequestOrigin::Owner(_) => None,
        RequestOrigin::Host(ip) if ip.is_loopback() => Some(Ipv4Addr::LOCALHOST.into()),
        RequestOrigin::Host(IpAddr::V4(ip)) => Some(ip.into()),
        RequestOrigin::Host(IpAddr::V6(ip)) => Some(Ipv6Addr::from_bits(ip.to_bits() >> 72 << 72).into()),
    }
}

impl AdminConnections {
    /// Closes a connection if there are too many in all or from one peer.
    fn make_room_for(&mut self, holder: Option<IpAddr>, parts: &ConnectionParts) {
        let others = || self.open.iter().filter(|open| !open.turn.is_streaming());
        let held = others().filter(|open| open.holder == holder).count();
        if held >= parts.max_per_peer {
            self.make_room(|open| open.holder == holder);
        } else if others().count() >= parts.max {
            self.make_room(|_| true);
        }
    }

    fn add(&mut self, peer: RequestOrigin, turn: Rc<RequestTurn>, serve: impl Future<Output = ()> + 'static) {
        let end = self.tasks.spawn_local(serve);
        self.open.push(OpenAdminConnection { end, holder: holder_of(peer), turn });
    }

    fn make_room(&mut self, is_meant: impl Fn(&OpenAdminConnection) -> bool) {
        let claims = self.open.iter().enumerate().filter(|(_, open)| is_meant(open));
        let least = claims.filter_map(|(place, open)| Some((open.turn.claim()?, place))).min();
        if let Some((_, place)) = least {
            self.open.swap_remove(place).end.abort();
        }
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) -> io::Result<()> {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) if error.is_panic() => return Err(io::Error::other(error)),
            Err(error) => error.id(),
        };
        self.open.retain(|open| open.end.id() != id);
        Ok(())
    }
}

/// The idle timeout, longer than the usual interval between scrapes.
const IDLE: Duration = Duration::from_secs(75);
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::admin::Settings;

    #[test]
    fn there_is_always_a_connection_that_can_make_room() {
        let settings = Rc::new(RefCell::new(Settings { token: None, has_page: false }));
        let guard = Rc::new(Guard::new(settings, Ipv4Addr::LOCALHOST.into(), None));
        for connections in 0..=64 {
            let parts = ConnectionParts::new(Rc::clone(&guard), Router::new(), connections);
            let [at_work, waiting] = [&parts.at_work, &parts.waiting].map(Semaphore::available_permits);
            assert!(0 < at_work && 0 < waiting, "{connections}");
            assert!(at_work + waiting < parts.max_per_peer && parts.max_per_peer <= parts.max, "{connections}");
        }
    }

    #[test]
    fn a_peer_is_known_whatever_address_it_shows() {
        let holder = |text: &str| holder_of(RequestOrigin::Host(text.parse().expect("an address")));
        for (one, other, is_same) in [
            ("127.0.0.1", "127.9.9.9", true),
            ("127.0.0.1", "::1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8:0:1::1", "2001:db8:0:2::2", true),
            ("2001:db8:0:100::1", "2001:db8:0:200::1", false),
        ] {
            assert_eq!(holder(one) == holder(other), is_same, "{one} {other}");
        }
        assert_ne!(holder("127.0.0.1"), holder_of(RequestOrigin::Owner(0)));
    }
}
