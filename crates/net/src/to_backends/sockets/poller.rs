//! The epoll set of all sockets to backends, with an alarm.

use std::io;
use std::mem::{self, MaybeUninit};
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
    timer: OwnedFd,
    alarm: Alarm,
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
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let edge = epoll::EventFlags::IN.union(epoll::EventFlags::ET);
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(ALARM), edge)?;
        Ok(Self { epoll: Rc::new(epoll), timer, alarm: Alarm::new(Instant::now()) })
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
                    self.alarm.set = None;
                    Event::Alarm
                }
                _ if number.0 >= FIRST_CONNECTION => Event::Connection(number),
                _ => Event::Socket(number),
            });
        }
        found.len() == BATCH
    }

    /// Requests an [`Event::Alarm`] at `at`. While calls are frequent, it may come later by up to half of the
    /// time until then, so the caller also checks the time in every turn.
    pub fn wake_at(&mut self, at: Instant, now: Instant) {
        let Some(wait) = self.alarm.request(at, now) else { return };
        // Zero would disable the timer.
        let wait = wait.max(Duration::from_nanos(1));
        let it_value = Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos() as _ };
        let spec = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)
            .expect("the timer is ours and the time is sound");
    }
}

/// The state of the alarm.
///
/// To set a timer costs microseconds on a virtual machine, and nearly all attempts are answered before their
/// hedge is due. So a set alarm serves later attempts too, until it would fire before the likely next call.
struct Alarm {
    /// The earliest time that the set alarm serves, and the time when it fires.
    set: Option<(Instant, Instant)>,
    requested_at: Instant,
    is_near: bool,
    /// The moving averages of the pause after a call, without attempts in flight and with.
    pauses: [Duration; 2],
    /// The distance of the last near alarm.
    reach: Duration,
}

impl Alarm {
    fn new(now: Instant) -> Self {
        Self { set: None, requested_at: now, is_near: false, pauses: [Duration::ZERO; 2], reach: Duration::ZERO }
    }

    /// Returns the time after which the timer has to fire, if it has to be set again.
    fn request(&mut self, at: Instant, now: Instant) -> Option<Duration> {
        let mut distance = at.saturating_duration_since(now);
        let pause = now.saturating_duration_since(mem::replace(&mut self.requested_at, now)).min(NEAR);
        let is_near = distance <= NEAR;
        let average = &mut self.pauses[usize::from(mem::replace(&mut self.is_near, is_near))];
        *average = (*average * 7 + pause) / 8;
        let [idle, busy] = self.pauses;
        let serves = self.set.filter(|(earliest, _)| *earliest <= at);
        let likely = now + if is_near { busy } else { idle } * 3 / 2;
        if serves.is_some_and(|(earliest, fires)| earliest == at || fires > likely) {
            return None;
        }
        if is_near {
            self.reach = distance;
        } else if serves.is_some() && self.reach > idle {
            // The next attempt would need a near alarm again.
            distance = distance.min(self.reach + idle / 2);
        }
        let late = if idle + busy < self.reach { (idle + busy).min(self.reach / 2) } else { Duration::ZERO };
        self.set = Some((now + distance, now + distance + late));
        Some(distance + late)
    }
}

/// The maximum distance of an alarm that counts as that of an attempt, and the maximum pause that counts.
const NEAR: Duration = Duration::from_millis(10);

const ALARM: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates queries with this pause that are answered after 50 µs, and hedged `delay` after sending.
    /// Returns how often the timer is set and how often it fires, for each 100 queries.
    fn simulate(pause: u64, delay: u64) -> (usize, usize) {
        let micros = Duration::from_micros;
        let start = Instant::now();
        let mut alarm = Alarm::new(start);
        let (mut set, mut fired) = (0, 0);
        let far = start + Duration::from_secs(3600);
        for query in 0..1000 {
            let sent = start + micros(query * pause);
            for (now, at) in [(sent, sent + micros(delay)), (sent + micros(50), far)] {
                if let Some((_, fires)) = alarm.set.filter(|(_, fires)| *fires <= now) {
                    alarm.set = None;
                    fired += 1;
                    set += usize::from(alarm.request(far, fires).is_some());
                }
                set += usize::from(alarm.request(at, now).is_some());
                let (earliest, fires) = alarm.set.expect("an alarm is requested");
                assert!(earliest <= at && fires <= at + micros(delay / 2), "a hedge is late at {pause}, {delay}");
            }
        }
        (set / 10, fired / 10)
    }

    #[test]
    fn alarm_serves_many_attempts() {
        for (pause, delay, expected) in [(100, 1000, 15), (333, 1000, 30), (333, 400, 105), (5000, 1000, 200)] {
            let (set, fired) = simulate(pause, delay);
            assert!(set <= expected && fired == 0, "{pause} {delay}: set {set} times, fired {fired} times");
        }
    }
}
