//! Tests of the checks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use net::from_clients::tls::Certificate;
use testkit::Leaf;

use super::*;

#[test]
fn a_forwarder_is_found_among_its_backends() {
    let check = |listen: &str, backend: &str, expected: bool| {
        let text = format!("[forwarder]\nlisten = [\"{listen}\"]\n[pools.p]\nbackends = [\"{backend}\"]\n");
        let config = Config::parse(&text, "c.toml", Path::new("")).unwrap_or_else(|problems| panic!("{problems}"));
        let describe = loops_with(&config, |ip| ip.to_string() == "192.0.2.1");
        assert_eq!(!describe.is_empty(), expected, "{listen} {backend}: {describe}");
        assert!(!expected || describe.contains(&format!("{backend} is this forwarder itself")), "{describe}");
    };
    check("0.0.0.0:53", "192.0.2.1:53", true);
    check("[::]:53", "192.0.2.1:53", true);
    check("0.0.0.0:53", "192.0.2.1:54", false);
    check("0.0.0.0:53", "192.0.2.2:53", false);
    check("127.0.0.1:53", "192.0.2.1:53", false);
}

#[test]
fn addresses_of_this_host_are_known() {
    assert!(is_of_this_host("127.0.0.1".parse().expect("an address")));
    // RFC 5737: a documentation address, which no host has.
    assert!(!is_of_this_host("192.0.2.77".parse().expect("an address")));
}

#[test]
fn http_is_for_this_host() {
    let config = "[forwarder]\nlisten = [\"http://127.0.0.1\", \"http://[::1]:8080\", \"http://0.0.0.0:8080\", \"https://0.0.0.0\", \
                  \"http://[2001:db8::1]\"]\n[pools.ts]\nbackends = [\"192.0.2.1\"]\n[certificates.main]\nchain = \"c\"\nkey = \"k\"\n";
    let config = Config::parse(config, "c.toml", Path::new("/etc")).unwrap_or_else(|problems| panic!("{problems}"));
    let said = clear_http(&config);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("forwarder.listen[2]: http://0.0.0.0:8080 is not encrypted"), "{said:?}");
    assert!(said[1].starts_with("forwarder.listen[4]: http://[2001:db8::1]:80 is not encrypted"), "{said:?}");
}

/// The warnings of a config with this pool.
fn warnings_of(pool: &str) -> Vec<String> {
    let text = format!("[forwarder]\n[pools.resolvers]\n{pool}\n");
    denials(&Config::parse(&text, "c.toml", Path::new("")).unwrap_or_else(|problems| panic!("{text}\n{problems}")))
}

#[test]
fn public_backends_of_a_pool_without_serves_are_warned_of() {
    let public = "backends = [\"10.0.0.1\", \"tls://9.9.9.9#dns.quad9.net\"]";
    let expected = "pools.resolvers: tls://9.9.9.9:853 is a public address and serves is not set: an outage will be NXDOMAIN for every \
                    name; set serves = \"same\" (or \"split\")";
    assert_eq!(warnings_of(public), [expected]);
    assert_eq!(warnings_of(&format!("{public}\non_timeout = \"servfail\"")), [expected]);
    for lines in [
        "serves = \"same\"",
        "serves = \"split\"",
        "on_timeout = \"servfail\"\non_all_down = \"drop\"",
        "[defaults.pool]\nserves = \"same\"",
    ] {
        assert_eq!(warnings_of(&format!("{public}\n{lines}")), [""; 0], "{lines}");
    }
    assert_eq!(warnings_of("backends = [\"127.0.0.1\", \"192.168.0.1\", \"[fe80::1]\"]"), [""; 0]);
}

#[test]
fn addresses_of_hosts_networks_and_links_are_not_public() {
    for (address, expected) in [
        ("127.0.0.1", false),
        ("10.0.0.1", false),
        ("172.31.0.1", false),
        ("172.32.0.1", true),
        ("192.168.1.1", false),
        ("169.254.0.1", false),
        ("100.64.0.1", false),
        ("100.128.0.1", true),
        ("9.9.9.9", true),
        ("::ffff:10.0.0.1", false),
        ("::1", false),
        ("fd00::1", false),
        ("fe80::1", false),
        ("2620:fe::fe", true),
    ] {
        assert_eq!(is_public(address.parse().expect("an address")), expected, "{address}");
    }
}

fn certificate(section: &str, bears: &[&str]) -> NamedCertificate {
    let made = Leaf::self_signed(bears);
    let certificate = Certificate::read(made.pem().as_bytes(), made.key_pem().as_bytes(), &[]);
    NamedCertificate {
        name: section.to_owned(),
        chain_file: PathBuf::new(),
        key_file: PathBuf::new(),
        certificate: Arc::new(certificate.expect("a good one")),
    }
}

/// Returns the missing names and addresses for these listeners, with certificates of the sections `one`
/// and `two`.
fn missing(listen: &str, [one, two]: [&[&str]; 2]) -> Vec<String> {
    let text = format!(
        "[forwarder]\nlisten = {listen}\ndesignated_resolver = 'DNS.example'\n[pools.p]\nbackends = ['192.0.2.9']\n\
         [certificates.one]\nchain = 'c'\nkey = 'k'\n[certificates.two]\nchain = 'c'\nkey = 'k'\n"
    );
    let config = Config::parse(&text, "c.toml", Path::new("")).unwrap_or_else(|problems| panic!("{problems}"));
    let said = designation(&config, &[certificate("one", one), certificate("two", two)]);
    let what =
        said.iter().map(|said| match said.split_once(" is valid for ").and_then(|(_, rest)| rest.split_once(", so")) {
            Some((what, _)) => what.to_owned(),
            None => said.clone(),
        });
    what.collect()
}

#[test]
fn what_no_certificate_bears_is_told() {
    let both = "['192.0.2.1:53', '192.0.2.1:54', '0.0.0.0:55', 'tls://192.0.2.2']";
    assert_eq!(missing(both, [&["a.example"], &["dns.example", "192.0.2.1"]]), [""; 0]);
    assert_eq!(missing(both, [&["*.example"], &["192.0.2.1"]]), [""; 0]);
    assert_eq!(missing(both, [&["a.example", "192.0.2.2"], &["b.example"]]), ["DNS.example", "192.0.2.1"]);
    let own = "['192.0.2.1:53', { address = 'tls://192.0.2.2', certificate = 'one' }]";
    assert_eq!(missing(own, [&["dns.example"], &["dns.example", "192.0.2.1"]]), ["192.0.2.1"]);
}

#[test]
fn that_there_is_nothing_to_tell_of_is_told() {
    let said = missing("['192.0.2.1:53']", [&["dns.example"], &["192.0.2.1"]]);
    assert!(said.len() == 1 && said[0].contains("no listener is encrypted"), "{said:?}");
}

#[test]
fn without_the_key_nothing_is_told() {
    let text = "[forwarder]\n[pools.p]\nbackends = ['192.0.2.9']\n";
    let config = Config::parse(text, "c.toml", Path::new("")).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(designation(&config, &[certificate("one", &["a.example"])]), [""; 0]);
}

#[test]
fn what_anybody_can_read_is_told_with_the_command_that_mends_it() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = folder.path().join("admin.token");
    fs::write(&file, "0123456789abcdef").expect("a file of the test");
    let name = file.display();
    for (mode, can) in [
        (0o600, None),
        (0o640, None),
        (0o400, None),
        (0o644, Some("read")),
        (0o602, Some("change")),
        (0o666, Some("read and change")),
    ] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("our own file");
        let expected = can.map(|can| {
            format!("{name}: any user of this host can {can} the token (mode {mode:04o}); chmod 600 {name}")
        });
        assert_eq!(exposed(&file, "the token"), expected, "{mode:o}");
    }
    assert_eq!(exposed(&folder.path().join("none"), "the token"), None);
}

#[test]
fn every_kind_of_secret_is_looked_at() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let text = "[admin]\ntoken_file = \"t\"\n[cache]\npersist = \"c\"\n[etcd]\nendpoints = [\"http://127.0.0.1:2379\"]\nuser = \"u\"\npassword_file = \"e\"\n[keys.a]\nsecret_file = \"k\"\n\
                [keys.b]\nsecret = \"c2VjcmV0IG9mIDE2IG9j\"\n[certificates.m]\nchain = \"h\"\nkey = \"p\"\n[forwarder]\ncookie_secrets_file = \"f\"\n[pools.p]\nbackends = [\"192.0.2.1:53\"]\n";
    let config = Config::parse(text, "config.toml", folder.path()).expect("a config");
    let file = folder.path().join("config.toml");
    for name in ["t", "c", "k", "f", "p", "h", "e", "config.toml"] {
        let file = folder.path().join(name);
        fs::write(&file, "").expect("a file of the test");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("our own file");
    }
    let found = exposed_secrets(&config, Some(&file));
    let names: Vec<_> = found.iter().filter_map(|line| line.split(':').next()?.rsplit('/').next()).collect();
    assert_eq!(names, ["t", "k", "config.toml", "f", "p", "e", "c"], "{found:?}");
}
