//! Keys that do not rest.

use super::*;

#[test]
fn a_key_that_is_written_a_hundred_times_a_second_disturbs_nobody() {
    let Some(etcd) = Etcd::start() else { return };
    let backends = registered(&etcd, 3);
    let server = Server::start(&forwarder("etcd = 'ts'", &etcd.section()));
    wait_for_up(&server, 3);
    let load = Load::start(server.address(), RATE);
    let address = backends[0].address();
    let mut weight = 0;
    // Ten seconds are fifty times as long as news are gathered.
    for round in 0..1000 {
        weight = round % 999 + 1;
        let value = format!(r#"{{"address":"{address}","weight":{weight}}}"#);
        etcd.change(&[(key(address), Some(value.into_bytes()))]);
        load.run_for(ms(10));
    }
    wait_for_pool(&server, "it has its last weight", |pool| {
        let mut backends = pool["backends"].as_array().expect("a list").iter();
        backends.any(|one| one["address"] == address.to_string() && one["weight"] == weight).then_some(())
    });
    load.stop().check("a hundred a second", &server.admin());
    assert_eq!((changes(&server, "joined"), changes(&server, "left")), (3, 0));
}

#[test]
fn who_comes_and_goes_each_second_stays_served() {
    let Some(etcd) = Etcd::start() else { return };
    let backends = registered(&etcd, 3);
    let server = Server::start(&forwarder("etcd = 'ts'", &etcd.section()));
    wait_for_up(&server, 3);
    let load = Load::start(server.address(), RATE);
    let address = backends[0].address();
    for _ in 0..6 {
        for value in [None, Some(member(address).into_bytes())] {
            etcd.change(&[(key(address), value)]);
            let asked = backends[0].queries().len();
            load.run_for(ms(500));
            let more = backends[0].queries().len() - asked;
            assert!(more > 100, "it is asked all the time: {more}");
        }
    }
    load.stop().check("it comes and goes", &server.admin());
    assert_eq!((changes(&server, "joined"), changes(&server, "left")), (3, 0));
}
