//! The members of one pool: merges the lists of all its sources, the config, and the health of backends.
//!
//! A pure state machine: it takes news of sources as they come, and [`Roster::settle`] decides, as often as
//! its owner likes. The rules for a member that is neither in the config nor added by hand:
//!
//! ```text
//!                  listed                          no longer listed, and up
//!   (absent) ─────────────────▶ listed ──────────────────────────────▶ held
//!                                 ▲  │                                   │ │
//!                                 └──┼────────── listed again ───────────┘ │
//!                                    │ no longer listed,                   │ down; or `hold` is over and the
//!                                    │ and down or draining                │ list not in doubt; or accepted
//!                                    ▼                                     ▼
//!                                 (gone) ◀─────────────────────────────────┘
//! ```
//!
//! The list is in doubt while fewer of the members that are up are listed than held. Causes are an emptied
//! name, a register restored from an old copy, or leases that all expired at once. When a doubt ends by
//! itself, `hold` starts anew for all held members, because they may be registering again one by one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use dns::address::{BackendAddress, is_unseen};
use limit::Prefix;
use metrics::{MemberOrigin, MembershipChange, SourceState};

use super::entry::MemberEntry;
use super::listing::{SourceListing, SourceNews};

/// A set of origins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origins(u8);

impl Origins {
    /// Makes a set of one origin.
    pub fn of(origin: MemberOrigin) -> Self {
        Self(1 << origin as u8)
    }

    /// Adds an origin.
    pub fn insert(&mut self, origin: MemberOrigin) {
        self.0 |= 1 << origin as u8;
    }

    /// Returns true if the set contains the origin.
    pub fn has(self, origin: MemberOrigin) -> bool {
        self.0 & (1 << origin as u8) != 0
    }

    /// Iterates over the origins, highest precedence first.
    pub fn iter(self) -> impl Iterator<Item = MemberOrigin> {
        MemberOrigin::ALL.into_iter().filter(move |origin| self.has(*origin))
    }
}

/// Limits for the members of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct RosterRules {
    /// The largest number of members, those of the config included. Held members come on top.
    pub max: usize,
    /// The time that an unlisted member stays while it is up.
    pub hold: Duration,
    /// The allowed addresses of members.
    pub allow: Vec<Prefix>,
}

/// A backend of the config, or added by an operator: no source can remove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedBackend {
    /// The address of the backend.
    pub address: BackendAddress,
    /// The label of the backend.
    pub name: String,
    /// True if an operator added it.
    pub is_by_hand: bool,
}

/// A member of the pool that is not fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveredMember {
    /// The label of the member.
    pub name: String,
    /// The member's share of the load.
    pub weight: u16,
    /// True if the member has announced that it is about to end.
    pub is_draining: bool,
    /// The sources that list the member, or did last.
    pub origins: Origins,
    /// The start of holding; `None` while the member is listed.
    pub held_since: Option<Instant>,
}

/// A wrong entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntryRefusal {
    /// The place of the entry in its source.
    pub entry: String,
    /// The reason, and a remedy.
    pub reason: String,
}

/// The numbers behind a doubt that the list is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Members that are listed and up.
    pub listed: usize,
    /// Members that are up and no longer listed.
    pub held: usize,
}

/// The result of a settlement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// Each changed member, with the first source that lists it, or did.
    pub changes: Vec<(BackendAddress, MemberOrigin, MembershipChange)>,
    /// True if members were added, removed or changed.
    pub is_change: bool,
    /// Newly refused entries, each with its source.
    pub refused: Vec<(MemberOrigin, EntryRefusal)>,
    /// A doubt that has come up.
    pub doubt: Option<Doubt>,
    /// True if a doubt is over.
    pub is_doubt_over: bool,
}

/// The members of one pool.
#[derive(Debug)]
pub struct Roster {
    rules: RosterRules,
    sources: Vec<PoolSource>,
    members: BTreeMap<BackendAddress, DiscoveredMember>,
    /// Fixed backends that are also listed, and whether they are draining.
    fixed: BTreeMap<BackendAddress, (Origins, bool)>,
    doubt: Option<Doubt>,
    is_accepted: bool,
}

/// One source of one pool.
#[derive(Debug)]
pub struct PoolSource {
    /// The kind of source.
    pub origin: MemberOrigin,
    /// The reason why the source cannot be asked, if so.
    pub failure: Option<String>,
    /// The last time that the source confirmed its list.
    pub confirmed: Option<Instant>,
    /// Refused entries; no more than [`PoolSource::MAX_REFUSED`].
    pub refused: Vec<EntryRefusal>,
    /// The number of all refused entries.
    pub refused_count: usize,
    is_doubted: bool,
    listing: SourceListing,
}

impl PoolSource {
    /// The number of refused entries that are shown.
    pub const MAX_REFUSED: usize = 1000;

    fn new(origin: MemberOrigin) -> Self {
        Self {
            origin,
            failure: None,
            confirmed: None,
            refused: Vec::new(),
            refused_count: 0,
            is_doubted: false,
            listing: SourceListing::default(),
        }
    }

    /// Returns the state of the source.
    pub fn state(&self) -> SourceState {
        match (self.confirmed, &self.failure) {
            (None, _) => SourceState::Never,
            (Some(_), Some(_)) => SourceState::Stale,
            (Some(_), None) if self.is_doubted => SourceState::Doubted,
            (Some(_), None) => SourceState::Fresh,
        }
    }

    /// Returns the list of the source.
    pub fn listing(&self) -> &SourceListing {
        &self.listing
    }
}

impl Roster {
    /// Makes a roster with these sources, which have reported nothing yet.
    pub fn new(rules: RosterRules, origins: impl IntoIterator<Item = MemberOrigin>) -> Self {
        let mut sources: Vec<_> = origins.into_iter().map(PoolSource::new).collect();
        sources.sort_by_key(|source| source.origin);
        Self { rules, sources, members: BTreeMap::new(), fixed: BTreeMap::new(), doubt: None, is_accepted: false }
    }

    /// Changes rules and sources. Sources that stay keep their lists; a new source has reported nothing yet.
    pub fn set_rules(&mut self, rules: RosterRules, origins: &[(MemberOrigin, bool)]) {
        self.rules = rules;
        let mut earlier = std::mem::take(&mut self.sources);
        self.sources = origins
            .iter()
            .map(|&(origin, is_kept)| {
                let known = earlier.iter().position(|source| is_kept && source.origin == origin);
                known.map_or_else(|| PoolSource::new(origin), |index| earlier.swap_remove(index))
            })
            .collect();
        self.sources.sort_by_key(|source| source.origin);
    }

    /// Restores a list that an earlier process saved: it is stale until the source reports.
    pub fn restore(&mut self, origin: MemberOrigin, entries: Vec<MemberEntry>, confirmed: Instant) {
        let Some(source) = self.sources.iter_mut().find(|source| source.origin == origin) else { return };
        let items = entries.into_iter().map(|entry| (entry.address.to_string(), Ok(entry)));
        source.listing.replace(items.collect());
        source.confirmed = Some(confirmed);
        source.failure = Some("not asked yet; the list is from an earlier process".to_owned());
    }

    /// Takes news of a source. Returns true if there is something to settle; ignores news of sources that it
    /// does not have.
    pub fn on_news(&mut self, origin: MemberOrigin, news: SourceNews, now: Instant) -> bool {
        let Some(source) = self.sources.iter_mut().find(|source| source.origin == origin) else { return false };
        let was = source.state();
        let is_change = match news {
            SourceNews::Failed(reason) => {
                source.failure = Some(reason);
                return was != source.state();
            }
            SourceNews::Listed(items) => source.listing.replace(items),
            SourceNews::Changed(changes) => source.listing.change(changes),
            SourceNews::Confirmed => false,
        };
        source.confirmed = Some(now);
        source.failure = None;
        is_change || was != source.state()
    }

    /// Accepts the list as complete. Returns the number of members that are held until now.
    pub fn accept(&mut self) -> usize {
        let held = self.members.values().filter(|member| member.held_since.is_some()).count();
        self.is_accepted = held > 0;
        held
    }

    /// Decides on the members, by the news and the health of backends. `fixed` are the backends of the config
    /// and those added by hand. `is_own` returns true for an address of hedgerow's own listeners.
    pub fn settle(
        &mut self,
        now: Instant,
        fixed: &[FixedBackend],
        is_up: impl Fn(&BackendAddress) -> bool,
        is_own: impl Fn(&BackendAddress) -> bool,
    ) -> Settlement {
        let mut refused = RefusedEntries::default();
        let candidates = self.candidates(is_own, &mut refused);
        let (listed, mut names) = self.listed(&candidates, fixed, &mut refused);
        let of_fixed: BTreeMap<_, _> = fixed.iter().map(|one| (one.address, origins_of(one, &candidates))).collect();
        let mut held: BTreeMap<BackendAddress, DiscoveredMember> = BTreeMap::new();
        for (address, member) in &self.members {
            let is_listed = listed.contains_key(address) || of_fixed.contains_key(address);
            if !is_listed && !member.is_draining && is_up(address) {
                held.insert(*address, member.clone());
            }
        }
        let doubt = self.doubt_of(&listed, &of_fixed, &held, is_up);
        let mut settled = Settlement {
            doubt: doubt.filter(|_| self.doubt.is_none()),
            is_doubt_over: self.doubt.is_some() && doubt.is_none(),
            ..Settlement::default()
        };
        if std::mem::take(&mut self.is_accepted) {
            held.clear();
        }
        held.retain(|address, member| {
            let since = *member.held_since.get_or_insert(now);
            if settled.is_doubt_over {
                member.held_since = Some(now);
            }
            // Another member has this name by now: a held member must not keep a label from its successor.
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

    /// Returns the members that are not fixed, in the order of addresses.
    pub fn members(&self) -> impl Iterator<Item = (BackendAddress, &DiscoveredMember)> {
        self.members.iter().map(|(address, member)| (*address, member))
    }

    /// Returns the origins of a backend, and true if it is draining.
    pub fn origins(&self, address: &BackendAddress) -> Option<(Origins, bool)> {
        let of_member = || self.members.get(address).map(|member| (member.origins, member.is_draining));
        self.fixed.get(address).copied().or_else(of_member)
    }

    /// Returns true if a source lists the backend now.
    pub fn is_listed(&self, address: &BackendAddress) -> bool {
        let is_member = self.members.get(address).is_some_and(|member| member.held_since.is_none());
        is_member || self.fixed.get(address).is_some_and(|(origins, _)| origins.iter().any(MemberOrigin::is_source))
    }

    /// Returns the next time to settle without news.
    pub fn next_time(&self) -> Option<Instant> {
        if self.doubt.is_some() {
            return None;
        }
        self.members.values().filter_map(|member| member.held_since).min().map(|since| since + self.rules.hold)
    }

    /// Returns the sources, highest precedence first.
    pub fn sources(&self) -> &[PoolSource] {
        &self.sources
    }

    /// Returns the number of members that a source lists.
    pub fn count_of(&self, origin: MemberOrigin) -> usize {
        let is_listed = |member: &&DiscoveredMember| member.held_since.is_none() && member.origins.has(origin);
        let fixed = self.fixed.values().filter(|(origins, _)| origins.has(origin)).count();
        self.members.values().filter(is_listed).count() + fixed
    }

    /// Returns the numbers behind the current doubt.
    pub fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    fn candidates(
        &self,
        is_own: impl Fn(&BackendAddress) -> bool,
        refused: &mut RefusedEntries,
    ) -> BTreeMap<BackendAddress, MemberCandidate> {
        let mut candidates: BTreeMap<BackendAddress, MemberCandidate> = BTreeMap::new();
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
                // Sources come in order of precedence.
                candidate.name = candidate.name.take().or_else(|| entry.name.clone());
                candidate.weight = candidate.weight.or(entry.weight);
                candidate.is_draining |= entry.is_draining;
                candidate.places.push((source.origin, place.to_owned()));
            }
            let excess = source.listing.excess();
            if excess > 0 {
                let reason = format!("ignored: {} entries of one source are the limit", SourceListing::MAX_ENTRIES);
                refused.add(source.origin, &format!("{excess} more"), reason);
            }
        }
        candidates
    }

    fn unfit(&self, entry: &MemberEntry, is_own: impl Fn(&BackendAddress) -> bool) -> Option<String> {
        let address = entry.address;
        if !self.rules.allow.iter().any(|prefix| prefix.contains(address.ip())) {
            return Some(format!("{address} is in no prefix of `allow`"));
        }
        is_own(&address).then(|| format!("{address} is a listener of this process: a query would come back"))
    }

    fn listed(
        &self,
        candidates: &BTreeMap<BackendAddress, MemberCandidate>,
        fixed: &[FixedBackend],
        refused: &mut RefusedEntries,
    ) -> (BTreeMap<BackendAddress, DiscoveredMember>, HashMap<String, BackendAddress>) {
        let mut names: HashMap<String, BackendAddress> =
            fixed.iter().map(|one| (one.name.clone(), one.address)).collect();
        let is_fixed: BTreeSet<BackendAddress> = fixed.iter().map(|one| one.address).collect();
        let free = || candidates.iter().filter(|(address, _)| !is_fixed.contains(address));
        let is_member = |address: &BackendAddress| self.members.contains_key(address);
        // Existing members stay; then come new ones.
        let in_turn = free().filter(|one| is_member(one.0)).chain(free().filter(|one| !is_member(one.0)));
        let mut listed = BTreeMap::new();
        for (address, candidate) in in_turn {
            let name = candidate.name.clone().unwrap_or_else(|| address.to_string());
            let reason = match names.get(&name) {
                Some(other) if other != address => Some(format!("the name {name:?} is that of {other}")),
                _ if fixed.len() + listed.len() >= self.rules.max => {
                    Some(format!("the pool has {} members, the limit that `max` sets", self.rules.max))
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
            let member = DiscoveredMember {
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

    /// Returns a doubt if fewer members that are up are listed than held.
    fn doubt_of(
        &self,
        listed: &BTreeMap<BackendAddress, DiscoveredMember>,
        fixed: &BTreeMap<BackendAddress, (Origins, bool)>,
        held: &BTreeMap<BackendAddress, DiscoveredMember>,
        is_up: impl Fn(&BackendAddress) -> bool,
    ) -> Option<Doubt> {
        if self.is_accepted {
            return None;
        }
        // Backends of the config stay in any case, so an incomplete list costs less.
        let fixed = fixed.iter().filter(|(address, (_, is_draining))| !is_draining && is_up(address)).count();
        let listed = listed.iter().filter(|(address, member)| !member.is_draining && is_up(address)).count();
        let doubt = Doubt { listed: fixed + listed, held: held.len() };
        Some(doubt).filter(|doubt| doubt.listed < doubt.held)
    }

    /// Notes a doubt, also with the sources that listed the held members.
    fn set_doubt(&mut self, doubt: Option<Doubt>, members: &BTreeMap<BackendAddress, DiscoveredMember>) {
        self.doubt = doubt;
        for source in &mut self.sources {
            let is_missed =
                |member: &DiscoveredMember| member.held_since.is_some() && member.origins.has(source.origin);
            source.is_doubted = doubt.is_some() && members.values().any(is_missed);
        }
    }

    fn set_refused(&mut self, mut refused: RefusedEntries) -> Vec<(MemberOrigin, EntryRefusal)> {
        let mut fresh = Vec::new();
        for source in &mut self.sources {
            let (count, shown) = refused.0.remove(&source.origin).unwrap_or_default();
            let known: HashSet<EntryRefusal> = std::mem::take(&mut source.refused).into_iter().collect();
            fresh.extend(shown.iter().filter(|one| !known.contains(one)).map(|one| (source.origin, one.clone())));
            (source.refused_count, source.refused) = (count, shown);
        }
        fresh
    }
}

#[derive(Default)]
struct MemberCandidate {
    name: Option<String>,
    weight: Option<u16>,
    is_draining: bool,
    places: Vec<(MemberOrigin, String)>,
}

impl MemberCandidate {
    fn origins(&self) -> Origins {
        let mut origins = Origins::default();
        self.places.iter().for_each(|(origin, _)| origins.insert(*origin));
        origins
    }
}

/// Refused entries by source: their number, and those that are shown.
#[derive(Default)]
struct RefusedEntries(BTreeMap<MemberOrigin, (usize, Vec<EntryRefusal>)>);

impl RefusedEntries {
    fn add(&mut self, origin: MemberOrigin, place: &str, reason: String) {
        let (count, shown) = self.0.entry(origin).or_default();
        *count += 1;
        if shown.len() < PoolSource::MAX_REFUSED {
            let entry = place.chars().filter(|letter| !is_unseen(*letter)).take(MAX_PLACE).collect();
            shown.push(EntryRefusal { entry, reason });
        }
    }
}

/// Returns the origins of a fixed backend, and true if a source lists it as draining.
fn origins_of(one: &FixedBackend, candidates: &BTreeMap<BackendAddress, MemberCandidate>) -> (Origins, bool) {
    let mut origins = Origins::of(if one.is_by_hand { MemberOrigin::Hand } else { MemberOrigin::Config });
    let Some(candidate) = candidates.get(&one.address) else { return (origins, false) };
    candidate.origins().iter().for_each(|origin| origins.insert(origin));
    (origins, candidate.is_draining)
}

fn changes_between(
    before: &BTreeMap<BackendAddress, DiscoveredMember>,
    after: &BTreeMap<BackendAddress, DiscoveredMember>,
) -> Vec<(BackendAddress, MemberOrigin, MembershipChange)> {
    let origin = |member: &DiscoveredMember| member.origins.iter().next().unwrap_or(MemberOrigin::File);
    let joined = after.iter().filter(|(address, _)| !before.contains_key(address));
    let joined = joined.map(|(address, member)| (*address, origin(member), MembershipChange::Joined));
    let left = before.iter().filter(|(address, _)| !after.contains_key(address));
    let left = left.map(|(address, member)| (*address, origin(member), MembershipChange::Left));
    let is_held = |address: &BackendAddress, member: &DiscoveredMember| {
        member.held_since.is_some() && before.get(address).is_some_and(|known| known.held_since.is_none())
    };
    let held = after.iter().filter(|(address, member)| is_held(address, member));
    let held = held.map(|(address, member)| (*address, origin(member), MembershipChange::Held));
    joined.chain(left).chain(held).collect()
}

const MAX_PLACE: usize = 200;

#[cfg(test)]
mod tests;
