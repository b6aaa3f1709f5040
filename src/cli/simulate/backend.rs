//! Parses a backend description of the user: `latency=1ms+1%:500ms loss=5%`.

use config::{Limits, limits};
use engine::sim::{BackendModel, Capacity, FaultModel, ModelConnections, SeatModel, SiteModel};

use super::settings::{Mistake, SettingEntries};
use super::values::{count, course, delay, share, slow, stalls, whens, word};
use crate::cli::number;

/// Parses a description, which may stand for several equal backends.
pub(super) fn read(mut settings: SettingEntries) -> Result<Vec<BackendModel>, Mistake> {
    let usual = BackendModel::default();
    let place = settings.place().to_owned();
    let service = settings.take("service", delay)?;
    let servers = settings.take("servers", count)?;
    let capacity = match (servers, service) {
        (servers, Some(service)) => Some(Capacity { servers: servers.unwrap_or(1), service }),
        (Some(_), None) => {
            return Err(Mistake::at(&place, "servers without service, expected both, such as servers=4 service=1ms"));
        }
        (None, None) => None,
    };
    let stalls = settings.take("stall", stalls)?.unwrap_or_default();
    let connections = match (settings.take("connections", |text| number(text, CONNECTIONS))?, stalls.on_connections) {
        (Some(max), stalls) => Some(ModelConnections { max, stalls, ends: Vec::new() }),
        (None, on_connections) if on_connections.is_empty() => None,
        (None, _) => {
            return Err(Mistake::at(
                &place,
                "stall=SHARE:TIME without connections, expected both, such as connections=2 stall=1%:200ms",
            ));
        }
    };
    let model = BackendModel {
        delay: settings.take("latency", |text| course(text, delay, None))?.unwrap_or(usual.delay),
        loss: settings.take("loss", |text| course(text, share, Some(0.0)))?.unwrap_or(usual.loss),
        faults: FaultModel { failure: settings.take("failure", share)?.unwrap_or(0.0), ..FaultModel::default() },
        site: SiteModel {
            name: settings.take("site", word)?,
            slow: settings.take("slow", slow)?.unwrap_or(usual.site.slow),
        },
        stalls: stalls.of_all,
        connections,
        crashes: settings.take("crash", whens)?.unwrap_or_default(),
        seat: SeatModel {
            weight: settings.take("weight", |text| number(text, limits::WEIGHT))?.unwrap_or(1),
            tier: settings.take("tier", |text| number(text, limits::TIER))?.unwrap_or(0),
        },
        capacity,
        ..BackendModel::default()
    };
    let count = settings.take("count", count)?.unwrap_or(1);
    settings.finish()?;
    Ok(vec![model; usize::from(count)])
}

/// A worker opens no more connections to one backend.
const CONNECTIONS: Limits<u16> = Limits { min: 1, max: 64 };

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use engine::sim::{Course, Delay, When};

    use super::*;

    fn parse(text: &str) -> Result<Vec<BackendModel>, String> {
        let settings = SettingEntries::of_words("--backend".to_owned(), text, None);
        settings.and_then(read).map_err(|error| error.to_string())
    }

    #[test]
    fn all_that_is_said_is_in_the_model() {
        let text =
            "latency=2ms loss=5% failure=1% stall=10s..20s crash=30s.. servers=4 service=1ms weight=3 tier=1 count=2";
        let models = parse(text).expect("a description");
        assert_eq!(models.len(), 2);
        let model = &models[1];
        assert_eq!(model.delay, Course::always(Delay::Constant(Duration::from_millis(2))));
        assert_eq!((model.loss.usual, model.faults.failure, model.seat.weight, model.seat.tier), (0.05, 0.01, 3, 1));
        let s = Duration::from_secs;
        assert_eq!(model.stalls, [When::Between { from: s(10), to: s(20) }]);
        assert_eq!(model.crashes, [When::Between { from: s(30), to: Duration::MAX }]);
        assert_eq!(model.capacity.as_ref().map(|capacity| capacity.servers), Some(4));
    }

    #[test]
    fn backends_of_a_site_share_its_slowness() {
        let models = parse("site=rack1 slow=20x@500ms/30s count=2").expect("a description");
        let when = When::NowAndThen { length: Duration::from_millis(500), every: Duration::from_secs(30) };
        for model in models {
            assert_eq!(model.site.name.as_deref(), Some("rack1"));
            assert_eq!(model.site.slow, Course { usual: 1.0, at_times: vec![(20.0, when)] });
        }
    }

    #[test]
    fn the_models_of_the_envelope_benchmark_are_read() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/models/models.txt");
        let models = std::fs::read_to_string(file).expect("the models");
        assert_eq!(models.lines().count(), 200);
        for line in models.lines() {
            let backends = line.split('\'').skip(1).step_by(2);
            let count: usize = backends.map(|words| parse(words).expect(line).len()).sum();
            assert!((2..=5).contains(&count), "{line}");
        }
    }

    #[test]
    fn connections_have_stalls_of_their_own() {
        let s = Duration::from_secs;
        let models = parse("connections=2 stall=10s..20s,1%:200ms").expect("a description");
        let connections = models[0].connections.as_ref().expect("it is asked by stream");
        assert_eq!((connections.max, connections.ends.len()), (2, 0));
        let every = When::NowAndThen { length: Duration::from_millis(200), every: s(20) };
        assert_eq!(
            (&connections.stalls[..], &models[0].stalls[..]),
            (&[every][..], &[When::Between { from: s(10), to: s(20) }][..])
        );
        let without = parse("stall=10s..20s").expect("a description");
        assert!(without[0].connections.is_none());
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let models = parse("").expect("a description");
        assert_eq!((models.len(), &models[0].delay), (1, &BackendModel::default().delay));
        assert!(models[0].capacity.is_none());
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, reported) in [
            ("latncy=1ms", "--backend: latncy: unknown key, did you mean \"latency\"?"),
            ("speed=1", "--backend: speed: unknown key, expected one of service, servers, stall, connections"),
            ("latency", "--backend: expected KEY=VALUE, not \"latency\""),
            ("=1ms", "--backend: expected KEY=VALUE, not \"=1ms\""),
            ("loss=5", "--backend: loss: invalid value \"5\": expected a share from 0% to 100%"),
            ("loss=5% loss=6%", "--backend: loss: given twice, expected one value"),
            ("servers=4", "--backend: servers without service, expected both"),
            ("stall=1%:200ms", "--backend: stall=SHARE:TIME without connections, expected both, such as connections=2"),
            ("connections=65", "--backend: connections: invalid value \"65\": expected a number from 1 to 64"),
            ("connections=1 stall=0%:1s", "--backend: stall: invalid value \"0%:1s\": in \"0%:1s\", expected a share"),
            ("stall=1s", "--backend: stall: invalid value \"1s\": in \"1s\", expected times such as"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(reported), "{text}: {error}");
        }
    }
}
