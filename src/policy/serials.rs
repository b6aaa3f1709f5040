//! Serial numbers of zones at the members of a pool of replicas: who has the newest version, who is older, who is behind, and whom to
//! ask. Fed by what replies and SOA probes say; the engine looks at it where a negative reply is about to be believed.
//!
//! ```text
//! hear      a member that was named before has said a serial (RFC 9660, or an SOA record). If that changes anything:
//!               newest    among members that are up, of what each said last (RFC 1982)
//!               older     each that said less is older than the newest since now, or since it already was
//! is_older  a negative reply of such a member is not accepted: the newest is asked at once
//! behind    older for longer than `max_lag` in a zone that is in use: asked last. All of them at once: nobody is
//! ask       up, and not heard for 2 s about a zone that somebody asked for within the last minute
//! ```
//!
//! Nothing is remembered of members that are gone, so a serial that was reset, or a wild one, leaves with its server. Zones are bounded
//! by number and octets; the one that was not used for the longest goes first. Members and zones are given by the caller: names of zones
//! are octets in canonical form, and what they mean is not known here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What members of one pool have said of their zones.
#[derive(Debug, Default)]
pub struct Serials {
    /// Members by their place in [`Zone::said`]; one that has gone leaves its place to the next that comes.
    members: Vec<Option<Member>>,
    places: BTreeMap<MemberId, usize>,
    /// Zones by their names.
    zones: BTreeMap<Box<[u8]>, Zone>,
    /// Octets that the zones take.
    bytes: usize,
    /// How often a member was found to be older that was not before.
    verdicts: u64,
}

/// What a pool calls a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u32);

/// Where a serial comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A reply to a query of a client, so the zone is in use.
    Reply,
    /// A reply to an SOA probe, which says nothing about that.
    Probe,
}

#[derive(Debug)]
struct Member {
    id: MemberId,
    is_up: bool,
    /// When it may be asked again.
    next_ask: Option<Instant>,
}

#[derive(Debug)]
struct Zone {
    /// When somebody last asked for a name in it.
    used: Instant,
    /// What each member has said of it, by place; those at the end may be missing.
    said: Vec<Said>,
    /// Who has the newest version, by place. None if nobody who is up has said any, or if serials go round in a circle.
    newest: Option<usize>,
}

/// What one member has said of one zone.
#[derive(Clone, Debug, Default)]
struct Said {
    /// The last serial.
    serial: Option<u32>,
    /// When it was heard or asked for last.
    heard: Option<Instant>,
    /// Since when the newest is newer.
    older_since: Option<Instant>,
}

impl Serials {
    /// A member joins, goes up, or goes down.
    pub fn set_up(&mut self, member: MemberId, is_up: bool, now: Instant) {
        let place = self.place_of(member);
        let Some(known) = self.members.get_mut(place).and_then(Option::as_mut) else { return };
        if known.is_up != is_up {
            known.is_up = is_up;
            self.judge_all(place, now);
        }
    }

    /// A member is gone, and all that it has said.
    pub fn forget(&mut self, member: MemberId, now: Instant) {
        let Some(place) = self.places.remove(&member) else { return };
        self.members[place] = None;
        self.judge_all(place, now);
        for said in self.zones.values_mut().filter_map(|zone| zone.said.get_mut(place)) {
            *said = Said::default();
        }
    }

    /// A member has said the serial of a zone. What is said by one that is gone, or was never named, counts nothing.
    pub fn hear(&mut self, zone: &[u8], member: MemberId, serial: u32, source: Source, now: Instant) {
        let Some(&place) = self.places.get(&member) else { return };
        if !self.zones.contains_key(zone) {
            // Who is asked about a zone that was forgotten meanwhile answers for nobody.
            if source == Source::Probe {
                return;
            }
            self.bytes += zone.len() + ZONE_OCTETS;
            self.zones.insert(zone.into(), Zone { used: now, said: Vec::new(), newest: None });
        }
        let Some(known) = self.zones.get_mut(zone) else { return };
        if source == Source::Reply {
            known.used = known.used.max(now);
        }
        self.bytes += known.grow_to(place);
        known.said[place].heard = Some(now);
        self.verdicts += known.say(place, serial, &self.members, now);
        self.make_room(zone);
    }

    /// Who has the newest version of a zone among members that are up, and its serial.
    pub fn newest(&self, zone: &[u8]) -> Option<(MemberId, u32)> {
        let zone = self.zones.get(zone)?;
        let place = zone.newest?;
        Some((self.members.get(place)?.as_ref()?.id, zone.said.get(place)?.serial?))
    }

    /// The same, each of those that have it in turn.
    pub fn one_of_newest(&self, zone: &[u8], turn: usize) -> Option<MemberId> {
        let (_, newest) = self.newest(zone)?;
        let said = &self.zones.get(zone)?.said;
        let up = self.members.iter().zip(said).filter_map(|(member, said)| Some((member.as_ref()?, said)));
        let have_it =
            up.filter(|(member, said)| member.is_up && said.serial == Some(newest)).map(|(member, _)| member.id);
        let turn = turn.checked_rem(have_it.clone().count())?;
        have_it.clone().nth(turn)
    }

    /// Whether a member has an older version of a zone than another one that is up, by what both said last.
    pub fn is_older(&self, zone: &[u8], member: MemberId) -> bool {
        let said = self.zones.get(zone).zip(self.places.get(&member)).and_then(|(zone, place)| zone.said.get(*place));
        said.is_some_and(|said| said.older_since.is_some())
    }

    /// The members that are up and older for longer than `max_lag`: to be asked after all others. Never all that are up.
    pub fn behind(&self, max_lag: Duration, now: Instant) -> Vec<MemberId> {
        let is_late =
            |said: &Said| said.older_since.is_some_and(|since| now.saturating_duration_since(since) > max_lag);
        let mut late = vec![false; self.members.len()];
        for zone in self.zones.values().filter(|zone| zone.is_in_use(now)) {
            zone.said.iter().zip(&mut late).for_each(|(said, late)| *late |= is_late(said));
        }
        let up = || self.members.iter().zip(&late).filter_map(|(member, late)| Some((member.as_ref()?, *late)));
        let behind: Vec<_> = up().filter(|(member, late)| member.is_up && *late).map(|(member, _)| member.id).collect();
        // In one zone the newest is never behind, but each may be in another one.
        if behind.len() == up().filter(|(member, _)| member.is_up).count() { Vec::new() } else { behind }
    }

    /// Whom to ask for the SOA record of which zone now: each member once at most, about the zone of which it was not heard for the
    /// longest. They count as asked, whether they answer or not. To be called every [`ASK_EVERY`] or so.
    pub fn ask(&mut self, now: Instant) -> Vec<(MemberId, Box<[u8]>)> {
        let mut asked = Vec::new();
        for (place, member) in self.members.iter_mut().enumerate() {
            let Some(member) = member.as_mut().filter(|member| member.is_up) else { continue };
            if member.next_ask.is_some_and(|next| now < next) {
                continue;
            }
            let in_use = self.zones.iter().filter(|(_, zone)| zone.is_in_use(now));
            let heard = in_use.map(|(name, zone)| (zone.said.get(place).and_then(|said| said.heard), name));
            let due =
                heard.filter(|(heard, _)| heard.is_none_or(|heard| now.saturating_duration_since(heard) >= FRESH));
            let Some((_, name)) = due.min() else { continue };
            asked.push((member.id, name.clone()));
            member.next_ask = Some(now + ASK_EVERY);
        }
        for (member, name) in &asked {
            let (Some(&place), Some(zone)) = (self.places.get(member), self.zones.get_mut(name)) else { continue };
            self.bytes += zone.grow_to(place);
            zone.said[place].heard = Some(now);
        }
        self.make_room(&[]);
        asked
    }

    /// How often a member was found to be older that was not before: until that changes, all who were not older are not.
    pub fn verdicts(&self) -> u64 {
        self.verdicts
    }

    /// Counts verdicts on from so many.
    pub fn go_on_from(&mut self, verdicts: u64) {
        self.verdicts = verdicts + 1;
    }

    /// What the members have said last of each zone, in the order of their names.
    pub fn versions(&self, now: Instant) -> Vec<Versions> {
        let member = |(member, said): (&Option<Member>, &Said)| {
            let (member, serial) = (member.as_ref()?, said.serial?);
            let ago = |at: Instant| now.saturating_duration_since(at);
            let older_for = said.older_since.map(ago);
            Some(Version { member: member.id, serial, heard: said.heard.map(ago)?, older_for })
        };
        let zones = self.zones.iter().map(|(name, zone)| Versions {
            zone: name.clone(),
            newest: zone.newest.and_then(|place| zone.said.get(place)?.serial),
            is_in_use: zone.is_in_use(now),
            said: self.members.iter().zip(&zone.said).filter_map(member).collect(),
        });
        zones.collect()
    }

    /// How many zones are known, and how many octets they take.
    pub fn size(&self) -> (usize, usize) {
        (self.zones.len(), self.bytes)
    }

    /// The place of a member; one that is new is up.
    fn place_of(&mut self, id: MemberId) -> usize {
        if let Some(place) = self.places.get(&id) {
            return *place;
        }
        let member = Member { id, is_up: true, next_ask: None };
        let free = self.members.iter().position(Option::is_none).unwrap_or(self.members.len());
        match self.members.get_mut(free) {
            Some(place) => *place = Some(member),
            None => self.members.push(Some(member)),
        }
        self.places.insert(id, free);
        free
    }

    /// Judges all zones anew of which the member at a place has said anything.
    fn judge_all(&mut self, place: usize, now: Instant) {
        let has_said = |zone: &&mut Zone| zone.said.get(place).is_some_and(|said| said.serial.is_some());
        for zone in self.zones.values_mut().filter(has_said) {
            self.verdicts += zone.judge(&self.members, now);
        }
    }

    /// Forgets zones if there are more than there may be, the longest unused first, and a few more, so that it need not be done for
    /// each that comes. This one stays.
    fn make_room(&mut self, but: &[u8]) {
        if self.zones.len() <= MAX_ZONES && self.bytes <= MAX_BYTES {
            return;
        }
        let others = self.zones.iter().filter(|(name, _)| &***name != but);
        let mut by_use: Vec<_> = others.map(|(name, zone)| (zone.used, name.clone())).collect();
        by_use.sort_unstable();
        let (most_zones, most_bytes) = (MAX_ZONES - MAX_ZONES / 16, MAX_BYTES - MAX_BYTES / 16);
        for (_, name) in by_use {
            if self.zones.len() <= most_zones && self.bytes <= most_bytes {
                return;
            }
            if let Some(zone) = self.zones.remove(&name) {
                self.bytes -= name.len() + ZONE_OCTETS + zone.said.capacity() * size_of::<Said>();
            }
        }
    }
}

impl Zone {
    fn is_in_use(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) <= IN_USE
    }

    /// Makes room for what the member at a place says; returns how many octets more that takes.
    fn grow_to(&mut self, place: usize) -> usize {
        let before = self.said.capacity();
        if self.said.len() <= place {
            self.said.resize(place + 1, Said::default());
        }
        (self.said.capacity() - before) * size_of::<Said>()
    }

    /// Takes what the member at a place says. All are judged anew only where that may change who is the newest: of thousands of
    /// members the first with a new version does so, and those that follow do not. Returns how many are found to be older that were
    /// not before.
    fn say(&mut self, place: usize, serial: u32, members: &[Option<Member>], now: Instant) -> u64 {
        let newest = self.newest.filter(|newest| *newest != place).and_then(|newest| self.said[newest].serial);
        let said = &mut self.said[place];
        if said.serial.replace(serial) == Some(serial) {
            return 0;
        }
        match newest {
            Some(newest) if !is_newer(serial, newest) => said.judge(is_newer(newest, serial), now).into(),
            Some(_) | None => self.judge(members, now),
        }
    }

    /// Finds the newest version among members that are up, and who is older than that. Returns how many are that were not before.
    fn judge(&mut self, members: &[Option<Member>], now: Instant) -> u64 {
        let serial_of = |(place, said): (usize, &Said)| {
            let is_up = members.get(place)?.as_ref()?.is_up;
            Some((place, said.serial?)).filter(|_| is_up)
        };
        let up = || self.said.iter().enumerate().filter_map(serial_of);
        // The first of those that are equal.
        let newest = up().reduce(|best, next| if is_newer(next.1, best.1) { next } else { best });
        // RFC 1982 section 3.2 orders no three serials that go round the whole circle: then nobody is newest, and nobody older.
        let newest = newest.filter(|newest| !up().any(|other| is_newer(other.1, newest.1)));
        self.newest = newest.map(|(place, _)| place);
        let judge = |said: &mut Said| {
            let is_older = newest.zip(said.serial).is_some_and(|((_, newest), serial)| is_newer(newest, serial));
            u64::from(said.judge(is_older, now))
        };
        self.said.iter_mut().map(judge).sum()
    }
}

impl Said {
    /// Notes whether it is older than the newest. Returns whether it is and was not before.
    fn judge(&mut self, is_older: bool, now: Instant) -> bool {
        let before = self.older_since;
        self.older_since = is_older.then(|| before.unwrap_or(now));
        is_older && before.is_none()
    }
}

/// What members have said of one zone, to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The name of the zone.
    pub zone: Box<[u8]>,
    /// The newest serial among members that are up; `None` if none is the newest.
    pub newest: Option<u32>,
    /// Whether somebody has asked for a name in it within the last minute.
    pub is_in_use: bool,
    /// Who has said what.
    pub said: Vec<Version>,
}

/// What one member has said of it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Who.
    pub member: MemberId,
    /// What.
    pub serial: u32,
    /// How long ago it was heard, or asked.
    pub heard: Duration,
    /// For how long the newest has been newer, if it is.
    pub older_for: Option<Duration>,
}

/// Whether one serial is newer than another (RFC 1982 section 3.2). Of two that lie 2^31 apart neither is.
pub fn is_newer(serial: u32, other: u32) -> bool {
    (1..1 << 31).contains(&serial.wrapping_sub(other))
}

/// Zones that are known of a pool at most.
pub const MAX_ZONES: usize = 1024;

/// Octets that they may take.
pub const MAX_BYTES: usize = 4 << 20;

/// A member is asked again about a zone if it was not heard for so long: soon enough that it is heard once in 2 s.
pub const FRESH: Duration = Duration::from_millis(1800);

/// A zone is in use for so long after somebody has asked for a name in it.
pub const IN_USE: Duration = Duration::from_secs(60);

/// One member is asked for an SOA record this often at most: ten times a second.
pub const ASK_EVERY: Duration = Duration::from_millis(100);

/// What a zone takes beside its name and what is said of it: its value, its place in the map, and what the allocator adds.
const ZONE_OCTETS: usize = 128;

#[cfg(test)]
mod tests;
