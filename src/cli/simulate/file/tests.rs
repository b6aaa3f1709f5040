//! Tests of scenarios in files and of their mistakes.

use std::time::Duration;

use engine::sim::NameDistribution;
use hedge::Dispatch;

use super::super::policy::Policy;
use super::super::{backend, values};
use super::*;

#[test]
fn a_file_says_what_the_command_line_can_say() {
    let text = r#"
queries = 1_000
rate = 2.5
slow = "20x@500ms/30s"
names = "zipf(1.0, 10000)"
ttl = "1m"
workers = 4
policies = ["first", { dispatch = "hedge", delay = "p90", budget = 0.02, max = 2 }]
[[backends]]
latency = "1ms+1%:500ms"
count = 2
[[backends]]
loss = 0.05
"#;
    let Description { mut settings, backends, policies } = parse("s.toml", text).expect("a description");
    assert_eq!(settings.take("queries", values::queries), Ok(Some(1_000)));
    assert_eq!(settings.take("rate", values::rate), Ok(Some(2.5)));
    assert_eq!(settings.take("workers", values::workers), Ok(Some(4)));
    assert_eq!(settings.take("seed", values::seed), Ok(None));
    let slow = settings.take("slow", |text| values::course(text, values::factor, Some(1.0)));
    assert!(slow.expect("a course").is_some());
    assert_eq!(
        settings.take("names", values::names),
        Ok(Some(NameDistribution::Zipf { exponent: 1.0, count: 10_000 }))
    );
    assert_eq!(settings.take("ttl", values::ttl), Ok(Some(Duration::from_secs(60))));
    assert_eq!(settings.finish(), Ok(()));
    let counts = backends.into_iter().map(|settings| backend::read(settings).expect("a backend").len());
    assert_eq!(counts.collect::<Vec<_>>(), [2, 1]);
    let read = |settings| Policy::read(settings, None).expect("a policy");
    let policies: Vec<_> = policies.into_iter().map(read).collect();
    assert!(policies[0].is_first_only);
    assert_eq!(policies[1].name, "hedge delay=p90 budget=0.02 max=2");
    assert_eq!((policies[1].rules.race.dispatch, policies[1].rules.race.hedge.budget), (Dispatch::Hedge, 0.02));
}

#[test]
fn mistakes_are_told_with_line_and_column() {
    let read = |text: &str| {
        let Description { mut settings, backends, policies } = parse("s.toml", text)?;
        settings.take("queries", values::queries)?;
        backends.into_iter().map(backend::read).collect::<Result<Vec<_>, _>>()?;
        policies.into_iter().map(|policy| Policy::read(policy, None)).collect::<Result<Vec<_>, _>>()?;
        settings.finish()
    };
    for (text, reported) in [
        ("queries = 0", "s.toml:1:11: queries: invalid value \"0\": expected a number from 1"),
        ("\nquerys = 1", "s.toml:2:1: querys: unknown key, did you mean \"queries\"?"),
        ("backend = ['']", "s.toml:1:1: backend: unknown key, did you mean \"backends\"?"),
        (
            "from = 'c'",
            "s.toml:1:1: from: unknown key, expected one of queries, rate, workers, seed, slow, names, ttl, backends",
        ),
        ("backends = 1", "s.toml:1:12: backends: expected an array of texts, or of tables"),
        ("backends = [1]", "s.toml:1:13: backends[0]: expected a text, or a table"),
        ("queries = true", "s.toml:1:11: queries: expected a text or a number"),
        ("[[backends]]\nloss = '5'", "s.toml:2:8: backends[0].loss: invalid value \"5\": expected a share"),
        ("backends = ['', 'loss=5']", "s.toml:1:17: backends[1]: loss: invalid value \"5\": expected a share"),
        ("policies = ['rase']", "s.toml:1:13: policies[0]: dispatch: invalid value \"rase\": expected one of"),
        ("queries = ", "s.toml:1:11: "),
    ] {
        let error = read(text).expect_err(text).to_string();
        assert!(error.starts_with(reported), "{text}: {error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = read(Path::new("no/such.toml")).expect_err("no file").to_string();
    assert!(error.starts_with("no/such.toml: cannot be read"), "{error}");
}
