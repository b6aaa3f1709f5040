//! A browser, and the API behind the page that it shows.

pub mod browser;
pub mod stand_in;
