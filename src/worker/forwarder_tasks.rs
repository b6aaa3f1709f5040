//! A worker's forwarder with its tasks.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use net::Bypass;
use net::from_clients::tcp::Responder;
use net::from_clients::udp::ListenerSocket;
use net::sys::batch::{self, BATCH, Datagram, RecvBatch};
use net::sys::busy_poll::BusyPoll;
use net::tasks::{Endless, LostTask, TaskKind};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::reading::Checkpoint;
use super::section::{SectionService, WorkerSection, take_last};
use super::{AddressChange, ForwarderCommand, ForwarderParts, LEARNT_AT_ONCE, QueuedQueryFate, Surroundings};
use crate::worker::forwarder::{Forwarder, ForwarderLinks};

pub(super) struct ForwarderTasks {
    pub(super) forwarder: Rc<RefCell<Forwarder>>,
    pub(super) section: WorkerSection<ForwarderService>,
    replies: Endless,
    handed_over: Endless,
}

#[derive(Clone)]
pub(super) struct ForwarderService {
    forwarder: Rc<RefCell<Forwarder>>,
    idle: Rc<Notify>,
}

impl SectionService for ForwarderService {
    fn may_connect(&self, client: IpAddr) -> bool {
        self.forwarder.borrow().may_connect(client)
    }

    fn take_stream_query(&self, message: &[u8], responder: &Responder) {
        self.forwarder.borrow_mut().take_stream_query(message, responder, Instant::now());
    }

    fn take_datagrams<'d>(
        &self,
        listener: u16,
        _socket: &ListenerSocket,
        datagrams: impl Iterator<Item = Datagram<'d>> + Clone,
    ) {
        self.forwarder.borrow_mut().take_datagrams(listener, datagrams, Instant::now());
    }

    fn begin(
        &self,
        listener: u16,
        socket: &Rc<ListenerSocket>,
        checkpoint: Checkpoint,
    ) -> impl Future<Output = ()> + 'static {
        self.forwarder.borrow_mut().add_listener(listener, Rc::clone(socket));
        checkpoint.pass()
    }

    fn forget(&self, listener: u16) {
        self.forwarder.borrow_mut().remove_listener(listener);
    }

    async fn settle(&self) {
        while !self.forwarder.borrow().is_idle() {
            self.idle.notified().await;
        }
    }
}

impl ForwarderTasks {
    pub(super) fn start(parts: ForwarderParts, around: &Rc<Surroundings>) -> io::Result<Self> {
        let ForwarderParts { shared, state, own, handed_over, change, backend_sockets, connections, fetches } = parts;
        let Surroundings { id, counters, busy_poll, tasks, taps, frames, .. } = &**around;
        let idle = Rc::new(Notify::new());
        let links = ForwarderLinks {
            shared,
            backend_sockets,
            fetches,
            own,
            counters: counters.clone(),
            idle: Rc::clone(&idle),
            tasks: tasks.clone(),
            taps: Rc::clone(taps),
            bypass: Rc::clone(frames.bypass()),
        };
        let forwarder = Forwarder::new(*id, links, state, Instant::now())?;
        frames.add_forwarder(&forwarder);
        let mut replies = Endless::new(TaskKind::Replies);
        let watched = batch::watch(forwarder.borrow().watched().try_clone_to_owned()?)?;
        replies.start(take_replies(Rc::clone(&forwarder), Rc::clone(frames.bypass()), watched, *busy_poll));
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
        let service = ForwarderService { forwarder: Rc::clone(&forwarder), idle };
        let section = WorkerSection::start(service, change, connections, around)?;
        Ok(Self { forwarder, section, replies, handed_over: receiving })
    }

    pub(super) fn obey(&mut self, command: ForwarderCommand, around: &Surroundings) -> io::Result<()> {
        let now = Instant::now();
        let forwarder = &self.forwarder;
        match command {
            ForwarderCommand::SetAddresses(change) => self.section.listen(change)?,
            ForwarderCommand::SetState(state) => {
                around.timed("state", || forwarder.borrow_mut().set_state(state, now));
            }
            ForwarderCommand::Refresh => around.timed("health", || forwarder.borrow_mut().refresh_all(now)),
            ForwarderCommand::Explain(asked) => forwarder.borrow_mut().explain(*asked, now),
            ForwarderCommand::Learn(learnt) => forwarder.borrow_mut().learn(&learnt, now),
            ForwarderCommand::Record(request) => forwarder.borrow_mut().record(request, now),
            ForwarderCommand::SendLearnt(first, answer) => {
                let _ = answer.send(forwarder.borrow_mut().learnt(first, LEARNT_AT_ONCE, now));
            }
            // Further commands are taken meanwhile: a backend may die during the wait.
            ForwarderCommand::Drain(rest, done) => {
                let drain = self.drain(rest != QueuedQueryFate::Taken, done);
                around.tasks.start_and_leave(TaskKind::Drain, drain);
            }
        }
        Ok(())
    }

    /// Takes pending queries only, and completes when each has its response. A second call, after all workers
    /// have completed, also finishes queries that workers handed over at the last moment.
    fn drain(&mut self, is_passed_on: bool, done: oneshot::Sender<()>) -> impl Future<Output = ()> + 'static {
        let served = self.section.kept(is_passed_on);
        let readings = std::mem::take(&mut self.section.readings);
        let (service, leaving) = (self.section.service.clone(), Rc::clone(&self.section.leaving));
        self.forwarder.borrow_mut().drain();
        let sender = self.section.served.clone();
        async move {
            let mut connections = Vec::new();
            for reading in readings {
                reading.readers.stop().await;
                if !served.is_passed_on(reading.address.listens_at()) && reading.address.quic().is_none() {
                    let last = |socket: &Rc<_>| take_last(&service, reading.address.number, socket);
                    reading.sockets.iter().for_each(last);
                }
                connections.push(reading.connections);
            }
            sender.send_replace(served);
            for connections in connections {
                connections.finish().await;
            }
            leaving.closed().await;
            service.settle().await;
            let _ = done.send(());
        }
    }

    /// Ends while the worker continues: reads all addresses to their ends, and answers every query.
    pub(super) async fn end(mut self, change: AddressChange) -> io::Result<()> {
        let owed_for = change.owed_for;
        self.section.listen(change)?;
        self.forwarder.borrow_mut().drain();
        let leaving = Rc::clone(&self.section.leaving);
        tokio::select! {
            // Connections may take longer because of slow clients.
            _ = timeout(owed_for, leaving.closed()) => Ok(()),
            lost = poll_fn(|cx| self.poll_lost(cx)) => Err(io::Error::other(lost.to_string())),
        }
    }

    /// Returns ready if a task that takes queries or replies is lost.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<LostTask> {
        let own = [&mut self.replies, &mut self.handed_over].map(|set| set.poll_lost(cx));
        own.into_iter().find(Poll::is_ready).unwrap_or_else(|| self.section.poll_lost(cx))
    }
}

/// Handles replies of all backends, whose sockets are `watched`, while it is polled.
async fn take_replies(
    forwarder: Rc<RefCell<Forwarder>>,
    bypass: Rc<Bypass>,
    watched: AsyncFd<OwnedFd>,
    mut busy_poll: BusyPoll,
) -> io::Result<()> {
    let mut received = RecvBatch::for_gro(BATCH, MAX_REPLY);
    let mut events = Vec::with_capacity(BATCH);
    loop {
        let mut ready = busy_poll.wait(watched.readable()).await?;
        if bypass.is_active() {
            // Maybe the alarm. An arrived reply goes first, or a hedge would be sent for its attempt.
            yield_now().await;
        }
        let has_more = forwarder.borrow_mut().hear_backends(&mut events, &mut received, Instant::now());
        busy_poll.renew();
        if has_more {
            yield_now().await;
        } else {
            ready.clear_ready();
        }
    }
}

/// Bytes of the longest reply that is read whole. Backends get `edns_udp_size`, which is at most this.
const MAX_REPLY: usize = 4096;
