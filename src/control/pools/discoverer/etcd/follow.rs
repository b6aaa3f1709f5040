//! Follows the keys below a prefix: lists them, watches changes, and lists again when a change may have been
//! missed.
//!
//! A watch can end, fail, or stay silent despite changes, and its etcd member may have lost its majority. So
//! the follower checks the keep-alives of its endpoint, lists all keys again each minute, and starts again
//! with a list after any irregularity.

use std::rc::Rc;
use std::time::{Duration, Instant};

use hedge::backoff::Backoff;
use net::tasks::{Tasks, blocking};
use tokio::time::sleep_until;

use super::client::{EtcdAccess, EtcdClient};
use super::sign::Signs;
use crate::control::pools::discover::SourceNews;
use crate::control::pools::discover::etcd::{self, EtcdError, KeyValue, Page, WatchEvent};
use crate::control::pools::discoverer::{FIRST_BACKOFF, MAX_BACKOFF, random_wait};

/// Follows values that `read` decodes, each separately.
pub(in crate::control::pools::discoverer) struct Follower<T> {
    client: EtcdClient,
    signs: Rc<Signs>,
    prefix: String,
    read: fn(&[u8]) -> Result<T, String>,
    page: usize,
    has_listed: bool,
}

impl<T: Send + 'static> Follower<T> {
    pub(in crate::control::pools::discoverer) fn new(
        access: Rc<EtcdAccess>,
        signs: Rc<Signs>,
        prefix: String,
        read: fn(&[u8]) -> Result<T, String>,
        tasks: Tasks,
    ) -> Self {
        Self { client: EtcdClient::new(access, tasks), signs, prefix, read, page: PAGE, has_listed: false }
    }

    /// Follows forever. The receiver of the reports may delay it.
    pub(in crate::control::pools::discoverer) async fn run(mut self, report: impl AsyncFn(SourceNews<T>)) {
        let mut backoff = Backoff::new(FIRST_BACKOFF);
        loop {
            let begun = Instant::now();
            match self.follow(&report).await {
                Ok(()) => {}
                Err(EtcdError::Canceled(reason)) => {
                    tracing::info!(prefix = self.prefix, "etcd: {reason}, listing again");
                }
                Err(error) => {
                    if !self.has_listed
                        && let Ok((items, _)) = self.list(true).await
                    {
                        // An etcd member without a majority still has its old data.
                        self.has_listed = true;
                        report(SourceNews::Listed(items)).await;
                    }
                    report(SourceNews::Failed(error.to_string())).await;
                    self.client.move_on();
                }
            }
            if begun.elapsed() > MAX_BACKOFF {
                backoff.reset();
            }
            sleep_until((Instant::now() + random_wait(&mut backoff).min(MAX_WAIT)).into()).await;
        }
    }

    /// Follows until a request fails, the watch is canceled, or the revision has gone back.
    async fn follow(&mut self, report: &impl AsyncFn(SourceNews<T>)) -> Result<(), EtcdError> {
        let (items, mut listed_at) = self.list(false).await?;
        self.has_listed = true;
        report(SourceNews::Listed(items)).await;
        let mut lines = self.client.watch(&etcd::watch(&self.prefix, listed_at + 1)).await?;
        let mut listed_by = Instant::now();
        let mut signs = self.signs.listen(self.client.endpoint, &self.prefix);
        let mut list_due = next_list();
        loop {
            tokio::select! {
                line = lines.next() => {
                    // Skips events that the last list includes.
                    let events = etcd::read_watch_line(&line?)?.into_iter();
                    let fresh = events.filter(|event| event.kv.mod_revision > listed_at);
                    let change = |event: WatchEvent| {
                        let is_deletion = event.is_deletion();
                        let (place, value) = item(&self.prefix, event.kv, self.read)?;
                        Some((place, (!is_deletion).then_some(value)))
                    };
                    let changes: Vec<_> = fresh.filter_map(change).collect();
                    if !changes.is_empty() {
                        report(SourceNews::Changed(changes)).await;
                    }
                }
                sign = signs.next() => {
                    // A check from before the list may have an older revision.
                    if sign.revision? < listed_at && sign.asked >= listed_by {
                        tracing::warn!(prefix = self.prefix, "etcd: its revision has gone back, so its data was restored or replaced: listing again");
                        return Ok(());
                    }
                    report(SourceNews::Confirmed).await;
                }
                () = sleep_until(list_due.into()) => {
                    let (items, revision) = self.list(false).await?;
                    report(SourceNews::Listed(items)).await;
                    if revision < listed_at {
                        return Ok(());
                    }
                    (listed_at, listed_by) = (revision, Instant::now());
                    list_due = next_list();
                }
            }
        }
    }

    /// Lists all keys page by page, and returns them with their revision.
    async fn list(&mut self, is_serializable: bool) -> Result<(Vec<Listed<T>>, i64), EtcdError> {
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
            let (prefix, read, length) = (self.prefix.clone(), self.read, reply.len());
            let decode = move || {
                let Page { header, items, has_more } = etcd::read_page(&reply)?;
                let next = items.last().filter(|_| has_more).map(|last| [&last.key[..], b"\0"].concat());
                let items: Vec<_> = items.into_iter().filter_map(|one| item(&prefix, one, read)).collect();
                Ok::<_, EtcdError>((items, header.revision, next))
            };
            let (page, listed_at, next) = if length <= SHORT { decode()? } else { blocking(decode).await? };
            items.extend(page);
            let revision = *revision.get_or_insert(listed_at);
            from = next;
            if from.is_none() {
                self.page = PAGE;
                return Ok((items, revision));
            }
            if items.len() > MAX_ITEMS {
                return Err(EtcdError::Failed(format!("more than {MAX_ITEMS} keys below {}", self.prefix)));
            }
        }
    }
}

/// The time of the next full list, with jitter so that the forwarders of a fleet do not all list at once.
fn next_list() -> Instant {
    Instant::now() + LIST_AGAIN.mul_f64(rand::random_range(0.9..=1.1))
}

/// An item of a list: its place below the prefix, and its value.
type Listed<T> = (String, Result<T, String>);

fn item<T>(prefix: &str, item: KeyValue, read: fn(&[u8]) -> Result<T, String>) -> Option<Listed<T>> {
    let place = item.key.strip_prefix(prefix.as_bytes())?;
    Some((String::from_utf8_lossy(place).chars().take(MAX_PLACE).collect(), read(&item.value)))
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

/// Characters of a key that are kept: more than any valid key has.
const MAX_PLACE: usize = 600;

/// The largest number of keys below a prefix: many times the members that a pool may have.
const MAX_ITEMS: usize = 100_000;
