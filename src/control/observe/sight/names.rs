//! The most frequent names and clients of the last ten minutes: a bounded count by Space-Saving (Metwally,
//! Agrawal, El Abbadi 2005: "Efficient computation of frequent and top-k elements in data streams") for each
//! minute.
//!
//! A minute has a thousand counters for each list. A new name takes the counter of the least frequent one,
//! with its count as the error: so a count is never too small, and too large by its error at most. A report
//! adds up the minutes. Only a sample of the questions is counted, and all figures are multiplied by its
//! weight.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use dns::{Rcode, RecordType};
use serde::{Deserialize, Serialize};

/// The most frequent names of the last ten minutes, those that got SERVFAIL most, and the clients that sent
/// most queries.
#[derive(Debug, Default)]
pub struct TopNames {
    minutes: VecDeque<Minute>,
}

#[derive(Debug)]
struct Minute {
    number: u64,
    asked: SpaceSaving<Question>,
    servfail: SpaceSaving<Question>,
    clients: SpaceSaving<IpAddr>,
}

/// The names and clients as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NamesReport {
    /// The most frequent names in descending order.
    pub names: Vec<NameCount>,
    /// The names answered with SERVFAIL most.
    pub servfail: Vec<NameCount>,
    /// The clients with the most queries in descending order. Servers of earlier builds omit them.
    #[serde(default)]
    pub clients: Vec<ClientCount>,
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

/// The number of queries of a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientCount {
    /// The whole address.
    pub client: IpAddr,
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

    /// Counts a question of a client, in wire form and folded, with its response code.
    pub fn count(&mut self, client: IpAddr, (qname, qtype): (&[u8], RecordType), rcode: Rcode, minute: u64) {
        if self.minutes.back().is_none_or(|last| last.number < minute) {
            self.minutes.push_back(Minute {
                number: minute,
                asked: SpaceSaving::new(COUNTERS),
                servfail: SpaceSaving::new(COUNTERS),
                clients: SpaceSaving::new(COUNTERS),
            });
        }
        self.forget(minute);
        let Some(last) = self.minutes.back_mut() else { return };
        let question: Question = Arc::new((qname.into(), qtype));
        if rcode == Rcode::SERVFAIL {
            last.servfail.count(Arc::clone(&question));
        }
        last.asked.count(question);
        last.clients.count(client);
    }

    /// Returns the most frequent names and clients as of this minute.
    pub fn report(&mut self, minute: u64) -> NamesReport {
        self.forget(minute);
        let named = |of: fn(&Minute) -> &SpaceSaving<Question>| {
            let name = |(question, queries, error): (&Question, u64, u64)| NameCount {
                name: dns::display_name(&question.0).to_string(),
                qtype: question.1.to_string(),
                queries,
                error,
            };
            top(self.minutes.iter().map(of)).map(name).collect()
        };
        let clients = top(self.minutes.iter().map(|minute| &minute.clients));
        let clients = clients.map(|(&client, queries, error)| ClientCount { client, queries, error });
        NamesReport {
            names: named(|minute| &minute.asked),
            servfail: named(|minute| &minute.servfail),
            clients: clients.collect(),
        }
    }

    fn forget(&mut self, minute: u64) {
        while self.minutes.front().is_some_and(|first| first.number + MINUTES <= minute) {
            self.minutes.pop_front();
        }
    }
}

type Question = Arc<(Box<[u8]>, RecordType)>;

#[derive(Debug)]
struct SpaceSaving<K> {
    capacity: usize,
    /// Count and error of each key, and the order in which it reached that count.
    counts: HashMap<K, KeyCount>,
    by_count: BTreeMap<(u64, u64), K>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct KeyCount {
    count: u64,
    error: u64,
    order: u64,
}

impl<K: Clone + Eq + Hash> SpaceSaving<K> {
    fn new(capacity: usize) -> Self {
        Self { capacity, counts: HashMap::new(), by_count: BTreeMap::new(), next: 0 }
    }

    fn count(&mut self, key: K) {
        self.next += 1;
        let order = self.next;
        let counted = match self.counts.get(&key) {
            Some(known) => {
                self.by_count.remove(&(known.count, known.order));
                KeyCount { count: known.count + 1, error: known.error, order }
            }
            None if self.counts.len() < self.capacity => KeyCount { count: 1, error: 0, order },
            None => {
                let Some(((least, _), out)) = self.by_count.pop_first() else { return };
                self.counts.remove(&out);
                KeyCount { count: least + 1, error: least, order }
            }
        };
        self.by_count.insert((counted.count, order), key.clone());
        self.counts.insert(key, counted);
    }

    /// Returns the maximum count of a key without a counter.
    fn least(&self) -> u64 {
        let is_full = self.counts.len() >= self.capacity;
        let least = self.by_count.first_key_value().map(|((count, _), _)| *count);
        least.filter(|_| is_full).unwrap_or(0)
    }
}

/// Adds up several counts: a key without a counter in one of them may have occurred as often as its least.
/// Returns the most frequent keys with their queries and errors.
fn top<'a, K: Clone + Eq + Hash + Ord + 'a>(
    counts: impl Iterator<Item = &'a SpaceSaving<K>> + Clone,
) -> impl Iterator<Item = (&'a K, u64, u64)> {
    let mut sums: HashMap<&K, (u64, u64)> = HashMap::new();
    for key in counts.clone().flat_map(|one| one.counts.keys()) {
        sums.entry(key).or_insert_with(|| {
            let parts = counts.clone().map(|one| match one.counts.get(key) {
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
    let weigh = |(key, (count, error))| (key, count * TopNames::STANDS_FOR, error * TopNames::STANDS_FOR);
    sums.into_iter().take(SHOWN).map(weigh)
}

const COUNTERS: usize = 1_000;

const MINUTES: u64 = 10;

const SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn name(number: u64) -> Vec<u8> {
        let label = format!("n{number}");
        [&[label.len() as u8], label.as_bytes(), &[0]].concat()
    }

    #[test]
    fn what_fits_is_counted_exactly() {
        let mut top = TopNames::default();
        for (number, times) in [(1, 5), (2, 9), (3, 1)] {
            let rcode = if number == 3 { Rcode::SERVFAIL } else { Rcode::NOERROR };
            (0..times).for_each(|_| top.count(CLIENT, (&name(number), RecordType::A), rcode, 7));
        }
        top.count(CLIENT, (&name(2), RecordType::AAAA), Rcode::NOERROR, 8);
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
        (0..12).for_each(|minute| top.count(CLIENT, (&name(minute), RecordType::A), Rcode::NOERROR, minute));
        assert_eq!(top.report(11).names.len(), 10);
        assert_eq!(top.report(20).names.len(), 1);
        assert_eq!(top.report(21), NamesReport::default());
        // After the clock is set back, the newest minute continues.
        top.count(CLIENT, (&name(1), RecordType::A), Rcode::NOERROR, 21);
        top.count(CLIENT, (&name(1), RecordType::A), Rcode::NOERROR, 3);
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
            top.count(CLIENT, (&name(number), RecordType::A), Rcode::NOERROR, turn / 50_000);
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
    fn clients_are_counted_beside_names() {
        let mut top = TopNames::default();
        let mut count = |client: &str, times| {
            let client = client.parse().expect("an address");
            (0..times).for_each(|number| top.count(client, (&name(number), RecordType::A), Rcode::NOERROR, 7));
        };
        count("192.0.2.1", 3);
        count("2001:db8::1", 5);
        count("192.0.2.1", 4);
        let clients = top.report(7).clients;
        let shown: Vec<_> =
            clients.iter().map(|one| format!("{} {} ±{}", one.client, one.queries, one.error)).collect();
        assert_eq!(shown, ["192.0.2.1 112 ±0", "2001:db8::1 80 ±0"]);
    }

    #[test]
    fn memory_is_bounded_whatever_is_asked() {
        let mut top = TopNames::default();
        for number in 0..50_000 {
            let client = Ipv6Addr::from_bits(number.into()).into();
            top.count(client, (&name(number), RecordType::A), Rcode::SERVFAIL, number / 2_500);
        }
        assert!(top.minutes.len() <= MINUTES as usize);
        fn check<K>(counts: &SpaceSaving<K>) {
            assert!(counts.counts.len() == COUNTERS && counts.by_count.len() == COUNTERS);
        }
        for minute in &top.minutes {
            check(&minute.asked);
            check(&minute.servfail);
            check(&minute.clients);
        }
        let report = top.report(19);
        assert_eq!([report.names.len(), report.servfail.len(), report.clients.len()], [SHOWN; 3]);
    }
}
