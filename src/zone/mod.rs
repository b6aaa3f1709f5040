//! Zones: tables in, an immutable store out, and answers from it.

/// What an authority says of a name that is not in one of its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Nothing: the other TS may have it.
    Silent,
    /// NXDOMAIN.
    Nxdomain,
    /// REFUSED.
    Refused,
}
