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
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::sleep_until;

use super::listener::{Inbox, QuicListener};
use super::worker::{Intake, QuicWorker};
use crate::from_clients::service::ConnectionService;
use crate::from_clients::tcp::Gate;
use crate::from_clients::udp::{ListenerSocket, inbox};
use crate::sys::busy_poll::BusyPoll;

/// A worker's part of a listener.
pub struct QuicListenerPart {
    /// The sockets; output leaves through the first.
    pub sockets: Vec<Rc<ListenerSocket>>,
    /// The state shared with other workers.
    pub listener: Arc<QuicListener>,
    /// The number of the worker.
    pub worker: u16,
    /// The busy-poll setting.
    pub busy_poll: BusyPoll,
}

/// Serves clients while the address is served, and then until their queries have responses. Reading stops
/// when `is_over` completes or its sender is dropped.
pub async fn serve(part: QuicListenerPart, service: ConnectionService, mut is_over: oneshot::Receiver<()>) {
    let QuicListenerPart { sockets, listener, worker, mut busy_poll } = part;
    let (address, gate, mut served) = (service.address, Rc::clone(&service.gate), service.served.clone());
    let mut pressure = service.table.pressure();
    let mut work = QuicWorker::new(service, Arc::clone(&listener), worker);
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
        let mut is_our_turn = false;
        let inbox = listener.box_of(worker).filter(|_| work.intake != Intake::Nothing);
        busy_poll
            .wait(async {
                tokio::select! {
                    () = poll_fn(|cx| work.poll_orders(&sockets, cx)) => {}
                    () = passed_on(inbox) => {}
                    () = async { turn.as_mut().expect("there is one").await }, if turn.is_some() => is_our_turn = true,
                    () = &mut alarm => {}
                    changed = served.changed(), if !is_gone => is_gone = changed.is_err(),
                    _ = pressure.changed() => {}
                    _ = &mut is_over, if !is_stopped => is_stopped = true,
                    () = yield_now(), if has_more => {}
                }
            })
            .await;
        let now = Instant::now();
        work.set_pressure(*pressure.borrow_and_update());
        has_more = work.receive(&sockets, &mut batch, &mut busy_poll, now);
        let (has_address, is_passed_on) = (served.borrow().has(address), served.borrow().is_passed_on(address));
        if is_stopped || is_gone || !has_address {
            work.end(&sockets, now);
            work.intake = if has_address || is_passed_on { Intake::Nothing } else { Intake::Known };
        }
        turn = turn.filter(|_| !is_our_turn);
        has_more |= work.turn(&sockets, is_our_turn, now);
        if work.intake != Intake::All && work.close_finished(&sockets, now) && (is_gone || !has_address) {
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
