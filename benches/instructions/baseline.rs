//! The baseline: the instruction count of each step at the last save, in a file whose diff shows the cost of
//! a change.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Counts, and what they were made with.
#[derive(Debug, PartialEq)]
pub(crate) struct Baseline {
    /// Compiler, machine and valgrind.
    pub(crate) made_with: String,
    /// Instructions of one call, by the name of the step.
    pub(crate) counts: BTreeMap<String, u64>,
}

impl FromStr for Baseline {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut baseline = Self { made_with: String::new(), counts: BTreeMap::new() };
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(made_with) = line.strip_prefix(MADE_WITH) {
                made_with.clone_into(&mut baseline.made_with);
                continue;
            }
            let entry = line.rsplit_once(' ').and_then(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
            baseline.counts.extend([entry.ok_or_else(|| format!("expected a name and a number, not {line:?}"))?]);
        }
        Ok(baseline)
    }
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Instructions of one call, counted by `cargo bench --bench instructions`, which compares with this."
        )?;
        writeln!(f, "# `cargo bench --bench instructions -- --save` makes it anew; the commit says what has changed.")?;
        writeln!(f, "{MADE_WITH}{}\n", self.made_with)?;
        self.counts.iter().try_for_each(|(name, count)| writeln!(f, "{name} {count}"))
    }
}

/// The comparison of a count with the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As many as before, or nearly.
    Same,
    /// Noticeably more than before.
    More,
    /// Noticeably fewer than before.
    Fewer,
    /// The step is not in the baseline.
    New,
}

impl Verdict {
    /// Compares a count with the known one.
    pub(crate) fn of(known: Option<u64>, count: u64) -> Self {
        let Some(known) = known else { return Self::New };
        let difference = count.abs_diff(known);
        if difference <= SLACK || 100 * difference <= TOLERANCE * known {
            return Self::Same;
        }
        if count > known { Self::More } else { Self::Fewer }
    }
}

/// Percent that a count may grow or shrink by.
pub(crate) const TOLERANCE: u64 = 5;

/// Instructions that a count may grow or shrink by, however few there were: what is inlined changes with the
/// rest of the crate, and a call that a step of 90 has or has not is no regression.
const SLACK: u64 = 8;

/// The beginning of the line about tools.
const MADE_WITH: &str = "made with ";
