//! Tests of the messages about `[xdp]` from `hedgerow check` and from a start, with and without a usable
//! device.

use std::process::Command;

use testkit::*;

use crate::world::{self, DEVICE, SERVER, Way, World, at, by_xdp_alone};

by_xdp_alone! {
    check_tells_what_a_device_can_do
    device_that_is_not_there_is_a_reason_not_to_start
    device_that_is_not_there_is_a_warning_with_fallback
    who_may_not_is_served_by_sockets_or_not_at_all
    memory_that_may_not_be_locked_is_told
    modes_are_what_the_config_says
    program_is_gone_with_the_process
}

const TABLE: &str = "www.example 192.0.2.1 A\n";

/// Returns the config of an authority with this device in `[xdp]`.
fn config(device: &str, keys: &str) -> String {
    format!("{}[xdp]\ninterfaces = ['{device}']\n{keys}\n", World::authority(&[SERVER]))
}

/// Runs `hedgerow check` on the host and returns its status and its output.
fn check(world: &World, config: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("hosts.txt"), TABLE).expect("our own folder");
    std::fs::write(folder.path().join("config.toml"), config).expect("our own folder");
    let mut command: Command = world.host.command(env!("CARGO_BIN_EXE_hedgerow"));
    let output = command.args(["check", "-c"]).arg(folder.path().join("config.toml")).output().expect("it is built");
    let said = [output.stdout, output.stderr].map(|octets| String::from_utf8_lossy(&octets).into_owned()).concat();
    (output.status.code(), said)
}

fn ask(count: u64) {
    let client = Client::of(at(SERVER, 53));
    for _ in 0..count {
        assert_eq!(client.ask(&query("www.example", A)).answers(), ["192.0.2.1"]);
    }
}

fn check_tells_what_a_device_can_do(way: Way) {
    let world = World::over(way, world::Pair { queues: 2, mtu: 1500 });
    let (status, said) = check(&world, &config(DEVICE, ""));
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("[xdp] is experimental"), "{said}");
    let lines: Vec<_> = said.lines().filter(|line| line.contains(DEVICE)).collect();
    let reported = lines.join("\n").to_lowercase();
    for word in ["veth", "2 queues", "native"] {
        assert!(reported.contains(word), "{word:?} of {DEVICE}: {said}");
    }
    let (_, said) = check(&world, &config("nosuch0", ""));
    assert!(said.contains("nosuch0"), "{said}");
    assert!(!world.ip("-d link show dev v0").contains("xdp"), "a check attaches no program");
}

fn device_that_is_not_there_is_a_reason_not_to_start(way: Way) {
    let world = World::new(way);
    let (mut process, _folder) = world.launch(&config("nosuch0", "fallback = false"), &[("hosts.txt", TABLE)], |_| {});
    assert_eq!(process.wait_for_exit().code(), Some(1), "{}", process.log());
    let log = process.log();
    assert!(log.contains("nosuch0") && !log.contains(" ready "), "{log}");
    assert_eq!(log.matches("nosuch0").count(), 1, "once: {log}");
}

fn device_that_is_not_there_is_a_warning_with_fallback(way: Way) {
    let world = World::new(way);
    for keys in ["", "fallback = true"] {
        let server = world.start_exactly(&config("nosuch0", keys), &[("hosts.txt", TABLE)], |_| {});
        let line = server.process.wait_for_log("nosuch0");
        assert!(line.contains("WARN"), "{line}");
        ask(5);
    }
    // One device exists, the other does not.
    let both = config("nosuch0", "").replace("['nosuch0']", "['v0', 'nosuch0']");
    let server = world.start_exactly(&both, &[("hosts.txt", TABLE)], |_| {});
    // The server first answers queries that wait in sockets, so XDP serves a little later than the server is
    // ready.
    until("XDP serves", || {
        ask(1);
        (world::frames(&world::metrics(&server), DEVICE, "in", "taken") > 0).then_some(())
    });
}

/// Starts a server as root without these capabilities and with these resource limits.
fn without(world: &World, capabilities: &str, limits: &str, config: &str) -> (Process, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("hosts.txt"), TABLE).expect("our own folder");
    std::fs::write(folder.path().join("config.toml"), config).expect("our own folder");
    let mut command = world.host.command("setpriv");
    command.arg(format!("--bounding-set={capabilities}")).arg(format!("--inh-caps={capabilities}"));
    command.args(["prlimit", limits, "--", env!("CARGO_BIN_EXE_hedgerow"), "serve", "-c"]);
    command.arg(folder.path().join("config.toml"));
    (Process::run_by(command, |_| {}), folder)
}

/// Checks that a server without a required capability or limit serves by sockets with a warning, or fails to
/// start if `fallback` is false.
fn check_lack(world: &World, capabilities: &str, limits: &str, reason: &str) {
    let (mut process, _folder) = without(world, capabilities, limits, &config(DEVICE, "fallback = false"));
    assert_eq!(process.wait_for_exit().code(), Some(1), "{capabilities}: {}", process.log());
    let log = process.log();
    assert!(log.contains(DEVICE) && log.to_lowercase().contains(reason), "{reason:?}: {log}");

    let (process, folder) = without(world, capabilities, limits, &config(DEVICE, "fallback = true"));
    let server = Server::ready(process, folder);
    let line = server.process.wait_for_log("served by sockets");
    assert!(
        line.contains("WARN") && line.contains(DEVICE) && line.to_lowercase().contains(reason),
        "{reason:?}: {line}"
    );
    ask(5);
    let metrics = world::metrics(&server);
    assert_eq!(world::frames(&metrics, DEVICE, "in", "taken"), 0, "{capabilities}");
}

fn who_may_not_is_served_by_sockets_or_not_at_all(way: Way) {
    let world = World::new(way);
    check_lack(&world, "-sys_admin,-bpf", "--nofile=4096", "bpf");
    check_lack(&world, "-sys_admin,-net_raw", "--nofile=4096", "net_raw");
}

fn memory_that_may_not_be_locked_is_told(way: Way) {
    let world = World::new(way);
    check_lack(&world, "-ipc_lock", "--memlock=0:0", "memlock");
}

fn modes_are_what_the_config_says(way: Way) {
    for (mode, shown) in [("native", "xdp "), ("generic", "xdpgeneric"), ("auto", "xdp ")] {
        let world = World::new(way).mode(mode);
        let server = world.start(&World::authority(&[SERVER]), &[("hosts.txt", TABLE)]);
        let link = world.ip("-d link show dev v0");
        assert!(link.contains(shown), "{mode}: {link}");
        ask(20);
        world.check_served(&server, DEVICE, [20, 20]);
    }
    // A veth pair with this MTU has no native mode for a program that takes a frame in one buffer.
    let world = World::over(way, world::Pair { queues: 1, mtu: 9_000 }).mode("generic");
    let server = world.start(&World::authority(&[SERVER]), &[("hosts.txt", TABLE)]);
    ask(20);
    world.check_served(&server, DEVICE, [20, 20]);
    drop(server);
    // The server does not fall back to generic mode on a pair, because that mode would treat a batch that the
    // other end left unsegmented as one datagram.
    check_lack(&world, "-sys_boot", "--nofile=4096", "mode native");
}

fn program_is_gone_with_the_process(way: Way) {
    use rustix::process::Signal;
    let world = World::new(way);
    let is_attached = || world.ip("-d link show dev v0").contains("xdp");
    for signal in [Signal::TERM, Signal::KILL, Signal::TERM] {
        // The server starts at once, on queues that the previous process held a moment ago.
        let mut server = world.start(&World::authority(&[SERVER]), &[("hosts.txt", TABLE)]);
        assert!(is_attached());
        ask(10);
        world.check_served(&server, DEVICE, [10, 10]);
        server.process.signal(signal);
        let status = server.process.wait_for_exit();
        assert_eq!(status.code(), (signal == Signal::TERM).then_some(0));
        until("the program is gone", || (!is_attached()).then_some(()));
    }
}
