//! Which names are asked for: each once, or some more often than others.

use rand::{Rng, RngExt};

/// Which names queries are for.
#[derive(Clone, Debug, PartialEq)]
pub enum Names {
    /// Each query has a name of its own: there is nothing to join, to cache, or to be sticky about.
    Unique,
    /// Zipf's law, which names in queries follow about: the n-th of so many names is asked for as often as n^-exponent says.
    Zipf {
        /// How fast popularity falls; at 0 all names are as popular.
        exponent: f64,
        /// How many names there are, at least 1.
        count: u32,
    },
}

/// Draws names, by number.
#[derive(Debug)]
pub(super) struct NameDraw {
    /// How many were drawn.
    drawn: u32,
    /// For each name, the sum of the weights up to it; nothing if each is another.
    sums: Vec<f64>,
}

impl NameDraw {
    /// Draws from these.
    pub(super) fn new(names: &Names) -> Self {
        let sums = match *names {
            Names::Unique => Vec::new(),
            Names::Zipf { exponent, count } => {
                let weights = (1..=count).map(|rank| f64::from(rank).powf(-exponent));
                let sums = weights.scan(0.0, |sum, weight| {
                    *sum += weight;
                    Some(*sum)
                });
                sums.collect()
            }
        };
        Self { drawn: 0, sums }
    }

    /// The name of the next query.
    pub(super) fn next(&mut self, rng: &mut impl Rng) -> u32 {
        self.drawn = self.drawn.wrapping_add(1);
        let Some(all) = self.sums.last() else { return self.drawn };
        let drawn = all * rng.random::<f64>();
        self.sums.partition_point(|sum| *sum <= drawn).min(self.sums.len() - 1) as u32
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;

    use super::*;

    /// How often each of three names comes.
    fn shares(exponent: f64) -> [u32; 3] {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut names = NameDraw::new(&Names::Zipf { exponent, count: 3 });
        let mut counts = [0; 3];
        (0..110_000).for_each(|_| counts[names.next(&mut rng) as usize] += 1);
        counts
    }

    #[test]
    fn popularity_falls_as_the_law_says() {
        for (exponent, expected) in [(1.0, [60_000, 30_000, 20_000]), (0.0, [36_667; 3])] {
            let found = shares(exponent);
            assert!(found.iter().zip(expected).all(|(found, expected)| found.abs_diff(expected) < 1_000), "{found:?}");
        }
    }

    #[test]
    fn unique_names_never_come_again() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut names = NameDraw::new(&Names::Unique);
        let drawn: std::collections::HashSet<_> = (0..1_000).map(|_| names.next(&mut rng)).collect();
        assert_eq!(drawn.len(), 1_000);
    }
}
