//! Authorities that register themselves.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use testkit::peers::etcd::section;

use super::*;

fn is_registered(server: &Server) -> bool {
    server.admin().metrics().sum("hedgerow_registered", &[("authority", "one")]) == 1
}

/// How long after this moment, at most, the last query was sent to a member that leaves, as the LS counts
/// them; waits until it has left.
fn last_asked(server: &Server, member: SocketAddr, since: Instant) -> Duration {
    let last = Cell::new((Duration::ZERO, 0));
    server.admin().wait_for("it has left", |metrics| {
        let count = metrics.attempts(member, None);
        if count > last.get().1 {
            last.set((since.elapsed(), count));
        }
        !metrics.0.contains(&format!("backend=\"{member}\""))
    });
    last.get().0
}

#[test]
fn who_is_started_is_asked_and_who_is_stopped_is_gone_without_a_lost_query() {
    let Some(etcd) = Etcd::start() else { return };
    let first = authority(&etcd);
    let server = Server::start(&forwarder("etcd = 'ts'", &etcd.section()));
    wait_for_up(&server, 1);
    let load = Load::start(server.address(), 1000);
    let mut earlier = first;
    for _ in 0..3 {
        let next = authority(&etcd);
        wait_for_up(&server, 2);
        let (gone, stays) = (earlier.listener("one"), next.listener("one"));
        let begun = Instant::now();
        earlier.process.signal(Signal::TERM);
        println!("SIGTERM to the last query: {:?}", last_asked(&server, gone, begun));
        wait_for_members(&server, &[stays]);
        earlier.process.wait_for_exit();
        assert_ne!(gone, stays);
        earlier = next;
    }
    let report = load.stop();
    assert_eq!((report.lost(), report.wrong()), (0, 0));
}

#[test]
fn who_dies_is_replaced_without_a_lost_query() {
    let Some(etcd) = Etcd::start() else { return };
    let mut servers: Vec<_> = (0..3).map(|_| authority(&etcd)).collect();
    let server = Server::start(&forwarder("etcd = 'ts'\nhold = '30s'", &etcd.section()));
    wait_for_up(&server, 3);
    let load = Load::start(server.address(), 1000);
    load.run_for(ms(500));
    let metrics = server.admin().metrics();
    let asked = |authority: &Server| metrics.attempts(authority.listener("one"), None);
    servers.sort_by_key(asked);
    let mut dead = servers.pop().expect("one of three");
    assert!(asked(&dead) > 100, "it is the one that is asked most");
    let begun = Instant::now();
    dead.process.signal(Signal::KILL);
    println!("kill -9 to the last query: {:?}", last_asked(&server, dead.listener("one"), begun));
    dead.process.wait_for_exit();
    // Its lease ends, and it is down: it goes at once.
    wait_for_members(&server, &listeners(&servers));
    let report = load.stop();
    assert_eq!((report.lost(), report.wrong()), (0, 0));
}

#[test]
fn what_is_lost_in_etcd_is_registered_anew() {
    let Some(mut etcd) = Etcd::start() else { return };
    let ts = authority(&etcd);
    let is_there = |etcd: &Etcd| etcd.ctl(&["get", "--prefix", "hedgerow/"]).contains(&ts.listener("one").to_string());
    until("it is registered", || is_there(&etcd).then_some(()));
    assert!(is_registered(&ts));
    // The key alone, and then all that there is.
    etcd.ctl(&["del", "--prefix", "hedgerow/"]);
    until("it is registered again", || is_there(&etcd).then_some(()));
    etcd.kill();
    std::fs::remove_dir_all(etcd.data()).expect("our own folder");
    until("its lease is over", || (!is_registered(&ts)).then_some(()));
    etcd.restart();
    until("it is registered in the new one", || is_there(&etcd).then_some(()));
}

#[test]
fn a_key_of_another_is_left_alone_until_its_lease_is_over() {
    let Some(etcd) = Etcd::start() else { return };
    let address = free_address();
    let key = format!("hedgerow/pools/ts/members/{address}");
    let lease = etcd.ctl(&["lease", "grant", "60"]);
    let lease = lease.split(' ').nth(1).expect("a lease").to_owned();
    etcd.ctl(&["put", "--lease", &lease, &key, "theirs"]);
    let config = format!(
        "[authorities.one]\nlisten = ['{address}']\nzones = ['hosts.txt']\n[authorities.one.register]\netcd = 'ts'\nlease = '2s'\n\
         [admin]\nlisten = '127.0.0.1:0'\n{}",
        etcd.section()
    );
    let ts = Server::start_with_files(&config, &[("hosts.txt", "www.example 192.0.2.1 A\n")]);
    ts.process.wait_for_log("belongs to another instance");
    assert!(etcd.ctl(&["get", &key]).contains("theirs"));
    assert!(!is_registered(&ts));
    etcd.ctl(&["lease", "revoke", &lease]);
    until("it is ours", || etcd.ctl(&["get", &key]).contains("\"state\":\"up\"").then_some(()));
}

#[test]
fn the_end_does_not_wait_for_an_etcd_that_is_away() {
    let Some(etcd) = Etcd::start() else { return };
    let mut ts = authority(&etcd);
    until("it is registered", || is_registered(&ts).then_some(()));
    etcd.stop();
    ts.process.signal(Signal::TERM);
    assert!(ts.process.wait_for_exit().success());
    assert!(ts.process.log().contains("the registration stays until its lease expires"), "{}", ts.process.log());
    etcd.resume();
}

#[test]
fn two_commands_make_a_fleet() {
    let Some(etcd) = Etcd::start() else { return };
    let table = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(table.path(), "www.example 192.0.2.1 A\n").expect("our own file");
    let url = format!("http://{}", etcd.address());
    let table = table.path().display().to_string();
    let ts = Server::run(["ts", "-l", "127.0.0.1:0", "--etcd", &url, "--register", "ts", &table]);
    ts.process.wait_for_log("registered");
    let ls = Server::run(["ls", "-l", "127.0.0.1:0", "--etcd", &url, "--discover", "ts"]);
    assert_eq!(ls.client().ask(&query("www.example", A)).answers(), ["192.0.2.1"]);
}

#[test]
fn a_zone_that_never_comes_delays_it_and_no_more() {
    let Some(etcd) = Etcd::start() else { return };
    let silent = free_address();
    let config = |wait: &str| {
        format!(
            "[authorities.one]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt', {{ zone = 'example.org', primaries = ['{silent}'] }}]\n\
             [authorities.one.register]\netcd = 'ts'\nwait = '{wait}'\n[admin]\nlisten = '127.0.0.1:0'\n{}",
            section(etcd.address())
        )
    };
    let hosts = &[("hosts.txt", "www.example 192.0.2.1 A\n")];
    let patient = Server::start_with_files(&config("1h"), hosts);
    let hasty = Server::start_with_files(&config("300ms"), hosts);
    until("it is registered even so", || is_registered(&hasty).then_some(()));
    assert!(hasty.process.log().contains("not all zones are served"));
    assert!(!is_registered(&patient));
}
