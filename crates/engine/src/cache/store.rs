//! The cache as workers see it: look up, keep, remember failures.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use config::CacheRules;
use dns::{ClientForm, ExtendedError, Freshness, Rcode, Reply, read_reply, write_cached};
use metrics::CacheStats;

use super::entry::{EntryHead, State};
use super::key::CacheKey;
use super::lifetime::{write_entry, write_silence};
use super::shard::{Now, Shard};

/// The cached replies of all pools, shared by all workers.
pub struct Cache {
    shards: Box<[Mutex<Shard>]>,
    /// The instant at which the cache's own time was [`START`].
    base: Instant,
    /// Milliseconds that the machine has slept since then, which `Instant` does not count.
    asleep: AtomicU64,
}

/// The form in which a client wants its response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseFor<'a> {
    /// ID, RD, QNAME case, EDNS.
    pub form: &'a ClientForm,
    /// The UDP size that hedgerow offers.
    pub own_udp_size: u16,
    /// The longest response that may go to the client, at least 512 bytes.
    pub limit: usize,
}

/// The result of a look-up. The response is written except for `Nothing` and silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheLookup {
    /// No usable entry.
    Nothing,
    /// A fresh answer.
    Fresh {
        /// True if the caller must refresh the entry. Only one caller at a time gets this.
        is_refresh_due: bool,
    },
    /// An answer whose TTL is over.
    Stale {
        /// True if a race must run first; false if one has failed recently.
        is_race_due: bool,
    },
    /// A cached failure (RFC 9520).
    Failed(CachedFailure),
}

/// The worth of an entry, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EntryWorth {
    Nothing,
    Failure,
    Stale,
    Fresh,
}

/// A cached failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachedFailure {
    /// A backend replied SERVFAIL. The response is written.
    Servfail,
    /// No backend replied. No response is written: the pool's rule decides what the client gets.
    Silence,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

impl Cache {
    /// The smallest size of a cache in bytes.
    pub const MIN_SIZE: usize = Shard::MIN_SIZE;

    /// Makes an empty cache of this many bytes, at least [`Cache::MIN_SIZE`].
    pub fn new(octets: usize, now: Instant) -> Self {
        let octets = octets.max(Self::MIN_SIZE);
        // Shards of one to two megabytes: a walk through one is short, and there are soon more shards than
        // workers.
        let shards = 1 << (octets / Shard::MIN_SIZE).min(MAX_SHARDS).ilog2();
        let shards = (0..shards).map(|_| Mutex::new(Shard::new(octets / shards)));
        Self { shards: shards.collect(), base: now, asleep: AtomicU64::new(0) }
    }

    /// Looks for an answer, and writes the response for the client into `out`.
    pub fn look_up(
        &self,
        key: &CacheKey<'_>,
        client: &ResponseFor<'_>,
        rules: &CacheRules,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> CacheLookup {
        self.find(key, client, rules, now, out, true)
    }

    /// Looks for an answer, also a stale one, when a race has failed or is late. This counts as no hit.
    pub fn look_stale(
        &self,
        key: &CacheKey<'_>,
        client: &ResponseFor<'_>,
        rules: &CacheRules,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> CacheLookup {
        self.find(key, client, rules, now, out, false)
    }

    /// Returns the worth of an entry for a look-up: nothing, a failure, a stale answer or a fresh one.
    pub(crate) fn worth(&self, key: &CacheKey<'_>, rules: &CacheRules, now: Instant) -> EntryWorth {
        let now = self.now(rules, now);
        let shard = self.shard(key);
        let head = shard.find(key).and_then(|slot| shard.entry(slot)).map(|(head, _)| head);
        match head.filter(|head| !head.is_gone(now.millis, now.stale)) {
            None => EntryWorth::Nothing,
            Some(head) if head.state != State::Answer => EntryWorth::Failure,
            Some(head) if head.is_fresh(now.millis) => EntryWorth::Fresh,
            Some(_) => EntryWorth::Stale,
        }
    }

    /// Caches a reply if the rules allow it, and returns true if they do. `scratch` is a reusable buffer. A
    /// failure reply does not replace a fresh or stale answer, but delays its next refresh.
    pub fn keep(
        &self,
        key: &CacheKey<'_>,
        reply: &Reply<'_>,
        rules: &CacheRules,
        now: Instant,
        scratch: &mut Vec<u8>,
    ) -> bool {
        match write_entry(reply, key.question, rules, scratch) {
            Some((state, lifetime)) => {
                self.insert(key, state, lifetime, scratch, rules, now);
                true
            }
            None => false,
        }
    }

    /// Remembers that a race ended without a reply, in pools whose clients get a response to silence. Like
    /// [`keep`](Self::keep), it does not replace an answer.
    pub fn keep_silence(&self, key: &CacheKey<'_>, rules: &CacheRules, now: Instant, scratch: &mut Vec<u8>) {
        let (state, lifetime) = write_silence(key.question, rules, scratch);
        self.insert(key, state, lifetime, scratch, rules, now);
    }

    /// Delays the next refresh of an existing answer after a failed race. Returns true if there is one.
    pub fn note_failure(&self, key: &CacheKey<'_>, rules: &CacheRules, now: Instant) -> bool {
        let now = self.now(rules, now);
        quiet(&mut self.shard(key), key, now)
    }

    /// Removes the entry of a question, because a reply that may not be cached contradicts it.
    pub fn forget(&self, key: &CacheKey<'_>) {
        let mut shard = self.shard(key);
        if let Some(slot) = shard.find(key) {
            shard.remove(slot);
        }
    }

    /// Returns counters and sizes over all shards.
    pub fn stats(&self) -> CacheStats {
        self.shards.iter().map(|shard| lock(shard).stats).fold(CacheStats::default(), CacheStats::plus)
    }

    /// Resets the counters after a snapshot was loaded.
    pub fn reset_counts(&self) {
        for shard in &self.shards {
            let stats = &mut lock(shard).stats;
            *stats = CacheStats { entries: stats.entries, bytes: stats.bytes, ..CacheStats::default() };
        }
    }

    /// Adds the counters of another process. The sizes of its cache are ignored.
    pub fn add_counts(&self, counted: CacheStats) {
        if let Some(shard) = self.shards.first() {
            let stats = &mut lock(shard).stats;
            *stats = stats.plus(CacheStats { entries: 0, bytes: 0, ..counted });
        }
    }

    pub(super) fn shards(&self) -> &[Mutex<Shard>] {
        &self.shards
    }

    pub(super) fn shard(&self, key: &CacheKey<'_>) -> MutexGuard<'_, Shard> {
        lock(&self.shards[key.shard(self.shards.len())])
    }

    pub(super) fn try_shard(&self, key: &CacheKey<'_>) -> Option<MutexGuard<'_, Shard>> {
        self.shards[key.shard(self.shards.len())].try_lock().ok()
    }

    /// Adds time that the machine has slept: entries have aged meanwhile (RFC 1035 section 3.2.1).
    pub fn add_sleep(&self, slept: Duration) {
        self.asleep.fetch_add(slept.as_millis() as u64, Relaxed);
    }

    pub(super) fn millis(&self, now: Instant) -> u64 {
        START + now.saturating_duration_since(self.base).as_millis() as u64 + self.asleep.load(Relaxed)
    }

    pub(super) fn now(&self, rules: &CacheRules, now: Instant) -> Now {
        Now { millis: self.millis(now), stale: rules.stale }
    }

    fn find(
        &self,
        key: &CacheKey<'_>,
        client: &ResponseFor<'_>,
        rules: &CacheRules,
        now: Instant,
        out: &mut Vec<u8>,
        is_first: bool,
    ) -> CacheLookup {
        let millis = self.millis(now);
        let mut shard = self.shard(key);
        let found = shard.find(key).and_then(|slot| {
            let (head, kept) = shard.entry(slot)?;
            let (found, freshness) = judge(&head, kept, rules, millis)?;
            let kept = read_reply(kept).ok()?;
            if found != CacheLookup::Failed(CachedFailure::Silence) {
                write_cached(&kept, freshness, client.form, client.own_udp_size, client.limit, out);
            }
            Some((slot, head, found))
        });
        let Some((slot, head, found)) = found else {
            shard.stats.misses += u64::from(is_first);
            return CacheLookup::Nothing;
        };
        if !is_first {
            return if let CacheLookup::Fresh { .. } = found {
                CacheLookup::Fresh { is_refresh_due: false }
            } else {
                found
            };
        }
        let mut head = EntryHead { hits: head.hits.saturating_add(1), ..head };
        head.frequency = (head.frequency + 1).min(EntryHead::MAX_FREQUENCY);
        if found == (CacheLookup::Fresh { is_refresh_due: true }) {
            // The first caller refreshes; others get their turn if that has no result within the lease.
            head.no_refresh_before = millis + REFRESH_LEASE.as_millis() as u64;
            head.has_failed = false;
        }
        shard.write_head(slot, &head);
        match found {
            CacheLookup::Stale { .. } => shard.stats.stale_hits += 1,
            CacheLookup::Fresh { .. } => shard.stats.hits += 1,
            CacheLookup::Failed(_) => {
                shard.stats.hits += 1;
                shard.stats.failure_hits += 1;
            }
            CacheLookup::Nothing => {}
        }
        found
    }

    /// Inserts an entry, unless it is a failure and an answer exists.
    fn insert(&self, key: &CacheKey<'_>, state: State, lifetime: u32, reply: &[u8], rules: &CacheRules, now: Instant) {
        let now = self.now(rules, now);
        let mut shard = self.shard(key);
        if state != State::Answer && quiet(&mut shard, key, now) {
            return;
        }
        let head = EntryHead { state, lifetime, kept_at: now.millis, ..EntryHead::default() };
        shard.insert(key, head, reply, now);
    }
}

fn quiet(shard: &mut Shard, key: &CacheKey<'_>, now: Now) -> bool {
    let Some(slot) = shard.find(key) else { return false };
    let Some((head, _)) = shard.entry(slot) else { return false };
    let is_answer = head.state == State::Answer && !head.is_gone(now.millis, now.stale);
    if is_answer {
        // RFC 8767 section 5: a failed refresh is not repeated at once.
        let no_refresh_before = now.millis + FAILURE_RECHECK.as_millis() as u64;
        shard.write_head(slot, &EntryHead { no_refresh_before, has_failed: true, ..head });
    }
    is_answer
}

fn judge(head: &EntryHead, kept: &[u8], rules: &CacheRules, now: u64) -> Option<(CacheLookup, Freshness)> {
    if head.is_stale(now, rules.stale) {
        let is_race_due = !head.has_failed || now >= head.no_refresh_before;
        let is_nxdomain = dns::Header::read(kept).is_some_and(|header| header.rcode() == Rcode::NXDOMAIN);
        // RFC 8914 section 4.4, and section 4.20 for NXDOMAIN.
        let error = if is_nxdomain { ExtendedError::STALE_NXDOMAIN } else { ExtendedError::STALE };
        let ttl = u32::try_from(rules.stale_ttl.as_secs()).unwrap_or(u32::MAX);
        return Some((CacheLookup::Stale { is_race_due }, Freshness::Stale { ttl, error }));
    }
    if !head.is_fresh(now) {
        return None;
    }
    let fresh = Freshness::Fresh { age: u32::try_from(head.age(now) / 1000).unwrap_or(u32::MAX) };
    // RFC 8914 section 4.14.
    let failed = Freshness::Failure { error: ExtendedError::CACHED_ERROR };
    Some(match head.state {
        State::Dead => return None,
        State::Answer => (CacheLookup::Fresh { is_refresh_due: is_refresh_due(head, rules, now) }, fresh),
        State::Failure => (CacheLookup::Failed(CachedFailure::Servfail), failed),
        State::Silence => (CacheLookup::Failed(CachedFailure::Silence), failed),
    })
}

fn is_refresh_due(head: &EntryHead, rules: &CacheRules, now: u64) -> bool {
    let left = head.fresh_for().saturating_sub(head.age(now)) as f64;
    head.hits >= POPULAR && left < head.fresh_for() as f64 * rules.prefetch && now >= head.no_refresh_before
}

/// Locks a shard. A thread that panicked under the lock can only have left wrong entry bytes, which every
/// read checks.
pub(super) fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cache's own time at the start. It leaves room for entries that are older than the process.
const START: u64 = 1 << 42;

/// Hits that make an entry popular. One hit may be the retry of the client that caused the entry.
const POPULAR: u8 = 2;

/// Assumed duration of a refresh: longer than most races, so that a lost one costs little.
const REFRESH_LEASE: Duration = Duration::from_secs(10);

/// RFC 8767 section 5: the failure recheck timer, 30 seconds.
const FAILURE_RECHECK: Duration = Duration::from_secs(30);

const MAX_SHARDS: usize = 4096;
