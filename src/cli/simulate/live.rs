//! A pool in use: its rules from the config, and its backends as measured by a running server.

use std::path::Path;
use std::time::Duration;

use config::{BackendConfig, Config, PoolConfig, PoolRules, remedy};
use engine::sim::{BackendModel, Course, Delay, Empirical, FaultModel, SeatModel};
use hedge::Dispatch;
use hedge::latency::MIN_SAMPLES;

use super::settings::Mistake;
use crate::admin::status::{BackendStatus, PoolStatus, Status};
use crate::cli::ctl::CommandFailure;
use crate::cli::ctl::connection::{AdminConnection, AdminTarget};
use crate::load;

pub(super) fn pool(file: &Path, name: Option<&str>) -> Result<PoolConfig, Mistake> {
    let (config, file) = load::load(Some(file)).map_err(|error| Mistake::at("--from", error))?;
    let place = file.display().to_string();
    find(config, name).map_err(|message| Mistake::at(&place, message))
}

fn find(mut config: Config, name: Option<&str>) -> Result<PoolConfig, String> {
    let names: Vec<_> = config.pools.iter().map(|pool| pool.name.clone()).collect();
    let place = match (name, names.as_slice()) {
        (_, []) => return Err("there is no pool, expected [pools.NAME]".to_owned()),
        (None, [_]) => 0,
        (None, names) => return Err(format!("there are several pools, name one with --pool: {}", names.join(", "))),
        (Some(name), names) => names
            .iter()
            .position(|known| known == name)
            .ok_or_else(|| format!("there is no pool {name:?}, {}", remedy(name, names.iter().map(String::as_str))))?,
    };
    Ok(config.pools.swap_remove(place))
}

#[derive(Debug)]
pub(super) struct LivePool {
    pub(super) backends: Vec<BackendModel>,
    /// Queries per second to the pool, as a mean since the start.
    pub(super) rate: f64,
}

pub(super) fn ask(target: &AdminTarget, pool: &PoolConfig) -> Result<LivePool, CommandFailure> {
    let status = AdminConnection::find(Some(target), None, None)?.status()?;
    found(&status, pool).map_err(|message| CommandFailure::Server(format!("--status: {message}")))
}

fn found(status: &Status, pool: &PoolConfig) -> Result<LivePool, String> {
    let name = &pool.name;
    let known = status.pools.iter().find(|known| known.name == *name);
    let known = known.ok_or_else(|| format!("the server has no pool {name:?}, is this its config?"))?;
    let backends = pool.backends.iter().map(|backend| model(known, backend)).collect::<Result<_, _>>()?;
    Ok(LivePool { backends, rate: rate(status, known, &pool.rules) })
}

fn model(pool: &PoolStatus, backend: &BackendConfig) -> Result<BackendModel, String> {
    let address = backend.address;
    let found = pool.backends.iter().find(|found| found.address == address);
    let found = found.ok_or_else(|| format!("the server does not ask {address}, is this its config?"))?;
    let micros = Duration::from_micros;
    let bins = found.work.latency_histogram.iter().map(|bin| (micros(bin.from_us), micros(bin.to_us), bin.count));
    let replies = replies(found);
    let measured = Empirical::new(bins).filter(|_| replies >= u64::from(MIN_SAMPLES));
    let measured = measured.ok_or_else(|| {
        format!("{address} has replied {replies} times, expected {MIN_SAMPLES} at least: let it serve for a while")
    })?;
    // All replies have a latency, however late; attempts that are neither replied to nor in flight are lost.
    let ended = found.work.attempts.queries().saturating_sub(found.work.in_flight).max(replies);
    Ok(BackendModel {
        seat: SeatModel { weight: backend.weight, tier: backend.tier },
        delay: Course::always(Delay::Empirical(measured)),
        loss: Course::always((ended - replies) as f64 / ended as f64),
        faults: FaultModel { failure: found.work.errors.min(replies) as f64 / replies as f64, ..FaultModel::default() },
        ..BackendModel::default()
    })
}

fn replies(backend: &BackendStatus) -> u64 {
    backend.work.latency_histogram.iter().map(|bin| bin.count).sum()
}

/// Returns the mean queries per second, from first attempts; a race makes several of them per query.
fn rate(status: &Status, pool: &PoolStatus, rules: &PoolRules) -> f64 {
    let first: u64 = pool.backends.iter().map(|backend| backend.work.attempts.first).sum();
    let all = pool.backends.len().max(1);
    let width = match rules.race.dispatch {
        Dispatch::Race if rules.race.fanout == 0 => all,
        Dispatch::Race => all.min(rules.race.fanout.into()),
        Dispatch::Hedge | Dispatch::Auto | Dispatch::Sequential => 1,
    };
    let seconds = status.uptime_seconds.max(1);
    (first as f64 / width as f64 / seconds as f64).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::{
        ByKind, LatencyBucket, MembershipStatus, Percentiles, ProcessesStatus, ReloadsStatus, ServiceStatus,
        TransportStatus, WorkStatus,
    };
    use crate::control::observe::sight::live::Verdict;

    const CONFIG: &str = "[forwarder]\nlisten = ['127.0.0.1:0']\n[forwarder.routes]\n'.' = 'one'\n'x.' = 'other'\n\
        [pools.one]\ndispatch = 'sequential'\nbackends = ['192.0.2.1:53']\n\
        [pools.other]\nbackends = ['192.0.2.2:53']\n";

    fn check_pool(config: &str, name: Option<&str>, expected: Result<&str, &str>) {
        let config = Config::parse(config, "c.toml", Path::new("")).expect("a config");
        match (find(config, name), expected) {
            (Ok(pool), Ok(expected)) => assert_eq!(pool.name, expected),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
            (found, _) => panic!("{name:?}: {found:?}"),
        }
    }

    #[test]
    fn the_pool_that_is_meant_is_found() {
        check_pool(CONFIG, Some("other"), Ok("other"));
        check_pool(CONFIG, None, Err("several pools, name one with --pool: one, other"));
        check_pool(CONFIG, Some("othre"), Err("there is no pool \"othre\", did you mean \"other\"?"));
        check_pool(CONFIG, Some("xyz"), Err("expected one of one, other"));
        let single = "[forwarder]\n[pools.ts]\nbackends = ['192.0.2.1:53']";
        check_pool(single, None, Ok("ts"));
        check_pool("[authorities.a]\nlisten = ['127.0.0.1:0']\nzones = ['a']", None, Err("there is no pool"));
    }

    /// Returns the status of a server that sent a backend 1,000 queries and got 900 replies.
    fn status(replies: u64) -> Status {
        let none = Percentiles { p50: None, p95: None, p99: None };
        let backend = BackendStatus {
            name: "a".to_owned(),
            address: "192.0.2.1:53".parse().expect("an address"),
            transport: TransportStatus { word: "udp".to_owned(), open_connections: None, connection_problem: None },
            probe_problem: None,
            weight: 1,
            state: "up".to_owned(),
            by_hand: false,
            by_hand_until: None,
            since: String::new(),
            since_seconds: 0,
            work: WorkStatus {
                in_flight: 0,
                latency_ms: none,
                latency_histogram: vec![LatencyBucket { from_us: 1_000, to_us: 2_000, count: replies }],
                attempts: ByKind { first: 1_000, hedge: 0, failover: 0, probe: Some(7) },
                wins: ByKind { first: 0, hedge: 0, failover: 0, probe: None },
                errors: 9,
                timeouts: 4,
                last_minute: None,
            },
            membership: MembershipStatus::default(),
        };
        let pool = PoolStatus {
            name: "one".to_owned(),
            in_flight: 0,
            duration_ms: none,
            hedges_denied: 0,
            hedges_wasted: 0,
            last_minute: None,
            regret: None,
            tuning: None,
            min_up: 1,
            backends: vec![backend],
            sources: Vec::new(),
        };
        Status {
            verdict: Verdict::default(),
            version: String::new(),
            uptime_seconds: 10,
            workers: 1,
            pools: vec![pool],
            cache: None,
            service: ServiceStatus::default(),
            reloads: ReloadsStatus::default(),
            processes: ProcessesStatus::default(),
        }
    }

    fn check(status: &Status, name: &str) -> Result<LivePool, String> {
        let config = Config::parse(CONFIG, "c.toml", Path::new("")).expect("a config");
        found(status, &find(config, Some(name)).expect("a pool"))
    }

    #[test]
    fn a_backend_is_as_it_was_found() {
        let found = check(&status(900), "one").expect("a status of that pool");
        let model = &found.backends[0];
        assert_eq!((model.loss.usual, model.faults.failure, found.rate), (0.1, 0.01, 100.0));
        assert!(matches!(model.delay.usual, Delay::Empirical(_)));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        for (status, pool, reported) in [
            (status(49), "one", "192.0.2.1:53 has replied 49 times, expected 50 at least"),
            (status(900), "other", "the server has no pool \"other\", is this its config?"),
        ] {
            let error = check(&status, pool).expect_err(reported);
            assert!(error.contains(reported), "{error}");
        }
        let mut strange = status(900);
        strange.pools[0].backends[0].address = "192.0.2.9:53".parse().expect("an address");
        assert!(check(&strange, "one").expect_err("another address").contains("the server does not ask 192.0.2.1:53"));
    }
}
