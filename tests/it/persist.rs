//! The cache over a restart: saved when the process ends, loaded before it is ready, ignored if it is
//! damaged.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use tempfile::TempDir;
use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// Starts a server that keeps its cache in this file.
fn start(backend: &Backend, file: &Path) -> Server {
    Forwarder::to(&[backend], "").cache(&format!("persist = '{}'", file.display())).start()
}

/// Ends a server as an operator does.
fn end(mut server: Server) {
    server.process.signal(Signal::TERM);
    assert!(server.process.wait_for_exit().success());
}

#[test]
fn answers_survive_a_restart_and_age_meanwhile() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("cache.bin");
    let backend = Backend::new(answer_for(5, ADDRESS));
    let server = start(&backend, &file);
    server.process.wait_for_log("cache: the file does not exist yet");
    assert_eq!(server.client().ask(&query("www.example", A)).ttls(), [5]);
    end(server);
    assert_eq!(fs::read_dir(folder.path()).expect("our own folder").count(), 1, "nothing is left beside it");
    let server = start(&backend, &file);
    server.process.wait_for_log("cache: loaded answers=1 ");
    let client = server.client();
    let hit = client.ask(&query("WWW.example", A));
    assert_eq!((hit.answers(), backend.queries().len()), (vec![ADDRESS.to_owned()], 1));
    until("it ages on", || (client.ask(&query("www.example", A)).ttls()[0] < hit.ttls()[0]).then_some(()));
    end(server);
}

/// The file is there after a crash, too.
#[test]
fn it_is_saved_now_and_then_and_a_failed_save_is_tried_again() {
    let folder = TempDir::new().expect("a temporary folder");
    let (blocked, kept) = (folder.path().join("blocked"), folder.path().join("kept"));
    let backend = Backend::new(answer(ADDRESS));
    let start = |file: &Path| {
        let every = "\npersist_every = '10s'";
        Forwarder::to(&[&backend], "").cache(&format!("persist = '{}'{every}", file.display())).start()
    };
    // In the place of the one there is a folder when the first save is due.
    fs::create_dir(&blocked).expect("our own folder");
    let servers = [start(&blocked), start(&kept)];
    for server in &servers {
        assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ADDRESS]);
    }
    servers[0].process.wait_for_log("cache: cannot be saved");
    servers[1].process.wait_for_log("cache: saved answers=1 ");
    fs::remove_dir(&blocked).expect("our own folder");
    servers[0].process.wait_for_log("cache: saved answers=1 ");
    drop(servers);
    start(&kept).process.wait_for_log("cache: loaded answers=1 ");
    start(&blocked).process.wait_for_log("cache: loaded answers=1 ");
}

#[test]
fn what_a_pool_said_that_has_changed_is_not_loaded() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("cache.bin");
    let backends = [Backend::new(answer(ADDRESS)), Backend::new(answer("192.0.2.2"))];
    let server = start(&backends[0], &file);
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ADDRESS]);
    end(server);
    let server = start(&backends[1], &file);
    server.process.wait_for_log("cache: loaded answers=0 ");
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), ["192.0.2.2"]);
}

#[test]
fn a_damaged_file_is_reported_and_ignored() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("cache.bin");
    let backend = Backend::new(answer(ADDRESS));
    let server = start(&backend, &file);
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ADDRESS]);
    end(server);
    let sound = fs::read(&file).expect("it was saved");
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    for (queries, (content, reason)) in [
        (&sound[..sound.len() - 1], "is cut short"),
        (&flipped, "cache: the file is ignored"),
        (b"something else".as_slice(), "is not a saved cache"),
        (b"".as_slice(), "is cut short"),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(&file, content).expect("our own folder");
        let server = start(&backend, &file);
        let line = server.process.wait_for_log(reason);
        assert!(line.contains("WARN") && line.contains("cache.bin"), "{line}");
        assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ADDRESS]);
        assert_eq!(backend.queries().len(), queries + 2, "{reason}");
    }
}

#[test]
fn what_is_no_file_keeps_nobody_from_starting_or_ending() {
    let folder = TempDir::new().expect("a temporary folder");
    let backend = Backend::new(answer(ADDRESS));
    // Below a file there is no folder to be made.
    let plain = folder.path().join("plain");
    fs::write(&plain, "").expect("a file of our own");
    for file in [folder.path().to_owned(), plain.join("cache.bin")] {
        let mut server = start(&backend, &file);
        assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ADDRESS]);
        server.process.signal(Signal::TERM);
        server.process.wait_for_log("cache: cannot be saved");
        assert!(server.process.wait_for_exit().success());
    }
}
