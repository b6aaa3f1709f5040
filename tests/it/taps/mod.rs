//! Taps: what is written of queries while they are served, and that nothing is ever waited for.

mod disk;
mod dnstap;
mod query_log;
