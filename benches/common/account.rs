//! What the system's account says of a process and of all that it started: CPU time and memory; and of a
//! core: how long it was busy.

use std::ops::Sub;
use std::time::Duration;
use std::{fs, io};

/// CPU time of a process tree.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    /// Spent in the programs themselves.
    pub(crate) user: Duration,
    /// Spent in the kernel on their behalf.
    pub(crate) system: Duration,
}

impl CpuTime {
    /// Returns the total usage of the process and its descendants since they began.
    pub(crate) fn of(root: u32) -> io::Result<Self> {
        let tick = 1.0 / rustix::param::clock_ticks_per_second() as f64;
        let tree = tree(root)?;
        let sum = |ticks: fn(&Entry) -> u64| Duration::from_secs_f64(tree.iter().map(ticks).sum::<u64>() as f64 * tick);
        Ok(Self { user: sum(|entry| entry.user), system: sum(|entry| entry.system) })
    }

    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }
}

impl Sub for CpuTime {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        // A child that has ended takes its time with it.
        Self { user: self.user.saturating_sub(earlier.user), system: self.system.saturating_sub(earlier.system) }
    }
}

/// Memory of a process tree, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Resident; pages that several processes share count for each.
    pub(crate) resident: u64,
    /// Resident, shared pages divided among those that share them.
    pub(crate) proportional: u64,
    /// Resident, without pages of files: those of the program come and go as its code is used.
    pub(crate) anonymous: u64,
}

impl Memory {
    /// Returns the current usage of the process and its descendants.
    pub(crate) fn of(root: u32) -> io::Result<Self> {
        let mut sum = Self::default();
        for Entry { pid, .. } in tree(root)? {
            let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
            let octets = |field| {
                let line = text.lines().find_map(|line| line.strip_prefix(field))?;
                line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
            };
            sum.resident += octets("Rss:").unwrap_or(0);
            sum.proportional += octets("Pss:").unwrap_or(0);
            sum.anonymous += octets("Anonymous:").unwrap_or(0);
        }
        Ok(sum)
    }
}

/// Returns how long a core has been busy since the system started: with programs, with the kernel on their
/// behalf, and with hard and soft interrupts.
pub(crate) fn core_busy(core: usize) -> io::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{core}");
    let line = stat.lines().find(|line| line.split(' ').next() == Some(&name));
    let line = line.ok_or_else(|| io::Error::other(format!("/proc/stat has no core {core}")))?;
    let ticks: Vec<u64> = line.split(' ').skip(1).map_while(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal (proc(5)).
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|&place: &usize| ticks.get(place)).sum();
    Ok(Duration::from_secs_f64(busy as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// How long the threads of a process have run, to the nanosecond, with whatever interrupts did meanwhile
/// (proc(5), schedstat).
pub(crate) fn run_time(pid: u32) -> io::Result<Duration> {
    let of_thread = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat"))?;
        let nanos = text.split(' ').next().and_then(|field| field.parse().ok());
        nanos.map(Duration::from_nanos).ok_or_else(|| io::Error::other(format!("{:?} says {text:?}", thread.path())))
    };
    fs::read_dir(format!("/proc/{pid}/task"))?.map(|thread| of_thread(thread?)).sum()
}

/// The numbers of a process and of all below it.
pub(crate) fn pids(root: u32) -> io::Result<Vec<u32>> {
    Ok(tree(root)?.iter().map(|entry| entry.pid).collect())
}

/// One process in `/proc`.
#[derive(Clone, Copy)]
struct Entry {
    pid: u32,
    /// The number of the one that started it.
    parent: u32,
    /// User time in clock ticks.
    user: u64,
    /// System time in clock ticks.
    system: u64,
}

impl Entry {
    /// Reads the account of a process, if it still is there.
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the name in parentheses, which may hold anything. What follows begins with
        // field 3, the state; the parent is field 4, utime and stime are fields 14 and 15 (proc(5)).
        let (_, behind_name) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = behind_name.split_whitespace().collect();
        let number = |place: usize| fields.get(place - 3)?.parse::<u64>().ok();
        Some(Self { pid, parent: u32::try_from(number(4)?).ok()?, user: number(14)?, system: number(15)? })
    }
}

/// A process and all below it.
fn tree(root: u32) -> io::Result<Vec<Entry>> {
    let names = fs::read_dir("/proc")?.map_while(Result::ok).map(|entry| entry.file_name());
    let mut others: Vec<Entry> = names.filter_map(|name| Entry::read(name.to_str()?.parse().ok()?)).collect();
    let mut found: Vec<Entry> = others.extract_if(.., |entry| entry.pid == root).collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|entry| entry.pid) {
        found.extend(others.extract_if(.., |entry| entry.parent == parent));
        next += 1;
    }
    Ok(found)
}
