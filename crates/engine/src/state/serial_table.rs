//! Zone serials at the members of a replica pool, from replies and SOA probes.
//!
//! ```text
//! hear      a known member reports a serial (RFC 9660, or an SOA record). If that changes anything:
//!               newest    the newest last serial among members that are up (RFC 1982)
//!               older     each member with a lower serial is older, from now on or since it already was
//! is_older  a negative reply of such a member is not accepted: the newest is asked at once
//! behind    older for longer than `max_lag` in a zone in use: asked last. Empty if it would hold all
//! ask       up, and not heard for 2 s about a zone that a client used within the last minute
//! ```
//!
//! Removed members are forgotten, so a wrong serial disappears with its server. Zone names are bytes in
//! canonical form.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hedge::BackendIndex;

/// The zone serials of the members of one pool.
#[derive(Debug, Default)]
pub struct SerialTable {
    members: Vec<Option<SerialMember>>,
    places: BTreeMap<BackendIndex, usize>,
    zones: BTreeMap<Box<[u8]>, ZoneSerials>,
    bytes: usize,
    verdicts: u64,
}

/// The source of a serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SerialSource {
    /// A reply to a client query, so the zone is in use.
    Reply,
    /// A reply to an SOA probe, which does not make the zone used.
    Probe,
}

#[derive(Debug)]
struct SerialMember {
    id: BackendIndex,
    is_up: bool,
    next_ask: Option<Instant>,
}

#[derive(Debug)]
struct ZoneSerials {
    used: Instant,
    said: Vec<SerialObservation>,
    newest: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct SerialObservation {
    serial: Option<u32>,
    heard: Option<Instant>,
    older_since: Option<Instant>,
}

impl SerialTable {
    /// Adds a member, or sets its state.
    pub(crate) fn set_up(&mut self, member: BackendIndex, is_up: bool, now: Instant) {
        let place = self.place_of(member);
        let Some(known) = self.members.get_mut(place).and_then(Option::as_mut) else { return };
        if known.is_up != is_up {
            known.is_up = is_up;
            self.judge_all(place, now);
        }
    }

    /// Removes a member and its serials.
    pub(crate) fn forget(&mut self, member: BackendIndex, now: Instant) {
        let Some(place) = self.places.remove(&member) else { return };
        self.members[place] = None;
        self.judge_all(place, now);
        for said in self.zones.values_mut().filter_map(|zone| zone.said.get_mut(place)) {
            *said = SerialObservation::default();
        }
    }

    /// Records the serial of a zone at a member. Unknown members are ignored.
    pub(crate) fn hear(&mut self, zone: &[u8], member: BackendIndex, serial: u32, source: SerialSource, now: Instant) {
        let Some(&place) = self.places.get(&member) else { return };
        if !self.zones.contains_key(zone) {
            if source == SerialSource::Probe {
                return;
            }
            self.bytes += zone.len() + ZONE_OCTETS;
            self.zones.insert(zone.into(), ZoneSerials { used: now, said: Vec::new(), newest: None });
        }
        let Some(known) = self.zones.get_mut(zone) else { return };
        if source == SerialSource::Reply {
            known.used = known.used.max(now);
        }
        self.bytes += known.grow_to(place);
        known.said[place].heard = Some(now);
        self.verdicts += known.say(place, serial, &self.members, now);
        self.make_room(zone);
    }

    /// Returns the up member with the newest version of a zone, and its serial.
    pub(crate) fn newest(&self, zone: &[u8]) -> Option<(BackendIndex, u32)> {
        let zone = self.zones.get(zone)?;
        let place = zone.newest?;
        Some((self.members.get(place)?.as_ref()?.id, zone.said.get(place)?.serial?))
    }

    /// Returns one of the up members with the newest version of a zone, in rotation by `turn`.
    pub(crate) fn one_of_newest(&self, zone: &[u8], turn: usize) -> Option<BackendIndex> {
        let (_, newest) = self.newest(zone)?;
        let said = &self.zones.get(zone)?.said;
        let up = self.members.iter().zip(said).filter_map(|(member, said)| Some((member.as_ref()?, said)));
        let have_it =
            up.filter(|(member, said)| member.is_up && said.serial == Some(newest)).map(|(member, _)| member.id);
        let turn = turn.checked_rem(have_it.clone().count())?;
        have_it.clone().nth(turn)
    }

    /// Returns true if a member's version of a zone is older than that of another up member.
    pub(crate) fn is_older(&self, zone: &[u8], member: BackendIndex) -> bool {
        let said = self.zones.get(zone).zip(self.places.get(&member)).and_then(|(zone, place)| zone.said.get(*place));
        said.is_some_and(|said| said.older_since.is_some())
    }

    /// Returns the up members that are older for longer than `max_lag`, but never all up members.
    pub(crate) fn behind(&self, max_lag: Duration, now: Instant) -> Vec<BackendIndex> {
        let is_late = |said: &SerialObservation| {
            said.older_since.is_some_and(|since| now.saturating_duration_since(since) > max_lag)
        };
        let mut late = vec![false; self.members.len()];
        for zone in self.zones.values().filter(|zone| zone.is_in_use(now)) {
            zone.said.iter().zip(&mut late).for_each(|(said, late)| *late |= is_late(said));
        }
        let up = || self.members.iter().zip(&late).filter_map(|(member, late)| Some((member.as_ref()?, *late)));
        let behind: Vec<_> = up().filter(|(member, late)| member.is_up && *late).map(|(member, _)| member.id).collect();
        if behind.len() == up().filter(|(member, _)| member.is_up).count() { Vec::new() } else { behind }
    }

    /// Returns the SOA probes to send now: one per member at most, about its zone with the oldest report.
    pub(crate) fn ask(&mut self, now: Instant) -> Vec<(BackendIndex, Box<[u8]>)> {
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

    /// Returns the number of times a member became older.
    pub(crate) fn verdicts(&self) -> u64 {
        self.verdicts
    }

    /// Continues the count of verdicts from another process.
    pub(crate) fn go_on_from(&mut self, verdicts: u64) {
        self.verdicts = verdicts + 1;
    }

    /// Returns the last serials of each zone at the members, in the order of the zone names.
    pub(crate) fn versions(&self, now: Instant) -> Vec<Versions> {
        let member = |(member, said): (&Option<SerialMember>, &SerialObservation)| {
            let (member, serial) = (member.as_ref()?, said.serial?);
            let ago = |at: Instant| now.saturating_duration_since(at);
            let older_for = said.older_since.map(ago);
            Some(LastSerial { member: member.id, serial, heard: said.heard.map(ago)?, older_for })
        };
        let zones = self.zones.iter().map(|(name, zone)| Versions {
            zone: name.clone(),
            newest: zone.newest.and_then(|place| zone.said.get(place)?.serial),
            is_in_use: zone.is_in_use(now),
            said: self.members.iter().zip(&zone.said).filter_map(member).collect(),
        });
        zones.collect()
    }

    fn place_of(&mut self, id: BackendIndex) -> usize {
        if let Some(place) = self.places.get(&id) {
            return *place;
        }
        let member = SerialMember { id, is_up: true, next_ask: None };
        let free = self.members.iter().position(Option::is_none).unwrap_or(self.members.len());
        match self.members.get_mut(free) {
            Some(place) => *place = Some(member),
            None => self.members.push(Some(member)),
        }
        self.places.insert(id, free);
        free
    }

    fn judge_all(&mut self, place: usize, now: Instant) {
        let has_said = |zone: &&mut ZoneSerials| zone.said.get(place).is_some_and(|said| said.serial.is_some());
        for zone in self.zones.values_mut().filter(has_said) {
            self.verdicts += zone.judge(&self.members, now);
        }
    }

    /// Removes the least recently used zones, and a few more so that scans are rare. `but` stays.
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
                self.bytes -= name.len() + ZONE_OCTETS + zone.said.capacity() * size_of::<SerialObservation>();
            }
        }
    }
}

impl ZoneSerials {
    fn is_in_use(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) <= IN_USE
    }

    fn grow_to(&mut self, place: usize) -> usize {
        let before = self.said.capacity();
        if self.said.len() <= place {
            self.said.resize(place + 1, SerialObservation::default());
        }
        (self.said.capacity() - before) * size_of::<SerialObservation>()
    }

    /// Records a serial and returns the number of members that became older. All members are judged again
    /// only if the newest may change.
    fn say(&mut self, place: usize, serial: u32, members: &[Option<SerialMember>], now: Instant) -> u64 {
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

    fn judge(&mut self, members: &[Option<SerialMember>], now: Instant) -> u64 {
        let serial_of = |(place, said): (usize, &SerialObservation)| {
            let is_up = members.get(place)?.as_ref()?.is_up;
            Some((place, said.serial?)).filter(|_| is_up)
        };
        let up = || self.said.iter().enumerate().filter_map(serial_of);
        let newest = up().reduce(|best, next| if is_newer(next.1, best.1) { next } else { best });
        // RFC 1982 section 3.2 cannot order serials all around the circle: then none is newest.
        let newest = newest.filter(|newest| !up().any(|other| is_newer(other.1, newest.1)));
        self.newest = newest.map(|(place, _)| place);
        let judge = |said: &mut SerialObservation| {
            let is_older = newest.zip(said.serial).is_some_and(|((_, newest), serial)| is_newer(newest, serial));
            u64::from(said.judge(is_older, now))
        };
        self.said.iter_mut().map(judge).sum()
    }
}

impl SerialObservation {
    fn judge(&mut self, is_older: bool, now: Instant) -> bool {
        let before = self.older_since;
        self.older_since = is_older.then(|| before.unwrap_or(now));
        is_older && before.is_none()
    }
}

/// The serials of one zone at the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The name of the zone.
    pub zone: Box<[u8]>,
    /// The newest serial among up members, if there is one.
    pub newest: Option<u32>,
    /// True if a client used the zone within the last minute.
    pub is_in_use: bool,
    /// The serial of each member.
    pub said: Vec<LastSerial>,
}

/// The last serial of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSerial {
    /// The member.
    pub member: BackendIndex,
    /// The serial.
    pub serial: u32,
    /// The time since it was heard or asked.
    pub heard: Duration,
    /// The time since which the newest is newer, if it is.
    pub older_for: Option<Duration>,
}

/// Returns true if `serial` is newer than `other` (RFC 1982 section 3.2). If they are 2^31 apart, neither is.
pub(crate) fn is_newer(serial: u32, other: u32) -> bool {
    (1..1 << 31).contains(&serial.wrapping_sub(other))
}

/// The limit of known zones per pool.
pub(crate) const MAX_ZONES: usize = 1024;

/// The limit of their size in bytes.
pub(crate) const MAX_BYTES: usize = 4 << 20;

/// The age of a report after which a member is asked again, so that it is heard once in 2 s.
pub(crate) const FRESH: Duration = Duration::from_millis(1800);

/// The time for which a zone is in use after a client query.
pub(crate) const IN_USE: Duration = Duration::from_secs(60);

/// The minimum interval of SOA probes to one member.
pub(crate) const ASK_EVERY: Duration = Duration::from_millis(100);

const ZONE_OCTETS: usize = 128;

#[cfg(test)]
mod tests;
