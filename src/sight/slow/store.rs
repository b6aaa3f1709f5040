//! The slow races that are kept: the newest, and the slowest of each hour.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{LateReply, SlowRace, ToldRace};
use crate::policy::query_slots::{PROLONGED, QUARANTINE};

/// The slow races of a server. The newest are kept, so many as the config says, and of each hour the slowest besides, since a burst
/// of a minute would else push out what an operator comes to look for in the morning.
#[derive(Debug)]
pub struct SlowRaces {
    /// How many of the newest are kept.
    keep: usize,
    /// All that are kept, by their number.
    races: BTreeMap<u64, ToldRace>,
    /// The number of the next one.
    next: u64,
    /// How many there are from the oldest of the newest on.
    newest: VecDeque<u64>,
    /// The slowest of each hour of Unix time, with their numbers, the slowest first.
    hours: BTreeMap<u64, Vec<(f64, u64)>>,
    /// Those that late replies may still come for, oldest first.
    unsettled: VecDeque<u64>,
}

/// Which races are asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Those of this pool; none: of all.
    pub pool: Option<String>,
    /// Those that ended within this time; none: whenever.
    pub since: Option<Duration>,
    /// At most so many; none: all.
    pub limit: Option<usize>,
}

impl SlowRaces {
    /// None yet.
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

    /// Keeps so many of the newest from now on.
    pub fn set_keep(&mut self, keep: usize) {
        self.keep = keep;
        self.drop_oldest();
    }

    /// Keeps a race.
    pub fn insert(&mut self, told: ToldRace) {
        let ToldRace { hash, mut race } = told;
        race.why = super::why(&race);
        let number = self.next;
        self.next += 1;
        let hour = (race.ended_at() / 3_600.0) as u64;
        let slowest = self.hours.entry(hour).or_default();
        let place = slowest.partition_point(|(took, _)| *took >= race.took_ms);
        slowest.insert(place, (race.took_ms, number));
        let fell_out = (slowest.len() > SLOWEST).then(|| slowest.pop()).flatten();
        self.races.insert(number, ToldRace { hash, race });
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

    /// Joins a late reply to the race that it was for. Returns whether there is one.
    pub fn join(&mut self, late: &LateReply) -> bool {
        let numbers = self.unsettled.iter().rev();
        for number in numbers {
            if self.races.get_mut(number).is_some_and(|kept| kept.join(late)) {
                return true;
            }
        }
        false
    }

    /// Settles the races that ended so long before `now`, in Unix time, that no late reply is waited for, and returns them: oldest
    /// first, as far as they are kept still.
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

    /// The races that are asked for at `now`, in Unix time: newest first.
    pub fn list(&self, filter: &Filter, now: f64) -> Vec<SlowRace> {
        let Filter { pool, since, limit } = filter;
        let races = self.races.values().rev().map(|kept| &kept.race);
        let races = races.filter(|race| pool.as_ref().is_none_or(|pool| race.pool == *pool));
        let races = races.filter(|race| since.is_none_or(|since| race.ended_at() >= now - since.as_secs_f64()));
        races.take(limit.unwrap_or(usize::MAX)).cloned().collect()
    }

    /// Whether a race is among the newest.
    fn is_new(&self, number: u64) -> bool {
        self.newest.front().is_some_and(|first| number >= *first)
    }

    /// Forgets what is too many, unless it was among the slowest of its hour.
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

/// How long after the end of a race the replies of its losers are waited for.
pub const LATE_REPLIES: Duration = QUARANTINE.saturating_add(PROLONGED);

/// How many of the slowest of an hour are kept.
const SLOWEST: usize = 20;

/// For how many hours.
const HOURS: usize = 24;

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::super::{Fate, SlowAttempt};
    use super::*;
    use crate::policy::Rank;

    /// A race that ended then and took so long.
    fn race(ended_at: f64, took_ms: f64) -> ToldRace {
        let race = SlowRace { at: ended_at - took_ms / 1e3, took_ms, ..SlowRace::sample() };
        ToldRace { hash: 7, race }
    }

    /// A reply to the first attempt of such a race.
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
        races.list(&Filter::default(), 0.0).iter().map(|race| race.took_ms).collect()
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
        assert_eq!(races.list(&Filter::default(), 0.0).len(), 24 * 20);
        assert_eq!(races.races.len(), 24 * 20);
        races.set_keep(30);
        (0..40).for_each(|second| races.insert(race(f64::from(31 * 3_600 + second), 0.5)));
        assert_eq!(races.newest.len(), 30);
        assert_eq!(races.races.len(), 23 * 20 + 20 + 30 - overlap(&races));
    }

    /// How many of the newest are among the slowest of their hour.
    fn overlap(races: &SlowRaces) -> usize {
        let slowest: Vec<u64> = races.hours.values().flatten().map(|(_, number)| *number).collect();
        races.newest.iter().filter(|number| slowest.contains(number)).count()
    }

    #[test]
    fn lists_are_newest_first_and_filtered() {
        let mut races = SlowRaces::new(100);
        for second in 0..10 {
            let mut told = race(f64::from(second), 5.0 + f64::from(second));
            told.race.pool = if second % 2 == 0 { "even".to_owned() } else { "odd".to_owned() };
            races.insert(told);
        }
        let took = |filter: &Filter| races.list(filter, 10.0).iter().map(|race| race.took_ms).collect::<Vec<_>>();
        let odd = Filter { pool: Some("odd".to_owned()), ..Filter::default() };
        assert_eq!(took(&odd), [14.0, 12.0, 10.0, 8.0, 6.0]);
        assert_eq!(took(&Filter { limit: Some(2), ..odd.clone() }), [14.0, 12.0]);
        assert_eq!(took(&Filter { since: Some(Duration::from_secs(3)), ..odd }), [14.0, 12.0]);
        assert_eq!(took(&Filter { since: Some(Duration::from_secs(2)), ..Filter::default() }), [14.0, 13.0]);
    }

    #[test]
    fn late_replies_join_by_hash_and_time_until_the_race_is_settled() {
        let mut races = SlowRaces::new(100);
        for ended in [100.0, 103.0] {
            let mut told = race(ended, 186.0);
            told.race.attempts[0].fate = Fate::Beaten;
            races.insert(told);
        }
        let listed = |races: &SlowRaces| races.list(&Filter::default(), 110.0);
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
        // Who has not replied by then was silent, and a reply comes too late for us too.
        assert_eq!(fates(&listed(&races)[0]), [Fate::Silent, Fate::Won]);
        assert!(!races.join(&late(&listed(&races)[0])));
    }
}
