//! Spares: backends of higher tiers, for each dispatch. They get turns while too few backends of lower tiers
//! are up, and otherwise only hedges and failovers.

use std::net::SocketAddr;

use testkit::*;

const MAIN: &str = "192.0.2.1";
const SPARE: &str = "192.0.2.9";

/// Each probe is caused by the test, except the first.
const QUICK: &str = "[health]\ninterval = '100ms'\ntimeout = '1s'\nfall = 1\nrise = 1";

/// A backend with a tier.
struct Tier<'a>(&'a Backend, u8);

impl Asked for Tier<'_> {
    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    fn entry(&self) -> String {
        format!("{{ address = \"{}\", tier = {} }}", self.0.address(), self.1)
    }
}

/// Asks for as many names and returns the number of queries that each backend has got for them.
fn ask(server: &Server, round: &str, count: usize, backends: &[&Backend]) -> Vec<usize> {
    let before: Vec<_> = backends.iter().map(|backend| backend.queries().len()).collect();
    let client = server.client();
    (0..count).for_each(|number| drop(client.ask(&query(&format!("{round}-{number}.example"), A))));
    backends.iter().zip(before).map(|(backend, before)| backend.queries().len() - before).collect()
}

fn server(backends: &[&dyn Asked], keys: &str) -> Server {
    Forwarder::to(backends, keys).admin().start()
}

#[test]
fn spare_takes_turns_only_while_the_others_are_down() {
    for dispatch in ["race", "hedge", "sequential", "auto"] {
        let [main, other, spare] = [MAIN, MAIN, SPARE].map(|address| Backend::new(answer(address)));
        // No hedge is late enough to be sent.
        let hedge = if dispatch == "hedge" { "[hedge]\ndelay = '5s'\n" } else { "" };
        let keys = format!("dispatch = '{dispatch}'\nattempt_timeout = '5s'\n{hedge}{QUICK}");
        let server = server(&[&Tier(&spare, 1), &main, &other], &keys);
        let admin = server.admin();
        let all = [&main, &other, &spare];
        let counts = ask(&server, "calm", 20, &all);
        assert!(counts[0] >= 5 && counts[1] >= 5 && counts[2] == 0, "{dispatch}: {counts:?}");
        main.play_dead(true);
        admin.wait_for_state(main.address(), false);
        let counts = ask(&server, "one", 20, &all);
        assert!(counts[1] >= 20 && counts[2] == 0, "{dispatch}: one is enough: {counts:?}");
        other.play_dead(true);
        admin.wait_for_state(other.address(), false);
        let counts = ask(&server, "none", 20, &all);
        assert!(counts[0] + counts[1] == 0 && counts[2] >= 20, "{dispatch}: {counts:?}");
        main.play_dead(false);
        admin.wait_for_state(main.address(), true);
        let counts = ask(&server, "back", 20, &all);
        assert!(counts[0] >= 20 && counts[2] == 0, "{dispatch}: it comes back: {counts:?}");
        assert!(spare.probes().len() > 1, "{dispatch}: spares are probed");
    }
}

#[test]
fn spares_share_the_turns_below_min_up() {
    let [main, other, spare, farther] = [MAIN, MAIN, SPARE, SPARE].map(|address| Backend::new(answer(address)));
    let keys = format!("dispatch = 'sequential'\nbalance = 'round-robin'\nmin_up = 2\n{QUICK}");
    let server = server(&[&main, &other, &Tier(&spare, 1), &Tier(&farther, 2)], &keys);
    let all = [&main, &other, &spare, &farther];
    assert_eq!(ask(&server, "calm", 20, &all), [10, 10, 0, 0]);
    main.play_dead(true);
    server.admin().wait_for_state(main.address(), false);
    assert_eq!(ask(&server, "one", 20, &all), [0, 10, 10, 0]);
    spare.play_dead(true);
    server.admin().wait_for_state(spare.address(), false);
    assert_eq!(ask(&server, "two", 20, &all), [0, 10, 0, 10]);
}

#[test]
fn fanout_is_filled_from_the_lowest_tier() {
    let [main, spare, other_spare] = [MAIN, SPARE, SPARE].map(|address| Backend::new(answer(address)));
    let keys = format!("dispatch = 'race'\nfanout = 2\nmin_up = 2\n{QUICK}");
    let server = server(&[&Tier(&spare, 1), &Tier(&other_spare, 1), &main], &keys);
    ask(&server, "race", 20, &[]);
    main.wait_for(20);
    let spares = || spare.queries().len() + other_spare.queries().len();
    until("both attempts of each race", || (spares() >= 20).then_some(()));
    assert_eq!((main.queries().len(), spares()), (20, 20));
}

#[test]
fn late_reply_is_hedged_to_a_spare_only_after_all_others() {
    let slow = || Backend::probed(answer(MAIN), silent());
    let (one, two, spare) = (slow(), slow(), Backend::new(answer(SPARE)));
    let keys = "dispatch = 'hedge'\nattempt_timeout = '20s'\ntimeout = '20s'\n\
                [hedge]\ndelay = '20ms'\nbudget = 1.0\nmax = 2\n[health]\ninterval = '1h'\ntimeout = '10s'";
    let server = server(&[&Tier(&spare, 1), &one, &two], keys);
    [&one, &two, &spare].iter().for_each(|backend| drop(backend.wait_for_probes(1)));
    let response = server.client().ask(&query("late.example", A));
    assert_eq!(response.answers(), [SPARE]);
    let asked = [&one, &two, &spare].map(|backend| backend.queries_for("late.example")[0].at);
    assert!(asked[0].max(asked[1]) < asked[2], "{asked:?}");
    let metrics = server.admin().metrics();
    assert_eq!(metrics.attempts(spare.address(), Some("hedge")), 1);
    // Without a budget, only the failover after a timeout goes to the spare.
    assert_eq!(metrics.attempts(spare.address(), Some("first")), 0);
}

#[test]
fn failure_of_all_others_is_answered_by_a_spare() {
    for dispatch in ["race", "sequential", "hedge", "auto"] {
        let failing = || Backend::probed(answer(MAIN), servfail());
        let (one, two, spare) = (failing(), failing(), Backend::new(answer(SPARE)));
        let keys =
            format!("dispatch = '{dispatch}'\naccept = 'conclusive'\n[health]\ninterval = '1h'\ntimeout = '10s'");
        let server = server(&[&Tier(&spare, 1), &one, &two], &keys);
        let response = server.client().ask(&query("failed.example", A));
        assert_eq!(response.answers(), [SPARE], "{dispatch}");
        // The spare may answer before a backend has read its query.
        let counts = [&one, &two, &spare].map(|backend| backend.wait_for_name("failed.example", 1).len());
        assert_eq!(counts, [1, 1, 1], "{dispatch}");
        assert_eq!(server.admin().metrics().attempts(spare.address(), Some("failover")), 1, "{dispatch}");
    }
}

#[test]
fn spares_of_a_crowd_are_used_when_all_others_are_down() {
    let dead: Vec<_> = (0..70).map(|_| Backend::dead()).collect();
    let spare = Backend::new(answer(SPARE));
    let mut listed: Vec<&dyn Asked> = dead.iter().map(|backend| backend as _).collect();
    let spare_entry = Tier(&spare, 1);
    listed.push(&spare_entry);
    let server = server(&listed, &format!("dispatch = 'sequential'\nattempt_timeout = '5s'\n{QUICK}"));
    let admin = server.admin();
    dead.iter().for_each(|backend| admin.wait_for_state(backend.address(), false));
    let counts = ask(&server, "crowd", 20, &[&spare]);
    assert_eq!(counts, [20]);
}

#[test]
fn status_and_explain_say_why_a_spare_is_used() {
    let [main, spare] = [MAIN, SPARE].map(|address| Backend::new(answer(address)));
    let server = server(&[&main, &Tier(&spare, 2)], &format!("dispatch = 'hedge'\n{QUICK}"));
    let admin = server.admin();
    let status = admin.wait_for_status("a spare", |status| Some(status["pools"][0].clone()));
    assert_eq!(
        (&status["min_up"], &status["backends"][0]["tier"], &status["backends"][1]["tier"]),
        (&1.into(), &0.into(), &2.into())
    );
    let url = format!("http://{}", admin.address());
    let ctl = |words: &[&str]| server.process.ctl(&[&["--admin", &url], words].concat());
    let text = |words: &[&str]| String::from_utf8(ctl(words).stdout).expect("UTF-8");
    let name = spare.address();
    let calm = format!(
        "{name} of pool all is a spare (tier 2) and gets only hedges and failovers: 1 of lower tiers up, min_up 1"
    );
    assert!(text(&["status"]).contains(&calm), "{}", text(&["status"]));
    let explained = text(&["explain", "www.example"]);
    assert!(
        explained.contains("spare of tier 2: 1 or more of lower tiers are up, a hedge would go here"),
        "{explained}"
    );
    main.play_dead(true);
    admin.wait_for_state(main.address(), false);
    let needed = format!("{name} of pool all is a spare (tier 2) and takes turns: 0 of lower tiers up, min_up 1");
    assert!(text(&["status"]).contains(&needed), "{}", text(&["status"]));
    let explained = text(&["explain", "other.example"]);
    assert!(explained.contains("spare of tier 2, fewer than 1 of lower tiers are up"), "{explained}");
}

#[test]
fn a_reload_changes_tier_and_min_up_and_loses_nothing() {
    let main = Backend::new(answer(MAIN).except("held", answer(MAIN).held()));
    let spare = Backend::new(answer(SPARE));
    let config = |tier: u8, min_up: u8| {
        let keys = "dispatch = 'sequential'\nbalance = 'round-robin'\ntimeout = '20s'\nattempt_timeout = '20s'";
        Forwarder::to(&[&main, &Tier(&spare, tier)], &format!("{keys}\nmin_up = {min_up}")).admin()
    };
    let server = config(1, 1).start();
    let held = server.client();
    held.send(&query("held.example", A));
    main.wait_for(1);
    for (round, (tier, min_up, expected)) in
        [(1, 1, [10, 0]), (0, 1, [5, 5]), (1, 2, [5, 5]), (1, 1, [10, 0])].into_iter().enumerate()
    {
        server.rewrite("config.toml", &config(tier, min_up).to_toml());
        server.admin().post("/api/v1/reload", "");
        assert_eq!(ask(&server, &format!("r{round}"), 10, &[&main, &spare]), expected, "{tier} {min_up}");
    }
    main.release();
    assert_eq!(held.receive().answers(), [MAIN]);
}
