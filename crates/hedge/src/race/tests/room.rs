//! Tests of `dispatch = "auto"`: the backend of a hedge has room for it, and a spare comes last.

use std::sync::Arc;

use super::super::*;
use super::Rank::Best;
use super::play::Input::Reply;
use super::play::{Play, ms, play};
use crate::latency::SharedLatency;
use crate::tuning::{HedgeRoom, TunedHedge};

/// Returns a play with these attempts in flight at A, B and the spare C. Each backend has a hedge delay of
/// 10 ms, and replies in `usual` if it has no room.
fn auto(in_flight: [u32; 3], usual: Duration) -> Play {
    let mut play = play(Dispatch::Auto, 2);
    play.candidates.push_last(BackendIndex(2));
    let shared = Arc::new(SharedLatency::new(play.start));
    let room = HedgeRoom { most: 2, slope: 0, idle_micros: usual.as_micros() as u32 };
    shared.set_tuned(Some(TunedHedge { medians: 1.0, probability: 1.0, room }));
    play.latency = vec![Latency::of_shared(&shared); 3];
    for count in in_flight {
        let mut load = BackendLoad::new(play.start);
        (0..count).for_each(|_| load.asked(play.start));
        play.loads.push(load);
    }
    play.known(0, ms(10)).rules(|rules| rules.hedge.max = 2)
}

#[test]
fn a_spare_gets_the_last_hedge() {
    auto([0; 3], ms(200)).at(25, Reply(2, Best)).check("0 first A, 10 hedge B, 20 hedge C, 25 reply 2");
}

#[test]
fn a_hedge_waits_for_room_and_is_not_sent_to_a_free_spare() {
    // Once A has been silent for twice the time in which B replies, B has room.
    auto([0, 3, 0], ms(15)).at(45, Reply(1, Best)).check("0 first A, 30 hedge B, 40 hedge C, 45 reply 1");
    auto([0, 3, 0], ms(200)).at(90, Reply(0, Best)).check("0 first A, 90 reply 0");
}

#[test]
fn a_spare_without_room_gets_no_hedge() {
    auto([0, 0, 3], ms(200)).at(90, Reply(1, Best)).check("0 first A, 10 hedge B, 90 reply 1");
}
