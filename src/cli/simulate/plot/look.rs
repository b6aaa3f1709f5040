//! The appearance of a policy: color, dash and marker, each cycling with a different length, so that many
//! policies differ in at least one of them and neighbors in all three.

use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::{Area, Drawn};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LineStyle {
    color: RGBColor,
    /// Length of a dash and of the gap after it; `None` for a solid line.
    dash: Option<(i32, i32)>,
    marker: Marker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    Disk,
    Square,
    Up,
    /// A square on its corner.
    Diamond,
    Down,
}

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
const DASHES: [Option<(i32, i32)>; 4] = [None, Some((26, 10)), Some((8, 8)), Some((54, 12))];
const MARKERS: [Marker; 5] = [Marker::Disk, Marker::Square, Marker::Up, Marker::Diamond, Marker::Down];
const LINE: u32 = 4;
const SIZE: i32 = 11;
/// Width of the white rim that separates a marker from the lines below it.
const RIM: i32 = 3;

impl LineStyle {
    pub(super) fn of(index: usize) -> Self {
        Self {
            color: COLORS[index % COLORS.len()],
            dash: DASHES[index % DASHES.len()],
            marker: MARKERS[index % MARKERS.len()],
        }
    }

    pub(super) fn line(&self, area: &Area<'_>, points: Vec<(i32, i32)>) -> Drawn<()> {
        let style = self.color.stroke_width(LINE);
        match self.dash {
            None => area.draw(&PathElement::new(points, style)),
            Some((dash, gap)) => area.draw(&DashedPathElement::new(points, dash, gap, style)),
        }
    }

    pub(super) fn marker(&self, area: &Area<'_>, at: (i32, i32)) -> Drawn<()> {
        self.shape(area, at, SIZE + RIM, WHITE)?;
        self.shape(area, at, SIZE, self.color)
    }

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
        let looks: Vec<LineStyle> = (0..20).map(LineStyle::of).collect();
        for (index, look) in looks.iter().enumerate() {
            assert!(!looks[..index].contains(look), "{index}");
        }
    }

    #[test]
    fn neighbors_differ_in_everything() {
        for index in 0..20 {
            let (one, next) = (LineStyle::of(index), LineStyle::of(index + 1));
            assert!(one.color != next.color && one.dash != next.dash && one.marker != next.marker, "{index}");
        }
    }
}
