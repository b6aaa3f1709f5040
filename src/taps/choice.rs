//! Which questions are tapped: their hash decides, with a seed that changes each minute. So all messages of a query are there or
//! none, and nothing has to be remembered of a query while it is in flight.

use std::time::Instant;

/// Gives each question of a minute a number, by which it is chosen or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lottery {
    /// When the first minute began.
    start: Instant,
    seed: u64,
}

impl Lottery {
    pub(super) fn new(start: Instant, seed: u64) -> Self {
        Self { start, seed }
    }

    /// The number of a question that is asked for at this time. All messages of a query have the time at which it came.
    pub(super) fn number(&self, hash: u64, since: Instant) -> u64 {
        let minute = since.saturating_duration_since(self.start).as_secs() / 60;
        mix(hash ^ mix(self.seed.wrapping_add(minute)))
    }
}

/// A share of all questions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    /// Numbers up to this are chosen; none if no question is.
    most: Option<u64>,
    /// How many queries one stands for that is chosen.
    weight: f64,
}

impl Share {
    /// From 0, which is nothing, to 1.
    pub(super) fn new(share: f64) -> Self {
        // A cast of what is too large gives the largest number.
        let most = (share > 0.0).then_some((share * 2_f64.powi(64)) as u64);
        Self { most, weight: if share > 0.0 { 1.0 / share } else { 0.0 } }
    }

    /// Whether the question with this number is chosen.
    pub(super) fn has(&self, number: u64) -> bool {
        self.most.is_some_and(|most| number <= most)
    }

    pub(super) fn weight(&self) -> f64 {
        self.weight
    }
}

/// A number of which every bit depends on every bit of this one: the last steps of MurmurHash3.
pub(super) fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    number = (number ^ (number >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    number ^ (number >> 33)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The next minute.
    const MINUTE: Duration = Duration::from_secs(60);

    /// Those of a hundred thousand questions that are chosen in this minute.
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
        // What one share has a larger one has too: the log and dnstap tell of the same queries.
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
