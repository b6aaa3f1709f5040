//! The axes: positions of values, ranges, and ticks with their labels.
//!
//! The drawing library sees only linear axes: a logarithmic one holds logarithms, and its labels convert them
//! back.

use std::ops::Range;
use std::time::Duration;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

pub(super) struct Axis {
    pub(super) title: &'static str,
    pub(super) range: Range<f64>,
    bold: Vec<f64>,
    light: Vec<f64>,
    label: fn(f64) -> String,
}

/// Returns the position of a latency: the logarithm of its seconds, of at least a microsecond.
pub(super) fn latency_place(latency: Duration) -> f64 {
    latency.as_secs_f64().max(1e-6).log10()
}

/// Returns the position of a share of queries: its logarithm, of at least the smallest share shown.
pub(super) fn share_place(share: f64) -> f64 {
    share.max(MIN_SHARE).log10()
}

/// Returns the position of extra load: its square root. This spreads the few percent of a budget, has a zero,
/// and still fits the double load of a race.
pub(super) fn extra_place(extra: f64) -> f64 {
    extra.max(0.0).sqrt()
}

/// The middle of an axis without values: a millisecond.
const NOTHING: f64 = -3.0;
const MIN_SHARE: f64 = 1e-6;
/// The minimum decades of a logarithmic axis: fewer would make noise look like a difference.
const MIN_SPAN: f64 = 1.0;
/// Space between the outermost values and the ends of the axis, as a share of the span.
const MARGIN: f64 = 0.08;
/// The minimum distance of two labels on the axis of extra load, as a share of the span.
const LABEL_DISTANCE: f64 = 0.099;
/// The possible ticks of the axis of extra load. Labels that would touch are omitted.
const EXTRA_TICKS: [f64; 14] = [0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0];

impl Axis {
    /// Creates a logarithmic axis for these latencies. An axis of at most `few` decades has labels at 2 and
    /// 5, too.
    pub(super) fn latency(title: &'static str, latencies: impl Iterator<Item = Duration>, few: f64) -> Self {
        let (low, high) = latencies
            .map(latency_place)
            .fold(None, |ends, place| {
                let (low, high) = ends.unwrap_or((place, place));
                Some((place.min(low), place.max(high)))
            })
            .unwrap_or((NOTHING, NOTHING));
        let lacking = (MIN_SPAN - (high - low)).max(0.0) / 2.0;
        let margin = MARGIN * (high - low).max(MIN_SPAN);
        let range = low - lacking - margin..high + lacking + margin;
        let is_wide = range.end - range.start > few;
        let (bold, light): (Vec<_>, Vec<_>) =
            ticks(&range).partition(|&(digit, _)| digit == 1 || !is_wide && matches!(digit, 2 | 5));
        Self { title, range, bold: places(bold), light: places(light), label: latency_label }
    }

    /// Creates a logarithmic axis from all queries down to the decade below the smallest share, at least a
    /// millionth.
    pub(super) fn share(title: &'static str, least: f64) -> Self {
        let floor = share_place(least).floor().clamp(share_place(MIN_SHARE), -4.0);
        let range = floor..0.15;
        let (bold, light): (Vec<_>, Vec<_>) = ticks(&range).partition(|&(digit, _)| digit == 1);
        let light = places(light).into_iter().filter(|&place| place < 0.0).collect();
        Self { title, range, bold: places(bold), light, label: share_label }
    }

    /// Creates a square-root axis from no extra load to the maximum.
    pub(super) fn extra(title: &'static str, most: f64) -> Self {
        let end = extra_place(most.max(0.02));
        let range = -MARGIN / 2.0 * end..end * (1.0 + MARGIN);
        let mut bold: Vec<f64> = Vec::new();
        for place in EXTRA_TICKS.map(extra_place) {
            let is_free = bold.last().is_none_or(|last| place - last > LABEL_DISTANCE * end);
            if is_free && range.contains(&place) {
                bold.push(place);
            }
        }
        Self { title, range, bold, light: Vec::new(), label: extra_label }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        start + (share * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { self.light.clone() } else { self.bold.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        (self.label)(*value)
    }
}

/// Returns the ticks of a logarithmic axis: 1 to 9 in each decade, each with its digit.
fn ticks(range: &Range<f64>) -> impl Iterator<Item = (u32, f64)> {
    let decades = range.start.floor() as i32..=range.end.ceil() as i32;
    let all =
        decades.flat_map(|decade| (1..10).map(move |digit| (digit, f64::from(decade) + f64::from(digit).log10())));
    all.filter(|(_, place)| range.contains(place))
}

fn places(ticks: Vec<(u32, f64)>) -> Vec<f64> {
    ticks.into_iter().map(|(_, place)| place).collect()
}

/// Formats `20 ms` for the logarithm of 0.02.
fn latency_label(place: f64) -> String {
    let micros = (10f64.powf(place + 7.0)).round() / 10.0;
    match micros {
        ..1e3 => format!("{micros} µs"),
        ..1e6 => format!("{} ms", micros / 1e3),
        _ => format!("{} s", micros / 1e6),
    }
}

/// Formats `0.1 %` for the logarithm of a thousandth.
fn share_label(place: f64) -> String {
    let decimals = (-(place + 2.0)).round().max(0.0) as usize;
    format!("{:.decimals$} %", 10f64.powf(place + 2.0))
}

/// Formats `5 %` for the square root of 0.05.
fn extra_label(place: f64) -> String {
    format!("{} %", (place * place * 1e4).round() / 1e2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.bold.iter().map(|&place| (axis.label)(place)).collect()
    }

    #[test]
    fn latencies_bear_their_units() {
        let check = |from: u64, to: u64, expected: &[&str]| {
            let ends = [from, to].map(Duration::from_micros);
            assert_eq!(labels(&Axis::latency("", ends.into_iter(), 2.0)), expected, "{from} to {to} µs");
        };
        check(100, 3_000_000, &["100 µs", "1 ms", "10 ms", "100 ms", "1 s"]);
        check(4_000, 5_000, &["2 ms", "5 ms", "10 ms"]);
        check(0, 0, &["0.5 µs", "1 µs", "2 µs"]);
    }

    #[test]
    fn shares_reach_down_to_the_least() {
        let check = |least: f64, expected: &[&str]| assert_eq!(labels(&Axis::share("", least)), expected, "{least}");
        check(0.5, &["0.01 %", "0.1 %", "1 %", "10 %", "100 %"]);
        check(2e-5, &["0.001 %", "0.01 %", "0.1 %", "1 %", "10 %", "100 %"]);
        check(1e-9, &["0.0001 %", "0.001 %", "0.01 %", "0.1 %", "1 %", "10 %", "100 %"]);
    }

    #[test]
    fn extra_load_is_labelled_where_there_is_room() {
        let check = |most: f64, expected: &[&str]| assert_eq!(labels(&Axis::extra("", most)), expected, "{most}");
        check(0.0, &["0 %", "0.1 %", "0.5 %", "1 %", "2 %"]);
        check(1.0, &["0 %", "1 %", "5 %", "20 %", "50 %", "100 %"]);
    }
}
