//! `hedgerow ctl names`: the most frequent names of the last ten minutes, and those with most SERVFAIL.

use comfy_table::CellAlignment;

use super::connection::AdminConnection;
use super::table::{Column, table};
use super::{CommandFailure, Show, to_json};
use crate::sight::names::{NameCount, NamesReport};

pub(super) fn obey(connection: &AdminConnection, show: &Show) -> Result<String, CommandFailure> {
    let names: NamesReport = connection.fetch_with("names", &[])?;
    Ok(if show.json { to_json(&names) } else { text(&names) })
}

fn text(names: &NamesReport) -> String {
    let NamesReport { names, servfail } = names;
    let failed = match servfail.as_slice() {
        [] => "no SERVFAIL".to_owned(),
        servfail => format!("SERVFAIL\n{}", table(&COLUMNS, servfail.iter().map(row))),
    };
    format!("{}\n\n{failed}", table(&COLUMNS, names.iter().map(row)))
}

const COLUMNS: [Column; 4] = [
    ("QUERIES", CellAlignment::Right),
    ("ERROR", CellAlignment::Right),
    ("TYPE", CellAlignment::Left),
    ("NAME", CellAlignment::Left),
];

fn row(count: &NameCount) -> Vec<String> {
    let NameCount { name, qtype, queries, error } = count;
    vec![queries.to_string(), error.to_string(), qtype.clone(), name.clone()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_two_tables() {
        let count =
            |name: &str, queries| NameCount { name: name.to_owned(), qtype: "A".to_owned(), queries, error: 16 };
        let mut names =
            NamesReport { names: vec![count("a.example.", 1600), count("b.example.", 48)], servfail: vec![] };
        let expected = "\
QUERIES  ERROR  TYPE  NAME
   1600     16  A     a.example.
     48     16  A     b.example.

no SERVFAIL";
        assert_eq!(text(&names), expected);
        names.servfail = vec![count("c.example.", 16)];
        assert!(text(&names).ends_with("\n\nSERVFAIL\nQUERIES  ERROR  TYPE  NAME\n     16     16  A     c.example."));
    }
}
