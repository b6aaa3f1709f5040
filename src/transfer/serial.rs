//! The serial number of a zone's version, and which of two is the newer (RFC 1982).

use std::fmt;

/// A serial number. There is no order among all of them, so there is no `Ord`: only [`Serial::is_newer_than`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Serial(pub u32);

impl Serial {
    /// Whether this version follows the other one.
    ///
    /// RFC 1982 section 3.2 leaves open what two serials are to each other that lie 2^31 apart; here neither is newer, so
    /// that no two servers each take the other's version for the newer one.
    pub fn is_newer_than(self, other: Self) -> bool {
        (1..HALF).contains(&self.0.wrapping_sub(other.0))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Half of the circle that serials go around.
const HALF: u32 = 1 << 31;
