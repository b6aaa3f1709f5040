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
    /// The number of the probe that is out.
    probe: u32,
    /// When it wants to be woken. Timers for another time are stale.
    wake: Instant,
}

/// What is to be done for a prober.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Send the question of this probe.
    Send(u32),
    /// Come back at this time.
    Wake(Instant),
}

impl Prober {
    /// Of a backend that is up until shown otherwise.
    pub(super) fn new(rules: HealthRules, now: Instant) -> Self {
        Self { health: Health::new(rules, now), probe: 0, wake: now }
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
    pub(super) fn next_errand(&mut self, now: Instant, rng: &mut impl Rng) -> Errand {
        match self.health.next_step(now, rng) {
            Step::Probe => {
                self.probe = self.probe.wrapping_add(1);
                Errand::Send(self.probe)
            }
            Step::Repeat => Errand::Send(self.probe),
            Step::WaitUntil(at) => {
                self.wake = at;
                Errand::Wake(at)
            }
        }
    }
}
