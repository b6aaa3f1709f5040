//! Tests of the pool state across config changes.

use std::path::Path;

use config::Config;

use super::*;
use crate::state::ForwarderState;

/// Returns a pool of backends with these last address bytes and weights.
fn config(keys: &str, members: &[(u16, u16)]) -> PoolConfig {
    let text = format!("[forwarder]\n[pools.ts]\nbackends = ['192.0.2.1:53']\n{keys}");
    let mut config = Config::parse(&text, "c.toml", Path::new("")).expect("a config").pools.remove(0);
    config.backends = members.iter().map(|&(member, weight)| backend(member, weight)).collect();
    config
}

fn backend(member: u16, weight: u16) -> BackendConfig {
    let address = BackendAddress::from(([127, 1, (member >> 8) as u8, member as u8], 53));
    BackendConfig { weight, ..BackendConfig::at(address) }
}

fn even(members: std::ops::Range<u16>) -> Vec<(u16, u16)> {
    members.map(|member| (member, 1)).collect()
}

#[test]
fn replicas_speak_for_each_other_and_others_do_not() {
    let id = |keys: &str, members| cache_identity(&config(keys, &even(members)));
    assert_eq!(id("replicas = true", 0..3), id("replicas = true", 2..9));
    assert_ne!(id("", 0..3), id("", 0..4));
    assert_ne!(id("replicas = true", 0..3), id("replicas = false", 0..3));
    assert_ne!(id("replicas = true", 0..3), id("replicas = true\naccept = 'any'", 0..3));
}

#[test]
fn trust_in_ad_is_that_of_the_newest_config_and_answers_do_not_outlive_it() {
    let first = SharedPool::new(config("", &even(0..2)), None, 1, Instant::now());
    let second = SharedPool::new(config("trust_ad = false", &even(0..3)), Some(&first), 1, Instant::now());
    assert!(Arc::ptr_eq(&second.backends[0], &first.backends[0]));
    assert!(second.backends.iter().all(|backend| !backend.is_ad_trusted()));
    let third = SharedPool::new(config("", &even(0..3)), Some(&second), 1, Instant::now());
    assert!(third.backends.iter().all(|backend| backend.is_ad_trusted()), "they are on loopback");
    for keys in ["", "replicas = true\n"] {
        let id = |trust: &str| cache_identity(&config(&format!("{keys}{trust}"), &even(0..3)));
        assert_ne!(id("trust_ad = true"), id("trust_ad = false"));
    }
}

#[test]
fn who_stays_is_the_same_with_another_weight_too() {
    let first = SharedPool::new(config("", &even(0..100)), None, 2, Instant::now());
    first.backends[7].drain(None);
    let second = SharedPool::new(config("", &[(7, 5), (200, 1), (8, 1)]), Some(&first), 2, Instant::now());
    assert!(
        Arc::ptr_eq(&second.backends[0], &first.backends[7]) && Arc::ptr_eq(&second.backends[2], &first.backends[8])
    );
    assert_eq!(second.weight(second.backends[0].index), 5);
    assert!(second.backends[0].is_draining());
    assert_eq!(second.backends[1].health(), HealthState::New);
    assert_eq!((second.edition.joined.len(), second.edition.left.len(), second.edition.number), (1, 98, 1));
    assert!(
        second.find(second.edition.joined[0]).is_some()
            && second.edition.left.iter().all(|left| second.find(*left).is_none())
    );
    assert!(first.crowd().is_some() && second.crowd().is_none());
}

#[test]
fn a_place_is_used_again_when_nobody_refers_to_its_backend() {
    let first = SharedPool::new(config("", &even(0..3)), None, 2, Instant::now());
    let indexes = |pool: &SharedPool| pool.backends.iter().map(|backend| backend.index.0).collect::<Vec<_>>();
    assert_eq!(indexes(&first), [0, 1, 2]);
    let known_to_a_race = Arc::clone(&first.backends[0]);
    let second = SharedPool::new(config("", &even(3..6)), Some(&first), 2, Instant::now());
    assert_eq!(indexes(&second), [3, 4, 5], "the ones before may have races");
    drop(first);
    let third = SharedPool::new(config("", &even(6..10)), Some(&second), 2, Instant::now());
    assert_eq!(indexes(&third), [1, 2, 6, 7]);
    drop((second, known_to_a_race));
    let fourth = SharedPool::new(config("", &even(20..22)), Some(&third), 2, Instant::now());
    assert_eq!(indexes(&fourth), [0, 3], "the one that has rested longest");
}

#[test]
fn a_crowd_is_made_anew_when_others_take_queries() {
    let pool = SharedPool::new(config("", &even(0..100)), None, 2, Instant::now());
    let crowd = || pool.crowd().expect("they are many");
    let before = crowd();
    assert!(!pool.renew_crowd());
    pool.state.announce(&pool.backends[0]);
    assert!(!pool.renew_crowd(), "its cookies have changed");
    assert!(Arc::ptr_eq(&before, &crowd()));
    pool.backends[0].drain(None);
    assert!(!pool.renew_crowd(), "no worker was notified");
    pool.state.announce(&pool.backends[0]);
    let epoch = pool.state.epoch();
    assert!(pool.renew_crowd() && !pool.renew_crowd());
    assert!(!Arc::ptr_eq(&before, &crowd()));
    assert!(pool.state.epoch() > epoch, "workers are notified");
}

#[test]
fn names_are_remembered_of_who_stays() {
    let first = SharedPool::new(config("balance = 'sticky'", &even(0..100)), None, 2, Instant::now());
    let numbers: Vec<u32> = first.backends.iter().map(|backend| backend.affinity_number).collect();
    let second = SharedPool::new(config("balance = 'sticky'", &even(50..150)), Some(&first), 2, Instant::now());
    for (member, number) in numbers.into_iter().enumerate() {
        let found = second.by_affinity(number);
        assert_eq!(found, (member >= 50).then(|| first.backends[member].index), "{member}");
    }
}

#[test]
fn ways_to_one_server_have_one_machine() {
    let way = |member, server: Option<&str>| BackendConfig { server: server.map(str::to_owned), ..backend(member, 1) };
    let with = |ways: &[BackendConfig]| {
        SharedPool::new(PoolConfig { backends: ways.to_vec(), ..config("", &[]) }, None, 1, Instant::now())
    };
    let pool = with(&[way(1, Some("one")), way(2, None), way(3, Some("two")), way(4, Some("one"))]);
    let machines: Vec<_> = pool.backends.iter().map(|backend| pool.domain(backend.index).machine).collect();
    assert_eq!(machines, [1, 0, 2, 1]);
    assert!(pool.has_domains() && !with(&[way(1, None), way(2, None)]).has_domains());
}

#[test]
fn changed_trust_applies_to_members_that_stay() {
    let parse = |trust: &str| {
        let text = format!("[forwarder]\n[pools.ts]\nbackends = [{{ address = 'quic://192.0.2.1'{trust} }}]\n");
        Config::parse(&text, "c.toml", Path::new("")).expect("a config")
    };
    let state = ForwarderState::new(&parse(""), None, None, None, 1, Instant::now()).expect("there is a forwarder");
    let later = ForwarderState::new(&parse(", ca = 'ca.pem'"), Some(&state), None, None, 1, Instant::now())
        .expect("a forwarder");
    let [before, after] = [&state, &later].map(|state| &state.pools[0].backends[0]);
    assert!(Arc::ptr_eq(before, after));
    assert_eq!(after.stream_server().trust.ca.as_deref(), Some(Path::new("ca.pem")));
    assert_eq!(after.stream_server().early_data, later.pools[0].config.connections.early_data);
}
