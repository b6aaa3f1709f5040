//! How a policy looks: a color, a dash and a marker, each cycling with a length of its own, so that many policies
//! differ in at least one of them and neighbors in all three.

use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::{Area, Drawn};

/// The look of one policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Look {
    /// Of line and marker.
    color: RGBColor,
    /// Length of a dash and of the gap behind it; `None` for a whole line.
    dash: Option<(i32, i32)>,
    marker: Marker,
}

/// The shape of a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    /// A disk.
    Disk,
    /// A square.
    Square,
    /// A triangle that points up.
    Up,
    /// A square on its corner.
    Diamond,
    /// A triangle that points down.
    Down,
}

/// Colors that people with any kind of color vision tell apart, dark enough on white: those of Okabe and Ito, but
/// the yellow, and in an order in which neighbors differ in lightness too.
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 0, 0),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
];
/// Dashes and the gaps behind them.
const DASHES: [Option<(i32, i32)>; 4] = [None, Some((26, 10)), Some((8, 8)), Some((54, 12))];
const MARKERS: [Marker; 5] = [Marker::Disk, Marker::Square, Marker::Up, Marker::Diamond, Marker::Down];
/// Width of a line: three, shown as one and a half.
const LINE: u32 = 4;
/// Half the size of a marker.
const SIZE: i32 = 11;
/// Width of the white rim that sets a marker off from the lines below it.
const RIM: i32 = 3;

impl Look {
    /// The look of the policy at this place.
    pub(super) fn of(index: usize) -> Self {
        Self {
            color: COLORS[index % COLORS.len()],
            dash: DASHES[index % DASHES.len()],
            marker: MARKERS[index % MARKERS.len()],
        }
    }

    /// Draws a line through points.
    pub(super) fn line(&self, area: &Area<'_>, points: Vec<(i32, i32)>) -> Drawn<()> {
        let style = self.color.stroke_width(LINE);
        match self.dash {
            None => area.draw(&PathElement::new(points, style)),
            Some((dash, gap)) => area.draw(&DashedPathElement::new(points, dash, gap, style)),
        }
    }

    /// Draws the marker around a point.
    pub(super) fn marker(&self, area: &Area<'_>, at: (i32, i32)) -> Drawn<()> {
        self.shape(area, at, SIZE + RIM, WHITE)?;
        self.shape(area, at, SIZE, self.color)
    }

    /// Draws the shape of the marker in one color.
    fn shape(&self, area: &Area<'_>, (x, y): (i32, i32), size: i32, color: RGBColor) -> Drawn<()> {
        // Triangles and diamonds of one size look smaller than disks.
        let large = size * 5 / 4;
        match self.marker {
            Marker::Disk => area.draw(&Circle::new((x, y), size, color.filled())),
            Marker::Square => area.draw(&Rectangle::new([(x - size, y - size), (x + size, y + size)], color.filled())),
            Marker::Up => {
                area.draw(&Polygon::new(vec![(x, y - large), (x + large, y + size), (x - large, y + size)], color))
            }
            Marker::Diamond => {
                area.draw(&Polygon::new(vec![(x, y - large), (x + large, y), (x, y + large), (x - large, y)], color))
            }
            Marker::Down => {
                area.draw(&Polygon::new(vec![(x, y + large), (x + large, y - size), (x - large, y - size)], color))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_policies_look_different() {
        let looks: Vec<Look> = (0..20).map(Look::of).collect();
        for (index, look) in looks.iter().enumerate() {
            assert!(!looks[..index].contains(look), "{index}");
        }
    }

    #[test]
    fn neighbors_differ_in_everything() {
        for index in 0..20 {
            let (one, next) = (Look::of(index), Look::of(index + 1));
            assert!(one.color != next.color && one.dash != next.dash && one.marker != next.marker, "{index}");
        }
    }
}
