//! `[authorities.*]`: the TS that this process runs itself.

use std::net::SocketAddr;
use std::path::Path;

use super::forwarder::read_listen;
use super::section::{Node, Section, Spot, note_repeats};
use super::{AuthorityConfig, ZoneSource, words};
use crate::zone::Miss;

/// An example of what `zones` takes.
const ZONES_EXAMPLE: &str = "[\"zones/ts1.txt\"]";

/// Reads `[authorities.NAME]`. Zone files are relative to `folder`; each listener goes to `listeners`.
pub(super) fn read<'d>(
    name: &str,
    mut section: Section<'d>,
    folder: &Path,
    listeners: &mut Vec<(SocketAddr, Spot<'d>)>,
) -> AuthorityConfig {
    let listen = section.require("listen", "[\"127.0.0.1:5301\"]");
    let zones = section.require("zones", ZONES_EXAMPLE);
    let authority = AuthorityConfig {
        name: name.to_owned(),
        listen: listen
            .map(|node| read_listen(&node, listeners))
            .unwrap_or_default(),
        zones: zones
            .map(|node| read_zones(&node, folder))
            .unwrap_or_default(),
        miss: section.parsed("miss", words::miss, AuthorityConfig::MISS),
        ttl: section.parsed("ttl", words::ttl, AuthorityConfig::TTL),
    };
    section.finish();
    authority
}

/// Reads `zones`: at least one, none twice.
fn read_zones<'d>(node: &Node<'d>, folder: &Path) -> Vec<ZoneSource> {
    let read = |item: Node<'d>| Some((folder.join(read_file(&item)?), item.spot));
    let files: Vec<_> = node
        .items(ZONES_EXAMPLE)
        .into_iter()
        .filter_map(read)
        .collect();
    note_repeats(files.iter().cloned(), |file| {
        format!("{} is loaded", file.display())
    });
    files
        .into_iter()
        .map(|(file, _)| ZoneSource { file })
        .collect()
}

/// Reads one zone: a file name, or a table with one.
fn read_file(item: &Node<'_>) -> Option<String> {
    let Some(mut section) = item.table() else {
        return item.parsed(words::file_name);
    };
    let file = section.require("file", "\"zones/ts1.txt\"");
    section.finish();
    file?.parsed(words::file_name)
}
