//! The ZONEVERSION option (RFC 9660): which version of which zone an answer comes from, told together with the answer.

use crate::wire::{Edns, OptionCode, Query, suffixes};
use crate::zone::zone::Zone;

/// Whether a query asks for the version of the zone that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::zone) enum VersionAsked {
    No,
    /// By an empty option (RFC 9660 section 3.1).
    Yes,
    /// By an option with data, which only a response has (RFC 9660 section 2.1). The query is broken.
    Malformed,
}

impl VersionAsked {
    /// Looks for the option. Nearly all queries have no options at all.
    #[inline]
    pub(in crate::zone) fn by(query: &Query<'_>) -> Self {
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
            // RFC 9660 section 3.1 forbids clients a second one. Two empty ones ask for the same.
            Some((_, data)) if data.is_empty() && options.all(|(_, data)| data.is_empty()) => Self::Yes,
            Some(_) => Self::Malformed,
        }
    }
}

/// What the option says of a zone: the number of labels of its name, the type of the version, the serial number of the SOA record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::zone) struct ZoneVersion([u8; Self::LEN]);

impl ZoneVersion {
    /// Octets of the data.
    pub(in crate::zone) const LEN: usize = 6;

    /// The version of a zone.
    pub(in crate::zone) fn of(zone: &Zone) -> Self {
        // RFC 9660 section 2.1: the root at the end of a name does not count. At most 127 labels fit into a name.
        let labels = suffixes(zone.apex().as_wire()).filter(|suffix| suffix.len() > 1).count() as u8;
        let [s0, s1, s2, s3] = zone.serial().to_be_bytes();
        Self([labels, SOA_SERIAL, s0, s1, s2, s3])
    }

    /// The data of the option.
    pub(in crate::zone) fn as_octets(&self) -> &[u8] {
        &self.0
    }
}

/// TYPE: the version is the serial number of the SOA record (RFC 9660 section 2.1.1).
const SOA_SERIAL: u8 = 0;
