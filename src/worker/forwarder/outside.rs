//! The I/O of a worker's engine: backend sockets, connections, listeners, other workers and the prober.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use dns::{Cookie, Reply, ShownCookie};
use engine::query_slots::{QuerySlot, SocketId, SocketSetId};
use engine::single_flight::WorkerId;
use engine::state::{ForwarderState, HealthEvent, HealthSignal, SharedBackend, SharedPool};
use engine::{
    AskedFor, ClientHandle as _, Destination, FetchQuery, Io, LateReport, NotSent, Outstanding, RaceRef, RaceReport,
    ResponseOrigin, ResponseSummary, SentAttempt, TcpQuery, Waiter,
};
use metrics::{Counters, DropReason};
use net::proxy_protocol::ClientHeader;
use net::refusal::SendRefusal;
use net::sys::clock;
use net::to_backends::connection::StreamProtocol;
use net::to_backends::sockets::{BackendSockets, StreamWay, TlsSource, UnsentMessage};

use super::explain::ExplainedRace;
use super::fetches::Fetches;
use super::recording::RaceRecording;
use super::responses::{ClientOutput, Delivery};
use super::{HandOver, ReplyChannel, SharedForwarder};
use crate::control::observe::taps::{AttemptMessage, WorkerTaps};

pub(super) struct WorkerIo {
    pub(super) me: WorkerId,
    pub(super) state: Arc<ForwarderState>,
    pub(super) shared: Arc<SharedForwarder>,
    pub(super) backend_sockets: BackendSockets,
    /// Queries that could not be sent. The engine handles them before the tick ends.
    pub(super) refused: Vec<UnsentMessage>,
    pub(super) fetches: Fetches,
    pub(super) way: ClientOutput,
    pub(super) by_stream: Vec<(SocketSetId, Arc<SharedBackend>)>,
    pub(super) counters: Arc<Counters>,
    pub(super) taps: Rc<WorkerTaps>,
    pub(super) explained: Option<ExplainedRace>,
    pub(super) recording: RaceRecording,
}

impl Io for WorkerIo {
    type Client = ReplyChannel;

    fn add_backend(&mut self, backend: &Arc<SharedBackend>) -> SocketSetId {
        if !backend.is_by_stream() {
            return self.backend_sockets.add(backend.address.socket);
        }
        let way = self.stream_way(backend);
        let sockets = self.backend_sockets.add_by_stream(backend.address.socket, way);
        self.by_stream.push((sockets, Arc::clone(backend)));
        sockets
    }

    fn is_cold(&self, sockets: SocketSetId) -> bool {
        self.backend_sockets.connections.is_cold(sockets)
    }

    fn dial(&mut self, sockets: SocketSetId, now: Instant) {
        self.backend_sockets.connections.dial(sockets, now);
    }

    fn opened(&self, socket: SocketId) -> Option<Instant> {
        self.backend_sockets.connections.opened_at(socket)
    }

    fn remove_backend(&mut self, sockets: SocketSetId, lost: &mut Vec<QuerySlot>) {
        self.by_stream.retain(|(other, _)| *other != sockets);
        self.backend_sockets.remove(sockets, lost);
    }

    fn choose(&mut self, to: &Destination<'_, ReplyChannel>, now: Instant) -> Result<SocketId, NotSent> {
        let Destination { sockets, avoid, ref asked_for } = *to;
        if self.backend_sockets.udp.is_full(sockets) {
            self.backend_sockets.flush(&mut self.refused);
        }
        // Only connections belong to a client.
        let is_by_stream = self.backend_sockets.connections.has(sockets);
        let header = if is_by_stream { self.header(asked_for, true) } else { None };
        self.backend_sockets.choose(sockets, avoid, header.as_ref(), now).map_err(not_sent)
    }

    fn permits(&self, slot: QuerySlot) -> bool {
        self.backend_sockets.connections.permits(slot)
    }

    fn send(
        &mut self,
        slot: QuerySlot,
        to: &Destination<'_, ReplyChannel>,
        _outstanding: Outstanding,
        attempt: &SentAttempt<'_>,
        now: Instant,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), NotSent> {
        let header = self.header(&to.asked_for, false);
        let Self { backend_sockets, taps, .. } = self;
        let write = |out: &mut Vec<u8>| {
            write(out);
            if taps.take_messages() {
                dns::set_id(out, slot.id());
                taps.attempt(&attempt_message(attempt, now, None, out));
            }
        };
        backend_sockets.queue(slot, header.as_ref(), write).map_err(not_sent)
    }

    fn heard(&mut self, attempt: &SentAttempt<'_>, sent: Instant, reply: &Reply<'_>, now: Instant) {
        if self.taps.take_messages() {
            self.taps.attempt(&attempt_message(attempt, sent, Some(now), reply.as_wire()));
        }
    }

    fn free(&mut self, slot: QuerySlot, now: Instant) {
        self.backend_sockets.free(slot, now);
    }

    fn take_back(&mut self, sockets: SocketSetId, lost: &mut Vec<QuerySlot>) {
        self.backend_sockets.take_back(sockets, lost);
    }

    fn shun(&mut self, socket: SocketId) {
        self.backend_sockets.shun(socket, &mut self.refused);
    }

    fn count_near_miss(&mut self, socket: SocketId) -> u8 {
        self.backend_sockets.udp.count_near_miss(socket)
    }

    fn void(&mut self, socket: SocketId, now: Instant, lost: &mut Vec<QuerySlot>) {
        self.backend_sockets.flush(&mut self.refused);
        self.backend_sockets.udp.void(socket, now, lost);
    }

    fn ask_by_tcp(&mut self, outstanding: Outstanding, query: TcpQuery, asked_for: AskedFor<'_, ReplyChannel>) -> bool {
        self.fetches.start_attempt(outstanding, query, self.header(&asked_for, true))
    }

    fn fetch(
        &mut self,
        race: RaceRef,
        query: FetchQuery,
        asked_for: AskedFor<'_, ReplyChannel>,
        _now: Instant,
    ) -> bool {
        let is_wanted = query.backends.iter().any(|backend| backend.wants_header);
        let header = if is_wanted { self.header(&asked_for, true) } else { None };
        self.fetches.start(race, query, header)
    }

    fn late_cookie(&self, client: &ReplyChannel, shown: ShownCookie) -> Option<Cookie> {
        let cookies = self.state.cookies.as_deref()?;
        Some(cookies.answer_late(shown, client.ip(), clock::unix_now_serial()))
    }

    fn respond(
        &mut self,
        waiter: &Waiter<ReplyChannel>,
        resolution: &ResponseOrigin<'_>,
        summary: ResponseSummary,
        message: &mut Vec<u8>,
        now: Instant,
    ) {
        self.deliver(&Delivery::of(waiter, resolution, now), |out| {
            // A buffer with room is exchanged, not copied.
            if out.capacity() < message.len() {
                out.extend_from_slice(message);
            } else {
                std::mem::swap(out, message);
            }
            Some(summary)
        });
    }

    fn respond_nothing(
        &mut self,
        waiter: &Waiter<ReplyChannel>,
        resolution: &ResponseOrigin<'_>,
        question: &[u8],
        now: Instant,
    ) {
        if self.taps.are_on() && !waiter.client.is_admin() {
            let (client, question) = waiter.client.origin(question);
            let delivery = Delivery { client, ..Delivery::of(waiter, resolution, now) };
            self.taps.response(&delivery.tapped(Some(question), &[], None));
        }
        waiter.client.respond_nothing();
    }

    fn signal_prober(&mut self, backend: &Arc<SharedBackend>, signal: HealthSignal) {
        // A closed channel means that the process is ending.
        let _ = self.shared.health_events.send(HealthEvent { backend: Arc::clone(backend), what: signal });
    }

    fn race_over(&mut self, report: RaceReport<'_>) -> bool {
        tracing::debug!(
            pool = report.pool.config.name,
            qname = %report.qname(),
            qtype = %report.qtype(),
            outcome = report.outcome(),
            winner = report.winner(),
            kept = report.kept().map(|(what, backend)| tracing::field::display(format!("{what} of {backend}"))),
            took_us = report.took().as_micros() as u64,
            hedges_denied = report.race.hedges_denied(),
            attempts = %report,
            "race over"
        );
        let is_explained = report.clients.is_explained && self.explain_race(&report);
        let is_reported = self.taps.reports_slow_races() && report.is_slow() && self.report_slow(&report);
        let is_needed = is_explained || is_reported;
        self.recording.race_over(&report, is_needed) || is_needed
    }

    fn late_reply(&mut self, late: LateReport<'_>) {
        if !self.recording.late_reply(&late) {
            return;
        }
        self.explain_late(&late);
        if self.taps.reports_slow_races() {
            self.taps.late_reply(late.sent, |asked_at| late.late_reply::<&str>(asked_at));
        }
    }
}

impl WorkerIo {
    /// Hands a query over to the worker that races for its question.
    pub(super) fn hand_over(&mut self, to: WorkerId, message: &[u8], client: ReplyChannel) {
        let worker = self.shared.workers.get(usize::from(to.0));
        let Some(Ok(place)) = worker.map(|worker| worker.try_reserve()) else {
            // The other worker is overloaded. The client will retry.
            self.counters.dropped(DropReason::Overload);
            return client.respond_nothing();
        };
        self.shared.on_the_way[usize::from(to.0)].fetch_add(1, Relaxed);
        place.send(HandOver { message: message.to_vec(), client: client.for_another_worker() });
    }

    /// Counts a slow race and records it. Returns true if it was recorded.
    fn report_slow(&self, report: &RaceReport<'_>) -> bool {
        // A race for an operator alone is reported only to the operator.
        if report.clients.is_explained && report.clients.waiting <= 1 {
            return false;
        }
        report.pool.state.counters[usize::from(self.me.0)].slow_races.increment();
        self.taps.slow_race(report.race.started(), report.now, |at| report.as_json(at))
    }
}

impl WorkerIo {
    #[inline]
    fn header(&self, asked_for: &AskedFor<'_, ReplyChannel>, is_stream: bool) -> Option<ClientHeader> {
        match *asked_for {
            AskedFor::Hidden => None,
            AskedFor::Ourselves => Some(ClientHeader::new(None, is_stream)),
            AskedFor::Client(client) => Some(self.header_of(client, is_stream)),
        }
    }

    #[cold]
    fn header_of(&self, client: &ReplyChannel, is_stream: bool) -> ClientHeader {
        let peer = client.peer();
        let asked = client.datagram().and_then(|way| self.way.asked_at(way)).or_else(|| client.connected_to());
        let asked = asked.unwrap_or_else(|| match peer {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        });
        ClientHeader::new((!client.is_admin()).then_some((peer, asked)), is_stream)
    }

    fn stream_way(&self, backend: &Arc<SharedBackend>) -> StreamWay {
        let is_its = |pool: &&Arc<SharedPool>| pool.backends.iter().any(|other| Arc::ptr_eq(other, backend));
        let pool = self.state.pools.iter().find(is_its);
        let config = pool.map(|pool| &pool.config);
        let (health, probe) =
            config.map_or_else(Default::default, |config| (config.rules.health, config.probe.clone()));
        let mut sign_of_life = Vec::new();
        dns::write_plain_query(0, &probe.name, probe.rtype, &mut sign_of_life);
        let counters = backend.counters(usize::from(self.me.0));
        let (of, tls) = (Arc::clone(backend), Arc::clone(&self.shared.tls));
        StreamWay {
            protocol: StreamProtocol::of(&backend.stream_server()),
            tls: backend.is_encrypted().then(|| Box::new(move || tls.of(&of.stream_server()).ok()) as Box<TlsSource>),
            rules: config.map(|config| config.connections).unwrap_or_default(),
            is_alone: pool.is_some_and(|pool| pool.backends.len() == 1),
            health_timeout: health.timeout,
            health_interval: health.interval,
            names_clients: backend.wants_header,
            sign_of_life,
            counters: Arc::clone(counters.connections.get_or_init(Arc::default)),
        }
    }

    pub(super) fn backend_of(&self, sockets: SocketSetId) -> Option<&SharedBackend> {
        self.by_stream.iter().find(|(other, _)| *other == sockets).map(|(_, backend)| &**backend)
    }

    pub(super) fn refresh_stream_ways(&mut self) {
        for place in 0..self.by_stream.len() {
            let (sockets, backend) = &self.by_stream[place];
            let (sockets, way) = (*sockets, self.stream_way(backend));
            self.backend_sockets.connections.set_way(sockets, way);
        }
    }
}

fn attempt_message<'a>(
    attempt: &SentAttempt<'a>,
    sent: Instant,
    received: Option<Instant>,
    octets: &'a [u8],
) -> AttemptMessage<'a> {
    let SentAttempt { hash, pool, backend, kind, since } = *attempt;
    let backend = pool.backend(backend);
    let SharedBackend { name, address, .. } = &**backend;
    let (pool, address, transport) = (&pool.config.name, address.socket, backend.transport());
    AttemptMessage { pool, backend: name, address, transport, kind, hash, since, sent, received, octets }
}

pub(super) fn not_sent(why: SendRefusal) -> NotSent {
    match why {
        // Both mean that no reply can come, so the engine queries the next backend at once.
        SendRefusal::Unreachable | SendRefusal::Paused => NotSent::Unreachable,
        SendRefusal::Unsent(want) => NotSent::Want(want),
        SendRefusal::Full => NotSent::Full,
    }
}

/// The initial buffer size of a query in bytes. Longer names make the buffer grow once.
pub(super) const USUAL_QUERY: usize = 128;
