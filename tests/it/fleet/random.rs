//! Tests with unforeseen values: random ones, and good ones with some bits flipped.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;

/// How long the control thread may leave a question for the status unanswered: many times what was measured,
/// 39 ms of a debug build on two cores with the load and an answer of 100 entries; a value that held it up
/// would do so for each of a hundred.
const PROMPT: Duration = Duration::from_secs(1);

/// Some octets, or a good value of a member with one to three bits flipped.
fn value(rng: &mut SmallRng) -> Vec<u8> {
    let mut octets = vec![0; rng.random_range(0..200)];
    rng.fill_bytes(&mut octets);
    if rng.random_bool(0.5) {
        let port = rng.random_range(1..20_000);
        octets = format!(r#"{{"address":"127.66.{}.1:{port}","name":"n{port}","weight":7,"state":"up"}}"#, port % 250)
            .into_bytes();
        for _ in 0..rng.random_range(1..4) {
            let bit = rng.random_range(0..octets.len() * 8);
            octets[bit / 8] ^= 1 << (bit % 8);
        }
    }
    octets
}

#[test]
fn two_thousand_random_values_are_each_refused_or_members() {
    let Some(etcd) = Etcd::start() else { return };
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let good = registered(&etcd, 3);
    let server = Server::start(&forwarder("etcd = 'ts'\nallow = ['127.0.0.0/8']\nhold = '0s'", &etcd.section()));
    wait_for_up(&server, 3);
    let load = Load::start(server.address(), RATE);
    let (mut wrong, mut longest) = (0, Duration::ZERO);
    // A weight of 1 is what it has before the first of them.
    for round in 2..=21 {
        let values: Vec<_> = (0..100).map(|number| (format!("x{number:02}"), value(&mut rng))).collect();
        let address = good[0].address();
        let marked = format!(r#"{{"address":"{address}","weight":{round}}}"#).into_bytes();
        let items =
            values.iter().map(|(name, value)| (format!("hedgerow/pools/ts/members/{name}"), Some(value.clone())));
        etcd.change(&items.chain([(key(address), Some(marked))]).collect::<Vec<_>>());
        let pool = until("all of them are known", || {
            let asked = Instant::now();
            let pool = pool(&server);
            longest = longest.max(asked.elapsed());
            let backends = pool["backends"].as_array().expect("a list");
            let is_known = backends.iter().any(|one| one["address"] == address.to_string() && one["weight"] == round);
            is_known.then_some(pool)
        });
        let members = members_of(&pool);
        for good in &good {
            assert!(members.contains(&(good.address().to_string(), "up".to_owned())), "seed {seed}: {members:?}");
        }
        let refused: Vec<_> =
            pool["sources"][0]["refused"].as_array().expect("a list").iter().map(|one| &one["entry"]).collect();
        for (name, value) in &values {
            // Reads the value independently of hedgerow: a value without an address is no member.
            let said: Option<Value> = serde_json::from_slice(value).ok();
            let said = said.and_then(|said| said["address"].as_str()?.parse::<SocketAddr>().ok());
            let is_member = said.is_some_and(|said| members.iter().any(|(member, _)| *member == said.to_string()));
            let is_refused = refused.iter().any(|refused| *refused == name);
            assert!(
                is_member != is_refused,
                "seed {seed}: {name} {:?}: {is_member} {is_refused}",
                String::from_utf8_lossy(value)
            );
            wrong += usize::from(is_refused);
        }
    }
    println!("{wrong} of 2000 are wrong, the longest answer took {longest:?}");
    assert!(longest < PROMPT, "seed {seed}: {longest:?}");
    assert!((1000..2000).contains(&wrong), "seed {seed}: {wrong}");
    load.stop().check(&format!("random values, seed {seed}"), &server.admin());
}
