//! Tests of `[slow]`.

use std::path::Path;
use std::time::Duration;

use super::super::Config;
use super::super::taps::*;
use super::check;

const REST: &str = "[authorities.a]\nlisten = [\"127.0.0.1:5301\"]\nzones = [\"a.txt\"]\n";

fn read_config(text: &str) -> Option<SlowConfig> {
    let text = format!("{text}\n{REST}");
    Config::parse(&text, "c.toml", Path::new("")).unwrap_or_else(|p| panic!("{text}\n{p}")).taps.slow
}

#[test]
fn slow_is_read() {
    let read = |content: &str| read_config(&format!("[slow]\n{content}"));
    assert_eq!(read(""), Some(SlowConfig { threshold: SlowThreshold::Auto, keep: 1_000 }));
    for (word, threshold) in [
        ("auto", SlowThreshold::Auto),
        ("off", SlowThreshold::Off),
        ("1us", SlowThreshold::Above(Duration::from_micros(1))),
        ("1m", SlowThreshold::Above(Duration::from_secs(60))),
    ] {
        assert_eq!(read(&format!("threshold = \"{word}\"\nkeep = 10")), Some(SlowConfig { threshold, keep: 10 }));
    }
}

#[test]
fn it_is_there_where_there_is_an_admin_server() {
    assert_eq!(read_config(""), None);
    assert_eq!(read_config("[admin]"), Some(SlowConfig::default()));
}

#[test]
fn slow_is_checked() {
    for (line, expected) in [
        ("keep = 9", "2:8: slow.keep: invalid value 9: expected an integer from 10 to 100000"),
        ("keep = 100001", "2:8: slow.keep: invalid value 100001: expected an integer from 10 to 100000"),
        ("treshold = \"auto\"", "2:1: slow: unknown key \"treshold\", did you mean \"threshold\"?"),
    ] {
        check(&format!("[slow]\n{line}\n{REST}"), &[expected]);
    }
    let text = format!("[slow]\nthreshold = \"of\"\n{REST}");
    let problems = Config::parse(&text, "c.toml", Path::new("")).expect_err("no such word").to_string();
    assert!(problems.contains("slow.threshold: invalid value \"of\": expected auto, off or a duration"), "{problems}");
}
