//! The prober of one modelled backend: drives [`Health`] as `probe` does with sockets.

use std::time::Instant;

use rand::Rng;

use crate::policy::HealthRules;
use crate::policy::health::{Health, Step};

/// What is known of the health of a backend.
#[derive(Debug)]
pub(super) struct Prober {
    /// Decides.
    pub(super) health: Health,
    /// Whether the backend was up when that was told last.
    was_up: bool,
    /// The number of the probe that is out.
    probe: u32,
    /// When it wants to be woken. Timers for another time are stale.
    wake: Instant,
}

/// What is to be done for a prober.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Send the question of this probe.
    Send(u32),
    /// Come back at this time.
    Wake(Instant),
}

impl Prober {
    /// Of a backend that is up, or down, until shown otherwise.
    pub(super) fn new(rules: HealthRules, is_up: bool, now: Instant) -> Self {
        let health = if is_up { Health::new(rules, now) } else { Health::new_down(rules, now) };
        Self { health, was_up: is_up, probe: 0, wake: now }
    }

    /// Whether the backend is up, if that is news.
    pub(super) fn take_news(&mut self) -> Option<bool> {
        let is_up = self.health.is_up();
        (std::mem::replace(&mut self.was_up, is_up) != is_up).then_some(is_up)
    }

    /// There is something to do at this time, whatever was said before.
    pub(super) fn wake_at(&mut self, time: Instant) {
        self.wake = time;
    }

    /// Whether a timer for this time means something.
    pub(super) fn is_woken_at(&self, time: Instant) -> bool {
        self.wake == time
    }

    /// Whether a reply to this probe still counts.
    pub(super) fn is_out(&self, probe: u32) -> bool {
        self.probe == probe
    }

    /// What to do next, until that is to wait.
    pub(super) fn next_task(&mut self, now: Instant, rng: &mut impl Rng) -> Task {
        match self.health.next_step(now, rng) {
            Step::Probe => {
                self.probe = self.probe.wrapping_add(1);
                Task::Send(self.probe)
            }
            Step::Repeat => Task::Send(self.probe),
            Step::WaitUntil(at) => {
                self.wake = at;
                Task::Wake(at)
            }
        }
    }
}
