//! Names of the queries: all different, or some more often than others.

use rand::{Rng, RngExt};

/// The distribution of the names of queries.
#[derive(Clone, Debug, PartialEq)]
pub enum NameDistribution {
    /// Each query has a unique name: no joining, no caching, nothing for `sticky`.
    Unique,
    /// Zipf's law, which real queries roughly follow: the n-th name has the weight n^-exponent.
    Zipf {
        /// The speed at which popularity falls; at 0 all names are equally popular.
        exponent: f64,
        /// The number of names, at least 1.
        count: u32,
    },
}

#[derive(Debug)]
pub(super) struct NameDraw {
    drawn: u32,
    sums: Vec<f64>,
}

impl NameDraw {
    pub(super) fn new(names: &NameDistribution) -> Self {
        let sums = match *names {
            NameDistribution::Unique => Vec::new(),
            NameDistribution::Zipf { exponent, count } => {
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

    fn shares(exponent: f64) -> [u32; 3] {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut names = NameDraw::new(&NameDistribution::Zipf { exponent, count: 3 });
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
        let mut names = NameDraw::new(&NameDistribution::Unique);
        let drawn: std::collections::HashSet<_> = (0..1_000).map(|_| names.next(&mut rng)).collect();
        assert_eq!(drawn.len(), 1_000);
    }
}
