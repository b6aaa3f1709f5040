//! kxdpgun of Knot DNS as a second client: by XDP itself, so that its own socket costs nothing, each query
//! from another port.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::client::{SCATTER, Seen};
use super::message::{self, Lengths};
use super::veth::{CLIENT, End, SERVER};

/// Returns true if kxdpgun is installed.
pub(crate) fn is_there() -> bool {
    let ran = Command::new("kxdpgun").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

/// A file of its queries, for so many names. It asks for them in turn, again and again: those that follow
/// each other lie far apart, as our own client's do.
pub(crate) fn queries(names: u32, lengths: Lengths) -> String {
    let number = |place: u32| (u64::from(place) * SCATTER % u64::from(names)) as u32;
    (0..names).map(|place| format!("{}.bench.test. A\n", message::label(number(place), lengths))).collect()
}

/// Has it send from an end what stands in a file, and counts what it counts.
pub(crate) fn fire(end: &End, queries: &Path, rate: f64, secs: f64, core: usize) -> io::Result<Seen> {
    let [rate, secs, core] = [rate.round().to_string(), secs.ceil().to_string(), format!("{core}s1")];
    let (file, from, to) = (queries.to_string_lossy(), CLIENT.to_string(), SERVER.ip().to_string());
    let words = ["kxdpgun", "-t", &secs, "-Q", &rate, "-F", &core, "-i", &file, "-I", end.device, "-l", &from, &to];
    read(&end.run(&words)?)
}

/// Has it fire once its device is free: the kernel takes the socket of the run before away when it has time.
pub(crate) fn fire_when_free<T>(mut fire: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 0;
    loop {
        match fire() {
            Err(error) if tries < TRIES && error.to_string().contains("busy") => {
                tries += 1;
                thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

/// How often it is started again, and after how long.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// Parses the final output of the gun. It counts any response with RCODE NOERROR as an answer.
fn read(text: &str) -> io::Result<Seen> {
    let number = |name: &str| {
        let rest = text.lines().find_map(|line| line.trim().strip_prefix(name))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    let counts = number("total queries:").zip(number("total replies:"));
    let Some((sent, replies)) = counts else { return Err(io::Error::other(format!("kxdpgun said: {text}"))) };
    let answered = number("responded NOERROR:").unwrap_or(0);
    let secs = number("duration:").unwrap_or(1).max(1) as f64;
    Ok(Seen {
        rate: answered as f64 / secs,
        sent,
        answered,
        lost: sent.saturating_sub(replies),
        wrong: replies.saturating_sub(answered),
        p50: 0.0,
        p90: 0.0,
        p99: 0.0,
        p999: 0.0,
        max: 0.0,
        answered_p50: 0.0,
        answered_p99: 0.0,
        slots: Vec::new(),
    })
}
