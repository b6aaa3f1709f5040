//! The epoll set of all sockets to backends, with an alarm.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use engine::query_slots::SocketId;
use rustix::event::epoll;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::connections::FIRST as FIRST_CONNECTION;
use crate::sys::batch::BATCH;

/// The epoll set of all sockets to backends, and the alarm.
pub struct Poller {
    pub(super) epoll: Rc<OwnedFd>,
    alarm: OwnedFd,
    alarm_at: Option<Instant>,
    asked_at: Instant,
}

/// An event of the sockets to backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A UDP socket has replies, or an error.
    Socket(SocketId),
    /// A connection has replies, or an error.
    Connection(SocketId),
    /// The time given to [`wake_at`](Poller::wake_at) has come.
    Alarm,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let alarm = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let edge = epoll::EventFlags::IN.union(epoll::EventFlags::ET);
        epoll::add(&epoll, &alarm, epoll::EventData::new_u64(ALARM), edge)?;
        Ok(Self { epoll: Rc::new(epoll), alarm, alarm_at: None, asked_at: Instant::now() })
    }

    /// Collects events without waiting. Returns true if there may be more.
    pub(super) fn ready(&mut self, events: &mut Vec<Event>) -> bool {
        let mut buffer = [MaybeUninit::<epoll::Event>::uninit(); BATCH];
        let Ok((found, _)) = epoll::wait(&self.epoll, &mut buffer, Some(&Timespec::default())) else { return false };
        for event in found.iter() {
            let data = event.data.u64();
            let number = SocketId(data as u32);
            events.push(match data {
                ALARM => {
                    self.alarm_at = None;
                    Event::Alarm
                }
                _ if number.0 >= FIRST_CONNECTION => Event::Connection(number),
                _ => Event::Socket(number),
            });
        }
        found.len() == BATCH
    }

    /// Requests an [`Event::Alarm`] at `at`. An earlier alarm, whose attempt is already answered, is
    /// postponed only if it would fire before the likely next call. A more distant one stays set.
    pub fn wake_at(&mut self, at: Instant, now: Instant) {
        let pause = now.saturating_duration_since(std::mem::replace(&mut self.asked_at, now));
        let near = now + pause.saturating_mul(PAUSES).min(NEAR);
        if self.alarm_at.is_some_and(|set| set == at || set < at && set > near) {
            return;
        }
        self.alarm_at = Some(at);
        // Zero would disable the timer.
        let wait = at.saturating_duration_since(now).max(Duration::from_nanos(1));
        let it_value = Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos() as _ };
        let spec = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &spec)
            .expect("the timer is ours and the time is sound");
    }
}

/// An unneeded alarm is postponed if it fires within this many times the pause since the last call.
const PAUSES: u32 = 4;

/// Upper bound of that interval; otherwise each reply would postpone the alarm of a long timeout.
const NEAR: Duration = Duration::from_millis(10);

const ALARM: u64 = u64::MAX;
