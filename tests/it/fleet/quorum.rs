//! An etcd of three members, and LS that do not see the same.

use std::time::{Duration, Instant};

use testkit::peers::etcd::{Relay, section};

use super::*;

/// Within that an LS says that it is cut off, and after that it knows what others know.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn on_the_side_without_a_majority_a_list_is_stale_within_five_seconds() {
    let Some([one, mut two, mut three]) = Etcd::start_three() else { return };
    let backends = registered(&one, 3);
    let config =
        |endpoints: String| forwarder("etcd = 'ts'\nhold = '0s'", &format!("[etcd]\nendpoints = [{endpoints}]\n"));
    let all = [&one, &two, &three].map(|etcd| format!("'http://{}'", etcd.address())).join(", ");
    let servers = [format!("'http://{}'", one.address()), all].map(|endpoints| Server::start(&config(endpoints)));
    servers.iter().for_each(|server| wait_for_up(server, 3));
    let load = Load::start_at_both([servers[0].address(), servers[1].address()], RATE);
    // Each change takes up to 5 s. The code fixes most of that: keep-alives are 2 s apart, and tries up to 4
    // s.
    let wait = |state: &str| {
        let begun = Instant::now();
        servers.iter().for_each(|server| drop(wait_for_source(server, state)));
        begun.elapsed()
    };
    two.kill();
    three.kill();
    let took = wait("stale");
    println!("two of three killed: stale after {took:?}");
    assert!(took < SOON, "{took:?}");
    // A server that starts now gets the members that this etcd member still knows.
    let late = Server::start(&config(format!("'http://{}'", one.address())));
    wait_for_up(&late, 3);
    assert_eq!(pool(&late)["sources"][0]["state"], "stale");
    is_answered(&late);
    two.start_again();
    three.start_again();
    println!("started again: fresh after {:?}", wait("fresh"));
    // Two that hang are no majority either, and cost the time limit of each.
    two.stop();
    three.stop();
    let took = wait("stale");
    println!("two of three stopped: stale after {took:?}");
    assert!(took < SOON, "{took:?}");
    two.resume();
    three.resume();
    wait("fresh");
    let report = load.stop();
    servers.iter().for_each(|server| wait_for_members(server, &addresses(&backends)));
    report.check_all("two of three killed", &[&servers[0].admin(), &servers[1].admin()]);
    assert_eq!(servers.each_ref().map(|server| changes(server, "left")), [0, 0]);
}

#[test]
fn two_with_different_views_both_answer_and_agree_soon_after() {
    let Some(etcd) = Etcd::start() else { return };
    let relay = Relay::to(etcd.address());
    let mut backends = registered(&etcd, 4);
    let config = |etcd: &str| forwarder("etcd = 'ts'\nhold = '0s'", etcd);
    let servers = [Server::start(&config(&etcd.section())), Server::start(&config(&section(relay.address())))];
    servers.iter().for_each(|server| wait_for_up(server, 4));
    let load = Load::start_at_both([servers[0].address(), servers[1].address()], RATE);
    relay.cut();
    wait_for_source(&servers[1], "stale");
    let of_cut = addresses(&backends);
    // It still runs, but is no member for the etcd members of the majority.
    let gone = backends.remove(0);
    etcd.ctl(&["del", &key(gone.address())]);
    backends.extend(registered(&etcd, 1));
    wait_for_members(&servers[0], &addresses(&backends));
    // Long enough for the longest wait between two tries.
    load.run_for(ms(9000));
    wait_for_members(&servers[1], &of_cut);
    relay.mend();
    let begun = Instant::now();
    wait_for_members(&servers[1], &addresses(&backends));
    let took = begun.elapsed();
    println!("after the cut: they agree after {took:?}");
    assert!(took < SOON, "{took:?}");
    load.stop().check_all("two views", &[&servers[0].admin(), &servers[1].admin()]);
}
