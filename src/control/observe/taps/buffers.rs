//! Buffers of records that pass between the workers and the writer thread through lock-free queues.
//!
//! ```text
//!   worker ── append ──▶ its buffer ── full ─────────▶ full ──┐
//!                            │  ▲                             ├──▶ writer ──▶ empty ──▶ any worker
//!             end of a turn  ▼  │ next record                 │
//!                          parked, one place for each worker ─┘
//! ```
//!
//! A worker appends records to its buffer and parks that at the end of its turn. It takes the buffer back for
//! the next record, unless the writer, which wakes by the clock, has taken it; then it takes an empty one. So
//! a record needs no message and no wake-up. If there is no empty buffer, the worker drops the record and
//! counts it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use crossbeam_queue::ArrayQueue;
use metrics::Counter;

use super::sinks::Framing;

#[derive(Debug)]
pub(super) struct BufferExchange {
    pub(super) framing: Framing,
    full: ArrayQueue<Buffer>,
    empty: ArrayQueue<Buffer>,
    parked: Box<[ArrayQueue<Buffer>]>,
    dropped: Box<[Counter]>,
    /// The thread to wake when half of the buffers are full.
    writer: OnceLock<Thread>,
    is_woken: AtomicBool,
}

/// Records one after the other, in the form of the output.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) octets: Vec<u8>,
    /// The number of complete records.
    pub(super) records: u64,
}

impl BufferExchange {
    /// Creates buffers of this total size, but at least two for each worker: one to fill, one to write out.
    pub(super) fn new(framing: Framing, octets: usize, workers: usize) -> Self {
        let count = (octets / BUFFER).max(2 * workers);
        let empty = ArrayQueue::new(count);
        for _ in 0..count {
            let _ = empty.push(Buffer { octets: Vec::with_capacity(BUFFER), records: 0 });
        }
        Self {
            framing,
            full: ArrayQueue::new(count),
            empty,
            parked: (0..workers).map(|_| ArrayQueue::new(1)).collect(),
            dropped: (0..workers).map(|_| Counter::default()).collect(),
            writer: OnceLock::new(),
            is_woken: AtomicBool::new(false),
        }
    }

    pub(super) fn set_writer(&self) {
        let _ = self.writer.set(std::thread::current());
    }

    pub(super) fn take(&self) -> Option<Buffer> {
        self.is_woken.store(false, Relaxed);
        self.full.pop().or_else(|| self.parked.iter().find_map(ArrayQueue::pop))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.full.is_empty() && self.parked.iter().all(ArrayQueue::is_empty)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.iter().map(Counter::get).sum()
    }

    pub(super) fn give_back(&self, mut buffer: Buffer) {
        buffer.octets.clear();
        buffer.records = 0;
        let _ = self.empty.push(buffer);
    }

    /// Hands a buffer to the writer, and wakes the writer if half of the buffers are full.
    fn hand_over(&self, buffer: Buffer) {
        // The queue has room for all buffers.
        let _ = self.full.push(buffer);
        if self.full.len() >= self.full.capacity() / 2
            && !self.is_woken.swap(true, Relaxed)
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }
}

#[derive(Debug)]
pub(super) struct Appender {
    exchange: Arc<BufferExchange>,
    worker: usize,
    buffer: Option<Buffer>,
    /// The end of the last complete record.
    whole: usize,
}

impl Appender {
    pub(super) fn new(exchange: Arc<BufferExchange>, worker: usize) -> Self {
        Self { exchange, worker, buffer: None, whole: 0 }
    }

    /// Appends a record of at most `most` bytes with `write`. Returns false if there is no room and the
    /// record is dropped.
    pub(super) fn append(&mut self, most: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let is_kept = self.try_append(most, write);
        if !is_kept {
            self.exchange.dropped[self.worker].increment();
        }
        is_kept
    }

    fn try_append(&mut self, most: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if LEN + most > BUFFER {
            return false;
        }
        if let Some(buffer) = self.buffer.take_if(|buffer| buffer.octets.len() + LEN + most > BUFFER) {
            self.exchange.hand_over(buffer);
        }
        if self.buffer.is_none() && !self.take_buffer(most) {
            return false;
        }
        let Some(Buffer { octets, records }) = &mut self.buffer else { return false };
        let start = octets.len();
        if self.exchange.framing == Framing::Frames {
            octets.extend_from_slice(&[0; LEN]);
        }
        let begin = octets.len();
        write(octets);
        let len = octets.len() - begin;
        debug_assert!(len <= most, "a record is longer than was said");
        if let Some(place) = octets.get_mut(start..begin).and_then(<[u8]>::first_chunk_mut) {
            *place = (len as u32).to_be_bytes();
        }
        *records += 1;
        self.whole = octets.len();
        true
    }

    /// Takes back the parked buffer, or takes an empty one. Returns true if it has this much room.
    fn take_buffer(&mut self, most: usize) -> bool {
        let Self { exchange, worker, .. } = self;
        let mut buffer = exchange.parked.get(*worker).and_then(ArrayQueue::pop);
        if let Some(parked) = buffer.take_if(|parked| parked.octets.len() + LEN + most > BUFFER) {
            exchange.hand_over(parked);
        }
        self.buffer = buffer.or_else(|| exchange.empty.pop());
        self.whole = self.buffer.as_ref().map_or(0, |buffer| buffer.octets.len());
        self.buffer.is_some()
    }

    pub(super) fn park(&mut self) {
        if let Some(buffer) = self.buffer.take()
            && let Err(buffer) = self.exchange.parked[self.worker].push(buffer)
        {
            self.exchange.hand_over(buffer);
        }
    }
}

impl Drop for Appender {
    /// Complete records go to the writer, even if the worker has panicked within a record.
    fn drop(&mut self) {
        if let Some(Buffer { octets, .. }) = &mut self.buffer {
            octets.truncate(self.whole);
        }
        self.park();
    }
}

/// The size of a buffer: room for the longest DNS message and its metadata.
pub(super) const BUFFER: usize = (64 + 4) << 10;

/// The length ahead of a frame.
pub(super) const LEN: usize = 4;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;

    fn taken(exchange: &BufferExchange) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while let Some(buffer) = exchange.take() {
            records.extend(Framing::Frames.records(&buffer.octets).map(|frame| frame[LEN..].to_vec()));
            exchange.give_back(buffer);
        }
        records
    }

    #[test]
    fn records_are_there_after_the_turn_and_not_before() {
        let exchange = Arc::new(BufferExchange::new(Framing::Frames, 4 * BUFFER, 2));
        let mut worker = Appender::new(Arc::clone(&exchange), 1);
        assert!(worker.append(3, |out| out.extend_from_slice(b"one")));
        assert!(worker.append(10, |out| out.extend_from_slice(b"two")), "shorter than it might have been");
        assert!(worker.append(0, |_| {}));
        assert_eq!(taken(&exchange), Vec::<Vec<u8>>::new());
        worker.park();
        assert_eq!(taken(&exchange), [&b"one"[..], b"two", b""]);
        worker.park();
        assert_eq!(taken(&exchange), Vec::<Vec<u8>>::new());
        assert!(worker.append(5, |out| out.extend_from_slice(b"three")));
        worker.park();
        assert!(worker.append(4, |out| out.extend_from_slice(b"four")), "into the one that was parked");
        worker.park();
        assert_eq!(taken(&exchange), [&b"three"[..], b"four"]);
    }

    #[test]
    fn what_finds_no_room_is_dropped_until_there_is_some() {
        let exchange = Arc::new(BufferExchange::new(Framing::Frames, 0, 1));
        let mut worker = Appender::new(Arc::clone(&exchange), 0);
        let long = vec![7; BUFFER / 2];
        let mut append = || worker.append(long.len(), |out| out.extend_from_slice(&long));
        assert_eq!([append(), append(), append()], [true, true, false], "two buffers, each with room for one");
        assert_eq!(taken(&exchange).len(), 2);
        assert!(append());
        assert!(!worker.append(BUFFER, |_| unreachable!()), "longer than a buffer");
        assert!(worker.append(long.len() - 100, |_| {}), "which costs no other record");
    }

    #[test]
    fn a_worker_that_panics_leaves_whole_records() {
        let exchange = Arc::new(BufferExchange::new(Framing::Frames, 0, 1));
        let shared = Arc::clone(&exchange);
        let panicked = thread::spawn(move || {
            let mut worker = Appender::new(shared, 0);
            worker.append(3, |out| out.extend_from_slice(b"one"));
            worker.append(3, |out| {
                out.push(b't');
                panic!("in the midst of a record");
            });
        });
        assert!(panicked.join().is_err());
        assert_eq!(taken(&exchange), [b"one"]);
        let mut next = Appender::new(Arc::clone(&exchange), 0);
        for _ in 0..4 {
            assert!(next.append(BUFFER - LEN, |_| {}), "no buffer is gone");
            next.park();
            taken(&exchange);
        }
    }

    #[test]
    fn between_threads_each_record_comes_once_or_is_counted() {
        let (workers, each) = (3, 20_000_u64);
        let exchange = Arc::new(BufferExchange::new(Framing::Frames, 0, workers));
        let dropped = Arc::new(AtomicU64::new(0));
        let writers: Vec<_> = (0..workers)
            .map(|number| {
                let (exchange, dropped) = (Arc::clone(&exchange), Arc::clone(&dropped));
                thread::spawn(move || {
                    let mut worker = Appender::new(exchange, number);
                    for count in 0..each {
                        let record = (number as u64) << 32 | count;
                        if !worker.append(100, |out| {
                            out.extend_from_slice(&record.to_be_bytes());
                            out.resize(out.len() + (count % 90) as usize, 0);
                        }) {
                            dropped.fetch_add(1, Relaxed);
                        }
                        if count % 7 == 0 {
                            worker.park();
                        }
                    }
                })
            })
            .collect();
        let mut found: Vec<[u8; 8]> = Vec::new();
        let mut take = || found.extend(taken(&exchange).iter().filter_map(|record| record.first_chunk().copied()));
        while !writers.iter().all(|writer| writer.is_finished()) {
            take();
        }
        writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
        take();
        let total = found.len() as u64;
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len() as u64, total, "none comes twice");
        assert_eq!(total + dropped.load(Relaxed), workers as u64 * each);
    }
}
