//! The ZONEVERSION option (RFC 9660): the zone of an answer and its version.

use crate::zone::Zone;
use dns::{Edns, OptionCode, Query, suffixes};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionAsked {
    No,
    /// An empty option, which asks for the version (RFC 9660 section 3.1).
    Yes,
    /// An option with data, which is valid only in responses (RFC 9660 section 2.1).
    Malformed,
}

impl VersionAsked {
    #[inline]
    pub(crate) fn by(query: &Query<'_>) -> Self {
        match &query.edns {
            Some(edns) if !edns.options.is_empty() => Self::among(edns),
            Some(_) | None => Self::No,
        }
    }

    #[inline(never)]
    fn among(edns: &Edns<'_>) -> Self {
        let mut options = edns.iter_options().filter(|(code, _)| *code == OptionCode::ZONEVERSION);
        match options.next() {
            None => Self::No,
            // RFC 9660 section 3.1 forbids a second option. Two empty ones are harmless.
            Some((_, data)) if data.is_empty() && options.all(|(_, data)| data.is_empty()) => Self::Yes,
            Some(_) => Self::Malformed,
        }
    }
}

/// The option data: the label count of the zone name, the version type, and the SOA serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ZoneVersion([u8; Self::LEN]);

impl ZoneVersion {
    pub(crate) const LEN: usize = 6;

    pub(crate) fn of(zone: &Zone) -> Self {
        // RFC 9660 section 2.1: the root label does not count. A name has at most 127 labels.
        let labels = suffixes(zone.apex().as_wire()).filter(|suffix| suffix.len() > 1).count() as u8;
        let [s0, s1, s2, s3] = zone.serial().to_be_bytes();
        Self([labels, SOA_SERIAL, s0, s1, s2, s3])
    }

    pub(crate) fn as_octets(&self) -> &[u8] {
        &self.0
    }
}

/// The version type for SOA serial numbers (RFC 9660 section 2.1.1).
const SOA_SERIAL: u8 = 0;
