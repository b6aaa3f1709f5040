//! The Ferret data set: small zones, a query each, and what four well-known servers answer.
//!
//! It lies beside the checkout, or where `HEDGEROW_FERRET` says; without it there is nothing to test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use testkit::{Client, Server};

use crate::support::zones::*;
use serde_json::Value;

/// Zones that one process serves: few enough for the descriptors that a process usually has.
const AT_ONCE: usize = 200;

/// The lines of a file of the data set; none, with a message, if it is absent.
fn cases(file: &str) -> Vec<Value> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ferret");
    let folder = std::env::var_os("HEDGEROW_FERRET").map_or(beside, PathBuf::from);
    match std::fs::read_to_string(folder.join(file)) {
        Ok(text) => text.lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect(),
        Err(error) => {
            eprintln!("skipped: no Ferret data set: {}: {error}", folder.join(file).display());
            Vec::new()
        }
    }
}

/// A response as the data set has it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    /// The rcode and flags.
    head: Vec<String>,
    /// Answer, authority and additional section.
    sections: [BTreeSet<String>; 3],
}

impl Expected {
    /// Reads the lines of a response.
    fn read(lines: &Value) -> Self {
        let mut expected = Self::default();
        let mut section = None;
        for line in lines.as_array().expect("lines").iter().map(|line| line.as_str().expect("text")) {
            match line {
                ";QUESTION" => section = Some(usize::MAX),
                ";ANSWER" => section = Some(0),
                ";AUTHORITY" => section = Some(1),
                ";ADDITIONAL" => section = Some(2),
                line => match section {
                    None => expected.head.push(line.to_owned()),
                    Some(usize::MAX) => {}
                    Some(index) => drop(expected.sections[index].insert(line.to_lowercase())),
                },
            }
        }
        expected
    }

    /// Returns true if a response is this one. NS records in the authority section of an answer, and the
    /// addresses that are there for them, are optional.
    fn is(&self, found: &Self) -> bool {
        let [answer, authority, additional] = &self.sections;
        let is_extra = !answer.is_empty() && authority.iter().all(|line| line.contains(" in ns "));
        let without_extra = is_extra && found.sections[1].is_empty() && found.sections[2].is_subset(additional);
        self.head == found.head
            && *answer == found.sections[0]
            && (without_extra || (*authority == found.sections[1] && *additional == found.sections[2]))
    }
}

#[test]
fn every_case_is_answered_as_servers_do() {
    let mut score: BTreeMap<(String, bool), [usize; 2]> = BTreeMap::new();
    let mut failures = Vec::new();
    for case in cases("valid.jsonl") {
        let text = |key: &str| case[key].as_str().expect("text").to_owned();
        let Ok((zone, _)) = read_zone(&text("zone")) else { panic!("{case:#}") };
        let zone_db = empty().with_zone(Arc::new(zone));
        let response = asked(&text("qname"), &text("qtype")).of(&zone_db);
        let lower = |index: usize| response.sections[index].iter().map(|line| line.to_lowercase()).collect();
        let found = Expected {
            head: vec![format!("rcode {}", response.rcode()), format!("flags {}", response.flags())],
            sections: [lower(0), lower(1), lower(2)],
        };
        let responses = case["responses"].as_array().expect("a list");
        let is_right = responses.iter().any(|expected| Expected::read(&expected["response"]).is(&found));
        let unanimous = case["unanimous"].as_bool().expect("a truth value");
        let counts = score.entry((text("tag"), unanimous)).or_default();
        counts[0] += usize::from(is_right);
        counts[1] += 1;
        if !is_right {
            let (qname, qtype) = (text("qname"), text("qtype"));
            failures.push(format!("{} {qname} {qtype}\n{}\n{found:#?}\n{responses:#?}", case["id"], text("zone")));
        }
    }
    for ((tag, unanimous), [right, all]) in &score {
        println!("{tag} {}: {right} of {all}", if *unanimous { "unanimous" } else { "disputed" });
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_program_answers_as_the_library_does() {
    for cases in cases("valid.jsonl").chunks(AT_ONCE) {
        let mut config = "workers = 1\n".to_owned();
        let mut files = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let zone = case["zone"].as_str().expect("text");
            let apex = zone.split_whitespace().next().expect("a first record");
            // One half gets the name of its zone from the config, the other from the file.
            let source =
                if number % 2 == 0 { "'z'".to_owned() } else { format!("{{ file = 'z', origin = '{apex}' }}") };
            let source = source.replace("'z'", &format!("'{number}.zone'"));
            // Each has an authority of its own: in one that has several zones, chains go from one to the
            // other.
            write!(config, "[authorities.a{number}]\nlisten = ['127.0.0.1:0']\nzones = [{source}]\n")
                .expect("a String");
            files.push((format!("{number}.zone"), zone));
        }
        let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        let server = Server::start_with_files(&config, &files);
        for (number, case) in cases.iter().enumerate() {
            let text = |key: &str| case[key].as_str().expect("text");
            let Ok((zone, _)) = read_zone(text("zone")) else { panic!("{case:#}") };
            let asked = asked(text("qname"), text("qtype"));
            let client = Client::of(server.listener(&format!("a{number}")));
            client.send_bytes(&asked.message());
            let expected = asked.of(&empty().with_zone(Arc::new(zone)));
            assert_eq!(client.receive().bytes, expected.octets, "{case:#}");
        }
    }
}

#[test]
fn zones_that_servers_take_are_taken() {
    let mut score: BTreeMap<(bool, bool), usize> = BTreeMap::new();
    for case in cases("invalid.jsonl") {
        let accepts = |server: &str| case["checkers"][server]["accepts"].as_bool().expect("a truth value");
        let found = read_zone(case["zone"].as_str().expect("text"));
        if ["bind", "nsd", "knot"].into_iter().all(accepts) {
            assert!(found.is_ok(), "{case:#}");
        }
        let is_odd = found.is_err() || found.is_ok_and(|(_, findings)| !findings.warnings.is_empty());
        *score.entry((accepts("powerdns"), is_odd)).or_default() += 1;
    }
    for ((is_taken, is_odd), count) in score {
        let verdict = if is_taken { "takes" } else { "refuses" };
        let ours = if is_odd { "warning" } else { "say nothing" };
        println!("PowerDNS, the strictest, {verdict} them, we {ours}: {count} zones");
    }
}
