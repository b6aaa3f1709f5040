//! A backend as all workers share it: its health by probes and replies, by the operator, and what workers tell the prober.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::backend_cookies::BackendCookies;
use crate::address::BackendAddress;
use crate::config::BackendConfig;
use crate::metrics::{BackendCounters, BackendState, Counter, OrderWord};
use crate::net::backend_connection::StreamProtocol;
use crate::net::tls::{ClientTls, TrustRules};
use crate::policy::BackendIndex;
use crate::policy::health::HealthState;

/// A backend as all workers see it.
#[derive(Debug)]
pub struct SharedBackend {
    /// Where it is asked.
    pub address: BackendAddress,
    /// Its label.
    pub name: String,
    /// Whether a header tells it whose queries it gets (`proxy_protocol`).
    pub wants_header: bool,
    /// Where its pool and the workers keep what they know of it. For as long as anybody refers to it, no other backend of the pool has
    /// the same.
    pub index: BackendIndex,
    /// What the pool's [`Affinity`](crate::policy::affinity::Affinity) calls it.
    pub affinity_number: u32,
    /// True if its AD is believed.
    is_ad_trusted: AtomicBool,
    /// What a connection to it needs, if it is asked by TLS.
    tls: ArcSwapOption<ClientTls>,
    /// By which protocol it is asked by stream.
    protocol: ArcSwap<StreamProtocol>,
    /// Why the last connection to it did not come to be, if that is so.
    connection_problem: ArcSwapOption<String>,
    /// What each worker counts, from its first query on.
    counters: Box<[OnceLock<Box<BackendCounters>>]>,
    /// What earlier processes have counted.
    carried: OnceLock<Box<BackendCounters>>,
    /// Probes sent.
    pub probes: Counter,
    /// ICMP errors that came to probes.
    pub unreachable_probes: Counter,
    /// What is known of its cookies; a change is announced by [`PoolState::announce`](super::PoolState::announce).
    pub cookies: BackendCookies,
    /// What probes and replies say: a [`HealthState`].
    health: AtomicU8,
    /// It refused OPT, and is asked without until then.
    without_opt: Until,
    /// It does not keep the case of names (DNS 0x20), and is asked in the client's case until then.
    case_lost: Until,
    /// What the operator says: a [`ManualHealth`].
    manual: AtomicU8,
    /// It gets no more queries, by the operator's wish.
    is_draining: AtomicBool,
    /// What an order for all LS says, an [`OrderWord`] and one more; 0: there is none.
    order: AtomicU8,
    /// It says itself that it is about to end.
    is_leaving: AtomicBool,
    /// Its zones have been older than those of other replicas for too long.
    is_behind: AtomicBool,
    /// When any of these changed last, in milliseconds since the epoch of Unix.
    since: AtomicU64,
    /// The signs that were told and that nobody has acted on yet: a bit for each [`HealthSignal`].
    told: AtomicU8,
}

/// A time that is over one day, or has never been set. Workers look at it for every query, and write it rarely.
#[derive(Debug)]
struct Until {
    /// What it counts from.
    base: Instant,
    /// Milliseconds from there; 0: it was never set.
    millis: AtomicU64,
}

impl Default for Until {
    fn default() -> Self {
        Self { base: Instant::now(), millis: AtomicU64::new(0) }
    }
}

impl Until {
    fn is_after(&self, now: Instant) -> bool {
        let millis = self.millis.load(Relaxed);
        millis != 0 && now < self.base + Duration::from_millis(millis)
    }

    fn set(&self, at: Instant) {
        self.millis.store(at.saturating_duration_since(self.base).as_millis() as u64, Relaxed);
    }
}

/// What the operator says of a backend, by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum ManualHealth {
    /// As the probes find it.
    Auto,
    /// It is up, whatever they find.
    Up,
    /// It is down, whatever they find.
    Down,
}

/// How a backend stands with probes and with the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What probes and replies say.
    pub health: HealthState,
    /// What the operator says.
    pub manual: ManualHealth,
    /// It gets no more queries, by the operator's wish.
    pub is_draining: bool,
    /// When any of these changed last, in milliseconds since the epoch of Unix.
    pub since: u64,
}

impl SharedBackend {
    pub(super) fn new(
        config: &BackendConfig,
        index: BackendIndex,
        affinity_number: u32,
        health: HealthState,
        workers: usize,
    ) -> Self {
        Self {
            address: config.address,
            name: config.name.clone(),
            wants_header: config.proxy_protocol,
            index,
            affinity_number,
            is_ad_trusted: AtomicBool::new(config.is_ad_trusted(None)),
            tls: ArcSwapOption::empty(),
            protocol: ArcSwap::default(),
            connection_problem: ArcSwapOption::empty(),
            counters: (0..workers).map(|_| OnceLock::new()).collect(),
            carried: OnceLock::new(),
            probes: Counter::default(),
            unreachable_probes: Counter::default(),
            cookies: BackendCookies::default(),
            health: AtomicU8::new(health as u8),
            without_opt: Until::default(),
            case_lost: Until::default(),
            manual: AtomicU8::new(ManualHealth::Auto as u8),
            is_draining: AtomicBool::new(false),
            order: AtomicU8::new(0),
            is_leaving: AtomicBool::new(false),
            is_behind: AtomicBool::new(false),
            since: AtomicU64::new(unix_millis()),
            told: AtomicU8::new(0),
        }
    }

    /// What a connection to it needs, if it is asked by TLS; none, if it cannot be known who it is.
    pub fn tls(&self) -> Option<Arc<ClientTls>> {
        self.tls.load_full()
    }

    /// By which protocol it is asked by stream.
    pub fn protocol(&self) -> Arc<StreamProtocol> {
        self.protocol.load_full()
    }

    /// It is asked by this protocol from now on.
    pub(super) fn set_protocol(&self, protocol: StreamProtocol) {
        if **self.protocol.load() != protocol {
            self.protocol.store(Arc::new(protocol));
        }
    }

    /// Judges it by these rules from now on. With the same ones, sessions that can be resumed stay.
    pub(super) fn set_trust(&self, rules: &TrustRules) -> Result<(), String> {
        if self.tls.load().as_ref().is_some_and(|tls| tls.rules() == rules) {
            return Ok(());
        }
        let tls = ClientTls::new(rules);
        self.tls.store(tls.as_ref().ok().cloned().map(Arc::new));
        tls.map(drop)
    }

    /// Notes why a connection to it did not come to be, or that one did. Returns whether that is news.
    pub fn note_connection_problem(&self, problem: Option<&str>) -> bool {
        let known = self.connection_problem.load();
        let is_news = known.as_ref().map(|known| known.as_str()) != problem;
        if is_news {
            self.connection_problem.store(problem.map(|problem| Arc::new(problem.to_owned())));
        }
        is_news
    }

    /// Why the last connection to it did not come to be, if that is so.
    pub fn connection_problem(&self) -> Option<Arc<String>> {
        self.connection_problem.load_full()
    }

    /// Whether it is asked by stream, where a connection holds many queries.
    pub fn is_by_stream(&self) -> bool {
        self.address.scheme.is_stream()
    }

    /// Whether nobody on the way to it can read along.
    pub fn is_encrypted(&self) -> bool {
        self.address.scheme.is_encrypted()
    }

    /// True if its AD is believed (`trust_ad`).
    #[inline]
    pub fn is_ad_trusted(&self) -> bool {
        self.is_ad_trusted.load(Relaxed)
    }

    /// Its AD is believed from now on, or is not.
    pub(super) fn set_ad_trusted(&self, is_ad_trusted: bool) {
        self.is_ad_trusted.store(is_ad_trusted, Relaxed);
    }

    /// What a worker counts.
    #[inline]
    pub fn counters(&self, worker: usize) -> &BackendCounters {
        self.counters[worker].get_or_init(Box::default)
    }

    /// What a worker has counted, if it has counted anything.
    pub fn counted_by(&self, worker: usize) -> Option<&BackendCounters> {
        self.counters.get(worker)?.get().map(|counters| &**counters)
    }

    /// What each worker has counted that has counted anything.
    pub fn counted(&self) -> impl Iterator<Item = &BackendCounters> {
        self.counters.iter().filter_map(OnceLock::get).map(|counters| &**counters)
    }

    /// What earlier processes have counted, if they have.
    pub fn carried(&self) -> Option<&BackendCounters> {
        self.carried.get().map(|counters| &**counters)
    }

    /// Where what earlier processes have counted is added.
    pub fn carry_to(&self) -> &BackendCounters {
        self.carried.get_or_init(Box::default)
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.counters.len()
    }

    /// Whether it is up: as the operator says, or else an order, or else the probes.
    pub fn is_up(&self) -> bool {
        match (self.manual(), self.order()) {
            (ManualHealth::Up, _) | (ManualHealth::Auto, Some(OrderWord::Up)) => true,
            (ManualHealth::Down, _) | (ManualHealth::Auto, Some(OrderWord::Down)) => false,
            (ManualHealth::Auto, Some(OrderWord::Drain) | None) => self.health() == HealthState::Up,
        }
    }

    /// Whether it gets queries.
    pub fn takes_queries(&self) -> bool {
        self.is_up() && !self.is_draining()
    }

    /// Whether its zones have been older than those of other replicas for too long, so that these are asked first.
    pub fn is_behind(&self) -> bool {
        self.is_behind.load(Relaxed)
    }

    /// Whether it takes its turn, where anybody who takes queries is not behind.
    pub fn takes_turns(&self, is_anybody_ahead: bool) -> bool {
        self.takes_queries() && !(is_anybody_ahead && self.is_behind())
    }

    /// Notes whether it is behind. Returns whether that is news.
    pub fn set_behind(&self, is_behind: bool) -> bool {
        let is_news = self.is_behind.swap(is_behind, Relaxed) != is_behind;
        if is_news {
            self.since.store(unix_millis(), Relaxed);
        }
        is_news
    }

    /// Whether it is asked, and why not.
    pub fn state(&self) -> BackendState {
        match (self.is_draining(), self.is_up(), self.health()) {
            (true, ..) => BackendState::Draining,
            (false, true, _) if self.is_behind() => BackendState::Behind,
            (false, true, _) => BackendState::Up,
            (false, false, HealthState::New) => BackendState::New,
            (false, false, HealthState::Up | HealthState::Down) => BackendState::Down,
        }
    }

    /// What probes and replies say.
    pub fn health(&self) -> HealthState {
        match self.health.load(Relaxed) {
            NEW => HealthState::New,
            UP => HealthState::Up,
            _ => HealthState::Down,
        }
    }

    /// What the operator says.
    pub fn manual(&self) -> ManualHealth {
        match self.manual.load(Relaxed) {
            0 => ManualHealth::Auto,
            1 => ManualHealth::Up,
            _ => ManualHealth::Down,
        }
    }

    /// Whether it is being drained: as the operator says, or else an order, or else by its own word.
    pub fn is_draining(&self) -> bool {
        match (self.is_draining.load(Relaxed), self.manual(), self.order()) {
            (true, ..) | (false, ManualHealth::Auto, Some(OrderWord::Drain)) => true,
            (false, ManualHealth::Up | ManualHealth::Down, _)
            | (false, ManualHealth::Auto, Some(OrderWord::Up | OrderWord::Down)) => false,
            (false, ManualHealth::Auto, None) => self.is_leaving.load(Relaxed),
        }
    }

    /// What an order for all LS says.
    pub fn order(&self) -> Option<OrderWord> {
        match self.order.load(Relaxed) {
            0 => None,
            DRAIN => Some(OrderWord::Drain),
            DOWN => Some(OrderWord::Down),
            _ => Some(OrderWord::Up),
        }
    }

    /// Obeys an order, or none any more, and takes the backend's own word that it is about to end. Returns whether it stands
    /// otherwise than before; the caller announces that.
    pub fn set_told(&self, order: Option<OrderWord>, is_leaving: bool) -> bool {
        let was = self.state();
        let order = order.map_or(0, |order| match order {
            OrderWord::Drain => DRAIN,
            OrderWord::Down => DOWN,
            OrderWord::Up => ORDERED_UP,
        });
        self.order.store(order, Relaxed);
        self.is_leaving.store(is_leaving, Relaxed);
        let is_change = self.state() != was;
        if is_change {
            self.since.store(unix_millis(), Relaxed);
        }
        is_change
    }

    /// When its state changed last.
    pub fn since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.since.load(Relaxed))
    }

    /// Sets what probes and replies say. Returns whether it was something else before; the caller announces that.
    pub fn set_health(&self, health: HealthState) -> bool {
        let is_change = self.health.swap(health as u8, Relaxed) != health as u8;
        // What the operator has set stays as it is, whatever the probes find.
        if is_change && self.manual() == ManualHealth::Auto && !self.is_draining() {
            self.since.store(unix_millis(), Relaxed);
        }
        is_change
    }

    /// Sets what the operator says, which also ends a drain.
    pub fn set_manual(&self, manual: ManualHealth) {
        self.manual.store(manual as u8, Relaxed);
        self.is_draining.store(false, Relaxed);
        self.since.store(unix_millis(), Relaxed);
    }

    /// Lets it finish what it has and gives it no more.
    pub fn drain(&self) {
        self.is_draining.store(true, Relaxed);
        self.since.store(unix_millis(), Relaxed);
    }

    /// How it stands, for another process.
    pub fn standing(&self) -> Standing {
        Standing {
            health: self.health(),
            manual: self.manual(),
            is_draining: self.is_draining.load(Relaxed),
            since: self.since.load(Relaxed),
        }
    }

    /// It stands as another process has found it. The caller announces that.
    pub fn set_standing(&self, standing: Standing) {
        let Standing { health, manual, is_draining, since } = standing;
        self.health.store(health as u8, Relaxed);
        self.manual.store(manual as u8, Relaxed);
        self.is_draining.store(is_draining, Relaxed);
        self.since.store(since, Relaxed);
    }

    /// Whether it is asked without OPT for now.
    pub fn is_without_opt(&self, now: Instant) -> bool {
        self.without_opt.is_after(now)
    }

    /// It had refused OPT and has answered the same question without. All workers ask it without for a while, so that this is
    /// found out once.
    pub fn set_without_opt(&self, now: Instant) {
        self.without_opt.set(now + WITHOUT_OPT);
    }

    /// Whether it is asked in the client's case for now.
    pub fn is_case_lost(&self, now: Instant) -> bool {
        self.case_lost.is_after(now)
    }

    /// It does not keep the case of names.
    pub fn set_case_lost(&self, now: Instant) {
        self.case_lost.set(now + CASE_LOST);
    }

    /// Notes that a worker has met a sign; true if that is to be told, for nobody has told it since it was acted on. So no more
    /// than one of each is on its way to the prober, however many a stranger causes.
    pub fn is_first(&self, sign: HealthSignal) -> bool {
        let bit = sign.bit();
        self.told.load(Relaxed) & bit == 0 && self.told.fetch_or(bit, Relaxed) & bit == 0
    }

    /// This sign is acted on.
    pub fn take_signal(&self, sign: HealthSignal) {
        self.told.fetch_and(!sign.bit(), Relaxed);
    }

    /// A probe looks into whatever was told.
    pub fn take_signals(&self) {
        self.told.store(0, Relaxed);
    }
}

/// How long a backend that knows no EDNS is asked without (RFC 6891 section 6.2.2 leaves it open). Such servers are
/// rarely mended, and a mended one loses nothing but a few minutes of EDNS.
const WITHOUT_OPT: Duration = Duration::from_secs(600);

/// How long a backend that does not keep the case of names is asked in the client's. It may be mended, or another may have taken
/// its place; to find that out costs one query a second asking.
const CASE_LOST: Duration = Duration::from_secs(600);

const DRAIN: u8 = 1;
const DOWN: u8 = 2;
const ORDERED_UP: u8 = 3;

const NEW: u8 = HealthState::New as u8;
const UP: u8 = HealthState::Up as u8;

/// Now, in milliseconds since the epoch of Unix.
fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// What a worker met and the prober should know.
#[derive(Debug)]
pub struct HealthEvent {
    /// The backend.
    pub backend: Arc<SharedBackend>,
    /// What was met.
    pub what: HealthSignal,
}

/// A sign of life or death, met by a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthSignal {
    /// ICMP said that it is unreachable, which may be forged.
    Unreachable,
    /// It was down and replied: proof of life.
    Replied,
    /// It let an attempt time out, which proves nothing.
    Silent,
    /// `every_queries` of them have come.
    ProbeDue,
}

impl HealthSignal {
    /// Its place among those that were told.
    fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Whether it calls for a probe, and is looked into by no less; the others are acted on as they come.
    pub fn is_suspicion(self) -> bool {
        match self {
            Self::Unreachable | Self::Silent => true,
            Self::Replied | Self::ProbeDue => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backend_does_not_take_is_known_to_all_for_ten_minutes() {
        let address = BackendAddress::from(([127, 0, 0, 1], 53));
        let config = BackendConfig { name: "ts".to_owned(), ..BackendConfig::at(address) };
        let backend = SharedBackend::new(&config, BackendIndex(0), 0, HealthState::Up, 1);
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        assert!(!backend.is_without_opt(now) && !backend.is_case_lost(now));
        backend.set_without_opt(now);
        assert!(backend.is_without_opt(now) && backend.is_without_opt(at(599)) && !backend.is_without_opt(at(601)));
        assert!(!backend.is_case_lost(now));
        backend.set_case_lost(at(700));
        assert!(backend.is_case_lost(at(1299)) && !backend.is_case_lost(at(1301)));
    }

    #[test]
    fn by_hand_goes_before_orders_and_orders_before_probes() {
        let address = BackendAddress::from(([127, 0, 0, 1], 53));
        let config = BackendConfig { name: "ts".to_owned(), ..BackendConfig::at(address) };
        let backend = SharedBackend::new(&config, BackendIndex(0), 0, HealthState::Down, 1);
        let check = |state| assert_eq!(backend.state(), state);
        check(BackendState::Down);
        assert!(backend.set_told(Some(OrderWord::Up), false));
        check(BackendState::Up);
        assert!(!backend.set_told(Some(OrderWord::Up), true), "an order goes before its own word");
        backend.set_manual(ManualHealth::Down);
        check(BackendState::Down);
        assert!(!backend.set_told(Some(OrderWord::Drain), true));
        backend.set_manual(ManualHealth::Auto);
        check(BackendState::Draining);
        backend.set_told(Some(OrderWord::Down), false);
        check(BackendState::Down);
        backend.set_health(HealthState::Up);
        check(BackendState::Down);
        assert!(backend.set_told(None, false));
        check(BackendState::Up);
        assert!(backend.set_told(None, true));
        check(BackendState::Draining);
        backend.set_manual(ManualHealth::Up);
        check(BackendState::Up);
        backend.drain();
        check(BackendState::Draining);
    }

    #[test]
    fn of_each_sign_one_is_on_its_way() {
        let address = BackendAddress::from(([127, 0, 0, 1], 53));
        let backend = SharedBackend::new(
            &BackendConfig { name: "ts".to_owned(), ..BackendConfig::at(address) },
            BackendIndex(0),
            0,
            HealthState::Up,
            1,
        );
        let signs = [HealthSignal::Unreachable, HealthSignal::Replied, HealthSignal::Silent, HealthSignal::ProbeDue];
        let told = || signs.map(|sign| backend.is_first(sign));
        assert_eq!(told(), [true; 4]);
        assert_eq!(told(), [false; 4], "they have not been acted on");
        backend.take_signal(HealthSignal::Replied);
        assert_eq!(told(), [false, true, false, false]);
        backend.take_signals();
        assert_eq!(told(), [true; 4]);
    }
}
