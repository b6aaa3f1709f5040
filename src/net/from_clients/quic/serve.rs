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

use super::listener::{Inbox, QuicListener};
use super::worker::{QuicService, QuicWorker};
use crate::address::ListenAddress;
use crate::metrics::Counters;
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
    let (socket, admits, handle) = (address.socket, &admits, &handle);
    let service = QuicService { listener: Arc::clone(&listener), worker, socket, table, counters, admits, handle };
    let mut work = QuicWorker::new(service, started);
    let mut batch = inbox();
    let mut alarm = pin!(sleep_until((Instant::now() + FAR).into()));
    let mut turn: Option<Pin<Box<dyn Future<Output = ()>>>> = None;
    let (mut is_stopped, mut is_gone, mut has_more) = (false, false, false);
    loop {
        if turn.is_none() && work.has_steps() {
            turn = Some(Box::pin(take_turn(Rc::clone(&gate))));
        }
        let next = work.connections.next_alarm().unwrap_or_else(|| Instant::now() + FAR);
        if alarm.deadline().into_std() != next {
            alarm.as_mut().reset(next.into());
        }
        let (reads, mut is_our_turn) = (work.reads, false);
        let inbox = listener.box_of(worker).filter(|_| reads);
        busy_poll
            .wait(async {
                tokio::select! {
                    () = poll_fn(|cx| work.poll_orders(&sockets, cx)) => {}
                    () = passed_on(inbox) => {}
                    () = async { turn.as_mut().expect("there is one").await }, if turn.is_some() => is_our_turn = true,
                    () = &mut alarm => {}
                    changed = served.changed(), if !is_gone => is_gone = changed.is_err(),
                    changed = pressure.changed() => if changed.is_ok() { work.connections.set_all_alarms(work.pressure) },
                    _ = &mut is_over, if !is_stopped => is_stopped = true,
                    () = yield_now(), if has_more => {}
                }
            })
            .await;
        let now = Instant::now();
        work.pressure = *pressure.borrow_and_update();
        has_more = work.receive(&sockets, &mut batch, now);
        if work.has_taken {
            busy_poll.renew();
        }
        let (has_address, is_passed_on) = (served.borrow().has(address), served.borrow().is_passed_on(address));
        if is_stopped || is_gone || !has_address {
            work.end(&sockets, now);
            work.reads = !has_address && !is_passed_on;
        }
        turn = turn.filter(|_| !is_our_turn);
        has_more |= work.turn(&sockets, is_our_turn, now);
        if work.is_ending && work.close_finished(&sockets, now) && (is_gone || !has_address) {
            return;
        }
    }
}

async fn take_turn(gate: Rc<Gate>) {
    gate.turn().await;
}

/// Waits for datagrams that other workers pass on.
async fn passed_on(inbox: Option<&Inbox>) {
    match inbox {
        Some(inbox) => inbox.filled.notified().await,
        None => pending().await,
    }
}

const FAR: Duration = Duration::from_secs(3600);
