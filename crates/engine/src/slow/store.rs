//! The store of slow races: the newest, and the slowest of each hour.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{LateReply, ReportedRace, SlowRace};

/// The slow races of a server: the newest up to a limit, and the slowest of each hour.
#[derive(Debug)]
pub struct SlowRaces {
    keep: usize,
    races: BTreeMap<u64, ReportedRace>,
    next: u64,
    newest: VecDeque<u64>,
    /// The slowest races of each hour of Unix time with their numbers, the slowest first.
    hours: BTreeMap<u64, Vec<(f64, u64)>>,
    unsettled: VecDeque<u64>,
}

/// A filter for races.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RaceFilter {
    /// The pool; `None` for all.
    pub pool: Option<String>,
    /// The age limit by the end of the race; `None` for all.
    pub since: Option<Duration>,
    /// The number limit; `None` for all.
    pub limit: Option<usize>,
}

impl SlowRaces {
    /// Creates an empty store.
    pub fn new(keep: usize) -> Self {
        Self {
            keep,
            races: BTreeMap::new(),
            next: 0,
            newest: VecDeque::new(),
            hours: BTreeMap::new(),
            unsettled: VecDeque::new(),
        }
    }

    /// Changes the limit of the newest.
    pub fn set_keep(&mut self, keep: usize) {
        self.keep = keep;
        self.drop_oldest();
    }

    /// Adds a race.
    pub fn insert(&mut self, reported: ReportedRace) {
        let ReportedRace { hash, mut race } = reported;
        race.why = super::why(&race);
        let number = self.next;
        self.next += 1;
        let hour = (race.ended_at() / 3_600.0) as u64;
        let slowest = self.hours.entry(hour).or_default();
        let place = slowest.partition_point(|(took, _)| *took >= race.took_ms);
        slowest.insert(place, (race.took_ms, number));
        let fell_out = (slowest.len() > SLOWEST).then(|| slowest.pop()).flatten();
        self.races.insert(number, ReportedRace { hash, race });
        self.newest.push_back(number);
        self.unsettled.push_back(number);
        if let Some((_, number)) = fell_out.filter(|(_, number)| !self.is_new(*number)) {
            self.races.remove(&number);
        }
        while self.hours.len() > HOURS
            && let Some((_, slowest)) = self.hours.pop_first()
        {
            for (_, number) in slowest {
                if !self.is_new(number) {
                    self.races.remove(&number);
                }
            }
        }
        self.drop_oldest();
    }

    /// Joins a late reply to its race. Returns false if there is none.
    pub fn join(&mut self, late: &LateReply) -> bool {
        let numbers = self.unsettled.iter().rev();
        for number in numbers {
            if self.races.get_mut(number).is_some_and(|kept| kept.join(late)) {
                return true;
            }
        }
        false
    }

    /// Settles the races that ended so long before `now` (Unix time) that no late reply can arrive, and
    /// returns the kept ones, oldest first.
    pub fn settle(&mut self, now: f64) -> Vec<SlowRace> {
        let mut settled = Vec::new();
        while let Some(number) = self.unsettled.front() {
            match self.races.get_mut(number) {
                Some(kept) if kept.race.ended_at() + LATE_REPLIES.as_secs_f64() > now => break,
                Some(kept) => {
                    kept.race.settle();
                    settled.push(kept.race.clone());
                }
                None => {}
            }
            self.unsettled.pop_front();
        }
        settled
    }

    /// Returns the races that match the filter at `now` (Unix time), newest first.
    pub fn list(&self, filter: &RaceFilter, now: f64) -> Vec<SlowRace> {
        let RaceFilter { pool, since, limit } = filter;
        let races = self.races.values().rev().map(|kept| &kept.race);
        let races = races.filter(|race| pool.as_ref().is_none_or(|pool| race.pool == *pool));
        let races = races.filter(|race| since.is_none_or(|since| race.ended_at() >= now - since.as_secs_f64()));
        races.take(limit.unwrap_or(usize::MAX)).cloned().collect()
    }

    fn is_new(&self, number: u64) -> bool {
        self.newest.front().is_some_and(|first| number >= *first)
    }

    fn drop_oldest(&mut self) {
        while self.newest.len() > self.keep
            && let Some(number) = self.newest.pop_front()
        {
            let is_slowest = self.hours.values().flatten().any(|(_, slowest)| *slowest == number);
            if !is_slowest {
                self.races.remove(&number);
            }
        }
    }
}

/// The wait for late replies after the end of a race: the whole quarantine of a query slot.
pub const LATE_REPLIES: Duration = Duration::from_secs(5);

const SLOWEST: usize = 20;

const HOURS: usize = 24;

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::super::{Fate, SlowAttempt};
    use super::*;
    use config::Rank;

    fn race(ended_at: f64, took_ms: f64) -> ReportedRace {
        let race = SlowRace { at: ended_at - took_ms / 1e3, took_ms, ..SlowRace::sample() };
        ReportedRace { hash: 7, race }
    }

    /// Returns a reply to the first attempt of such a race.
    fn late(race: &SlowRace) -> LateReply {
        LateReply {
            hash: 7,
            pool: race.pool.clone(),
            backend: "ts1".to_owned(),
            asked_at: race.at,
            took_ms: 300.0,
            rank: Rank::Positive,
        }
    }

    fn all(races: &SlowRaces) -> Vec<f64> {
        races.list(&RaceFilter::default(), 0.0).iter().map(|race| race.took_ms).collect()
    }

    #[test]
    fn the_newest_stay_and_the_slowest_of_their_hour() {
        let mut races = SlowRaces::new(10);
        let mut rng = SmallRng::seed_from_u64(1);
        let mut took: Vec<f64> = (0..1_000).map(|_| rng.random_range(1.0..1_000.0)).collect();
        for (number, took) in took.iter().enumerate() {
            races.insert(race(36_000.0 + number as f64, *took));
        }
        let newest: Vec<f64> = took.iter().rev().take(10).copied().collect();
        assert_eq!(all(&races)[..10], newest);
        took.sort_by(f64::total_cmp);
        let mut kept = all(&races);
        kept.sort_by(f64::total_cmp);
        assert!(took.iter().rev().take(20).all(|slowest| kept.contains(slowest)), "{kept:?}");
        assert!(kept.len() <= 30, "{kept:?}");
    }

    #[test]
    fn of_each_hour_of_a_day_some_stay() {
        let mut races = SlowRaces::new(10);
        for hour in 0..30 {
            (0..50).for_each(|second| {
                races.insert(race(f64::from(hour * 3_600 + second), f64::from(hour * 100 + second)))
            });
        }
        // The newest are among the slowest of the last hour.
        assert_eq!(races.list(&RaceFilter::default(), 0.0).len(), 24 * 20);
        assert_eq!(races.races.len(), 24 * 20);
        races.set_keep(30);
        (0..40).for_each(|second| races.insert(race(f64::from(31 * 3_600 + second), 0.5)));
        assert_eq!(races.newest.len(), 30);
        assert_eq!(races.races.len(), 23 * 20 + 20 + 30 - overlap(&races));
    }

    /// Counts the newest races that are among the slowest of their hour.
    fn overlap(races: &SlowRaces) -> usize {
        let slowest: Vec<u64> = races.hours.values().flatten().map(|(_, number)| *number).collect();
        races.newest.iter().filter(|number| slowest.contains(number)).count()
    }

    #[test]
    fn lists_are_newest_first_and_filtered() {
        let mut races = SlowRaces::new(100);
        for second in 0..10 {
            let mut reported = race(f64::from(second), 5.0 + f64::from(second));
            reported.race.pool = if second % 2 == 0 { "even".to_owned() } else { "odd".to_owned() };
            races.insert(reported);
        }
        let took = |filter: &RaceFilter| races.list(filter, 10.0).iter().map(|race| race.took_ms).collect::<Vec<_>>();
        let odd = RaceFilter { pool: Some("odd".to_owned()), ..RaceFilter::default() };
        assert_eq!(took(&odd), [14.0, 12.0, 10.0, 8.0, 6.0]);
        assert_eq!(took(&RaceFilter { limit: Some(2), ..odd.clone() }), [14.0, 12.0]);
        assert_eq!(took(&RaceFilter { since: Some(Duration::from_secs(3)), ..odd }), [14.0, 12.0]);
        assert_eq!(took(&RaceFilter { since: Some(Duration::from_secs(2)), ..RaceFilter::default() }), [14.0, 13.0]);
    }

    #[test]
    fn late_replies_join_by_hash_and_time_until_the_race_is_settled() {
        let mut races = SlowRaces::new(100);
        for ended in [100.0, 103.0] {
            let mut reported = race(ended, 186.0);
            reported.race.attempts[0].fate = Fate::Beaten;
            races.insert(reported);
        }
        let listed = |races: &SlowRaces| races.list(&RaceFilter::default(), 110.0);
        let first = listed(&races)[1].clone();
        assert!(!races.join(&LateReply { hash: 8, ..late(&first) }));
        assert!(!races.join(&LateReply { pool: "other".to_owned(), ..late(&first) }));
        assert!(races.join(&late(&first)));
        let fates = |race: &SlowRace| race.attempts.iter().map(|SlowAttempt { fate, .. }| *fate).collect::<Vec<_>>();
        assert_eq!(fates(&listed(&races)[1]), [Fate::Late, Fate::Won]);
        assert_eq!(fates(&listed(&races)[0]), [Fate::Beaten, Fate::Won]);
        assert!(races.settle(104.9).is_empty());
        assert_eq!(races.settle(105.1).len(), 1);
        assert_eq!(races.settle(108.1).len(), 1);
        // An attempt without a reply by then was silent, and a later reply is ignored.
        assert_eq!(fates(&listed(&races)[0]), [Fate::Silent, Fate::Won]);
        assert!(!races.join(&late(&listed(&races)[0])));
    }
}
