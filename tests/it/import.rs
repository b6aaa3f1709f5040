//! `hedgerow import`: configs of other servers, which pass `hedgerow check` afterwards; and the same answers
//! as from dnsmasq and Unbound to 500 queries.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use testkit::*;

const KINDS: [&str; 4] = ["dnsmasq", "coredns", "unbound", "dnsdist"];

/// The files that the configs name, below a folder that stands for `/`.
const FILES: [&str; 8] = [
    "etc/hosts",
    "etc/dnsmasq.hosts",
    "etc/unbound/tls.pem",
    "etc/unbound/tls.key",
    "etc/coredns/cert.pem",
    "etc/coredns/key.pem",
    "etc/dnsdist/cert.pem",
    "etc/dnsdist/key.pem",
];

/// Runs `hedgerow` in a folder.
fn hedgerow(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
    command.args(arguments).current_dir(folder).output().expect("cargo has built it")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Imports a config into a folder, and returns its text and the problems.
fn import(folder: &Path, kind: &str, file: &Path) -> (String, String) {
    let file = file.to_str().expect("UTF-8");
    let output = hedgerow(folder, &["import", "--from", kind, file, "--output", "config.toml"]);
    let problems = text(&output.stderr);
    let expected = if problems.is_empty() { 0 } else { 3 };
    assert_eq!(output.status.code(), Some(expected), "{file}: {problems}");
    (fs::read_to_string(folder.join("config.toml")).expect("it was written"), problems)
}

/// Makes the files that the configs name.
fn make_files(folder: &Path) {
    let (chain, key) = CertificateAuthority::new().issue("dns.example");
    for file in FILES {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("our own folder");
        let content = match file {
            _ if file.ends_with("hosts") => "192.0.2.1 host.example\n",
            _ if file.ends_with("key") || file.ends_with("key.pem") => &key,
            _ => &chain,
        };
        fs::write(path, content).expect("our own folder");
    }
    fs::create_dir_all(folder.join("var/log")).expect("our own folder");
    let zone = "$TTL 300\n@ SOA ns.example. mail.example. 1 2 3 4 5\n@ NS ns.example.\nwww A 192.0.2.1\n";
    fs::write(folder.join("example.org.zone"), zone).expect("our own folder");
}

#[test]
fn imported_configs_pass_the_check() {
    for kind in KINDS {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(kind);
        let files: Vec<PathBuf> =
            fs::read_dir(samples).expect("samples").map(|file| file.expect("a file").path()).collect();
        for file in &files {
            let folder = TempDir::new().expect("a temporary folder");
            make_files(folder.path());
            let (config, problems) = import(folder.path(), kind, file);
            let top = folder.path().display();
            let config =
                config.replace("\"/etc/", &format!("\"{top}/etc/")).replace("\"/var/", &format!("\"{top}/var/"));
            fs::write(folder.path().join("config.toml"), &config).expect("our own folder");
            let checked = hedgerow(folder.path(), &["check", "-c", "config.toml"]);
            assert_eq!(checked.status.code(), Some(0), "{}: {}\n{config}", file.display(), text(&checked.stderr));
            // Each problem is a line with file, line, directive and reason.
            for line in problems.lines().filter(|line| !line.ends_with("not taken")) {
                let rest = line.strip_prefix(&format!("{}:", file.display())).unwrap_or_else(|| panic!("{line}"));
                assert!(rest.split_once(':').is_some_and(|(number, _)| number.parse::<u32>().is_ok()), "{line}");
            }
        }
    }
}

#[test]
fn the_name_of_a_file_selects_its_kind_and_no_file_is_replaced() {
    let folder = TempDir::new().expect("a temporary folder");
    let run = |arguments: &[&str]| hedgerow(folder.path(), arguments);
    for (file, content) in [
        ("dnsmasq.conf", "no-resolv\nno-hosts\nserver=9.9.9.9\n"),
        ("Corefile", ". {\n  forward . 9.9.9.9\n}\n"),
        ("unbound.conf", "forward-zone:\n  name: \".\"\n  forward-addr: 9.9.9.9\n"),
        ("dnsdist.yml", "binds:\n- listen_address: 127.0.0.1:53\nbackends:\n- address: 9.9.9.9\n"),
    ] {
        fs::write(folder.path().join(file), content).expect("our own folder");
        let printed = run(&["import", file]);
        assert_eq!(printed.status.code(), Some(0), "{file}: {printed:?}");
        assert!(text(&printed.stdout).contains("9.9.9.9"), "{printed:?}");
    }
    fs::write(folder.path().join("kept.toml"), "kept").expect("our own folder");
    for (arguments, expected) in [
        (&["import", "dnsmasq.conf", "-o", "kept.toml"][..], "kept.toml: the file exists, name another file"),
        (&["import", "kept.toml"], "kept.toml: the name shows no server, add --from dnsmasq"),
        (&["import", "missing.conf"], "missing.conf: the name shows no server"),
        (&["import", "--from", "unbound", "missing.conf"], "missing.conf: cannot be read: No such file"),
        (&["import", "--from", "coredns", "dnsdist.yml"], "dnsdist.yml:1: no server block: add one"),
    ] {
        let refused = run(arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {refused:?}");
        assert!(text(&refused.stderr).contains(expected), "{arguments:?}: {refused:?}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("kept.toml")).expect("it is there"), "kept");
    fs::write(folder.path().join("Corefile"), ". {\n  forward . /etc/resolv.conf\n}\n").expect("our own folder");
    let refused = run(&["import", "Corefile"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let lines = text(&refused.stderr);
    assert!(lines.starts_with("Corefile:2: forward: hedgerow reads no resolv.conf"), "{lines}");
    assert!(lines.contains("Corefile: no directive names a backend: add one"), "{lines}");
    let large = fs::File::create(folder.path().join("large.conf")).expect("our own folder");
    large.set_len((16 << 20) + 1).expect("a sparse file");
    let refused = run(&["import", "--from", "dnsmasq", "large.conf"]);
    assert!(text(&refused.stderr).contains("larger than 16 MiB"), "{refused:?}");
}

const TYPES: [(u16, &str); 8] =
    [(1, "A"), (28, "AAAA"), (16, "TXT"), (15, "MX"), (12, "PTR"), (5, "CNAME"), (33, "SRV"), (65, "HTTPS")];

/// An answer to any name and type by a backend with a number. Names of private zones and those that begin
/// with `missing` do not exist.
fn internet(number: u8) -> Script {
    Script::new(move |seen| {
        let name = seen.name();
        let question = question_of(&seen.bytes);
        let rtype = word(question, question.len() - 4);
        let reply = reply_to(&seen.bytes).with_flags(RA);
        let is_missing = ["lan", "home.arpa", "guest.example"].iter().any(|zone| name.ends_with(zone));
        if is_missing || name.starts_with("missing") {
            return Some(reply.rcode(NXDOMAIN).to_vec());
        }
        let sum = name.bytes().fold(0, u8::wrapping_add);
        let data = match rtype {
            1 if name.starts_with("rebind") => vec![10, 0, number, sum],
            1 => vec![198, 51, number, sum],
            28 => [&[0x2a, 0, 0, 1][..], &[0; 10], &[number, sum]].concat(),
            16 => vec![3, b'a', b'0' + number, b'0' + sum % 10],
            15 => [&[0, sum][..], &wire_name("mail.example.net")].concat(),
            12 => wire_name(&format!("host-{sum}.example.net")),
            _ => return Some(reply.to_vec()),
        };
        Some(reply.answer(record("@", rtype, &data)).to_vec())
    })
}

/// Returns the response code and the answer records without their TTLs, sorted.
fn answer(client: &Client, name: &str, rtype: u16) -> (u16, Vec<String>) {
    let message = client.ask(&query(name, rtype));
    let mut records: Vec<_> = message
        .message()
        .answers
        .iter()
        .map(|record| format!("{} {} {}", record.name.to_string().to_lowercase(), record.record_type(), record.data))
        .collect();
    records.sort();
    (message.rcode(), records)
}

/// Asks both servers 500 questions and compares the answers. `permitted` has names with other answers, with a
/// type or for all types, and the reason.
fn compare(original: SocketAddr, server: &Server, names: &[&str], permitted: &[(&str, &str, &str)]) {
    let original = Client::of(original);
    let imported = server.client();
    let extra: Vec<_> = (0..63).map(|number| format!("www{number}.example.org")).collect();
    // Clients ask reverse names for PTR; one other type is enough.
    let is_reverse = |name: &str| name.ends_with(".in-addr.arpa") || name.ends_with(".ip6.arpa");
    let is_asked = |name: &str, text: &str| !is_reverse(name) || ["PTR", "A"].contains(&text);
    let names = names.iter().copied().chain(extra.iter().map(String::as_str));
    let questions = names.flat_map(|name| TYPES.map(|(rtype, text)| (name, rtype, text)));
    let questions: Vec<_> = questions.filter(|(name, _, text)| is_asked(name, text)).take(500).collect();
    assert_eq!(questions.len(), 500);
    let mut used = vec![0; permitted.len()];
    let mut differences = Vec::new();
    for (name, rtype, text) in questions {
        let (expected, found) = (answer(&original, name, rtype), answer(&imported, name, rtype));
        if expected == found {
            continue;
        }
        let is_meant = |(one, types, _): &(&str, &str, &str)| {
            *one == name && (types.is_empty() || types.split(' ').any(|one| one == text))
        };
        match permitted.iter().position(is_meant) {
            Some(at) => used[at] += 1,
            None => differences.push(format!("{name} {text}: {expected:?}, not {found:?}")),
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    for ((name, types, reason), count) in permitted.iter().zip(used) {
        assert!(count > 0, "{name} {types} has the same answers, although {reason}");
        println!("{count} permitted: {name} {types}: {reason}");
    }
}

/// Imports a config, and starts a server with it on a port of the system.
fn start(kind: &str, file: &Path, address: SocketAddr) -> Server {
    let folder = TempDir::new().expect("a temporary folder");
    let (config, problems) = import(folder.path(), kind, file);
    assert_eq!(problems, "", "all is taken");
    Server::start(&config.replace(&format!("\"{address}\""), "\"127.0.0.1:0\""))
}

const DNSMASQ_NAMES: &[&str] = &[
    "nas.lan",
    "files.lan",
    "a.deep.lan",
    "deep.lan",
    "lan",
    "other.lan",
    "below.nas.lan",
    "NAS.lan",
    "printer.lan",
    "old.lan",
    "ads.example",
    "x.ads.example",
    "good.ads.example",
    "x.good.ads.example",
    "null.example",
    "x.null.example",
    "app.example",
    "x.y.app.example",
    "both.example",
    "x.both.example",
    "only.example",
    "x.only.example",
    "www.corp.example",
    "corp.example",
    "corp.example.org",
    "missing.corp.example",
    "missing.example.org",
    "missing.example.net",
    "example.net",
    "www.example.net",
    "10.1.168.192.in-addr.arpa",
    "11.1.168.192.in-addr.arpa",
    "12.1.168.192.in-addr.arpa",
    "99.1.168.192.in-addr.arpa",
    "5.0.20.10.in-addr.arpa",
    "5.0.21.10.in-addr.arpa",
    "7.113.0.203.in-addr.arpa",
    "8.8.8.8.in-addr.arpa",
    "80.2.0.192.in-addr.arpa",
    "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
    "xads.example",
    "rebind.example.org",
    "rebind.corp.example",
    "example",
];

/// The private reverse zones that hedgerow answers itself in this test.
const PRIVATE: [&str; 5] =
    ["168.192.in-addr.arpa", "21.10.in-addr.arpa", "113.0.203.in-addr.arpa", "2.0.192.in-addr.arpa", "d.f.ip6.arpa"];

#[test]
fn dnsmasq_and_its_import_answer_500_queries_alike() {
    let Some(program) = need_program("the import of a config of dnsmasq", "dnsmasq") else { return };
    let (one, two) = (Backend::new(internet(1)), Backend::new(internet(2)));
    let address = free_address();
    let port = |backend: &Backend| Asked::address(backend).port();
    let original = Daemon::start(|folder| {
        fs::write(folder.join("hosts"), "192.168.1.12 printer.lan old.lan\n").expect("our own folder");
        let config = format!(
            "port={}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\naddn-hosts={}/hosts\nbogus-priv\n\
             server=127.0.0.1#{one}\nserver=/corp.example/127.0.0.1#{two}\nserver=/good.ads.example/#\n\
             rev-server=10.20.0.0/16,127.0.0.1#{two}\nlocal=/lan/\nhost-record=nas.lan,192.168.1.10,fd00::10\n\
             host-record=a.deep.lan,192.168.1.11\ncname=files.lan,nas.lan\naddress=/ads.example/\n\
             address=/null.example/#\naddress=/app.example/192.0.2.80\naddress=/both.example/192.0.2.81\n\
             address=/both.example/2001:db8::81\naddress=/only.example/192.0.2.82\nlocal=/only.example/\ncache-size=1000\n\
             stop-dns-rebind\nrebind-domain-ok=/corp.example/\nstrict-order\n",
            address.port(),
            folder.display(),
            one = port(&one),
            two = port(&two),
        );
        fs::write(folder.join("dnsmasq.conf"), config).expect("our own folder");
        let mut command = Command::new(program);
        command.arg("--keep-in-foreground").arg("--pid-file").arg("--log-facility=-");
        command.arg(format!("--conf-file={}", folder.join("dnsmasq.conf").display()));
        command
    });
    until("dnsmasq listens", || TcpStream::connect(address).ok());
    let server = start("dnsmasq", &original.path("dnsmasq.conf"), address);
    let reason = "dnsmasq forwards types other than PTR of private reverse names, which no program asks for";
    let private: Vec<_> = DNSMASQ_NAMES.iter().filter(|name| PRIVATE.iter().any(|zone| name.ends_with(zone))).collect();
    let permitted: Vec<_> = private.iter().map(|name| (**name, "A", reason)).collect();
    compare(address, &server, DNSMASQ_NAMES, &permitted);
}

const UNBOUND_NAMES: &[&str] = &[
    "nas.home.arpa",
    "router.home.arpa",
    "a.deep.home.arpa",
    "deep.home.arpa",
    "home.arpa",
    "other.home.arpa",
    "NAS.home.arpa",
    "below.nas.home.arpa",
    "ads.example",
    "x.ads.example",
    "null.example",
    "x.null.example",
    "redirect.example",
    "x.y.redirect.example",
    "refused.example",
    "x.refused.example",
    "ok.refused.example",
    "nodata.example",
    "x.nodata.example",
    "open.example",
    "printer.open.example",
    "other.open.example",
    "single.example.net",
    "below.single.example.net",
    "typed.example",
    "host.typed.example",
    "x.typed.example",
    "corp.example",
    "www.corp.example",
    "missing.corp.example",
    "missing.example.org",
    "localhost",
    "x.localhost",
    "www.invalid",
    "www.onion",
    "www.test",
    "www.local",
    "1.0.0.127.in-addr.arpa",
    "10.1.168.192.in-addr.arpa",
    "1.1.168.192.in-addr.arpa",
    "9.1.168.192.in-addr.arpa",
    "5.0.20.10.in-addr.arpa",
    "5.0.16.172.in-addr.arpa",
    "8.8.8.8.in-addr.arpa",
    "guest.example",
    "wifi.guest.example",
    "portal.example",
    "x.portal.example",
    "never.example",
    "x.never.example",
    "pc.example",
    "rebind.example.org",
    "rebind.corp.example",
    "30.1.168.192.in-addr.arpa",
];

#[test]
fn unbound_and_its_import_answer_500_queries_alike() {
    let Some(program) = need_program("the import of a config of Unbound", "unbound") else { return };
    let (one, two) = (Backend::new(internet(1)), Backend::new(internet(2)));
    let address = free_address();
    let at = |backend: &Backend| Asked::address(backend).to_string().replace(':', "@");
    let original = Daemon::start(|folder| {
        let config = format!(
            "server:\n  interface: 127.0.0.1\n  port: {}\n  do-daemonize: no\n  chroot: \"\"\n  use-syslog: no\n\
             \x20 do-not-query-localhost: no\n  num-threads: 1\n  module-config: \"iterator\"\n\
             \x20 access-control: 127.0.0.0/8 allow\n  hide-version: yes\n  hide-identity: yes\n\
             \x20 local-zone: \"home.arpa.\" static\n  local-data: \"nas.home.arpa. IN A 192.168.1.10\"\n\
             \x20 local-data: \"nas.home.arpa. IN AAAA fd00::10\"\n  local-data-ptr: \"192.168.1.10 nas.home.arpa\"\n\
             \x20 local-data-ptr: \"fd00::10 nas.home.arpa\"\n  local-data: \"router.home.arpa. A 192.168.1.1\"\n\
             \x20 local-data: \"a.deep.home.arpa. 60 IN A 192.168.1.3\"\n  local-zone: \"ads.example\" always_nxdomain\n\
             \x20 local-zone: \"null.example\" always_null\n  local-zone: \"redirect.example\" redirect\n\
             \x20 local-data: \"redirect.example A 192.0.2.80\"\n  local-zone: \"refused.example\" refuse\n\
             \x20 local-data: \"ok.refused.example A 192.0.2.81\"\n  local-zone: \"nodata.example\" always_nodata\n\
             \x20 local-zone: \"open.example\" transparent\n  local-data: \"printer.open.example A 192.0.2.82\"\n\
             \x20 local-data: \"single.example.net A 192.0.2.83\"\n  local-zone: \"typed.example\" typetransparent\n\
             \x20 local-data: \"host.typed.example A 192.0.2.84\"\n  local-zone: \"10.in-addr.arpa\" nodefault\n\
             \x20 local-zone: \"guest.example\" static\n  local-data: \"wifi.guest.example A 10.5.0.1\"\n\
             \x20 local-zone: \"portal.example\" redirect\n  local-data: \"portal.example CNAME safe.example.net.\"\n\
             \x20 local-zone: \"never.example\" always_refuse\n  local-data: \"pc.example A 192.168.1.30\"\n\
             \x20 local-data: \"30.1.168.192.in-addr.arpa PTR pc.example.\"\n  deny-any: yes\n\
             \x20 private-address: 10.0.0.0/8\n  private-domain: \"corp.example\"\n  use-caps-for-id: yes\n\
             forward-zone:\n  name: \"corp.example\"\n  forward-addr: {two}\n\
             forward-zone:\n  name: \".\"\n  forward-addr: {one}\n",
            address.port(),
            one = at(&one),
            two = at(&two),
        );
        fs::write(folder.join("unbound.conf"), config).expect("our own folder");
        let mut command = Command::new(program);
        // The options of the test host are no part of the config.
        let own = "server:\n  username: \"\"\n  pidfile: \"\"\n  logfile: \"\"\n";
        let file = folder.join("host.conf");
        fs::write(&file, format!("include: {}/unbound.conf\n{own}", folder.display())).expect("our own folder");
        command.arg("-d").arg("-c").arg(file);
        command
    });
    until("Unbound listens", || TcpStream::connect(address).ok());
    let server = start("unbound", &original.path("unbound.conf"), address);
    compare(address, &server, UNBOUND_NAMES, &[]);
}
