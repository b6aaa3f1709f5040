//! The members of one pool: what all its sources list, what the config has, who is up.
//!
//! A pure machine: news of sources are taken in as they come, and [`Roster::settle`] then decides, as often or as rarely as its owner
//! likes. Its rules, for a member that is not in the config and was not added by hand:
//!
//! ```text
//!                  listed                          listed no more, and up
//!   (nobody) ─────────────────▶ listed ───────────────────────────────────▶ held
//!                                 ▲  │                                        │ │
//!                                 └──┼──────────── listed again ──────────────┘ │
//!                                    │ listed no more, and                      │ down; or `hold` is over, while the
//!                                    │ down or draining                         │ list is in no doubt; or accepted
//!                                    ▼                                          ▼
//!                                 (gone) ◀──────────────────────────────────────┘
//! ```
//!
//! The list is in doubt while fewer members that it lists are up than members that it does not: an emptied name, a register that was
//! restored from an old copy, leases that were all lost at once look like that. When a doubt ends by itself, `hold` begins anew for all who
//! are held: those that register again one by one must not be dropped meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::listing::{Listing, News};
use crate::address::{BackendAddress, is_unseen};
use crate::limit::Prefix;
use crate::metrics::{Change, Origin, SourceState};

/// A set of origins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origins(u8);

impl Origins {
    /// One alone.
    pub fn of(origin: Origin) -> Self {
        Self(1 << origin as u8)
    }

    /// Adds one.
    pub fn insert(&mut self, origin: Origin) {
        self.0 |= 1 << origin as u8;
    }

    /// Whether it is among them.
    pub fn has(self, origin: Origin) -> bool {
        self.0 & (1 << origin as u8) != 0
    }

    /// Each of them, the most binding first.
    pub fn iter(self) -> impl Iterator<Item = Origin> {
        Origin::ALL.into_iter().filter(move |origin| self.has(*origin))
    }
}

/// What members of a pool must be like.
#[derive(Clone, Debug, PartialEq)]
pub struct RosterRules {
    /// Members at most, those of the config included. Those that are held come on top, and were within it when they were listed.
    pub max: usize,
    /// How long one that is listed no more stays while it is up.
    pub hold: Duration,
    /// Where members may be.
    pub allow: Vec<Prefix>,
}

/// A backend that the config has, or an operator has added: no source can take it away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Where it is asked.
    pub address: BackendAddress,
    /// Its label.
    pub name: String,
    /// Whether by hand.
    pub is_by_hand: bool,
}

/// A member of the pool that is not fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its label.
    pub name: String,
    /// Its share of the load.
    pub weight: u16,
    /// It says that it is about to end.
    pub is_draining: bool,
    /// Who lists it, or did last.
    pub origins: Origins,
    /// Since when it is held; none: it is listed.
    pub held_since: Option<Instant>,
}

/// An entry that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// Where it stands in its source.
    pub entry: String,
    /// Why, and what would be right.
    pub reason: String,
}

/// A list of which nobody believes that it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Members that are listed and up.
    pub listed: usize,
    /// Members that are up and listed no more.
    pub held: usize,
}

/// What a settlement has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Each member to which something happened, with the first source that lists it, or did.
    pub changes: Vec<(BackendAddress, Origin, Change)>,
    /// Whether members are others than before, or are otherwise.
    pub is_change: bool,
    /// Entries that are wrong and were not so before, each with its source.
    pub refused: Vec<(Origin, Refusal)>,
    /// A doubt that has come up.
    pub doubt: Option<Doubt>,
    /// Whether a doubt is over.
    pub is_doubt_over: bool,
}

/// The members of one pool.
#[derive(Debug)]
pub struct Roster {
    rules: RosterRules,
    /// In the order of [`Origin`].
    sources: Vec<Source>,
    /// Those that are not fixed.
    members: BTreeMap<BackendAddress, Member>,
    /// Fixed ones that are listed besides, and whether they say that they are about to end.
    fixed: BTreeMap<BackendAddress, (Origins, bool)>,
    doubt: Option<Doubt>,
    /// An operator says that the list is right.
    is_accepted: bool,
}

/// One source of one pool.
#[derive(Debug)]
pub struct Source {
    /// Which.
    pub origin: Origin,
    /// Why it cannot be asked, if it cannot.
    pub failure: Option<String>,
    /// When it was last found to say what it says.
    pub confirmed: Option<Instant>,
    /// Entries that are wrong; no more than [`Source::MAX_REFUSED`].
    pub refused: Vec<Refusal>,
    /// How many are wrong in all.
    pub refused_count: usize,
    /// Whether its list is doubted.
    is_doubted: bool,
    listing: Listing,
}

impl Source {
    /// Refused entries that are shown.
    pub const MAX_REFUSED: usize = 1000;

    fn new(origin: Origin) -> Self {
        Self {
            origin,
            failure: None,
            confirmed: None,
            refused: Vec::new(),
            refused_count: 0,
            is_doubted: false,
            listing: Listing::default(),
        }
    }

    /// How it stands.
    pub fn state(&self) -> SourceState {
        match (self.confirmed, &self.failure) {
            (None, _) => SourceState::Never,
            (Some(_), Some(_)) => SourceState::Stale,
            (Some(_), None) if self.is_doubted => SourceState::Doubted,
            (Some(_), None) => SourceState::Fresh,
        }
    }

    /// What it lists.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }
}

impl Roster {
    /// A pool with these sources, of which nothing has been heard yet.
    pub fn new(rules: RosterRules, origins: impl IntoIterator<Item = Origin>) -> Self {
        let mut sources: Vec<_> = origins.into_iter().map(Source::new).collect();
        sources.sort_by_key(|source| source.origin);
        Self { rules, sources, members: BTreeMap::new(), fixed: BTreeMap::new(), doubt: None, is_accepted: false }
    }

    /// Other rules, and perhaps other sources: those that stay go on as they were. Of one that is new, nothing has been heard.
    pub fn set_rules(&mut self, rules: RosterRules, origins: &[(Origin, bool)]) {
        self.rules = rules;
        let mut earlier = std::mem::take(&mut self.sources);
        self.sources = origins
            .iter()
            .map(|&(origin, is_kept)| {
                let known = earlier.iter().position(|source| is_kept && source.origin == origin);
                known.map_or_else(|| Source::new(origin), |index| earlier.swap_remove(index))
            })
            .collect();
        self.sources.sort_by_key(|source| source.origin);
    }

    /// Takes what a source has listed at some time, saved by an earlier process: it is stale until the source is heard of.
    pub fn restore(&mut self, origin: Origin, entries: Vec<Entry>, confirmed: Instant) {
        let Some(source) = self.sources.iter_mut().find(|source| source.origin == origin) else { return };
        let items = entries.into_iter().map(|entry| (entry.address.to_string(), Ok(entry)));
        source.listing.replace(items.collect());
        source.confirmed = Some(confirmed);
        source.failure = Some("not asked yet; the list is that of an earlier process".to_owned());
    }

    /// Takes news of a source. Says whether there is something to settle; news that it has nothing to do with are ignored.
    pub fn on_news(&mut self, origin: Origin, news: News, now: Instant) -> bool {
        let Some(source) = self.sources.iter_mut().find(|source| source.origin == origin) else { return false };
        let was = source.state();
        let is_change = match news {
            News::Failed(reason) => {
                source.failure = Some(reason);
                return was != source.state();
            }
            News::Listed(items) => source.listing.replace(items),
            News::Changed(changes) => source.listing.change(changes),
            News::Confirmed => false,
        };
        source.confirmed = Some(now);
        source.failure = None;
        is_change || was != source.state()
    }

    /// Says that the list is right, however few it lists. Returns how many are held until now.
    pub fn accept(&mut self) -> usize {
        let held = self.members.values().filter(|member| member.held_since.is_some()).count();
        self.is_accepted = held > 0;
        held
    }

    /// Decides who is a member, by all that was heard and by who is up. `fixed` are those of the config and by hand, `is_own` says
    /// of an address whether it is one of our own listeners.
    pub fn settle(
        &mut self,
        now: Instant,
        fixed: &[Fixed],
        is_up: impl Fn(&BackendAddress) -> bool,
        is_own: impl Fn(&BackendAddress) -> bool,
    ) -> Settled {
        let mut refused = Refused::default();
        let candidates = self.candidates(is_own, &mut refused);
        let (listed, mut names) = self.listed(&candidates, fixed, &mut refused);
        let of_fixed: BTreeMap<_, _> = fixed.iter().map(|one| (one.address, origins_of(one, &candidates))).collect();
        let mut held: BTreeMap<BackendAddress, Member> = BTreeMap::new();
        for (address, member) in &self.members {
            let is_listed = listed.contains_key(address) || of_fixed.contains_key(address);
            if !is_listed && !member.is_draining && is_up(address) {
                held.insert(*address, member.clone());
            }
        }
        let doubt = self.doubt_of(&listed, &of_fixed, &held, is_up);
        let mut settled = Settled {
            doubt: doubt.filter(|_| self.doubt.is_none()),
            is_doubt_over: self.doubt.is_some() && doubt.is_none(),
            ..Settled::default()
        };
        if std::mem::take(&mut self.is_accepted) {
            held.clear();
        }
        held.retain(|address, member| {
            let since = *member.held_since.get_or_insert(now);
            if settled.is_doubt_over {
                member.held_since = Some(now);
            }
            // Another one bears its name by now: a label must not keep out whoever comes in its place.
            if *names.entry(member.name.clone()).or_insert(*address) != *address {
                member.name = address.to_string();
            }
            doubt.is_some() || settled.is_doubt_over || now < since + self.rules.hold
        });
        let mut members = listed;
        members.append(&mut held);
        settled.changes = changes_between(&self.members, &members);
        settled.is_change = self.members != members || self.fixed != of_fixed;
        self.set_doubt(doubt, &members);
        settled.refused = self.set_refused(refused);
        (self.members, self.fixed) = (members, of_fixed);
        settled
    }

    /// Who is a member and not fixed, in the order of addresses.
    pub fn members(&self) -> impl Iterator<Item = (BackendAddress, &Member)> {
        self.members.iter().map(|(address, member)| (*address, member))
    }

    /// Who lists a backend, and whether it says that it is about to end.
    pub fn origins(&self, address: &BackendAddress) -> Option<(Origins, bool)> {
        let of_member = || self.members.get(address).map(|member| (member.origins, member.is_draining));
        self.fixed.get(address).copied().or_else(of_member)
    }

    /// Whether a source lists it now.
    pub fn is_listed(&self, address: &BackendAddress) -> bool {
        let is_member = self.members.get(address).is_some_and(|member| member.held_since.is_none());
        is_member || self.fixed.get(address).is_some_and(|(origins, _)| origins.iter().any(Origin::is_source))
    }

    /// When there is something to settle though nothing is heard.
    pub fn next_time(&self) -> Option<Instant> {
        if self.doubt.is_some() {
            return None;
        }
        self.members.values().filter_map(|member| member.held_since).min().map(|since| since + self.rules.hold)
    }

    /// Its sources, the most binding first.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// How many members one source lists that are members.
    pub fn count_of(&self, origin: Origin) -> usize {
        let is_listed = |member: &&Member| member.held_since.is_none() && member.origins.has(origin);
        let fixed = self.fixed.values().filter(|(origins, _)| origins.has(origin)).count();
        self.members.values().filter(is_listed).count() + fixed
    }

    /// What its list is doubted for.
    pub fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    /// What all sources together say of each address, but for entries that nobody could be asked by.
    fn candidates(
        &self,
        is_own: impl Fn(&BackendAddress) -> bool,
        refused: &mut Refused,
    ) -> BTreeMap<BackendAddress, Candidate> {
        let mut candidates: BTreeMap<BackendAddress, Candidate> = BTreeMap::new();
        for source in &self.sources {
            for (place, entry) in source.listing.iter() {
                let fit = entry.as_ref().map_err(String::clone).and_then(|entry| match self.unfit(entry, &is_own) {
                    None => Ok(entry),
                    Some(reason) => Err(reason),
                });
                let entry = match fit {
                    Ok(entry) => entry,
                    Err(reason) => {
                        refused.add(source.origin, place, reason);
                        continue;
                    }
                };
                let candidate = candidates.entry(entry.address).or_default();
                // Sources come in the order in which they hold.
                candidate.name = candidate.name.take().or_else(|| entry.name.clone());
                candidate.weight = candidate.weight.or(entry.weight);
                candidate.is_draining |= entry.is_draining;
                candidate.places.push((source.origin, place.to_owned()));
            }
            let excess = source.listing.excess();
            if excess > 0 {
                let reason = format!("not looked at: {} entries of one source are", Listing::MAX_ENTRIES);
                refused.add(source.origin, &format!("{excess} more"), reason);
            }
        }
        candidates
    }

    /// Why nobody could be asked at the address of an entry.
    fn unfit(&self, entry: &Entry, is_own: impl Fn(&BackendAddress) -> bool) -> Option<String> {
        let address = entry.address;
        if !self.rules.allow.iter().any(|prefix| prefix.contains(address.ip())) {
            return Some(format!("{address} is in no prefix of `allow`"));
        }
        is_own(&address).then(|| format!("{address} is a listener of this process: a query would come back"))
    }

    /// The candidates that become members, and who bears which name.
    fn listed(
        &self,
        candidates: &BTreeMap<BackendAddress, Candidate>,
        fixed: &[Fixed],
        refused: &mut Refused,
    ) -> (BTreeMap<BackendAddress, Member>, HashMap<String, BackendAddress>) {
        let mut names: HashMap<String, BackendAddress> =
            fixed.iter().map(|one| (one.name.clone(), one.address)).collect();
        let is_fixed: BTreeSet<BackendAddress> = fixed.iter().map(|one| one.address).collect();
        let free = || candidates.iter().filter(|(address, _)| !is_fixed.contains(address));
        let is_member = |address: &BackendAddress| self.members.contains_key(address);
        // Who is a member stays one, whoever comes: then those who are new.
        let in_turn = free().filter(|one| is_member(one.0)).chain(free().filter(|one| !is_member(one.0)));
        let mut listed = BTreeMap::new();
        for (address, candidate) in in_turn {
            let name = candidate.name.clone().unwrap_or_else(|| address.to_string());
            let reason = match names.get(&name) {
                Some(other) if other != address => Some(format!("the name {name:?} is that of {other}")),
                _ if fixed.len() + listed.len() >= self.rules.max => {
                    Some(format!("the pool has {} members, and `max` says no more", self.rules.max))
                }
                _ => None,
            };
            if let Some(reason) = reason {
                for (origin, place) in &candidate.places {
                    refused.add(*origin, place, reason.clone());
                }
                continue;
            }
            names.insert(name.clone(), *address);
            let member = Member {
                name,
                weight: candidate.weight.unwrap_or(1),
                is_draining: candidate.is_draining,
                origins: candidate.origins(),
                held_since: None,
            };
            listed.insert(*address, member);
        }
        (listed, names)
    }

    /// Whether there is reason to doubt the list: fewer who are up are on it than are not.
    fn doubt_of(
        &self,
        listed: &BTreeMap<BackendAddress, Member>,
        fixed: &BTreeMap<BackendAddress, (Origins, bool)>,
        held: &BTreeMap<BackendAddress, Member>,
        is_up: impl Fn(&BackendAddress) -> bool,
    ) -> Option<Doubt> {
        if self.is_accepted {
            return None;
        }
        // Those of the config stay whatever is listed, so a list that lacks others costs less.
        let fixed = fixed.iter().filter(|(address, (_, is_draining))| !is_draining && is_up(address)).count();
        let listed = listed.iter().filter(|(address, member)| !member.is_draining && is_up(address)).count();
        let doubt = Doubt { listed: fixed + listed, held: held.len() };
        Some(doubt).filter(|doubt| doubt.listed < doubt.held)
    }

    /// Notes a doubt, and with the sources that have listed those who are held.
    fn set_doubt(&mut self, doubt: Option<Doubt>, members: &BTreeMap<BackendAddress, Member>) {
        self.doubt = doubt;
        for source in &mut self.sources {
            let is_missed = |member: &Member| member.held_since.is_some() && member.origins.has(source.origin);
            source.is_doubted = doubt.is_some() && members.values().any(is_missed);
        }
    }

    /// Notes which entries are wrong; returns those that were not so before.
    fn set_refused(&mut self, mut refused: Refused) -> Vec<(Origin, Refusal)> {
        let mut fresh = Vec::new();
        for source in &mut self.sources {
            let (count, shown) = refused.0.remove(&source.origin).unwrap_or_default();
            let known: HashSet<Refusal> = std::mem::take(&mut source.refused).into_iter().collect();
            fresh.extend(shown.iter().filter(|one| !known.contains(one)).map(|one| (source.origin, one.clone())));
            (source.refused_count, source.refused) = (count, shown);
        }
        fresh
    }
}

/// What is known of an address that sources list.
#[derive(Default)]
struct Candidate {
    name: Option<String>,
    weight: Option<u16>,
    is_draining: bool,
    /// Who lists it, and where.
    places: Vec<(Origin, String)>,
}

impl Candidate {
    fn origins(&self) -> Origins {
        let mut origins = Origins::default();
        self.places.iter().for_each(|(origin, _)| origins.insert(*origin));
        origins
    }
}

/// Entries that are wrong: of each source how many, and as many as are shown.
#[derive(Default)]
struct Refused(BTreeMap<Origin, (usize, Vec<Refusal>)>);

impl Refused {
    fn add(&mut self, origin: Origin, place: &str, reason: String) {
        let (count, shown) = self.0.entry(origin).or_default();
        *count += 1;
        if shown.len() < Source::MAX_REFUSED {
            let entry = place.chars().filter(|letter| !is_unseen(*letter)).take(MAX_PLACE).collect();
            shown.push(Refusal { entry, reason });
        }
    }
}

/// Where a fixed one comes from, and whether a source says that it is about to end.
fn origins_of(one: &Fixed, candidates: &BTreeMap<BackendAddress, Candidate>) -> (Origins, bool) {
    let mut origins = Origins::of(if one.is_by_hand { Origin::Hand } else { Origin::Config });
    let Some(candidate) = candidates.get(&one.address) else { return (origins, false) };
    candidate.origins().iter().for_each(|origin| origins.insert(origin));
    (origins, candidate.is_draining)
}

/// What has become of whom.
fn changes_between(
    before: &BTreeMap<BackendAddress, Member>,
    after: &BTreeMap<BackendAddress, Member>,
) -> Vec<(BackendAddress, Origin, Change)> {
    let origin = |member: &Member| member.origins.iter().next().unwrap_or(Origin::File);
    let joined = after.iter().filter(|(address, _)| !before.contains_key(address));
    let joined = joined.map(|(address, member)| (*address, origin(member), Change::Joined));
    let left = before.iter().filter(|(address, _)| !after.contains_key(address));
    let left = left.map(|(address, member)| (*address, origin(member), Change::Left));
    let is_held = |address: &BackendAddress, member: &Member| {
        member.held_since.is_some() && before.get(address).is_some_and(|known| known.held_since.is_none())
    };
    let held = after.iter().filter(|(address, member)| is_held(address, member));
    let held = held.map(|(address, member)| (*address, origin(member), Change::Held));
    joined.chain(left).chain(held).collect()
}

/// Characters of a place that are shown.
const MAX_PLACE: usize = 200;

#[cfg(test)]
mod tests;
