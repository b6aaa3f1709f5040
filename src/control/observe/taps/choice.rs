//! Choice of the questions to tap: by their hash, with a seed that changes each minute. So either all
//! messages of a query are tapped or none, without state for queries in flight.

use std::time::Instant;

/// Gives each question a number for this minute, by which it is chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lottery {
    start: Instant,
    seed: u64,
}

impl Lottery {
    pub(super) fn new(start: Instant, seed: u64) -> Self {
        Self { start, seed }
    }

    /// Returns the number of a question. All messages of a query must pass the time at which it arrived.
    pub(super) fn number(&self, hash: u64, since: Instant) -> u64 {
        let minute = since.saturating_duration_since(self.start).as_secs() / 60;
        mix(hash ^ mix(self.seed.wrapping_add(minute)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    /// The highest number that is chosen; `None` if the share is 0.
    most: Option<u64>,
    /// The number of queries that a chosen one stands for.
    weight: f64,
}

impl Share {
    /// Creates a share from 0 (none) to 1.
    pub(super) fn new(share: f64) -> Self {
        let most = (share > 0.0).then_some((share * 2_f64.powi(64)) as u64);
        Self { most, weight: if share > 0.0 { 1.0 / share } else { 0.0 } }
    }

    pub(super) fn has(&self, number: u64) -> bool {
        self.most.is_some_and(|most| number <= most)
    }

    pub(super) fn weight(&self) -> f64 {
        self.weight
    }
}

/// Mixes a number so that every bit depends on every bit: the last steps of MurmurHash3.
pub(super) fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    number = (number ^ (number >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    number ^ (number >> 33)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Returns the numbers of a hundred thousand questions that are chosen in this minute.
    fn chosen(lottery: &Lottery, share: f64, minute: u32) -> Vec<u64> {
        let (share, at) = (Share::new(share), lottery.start + minute * MINUTE);
        (0..100_000).filter(|hash| share.has(lottery.number(*hash, at))).collect()
    }

    #[test]
    fn a_share_of_the_questions_is_chosen_and_another_each_minute() {
        let lottery = Lottery::new(Instant::now(), 7);
        assert_eq!(chosen(&lottery, 0.0, 0).len(), 0);
        assert_eq!(chosen(&lottery, 1.0, 0).len(), 100_000);
        let (first, second) = (chosen(&lottery, 0.1, 0), chosen(&lottery, 0.1, 1));
        for count in [first.len(), second.len()] {
            // Five standard deviations of a binomial distribution.
            assert!((9_525..=10_475).contains(&count), "{count}");
        }
        let both = first.iter().filter(|hash| second.contains(hash)).count();
        assert!((845..=1155).contains(&both), "{both}");
        // A larger share contains a smaller one: the log and dnstap show the same queries.
        let more = chosen(&lottery, 0.2, 0);
        assert!(first.iter().all(|hash| more.contains(hash)));
    }

    #[test]
    fn a_minute_lasts_a_minute() {
        let lottery = Lottery::new(Instant::now(), 7);
        let at = |seconds| lottery.number(1, lottery.start + Duration::from_secs(seconds));
        assert_eq!(at(0), at(59));
        assert_ne!(at(59), at(60));
        assert_eq!(lottery.number(1, lottery.start - Duration::from_secs(1)), at(0), "before there were taps");
    }

    #[test]
    fn one_that_is_chosen_stands_for_others() {
        assert_eq!([1.0, 0.5, 0.01].map(|share| Share::new(share).weight()), [1.0, 2.0, 100.0]);
    }
}
