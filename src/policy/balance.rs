//! stub

/// In which order backends are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// As in the config.
    Ordered,
    /// In turn, by weight.
    RoundRobin,
    /// By weighted chance.
    Random,
}
