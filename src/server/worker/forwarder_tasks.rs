//! A worker's forwarder with its tasks. Its addresses may change while it runs.
//!
//! A removed address is read to its end at once. Its socket still sends pending responses. It closes when the
//! forwarder is idle, or when the last of these queries must have been answered.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;

use super::reading::{AddressReading, Checkpoint};
use super::xdp::{XdpTarget, XdpTargets};
use super::{AddressChange, ForwarderParts, Surroundings};
use crate::engine::single_flight::WorkerId;
use crate::forwarder::{Forwarder, ForwarderLinks, serve};
use crate::metrics::Counters;
use crate::net::from_clients::tcp::{ConnectionTable, Gate, Responder, ServedAddresses};
use crate::net::sys::batch;
use crate::net::sys::busy_poll::BusyPoll;
use crate::net::tasks::{Endless, LostTask, TaskKind, Tasks};
use crate::server::process::AddressSockets;

pub(super) struct ForwarderTasks {
    id: WorkerId,
    pub(super) forwarder: Rc<RefCell<Forwarder>>,
    /// Empty once the forwarder drains.
    readings: Vec<AddressReading>,
    served: watch::Sender<ServedAddresses>,
    /// Held by removed addresses until their work is done.
    leaving: Rc<watch::Sender<()>>,
    replies: Endless,
    handed_over: Endless,
    idle: Rc<Notify>,
    connections: Arc<ConnectionTable>,
    counters: Arc<Counters>,
    gate: Rc<Gate>,
    busy_poll: BusyPoll,
    tasks: Tasks,
    xdp: Rc<XdpTargets>,
}

impl ForwarderTasks {
    pub(super) fn start(parts: ForwarderParts, around: &Surroundings) -> io::Result<Self> {
        let ForwarderParts { shared, state, own, handed_over, change, backend_sockets, connections, fetches } = parts;
        let Surroundings { id, counters, busy_poll, tasks, taps, gate, xdp } = around;
        let idle = Rc::new(Notify::new());
        let links = ForwarderLinks {
            shared,
            backend_sockets,
            fetches,
            own,
            counters: Arc::clone(counters),
            idle: Rc::clone(&idle),
            tasks: tasks.clone(),
            taps: Rc::clone(taps),
            bypass: Rc::clone(xdp.bypass()),
        };
        let forwarder = Forwarder::new(*id, links, state, Instant::now())?;
        xdp.add_forwarder(&forwarder);
        let mut replies = Endless::new(TaskKind::Replies);
        let watched = batch::watch(forwarder.borrow().watched().try_clone_to_owned()?)?;
        replies.start(serve::take_replies(Rc::clone(&forwarder), watched, *busy_poll));
        let receiver = Rc::clone(&forwarder);
        let mut receiving = Endless::new(TaskKind::HandOver);
        receiving.start(async move {
            // Two workers of one number never run at the same time.
            let mut handed_over = handed_over.lock().await;
            while let Some(query) = handed_over.recv().await {
                receiver.borrow_mut().take_handed_over(&query, Instant::now());
            }
            Ok(())
        });
        let mut this = Self {
            id: *id,
            forwarder,
            readings: Vec::new(),
            served: watch::Sender::default(),
            leaving: Rc::default(),
            replies,
            handed_over: receiving,
            idle,
            connections,
            counters: Arc::clone(counters),
            gate: Rc::clone(gate),
            busy_poll: *busy_poll,
            tasks: tasks.clone(),
            xdp: Rc::clone(xdp),
        };
        this.listen(change)?;
        Ok(this)
    }

    pub(super) fn listen(&mut self, change: AddressChange) -> io::Result<()> {
        let AddressChange { served, new, checkpoint, owed_for } = change;
        let (stay, leave): (Vec<_>, Vec<_>) =
            self.readings.drain(..).partition(|reading| served.has(reading.address.listens_at()));
        self.readings = stay;
        for reading in leave {
            let is_passed_on = served.is_passed_on(reading.address.listens_at());
            let work = self.leave(reading, is_passed_on, checkpoint.clone(), owed_for);
            self.tasks.start_and_leave(TaskKind::Drain, work);
        }
        self.served.send_replace(served);
        for sockets in new {
            self.read(sockets, &checkpoint)?;
        }
        Ok(())
    }

    fn read(&mut self, sockets: AddressSockets, checkpoint: &Checkpoint) -> io::Result<()> {
        let (mut reading, listeners) = AddressReading::new(sockets, self.xdp.bypass())?;
        let number = reading.address.number;
        let (forwarder, gate) = (Rc::clone(&self.forwarder), Rc::clone(&self.forwarder));
        let is_quic = reading.serve_quic(
            &self.connections,
            self.served.subscribe(),
            (self.id, self.busy_poll),
            (&self.counters, &self.gate),
            move |client| gate.borrow().may_connect(client),
            move |message, responder| forwarder.borrow_mut().take_stream_query(message, responder, Instant::now()),
        );
        if is_quic {
            self.readings.push(reading);
            return Ok(());
        }
        if let Some(socket) = reading.sockets.first() {
            self.forwarder.borrow_mut().add_listener(number, Rc::clone(socket));
            let target = XdpTarget::Forwarder { forwarder: Rc::clone(&self.forwarder), listener: number };
            self.xdp.add(number, reading.address.bound(), target);
        }
        for socket in &reading.sockets {
            let (forwarder, socket, busy_poll) = (Rc::clone(&self.forwarder), Rc::clone(socket), self.busy_poll);
            let begin = checkpoint.clone().pass();
            reading.readers.start(async move {
                begin.await;
                serve::take_queries(forwarder, number, socket, busy_poll).await
            });
        }
        for listener in listeners {
            let (forwarder, gate) = (Rc::clone(&self.forwarder), Rc::clone(&self.forwarder));
            let admits = move |client| gate.borrow().may_connect(client);
            let handle = move |message: &[u8], responder: &Responder| {
                forwarder.borrow_mut().take_stream_query(message, responder, Instant::now());
            };
            let served = self.served.subscribe();
            reading.accept(listener, &self.connections, served, (&self.counters, &self.gate), admits, handle);
        }
        self.readings.push(reading);
        Ok(())
    }

    /// Reads a removed address to its end, and releases it after the last response.
    fn leave(
        &self,
        reading: AddressReading,
        is_passed_on: bool,
        checkpoint: Checkpoint,
        owed_for: Duration,
    ) -> impl Future<Output = ()> + 'static {
        let (forwarder, idle, xdp) = (Rc::clone(&self.forwarder), Rc::clone(&self.idle), Rc::clone(&self.xdp));
        let at_work = self.leaving.subscribe();
        async move {
            let AddressReading { address, sockets, readers, connections } = reading;
            readers.stop().await;
            let read_rest = || {
                // The owner of QUIC connections reads their sockets.
                let sockets = if is_passed_on || address.quic().is_some() { &[] } else { &*sockets };
                sockets.iter().for_each(|socket| serve::take_last_queries(&forwarder, address.number, socket));
            };
            read_rest();
            checkpoint.pass().await;
            let idle = async {
                while !forwarder.borrow().is_idle() {
                    idle.notified().await;
                }
            };
            let _ = timeout(owed_for, idle).await;
            // Datagrams that the kernel queued while the address was removed.
            read_rest();
            xdp.remove(address.number);
            forwarder.borrow_mut().remove_listener(address.number);
            drop((sockets, address));
            connections.finish().await;
            drop(at_work);
        }
    }

    pub(super) fn take_readers(&mut self) -> impl Iterator<Item = Endless> {
        self.readings.iter_mut().map(AddressReading::take_readers)
    }

    /// Takes pending queries only, and completes when each has its response. A second call, after all workers
    /// have completed, also finishes queries that workers handed over at the last moment.
    pub(super) fn drain(
        &mut self,
        is_passed_on: bool,
        done: oneshot::Sender<()>,
    ) -> impl Future<Output = ()> + 'static {
        let readings = std::mem::take(&mut self.readings);
        let kept = readings.iter().map(|reading| &reading.address).filter(|address| is_passed_on || address.is_kept());
        let served = ServedAddresses::nowhere(kept.map(|address| address.listens_at()));
        let (forwarder, idle, leaving) = (Rc::clone(&self.forwarder), Rc::clone(&self.idle), Rc::clone(&self.leaving));
        forwarder.borrow_mut().drain();
        let sender = self.served.clone();
        async move {
            let mut connections = Vec::new();
            for reading in readings {
                reading.readers.stop().await;
                if !served.is_passed_on(reading.address.listens_at()) && reading.address.quic().is_none() {
                    let last = |socket: &Rc<_>| serve::take_last_queries(&forwarder, reading.address.number, socket);
                    reading.sockets.iter().for_each(last);
                }
                connections.push(reading.connections);
            }
            sender.send_replace(served);
            for connections in connections {
                connections.finish().await;
            }
            leaving.closed().await;
            while !forwarder.borrow().is_idle() {
                idle.notified().await;
            }
            let _ = done.send(());
        }
    }

    /// Ends while the worker continues: reads all addresses to their ends, and answers every query.
    pub(super) async fn end(mut self, change: AddressChange) -> io::Result<()> {
        let owed_for = change.owed_for;
        self.listen(change)?;
        self.forwarder.borrow_mut().drain();
        let leaving = Rc::clone(&self.leaving);
        tokio::select! {
            // Connections may take longer because of slow clients.
            _ = timeout(owed_for, leaving.closed()) => Ok(()),
            lost = poll_fn(|cx| self.poll_lost(cx)) => Err(io::Error::other(lost.to_string())),
        }
    }

    /// Returns ready if a task that takes queries or replies is lost.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<LostTask> {
        let own =
            [&mut self.replies, &mut self.handed_over].map(|set| set.poll_lost(cx)).into_iter().find(Poll::is_ready);
        let lost = own.or_else(|| self.readings.iter_mut().map(|reading| reading.poll_lost(cx)).find(Poll::is_ready));
        lost.unwrap_or(Poll::Pending)
    }
}
