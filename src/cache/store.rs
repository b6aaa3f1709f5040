//! The cache as workers see it: look up, keep, and what is remembered of failures.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::entry::{Head, State};
use super::key::Key;
use super::lifetime::{write_entry, write_silence};
use super::rules::Rules;
use super::shard::{CacheStats, Now, Shard};
use crate::wire::{ClientForm, ExtendedError, Freshness, Rcode, Reply, read_reply, write_cached};

/// Replies that are kept for all pools, shared by all workers.
pub struct Cache {
    /// A power of two of them, chosen by hash.
    shards: Box<[Mutex<Shard>]>,
    /// When the cache's own time was [`START`].
    base: Instant,
    /// Time that the machine has slept since then, milliseconds, which `Instant` does not count.
    asleep: AtomicU64,
}

/// In which form a client wants its response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseFor<'a> {
    /// ID, RD, QNAME case, EDNS.
    pub form: &'a ClientForm,
    /// The UDP size that we offer.
    pub own_udp_size: u16,
    /// The longest response that may go to it, at least 512 octets.
    pub limit: usize,
}

/// What a look-up found. But for `Nothing` and silence the response is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing that may be given out.
    Nothing,
    /// An answer that is good.
    Fresh {
        /// Whether the caller is to refresh it. That is said to one caller at a time.
        is_refresh_due: bool,
    },
    /// An answer whose time to live is over.
    Stale {
        /// Whether a race is to be run first; if not, one has failed not long ago, and the response is to be sent.
        is_race_due: bool,
    },
    /// A failure that is remembered (RFC 9520).
    Failed(CachedFailure),
}

/// A failure that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachedFailure {
    /// A backend replied SERVFAIL. The response is written.
    Servfail,
    /// None replied. No response is written: what the client gets is the pool's own rule.
    Silence,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

impl Cache {
    /// The smallest size of a cache, octets.
    pub const MIN_SIZE: usize = Shard::MIN_SIZE;

    /// An empty cache that takes so many octets, at least [`Cache::MIN_SIZE`].
    pub fn new(octets: usize, now: Instant) -> Self {
        let octets = octets.max(Self::MIN_SIZE);
        // Shards of one to two megabytes: small enough that going through one is nothing, and more of them than workers soon.
        let shards = 1 << (octets / Shard::MIN_SIZE).min(MAX_SHARDS).ilog2();
        let shards = (0..shards).map(|_| Mutex::new(Shard::new(octets / shards)));
        Self { shards: shards.collect(), base: now, asleep: AtomicU64::new(0) }
    }

    /// Looks for an answer, and writes the response for a client into `out`.
    pub fn look_up(
        &self,
        key: &Key<'_>,
        client: &ResponseFor<'_>,
        rules: &Rules,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Found {
        self.find(key, client, rules, now, out, true)
    }

    /// Looks for an answer for a client whose race has failed, or has kept it waiting for long enough. It may be stale, and is
    /// not counted as another hit.
    pub fn look_stale(
        &self,
        key: &Key<'_>,
        client: &ResponseFor<'_>,
        rules: &Rules,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Found {
        self.find(key, client, rules, now, out, false)
    }

    /// Keeps a reply, if it is one to be kept, and says whether it is. `scratch` is for the caller to use again.
    ///
    /// The reply of a race that failed does not take the place of an answer that is fresh or stale, but keeps it from being
    /// refreshed for a while.
    pub fn keep(&self, key: &Key<'_>, reply: &Reply<'_>, rules: &Rules, now: Instant, scratch: &mut Vec<u8>) -> bool {
        match write_entry(reply, key.question, rules, scratch) {
            Some((state, lifetime)) => {
                self.insert(key, state, lifetime, scratch, rules, now);
                true
            }
            None => false,
        }
    }

    /// Remembers that a race ended without a reply, in pools whose clients are told so. What is kept already stays, as for
    /// [`keep`](Self::keep).
    pub fn keep_silence(&self, key: &Key<'_>, rules: &Rules, now: Instant, scratch: &mut Vec<u8>) {
        let (state, lifetime) = write_silence(key.question, rules, scratch);
        self.insert(key, state, lifetime, scratch, rules, now);
    }

    /// Keeps the answer that there may be from being refreshed for a while: a race for it has failed. Says whether there is one.
    pub fn note_failure(&self, key: &Key<'_>, rules: &Rules, now: Instant) -> bool {
        let now = self.now(rules, now);
        quiet(&mut self.shard(key), key, now)
    }

    /// Forgets what is kept: a reply that may not be kept itself says otherwise.
    pub fn forget(&self, key: &Key<'_>) {
        let mut shard = self.shard(key);
        if let Some(slot) = shard.find(key) {
            shard.remove(slot);
        }
    }

    /// What happened and what is there, over all shards.
    pub fn stats(&self) -> CacheStats {
        self.shards.iter().map(|shard| lock(shard).stats).fold(CacheStats::default(), CacheStats::plus)
    }

    /// Begins to count anew: what was loaded is nothing that has happened here.
    pub fn reset_counts(&self) {
        for shard in &self.shards {
            let stats = &mut lock(shard).stats;
            *stats = CacheStats { entries: stats.entries, bytes: stats.bytes, ..CacheStats::default() };
        }
    }

    /// Adds what another process has counted. What is in its cache is not looked at.
    pub fn add_counts(&self, counted: CacheStats) {
        if let Some(shard) = self.shards.first() {
            let stats = &mut lock(shard).stats;
            *stats = stats.plus(CacheStats { entries: 0, bytes: 0, ..counted });
        }
    }

    pub(super) fn shards(&self) -> &[Mutex<Shard>] {
        &self.shards
    }

    /// The shard of a key, locked.
    pub(super) fn shard(&self, key: &Key<'_>) -> MutexGuard<'_, Shard> {
        lock(&self.shards[key.shard(self.shards.len())])
    }

    /// The shard of a key, locked, unless somebody holds it.
    pub(super) fn try_shard(&self, key: &Key<'_>) -> Option<MutexGuard<'_, Shard>> {
        self.shards[key.shard(self.shards.len())].try_lock().ok()
    }

    /// Counts time that the machine has slept: what is kept has aged meanwhile (RFC 1035 section 3.2.1).
    pub fn add_sleep(&self, slept: Duration) {
        self.asleep.fetch_add(slept.as_millis() as u64, Relaxed);
    }

    /// The cache's own time, in milliseconds.
    pub(super) fn millis(&self, now: Instant) -> u64 {
        START + now.saturating_duration_since(self.base).as_millis() as u64 + self.asleep.load(Relaxed)
    }

    pub(super) fn now(&self, rules: &Rules, now: Instant) -> Now {
        Now { millis: self.millis(now), stale: rules.stale }
    }

    /// Looks up; a first look is counted.
    fn find(
        &self,
        key: &Key<'_>,
        client: &ResponseFor<'_>,
        rules: &Rules,
        now: Instant,
        out: &mut Vec<u8>,
        is_first: bool,
    ) -> Found {
        let millis = self.millis(now);
        let mut shard = self.shard(key);
        let found = shard.find(key).and_then(|slot| {
            let (head, kept) = shard.entry(slot)?;
            let (found, freshness) = judge(&head, kept, rules, millis)?;
            // What is kept was sound when it was kept.
            let kept = read_reply(kept).ok()?;
            if found != Found::Failed(CachedFailure::Silence) {
                write_cached(&kept, freshness, client.form, client.own_udp_size, client.limit, out);
            }
            Some((slot, head, found))
        });
        let Some((slot, head, found)) = found else {
            shard.stats.misses += u64::from(is_first);
            return Found::Nothing;
        };
        if !is_first {
            return if let Found::Fresh { .. } = found { Found::Fresh { is_refresh_due: false } } else { found };
        }
        let mut head = Head { hits: head.hits.saturating_add(1), ..head };
        head.frequency = (head.frequency + 1).min(Head::MAX_FREQUENCY);
        if found == (Found::Fresh { is_refresh_due: true }) {
            // Whoever is told so first is the one; the others are told again if nothing comes of it.
            head.no_refresh_before = millis + REFRESH_LEASE.as_millis() as u64;
            head.has_failed = false;
        }
        shard.write_head(slot, &head);
        match found {
            Found::Stale { .. } => shard.stats.stale_hits += 1,
            Found::Fresh { .. } => shard.stats.hits += 1,
            Found::Failed(_) => {
                shard.stats.hits += 1;
                shard.stats.failure_hits += 1;
            }
            Found::Nothing => {}
        }
        found
    }

    /// Puts an entry in, unless it is a failure and there is an answer.
    fn insert(&self, key: &Key<'_>, state: State, lifetime: u32, reply: &[u8], rules: &Rules, now: Instant) {
        let now = self.now(rules, now);
        let mut shard = self.shard(key);
        if state != State::Answer && quiet(&mut shard, key, now) {
            return;
        }
        let head = Head { state, lifetime, kept_at: now.millis, ..Head::default() };
        shard.insert(key, head, reply, now);
    }
}

/// Keeps the answer to a question from being refreshed for a while, and says whether there is one.
fn quiet(shard: &mut Shard, key: &Key<'_>, now: Now) -> bool {
    let Some(slot) = shard.find(key) else { return false };
    let Some((head, _)) = shard.entry(slot) else { return false };
    let is_answer = head.state == State::Answer && !head.is_gone(now.millis, now.stale);
    if is_answer {
        // RFC 8767 section 5: a refresh that failed is not tried again at once.
        let no_refresh_before = now.millis + FAILURE_RECHECK.as_millis() as u64;
        shard.write_head(slot, &Head { no_refresh_before, has_failed: true, ..head });
    }
    is_answer
}

/// What an entry is worth now, and whether it is fresh. `None` if it is gone.
fn judge(head: &Head, kept: &[u8], rules: &Rules, now: u64) -> Option<(Found, Freshness)> {
    if head.is_stale(now, rules.stale) {
        let is_race_due = !head.has_failed || now >= head.no_refresh_before;
        let is_nxdomain = crate::wire::Header::read(kept).is_some_and(|header| header.rcode() == Rcode::NXDOMAIN);
        // RFC 8914 section 4.4, and section 4.20 for NXDOMAIN.
        let error = if is_nxdomain { ExtendedError::STALE_NXDOMAIN } else { ExtendedError::STALE };
        let ttl = u32::try_from(rules.stale_ttl.as_secs()).unwrap_or(u32::MAX);
        return Some((Found::Stale { is_race_due }, Freshness::Stale { ttl, error }));
    }
    if !head.is_fresh(now) {
        return None;
    }
    let fresh = Freshness::Fresh { age: u32::try_from(head.age(now) / 1000).unwrap_or(u32::MAX) };
    // RFC 8914 section 4.14.
    let failed = Freshness::Failure { error: ExtendedError::CACHED_ERROR };
    Some(match head.state {
        State::Dead => return None,
        State::Answer => (Found::Fresh { is_refresh_due: is_refresh_due(head, rules, now) }, fresh),
        State::Failure => (Found::Failed(CachedFailure::Servfail), failed),
        State::Silence => (Found::Failed(CachedFailure::Silence), failed),
    })
}

/// Whether an entry is popular, its time to live is nearly over, and nobody refreshes it or has failed to just now.
fn is_refresh_due(head: &Head, rules: &Rules, now: u64) -> bool {
    let left = head.fresh_for().saturating_sub(head.age(now)) as f64;
    head.hits >= POPULAR && left < head.fresh_for() as f64 * rules.prefetch && now >= head.no_refresh_before
}

/// Locks a shard. A thread that panicked while it held the lock cannot have left it half done but in its octets, which are checked
/// whenever they are read.
pub(super) fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cache's own time when it starts. Entries that are older than the process have been kept before that.
const START: u64 = 1 << 42;

/// Hits since it was kept that make an entry popular. One may be the retry of the client that it was kept for.
const POPULAR: u8 = 2;

/// For how long a refresh is taken to be on its way: longer than most races may last, so that a lost one costs little.
const REFRESH_LEASE: Duration = Duration::from_secs(10);

/// RFC 8767 section 5: the failure recheck timer, 30 seconds.
const FAILURE_RECHECK: Duration = Duration::from_secs(30);

/// As many shards as are of use.
const MAX_SHARDS: usize = 4096;
