//! As the resolver of a host: what the C library asks on port 53, in namespaces of an ordinary user with a
//! `resolv.conf` of their own.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use tempfile::TempDir;
use testkit::*;

/// The resolver of docs/src/deploy.md, before a TS that has one zone.
const CONFIG: &str = "workers = 2\n[forwarder]\nlisten = ['127.0.0.1:53', '[::1]:53']\n\
                      [pools.resolvers]\nbackends = ['127.0.0.1:5301']\ndispatch = 'hedge'\naccept = 'conclusive'\n\
                      on_timeout = 'servfail'\non_all_down = 'servfail'\n\
                      [cache]\n\
                      [authorities.ts]\nlisten = ['127.0.0.1:5301']\nzones = [{ file = 'zone', origin = 'example.org' }]\n";

const ZONE: &str = "$TTL 300\n@ SOA ns mail 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\nwww A 192.0.2.7\nwww AAAA 2001:db8::7\n\
                    only6 AAAA 2001:db8::8\nalias CNAME www\n";

#[test]
fn the_c_library_resolves_names_by_port_53() {
    let namespaces = ["-Urnm"];
    if !namespace::may("the_c_library_resolves_names_by_port_53", &namespaces) {
        return;
    }
    let folder = TempDir::new().expect("a temporary folder");
    for (name, text) in [
        ("config.toml", CONFIG),
        ("zone", ZONE),
        ("nsswitch.conf", "hosts: files dns\n"),
        ("hosts", "127.0.0.1 localhost\n"),
    ] {
        fs::write(folder.path().join(name), text).expect("our own folder");
    }
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("our own folder");
    for server in ["127.0.0.1", "::1"] {
        let text = format!("nameserver {server}\nsearch example.org\noptions timeout:5 attempts:2\n");
        fs::write(folder.path().join("resolv.conf"), text).expect("our own folder");
        let script = "ip link set lo up
                      for file in resolv.conf nsswitch.conf hosts; do mount --bind \"$1/$file\" \"/etc/$file\"; done
                      rm -f \"$1/log\"; mkfifo \"$1/log\"; exec 3<>\"$1/log\" 4<&0
                      /proc/self/fd/4 serve -c \"$1/config.toml\" 2>&3 &
                      while read -r -t 15 line <&3; do case $line in *' ready '*) break ;; esac; done
                      for name in www.example.org www only6 alias.example.org missing.example.org missing; do
                          echo \"= $name\"
                          getent ahosts \"$name\" | sort -u || true
                          echo \"status ${PIPESTATUS[0]}\"
                      done
                      kill %1; wait %1";
        let binary = File::open(env!("CARGO_BIN_EXE_hedgerow")).expect("cargo has built the binary");
        let mut command = namespace::ordinary("unshare");
        command.args(namespaces).args(["--", "bash", "-ec", script, "bash"]).arg(folder.path());
        let output = command.stdin(Stdio::from(binary)).output().expect("unshare was there a moment ago");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{server}: {output:?}");
        let of = |name: &str| {
            let (_, rest) = shown.split_once(&format!("= {name}\n")).unwrap_or_else(|| panic!("no {name}: {shown}"));
            let (found, rest) = rest.split_once("status ").expect("a status");
            let words = found.lines().filter_map(|line| line.split_whitespace().next());
            let mut addresses: Vec<_> = words.map(str::to_owned).collect();
            // There is a line for each kind of socket.
            addresses.dedup();
            (addresses, rest.lines().next().expect("a number").to_owned())
        };
        let both = || vec!["192.0.2.7".to_owned(), "2001:db8::7".to_owned()];
        for (name, addresses) in [
            ("www.example.org", both()),
            // By the search list.
            ("www", both()),
            ("only6", vec!["2001:db8::8".to_owned()]),
            ("alias.example.org", both()),
        ] {
            assert_eq!(of(name), (addresses, "0".to_owned()), "{server}: {name}: {shown}");
        }
        // No such name.
        for name in ["missing.example.org", "missing"] {
            assert_eq!(of(name), (Vec::new(), "2".to_owned()), "{server}: {name}: {shown}");
        }
    }
}
