//! A backend as all workers share it: its health, the operator's settings, and signals to the prober.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use arc_swap::{ArcSwap, ArcSwapOption};
use config::{BackendConfig, PoolConfig};
use dns::Transport;
use dns::address::{BackendAddress, Scheme, StreamServer};
use hedge::BackendIndex;
use hedge::backend_load::{BackendLoad, SharedLoad};
use hedge::health::HealthState;
use hedge::latency::{Latency, SharedLatency};
use metrics::{BackendCounters, BackendState, Counter, OrderWord};

use super::backend_cookies::BackendCookies;

/// A backend shared by all workers.
#[derive(Debug)]
pub struct SharedBackend {
    /// The address of the backend.
    pub address: BackendAddress,
    /// The label of the backend.
    pub name: String,
    /// True if connections start with a PROXY header that names the client (`proxy_protocol`).
    pub wants_header: bool,
    /// The place in tables of the pool and the workers, unique in the pool while any reference exists.
    pub index: BackendIndex,
    /// The number of the backend in [`Affinity`](hedge::affinity::Affinity).
    pub affinity_number: u32,
    settings: BackendSettings,
    counts: CountersByWorker,
    /// The number of probes sent.
    pub probes: Counter,
    /// The number of ICMP errors in response to probes.
    pub unreachable_probes: Counter,
    /// The cookie state; [`PoolState::announce`](super::PoolState::announce) publishes a change.
    pub cookies: BackendCookies,
    status: StandingCells,
    findings: BackendFindings,
}

/// The settings that a reload may change.
#[derive(Debug)]
struct BackendSettings {
    is_ad_trusted: AtomicBool,
    stream_server: ArcSwap<StreamServer>,
}

/// The counters of each worker, and those of earlier processes.
#[derive(Debug)]
struct CountersByWorker {
    of_workers: Box<[OnceLock<Box<BackendCounters>>]>,
    carried: OnceLock<Box<BackendCounters>>,
}

/// The inputs of [`BackendState`].
#[derive(Debug)]
struct StandingCells {
    health: AtomicU8,
    manual: AtomicU8,
    is_draining: AtomicBool,
    /// 0 or the place of the order in [`OrderWord::ALL`], plus 1.
    order: AtomicU8,
    is_leaving: AtomicBool,
    is_behind: AtomicBool,
    since: AtomicU64,
    /// The Unix milliseconds at which the operator's setting ends; 0: never.
    until: AtomicU64,
}

/// The findings of queries and connections.
#[derive(Debug)]
struct BackendFindings {
    /// Used by several workers, and by `dispatch = "auto"`.
    latency: Arc<SharedLatency>,
    /// `None` with one worker.
    load: Option<Arc<SharedLoad>>,
    connection_problem: ArcSwapOption<String>,
    probe_problem: ArcSwapOption<String>,
    without_opt: Until,
    case_lost: Until,
    signaled: AtomicU8,
}

#[derive(Debug)]
struct Until {
    base: Instant,
    /// Milliseconds after `base`; 0: it was never set.
    millis: AtomicU64,
}

impl Until {
    fn new(base: Instant) -> Self {
        Self { base, millis: AtomicU64::new(0) }
    }

    fn is_after(&self, now: Instant) -> bool {
        let millis = self.millis.load(Relaxed);
        millis != 0 && now < self.base + Duration::from_millis(millis)
    }

    fn set(&self, at: Instant) {
        self.millis.store(at.saturating_duration_since(self.base).as_millis() as u64, Relaxed);
    }
}

/// The operator's manual setting of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum ManualHealth {
    /// Probes decide.
    Auto,
    /// Always up.
    Up,
    /// Always down.
    Down,
}

/// The health of a backend with the operator's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The result of probes and replies.
    pub health: HealthState,
    /// The operator's setting.
    pub manual: ManualHealth,
    /// True if the operator drains the backend.
    pub is_draining: bool,
    /// The last change of this state, in Unix milliseconds.
    pub since: u64,
    /// The end of the operator's setting, in Unix milliseconds; 0 for none.
    #[serde(default)]
    pub until: u64,
}

impl SharedBackend {
    /// Returns the transport of its attempts.
    pub fn transport(&self) -> Transport {
        match self.address.scheme {
            Scheme::Plain => Transport::Udp,
            Scheme::Tcp => Transport::Tcp,
            Scheme::Tls => Transport::Tls,
            Scheme::Https => Transport::Https,
            Scheme::Http => Transport::Http,
            Scheme::Quic => Transport::Quic,
        }
    }

    pub(super) fn new(
        config: &BackendConfig,
        index: BackendIndex,
        affinity_number: u32,
        health: HealthState,
        workers: usize,
        now: Instant,
    ) -> Self {
        Self {
            address: config.address,
            name: config.name.clone(),
            wants_header: config.proxy_protocol,
            index,
            affinity_number,
            settings: BackendSettings {
                is_ad_trusted: AtomicBool::new(config.is_ad_trusted(None)),
                stream_server: ArcSwap::from_pointee(stream_server(config, false)),
            },
            counts: CountersByWorker {
                of_workers: (0..workers).map(|_| OnceLock::new()).collect(),
                carried: OnceLock::new(),
            },
            probes: Counter::default(),
            unreachable_probes: Counter::default(),
            cookies: BackendCookies::default(),
            status: StandingCells {
                health: AtomicU8::new(health as u8),
                manual: AtomicU8::new(ManualHealth::Auto as u8),
                is_draining: AtomicBool::new(false),
                order: AtomicU8::new(0),
                is_leaving: AtomicBool::new(false),
                is_behind: AtomicBool::new(false),
                since: AtomicU64::new(unix_millis()),
                until: AtomicU64::new(0),
            },
            findings: BackendFindings {
                latency: Arc::new(SharedLatency::new(now)),
                load: (workers > 1).then(|| Arc::new(SharedLoad::new(workers, now))),
                connection_problem: ArcSwapOption::empty(),
                probe_problem: ArcSwapOption::empty(),
                without_opt: Until::new(now),
                case_lost: Until::new(now),
                signaled: AtomicU8::new(0),
            },
        }
    }

    /// Returns the server of stream connections, with the trust that they need.
    pub fn stream_server(&self) -> Arc<StreamServer> {
        self.settings.stream_server.load_full()
    }

    /// Applies the settings that a reload may change.
    pub(super) fn set_config(&self, config: &BackendConfig, pool: &PoolConfig) {
        self.settings.is_ad_trusted.store(config.is_ad_trusted(pool.trust_ad), Relaxed);
        self.settings.stream_server.store(Arc::new(stream_server(config, pool.connections.early_data)));
    }

    /// Records why a connection failed, or that one succeeded. Returns true if that is a change.
    pub fn note_connection_problem(&self, problem: Option<&str>) -> bool {
        let known = self.findings.connection_problem.load();
        let is_news = known.as_ref().map(|known| known.as_str()) != problem;
        if is_news {
            self.findings.connection_problem.store(problem.map(|problem| Arc::new(problem.to_owned())));
        }
        is_news
    }

    /// Returns the reason why the last connection failed, if it did.
    pub(crate) fn connection_problem(&self) -> Option<Arc<String>> {
        self.findings.connection_problem.load_full()
    }

    /// Records why the last probe failed, or that it was good.
    pub fn note_probe_problem(&self, problem: Option<String>) {
        self.findings.probe_problem.store(problem.map(Arc::new));
    }

    /// Returns the reason why the last probe failed, if it did.
    pub fn probe_problem(&self) -> Option<Arc<String>> {
        self.findings.probe_problem.load_full()
    }

    /// Returns true if queries use a stream protocol with many queries per connection.
    pub fn is_by_stream(&self) -> bool {
        self.address.scheme.is_stream()
    }

    /// Returns true if the transport is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.address.scheme.is_encrypted()
    }

    /// Returns true if the AD flag of its replies is trusted (`trust_ad`).
    #[inline]
    pub(crate) fn is_ad_trusted(&self) -> bool {
        self.settings.is_ad_trusted.load(Relaxed)
    }

    /// Returns the counters of a worker.
    #[inline]
    pub fn counters(&self, worker: usize) -> &BackendCounters {
        self.counts.of_workers[worker].get_or_init(Box::default)
    }

    /// Returns the counters of a worker, if it has counted anything.
    pub(crate) fn counted_by(&self, worker: usize) -> Option<&BackendCounters> {
        self.counts.of_workers.get(worker)?.get().map(|counters| &**counters)
    }

    /// Returns the counters of all workers that have counted anything.
    pub(crate) fn counted(&self) -> impl Iterator<Item = &BackendCounters> {
        self.counts.of_workers.iter().filter_map(OnceLock::get).map(|counters| &**counters)
    }

    /// Returns the counters of earlier processes, if there are any.
    pub(crate) fn carried(&self) -> Option<&BackendCounters> {
        self.counts.carried.get().map(|counters| &**counters)
    }

    /// Returns the counters to which those of earlier processes are added.
    pub fn carry_to(&self) -> &BackendCounters {
        self.counts.carried.get_or_init(Box::default)
    }

    /// Returns the latency for a worker, with the replies to all workers. A worker alone needs no lock,
    /// unless the control thread reads its replies too.
    pub(crate) fn latency(&self, is_tuned: bool, now: Instant) -> Latency {
        if is_tuned || self.workers() > 1 { Latency::of_shared(&self.findings.latency) } else { Latency::new(now) }
    }

    pub(super) fn shared_latency(&self) -> &SharedLatency {
        &self.findings.latency
    }

    /// Returns the load for a worker, with the attempts of all workers.
    pub(crate) fn load(&self, worker: usize, now: Instant) -> BackendLoad {
        let shared = self.findings.load.as_ref();
        shared.map_or_else(|| BackendLoad::new(now), |shared| BackendLoad::of_shared(shared, worker, now))
    }

    /// Returns the number of workers.
    pub(crate) fn workers(&self) -> usize {
        self.counts.of_workers.len()
    }

    /// Returns true if the backend is up. The operator's setting comes first, then an order, then probes.
    pub fn is_up(&self) -> bool {
        match (self.manual(), self.order()) {
            (ManualHealth::Up, _) | (ManualHealth::Auto, Some(OrderWord::Up)) => true,
            (ManualHealth::Down, _) | (ManualHealth::Auto, Some(OrderWord::Down)) => false,
            (ManualHealth::Auto, Some(OrderWord::Drain) | None) => self.health() == HealthState::Up,
        }
    }

    /// Returns true if the backend gets queries.
    pub fn takes_queries(&self) -> bool {
        self.is_up() && !self.is_draining()
    }

    /// Returns true if its zones have been older than those of other replicas for too long.
    pub fn is_behind(&self) -> bool {
        self.status.is_behind.load(Relaxed)
    }

    /// Returns true if the backend takes its turn: it must not be behind if another one is ahead.
    pub(crate) fn takes_turns(&self, is_anybody_ahead: bool) -> bool {
        self.takes_queries() && !(is_anybody_ahead && self.is_behind())
    }

    /// Sets [`is_behind`](Self::is_behind). Returns true if that is a change.
    pub fn set_behind(&self, is_behind: bool) -> bool {
        self.noted(self.status.is_behind.swap(is_behind, Relaxed) != is_behind)
    }

    /// Returns the state of the backend with the reason why it gets no queries.
    pub fn state(&self) -> BackendState {
        match (self.is_draining(), self.is_up(), self.health()) {
            (true, ..) => BackendState::Draining,
            (false, true, _) if self.is_behind() => BackendState::Behind,
            (false, true, _) => BackendState::Up,
            (false, false, HealthState::New) => BackendState::New,
            (false, false, HealthState::Up | HealthState::Down) => BackendState::Down,
        }
    }

    /// Returns the result of probes and replies.
    pub fn health(&self) -> HealthState {
        [HealthState::New, HealthState::Up, HealthState::Down][usize::from(self.status.health.load(Relaxed))]
    }

    /// Returns the operator's setting.
    pub(crate) fn manual(&self) -> ManualHealth {
        [ManualHealth::Auto, ManualHealth::Up, ManualHealth::Down][usize::from(self.status.manual.load(Relaxed))]
    }

    /// Returns true if the operator, an order, or the backend itself drains the backend.
    pub(crate) fn is_draining(&self) -> bool {
        match (self.status.is_draining.load(Relaxed), self.manual(), self.order()) {
            (true, ..) | (false, ManualHealth::Auto, Some(OrderWord::Drain)) => true,
            (false, ManualHealth::Up | ManualHealth::Down, _)
            | (false, ManualHealth::Auto, Some(OrderWord::Up | OrderWord::Down)) => false,
            (false, ManualHealth::Auto, None) => self.status.is_leaving.load(Relaxed),
        }
    }

    /// Returns the order for all forwarders.
    pub(crate) fn order(&self) -> Option<OrderWord> {
        let number = usize::from(self.status.order.load(Relaxed));
        number.checked_sub(1).and_then(|place| OrderWord::ALL.get(place).copied())
    }

    /// Sets the order and the backend's announcement of its end. Returns true if the caller must announce it.
    pub fn set_order(&self, order: Option<OrderWord>, is_leaving: bool) -> bool {
        let was = self.state();
        self.status.order.store(order.map_or(0, |order| order as u8 + 1), Relaxed);
        self.status.is_leaving.store(is_leaving, Relaxed);
        self.noted(self.state() != was)
    }

    /// Returns the time of the last state change.
    pub(crate) fn since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.status.since.load(Relaxed))
    }

    /// Sets the result of probes and replies. Returns true if it has changed; the caller announces that.
    pub fn set_health(&self, health: HealthState) -> bool {
        let is_change = self.status.health.swap(health as u8, Relaxed) != health as u8;
        // Probes do not change a state that the operator has set.
        self.noted(is_change && self.manual() == ManualHealth::Auto && !self.is_draining());
        is_change
    }

    /// Applies the operator's setting, which also ends a drain. It ends by itself after `lasts`.
    pub fn set_manual(&self, manual: ManualHealth, lasts: Option<Duration>) {
        self.status.manual.store(manual as u8, Relaxed);
        self.status.is_draining.store(false, Relaxed);
        self.set_end(lasts);
    }

    /// Lets the backend finish its pending queries and gives it no more, until `lasts` is over.
    pub fn drain(&self, lasts: Option<Duration>) {
        self.status.is_draining.store(true, Relaxed);
        self.set_end(lasts);
    }

    fn set_end(&self, lasts: Option<Duration>) {
        let millis = |lasts: Duration| u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        let until = lasts.map_or(0, |lasts| unix_millis().saturating_add(millis(lasts)));
        self.status.until.store(until, Relaxed);
        self.noted(true);
    }

    /// Returns the time at which the operator's setting ends.
    pub fn manual_until(&self) -> Option<SystemTime> {
        let until = self.status.until.load(Relaxed);
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(until)).filter(|_| until > 0)
    }

    /// Ends the operator's setting if its time is over. Returns true if it was.
    pub fn end_manual(&self, now: SystemTime) -> bool {
        let is_over = self.manual_until().is_some_and(|until| until <= now);
        if is_over {
            self.set_manual(ManualHealth::Auto, None);
        }
        is_over
    }

    /// Notes the time of a change of state, if it is one.
    fn noted(&self, is_change: bool) -> bool {
        if is_change {
            self.status.since.store(unix_millis(), Relaxed);
        }
        is_change
    }

    /// Returns the state for another process.
    pub fn standing(&self) -> Standing {
        Standing {
            health: self.health(),
            manual: self.manual(),
            is_draining: self.status.is_draining.load(Relaxed),
            since: self.status.since.load(Relaxed),
            until: self.status.until.load(Relaxed),
        }
    }

    /// Adopts the state from another process. The caller announces that.
    pub fn set_standing(&self, standing: Standing) {
        let Standing { health, manual, is_draining, since, until } = standing;
        self.status.health.store(health as u8, Relaxed);
        self.status.manual.store(manual as u8, Relaxed);
        self.status.is_draining.store(is_draining, Relaxed);
        self.status.since.store(since, Relaxed);
        self.status.until.store(until, Relaxed);
    }

    /// Returns true if queries currently omit OPT.
    pub(crate) fn is_without_opt(&self, now: Instant) -> bool {
        self.findings.without_opt.is_after(now)
    }

    /// Records that the backend works only without OPT, so that only one query pays for the discovery.
    pub(crate) fn set_without_opt(&self, now: Instant) {
        self.findings.without_opt.set(now + WITHOUT_OPT);
    }

    /// Returns true if queries currently keep the client's case.
    pub(crate) fn is_case_lost(&self, now: Instant) -> bool {
        self.findings.case_lost.is_after(now)
    }

    /// Records that the backend does not keep the case of names.
    pub(crate) fn set_case_lost(&self, now: Instant) {
        self.findings.case_lost.set(now + CASE_LOST);
    }

    /// Records a signal. Returns true if none of its kind is pending: strangers cannot flood the prober.
    pub(crate) fn is_first(&self, sign: HealthSignal) -> bool {
        let bit = sign.bit();
        self.findings.signaled.load(Relaxed) & bit == 0 && self.findings.signaled.fetch_or(bit, Relaxed) & bit == 0
    }

    /// Marks a signal as handled.
    pub fn take_signal(&self, sign: HealthSignal) {
        self.findings.signaled.fetch_and(!sign.bit(), Relaxed);
    }

    /// Marks all signals as handled by a probe.
    pub fn take_signals(&self) {
        self.findings.signaled.store(0, Relaxed);
    }
}

fn stream_server(config: &BackendConfig, early_data: bool) -> StreamServer {
    StreamServer {
        address: config.address,
        trust: config.trust.clone(),
        path: config.path.clone(),
        // RFC 9250 section 4.5 defines early data for queries; RFC 7858 does not mention it.
        early_data: early_data && config.address.scheme == Scheme::Quic,
    }
}

/// RFC 6891 section 6.2.2 leaves it open. Such servers are rarely repaired, and waiting costs little.
const WITHOUT_OPT: Duration = Duration::from_secs(600);

/// The backend may be repaired or replaced; finding out costs one repeated query.
const CASE_LOST: Duration = Duration::from_secs(600);

fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// An event that a worker reports to the prober.
#[derive(Debug)]
pub struct HealthEvent {
    /// The backend of the event.
    pub backend: Arc<SharedBackend>,
    /// The kind of the event.
    pub what: HealthSignal,
}

/// A sign of health or failure that a query has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthSignal {
    /// An ICMP error reported the backend as unreachable, which may be forged.
    Unreachable,
    /// A backend that was down has replied, which proves that it works.
    Replied,
    /// An attempt timed out, which proves nothing.
    Silent,
    /// `every_queries` queries have been counted.
    ProbeDue,
}

impl HealthSignal {
    fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Returns true if the signal only calls for a probe. The others take effect at once.
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
        let backend = SharedBackend::new(&config, BackendIndex(0), 0, HealthState::Up, 1, Instant::now());
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
        let backend = SharedBackend::new(&config, BackendIndex(0), 0, HealthState::Down, 1, Instant::now());
        let check = |state| assert_eq!(backend.state(), state);
        check(BackendState::Down);
        assert!(backend.set_order(Some(OrderWord::Up), false));
        check(BackendState::Up);
        assert!(!backend.set_order(Some(OrderWord::Up), true), "an order goes before its own word");
        backend.set_manual(ManualHealth::Down, None);
        check(BackendState::Down);
        assert!(!backend.set_order(Some(OrderWord::Drain), true));
        backend.set_manual(ManualHealth::Auto, None);
        check(BackendState::Draining);
        backend.set_order(Some(OrderWord::Down), false);
        check(BackendState::Down);
        backend.set_health(HealthState::Up);
        check(BackendState::Down);
        assert!(backend.set_order(None, false));
        check(BackendState::Up);
        assert!(backend.set_order(None, true));
        check(BackendState::Draining);
        backend.set_manual(ManualHealth::Up, None);
        check(BackendState::Up);
        backend.drain(None);
        check(BackendState::Draining);
    }

    #[test]
    fn setting_by_hand_ends_after_its_time() {
        let address = BackendAddress::from(([127, 0, 0, 1], 53));
        let config = BackendConfig { name: "ts".to_owned(), ..BackendConfig::at(address) };
        let backend = SharedBackend::new(&config, BackendIndex(0), 0, HealthState::Up, 1, Instant::now());
        let hour = Duration::from_secs(3600);
        backend.drain(Some(hour));
        let until = backend.manual_until().expect("it ends");
        assert!(!backend.end_manual(until - Duration::from_millis(1)) && backend.state() == BackendState::Draining);
        let other = SharedBackend::new(&config, BackendIndex(0), 0, HealthState::Up, 1, Instant::now());
        other.set_standing(backend.standing());
        assert_eq!(other.manual_until(), Some(until), "another process continues it");
        assert!(other.end_manual(until) && other.state() == BackendState::Up && !other.end_manual(until + hour));
        backend.set_manual(ManualHealth::Down, None);
        assert!(!backend.end_manual(until + hour) && backend.state() == BackendState::Down);
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
            Instant::now(),
        );
        let signs = [HealthSignal::Unreachable, HealthSignal::Replied, HealthSignal::Silent, HealthSignal::ProbeDue];
        let signaled = || signs.map(|sign| backend.is_first(sign));
        assert_eq!(signaled(), [true; 4]);
        assert_eq!(signaled(), [false; 4], "they have not been acted on");
        backend.take_signal(HealthSignal::Replied);
        assert_eq!(signaled(), [false, true, false, false]);
        backend.take_signals();
        assert_eq!(signaled(), [true; 4]);
    }
}
