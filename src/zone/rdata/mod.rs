//! RDATA between text and wire: the table of fields ([`RdataForm`](crate::wire::RdataForm)), driven in both directions.
//!
//! [`read`] turns the words of a master file into wire form, [`rdata_to_text`] turns that into text which reads back the
//! same. Whoever gives wire form himself (RFC 3597 section 5: `\# LENGTH HEX`) is checked against the table too. What is
//! longer than a line in either direction has a file of its own.

mod apl;
mod bitmap;
mod gateway;
mod location;
mod read;
mod svcb;
#[cfg(test)]
mod tests;
mod time;
mod write;

pub(super) use read::read;
pub use write::rdata_to_text;
