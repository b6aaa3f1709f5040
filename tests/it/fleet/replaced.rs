//! Many TS at once: others in their place, or each of them anew.

use std::thread;

use rustix::process::Signal;

use super::*;

/// Starts so many TS, two at a time: processes that start take whole cores, and twenty at once leave a server
/// beside them without a core for seconds.
fn start(etcd: &Etcd, count: usize) -> Vec<Server> {
    thread::scope(|scope| {
        let start = |count| scope.spawn(move || (0..count).map(|_| authority(etcd)).collect::<Vec<_>>());
        let halves = [count / 2, count.div_ceil(2)].map(start);
        halves.into_iter().flat_map(|half| half.join().expect("all are ready")).collect()
    })
}

#[test]
fn twenty_are_replaced_at_once_by_twenty_others() {
    let Some(etcd) = Etcd::start() else { return };
    let mut earlier = start(&etcd, 20);
    let server = Server::start(&forwarder("etcd = 'ts'", &etcd.section()));
    wait_for_up(&server, 20);
    let load = Load::start(server.address(), RATE_OF_MANY);
    let later = start(&etcd, 20);
    wait_for_up(&server, 40);
    earlier.iter().for_each(|authority| authority.process.signal(Signal::TERM));
    wait_for_members(&server, &listeners(&later));
    earlier.iter_mut().for_each(|authority| assert!(authority.process.wait_for_exit().success()));
    load.run_for(ms(500));
    load.stop().check("twenty for twenty", &server.admin());
    assert_eq!((changes(&server, "joined"), changes(&server, "left")), (40, 20));
}

#[test]
fn keys_of_twenty_that_are_up_give_way_to_others_when_those_are_up() {
    let Some(etcd) = Etcd::start() else { return };
    let earlier = registered(&etcd, 20);
    let server = Server::start(&forwarder("etcd = 'ts'\nhold = '1s'", &etcd.section()));
    wait_for_up(&server, 20);
    let load = Load::start(server.address(), RATE_OF_MANY);
    let later = backends(20);
    let gone = addresses(&earlier).into_iter().map(|address| (key(address), None));
    let come = addresses(&later).into_iter().map(|address| (key(address), Some(member(address).into_bytes())));
    etcd.change(&gone.chain(come).collect::<Vec<_>>());
    wait_for_members(&server, &addresses(&later));
    load.run_for(ms(500));
    load.stop().check("all keys at once", &server.admin());
    assert_eq!((changes(&server, "joined"), changes(&server, "left")), (40, 20));
}

#[test]
fn ten_are_restarted_one_after_the_other() {
    let Some(etcd) = Etcd::start() else { return };
    let mut all = start(&etcd, 10);
    let server = Server::start(&forwarder("etcd = 'ts'", &etcd.section()));
    wait_for_up(&server, 10);
    let load = Load::start(server.address(), RATE_OF_MANY);
    for _ in 0..10 {
        let mut earlier = all.remove(0);
        earlier.process.signal(Signal::TERM);
        assert!(earlier.process.wait_for_exit().success());
        wait_for_members(&server, &listeners(&all));
        // It may be at another port: that is another member.
        all.push(authority(&etcd));
        wait_for_up(&server, 10);
    }
    load.stop().check("a rolling restart", &server.admin());
    assert_eq!((changes(&server, "joined"), changes(&server, "left")), (20, 10));
}
