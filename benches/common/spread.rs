//! Figures of several rounds: the median, and the range it comes from.

/// A median with the range it comes from.
pub(crate) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// The spread of at least one value.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Self { median, min: values[0], max: values[values.len() - 1] }
    }

    pub(crate) fn median(&self) -> f64 {
        self.median
    }

    pub(crate) fn max(&self) -> f64 {
        self.max
    }

    /// `median (min–max)`, each with so many decimals; the median alone if there is no range.
    pub(crate) fn cell(&self, decimals: usize) -> String {
        let Self { median, min, max } = self;
        if min == max {
            return format!("{median:.decimals$}");
        }
        format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
    }
}
