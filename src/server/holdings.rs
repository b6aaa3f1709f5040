//! What the authorities hold: from a config and what was loaded to editions, and from one edition to the next.
//!
//! Zones change in two ways. A reload brings all zones of files anew; those of other servers stay as they are. A [`Post`]
//! brings one zone of another server; all else stays as it is. Either way the journal of a zone gets the step from the
//! version before, for IXFR, and whoever has a copy is to be told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::Remark;
use crate::authority::{Edition, Exchange, Source};
use crate::config::{AuthorityConfig, Sharing};
use crate::limit::{Cookies, RateRules, ResponseRate};
use crate::secondary::{Post, Subject};
use crate::transfer::tsig::{Key, Keys};
use crate::transfer::{Difference, Journal, Records, Serial};
use crate::wire::Name;
use crate::zone::{Catalog, Zone};

/// What one authority holds.
pub(super) struct Holding {
    /// Its number in the config of the start, which is the workers'.
    number: usize,
    /// Its config.
    config: AuthorityConfig,
    /// What it answers from.
    edition: Arc<Edition>,
}

/// A zone whose copies are out of date.
pub(super) struct News {
    /// The number of its authority.
    pub(super) authority: usize,
    /// The new version.
    pub(super) zone: Arc<Zone>,
    /// Who has copies.
    pub(super) sharing: Sharing,
    /// The key that it is told with.
    pub(super) key: Option<Key>,
}

impl Holding {
    /// What an authority holds at the start; all that it shares is news.
    pub(super) fn new(
        number: usize,
        config: AuthorityConfig,
        loaded: Arc<Catalog>,
        keys: &Arc<Keys>,
        cookies: Option<Arc<Cookies>>,
    ) -> (Self, Vec<News>) {
        let exchanges = HashMap::new();
        let edition = Edition { catalog: loaded, keys: Arc::clone(keys), exchanges, rate: None, cookies };
        let mut holding = Self { number, config, edition: Arc::new(edition) };
        let (news, _) = holding.fill(None);
        (holding, news)
    }

    /// Its name in the config.
    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    /// What it answers from.
    pub(super) fn edition(&self) -> &Arc<Edition> {
        &self.edition
    }

    /// The zones that come from other servers.
    pub(super) fn subjects(&self) -> impl Iterator<Item = Subject> {
        self.config.secondaries.iter().map(|config| {
            let key = config.sharing.tsig.as_ref().and_then(|name| self.edition.keys.by_name(name)).cloned();
            Subject { authority: self.number, config: config.clone(), key }
        })
    }

    /// Takes a config and zones that were read again. Says what is new, and what is odd about it.
    pub(super) fn reload(
        &mut self,
        config: AuthorityConfig,
        loaded: Arc<Catalog>,
        keys: &Arc<Keys>,
        cookies: Option<Arc<Cookies>>,
    ) -> (Vec<News>, Vec<Remark>) {
        let earlier = Arc::clone(&self.edition);
        let earlier_rules = self.config.rate_limit;
        let exchanges = HashMap::new();
        let edition = Edition { catalog: loaded, keys: Arc::clone(keys), exchanges, rate: None, cookies };
        (self.config, self.edition) = (config, Arc::new(edition));
        self.fill(Some((&earlier, earlier_rules)))
    }

    /// Takes a new version of a zone of another server. A zone that the config no longer has is none of ours.
    pub(super) fn take(&mut self, post: Post) -> Option<News> {
        let Post { zone, steps, .. } = post;
        let sharing = &self.config.secondaries.iter().find(|config| config.zone == *zone.apex())?.sharing;
        let exchange = self.edition.exchanges.get(zone.apex())?;
        let mut journal = exchange.journal.clone();
        steps.into_iter().for_each(|step| journal.push(step));
        let exchange = Exchange { journal, source: exchange.source.clone(), ..exchange_of(sharing, &zone) };
        let mut exchanges = self.edition.exchanges.clone();
        exchanges.insert(zone.apex().clone(), Arc::new(exchange));
        let news = zone.is_served().then(|| self.news(&zone, sharing));
        self.edition = Arc::new(Edition {
            catalog: Arc::new(Catalog::clone(&self.edition.catalog).with_zone(zone)),
            keys: Arc::clone(&self.edition.keys),
            exchanges,
            rate: self.edition.rate.clone(),
            cookies: self.edition.cookies.clone(),
        });
        news
    }

    /// Completes an edition of what was loaded by what it has from an earlier one, and from other servers.
    fn fill(&mut self, earlier: Option<(&Edition, Option<RateRules>)>) -> (Vec<News>, Vec<Remark>) {
        let (mut news, mut remarks) = (Vec::new(), Vec::new());
        let mut exchanges = HashMap::new();
        let mut catalog = Arc::clone(&self.edition.catalog);
        for shared in &self.config.shared {
            let Some(zone) = catalog.zone(&shared.zone) else { continue };
            let known = earlier.and_then(|(edition, _)| Some((edition.catalog.zone(&shared.zone)?, edition)));
            let exchange = exchange_of(&shared.sharing, zone);
            let (exchange, is_new) = match known {
                None => (exchange, true),
                Some((old, edition)) => {
                    let journal = edition.exchanges.get(&shared.zone).map(|exchange| exchange.journal.clone());
                    let (journal, change) = journal_of(old, zone, journal.unwrap_or_else(empty_journal));
                    remarks.extend(change.remark(zone));
                    (Exchange { journal, ..exchange }, change != Change::None)
                }
            };
            if is_new {
                news.push(self.news(zone, &shared.sharing));
            }
            exchanges.insert(shared.zone.clone(), Arc::new(exchange));
        }
        for secondary in &self.config.secondaries {
            // Only what came from other servers goes on; a file of that name is no version of theirs.
            let known = earlier.and_then(|(edition, _)| {
                let exchange = edition.exchanges.get(&secondary.zone).filter(|exchange| exchange.source.is_some())?;
                Some((Arc::clone(edition.catalog.zone(&secondary.zone)?), exchange.journal.clone()))
            });
            let (zone, journal) = known.unwrap_or_else(|| (Arc::new(Zone::unserved(&secondary.zone)), empty_journal()));
            let source = Source {
                primaries: secondary.primaries.clone(),
                notify_from: secondary.notify_from.clone(),
                tsig: secondary.sharing.tsig.as_ref().map(Name::folded),
                places: Arc::default(),
            };
            let exchange = Exchange { journal, source: Some(source), ..exchange_of(&secondary.sharing, &zone) };
            exchanges.insert(secondary.zone.clone(), Arc::new(exchange));
            catalog = Arc::new(Catalog::clone(&catalog).with_zone(zone));
        }
        let rate = match (self.config.rate_limit, earlier) {
            (Some(rules), Some((edition, Some(known)))) if rules == known => edition.rate.clone(),
            (Some(rules), _) => Some(Arc::new(ResponseRate::new(rules, ACCOUNTS, rand::random(), Instant::now()))),
            (None, _) => None,
        };
        let keys = Arc::clone(&self.edition.keys);
        let cookies = self.edition.cookies.clone();
        self.edition = Arc::new(Edition { catalog, keys, exchanges, rate, cookies });
        (news, remarks)
    }

    /// A zone and who is to know of it.
    fn news(&self, zone: &Arc<Zone>, sharing: &Sharing) -> News {
        let key = sharing.tsig.as_ref().and_then(|name| self.edition.keys.by_name(name)).cloned();
        News { authority: self.number, zone: Arc::clone(zone), sharing: sharing.clone(), key }
    }
}

/// How a zone differs from its version before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Not at all.
    None,
    /// It has a later serial, as it should.
    Newer,
    /// It differs, and has the serial that it had.
    SameSerial,
    /// It has a serial that was before.
    Older,
}

impl Change {
    /// What an operator should know of it.
    fn remark(self, zone: &Zone) -> Option<Remark> {
        let (zone, serial) = (zone.apex().to_string(), zone.serial());
        match self {
            Self::None | Self::Newer => None,
            Self::SameSerial => Some(Remark::SameSerial { zone, serial }),
            Self::Older => Some(Remark::OlderSerial { zone, serial }),
        }
    }
}

/// The journal of a zone after a reload, and what it was.
fn journal_of(old: &Arc<Zone>, new: &Arc<Zone>, mut journal: Journal) -> (Journal, Change) {
    if Arc::ptr_eq(old, new) {
        return (journal, Change::None);
    }
    let (before, after) = (Serial(old.serial()), Serial(new.serial()));
    let step = Difference::between(old.iter(), new.iter());
    if before == after {
        // Each side always has its SOA record.
        let is_same = step.as_ref().is_ok_and(|step| step.removed() == step.added() && step.added().len() == 1);
        return (journal, if is_same { Change::None } else { Change::SameSerial });
    }
    if !after.is_newer_than(before) {
        return (empty_journal(), Change::Older);
    }
    match step {
        Ok(step) => journal.push(step),
        Err(_) => journal = empty_journal(),
    }
    (journal, Change::Newer)
}

/// What of a zone is exchanged with others, without a past.
fn exchange_of(sharing: &Sharing, zone: &Zone) -> Exchange {
    let transfer_to = sharing.transfer_to.clone();
    // Only who may transfer it could ask what changed.
    let size = if transfer_to.is_empty() { 0 } else { Records::size_of(zone.iter()) };
    Exchange { transfer_to, journal: empty_journal(), size, source: None }
}

/// A journal without steps.
fn empty_journal() -> Journal {
    Journal::new(STEPS, STEP_OCTETS)
}

/// Versions that are kept of a zone, for IXFR: a secondary that has missed more takes the whole zone.
const STEPS: usize = 100;

/// Octets that they may take. More would be longer than most zones.
const STEP_OCTETS: usize = 64 << 20;

/// Clients, names and kinds of answers that the rate of responses is known of: 1 MiB.
const ACCOUNTS: usize = 128 << 10;
