//! Entries that are wrong: each is refused by itself, and all others count.

use super::*;

#[test]
fn every_kind_of_poison_is_refused_alone() {
    let Some(etcd) = Etcd::start() else { return };
    let good: Vec<_> = (0..50).map(|_| Backend::new(answer("192.0.2.1"))).collect();
    for backend in &good {
        etcd.put_member("ts", &backend.address().to_string(), &member(backend.address()));
    }
    let server = Server::start(&forwarder("etcd = 'ts'\nallow = ['127.0.0.0/8']\nmax = 51", &etcd.section()));
    wait_for_up(&server, 50);
    let own = server.address();
    let taken = good[0].address();
    let long = "x".repeat(1 << 20);
    for (poison, reason) in [
        ("nonsense".to_owned(), "no JSON"),
        (long, "octets, expected 4096 at most"),
        (r#"{"address":"127.0.0.1:0"}"#.to_owned(), "expected a port from 1 to 65535"),
        (r#"{"address":"192.0.2.1:53"}"#.to_owned(), "is in no prefix of `allow`"),
        (format!(r#"{{"address":"{own}"}}"#), "is a listener of this process"),
        (format!(r#"{{"address":"127.0.0.9:53","name":"{taken}"}}"#), "is that of"),
        (r#"{"address":"127.0.0.9:53","weight":-1}"#.to_owned(), "weight -1: expected an integer from 1 to 1000"),
    ] {
        etcd.put_member("ts", "poison", &poison);
        let reported = until(reason, || {
            let refused = refused(&server);
            (refused.len() == 1 && refused[0].contains(reason)).then(|| refused[0].clone())
        });
        assert!(reported.starts_with("poison: "), "{reported}");
        assert_eq!(members(&server).len(), 50, "{reason}");
        assert_eq!(server.admin().metrics().sum("hedgerow_discovery_refused", &[("pool", "ts")]), 1);
    }
    etcd.ctl(&["del", "hedgerow/pools/ts/members/poison"]);
    until("nothing is refused any more", || refused(&server).is_empty().then_some(()));
    // The 51st member is one, the 52nd is not.
    etcd.put_member("ts", "51", r#"{"address":"127.0.0.9:53"}"#);
    until("there is one more", || (members(&server).len() == 51).then_some(()));
    etcd.put_member("ts", "52", r#"{"address":"127.0.0.8:53"}"#);
    until("it is one too many", || {
        refused(&server).first().is_some_and(|reported| reported.contains("`max`")).then_some(())
    });
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), ["192.0.2.1"]);
    let log = server.process.log();
    let lines = log.lines().filter(|line| line.contains("an entry of a member source is invalid and ignored"));
    assert_eq!(lines.count(), 8, "each is logged once: {log}");
}
