//! Tests of which sockets are kept, bound and assigned.

use std::iter;
use std::path::Path;

use dns::address::ListenUrl;

use super::*;

/// Returns a config with a forwarder on two addresses, an authority and an admin server.
fn config(workers: usize, ports: [u16; 3]) -> Config {
    let [first, second, authority] = ports;
    let text = format!(
        "workers = {workers}\n\
         [forwarder]\nlisten = ['127.0.0.1:{first}', '127.0.0.2:{second}']\nroutes = {{ '.' = 'p' }}\n\
         [pools.p]\nbackends = ['127.0.0.1:1']\n\
         [authorities.ts1]\nlisten = ['127.0.0.1:{authority}']\nzones = ['a.txt']\n\
         [admin]\nlisten = '127.0.0.1:0'\nsocket = 'off'\n"
    );
    Config::parse(&text, "config.toml", Path::new("")).expect("a sound config")
}

/// Opens the listeners of a config. Returns also the names of unused inherited sockets.
fn open(config: &Config, passed: Vec<ListeningSocket>) -> (Listeners, Vec<String>) {
    let (listeners, unused) = Listeners::open(config, passed).expect("loopback is free");
    (listeners, unused.into_iter().map(|socket| socket.name).collect())
}

/// Returns the number of UDP sockets of the forwarder per worker.
fn read_by_each(listeners: &Listeners) -> Vec<usize> {
    let addresses = || listeners.section(&SectionName::Forwarder).expect("there is one").addresses.iter();
    let sockets = |worker| {
        let sockets = addresses().map(|address| address.of_worker(worker, listeners.workers));
        sockets.map(|sockets| sockets.expect("there are descriptors").udp.len()).sum()
    };
    (0..listeners.workers).map(sockets).collect()
}

#[test]
fn passed_sockets_keep_their_address_and_are_dealt_to_the_workers() {
    let (first, _) = open(&config(3, [0; 3]), Vec::new());
    assert_eq!(read_by_each(&first), [2, 2, 2]);
    let bound = first.addresses();
    // Port 0 is the port that the socket of this name has.
    for (workers, read) in [(3, vec![2, 2, 2]), (2, vec![4, 2]), (5, vec![2; 5])] {
        let passed = first.to_pass().expect("there are descriptors");
        assert_eq!(passed.len(), 3 * 3 * 2 + 1);
        let (second, unused) = open(&config(workers, [0; 3]), passed);
        assert_eq!((second.addresses(), read_by_each(&second)), (bound.clone(), read));
        assert_eq!(unused, [""; 0]);
        let group = &second.sections[0].addresses[0].group;
        assert_eq!((group.udp.len(), group.tcp.len()), (workers.max(3), workers.max(3)));
    }
}

#[test]
fn sockets_of_workers_that_have_none_are_bound_when_somebody_reads_them() {
    let (first, _) = open(&config(1, [0; 3]), Vec::new());
    let passed = first.to_pass().expect("there are descriptors");
    let (mut second, _) = Listeners::inherit(&config(3, [0; 3]), passed).expect("nothing is bound");
    let sockets = |listeners: &Listeners| {
        let group = &listeners.sections[0].addresses[0].group;
        [group.udp.len(), group.tcp.len()]
    };
    assert_eq!((sockets(&second), read_by_each(&second)), ([1, 1], vec![2; 3]));
    second.fill();
    assert_eq!((sockets(&second), read_by_each(&second)), ([3, 3], vec![2; 3]));
}

#[test]
fn what_is_passed_and_not_in_the_config_is_handed_back() {
    let (first, _) = open(&config(1, [0; 3]), Vec::new());
    let [one, other, of_authority] = first.for_queries().map(|address| address.port()).collect::<Vec<_>>()[..] else {
        panic!("three addresses");
    };
    // By address, whatever its name; without a port, by name.
    let (second, unused) = open(&config(1, [other, 0, one]), {
        let mut passed = first.to_pass().expect("there are descriptors");
        passed.iter_mut().for_each(|socket| {
            if socket.name == "forwarder.1" {
                socket.name = "other.1".to_owned();
            }
        });
        passed
    });
    let ports: Vec<_> = second.for_queries().map(|address| address.port()).collect();
    assert_eq!((ports[0], ports[2]), (other, one));
    assert!(![one, other, of_authority].contains(&ports[1]), "{ports:?}");
    // 127.0.0.2 has not become 127.0.0.1.
    assert_eq!(unused, ["other.1", "other.1", "ts1.0", "ts1.0"]);
}

#[test]
fn sockets_that_nobody_may_join_are_shared() {
    // Another test may have the TCP port.
    let bound = iter::repeat_with(|| UdpSocket::bind("127.0.0.1:0").expect("loopback"));
    let has_tcp = |udp: &UdpSocket| TcpListener::bind(udp.local_addr().expect("it is bound")).is_ok();
    let alone = bound.take(100).find(has_tcp).expect("a port is free");
    let port = alone.local_addr().expect("it is bound").port();
    let passed = ListeningSocket::inherited(alone.into(), String::new(), 3).expect("it is bound");
    let (listeners, _) = open(&config(4, [port, 0, 0]), vec![passed]);
    let group = &listeners.sections[0].addresses[0].group;
    assert_eq!((group.udp.len(), group.tcp.len()), (1, 4));
    assert_eq!(read_by_each(&listeners), [2; 4]);
}

#[test]
fn every_socket_is_read_by_somebody_and_every_worker_reads_one() {
    for workers in 1..9 {
        for count in 1..9 {
            let sockets: Vec<usize> = (0..count).collect();
            let mut read: Vec<usize> = Vec::new();
            for worker in 0..workers {
                let of_one: Vec<_> = dealt(&sockets, worker, workers).copied().collect();
                assert!(!of_one.is_empty(), "{workers} {count}");
                read.extend(of_one);
            }
            assert_eq!(read.len(), count.max(workers));
            read.sort_unstable();
            read.dedup();
            assert_eq!(read, sockets);
        }
    }
}
#[test]
fn an_address_keeps_its_sockets_whatever_section_it_is_of() {
    let (first, _) = open(&config(2, [0; 3]), Vec::new());
    let port = |section: usize, place: usize| first.sections[section].addresses[place].bound().port();
    // The authority has the forwarder's earlier address, and the second address is gone.
    let mut other = config(2, [port(1, 0), 0, port(0, 0)]);
    other.forwarder.as_mut().expect("there is one").listen.pop();
    let second = first.reload(&other).expect("nothing is bound anew");
    assert!(Arc::ptr_eq(&second.sections[0].addresses[0], &first.sections[1].addresses[0]));
    assert!(Arc::ptr_eq(&second.sections[1].addresses[0], &first.sections[0].addresses[0]));
    assert!(second.has(&first.sections[0].addresses[0]) && !second.has(&first.sections[0].addresses[1]));
    assert!(Arc::ptr_eq(
        &second.admin.as_ref().expect("there is one").tcp,
        &first.admin.as_ref().expect("there is one").tcp
    ));
    // A new address has a number that is not in use.
    let third = second.reload(&config(2, [port(1, 0), 0, port(0, 0)])).expect("a port is free");
    let numbers: Vec<u16> =
        first.all().chain(&third.sections[0].addresses[1..]).map(|address| address.number).collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
    drop(first);
    let fourth = second.reload(&config(2, [port_of(&third), 0, 0])).expect("a port is free");
    assert_eq!(fourth.sections[0].addresses[0].number, 1, "it is free again");
}

fn port_of(listeners: &Listeners) -> u16 {
    listeners.sections[0].addresses[1].bound().port()
}

#[test]
fn an_address_in_use_is_told_with_its_key_and_changes_nothing() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let (first, _) = open(&config(1, [0; 3]), Vec::new());
    let port = taken.local_addr().expect("it is bound").port();
    let error = first.reload(&config(1, [0, 0, port])).expect_err("it is in use").to_string();
    let reported =
        format!("authorities.ts1.listen[0]: cannot listen on 127.0.0.1:{port} (UDP): port {port} is in use; stop");
    assert!(error.starts_with(&reported), "{error}");
    assert!(first.reload(&config(1, [0; 3])).is_ok_and(|same| same.is_same(&first)));
}

#[test]
fn all_addresses_may_stand_for_one_that_leaves() {
    let (first, _) = open(&config(1, [0; 3]), Vec::new());
    let bound = first.sections[0].addresses[0].bound();
    let all = |listen: &str| {
        let mut config = config(1, [0; 3]);
        config.forwarder.as_mut().expect("there is one").listen =
            vec![listen.parse::<ListenUrl>().expect("an address").into()];
        config
    };
    let any = format!("0.0.0.0:{}", bound.port());
    let second = first.reload(&all(&any)).expect("only ours has the port");
    assert_eq!(second.sections[0].addresses[0].bound().to_string(), any);
    let third = second.reload(&all(&bound.to_string())).expect("only ours has the port");
    assert_eq!(third.sections[0].addresses[0].bound(), bound);
    // But not beside an address that stays.
    let mut both = all(&any);
    both.forwarder.as_mut().expect("there is one").listen.push(bound.into());
    assert!(first.reload(&both).is_err_and(|error| error.to_string().contains("is in use")));
}

#[test]
fn encrypted_listeners_are_passed_on_and_have_no_sockets_for_datagrams() {
    let text = "workers = 2\n[authorities.ts1]\nlisten = ['tls://127.0.0.1:0', '127.0.0.1:0', 'tcp://127.0.0.1:0']\n\
                zones = ['a.txt']\n[certificates.main]\nchain = 'c'\nkey = 'k'\n";
    let config = Config::parse(text, "config.toml", Path::new("")).unwrap_or_else(|problems| panic!("{problems}"));
    let (first, _) = open(&config, Vec::new());
    let kinds = |listeners: &Listeners| {
        let group =
            |address: &Arc<ServedAddress>| (address.group.udp.len(), address.group.tcp.len(), address.tls().is_some());
        listeners.all().map(group).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&first), [(0, 2, true), (2, 2, false), (0, 2, false)]);
    let passed = first.to_pass().expect("there are descriptors");
    let (second, unused) = open(&config, passed);
    assert_eq!((second.addresses(), kinds(&second), unused), (first.addresses(), kinds(&first), Vec::new()));
    let shown: Vec<_> = second.addresses()[0].1.iter().map(ToString::to_string).collect();
    assert!(shown[0].starts_with("tls://127.0.0.1:") && shown[2].starts_with("tcp://127.0.0.1:"), "{shown:?}");
    // A reload keeps remaining sockets, and uses no plain listener for an encrypted one.
    let kept = first.reload(&config).expect("nothing is bound");
    assert!(kept.is_same(&first));
}

#[test]
fn what_shares_a_port_by_the_handshake_shares_its_sockets() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("loopback");
    let config = |listen: &str| {
        let listen = listen.replace("AT", &free.to_string());
        let text = format!(
            "workers = 2\n[authorities.ts1]\nlisten = [{listen}]\nzones = ['a.txt']\n[certificates.main]\nchain = 'c'\nkey = 'k'\n"
        );
        Config::parse(&text, "config.toml", Path::new("")).unwrap_or_else(|problems| panic!("{problems}"))
    };
    let both = config("'https://AT/q', 'tcp://127.0.0.1:0', 'tls://AT'");
    let (first, _) = open(&both, Vec::new());
    let reported = |listeners: &Listeners| -> Vec<_> {
        listeners.addresses()[0].1.iter().map(|address| address.to_string().replace(&free.to_string(), "AT")).collect()
    };
    assert_eq!((reported(&first)[0].as_str(), reported(&first)[2].as_str()), ("https://AT", "tls://AT"));
    assert_eq!(first.sections[0].addresses.len(), 2, "two of three are one");
    // In the order of the config, another process has the same.
    let passed = first.to_pass().expect("there are descriptors");
    let (second, unused) = open(&both, passed);
    assert_eq!((reported(&second), unused), (reported(&first), Vec::new()));
    // A protocol is removed, added, or has another path: this binds nothing.
    let spoken = |listeners: &Listeners| {
        let protocols = listeners.sections[0].addresses[0].spoken().load_full();
        (protocols.is_dns, protocols.http.as_ref().map(|path| path.as_str().to_owned()))
    };
    let mut last = first;
    for (listen, expected) in [
        ("'tls://AT', 'tcp://127.0.0.1:0'", (true, None)),
        ("'https://AT', 'tcp://127.0.0.1:0'", (false, Some("/dns-query"))),
        ("'https://AT/r', 'tcp://127.0.0.1:0', 'tls://AT'", (true, Some("/r"))),
    ] {
        let config = config(listen);
        let next = last.reload(&config).expect("nothing is bound");
        assert!(Arc::ptr_eq(&next.sections[0].addresses[0], &last.sections[0].addresses[0]), "{listen}");
        assert!(!next.is_same(&last), "the summary differs");
        next.set_rules(&config);
        assert_eq!(spoken(&next), (expected.0, expected.1.map(str::to_owned)), "{listen}");
        last = next;
    }
}
