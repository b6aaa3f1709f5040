//! `hedgerow ctl members`: the sources of members, their rejected entries, and the members of pools.

use comfy_table::CellAlignment;
use serde::Serialize;

use super::connection::AdminConnection;
use super::table::{Column, table, time};
use super::{CommandFailure, to_json};
use crate::admin::status::{BackendOrder, BackendStatus, PoolStatus, SourceStatus, Status};
use crate::config::nearest;

#[derive(Debug, clap::Args)]
pub(super) struct MembersArgs {
    /// Name of the pool [default: all]
    pool: Option<String>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct PoolMembers<'a> {
    pool: &'a str,
    sources: &'a [SourceStatus],
    members: Vec<MemberJson<'a>>,
}

#[derive(Serialize)]
struct MemberJson<'a> {
    name: &'a str,
    address: String,
    weight: u16,
    state: &'a str,
    origin: Vec<&'static str>,
    listed: bool,
    order: Option<&'a BackendOrder>,
}

pub(super) fn obey(connection: &AdminConnection, which: &MembersArgs) -> Result<String, CommandFailure> {
    let Status { pools, .. } = connection.status()?;
    let pools: Vec<_> = pools.iter().filter(|pool| which.pool.as_ref().is_none_or(|name| *name == pool.name)).collect();
    if let (Some(name), []) = (&which.pool, &*pools) {
        let Status { pools, .. } = connection.status()?;
        let meant = nearest(name, pools.iter().map(|pool| pool.name.as_str()));
        let remedy = meant.map(|meant| format!(", did you mean {meant:?}?")).unwrap_or_default();
        return Err(CommandFailure::Server(format!("there is no pool {name:?}{remedy}")));
    }
    Ok(if which.json { to_json(&pools.iter().map(|pool| in_json(pool)).collect::<Vec<_>>()) } else { text(&pools) })
}

fn in_json(pool: &PoolStatus) -> PoolMembers<'_> {
    let members = pool.backends.iter().map(|backend| MemberJson {
        name: &backend.name,
        address: backend.address.to_string(),
        weight: backend.weight,
        state: &backend.state,
        origin: backend.origin.iter().map(|origin| origin.label()).collect(),
        listed: backend.listed,
        order: backend.order.as_ref(),
    });
    let members = members.collect();
    PoolMembers { pool: &pool.name, sources: &pool.sources, members }
}

fn text(pools: &[&PoolStatus]) -> String {
    let sources = || pools.iter().flat_map(|pool| pool.sources.iter().map(|source| (&pool.name, source)));
    let mut parts = Vec::new();
    if sources().next().is_some() {
        parts.push(table(&SOURCE_COLUMNS, sources().map(|(pool, source)| source_row(pool, source))));
    }
    let failures = sources().filter_map(|(pool, source)| {
        let failure = source.failure.as_ref()?;
        Some(format!("{pool}: {}: {failure}", source.source))
    });
    let failures: Vec<_> = failures.collect();
    if !failures.is_empty() {
        parts.push(format!("cannot be asked:\n{}", failures.join("\n")));
    }
    let refused = sources().flat_map(|(pool, source)| {
        source.refused.iter().map(move |refused| {
            vec![pool.clone(), source.kind.label().to_owned(), refused.entry.clone(), refused.reason.clone()]
        })
    });
    let refused: Vec<_> = refused.collect();
    if !refused.is_empty() {
        parts.push(format!("refused:\n{}", table(&REFUSED_COLUMNS, refused.into_iter())));
    }
    let members = pools.iter().flat_map(|pool| pool.backends.iter().map(|backend| member_row(&pool.name, backend)));
    parts.push(table(&MEMBER_COLUMNS, members));
    parts.join("\n\n")
}

const SOURCE_COLUMNS: [Column; 6] = [
    ("POOL", CellAlignment::Left),
    ("SOURCE", CellAlignment::Left),
    ("STATE", CellAlignment::Left),
    ("AGE", CellAlignment::Left),
    ("MEMBERS", CellAlignment::Right),
    ("REFUSED", CellAlignment::Right),
];

fn source_row(pool: &str, source: &SourceStatus) -> Vec<String> {
    let age = source.age_seconds.map_or_else(|| "-".to_owned(), |age| time(age as u64));
    vec![
        pool.to_owned(),
        source.source.clone(),
        source.state.label().to_owned(),
        age,
        source.members.to_string(),
        source.refused_count.to_string(),
    ]
}

const REFUSED_COLUMNS: [Column; 4] = [
    ("POOL", CellAlignment::Left),
    ("SOURCE", CellAlignment::Left),
    ("ENTRY", CellAlignment::Left),
    ("REASON", CellAlignment::Left),
];

const MEMBER_COLUMNS: [Column; 7] = [
    ("POOL", CellAlignment::Left),
    ("MEMBER", CellAlignment::Left),
    ("ADDRESS", CellAlignment::Left),
    ("WEIGHT", CellAlignment::Right),
    ("STATE", CellAlignment::Left),
    ("ORIGIN", CellAlignment::Left),
    ("ORDER", CellAlignment::Left),
];

fn member_row(pool: &str, backend: &BackendStatus) -> Vec<String> {
    let is_of_source = backend.origin.iter().any(|origin| origin.is_source());
    let origin: Vec<_> = backend.origin.iter().map(|origin| origin.label()).collect();
    let held = if is_of_source && !backend.listed { " (not listed any more)" } else { "" };
    let order = backend.order.as_ref().map(|order| {
        let until = order.until.as_ref().map(|until| format!(", until {until}")).unwrap_or_default();
        format!("{} by {} at {}{until}", order.order.label(), order.by, order.at)
    });
    vec![
        pool.to_owned(),
        backend.name.clone(),
        backend.address.to_string(),
        backend.weight.to_string(),
        backend.state.clone(),
        format!("{}{held}", origin.join(", ")),
        order.unwrap_or_else(|| "-".to_owned()),
    ]
}
