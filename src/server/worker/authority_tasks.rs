//! A worker's authority with its tasks. Its addresses may change while it runs.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::watch;

use super::reading::{AddressReading, Checkpoint};
use super::xdp::{XdpTarget, XdpTargets};
use super::{AddressChange, AuthorityParts, Surroundings};
use crate::authority::{self, Authority};
use crate::engine::single_flight::WorkerId;
use crate::metrics::Counters;
use crate::net::from_clients::tcp::{ConnectionTable, Gate, Responder, ServedAddresses};
use crate::net::sys::busy_poll::BusyPoll;
use crate::net::tasks::{Endless, LostTask, TaskKind, Tasks};
use crate::server::process::AddressSockets;

pub(super) struct AuthorityTasks {
    id: WorkerId,
    pub(super) number: usize,
    pub(super) authority: Rc<Authority>,
    readings: Vec<AddressReading>,
    served: watch::Sender<ServedAddresses>,
    /// Held by removed addresses until their work is done.
    leaving: Rc<watch::Sender<()>>,
    connections: Arc<ConnectionTable>,
    counters: Arc<Counters>,
    gate: Rc<Gate>,
    busy_poll: BusyPoll,
    tasks: Tasks,
    xdp: Rc<XdpTargets>,
}

impl AuthorityTasks {
    pub(super) fn start(parts: AuthorityParts, around: &Surroundings) -> io::Result<Self> {
        let AuthorityParts { number, state, own, limited, notifies, change, connections } = parts;
        let Surroundings { counters, busy_poll, tasks, taps, xdp, .. } = around;
        let (counters, taps) = (Arc::clone(counters), Rc::clone(taps));
        let links = authority::AuthorityLinks {
            own,
            counters: Arc::clone(&counters),
            limited,
            notifies,
            tasks: tasks.clone(),
            taps,
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

    pub(super) fn listen(&mut self, change: AddressChange) -> io::Result<()> {
        let AddressChange { served, new, checkpoint, owed_for: _ } = change;
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

    fn read(&mut self, sockets: AddressSockets) -> io::Result<()> {
        let (mut reading, listeners) = AddressReading::new(sockets, self.xdp.bypass())?;
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
            let target = XdpTarget::authority(Rc::clone(&self.authority), Rc::clone(socket));
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

    /// Answers the pending queries of a removed address, and releases it.
    fn leave(
        &self,
        reading: AddressReading,
        is_passed_on: bool,
        checkpoint: Checkpoint,
    ) -> impl Future<Output = ()> + 'static {
        let (authority, xdp) = (Rc::clone(&self.authority), Rc::clone(&self.xdp));
        let at_work = self.leaving.subscribe();
        async move {
            let AddressReading { address, sockets, readers, connections } = reading;
            readers.stop().await;
            let answer_rest = || {
                // The owner of QUIC connections reads their sockets.
                let sockets = if is_passed_on || address.quic().is_some() { &[] } else { &*sockets };
                sockets.iter().for_each(|socket| authority.answer_last(socket));
            };
            answer_rest();
            checkpoint.pass().await;
            // Datagrams that the kernel queued while the address was removed.
            answer_rest();
            xdp.remove(address.number);
            drop((sockets, address));
            connections.finish().await;
            drop(at_work);
        }
    }

    pub(super) fn take_readers(&mut self) -> impl Iterator<Item = Endless> {
        self.readings.iter_mut().map(AddressReading::take_readers)
    }

    pub(super) async fn stop(mut self, is_passed_on: bool) {
        let kept = self.readings.iter().map(|reading| &reading.address);
        let kept = kept.filter(|address| is_passed_on || address.is_kept()).map(|address| address.listens_at());
        let served = ServedAddresses::nowhere(kept.collect::<Vec<_>>());
        // Addresses were removed before, or the worker ends: do not wait.
        if let Err(error) = self.listen(AddressChange::to(served)) {
            tracing::warn!(%error, "an authority ends");
        }
        self.leaving.closed().await;
    }

    pub(super) async fn end(mut self, change: AddressChange) -> io::Result<()> {
        self.listen(change)?;
        self.leaving.closed().await;
        Ok(())
    }

    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<LostTask> {
        self.readings.iter_mut().map(|reading| reading.poll_lost(cx)).find(Poll::is_ready).unwrap_or(Poll::Pending)
    }
}
