//! Commands of operators: flush the cache, show its entries.
//!
//! Both walk the tables shard by shard, a few slots at a time, so that workers never wait long for a lock.

use std::time::{Duration, Instant};

use config::CacheRules;
use dns::{Name, Question, Rcode, RecordClass, RecordType, read_reply};

use super::entry::{EntryHead, State};
use super::key::{CacheKey, PoolId};
use super::shard::Retain;
use super::store::{Cache, lock};

/// The entries to remove.
#[derive(Clone, Copy, Debug)]
pub enum Flush<'a> {
    /// All entries.
    All,
    /// All types of this name.
    Name(&'a Name),
    /// All names at or below this name.
    Subtree(&'a Name),
    /// The replies of one pool.
    Pool(PoolId),
}

/// One entry, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownEntry {
    /// The pool that the reply is from.
    pub pool: PoolId,
    /// The queried type.
    pub qtype: RecordType,
    /// The queried class.
    pub qclass: RecordClass,
    /// True if the entry is for clients that set CD.
    pub checking_disabled: bool,
    /// True if the entry is for clients that set DO.
    pub dnssec_ok: bool,
    /// Answer, failure or silence.
    pub state: State,
    /// The rcode of the reply.
    pub rcode: Rcode,
    /// Remaining time as a fresh entry; zero if it is stale.
    pub fresh_for: Duration,
    /// Remaining time as a stale entry.
    pub stale_for: Duration,
    /// Bytes of the message.
    pub len: usize,
    /// Hits since insertion, up to 255.
    pub hits: u8,
}

impl Cache {
    /// Removes entries and returns their number.
    pub fn flush(&self, what: Flush<'_>) -> u64 {
        if let Flush::All = what {
            let clear = |shard| {
                let mut shard = lock(shard);
                let entries = shard.stats.entries;
                shard.clear();
                entries
            };
            return self.shards().iter().map(clear).sum();
        }
        let mut flushed = 0;
        self.walk(|head, kept| {
            let goes = is_meant(what, head, kept);
            flushed += u64::from(goes);
            if goes { Retain::Remove } else { Retain::Keep }
        });
        flushed
    }

    /// Returns all entries of a name that are fresh or stale.
    pub fn show(&self, name: &Name, rules: &CacheRules, now: Instant) -> Vec<ShownEntry> {
        let now = self.millis(now);
        let mut shown = Vec::new();
        self.walk(|head, kept| {
            if is_meant(Flush::Name(name), head, kept) && !head.is_gone(now, rules.stale) {
                shown.extend(show(head, kept, rules, now));
            }
            Retain::Keep
        });
        // A walk over a table in use may meet an entry twice.
        shown.sort_by_key(|entry| (entry.pool.0, entry.qtype, entry.qclass, entry.checking_disabled, entry.dnssec_ok));
        shown.dedup_by_key(|entry| (entry.pool, entry.qtype, entry.qclass, entry.checking_disabled, entry.dnssec_ok));
        shown
    }

    /// Returns the entry of one question if it is fresh or stale. This does not count as a hit.
    pub(crate) fn peek(&self, key: &CacheKey<'_>, rules: &CacheRules, now: Instant) -> Option<ShownEntry> {
        let now = self.millis(now);
        let shard = self.shard(key);
        let (head, kept) = shard.find(key).and_then(|slot| shard.entry(slot))?;
        if head.is_gone(now, rules.stale) { None } else { show(&head, kept, rules, now) }
    }

    pub(super) fn walk(&self, mut visit: impl FnMut(&EntryHead, &[u8]) -> Retain) {
        for shard in self.shards() {
            let mut from = Some(0);
            while let Some(slot) = from {
                from = lock(shard).visit(slot, &mut visit);
            }
        }
    }
}

fn is_meant(what: Flush<'_>, head: &EntryHead, kept: &[u8]) -> bool {
    let asked = || question(kept).and_then(|question| Name::from_wire(question.qname()).ok());
    match what {
        Flush::All => true,
        Flush::Name(name) => asked().is_some_and(|asked| asked == name.folded()),
        Flush::Subtree(name) => asked().is_some_and(|asked| asked.is_at_or_below(name)),
        Flush::Pool(pool) => head.pool == pool.0,
    }
}

fn show(head: &EntryHead, kept: &[u8], rules: &CacheRules, now: u64) -> Option<ShownEntry> {
    let reply = read_reply(kept).ok()?;
    let question = reply.question()?;
    let fresh_for = Duration::from_millis(head.fresh_for().saturating_sub(head.age(now)));
    let stale_from = Duration::from_millis(head.fresh_for().max(head.age(now)) - head.fresh_for());
    let stale_for = if head.state == State::Answer { rules.stale.saturating_sub(stale_from) } else { Duration::ZERO };
    Some(ShownEntry {
        pool: PoolId(head.pool),
        qtype: question.qtype(),
        qclass: question.qclass(),
        checking_disabled: head.flags.checking_disabled(),
        dnssec_ok: head.flags.dnssec_ok(),
        state: head.state,
        rcode: reply.rcode(),
        fresh_for,
        stale_for,
        len: kept.len(),
        hits: head.hits,
    })
}

fn question(kept: &[u8]) -> Option<Question<'_>> {
    read_reply(kept).ok()?.question()
}
