//! The figure of a simulation: one SVG with two panels, which says in a glance what a policy buys and what it costs.
//!
//! On the left, for each policy, the share of queries slower than a latency, both axes logarithmic; on the right, p99.9
//! against the extra load. Each policy has a color, a dash and a marker of its own, the same in both panels, so that the
//! figure can be read without seeing colors. The canvas is twice the width at which the README shows it: coordinates of the
//! drawing library are whole, and half steps keep the curves smooth. Same curves, same octets. Nothing is computed here.

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
use look::Look;

/// What the figure shows of one policy.
pub(super) struct Curve {
    /// The policy, as it is called in table and legend.
    pub(super) name: String,
    /// For rising latencies the share of queries that are slower.
    pub(super) ccdf: Vec<(Duration, f64)>,
    /// The latency that one query in a thousand exceeds.
    pub(super) p999: Duration,
    /// Queries to backends beyond one per query.
    pub(super) extra: f64,
}

/// Draws the figure, as SVG text.
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
            let (look, y) = (Look::of(index), TITLE + y + ROW / 2);
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

/// An area of the canvas, measured in its own units.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What was drawn, or why the drawing library gave up.
pub(super) type Drawn<T> = Result<T, DrawingAreaErrorKind<io::Error>>;
/// A panel with its axes.
type Panel<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;

/// Width of the canvas.
const WIDTH: u32 = 1800;
/// Height of the panels with their axes and captions.
const PANELS: u32 = 760;
/// Height of the title.
const TITLE: i32 = 84;
/// Height of a row of the legend.
const ROW: i32 = 46;
/// Empty space at the left and right edge.
const EDGE: i32 = 36;
/// Empty space at the right of a panel: room for the word at the line of p99.9.
const MARGIN: i32 = 96;
/// Length of a line in the legend.
const SAMPLE: i32 = 96;
/// Space between two entries of the legend.
const GAP: i32 = 32;
/// Size of text. The library writes 1/1.24 of it as the font size: 25, shown as 12.5.
const TEXT: i32 = 31;
/// Text and axes.
const INK: RGBColor = RGBColor(34, 34, 34);
/// Text that explains.
const PALE_INK: RGBColor = RGBColor(110, 110, 110);
/// Lines at ticks with a label.
const GRID: RGBColor = RGBColor(214, 214, 214);
/// Lines at other ticks.
const PALE_GRID: RGBColor = RGBColor(240, 240, 240);
/// The share of queries that p99.9 leaves.
const P999: f64 = 0.001;

/// Where each entry of the legend starts, from its top: as many in a row as fit.
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

/// The left panel: which share of the queries is slower than a latency.
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
        // Between two latencies the share is that of the first: steps, not slopes.
        let mut corners = vec![at(start, share_place(1.0))];
        let mut height = share_place(1.0);
        for &(latency, share) in &curve.ccdf {
            let here = latency_place(latency);
            corners.push(at(here, height));
            height = share_place(share).max(floor);
            corners.push(at(here, height));
        }
        corners.dedup();
        Look::of(index).line(root, corners)?;
    }
    for (index, curve) in curves.iter().enumerate() {
        Look::of(index).marker(root, at(latency_place(curve.p999), p999))?;
    }
    Ok(())
}

/// The right panel: what the tail costs.
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
        Look::of(index).marker(root, point)?;
        let middle = ((label.left + label.right) / 2, (label.top + label.bottom) / 2);
        // The estimate of a text's width is generous: towards its point a label is flush, not centered.
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

/// Draws axes, grid and caption of a panel.
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

/// The style of a text that is placed by its middle line.
fn text(size: i32, color: RGBColor, flush: HPos) -> TextStyle<'static> {
    styled(size, color, flush, FontStyle::Normal)
}

fn styled(size: i32, color: RGBColor, flush: HPos, style: FontStyle) -> TextStyle<'static> {
    ("sans-serif", size, style).into_font().color(&color).pos(Pos::new(flush, VPos::Center))
}

/// Room for a text. Which font a viewer takes is not known: as wide as the wider ones.
fn text_width(text: &str) -> i32 {
    text.chars().count() as i32 * TEXT * 47 / 100
}

/// A text as XML may hold it: control characters have no place there.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests;
