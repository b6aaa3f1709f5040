//! kxdpgun of Knot DNS as a second client: by XDP itself, so that its own socket costs nothing, each query from another port.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use crate::common::client::Seen;
use crate::common::message::{self, Lengths};
use crate::veth::{CLIENT, End, SERVER};

/// Names that it asks for.
const NAMES: u32 = 1000;

/// Whether it is installed.
pub(crate) fn is_there() -> bool {
    let ran = Command::new("kxdpgun").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

/// Has it send from an end, and counts what it counts.
pub(crate) fn fire(end: &End, rate: f64, secs: f64, core: usize) -> io::Result<Seen> {
    let mut queries = tempfile::NamedTempFile::new()?;
    for number in 0..NAMES {
        writeln!(queries, "{}.bench.test. A", message::label(number, Lengths::Equal))?;
    }
    queries.flush()?;
    let [rate, secs, core] = [rate.round().to_string(), secs.ceil().to_string(), format!("{core}s1")];
    let (file, from, to) = (queries.path().to_string_lossy(), CLIENT.to_string(), SERVER.ip().to_string());
    let words = ["kxdpgun", "-t", &secs, "-Q", &rate, "-F", &core, "-i", &file, "-I", end.device, "-l", &from, &to];
    read(&end.run(&words)?)
}

/// What it prints at the end.
fn read(text: &str) -> io::Result<Seen> {
    let number = |name: &str| {
        let rest = text.lines().find_map(|line| line.trim().strip_prefix(name))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    let counts = number("total queries:").zip(number("total replies:"));
    let Some((sent, answered)) = counts else { return Err(io::Error::other(format!("kxdpgun said: {text}"))) };
    let secs = number("duration:").unwrap_or(1).max(1) as f64;
    Ok(Seen {
        rate: answered as f64 / secs,
        sent,
        answered,
        lost: sent.saturating_sub(answered),
        wrong: 0,
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
