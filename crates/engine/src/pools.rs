//! The pools of a worker.

use super::pool::Pool;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolSlot(u16);

#[derive(Default)]
pub(super) struct Pools(Vec<Option<Pool>>);

impl Pools {
    pub(super) fn insert(&mut self, pool: Pool) -> PoolSlot {
        let place = self.0.iter().position(Option::is_none).unwrap_or_else(|| {
            self.0.push(None);
            self.0.len() - 1
        });
        self.0[place] = Some(pool);
        PoolSlot(place as u16)
    }

    pub(super) fn find(&self, is_meant: impl Fn(&Pool) -> bool) -> Option<PoolSlot> {
        self.iter().find(|(_, pool)| is_meant(pool)).map(|(slot, _)| slot)
    }

    pub(super) fn get(&self, slot: PoolSlot) -> Option<&Pool> {
        self.0.get(usize::from(slot.0))?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: PoolSlot) -> Option<&mut Pool> {
        self.0.get_mut(usize::from(slot.0))?.as_mut()
    }

    pub(super) fn at(&mut self, slot: PoolSlot) -> &mut Pool {
        self.get_mut(slot).expect("a pool with races is kept")
    }

    pub(super) fn take_if(&mut self, slot: PoolSlot, is_meant: impl FnOnce(&Pool) -> bool) -> Option<Pool> {
        self.0.get_mut(usize::from(slot.0))?.take_if(|pool| is_meant(pool))
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = PoolSlot> + use<> {
        (0..self.0.len() as u16).map(PoolSlot)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PoolSlot, &Pool)> {
        self.slots().zip(&self.0).filter_map(|(slot, pool)| Some((slot, pool.as_ref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pool> {
        self.0.iter_mut().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
