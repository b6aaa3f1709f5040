//! What operators do with the cache: flush it, look into it.
//!
//! Both go through the table of one shard after another, some slots at a time, so that workers never wait long for a lock.

use std::time::{Duration, Instant};

use super::entry::{Head, State};
use super::key::{Key, PoolId};
use super::rules::Rules;
use super::shard::Retain;
use super::store::{Cache, lock};
use crate::wire::{Name, Question, Rcode, RecordClass, RecordType, read_reply};

/// What is to be forgotten.
#[derive(Clone, Copy, Debug)]
pub enum Flush<'a> {
    /// Everything.
    All,
    /// What was asked about this name, whatever the type.
    Name(&'a Name),
    /// The same of all names at or below it.
    Subtree(&'a Name),
    /// What one pool said.
    Pool(PoolId),
}

/// One entry, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The pool that said it.
    pub pool: PoolId,
    /// What was asked for.
    pub qtype: RecordType,
    /// In which class.
    pub qclass: RecordClass,
    /// Whether it is for clients that set CD.
    pub checking_disabled: bool,
    /// Whether it is for clients that set DO.
    pub dnssec_ok: bool,
    /// Answer, failure or silence.
    pub state: State,
    /// The rcode.
    pub rcode: Rcode,
    /// For how long it stays fresh; zero if it is stale.
    pub fresh_for: Duration,
    /// For how long it may still be given out stale.
    pub stale_for: Duration,
    /// Octets of the message.
    pub len: usize,
    /// Hits since it was kept, up to 255.
    pub hits: u8,
}

impl Cache {
    /// Forgets entries, and says how many.
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

    /// All that is kept of a name and not yet gone.
    pub fn show(&self, name: &Name, rules: &Rules, now: Instant) -> Vec<Shown> {
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

    /// What is kept of one question, if it is not yet gone. That is no hit.
    pub fn peek(&self, key: &Key<'_>, rules: &Rules, now: Instant) -> Option<Shown> {
        let now = self.millis(now);
        let shard = self.shard(key);
        let (head, kept) = shard.find(key).and_then(|slot| shard.entry(slot))?;
        if head.is_gone(now, rules.stale) { None } else { show(&head, kept, rules, now) }
    }

    /// Shows a visitor every entry.
    pub(super) fn walk(&self, mut visit: impl FnMut(&Head, &[u8]) -> Retain) {
        for shard in self.shards() {
            let mut from = Some(0);
            while let Some(slot) = from {
                from = lock(shard).visit(slot, &mut visit);
            }
        }
    }
}

/// Whether an entry is one of those meant.
fn is_meant(what: Flush<'_>, head: &Head, kept: &[u8]) -> bool {
    let asked = || question(kept).and_then(|question| Name::from_wire(question.qname()).ok());
    match what {
        Flush::All => true,
        Flush::Name(name) => asked().is_some_and(|asked| asked == name.folded()),
        Flush::Subtree(name) => asked().is_some_and(|asked| asked.is_at_or_below(name)),
        Flush::Pool(pool) => head.pool == pool.0,
    }
}

/// An entry for an operator.
fn show(head: &Head, kept: &[u8], rules: &Rules, now: u64) -> Option<Shown> {
    let reply = read_reply(kept).ok()?;
    let question = reply.question()?;
    let fresh_for = Duration::from_millis(head.fresh_for().saturating_sub(head.age(now)));
    let stale_from = Duration::from_millis(head.fresh_for().max(head.age(now)) - head.fresh_for());
    let stale_for = if head.state == State::Answer { rules.stale.saturating_sub(stale_from) } else { Duration::ZERO };
    Some(Shown {
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

/// The question of a kept reply.
fn question(kept: &[u8]) -> Option<Question<'_>> {
    read_reply(kept).ok()?.question()
}
