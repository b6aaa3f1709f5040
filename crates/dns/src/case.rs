//! DNS 0x20: the letter case of a QNAME is additional entropy against forged replies
//! (draft-vixie-dnsext-dns0x20 section 3).

/// Sets the case of a wire name: the letter at byte `n` is a capital if bit `n` modulo 64 of `bits` is set.
/// 64 random bits are more entropy than ID and port, so longer names use them again.
pub fn set_case(qname: &mut [u8], bits: u64) {
    for (octet, bit) in qname.iter_mut().zip(cycle(bits)) {
        // Length bytes are below 64, so none is a letter.
        if octet.is_ascii_alphabetic() {
            *octet = *octet & !CASE_BIT | if bit { 0 } else { CASE_BIT };
        }
    }
}

/// Returns true if the case of a name matches `bits`, letter by letter.
pub fn has_case(qname: &[u8], bits: u64) -> bool {
    let mut letters = qname.iter().zip(cycle(bits)).filter(|(octet, _)| octet.is_ascii_alphabetic());
    letters.all(|(octet, bit)| octet.is_ascii_uppercase() == bit)
}

fn cycle(bits: u64) -> impl Iterator<Item = bool> {
    (0..u64::BITS).cycle().map(move |bit| bits >> bit & 1 == 1)
}

const CASE_BIT: u8 = 0x20;

/// The case of a QNAME: one bit per byte, set for upper-case letters. A client may choose it at random (DNS
/// 0x20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QnameCase([u64; 4]);

impl QnameCase {
    pub(super) fn of(qname: &[u8]) -> Self {
        let mut words = [0; 4];
        for (word, octets) in words.iter_mut().zip(qname.chunks(64)) {
            // Nearly always there is none. This check takes many bytes at a time.
            if octets.iter().fold(false, |has_any, octet| has_any | octet.is_ascii_uppercase()) {
                for (bit, octet) in octets.iter().enumerate() {
                    *word |= u64::from(octet.is_ascii_uppercase()) << bit;
                }
            }
        }
        Self(words)
    }

    pub(super) fn apply(&self, qname: &mut [u8]) {
        qname.make_ascii_lowercase();
        for (&word, octets) in self.0.iter().zip(qname.chunks_mut(64)) {
            // Nearly always there is none, so only set bits are visited.
            let mut left = word;
            while let Some(octet) = octets.get_mut(left.trailing_zeros() as usize) {
                octet.make_ascii_uppercase();
                left &= left.wrapping_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::name::fold;
    use super::*;

    #[test]
    fn letters_alone_have_a_case() {
        let check = |name: &[u8], bits: u64, expected: &[u8]| {
            let mut cased = name.to_vec();
            set_case(&mut cased, bits);
            assert_eq!(cased, expected);
            assert!(has_case(&cased, bits));
        };
        check(b"\x03www\x02Ex\0", 0, b"\x03www\x02ex\0");
        check(b"\x03www\x02Ex\0", u64::MAX, b"\x03WWW\x02EX\0");
        check(b"\x03www\x02Ex\0", 0b0010_0100, b"\x03wWw\x02Ex\0");
        check(b"\x05a1-_@\0", u64::MAX, b"\x05A1-_@\0");
        check(b"\0", u64::MAX, b"\0");
        assert!(!has_case(b"\x03www\x02Ex\0", 0));
    }

    proptest! {
        #[test]
        fn every_letter_counts(name in prop::collection::vec(any::<u8>(), 0..=255), bits: u64, at: prop::sample::Index) {
            let mut cased = name.clone();
            set_case(&mut cased, bits);
            prop_assert!(cased.eq_ignore_ascii_case(&name));
            prop_assert!(has_case(&cased, bits));
            let letters: Vec<_> = (0..cased.len()).filter(|at| cased[*at].is_ascii_alphabetic()).collect();
            if !letters.is_empty() {
                cased[letters[at.index(letters.len())]] ^= CASE_BIT;
                prop_assert!(!has_case(&cased, bits));
            }
        }

        #[test]
        fn case_survives_folding_and_capitals(name in prop::collection::vec(any::<u8>(), 0..=255)) {
            let case = QnameCase::of(&name);
            let mut folded = name.clone();
            fold(&mut folded);
            case.apply(&mut folded);
            prop_assert_eq!(&folded, &name);
            let mut upper = name.to_ascii_uppercase();
            case.apply(&mut upper);
            prop_assert_eq!(&upper, &name);
        }
    }
}
