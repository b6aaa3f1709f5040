//! The values of each dimension that a proof has to try: one for each set of rules that a value can match.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dns::{Name, RecordType, Transport};
use limit::{Access, Prefix};

use super::super::pattern::{AT, BELOW};
use super::super::{Rule, RuleTable};
use super::QuerySpace;

/// Values with different sets of matching rules.
pub(super) struct Choices<T> {
    sets: Vec<Box<[u64]>>,
    values: Vec<T>,
    known: HashSet<Box<[u64]>>,
}

impl<T> Choices<T> {
    fn new() -> Self {
        Self { sets: Vec::new(), values: Vec::new(), known: HashSet::new() }
    }

    /// Adds a value if its set is new. The value may turn out not to exist.
    fn offer(&mut self, set: &[u64], value: impl FnOnce() -> Option<T>) {
        if !self.known.contains(set)
            && let Some(value) = value()
        {
            self.known.insert(set.into());
            self.sets.push(set.into());
            self.values.push(value);
        }
    }

    pub(super) fn sets(&self) -> &[Box<[u64]>] {
        &self.sets
    }

    pub(super) fn value(&self, number: usize) -> &T {
        &self.values[number]
    }
}

/// Returns one admitted address of these prefixes, or of all, for each class.
pub(super) fn clients(table: &RuleTable, rules: &[Rule], space: &QuerySpace, of: &[Prefix]) -> Choices<IpAddr> {
    let access = Access::new(&space.access);
    let prefixes = || {
        let admitted = space.access.allow.iter().chain(&space.access.deny).chain(of);
        rules.iter().flat_map(|rule| &rule.clients).chain(admitted)
    };
    let wide = |(first, last): (u32, u32)| (first.into(), last.into());
    let ipv4 = bounds(prefixes().filter_map(Prefix::range_4).map(wide), u32::MAX.into());
    // IPv4-mapped addresses count as IPv4, so that no client has one of them.
    let mapped = (MAPPED, MAPPED | u128::from(u32::MAX));
    let ipv6 = bounds(prefixes().filter_map(Prefix::range_6).chain([mapped]), u128::MAX);
    let ipv4 = ipv4.into_iter().map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits as u32)));
    let ipv6 = ipv6.into_iter().map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits)));
    let mut choices = Choices::new();
    let is_here = |client: &IpAddr| of.is_empty() || of.iter().any(|prefix| prefix.contains(*client));
    let is_possible = |client: &IpAddr| client.to_canonical() == *client && is_here(client) && access.admits(*client);
    for client in ipv4.chain(ipv6).filter(is_possible) {
        choices.offer(table.client_set(client), || Some(client));
    }
    choices
}

/// The first IPv4-mapped address (RFC 4291 section 2.5.5.2).
const MAPPED: u128 = 0xFFFF_0000_0000;

/// Returns an address of each range that the bounds of `ranges` make of all addresses: the second one, as the
/// first one of a network is rarely the address of a host, unless it is alone.
fn bounds(ranges: impl Iterator<Item = (u128, u128)>, max: u128) -> Vec<u128> {
    let behind = |last: u128| (last < max).then(|| last + 1);
    let starts: BTreeSet<_> =
        ranges.flat_map(|(first, last)| [Some(first), behind(last)]).flatten().chain([0]).collect();
    starts.iter().map(|&start| if start == max || starts.contains(&(start + 1)) { start } else { start + 1 }).collect()
}

/// Returns one pair of listener and transport for each class, of the listeners with these clients.
pub(super) fn listeners(table: &RuleTable, space: &QuerySpace, of: &[Prefix]) -> Choices<(usize, Transport)> {
    let mut choices = Choices::new();
    for (listener, here) in space.listeners.iter().enumerate().filter(|(_, here)| here.clients == of) {
        for &transport in &here.transports {
            choices.offer(table.listener_set(Some(listener), transport), || Some((listener, transport)));
        }
    }
    choices
}

/// Returns one type for each class. Transfers do not come to the rules.
pub(super) fn types(table: &RuleTable, rules: &[Rule]) -> Choices<RecordType> {
    let listed: BTreeSet<_> = rules.iter().flat_map(|rule| rule.types.iter().copied()).collect();
    let other = (1..=u16::MAX).map(RecordType).find(|rtype| !listed.contains(rtype) && !is_transfer(*rtype));
    let common = [RecordType::A, RecordType::AAAA];
    let mut choices = Choices::new();
    for rtype in common.into_iter().chain(listed.into_iter().filter(|rtype| !is_transfer(*rtype))).chain(other) {
        choices.offer(table.type_set(rtype), || Some(rtype));
    }
    choices
}

fn is_transfer(rtype: RecordType) -> bool {
    matches!(rtype, RecordType::AXFR | RecordType::IXFR)
}

/// Returns one name for each class, and false if there were too many names to try all.
///
/// A class of names has the root, a name of a pattern, or a name below one of these that no pattern names.
/// Names below an exact name match as names below the nearest ancestor whose pattern goes below.
pub(super) fn names(table: &RuleTable, rules: &[Rule], max_look_ups: usize) -> (Choices<Name>, bool) {
    let mut names = Names { table, choices: Choices::new(), set: Vec::new(), look_ups: 0 };
    let root = Name::root();
    names.try_below(root.as_wire());
    names.try_at(root.as_wire());
    for pattern in rules.iter().flat_map(|rule| &rule.names) {
        let name = pattern.name().folded();
        names.try_at(name.as_wire());
        names.try_below(name.as_wire());
    }
    for (wire, relations) in table.files().flat_map(|file| file.iter()) {
        names.try_at(wire);
        if relations & BELOW > 0 {
            names.try_below(wire);
        }
        if names.look_ups > max_look_ups {
            return (names.choices, false);
        }
    }
    (names.choices, true)
}

struct Names<'a> {
    table: &'a RuleTable,
    choices: Choices<Name>,
    /// Memory of the set that is compared.
    set: Vec<u64>,
    look_ups: usize,
}

impl Names<'_> {
    fn try_at(&mut self, wire: &[u8]) {
        self.look_ups += self.table.name_set(wire, AT, &mut self.set);
        self.choices.offer(&self.set, || Name::from_wire(wire).ok());
    }

    fn try_below(&mut self, wire: &[u8]) {
        self.look_ups += self.table.name_set(wire, BELOW, &mut self.set);
        self.choices.offer(&self.set, || fresh_below(self.table, wire));
    }
}

/// Returns a name one label below `wire` that no pattern names. There may be no room for one.
fn fresh_below(table: &RuleTable, wire: &[u8]) -> Option<Name> {
    let room = Name::MAX_LEN.saturating_sub(wire.len() + 1);
    let plain: &[&[u8]] = if wire.len() == 1 { &[b"example"] } else { &[b"www"] };
    let plain = plain.iter().filter(|label| label.len() <= room).map(|label| label.to_vec());
    let labels = plain.chain((1..=room.min(4)).flat_map(labels_of));
    labels
        .filter_map(|label| Name::from_wire(&[&[label.len() as u8], &*label, wire].concat()).ok())
        .find(|name| !table.has_name(name.as_wire()))
}

/// Returns all labels of a length in lower case, first those of letters.
fn labels_of(len: usize) -> impl Iterator<Item = Vec<u8>> {
    let others = (0..=u8::MAX).filter(|octet| !octet.is_ascii_alphabetic());
    let octets: Vec<u8> = (b'a'..=b'z').chain(others).collect();
    let count = octets.len();
    (0..count.pow(len as u32)).map(move |number| {
        let digits = std::iter::successors(Some(number), |rest| Some(rest / count));
        digits.take(len).map(|rest| octets[rest % count]).collect()
    })
}
