//! The models: pools of modelled backends, drawn from a seed, and their text for `hedgerow simulate`.

use std::time::Duration;

use clap::ValueEnum;
use engine::sim::{BackendModel, Capacity, Course, Delay, SiteModel, When};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::words;

/// The cause of the tail of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Bimodal,
    Lognormal,
    Pareto,
    Drift,
    Stalls,
    Loss,
    /// Sites, whose backends slow down together.
    Correlated,
    /// Long or uneven service, so that queries queue.
    Queueing,
}

/// A pool of modelled backends.
pub(super) struct Model {
    /// The place among all models.
    pub(super) number: usize,
    pub(super) kind: Kind,
    pub(super) backends: Vec<BackendModel>,
}

impl Model {
    /// Draws all models, always the same.
    pub(super) fn all() -> Vec<Self> {
        let mut draw = ModelDraw { rng: Xoshiro256PlusPlus::seed_from_u64(SEED) };
        let kinds = Kind::value_variants().iter().copied().cycle();
        let model = |(number, kind)| Self { number, kind, backends: draw.pool(kind) };
        kinds.take(COUNT).enumerate().map(model).collect()
    }

    /// Returns the queries per second that all backends together can serve.
    pub(super) fn capacity(&self) -> f64 {
        let capacity = |backend: &BackendModel| {
            let capacity = backend.capacity.as_ref().expect("each backend has a capacity");
            f64::from(capacity.servers) / mean(&capacity.service)
        };
        self.backends.iter().map(capacity).sum()
    }

    /// Returns the options of `hedgerow simulate` for the backends.
    pub(super) fn words(&self) -> String {
        let mut described: Vec<(String, usize)> = Vec::new();
        for backend in &self.backends {
            let text = words::backend(backend);
            match described.last_mut() {
                Some((last, count)) if *last == text => *count += 1,
                _ => described.push((text, 1)),
            }
        }
        let option = |(text, count): &(String, usize)| {
            if *count == 1 { format!("-b '{text}'") } else { format!("-b '{text} count={count}'") }
        };
        described.iter().map(option).collect::<Vec<_>>().join(" ")
    }
}

/// Returns the mean of a service time, in seconds.
fn mean(delay: &Delay) -> f64 {
    match delay {
        Delay::Constant(time) => time.as_secs_f64(),
        Delay::Lognormal { median, sigma } => median.as_secs_f64() * (sigma * sigma / 2.0).exp(),
        Delay::Mixture { usual, others } => {
            let chance: f64 = others.iter().map(|(chance, _)| chance).sum();
            (1.0 - chance) * mean(usual) + others.iter().map(|(chance, other)| chance * mean(other)).sum::<f64>()
        }
        Delay::Uniform { .. } | Delay::Pareto { .. } | Delay::Empirical(_) => unreachable!("no model serves so"),
    }
}

struct ModelDraw {
    rng: Xoshiro256PlusPlus,
}

impl ModelDraw {
    /// Draws two to five backends, in half of the pools equal ones.
    fn pool(&mut self, kind: Kind) -> Vec<BackendModel> {
        let count = self.rng.random_range(2..=5);
        let is_even = self.rng.random_bool(0.5);
        let capacity = if kind == Kind::Queueing { self.uneven_service() } else { self.short_service() };
        let first = self.backend(kind);
        let mut backends = vec![first.clone()];
        backends.extend((1..count).map(|_| if is_even { first.clone() } else { self.backend(kind) }));
        backends.iter_mut().for_each(|backend| backend.capacity = Some(capacity.clone()));
        if kind == Kind::Correlated {
            self.assign_sites(&mut backends);
        }
        backends
    }

    fn backend(&mut self, kind: Kind) -> BackendModel {
        let base = self.time(500, 20_000);
        let usual = BackendModel::default();
        match kind {
            Kind::Bimodal => {
                let slow = self.times(base, 5.0, 200.0);
                let slow = if self.rng.random_bool(0.5) {
                    Delay::Constant(slow)
                } else {
                    Delay::Uniform { from: slow, to: slow * 2 }
                };
                let others = vec![(self.share(0.0005, 0.1), slow)];
                let usual_delay = Box::new(self.lognormal(base, 0.1, 0.4));
                BackendModel { delay: Course::always(Delay::Mixture { usual: usual_delay, others }), ..usual }
            }
            Kind::Lognormal => BackendModel { delay: Course::always(self.lognormal(base, 0.2, 1.6)), ..usual },
            Kind::Pareto => {
                let shape = self.hundredths(1.1, 4.0);
                BackendModel { delay: Course::always(Delay::Pareto { scale: base, shape }), ..usual }
            }
            Kind::Drift => {
                let slow = self.times(base, 2.0, 30.0);
                let shift = (self.lognormal(slow, 0.1, 0.5), self.now_and_then(200, 3_000, 4.0, 15.0));
                let delay = Course { usual: self.lognormal(base, 0.1, 0.6), at_times: vec![shift] };
                BackendModel { delay, ..usual }
            }
            Kind::Stalls => BackendModel {
                delay: Course::always(self.lognormal(base, 0.1, 0.6)),
                stalls: vec![self.now_and_then(20, 500, 10.0, 200.0)],
                ..usual
            },
            Kind::Loss => {
                let at_times = if self.rng.random_bool(0.3) {
                    vec![(self.share(0.05, 0.5), self.now_and_then(100, 500, 10.0, 50.0))]
                } else {
                    Vec::new()
                };
                let loss = Course { usual: self.share(0.0005, 0.05), at_times };
                BackendModel { delay: Course::always(self.lognormal(base, 0.1, 0.6)), loss, ..usual }
            }
            Kind::Correlated => {
                let slow = self.times(base, 5.0, 50.0);
                let others = vec![(self.share(0.001, 0.03), Delay::Constant(slow))];
                let usual_delay = Box::new(self.lognormal(base, 0.1, 0.5));
                BackendModel { delay: Course::always(Delay::Mixture { usual: usual_delay, others }), ..usual }
            }
            Kind::Queueing => BackendModel { delay: Course::always(Delay::Constant(self.time(100, 1_000))), ..usual },
        }
    }

    /// Divides the backends among two sites that are slow at different times.
    fn assign_sites(&mut self, backends: &mut [BackendModel]) {
        let border =
            if backends.len() == 2 { self.rng.random_range(1..=2) } else { self.rng.random_range(2..=backends.len()) };
        let (one, other) = backends.split_at_mut(border);
        for (site, backends) in [("a", one), ("b", other)] {
            let factor = f64::from(self.rng.random_range(2_u32..=20));
            let slow = Course { usual: 1.0, at_times: vec![(factor, self.now_and_then(50, 1_000, 10.0, 100.0))] };
            let site = SiteModel { name: Some(site.to_owned()), slow };
            backends.iter_mut().for_each(|backend| backend.site = site.clone());
        }
    }

    /// Returns a capacity of 400 to 1,600 queries a second that adds little time.
    fn short_service(&mut self) -> Capacity {
        let servers = self.rng.random_range(1..=2);
        let service = rounded(f64::from(servers) * 1e6 / self.between(400.0, 1_600.0));
        Capacity { servers, service: Delay::Constant(service) }
    }

    fn uneven_service(&mut self) -> Capacity {
        let median = self.time(300, 5_000);
        let service = if self.rng.random_bool(0.5) {
            self.lognormal(median, 0.2, 1.2)
        } else {
            let others = vec![(self.share(0.002, 0.05), Delay::Constant(self.times(median, 5.0, 40.0)))];
            Delay::Mixture { usual: Box::new(self.lognormal(median, 0.1, 0.4)), others }
        };
        Capacity { servers: self.rng.random_range(1..=8), service }
    }

    fn lognormal(&mut self, median: Duration, min: f64, max: f64) -> Delay {
        Delay::Lognormal { median, sigma: self.hundredths(min, max) }
    }

    /// Returns a number between two, all magnitudes alike.
    fn between(&mut self, min: f64, max: f64) -> f64 {
        (min.ln() + (max / min).ln() * self.rng.random::<f64>()).exp()
    }

    /// Returns a time between two, in microseconds, with two digits.
    fn time(&mut self, min: u64, max: u64) -> Duration {
        rounded(self.between(min as f64, max as f64))
    }

    /// Returns a multiple of a time, at most a second.
    fn times(&mut self, base: Duration, min: f64, max: f64) -> Duration {
        rounded((base.as_micros() as f64 * self.between(min, max)).min(1e6))
    }

    /// Returns periods by chance, with lengths in milliseconds, and the factor from them to what they come
    /// every.
    fn now_and_then(&mut self, min: u64, max: u64, rare_min: f64, rare_max: f64) -> When {
        let length = self.time(min * 1_000, max * 1_000);
        let every = rounded((length.as_micros() as f64 * self.between(rare_min, rare_max)).min(5e6));
        When::NowAndThen { length, every }
    }

    /// Returns a share between two, in hundredths of a percent.
    fn share(&mut self, min: f64, max: f64) -> f64 {
        (self.between(min, max) * 1e4).round() / 100.0 / 100.0
    }

    fn hundredths(&mut self, min: f64, max: f64) -> f64 {
        (self.rng.random_range(min..max) * 100.0).round() / 100.0
    }
}

/// Returns a time of so many microseconds, with two digits.
fn rounded(micros: f64) -> Duration {
    let step = 10_f64.powf(micros.log10().floor() - 1.0).max(1.0);
    Duration::from_micros(((micros / step).round() * step) as u64)
}

const SEED: u64 = 36;
const COUNT: usize = 200;
