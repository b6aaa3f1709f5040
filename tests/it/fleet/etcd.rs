//! Members that are registered in etcd, and what becomes of them when etcd is not well.

use serde_json::Value;
use testkit::peers::etcd::{Relay, section, start_tls};

use super::*;

#[test]
fn members_come_and_go_by_their_keys() {
    let Some(etcd) = Etcd::start() else { return };
    let backends = registered(&etcd, 2);
    let server = Server::start(&forwarder("etcd = 'ts'\nhold = '0s'", &etcd.section()));
    wait_for_up(&server, 2);
    is_answered(&server);
    let third = Backend::new(answer("192.0.2.1"));
    let value = |rest: &str| format!(r#"{{"address":"{}","name":"three",{rest}}}"#, third.address());
    etcd.put_member("ts", "anything", &value(r#""weight":7"#));
    wait_for_up(&server, 3);
    let of_third = || -> Value {
        let pool = pool(&server);
        let backends = pool["backends"].as_array().expect("a list");
        backends.iter().find(|backend| backend["address"] == third.address().to_string()).expect("it is one").clone()
    };
    let reported = of_third();
    assert_eq!(
        (&reported["name"], &reported["weight"], &reported["listed"]),
        (&"three".into(), &7.into(), &true.into())
    );
    assert_eq!(reported["origin"], serde_json::json!(["etcd"]));
    // Another weight, and all else is as it was.
    let asked = reported["attempts"]["probe"].as_u64().expect("a count");
    etcd.put_member("ts", "anything", &value(r#""weight":9"#));
    until("it has another weight", || (of_third()["weight"] == 9).then_some(()));
    let reported = of_third();
    assert_eq!(reported["state"], "up");
    assert!(reported["attempts"]["probe"].as_u64() >= Some(asked));
    etcd.ctl(&["del", &key(backends[0].address())]);
    wait_for_members(&server, &[backends[1].address(), third.address()]);
    // It says itself that it ends.
    etcd.put_member("ts", "anything", &value(r#""state":"draining""#));
    until("it drains", || (of_third()["state"] == "draining").then_some(()));
    etcd.ctl(&["del", "hedgerow/pools/ts/members/anything"]);
    wait_for_members(&server, &[backends[1].address()]);
    let metrics = server.admin().metrics();
    let changes = |change| metrics.sum("hedgerow_discovery_changes_total", &[("pool", "ts"), ("change", change)]);
    assert_eq!((changes("joined"), changes("left")), (3, 2));
}

#[test]
fn without_etcd_all_stays_and_is_stale() {
    let Some(mut etcd) = Etcd::start() else { return };
    let backends = registered(&etcd, 2);
    let server = Server::start(&forwarder("etcd = 'ts'\nhold = '0s'", &etcd.section()));
    wait_for_up(&server, 2);
    let load = Load::start(server.address(), 500);
    for _ in 0..3 {
        etcd.kill();
        wait_for_source(&server, "stale");
        wait_for_members(&server, &addresses(&backends));
        etcd.restart();
        wait_for_source(&server, "fresh");
    }
    etcd.stop();
    let source = wait_for_source(&server, "stale");
    assert!(source["failure"].as_str().expect("a reason").contains("no reply within"), "{source}");
    etcd.resume();
    wait_for_source(&server, "fresh");
    assert_eq!(members(&server).len(), 2);
    let report = load.stop();
    assert_eq!(report.lost(), 0);
}

#[test]
fn an_etcd_that_was_emptied_is_doubted_until_somebody_registers_or_accepts() {
    let Some(etcd) = Etcd::start() else { return };
    let backends = registered(&etcd, 4);
    let server = Server::start(&forwarder("etcd = 'ts'\nhold = '0s'", &etcd.section()));
    wait_for_up(&server, 4);
    etcd.ctl(&["del", "--prefix", "hedgerow/"]);
    wait_for_source(&server, "doubted");
    server.process.wait_for_log("the new list of members lacks more than half");
    wait_for_members(&server, &addresses(&backends));
    is_answered(&server);
    // They register again one by one; the doubt is over when half of them have.
    for backend in &backends {
        etcd.put_member("ts", &backend.address().to_string(), &member(backend.address()));
    }
    wait_for_source(&server, "fresh");
    wait_for_members(&server, &addresses(&backends));
    // Or an operator says that they are gone indeed.
    let url = format!("http://{}", server.admin().address());
    let accept = || server.process.ctl(&["--admin", &url, "accept", "ts"]);
    assert_eq!(accept().status.code(), Some(1), "there is nothing to accept");
    etcd.ctl(&["del", "--prefix", "hedgerow/"]);
    wait_for_source(&server, "doubted");
    let output = accept();
    assert!(output.status.success(), "{output:?}");
    wait_for_members(&server, &[]);
}

#[test]
fn a_watch_that_was_cut_off_while_etcd_was_compacted_begins_from_the_list() {
    let Some(etcd) = Etcd::start() else { return };
    let relay = Relay::to(etcd.address());
    let mut backends = registered(&etcd, 2);
    let server = Server::start(&forwarder("etcd = 'ts'\nhold = '0s'", &section(relay.address())));
    wait_for_up(&server, 2);
    relay.cut();
    wait_for_source(&server, "stale");
    backends.extend(registered(&etcd, 1));
    let gone = backends.remove(0);
    etcd.ctl(&["del", &key(gone.address())]);
    let revision = etcd.ctl(&["get", "x", "-w", "json"]);
    let revision: Value = serde_json::from_str(&revision).expect("JSON");
    etcd.ctl(&["compaction", &revision["header"]["revision"].to_string()]);
    relay.mend();
    wait_for_source(&server, "fresh");
    wait_for_members(&server, &addresses(&backends));
}

#[test]
fn a_server_that_starts_without_etcd_knows_whom_to_ask() {
    let Some(mut etcd) = Etcd::start() else { return };
    let backends = registered(&etcd, 2);
    let folder = tempfile::tempdir().expect("a folder");
    let state = format!("state_dir = '{}'\n", folder.path().display());
    let config = format!("{state}{}", forwarder("etcd = 'ts'", &etcd.section()));
    let file = folder.path().join("members.json");
    {
        let server = Server::start(&config);
        wait_for_up(&server, 2);
        until("the members are saved", || {
            let saved = std::fs::read_to_string(&file).ok()?;
            backends.iter().all(|backend| saved.contains(&backend.address().to_string())).then_some(())
        });
    }
    etcd.kill();
    {
        let server = Server::start(&config);
        is_answered(&server);
        wait_for_up(&server, 2);
        let source = wait_for_source(&server, "stale");
        assert!(source["age_seconds"].as_f64().is_some(), "{source}");
        etcd.restart();
        wait_for_source(&server, "fresh");
    }
    etcd.kill();
    std::fs::write(&file, "{").expect("our own folder");
    let server = Server::start(&config);
    server.process.wait_for_log("the saved members are ignored");
    assert_eq!(members(&server), []);
    wait_for_source(&server, "never");
}

#[test]
fn a_key_that_is_rewritten_all_the_time_disturbs_nobody() {
    let Some(etcd) = Etcd::start() else { return };
    let backends = registered(&etcd, 2);
    let server = Server::start(&forwarder("etcd = 'ts'\nhold = '30s'", &etcd.section()));
    wait_for_up(&server, 2);
    let load = Load::start(server.address(), 500);
    let address = backends[0].address();
    for round in 0..60 {
        // It changes, goes and comes.
        etcd.put_member("ts", "one", &format!(r#"{{"address":"{address}","weight":{}}}"#, round % 9 + 1));
        if round % 5 == 0 {
            etcd.ctl(&["del", &key(address)]);
            etcd.ctl(&["del", "hedgerow/pools/ts/members/one"]);
        }
    }
    assert_eq!(load.stop().lost(), 0);
    wait_for_up(&server, 2);
}

#[test]
fn users_have_passwords_and_tokens_end() {
    let Some(mut etcd) = Etcd::start() else { return };
    let backends = registered(&etcd, 1);
    etcd.ctl(&["user", "add", "root:secret"]);
    etcd.ctl(&["role", "add", "root"]);
    etcd.ctl(&["user", "grant-role", "root", "root"]);
    etcd.ctl(&["auth", "enable"]);
    let config = |user: &str| forwarder("etcd = 'ts'\nhold = '0s'", &format!("{}{user}", etcd.section()));
    let user = "user = 'root'\npassword_file = 'pw'\n";
    let server = Server::start_with_files(&config(user), &[("pw", "secret\n")]);
    wait_for_up(&server, 1);
    let other = Server::start(&config(""));
    let source = until("it is refused", || {
        let source = pool(&other)["sources"][0].clone();
        source["failure"].as_str().is_some_and(|failure| failure.contains("etcd.user")).then_some(source)
    });
    assert_eq!(source["state"], "never");
    // All tokens end with the process that gave them: the next request has a new one.
    etcd.kill();
    etcd.restart();
    wait_for_source(&server, "fresh");
    etcd.ctl(&["--user", "root:secret", "del", &key(backends[0].address())]);
    wait_for_source(&server, "doubted");
}

#[test]
fn by_tls_a_certificate_must_be_good_and_bear_the_address_or_the_name() {
    let Some((address, etcd)) = start_tls() else { return };
    let config = |name: &str, ca: &str| {
        let ca = etcd.path(ca).display().to_string();
        forwarder("etcd = 'ts'", &format!("[etcd]\nendpoints = ['https://{address}{name}']\nca_file = '{ca}'\n"))
    };
    for name in ["", "#etcd.example"] {
        let server = Server::start(&config(name, "ca.pem"));
        wait_for_source(&server, "fresh");
    }
    for (name, ca) in [("#other.example", "ca.pem"), ("", "other.pem")] {
        let server = Server::start(&config(name, ca));
        let source = until("it is not believed", || {
            let source = pool(&server)["sources"][0].clone();
            source["failure"].as_str().is_some_and(|failure| failure.contains("certificate")).then_some(source)
        });
        assert_eq!(source["state"], "never", "{source}");
    }
    // The right one comes by a reload, though the config has not changed.
    let ca = etcd.path("used.pem");
    std::fs::copy(etcd.path("other.pem"), &ca).expect("our own folder");
    let server = Server::start(&config("", "used.pem"));
    until("it is not believed", || pool(&server)["sources"][0]["failure"].is_string().then_some(()));
    std::fs::copy(etcd.path("ca.pem"), &ca).expect("our own folder");
    server.admin().post("/api/v1/reload", "");
    wait_for_source(&server, "fresh");
}
