//! `ctl record` writes the latencies of both attempts of races, without names, and `simulate --trace` plays
//! them.

use std::process::Command;
use std::thread;

use serde_json::Value;
use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// The first backend is slow, the second one quick; both are asked at once.
fn server() -> (Server, [Backend; 2]) {
    let backends = [Backend::new(answer(ADDRESS).after(ms(60))), Backend::new(answer(ADDRESS))];
    let keys = "dispatch = 'race'\nfanout = 2\nbalance = 'ordered'\nattempt_timeout = '20s'\ntimeout = '20s'";
    (Forwarder::to(&[&backends[0], &backends[1]], keys).workers(2).admin().start(), backends)
}

#[test]
fn races_are_recorded_with_late_replies_and_without_names_and_are_played() {
    let (server, _backends) = server();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("races.txt");
    let path = file.to_str().expect("UTF-8");
    let admin = format!("http://{}", server.listener("admin"));
    let output = thread::scope(|scope| {
        let recording = scope.spawn(|| server.process.ctl(&["--admin", &admin, "record", path, "--for", "3s"]));
        let client = server.client();
        let mut number = 0;
        while !recording.is_finished() {
            client.ask(&query(&format!("secret{number}.example"), A));
            number += 1;
        }
        recording.join().expect("it ends")
    });
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&file).expect("the file");
    let races: Vec<Vec<&str>> =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' ').collect()).collect();
    assert!(text.starts_with("# hedgerow trace 1: took_us first_us second_us\n# seconds 3\n"), "{text}");
    assert!(said.contains(&format!("{} races", races.len())) && races.len() > 20, "{said}");
    assert!(!text.contains("secret"));
    let micros = |word: &str| word.parse::<u64>().expect("an exact time");
    // The last ones may still wait when the recording ends, and a slow machine may answer none in time.
    let whole = races.iter().filter(|race| race.iter().all(|word| !word.starts_with('>')));
    let whole: Vec<_> = whole.map(|race| [micros(race[0]), micros(race[1]), micros(race[2])]).collect();
    assert!(whole.len() > races.len() / 2, "{} of {}", whole.len(), races.len());
    // The clock is read once for several replies, so a pause of the machine may make some seem early.
    let is_right = |race: &&[u64; 3]| race[1] >= 59_000 && race[0] >= race[1].min(race[2]);
    let right = whole.iter().filter(|race| is_right(race)).count();
    assert!(right * 10 > whole.len() * 9, "{right} of {}", whole.len());
    let played =
        Command::new(program()).args(["simulate", "--json", "-n", "2000", "-p", "race", "--trace", path]).output();
    let played: Value = serde_json::from_slice(&played.expect("it runs").stdout).expect("JSON");
    assert_eq!(played["measured"]["races"], races.len().div_ceil(2));
    let p50 = played["policies"][0]["latency_ms"]["p50"].as_f64().expect("a number");
    let measured = played["measured"]["p50_ms"].as_f64().expect("a number");
    assert!(p50 < 60.0 && measured > 0.0, "{played}");
}

#[test]
fn there_is_one_recording_at_a_time_of_a_known_pool_and_of_at_most_ten_minutes() {
    let (server, _backends) = server();
    for (words, status, reported) in [
        ("for=11m", 400, "expected 1s to 10m"),
        ("for=500ms", 400, "expected 1s to 10m"),
        ("pool=nowhere", 404, "nowhere"),
    ] {
        let answer = server.admin().get(&format!("/api/v1/record?{words}"));
        assert!(answer.status == status && answer.body.contains(reported), "{words}: {answer:?}");
    }
    let mut statuses = thread::scope(|scope| {
        [(); 2].map(|()| scope.spawn(|| server.admin().get("/api/v1/record?for=5s").status)).map(|asked| asked.join())
    })
    .map(|status| status.expect("an answer"));
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    assert_eq!(server.admin().get("/api/v1/record?for=1s").status, 200);
}
