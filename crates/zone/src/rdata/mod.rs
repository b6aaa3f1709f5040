//! RDATA between text and wire form, driven in both directions by one table of fields
//! ([`RdataForm`](dns::RdataForm)).
//!
//! [`read`] turns the words of a master file into wire form. [`rdata_to_text`] turns wire form into text that
//! reads back identically. Generic data (RFC 3597 section 5: `\# LENGTH HEX`) are checked against the table
//! too. Long formats have their own files.

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
