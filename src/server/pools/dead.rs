//! Pools that have lost their last backend.

use std::collections::BTreeSet;

use crate::metrics::BackendState;
use crate::state::ForwarderState;

#[derive(Default)]
pub(super) struct DeadPools(BTreeSet<String>);

impl DeadPools {
    /// Logs the pools that have lost their last backend or have one again.
    pub(super) fn log(&mut self, state: &ForwarderState) {
        for pool in &state.pools {
            let name = &pool.config.name;
            let states: Vec<_> = pool.backends.iter().map(|backend| backend.state()).collect();
            match self.take(name, states.into_iter()) {
                Some(false) => tracing::error!("pool {name}: no backend is up"),
                Some(true) => tracing::info!("pool {name}: a backend is up again"),
                None => {}
            }
        }
    }

    /// Takes the backend states of a pool. Returns whether a backend is up, if that has changed. A new
    /// backend may be up.
    fn take(&mut self, pool: &str, mut states: impl Iterator<Item = BackendState> + Clone) -> Option<bool> {
        if states.clone().any(BackendState::is_up) {
            return self.0.remove(pool).then_some(true);
        }
        let is_dead = states.clone().next().is_some() && states.all(|state| state != BackendState::New);
        (is_dead && self.0.insert(pool.to_owned())).then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_dead_once_and_alive_once() {
        use BackendState::{Down, New, Up};
        let mut pools = DeadPools::default();
        let mut take = |states: &[BackendState]| pools.take("p", states.iter().copied());
        assert_eq!((take(&[]), take(&[New, Down]), take(&[Up, Down])), (None, None, None));
        assert_eq!((take(&[Down, Down]), take(&[Down, Down])), (Some(false), None));
        assert_eq!((take(&[Up, Down]), take(&[Up, Up])), (Some(true), None));
    }
}
