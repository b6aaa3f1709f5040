//! stub: borders that other rooms rely on. Replaced by the wire helper.

/// A domain name in uncompressed wire form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(Vec<u8>);

/// A record type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordType(pub u16);
