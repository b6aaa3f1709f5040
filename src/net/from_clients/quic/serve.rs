//! One worker's part of a QUIC listener: a task that reads its sockets, owns its connections, and sends their
//! output.
//!
//! Each turn:
//!
//! 1. Pass received datagrams to their connections or to other workers, and take those that other workers
//!    passed on. Initials and other handshake datagrams wait at the gate.
//! 2. If it is our turn at the gate, run one handshake step.
//! 3. Handle expired timers.
//! 4. Connections hand over queries and write responses. Immediate answers are written in the same turn.
//! 5. Send all output with few system calls.
//!
//! When the address is no longer served, or another process reads the sockets, the task reads the remaining
//! datagrams and closes each connection (`DOQ_NO_ERROR`) after its last response. The other process drops
//! datagrams of these connections, because it does not know their IDs.

use std::future::{pending, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::task::yield_now;
use tokio::time::sleep_until;

use super::listener::QuicListener;
use super::worker::QuicWorker;
use crate::address::ListenAddress;
use crate::metrics::{Counters, DropReason};
use crate::net::from_clients::tcp::{ConnectionTable, Gate, Responder, ServedAddresses};
use crate::net::from_clients::udp::{ListenerSocket, inbox};
use crate::net::sys::busy_poll::BusyPoll;

/// A worker's part of a listener.
pub struct QuicListenerPart {
    /// The sockets; output leaves through the first.
    pub sockets: Vec<Rc<ListenerSocket>>,
    /// The address, as bound.
    pub address: ListenAddress,
    /// The state shared with other workers.
    pub listener: Arc<QuicListener>,
    /// The number of the worker.
    pub worker: u16,
    /// The counters of the worker.
    pub counters: Arc<Counters>,
    /// The gate that keeps handshakes from delaying queries.
    pub gate: Rc<Gate>,
    /// The busy-poll setting.
    pub busy_poll: BusyPoll,
}

/// Serves clients while the address is served, and then until their queries have responses. Reading stops
/// when `is_over` completes or its sender is dropped.
///
/// Datagrams of clients that `admits` rejects are dropped. `handle` gets each message and calls its
/// [`Responder`] once.
pub async fn serve(
    listening: QuicListenerPart,
    table: Arc<ConnectionTable>,
    mut served: watch::Receiver<ServedAddresses>,
    mut is_over: oneshot::Receiver<()>,
    admits: impl Fn(IpAddr) -> bool,
    handle: impl Fn(&[u8], &Responder),
) {
    let QuicListenerPart { sockets, address, listener, worker, counters, gate, mut busy_poll } = listening;
    let mut pressure = table.pressure();
    let started = *pressure.borrow_and_update();
    let mut work =
        QuicWorker::new((Arc::clone(&listener), worker, address.socket), (table, counters), started, admits, handle);
    let mut batch = inbox();
    let mut alarm = pin!(sleep_until((Instant::now() + FAR).into()));
    let mut turn: Option<Pin<Box<dyn Future<Output = ()>>>> = None;
    let (mut is_stopped, mut is_gone, mut has_more) = (false, false, false);
    loop {
        if turn.is_none() && work.has_steps() {
            let gate = Rc::clone(&gate);
            turn = Some(Box::pin(async move { gate.turn().await }));
        }
        let next = work.next_alarm().unwrap_or_else(|| Instant::now() + FAR);
        if alarm.deadline().into_std() != next {
            alarm.as_mut().reset(next.into());
        }
        let (reads, mut is_our_turn) = (work.reads, false);
        let passed_on = async {
            match listener.box_of(worker) {
                Some(inbox) if reads => inbox.filled.notified().await,
                Some(_) | None => pending().await,
            }
        };
        work.has_taken = false;
        busy_poll
            .wait(async {
                tokio::select! {
                    () = poll_fn(|cx| work.poll_orders(&sockets, cx)) => {}
                    () = passed_on => {}
                    () = async { turn.as_mut().expect("there is one").await }, if turn.is_some() => is_our_turn = true,
                    () = &mut alarm => {}
                    changed = served.changed(), if !is_gone => is_gone = changed.is_err(),
                    changed = pressure.changed() => if changed.is_ok() { work.look_at_all() },
                    _ = &mut is_over, if !is_stopped => is_stopped = true,
                    () = yield_now(), if has_more => {}
                }
            })
            .await;
        let now = Instant::now();
        work.pressure = *pressure.borrow_and_update();
        has_more = false;
        if work.reads {
            for socket in &sockets {
                has_more |= socket.receive(&mut batch, |batch| work.take_batch(batch, now));
                work.counters.dropped_many(DropReason::Overload, socket.take_dropped());
            }
            has_more |= work.take_passed_on(now);
            if work.has_taken {
                busy_poll.renew();
            }
        }
        let (has_address, is_passed_on) = (served.borrow().has(address), served.borrow().is_passed_on(address));
        if is_stopped || is_gone || !has_address {
            if !work.is_ending {
                // Datagrams that have arrived by now can only be read here.
                for socket in &sockets {
                    socket.receive_last(|batch| work.take_batch(batch, now));
                }
                work.take_passed_on(now);
                work.settle(now);
                work.end(now);
            }
            work.reads = !has_address && !is_passed_on;
        }
        if is_our_turn {
            turn = None;
            work.make_step(now);
        }
        work.fire(now);
        has_more |= work.settle(now);
        has_more |= work.send(&sockets, now);
        if work.is_ending {
            work.close_finished(now);
            work.send(&sockets, now);
            if work.has_none_open() && (is_gone || !has_address) {
                return;
            }
        }
    }
}

const FAR: Duration = Duration::from_secs(3600);
