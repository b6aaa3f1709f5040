//! An authority process: zones, transfers, NOTIFY and the schedule of a secondary, over the modelled network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns::address::Scheme;
use dns::{Flag, Header, Name, Opcode, RecordType, Transport, write_plain_query};
use rand::RngExt;
use zone::transfer::tsig::{Algorithm, ServerChain, TsigFailure, TsigKey, TsigKeys, sign_query, verify_query};
use zone::transfer::{
    Difference, Journal, MESSAGE_LIMIT, NotifyAttempts, NotifyStep, Secondary, SecondaryStep, SecondaryVersion, Serial,
    Soa, TransferError, TransferKind, TransferOffer, TransferProgress, TransferReader, TransferResult, TransferWriter,
    ZoneService, differences, is_notify_response, read_notify, read_soa_reply, read_transfer_query, whole,
    write_notify, write_transfer_query,
};
use zone::{Records, Tables, Zone, ZoneDb, respond};

use super::checks;
use super::clock::Around;
use super::content;
use super::host::{Disk, HostId};
use super::network::{Datagram, Endpoint, Frames, ProcessId, StreamEvent, StreamId, StreamNews};

pub(crate) struct Authority {
    host: HostId,
    process: ProcessId,
    zone_db: ZoneDb,
    zone: Option<Arc<Zone>>,
    journal: Journal,
    /// The primaries of a secondary; none on the primary.
    primaries: Vec<HostId>,
    secondary: Option<Secondary>,
    /// The hosts that get a NOTIFY of each change.
    targets: Vec<HostId>,
    notifies: BTreeMap<HostId, (NotifyAttempts, u16)>,
    pending: Option<Pending>,
    /// A transferred zone that is being loaded and saved.
    loading: Option<(Instant, Option<Arc<Zone>>, Vec<Difference>)>,
    inbound: BTreeMap<StreamId, Frames>,
    keys: TsigKeys,
    is_draining: bool,
}

/// A question to a primary.
enum Pending {
    Soa(u16),
    Transfer { stream: StreamId, incremental: bool, frames: Frames, reader: Option<Box<TransferReader>> },
}

/// The port of questions to primaries, and that of NOTIFY.
const OWN_PORT: u32 = 1;

impl Authority {
    /// Starts with the zone of the disk. `primaries` is empty on the primary.
    pub(crate) fn new(
        host: HostId,
        process: ProcessId,
        disk: &Disk,
        primaries: Vec<HostId>,
        targets: Vec<HostId>,
        around: &mut Around,
    ) -> Self {
        let saved = disk.saved_zone.clone();
        let secondary = (!primaries.is_empty()).then(|| match &saved {
            Some((zone, confirmed)) => {
                let age = Duration::from_secs(around.wall(host).saturating_sub(*confirmed));
                let version = version_of(zone).expect("a saved zone has an SOA record");
                Secondary::from_saved(primaries.len(), version, age, around.now)
            }
            None => Secondary::new(primaries.len(), around.now),
        });
        let key = TsigKey::new(&"k.".parse().expect("a name"), Algorithm::HmacSha256, b"a secret of the world");
        let mut authority = Self {
            host,
            process,
            zone_db: ZoneDb::new(Arc::new(Tables::none())),
            zone: None,
            journal: Journal::new(10, 1 << 20),
            primaries,
            secondary,
            targets,
            notifies: BTreeMap::new(),
            pending: None,
            loading: None,
            inbound: BTreeMap::new(),
            keys: TsigKeys::new(vec![key]),
            is_draining: false,
        };
        let zone = match authority.secondary {
            Some(_) => saved.map(|(zone, _)| zone),
            None => Some(content::zone(disk.zone_file)),
        };
        authority.serve(zone, Vec::new(), around);
        authority
    }

    fn own(&self) -> Endpoint {
        Endpoint::Own { host: self.host, process: self.process, port: OWN_PORT }
    }

    fn serial(&self) -> Option<Serial> {
        self.zone.as_ref().map(|zone| Serial(zone.serial()))
    }

    /// Returns the version that answers queries now.
    pub(crate) fn served(&self, now: Instant) -> Option<u32> {
        let is_served = self.secondary.as_ref().is_none_or(|machine| machine.service(now) == ZoneService::Served);
        self.serial().filter(|_| is_served).map(|serial| serial.0)
    }

    pub(crate) fn describe(&self) -> String {
        let pending = match &self.pending {
            None => "nothing",
            Some(Pending::Soa(_)) => "a serial",
            Some(Pending::Transfer { .. }) => "a transfer",
        };
        format!("waits for {pending}, {:?}", self.secondary)
    }

    /// Answers from this version from now on.
    fn serve(&mut self, zone: Option<Arc<Zone>>, steps: Vec<Difference>, around: &mut Around) {
        for step in steps {
            self.journal.push(step);
        }
        let shown = zone.clone().unwrap_or_else(|| Arc::new(Zone::unserved(&content::apex())));
        self.zone_db.set_zone(shown);
        if let Some(zone) = &zone {
            let right = content::zone(zone.serial());
            assert!(zone.canonical().eq(right.canonical()), "the records of version {}", zone.serial());
            around.log(format_args!("authority {} serves version {}", self.host, zone.serial()));
            self.notifies = self
                .targets
                .iter()
                .map(|target| (*target, (NotifyAttempts::new(around.now), around.rng.random())))
                .collect();
        }
        self.zone = zone;
    }

    /// Reloads the zone file, as the control thread of a primary does.
    pub(crate) fn reload(&mut self, version: u32, around: &mut Around) {
        let (Some(old), new) = (self.zone.clone(), content::zone(version)) else { return };
        if Serial(new.serial()).is_newer_than(Serial(old.serial())) {
            let step = Difference::between(old.iter(), new.iter()).expect("two sound versions");
            self.serve(Some(new), vec![step], around);
        }
    }

    pub(crate) fn drain(&mut self) {
        self.is_draining = true;
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.is_draining
    }

    pub(crate) fn on_datagram(&mut self, datagram: Datagram, disk: &mut Disk, around: &mut Around) {
        let Datagram { from, to, octets } = datagram;
        if to == self.own() {
            return self.on_own_reply(&octets, disk, around);
        }
        let Some(header) = Header::read(&octets) else { return };
        if header.opcode() == Opcode::NOTIFY {
            let Ok(notify) = read_notify(&octets) else { return };
            let primary = self.primaries.iter().position(|primary| Some(*primary) == from.host());
            if let (Some(machine), Some(primary)) = (&mut self.secondary, primary) {
                machine.on_notify(primary, notify.serial, around.now);
                let mut response = octets;
                dns::rewrite_header(&mut response, |header| header.to_response().with_counts([1, 0, 0, 0]));
                response.truncate(dns::HEADER_LEN + notify.zone.as_wire().len() + 4);
                around.send(Endpoint::Service(self.host), from, response);
            }
            return;
        }
        let mut response = Vec::new();
        respond(&self.zone_db, &octets, Transport::Udp, 1232, &mut response);
        if !response.is_empty() {
            if around.truth.may_truncate && checks::read(&response).is_some_and(|(name, ..)| is_long(name)) {
                truncate(&mut response);
            }
            around.truth.authority_said(self.host, self.zone.as_deref());
            around.send(Endpoint::Service(self.host), from, response);
        }
    }

    fn on_own_reply(&mut self, octets: &[u8], disk: &mut Disk, around: &mut Around) {
        for (attempts, id) in self.notifies.values_mut() {
            if is_notify_response(octets, *id, &content::apex()) {
                return attempts.on_response();
            }
        }
        let (Some(Pending::Soa(id)), Some(machine)) = (&self.pending, &mut self.secondary) else { return };
        if Header::read(octets).is_none_or(|header| header.id() != *id) {
            return;
        }
        let serial = read_soa_reply(octets, *id, &content::apex());
        self.pending = None;
        match serial {
            Some(serial) => {
                if machine.version().is_some_and(|version| version.serial == serial) {
                    disk.confirm_zone(around.wall(self.host));
                }
                machine.on_soa(serial, around.now, &mut around.rng);
            }
            None => machine.on_failure(around.now, &mut around.rng),
        }
    }

    pub(crate) fn on_stream(&mut self, event: StreamEvent, around: &mut Around) {
        let StreamEvent { stream, what, .. } = event;
        match what {
            StreamNews::Dialed(_) => {
                let by = Endpoint::Own { host: self.host, process: self.process, port: 0 };
                around.accept(stream, by);
                self.inbound.insert(stream, Frames::default());
            }
            StreamNews::Opened => self.ask_for_zone(stream, around),
            StreamNews::Bytes(bytes) if self.inbound.contains_key(&stream) => {
                self.on_query_bytes(stream, &bytes, around)
            }
            StreamNews::Bytes(bytes) => self.on_transfer_bytes(stream, &bytes, around),
            StreamNews::Reset => {
                self.inbound.remove(&stream);
                if matches!(&self.pending, Some(Pending::Transfer { stream: ours, .. }) if *ours == stream) {
                    self.fail(around);
                }
            }
        }
    }

    fn on_query_bytes(&mut self, stream: StreamId, bytes: &[u8], around: &mut Around) {
        let by = Endpoint::Own { host: self.host, process: self.process, port: 0 };
        let Some(frames) = self.inbound.get_mut(&stream) else { return };
        frames.push(bytes);
        let queries: Vec<_> = std::iter::from_fn(|| frames.next()).collect();
        for query in queries {
            let qtype = dns::Question::read(&query).map(|question| question.qtype());
            if matches!(qtype, Some(RecordType::AXFR | RecordType::IXFR)) {
                self.send_zone(stream, by, &query, around);
                continue;
            }
            let mut response = Vec::new();
            respond(&self.zone_db, &query, Transport::Tcp, 1232, &mut response);
            around.truth.authority_said(self.host, self.zone.as_deref());
            around.write(stream, by, &response);
        }
    }

    fn send_zone(&mut self, stream: StreamId, by: Endpoint, query: &[u8], around: &mut Around) {
        let now = around.wall(self.host);
        let mut chain: Option<ServerChain> = match verify_query(&self.keys, query, now) {
            Ok(Some(chain)) => Some(chain),
            Ok(None) => return around.close(stream, by),
            Err(refusal) => {
                let mut response = Vec::new();
                refusal.write(query, now, &mut response);
                return around.write(stream, by, &response);
            }
        };
        let (Ok(query), Some(zone)) = (read_transfer_query(query), self.zone.clone()) else {
            return around.close(stream, by);
        };
        let Some(soa) = zone.soa() else { return around.close(stream, by) };
        let size = Records::size_of(zone.iter());
        let records: Vec<_> = match TransferOffer::choose(query.asked, &self.journal, Serial(zone.serial()), size) {
            TransferOffer::UpToDate => vec![soa],
            TransferOffer::Steps(steps) => differences(soa, steps).collect(),
            TransferOffer::Whole => whole(soa, zone.iter()).collect(),
        };
        if let TransferKind::Ixfr { from } = query.asked {
            assert_eq!(records.len() > 1, zone.serial() > from.0, "a client with an older version gets a newer one");
        }
        // Small messages, so that a transfer has several.
        let limit = MESSAGE_LIMIT.min(300);
        let mut writer = TransferWriter::new(query.header, &query.question, records.into_iter(), limit);
        let mut message = Vec::new();
        while writer.next_message(&mut message) {
            if let Some(chain) = &mut chain {
                chain.sign(now, &mut message);
            }
            around.write(stream, by, &message);
        }
    }

    fn ask_for_zone(&mut self, stream: StreamId, around: &mut Around) {
        let own = self.own();
        let key = self.keys.by_name(&"k.".parse::<Name>().expect("a name")).expect("the key").clone();
        let soa = self.zone.as_ref().and_then(|zone| zone.soa());
        let Some(Pending::Transfer { stream: ours, incremental, reader, .. }) = &mut self.pending else {
            return around.close(stream, own);
        };
        if *ours != stream {
            return around.close(stream, own);
        }
        let (id, mut query) = (around.rng.random(), Vec::new());
        let asked = write_transfer_query(id, &content::apex(), soa.filter(|_| *incremental), &mut query);
        let chain = sign_query(&key, around.wall(self.host), &mut query);
        *reader = Some(Box::new(TransferReader::new(content::apex(), id, asked, Some(chain), 1 << 20)));
        around.write(stream, own, &query);
    }

    fn on_transfer_bytes(&mut self, stream: StreamId, bytes: &[u8], around: &mut Around) {
        let wall = around.wall(self.host);
        let Some(Pending::Transfer { stream: ours, frames, reader: Some(reader), .. }) = &mut self.pending else {
            return;
        };
        if *ours != stream {
            return;
        }
        frames.push(bytes);
        while let Some(message) = frames.next() {
            if let Some(machine) = &mut self.secondary {
                machine.on_progress(around.now);
            }
            match reader.take(&message, wall) {
                Ok(TransferProgress::More) => {}
                Ok(TransferProgress::Done(result)) => return self.load(result, around),
                Err(error) => {
                    around.log(format_args!("authority {}: the transfer failed: {error}", self.host));
                    // No message is damaged, but a clock may be or have been wrong.
                    let is_clock =
                        matches!(error, TransferError::Tsig(TsigFailure::BadTime | TsigFailure::OtherClock(_)));
                    assert!(is_clock && !around.wrong_by.is_empty(), "authority {}: {error}", self.host);
                    return self.fail(around);
                }
            }
        }
    }

    /// Loads and saves a transferred zone, on another thread.
    fn load(&mut self, result: TransferResult, around: &mut Around) {
        let apply = |steps: &[Difference]| {
            let change = Difference::condensed(steps).ok()?;
            content::build(change.apply(self.zone.as_ref()?.iter()).ok()?.iter())
        };
        let (zone, steps) = match result {
            TransferResult::UpToDate => (self.zone.clone(), Vec::new()),
            TransferResult::Whole(records) => (content::build(records.iter()), Vec::new()),
            TransferResult::Steps(steps) => (apply(&steps), steps),
        };
        assert!(zone.is_some(), "authority {}: what was transferred is no zone", self.host);
        self.end_pending(around);
        self.loading = Some((around.now + around.millis(200), zone, steps));
    }

    fn end_pending(&mut self, around: &mut Around) {
        if let Some(Pending::Transfer { stream, .. }) = self.pending.take() {
            around.close(stream, self.own());
        }
    }

    fn fail(&mut self, around: &mut Around) {
        self.end_pending(around);
        if let Some(machine) = &mut self.secondary {
            machine.on_failure(around.now, &mut around.rng);
        }
    }

    /// Does what is due. Returns the next wake-up time.
    pub(crate) fn on_time(&mut self, disk: &mut Disk, around: &mut Around) -> Instant {
        let now = around.now;
        if let Some((_, zone, steps)) = self.loading.take_if(|(at, ..)| *at <= now) {
            self.loaded(zone, steps, disk, around);
        }
        let mut wake = now + Duration::from_secs(3600);
        let own = self.own();
        let soa = self.zone.as_ref().and_then(|zone| zone.soa());
        for (target, (attempts, id)) in &mut self.notifies {
            loop {
                match attempts.next_step(now) {
                    NotifyStep::Send => {
                        let mut message = Vec::new();
                        write_notify(*id, &content::apex(), soa, &mut message);
                        around.send(own, Endpoint::Service(*target), message);
                    }
                    NotifyStep::WaitUntil(at) => {
                        wake = wake.min(at);
                        break;
                    }
                    NotifyStep::GiveUp | NotifyStep::Finished => break,
                }
            }
        }
        wake = wake.min(self.advance(around));
        if let Some((at, ..)) = &self.loading {
            wake = wake.min(*at);
        }
        wake
    }

    fn loaded(&mut self, zone: Option<Arc<Zone>>, steps: Vec<Difference>, disk: &mut Disk, around: &mut Around) {
        let now = around.now;
        let Some(machine) = &mut self.secondary else { return };
        let Some((zone, version)) = zone.and_then(|zone| Some((Arc::clone(&zone), version_of(&zone)?))) else {
            return machine.on_failure(now, &mut around.rng);
        };
        if self.zone.as_ref().is_some_and(|ours| ours.serial() == zone.serial()) {
            disk.confirm_zone(around.wall(self.host));
            return machine.on_up_to_date(now, &mut around.rng);
        }
        disk.save_zone(Arc::clone(&zone), around.wall(self.host));
        machine.on_transferred(version, now, &mut around.rng);
        self.serve(Some(zone), steps, around);
    }

    /// Carries out the steps of the secondary.
    fn advance(&mut self, around: &mut Around) -> Instant {
        let now = around.now;
        loop {
            let Some(machine) = &mut self.secondary else { return now + Duration::from_secs(3600) };
            let step = machine.next_step(now, &mut around.rng);
            if !matches!(step, SecondaryStep::WaitUntil(_)) {
                self.end_pending(around);
                // The result of an earlier transfer that is too late counts no more.
                self.loading = None;
            }
            match step {
                SecondaryStep::AskSoa { primary } => {
                    let (id, mut query) = (around.rng.random(), Vec::new());
                    write_plain_query(id, &content::apex(), RecordType::SOA, &mut query);
                    self.pending = Some(Pending::Soa(id));
                    around.send(self.own(), Endpoint::Service(self.primaries[primary]), query);
                }
                SecondaryStep::Transfer { primary, incremental } => {
                    let stream = around.dial(self.own(), self.primaries[primary], Scheme::Tcp);
                    let frames = Frames::default();
                    self.pending = Some(Pending::Transfer { stream, incremental, frames, reader: None });
                }
                SecondaryStep::WaitUntil(at) => {
                    let is_busy = self.pending.is_some() || self.loading.is_some() || self.zone.is_none();
                    assert!(is_busy || at <= now + content::REFRESH, "authority {}: it looks too late", self.host);
                    self.report_service(around);
                    return at;
                }
            }
        }
    }

    fn report_service(&mut self, around: &mut Around) {
        let is_served = self.served(around.now).is_some();
        let shown = match (&self.zone, is_served) {
            (Some(zone), true) => Arc::clone(zone),
            _ => Arc::new(Zone::unserved(&content::apex())),
        };
        self.zone_db.set_zone(shown);
    }
}

/// Returns true if the answer for a name counts as too long for a datagram.
fn is_long(name: usize) -> bool {
    name.is_multiple_of(3)
}

/// Sets TC and removes all records but the OPT record, which is the last one.
fn truncate(response: &mut Vec<u8>) {
    let Some(end) = dns::Question::read(response).map(|question| dns::HEADER_LEN + question.qname().len() + 4) else {
        return;
    };
    let opt = response.split_off(response.len() - OPT_LEN);
    assert_eq!(opt[..3], [0, 0, 41], "an OPT record without options");
    response.truncate(end);
    response.extend(opt);
    dns::rewrite_header(response, |header| header.with(Flag::Truncated, true).with_counts([1, 0, 0, 1]));
}

const OPT_LEN: usize = 11;

fn version_of(zone: &Zone) -> Option<SecondaryVersion> {
    let soa = zone.soa()?;
    Soa::of(&soa).map(|soa| SecondaryVersion::of(&soa))
}
