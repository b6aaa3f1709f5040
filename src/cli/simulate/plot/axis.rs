//! The axes: where a value stands on them, how far they reach, and which ticks bear which label.
//!
//! To the drawing library all axes are linear: a logarithmic one holds logarithms, and its labels undo that.

use std::ops::Range;
use std::time::Duration;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// An axis of a panel.
pub(super) struct Axis {
    /// What it is called.
    pub(super) title: &'static str,
    /// From where to where it reaches.
    pub(super) range: Range<f64>,
    /// Ticks with a label.
    bold: Vec<f64>,
    /// Ticks without one.
    light: Vec<f64>,
    /// The label of a tick.
    label: fn(f64) -> String,
}

/// Where a latency stands: the logarithm of its seconds. Less than a microsecond is one.
pub(super) fn latency_place(latency: Duration) -> f64 {
    latency.as_secs_f64().max(1e-6).log10()
}

/// Where a share of the queries stands: its logarithm. What is below the reach of the axis is at its end.
pub(super) fn share_place(share: f64) -> f64 {
    share.max(MIN_SHARE).log10()
}

/// Where extra load stands: its root. That spreads the few percent of a budget, has a zero, and holds the double
/// load of a race as well.
pub(super) fn extra_place(extra: f64) -> f64 {
    extra.max(0.0).sqrt()
}

/// Where the middle of an axis is on which nothing stands: at a millisecond.
const NOTHING: f64 = -3.0;
/// The least share that is shown.
const MIN_SHARE: f64 = 1e-6;
/// Decades that a logarithmic axis spans at least: less would make noise look like a difference.
const MIN_SPAN: f64 = 1.0;
/// Space between the outermost values and the ends of the axis, as a share of the span.
const MARGIN: f64 = 0.08;
/// Distance of two labels on the axis of extra load at least, as a share of the span.
const LABEL_DISTANCE: f64 = 0.099;
/// Ticks that the axis of extra load may have. Labels that would touch are left out.
const EXTRA_TICKS: [f64; 14] = [0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0];

impl Axis {
    /// A logarithmic axis that holds these latencies. Over at most `few` decades there is room to label 2 and 5 too.
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

    /// A logarithmic axis from all queries down to the decade below the least share, within a part in a million.
    pub(super) fn share(title: &'static str, least: f64) -> Self {
        let floor = share_place(least).floor().clamp(share_place(MIN_SHARE), -4.0);
        let range = floor..0.15;
        let (bold, light): (Vec<_>, Vec<_>) = ticks(&range).partition(|&(digit, _)| digit == 1);
        let light = places(light).into_iter().filter(|&place| place < 0.0).collect();
        Self { title, range, bold: places(bold), light, label: share_label }
    }

    /// An axis of roots from no extra load to the most.
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

/// The ticks of a logarithmic axis: 1 to 9 in each decade, each with its digit.
fn ticks(range: &Range<f64>) -> impl Iterator<Item = (u32, f64)> {
    let decades = range.start.floor() as i32..=range.end.ceil() as i32;
    let all =
        decades.flat_map(|decade| (1..10).map(move |digit| (digit, f64::from(decade) + f64::from(digit).log10())));
    all.filter(|(_, place)| range.contains(place))
}

/// The ticks without their digits.
fn places(ticks: Vec<(u32, f64)>) -> Vec<f64> {
    ticks.into_iter().map(|(_, place)| place).collect()
}

/// `20 ms` for the logarithm of 0.02.
fn latency_label(place: f64) -> String {
    let micros = (10f64.powf(place + 7.0)).round() / 10.0;
    match micros {
        ..1e3 => format!("{micros} µs"),
        ..1e6 => format!("{} ms", micros / 1e3),
        _ => format!("{} s", micros / 1e6),
    }
}

/// `0.1 %` for the logarithm of a thousandth.
fn share_label(place: f64) -> String {
    let decimals = (-(place + 2.0)).round().max(0.0) as usize;
    format!("{:.decimals$} %", 10f64.powf(place + 2.0))
}

/// `5 %` for the root of 0.05.
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
