//! A worker's TS with its tasks: addresses come and go under it while it runs.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::watch;

use super::reading::{Checkpoint, Reading};
use super::xdp::{Target, XdpTargets};
use super::{AuthorityParts, Change, Surroundings};
use crate::authority::{self, Authority};
use crate::engine::single_flight::WorkerId;
use crate::metrics::Counters;
use crate::net::busy_poll::BusyPoll;
use crate::net::tasks::{Endless, Lost, TaskKind, Tasks};
use crate::net::tcp::{Connections, Gate, Responder, Served};
use crate::server::listeners::AddressSockets;

/// A worker's TS.
pub(super) struct AuthorityTasks {
    id: WorkerId,
    pub(super) number: usize,
    pub(super) authority: Rc<Authority>,
    /// What takes queries.
    readings: Vec<Reading>,
    /// Tells connections which addresses are served.
    served: watch::Sender<Served>,
    /// Held by what has left and is still at work.
    leaving: Rc<watch::Sender<()>>,
    /// The connections of all workers.
    connections: Arc<Connections>,
    counters: Arc<Counters>,
    /// Keeps handshakes from queries.
    gate: Rc<Gate>,
    busy_poll: BusyPoll,
    tasks: Tasks,
    /// Where datagrams by AF_XDP go.
    xdp: Rc<XdpTargets>,
}

impl AuthorityTasks {
    /// Starts answering.
    ///
    /// # Errors
    /// If the runtime's own descriptors are exhausted.
    pub(super) fn start(parts: AuthorityParts, around: &Surroundings) -> io::Result<Self> {
        let AuthorityParts { number, state, own, limited, notifies, change, connections } = parts;
        let Surroundings { counters, busy_poll, tasks, taps, xdp, .. } = around;
        let (counters, taps) = (Arc::clone(counters), Rc::clone(taps));
        let links = authority::Links {
            own,
            counters: Arc::clone(&counters),
            limited,
            notifies,
            tasks: tasks.clone(),
            taps,
            xsks: Rc::clone(xdp.sockets()),
        };
        let mut this = Self {
            id: around.id,
            number,
            authority: Rc::new(Authority::new(number, state, links)),
            readings: Vec::new(),
            served: watch::Sender::default(),
            leaving: Rc::default(),
            connections,
            counters,
            gate: Rc::clone(&around.gate),
            busy_poll: *busy_poll,
            tasks: tasks.clone(),
            xdp: Rc::clone(xdp),
        };
        this.listen(change)?;
        Ok(this)
    }

    /// Takes queries at other addresses from now on.
    ///
    /// # Errors
    /// If the runtime's own descriptors are exhausted.
    pub(super) fn listen(&mut self, change: Change) -> io::Result<()> {
        let Change { served, new, checkpoint, owed_for: _ } = change;
        let (stay, leave): (Vec<_>, Vec<_>) =
            self.readings.drain(..).partition(|reading| served.has(reading.address.listens_at()));
        self.readings = stay;
        for reading in leave {
            let is_passed_on = served.is_passed_on(reading.address.listens_at());
            let work = self.leave(reading, is_passed_on, checkpoint.clone());
            self.tasks.start_and_leave(TaskKind::Drain, work);
        }
        self.served.send_replace(served);
        for sockets in new {
            self.read(sockets)?;
        }
        Ok(())
    }

    /// Begins to read an address.
    fn read(&mut self, sockets: AddressSockets) -> io::Result<()> {
        let (mut reading, listeners) = Reading::new(sockets)?;
        let (authority, gate) = (Rc::clone(&self.authority), Rc::clone(&self.authority));
        let is_quic = reading.serve_quic(
            &self.connections,
            self.served.subscribe(),
            (self.id, self.busy_poll),
            (&self.counters, &self.gate),
            move |client| gate.may_connect(client),
            move |message, responder| authority.answer_stream_query(message, responder),
        );
        if is_quic {
            self.readings.push(reading);
            return Ok(());
        }
        if let Some(socket) = reading.sockets.first() {
            let target = Target::authority(Rc::clone(&self.authority), Rc::clone(socket));
            self.xdp.add(reading.address.number, reading.address.bound(), target);
        }
        for socket in &reading.sockets {
            let (authority, socket, busy_poll) = (Rc::clone(&self.authority), Rc::clone(socket), self.busy_poll);
            reading.readers.start(authority.serve_udp(socket, busy_poll));
        }
        for listener in listeners {
            let (authority, gate) = (Rc::clone(&self.authority), Rc::clone(&self.authority));
            let admits = move |client| gate.may_connect(client);
            let handle = move |message: &[u8], responder: &Responder| authority.answer_stream_query(message, responder);
            let served = self.served.subscribe();
            reading.accept(listener, &self.connections, served, (&self.counters, &self.gate), admits, handle);
        }
        self.readings.push(reading);
        Ok(())
    }

    /// Answers what an address has received, and lets go of it.
    fn leave(
        &self,
        reading: Reading,
        is_passed_on: bool,
        checkpoint: Checkpoint,
    ) -> impl Future<Output = ()> + 'static {
        let (authority, xdp) = (Rc::clone(&self.authority), Rc::clone(&self.xdp));
        let at_work = self.leaving.subscribe();
        async move {
            let Reading { address, sockets, readers, connections } = reading;
            readers.stop().await;
            let answer_rest = || {
                // Those of QUIC are read by who has its connections.
                let sockets = if is_passed_on || address.quic().is_some() { &[] } else { &*sockets };
                sockets.iter().for_each(|socket| authority.answer_last(socket));
            };
            answer_rest();
            checkpoint.pass().await;
            // What the kernel was about to queue when the address left.
            answer_rest();
            xdp.remove(address.number);
            drop((sockets, address));
            connections.finish().await;
            drop(at_work);
        }
    }

    /// Takes away what reads datagrams.
    pub(super) fn take_readers(&mut self) -> impl Iterator<Item = Endless> {
        self.readings.iter_mut().map(Reading::take_readers)
    }

    /// Answers what has arrived by now, and ends.
    pub(super) async fn stop(mut self, is_passed_on: bool) {
        let kept = self.readings.iter().map(|reading| &reading.address);
        let kept = kept.filter(|address| is_passed_on || address.is_kept()).map(|address| address.listens_at());
        let served = Served::nowhere(kept.collect::<Vec<_>>());
        // Addresses have left before, or this is all that happens: nobody is waited for.
        if let Err(error) = self.listen(Change::to(served)) {
            tracing::warn!(%error, "an authority ends");
        }
        self.leaving.closed().await;
    }

    /// Ends while the worker goes on.
    pub(super) async fn end(mut self, change: Change) -> io::Result<()> {
        self.listen(change)?;
        self.leaving.closed().await;
        Ok(())
    }

    /// Whether a task is lost that takes queries.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        self.readings.iter_mut().map(|reading| reading.poll_lost(cx)).find(Poll::is_ready).unwrap_or(Poll::Pending)
    }
}
