//! The message header of 12 bytes (RFC 1035 section 4.1.1): ID, flags, opcode, rcode, counts.

use super::codes::{Opcode, Rcode};

/// Length of a header in bytes.
pub const HEADER_LEN: usize = 12;

/// A header, read or to be written. Unassigned bits are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    id: u16,
    bits: u16,
    counts: [u16; 4],
}

impl Header {
    /// Makes an empty query with this ID and all else zero.
    pub fn new(id: u16) -> Self {
        Self { id, ..Self::default() }
    }

    /// Reads the header of a message; `None` if the message is shorter than one.
    pub fn read(message: &[u8]) -> Option<Self> {
        let &[i0, i1, b0, b1, q0, q1, a0, a1, n0, n1, r0, r1] = message.first_chunk()?;
        Some(Self {
            id: u16::from_be_bytes([i0, i1]),
            bits: u16::from_be_bytes([b0, b1]),
            counts: [[q0, q1], [a0, a1], [n0, n1], [r0, r1]].map(u16::from_be_bytes),
        })
    }

    /// Returns the wire form.
    pub fn to_wire(self) -> [u8; HEADER_LEN] {
        let [i0, i1] = self.id.to_be_bytes();
        let [b0, b1] = self.bits.to_be_bytes();
        let [[q0, q1], [a0, a1], [n0, n1], [r0, r1]] = self.counts.map(u16::to_be_bytes);
        [i0, i1, b0, b1, q0, q1, a0, a1, n0, n1, r0, r1]
    }

    /// Returns the header of a response to this query: its ID, opcode, RD and CD, QR set, all else zero. RD
    /// and CD are not copied for opcodes other than QUERY, where they have no known meaning.
    ///
    /// RFC 1035 section 4.1.1: RD is copied. RFC 4035 section 3.2.2: a resolver copies CD. Deviation: RFC
    /// 4035 section 3.1.6 has an authority clear it, but a copy is harmless and needs no second rule.
    pub fn to_response(self) -> Self {
        let is_query = self.opcode() == Opcode::QUERY;
        Self::new(self.id)
            .with(Flag::Response, true)
            .with_opcode(self.opcode())
            .with(Flag::RecursionDesired, is_query && self.recursion_desired())
            .with(Flag::CheckingDisabled, is_query && self.checking_disabled())
    }

    /// The message ID.
    pub fn id(self) -> u16 {
        self.id
    }

    /// Returns true if QR is set, as in a reply or response.
    pub fn is_response(self) -> bool {
        self.has(Flag::Response)
    }

    /// Returns the opcode.
    pub fn opcode(self) -> Opcode {
        Opcode((self.bits >> OPCODE_SHIFT) as u8 & 0x0F)
    }

    /// Returns true if AA is set.
    pub fn is_authoritative(self) -> bool {
        self.has(Flag::Authoritative)
    }

    /// Returns true if TC is set.
    pub fn is_truncated(self) -> bool {
        self.has(Flag::Truncated)
    }

    /// Returns true if RD is set.
    pub fn recursion_desired(self) -> bool {
        self.has(Flag::RecursionDesired)
    }

    /// Returns true if RA is set.
    pub fn recursion_available(self) -> bool {
        self.has(Flag::RecursionAvailable)
    }

    /// Returns true if AD is set.
    pub fn authentic_data(self) -> bool {
        self.has(Flag::AuthenticData)
    }

    /// Returns true if CD is set.
    pub fn checking_disabled(self) -> bool {
        self.has(Flag::CheckingDisabled)
    }

    /// The low 4 bits of the rcode; the rest, if any, is in the OPT record.
    pub fn rcode(self) -> Rcode {
        Rcode(self.bits & Rcode::MAX_IN_HEADER)
    }

    /// Number of questions claimed.
    pub fn qdcount(self) -> u16 {
        self.counts[0]
    }

    /// Number of answer records claimed.
    pub fn ancount(self) -> u16 {
        self.counts[1]
    }

    /// Number of authority records claimed.
    pub fn nscount(self) -> u16 {
        self.counts[2]
    }

    /// Number of additional records claimed, OPT among them.
    pub fn arcount(self) -> u16 {
        self.counts[3]
    }

    /// Returns true if the flag is set.
    pub fn has(self, flag: Flag) -> bool {
        self.bits & flag as u16 != 0
    }

    /// Sets the ID.
    pub fn with_id(self, id: u16) -> Self {
        Self { id, ..self }
    }

    /// Sets or clears a flag.
    pub fn with(self, flag: Flag, set: bool) -> Self {
        let cleared = self.bits & !(flag as u16);
        let bits = if set { cleared | flag as u16 } else { cleared };
        Self { bits, ..self }
    }

    /// Sets the opcode.
    pub fn with_opcode(self, opcode: Opcode) -> Self {
        let bits = self.bits & !(0x0F << OPCODE_SHIFT) | u16::from(opcode.0 & 0x0F) << OPCODE_SHIFT;
        Self { bits, ..self }
    }

    /// Sets the low 4 bits of the rcode.
    pub fn with_rcode(self, rcode: Rcode) -> Self {
        let bits = self.bits & !Rcode::MAX_IN_HEADER | rcode.0 & Rcode::MAX_IN_HEADER;
        Self { bits, ..self }
    }

    /// Sets the counts: questions, answers, authority, additional.
    pub fn with_counts(self, counts: [u16; 4]) -> Self {
        Self { counts, ..self }
    }

    pub(super) fn overwrite(self, message: &mut [u8]) {
        if let Some(octets) = message.first_chunk_mut() {
            *octets = self.to_wire();
        }
    }
}

/// A flag of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Flag {
    /// QR: a reply or response, not a query.
    Response = 0x8000,
    /// AA: from an authority for the name.
    Authoritative = 0x0400,
    /// TC: a part of the answer did not fit.
    Truncated = 0x0200,
    /// RD: the client wants recursion.
    RecursionDesired = 0x0100,
    /// RA: the server offers recursion.
    RecursionAvailable = 0x0080,
    /// AD: the data was validated (RFC 4035 section 3.2.3).
    AuthenticData = 0x0020,
    /// CD: the client validates by itself (RFC 4035 section 3.2.2).
    CheckingDisabled = 0x0010,
}

/// Changes the header of a message in place.
pub fn rewrite_header(message: &mut [u8], change: impl FnOnce(Header) -> Header) {
    if let Some(header) = Header::read(message) {
        change(header).overwrite(message);
    }
}

/// Sets the ID of a message. A message shorter than a header stays unchanged.
pub fn set_id(message: &mut [u8], id: u16) {
    if message.len() < HEADER_LEN {
        return;
    }
    if let Some(octets) = message.first_chunk_mut() {
        *octets = id.to_be_bytes();
    }
}

/// Sets AD in a query, which asks for AD in the reply (RFC 6840 section 5.7).
pub fn ask_authentic(query: &mut [u8]) {
    if let Some(flags) = query.get_mut(3) {
        *flags |= Flag::AuthenticData as u8;
    }
}

const OPCODE_SHIFT: u32 = 11;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_flag_has_its_bit() {
        let check = |bits: u16, is: fn(Header) -> bool, flag: Flag| {
            let only = Header { bits, ..Header::new(7) };
            let others = Header { bits: !bits, ..Header::new(7) };
            assert!(is(only) && !is(others), "{flag:?}");
            assert_eq!(Header::new(7).with(flag, true), only);
            assert_eq!(others.with(flag, true).with(flag, false), others);
        };
        check(0x8000, Header::is_response, Flag::Response);
        check(0x0400, Header::is_authoritative, Flag::Authoritative);
        check(0x0200, Header::is_truncated, Flag::Truncated);
        check(0x0100, Header::recursion_desired, Flag::RecursionDesired);
        check(0x0080, Header::recursion_available, Flag::RecursionAvailable);
        check(0x0020, Header::authentic_data, Flag::AuthenticData);
        check(0x0010, Header::checking_disabled, Flag::CheckingDisabled);
    }

    #[test]
    fn opcode_and_rcode_leave_the_flags_alone() {
        let header = Header { bits: 0xFFFF, ..Header::new(1) };
        assert_eq!(header.opcode(), Opcode(15));
        assert_eq!(header.with_opcode(Opcode::NOTIFY).bits, 0xA7FF);
        assert_eq!(header.with_rcode(Rcode::NXDOMAIN).bits, 0xFFF3);
        // Only the low bits of BADVERS fit.
        assert_eq!(header.with_rcode(Rcode::BADVERS).rcode(), Rcode::NOERROR);
    }

    #[test]
    fn a_response_takes_id_opcode_rd_and_cd_from_its_query() {
        let check = |query, response| {
            let query = Header { id: 9, bits: query, counts: [1, 2, 3, 4] };
            assert_eq!(query.to_response(), Header { id: 9, bits: response, counts: [0; 4] });
        };
        check(0x07FF, 0x8110);
        // Of opcodes other than QUERY no flag is copied.
        check(0x7FFF, 0xF800);
    }

    #[test]
    fn ids_are_set_in_place() {
        let check = |len: usize, expected: &[u8]| {
            let mut message = vec![0; len];
            set_id(&mut message, 0xABCD);
            assert!(message.starts_with(expected), "{len}");
        };
        check(12, &[0xAB, 0xCD, 0]);
        check(600, &[0xAB, 0xCD, 0]);
        check(11, &[0, 0]);
        check(0, &[]);
    }

    proptest! {
        #[test]
        fn what_is_read_is_written(octets: [u8; HEADER_LEN]) {
            let header = Header::read(&octets).expect("long enough");
            prop_assert_eq!(header.to_wire(), octets);
            prop_assert_eq!(Header::read(&octets[..HEADER_LEN - 1]), None);
        }
    }
}
