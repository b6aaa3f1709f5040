//! Follows the keys below a prefix: lists them, watches changes, and lists again when a change may have been
//! missed.
//!
//! A watch can end, fail, or stay silent despite changes, and its etcd member may have lost its majority. So
//! the follower checks the keep-alives of its endpoint, lists all keys again each minute, and starts again
//! with a list after any irregularity.

use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep_until;

use super::client::{EtcdAccess, EtcdClient};
use super::http::WatchLines;
use super::sign::Signs;
use crate::backoff::Backoff;
use crate::discover::etcd::{self, EtcdError, KeyValue, Page, WatchLine};
use crate::discoverer::{FIRST_BACKOFF, MAX_BACKOFF, random_wait};
use crate::net::tasks::{Tasks, blocking};

pub(in crate::discoverer) enum FollowerEvent {
    Listed(Vec<(Vec<u8>, Vec<u8>)>),
    /// Changed keys; those without a value are deleted.
    Changed(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Confirmed,
    Failed(String),
}

pub(in crate::discoverer) struct Follower {
    client: EtcdClient,
    signs: Rc<Signs>,
    prefix: String,
    page: usize,
    rng: SmallRng,
    has_listed: bool,
}

impl Follower {
    pub(in crate::discoverer) fn new(access: Rc<EtcdAccess>, signs: Rc<Signs>, prefix: String, tasks: Tasks) -> Self {
        let (client, rng) = (EtcdClient::new(access, tasks), SmallRng::from_rng(&mut rand::rng()));
        Self { client, signs, prefix, page: PAGE, rng, has_listed: false }
    }

    /// Follows forever. The receiver of the reports may delay it.
    pub(in crate::discoverer) async fn run(mut self, report: impl AsyncFn(FollowerEvent)) {
        let mut backoff = Backoff::new(FIRST_BACKOFF);
        loop {
            let begun = Instant::now();
            match self.follow(&report).await {
                // The watch ended for no known reason: start again with the list.
                Ok(()) => {}
                Err(error) => {
                    if !self.has_listed
                        && let Ok((items, _)) = self.list(true).await
                    {
                        // An etcd member without a majority still has its old data.
                        self.has_listed = true;
                        report(FollowerEvent::Listed(items)).await;
                    }
                    report(FollowerEvent::Failed(error.to_string())).await;
                    self.client.move_on();
                }
            }
            if begun.elapsed() > MAX_BACKOFF {
                backoff.reset();
            }
            sleep_until((Instant::now() + random_wait(&mut backoff, &mut self.rng).min(MAX_WAIT)).into()).await;
        }
    }

    async fn follow(&mut self, report: &impl AsyncFn(FollowerEvent)) -> Result<(), EtcdError> {
        let (items, mut listed_at) = self.list(false).await?;
        self.has_listed = true;
        report(FollowerEvent::Listed(items)).await;
        let mut lines: WatchLines = self.client.watch(&etcd::watch(&self.prefix, listed_at + 1)).await?;
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
                        // Skips events that the last list includes.
                        let fresh = events.into_iter().filter(|event| event.revision > listed_at);
                        let below = |event: etcd::WatchEvent| Some((self.below(&event.key)?, event.value));
                        let changes: Vec<_> = fresh.filter_map(below).collect();
                        if !changes.is_empty() {
                            report(FollowerEvent::Changed(changes)).await;
                        }
                    }
                },
                sign = signs.next() => {
                    let revision = sign.said?;
                    // A ping from before the list may have an older revision.
                    if sign.asked >= listed_by && revision < listed_at {
                        tracing::warn!(prefix = self.prefix, "etcd: its revision has gone back, so its data was restored or replaced: listing again");
                        return Ok(());
                    }
                    report(FollowerEvent::Confirmed).await;
                }
                () = sleep_until(list_due.into()) => {
                    let (items, revision) = self.list(false).await?;
                    report(FollowerEvent::Listed(items)).await;
                    if revision < listed_at {
                        return Ok(());
                    }
                    (listed_at, listed_by) = (revision, Instant::now());
                    list_due = self.next_list();
                }
            }
        }
    }

    /// Lists all keys page by page, and returns them with their revision.
    async fn list(&mut self, is_serializable: bool) -> Result<(Vec<(Vec<u8>, Vec<u8>)>, i64), EtcdError> {
        let (mut items, mut revision, mut from) = (Vec::new(), None, None);
        loop {
            let request = etcd::range(&self.prefix, from.as_deref(), revision, self.page, is_serializable);
            let reply = match self.client.call(&request).await {
                // A foreign value that is too long must not hide the other keys.
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
                // An overlong value is refused by its length, so its end is not needed.
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

    fn below(&self, key: &[u8]) -> Option<Vec<u8>> {
        key.strip_prefix(self.prefix.as_bytes()).map(<[u8]>::to_vec)
    }

    /// The time of the next full list, with jitter so that the forwarders of a fleet do not all list at once.
    fn next_list(&mut self) -> Instant {
        Instant::now() + LIST_AGAIN.mul_f64(self.rng.random_range(0.9..=1.1))
    }
}

/// Keys of a page: some 200 kB of members.
const PAGE: usize = 1000;

/// The longest wait for an absent etcd: all forwarders of a fleet must agree within 5 s after a network
/// failure.
const MAX_WAIT: Duration = Duration::from_secs(4);

/// The interval of full lists while the watch works.
const LIST_AGAIN: Duration = Duration::from_secs(60);

/// Bytes of a reply that this thread decodes at once; longer replies are decoded on another thread.
const SHORT: usize = 32 << 10;

/// Bytes of a value that are kept: one more than an entry may have.
const MAX_VALUE: usize = 4097;

/// The largest number of keys below a prefix: many times the members that a pool may have.
const MAX_ITEMS: usize = 100_000;
