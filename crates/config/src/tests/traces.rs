//! Tests of `[traces]`.

use std::path::Path;

use super::super::Config;
use super::super::taps::*;
use super::check;

const REST: &str = "[forwarder]\n[pools.a]\nbackends = [\"192.0.2.1:53\"]\n";

fn read_section(content: &str) -> TracesConfig {
    let text = format!("[traces]\n{content}\n[slow]\n{REST}");
    let config = Config::parse(&text, "c.toml", Path::new("")).unwrap_or_else(|p| panic!("{text}\n{p}"));
    config.taps.traces.expect("traces")
}

#[test]
fn traces_are_read() {
    let read = read_section("otlp = \"http://192.0.2.1:4318/v1/traces\"");
    let otlp = OtlpTarget { address: "192.0.2.1:4318".parse().expect("an address"), path: "/v1/traces".to_owned() };
    assert_eq!(read, TracesConfig { otlp, names: NameDetail::Full });
    let read = read_section("otlp = \"http://[2001:db8::1]:80/?a=%20\"\nnames = \"parent\"");
    let otlp = OtlpTarget { address: "[2001:db8::1]:80".parse().expect("an address"), path: "/?a=%20".to_owned() };
    assert_eq!(read, TracesConfig { otlp, names: NameDetail::Parent });
    let text = format!("[slow]\n{REST}");
    assert_eq!(Config::parse(&text, "c.toml", Path::new("")).expect("a config").taps.traces, None);
}

#[test]
fn a_url_is_one_that_can_be_reached() {
    let form = "a URL such as \"http://127.0.0.1:4318/v1/traces\"";
    let names = "an IP address for the host, as in \"http://127.0.0.1:4318/v1/traces\", since hedgerow does not resolve names for itself";
    let tls =
        "http://, since traces are sent without TLS: run a collector on this host, or a proxy that speaks TLS to yours";
    let port = "an address with its port, such as \"192.0.2.1:53\"";
    for (url, expected) in [
        ("", form),
        ("192.0.2.1:4318", form),
        ("http://", form),
        ("http:///v1/traces", form),
        ("http://192.0.2.1:4318", form),
        ("http://192.0.2.1:4318/a b", form),
        ("http://192.0.2.1:4318/a#b", form),
        ("https://192.0.2.1:4318/v1/traces", tls),
        ("http://collector.example:4318/v1/traces", names),
        ("http://localhost:4318/v1/traces", names),
        ("http://user@192.0.2.1:4318/v1/traces", names),
        ("http://192.0.2.1/v1/traces", port),
        ("http://192.0.2.1:0/v1/traces", "a port from 1 to 65535, since port 0 cannot be reached"),
        ("http://0.0.0.0:4318/", "the address of one host, since any address is only for listening"),
    ] {
        let line = format!("2:8: traces.otlp: invalid value {url:?}: expected {expected}");
        check(&format!("[traces]\notlp = {url:?}\n[slow]\n{REST}"), &[&line]);
    }
}

#[test]
fn traces_are_checked() {
    let otlp = "otlp = \"http://192.0.2.1:4318/v1/traces\"";
    for (lines, expected) in [
        ("", "1:1: traces: otlp is missing, write otlp = \"http://127.0.0.1:4318/v1/traces\""),
        (
            &*format!("{otlp}\nnames = \"ful\""),
            "3:9: traces.names: invalid value \"ful\": expected one of full, parent, none; did you mean \"full\"?",
        ),
        (&format!("{otlp}\nname = \"full\""), "3:1: traces: unknown key \"name\", did you mean \"names\"?"),
    ] {
        check(&format!("[traces]\n{lines}\n[slow]\n{REST}"), &[expected]);
    }
}

#[test]
fn there_must_be_slow_races_to_send() {
    let traces = "[traces]\notlp = \"http://192.0.2.1:4318/v1/traces\"\n";
    let none = "1:1: traces: there are no slow races to send: ";
    check(&format!("{traces}{REST}"), &[&format!("{none}add [slow] or [admin]")]);
    let off = "slow.threshold is \"off\", write \"auto\" or a duration";
    check(&format!("{traces}[slow]\nthreshold = \"off\"\n{REST}"), &[&format!("{none}{off}")]);
    let authority = "[authorities.a]\nlisten = [\"127.0.0.1:5301\"]\nzones = [\"a.txt\"]\n";
    let remedy = "only a forwarder has races, add [forwarder] with [pools.NAME]";
    check(&format!("{traces}[slow]\n{authority}"), &[&format!("{none}{remedy}")]);
    Config::parse(&format!("{traces}[admin]\n{REST}"), "c.toml", Path::new("")).expect("the admin server is enough");
}
