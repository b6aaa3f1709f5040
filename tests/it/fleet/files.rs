//! Members that a file lists.

use std::fs;
use std::net::SocketAddr;

use super::*;

/// Puts a file in place as a whole.
fn write(server: &Server, content: &str) {
    let fresh = server.path("fresh.json");
    fs::write(&fresh, content).expect("our own folder");
    fs::rename(fresh, server.path("members.json")).expect("our own folder");
}

fn list(addresses: &[SocketAddr]) -> String {
    let items: Vec<_> = addresses.iter().map(|address| member(*address)).collect();
    format!("[{}]", items.join(","))
}

#[test]
fn a_file_lists_members_and_what_is_wrong_with_it_changes_nothing() {
    let backends = [(); 3].map(|()| Backend::new(answer("192.0.2.1")));
    let addresses = backends.each_ref().map(Backend::address);
    let config = forwarder("file = 'members.json'\nhold = '0s'", "");
    let server = Server::start_with_files(&config, &[("members.json", &list(&addresses[..2]))]);
    wait_for_up(&server, 2);
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), ["192.0.2.1"]);
    write(&server, &list(&addresses));
    wait_for_up(&server, 3);
    for (broken, reason) in
        [("", "it is empty"), ("[{\"address\":", "no array of members"), ("{}", "no array of members")]
    {
        write(&server, broken);
        let source = wait_for_source(&server, "stale");
        assert!(source["failure"].as_str().expect("a reason").contains(reason), "{source}");
        wait_for_members(&server, &addresses);
        write(&server, &list(&addresses));
        wait_for_source(&server, "fresh");
    }
    fs::remove_file(server.path("members.json")).expect("our own file");
    wait_for_source(&server, "stale");
    wait_for_members(&server, &addresses);
    write(&server, &list(&addresses[1..]));
    wait_for_members(&server, &addresses[1..]);
    // The list is empty: no member that is up leaves.
    write(&server, "[]");
    wait_for_source(&server, "doubted");
    wait_for_members(&server, &addresses[1..]);
    assert_eq!(server.admin().metrics().sum("hedgerow_discovery_fresh", &[("pool", "ts"), ("source", "file")]), 0);
}

#[test]
fn ten_thousand_entries_are_read_and_those_beyond_the_bound_refused() {
    let backend = Backend::new(answer("192.0.2.1"));
    let others = (0..10_000_u32).map(|number| {
        let [_, _, high, low] = number.to_be_bytes();
        SocketAddr::from(([127, 77, high, low], 9))
    });
    let all: Vec<_> = [backend.address()].into_iter().chain(others).collect();
    let config = forwarder("file = 'members.json'\nmax = 50", "");
    let server = Server::start_with_files(&config, &[("members.json", &list(&all))]);
    let source = wait_for_source(&server, "fresh");
    assert_eq!((&source["members"], &source["refused_count"]), (&50.into(), &9951.into()));
    assert_eq!(members(&server).len(), 50);
    assert!(
        refused(&server)[0].ends_with("the pool has 50 members, the limit that `max` sets"),
        "{:?}",
        refused(&server)[0]
    );
}

#[test]
fn a_pool_without_members_says_so_until_one_comes() {
    let backend = Backend::new(answer("192.0.2.1"));
    let server = Server::start_with_files(&forwarder("file = 'members.json'", ""), &[("members.json", "[]")]);
    let response = server.client().ask(&query("www.example", A));
    assert_eq!(response.rcode(), NXDOMAIN, "on_all_down");
    write(&server, &list(&[backend.address()]));
    wait_for_up(&server, 1);
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), ["192.0.2.1"]);
    let metrics = server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_discovery_changes_total", &[("source", "file"), ("change", "joined")]), 1);
    let url = format!("http://{}", server.admin().address());
    // What a source lists is not removed by hand, which it would undo.
    let output = server.process.ctl(&["--admin", &url, "remove", "ts", &backend.address().to_string()]);
    let reported = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && reported.contains("is listed by a source"), "{reported}");
    let output = server.process.ctl(&["--admin", &url, "members"]);
    let reported = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && reported.contains("file") && reported.contains(&backend.address().to_string()),
        "{reported}"
    );
}

#[test]
fn whatever_becomes_of_the_file_no_query_is_lost() {
    let backends = backends(4);
    let all = addresses(&backends);
    let config = forwarder("file = 'members.json'\nhold = '1s'\nmax = 50", "");
    let server = Server::start_with_files(&config, &[("members.json", &list(&all[..3]))]);
    wait_for_up(&server, 3);
    let load = Load::start(server.address(), RATE);
    let failed = |reason: &str| {
        wait_for_pool(&server, reason, |pool| {
            pool["sources"][0]["failure"].as_str().is_some_and(|failure| failure.contains(reason)).then_some(())
        });
        wait_for_members(&server, &all[..3]);
    };
    // Half-written, in place, emptied, and removed.
    let whole = list(&all[..3]);
    server.rewrite("members.json", &whole[..whole.len() / 2]);
    failed("no array of members");
    server.rewrite("members.json", "");
    failed("it is empty");
    fs::remove_file(server.path("members.json")).expect("our own file");
    failed("No such file");
    write(&server, "[]");
    wait_for_source(&server, "doubted");
    wait_for_members(&server, &all[..3]);
    // Another in its place: one less, and one more.
    write(&server, &list(&all[1..]));
    wait_for_members(&server, &all[1..]);
    // Ten thousand, of which the pool takes 50. Members without a listener leave at once.
    let others = (0..10_000_u16).map(|number| {
        let [high, low] = number.to_be_bytes();
        SocketAddr::from(([127, 77, high, low], 9))
    });
    write(&server, &list(&all[1..].iter().copied().chain(others).collect::<Vec<_>>()));
    wait_for_pool(&server, "50 are members", |pool| (members_of(pool).len() == 50).then_some(()));
    write(&server, &list(&all[1..]));
    wait_for_members(&server, &all[1..]);
    load.stop().check("a file", &server.admin());
    assert_eq!((changes(&server, "joined"), changes(&server, "left")), (4 + 47, 1 + 47));
}
