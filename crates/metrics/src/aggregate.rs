//! Counters of threads, and their sums: each set of counters is declared once, by `counters!`.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize};

/// A number with one writer and many readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one to the counter.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`. Not a read-modify-write, because there is one writer.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed) + n, Relaxed);
    }

    /// Subtracts `n`, for gauges.
    pub fn subtract(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Resets a gauge to 0. Its writer must have ended.
    pub fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    /// Returns the current value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Numbers added up over threads and carried on from process to process.
pub trait Aggregate: Sized {
    /// The same numbers where one thread counts them.
    type Counted;

    /// Adds the numbers of one thread.
    fn collect(&mut self, counted: &Self::Counted);

    /// Subtracts an earlier state. Gauges keep their current value.
    fn subtract(&mut self, earlier: &Self);

    /// Returns the growth since an earlier state. Gauges keep their current value.
    fn since(&self, earlier: &Self) -> Self
    where
        Self: Clone,
    {
        let mut grown = self.clone();
        grown.subtract(earlier);
        grown
    }

    /// Adds these numbers, of another process, to those of a thread. Gauges belong to one process.
    fn carry(&self, to: &Self::Counted);

    /// Reads numbers that another process has sent.
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error>;

    /// Returns the numbers before anything is counted.
    fn none() -> Self;
}

/// Numbers that another process has sent.
struct CarriedNumber<T>(T);

impl<'de, T: Aggregate> Deserialize<'de> for CarriedNumber<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        T::read(from).map(Self)
    }
}

impl Aggregate for u64 {
    type Counted = Counter;

    fn collect(&mut self, counted: &Counter) {
        *self += counted.get();
    }

    fn subtract(&mut self, earlier: &Self) {
        *self = self.saturating_sub(*earlier);
    }

    fn carry(&self, to: &Counter) {
        to.add(*self);
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::deserialize(from)
    }

    fn none() -> Self {
        Self::default()
    }
}

/// A number that also falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gauge(pub u64);

impl Aggregate for Gauge {
    type Counted = Counter;

    fn collect(&mut self, counted: &Counter) {
        self.0 += counted.get();
    }

    fn subtract(&mut self, _: &Self) {}

    fn carry(&self, _: &Counter) {}

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::deserialize(from)
    }

    fn none() -> Self {
        Self::default()
    }
}

/// Numbers by label. They have the order of the enum's variants: a new variant stands last, so that the
/// numbers of another version keep their places.
impl<T: Aggregate, const N: usize> Aggregate for [T; N] {
    type Counted = [T::Counted; N];

    fn collect(&mut self, counted: &Self::Counted) {
        self.iter_mut().zip(counted).for_each(|(sum, counted)| sum.collect(counted));
    }

    fn subtract(&mut self, earlier: &Self) {
        self.iter_mut().zip(earlier).for_each(|(sum, earlier)| sum.subtract(earlier));
    }

    fn carry(&self, to: &Self::Counted) {
        self.iter().zip(to).for_each(|(sum, to)| sum.carry(to));
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut sent = Vec::<CarriedNumber<T>>::deserialize(from)?.into_iter();
        Ok(array::from_fn(|_| sent.next().map_or_else(T::none, |CarriedNumber(sent)| sent)))
    }

    fn none() -> Self {
        array::from_fn(|_| T::none())
    }
}

/// Numbers of something that not every thread has.
impl<T: Aggregate<Counted: Default>> Aggregate for Option<Box<T>> {
    type Counted = OnceLock<Arc<T::Counted>>;

    fn collect(&mut self, counted: &Self::Counted) {
        if let (Some(sum), Some(counted)) = (self, counted.get()) {
            sum.collect(counted);
        }
    }

    fn subtract(&mut self, earlier: &Self) {
        if let (Some(sum), Some(earlier)) = (self, earlier) {
            sum.subtract(earlier);
        }
    }

    fn carry(&self, to: &Self::Counted) {
        if let Some(sum) = self {
            sum.carry(to.get_or_init(Arc::default));
        }
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Option::<CarriedNumber<T>>::deserialize(from)?.map(|CarriedNumber(sent)| Box::new(sent)))
    }

    fn none() -> Self {
        None
    }
}

/// Declares a set of counters: a struct of sums, and a struct of [`Counter`]s in which one thread counts.
macro_rules! counters {
    (
        $(#[$meta:meta])*
        $vis:vis struct $sums:ident, counted in $counters:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        $vis struct $sums {
            $($(#[$field_meta])* #[serde(deserialize_with = "crate::aggregate::Aggregate::read")] pub $field: $type,)+
        }

        #[doc = concat!("The counters of one thread that add up to [`", stringify!($sums), "`].")]
        #[derive(Debug, Default)]
        $vis struct $counters {
            $($(#[$field_meta])* pub $field: <$type as Aggregate>::Counted,)+
        }

        impl Aggregate for $sums {
            type Counted = $counters;

            fn collect(&mut self, counted: &$counters) {
                $(self.$field.collect(&counted.$field);)+
            }

            fn subtract(&mut self, earlier: &Self) {
                $(self.$field.subtract(&earlier.$field);)+
            }

            fn carry(&self, to: &$counters) {
                $(self.$field.carry(&to.$field);)+
            }

            fn read<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                serde::Deserialize::deserialize(from)
            }

            fn none() -> Self {
                Self::default()
            }
        }
    };
}
