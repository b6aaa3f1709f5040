//! Tests of the TOML in documents. A block is a whole config, or a `fragment` of one, which is completed here
//! before it is read as `hedgerow check` reads it. A block that is `wrong` shows the problems that are
//! reported, and must have them.

use std::path::Path;

use config::Config;
use toml::{Table, Value};

use super::markdown::Document;

/// The surroundings of a fragment: a forwarder, a pool and an authority with the names that the fragments
/// use.
const AROUND: &str = r#"
[forwarder]
[forwarder.routes]
"." = "ts"
[pools.ts]
backends = ["127.0.0.1:5301"]
[authorities.ts1]
listen = ["127.0.0.1:5301"]
zones = ["zones/ts1.txt"]
[keys.replica]
secret_file = "replica.key"
"#;

#[test]
fn toml_blocks_are_configs() {
    let mut count = 0;
    for document in Document::all() {
        for block in document.blocks().iter().filter(|block| block.has("toml")) {
            let text = if block.has("fragment") { completed_fragment(&block.text) } else { block.text.clone() };
            let read = Config::parse(&text, "config.toml", Path::new("/etc/hedgerow"));
            match read {
                Ok(_) => assert!(!block.has("wrong"), "{}:{}: nothing is wrong with it", document.path, block.line),
                Err(problems) => assert!(block.has("wrong"), "{}:{}:\n{problems}", document.path, block.line),
            }
            count += 1;
        }
    }
    assert!(count >= 8, "{count} blocks were found");
}

/// A fragment as a whole config.
pub(crate) fn completed_fragment(fragment: &str) -> String {
    completed(AROUND, fragment)
}

/// A config with what a fragment says put into it.
pub(crate) fn completed(around: &str, fragment: &str) -> String {
    let parse = |text: &str| text.parse::<Table>().unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut whole = parse(around);
    merge(&mut whole, parse(fragment));
    toml::to_string(&whole).expect("a table can be written")
}

/// Puts one table into another, section by section.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
