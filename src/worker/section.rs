//! A section of the config in a worker, the forwarder or an authority, with its tasks. Its addresses may
//! change while it runs.
//!
//! A removed address is read to its end at once. Its socket still sends pending responses. It closes when the
//! section is idle, or when the last of these queries must have been answered.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use metrics::DropReason;
use net::from_clients::quic::{self, QuicListenerPart};
use net::from_clients::service::{ConnectionService, ServedAddresses};
use net::from_clients::tcp::{self, ConnectionTable, Responder, TcpProtocols};
use net::from_clients::udp::{ListenerSocket, inbox};
use net::sys::batch::Datagram;
use net::tasks::{Endless, LostTask, TaskKind};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::reading::{AddressReading, Checkpoint};
use super::{AddressChange, Surroundings};
use crate::control::FrameDatagrams;
use crate::control::process::AddressSockets;

/// The queries of a section. Clones are the same section. `listener` is the number of an address.
pub(super) trait SectionService: Clone + 'static {
    fn may_connect(&self, client: IpAddr) -> bool;

    fn take_stream_query(&self, message: &[u8], responder: &Responder);

    fn take_datagrams<'d>(
        &self,
        listener: u16,
        socket: &ListenerSocket,
        datagrams: impl Iterator<Item = Datagram<'d>> + Clone,
    );

    /// Prepares to answer from a socket. The future ends when its datagrams may be read.
    fn begin(
        &self,
        listener: u16,
        socket: &Rc<ListenerSocket>,
        checkpoint: Checkpoint,
    ) -> impl Future<Output = ()> + 'static;

    /// Forgets an address, which sends nothing any more.
    fn forget(&self, listener: u16);

    /// Waits until no query is pending.
    fn settle(&self) -> impl Future<Output = ()>;
}

pub(super) struct WorkerSection<S> {
    pub(super) service: S,
    /// Empty once the section drains.
    pub(super) readings: Vec<AddressReading>,
    pub(super) served: watch::Sender<ServedAddresses>,
    /// Held by removed addresses until their work is done.
    pub(super) leaving: Rc<watch::Sender<()>>,
    connections: Arc<ConnectionTable>,
    around: Rc<Surroundings>,
}

impl<S: SectionService> WorkerSection<S> {
    pub(super) fn start(
        service: S,
        change: AddressChange,
        connections: Arc<ConnectionTable>,
        around: &Rc<Surroundings>,
    ) -> io::Result<Self> {
        let (readings, served, leaving) = (Vec::new(), watch::Sender::default(), Rc::default());
        let mut this = Self { service, readings, served, leaving, connections, around: Rc::clone(around) };
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
            self.around.tasks.start_and_leave(TaskKind::Drain, work);
        }
        self.served.send_replace(served);
        for sockets in new {
            self.read(sockets, &checkpoint)?;
        }
        Ok(())
    }

    fn read(&mut self, sockets: AddressSockets, checkpoint: &Checkpoint) -> io::Result<()> {
        let (mut reading, listeners) = AddressReading::new(sockets, self.around.frames.bypass())?;
        if reading.address.quic().is_some() {
            self.serve_quic(&mut reading);
        } else {
            for socket in &reading.sockets {
                let begun = self.service.begin(reading.address.number, socket, checkpoint.clone());
                reading.readers.start(self.take_datagrams(reading.address.number, Rc::clone(socket), begun));
            }
            reading.frames = reading.sockets.first().map(|socket| {
                let (service, number, socket) = (self.service.clone(), reading.address.number, Rc::clone(socket));
                let take = move |datagrams: FrameDatagrams<'_>| service.take_datagrams(number, &socket, datagrams);
                self.around.frames.listen(reading.address.bound(), take)
            });
            listeners.into_iter().for_each(|listener| self.accept(&mut reading, listener));
        }
        self.readings.push(reading);
        Ok(())
    }

    /// Passes the datagrams of a socket on while it is polled, once `begun` has ended.
    fn take_datagrams(
        &self,
        number: u16,
        socket: Rc<ListenerSocket>,
        begun: impl Future<Output = ()> + 'static,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let (service, around) = (self.service.clone(), Rc::clone(&self.around));
        let mut busy_poll = around.busy_poll;
        async move {
            begun.await;
            let mut batch = inbox();
            loop {
                busy_poll.wait(socket.readable()).await?;
                let has_more = socket.receive(&mut batch, |batch| {
                    service.take_datagrams(number, &socket, batch.datagrams());
                    busy_poll.renew();
                });
                let dropped = socket.take_dropped();
                if dropped > 0 {
                    around.counters.dropped_many(DropReason::Overload, dropped);
                }
                if has_more {
                    // There may be more, but replies and connections go first, so that queries in flight end.
                    yield_now().await;
                }
            }
        }
    }

    fn accept(&self, reading: &mut AddressReading, listener: TcpListener) {
        let address = &reading.address;
        let protocols = TcpProtocols {
            spoken: Arc::clone(address.spoken()),
            tls: address.tls().cloned(),
            proxies: Arc::clone(address.proxies()),
        };
        let service = self.connection_service(reading);
        reading.connections.start(endless(tcp::serve(listener, service, protocols)));
    }

    fn serve_quic(&self, reading: &mut AddressReading) {
        let Some(listener) = reading.address.quic() else { return };
        let part = QuicListenerPart {
            sockets: reading.sockets.clone(),
            listener: Arc::clone(listener),
            worker: self.around.id.0,
            busy_poll: self.around.busy_poll,
        };
        let service = self.connection_service(reading);
        let is_over = reading.read_until_stopped();
        reading.connections.start(endless(quic::serve(part, service, is_over)));
    }

    fn connection_service(&self, reading: &AddressReading) -> ConnectionService {
        let (admitting, asked) = (self.service.clone(), self.service.clone());
        ConnectionService {
            address: reading.address.listens_at(),
            table: Arc::clone(&self.connections),
            served: self.served.subscribe(),
            counters: Arc::clone(&self.around.counters),
            gate: Rc::clone(&self.around.gate),
            admits: Box::new(move |client| admitting.may_connect(client)),
            handle: Rc::new(move |message: &[u8], responder: &Responder| asked.take_stream_query(message, responder)),
        }
    }

    /// Reads a removed address to its end, and releases it after the last response.
    fn leave(
        &self,
        reading: AddressReading,
        is_passed_on: bool,
        checkpoint: Checkpoint,
        owed_for: Duration,
    ) -> impl Future<Output = ()> + use<S> {
        let service = self.service.clone();
        let at_work = self.leaving.subscribe();
        async move {
            let AddressReading { address, sockets, frames, readers, connections } = reading;
            readers.stop().await;
            let read_rest = || {
                // The owner of QUIC connections reads their sockets.
                let sockets = if is_passed_on || !address.takes_datagrams() { &[] } else { &*sockets };
                sockets.iter().for_each(|socket| take_last(&service, address.number, socket));
            };
            read_rest();
            checkpoint.pass().await;
            let _ = timeout(owed_for, service.settle()).await;
            // Datagrams that the kernel queued while the address was removed.
            read_rest();
            service.forget(address.number);
            drop((frames, sockets, address));
            connections.finish().await;
            drop(at_work);
        }
    }

    pub(super) fn take_readers(&mut self) -> impl Iterator<Item = Endless> {
        self.readings.iter_mut().map(AddressReading::take_readers)
    }

    /// Returns the addresses that stay when the worker ends: those that another process reads, if the worker
    /// passes them on, or a service manager keeps.
    pub(super) fn kept(&self, is_passed_on: bool) -> ServedAddresses {
        let kept = self.readings.iter().map(|reading| &reading.address);
        let kept = kept.filter(|address| is_passed_on || address.is_kept()).map(|address| address.listens_at());
        ServedAddresses::nowhere(kept.collect::<Vec<_>>())
    }

    pub(super) async fn stop(mut self, is_passed_on: bool) {
        // Addresses were removed before, or the worker ends: do not wait.
        if let Err(error) = self.listen(AddressChange::to(self.kept(is_passed_on))) {
            tracing::warn!(%error, "an authority ends");
        }
        self.leaving.closed().await;
    }

    pub(super) async fn end(mut self, change: AddressChange) -> io::Result<()> {
        self.listen(change)?;
        self.leaving.closed().await;
        Ok(())
    }

    /// Returns ready if a task that takes queries is lost.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<LostTask> {
        self.readings.iter_mut().map(|reading| reading.poll_lost(cx)).find(Poll::is_ready).unwrap_or(Poll::Pending)
    }
}

/// Takes the datagrams that a removed address still has.
pub(super) fn take_last(service: &impl SectionService, listener: u16, socket: &ListenerSocket) {
    socket.receive_last(|batch| service.take_datagrams(listener, socket, batch.datagrams()));
}

async fn endless(work: impl Future<Output = ()>) -> io::Result<()> {
    work.await;
    Ok(())
}
