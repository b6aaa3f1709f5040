//! The routes from names to pools.

use config::{PoolIndex, Route};
use dns::suffixes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// Routes by suffix; the longest wins.
#[derive(Debug)]
pub struct Routes {
    by_suffix: HashMap<Box<[u8]>, SuffixRoute, RandomState>,
    root: Option<PoolIndex>,
}

/// The pools of one suffix.
#[derive(Clone, Copy, Debug, Default)]
struct SuffixRoute {
    /// The pool of the suffix itself and of the names below.
    at_and_below: Option<PoolIndex>,
    /// The pool of the names below alone. For these it comes before the other one.
    below: Option<PoolIndex>,
}

impl Routes {
    pub(crate) fn new(routes: &[Route]) -> Self {
        let mut by_suffix: HashMap<Box<[u8]>, SuffixRoute, RandomState> = HashMap::default();
        let mut root = None;
        for &Route { ref suffix, is_below_only, pool } in routes {
            if suffix.is_root() {
                root = Some(pool);
                continue;
            }
            let route = by_suffix.entry(suffix.folded().as_wire().into()).or_default();
            let place = if is_below_only { &mut route.below } else { &mut route.at_and_below };
            *place = Some(pool);
        }
        Self { by_suffix, root }
    }

    /// Returns true if a route has exactly this folded suffix.
    pub(crate) fn has(&self, suffix: &[u8]) -> bool {
        !self.by_suffix.is_empty() && self.by_suffix.contains_key(suffix)
    }

    /// Returns the pool for a folded name in wire form.
    pub(crate) fn find(&self, qname: &[u8]) -> Option<PoolIndex> {
        self.route(qname).map(|(_, pool)| pool)
    }

    /// Returns the matching suffix and the pool for a folded name in wire form.
    pub fn route<'n>(&self, qname: &'n [u8]) -> Option<(&'n [u8], PoolIndex)> {
        let mut rest = if self.by_suffix.is_empty() { &[] } else { qname };
        while let Some((&length, below)) = rest.split_first()
            && length > 0
        {
            if let Some(SuffixRoute { at_and_below, below }) = self.by_suffix.get(rest)
                && let Some(pool) = below.filter(|_| rest.len() < qname.len()).or(*at_and_below)
            {
                return Some((rest, pool));
            }
            rest = below.get(usize::from(length)..)?;
        }
        self.root.map(|pool| (&[0][..], pool))
    }

    /// Returns the suffixes of routes other than the root, folded in wire form.
    pub(super) fn suffixes(&self) -> impl Iterator<Item = &[u8]> {
        self.by_suffix.keys().map(|suffix| &**suffix)
    }

    /// Returns true if a route other than that of the root names this folded name or one above it.
    pub(super) fn covers(&self, name: &[u8]) -> bool {
        suffixes(name).any(|suffix| self.by_suffix.contains_key(suffix))
    }
}

#[cfg(test)]
mod tests {
    use dns::Name;

    use super::*;

    #[test]
    fn the_longest_suffix_wins_and_labels_are_not_cut() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let check = |suffixes: &[&str], expected: &[(&str, Option<usize>)]| {
            let route = |(pool, suffix): (usize, &&str)| {
                let (is_below_only, suffix) = (suffix.starts_with('*'), name(suffix.trim_start_matches("*.")));
                Route { suffix, is_below_only, pool: PoolIndex(pool) }
            };
            let written: Vec<_> = suffixes.iter().enumerate().map(route).collect();
            let routes = Routes::new(&written);
            for &(qname, place) in expected {
                let found = routes.route(name(qname).as_wire()).map(|(suffix, pool)| (suffix.to_vec(), pool));
                let suffix = |place: usize| written[place].suffix.folded().as_wire().to_vec();
                assert_eq!(found, place.map(|place| (suffix(place), PoolIndex(place))), "{qname} by {suffixes:?}");
            }
        };
        check(
            &[".", "ORG", "example.org"],
            &[
                (".", Some(0)),
                ("com", Some(0)),
                ("org", Some(1)),
                ("other.org", Some(1)),
                ("badexample.org", Some(1)),
                ("example.org", Some(2)),
                ("www.example.org", Some(2)),
                ("a.b.c.example.org", Some(2)),
            ],
        );
        check(&["org"], &[("example.com", None)]);
        check(&[".", "*.Example"], &[("example", Some(0)), ("a.example", Some(1)), ("a.b.example", Some(1))]);
        check(&["*.example", "example"], &[("example", Some(1)), ("a.example", Some(0)), ("badexample", None)]);
        check(&["*.a.example", "example"], &[("a.example", Some(1)), ("b.a.example", Some(0))]);
    }
}
