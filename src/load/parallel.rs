//! Work on several threads: several files at once, and for a large file reading beside building.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};

use zone::{FilePlace, Record, RecordBatch};

/// Passes the records of `read` to `take`, in order. For a large text the two run in parallel.
pub(super) fn pipe<T: Send>(
    octets: usize,
    read: impl FnOnce(&mut dyn FnMut(Record<'_>, FilePlace)) -> T + Send,
    mut take: impl FnMut(&Record<'_>, FilePlace),
) -> T {
    if !is_large(octets) || threads() < 2 {
        return read(&mut |record, place| take(&record, place));
    }
    thread::scope(|scope| {
        let (full, batches) = mpsc::sync_channel::<RecordBatch>(DEPTH);
        let (emptied, empty) = mpsc::channel::<RecordBatch>();
        let reader = scope.spawn(move || {
            let mut batch = RecordBatch::default();
            let result = read(&mut |record, place| {
                batch.push(&record, place);
                if batch.is_full() {
                    let next = empty.try_recv().unwrap_or_default();
                    // The receiver is gone only if `take` panicked; then the result does not matter.
                    let _ = full.send(std::mem::replace(&mut batch, next));
                }
            });
            let _ = full.send(batch);
            result
        });
        for mut batch in batches {
            batch.iter().for_each(|(record, place)| take(&record, place));
            batch.clear();
            let _ = emptied.send(batch);
        }
        join(reader)
    })
}

pub(super) fn is_large(octets: usize) -> bool {
    octets >= LARGE
}

/// Runs all jobs, some in parallel, and returns their results in order.
pub(super) fn do_all<J: Sync, R: Send>(jobs: &[J], work: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let threads = threads().min(jobs.len());
    if threads < 2 {
        return jobs.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let run = || {
        let turns = std::iter::from_fn(|| {
            let index = next.fetch_add(1, Relaxed);
            Some((index, work(jobs.get(index)?)))
        });
        turns.collect::<Vec<_>>()
    };
    let mut done: Vec<_> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let own = run();
        own.into_iter().chain(others.into_iter().flat_map(join)).collect()
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// A text of this many bytes takes some milliseconds to read.
const LARGE: usize = 1 << 20;

const DEPTH: usize = 8;

#[cfg(test)]
mod tests {
    use dns::RecordType;

    use super::*;

    #[test]
    fn records_arrive_in_order_on_one_thread_or_two() {
        for octets in [0, LARGE] {
            let mut next = 0_u32;
            let read = |sink: &mut dyn FnMut(Record<'_>, FilePlace)| {
                for ttl in 0..100_000 {
                    sink(Record { owner: &[0], rtype: RecordType::A, ttl, rdata: &[1; 4] }, FilePlace::default());
                }
                "read"
            };
            let result = pipe(octets, read, |record, _| {
                assert_eq!(record.ttl, next);
                next += 1;
            });
            assert_eq!((result, next), ("read", 100_000));
        }
    }

    #[test]
    fn results_are_in_the_order_of_the_jobs() {
        let jobs: Vec<u32> = (0..1000).collect();
        assert_eq!(do_all(&jobs, |job| job * 2), (0..2000).step_by(2).collect::<Vec<_>>());
        assert_eq!(do_all(&[] as &[u32], |job| *job), [0; 0]);
    }
}
