//! An etcd that is away for long, dies again and again, has another past, is full, or knows its users no
//! more.

use super::*;

/// An LS and TS that are registered, with leases of 2 s.
fn fleet(etcd: &Etcd) -> (Server, Vec<Server>) {
    let authorities: Vec<_> = (0..3).map(|_| authority(etcd)).collect();
    let server = Server::start(&forwarder("etcd = 'ts'", &etcd.section()));
    wait_for_up(&server, 3);
    (server, authorities)
}

/// Checks that the members are as before, and that none has left meanwhile.
fn check(server: &Server, authorities: &[Server], load: Load, what: &str) {
    wait_for_source(server, "fresh");
    wait_for_members(server, &listeners(authorities));
    load.stop().check(what, &server.admin());
    assert_eq!(changes(server, "left"), 0, "{what}");
}

#[test]
fn who_is_registered_stays_while_etcd_is_away_for_longer_than_leases() {
    let Some(mut etcd) = Etcd::start() else { return };
    let (server, authorities) = fleet(&etcd);
    let load = Load::start(server.address(), RATE);
    // Longer than two leases, of which 2 s is the minimum. After them nothing else ends by itself: an hour
    // would be no other case.
    etcd.kill();
    load.run_for(ms(4500));
    wait_for_source(&server, "stale");
    etcd.restart();
    wait_for_source(&server, "fresh");
    etcd.stop();
    load.run_for(ms(4500));
    wait_for_source(&server, "stale");
    etcd.resume();
    check(&server, &authorities, load, "etcd away");
}

#[test]
fn an_etcd_that_dies_ten_times_costs_nothing() {
    let Some(mut etcd) = Etcd::start() else { return };
    let (server, authorities) = fleet(&etcd);
    let load = Load::start(server.address(), RATE);
    for _ in 0..10 {
        etcd.kill();
        etcd.restart();
    }
    check(&server, &authorities, load, "ten deaths");
}

#[test]
fn an_old_past_takes_nobody_away_who_is_up_but_by_the_rule() {
    let Some(mut etcd) = Etcd::start() else { return };
    let old = registered(&etcd, 2);
    let saved = etcd.save();
    let new = registered(&etcd, 4);
    let server = Server::start(&forwarder("etcd = 'ts'\nhold = '2s'", &etcd.section()));
    wait_for_up(&server, 6);
    let load = Load::start(server.address(), RATE);
    let all = [addresses(&old), addresses(&new)].concat();
    etcd.restore(&saved);
    // Two of six: that is doubted, for longer than the 2 s for which a member is held.
    wait_for_source(&server, "doubted");
    load.run_for(ms(2500));
    wait_for_members(&server, &all);
    // One more of them is a half: the doubt is over, and the others go after the time for which they are
    // held.
    etcd.put(&key(all[2]), &member(all[2]));
    wait_for_source(&server, "fresh");
    wait_for_members(&server, &all);
    wait_for_members(&server, &all[..3]);
    load.stop().check("an old past", &server.admin());
    assert_eq!((changes(&server, "joined"), changes(&server, "left")), (6, 3));
}

#[test]
fn a_full_disk_keeps_out_who_comes_and_nobody_else() {
    let Some(etcd) = Etcd::start_with(&["--quota-backend-bytes", "8000000"]) else { return };
    let (server, mut authorities) = fleet(&etcd);
    let load = Load::start(server.address(), RATE);
    let many = "x".repeat(1_000_000);
    until("it is full", || {
        let output = etcd.try_put("filler", &many);
        String::from_utf8_lossy(&output.stderr).contains("database space exceeded").then_some(())
    });
    assert!(etcd.ctl(&["alarm", "list"]).contains("NOSPACE"));
    let late = authority(&etcd);
    late.process.wait_for_log("cannot be registered: etcdserver: mvcc: database space exceeded");
    // Longer than two leases: members that are there keep theirs.
    load.run_for(ms(4500));
    wait_for_members(&server, &listeners(&authorities));
    assert_eq!(pool(&server)["sources"][0]["state"], "fresh");
    let revision: Value = serde_json::from_str(&etcd.ctl(&["get", "x", "-w", "json"])).expect("JSON");
    etcd.ctl(&["compaction", &revision["header"]["revision"].to_string()]);
    etcd.ctl(&["defrag"]);
    etcd.ctl(&["alarm", "disarm"]);
    authorities.push(late);
    wait_for_up(&server, 4);
    check(&server, &authorities, load, "a full disk");
}

#[test]
fn a_token_that_is_no_longer_good_is_renewed() {
    // Each `etcdctl` here logs in, and the usual cost makes that slow.
    let Some(etcd) = Etcd::start_with(&["--bcrypt-cost", "4"]) else { return };
    let mut backends = registered(&etcd, 2);
    for words in ["user add root:secret", "user grant-role root root", "role add ls", "user add ls:secret"] {
        etcd.try_ctl(&words.split(' ').collect::<Vec<_>>());
    }
    let root = |line: &str| etcd.ctl(&[&["--user", "root:secret"], &line.split(' ').collect::<Vec<_>>()[..]].concat());
    etcd.ctl(&["role", "grant-permission", "ls", "--prefix=true", "read", "hedgerow/"]);
    etcd.ctl(&["user", "grant-role", "ls", "ls"]);
    etcd.ctl(&["auth", "enable"]);
    let config =
        forwarder("etcd = 'ts'\nhold = '0s'", &format!("{}user = 'ls'\npassword_file = 'pw'\n", etcd.section()));
    let server = Server::start_with_files(&config, &[("pw", "secret\n")]);
    wait_for_up(&server, 2);
    let load = Load::start(server.address(), RATE);
    // What comes now is heard of.
    let mut heard = |root: &dyn Fn(&str) -> String, load: &Load| {
        // Longer than between two keep-alives, the first of which has a new token. `SIGN_OF_LIFE` is 2 s and
        // no key changes it.
        load.run_for(ms(2500));
        wait_for_source(&server, "fresh");
        let backend = Backend::new(load_answer());
        root(&format!("put {} {}", key(backend.address()), member(backend.address())));
        backends.push(backend);
        wait_for_members(&server, &addresses(&backends));
    };
    // All tokens are void.
    root("auth disable");
    etcd.ctl(&["auth", "enable"]);
    heard(&root, &load);
    // That of one user is: it is deleted, and made again.
    root("user delete ls");
    wait_for_source(&server, "stale");
    root("user add ls:secret");
    root("user grant-role ls ls");
    heard(&root, &load);
    // It may not read any more.
    root("user revoke-role ls ls");
    wait_for_source(&server, "stale");
    root("user grant-role ls ls");
    heard(&root, &load);
    // Without users a name and a password do not matter.
    root("auth disable");
    heard(&|line| etcd.ctl(&line.split(' ').collect::<Vec<_>>()), &load);
    let other = Server::start_with_files(&config, &[("pw", "secret\n")]);
    wait_for_source(&other, "fresh");
    load.stop().check("tokens", &server.admin());
    assert_eq!(changes(&server, "left"), 0);
}
