//! How many sockets may be open to all backends, and how many of them are kept for which.
//!
//! Half of the room is divided evenly, and whoever has less than its share may always open another; the other half goes to who
//! asks first. So a backend whose sockets are never free again, since it is silent, does not cost the others theirs.

/// Room for so many sockets.
pub(super) struct Room {
    /// How many may be open.
    most: usize,
    open: usize,
    /// How many are each backend's own, at least one.
    share: usize,
    /// Of those, how many are not open.
    kept: usize,
}

impl Room {
    /// Room for `most`, and no backend yet.
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: 0, share: 1, kept: 0 }
    }

    /// Divides it anew among backends, each of which has so many open.
    pub(super) fn divide(&mut self, open: impl ExactSizeIterator<Item = usize> + Clone) {
        self.share = (self.most / 2 / open.len().max(1)).max(1);
        self.open = open.clone().sum();
        self.kept = open.map(|open| self.share.saturating_sub(open)).sum();
    }

    /// Whether a backend with so many open may have one more.
    pub(super) fn has_place(&self, open: usize) -> bool {
        open < self.share || self.open + self.kept < self.most
    }

    /// Whether there are more backends than there is room for, of which each may have one.
    pub(super) fn is_crowded(&self, backends: usize) -> bool {
        self.open > self.most && backends > self.most.max(1)
    }

    /// A backend that had so many open has one more.
    pub(super) fn add(&mut self, open: usize) {
        self.open += 1;
        self.kept -= usize::from(open < self.share);
    }

    /// A backend that had so many open has one less.
    pub(super) fn remove(&mut self, open: usize) {
        self.open -= 1;
        self.kept += usize::from(open <= self.share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens for one backend of some until there is no place; returns how many that one has then.
    fn fill(room: &mut Room, open: &mut [usize], one: usize) -> usize {
        while room.has_place(open[one]) {
            room.add(open[one]);
            open[one] += 1;
        }
        open[one]
    }

    #[test]
    fn nobody_takes_what_is_kept_for_others() {
        let mut room = Room::new(100);
        let mut open = [0; 5];
        room.divide(open.into_iter());
        // Its own ten, and the half that is nobody's.
        assert_eq!(fill(&mut room, &mut open, 0), 60);
        for other in 1..5 {
            assert_eq!(fill(&mut room, &mut open, other), 10);
        }
        assert_eq!(open.iter().sum::<usize>(), 100);
        // What one gives back, another may have.
        room.remove(open[0]);
        open[0] -= 1;
        assert_eq!(fill(&mut room, &mut open, 3), 11);
        // Below its share, it has its place back.
        room.remove(open[1]);
        open[1] -= 1;
        assert!(!room.has_place(open[3]) && room.has_place(open[1]));
    }

    #[test]
    fn each_has_one_however_little_there_is() {
        let mut room = Room::new(2);
        let mut open = [0; 4];
        room.divide(open.into_iter());
        for one in 0..4 {
            assert_eq!(fill(&mut room, &mut open, one), 1);
        }
        // Another one more, and what is open counts.
        room.divide([1, 1, 1, 1, 0].into_iter());
        assert!(room.has_place(0) && !room.has_place(1));
    }
}
