//! The seeds of the simulated world: `tests/world/mod.rs`.

#[path = "mod.rs"]
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// The seeds that `cargo test` plays.
const SEEDS: u64 = 2000;

#[test]
fn the_world_becomes_whole_after_any_faults_and_no_check_fails_meanwhile() {
    if let Ok(seed) = std::env::var("HEDGEROW_WORLD_SEED") {
        let seed = seed.parse().expect("a seed is a number");
        let outcome = world::play(seed, true);
        println!("{}\n{:?}", outcome.story.join("\n"), outcome.failure);
        assert_eq!(outcome.failure, None);
        return;
    }
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let seed @ 0..SEEDS = next.fetch_add(1, Ordering::Relaxed) {
                    let outcome = world::play(seed, false);
                    assert!(outcome.failure.is_none(), "{}", world::report(&outcome));
                }
            });
        }
    });
}

#[test]
fn a_seed_always_makes_the_same_story() {
    for seed in 0..20 {
        let [one, other] = [(); 2].map(|()| world::play(seed, true));
        assert_eq!(one.story, other.story, "seed {seed}");
        assert!(one.queries > 0);
    }
}
