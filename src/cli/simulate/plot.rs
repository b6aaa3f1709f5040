//! The figure of a simulation: one SVG with two panels.
//!
//! On the left, for each policy, the share of queries slower than a latency, on logarithmic axes; on the
//! right, p99.9 against the extra load. Each policy has the same color, dash and marker in both panels, so
//! that the figure is readable without colors. The canvas is twice the width at which the README shows it,
//! because the drawing library has whole coordinates, and half steps keep the curves smooth. Equal curves
//! give equal bytes.

mod axis;
mod labels;
mod look;

use std::io;
use std::time::Duration;

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use axis::{Axis, extra_place, latency_place, share_place};
use labels::{Rect, place};
use look::LineStyle;

pub(super) struct Curve {
    pub(super) name: String,
    /// The share of queries slower than each latency, for rising latencies.
    pub(super) ccdf: Vec<(Duration, f64)>,
    pub(super) p999: Duration,
    /// Queries to backends beyond one per query.
    pub(super) extra: f64,
}

pub(super) fn draw(title: &str, curves: &[Curve]) -> Drawn<String> {
    let names: Vec<String> = curves.iter().map(|curve| printable(&curve.name)).collect();
    let entries = legend(&names);
    let legend_height = entries.last().map_or(0, |&(_, y)| y + ROW);
    let mut svg = String::new();
    {
        let height = (TITLE + legend_height) as u32 + PANELS;
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let style = styled(TEXT * 5 / 4, INK, HPos::Left, FontStyle::Bold);
        root.draw_text(&printable(title), &style, (EDGE, TITLE / 2))?;
        for (index, (name, &(x, y))) in names.iter().zip(&entries).enumerate() {
            let (look, y) = (LineStyle::of(index), TITLE + y + ROW / 2);
            look.line(&root, vec![(x, y), (x + SAMPLE, y)])?;
            look.marker(&root, (x + SAMPLE / 2, y))?;
            root.draw_text(name, &text(TEXT, INK, HPos::Left), (x + SAMPLE + 12, y))?;
        }
        let (_, panels) = root.split_vertically(TITLE + legend_height);
        let (left, right) = panels.split_horizontally(WIDTH / 2);
        distribution(&root, &left, curves)?;
        price(&root, &right, curves, &names)?;
        root.present()?;
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(super) type Drawn<T> = Result<T, DrawingAreaErrorKind<io::Error>>;
type Panel<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;

const WIDTH: u32 = 1800;
/// Height of the panels with their axes and captions.
const PANELS: u32 = 760;
const TITLE: i32 = 84;
const ROW: i32 = 46;
const EDGE: i32 = 36;
/// Empty space at the right of a panel, for the label of the p99.9 line.
const MARGIN: i32 = 96;
const SAMPLE: i32 = 96;
const GAP: i32 = 32;
/// Size of text. The library writes 1/1.24 of it as the font size: 25, shown as 12.5.
const TEXT: i32 = 31;
const INK: RGBColor = RGBColor(34, 34, 34);
const PALE_INK: RGBColor = RGBColor(110, 110, 110);
const GRID: RGBColor = RGBColor(214, 214, 214);
const PALE_GRID: RGBColor = RGBColor(240, 240, 240);
const P999: f64 = 0.001;

/// Returns the start of each legend entry from the legend's top, with as many entries per row as fit.
fn legend(names: &[String]) -> Vec<(i32, i32)> {
    let (mut x, mut y) = (EDGE, 0);
    let mut entries = Vec::new();
    for name in names {
        let width = SAMPLE + 12 + text_width(name);
        if x > EDGE && x + width > WIDTH as i32 - EDGE {
            (x, y) = (EDGE, y + ROW);
        }
        entries.push((x, y));
        x += width + GAP;
    }
    entries
}

fn distribution(root: &Area<'_>, area: &Area<'_>, curves: &[Curve]) -> Drawn<()> {
    let points = || curves.iter().flat_map(|curve| &curve.ccdf);
    let least = points().map(|&(_, share)| share).filter(|&share| share > 0.0).fold(1.0, f64::min);
    let ends = points().map(|&(latency, _)| latency);
    let x = Axis::latency("latency", ends.chain(curves.iter().map(|curve| curve.p999)), 2.0);
    let y = Axis::share("share of queries slower", least);
    let (floor, start, end) = (y.range.start, x.range.start, x.range.end);
    let panel = panel(area, "How many queries are slower", x, y)?;

    let p999 = share_place(P999).max(floor);
    let at = |x: f64, y: f64| panel.backend_coord(&(x, y));
    let (first, last) = (at(start, p999), at(end, p999));
    root.draw(&DashedPathElement::new([first, last], 4, 6, PALE_INK.stroke_width(2)))?;
    root.draw_text("p99.9", &text(TEXT, PALE_INK, HPos::Left), (last.0 + 8, last.1))?;
    for (index, curve) in curves.iter().enumerate() {
        // Between two latencies the share is that of the first, so the curve has steps instead of slopes.
        let mut corners = vec![at(start, share_place(1.0))];
        let mut height = share_place(1.0);
        for &(latency, share) in &curve.ccdf {
            let here = latency_place(latency);
            corners.push(at(here, height));
            height = share_place(share).max(floor);
            corners.push(at(here, height));
        }
        corners.dedup();
        LineStyle::of(index).line(root, corners)?;
    }
    for (index, curve) in curves.iter().enumerate() {
        LineStyle::of(index).marker(root, at(latency_place(curve.p999), p999))?;
    }
    Ok(())
}

fn price(root: &Area<'_>, area: &Area<'_>, curves: &[Curve], names: &[String]) -> Drawn<()> {
    let most = curves.iter().map(|curve| curve.extra).fold(0.0, f64::max);
    let x = Axis::extra("extra queries to backends (square-root scale)", most);
    let y = Axis::latency("p99.9", curves.iter().map(|curve| curve.p999), 3.4);
    let panel = panel(area, "What the tail costs", x, y)?;

    let place_of = |curve: &Curve| panel.backend_coord(&(extra_place(curve.extra), latency_place(curve.p999)));
    let points: Vec<_> = curves.iter().map(place_of).collect();
    let (across, down) = panel.plotting_area().get_pixel_range();
    let bounds = Rect { left: across.start, top: down.start, right: across.end, bottom: down.end };
    let corner = (bounds.left + 14, bounds.bottom - 24);
    let note = "better: down and left";
    root.draw_text(note, &styled(TEXT * 9 / 10, PALE_INK, HPos::Left, FontStyle::Italic), corner)?;

    // The note is an obstacle like any label.
    let taken =
        Rect { left: corner.0, top: corner.1 - TEXT / 2, right: corner.0 + text_width(note), bottom: bounds.bottom };
    let sizes: Vec<_> = names.iter().map(|name| (text_width(name), TEXT)).collect();
    let boxes = place(&points, &sizes, bounds, taken);
    for (&point, label) in points.iter().zip(&boxes) {
        if let Some(end) = label.leader(point) {
            root.draw(&PathElement::new(vec![point, end], PALE_INK.stroke_width(1)))?;
        }
    }
    for (index, ((&point, label), name)) in points.iter().zip(&boxes).zip(names).enumerate() {
        LineStyle::of(index).marker(root, point)?;
        let middle = ((label.left + label.right) / 2, (label.top + label.bottom) / 2);
        // The estimated text width is generous, so a label is aligned towards its point, not centered.
        let (flush, x) = if label.left > point.0 {
            (HPos::Left, label.left)
        } else if label.right < point.0 {
            (HPos::Right, label.right)
        } else {
            (HPos::Center, middle.0)
        };
        root.draw_text(name, &text(TEXT, INK, flush), (x, middle.1))?;
    }
    Ok(())
}

fn panel<'a>(area: &Area<'a>, caption: &str, x: Axis, y: Axis) -> Drawn<Panel<'a>> {
    let (x_title, y_title) = (x.title, y.title);
    let mut panel = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", TEXT * 11 / 10).into_font().color(&INK))
        .margin_left(EDGE / 2)
        .margin_right(MARGIN)
        .margin_bottom(12)
        .x_label_area_size(88)
        .y_label_area_size(158)
        .build_cartesian_2d(x, y)?;
    panel
        .configure_mesh()
        .x_desc(x_title)
        .y_desc(y_title)
        .axis_desc_style(("sans-serif", TEXT).into_font().color(&INK))
        .label_style(("sans-serif", TEXT).into_font().color(&INK))
        .axis_style(INK.stroke_width(2))
        .bold_line_style(GRID.stroke_width(2))
        .light_line_style(PALE_GRID.stroke_width(2))
        .draw()?;
    Ok(panel)
}

/// Returns the style of a text that is placed by its middle line.
fn text(size: i32, color: RGBColor, flush: HPos) -> TextStyle<'static> {
    styled(size, color, flush, FontStyle::Normal)
}

fn styled(size: i32, color: RGBColor, flush: HPos, style: FontStyle) -> TextStyle<'static> {
    ("sans-serif", size, style).into_font().color(&color).pos(Pos::new(flush, VPos::Center))
}

/// Estimates the width of a text for a wide font, because the viewer chooses the font.
fn text_width(text: &str) -> i32 {
    text.chars().count() as i32 * TEXT * 47 / 100
}

/// Replaces control characters, which XML does not allow.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests;
