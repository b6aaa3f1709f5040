//! The TS: the story of one query. A datagram comes in, the zone database answers it, the response leaves with the others of its
//! batch. There is nothing kept between two queries but the [`AuthorityState`], which is swapped whole, and the accounts of those whose
//! responses are limited. What is no plain query goes through `special.rs`.

mod notify;
mod special;
mod state;

use std::cell::{LazyCell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Semaphore, mpsc};

pub use self::notify::{PendingNotifies, ReceivedNotify};
use self::special::{Handled, Special, is_special, truncate};
pub use self::state::{AuthorityState, Source, ZoneTransfers};
use crate::limit::{Access, Decision, OnDenied, OwnAddresses, RefusedSources, ResponseRate};
use crate::metrics::{self, Counters, Dropped, Limit, Limited};
use crate::net::batch::{BATCH, Datagram, RecvBatch, SendBatch};
use crate::net::busy_poll::BusyPoll;
use crate::net::clock;
use crate::net::tasks::{TaskKind, Tasks};
use crate::net::tcp::Responder;
use crate::net::udp::{Socket, inbox};
use crate::net::xdp::{LinkId, WorkerSockets};
use crate::taps::{Side, Taken, Told, WorkerTaps};
use crate::wire::{
    Asks, Cookie, CookieState, MalformedCookie, Query, Rcode, Rejected, Transport, edns_of_rejected, read_query,
    write_error, write_prohibited,
};
use crate::zone::{self, RateKey, Reaction, ZoneDb};

/// One worker's part of a TS.
pub struct Authority {
    /// Its number.
    number: usize,
    /// What it answers from.
    state: RefCell<Arc<AuthorityState>>,
    /// Where no client is.
    own: RefCell<Arc<OwnAddresses>>,
    /// What is counted.
    counters: Arc<Counters>,
    /// How often clients met a limit.
    limited: Arc<Limited>,
    /// Where NOTIFY goes.
    notifies: mpsc::UnboundedSender<ReceivedNotify>,
    /// One for each transfer that may run at a time.
    transfers: Arc<Semaphore>,
    /// The tasks of this worker.
    tasks: Tasks,
    /// What observes queries.
    taps: Rc<WorkerTaps>,
    /// The worker's sockets of AF_XDP.
    xsks: Rc<WorkerSockets>,
}

/// What a worker's part of a TS is linked with.
pub struct Links {
    /// Where no client is.
    pub own: Arc<OwnAddresses>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// How often clients met a limit.
    pub limited: Arc<Limited>,
    /// Where NOTIFY goes.
    pub notifies: mpsc::UnboundedSender<ReceivedNotify>,
    /// The tasks of the worker, its transfers among them.
    pub tasks: Tasks,
    /// What observes queries.
    pub taps: Rc<WorkerTaps>,
    /// The worker's sockets of AF_XDP.
    pub xsks: Rc<WorkerSockets>,
}

impl Authority {
    /// Answers from `state`, as the authority of this number.
    pub fn new(number: usize, state: Arc<AuthorityState>, links: Links) -> Self {
        let Links { own, counters, limited, notifies, tasks, taps, xsks } = links;
        let transfers = Arc::new(Semaphore::new(TRANSFERS));
        let own = RefCell::new(own);
        let state = RefCell::new(state);
        Self { number, state, own, counters, limited, notifies, transfers, tasks, taps, xsks }
    }

    /// Answers from another state from now on. Transfers that have begun go on from theirs.
    pub fn set_state(&self, state: Arc<AuthorityState>) {
        self.state.replace(state);
    }

    /// No client is at any of these addresses.
    pub fn set_own_addresses(&self, own: Arc<OwnAddresses>) {
        self.own.replace(own);
    }

    /// Whether a client at this address may connect. That one may not is counted.
    pub fn may_connect(&self, client: IpAddr) -> bool {
        let is_welcome = self.state.borrow().access.may_connect(client);
        if !is_welcome {
            self.counters.dropped(Dropped::Denied);
        }
        is_welcome
    }

    /// Answers what a listener receives, for as long as it is polled.
    ///
    /// # Errors
    /// If the socket has left the runtime.
    pub async fn serve_udp(self: Rc<Self>, socket: Rc<Socket>, mut busy_poll: BusyPoll) -> io::Result<()> {
        if !self.xsks.is_gro_off() {
            // Forwarders use GSO; the clients of a forwarder hardly ever do, so its listeners are spared the price of GRO.
            socket.enable_gro();
        }
        let mut received = inbox();
        let mut responses = outbox();
        loop {
            busy_poll.wait(socket.readable()).await?;
            let has_more = socket.receive(&mut received, |batch| {
                self.answer_batch(&socket, batch, &mut responses);
                busy_poll.renew();
            });
            let dropped = socket.take_dropped();
            if dropped > 0 {
                self.counters.dropped_many(Dropped::Overload, dropped);
            }
            if has_more {
                // There may be more, but connections have their turn first.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Answers what has arrived at a listener by now, before it closes.
    pub fn answer_last(&self, socket: &Socket) {
        let mut responses = outbox();
        socket.receive_last(|batch| self.answer_batch(socket, batch, &mut responses));
    }

    /// Answers a batch of datagrams.
    fn answer_batch(&self, socket: &Socket, received: &RecvBatch, responses: &mut SendBatch) {
        let datagrams = (0..received.len()).filter_map(|index| received.datagram(index));
        self.answer_datagrams(socket, datagrams.map(|datagram| (datagram, None)), responses);
    }

    /// Answers up to [`BATCH`] datagrams for a listener, each with the port that it came to and its link if it came by AF_XDP: the response
    /// leaves the same way if it can, else by the listener's socket.
    pub fn answer_datagrams<'d>(
        &self,
        socket: &Socket,
        datagrams: impl Iterator<Item = (Datagram<'d>, Option<(u16, LinkId)>)> + Clone,
        responses: &mut SendBatch,
    ) {
        let (state, own) = (self.state.borrow(), self.own.borrow());
        let rate = state.rate.as_deref().map(|rate| (rate, Instant::now()));
        // The time of day, for cookies: few clients have any.
        let today = LazyCell::new(clock::unix_now_serial);
        zone::prefetch_memory(&state.zone_db, datagrams.clone().map(|(datagram, _)| datagram.bytes));
        for (datagram, by_xdp) in datagrams {
            let Datagram { peer, local, .. } = datagram;
            if own.are_source(peer.ip(), peer.port(), local.map(|local| local.ip())) {
                self.counters.dropped(Dropped::Source);
                continue;
            }
            let Some((client, message)) = socket.proxies().unwrap(peer, datagram.bytes) else {
                self.counters.dropped(Dropped::Proxy);
                continue;
            };
            let fill = |out: &mut Vec<u8>| {
                let arrival = self.read(&state, message, client.ip(), || *today);
                let mut reaction = match self.react(&state, &arrival, client, Transport::Udp, out) {
                    Handled::Reaction(reaction) => reaction,
                    // By UDP, a transfer is a datagram like any other.
                    Handled::Transfer(_) => Reaction::Silent,
                    Handled::Dropped(reason) => {
                        return self.drop_query(reason, &arrival, (client, Transport::Udp), out);
                    }
                };
                if let (Some((rate, now)), Reaction::Respond(rcode)) = (rate, reaction)
                    && rate.limits(client.ip())
                    && !arrival.is_proven()
                {
                    let decision = decide(rate, &state.zone_db, client.ip(), out, now);
                    if decision != Decision::Pass {
                        self.limited.count(Limit::Rate);
                    }
                    match decision {
                        Decision::Pass => {}
                        Decision::Slip => reaction = Reaction::Respond(slip(&arrival, rcode, out)),
                        Decision::Drop => {
                            return self.drop_query(Dropped::Limited, &arrival, (client, Transport::Udp), out);
                        }
                    }
                }
                self.count(reaction, &arrival, (client, Transport::Udp), out);
            };
            match by_xdp.zip(local) {
                None => responses.push_unless_empty(peer, local, fill),
                Some(((port, link), at)) => {
                    self.xsks.push(link, (SocketAddr::new(at.ip(), port), peer), fill, |message| {
                        responses.push_unless_empty(peer, local, |out| out.extend_from_slice(message));
                    });
                }
            }
        }
        // Straight to the socket: responses do not wait for it to become writable.
        responses.flush(socket, |_, _| self.counters.dropped(Dropped::Unsent));
        self.xsks.flush();
        self.taps.end_turn();
    }

    /// Answers a query that came by a connection.
    pub fn answer_stream_query(&self, message: &[u8], responder: &Responder) {
        let mut out = Vec::new();
        let state = Arc::clone(&self.state.borrow());
        let transport = responder.transport();
        let asker = (responder.peer(), transport);
        let arrival = self.read(&state, message, responder.peer().ip(), clock::unix_now_serial);
        let reaction = match self.react(&state, &arrival, responder.peer(), transport, &mut out) {
            Handled::Reaction(reaction) => reaction,
            Handled::Transfer(transfer) => match Arc::clone(&self.transfers).try_acquire_owned() {
                Ok(permit) => {
                    let parts = responder.respond_in_parts();
                    self.count(Reaction::Respond(Rcode::NOERROR), &arrival, asker, &mut out);
                    self.taps.end_turn();
                    self.tasks.start_and_leave(TaskKind::Transfer, async move {
                        transfer.send(parts).await;
                        drop(permit);
                    });
                    return;
                }
                // Who is told so asks again later.
                Err(_) => {
                    write_error(message, Rcode::SERVFAIL, arrival.cookie.as_ref(), UDP_SIZE, &mut out);
                    Reaction::Respond(Rcode::SERVFAIL)
                }
            },
            Handled::Dropped(reason) => {
                self.drop_query(reason, &arrival, asker, &mut out);
                self.taps.end_turn();
                return responder.respond(|_| {});
            }
        };
        if let Some(edns) = edns_of_rejected(message) {
            responder.add_hop_options(Asks::of(&edns), &mut out);
        }
        self.count(reaction, &arrival, asker, &mut out);
        self.taps.end_turn();
        responder.respond(|response| *response = out);
    }

    /// Reads one message, and looks at its cookie.
    fn read<'m>(
        &self,
        state: &AuthorityState,
        message: &'m [u8],
        client: IpAddr,
        today: impl FnOnce() -> u32,
    ) -> Arrival<'m> {
        let read = read_query(message);
        let cookies = state.cookies.as_ref();
        let cookie = cookies.map_or(Ok(None), |cookies| cookies.answer(&read, message, client, today));
        self.counters.cookie(&cookie);
        match cookie {
            Ok(cookie) => Arrival { message, read, cookie },
            // RFC 7873 section 5.2.2.
            Err(MalformedCookie) => Arrival { message, read: Err(Rejected::Answer(Rcode::FORMERR)), cookie: None },
        }
    }

    /// Reacts to one message.
    fn react(
        &self,
        state: &AuthorityState,
        arrival: &Arrival<'_>,
        peer: SocketAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Handled {
        #[cfg(feature = "faults")]
        crate::faults::on_message(arrival.message);
        let Arrival { message, read, cookie } = arrival;
        let cookie = cookie.as_ref();
        if !state.access.admits(peer.ip()) {
            if DENIED.is_due(peer.ip(), clock::unix_now()) {
                tracing::warn!(client = %peer.ip(), "a client is refused: allow and deny of the authority do not admit it");
            }
            return deny(&state.access, arrival, out);
        }
        if is_special(read, message) {
            let client = peer.ip();
            let limited = &*self.limited;
            let special = Special { authority: self.number, state, message, read, cookie, client, limited, transport };
            return special.react(&self.notifies, out);
        }
        Handled::Reaction(zone::respond_to(&state.zone_db, read, cookie, message, transport, UDP_SIZE, out))
    }

    /// Says nothing to a query, and counts why.
    fn drop_query(&self, reason: Dropped, arrival: &Arrival<'_>, asker: Asker, out: &mut Vec<u8>) {
        self.counters.query(asker.1);
        self.counters.dropped(reason);
        out.clear();
        self.tell(arrival, asker, None, out);
    }

    /// Counts what became of a message. `out` stays empty if there is nothing to say.
    fn count(&self, reaction: Reaction, arrival: &Arrival<'_>, asker: Asker, out: &mut Vec<u8>) {
        match reaction {
            Reaction::Respond(rcode) => {
                self.counters.query(asker.1);
                self.counters.responses(metrics::Source::Authority, rcode.0, 1);
                self.tell(arrival, asker, Some(rcode), out);
            }
            Reaction::Silent => self.drop_query(Dropped::Silent, arrival, asker, out),
            Reaction::Malformed => {
                self.counters.dropped(Dropped::Malformed);
                out.clear();
            }
        }
    }

    /// Tells the taps of a query and its response, if there is one.
    fn tell(&self, arrival: &Arrival<'_>, (client, transport): Asker, rcode: Option<Rcode>, response: &[u8]) {
        if self.taps.are_on() {
            let (side, now) = (Side::Authority, Instant::now());
            let (local, hash, message) = (None, None, arrival.message);
            self.taps.taken(&Taken { side, client, local, transport, now, hash, message });
            self.taps.told(&Told {
                side,
                client,
                local,
                transport,
                since: None,
                now,
                hash: None,
                question: arrival.read.as_ref().ok().map(|query| query.question.as_wire()),
                message: response,
                said: rcode.map(|rcode| (metrics::Source::Authority, rcode)),
                queries: 1,
                resolution: None,
            });
        }
    }
}

/// Room for the responses to one batch.
pub fn outbox() -> SendBatch {
    SendBatch::new(BATCH, UDP_SIZE.into())
}

/// Who has asked, and how.
type Asker = (SocketAddr, Transport);

/// A message that has come, read.
struct Arrival<'m> {
    /// Its octets.
    message: &'m [u8],
    read: Result<Query<'m>, Rejected>,
    /// What it gets for its cookie.
    cookie: Option<Cookie>,
}

impl Arrival<'_> {
    /// Whether its sender is where its address says. RFC 7873 section 5.2.5: who is that is nobody's victim, and needs no defense
    /// against the forged.
    fn is_proven(&self) -> bool {
        self.cookie.is_some_and(|cookie| cookie.state == CookieState::Valid)
    }
}

/// The clients that the log has named, for all workers.
static DENIED: RefusedSources = RefusedSources::empty();

/// Reacts to a message of a client that is not to be answered.
fn deny(access: &Access, arrival: &Arrival<'_>, out: &mut Vec<u8>) -> Handled {
    let Arrival { message, read, cookie } = arrival;
    match (read, access.on_denied()) {
        (Err(Rejected::Short | Rejected::NotAQuery), _) => return Handled::Reaction(Reaction::Malformed),
        (_, OnDenied::Drop) => return Handled::Dropped(Dropped::Denied),
        (Ok(_) | Err(Rejected::Answer(_)), OnDenied::Refused) => {}
    }
    write_prohibited(message, read.as_ref().ok(), cookie.as_ref(), UDP_SIZE, out);
    Handled::Reaction(Reaction::Respond(Rcode::REFUSED))
}

/// Writes what goes out in the place of a response above a rate; returns its rcode.
fn slip(arrival: &Arrival<'_>, rcode: Rcode, response: &mut Vec<u8>) -> Rcode {
    let Arrival { message, cookie, .. } = arrival;
    match cookie {
        // RFC 7873 section 5.2.3: who has a cookie of its own need not come by TCP, but with ours. Not more often than with TC,
        // or eight octets would have us answer all that is forged.
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

/// What becomes of a response by UDP, as far as rates go.
fn decide(rate: &ResponseRate, zone_db: &ZoneDb, client: IpAddr, response: &[u8], now: Instant) -> Decision {
    let rate_key = RateKey::of(zone_db, response);
    rate.decide(client, rate_key.name(), rate_key.category, now)
}

/// Largest UDP response, octets: what passes nearly everywhere without fragmentation (DNS Flag Day 2020).
const UDP_SIZE: u16 = 1232;

/// Transfers that one worker sends at a time for one authority. Each holds a message of 64 KiB or two.
const TRANSFERS: usize = 32;
