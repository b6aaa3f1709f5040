//! What a distribution and an operator get besides the program: the list of files of the Debian package, its
//! scripts, those of the tarball, units of systemd. `deploy/release` makes both, and `deploy/install-test`
//! installs them; they are run by hand, because they compile a release and boot systemd.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use testkit::*;
use toml::{Table, Value};

use super::docs::top;

fn metadata() -> Table {
    let manifest = std::fs::read_to_string(top().join("Cargo.toml")).expect("it is there");
    let manifest: Table = manifest.parse().expect("TOML");
    manifest["package"]["metadata"]["deb"].as_table().expect("a section").clone()
}

/// The assets: source, target, mode.
fn assets() -> Vec<[String; 3]> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let asset =
        |value: &Value| <[String; 3]>::try_from(value.as_array().expect("three").iter().map(text).collect::<Vec<_>>());
    metadata()["assets"].as_array().expect("a list").iter().map(|value| asset(value).expect("three")).collect()
}

#[test]
fn the_package_lists_files_that_are_there() {
    let assets = assets();
    for [source, target, mode] in &assets {
        let folder = top().join(source.trim_end_matches('*'));
        let is_made = source == "target/release/hedgerow" || source.starts_with("target/package/");
        assert!(is_made || folder.exists(), "Cargo.toml: there is no {source}");
        assert!(!target.starts_with('/'), "{target}: is below /");
        assert_eq!(mode, if source.ends_with("/hedgerow") { "755" } else { "644" }, "{source}");
    }
    for source in ["target/release/hedgerow", "config.toml", "target/package/man/*.1", "target/package/man/*.5"] {
        assert!(assets.iter().any(|[asset, ..]| asset == source), "{source} is not in the package");
    }
    let script = std::fs::read_to_string(top().join("deploy/release")).expect("it is there");
    // What the script makes is what is packed.
    for [source, ..] in assets.iter().filter(|[source, ..]| source.starts_with("target/package/")) {
        let below = source.trim_start_matches("target/package/");
        let (folder, name) = below.split_once('/').expect("a folder");
        assert!(script.contains(&format!("/{folder}")), "deploy/release makes no {folder}");
        assert!(folder == "man" || script.contains(&format!(" {name}")), "deploy/release makes no {source}");
    }
}

/// Everything that the long config names is in the package, where the config says.
#[test]
fn the_packaged_example_names_files_of_the_package() {
    let config = std::fs::read_to_string(top().join("config.toml")).expect("it is there");
    let config: Table = config.parse().expect("TOML");
    for (name, authority) in config["authorities"].as_table().expect("a section") {
        for zone in authority["zones"].as_array().expect("a list") {
            let zone = zone.as_str().expect("a file");
            assert!(top().join(zone).exists() && zone.starts_with("zones/"), "{name}: {zone}");
        }
    }
    let examples = "usr/share/doc/hedgerow/examples/";
    for (source, folder) in [("config.toml", ""), ("config.schema.json", ""), ("zones/*", "zones/")] {
        let target = format!("{examples}{folder}");
        assert!(assets().iter().any(|asset| asset[0] == source && asset[1] == target), "{source}");
    }
}

/// The config that the service reads is the short one, and names no other file.
#[test]
fn the_packaged_config_is_that_of_init() {
    let assets = assets();
    let installed = assets.iter().find(|[_, target, _]| target == "etc/hedgerow/config.toml").expect("a config");
    let packaged = std::fs::read(top().join(&installed[0])).expect("it is there");
    let mut init = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
    let printed = init.args(["init", "resolver"]).output().expect("cargo has built it");
    assert_eq!(String::from_utf8_lossy(&packaged), String::from_utf8_lossy(&printed.stdout));
    assert_eq!(assets.iter().filter(|[_, target, _]| target.starts_with("etc/")).count(), 1);
}

/// An upgrade of the package neither stops nor restarts the server.
#[test]
fn an_upgrade_of_the_package_upgrades_the_running_server() {
    let metadata = metadata();
    let units = metadata["systemd-units"].as_table().expect("a table");
    for key in ["enable", "start", "restart-after-upgrade", "stop-on-upgrade"] {
        assert_eq!(units[key].as_bool(), Some(false), "{key}");
    }
    let folder = top().join(metadata["maintainer-scripts"].as_str().expect("a folder"));
    for script in ["postinst", "prerm", "postrm"] {
        let text = std::fs::read_to_string(folder.join(script)).expect("it is there");
        assert!(text.lines().any(|line| line == "#DEBHELPER#"), "{script}");
        let stops = ["systemctl stop", "systemctl restart", "invoke stop", "invoke restart", "-TERM", "-KILL"];
        assert!(!stops.iter().any(|stop| text.contains(stop)), "{script}");
    }
}

/// The script is run with commands of our own in the place of those of Debian.
#[test]
fn the_postinst_tells_the_main_process() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = std::fs::read_to_string(top().join("deploy/debian/postinst")).expect("it is there");
    // Only what is generated is left out; the test of what systemd has booted is made true.
    let script = script.replace("#DEBHELPER#", "").replace("-d /run/systemd/system", "-d /");
    let run = |main_pid: &str, arguments: &[&str]| {
        let commands = format!(
            "systemctl() {{ case $1 in show) echo {main_pid} ;; *) echo systemctl \"$@\" ;; esac; }}\n\
             kill() {{ echo kill \"$@\"; }}\n\
             deb-systemd-helper() {{ echo helper \"$@\" >&2; }}\n\
             deb-systemd-invoke() {{ echo invoke \"$@\" >&2; }}\n"
        );
        let mut command = Command::new("bash");
        command.args(["-c", &format!("{commands}{script}"), "postinst"]).args(arguments).current_dir(folder.path());
        let output = command.output().expect("there is bash");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8")
    };
    let upgraded = run("4711", &["configure", "0.1.0-1"]);
    assert!(upgraded.contains("kill -USR2 4711"), "{upgraded}");
    assert!(!upgraded.contains("invoke"), "{upgraded}");
    let not_running = run("0", &["configure", "0.1.0-1"]);
    assert!(!not_running.contains("kill") && !not_running.contains("invoke"), "{not_running}");
    let installed = run("0", &["configure"]);
    assert!(!installed.contains("kill "), "{installed}");
    let aborted = run("4711", &["abort-upgrade", "0.1.0-1"]);
    assert!(!aborted.contains("kill -USR2"), "{aborted}");
}

/// The files below a folder, relative to it.
fn files_below(folder: &Path) -> Vec<String> {
    let find = Command::new("find").args([".", "!", "-type", "d"]).current_dir(folder).output();
    let text = String::from_utf8(find.expect("there is find").stdout).expect("UTF-8");
    let mut files: Vec<_> = text.lines().map(|line| line.trim_start_matches("./").to_owned()).collect();
    files.sort_unstable();
    files
}

/// The scripts of the tarball, below a folder in place of `/`. `deploy/install-test` runs them on a system.
#[test]
fn uninstall_removes_what_install_has_made() {
    let (release, root) = (tempfile::tempdir().expect("a temporary folder"), tempfile::tempdir().expect("another"));
    let program = format!("#!/bin/sh\nexec {:?} \"$@\"\n", env!("CARGO_BIN_EXE_hedgerow"));
    let files = [
        ("bin/hedgerow", &*program),
        ("lib/systemd/system/hedgerow.service", ""),
        ("share/man/man1/hedgerow.1.gz", ""),
    ];
    for (file, text) in files {
        let file = release.path().join(file);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("our own folder");
        std::fs::write(&file, text).expect("our own folder");
        std::fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("our own file");
    }
    let run = |script: &str, arguments: &[&str]| {
        std::fs::copy(top().join("deploy").join(script), release.path().join(script)).expect("it is there");
        let mut command = Command::new("sh");
        command.arg(release.path().join(script)).args(arguments).env("DESTDIR", root.path());
        let output = command.output().expect("there is sh");
        assert!(output.status.success(), "{script}: {output:?}");
    };
    let mut expected: Vec<_> = files.iter().map(|(file, _)| format!("usr/local/{file}")).collect();
    expected.insert(0, "etc/hedgerow/config.toml".to_owned());
    let config = root.path().join("etc/hedgerow/config.toml");
    run("install.sh", &[]);
    assert_eq!(files_below(root.path()), expected);
    assert_eq!(
        std::fs::read(&config).expect("a config"),
        std::fs::read(top().join("src/cli/init/resolver.toml")).expect("a config")
    );
    run("uninstall.sh", &[]);
    assert_eq!(files_below(root.path()), [""; 0]);
    // A config of the operator survives both.
    run("install.sh", &[]);
    std::fs::write(&config, "# mine\n").expect("our own file");
    run("install.sh", &[]);
    run("uninstall.sh", &[]);
    assert_eq!(files_below(root.path()), ["etc/hedgerow/config.toml"]);
    assert_eq!(std::fs::read_to_string(&config).expect("a config"), "# mine\n");
    run("uninstall.sh", &["--purge"]);
    assert_eq!(files_below(root.path()), [""; 0]);
    for script in ["install.sh", "uninstall.sh"] {
        let text = std::fs::read_to_string(top().join("deploy").join(script)).expect("it is there");
        assert!(text.lines().count() <= 60, "deploy/{script} is long");
    }
}

/// Keys of the unit without which a part of what is promised does not hold.
#[test]
fn the_unit_says_what_the_server_relies_on() {
    let unit = std::fs::read_to_string(top().join("deploy/hedgerow.service")).expect("it is there");
    let lines: Vec<_> = unit.lines().collect();
    for line in [
        "Type=notify",
        "NotifyAccess=all",
        "ExitType=cgroup",
        "OOMPolicy=continue",
        "DynamicUser=yes",
        "StateDirectory=hedgerow",
        "RuntimeDirectory=hedgerow",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "ExecStart=/usr/bin/hedgerow serve -c /etc/hedgerow/config.toml",
    ] {
        assert!(lines.contains(&line), "deploy/hedgerow.service: no {line}");
    }
    let value = |key: &str| -> u32 {
        let line = lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("deploy/hedgerow.service: no {key}"))
    };
    assert!(value("FileDescriptorStoreMax") >= 512);
    // The longest drain_delay, the longest timeout of a pool, and the second on top.
    assert!(value("TimeoutStopSec") > 300 + 60 + 1);
    // A worker that makes no progress for 10 s is taken to hang.
    assert!(value("WatchdogSec") > 10);
    let reloads: Vec<_> = lines.iter().filter(|line| line.starts_with("ExecReload=")).collect();
    assert_eq!(reloads, [&"ExecReload=+/bin/systemctl reset-failed %n", &"ExecReload=/bin/kill -HUP $MAINPID"]);
}

#[test]
fn systemd_takes_the_units() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for unit in ["hedgerow.service", "hedgerow.socket"] {
        let text = std::fs::read_to_string(top().join("deploy").join(unit)).expect("it is there");
        // The program is to be there.
        let text = text.replace("/usr/bin/hedgerow", env!("CARGO_BIN_EXE_hedgerow"));
        std::fs::write(folder.path().join(unit), text).expect("our own folder");
    }
    let analyze = |arguments: &[&str], units: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).args(units.iter().map(|unit| folder.path().join(unit)));
        let output = command.output().ok()?;
        Some((output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()))
    };
    let Some((is_right, reported)) = analyze(&["verify", "--man=no"], &["hedgerow.service", "hedgerow.socket"]) else {
        return leave_out("systemd_takes_the_units", "there is no systemd-analyze");
    };
    // What it says of other units of this machine is not ours.
    let ours: Vec<_> = reported.lines().filter(|line| line.contains("hedgerow")).collect();
    assert!(is_right && ours.is_empty(), "{reported}");
    let Some((is_tight, reported)) =
        analyze(&["security", "--offline=true", "--no-pager", "--threshold=20"], &["hedgerow.service"])
    else {
        return;
    };
    assert!(is_tight, "{reported}");
    // With what [xdp] takes: systemd reads that beside a unit which it finds by its name.
    let drop_in = folder.path().join("hedgerow.service.d");
    std::fs::create_dir(&drop_in).expect("our own folder");
    std::fs::copy(top().join("deploy/xdp.conf"), drop_in.join("xdp.conf")).expect("it is there");
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no", "hedgerow.service"]);
    let output = command.env("SYSTEMD_UNIT_PATH", format!("{}:", folder.path().display())).output();
    let output = output.expect("it was there a moment ago");
    let reported = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && !reported.contains("hedgerow"), "{reported}");
}

#[test]
fn scripts_can_be_read_by_their_shells() {
    let mut scripts = Vec::new();
    for folder in ["deploy", "deploy/debian", ".ci", "fuzz", "bench"] {
        let Ok(entries) = top().join(folder).read_dir() else { continue };
        scripts.extend(entries.map(|entry| entry.expect("it can be read").path()));
    }
    let mut count = 0;
    for script in scripts.into_iter().filter(|path| path.is_file()) {
        let Ok(text) = std::fs::read_to_string(&script) else { continue };
        let Some(first) = text.lines().next().and_then(|line| line.strip_prefix("#!")) else { continue };
        let shell = if first.ends_with("bash") { "bash" } else { "sh" };
        if !first.ends_with("sh") {
            continue;
        }
        let read = Command::new(shell).arg("-n").arg(&script).output().expect("there is a shell");
        assert!(read.status.success() && read.stderr.is_empty(), "{}: {read:?}", script.display());
        count += 1;
    }
    assert!(count >= 6, "{count} scripts");
}
