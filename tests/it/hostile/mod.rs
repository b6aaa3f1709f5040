//! Tests of a hostile network: claims without proof are not believed, and no client can use up the server.
//! Each promise of SECURITY.md has its test here, and so has each finding of the audit that the promises come
//! from.

mod backend_cookies;
mod chaos;
mod clients;
mod connections;
mod control;
mod cookies;
mod fetches;
mod forgery;
mod mutations;
mod overload;
mod plane;
mod privileges;
mod shortage;
mod unreachable;
#[cfg(feature = "faults")]
mod workers;
mod zones;
