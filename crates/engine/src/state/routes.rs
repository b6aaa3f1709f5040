//! The routes from names to pools.

use config::PoolIndex;
use dns::{Name, suffixes};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::resolver_arpa::RESOLVER_ARPA;

/// Routes by suffix; the longest wins.
#[derive(Debug)]
pub struct Routes {
    by_suffix: HashMap<Box<[u8]>, PoolIndex, RandomState>,
    root: Option<PoolIndex>,
}

/// The target of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The backends of this pool.
    Pool(PoolIndex),
    /// The forwarder itself: see [`ResolverArpa`](super::ResolverArpa).
    Own,
    /// No pool answers for the name.
    NoPool,
}

impl Routes {
    /// Creates routes from pairs of suffix and pool.
    pub(crate) fn new<'a>(routes: impl Iterator<Item = (&'a Name, PoolIndex)>) -> Self {
        let mut by_suffix = HashMap::default();
        let mut root = None;
        for (suffix, pool) in routes {
            if suffix.is_root() {
                root = Some(pool);
            } else {
                by_suffix.insert(suffix.folded().as_wire().into(), pool);
            }
        }
        Self { by_suffix, root }
    }

    /// Returns the target of a folded name in wire form.
    #[inline]
    pub fn target(&self, qname: &[u8]) -> Target {
        // This compares two 8-byte loads, which hardly ever match, so it costs other names almost nothing.
        if qname.ends_with(RESOLVER_ARPA) && self.is_own(qname) {
            return Target::Own;
        }
        self.find(qname).map_or(Target::NoPool, Target::Pool)
    }

    /// RFC 9462 section 6.4: true at or below `resolver.arpa` unless a route names that.
    #[cold]
    #[inline(never)]
    fn is_own(&self, qname: &[u8]) -> bool {
        let is_below = suffixes(qname).any(|suffix| suffix == RESOLVER_ARPA);
        is_below && self.route(qname).is_none_or(|(suffix, _)| suffix.len() < RESOLVER_ARPA.len())
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
            if let Some(pool) = self.by_suffix.get(rest) {
                return Some((rest, *pool));
            }
            rest = below.get(usize::from(length)..)?;
        }
        self.root.map(|pool| (&[0][..], pool))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolver_arpa_is_our_own_unless_a_route_names_it() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let check = |suffixes: &[&str], expected: &[(&str, Target)]| {
            let suffixes: Vec<_> = suffixes.iter().map(|suffix| name(suffix)).collect();
            let routes = Routes::new(suffixes.iter().enumerate().map(|(pool, suffix)| (suffix, PoolIndex(pool))));
            for (qname, target) in expected {
                assert_eq!(routes.target(name(qname).as_wire()), *target, "{qname} by {suffixes:?}");
            }
        };
        let [zero, one] = [0, 1].map(|pool| Target::Pool(PoolIndex(pool)));
        check(
            &["."],
            &[
                ("resolver.arpa", Target::Own),
                ("_dns.resolver.arpa", Target::Own),
                ("a.b.resolver.arpa", Target::Own),
                ("arpa", zero),
                ("badresolver.arpa", zero),
                // A single label that ends with the same bytes.
                ("a\\008resolver.arpa", zero),
                ("resolver.arpa.example", zero),
            ],
        );
        check(&[], &[("resolver.arpa", Target::Own), ("arpa", Target::NoPool)]);
        check(&[".", "arpa"], &[("_dns.resolver.arpa", Target::Own), ("arpa", one)]);
        check(&[".", "Resolver.ARPA"], &[("_dns.resolver.arpa", one), ("resolver.arpa", one)]);
        check(&[".", "_dns.resolver.arpa"], &[("_dns.resolver.arpa", one), ("resolver.arpa", Target::Own)]);
    }

    #[test]
    fn the_longest_suffix_wins_and_labels_are_not_cut() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let (root, org, example) = (name("."), name("ORG"), name("example.org"));
        let routes = Routes::new([(&root, PoolIndex(0)), (&org, PoolIndex(1)), (&example, PoolIndex(2))].into_iter());
        for (qname, pool) in [
            (".", 0),
            ("com", 0),
            ("org", 1),
            ("other.org", 1),
            ("badexample.org", 1),
            ("example.org", 2),
            ("www.example.org", 2),
            ("a.b.c.example.org", 2),
        ] {
            assert_eq!(routes.find(name(qname).as_wire()), Some(PoolIndex(pool)), "{qname}");
            let suffix = [&root, &org, &example][pool].folded();
            assert_eq!(routes.route(name(qname).as_wire()), Some((suffix.as_wire(), PoolIndex(pool))), "{qname}");
        }
        let without_root = Routes::new([(&org, PoolIndex(1))].into_iter());
        assert_eq!(without_root.find(name("example.com").as_wire()), None);
    }
}
