//! Serial numbers of zone versions and their order (RFC 1982).

use std::fmt;

/// A serial number. There is no total order, so there is no `Ord`: only [`Serial::is_newer_than`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Serial(pub u32);

impl Serial {
    /// Returns true if this version follows the other one. RFC 1982 section 3.2 leaves the order of two
    /// serials that differ by 2^31 open. Here neither is newer, so that no two servers each take the other's
    /// version for the newer one.
    pub fn is_newer_than(self, other: Self) -> bool {
        (1..HALF).contains(&self.0.wrapping_sub(other.0))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const HALF: u32 = 1 << 31;
