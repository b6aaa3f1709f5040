//! Resource usage of the process from `/proc/self` (proc_pid_stat(5)), which a confined process may read too.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::Usage;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Reads the usage. Values that the kernel does not report are 0.
pub(super) fn usage() -> Usage {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = fields(&stat);
    let count = |number: usize| fields.get(number).copied().unwrap_or_default();
    let entries = |folder: &str| fs::read_dir(folder).map(|entries| entries.flatten().collect::<Vec<_>>());
    let tasks = entries("/proc/self/task").unwrap_or_default();
    let mut workers: Vec<_> = tasks.iter().filter_map(|task| worker(&task.path())).collect();
    workers.sort_unstable();
    Usage {
        cpu: ticks(count(UTIME) + count(STIME)),
        workers,
        resident: count(RSS) * page_size() as u64,
        // The directory that is being read is one of them.
        open_fds: entries("/proc/self/fd").map_or(0, |open| open.len() as u64).saturating_sub(1),
        max_fds: getrlimit(Resource::Nofile).current,
        began: began(ticks(count(STARTED))),
    }
}

fn worker(task: &Path) -> Option<(usize, Duration)> {
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    let (_, name) = stat.split_once('(')?;
    let number = name.split(')').next()?.strip_prefix("worker-")?.parse().ok()?;
    let fields = fields(&stat);
    Some((number, ticks(fields.get(UTIME)? + fields.get(STIME)?)))
}

/// Parses the numbers after the program name in `stat`; the name may hold blanks and parentheses.
fn fields(stat: &str) -> Vec<u64> {
    let (_, rest) = stat.rsplit_once(')').unwrap_or_default();
    // Some values are negative, such as the nice value. None of the values used here is.
    rest.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect()
}

fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(count as f64 / clock_ticks_per_second() as f64)
}

fn began(since_boot: Duration) -> f64 {
    let up = clock_gettime(ClockId::Boottime);
    let up = up.tv_sec as f64 + up.tv_nsec as f64 / 1e9;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs_f64() - up + since_boot.as_secs_f64()
}

// Indexes of `stat` fields after the name: proc_pid_stat(5) counts from 1, and the name is field 2.

const UTIME: usize = 14 - 3;
const STIME: usize = 15 - 3;
const STARTED: usize = 22 - 3;
const RSS: usize = 24 - 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_blanks_and_parentheses_hides_no_field() {
        let stat =
            "7 (a) b (c) S 1 2 3 0 -1 4194304 10 0 0 0 250 150 0 0 20 -5 3 0 9000 1000000 77 18446744073709551615";
        let fields = fields(stat);
        assert_eq!([UTIME, STIME, STARTED, RSS].map(|field| fields[field]), [250, 150, 9000, 77]);
    }

    #[test]
    fn this_process_takes_something() {
        let usage = usage();
        assert!(usage.resident > 1 << 20 && usage.open_fds >= 3, "{usage:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64();
        // The test may have waited long for its turn.
        assert!((0.0..86_400.0).contains(&(now - usage.began)), "{usage:?}");
    }
}
