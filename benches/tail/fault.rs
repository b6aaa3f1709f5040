//! What goes wrong: how the two backends reply, and what happens to them during a run.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::common::encrypted::Way;
use crate::common::responder::Behavior;
use crate::relay::Order;
use crate::sample::Strength;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fault {
    /// Nothing: shows what the measurement itself adds.
    Calm,
    /// One reply in a hundred is late.
    Heavy,
    /// One reply in a hundred is late, from backends further away.
    Far,
    /// Both backends lose queries.
    Drop,
    /// One backend loses queries.
    DropOne,
    /// One backend stops and says nothing more.
    Stop,
    /// One backend ends, and its port is closed.
    Kill,
    /// Both backends become slow, and fast again.
    Shift,
    /// A shift with so many late replies that p99 shows the delay of the hedge.
    ShiftLate,
    /// A connection to each backend carries nothing for 1 % of the time.
    Stall,
    /// The connections to one backend carry nothing any more, and are not closed.
    HalfOpen,
    /// The connections to one backend are reset, with queries on them.
    Reset,
}

/// A change of the backends during a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing.
    None,
    /// One gets SIGSTOP when a third of the run is over, and SIGCONT behind its end.
    Stop,
    /// One gets SIGKILL when a third of the run is over.
    Kill,
    /// Both reply after another delay in the middle third.
    Shift(Duration),
    /// Something befalls connections to one: at 3/8 of the run, and where both have their turn to the other
    /// at 5/8.
    OnTheWay(Order),
}

/// The usual delay of a reply.
const NEAR: Duration = Duration::from_millis(1);
/// The delay of a backend further away.
const FAR: Duration = Duration::from_millis(10);
/// The delay in the middle third of [`Fault::Shift`].
const SHIFTED: Duration = Duration::from_millis(20);
/// The delay of a late reply.
const LATE: Duration = Duration::from_millis(500);
/// The share of late replies.
const LATE_SHARE: f64 = 0.01;
/// The share of late replies of [`Fault::ShiftLate`]: p99 lies among those, and a budget of 5 % pays for all.
const MANY_LATE: f64 = 0.03;
/// The share of lost queries.
const LOSS: f64 = 0.05;
/// How long a connection carries nothing: a lost segment costs as much.
const STALLED: Duration = Duration::from_millis(200);
/// The delay with which 1,000 queries a second have 100 waiting.
const WAITING: Duration = Duration::from_millis(100);

impl Fault {
    /// The headline in the report.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Calm => "calm: 1 ms",
            Self::Heavy => "heavy: 1 ms, 1 % of replies 500 ms late",
            Self::Far => "far: 10 ms, 1 % of replies 500 ms late",
            Self::Drop => "drop: 1 ms, 5 % of queries lost at both backends",
            Self::DropOne => "drop-one: 1 ms, 5 % of queries lost at one backend",
            Self::Stop => "stop: 1 ms, SIGSTOP of one backend at 1/3 of the run",
            Self::Kill => "kill: 1 ms, kill -9 of one backend at 1/3 of the run",
            Self::Shift => "shift: 1 ms, 20 ms in the middle third",
            Self::ShiftLate => "shift-late: 1 ms, 20 ms in the middle third, 3 % of replies 500 ms late",
            Self::Stall => {
                "stall: 1 ms, 20 s, the busiest connection to each backend in turn carries nothing for 200 ms"
            }
            Self::HalfOpen => {
                "half-open: 1 ms, 200/s, 8 s, from 3 s on the connections to one backend carry nothing, new ones do"
            }
            Self::Reset => "reset: 100 ms, 1,000/s, 8 s, at 3 s the connections to one backend are reset",
        }
    }

    /// How the two backends reply in a round. What befalls one of them befalls each in turns.
    pub(crate) fn behaviors(self, round: usize) -> [Behavior; 2] {
        let mut behaviors = [0, 1].map(|place| Behavior {
            delay: micros(NEAR),
            late_share: 0.0,
            late: micros(LATE),
            loss: 0.0,
            // All policies of a round get the same random numbers.
            seed: 2 * round as u64 + place,
        });
        match self {
            Self::Calm | Self::Stop | Self::Kill | Self::Shift | Self::Stall | Self::HalfOpen => {}
            Self::Reset => behaviors.iter_mut().for_each(|behavior| behavior.delay = micros(WAITING)),
            Self::Heavy => behaviors.iter_mut().for_each(|behavior| behavior.late_share = LATE_SHARE),
            Self::Far => behaviors.iter_mut().for_each(|behavior| {
                behavior.delay = micros(FAR);
                behavior.late_share = LATE_SHARE;
            }),
            Self::Drop => behaviors.iter_mut().for_each(|behavior| behavior.loss = LOSS),
            Self::DropOne => behaviors[victim(round)].loss = LOSS,
            Self::ShiftLate => behaviors.iter_mut().for_each(|behavior| behavior.late_share = MANY_LATE),
        }
        behaviors
    }

    /// Returns the event during a run.
    pub(crate) fn event(self) -> Event {
        match self {
            Self::Calm | Self::Heavy | Self::Far | Self::Drop | Self::DropOne => Event::None,
            Self::Stop => Event::Stop,
            Self::Kill => Event::Kill,
            Self::Shift | Self::ShiftLate => Event::Shift(SHIFTED),
            Self::Stall => Event::OnTheWay(Order::Stall(STALLED)),
            Self::HalfOpen => Event::OnTheWay(Order::Mute),
            Self::Reset => Event::OnTheWay(Order::Reset),
        }
    }

    /// Returns true if the fault is possible for backends reached this way.
    pub(crate) fn fits(self, way: Way) -> bool {
        match self.event() {
            Event::OnTheWay(Order::Reset) => matches!(way, Way::Tls | Way::Https),
            Event::OnTheWay(Order::Stall(_) | Order::Mute) => matches!(way, Way::Tls | Way::Https | Way::Quic),
            Event::None | Event::Stop | Event::Kill | Event::Shift(_) => true,
        }
    }

    /// Returns the length and the rate of the load: the requested ones, unless this fault needs others.
    pub(crate) fn strength(self, asked_for: Strength) -> Strength {
        match self {
            Self::Stall => Strength { secs: 20.0, ..asked_for },
            Self::HalfOpen => Strength { secs: 8.0, rate: 200.0, ..asked_for },
            Self::Reset => Strength { secs: 8.0, rate: 1_000.0, ..asked_for },
            Self::Calm
            | Self::Heavy
            | Self::Far
            | Self::Drop
            | Self::DropOne
            | Self::Stop
            | Self::Kill
            | Self::Shift
            | Self::ShiftLate => asked_for,
        }
    }
}

/// Returns the backend that fails in a round, of two: a policy may prefer one.
pub(crate) fn victim(round: usize) -> usize {
    round % 2
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}
