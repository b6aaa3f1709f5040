//! `docs/src/metrics.md` beside what a running server shows: the same names, labels, kinds, and values of
//! labels that are words of ours.

use std::collections::{BTreeMap, BTreeSet};

use testkit::*;

use super::markdown::Document;

/// One metric: the names of its labels, and the words that stand there as values.
#[derive(Debug, Default, PartialEq)]
struct Family {
    /// The kind, as `# TYPE` has it.
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

#[test]
#[cfg_attr(not(feature = "xdp"), ignore = "the config has [xdp]")]
fn metrics_are_those_that_a_server_shows() {
    let shown = shown();
    let reported = reported();
    let names = |families: &BTreeMap<String, Family>| families.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&reported), names(&shown), "docs/src/metrics.md, left, has other names than /metrics");
    for (name, shown) in &shown {
        let reported = &reported[name];
        assert_eq!(reported.kind, shown.kind, "{name}");
        let labels = |family: &Family| family.labels.keys().cloned().collect::<Vec<_>>();
        let has_samples = name != UNMEASURED;
        let of_samples = if has_samples { labels(shown) } else { labels(reported) };
        assert_eq!(labels(reported), of_samples, "{name}: docs/src/metrics.md, left, has other labels");
        for (label, values) in shown.labels.iter().filter(|(label, _)| is_of_words(label)) {
            let reported = &reported.labels[label];
            let unknown: Vec<_> = values.difference(reported).collect();
            assert!(unknown.is_empty(), "{name}: docs/src/metrics.md does not describe {label} {unknown:?}");
        }
    }
}

/// The metric that has no sample after a single query. `hedges.rs` compares its label.
const UNMEASURED: &str = "hedgerow_tail_regret_ratio";

/// The families of the contract are documented in `docs/src/metrics.md`.
#[test]
fn metrics_of_the_contract_are_there() {
    let reported = reported();
    let rows = Document::read("docs/src/contract.md").table("Family");
    assert!(rows.len() >= 10, "{rows:?}");
    for row in rows {
        let codes = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
        for name in codes(&row[0]) {
            let family = reported.get(&name).unwrap_or_else(|| panic!("docs/src/metrics.md has no {name}"));
            assert_eq!(codes(&row[1]), family.labels.keys().cloned().collect(), "{name}");
        }
    }
}

/// Returns true if hedgerow chooses the values of a label, so that they are the same everywhere.
fn is_of_words(label: &str) -> bool {
    ![
        "pool",
        "backend",
        "rcode",
        "listener",
        "version",
        "worker",
        "authority",
        "catalog",
        "certificate",
        "interface",
        "rule",
    ]
    .contains(&label)
}

/// Returns the metrics of a server with all its parts after one query.
fn shown() -> BTreeMap<String, Family> {
    let backend = Backend::new(answer("192.0.2.1"));
    let config = format!(
        "workers = 1\n[xdp]\ninterfaces = ['nosuch0']\n[cache]\n[admin]\nlisten = '127.0.0.1:0'\n[forwarder]\nlisten = ['127.0.0.1:0', 'tls://127.0.0.1:0']\nrules = [{{ name = 'a', then = 'routes' }}]\n\
         [certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n\
         [forwarder.routes]\n'.' = 'all'\n'stream.example' = 'streamed'\n[pools.all]\nbackends = ['{}']\n\
         [pools.streamed]\nbackends = ['tcp://{}']\n[authorities.a]\nlisten = ['127.0.0.1:0']\n\
         zones = [{{ catalog = 'cat.example', primaries = ['{}'] }}]\n[authorities.a.register]\netcd = 'ts'\n\
         [etcd]\nendpoints = ['http://{}']\n[pools.all.discover]\nfile = 'members.json'\n",
        backend.address(),
        backend.address(),
        backend.address(),
        free_address()
    );
    let (chain, key) = CertificateAuthority::new().issue("dns.example");
    let files = [("members.json", "[]"), ("chain.pem", &*chain), ("key.pem", &*key)];
    let server = Server::start_with_files(&config, &files);
    assert_eq!(server.client().ask(&query("www.example", A)).rcode(), NOERROR);
    let text = until("the query is counted", || {
        let text = server.admin().get("/metrics").body;
        let is_listed = text.contains("hedgerow_discovery_age_seconds{");
        (is_listed && text.contains("hedgerow_responses_total{")).then_some(text)
    });
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            families.insert(name.to_owned(), Family { kind: kind.to_owned(), ..Family::default() });
        }
        let Some((name, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) else { continue };
        let name = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let family = families.get_mut(name).unwrap_or_else(|| panic!("no TYPE line before {line}"));
        let (labels, _) = labels.rsplit_once('}').expect("labels end");
        for (label, value) in
            labels.split(',').filter_map(|pair| pair.split_once('=')).filter(|(label, _)| *label != "le")
        {
            family.labels.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
        }
    }
    families
}

/// Returns the metrics of the book. A row is NAME, LABELS, and a sentence with the kind (unless it is a
/// counter) and the values.
fn reported() -> BTreeMap<String, Family> {
    let rows = Document::read("docs/src/metrics.md").table("Name");
    let words = |cell: &str| -> BTreeSet<String> {
        cell.split('`').skip(1).step_by(2).flat_map(|code| code.split(['"', '='])).map(str::to_owned).collect()
    };
    let family = |row: Vec<String>| {
        let [name, labels, meaning] = &row[..] else { panic!("{row:?} is no row of three cells") };
        let kind = ["gauge", "histogram"].into_iter().find(|kind| meaning.starts_with(&format!("{kind}:")));
        let labels = words(labels).into_iter().map(|label| (label, words(meaning))).collect();
        (name.trim_matches('`').to_owned(), Family { kind: kind.unwrap_or("counter").to_owned(), labels })
    };
    rows.into_iter().map(family).collect()
}
