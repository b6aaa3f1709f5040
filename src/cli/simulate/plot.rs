//! The figure of a simulation: one SVG with two panels.
//!
//! On the left, for each policy, the share of queries slower than a latency, on logarithmic axes; on the
//! right, p99.9 against the extra load, with the legend. Each policy has the same color, dash and marker in
//! both panels, so that the figure is readable without colors. The canvas is twice the width at which the
//! docs show it, because the drawing library has whole coordinates, and half steps keep the curves smooth.
//! Equal curves give equal bytes.

use std::io;
use std::ops::Range;
use std::time::Duration;

use plotters::coord::Shift;
use plotters::coord::combinators::LogCoord;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::element::DashedPathElement;
use plotters::prelude::*;

pub(super) struct Curve {
    pub(super) name: String,
    /// The share of queries slower than each latency, for rising latencies.
    pub(super) ccdf: Vec<(Duration, f64)>,
    pub(super) p999: Duration,
    /// Queries to backends beyond one per query.
    pub(super) extra: f64,
}

pub(super) fn draw(title: &str, curves: &[Curve]) -> Drawn<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        root.fill(&WHITE)?;
        let panels = root.titled(&printable(title), (FONT, TEXT + 8))?;
        let (left, right) = panels.split_horizontally(WIDTH / 2);
        distribution(&left, curves)?;
        price(&right, curves)?;
        root.present()?;
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T> = Result<T, DrawingAreaErrorKind<io::Error>>;
type Panel<'a, X> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, LogCoord<f64>>>;
type Shape<'a, C> = DynElement<'static, SVGBackend<'a>, C>;

const WIDTH: u32 = 1800;
const HEIGHT: u32 = 860;
const FONT: &str = "sans-serif";
/// Size of text. The library writes 1/1.24 of it as the font size: 25, shown as 12.5.
const TEXT: u32 = 31;
/// Labels of an axis, at most: more would touch each other.
const LABELS: usize = 6;
/// Length of a line in the legend.
const SAMPLE: i32 = 90;
const P999: f64 = 0.001;
/// The smallest share shown.
const MIN_SHARE: f64 = 1e-6;
/// The largest share that an axis ends with at the bottom.
const MAX_FLOOR: f64 = 1e-4;

/// The colors of Okabe and Ito without yellow, which people with any color vision can distinguish. All are
/// dark enough on white, and neighbors differ in lightness, too.
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 0, 0),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
];
/// Length of a dash and of the gap after it; `None` for a solid line.
const DASHES: [Option<(u32, u32)>; 4] = [None, Some((26, 10)), Some((8, 8)), Some((54, 12))];
const GRAY: RGBColor = RGBColor(110, 110, 110);

fn distribution(area: &Area<'_>, curves: &[Curve]) -> Drawn<()> {
    let points = || curves.iter().flat_map(|curve| &curve.ccdf);
    let shares = points().map(|&(_, share)| share).filter(|share| *share > 0.0);
    let floor = shares.fold(MAX_FLOOR, f64::min).max(MIN_SHARE);
    let x = latencies(points().map(|&(latency, _)| latency).chain(curves.iter().map(|curve| curve.p999)));
    let (start, end) = (x.start, x.end);
    let mut panel = panel(
        area,
        "How many queries are slower",
        PanelAxis { title: "latency", range: x.log_scale(), label: latency_label },
        PanelAxis { title: "share of queries slower", range: floor..1.5, label: percent },
    )?;
    let guide = DashedPathElement::new([(start, P999), (end, P999)], 4, 6, GRAY.stroke_width(2));
    panel.draw_series([guide])?;
    panel.draw_series([Text::new("p99.9", (start, P999), (FONT, TEXT).into_font().color(&GRAY))])?;
    for (index, curve) in curves.iter().enumerate() {
        // Between two latencies the share is that of the first, so the curve has steps instead of slopes.
        let mut corners = vec![(start, 1.0)];
        let mut height = 1.0;
        for &(latency, share) in &curve.ccdf {
            let here = millis(latency);
            corners.push((here, height));
            height = share.max(floor);
            corners.push((here, height));
        }
        panel.draw_series([line(index, corners)])?;
    }
    let markers = curves.iter().enumerate().map(|(index, curve)| marker(index, (millis(curve.p999), P999)));
    panel.draw_series(markers).map(drop)
}

fn price(area: &Area<'_>, curves: &[Curve]) -> Drawn<()> {
    // The square root spreads the few percent of a budget, has a zero, and still fits the double load of a
    // race.
    let place = |curve: &Curve| curve.extra.max(0.0).sqrt();
    let most = curves.iter().map(place).fold(0.15, f64::max);
    let mut panel = panel(
        area,
        "What the tail costs",
        PanelAxis {
            title: "extra queries to backends (square-root scale)",
            range: -0.05 * most..1.1 * most,
            label: |root| percent(&(root * root)),
        },
        PanelAxis { title: "p99.9", range: latencies(curves.iter().map(|curve| curve.p999)), label: latency_label },
    )?;
    for (index, curve) in curves.iter().enumerate() {
        let series = panel.draw_series([marker(index, (place(curve), millis(curve.p999)))])?;
        series.label(printable(&curve.name)).legend(move |(x, y)| {
            EmptyElement::at((x, y)) + line(index, vec![(0, 0), (SAMPLE, 0)]) + marker(index, (SAMPLE / 2, 0))
        });
    }
    panel
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .legend_area_size(SAMPLE + 12)
        .label_font((FONT, TEXT))
        .background_style(WHITE.mix(0.8))
        .draw()
}

struct PanelAxis<R> {
    title: &'static str,
    range: R,
    label: fn(&f64) -> String,
}

/// Draws the axes of a panel. The vertical one is logarithmic.
fn panel<'a, X>(
    area: &Area<'a>,
    caption: &str,
    x: PanelAxis<X>,
    y: PanelAxis<Range<f64>>,
) -> Drawn<Panel<'a, X::CoordDescType>>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    let mut panel = ChartBuilder::on(area)
        .caption(caption, (FONT, TEXT + 3))
        .margin(EDGE)
        .x_label_area_size(88)
        .y_label_area_size(158)
        .build_cartesian_2d(x.range, y.range.log_scale())?;
    panel
        .configure_mesh()
        .x_desc(x.title)
        .y_desc(y.title)
        .x_label_formatter(&x.label)
        .y_label_formatter(&y.label)
        .x_labels(LABELS)
        .y_labels(LABELS)
        .label_style((FONT, TEXT))
        .draw()?;
    Ok(panel)
}

const EDGE: u32 = 18;

/// Returns a range around these latencies, of at least a decade: less would make noise look like a
/// difference.
fn latencies(all: impl Iterator<Item = Duration>) -> Range<f64> {
    let ends = all.map(millis).fold(None, |ends, ms| {
        let (low, high) = ends.unwrap_or((ms, ms));
        Some((ms.min(low), ms.max(high)))
    });
    let (low, high) = ends.unwrap_or((1.0, 1.0));
    let middle = (low * high).sqrt();
    low.min(middle / 3.2) / 1.25..high.max(middle * 3.2) * 1.25
}

/// Returns the milliseconds of a latency; a logarithm needs at least a microsecond.
fn millis(latency: Duration) -> f64 {
    latency.as_secs_f64().max(1e-6) * 1e3
}

fn latency_label(millis: &f64) -> String {
    // The ticks are powers of ten, not exactly.
    let micros = (millis * 1e4).round() / 10.0;
    match micros {
        ..1e3 => format!("{micros} µs"),
        ..1e6 => format!("{} ms", micros / 1e3),
        _ => format!("{} s", micros / 1e6),
    }
}

fn percent(share: &f64) -> String {
    format!("{} %", (share * 1e6).round() / 1e4)
}

fn line<'a, C: Clone + 'static>(index: usize, points: Vec<C>) -> Shape<'a, C> {
    let style = COLORS[index % COLORS.len()].stroke_width(4);
    match DASHES[index % DASHES.len()] {
        None => PathElement::new(points, style).into_dyn(),
        Some((dash, gap)) => DashedPathElement::new(points, dash, gap, style).into_dyn(),
    }
}

/// Draws one of three shapes. With seven colors and four dashes, many policies differ in at least one of
/// them, and neighbors in all three.
fn marker<'a, C: Clone + 'static>(index: usize, at: C) -> Shape<'a, C> {
    let color = COLORS[index % COLORS.len()];
    match index % 3 {
        0 => Circle::new(at, 11, color.filled()).into_dyn(),
        1 => TriangleMarker::new(at, 15, color.filled()).into_dyn(),
        _ => Cross::new(at, 11, color.stroke_width(6)).into_dyn(),
    }
}

/// Replaces control characters, which XML does not allow.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests;
