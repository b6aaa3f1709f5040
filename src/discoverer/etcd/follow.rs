//! Following the keys below a prefix: list them, then watch what changes, and list again whenever that may have missed something.
//!
//! A watch can end, fail, or stay silent although much has changed; and its member may have lost its majority. So signs of life of the
//! endpoint that it is at are listened for, all is listed again each minute, and whatever looks odd begins from the list.

use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep_until;

use super::client::{Client, EtcdAccess};
use super::http::Lines;
use super::sign::Signs;
use crate::discover::Backoff;
use crate::discover::etcd::{self, EtcdError, KeyValue, Page, WatchLine};
use crate::net::tasks::{Tasks, blocking};

/// What is heard of the keys. Each is told without the prefix.
pub(in crate::discoverer) enum Heard {
    /// All of them.
    Listed(Vec<(Vec<u8>, Vec<u8>)>),
    /// These have changed; those without a value are gone.
    Changed(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    /// They are as they were.
    Confirmed,
    /// etcd cannot be asked.
    Failed(String),
}

/// Follows the keys below one prefix.
pub(in crate::discoverer) struct Follower {
    client: Client,
    signs: Rc<Signs>,
    prefix: String,
    /// Keys of a page.
    page: usize,
    rng: SmallRng,
    /// Whether anything was ever listed.
    has_listed: bool,
}

impl Follower {
    pub(in crate::discoverer) fn new(access: Rc<EtcdAccess>, signs: Rc<Signs>, prefix: String, tasks: Tasks) -> Self {
        let (client, rng) = (Client::new(access, tasks), SmallRng::from_rng(&mut rand::rng()));
        Self { client, signs, prefix, page: PAGE, rng, has_listed: false }
    }

    /// Follows for ever. What is heard goes to `tell`, which may make us wait.
    pub(in crate::discoverer) async fn run(mut self, tell: impl AsyncFn(Heard)) {
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            match self.follow(&tell).await {
                // Where it ended was not to be foreseen, but all is well: from the list again.
                Ok(()) => {}
                Err(error) => {
                    if !self.has_listed
                        && let Ok((items, _)) = self.list(true).await
                    {
                        // A member that has lost its majority still knows what was.
                        self.has_listed = true;
                        tell(Heard::Listed(items)).await;
                    }
                    tell(Heard::Failed(error.to_string())).await;
                    self.client.move_on();
                }
            }
            if begun.elapsed() > Backoff::MAX {
                backoff.reset();
            }
            sleep_until((Instant::now() + backoff.next(&mut self.rng).min(MAX_WAIT)).into()).await;
        }
    }

    /// Lists and watches, until the watch is over.
    async fn follow(&mut self, tell: &impl AsyncFn(Heard)) -> Result<(), EtcdError> {
        let (items, mut listed_at) = self.list(false).await?;
        self.has_listed = true;
        tell(Heard::Listed(items)).await;
        let mut lines: Lines = self.client.watch(&etcd::watch(&self.prefix, listed_at + 1)).await?;
        let mut listed_by = Instant::now();
        let mut signs = self.signs.listen(self.client.endpoint(), &self.prefix);
        let mut list_due = self.next_list();
        loop {
            tokio::select! {
                line = lines.next() => match etcd::read_watch_line(&line?)? {
                    WatchLine::Progress => {}
                    WatchLine::Canceled(reason) => {
                        tracing::info!(prefix = self.prefix, "etcd: {reason}, listing again");
                        return Ok(());
                    }
                    WatchLine::Events(events) => {
                        // Those that a later list has told already are past.
                        let fresh = events.into_iter().filter(|event| event.revision > listed_at);
                        let below = |event: etcd::WatchEvent| Some((self.below(&event.key)?, event.value));
                        let changes: Vec<_> = fresh.filter_map(below).collect();
                        if !changes.is_empty() {
                            tell(Heard::Changed(changes)).await;
                        }
                    }
                },
                sign = signs.next() => {
                    let revision = sign.said?;
                    // What was asked before the list may be older than that.
                    if sign.asked >= listed_by && revision < listed_at {
                        tracing::warn!(prefix = self.prefix, "etcd: its revision has gone back, it has another past: listing again");
                        return Ok(());
                    }
                    tell(Heard::Confirmed).await;
                }
                () = sleep_until(list_due.into()) => {
                    let (items, revision) = self.list(false).await?;
                    tell(Heard::Listed(items)).await;
                    if revision < listed_at {
                        return Ok(());
                    }
                    (listed_at, listed_by) = (revision, Instant::now());
                    list_due = self.next_list();
                }
            }
        }
    }

    /// All keys and the revision of that, page by page.
    async fn list(&mut self, is_serializable: bool) -> Result<(Vec<(Vec<u8>, Vec<u8>)>, i64), EtcdError> {
        let (mut items, mut revision, mut from) = (Vec::new(), None, None);
        loop {
            let request = etcd::range(&self.prefix, from.as_deref(), revision, self.page, is_serializable);
            let reply = match self.client.call(&request).await {
                // Somebody has written a value that is no member of ours: it is not to hide the others.
                Err(EtcdError::TooLong) if self.page > 1 => {
                    self.page = (self.page / 10).max(1);
                    continue;
                }
                reply => reply?,
            };
            let Page { revision: of_page, items: page, has_more, .. } = match reply.len() {
                0..=SHORT => etcd::read_page(&reply)?,
                _ => blocking(move || etcd::read_page(&reply)).await?,
            };
            revision.get_or_insert(of_page);
            from = page.last().map(|last| [&last.key[..], b"\0"].concat());
            items.extend(page.into_iter().filter_map(|KeyValue { key, mut value, .. }| {
                // What is too long to be one of ours is refused by its length, and need not be kept for that.
                value.truncate(MAX_VALUE);
                Some((self.below(&key)?, value))
            }));
            if !has_more || from.is_none() {
                self.page = PAGE;
                return Ok((items, revision.unwrap_or(of_page)));
            }
            if items.len() > MAX_ITEMS {
                return Err(EtcdError::Failed(format!("more than {MAX_ITEMS} keys below {}", self.prefix)));
            }
        }
    }

    /// A key without the prefix.
    fn below(&self, key: &[u8]) -> Option<Vec<u8>> {
        key.strip_prefix(self.prefix.as_bytes()).map(<[u8]>::to_vec)
    }

    /// When all is listed again: not by all LS of a fleet at once.
    fn next_list(&mut self) -> Instant {
        Instant::now() + LIST_AGAIN.mul_f64(self.rng.random_range(0.9..=1.1))
    }
}

/// Keys of a page: some 200 kB of members.
const PAGE: usize = 1000;

/// How long an etcd that was away is waited for at most before it is asked again: all LS of a fleet are to agree within 5 s after a cut.
const MAX_WAIT: Duration = Duration::from_secs(4);

/// How often all is listed again though the watch is well.
const LIST_AGAIN: Duration = Duration::from_secs(60);

/// Octets of a reply that are read at once; longer ones beside whatever else this thread does.
const SHORT: usize = 32 << 10;

/// Octets of a value that are kept: one more than any entry may have.
const MAX_VALUE: usize = 4097;

/// Keys below one prefix at most: many times the members that a pool may have.
const MAX_ITEMS: usize = 100_000;
