//! Routes to the sources of queries.
//!
//! A response by AF_XDP bypasses the kernel's reverse path filter. So a source is accepted only if the kernel
//! would send to it by the same interface (RFC 3704 section 2.2).

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::netlink::Reach;

/// The treatment of a query that came by AF_XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceVerdict {
    /// Respond on the link of the query.
    Link,
    /// Respond by the ordinary socket, on the kernel's route.
    Route,
    /// Drop the query, because the source is not another host.
    Drop,
}

/// A bounded cache of the routes of recent sources; a new source replaces an old one.
#[derive(Debug, Default)]
pub struct Sources {
    /// Indexed by a keyed hash that a stranger cannot guess.
    places: Vec<Option<CachedSource>>,
    hasher: RandomState,
    window: Option<(Instant, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct CachedSource {
    source: IpAddr,
    reach: Reach,
    since: Instant,
}

impl Sources {
    /// Forgets all sources.
    pub fn clear(&mut self) {
        self.places = Vec::new();
    }

    /// Judges a query from this source by an interface. `ask` requests a route that is not cached.
    #[inline]
    pub fn judge(
        &mut self,
        source: IpAddr,
        interface: u32,
        now: Instant,
        ask: impl FnOnce() -> Option<Reach>,
    ) -> SourceVerdict {
        // A link-local address is only valid on its own link (RFC 4007 section 6).
        if matches!(source, IpAddr::V6(source) if source.is_unicast_link_local()) {
            return SourceVerdict::Link;
        }
        let index = self.hasher.hash_one(source) as usize % PLACES;
        let known = self.places.get(index).copied().flatten();
        let known = known.filter(|place| place.source == source && now.saturating_duration_since(place.since) < AGE);
        let reach = known.map(|place| place.reach).or_else(|| self.learn(index, source, now, ask));
        match reach {
            Some(Reach::By(way)) if way == interface => SourceVerdict::Link,
            Some(Reach::Ours) => SourceVerdict::Drop,
            Some(Reach::By(_) | Reach::Nowhere) | None => SourceVerdict::Route,
        }
    }

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
            *place = Some(CachedSource { source, reach, since: now });
        }
        Some(reach)
    }
}

const PLACES: usize = 4096;

const AGE: Duration = Duration::from_secs(10);

/// Requests to the kernel per [`WINDOW`]: about 1 % of the time.
const MAX_QUESTIONS: u32 = 20;
const WINDOW: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    fn numbered(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    #[test]
    fn responses_leave_the_way_of_the_query_only_where_the_route_does() {
        let start = Instant::now();
        for (reach, expected) in [
            (Some(Reach::By(4)), SourceVerdict::Link),
            (Some(Reach::By(5)), SourceVerdict::Route),
            (Some(Reach::Nowhere), SourceVerdict::Route),
            (Some(Reach::Ours), SourceVerdict::Drop),
            (None, SourceVerdict::Route),
        ] {
            assert_eq!(Sources::default().judge(HOST, 4, start, || reach), expected, "{reach:?}");
        }
    }

    #[test]
    fn kernel_is_asked_again_when_a_reach_is_old_or_forgotten() {
        let start = Instant::now();
        let mut sources = Sources::default();
        let silent = || panic!("the reach is known");
        assert_eq!(sources.judge(HOST, 4, start, || Some(Reach::By(4))), SourceVerdict::Link);
        assert_eq!(sources.judge(HOST, 4, start + AGE / 2, silent), SourceVerdict::Link);
        assert_eq!(sources.judge(HOST, 5, start + AGE / 2, silent), SourceVerdict::Route, "by another interface");
        assert_eq!(sources.judge(HOST, 4, start + AGE, || Some(Reach::Ours)), SourceVerdict::Drop);
        sources.clear();
        assert_eq!(sources.judge(HOST, 4, start + AGE, || Some(Reach::By(4))), SourceVerdict::Link);
    }

    #[test]
    fn failed_questions_are_not_kept() {
        let start = Instant::now();
        let mut sources = Sources::default();
        assert_eq!(sources.judge(HOST, 4, start, || None), SourceVerdict::Route);
        assert_eq!(sources.judge(HOST, 4, start, || Some(Reach::By(4))), SourceVerdict::Link);
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
            assert_eq!(verdict == SourceVerdict::Link, number < MAX_QUESTIONS, "{number}");
        }
        assert_eq!(asked, MAX_QUESTIONS);
        for number in 0..2 * PLACES as u32 {
            let now = start + WINDOW * (number + 1);
            assert_eq!(sources.judge(numbered(number), 4, now, || Some(Reach::By(4))), SourceVerdict::Link, "{number}");
        }
        assert_eq!(sources.places.len(), PLACES);
    }

    #[test]
    fn link_local_sources_need_no_question() {
        let source = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
        let verdict = Sources::default().judge(source, 4, Instant::now(), || panic!("the link is known"));
        assert_eq!(verdict, SourceVerdict::Link);
    }
}
