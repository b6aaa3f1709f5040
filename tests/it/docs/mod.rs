//! The documents of the repository, held to what is true: every link leads somewhere, every TOML block is a
//! config, every transcript is typed again, the reference of the configuration is made from `config.toml` and
//! from what the reader of configs says, and the metrics are those that a running server shows.

mod configuration;
mod links;
mod markdown;
mod metrics;
mod names;
mod readme;
mod toml_blocks;
mod transcripts;

pub(crate) use markdown::{Document, top};
pub(crate) use toml_blocks::completed_fragment;
