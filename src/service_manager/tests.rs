//! Tests in which the test plays the manager: a socket that is read or not.

use std::net::UdpSocket;

use tempfile::TempDir;

use super::*;

/// Returns a manager whose socket is in a temporary folder.
fn manager(watchdog: Option<Duration>) -> (TempDir, UnixDatagram, ServiceManager) {
    let folder = TempDir::new().expect("a folder for the test");
    let path = folder.path().join("notify");
    let reader = UnixDatagram::bind(&path).expect("our own folder");
    reader.set_nonblocking(true).expect("a socket");
    let contact = Contact { socket: Some(path), watchdog, ..Contact::default() };
    (folder, reader, ServiceManager::new(contact, &[]).expect("a socket"))
}

fn read(reader: &UnixDatagram) -> Option<String> {
    let mut message = [0; 4096];
    let length = reader.recv(&mut message).ok()?;
    Some(String::from_utf8(message[..length].to_vec()).expect("UTF-8"))
}

#[test]
fn messages_are_those_of_sd_notify() {
    let (_folder, reader, mut manager) = manager(Some(Duration::from_millis(900)));
    manager.ready("serving\nall");
    assert_eq!(read(&reader).as_deref(), Some("READY=1\nSTATUS=serving; all"));
    manager.reloading();
    let message = read(&reader).expect("a message");
    let lines: Vec<_> = message.lines().collect();
    assert_eq!((lines[0], lines[2]), ("RELOADING=1", "STATUS=reloading"), "{message}");
    let began: u64 = lines[1].strip_prefix("MONOTONIC_USEC=").and_then(|usec| usec.parse().ok()).expect("a time");
    let now = clock_gettime(ClockId::Monotonic);
    assert!((now.tv_sec as u64).abs_diff(began / 1_000_000) < 60, "{message}");
    manager.tick(true);
    assert_eq!(read(&reader).as_deref(), Some("WATCHDOG=1"));
    manager.tick(false);
    assert_eq!(read(&reader), None);
    manager.stopping();
    assert_eq!(read(&reader).as_deref(), Some("STOPPING=1\nSTATUS=draining"));
    assert_eq!(manager.interval(), Some(Duration::from_millis(300)));
}

/// See the comment in `reloading`.
#[test]
fn a_successor_says_who_it_is_and_no_more_that_it_reloads() {
    let (_folder, reader, mut manager) = manager(None);
    manager.succeed();
    assert_eq!(read(&reader), Some(format!("MAINPID={}", process::id())));
    manager.reloading();
    assert_eq!(read(&reader).as_deref(), Some("STATUS=reloading"));
    // The manager has no watchdog.
    manager.tick(true);
    assert_eq!(read(&reader), None);
}

#[test]
fn a_manager_that_does_not_read_is_not_waited_for_and_gets_all_in_order_later() {
    let (_folder, reader, mut manager) = manager(Some(Duration::from_secs(30)));
    let mut said = 0;
    while manager.waiting.is_empty() {
        manager.ready(&said.to_string());
        said += 1;
        assert!(said < 100_000, "its queue has no end");
    }
    manager.stopping();
    // A late watchdog ping is not sent.
    manager.tick(true);
    assert_eq!(manager.waiting.len(), 2);
    assert!(manager.is_reported);
    for number in 0..said - 1 {
        assert_eq!(read(&reader), Some(format!("READY=1\nSTATUS={number}")));
    }
    manager.tick(true);
    assert_eq!(read(&reader), Some(format!("READY=1\nSTATUS={}", said - 1)));
    assert_eq!(read(&reader).as_deref(), Some("STOPPING=1\nSTATUS=draining"));
    assert_eq!(read(&reader).as_deref(), Some("WATCHDOG=1"));
    drop(reader);
    for _ in 0..2 * MAX_WAITING {
        manager.ready("");
    }
    assert_eq!(manager.waiting.len(), MAX_WAITING);
}

#[test]
fn without_a_manager_nothing_is_said_or_kept() {
    let mut manager = ServiceManager::new(Contact::default(), &[]).expect("a socket");
    manager.ready("serving");
    manager.succeed();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback").into();
    let socket = ListeningSocket::inherited(socket, "f.0".to_owned(), 3).expect("it is bound");
    manager.keep(&[socket]).expect("nothing is done");
    assert!(manager.waiting.is_empty() && manager.interval().is_none());
}

#[test]
fn abstract_addresses_are_told_by_their_first_character() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("hedgerow-test-{}", process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
    let reader = UnixDatagram::bind_addr(&address).expect("the lock is free");
    let contact = Contact { socket: Some(format!("@{name}").into()), ..Contact::default() };
    ServiceManager::new(contact, &[]).expect("a socket").stopping();
    assert_eq!(read(&reader).as_deref(), Some("STOPPING=1\nSTATUS=draining"));
}

#[test]
fn a_contact_can_be_handed_over() {
    let contact = Contact {
        socket: Some("/run/systemd/notify".into()),
        watchdog: Some(Duration::from_secs(30)),
        ..Contact::default()
    };
    let text = serde_json::to_string(&contact).expect("JSON");
    assert_eq!(serde_json::from_str::<Contact>(&text).expect("the same"), contact);
}
