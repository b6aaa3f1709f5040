//! The limit of open sockets to all backends. Half of it is divided evenly, so that a silent backend, whose
//! sockets stay in use, does not starve the others; the other half is shared in order of request.

pub(super) struct Room {
    most: usize,
    open: usize,
    /// The reserved sockets of each backend, at least one.
    share: usize,
    kept: usize,
    backends: usize,
}

impl Room {
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: 0, share: 1, kept: 0, backends: 0 }
    }

    pub(super) fn divide(&mut self, open: impl ExactSizeIterator<Item = usize> + Clone) {
        self.backends = open.len();
        self.share = (self.most / 2 / open.len().max(1)).max(1);
        self.open = open.clone().sum();
        self.kept = open.map(|open| self.share.saturating_sub(open)).sum();
    }

    pub(super) fn has_place(&self, open: usize) -> bool {
        open < self.share || self.open + self.kept < self.most
    }

    /// Returns true if the room is exceeded because there are more backends than room.
    pub(super) fn is_crowded(&self) -> bool {
        self.open > self.most && self.backends > self.most.max(1)
    }

    pub(super) fn add(&mut self, open: usize) {
        self.open += 1;
        self.kept -= usize::from(open < self.share);
    }

    pub(super) fn remove(&mut self, open: usize) {
        self.open -= 1;
        self.kept += usize::from(open <= self.share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(fill(&mut room, &mut open, 0), 60);
        for other in 1..5 {
            assert_eq!(fill(&mut room, &mut open, other), 10);
        }
        assert_eq!(open.iter().sum::<usize>(), 100);
        room.remove(open[0]);
        open[0] -= 1;
        assert_eq!(fill(&mut room, &mut open, 3), 11);
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
        room.divide([1, 1, 1, 1, 0].into_iter());
        assert!(room.has_place(0) && !room.has_place(1));
    }
}
