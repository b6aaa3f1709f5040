//! All small inputs of the wire format, one after the other: where random tests may miss a border, these
//! cannot. Each test says how far it goes.

use dns::{
    Flag, HEADER_LEN, Header, Name, NameError, Opcode, OptionCode, QueryRejection, Rcode, TtlBounds, clamp_ttls,
    labels, least_ttl, read_query, suffixes,
};

/// Covers all 65,536 values of the second word of the header, with each flag, opcode and rcode written into
/// each of them (RFC 1035 section 4.1.1).
#[test]
fn each_field_of_the_header_has_its_own_bits() {
    let flags = [
        (Flag::Response, 15),
        (Flag::Authoritative, 10),
        (Flag::Truncated, 9),
        (Flag::RecursionDesired, 8),
        (Flag::RecursionAvailable, 7),
        (Flag::AuthenticData, 5),
        (Flag::CheckingDisabled, 4),
    ];
    for word in 0..=u16::MAX {
        let [high, low] = word.to_be_bytes();
        let wire = [0xAB, 0xCD, high, low, 0, 1, 2, 3, 4, 5, 6, 7];
        let header = Header::read(&wire).expect("twelve octets");
        assert_eq!(header.to_wire(), wire);
        assert_eq!((header.id(), header.opcode().0, header.rcode().0), (0xABCD, (high >> 3) & 15, word & 15));
        let word_of = |header: Header| u16::from_be_bytes([header.to_wire()[2], header.to_wire()[3]]);
        for (flag, bit) in flags {
            assert_eq!(header.has(flag), word >> bit & 1 == 1, "{word:#06x} {flag:?}");
            assert_eq!(word_of(header.with(flag, true)), word | 1 << bit);
            assert_eq!(word_of(header.with(flag, false)), word & !(1 << bit));
        }
        for value in 0..16_u8 {
            assert_eq!(word_of(header.with_opcode(Opcode(value))), word & !0x7800 | u16::from(value) << 11);
            assert_eq!(word_of(header.with_rcode(Rcode(value.into()))), word & !0x000F | u16::from(value));
        }
        // A response has the opcode, and only to QUERY (0) also RD and CD.
        let copied = if high >> 3 & 15 == 0 { word & 0x0110 } else { 0 };
        assert_eq!(word_of(header.to_response()), 0x8000 | word & 0x7800 | copied);
    }
    for len in 0..HEADER_LEN {
        assert_eq!(Header::read(&[0xFF; HEADER_LEN][..len]), None);
    }
}

/// Covers each string of up to six octets from those at which the format decides: the root, short labels,
/// the longest label, the first that is too long, reserved types, a pointer, and letters (RFC 1035
/// section 3.1).
#[test]
fn a_name_is_read_as_its_labels_say_or_refused() {
    let octets = [0, 1, 2, 4, 63, 64, 0x80, 0xC0, b'a', b'Z'];
    for len in 0..=6 {
        for wire in Strings::of(&octets, len) {
            let found = Name::from_wire(&wire);
            let expected = labels_of(&wire);
            let parts = found.as_ref().map(|name| name.labels().map(<[u8]>::to_vec).collect::<Vec<_>>());
            assert_eq!(parts.map_err(|error| *error), expected, "{wire:?}");
            let Ok(name) = found else { continue };
            assert_eq!(name.as_wire(), wire);
            assert_eq!(suffixes(&wire).count(), 1 + labels(&wire).count(), "{wire:?}");
            assert_eq!(name.to_string().parse::<Name>(), Ok(name.clone()), "{wire:?}");
            assert!(name.folded().as_wire().eq_ignore_ascii_case(&wire));
            assert!(name.parent().is_none_or(|parent| name.is_at_or_below(&parent)));
        }
    }
}

/// Covers each name of one to five labels of the lengths 1, 2, 61, 62 and 63: up to 321 octets, where 255 are
/// allowed (RFC 1035 section 2.3.4).
#[test]
fn a_name_has_up_to_255_octets() {
    for count in 1..=5 {
        for lengths in Strings::of(&[1, 2, 61, 62, 63], count) {
            let mut wire: Vec<u8> =
                lengths.iter().flat_map(|&len| [vec![len], vec![b'x'; usize::from(len)]].concat()).collect();
            wire.push(0);
            match Name::from_wire(&wire) {
                Ok(name) => assert!(wire.len() <= 255 && name.as_wire() == wire, "{lengths:?}"),
                Err(error) => assert!(wire.len() > 255 && error == NameError::TooLong, "{lengths:?}"),
            }
        }
    }
}

/// Returns the labels of a name in wire form, or the first thing that is wrong with it.
fn labels_of(wire: &[u8]) -> Result<Vec<Vec<u8>>, NameError> {
    let mut labels = Vec::new();
    let mut rest = wire;
    loop {
        match rest.split_first() {
            None => return Err(NameError::CutShort),
            Some((0, [])) => return Ok(labels),
            Some((0, _)) => return Err(NameError::OctetsLeft),
            Some((64.., _)) => return Err(NameError::NotALabel),
            Some((&len, behind)) if behind.len() < usize::from(len) => return Err(NameError::CutShort),
            Some((&len, behind)) => {
                let (label, behind) = behind.split_at(len.into());
                labels.push(label.to_vec());
                rest = behind;
            }
        }
    }
}

/// Covers the data of an OPT record in a query: each string of up to seven octets from lengths of options,
/// the codes of a cookie (10) and of padding (12), and one other octet (RFC 6891 section 6.1.2).
#[test]
fn options_fit_into_their_record_or_the_query_is_malformed() {
    for len in 0..=7 {
        for rdata in Strings::of(&[0, 1, 3, 10, 12, 0xFF], len) {
            let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1, b'a', 0, 0, 1, 0, 1];
            query.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, len as u8]);
            query.extend(&rdata);
            let found = read_query(&query);
            match options_of(&rdata) {
                Some(expected) => {
                    let edns = found.expect("a sound query").edns.expect("the record is there");
                    assert_eq!(edns.iter_options().collect::<Vec<_>>(), expected, "{rdata:?}");
                    assert_eq!((edns.udp_size, edns.version, edns.dnssec_ok), (1_232, 0, false));
                    // RFC 7873 section 4: a cookie has 8 octets, or 16 to 40.
                    assert_eq!(edns.cookie().is_err(), expected.iter().any(|(code, _)| *code == OptionCode::COOKIE));
                }
                None => assert_eq!(found.err(), Some(QueryRejection::Answer(Rcode::FORMERR)), "{rdata:?}"),
            }
        }
    }
}

/// Returns the options in this data, or `None` if one of them does not fit.
fn options_of(mut rest: &[u8]) -> Option<Vec<(OptionCode, &[u8])>> {
    let mut options = Vec::new();
    while !rest.is_empty() {
        let [code_high, code_low, len_high, len_low] = *rest.get(..4)?.first_chunk()?;
        let end = 4 + usize::from(u16::from_be_bytes([len_high, len_low]));
        options.push((OptionCode(u16::from_be_bytes([code_high, code_low])), rest.get(4..end)?));
        rest = &rest[end..];
    }
    Some(options)
}

/// Covers two TTLs of one RRset and both bounds at 0, 1, 2, 60, 86,400, and both sides of 2^31 and 2^32 (RFC
/// 2181 section 8).
#[test]
fn a_ttl_is_clamped_and_that_of_an_rrset_is_its_lowest() {
    let borders = [0, 1, 2, 60, 86_400, i32::MAX as u32 - 1, i32::MAX as u32, 1 << 31, u32::MAX - 1, u32::MAX];
    for [first, second, min, max] in borders.into_iter().flat_map(|first| {
        let others =
            move |second| borders.into_iter().flat_map(move |min| borders.map(|max| [first, second, min, max]));
        borders.into_iter().flat_map(others)
    }) {
        if min > max {
            continue;
        }
        let mut message = vec![0, 7, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
        for (ttl, last) in [(first, 1), (second, 2)] {
            message.extend([0xC0, 12, 0, 1, 0, 1]);
            message.extend(u32::to_be_bytes(ttl));
            message.extend([0, 4, 192, 0, 2, last]);
        }
        let clamped = |ttl: u32| match ttl {
            0 | 0x8000_0000.. => 0,
            ttl => ttl.max(min).min(max),
        };
        let expected = clamped(first).min(clamped(second));
        let bounds = TtlBounds { min, max, max_negative: None };
        assert_eq!(clamp_ttls(&mut message, bounds), Some(expected), "{first} {second} in {min} to {max}");
        let ttls = [&message[25..29], &message[41..45]].map(|ttl| u32::from_be_bytes(ttl.try_into().expect("four")));
        assert_eq!(ttls, [expected; 2], "{first} {second} in {min} to {max}");
        let kept = if expected > i32::MAX as u32 { 0 } else { expected };
        assert_eq!(least_ttl(&message), Some(kept));
    }
}

/// All strings of this length over some octets.
struct Strings<'a> {
    octets: &'a [u8],
    len: u32,
    next: usize,
}

impl<'a> Strings<'a> {
    fn of(octets: &'a [u8], len: u32) -> Self {
        Self { octets, len, next: 0 }
    }
}

impl Iterator for Strings<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut rest = (self.next < self.octets.len().pow(self.len)).then_some(self.next)?;
        self.next += 1;
        let mut take = || {
            let octet = self.octets[rest % self.octets.len()];
            rest /= self.octets.len();
            octet
        };
        Some((0..self.len).map(|_| take()).collect())
    }
}
