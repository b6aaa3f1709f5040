//! The classes of clients: sorted ranges of addresses, in each of which the same rules match.

use std::net::IpAddr;

use limit::Prefix;

use super::sets::{self, RuleSets};

/// The classes of all addresses.
#[derive(Debug)]
pub(crate) struct ClientClasses {
    ipv4: Ranges<u32>,
    ipv6: Ranges<u128>,
}

/// The first address of each range in ascending order, and the class of each range. The first range begins
/// at 0.
#[derive(Debug)]
struct Ranges<T> {
    first: Box<[T]>,
    class: Box<[u32]>,
}

impl ClientClasses {
    /// Compiles lists of prefixes, one for each rule; an empty list matches all addresses.
    pub(crate) fn new(lists: &[&[Prefix]], sets: &mut RuleSets) -> Self {
        let wide = |(first, last): (u32, u32)| (u128::from(first), u128::from(last));
        let (first, class) = classes(lists, &|prefix| prefix.range_4().map(wide), u32::MAX.into(), sets);
        let ipv4 = Ranges { first: first.into_iter().map(|first| first as u32).collect(), class };
        let (first, class) = classes(lists, &Prefix::range_6, u128::MAX, sets);
        Self { ipv4, ipv6: Ranges { first: first.into(), class } }
    }

    /// Returns the class of an address. An IPv4-mapped IPv6 address counts as IPv4.
    pub(crate) fn class(&self, client: IpAddr) -> u32 {
        match client.to_canonical() {
            IpAddr::V4(address) => self.ipv4.class(address.to_bits()),
            IpAddr::V6(address) => self.ipv6.class(address.to_bits()),
        }
    }
}

impl<T: PartialOrd> Ranges<T> {
    fn class(&self, address: T) -> u32 {
        let behind = self.first.partition_point(|first| *first <= address);
        self.class[behind - 1]
    }
}

/// Returns the first addresses of ranges and their classes, for one version of IP.
fn classes(
    lists: &[&[Prefix]],
    range: &dyn Fn(&Prefix) -> Option<(u128, u128)>,
    max: u128,
    sets: &mut RuleSets,
) -> (Vec<u128>, Box<[u32]>) {
    // At each address where a prefix begins or ends, so many prefixes more or fewer of a rule match.
    let mut changes = Vec::new();
    let mut set = sets.none();
    for (rule, list) in lists.iter().enumerate() {
        if list.is_empty() {
            sets::insert(&mut set, rule);
        }
        for (first, last) in list.iter().filter_map(range) {
            changes.push((first, rule, 1));
            if last < max {
                changes.push((last + 1, rule, -1));
            }
        }
    }
    changes.sort_unstable();
    let mut depths = vec![0; lists.len()];
    let (mut starts, mut numbers) = (vec![0], vec![sets.number(&set)]);
    for changes in changes.chunk_by(|one, other| one.0 == other.0) {
        for &(_, rule, change) in changes {
            depths[rule] += change;
            set[rule / 64] &= !(1 << (rule % 64));
            if depths[rule] > 0 {
                sets::insert(&mut set, rule);
            }
        }
        let (start, number) = (changes[0].0, sets.number(&set));
        if start == 0 {
            numbers[0] = number;
        } else if numbers.last() != Some(&number) {
            starts.push(start);
            numbers.push(number);
        }
    }
    (starts, numbers.into())
}
