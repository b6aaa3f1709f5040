//! Replaced pools, kept until the last other reference is gone. Freeing a pool with thousands of members is
//! slow, so the control thread does it. A worker releases a pool when it takes the next one, or when the last
//! race with it ends.

use std::sync::Arc;

use crate::state::{ForwarderState, SharedPool};

#[derive(Default)]
pub(super) struct RetiredPools(Vec<Arc<SharedPool>>);

impl RetiredPools {
    pub(super) fn keep(&mut self, earlier: &ForwarderState, state: Option<&ForwarderState>) {
        let stays =
            |pool: &Arc<SharedPool>| state.iter().flat_map(|state| &state.pools).any(|other| Arc::ptr_eq(pool, other));
        self.0.extend(earlier.pools.iter().filter(|pool| !stays(pool)).map(Arc::clone));
    }

    pub(super) fn free_unused(&mut self) {
        self.0.retain(|pool| Arc::strong_count(pool) > 1);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn state(backends: &str, earlier: Option<&ForwarderState>) -> ForwarderState {
        let text = format!(
            "[forwarder]\nlisten = ['127.0.0.1:5300']\n[forwarder.routes]\n'.' = 'a'\n'b.example' = 'b'\n\
             [pools.a]\nbackends = [{backends}]\n[pools.b]\nbackends = ['127.0.0.2:53']\n"
        );
        let config = Config::parse(&text, "c.toml", Path::new("")).expect("the config is right");
        ForwarderState::new(&config, earlier, None, None, 1, std::time::Instant::now()).expect("it has a forwarder")
    }

    #[test]
    fn a_pool_is_freed_here_when_nobody_else_has_it() {
        let earlier = state("'127.0.0.1:53'", None);
        let later = state("'127.0.0.1:53', '127.0.0.3:53'", Some(&earlier));
        let (of_worker, weak) = (Arc::clone(&earlier.pools[0]), Arc::downgrade(&earlier.pools[0]));
        let mut retired = RetiredPools::default();
        retired.keep(&earlier, Some(&later));
        assert_eq!(retired.0.len(), 1, "the other pool is the same as before");
        drop(earlier);
        retired.free_unused();
        assert_eq!(retired.0.len(), 1, "a worker has it");
        drop(of_worker);
        assert!(weak.upgrade().is_some(), "the worker does not free it");
        retired.free_unused();
        assert!(retired.0.is_empty() && weak.upgrade().is_none());
    }
}
