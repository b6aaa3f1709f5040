//! `watch = true`: files that change are read again by themselves, each in all the ways that files are
//! changed.

use std::fs;
use std::os::unix::fs::symlink;

use testkit::*;

/// An authority with a table and an admin server, in a config with these keys at its top.
fn config(keys: &str, zones: &str) -> String {
    format!(
        "workers = 1\n{keys}\n[admin]\nlisten = '127.0.0.1:0'\n\
         [authorities.ts]\nlisten = ['127.0.0.1:0']\nmiss = 'nxdomain'\nzones = [{zones}]\n"
    )
}

/// A table with one host.
fn table(host: &str) -> String {
    format!("{host} 192.0.2.1 A\n")
}

/// A master file that includes another.
const ZONE: &str = "@ 300 SOA ns h 1 3600 600 86400 60\n@ NS ns\nns A 192.0.2.1\n$INCLUDE more.inc\n";

/// Waits until a name is answered.
fn wait_for(server: &Server, name: &str) {
    let client = Client::of(server.listener("ts"));
    until(&format!("{name} is there"), || (client.ask(&query(name, A)).rcode() == NOERROR).then_some(()));
}

/// Returns the number of configs that have applied so far.
fn edition(server: &Server) -> u64 {
    status(server)["edition"].as_u64().expect("a number")
}

fn status(server: &Server) -> serde_json::Value {
    serde_json::from_str(&server.admin().get("/api/v1/status").body).expect("the status is JSON")
}

#[test]
fn files_that_change_are_read_again() {
    let zones = "'t.txt', { file = 'z.zone', origin = 'z.example' }";
    let files = [("t.txt", &*table("one.test")), ("z.zone", ZONE), ("more.inc", "a A 192.0.2.2\n")];
    let server = Server::start_with_files(&config("watch = true", zones), &files);
    wait_for(&server, "one.test");
    // In place, by rename, an include.
    server.rewrite("t.txt", &table("two.test"));
    wait_for(&server, "two.test");
    server.rewrite("new.txt", &table("three.test"));
    fs::rename(server.path("new.txt"), server.path("t.txt")).expect("our own folder");
    wait_for(&server, "three.test");
    server.rewrite("more.inc", "b A 192.0.2.2\n");
    wait_for(&server, "b.z.example");
    // The config itself: another file, which is watched from then on.
    server.rewrite("u.txt", &table("four.test"));
    server.rewrite("config.toml", &config("watch = true", &format!("{zones}, 'u.txt'")));
    wait_for(&server, "four.test");
    let line = server.process.wait_for_log("config.toml changed, reading again");
    assert!(line.contains("INFO") && !line.contains("u.txt"), "{line}");
    server.rewrite("u.txt", &table("five.test"));
    wait_for(&server, "five.test");
    assert_eq!(edition(&server), 6);
}

#[test]
fn a_link_that_leads_elsewhere_is_a_change() {
    // As Kubernetes lays out a volume: everything is a link by way of ..data, which is replaced whole.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    for (version, host) in [("..1", "one.test"), ("..2", "two.test")] {
        fs::create_dir(at(version)).expect("our own folder");
        fs::write(at(version).join("config.toml"), config("watch = true", "'t.txt'")).expect("our own folder");
        fs::write(at(version).join("t.txt"), table(host)).expect("our own folder");
    }
    symlink("..1", at("..data")).expect("our own folder");
    for file in ["config.toml", "t.txt"] {
        symlink(format!("..data/{file}"), at(file)).expect("our own folder");
    }
    let file = at("config.toml");
    let server = Server::run(["serve", "-c", file.to_str().expect("temporary folders have plain names")]);
    wait_for(&server, "one.test");
    symlink("..2", at("..new")).expect("our own folder");
    fs::rename(at("..new"), at("..data")).expect("our own folder");
    wait_for(&server, "two.test");
    // The folder that it leads to is replaced by another.
    fs::create_dir(at("..3")).expect("our own folder");
    fs::copy(at("..2").join("config.toml"), at("..3").join("config.toml")).expect("our own folder");
    fs::write(at("..3").join("t.txt"), table("three.test")).expect("our own folder");
    fs::rename(at("..2"), at("..old")).expect("our own folder");
    fs::rename(at("..3"), at("..2")).expect("our own folder");
    wait_for(&server, "three.test");
}

#[test]
fn a_broken_file_is_told_once_and_taken_when_it_is_mended() {
    let zones = "'t.txt', { file = 'z.zone', origin = 'z.example' }";
    let zone = ZONE.replace("$INCLUDE more.inc\n", "");
    let server =
        Server::start_with_files(&config("watch = true", zones), &[("t.txt", &table("one.test")), ("z.zone", &zone)]);
    let failed = |count: u64| {
        server.admin().wait_for(&format!("{count} reloads have failed"), |metrics| {
            metrics.sum("hedgerow_reloads_total", &[("result", "failed")]) == count
        });
    };
    server.rewrite("t.txt", "one.test nonsense A\n");
    failed(1);
    // It is there once more, and says the same.
    server.rewrite("t.txt", "one.test nonsense A\n");
    wait_for(&server, "one.test");
    server.rewrite("t.txt", &table("two.test"));
    wait_for(&server, "two.test");
    // The missing file is one that has not been read yet.
    server.rewrite("z.zone", ZONE);
    failed(2);
    server.rewrite("more.inc", "c A 192.0.2.2\n");
    wait_for(&server, "c.z.example");
    // The config itself.
    server.rewrite("config.toml", "watch = true\n[admn]\n");
    failed(3);
    server.rewrite("config.toml", &config("watch = true", &format!("{zones}, 'u.txt'")));
    failed(4);
    server.rewrite("u.txt", &table("three.test"));
    wait_for(&server, "three.test");
    assert_eq!(server.process.log().matches("reload failed").count(), 4, "{}", server.process.log());
    assert_eq!(edition(&server), 4);
}

#[test]
fn what_says_the_same_or_is_saved_by_us_is_no_change() {
    let primary = "[authorities.primary]\nlisten = ['127.0.0.1:0']\n\
                   zones = [{ file = 'p.zone', origin = 'p.example', transfer_to = ['127.0.0.0/8'] }]\n";
    let zone = ZONE.replace("$INCLUDE more.inc\n", "");
    let source = Server::start_with_files(primary, &[("p.zone", &zone)]);
    let zones =
        format!("'t.txt', {{ zone = 'p.example', primaries = ['{}'], file = 'p.saved' }}", source.listener("primary"));
    let backend = Backend::new(answer("192.0.2.9"));
    let cached = Forwarder::to(&[&backend], "").cache("persist = 'cache.bin'\npersist_every = '10s'").to_toml();
    let config = config("watch = true", &zones) + &cached.replace("workers = 1\n", "");
    let server = Server::start_with_files(&config, &[("t.txt", &table("one.test"))]);
    assert_eq!(server.client().ask(&query("www.example", A)).rcode(), NOERROR);
    wait_for(&server, "ns.p.example");
    until("it is saved", || server.path("p.saved").exists().then_some(()));
    server.process.wait_for_log("cache: saved");
    server.rewrite("t.txt", &table("one.test"));
    server.rewrite("config.toml", &config);
    // Only this one is.
    server.rewrite("t.txt", &table("two.test"));
    wait_for(&server, "two.test");
    assert_eq!((edition(&server), &status(&server)["reload"]["ok"]), (2, &true.into()));
}

#[test]
fn secrets_are_watched_and_watching_itself_is_put_in_force() {
    let keys = "[keys.k]\nsecret_file = 'k.secret'\n";
    let with = |keys_of_top: &str| {
        config(keys_of_top, "'t.txt'").replace("miss =", "cookie_secrets_file = 'c.secret'\nmiss =") + keys
    };
    let files = [
        ("t.txt", &*table("one.test")),
        ("k.secret", "MDEyMzQ1Njc4OWFiY2RlZg==\n"),
        ("c.secret", "00112233445566778899aabbccddeeff\n"),
    ];
    let server = Server::start_with_files(&with(""), &files);
    server.rewrite("t.txt", &table("two.test"));
    server.reload("config.toml", &with("watch = true"));
    wait_for(&server, "two.test");
    for (expected, (file, text)) in
        [("k.secret", "ZmVkY2JhOTg3NjU0MzIxMA==\n"), ("c.secret", "ffeeddccbbaa99887766554433221100\n")]
            .into_iter()
            .enumerate()
    {
        server.rewrite(file, text);
        until(&format!("{file} is read"), || (edition(&server) == expected as u64 + 3).then_some(()));
    }
    server.rewrite("config.toml", &with("watch = false"));
    until("the config is read", || (edition(&server) == 5).then_some(()));
    server.rewrite("t.txt", &table("three.test"));
    server.reload("config.toml", &with("watch = true"));
    wait_for(&server, "three.test");
    assert_eq!(edition(&server), 6, "{}", server.process.log());
}
