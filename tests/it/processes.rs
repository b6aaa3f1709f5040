//! Processes as one sees them from outside: `ctl processes`, `restart`, `upgrade` and `stop`, the status and
//! the metrics.

use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// A server without a supervisor, with an admin server.
fn single(backend: &Backend) -> Server {
    Server::start(&(Forwarder::to(&[backend], "").to_toml() + "[admin]\nlisten = '127.0.0.1:0'\n"))
}

/// Returns the first number behind a word in a file of the server's process.
fn number_in(server: &Server, file: &str, word: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/{file}", server.process.id())).expect("it is running");
    let line = text.lines().find_map(|line| line.strip_prefix(word)).expect("a line with the word");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn the_kernel_has_room_for_many_descriptors_from_the_start() {
    let server = single(&Backend::new(answer(ADDRESS)));
    let limit = number_in(&server, "limits", "Max open files");
    assert!(number_in(&server, "status", "FDSize:") >= limit.min(1 << 16));
}

#[test]
fn a_server_without_a_supervisor_lists_itself() {
    let backend = Backend::new(answer(ADDRESS));
    let server = single(&backend);
    let pid = server.process.id();
    let admin = format!("http://{}", server.admin().address());
    let output = server.process.ctl(&["processes", "--json", "--admin", &admin]);
    let processes: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let [process] = &processes.as_array().expect("a list")[..] else { panic!("one process: {processes}") };
    assert_eq!((&process["pid"], &process["role"]), (&pid.into(), &"server".into()));
    assert_eq!((&process["edition"], &process["problem"]), (&1.into(), &serde_json::Value::Null));
    assert_eq!(process["version"], env!("CARGO_PKG_VERSION"));
    let status: serde_json::Value =
        serde_json::from_str(&server.admin().get("/api/v1/status").body).expect("the status is JSON");
    assert_eq!((&status["supervisor"], &status["processes"][0]["pid"]), (&serde_json::Value::Null, &pid.into()));
    let metrics = server.admin().metrics();
    let count = |role| metrics.sum("hedgerow_processes", &[("role", role)]);
    assert_eq!((count("server"), count("standby"), count("supervisor")), (1, 0, 0));
}

#[test]
fn another_process_needs_a_supervisor() {
    let backend = Backend::new(answer(ADDRESS));
    let server = single(&backend);
    for what in ["restart", "upgrade"] {
        let answer = server.admin().try_post(&format!("/api/v1/{what}"), "{\"cold\": true}");
        assert_eq!(answer.status, 409, "{answer:?}");
        assert!(answer.body.contains("set [supervisor] in the config and start hedgerow again"), "{answer:?}");
        server.process.wait_for_log(&format!("{what} refused: there is no supervisor"));
    }
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ADDRESS]);
}

#[test]
fn a_stop_drains_and_is_answered() {
    let backend = Backend::new(answer(ADDRESS));
    let mut server = single(&backend);
    let answer = server.admin().try_post("/api/v1/stop", "");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("taking no more queries"), "{answer:?}");
    assert_eq!(server.process.wait_for_exit().code(), Some(0));
    assert!(server.process.log().contains("drained"), "{}", server.process.log());
}
