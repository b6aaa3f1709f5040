//! `hedgerow ctl members`: the sources of members, their rejected entries, and the members of pools.

use config::nearest;
use dns::address::BackendAddress;
use serde::Serialize;

use super::connection::AdminConnection;
use super::table::{TextTable, or_dash, time};
use super::{CommandFailure, Show};
use crate::admin::status::{BackendOrder, MemberOrigin, PoolStatus, SourceStatus};

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
    members: Vec<Member<'a>>,
}

#[derive(Serialize)]
struct Member<'a> {
    name: &'a str,
    address: BackendAddress,
    weight: u16,
    state: &'a str,
    origin: &'a [MemberOrigin],
    listed: bool,
    order: Option<&'a BackendOrder>,
}

pub(super) fn obey(connection: &AdminConnection, which: &MembersArgs) -> Result<String, CommandFailure> {
    let pools = connection.status()?.pools;
    let wanted = pools.iter().filter(|pool| which.pool.as_ref().is_none_or(|name| *name == pool.name));
    let wanted: Vec<_> = wanted.map(PoolMembers::of).collect();
    if let (Some(name), []) = (&which.pool, &*wanted) {
        let meant = nearest(name, pools.iter().map(|pool| pool.name.as_str()));
        let remedy = meant.map(|meant| format!(", did you mean {meant:?}?")).unwrap_or_default();
        return Err(CommandFailure::Server(format!("there is no pool {name:?}{remedy}")));
    }
    Ok(Show { json: which.json }.print(&wanted, |pools| text(pools)))
}

impl<'a> PoolMembers<'a> {
    fn of(pool: &'a PoolStatus) -> Self {
        let members = pool.backends.iter().map(|backend| Member {
            name: &backend.name,
            address: backend.address,
            weight: backend.weight,
            state: &backend.state,
            origin: &backend.membership.origin,
            listed: backend.membership.listed,
            order: backend.membership.order.as_ref(),
        });
        Self { pool: &pool.name, sources: &pool.sources, members: members.collect() }
    }
}

fn text(pools: &[PoolMembers<'_>]) -> String {
    let sources: Vec<_> = pools.iter().flat_map(|pool| pool.sources.iter().map(|source| (pool.pool, source))).collect();
    let mut parts = Vec::new();
    if !sources.is_empty() {
        parts.push(self::sources(&sources));
    }
    let failure = |(pool, source): &(&str, &SourceStatus)| {
        Some(format!("{pool}: {}: {}", source.source, source.failure.as_ref()?))
    };
    let failures: Vec<_> = sources.iter().filter_map(failure).collect();
    if !failures.is_empty() {
        parts.push(format!("cannot be asked:\n{}", failures.join("\n")));
    }
    if sources.iter().any(|(_, source)| !source.refused.is_empty()) {
        parts.push(format!("refused:\n{}", refused(&sources)));
    }
    parts.push(members(pools));
    parts.join("\n\n")
}

fn sources(sources: &[(&str, &SourceStatus)]) -> String {
    TextTable::of(sources)
        .left("POOL", |(pool, _)| pool)
        .left("SOURCE", |(_, source)| &source.source)
        .left("STATE", |(_, source)| source.state.label())
        .left("AGE", |(_, source)| or_dash(source.age_seconds.map(|age| time(age as u64))))
        .right("MEMBERS", |(_, source)| source.members)
        .right("REFUSED", |(_, source)| source.refused_count)
        .text()
}

fn refused(sources: &[(&str, &SourceStatus)]) -> String {
    let refused =
        sources.iter().flat_map(|(pool, source)| source.refused.iter().map(move |refused| (pool, source, refused)));
    TextTable::of(refused)
        .left("POOL", |(pool, ..)| **pool)
        .left("SOURCE", |(_, source, _)| source.kind.label())
        .left("ENTRY", |(.., refused)| &refused.entry)
        .left("REASON", |(.., refused)| &refused.reason)
        .text()
}

fn members(pools: &[PoolMembers<'_>]) -> String {
    let origin = |member: &Member<'_>| {
        let origins: Vec<_> = member.origin.iter().map(|origin| origin.label()).collect();
        let is_left = member.origin.iter().any(|origin| origin.is_source()) && !member.listed;
        format!("{}{}", origins.join(", "), if is_left { " (not listed any more)" } else { "" })
    };
    let order = |order: &BackendOrder| {
        let until = order.until.as_ref().map(|until| format!(", until {until}")).unwrap_or_default();
        format!("{} by {} at {}{until}", order.order.label(), order.by, order.at)
    };
    TextTable::of(pools.iter().flat_map(|pool| pool.members.iter().map(|member| (pool.pool, member))))
        .left("POOL", |(pool, _)| *pool)
        .left("MEMBER", |(_, member)| member.name)
        .left("ADDRESS", |(_, member)| member.address)
        .right("WEIGHT", |(_, member)| member.weight)
        .left("STATE", |(_, member)| member.state)
        .left("ORIGIN", |(_, member)| origin(member))
        .left("ORDER", |(_, member)| or_dash(member.order.map(order)))
        .text()
}
