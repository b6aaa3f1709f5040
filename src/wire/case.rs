//! QNAME case. DNS 0x20: the case of a question's name as bits that a forger has to guess besides ID and port
//! (draft-vixie-dnsext-dns0x20 section 3). Names are compared whatever their case, but servers repeat the question as it stands.

/// Sets the case of a name in wire form by these bits: the letter at octet `n` is a capital if bit `n` modulo 64 is set.
///
/// Who draws 64 bits at random leaves a forger less hope than any ID and port do, so longer names go through them again.
pub fn set_case(qname: &mut [u8], bits: u64) {
    for (octet, bit) in qname.iter_mut().zip(cycle(bits)) {
        // Length octets are below 64, so none is a letter.
        if octet.is_ascii_alphabetic() {
            *octet = *octet & !CASE_BIT | if bit { 0 } else { CASE_BIT };
        }
    }
}

/// Whether the case of a name is that of these bits, letter by letter.
pub fn has_case(qname: &[u8], bits: u64) -> bool {
    let mut letters = qname.iter().zip(cycle(bits)).filter(|(octet, _)| octet.is_ascii_alphabetic());
    letters.all(|(octet, bit)| octet.is_ascii_uppercase() == bit)
}

/// The bits, lowest first, over and over.
fn cycle(bits: u64) -> impl Iterator<Item = bool> {
    (0..u64::BITS).cycle().map(move |bit| bits >> bit & 1 == 1)
}

/// What a small letter has and its capital has not: 0x20.
const CASE_BIT: u8 = 0x20;

/// The case of a QNAME: which octets are upper-case letters. That is all that is lost when a name is folded.
///
/// A client may have chosen it at random (DNS 0x20) to tell forged responses from true ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QnameCase([u64; 4]);

impl QnameCase {
    /// The case of a name, which has at most 255 octets.
    pub(super) fn of(qname: &[u8]) -> Self {
        let mut words = [0; 4];
        for (word, octets) in words.iter_mut().zip(qname.chunks(64)) {
            for (bit, octet) in octets.iter().enumerate() {
                *word |= u64::from(octet.is_ascii_uppercase()) << bit;
            }
        }
        Self(words)
    }

    /// Gives the same name, in whatever case it is now, this case.
    pub(super) fn apply(&self, qname: &mut [u8]) {
        qname.make_ascii_lowercase();
        for (&word, octets) in self.0.iter().zip(qname.chunks_mut(64)) {
            // Nearly always there is none: only the bits that are set are looked at.
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
