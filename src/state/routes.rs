//! Routes: which pool answers for which names.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::config::PoolIndex;
use crate::wire::Name;

/// Routes by suffix; the longest wins.
#[derive(Debug)]
pub struct Routes {
    /// Pools by folded suffix.
    by_suffix: HashMap<Box<[u8]>, PoolIndex, RandomState>,
    /// The pool of ".", and all there is in most configs.
    root: Option<PoolIndex>,
}

impl Routes {
    /// From pairs of suffix and pool.
    pub fn new<'a>(routes: impl Iterator<Item = (&'a Name, PoolIndex)>) -> Self {
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

    /// The pool for a folded name in wire form.
    pub fn find(&self, qname: &[u8]) -> Option<PoolIndex> {
        self.route(qname).map(|(_, pool)| pool)
    }

    /// The same, and the suffix that has led to it.
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
