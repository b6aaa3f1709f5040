//! The ways to sources of queries, as the kernel's routes have them.
//!
//! A response by AF_XDP leaves to the Ethernet address that the query came from, and the kernel's reverse path filter does not see the
//! query. So a source is believed only as far as the kernel would send there by the same interface (RFC 3704 section 2.2). The kernel is
//! asked for a route where none is known here; a flood of new sources costs no more than `MAX_QUESTIONS`.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::netlink::Reach;

/// The use of a query that came by AF_XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its response leaves the way that the query came.
    Link,
    /// Its response leaves by the ordinary socket, on the kernel's route.
    Route,
    /// It comes from no other host, and has no response.
    Drop,
}

/// The reach of each source that asked lately. The memory is bounded: a source takes the place of another one.
#[derive(Debug, Default)]
pub struct Sources {
    /// By the hash of the source, which a stranger cannot guess; empty until the first source is known.
    places: Vec<Option<Place>>,
    hasher: RandomState,
    /// The begin of the current [`WINDOW`], and the questions in it.
    window: Option<(Instant, u32)>,
}

/// A source that is known.
#[derive(Clone, Copy, Debug)]
struct Place {
    source: IpAddr,
    reach: Reach,
    since: Instant,
}

impl Sources {
    /// Forgets all sources.
    pub fn clear(&mut self) {
        self.places = Vec::new();
    }

    /// The verdict on a query from this source by an interface. `ask` asks the kernel, where the answer is not known here.
    #[inline]
    pub fn judge(
        &mut self,
        source: IpAddr,
        interface: u32,
        now: Instant,
        ask: impl FnOnce() -> Option<Reach>,
    ) -> Verdict {
        // A link-local address is reached by its own link and no other (RFC 4007 section 6).
        if matches!(source, IpAddr::V6(source) if source.is_unicast_link_local()) {
            return Verdict::Link;
        }
        let index = self.hasher.hash_one(source) as usize % PLACES;
        let known = self.places.get(index).copied().flatten();
        let known = known.filter(|place| place.source == source && now.saturating_duration_since(place.since) < AGE);
        let reach = known.map(|place| place.reach).or_else(|| self.learn(index, source, now, ask));
        match reach {
            Some(Reach::By(way)) if way == interface => Verdict::Link,
            Some(Reach::Ours) => Verdict::Drop,
            Some(Reach::By(_) | Reach::Nowhere) | None => Verdict::Route,
        }
    }

    /// Asks for a reach, and keeps it, unless there are too many questions.
    #[cold]
    fn learn(
        &mut self,
        index: usize,
        source: IpAddr,
        now: Instant,
        ask: impl FnOnce() -> Option<Reach>,
    ) -> Option<Reach> {
        let (begin, questions) =
            self.window.filter(|(begin, _)| now.saturating_duration_since(*begin) < WINDOW).unwrap_or((now, 0));
        if questions >= MAX_QUESTIONS {
            return None;
        }
        self.window = Some((begin, questions + 1));
        let reach = ask()?;
        self.places.resize(PLACES, None);
        if let Some(place) = self.places.get_mut(index) {
            *place = Some(Place { source, reach, since: now });
        }
        Some(reach)
    }
}

/// Sources that one worker knows.
const PLACES: usize = 4096;

/// The time after which the kernel is asked again: its routes may have changed.
const AGE: Duration = Duration::from_secs(10);

/// Questions to the kernel within a [`WINDOW`] at most: about 1 % of the time.
const MAX_QUESTIONS: u32 = 20;
const WINDOW: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    /// The source of this number.
    fn numbered(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    #[test]
    fn responses_leave_the_way_of_the_query_only_where_the_route_does() {
        let start = Instant::now();
        for (reach, expected) in [
            (Some(Reach::By(4)), Verdict::Link),
            (Some(Reach::By(5)), Verdict::Route),
            (Some(Reach::Nowhere), Verdict::Route),
            (Some(Reach::Ours), Verdict::Drop),
            (None, Verdict::Route),
        ] {
            assert_eq!(Sources::default().judge(HOST, 4, start, || reach), expected, "{reach:?}");
        }
    }

    #[test]
    fn kernel_is_asked_again_when_a_reach_is_old_or_forgotten() {
        let start = Instant::now();
        let mut sources = Sources::default();
        let silent = || panic!("the reach is known");
        assert_eq!(sources.judge(HOST, 4, start, || Some(Reach::By(4))), Verdict::Link);
        assert_eq!(sources.judge(HOST, 4, start + AGE / 2, silent), Verdict::Link);
        assert_eq!(sources.judge(HOST, 5, start + AGE / 2, silent), Verdict::Route, "by another interface");
        assert_eq!(sources.judge(HOST, 4, start + AGE, || Some(Reach::Ours)), Verdict::Drop);
        sources.clear();
        assert_eq!(sources.judge(HOST, 4, start + AGE, || Some(Reach::By(4))), Verdict::Link);
    }

    #[test]
    fn failed_questions_are_not_kept() {
        let start = Instant::now();
        let mut sources = Sources::default();
        assert_eq!(sources.judge(HOST, 4, start, || None), Verdict::Route);
        assert_eq!(sources.judge(HOST, 4, start, || Some(Reach::By(4))), Verdict::Link);
    }

    #[test]
    fn new_sources_are_bounded_in_questions_and_memory() {
        let start = Instant::now();
        let mut sources = Sources::default();
        let mut asked = 0;
        for number in 0..3 * MAX_QUESTIONS {
            let verdict = sources.judge(numbered(number), 4, start, || {
                asked += 1;
                Some(Reach::By(4))
            });
            assert_eq!(verdict == Verdict::Link, number < MAX_QUESTIONS, "{number}");
        }
        assert_eq!(asked, MAX_QUESTIONS);
        for number in 0..2 * PLACES as u32 {
            let now = start + WINDOW * (number + 1);
            assert_eq!(sources.judge(numbered(number), 4, now, || Some(Reach::By(4))), Verdict::Link, "{number}");
        }
        assert_eq!(sources.places.len(), PLACES);
    }

    #[test]
    fn link_local_sources_need_no_question() {
        let source = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
        let verdict = Sources::default().judge(source, 4, Instant::now(), || panic!("the link is known"));
        assert_eq!(verdict, Verdict::Link);
    }
}
