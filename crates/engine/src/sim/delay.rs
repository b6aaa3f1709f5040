//! Distributions of the times that a modelled backend takes.

use std::f64::consts::TAU;
use std::time::Duration;

use rand::{Rng, RngExt};

/// A distribution of times.
#[derive(Clone, Debug, PartialEq)]
pub enum Delay {
    /// Always the same time.
    Constant(Duration),
    /// Uniform between two times.
    Uniform {
        /// The lower bound of the times.
        from: Duration,
        /// The upper bound of the times.
        to: Duration,
    },
    /// The logarithm is normally distributed, as for most servers seen from a distance.
    Lognormal {
        /// The median of the times.
        median: Duration,
        /// The standard deviation of the logarithm; at 1 the p99 is ten times the median.
        sigma: f64,
    },
    /// A power law with a heavy tail.
    Pareto {
        /// The shortest possible time.
        scale: Duration,
        /// The speed at which the tail falls: n times the shortest is exceeded with the chance n^-shape.
        shape: f64,
    },
    /// One usual distribution, and others by chance.
    Mixture {
        /// The distribution that applies if no other is drawn.
        usual: Box<Self>,
        /// Other distributions with their chances, which add up to 1 at most.
        others: Vec<(f64, Self)>,
    },
    /// A measured histogram.
    Empirical(Empirical),
}

impl Delay {
    pub(crate) fn draw(&self, rng: &mut impl Rng) -> Duration {
        match self {
            Self::Constant(time) => *time,
            Self::Uniform { from, to } => *from + to.saturating_sub(*from).mul_f64(rng.random()),
            Self::Lognormal { median, sigma } => {
                // Box-Muller transform; its second number is not kept.
                let radius = (-2.0 * above_zero(rng).ln()).sqrt();
                let normal = radius * (TAU * rng.random::<f64>()).cos();
                bounded(median.as_secs_f64() * (sigma * normal).exp())
            }
            Self::Pareto { scale, shape } => bounded(scale.as_secs_f64() * above_zero(rng).powf(-1.0 / shape)),
            Self::Mixture { usual, others } => {
                let mut ticket: f64 = rng.random();
                let drawn = others.iter().find(|(chance, _)| {
                    ticket -= chance;
                    ticket < 0.0
                });
                drawn.map_or(&**usual, |(_, other)| other).draw(rng)
            }
            Self::Empirical(measured) => measured.draw(rng),
        }
    }
}

pub(super) fn exponential(mean: Duration, rng: &mut impl Rng) -> Duration {
    bounded(-above_zero(rng).ln() * mean.as_secs_f64())
}

/// A histogram of measured times. Times within a bin are equally likely.
#[derive(Clone, Debug, PartialEq)]
pub struct Empirical {
    bins: Vec<(u64, Duration, Duration)>,
    count: u64,
}

impl Empirical {
    /// Builds a histogram from bins: lower border, upper border, count. `None` if all are empty.
    pub fn new(bins: impl IntoIterator<Item = (Duration, Duration, u64)>) -> Option<Self> {
        let mut count = 0_u64;
        let summed = bins.into_iter().filter(|&(.., many)| many > 0).map(|(from, to, many)| {
            count = count.saturating_add(many);
            (count, from, to)
        });
        let bins: Vec<_> = summed.collect();
        (count > 0).then_some(Self { bins, count })
    }

    fn draw(&self, rng: &mut impl Rng) -> Duration {
        let ticket = rng.random_range(0..self.count);
        let place = self.bins.partition_point(|&(sum, ..)| sum <= ticket);
        let drawn = self.bins.get(place).map(|&(_, from, to)| Delay::Uniform { from, to });
        drawn.map_or(Duration::ZERO, |bin| bin.draw(rng))
    }
}

fn above_zero(rng: &mut impl Rng) -> f64 {
    1.0 - rng.random::<f64>()
}

fn bounded(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, MAX_SECONDS))
}

/// The bound in seconds. A power law has no bound, but the clock has.
const MAX_SECONDS: f64 = 3_600.0;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;

    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Draws many times and compares some quantiles, in ms, within 3 %.
    fn check(delay: &Delay, expected: &[(f64, f64)]) {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut drawn: Vec<_> = (0..100_000).map(|_| delay.draw(&mut rng)).collect();
        drawn.sort_unstable();
        for &(part, expected) in expected {
            let found = drawn[(part * 100_000.0) as usize].as_secs_f64() * 1e3;
            assert!((found / expected - 1.0).abs() < 0.03, "{delay:?}: quantile {part} is {found} ms, not {expected}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_distribution() {
        check(&Delay::Constant(ms(3)), &[(0.0, 3.0), (0.999, 3.0)]);
        check(&Delay::Uniform { from: ms(10), to: ms(20) }, &[(0.0, 10.0), (0.5, 15.0), (0.9, 19.0)]);
        // The normal distribution has 84.13 % below one standard deviation.
        let lognormal = Delay::Lognormal { median: ms(10), sigma: 1.0 };
        check(&lognormal, &[(0.1587, 3.679), (0.5, 10.0), (0.8413, 27.18)]);
        let pareto = Delay::Pareto { scale: ms(10), shape: 2.0 };
        check(&pareto, &[(0.0, 10.0), (0.75, 20.0), (0.99, 100.0)]);
        let bins = [(ms(0), ms(10), 900), (ms(50), ms(50), 0), (ms(100), ms(200), 100)];
        let empirical = Delay::Empirical(Empirical::new(bins).expect("there are samples"));
        check(&empirical, &[(0.45, 5.0), (0.91, 110.0), (0.95, 150.0)]);
    }

    #[test]
    fn a_mixture_draws_each_part_as_often_as_it_says() {
        let others = vec![(0.1, Delay::Constant(ms(100))), (0.01, Delay::Constant(ms(500)))];
        let mixture = Delay::Mixture { usual: Box::new(Delay::Constant(ms(1))), others };
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut counts = [0_u32; 3];
        for _ in 0..100_000 {
            match mixture.draw(&mut rng).as_millis() {
                1 => counts[0] += 1,
                100 => counts[1] += 1,
                500 => counts[2] += 1,
                other => panic!("{other} ms is none of these"),
            }
        }
        assert!(counts[1].abs_diff(10_000) < 300 && counts[2].abs_diff(1_000) < 100, "{counts:?}");
    }

    #[test]
    fn the_mean_of_waits_is_right() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let sum: Duration = (0..100_000).map(|_| exponential(ms(10), &mut rng)).sum();
        assert!((sum.as_secs_f64() - 1_000.0).abs() < 10.0, "{sum:?}");
    }

    #[test]
    fn nothing_measured_is_no_distribution() {
        assert_eq!(Empirical::new([]), None);
        assert_eq!(Empirical::new([(ms(1), ms(2), 0)]), None);
    }

    #[test]
    fn even_a_wild_tail_ends() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let wild = Delay::Pareto { scale: ms(1), shape: 0.01 };
        assert!((0..1_000).all(|_| wild.draw(&mut rng) <= Duration::from_secs(3_600)));
    }
}
