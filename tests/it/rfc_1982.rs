//! RFC 1982: which of two serial numbers is the newer.

use proptest::prelude::*;
use zone::transfer::Serial;

/// Section 3.2, and the examples of section 5.2, for 32 bits.
#[test]
fn newer_is_less_than_half_the_circle_ahead() {
    let check = |a: u32, b: u32, a_is_newer: bool, b_is_newer: bool| {
        let (a, b) = (Serial(a), Serial(b));
        assert_eq!((a.is_newer_than(b), b.is_newer_than(a)), (a_is_newer, b_is_newer), "{a} {b}");
    };
    check(0, 0, false, false);
    check(1, 0, true, false);
    check(44, 0, true, false);
    check(100, 44, true, false);
    check(0, u32::MAX, true, false);
    check(44, u32::MAX - 200, true, false);
    check(0x7FFF_FFFF, 0, true, false);
    check(0x8000_0001, 0, false, true);
    // Half the circle apart: undefined there, neither here.
    check(0x8000_0000, 0, false, false);
    check(0x8000_0001, 1, false, false);
}

proptest! {
    /// Section 3.1: adding up to 2^31 - 1 gives a newer serial.
    #[test]
    fn adding_makes_newer(start: u32, step in 1..=0x7FFF_FFFF_u32) {
        let (old, new) = (Serial(start), Serial(start.wrapping_add(step)));
        prop_assert!(new.is_newer_than(old) && !old.is_newer_than(new));
    }
}
