//! Tests of primaries.

use std::path::Path;

use dns::address::ServerTrust;

use super::super::Config;
use super::check;

fn text(primaries: &str) -> String {
    format!(
        "[authorities.a]\nlisten = [\"127.0.0.1:53\"]\nzones = [{{ zone = \"e\", primaries = [{primaries}] }}]\n\
         [certificates.main]\nchain = \"c\"\nkey = \"k\"\n"
    )
}

#[test]
fn primaries_are_read_with_what_they_must_show() {
    let text = text(
        "\"192.0.2.1\", \"tls://192.0.2.1#NS1.example\", { address = \"tls://192.0.2.2:8853\", ca = \"ca.pem\", \
         certificate = \"main\" }, \"tcp://192.0.2.1\"",
    );
    let config = Config::parse(&text, "c.toml", Path::new("/etc")).unwrap_or_else(|problems| panic!("{problems}"));
    let primaries = &config.authorities[0].zones.secondaries[0].primaries;
    let written: Vec<_> = primaries.iter().map(ToString::to_string).collect();
    assert_eq!(written, ["192.0.2.1:53", "tls://192.0.2.1:853", "tls://192.0.2.2:8853", "tcp://192.0.2.1:53"]);
    assert_eq!(primaries[1].trust.identity.name.as_deref(), Some("ns1.example"));
    let ServerTrust { ca, certificate, .. } = &primaries[2].trust;
    assert_eq!((ca.as_deref(), certificate.as_deref()), (Some(Path::new("/etc/ca.pem")), Some("main")));
}

#[test]
fn what_cannot_be_transferred_from_is_told() {
    let place = "3:37: authorities.a.zones[0].primaries[0]: ";
    for (primaries, expected) in [
        (
            "\"https://192.0.2.1\"",
            "https://192.0.2.1:443 cannot be transferred from, expected tls:// (RFC 9103), tcp:// or no scheme",
        ),
        (
            "\"quic://192.0.2.1\"",
            "quic://192.0.2.1:853 cannot be transferred from, expected tls:// (RFC 9103), tcp:// or no scheme",
        ),
    ] {
        check(&text(primaries), &[&format!("{place}{expected}")]);
    }
    let twice = "\"tls://192.0.2.1\", \"tls://192.0.2.1:853\"";
    check(
        &text(twice),
        &["3:56: authorities.a.zones[0].primaries[1]: tls://192.0.2.1:853 is named twice, first on line 3"],
    );
    let shown = "{ address = \"tls://192.0.2.1\", certificate = \"mian\" }";
    check(
        &text(shown),
        &[
            "3:82: authorities.a.zones[0].primaries[0].certificate: there is no certificate \"mian\", did you mean \"main\"?",
        ],
    );
}
