//! The simulated world for as long as wanted: `cargo bench --bench world -- --minutes 30`. Prints the number
//! of seeds and queries. A seed that fails is played again, and its story is printed.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

#[path = "../tests/world/mod.rs"]
mod world;

#[derive(Parser)]
struct Options {
    /// How long to play, minutes.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// The first seed. By default seeds that `cargo test` does not play.
    #[arg(long, default_value_t = world::FIRST_LONG)]
    from: u64,
    /// The argument that `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let Options { minutes, from, bench: _ } = Options::parse();
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let (next, queries, has_failed) = (AtomicU64::new(from), AtomicU64::new(0), AtomicBool::new(false));
    // The panic of a check is caught, and printed with its story.
    std::panic::set_hook(Box::new(|_| {}));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while Instant::now() < end && !has_failed.load(Ordering::Relaxed) {
                    let outcome = world::play(next.fetch_add(1, Ordering::Relaxed), false);
                    queries.fetch_add(outcome.queries as u64, Ordering::Relaxed);
                    if outcome.failure.is_some() && !has_failed.swap(true, Ordering::Relaxed) {
                        eprintln!("{}", world::report(&outcome));
                    }
                }
            });
        }
    });
    let seeds = next.load(Ordering::Relaxed) - from;
    println!("{seeds} seeds, {} queries", queries.load(Ordering::Relaxed));
    if has_failed.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
