//! Parsers of the values in a scenario: shares, durations, distributions, and their changes over time.
//!
//! ```text
//! SHARE    5% or 0.05
//! DELAY    1ms, uniform(1ms,3ms), lognormal(1ms,0.5), pareto(1ms,1.5), each with any number of +SHARE:DELAY
//! WHEN     30s..60s, 30s.. (without end), or 500ms/10s: at random, for 500 ms every 10 s on average
//! STALL    WHEN, or 1%:200ms: all on one connection, for 200 ms on average, 1% of the time
//! COURSE   VALUE, then any number of ,VALUE@WHEN
//! NAMES    unique, or zipf(1.0,10000): the exponent and the number of names
//! ```

use std::time::Duration;

use config::{Limits, words};
use engine::sim::{Course, Delay, NameDistribution, When};

use crate::cli::number;

pub(super) fn share(text: &str) -> Result<f64, String> {
    let number = match text.strip_suffix('%') {
        Some(percent) => percent.parse().map(|percent: f64| percent / 100.0),
        None => text.parse(),
    };
    let number = number.ok().filter(|share| (0.0..=1.0).contains(share));
    number.ok_or_else(|| "expected a share from 0% to 100%".to_owned())
}

pub(super) fn factor(text: &str) -> Result<f64, String> {
    let factor = text.strip_suffix('x').and_then(|number| number.parse().ok());
    factor.filter(|factor| (0.01..=1e6).contains(factor)).ok_or_else(|| "expected a factor such as 20x".to_owned())
}

pub(super) fn slow(text: &str) -> Result<Course<f64>, String> {
    course(text, factor, Some(1.0))
}

pub(super) fn word(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("expected a word") } else { Ok(text.to_owned()) }
}

pub(super) fn queries(text: &str) -> Result<usize, String> {
    number(&text.replace('_', ""), Limits { min: 1, max: MAX_QUERIES })
}

pub(super) fn names(text: &str) -> Result<NameDistribution, String> {
    let expected = || format!("expected unique, or zipf(EXPONENT,NAMES) such as zipf(1.0,10000), of up to {MAX_NAMES}");
    if text == "unique" {
        return Ok(NameDistribution::Unique);
    }
    let arguments = text.strip_prefix("zipf(").and_then(|text| text.strip_suffix(')'));
    let (exponent, count) = arguments.and_then(|text| text.split_once(',')).ok_or_else(expected)?;
    let exponent = exponent.trim().parse().ok().filter(|exponent| (0.0..=10.0).contains(exponent));
    let count = count.trim().replace('_', "").parse().ok().filter(|count| (1..=MAX_NAMES).contains(count));
    exponent.zip(count).map(|(exponent, count)| NameDistribution::Zipf { exponent, count }).ok_or_else(expected)
}

pub(super) fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = words::ttl(text).map_err(|error| error.to_string())?;
    if ttl.is_zero() { Err("expected at least 1s".to_owned()) } else { Ok(ttl) }
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    let number = text.replace('_', "").parse().ok().filter(|rate| (0.001..=1e7).contains(rate));
    number.ok_or_else(|| "expected queries per second, from 0.001 to 10000000".to_owned())
}

pub(super) fn workers(text: &str) -> Result<u16, String> {
    number(text, Limits { min: 1, max: MAX_WORKERS })
}

pub(super) fn seed(text: &str) -> Result<u64, String> {
    text.replace('_', "").parse().map_err(|_| format!("expected a number from 0 to {}", u64::MAX))
}

pub(super) fn count(text: &str) -> Result<u16, String> {
    number(text, Limits { min: 1, max: MAX_COUNT })
}

pub(super) fn delay(text: &str) -> Result<Delay, String> {
    let mut parts = split_outside_brackets(text, '+').into_iter();
    let usual = parts.next().map_or_else(|| Err(DELAY.to_owned()), plain_delay)?;
    let mut others = Vec::new();
    let mut sum = 0.0;
    for part in parts {
        let (chance, other) = part.split_once(':').ok_or("expected SHARE:LATENCY after +, such as 1ms+1%:500ms")?;
        let chance = share(chance).map_err(|error| format!("in {part:?}, {error}"))?;
        sum += chance;
        others.push((chance, plain_delay(other)?));
    }
    if sum > 1.0 {
        return Err("expected shares that add up to 100% at most".to_owned());
    }
    Ok(if others.is_empty() { usual } else { Delay::Mixture { usual: Box::new(usual), others } })
}

fn plain_delay(text: &str) -> Result<Delay, String> {
    let Some((name, arguments)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) else {
        return time(text).map(Delay::Constant).map_err(|_| DELAY.to_owned());
    };
    let (one, other) = arguments.split_once(',').ok_or_else(|| format!("in {text:?}, expected two values"))?;
    let number = |limits: std::ops::RangeInclusive<f64>| {
        let number = other.trim().parse().ok().filter(|number| limits.contains(number));
        number.ok_or_else(|| format!("in {text:?}, expected a number from {} to {}", limits.start(), limits.end()))
    };
    let one = time(one)?;
    match name {
        "uniform" => {
            let (from, to) = (one, time(other)?);
            if to < from {
                return Err(format!("in {text:?}, expected the shorter time first"));
            }
            Ok(Delay::Uniform { from, to })
        }
        "lognormal" => Ok(Delay::Lognormal { median: one, sigma: number(0.0..=10.0)? }),
        "pareto" => Ok(Delay::Pareto { scale: one, shape: number(0.1..=100.0)? }),
        _ => Err(DELAY.to_owned()),
    }
}

/// Parses a value that may change for a time. `usual`: the default of the value before any change.
pub(super) fn course<T>(
    text: &str,
    read: impl Fn(&str) -> Result<T, String>,
    usual: Option<T>,
) -> Result<Course<T>, String> {
    let mut parts = split_outside_brackets(text, ',').into_iter().peekable();
    let usual = match (parts.peek(), usual) {
        (Some(part), Some(usual)) if part.contains('@') => usual,
        _ => read(parts.next().unwrap_or_default())?,
    };
    let at_times = parts.map(|part| {
        let (value, times) = part.split_once('@').ok_or_else(|| format!("in {part:?}, expected VALUE@WHEN"))?;
        Ok::<_, String>((read(value)?, when(times)?))
    });
    Ok(Course { usual, at_times: at_times.collect::<Result<_, _>>()? })
}

pub(super) fn whens(text: &str) -> Result<Vec<When>, String> {
    text.split(',').map(when).collect()
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Stalls {
    pub(super) of_all: Vec<When>,
    pub(super) on_connections: Vec<When>,
}

pub(super) fn stalls(text: &str) -> Result<Stalls, String> {
    let mut stalls = Stalls::default();
    for part in text.split(',') {
        let Some((part_of_time, length)) = part.split_once(':') else {
            stalls.of_all.push(when(part)?);
            continue;
        };
        let expected =
            || format!("in {part:?}, expected a share of the time above 0% and below 100%, and for how long");
        let part_of_time =
            share(part_of_time).ok().filter(|share| *share > 0.0 && *share < 1.0).ok_or_else(expected)?;
        let length = time(length).ok().filter(|length| !length.is_zero()).ok_or_else(expected)?;
        stalls.on_connections.push(When::NowAndThen { length, every: length.div_f64(part_of_time) });
    }
    Ok(stalls)
}

fn when(text: &str) -> Result<When, String> {
    let expected = || format!("in {text:?}, expected times such as 30s..60s, 30s.. or 500ms/10s");
    if let Some((from, to)) = text.split_once("..") {
        let from = if from.is_empty() { Duration::ZERO } else { time(from).map_err(|_| expected())? };
        let to = if to.is_empty() { Duration::MAX } else { time(to).map_err(|_| expected())? };
        return if from < to { Ok(When::Between { from, to }) } else { Err(expected()) };
    }
    let (length, every) = text.split_once('/').ok_or_else(expected)?;
    let (length, every) = (time(length).map_err(|_| expected())?, time(every).map_err(|_| expected())?);
    if length.is_zero() || every <= length {
        return Err(format!("in {text:?}, expected LENGTH/EVERY with a length shorter than what it comes every"));
    }
    Ok(When::NowAndThen { length, every })
}

fn time(text: &str) -> Result<Duration, String> {
    let time = words::duration(text.trim()).map_err(|expected| format!("in {text:?}, {expected}"))?;
    if time <= MAX_TIME { Ok(time) } else { Err(format!("in {text:?}, expected an hour at most")) }
}

/// Splits at a character outside of parentheses.
fn split_outside_brackets(text: &str, at: char) -> Vec<&str> {
    let mut depth = 0_i32;
    let is_split = |c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0 && c == at
    };
    text.split(is_split).collect()
}

const DELAY: &str =
    "expected a latency such as 1ms, uniform(1ms,3ms), lognormal(1ms,0.5), pareto(1ms,1.5) or 1ms+1%:500ms";
/// An hour of simulated time: longer durations are typing errors.
const MAX_TIME: Duration = Duration::from_secs(3_600);
/// The simulation takes a quarter of an hour for this number.
const MAX_QUERIES: usize = 1_000_000_000;

/// The limit of the server.
const MAX_WORKERS: u16 = 1024;

/// Names of Zipf's law: each takes eight bytes during the simulation.
const MAX_NAMES: u32 = 10_000_000;

/// More backends, or servers of one backend, do not change the result visibly.
const MAX_COUNT: u16 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Checks that a text is rejected with a message that ends like this.
    fn check_error<T: std::fmt::Debug>(read: Result<T, String>, end: &str) {
        let error = read.expect_err(end);
        assert!(error.ends_with(end), "{error:?} does not end with {end:?}");
    }

    #[test]
    fn shares_and_factors_are_read() {
        for (text, value) in [("5%", 0.05), ("0.05", 0.05), ("0%", 0.0), ("100%", 1.0), ("0.1%", 0.001)] {
            assert!((share(text).expect(text) - value).abs() < 1e-12, "{text}");
        }
        for text in ["101%", "-1%", "5", "NaN", "five", "%", ""] {
            check_error(share(text), "expected a share from 0% to 100%");
        }
        assert_eq!(factor("20x"), Ok(20.0));
        for text in ["20", "x", "0x", "-1x", "infx"] {
            check_error(factor(text), "expected a factor such as 20x");
        }
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!((queries("1_000_000"), count("2")), (Ok(1_000_000), Ok(2)));
        assert_eq!((rate("0.5"), seed("7")), (Ok(0.5), Ok(7)));
        check_error(queries("0"), "from 1 to 1000000000");
        check_error(rate("0"), "from 0.001 to 10000000");
        check_error(seed("-1"), "from 0 to 18446744073709551615");
        check_error(count("0"), "from 1 to 1000");
    }

    #[test]
    fn distributions_are_read() {
        let constant = |count| Delay::Constant(ms(count));
        for (text, expected) in [
            ("1ms", constant(1)),
            ("uniform(1ms,3ms)", Delay::Uniform { from: ms(1), to: ms(3) }),
            ("lognormal(1ms,0.5)", Delay::Lognormal { median: ms(1), sigma: 0.5 }),
            ("pareto(1ms,1.5)", Delay::Pareto { scale: ms(1), shape: 1.5 }),
            ("1ms+1%:500ms", Delay::Mixture { usual: Box::new(constant(1)), others: vec![(0.01, constant(500))] }),
            (
                "pareto(1ms,2)+5%:20ms+1%:uniform(1s,2s)",
                Delay::Mixture {
                    usual: Box::new(Delay::Pareto { scale: ms(1), shape: 2.0 }),
                    others: vec![(0.05, constant(20)), (0.01, Delay::Uniform { from: ms(1_000), to: ms(2_000) })],
                },
            ),
        ] {
            assert_eq!(delay(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_distribution_is_told_what_is() {
        for text in ["", "1", "1mss", "normal(1ms,2ms)", "lognormal(1ms,0.5", "-1ms"] {
            check_error(delay(text), "or 1ms+1%:500ms");
        }
        check_error(delay("1ms+1%"), "expected SHARE:LATENCY after +, such as 1ms+1%:500ms");
        check_error(delay("1ms+2:500ms"), "in \"2:500ms\", expected a share from 0% to 100%");
        check_error(delay("1ms+60%:2ms+60%:3ms"), "expected shares that add up to 100% at most");
        check_error(delay("uniform(3ms,1ms)"), "in \"uniform(3ms,1ms)\", expected the shorter time first");
        check_error(delay("uniform(3ms)"), "in \"uniform(3ms)\", expected two values");
        check_error(delay("pareto(1ms,0)"), "in \"pareto(1ms,0)\", expected a number from 0.1 to 100");
        check_error(delay("lognormal(1,0)"), "expected a duration with its unit, such as \"1s\" or \"1ms\"");
        check_error(delay("uniform(1ms,2h)"), "in \"2h\", expected an hour at most");
    }

    #[test]
    fn courses_are_read() {
        let between = |from: u64, to| When::Between { from: ms(from), to };
        let read = |text| course(text, delay, None);
        let shift = (Delay::Constant(ms(20)), between(30_000, ms(60_000)));
        assert_eq!(read("1ms,20ms@30s..60s"), Ok(Course { usual: Delay::Constant(ms(1)), at_times: vec![shift] }));
        let usual = Delay::Uniform { from: ms(1), to: ms(2) };
        let at_times = vec![
            (Delay::Constant(ms(9)), When::NowAndThen { length: ms(500), every: ms(10_000) }),
            (Delay::Constant(ms(8)), between(0, ms(1_000))),
            (Delay::Constant(ms(7)), between(5_000, Duration::MAX)),
        ];
        assert_eq!(read("uniform(1ms,2ms),9ms@500ms/10s,8ms@..1s,7ms@5s.."), Ok(Course { usual, at_times }));
        assert_eq!(course("5%@1s..", share, Some(0.0)).map(|course| course.usual), Ok(0.0));
        assert_eq!(course("1%,5%@1s..", share, Some(0.0)).map(|course| course.usual), Ok(0.01));
    }

    #[test]
    fn what_is_no_course_is_told_what_is() {
        check_error(course("1ms,2ms", delay, None), "in \"2ms\", expected VALUE@WHEN");
        check_error(course("2ms@1s..2s", delay, None), "or 1ms+1%:500ms");
        for text in ["2s..1s", "1s", "1..2", "..", "soon/10s"] {
            let times = whens(text);
            if text == ".." {
                assert!(times.is_ok());
            } else {
                check_error(times, "expected times such as 30s..60s, 30s.. or 500ms/10s");
            }
        }
        check_error(whens("10s/1s"), "with a length shorter than what it comes every");
    }
}
