//! Tests of `[query_log]`.

use std::path::Path;

use super::super::Config;
use super::super::taps::*;
use super::check;

const REST: &str = "[authorities.a]\nlisten = [\"127.0.0.1:5301\"]\nzones = [\"a.txt\"]\n";

fn read_section(content: &str) -> QueryLogConfig {
    let text = format!("[query_log]\n{content}\n{REST}");
    let config = Config::parse(&text, "c.toml", Path::new("/etc/hedgerow")).unwrap_or_else(|p| panic!("{text}\n{p}"));
    config.taps.query_log.expect("a query log")
}

#[test]
fn an_empty_section_is_a_log_of_defaults() {
    let usual = QueryLogConfig {
        to: LogTarget::File("/etc/hedgerow/queries.jsonl".into()),
        format: LogFormat::Json,
        sample: 1.0,
        always: Always { slow: true, failed: true, hedged: false },
        client: ClientDetail::Prefix,
        names: NameDetail::Full,
        rotate: Some(100 << 20),
        keep: 5,
        buffer: 4 << 20,
    };
    assert_eq!(read_section(""), usual);
    let text = format!("[query_log]\n{REST}").replace("[query_log]", "");
    assert_eq!(Config::parse(&text, "c.toml", Path::new("")).expect("a config").taps.query_log, None);
}

#[test]
fn every_key_of_the_query_log_is_read() {
    let read = read_section(
        r#"
        to = "unix:log.sock"
        format = "logfmt"
        sample = 0.01
        always = ["hedged"]
        client = "none"
        names = "parent"
        rotate = "off"
        keep = 1
        buffer = "1MiB"
        "#,
    );
    let expected = QueryLogConfig {
        to: LogTarget::Unix("/etc/hedgerow/log.sock".into()),
        format: LogFormat::Logfmt,
        sample: 0.01,
        always: Always { slow: false, failed: false, hedged: true },
        client: ClientDetail::None,
        names: NameDetail::Parent,
        rotate: None,
        keep: 1,
        buffer: 1 << 20,
    };
    assert_eq!(read, expected);
    assert_eq!(read_section("to = \"stderr\"").to, LogTarget::Stderr);
    assert_eq!(read_section("to = \"/var/log/q\"").to, LogTarget::File("/var/log/q".into()));
    assert_eq!(read_section("always = []").always, Always { slow: false, failed: false, hedged: false });
    assert_eq!(read_section("rotate = \"1024GiB\"").rotate, Some(1 << 40));
}

#[test]
fn a_query_log_is_checked() {
    for (line, expected) in [
        ("to = \"\"", "2:6: query_log.to: invalid value \"\": expected the name of a file, or stderr, or unix:PATH"),
        ("to = \"unix:\"", "2:6: query_log.to: invalid value \"unix:\": expected the path of a socket"),
        (
            "format = \"jsno\"",
            "2:10: query_log.format: invalid value \"jsno\": expected one of json, logfmt; did you mean \"json\"?",
        ),
        ("sample = 1.5", "2:10: query_log.sample: invalid value 1.5: expected a number from 0 to 1"),
        (
            "always = [\"slwo\"]",
            "2:11: query_log.always[0]: invalid value \"slwo\": expected one of slow, failed, hedged; did you mean \"slow\"?",
        ),
        (
            "rotate = \"1KiB\"",
            "2:10: query_log.rotate: invalid value \"1KiB\": expected off or a size from 1MiB to 1TiB",
        ),
        ("keep = 0", "2:8: query_log.keep: invalid value 0: expected an integer from 1 to 1000"),
        ("buffer = \"64KiB\"", "2:10: query_log.buffer: invalid value \"64KiB\": expected a size from 1MiB to 1GiB"),
        ("samples = 1", "2:1: query_log: unknown key \"samples\", did you mean \"sample\"?"),
    ] {
        check(&format!("[query_log]\n{line}\n{REST}"), &[expected]);
    }
}
