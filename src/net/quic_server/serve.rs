//! One worker's part of a listener by QUIC: a task that reads its sockets, has its connections, and sends what they have to say.
//!
//! Each turn, in plain lines:
//!
//! 1. Datagrams that have come are handed to their connections, those of other workers are passed on, and those that others have passed
//!    on are taken. Initials of new clients wait at the gate, and so does all else of a client that shakes hands.
//! 2. If it is our turn at the gate, one step of one handshake is made.
//! 3. Connections whose time has come are looked at.
//! 4. Those with something to do do it: queries are handed over, responses that have come are written. What is answered at once is
//!    written in the same turn.
//! 5. What they have to send leaves, by as few calls as can be.
//!
//! # The end
//!
//! When its address is served no more, or another process reads on, what has come by then is read and taken, and each connection is
//! closed (`DOQ_NO_ERROR`) when its last response is sent. What another process gets of our connections it drops, since it does
//! not know their IDs.

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
use super::worker::Work;
use crate::address::ListenAddress;
use crate::metrics::{Counters, Dropped};
use crate::net::busy_poll::BusyPoll;
use crate::net::tcp::{Connections, Gate, Responder, Served};
use crate::net::udp::{Socket, inbox};

/// What a worker has of a listener.
pub struct Listening {
    /// Its sockets; what is sent leaves by the first.
    pub sockets: Vec<Rc<Socket>>,
    /// Where they listen, really bound.
    pub address: ListenAddress,
    /// What it shares with the other workers.
    pub listener: Arc<QuicListener>,
    /// Its number.
    pub worker: u16,
    /// Its counters.
    pub counters: Arc<Counters>,
    /// Keeps handshakes from queries.
    pub gate: Rc<Gate>,
    /// How long it stays awake after work.
    pub busy_poll: BusyPoll,
}

/// Serves clients as long as the address is among those that are served, and then until their queries have their responses. `is_over`
/// ends when no more is to be read, or has a sender that is gone then.
///
/// Whom `admits` does not take, its datagrams are dropped. `handle` gets each message and owes its [`Responder`] one call.
pub async fn serve(
    listening: Listening,
    table: Arc<Connections>,
    mut served: watch::Receiver<Served>,
    mut is_over: oneshot::Receiver<()>,
    admits: impl Fn(IpAddr) -> bool,
    handle: impl Fn(&[u8], &Responder),
) {
    let Listening { sockets, address, listener, worker, counters, gate, mut busy_poll } = listening;
    let mut pressure = table.pressure();
    let started = *pressure.borrow_and_update();
    let mut work =
        Work::new((Arc::clone(&listener), worker, address.socket), (table, counters), started, admits, handle);
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
                    () = poll_fn(|cx| work.poll_told(&sockets, cx)) => {}
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
                work.counters.dropped_many(Dropped::Overload, socket.take_dropped());
            }
            has_more |= work.take_passed_on(now);
            if work.has_taken {
                busy_poll.renew();
            }
        }
        let (has_address, is_passed_on) = (served.borrow().has(address), served.borrow().is_passed_on(address));
        if is_stopped || is_gone || !has_address {
            if !work.is_ending {
                // What has come by now is ours: nobody else can read it.
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

/// A time that does not come, of an alarm that nobody has set.
const FAR: Duration = Duration::from_secs(3600);
