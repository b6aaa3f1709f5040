//! DNS 0x20: the case of a question's name as bits that a forger has to guess besides ID and port
//! (draft-vixie-dnsext-dns0x20 section 3). Names are compared whatever their case, but servers repeat the question as it stands.

/// Spells a name in wire form by these bits: the letter at octet `n` is a capital if bit `n` modulo 64 is set.
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

/// Whether a name is spelled by these bits, letter by letter.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn letters_alone_are_spelled() {
        let check = |name: &[u8], bits: u64, expected: &[u8]| {
            let mut spelled = name.to_vec();
            set_case(&mut spelled, bits);
            assert_eq!(spelled, expected);
            assert!(has_case(&spelled, bits));
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
            let mut spelled = name.clone();
            set_case(&mut spelled, bits);
            prop_assert!(spelled.eq_ignore_ascii_case(&name));
            prop_assert!(has_case(&spelled, bits));
            let letters: Vec<_> = (0..spelled.len()).filter(|at| spelled[*at].is_ascii_alphabetic()).collect();
            if !letters.is_empty() {
                spelled[letters[at.index(letters.len())]] ^= CASE_BIT;
                prop_assert!(!has_case(&spelled, bits));
            }
        }
    }
}
