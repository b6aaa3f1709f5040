//! Tests of the admin server: a local user has no rights, and cannot keep others from being served.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;
use testkit::*;

/// The token of the tests.
const TOKEN: &str = "0123456789abcdef";

/// The headers that a script on this host sends, and that no web page can send without permission.
const SCRIPT: [(&str, &str); 2] = [("Host", "localhost"), ("X-Requested-With", "curl")];

/// A user without any right.
const NOBODY: u32 = 65_534;

/// All kinds of changes, of a server with a pool "all" and a cache.
const CHANGES: [(&str, &str, &str); 6] = [
    ("POST", "/api/v1/reload", ""),
    ("POST", "/api/v1/pools/all/backends", r#"{"address": "127.0.0.1:5399"}"#),
    ("POST", "/api/v1/pools/all/backends/127.0.0.1:5399/down", ""),
    ("POST", "/api/v1/pools/all/backends/127.0.0.1:5399/auto", ""),
    ("DELETE", "/api/v1/pools/all/backends/127.0.0.1:5399", ""),
    ("DELETE", "/api/v1/cache", ""),
];

/// A command of the binary as a user without any right.
fn as_nobody() -> Command {
    // The folder of the tests is perhaps not open to others, so the binary comes by a descriptor.
    let binary = fs::File::open(env!("CARGO_BIN_EXE_hedgerow")).expect("cargo has built the binary");
    let mut command = Command::new("/proc/self/fd/0");
    command.stdin(binary).current_dir("/").uid(NOBODY).gid(NOBODY);
    command
}

/// The config of a forwarder, with these lines in `[admin]`.
fn config(backend: &Backend, admin: &str) -> String {
    format!("{}{admin}\n", Forwarder::to(&[backend], "").cache("").admin().to_toml())
}

/// A server with a token in a file that only its owner reads.
fn with_token(backend: &Backend) -> Server {
    let server = Server::start_with_files(&config(backend, "token_file = 'admin.token'"), &[("admin.token", TOKEN)]);
    fs::set_permissions(server.path("admin.token"), Permissions::from_mode(0o600)).expect("our own file");
    server
}

/// Checks that no change is taken by HTTP without the token, and that the answer names `remedies`.
fn check_refused(admin: &Admin, remedies: &[&str]) {
    for (method, path, body) in CHANGES {
        let answer = admin.send(method, path, &SCRIPT, body);
        assert_eq!(answer.status, 403, "{method} {path}: {answer:?}");
        assert!(remedies.iter().all(|remedy| answer.body.contains(remedy)), "{answer:?}");
        let wrong = [SCRIPT[0], SCRIPT[1], ("Authorization", "Bearer 0123456789abcdeg")];
        assert_eq!(admin.send(method, path, &wrong, body).status, 403, "{method} {path}");
    }
}

#[test]
fn a_local_user_without_the_token_changes_nothing() {
    let backend = Backend::new(answer("192.0.2.1"));
    let server = with_token(&backend);
    let admin = server.admin();
    check_refused(&admin, &["admin.token_file", "admin-127.0.0.1:"]);
    assert_eq!(admin.backend("127.0.0.1:5399"), serde_json::Value::Null);
    for path in ["/metrics", "/api/v1/status", "/healthz", "/readyz"] {
        assert_eq!(admin.get(path).status, 200, "reading needs nothing: {path}");
    }
    let bearer = format!("Bearer {TOKEN}");
    for (method, path, body) in CHANGES {
        let answer = admin.send(method, path, &[("Host", "ls1.example"), ("Authorization", &bearer)], body);
        assert_eq!(answer.status, 200, "with the token: {method} {path}: {answer:?}");
    }
    for (method, path, body) in CHANGES {
        let answer = admin.send_over_socket(method, path, body);
        assert_eq!(answer.status, 200, "over the socket: {method} {path}: {answer:?}");
    }
}

#[test]
fn without_a_token_changes_come_over_the_socket_alone() {
    let backend = Backend::new(answer("192.0.2.1"));
    let server = Server::start(&config(&backend, ""));
    let admin = server.admin();
    check_refused(&admin, &["admin-127.0.0.1:", "set admin.token_file"]);
    for (method, path, body) in CHANGES {
        assert_eq!(admin.send_over_socket(method, path, body).status, 200, "{method} {path}");
    }
    let closed = Server::start(&config(&backend, "socket = 'off'"));
    check_refused(&closed.admin(), &["changes are disabled", "set admin.socket"]);
    assert!(!closed.process.admin_socket(closed.listener("admin")).exists());
}

#[test]
fn the_socket_is_for_the_user_of_the_server_and_root() {
    let backend = Backend::new(answer("192.0.2.1"));
    let folder = TempDir::new().expect("a folder for the test");
    let path = folder.path().join("admin.sock");
    let server = Server::start(&config(&backend, &format!("socket = {path:?}")));
    let found = fs::metadata(&path).expect("the server is ready");
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o600, geteuid().as_raw()));
    UnixStream::connect(&path).expect("its owner connects");
    if !geteuid().is_root() {
        return leave_out(
            "hostile::control::the_socket_is_for_the_user_of_the_server_and_root",
            "only root can be another user",
        );
    }
    // File and folder are open to all, as after a wrong chmod.
    for path in [folder.path(), &path] {
        fs::set_permissions(path, Permissions::from_mode(0o777)).expect("our own file");
    }
    let as_nobody = |words: &[&str]| {
        let admin = format!("unix:{}", path.display());
        as_nobody().args(["ctl", "--admin", &admin]).args(words).output().expect("a program")
    };
    let output = as_nobody(&["down", "all", &backend.address().to_string()]);
    let reported = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && reported.contains("cannot be reached"), "{reported}");
    server.process.wait_for_log("only root and the user of the server may use the socket");
    assert_eq!(server.admin().backend(&backend.address().to_string())["by_hand"], false);
}

#[test]
fn a_stale_socket_is_replaced_and_that_of_a_running_process_is_not() {
    let backend = Backend::new(answer("192.0.2.1"));
    let folder = TempDir::new().expect("a folder for the test");
    let path = folder.path().join("admin.sock");
    let config = config(&backend, &format!("socket = {path:?}"));
    let mut first = Server::start(&config);
    let file = folder.path().join("config.toml");
    fs::write(&file, &config).expect("a file of the test");
    let mut second = Process::run(["serve".as_ref(), "-c".as_ref(), file.as_os_str()]);
    assert_eq!(second.wait_for_exit().code(), Some(1), "{}", second.log());
    let reported = second.log();
    assert!(reported.contains(&format!("process {} uses this socket", first.process.id())), "{reported}");
    first.process.signal(Signal::KILL);
    first.process.wait_for_exit();
    assert!(path.exists(), "no process could remove it");
    let mut third = Server::start(&config);
    let output = third.process.ctl(&["--admin", &format!("unix:{}", path.display()), "reload"]);
    assert!(output.status.success(), "{output:?}");
    third.process.signal(Signal::TERM);
    assert!(third.process.wait_for_exit().success());
    assert!(!path.exists(), "a clean end removes it");
}

#[test]
fn a_folder_that_somebody_else_may_have_made_is_not_used() {
    let backend = Backend::new(answer("192.0.2.1"));
    let uid = geteuid().as_raw();
    let start = |temporary: &Path| {
        Server::start_as(&config(&backend, ""), &[], |command| {
            command.env_remove("RUNTIME_DIRECTORY").env_remove("XDG_RUNTIME_DIR").env("TMPDIR", temporary);
        })
    };
    let socket = |folder: &Path, server: &Server| folder.join(format!("admin-{}.sock", server.listener("admin")));
    let ours = TempDir::new().expect("a folder for the test");
    let server = start(ours.path());
    let folder = ours.path().join(format!("hedgerow-{uid}"));
    assert_eq!(fs::metadata(&folder).expect("it is made").mode() & 0o7777, 0o700);
    UnixStream::connect(socket(&folder, &server)).expect("it is there");

    let elsewhere = TempDir::new().expect("a folder for the test");
    let check = |reason: &str, make: &dyn Fn(&Path)| {
        let temporary = TempDir::new().expect("a folder for the test");
        let folder = temporary.path().join(format!("hedgerow-{uid}"));
        make(&folder);
        let server = start(temporary.path());
        server.process.wait_for_log(reason);
        assert!(!socket(&folder, &server).exists(), "{reason}");
        // DNS clients are answered nevertheless.
        assert_eq!(server.client().ask(&query("www.example.org", A)).answers(), ["192.0.2.1"]);
        check_refused(&server.admin(), &["set admin.socket"]);
    };
    check("not a link", &|folder| symlink(elsewhere.path(), folder).expect("a link"));
    check("others may enter the folder (mode 0755)", &|folder| {
        fs::create_dir(folder).expect("a folder");
        fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("our own folder");
    });
    if geteuid().is_root() {
        check("the folder belongs to the user with ID 65534", &|folder| {
            fs::create_dir(folder).expect("a folder");
            fs::set_permissions(folder, Permissions::from_mode(0o700)).expect("our own folder");
            chown(folder, Some(NOBODY), None).expect("we are root");
        });
    }
    assert_eq!(fs::read_dir(elsewhere.path()).expect("our own folder").count(), 0);
}

#[test]
fn ctl_goes_over_the_socket_by_itself_and_tells_the_remedy_where_it_cannot() {
    let backend = Backend::new(answer("192.0.2.1"));
    let server = Server::start(&config(&backend, ""));
    let (pool, name) = ("all", backend.address().to_string());
    let url = format!("http://{}", server.listener("admin"));
    let output = server.process.ctl(&["--admin", &url, "down", "--force", pool, &name]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(server.admin().backend(&name)["by_hand"], true);
    // By the config alone, if that says which port.
    let address = free_address();
    let reported = config(&backend, "").replace("'127.0.0.1:0'", &format!("'{address}'"));
    let server = Server::start(&reported);
    let file = server.path("config.toml").display().to_string();
    assert!(server.process.ctl(&["-c", &file, "down", "--force", pool, &name]).status.success());
    assert_eq!(server.admin().backend(&name)["by_hand"], true);
    // In another environment the socket is not found.
    let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
    command.args(["ctl", "-c", &file, "auto", pool, &name]).env_remove("RUNTIME_DIRECTORY");
    let output = command.output().expect("cargo has built the binary");
    let message = String::from_utf8_lossy(&output.stderr);
    let socket = server.process.admin_socket(address).display().to_string();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains(&format!("changes are taken over the unix socket {socket}")), "{message}");
    let output = server.process.ctl(&["--admin", &format!("unix:{socket}"), "auto", pool, &name]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(server.admin().backend(&name)["by_hand"], false);
}

#[test]
fn with_a_token_names_need_it_or_the_socket() {
    let backend = Backend::new(answer("192.0.2.1"));
    let (server, open) = (with_token(&backend), Server::start(&config(&backend, "")));
    let bearer = format!("Bearer {TOKEN}");
    for path in ["/api/v1/slow", "/api/v1/names", "/api/v1/divergence", "/api/v1/cache/names/a.example"] {
        let admin = server.admin();
        let refused = admin.send("GET", path, &SCRIPT, "");
        assert_eq!(refused.status, 403, "{path}: {refused:?}");
        for way in ["admin.token_file", "admin-127.0.0.1:"] {
            assert!(refused.body.contains(way), "{refused:?}");
        }
        assert_ne!(admin.send("GET", path, &[SCRIPT[0], ("Authorization", &bearer)], "").status, 403, "{path}");
        assert_ne!(admin.send_over_socket("GET", path, "").status, 403, "{path}");
        assert_ne!(open.admin().send("GET", path, &SCRIPT, "").status, 403, "without a token: {path}");
    }
}

#[test]
fn the_token_goes_to_no_stranger_at_the_port_of_the_server() {
    if !geteuid().is_root() {
        return leave_out("the_token_goes_to_no_stranger_at_the_port_of_the_server", "only root can be another user");
    }
    let backend = Backend::new(answer("192.0.2.1"));
    // A server of another user holds the port of the config.
    let folder = TempDir::new_in("/tmp").expect("a folder for the test");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("our own folder");
    let (address, file) = (free_address(), folder.path().join("config.toml"));
    let config = config(&backend, "token_file = 'admin.token'\nsocket = 'off'");
    let config = config.replace("'127.0.0.1:0'", &format!("'{address}'"));
    fs::write(&file, config).expect("a file of the test");
    fs::write(folder.path().join("admin.token"), TOKEN).expect("a file of the test");
    let mut stranger = as_nobody().args(["serve", "-c"]).arg(&file).stderr(Stdio::null()).spawn().expect("a program");
    until("the stranger listens", || TcpStream::connect(address).ok());
    let ctl = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
        let output = command.args(["ctl", "-c"]).arg(&file).args(words).output().expect("cargo has built the binary");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let refusal = format!("refusing to send the token to {address}: the socket there belongs to user {NOBODY}");
    for words in [&["cache", "flush"][..], &["names"], &["reload"]] {
        let (code, reported) = ctl(words);
        assert!(
            code == Some(1) && reported.contains(&refusal) && reported.contains("--token-file"),
            "{words:?}: {reported}"
        );
    }
    let read = ctl(&["status"]);
    let named = ctl(&["reload", "--token-file", &folder.path().join("admin.token").display().to_string()]);
    stranger.kill().expect("our own child");
    stranger.wait().expect("our own child");
    assert_eq!((read.0, named.0), (Some(0), Some(0)), "{read:?} {named:?}");
}

#[test]
fn who_listens_at_the_socket_of_another_program_hears_nothing_of_ours() {
    let backend = Backend::new(answer("192.0.2.1"));
    let folder = TempDir::new().expect("a folder for the test");
    let path = folder.path().join("admin.sock");
    let _other = UnixListener::bind(&path).expect("a free path");
    let file = folder.path().join("config.toml");
    fs::write(&file, config(&backend, &format!("socket = {path:?}"))).expect("a file of the test");
    let mut process = Process::run(["serve".as_ref(), "-c".as_ref(), file.as_os_str()]);
    assert_eq!(process.wait_for_exit().code(), Some(1));
    assert!(process.log().contains("uses this socket; stop it, or choose another path"), "{}", process.log());
}

#[test]
fn secret_files_that_others_can_read_are_told_at_start_and_check() {
    let backend = Backend::new(answer("192.0.2.1"));
    let keys = "\n[keys.replica]\nsecret_file = 'replica.key'\n";
    let text =
        config(&backend, "token_file = 'admin.token'").replace("[cache]\n", "[cache]\npersist = 'cache.bin'\n") + keys;
    let files = [("admin.token", TOKEN), ("replica.key", "c2VjcmV0IG9mIDE2IG9j"), ("cache.bin", "")];
    let server = Server::start_with_files(&text, &files);
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
        let output = command.args(["check", "-c"]).arg(server.path("config.toml")).output().expect("a program");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    for (name, _) in files {
        fs::set_permissions(server.path(name), Permissions::from_mode(0o644)).expect("our own file");
    }
    server.process.signal(Signal::HUP);
    server.process.wait_for_log("reloaded");
    for (name, _) in files {
        let path = server.path(name);
        let remedy = format!("chmod 600 {}", path.display());
        server.process.wait_for_log(&remedy);
        assert!(check().contains(&remedy), "{}", check());
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("our own file");
        assert!(!check().contains(&remedy));
    }
}

/// Far above the ten seconds that a request has, even on a busy machine, and far below the time that an idle
/// connection has.
const LONG: Duration = Duration::from_secs(40);

/// A request whose body never comes.
const UNFINISHED: &str = "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer 0123456789abcdef\r\n\
                          Content-Length: 100\r\n\r\n{";

/// A connection that has sent this.
fn sent(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the admin server listens");
    stream.set_read_timeout(Some(LONG)).expect("not zero");
    stream.write_all(text.as_bytes()).expect("room for it");
    stream
}

/// How long until health and readiness are known.
fn check_health(admin: &Admin) -> Duration {
    let begin = Instant::now();
    assert_eq!((admin.get("/healthz").status, admin.get("/readyz").status), (200, 200));
    begin.elapsed()
}

#[test]
fn unfinished_requests_keep_nobody_waiting_and_end_after_ten_seconds() {
    let backend = Backend::new(answer("192.0.2.1"));
    let server = with_token(&backend);
    let admin = server.admin();
    let begin = Instant::now();
    let unfinished: Vec<_> = (0..100).map(|_| sent(admin.address(), UNFINISHED)).collect();
    let took = check_health(&admin);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(admin.get("/metrics").status, 200);
    for mut stream in unfinished {
        let mut rest = Vec::new();
        // An end or a reset, whether it made room or its time was over.
        let _ = stream.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
    }
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(9), "some of them had the time that a request has: {took:?}");
    assert!(took < LONG, "{took:?}");
}

#[test]
fn half_a_head_has_ten_seconds_too() {
    let backend = Backend::new(answer("192.0.2.1"));
    let server = with_token(&backend);
    let begin = Instant::now();
    let mut stream = sent(server.listener("admin"), "GET /healthz HTTP/1.1\r\nHost: loc");
    let _ = stream.read(&mut [0; 64]);
    let took = begin.elapsed();
    assert!((Duration::from_secs(9)..LONG).contains(&took), "{took:?}");
}

#[test]
fn a_response_that_nobody_reads_does_not_stay() {
    let backend = Backend::new(answer("192.0.2.1"));
    let server = with_token(&backend);
    let mut stream = sent(server.listener("admin"), "");
    stream.set_write_timeout(Some(LONG)).expect("not zero");
    // Until the responses fill all buffers, and so do the requests then.
    let question = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let begin = Instant::now();
    let ended = loop {
        if let Err(error) = stream.write_all(question.as_bytes()) {
            break error;
        }
        assert!(begin.elapsed() < LONG, "buffers have an end");
    };
    assert!(!matches!(ended.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{ended}");
    assert!(begin.elapsed() < LONG);
    check_health(&server.admin());
}
