//! The authority: receives a datagram, answers it from the zone database, and sends the response with its
//! batch. Between two queries it keeps only the [`AuthorityState`], which is replaced whole, and the accounts
//! of rate limits. `special.rs` handles messages that are no plain queries.

mod special;
mod state;

use std::cell::{LazyCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use dns::{
    Asks, Cookie, CookieState, MalformedCookie, Query, QueryRejection, Rcode, Transport, edns_of_rejected, read_query,
    write_error, write_prohibited,
};
use limit::{Access, Decision, OnDenied, OwnAddresses, RefusedSources, ResponseRate};
use metrics::{Counters, DropReason, Limit, LimitCounters};
use net::from_clients::tcp::Responder;
use net::from_clients::udp::ListenerSocket;
use net::sys::batch::{BATCH, Datagram, SendBatch};
use net::sys::clock;
use net::tasks::{TaskKind, Tasks};
use tokio::sync::{Semaphore, mpsc};
use zone::{RateKey, Reaction, ZoneDb};

use self::special::{Special, SpecialOutcome, is_special, truncate};
pub use self::state::{AuthorityState, PendingNotifies, ReceivedNotify, SecondarySource, ZoneTransfers};
use crate::control::observe::taps::{Side, TapOrigin, TapQuery, TapResponse, WorkerTaps};

/// One worker's part of an authority.
pub struct Authority {
    number: usize,
    state: RefCell<Arc<AuthorityState>>,
    own: RefCell<Arc<OwnAddresses>>,
    links: AuthorityLinks,
    transfers: Arc<Semaphore>,
    /// The responses to one batch.
    responses: RefCell<SendBatch>,
}

/// The resources of a worker's part of an authority.
pub struct AuthorityLinks {
    /// hedgerow's listeners, which are never a client.
    pub own: Arc<OwnAddresses>,
    /// The counters of queries and responses.
    pub counters: Arc<Counters>,
    /// Counts clients that met a limit.
    pub limited: Arc<LimitCounters>,
    /// The channel for accepted NOTIFYs.
    pub notifies: mpsc::UnboundedSender<ReceivedNotify>,
    /// The tasks of the worker, its transfers among them.
    pub tasks: Tasks,
    /// The observers of queries.
    pub taps: Rc<WorkerTaps>,
}

impl Authority {
    /// Makes the authority of this number, which answers from `state`.
    pub fn new(number: usize, state: Arc<AuthorityState>, links: AuthorityLinks) -> Self {
        Self {
            number,
            state: RefCell::new(state),
            own: RefCell::new(Arc::clone(&links.own)),
            links,
            transfers: Arc::new(Semaphore::new(TRANSFERS)),
            responses: RefCell::new(SendBatch::new(BATCH, UDP_SIZE.into())),
        }
    }

    /// Replaces the state. Running transfers keep theirs.
    pub fn set_state(&self, state: Arc<AuthorityState>) {
        self.state.replace(state);
    }

    /// Replaces the addresses that are never a client.
    pub fn set_own_addresses(&self, own: Arc<OwnAddresses>) {
        self.own.replace(own);
    }

    /// Returns true if a client at this address may connect. Counts a refusal.
    pub fn may_connect(&self, client: IpAddr) -> bool {
        let is_welcome = self.state.borrow().access.may_connect(client);
        if !is_welcome {
            self.links.counters.dropped(DropReason::Denied);
        }
        is_welcome
    }

    /// Answers up to [`BATCH`] datagrams of a listener.
    pub fn answer_datagrams<'d>(&self, socket: &ListenerSocket, datagrams: impl Iterator<Item = Datagram<'d>> + Clone) {
        let responses = &mut *self.responses.borrow_mut();
        let (state, own) = (self.state.borrow(), self.own.borrow());
        let rate = state.rate.as_deref().map(|rate| (rate, Instant::now()));
        // The time of day for cookies, read lazily because few clients have any.
        let today = LazyCell::new(clock::unix_now_serial);
        zone::prefetch_memory(&state.zone_db, datagrams.clone().map(|datagram| datagram.bytes));
        for Datagram { bytes, peer, path, .. } in datagrams {
            if own.are_source(peer.ip(), peer.port(), path.local().map(|local| local.ip())) {
                self.links.counters.dropped(DropReason::Source);
                continue;
            }
            let Some((client, message)) = socket.proxies().unwrap(peer, bytes) else {
                self.links.counters.dropped(DropReason::Proxy);
                continue;
            };
            let fill = |out: &mut Vec<u8>| {
                let arrival = self.read(&state, message, client, Transport::Udp, || *today);
                let mut reaction = match self.react(&state, &arrival, out) {
                    SpecialOutcome::Reaction(reaction) => reaction,
                    // By UDP, a transfer is a datagram like any other.
                    SpecialOutcome::Transfer(_) => Reaction::Silent,
                    SpecialOutcome::Dropped(reason) => {
                        return self.drop_query(reason, &arrival, out);
                    }
                };
                if let (Some((rate, now)), Reaction::Respond(rcode)) = (rate, reaction)
                    && rate.limits(client.ip())
                    && !arrival.is_proven()
                {
                    let decision = decide(rate, &state.zone_db, client.ip(), out, now);
                    if decision != Decision::Pass {
                        self.links.limited.count(Limit::Rate);
                    }
                    match decision {
                        Decision::Pass => {}
                        Decision::Slip => reaction = Reaction::Respond(slip(&arrival, rcode, out)),
                        Decision::Drop => return self.drop_query(DropReason::Limited, &arrival, out),
                    }
                }
                self.count(reaction, &arrival, out);
            };
            socket.queue(responses, peer, path, fill);
        }
        socket.send(responses, |_, _| self.links.counters.dropped(DropReason::Unsent));
        self.links.taps.end_turn();
    }

    /// Answers a query from a connection.
    pub fn answer_stream_query(&self, message: &[u8], responder: &Responder) {
        let mut out = Vec::new();
        let state = Arc::clone(&self.state.borrow());
        let arrival = self.read(&state, message, responder.peer(), responder.transport(), clock::unix_now_serial);
        let reaction = match self.react(&state, &arrival, &mut out) {
            SpecialOutcome::Reaction(reaction) => reaction,
            SpecialOutcome::Transfer(transfer) => match Arc::clone(&self.transfers).try_acquire_owned() {
                Ok(permit) => {
                    let parts = responder.respond_in_parts();
                    self.count(Reaction::Respond(Rcode::NOERROR), &arrival, &mut out);
                    self.links.taps.end_turn();
                    self.links.tasks.start_and_leave(TaskKind::Transfer, async move {
                        transfer.send(parts).await;
                        drop(permit);
                    });
                    return;
                }
                // A client that gets this response retries later.
                Err(_) => {
                    write_error(message, Rcode::SERVFAIL, arrival.cookie.as_ref(), UDP_SIZE, &mut out);
                    Reaction::Respond(Rcode::SERVFAIL)
                }
            },
            SpecialOutcome::Dropped(reason) => {
                self.drop_query(reason, &arrival, &mut out);
                self.links.taps.end_turn();
                return responder.respond(|_| {});
            }
        };
        let asks = edns_of_rejected(message).map(|edns| Asks::of(&edns)).unwrap_or_default();
        responder.add_hop_options(asks, &mut out);
        self.count(reaction, &arrival, &mut out);
        self.links.taps.end_turn();
        responder.respond(|response| *response = out);
    }

    fn read<'m>(
        &self,
        state: &AuthorityState,
        message: &'m [u8],
        client: SocketAddr,
        transport: Transport,
        today: impl FnOnce() -> u32,
    ) -> AuthorityArrival<'m> {
        let read = read_query(message);
        let cookies = state.cookies.as_ref();
        let cookie = cookies.map_or(Ok(None), |cookies| cookies.answer(&read, message, client.ip(), today));
        self.links.counters.cookie(&cookie);
        let (read, cookie) = match cookie {
            Ok(cookie) => (read, cookie),
            // RFC 7873 section 5.2.2.
            Err(MalformedCookie) => (Err(QueryRejection::Answer(Rcode::FORMERR)), None),
        };
        AuthorityArrival { message, read, cookie, client, transport }
    }

    fn react(&self, state: &AuthorityState, arrival: &AuthorityArrival<'_>, out: &mut Vec<u8>) -> SpecialOutcome {
        let AuthorityArrival { message, read, cookie, client, transport } = arrival;
        #[cfg(feature = "faults")]
        net::faults::on_message(message);
        let client = client.ip();
        if !state.access.admits(client) {
            if DENIED.is_due(client, clock::unix_now()) {
                tracing::warn!(%client, "a client is refused: allow and deny of the authority do not admit it");
            }
            return deny(&state.access, arrival, out);
        }
        if is_special(read, message) {
            return Special { authority: self.number, state, arrival, links: &self.links }.react(out);
        }
        let reaction = zone::respond_to(&state.zone_db, read, cookie.as_ref(), message, *transport, UDP_SIZE, out);
        SpecialOutcome::Reaction(reaction)
    }

    fn drop_query(&self, reason: DropReason, arrival: &AuthorityArrival<'_>, out: &mut Vec<u8>) {
        self.links.counters.query(arrival.transport);
        self.links.counters.dropped(reason);
        out.clear();
        self.report_response(arrival, None, out);
    }

    fn count(&self, reaction: Reaction, arrival: &AuthorityArrival<'_>, out: &mut Vec<u8>) {
        match reaction {
            Reaction::Respond(rcode) => {
                self.links.counters.query(arrival.transport);
                self.links.counters.responses(metrics::ResponseSource::Authority, rcode.0, 1);
                self.report_response(arrival, Some(rcode), out);
            }
            Reaction::Silent => self.drop_query(DropReason::Silent, arrival, out),
            Reaction::Malformed => {
                self.links.counters.dropped(DropReason::Malformed);
                out.clear();
            }
        }
    }

    fn report_response(&self, arrival: &AuthorityArrival<'_>, rcode: Option<Rcode>, response: &[u8]) {
        if self.links.taps.are_on() {
            let (side, now) = (Side::Authority, Instant::now());
            let AuthorityArrival { message, client, transport, .. } = *arrival;
            let (local, hash) = (None, None);
            self.links.taps.taken(&TapQuery { side, client, local, transport, now, hash, message });
            self.links.taps.response(&TapResponse {
                side,
                client,
                local,
                transport,
                since: None,
                now,
                hash: None,
                question: arrival.read.as_ref().ok().map(|query| query.question.as_wire()),
                message: response,
                said: rcode.map(|rcode| (metrics::ResponseSource::Authority, rcode)),
                queries: 1,
                origin: TapOrigin::default(),
            });
        }
    }
}

struct AuthorityArrival<'m> {
    message: &'m [u8],
    read: Result<Query<'m>, QueryRejection>,
    cookie: Option<Cookie>,
    client: SocketAddr,
    transport: Transport,
}

impl AuthorityArrival<'_> {
    /// Returns true if a cookie proves the sender's address. RFC 7873 section 5.2.5: such a response cannot
    /// be part of a reflection attack.
    fn is_proven(&self) -> bool {
        self.cookie.is_some_and(|cookie| cookie.state == CookieState::Valid)
    }
}

/// The logged clients without access, for all workers.
static DENIED: RefusedSources = RefusedSources::empty();

fn deny(access: &Access, arrival: &AuthorityArrival<'_>, out: &mut Vec<u8>) -> SpecialOutcome {
    let AuthorityArrival { message, read, cookie, .. } = arrival;
    match (read, access.on_denied()) {
        (Err(QueryRejection::Short | QueryRejection::NotAQuery), _) => {
            return SpecialOutcome::Reaction(Reaction::Malformed);
        }
        (_, OnDenied::Drop) => return SpecialOutcome::Dropped(DropReason::Denied),
        (Ok(_) | Err(QueryRejection::Answer(_)), OnDenied::Refused) => {}
    }
    write_prohibited(message, read.as_ref().ok(), cookie.as_ref(), UDP_SIZE, out);
    SpecialOutcome::Reaction(Reaction::Respond(Rcode::REFUSED))
}

fn slip(arrival: &AuthorityArrival<'_>, rcode: Rcode, response: &mut Vec<u8>) -> Rcode {
    let AuthorityArrival { message, cookie, .. } = arrival;
    match cookie {
        // RFC 7873 section 5.2.3: a client with a cookie can return with the server's cookie instead of TCP.
        // This is not sent more often than TC, because an attacker could add eight bytes to each forged
        // query.
        Some(cookie) => {
            write_error(message, Rcode::BADCOOKIE, Some(cookie), UDP_SIZE, response);
            Rcode::BADCOOKIE
        }
        None => {
            truncate(message, None, response);
            rcode
        }
    }
}

fn decide(rate: &ResponseRate, zone_db: &ZoneDb, client: IpAddr, response: &[u8], now: Instant) -> Decision {
    let rate_key = RateKey::of(zone_db, response);
    rate.decide(client, rate_key.name(), rate_key.category, now)
}

/// Bytes of the largest UDP response, which passes nearly everywhere without fragmentation (DNS Flag Day
/// 2020).
const UDP_SIZE: u16 = 1232;

/// Concurrent transfers of one worker and authority. Each holds a message of 64 KiB or two.
const TRANSFERS: usize = 32;
