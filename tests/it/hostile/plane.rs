//! The control plane: it neither hangs nor lies, whatever disks and zone files do, and no task of the process
//! dies unseen.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use tempfile::TempDir;
use testkit::*;

/// A table with these many hosts besides `a.example`.
fn table(hosts: u32) -> String {
    let mut text = "a.example 192.0.2.1 A\n".to_owned();
    for host in 0..hosts {
        let _ = writeln!(text, "h{host}.example 192.0.2.2 A");
    }
    text
}

/// An authority with a table in `a.txt` and an admin server.
const TS: &str = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['a.txt']\n[admin]\nlisten = '127.0.0.1:0'\n";

fn start() -> Server {
    Server::start_with_files(TS, &[("a.txt", &table(0))])
}

/// Replaces a file by a FIFO that has no writer.
fn make_fifo(path: &Path) {
    let _ = fs::remove_file(path);
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("our own folder");
}

/// Returns true if the authority answers from its table.
fn answers(server: &Server) -> bool {
    Client::of(server.listener("ts")).ask(&query("a.example", A)).answers() == ["192.0.2.1"]
}

/// Returns true if the metrics have this line.
fn has(server: &Server, line: &str) -> bool {
    server.admin().metrics().0.lines().any(|found| found == line)
}

#[test]
fn a_fifo_is_refused_at_a_reload_and_what_was_there_stays() {
    let server = start();
    assert!(has(&server, "hedgerow_config_edition 1") && has(&server, "hedgerow_config_last_reload_successful 1"));
    for file in ["a.txt", "config.toml"] {
        make_fifo(&server.path(file));
        let answer = server.admin().try_post("/api/v1/reload", "");
        assert_eq!(answer.status, 400, "{answer:?}");
        let reported =
            format!("{}: cannot be read: it is a FIFO (a pipe), expected a regular file", server.path(file).display());
        assert!(answer.body.contains(&reported), "{answer:?}");
        assert!(answers(&server));
        assert!(has(&server, "hedgerow_config_edition 1") && has(&server, "hedgerow_config_last_reload_successful 0"));
        let status = server.process.ctl(&["status", "--admin", &format!("http://{}", server.listener("admin"))]);
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(status.contains(" FAILED, edition 1 is active: ") && status.contains(&reported), "{status}");
        fs::remove_file(server.path(file)).expect("our own file");
        server.rewrite(file, if file == "a.txt" { "a.example 192.0.2.1 A\nb.example 192.0.2.1 A\n" } else { TS });
    }
    server.admin().post("/api/v1/reload", "");
    assert!(has(&server, "hedgerow_config_edition 2") && has(&server, "hedgerow_config_last_reload_successful 1"));
    assert!(has(&server, "hedgerow_reloads_total{result=\"ok\"} 1"));
    assert!(has(&server, "hedgerow_reloads_total{result=\"failed\"} 2"));
    server.process.wait_for_log("reloaded: edition 2");
}

#[test]
fn fifos_devices_and_folders_are_no_config_zones_or_secrets() {
    let secrets = "[admin]\ntoken_file = 'token'\n[keys.k]\nsecret_file = 'key'\n[authorities.ts]\nlisten = ['127.0.0.1:0']\n\
                   zones = ['a.txt']\ncookie_secrets_file = 'cookies'\n";
    let right = [
        ("config.toml", secrets.to_owned()),
        ("a.txt", table(0)),
        ("token", "0123456789abcdef".to_owned()),
        ("key", "c2VjcmV0IG9mIDE2IG9j".to_owned()),
        ("cookies", "000102030405060708090a0b0c0d0e0f".to_owned()),
    ];
    for (wrong, _) in &right {
        let folder = TempDir::new().expect("a folder for the test");
        for (name, content) in right.iter().filter(|(name, _)| name != wrong) {
            fs::write(folder.path().join(name), content).expect("a file of the test");
        }
        let file = folder.path().join(wrong);
        let check = |reported: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
            let output = command.args(["check", "-c"]).arg(folder.path().join("config.toml")).output();
            let output = output.expect("cargo has built the binary");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{wrong}: {stderr}");
            assert!(stderr.contains(&file.display().to_string()) && stderr.contains(reported), "{wrong}: {stderr}");
        };
        make_fifo(&file);
        check("it is a FIFO (a pipe), expected a regular file, since it is read again at each reload");
        fs::remove_file(&file).expect("our own file");
        std::os::unix::fs::symlink("/dev/zero", &file).expect("our own folder");
        check("it is a device, expected a regular file");
        fs::remove_file(&file).expect("our own file");
        fs::create_dir(&file).expect("our own folder");
        check("it is a folder, expected a regular file");
    }
}

/// A version of a zone with these many hosts, one of which has another address in each version.
fn zone(serial: u32, hosts: u32) -> String {
    let mut text = format!("$TTL 300\n@ SOA ns h {serial} 3600 3600 86400 60\n@ NS ns\nns A 192.0.2.{serial}\n");
    for host in 0..hosts {
        let _ = writeln!(text, "h{host} A 192.0.2.9");
    }
    text
}

#[test]
fn while_large_zones_are_loaded_and_compared_everything_is_answered_at_once() {
    // Of a zone that others may transfer, the versions are compared.
    let shared = "zones = ['a.txt', { file = 'z.zone', origin = 'z.example', transfer_to = ['127.0.0.0/8'] }]";
    let config = TS.replace("zones = ['a.txt']", shared);
    let server = Server::start_with_files(&config, &[("a.txt", &table(0)), ("z.zone", &zone(1, 50_000))]);
    server.rewrite("a.txt", &table(100_000));
    server.rewrite("z.zone", &zone(2, 50_000));
    let admin = server.admin();
    let client = Client::of(server.listener("ts"));
    let (mut paths, mut queries) = (Vec::new(), Vec::new());
    server.process.signal(Signal::HUP);
    let mut is_begun = false;
    until("the large table", || {
        is_begun |= has(&server, "hedgerow_reload_in_progress 1");
        for path in ["/healthz", "/readyz", "/metrics", "/api/v1/status"] {
            let asked = Instant::now();
            assert_eq!(admin.get(path).status, 200, "{path}");
            paths.push(asked.elapsed());
        }
        let asked = Instant::now();
        assert_eq!(client.ask(&query("a.example", A)).answers(), ["192.0.2.1"]);
        queries.push(asked.elapsed());
        has(&server, "hedgerow_config_edition 2").then_some(())
    });
    assert!(is_begun, "it was over before it was seen to run");
    assert_eq!(client.ask(&query("h99999.example", A)).answers(), ["192.0.2.2"]);
    assert_eq!(client.ask(&query("ns.z.example", A)).answers(), ["192.0.2.2"]);
    for (what, mut taken) in [("admin", paths), ("queries", queries)] {
        taken.sort_unstable();
        let (median, longest) = (taken[taken.len() / 2], taken[taken.len() - 1]);
        eprintln!("{what}: {} asked, median {median:?}, longest {longest:?}", taken.len());
        // Much more than it takes, for others may use the machine; a control thread that reads would take
        // seconds.
        assert!(median < ms(100) && longest < Duration::from_secs(2), "{what}: {median:?}, {longest:?}");
    }
}

/// Tests of builds with the feature: `cargo test --features faults --test it hostile::plane::`.
#[cfg(feature = "faults")]
mod faults {
    use std::process::Output;
    use std::thread;

    use super::*;

    /// Has a file be on a disk that is stalled, until it is dropped.
    struct Stall(std::path::PathBuf);

    impl Stall {
        fn of(server: &Server, file: &str) -> Self {
            let path = server.path(&format!("{file}.stall"));
            fs::write(&path, "").expect("our own folder");
            Self(path)
        }
    }

    impl Drop for Stall {
        fn drop(&mut self) {
            fs::remove_file(&self.0).expect("our own file");
        }
    }

    /// Waits until a reload runs, and returns the metrics.
    fn wait_for_reload(server: &Server) {
        let runs = |metrics: &Metrics| metrics.0.contains("\nhedgerow_reload_in_progress 1\n");
        server.admin().wait_for("a reload", runs);
    }

    /// Returns the status of reloads.
    fn status(server: &Server) -> serde_json::Value {
        serde_json::from_str(&server.admin().get("/api/v1/status").body).expect("the status is JSON")
    }

    fn ctl(server: &Server, words: &[&str]) -> Output {
        let admin = format!("unix:{}", server.process.admin_socket(server.listener("admin")).display());
        server.process.ctl(&[words, &["--admin", &admin]].concat())
    }

    #[test]
    fn with_a_stalled_disk_all_but_the_reload_goes_on() {
        let backend = Backend::new(answer("192.0.2.7"));
        let forwarder = Forwarder::to(&[&backend], "[health]\ninterval = '100ms'").to_toml();
        let server = Server::start_with_files(&format!("{forwarder}{TS}"), &[("a.txt", &table(0))]);
        server.rewrite("a.txt", &table(1));
        let stall = Stall::of(&server, "a.txt");
        server.process.signal(Signal::HUP);
        wait_for_reload(&server);
        let admin = server.admin();
        let probes = admin.metrics().attempts(backend.address(), Some("probe"));
        admin.wait_for("more probes", |metrics| metrics.attempts(backend.address(), Some("probe")) > probes + 2);
        assert_eq!((admin.get("/healthz").status, admin.get("/readyz").status), (200, 200));
        assert_eq!(server.client().ask(&query("www.example.org", A)).answers(), ["192.0.2.7"]);
        assert!(answers(&server));
        let running = &status(&server)["reloading"];
        assert!(running["for_seconds"].is_u64() && running["next_waits"] == false, "{running}");
        let shown = String::from_utf8(ctl(&server, &["status"]).stdout).expect("text");
        assert!(shown.contains("a reload has been reading for "), "{shown}");
        drop(stall);
        server.process.wait_for_log("reloaded: edition 2");
        let running = status(&server);
        assert!(running["reloading"].is_null() && running["edition"] == 2, "{running}");
        assert!(running["reload"]["ok"] == true && running["reload"]["error"].is_null(), "{running}");
        let new = Client::of(server.listener("ts")).ask(&query("h0.example", A));
        assert_eq!(new.answers(), ["192.0.2.2"]);
    }

    #[test]
    fn who_asks_while_a_reload_runs_gets_the_next_one() {
        let server = start();
        let stall = Stall::of(&server, "config.toml");
        server.process.signal(Signal::HUP);
        wait_for_reload(&server);
        thread::scope(|scope| {
            let asked: Vec<_> = (0..2).map(|_| scope.spawn(|| server.admin().try_post("/api/v1/reload", ""))).collect();
            server.process.signal(Signal::HUP);
            until("the next one waits", || (status(&server)["reloading"]["next_waits"] == true).then_some(()));
            // What is written now is read by the next one only, or by both.
            server.rewrite("a.txt", &table(1));
            drop(stall);
            for answer in asked.into_iter().map(|asked| asked.join().expect("no assertion failed")) {
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        });
        // However many requests came: the reload that ran, and the next one; and perhaps one for later
        // requests, by a signal and by HTTP.
        let edition = status(&server)["edition"].as_u64().expect("a number");
        assert!((3..=5).contains(&edition), "edition {edition}");
        let new = Client::of(server.listener("ts")).ask(&query("h0.example", A));
        assert_eq!(new.answers(), ["192.0.2.2"]);
    }

    #[test]
    fn who_waits_too_long_is_told_and_the_reload_goes_on() {
        let server = start();
        let stall = Stall::of(&server, "config.toml");
        let answer = server.admin().try_post("/api/v1/reload", "");
        assert_eq!(answer.status, 504, "{answer:?}");
        assert!(answer.body.contains("still reading after 3 s and continues"), "{answer:?}");
        let output = ctl(&server, &["reload"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("still reading after"), "{output:?}");
        // However many wait for a reload, others are heard.
        thread::scope(|scope| {
            let waiting: Vec<_> =
                (0..6).map(|_| scope.spawn(|| server.admin().try_post("/api/v1/reload", "").status)).collect();
            let statuses: Vec<u16> = waiting.into_iter().map(|asked| asked.join().expect("an answer")).collect();
            assert!(statuses.iter().all(|status| matches!(status, 503 | 504)), "{statuses:?}");
            assert!(statuses.contains(&503) && statuses.contains(&504), "{statuses:?}");
        });
        assert_eq!(server.admin().get("/metrics").status, 200);
        drop(stall);
        server.process.wait_for_log("reloaded: edition 2");
    }

    #[test]
    fn sigterm_drains_while_a_reload_hangs() {
        let mut server = start();
        let _stall = Stall::of(&server, "config.toml");
        thread::scope(|scope| {
            let asked = scope.spawn(|| server.admin().try_post("/api/v1/reload", ""));
            wait_for_reload(&server);
            server.process.signal(Signal::TERM);
            let answer = asked.join().expect("an answer");
            assert_eq!(answer.status, 409, "{answer:?}");
            assert!(answer.body.contains("the server is ending"), "{answer:?}");
        });
        assert!(server.process.wait_for_exit().success(), "{}", server.process.log());
        server.process.wait_for_log("drained");
    }

    #[test]
    fn a_second_sigterm_ends_the_process_while_a_reload_hangs() {
        let backend = Backend::new(silent());
        let forwarder = Forwarder::to(&[&backend], "timeout = '60s'").to_toml();
        let mut server = Server::start_with_files(&format!("{forwarder}{TS}"), &[("a.txt", &table(0))]);
        let _stall = Stall::of(&server, "config.toml");
        server.client().send(&query("www.example.org", A));
        backend.wait_for(1);
        server.process.signal(Signal::HUP);
        wait_for_reload(&server);
        server.process.signal(Signal::TERM);
        server.process.wait_for_log("a second signal ends at once");
        server.process.signal(Signal::TERM);
        assert_eq!(server.process.wait_for_exit().code(), Some(1), "{}", server.process.log());
        server.process.wait_for_log("SIGTERM again: ending at once");
    }

    #[test]
    fn a_second_sigterm_ends_even_a_control_thread_that_is_stuck() {
        let backend = Backend::new(answer("192.0.2.7"));
        let forwarder = Forwarder::to(&[&backend], "").to_toml();
        let mut server = Server::start_as(&forwarder, &[], |command| {
            command.env("HEDGEROW_STUCK_TASK", "probe");
        });
        // Its workers go on.
        assert_eq!(server.client().ask(&query("www.example.org", A)).answers(), ["192.0.2.7"]);
        server.process.signal(Signal::TERM);
        // The test cannot see when the first signal was handled, and two pending signals merge into one; so
        // it repeats the second.
        until("the end", || {
            server.process.signal(Signal::INT);
            let status = fs::read_to_string(format!("/proc/{}/stat", server.process.id())).unwrap_or_default();
            (status.is_empty() || status.contains(") Z ")).then_some(())
        });
        assert_eq!(server.process.wait_for_exit().code(), Some(1));
        assert!(server.process.log().contains(" again: ending at once"), "{}", server.process.log());
    }

    /// Starts a task of this kind in a server that is ready; does nothing for tasks that the start of the
    /// server begins.
    fn bring_about(kind: &str, server: &Server) {
        let tcp = |listener: &str, question: Query| TcpClient::of(server.listener(listener)).send(&[question]);
        match kind {
            "fetch" => tcp("forwarder", query("www.example.org", A)),
            "transfer" => tcp("ts", query("z.example", AXFR)),
            "cache-flush" => {
                let config = fs::read_to_string(server.path("config.toml")).expect("our own file");
                server.reload("config.toml", &config.replace("timeout = '2s'", "cache = false"));
            }
            "reload" => server.process.signal(Signal::HUP),
            "persist" | "drain" => server.process.signal(Signal::TERM),
            _ => {}
        }
    }

    /// A server that has every kind of task, and loses each of this kind at its begin.
    fn start_losing(kind: &str, backend: &Backend) -> Server {
        let zone = "@ 300 SOA ns h 1 3600 3600 86400 60\n@ NS ns\nns A 192.0.2.1\n";
        let forwarder =
            Forwarder::to(&[backend], "timeout = '2s'\ndiscover.file = 'members.json'\nreplicas = true\naudit = '1s'")
                .workers(2)
                .cache("persist = 'cache.bin'");
        let config = format!(
            "watch = true\n{}[admin]\nlisten = '127.0.0.1:0'\n[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [\
             {{ file = 'z.zone', origin = 'z.example', transfer_to = ['127.0.0.0/8'], also_notify = ['127.0.0.1:9'] }},\
             {{ zone = 's.example', primaries = ['127.0.0.1:9'], file = 's.zone' }}]\n",
            forwarder.to_toml()
        );
        let server = Server::start_as(&config, &[("z.zone", zone)], |command| {
            command.env("HEDGEROW_LOST_TASK", kind);
        });
        bring_about(kind, &server);
        server
    }

    /// The kinds of tasks that run on the thread of a worker while it takes queries.
    const OF_WORKERS: [&str; 7] = ["listener", "connections", "replies", "hand-over", "fetch", "transfer", "worker"];

    #[test]
    fn a_reload_without_a_thread_for_its_taps_leaves_the_certificates_as_they_were() {
        let (backend, one, two) =
            (Backend::new(answer("192.0.2.7")), CertificateAuthority::new(), CertificateAuthority::new());
        let ((chain, key), (other_chain, other_key)) = (one.issue("dns.example"), two.issue("other.example"));
        let files = [("chain.pem", &*chain), ("key.pem", &*key), ("2.pem", &*other_chain), ("2.key", &*other_key)];
        // Without an admin server, whose slow races want the thread from the start.
        let config = Forwarder::to(&[&backend], "").listen("['127.0.0.1:0', 'tls://127.0.0.1:0']").to_toml()
            + "[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n";
        let server = Server::start_as(&config, &files, |command| {
            command.env("HEDGEROW_REFUSED_THREAD", "taps");
        });
        let address = server.listeners("forwarder")[1];
        let shows = |authorities: &CertificateAuthority, name| {
            TlsClient::try_of(address, &authorities.trusted(&["dot"]), name).is_ok()
        };
        let more = "[certificates.other]\nchain = '2.pem'\nkey = '2.key'\n[query_log]\n";
        server.rewrite("config.toml", &(config + more));
        server.process.signal(Signal::HUP);
        server.process.wait_for_log("reload failed, the previous config stays");
        assert!(shows(&one, "dns.example"), "the certificate in force stays");
        assert!(!shows(&two, "other.example"), "that of the reload is not shown");
    }

    #[test]
    fn whatever_task_of_a_worker_is_lost_the_worker_is_replaced() {
        let backend = Backend::new(truncated().by_tcp(answer("192.0.2.7")));
        for kind in OF_WORKERS {
            let server = start_losing(kind, &backend);
            let reported = server.process.wait_for_log("; replaced");
            let expected = format!("panicked: asked to lose {kind}; replaced");
            assert!(reported.contains(&expected) && reported.contains(&format!("task=\"{kind}\"")), "{reported}");
            let metrics = server.admin().metrics();
            assert!(metrics.sum("hedgerow_worker_replacements_total", &[]) >= 1, "{kind}: {}", metrics.0);
            assert!(metrics.sum("hedgerow_tasks_lost_total", &[]) >= 1, "{kind}: {}", metrics.0);
        }
    }

    #[test]
    fn whatever_else_is_lost_the_process_says_so_and_ends() {
        let backend = Backend::new(truncated().by_tcp(answer("192.0.2.7")));
        for kind in net::tasks::TaskKind::ALL.map(|kind| kind.label()) {
            if OF_WORKERS.contains(&kind) {
                continue;
            }
            let mut server = start_losing(kind, &backend);
            assert_eq!(server.process.wait_for_exit().code(), Some(1), "{kind}: {}", server.process.log());
            let reported = server.process.wait_for_log("; the process ends");
            let expected = format!("a task ({kind}) panicked: asked to lose {kind}; the process ends");
            assert!(reported.contains(&expected) && reported.contains(&format!("task=\"{kind}\"")), "{reported}");
        }
    }
}
