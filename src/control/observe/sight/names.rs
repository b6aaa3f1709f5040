//! The most frequent names of the last ten minutes: a bounded count by Space-Saving (Metwally, Agrawal, El
//! Abbadi 2005: "Efficient computation of frequent and top-k elements in data streams") for each minute.
//!
//! A minute has a thousand counters. A new name takes the counter of the least frequent one, with its count
//! as the error: so a count is never too small, and too large by its error at most. A report adds up the
//! minutes. Only a sample of the questions is counted, and all figures are multiplied by its weight.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use dns::{Rcode, RecordType};
use serde::{Deserialize, Serialize};

/// The most frequent names of the last ten minutes, and those that got SERVFAIL most.
#[derive(Debug, Default)]
pub struct TopNames {
    minutes: VecDeque<Minute>,
}

#[derive(Debug)]
struct Minute {
    number: u64,
    asked: SpaceSaving,
    servfail: SpaceSaving,
}

/// The names as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NamesReport {
    /// The most frequent names in descending order.
    pub names: Vec<NameCount>,
    /// The names answered with SERVFAIL most.
    pub servfail: Vec<NameCount>,
}

/// The frequency of a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NameCount {
    /// The name.
    pub name: String,
    /// The type.
    #[serde(rename = "type")]
    pub qtype: String,
    /// The approximate number of queries; never fewer than were counted.
    pub queries: u64,
    /// The amount by which `queries` may be too large.
    pub error: u64,
}

impl TopNames {
    /// The number of questions that each counted one stands for.
    pub const STANDS_FOR: u64 = 16;

    /// Returns the minute of a Unix time in seconds.
    pub fn minute_of(unix_time: u64) -> u64 {
        unix_time / 60
    }

    /// Counts a question, in wire form and folded, with its response code.
    pub fn count(&mut self, qname: &[u8], qtype: RecordType, rcode: Rcode, minute: u64) {
        if self.minutes.back().is_none_or(|last| last.number < minute) {
            self.minutes.push_back(Minute {
                number: minute,
                asked: SpaceSaving::new(COUNTERS),
                servfail: SpaceSaving::new(COUNTERS),
            });
        }
        self.forget(minute);
        let Some(last) = self.minutes.back_mut() else { return };
        last.asked.count(qname, qtype);
        if rcode == Rcode::SERVFAIL {
            last.servfail.count(qname, qtype);
        }
    }

    /// Returns the most frequent names as of this minute.
    pub fn report(&mut self, minute: u64) -> NamesReport {
        self.forget(minute);
        let added = |of: fn(&Minute) -> &SpaceSaving| top(self.minutes.iter().map(of));
        NamesReport { names: added(|minute| &minute.asked), servfail: added(|minute| &minute.servfail) }
    }

    fn forget(&mut self, minute: u64) {
        while self.minutes.front().is_some_and(|first| first.number + MINUTES <= minute) {
            self.minutes.pop_front();
        }
    }
}

type Question = Arc<(Box<[u8]>, RecordType)>;

#[derive(Debug)]
struct SpaceSaving {
    capacity: usize,
    /// Count and error of each question, and the order in which it reached that count.
    counts: HashMap<Question, CountedName>,
    by_count: BTreeMap<(u64, u64), Question>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct CountedName {
    count: u64,
    error: u64,
    order: u64,
}

impl SpaceSaving {
    fn new(capacity: usize) -> Self {
        Self { capacity, counts: HashMap::new(), by_count: BTreeMap::new(), next: 0 }
    }

    fn count(&mut self, qname: &[u8], qtype: RecordType) {
        let question: Question = Arc::new((qname.into(), qtype));
        self.next += 1;
        let order = self.next;
        let counted = match self.counts.get(&question) {
            Some(known) => {
                self.by_count.remove(&(known.count, known.order));
                CountedName { count: known.count + 1, error: known.error, order }
            }
            None if self.counts.len() < self.capacity => CountedName { count: 1, error: 0, order },
            None => {
                let Some(((least, _), out)) = self.by_count.pop_first() else { return };
                self.counts.remove(&out);
                CountedName { count: least + 1, error: least, order }
            }
        };
        self.by_count.insert((counted.count, order), Arc::clone(&question));
        self.counts.insert(question, counted);
    }

    /// Returns the maximum count of a question without a counter.
    fn least(&self) -> u64 {
        let is_full = self.counts.len() >= self.capacity;
        let least = self.by_count.first_key_value().map(|((count, _), _)| *count);
        least.filter(|_| is_full).unwrap_or(0)
    }
}

/// Adds up several counts: a question without a counter in one of them may have occurred as often as its
/// least.
fn top<'a>(counts: impl Iterator<Item = &'a SpaceSaving> + Clone) -> Vec<NameCount> {
    let mut sums: HashMap<&Question, (u64, u64)> = HashMap::new();
    for question in counts.clone().flat_map(|one| one.counts.keys()) {
        sums.entry(question).or_insert_with(|| {
            let parts = counts.clone().map(|one| match one.counts.get(question) {
                Some(known) => (known.count, known.error),
                None => (one.least(), one.least()),
            });
            parts.fold((0, 0), |(count, error), (more, off)| (count + more, error + off))
        });
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|(one, (count, error)), (other, (others, off))| {
        others.cmp(count).then(error.cmp(off)).then_with(|| one.cmp(other))
    });
    let named = sums.into_iter().take(SHOWN).map(|(question, (count, error))| NameCount {
        name: dns::display_name(&question.0).to_string(),
        qtype: question.1.to_string(),
        queries: count * TopNames::STANDS_FOR,
        error: error * TopNames::STANDS_FOR,
    });
    named.collect()
}

const COUNTERS: usize = 1_000;

const MINUTES: u64 = 10;

const SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn name(number: u64) -> Vec<u8> {
        let label = format!("n{number}");
        [&[label.len() as u8], label.as_bytes(), &[0]].concat()
    }

    #[test]
    fn what_fits_is_counted_exactly() {
        let mut top = TopNames::default();
        for (number, times) in [(1, 5), (2, 9), (3, 1)] {
            let rcode = if number == 3 { Rcode::SERVFAIL } else { Rcode::NOERROR };
            (0..times).for_each(|_| top.count(&name(number), RecordType::A, rcode, 7));
        }
        top.count(&name(2), RecordType::AAAA, Rcode::NOERROR, 8);
        let report = top.report(8);
        let shown = |list: &[NameCount]| {
            list.iter()
                .map(|one| format!("{} {} {} ±{}", one.name, one.qtype, one.queries, one.error))
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(&report.names), ["n2. A 144 ±0", "n1. A 80 ±0", "n2. AAAA 16 ±0", "n3. A 16 ±0"]);
        assert_eq!(shown(&report.servfail), ["n3. A 16 ±0"]);
    }

    #[test]
    fn minutes_are_forgotten_after_ten() {
        let mut top = TopNames::default();
        (0..12).for_each(|minute| top.count(&name(minute), RecordType::A, Rcode::NOERROR, minute));
        assert_eq!(top.report(11).names.len(), 10);
        assert_eq!(top.report(20).names.len(), 1);
        assert_eq!(top.report(21), NamesReport::default());
        // After the clock is set back, the newest minute continues.
        top.count(&name(1), RecordType::A, Rcode::NOERROR, 21);
        top.count(&name(1), RecordType::A, Rcode::NOERROR, 3);
        assert_eq!(top.report(21).names[0].queries, 2 * TopNames::STANDS_FOR);
    }

    #[test]
    fn a_count_is_never_too_small_and_off_by_its_error_at_most() {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut top = TopNames::default();
        let mut truth = HashMap::new();
        for turn in 0..200_000_u64 {
            // Few names are frequent, and many are rare.
            let number = (1.0 / rng.random_range(0.000_02..1.0_f64)).powf(1.6) as u64;
            *truth.entry(number).or_insert(0_u64) += 1;
            top.count(&name(number), RecordType::A, Rcode::NOERROR, turn / 50_000);
        }
        assert!(truth.len() > 2 * COUNTERS, "{} names", truth.len());
        let report = top.report(4);
        assert_eq!(report.names.len(), SHOWN);
        for counted in &report.names {
            let number: u64 = counted.name[1..counted.name.len() - 1].parse().expect("a number");
            let truth = truth[&number] * TopNames::STANDS_FOR;
            assert!((counted.queries - counted.error..=counted.queries).contains(&truth), "{counted:?} {truth}");
        }
        let first: Vec<_> = report.names.iter().take(5).map(|one| one.name.as_str()).collect();
        assert_eq!(first, ["n1.", "n2.", "n3.", "n4.", "n5."]);
    }

    #[test]
    fn memory_is_bounded_whatever_is_asked() {
        let mut top = TopNames::default();
        for number in 0..50_000 {
            top.count(&name(number), RecordType::A, Rcode::SERVFAIL, number / 1_000);
        }
        assert!(top.minutes.len() <= MINUTES as usize);
        for minute in &top.minutes {
            for counts in [&minute.asked, &minute.servfail] {
                assert!(counts.counts.len() <= COUNTERS && counts.by_count.len() == counts.counts.len());
            }
        }
    }
}
