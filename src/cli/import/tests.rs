//! Tests of imports: the share of directives that is taken, and bad input.

use std::fs;
use std::path::PathBuf;

use super::*;

/// The share of all directives of a kind that an import takes at least.
const MIN_SHARE: f64 = 0.8;

const KINDS: [(Kind, &str); 4] =
    [(Kind::Dnsmasq, "dnsmasq"), (Kind::Coredns, "coredns"), (Kind::Unbound, "unbound"), (Kind::Dnsdist, "dnsdist")];

/// Returns the configs of a kind, as operators publish them, with their names.
fn configs(kind: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(kind);
    let files = fs::read_dir(folder).expect("configs of the kind").map(|entry| entry.expect("a file").path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), fs::read_to_string(file).expect("text"))).collect()
}

#[test]
fn most_directives_of_published_configs_are_taken() {
    for (kind, name) in KINDS {
        let configs = configs(name);
        assert!(configs.len() >= 10, "{name}: {} configs", configs.len());
        let (mut all, mut untaken) = (0, 0);
        for (file, text) in &configs {
            let import = kind.import(text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            all += import.directives;
            untaken += import.untaken.len();
            for one in &import.untaken {
                println!("{}:{}: {}: {}", file.display(), one.line, one.directive, one.reason);
            }
        }
        let share = 1.0 - f64::from(untaken as u32) / f64::from(all as u32);
        println!("{name}: {} configs, {all} directives, {untaken} not taken: {:.1} %", configs.len(), share * 100.0);
        assert!(share >= MIN_SHARE, "{name}: {share}");
    }
}

#[test]
fn unknown_directives_are_listed_in_every_kind() {
    for (kind, text, expected) in [
        (Kind::Dnsmasq, "server=9.9.9.9\nno-hosts\nsevrer=1.1.1.1\n", (3, "sevrer")),
        (Kind::Coredns, ". {\n forward . 9.9.9.9\n frobnicate on\n}\n", (3, "frobnicate")),
        (Kind::Coredns, ". {\n forward . 9.9.9.9 {\n  odd\n }\n}\n", (3, "forward odd")),
        (Kind::Unbound, "server:\n  frob: yes\nforward-zone:\n name: .\n forward-addr: 9.9.9.9\n", (2, "frob")),
        (
            Kind::Dnsdist,
            "binds:\n- listen_address: 127.0.0.1\nbackends:\n- address: 9.9.9.9\n  odd: 1\n",
            (5, "backends.odd"),
        ),
        (Kind::Dnsdist, "backends:\n- address: 9.9.9.9\nfrob:\n  deep:\n    odd: 1\n", (5, "frob.deep.odd")),
    ] {
        let import = kind.import(text).expect(text);
        let found: Vec<_> = import.untaken.iter().map(|one| (one.line, &*one.directive)).collect();
        assert_eq!(found, [expected], "{text}");
    }
}

/// Imports a file of which all directives are taken, and returns the config.
fn config(kind: Kind, text: &str) -> Config {
    let import = kind.import(text).expect(text);
    assert_eq!(import.untaken, [], "{text}");
    Config::parse(&import.config, "import", Path::new("")).expect("it was parsed before")
}

#[test]
fn suffixes_with_similar_labels_have_their_own_pools() {
    let text = "no-hosts\nserver=9.9.9.9\nserver=/a.b/10.0.0.1\nserver=/a-b/10.0.0.2\nserver=/default/10.0.0.3\n";
    let config = config(Kind::Dnsmasq, text);
    let routes = config.forwarder.expect("a forwarder").routes;
    let backend = |suffix: &str| {
        let route = routes.iter().find(|route| route.suffix.to_string() == suffix).expect(suffix);
        config.pools[route.pool.0].backends.iter().map(|backend| backend.name.clone()).collect::<Vec<_>>()
    };
    for (suffix, expected) in
        [(".", "9.9.9.9:53"), ("a.b.", "10.0.0.1:53"), ("a-b.", "10.0.0.2:53"), ("default.", "10.0.0.3:53")]
    {
        assert_eq!(backend(suffix), [expected], "{suffix}");
    }
}

#[test]
fn limits_that_hedgerow_cannot_have_are_listed() {
    for (kind, text, line) in [
        (Kind::Dnsmasq, "no-hosts\nserver=9.9.9.9\nmax-cache-ttl=99999999\n", 3),
        (Kind::Dnsmasq, "no-hosts\nserver=9.9.9.9\nedns-packet-max=65000\n", 3),
        (Kind::Coredns, ". {\n forward . 9.9.9.9 {\n  expire 30h\n }\n}\n", 3),
        (Kind::Coredns, "tls://. {\n bind ::1\n forward . 9.9.9.9\n}\n", 1),
        (Kind::Unbound, "server:\n interface: ::1@853\nforward-zone:\n name: .\n forward-addr: 9.9.9.9\n", 1),
        (
            Kind::Unbound,
            "server:\n access-control: 10.0.0.0/8 deny\nforward-zone:\n name: .\n forward-addr: 9.9.9.9\n",
            2,
        ),
        (Kind::Dnsdist, "backends:\n- address: 9.9.9.9\n  weight: 5000\n", 3),
        (
            Kind::Dnsdist,
            "backends:\n- address: 9.9.9.9\nquery_rules:\n- selector:\n    type: All\n  action:\n    type: TC\n",
            4,
        ),
    ] {
        let import = kind.import(text).expect(text);
        let found: Vec<_> = import.untaken.iter().map(|one| one.line).collect();
        assert_eq!(found, [line], "{text}: {:?}", import.untaken);
    }
}

#[test]
fn networks_and_transports_that_are_not_taken_open_nothing() {
    let text = "server:\n access-control: 10.0.0.0/8 allow\n access-control: 10.1.0.0/16 refuse\n \
                access-control: 10.1.2.0/24 allow\nforward-zone:\n name: .\n forward-addr: 9.9.9.9\n";
    let import = Kind::Unbound.import(text).expect(text);
    assert_eq!(import.untaken.iter().map(|one| one.line).collect::<Vec<_>>(), [3]);
    let config = Config::parse(&import.config, "import", Path::new("")).expect("it was parsed before");
    let access = limit::Access::new(&config.forwarder.expect("a forwarder").access);
    let allows = |address: &str| access.admits(address.parse().expect("an address"));
    assert_eq!(["10.2.0.1", "10.1.0.1", "10.1.2.1", "192.0.2.1"].map(allows), [true, false, false, false]);

    let text = "backends:\n- address: 9.9.9.9\n  protocol: DoH3\n- address: 1.1.1.1\n";
    let import = Kind::Dnsdist.import(text).expect(text);
    assert_eq!(import.untaken.iter().map(|one| one.line).collect::<Vec<_>>(), [2, 3]);
    assert!(!import.config.contains("9.9.9.9"), "{}", import.config);

    for (kind, text) in [
        (Kind::Dnsmasq, "no-hosts\nserver=9.9.9.9\nexcept-interface=wan\n"),
        (Kind::Dnsmasq, "no-hosts\nserver=9.9.9.9\nlisten-address=eth0\n"),
        (Kind::Coredns, ". {\n forward . 9.9.9.9\n bind eth0\n}\n"),
        (Kind::Unbound, "server:\n interface: eth0\nforward-zone:\n name: .\n forward-addr: 9.9.9.9\n"),
        (Kind::Dnsdist, "backends:\n- address: 9.9.9.9\nbinds:\n- listen_address: eth0\n"),
    ] {
        let import = kind.import(text).expect(text);
        assert_eq!(import.untaken.len(), 1, "{:?}", import.untaken);
        let config = Config::parse(&import.config, "import", Path::new("")).expect("it was parsed before");
        let listen = config.forwarder.expect("a forwarder").listen;
        assert!(listen.iter().all(|one| one.address.socket.ip().is_loopback()), "{text}: {listen:?}");
    }
}

/// Checks the message for a file that cannot be imported.
fn check_error(kind: Kind, text: &str, expected: &str) {
    let error = kind.import(text).expect_err(text).to_string();
    assert!(error.contains(expected), "{text:?}: {error}");
}

#[test]
fn bad_input_is_an_error_with_its_place() {
    for (kind, _) in KINDS {
        for text in [
            "",
            "\u{feff}",
            "\0\0",
            "=",
            ":",
            "{",
            "}",
            "- [",
            "a: &x [*x]",
            "server=/",
            "\"",
            "(x) {\n import x\n}\n. {\nimport x\n}",
        ] {
            assert!(kind.import(text).is_err(), "{kind:?}: {text:?}");
        }
    }
    check_error(Kind::Coredns, ". {\n forward . 9.9.9.9\n", "line 2: { without }");
    check_error(Kind::Coredns, "}\n", "line 1: } without {");
    check_error(Kind::Dnsdist, "binds:\n  - [\n", "line");
    check_error(Kind::Dnsdist, "a: &x 1\nb: *x\n", "line 2: an alias is not read");
    check_error(Kind::Dnsdist, &"- ".repeat(100), "nested too deeply");
    check_error(Kind::Dnsmasq, "no-resolv\n", "no directive names a backend");
}

#[test]
fn cut_and_mangled_configs_never_panic() {
    for (kind, name) in KINDS {
        for (_, text) in configs(name) {
            for at in (0..text.len()).step_by(7).filter(|at| text.is_char_boundary(*at)) {
                let _ = kind.import(&text[..at]);
                let _ = kind.import(&text[at..]);
            }
            for (from, to) in
                [(" ", ""), ("=", "/"), (":", " "), (".", ".."), ("1", "999999999999"), ("/", "#"), ("\"", "")]
            {
                let _ = kind.import(&text.replace(from, to));
            }
        }
    }
}
