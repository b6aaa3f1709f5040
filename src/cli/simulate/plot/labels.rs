//! Where labels of points go so that none covers another label, a marker or the edge.
//!
//! Geometry alone, in whole units of the canvas; y grows downwards. A label stands beside its point. Where that is
//! taken, it is stacked above or below there, as near as there is room, and a thin line leads to the point; lines to one
//! stack do not cross its labels.

/// A part of the canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rect {
    /// First column.
    pub(super) left: i32,
    /// First row.
    pub(super) top: i32,
    /// Column behind the last.
    pub(super) right: i32,
    /// Row behind the last.
    pub(super) bottom: i32,
}

/// Half the size of a marker, with some air.
const MARKER: i32 = 16;
/// Distance between a point and its label.
const NEAR: i32 = 20;
/// Space between two labels of a stack.
const LEADING: i32 = 3;
/// Labels that a stack has room for, up and down.
const STACK: i32 = 24;
/// Parts of a line that are looked at.
const STEPS: i32 = 32;

impl Rect {
    /// Whether both share a spot.
    fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    /// Whether the other lies within.
    fn holds(&self, other: &Self) -> bool {
        self.left <= other.left && other.right <= self.right && self.top <= other.top && other.bottom <= self.bottom
    }

    /// Where a line from the point to this label ends; `None` if it is near enough without one.
    pub(super) fn leader(&self, (x, y): (i32, i32)) -> Option<(i32, i32)> {
        let gap = (self.top - y).max(y - self.bottom);
        let end = if self.left > x { self.left } else { self.right };
        (gap > NEAR).then_some((end, i32::midpoint(self.top, self.bottom)))
    }

    /// Small boxes along the line from the point to this label, if it has one.
    fn leader_boxes(&self, point: (i32, i32)) -> impl Iterator<Item = Self> {
        let along = move |(x, y): (i32, i32)| {
            (1..STEPS).map(move |step| {
                let at = |from: i32, to: i32| from + (to - from) * step / STEPS;
                let (x, y) = (at(point.0, x), at(point.1, y));
                Self { left: x - 2, top: y - 2, right: x + 2, bottom: y + 2 }
            })
        };
        self.leader(point).into_iter().flat_map(along)
    }
}

/// Finds a place for the label of each point, given by width and height. What is taken stays free.
pub(super) fn place(points: &[(i32, i32)], sizes: &[(i32, i32)], bounds: Rect, taken: Rect) -> Vec<Rect> {
    let markers: Vec<Rect> = points.iter().map(|&point| marker(point)).chain([taken]).collect();
    let mut labels: Vec<Rect> = Vec::new();
    let mut leaders: Vec<Rect> = Vec::new();
    for (&point, &size) in points.iter().zip(sizes) {
        let covers = |label: &Rect, others: &[Rect]| others.iter().any(|other| other.overlaps(label));
        let is_free = |label: &Rect| bounds.holds(label) && !covers(label, &labels) && !covers(label, &markers);
        // The line starts in the marker of its own point, and in those that lie there too.
        let is_elsewhere = |part: &Rect| !marker(point).overlaps(part);
        let is_clear = |label: &Rect| {
            let mut parts = label.leader_boxes(point).filter(is_elsewhere);
            !covers(label, &leaders) && !parts.any(|part| covers(&part, &labels) || covers(&part, &markers))
        };
        // A line that is crossed is better than a label that covers something, and that is better than none.
        let label = candidates(point, size).find(|label| is_free(label) && is_clear(label));
        let label = label.or_else(|| candidates(point, size).find(is_free));
        let label = label.unwrap_or_else(|| beside(point, size, (1, 0)));
        leaders.extend(label.leader_boxes(point));
        labels.push(label);
    }
    labels
}

/// What the marker of a point takes.
fn marker((x, y): (i32, i32)) -> Rect {
    Rect { left: x - MARKER, top: y - MARKER, right: x + MARKER, bottom: y + MARKER }
}

/// All places for one label, the best first.
fn candidates(point: (i32, i32), size: (i32, i32)) -> impl Iterator<Item = Rect> {
    let near = move |sides: [(i32, i32); 2]| sides.into_iter().map(move |side| beside(point, size, side));
    let pitch = size.1 + LEADING;
    let stacked = (1..=STACK).flat_map(move |row| {
        [(1, -row), (1, row), (-1, -row), (-1, row)].map(|(side, row)| {
            let label = beside(point, size, (side, 0));
            Rect { top: label.top + row * pitch, bottom: label.bottom + row * pitch, ..label }
        })
    });
    // Above and below come last: there a label stands in the way of lines to a stack.
    near([(1, 0), (-1, 0)]).chain(stacked).chain(near([(0, -1), (0, 1)]))
}

/// The place right beside a point, on one side of it.
fn beside((x, y): (i32, i32), (width, height): (i32, i32), (across, down): (i32, i32)) -> Rect {
    let start = |at: i32, length: i32, side: i32| match side {
        1.. => at + NEAR,
        0 => at - length / 2,
        ..0 => at - NEAR - length,
    };
    let (left, top) = (start(x, width, across), start(y, height, down));
    Rect { left, top, right: left + width, bottom: top + height }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A panel of the usual size.
    const BOUNDS: Rect = Rect { left: 150, top: 60, right: 860, bottom: 640 };
    /// A note in a corner of it.
    const NOTE: Rect = Rect { left: 160, top: 600, right: 460, bottom: 640 };

    #[test]
    fn a_label_stands_to_the_right_of_its_point_if_it_can() {
        let check = |point, expected| {
            let label = place(&[point], &[(200, 30)], BOUNDS, NOTE)[0];
            assert_eq!((label.left, label.top), expected, "{point:?}");
            assert_eq!(label.leader(point), None, "{point:?}");
        };
        check((300, 300), (320, 285));
        check((800, 300), (580, 285));
        check((300, 580), (320, 565));
    }

    #[test]
    fn points_in_one_spot_keep_their_labels_apart() {
        let labels = place(&[(400, 300); 8], &[(300, 31); 8], BOUNDS, NOTE);
        assert_apart(&labels);
        for (index, label) in labels.iter().enumerate() {
            let mut parts = label.leader_boxes((400, 300));
            assert!(!parts.any(|part| labels[..index].iter().any(|other| other.overlaps(&part))), "{labels:?}");
        }
        assert!(labels.iter().any(|label| label.leader((400, 300)).is_some()), "a far label has a line");
    }

    proptest! {
        #[test]
        fn labels_stay_apart_and_inside(points in prop::collection::vec((150..860, 60..640), 1..8), width in 40..330) {
            let labels = place(&points, &vec![(width, 31); points.len()], BOUNDS, NOTE);
            assert_apart(&labels);
            prop_assert!(labels.iter().all(|label| BOUNDS.holds(label) && !NOTE.overlaps(label)));
        }
    }

    /// Fails if two labels share a spot.
    fn assert_apart(labels: &[Rect]) {
        for (index, label) in labels.iter().enumerate() {
            assert!(!labels[..index].iter().any(|other| other.overlaps(label)), "{labels:?}");
        }
    }
}
