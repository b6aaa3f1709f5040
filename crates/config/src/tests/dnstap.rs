//! Tests of `[dnstap]`.

use std::path::Path;

use super::super::Config;
use super::super::taps::*;
use super::check;

const REST: &str = "[authorities.a]\nlisten = [\"127.0.0.1:5301\"]\nzones = [\"a.txt\"]\n";

fn read_section(content: &str) -> DnstapConfig {
    let text = format!("[dnstap]\n{content}\n{REST}");
    let config = Config::parse(&text, "c.toml", Path::new("/etc/hedgerow")).unwrap_or_else(|p| panic!("{text}\n{p}"));
    config.taps.dnstap.expect("dnstap")
}

#[test]
fn every_key_of_dnstap_is_read() {
    let usual = DnstapConfig {
        to: DnstapTarget::Unix("/run/dnstap.sock".into()),
        messages: TappedMessages { client: true, backend: true, authority: false },
        identity: None,
        sample: 1.0,
        client: ClientDetail::Full,
        names: NameDetail::Full,
        buffer: 8 << 20,
    };
    assert_eq!(read_section("to = \"unix:/run/dnstap.sock\""), usual);
    let read = read_section(
        r#"
        to = "tcp:192.0.2.1:6000"
        messages = ["authority"]
        identity = "ls1"
        sample = 0.5
        client = "none"
        names = "none"
        buffer = "1MiB"
        "#,
    );
    let expected = DnstapConfig {
        to: DnstapTarget::Tcp("192.0.2.1:6000".parse().expect("an address")),
        messages: TappedMessages { client: false, backend: false, authority: true },
        identity: Some("ls1".to_owned()),
        sample: 0.5,
        client: ClientDetail::None,
        names: NameDetail::None,
        buffer: 1 << 20,
    };
    assert_eq!(read, expected);
    assert_eq!(read_section("to = \"file:a\"").to, DnstapTarget::File("/etc/hedgerow/a".into()));
}

#[test]
fn dnstap_is_checked() {
    let to = "to = \"file:a\"\n";
    for (lines, expected) in [
        ("", "1:1: dnstap: to is missing, write to = \"unix:/run/dnstap.sock\""),
        ("to = \"/run/a\"", "2:6: dnstap.to: invalid value \"/run/a\": expected unix:PATH, tcp:ADDRESS or file:PATH"),
        (
            "to = \"tcp:192.0.2.1\"",
            "2:6: dnstap.to: invalid value \"tcp:192.0.2.1\": expected an address with its port, such as \"192.0.2.1:53\"",
        ),
        (
            &*format!("{to}messages = []"),
            "3:12: dnstap.messages: expected at least one, such as [\"client\", \"backend\"]",
        ),
        (
            &format!("{to}messages = [\"clients\"]"),
            "3:13: dnstap.messages[0]: invalid value \"clients\": expected one of client, backend, authority; did you mean \"client\"?",
        ),
        (&format!("{to}names = \"parent\""), "3:9: dnstap.names: invalid value \"parent\": expected one of full, none"),
    ] {
        check(&format!("[dnstap]\n{lines}\n{REST}"), &[expected]);
    }
}
