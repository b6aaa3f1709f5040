//! A worker's LS with its tasks: addresses come and go under it while it runs.
//!
//! An address that leaves is read to its end at once. What its clients are owed still leaves by its socket, which closes when the
//! LS is idle for a moment, or when the last of these queries must have had its response.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;

use super::reading::{Checkpoint, Reading};
use super::xdp::{Target, XdpTargets};
use super::{Change, ForwarderParts, Surroundings};
use crate::engine::single_flight::WorkerId;
use crate::forwarder::{Forwarder, Links, serve};
use crate::metrics::Counters;
use crate::net::batch;
use crate::net::busy_poll::BusyPoll;
use crate::net::tasks::{Endless, Lost, TaskKind, Tasks};
use crate::net::tcp::{Connections, Gate, Responder, Served};
use crate::server::listeners::AddressSockets;

/// A worker's LS.
pub(super) struct ForwarderTasks {
    id: WorkerId,
    pub(super) forwarder: Rc<RefCell<Forwarder>>,
    /// What takes queries; nothing once the LS drains.
    readings: Vec<Reading>,
    /// Tells connections which addresses are served.
    served: watch::Sender<Served>,
    /// Held by what has left and is still at work.
    leaving: Rc<watch::Sender<()>>,
    /// Reads the replies of backends; ends with this value.
    replies: Endless,
    /// Takes what other workers hand over; ends with this value.
    handed_over: Endless,
    /// Told when the last race is over.
    idle: Rc<Notify>,
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

impl ForwarderTasks {
    /// Starts taking queries.
    ///
    /// # Errors
    /// If the process has no descriptors left, or the system no randomness.
    pub(super) fn start(parts: ForwarderParts, around: &Surroundings) -> io::Result<Self> {
        let ForwarderParts { shared, state, own, handed_over, change, backend_sockets, connections, fetches } = parts;
        let Surroundings { id, counters, busy_poll, tasks, taps, gate, xdp } = around;
        let idle = Rc::new(Notify::new());
        let links = Links {
            shared,
            backend_sockets,
            fetches,
            own,
            counters: Arc::clone(counters),
            idle: Rc::clone(&idle),
            tasks: tasks.clone(),
            taps: Rc::clone(taps),
            xsks: Rc::clone(xdp.sockets()),
        };
        let forwarder = Forwarder::new(*id, links, state, Instant::now())?;
        xdp.add_forwarder(&forwarder);
        let mut replies = Endless::new(TaskKind::Replies);
        let watched = batch::watch(forwarder.borrow().watched().try_clone_to_owned()?)?;
        replies.start(serve::take_replies(Rc::clone(&forwarder), watched, *busy_poll));
        let receiver = Rc::clone(&forwarder);
        let mut receiving = Endless::new(TaskKind::HandOver);
        receiving.start(async move {
            // Of two workers of one number only one ever lives.
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

    /// Takes queries at other addresses from now on.
    ///
    /// # Errors
    /// If the runtime's own descriptors are exhausted.
    pub(super) fn listen(&mut self, change: Change) -> io::Result<()> {
        let Change { served, new, checkpoint, owed_for } = change;
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

    /// Begins to read an address.
    fn read(&mut self, sockets: AddressSockets, checkpoint: &Checkpoint) -> io::Result<()> {
        let (mut reading, listeners) = Reading::new(sockets)?;
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
            self.forwarder.borrow_mut().add_listener(number, reading.address.bound(), Rc::clone(socket));
            let target = Target::Forwarder { forwarder: Rc::clone(&self.forwarder), listener: number };
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

    /// Reads an address to its end, and lets go of it when nothing is owed to its clients any more.
    fn leave(
        &self,
        reading: Reading,
        is_passed_on: bool,
        checkpoint: Checkpoint,
        owed_for: Duration,
    ) -> impl Future<Output = ()> + 'static {
        let (forwarder, idle, xdp) = (Rc::clone(&self.forwarder), Rc::clone(&self.idle), Rc::clone(&self.xdp));
        let at_work = self.leaving.subscribe();
        async move {
            let Reading { address, sockets, readers, connections } = reading;
            readers.stop().await;
            let read_rest = || {
                // Those of QUIC are read by who has its connections.
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
            // What the kernel was about to queue when the address left.
            read_rest();
            xdp.remove(address.number);
            forwarder.borrow_mut().remove_listener(address.number);
            drop((sockets, address));
            connections.finish().await;
            drop(at_work);
        }
    }

    /// Takes away what reads datagrams.
    pub(super) fn take_readers(&mut self) -> impl Iterator<Item = Endless> {
        self.readings.iter_mut().map(Reading::take_readers)
    }

    /// Takes what has arrived by now, and nothing more; says so when every query has its response. Asked a second time,
    /// after all workers have said so, it also has finished what they handed over to each other at the last moment.
    pub(super) fn drain(
        &mut self,
        is_passed_on: bool,
        done: oneshot::Sender<()>,
    ) -> impl Future<Output = ()> + 'static {
        let readings = std::mem::take(&mut self.readings);
        let kept = readings.iter().map(|reading| &reading.address).filter(|address| is_passed_on || address.is_kept());
        let served = Served::nowhere(kept.map(|address| address.listens_at()));
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

    /// Ends while the worker goes on: reads all addresses to their ends, and gives every query that it has its response.
    pub(super) async fn end(mut self, change: Change) -> io::Result<()> {
        let owed_for = change.owed_for;
        self.listen(change)?;
        self.forwarder.borrow_mut().drain();
        let leaving = Rc::clone(&self.leaving);
        tokio::select! {
            // Connections may take longer: their clients are slow.
            _ = timeout(owed_for, leaving.closed()) => Ok(()),
            lost = poll_fn(|cx| self.poll_lost(cx)) => Err(io::Error::other(lost.to_string())),
        }
    }

    /// Whether a task is lost that takes queries or replies.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        let own =
            [&mut self.replies, &mut self.handed_over].map(|set| set.poll_lost(cx)).into_iter().find(Poll::is_ready);
        let lost = own.or_else(|| self.readings.iter_mut().map(|reading| reading.poll_lost(cx)).find(Poll::is_ready));
        lost.unwrap_or(Poll::Pending)
    }
}
