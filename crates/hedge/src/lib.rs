//! Hedged requests for any protocol, as values without I/O.
//!
//! Some replies of any server are late. A client that knows several servers with the same content need not
//! wait: when a reply is later than usual, it sends a *hedge*, the same request to a second server, and takes
//! the first good reply. This crate decides which backend to ask, when a hedge or a failover is due, which
//! reply wins, and what is learned from each attempt. The caller does the rest.
//!
//! ```text
//!                        the caller, with its I/O and its clock
//!       │                         │             ▲                      │
//!       │ request         on_reply│             │poll: Ask, WaitUntil, │ end of an attempt
//!       ▼             on_failure …▼             │or Finished           ▼
//!  ┌──────────┐                ┌───────────────────┐          ┌─────────────────┐
//!  │ Balancer │  Candidates    │       Race        │          │ latency::ended  │
//!  │ order    │───────────────▶│                   │          └──┬───────────┬──┘
//!  └──────────┘                └───────────────────┘             │           │
//!   ▲   ▲    ▲     is it affordable? ▲          ▲ is it late?    ▼           │
//!   │   │    │                 ┌─────┴────┐     │           ┌─────────┐      │
//!   │   │    │      successes ▶│  Budget  │     └───────────│ Latency │      │
//!   │   │    │                 └──────────┘                 └────┬────┘      ▼
//!   │   │    └───────────────────────────────────────────────────┘   ┌─────────────┐
//!   │   └────────────────────────────────────────────────────────────│ BackendLoad │
//!  ┌┴───────┐                                                        └─────────────┘
//!  │ Health │◀ replies to probes
//!  └────────┘
//! ```
//!
//! # What the crate owns, and what it never does
//!
//! It owns the decisions and the measurements behind them. It has no sockets, threads, tasks, files, clock or
//! source of random numbers, and knows no protocol: the caller passes `now`, a generator and the rank of each
//! reply ([`ReplyRank`](race::ReplyRank)). It does not send, cancel or time anything out by itself. Equal
//! inputs have equal results.
//!
//! # Terms
//!
//! - A *backend* is a server, known by its [`BackendIndex`]; backends with the same content are a *pool*.
//! - A [`Race`](race::Race) is one request of a client. It makes one or more *attempts*, each to one backend.
//! - A *hedge* is an attempt that is made because another one is late; the [`Budget`](budget::Budget) limits
//!   them. A *failover* replaces an attempt that failed, and is free.
//! - A *weak* reply is neither a failure nor good enough to win at once. The race keeps the best one.
//!
//! # How to use it
//!
//! 1. Keep [`RaceRules`] and a [`Budget`](budget::Budget) for the pool, and a [`Latency`](latency::Latency)
//!    for each backend. To order backends by load, keep a [`BackendLoad`](backend_load::BackendLoad) for each
//!    and a [`Balancer`](balance::Balancer); without, list the [`Candidates`] in any order. Threads can share
//!    both by a [`SharedLatency`](latency::SharedLatency) and a [`SharedLoad`](backend_load::SharedLoad).
//! 2. Start a [`Race`](race::Race) for a request, and [`poll`](race::Race::poll) it until it says to wait.
//!    After each input, and when the wait is over, poll it again.
//! 3. When it is finished, record the end of each attempt by [`latency::ended`] and each success by
//!    [`Budget::earn`](budget::Budget::earn).
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use hedge::budget::Budget;
//! use hedge::latency::Latency;
//! use hedge::race::{AttemptKind, Race, RaceContext, RaceEnd, RaceStep};
//! use hedge::{BackendIndex, Candidates, RaceRules};
//!
//! let start = Instant::now();
//! let rules = RaceRules::default();
//! let budget = Budget::new(rules.hedge.budget);
//! let mut latency = vec![Latency::new(start); 3];
//! let (loads, by_stream) = (&[], &[]);
//! let context = RaceContext { rules: &rules, latency: &latency, loads, by_stream, budget: &budget };
//!
//! // A reply is a success (`true`) or a failure (`false`), and a success wins at once.
//! let candidates = Candidates::of([0, 1, 2].map(BackendIndex), false);
//! let mut race = Race::start(&context, &candidates, true, start);
//! let RaceStep::Ask { backend, .. } = race.poll(&context, start) else { panic!("it asks a backend") };
//! assert_eq!(backend, BackendIndex(0));
//!
//! // The caller waits for a reply. None comes, so a hedge is due.
//! let RaceStep::WaitUntil(due) = race.poll(&context, start) else { panic!("it waits") };
//! assert_eq!(due, start + rules.hedge.max_delay, "no latency is known yet");
//! let RaceStep::Ask { attempt, backend, kind, .. } = race.poll(&context, due) else { panic!("it hedges") };
//! assert_eq!((backend, kind), (BackendIndex(1), AttemptKind::Hedge));
//!
//! let now = due + Duration::from_millis(2);
//! race.on_reply(attempt, true, now);
//! assert_eq!(race.poll(&context, now), RaceStep::Finished(RaceEnd::Reply(attempt)));
//! latency[1].record(now - due, now);
//! budget.earn(1);
//! ```
//!
//! `examples/http.rs` is a whole client, and `examples/threads.rs` one with the standard library alone.
//!
//! # Modules
//!
//! - [`race`]: one request, from the first attempt to the outcome.
//! - [`balance`], [`ordering`], [`affinity`]: which backends a race may ask, in which order.
//! - [`latency`], [`backend_load`]: what is known of a backend. [`log_linear`] is their histogram.
//! - [`budget`]: how many hedges the pool can afford.
//! - [`tuning`]: the best delay and probability of hedges.
//! - [`regret`]: the distance of the tail from the best fixed hedge rule.
//! - [`health`]: which backends are down, by probes. [`backoff`] spaces repeated attempts.
//! - [`timers`]: the wake-ups of many races.

#![forbid(unsafe_code)]

pub mod affinity;
pub mod backend_load;
pub mod backoff;
pub mod balance;
pub mod budget;
mod candidates;
pub mod health;
pub mod latency;
pub mod log_linear;
pub mod ordering;
mod peak;
pub mod race;
pub mod regret;
mod reissue;
mod rules;
mod survival;
pub mod timers;
pub mod tuning;

pub use candidates::{BackendIndex, Candidates};
pub use rules::{AttemptTimeout, Dispatch, Expect, Grace, HealthRules, Hedge, HedgeDelay, RaceRules};

/// The atomics of lock-free state. The models in `loom/` have those of loom in their place.
mod sync {
    pub(crate) use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
}
