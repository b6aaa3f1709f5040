//! Connections to the admin server: how many there are, who makes room for whom, and how long each request may take.
//!
//! Anybody who can read may connect, and need not say anything then. So nobody waits for anybody: who comes is always let in. If
//! there are too many, or too many of one peer, the connection goes that has been idle for the longest; if none is idle, the one
//! whose client has kept us waiting for the longest. Those whose requests we are carrying out stay, and there are fewer of these
//! than connections. A client has ten seconds for each request.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::sleep;

use super::authorization::{Guard, Origin};
use super::deadline::{Handing, Timed, Turn};
use super::listeners::{Door, Stream};
use super::page;
use super::routes::{HttpError, MAX_BODY, is_about_health, may_wait};
use super::{Ending, live};

/// How much there may be at once by one door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Connections. Each costs a descriptor.
    connections: usize,
    /// Connections of one peer.
    per_peer: usize,
    /// Requests that are being carried out: fewer than the connections of one peer, so that there is always one that can make
    /// room.
    at_work: usize,
    /// Requests for a reload that wait for it, besides: they do nothing meanwhile, and must not keep others from being heard.
    waiting: usize,
}

impl Bounds {
    /// The bounds of a door with so many connections.
    pub(super) fn of(connections: usize) -> Self {
        let connections = connections.max(3);
        Self {
            connections,
            per_peer: (connections / 2).max(3),
            at_work: (connections / 4).max(1),
            waiting: (connections / 8).max(1),
        }
    }
}

/// What answers the requests that come by one door.
pub(super) struct Parts {
    /// Says who may ask.
    guard: Rc<Guard>,
    /// Carries out what may be asked.
    routes: TowerToHyperService<Router>,
    /// Requests that are being carried out.
    at_work: Cell<usize>,
    /// Requests that wait for a reload or for another process.
    waiting: Cell<usize>,
    /// How much there may be.
    bounds: Bounds,
}

impl Parts {
    /// Nobody has come yet.
    pub(super) fn new(guard: Rc<Guard>, routes: Router, bounds: Bounds) -> Rc<Self> {
        Rc::new(Self {
            guard,
            routes: TowerToHyperService::new(routes),
            at_work: Cell::new(0),
            waiting: Cell::new(0),
            bounds,
        })
    }

    /// Serves whoever comes by a door, until there is an `end` and all that was asked is answered.
    ///
    /// # Errors
    /// If something that serves a connection has panicked.
    pub(super) async fn serve(self: Rc<Self>, door: Door, end: watch::Receiver<Option<Ending>>) -> io::Result<()> {
        let mut open = Connections { bounds: self.bounds, tasks: JoinSet::new(), open: Vec::new() };
        let mut told = end.clone();
        loop {
            tokio::select! {
                // Who has gone without a word has dropped it all.
                _ = told.wait_for(Option::is_some) => break,
                accepted = door.accept() => match accepted {
                    Ok(Some((stream, peer))) => {
                        let turn = Turn::new();
                        open.admit(peer, Rc::clone(&turn), Rc::clone(&self).converse(stream, peer, turn, end.clone()));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%error, "admin: a connection was not accepted");
                        // Out of descriptors, most likely, and nothing tells when there is one again: do not spin.
                        sleep(PAUSE).await;
                    }
                },
                Some(ended) = open.tasks.join_next_with_id() => open.forget(ended)?,
            }
        }
        let is_passed_on = *told.borrow() == Some(Ending::PassedOn);
        // Nobody connects any more.
        let rest = if is_passed_on { Vec::new() } else { door.rest() };
        for (stream, peer) in rest {
            let turn = Turn::new();
            open.admit(peer, Rc::clone(&turn), Rc::clone(&self).converse(stream, peer, turn, end.clone()));
        }
        while let Some(ended) = open.tasks.join_next_with_id().await {
            open.forget(ended)?;
        }
        Ok(())
    }

    /// Answers the requests of one connection, until it ends or its client takes too long.
    async fn converse(
        self: Rc<Self>,
        stream: Box<dyn Stream>,
        peer: Origin,
        turn: Rc<Turn>,
        mut end: watch::Receiver<Option<Ending>>,
    ) {
        let (answering, is_ending) = (Rc::clone(&turn), end.clone());
        let has_answered = Rc::new(Cell::new(false));
        let answered = Rc::clone(&has_answered);
        let service = service_fn(move |request| {
            let (site, turn) = (Rc::clone(&self), Rc::clone(&answering));
            let (answered, is_ending) = (Rc::clone(&answered), is_ending.clone());
            async move {
                let mut response = site.answer(request, peer, &turn).await;
                if is_ending.borrow().is_some() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                answered.set(true);
                let is_stream = response.extensions().get::<live::Stream>().is_some();
                let handing = if is_stream { turn.is_streamed() } else { turn.is_answered() };
                let end = is_stream.then(|| -> Pin<Box<dyn Future<Output = ()>>> {
                    let mut end = is_ending.clone();
                    Box::pin(async move { drop(end.wait_for(Option::is_some).await) })
                });
                Ok::<_, Infallible>(response.map(|body| Watched { body, handing, end }))
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(IDLE);
        let mut connection = pin!(http.serve_connection(TokioIo::new(Timed::new(stream, Rc::clone(&turn))), service));
        let ended = async {
            tokio::select! {
                ended = connection.as_mut() => return ended,
                _ = end.wait_for(Option::is_some) => {}
            }
            // What is asked already is answered; then it closes. Of one that has not been heard of yet, hyper would take that for a wish to
            // close it unheard.
            if has_answered.get() {
                connection.as_mut().graceful_shutdown();
            }
            connection.await
        };
        tokio::select! {
            ended = ended => if let Err(error) = ended {
                tracing::debug!(?peer, %error, "an admin connection broke off");
            },
            () = turn.overdue() => tracing::debug!(?peer, "a client of the admin server took too long"),
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: Origin, turn: &Turn) -> Response {
        let (mut head, body) = request.into_parts();
        if let Err(denied) = self.guard.check(&head.method, head.uri.path(), &head.headers, peer) {
            return HttpError::Denied(self.guard.remedy(denied)).into_response();
        }
        if page::is_part(head.uri.path()) && !self.guard.has_page() {
            return HttpError::NoSuchPath.into_response();
        }
        // Who reads has nothing to say besides, and does not have to be heard out.
        let body = if head.method.is_safe() {
            Body::empty()
        } else {
            match Limited::new(body, MAX_BODY).collect().await {
                Ok(body) => Body::from(body.to_bytes()),
                Err(error) => return HttpError::Invalid(format!("the body: {error}")).into_response(),
            }
        };
        let (taken, max) = match may_wait(head.uri.path()) {
            true => (&self.waiting, self.bounds.waiting),
            false => (&self.at_work, self.bounds.at_work),
        };
        let place = ConnectionPermit::take(taken, max);
        if place.is_none() && !is_about_health(head.uri.path()) {
            return HttpError::Busy.into_response();
        }
        turn.is_read();
        head.extensions.insert(peer);
        let Ok(response) = self.routes.call(Request::from_parts(head, body)).await;
        response
    }
}

/// A place among the requests that are being carried out.
struct ConnectionPermit<'a>(&'a Cell<usize>);

impl<'a> ConnectionPermit<'a> {
    /// Takes a place, if there is one.
    fn take(taken: &'a Cell<usize>, max: usize) -> Option<Self> {
        (taken.get() < max).then(|| {
            taken.set(taken.get() + 1);
            Self(taken)
        })
    }
}

impl Drop for ConnectionPermit<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The body of a response. When hyper has taken all of it, it drops it, and with it what tells of that.
struct Watched {
    body: Body,
    /// Dropped with it.
    handing: Handing,
    /// Waits until it is to end, if it does not by itself.
    end: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl hyper::body::Body for Watched {
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

/// The connections that have come by one door.
struct Connections {
    /// How many there may be.
    bounds: Bounds,
    /// What serves them.
    tasks: JoinSet<()>,
    /// What is known of each.
    open: Vec<Open>,
}

/// A connection that is open.
struct Open {
    /// Who serves it.
    task: Id,
    end: AbortHandle,
    /// Where it comes from.
    holder: Holder,
    /// Where it is with its requests.
    turn: Rc<Turn>,
}

/// What counts as one peer: an IPv4 address, the first 56 bits of an IPv6 address, this host, whatever address it shows; or whoever
/// may use the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder(Option<IpAddr>);

impl Holder {
    /// The holder that a peer counts for.
    fn of(peer: Origin) -> Self {
        Self(match peer {
            Origin::Owner => None,
            Origin::Host(ip) if ip.is_loopback() => Some(Ipv4Addr::LOCALHOST.into()),
            Origin::Host(IpAddr::V4(ip)) => Some(ip.into()),
            Origin::Host(IpAddr::V6(ip)) => Some(Ipv6Addr::from_bits(ip.to_bits() >> 72 << 72).into()),
        })
    }
}

impl Connections {
    /// Lets a connection in; if there are too many, another one ends for it.
    fn admit(&mut self, peer: Origin, turn: Rc<Turn>, serve: impl Future<Output = ()> + 'static) {
        let holder = Holder::of(peer);
        // Those who listen have places of their own.
        let others = || self.open.iter().filter(|open| !open.turn.is_streaming());
        let held = others().filter(|open| open.holder == holder).count();
        if held >= self.bounds.per_peer {
            self.make_room(|open| open.holder == holder);
        } else if others().count() >= self.bounds.connections {
            self.make_room(|_| true);
        }
        let end = self.tasks.spawn_local(serve);
        self.open.push(Open { task: end.id(), end, holder, turn });
    }

    /// Ends the connection among these that has the least to lose.
    fn make_room(&mut self, is_meant: impl Fn(&Open) -> bool) {
        let claims = self.open.iter().enumerate().filter(|(_, open)| is_meant(open));
        let least = claims.filter_map(|(place, open)| Some((open.turn.claim()?, place))).min();
        if let Some((_, place)) = least {
            self.open.swap_remove(place).end.abort();
        }
    }

    /// Forgets a connection that has ended.
    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) -> io::Result<()> {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) if error.is_panic() => return Err(io::Error::other(error)),
            Err(error) => error.id(),
        };
        self.open.retain(|open| open.task != id);
        Ok(())
    }
}

/// How long a client may stay connected without asking: longer than the usual time between scrapes.
const IDLE: Duration = Duration::from_secs(75);
/// How long to leave the listener alone when it gives no connections.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_a_connection_that_can_make_room() {
        for connections in 0..=64 {
            let Bounds { connections, per_peer, at_work, waiting } = Bounds::of(connections);
            assert!(0 < at_work && 0 < waiting, "{connections}");
            assert!(at_work + waiting < per_peer && per_peer <= connections, "{connections}");
        }
    }

    #[test]
    fn a_peer_is_known_whatever_address_it_shows() {
        let holder = |text: &str| Holder::of(Origin::Host(text.parse().expect("an address")));
        for (one, other, is_same) in [
            ("127.0.0.1", "127.9.9.9", true),
            ("127.0.0.1", "::1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8:0:1::1", "2001:db8:0:2::2", true),
            ("2001:db8:0:100::1", "2001:db8:0:200::1", false),
        ] {
            assert_eq!(holder(one) == holder(other), is_same, "{one} {other}");
        }
        assert_ne!(holder("127.0.0.1"), Holder::of(Origin::Owner));
    }
}
