//! The prober of one modelled backend: drives [`Health`] as `probe` does with sockets.

use std::time::Instant;

use hedge::HealthRules;
use hedge::health::{Health, HealthState, HealthStep};
use rand::Rng;

#[derive(Debug)]
pub(super) struct SimulatedProber {
    pub(super) health: Health,
    /// The state of the backend that was reported last.
    was_up: bool,
    /// The probe whose reply counts.
    pub(super) probe: u32,
    /// The wake-up time. Timers for another time are stale.
    pub(super) wake: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProberTask {
    /// Send the question of this probe.
    Send(u32),
    /// Wake the prober at this time.
    Wake(Instant),
}

impl SimulatedProber {
    /// Creates the prober of a backend in this initial state.
    pub(super) fn new(rules: HealthRules, is_up: bool, now: Instant) -> Self {
        let state = if is_up { HealthState::Up } else { HealthState::Down };
        Self { health: Health::new(rules, state, now), was_up: is_up, probe: 0, wake: now }
    }

    /// Returns the state of the backend if it has changed.
    pub(super) fn take_news(&mut self) -> Option<bool> {
        let is_up = self.health.is_up();
        (std::mem::replace(&mut self.was_up, is_up) != is_up).then_some(is_up)
    }

    /// Returns the next task; a wake-up time is the last one.
    pub(super) fn next_task(&mut self, now: Instant, rng: &mut impl Rng) -> ProberTask {
        match self.health.poll(now, rng) {
            HealthStep::Probe => {
                self.probe = self.probe.wrapping_add(1);
                ProberTask::Send(self.probe)
            }
            HealthStep::Repeat => ProberTask::Send(self.probe),
            HealthStep::WaitUntil(at) => {
                self.wake = at;
                ProberTask::Wake(at)
            }
        }
    }
}
