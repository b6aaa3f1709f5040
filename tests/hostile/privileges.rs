//! The process gives up what it does not need.
