//! Tests of the filter in the kernel. They need privileges; without these they report that and fail only if
//! `HEDGEROW_REQUIRED` is set.

use std::env;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::thread;

use rustix::net::{AddressFamily, SocketType, socket, sockopt};

use super::*;
use crate::program::tests::cases;
use crate::program::{XDP_PASS, XDP_REDIRECT};

/// A filter for the interface of the cases; `None` without the privileges.
fn filter() -> Option<XdpFilter> {
    let error = match XdpFilter::load(cases::MAC, cases::WORKERS, 4) {
        Ok(filter) => return Some(filter),
        Err(error) => error,
    };
    // With the privileges, any other error is a failure.
    assert!(error.raw_os_error() == Some(libc::EPERM), "{error}");
    assert!(env::var_os("HEDGEROW_REQUIRED").is_none(), "who may load no program cannot test it");
    eprintln!("the filter is not tested: {error}");
    None
}

/// An AF_XDP socket with a fill ring, as the map requires.
fn xsk() -> OwnedFd {
    let xsk = socket(AddressFamily::XDP, SocketType::RAW, None).expect("a kernel with AF_XDP");
    sockopt::set_xdp_rx_ring_size(&xsk, 64).expect("a ring");
    xsk
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn fill(filter: &XdpFilter) {
    for text in cases::LISTENING {
        filter.listen(address(text)).expect("room");
    }
    for (worker, local, remote) in cases::HELD {
        filter.hold(worker, address(local), address(remote));
    }
}

fn case(what: &str) -> Vec<u8> {
    cases::all().into_iter().find(|(name, ..)| name == what).expect("a case of that name").1
}

#[test]
fn kernel_does_with_frames_what_the_interpreter_does() {
    let Some(filter) = filter() else { return };
    let xsk = xsk();
    filter.set_socket(0, xsk.as_fd()).expect("a queue that there is");
    fill(&filter);
    let mut passed = 0;
    for (what, frame, wanted) in cases::all() {
        assert_eq!(filter.program.try_on(&frame).expect("a frame"), wanted, "{what}");
        passed += u64::from(wanted == XDP_PASS);
        assert_eq!(filter.passed(), passed, "{what}");
    }
}

#[test]
fn address_is_taken_until_it_is_ignored_and_port_until_it_is_released() {
    let Some(filter) = filter() else { return };
    let (xsk, frames) = (xsk(), ["a query", "a query by IPv6", "a reply", "a reply by IPv6"].map(case));
    filter.set_socket(0, xsk.as_fd()).expect("a queue that there is");
    let fates = || frames.each_ref().map(|frame| filter.program.try_on(frame).expect("a frame"));
    assert_eq!(fates(), [XDP_PASS; 4], "nothing is listened on or held yet");
    for _ in 0..2 {
        fill(&filter);
        assert_eq!(fates(), [XDP_REDIRECT; 4]);
        fill(&filter);
        filter.ignore(address(cases::LISTENING[0])).expect("one that is there");
        assert_eq!(fates(), [XDP_PASS, XDP_REDIRECT, XDP_REDIRECT, XDP_REDIRECT]);
        filter.ignore(address(cases::LISTENING[0])).expect("one that is not there");
        filter.release(address(cases::HELD[0].1));
        filter.release(address(cases::HELD[0].1));
        assert_eq!(fates(), [XDP_PASS, XDP_REDIRECT, XDP_PASS, XDP_REDIRECT]);
        filter.release(address(cases::HELD[1].1));
        filter.ignore(address(cases::LISTENING[1])).expect("one that is there");
        assert_eq!(fates(), [XDP_PASS; 4]);
    }
    let (worker, local, remote) = cases::HELD[0];
    filter.hold(worker, address(local), address("198.51.100.8:53"));
    assert_eq!(fates()[2], XDP_PASS, "the port is another backend's");
    filter.hold(worker, address(local), address(remote));
    assert_eq!(fates()[2], XDP_REDIRECT);
    filter.hold(worker + 1, address(local), address(remote));
    assert_eq!(fates()[2], XDP_PASS, "the port is another worker's");
}

#[test]
fn socket_that_is_closed_leaves_its_queue_to_the_kernel() {
    let Some(filter) = filter() else { return };
    fill(&filter);
    let (query, xsks) = (case("a query"), [xsk(), xsk()]);
    let fate = || filter.program.try_on(&query).expect("a frame");
    assert_eq!(fate(), XDP_PASS);
    for xsk in xsks {
        filter.set_socket(0, xsk.as_fd()).expect("a queue that there is");
        assert_eq!(fate(), XDP_REDIRECT);
        drop(xsk);
        assert_eq!(fate(), XDP_PASS);
    }
    let other = xsk();
    filter.set_socket(1, other.as_fd()).expect("a queue that there is");
    assert_eq!(fate(), XDP_PASS, "that socket is for another queue");
    assert!(filter.set_socket(4, other.as_fd()).is_err(), "no such queue");
}

#[test]
fn filters_know_nothing_of_each_other() {
    let (Some(one), Some(other)) = (filter(), filter()) else { return };
    let (xsk, query, reply) = (xsk(), case("a query"), case("a reply"));
    for filter in [&one, &other] {
        filter.set_socket(0, xsk.as_fd()).expect("a queue that there is");
    }
    fill(&one);
    for frame in [&query, &reply] {
        assert_eq!(one.program.try_on(frame).expect("a frame"), XDP_REDIRECT);
        assert_eq!(other.program.try_on(frame).expect("a frame"), XDP_PASS);
    }
    assert_eq!((one.passed(), other.passed()), (0, 2));
    drop(one);
    fill(&other);
    assert_eq!(other.program.try_on(&query).expect("a frame"), XDP_REDIRECT);
}

#[test]
fn port_that_is_held_by_turns_is_never_taken_for_another() {
    let Some(filter) = filter() else { return };
    let (xsk, reply, done) = (xsk(), case("a reply from another host"), AtomicBool::new(false));
    filter.set_socket(0, xsk.as_fd()).expect("a queue that there is");
    let (worker, local, remote) = cases::HELD[0];
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20_000 {
                filter.hold(worker, address(local), address(remote));
                filter.release(address(local));
            }
            done.store(true, Release);
        });
        while !done.load(Relaxed) {
            assert_eq!(filter.program.try_on(&reply).expect("a frame"), XDP_PASS);
        }
    });
}

#[test]
fn listeners_are_bounded() {
    let Some(filter) = filter() else { return };
    let ports = 1..=u16::try_from(MAX_LISTENING).expect("a port");
    for port in ports {
        filter.listen(([192, 0, 2, 1], port).into()).expect("room");
    }
    assert!(filter.listen(([192, 0, 2, 1], 2000).into()).is_err(), "no room");
    filter.listen(([192, 0, 2, 1], 1).into()).expect("it is there");
    filter.ignore(([192, 0, 2, 1], 1).into()).expect("it is there");
    filter.listen(([192, 0, 2, 1], 2000).into()).expect("room");
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    assert_eq!(XdpFilter::load(cases::MAC, 0, 1).err().map(|error| error.kind()), Some(io::ErrorKind::InvalidInput));
    assert_eq!(XdpFilter::load(cases::MAC, 1, 0).err().map(|error| error.kind()), Some(io::ErrorKind::InvalidInput));
    let Some(filter) = filter() else { return };
    let error = filter.attach(i32::MAX as u32, Mode::Generic).err().expect("there is no such interface");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    // The program reads a register that was never written.
    let error = Program::load(&[0x0000_0000_0000_0095]).err().expect("no sound program");
    assert!(error.to_string().contains("R0 !read_ok"), "the kernel says why: {error}");
}
