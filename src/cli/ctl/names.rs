//! `hedgerow ctl names`: the most frequent names of the last ten minutes, the clients with the most queries,
//! and the names with most SERVFAIL.

use super::table::TextTable;
use crate::control::observe::sight::names::{NameCount, NamesReport};

pub(super) fn text(NamesReport { names, servfail, clients }: &NamesReport) -> String {
    let failed = match servfail.as_slice() {
        [] => "no SERVFAIL".to_owned(),
        servfail => format!("SERVFAIL\n{}", list(servfail)),
    };
    let clients = TextTable::of(clients)
        .right("QUERIES", |count| count.queries)
        .right("ERROR", |count| count.error)
        .left("CLIENT", |count| count.client)
        .text();
    format!("{}\n\n{clients}\n\n{failed}", list(names))
}

fn list(names: &[NameCount]) -> String {
    TextTable::of(names)
        .right("QUERIES", |count| count.queries)
        .right("ERROR", |count| count.error)
        .left("TYPE", |count| &count.qtype)
        .left("NAME", |count| &count.name)
        .text()
}

#[cfg(test)]
mod tests;
