//! Places the labels of points so that none covers another label, a marker or the edge.
//!
//! The units are whole canvas units; y grows downwards. A label stands beside its point. If that spot is
//! taken, the label is stacked above or below, as near as possible, and a thin line leads to the point; lines
//! to a stack do not cross its labels.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) left: i32,
    pub(super) top: i32,
    /// The column after the last.
    pub(super) right: i32,
    /// The row after the last.
    pub(super) bottom: i32,
}

const MARKER: i32 = 16;
const NEAR: i32 = 20;
const LEADING: i32 = 3;
/// The maximum labels of a stack, up and down.
const STACK: i32 = 24;
const STEPS: i32 = 32;

impl Rect {
    fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    fn holds(&self, other: &Self) -> bool {
        self.left <= other.left && other.right <= self.right && self.top <= other.top && other.bottom <= self.bottom
    }

    /// Returns the end of a line from the point to this label; `None` if the label is near enough without
    /// one.
    pub(super) fn leader(&self, (x, y): (i32, i32)) -> Option<(i32, i32)> {
        let gap = (self.top - y).max(y - self.bottom);
        let end = if self.left > x { self.left } else { self.right };
        (gap > NEAR).then_some((end, i32::midpoint(self.top, self.bottom)))
    }

    /// Returns small boxes along the line from the point to this label, if there is one.
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

/// Finds a place for the label of each point, given by width and height, outside of `taken`.
pub(super) fn place(points: &[(i32, i32)], sizes: &[(i32, i32)], bounds: Rect, taken: Rect) -> Vec<Rect> {
    let markers: Vec<Rect> = points.iter().map(|&point| marker(point)).chain([taken]).collect();
    let mut labels: Vec<Rect> = Vec::new();
    let mut leaders: Vec<Rect> = Vec::new();
    for (&point, &size) in points.iter().zip(sizes) {
        let covers = |label: &Rect, others: &[Rect]| others.iter().any(|other| other.overlaps(label));
        let is_free = |label: &Rect| bounds.holds(label) && !covers(label, &labels) && !covers(label, &markers);
        // The line starts in the marker of its own point and in markers that overlap it.
        let is_elsewhere = |part: &Rect| !marker(point).overlaps(part);
        let is_clear = |label: &Rect| {
            let mut parts = label.leader_boxes(point).filter(is_elsewhere);
            !covers(label, &leaders) && !parts.any(|part| covers(&part, &labels) || covers(&part, &markers))
        };
        // A crossed line is better than a covering label, and that is better than no label.
        let label = candidates(point, size).find(|label| is_free(label) && is_clear(label));
        let label = label.or_else(|| candidates(point, size).find(is_free));
        let label = label.unwrap_or_else(|| beside(point, size, (1, 0)));
        leaders.extend(label.leader_boxes(point));
        labels.push(label);
    }
    labels
}

fn marker((x, y): (i32, i32)) -> Rect {
    Rect { left: x - MARKER, top: y - MARKER, right: x + MARKER, bottom: y + MARKER }
}

fn candidates(point: (i32, i32), size: (i32, i32)) -> impl Iterator<Item = Rect> {
    let near = move |sides: [(i32, i32); 2]| sides.into_iter().map(move |side| beside(point, size, side));
    let pitch = size.1 + LEADING;
    let stacked = (1..=STACK).flat_map(move |row| {
        [(1, -row), (1, row), (-1, -row), (-1, row)].map(|(side, row)| {
            let label = beside(point, size, (side, 0));
            Rect { top: label.top + row * pitch, bottom: label.bottom + row * pitch, ..label }
        })
    });
    // Above and below come last, because a label there blocks lines to a stack.
    near([(1, 0), (-1, 0)]).chain(stacked).chain(near([(0, -1), (0, 1)]))
}

/// Returns the place directly beside a point, on one side of it.
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

    const BOUNDS: Rect = Rect { left: 150, top: 60, right: 860, bottom: 640 };
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

    fn assert_apart(labels: &[Rect]) {
        for (index, label) in labels.iter().enumerate() {
            assert!(!labels[..index].iter().any(|other| other.overlaps(label)), "{labels:?}");
        }
    }
}
