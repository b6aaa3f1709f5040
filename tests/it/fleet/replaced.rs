//! Many TS at once: others in their place, or each of them anew.

use rustix::process::Signal;

use super::*;

#[test]
fn twenty_are_replaced_at_once_by_twenty_others() {
    let Some(etcd) = Etcd::start() else { return };
    let start = || -> Vec<_> { (0..20).map(|_| authority(&etcd)).collect() };
    let mut earlier = start();
    let server = Server::start(&forwarder("etcd = 'ts'", &etcd.section()));
    wait_for_up(&server, 20);
    let load = Load::start(server.address(), RATE);
    let later = start();
    wait_for_up(&server, 40);
    earlier.iter().for_each(|authority| authority.process.signal(Signal::TERM));
    wait_for_members(&server, &listeners(&later));
    earlier.iter_mut().for_each(|authority| assert!(authority.process.wait_for_exit().success()));
    load.run_for(ms(500));
    load.stop().check("twenty for twenty", &server.admin());
}

#[test]
fn keys_of_twenty_that_are_up_give_way_to_others_when_those_are_up() {
    let Some(etcd) = Etcd::start() else { return };
    let earlier = registered(&etcd, 20);
    let server = Server::start(&forwarder("etcd = 'ts'\nhold = '1s'", &etcd.section()));
    wait_for_up(&server, 20);
    let load = Load::start(server.address(), RATE);
    let later = backends(20);
    let gone = addresses(&earlier).into_iter().map(|address| (key(address), None));
    let come = addresses(&later).into_iter().map(|address| (key(address), Some(member(address).into_bytes())));
    etcd.change(&gone.chain(come).collect::<Vec<_>>());
    wait_for_members(&server, &addresses(&later));
    load.stop().check("all keys at once", &server.admin());
    assert_eq!((changes(&server, "joined"), changes(&server, "left")), (40, 20));
}

#[test]
fn ten_are_restarted_one_after_the_other() {
    let Some(etcd) = Etcd::start() else { return };
    let places: Vec<_> = (0..10).map(|_| free_address()).collect();
    let start = |place: SocketAddr| authority_with(&etcd, &place.to_string(), "", "");
    let mut all: Vec<_> = places.iter().map(|place| start(*place)).collect();
    let server = Server::start(&forwarder("etcd = 'ts'", &etcd.section()));
    wait_for_up(&server, 10);
    let load = Load::start(server.address(), RATE);
    for (number, place) in places.iter().enumerate() {
        all[number].process.signal(Signal::TERM);
        assert!(all[number].process.wait_for_exit().success());
        let others: Vec<_> = places.iter().copied().filter(|other| other != place).collect();
        wait_for_members(&server, &others);
        all[number] = start(*place);
        wait_for_up(&server, 10);
    }
    load.stop().check("a rolling restart", &server.admin());
    assert_eq!((changes(&server, "joined"), changes(&server, "left")), (20, 10));
}
