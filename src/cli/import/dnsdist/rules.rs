//! `query_rules` of dnsdist as rules of the forwarder, in the same order.

use std::net::IpAddr;

use config::words;
use toml::Value;

use super::super::draft::{self, DraftConfig, DraftRule, Taking, address, domain, table};
use super::super::yaml::Node;
use super::pool_name;

/// Adds one rule, which counts as one directive.
pub(super) fn add(rule: &Node, draft: &mut DraftConfig) {
    let name = rule.get("name").map_or("", Node::text);
    let directive = if name.is_empty() { "query_rules".to_owned() } else { format!("query_rules {name:?}") };
    let taking = take(rule, draft);
    draft.count(rule.line, &directive, taking);
}

fn take(rule: &Node, draft: &mut DraftConfig) -> Taking {
    let selector = rule.get("selector").ok_or("a rule needs a selector: add one")?;
    let action = rule.get("action").ok_or("a rule needs an action: add one")?;
    let unknown =
        rule.entries().iter().find(|(key, _)| !["name", "uuid", "selector", "action"].contains(&key.as_str()));
    if let Some((key, _)) = unknown {
        return Err(format!("unknown key {key} of a rule: correct it"));
    }
    let conditions = conditions(selector)?;
    let kind = action.get("type").map_or("", Node::text);
    let then = match kind {
        "Pool" => Value::from(format!("pool:{}", pool_name(action.get("pool_name").map_or("", Node::text)))),
        "RCode" => rcode(action.get("rcode").map_or("", Node::text))?.into(),
        "Drop" => "drop".into(),
        "Allow" => "routes".into(),
        "Spoof" | "SpoofIP" => {
            let ips: Result<Vec<IpAddr>, _> =
                action.get("ips").map(Node::texts).unwrap_or_default().into_iter().map(address).collect();
            table("addresses", draft::strings(&ips?))
        }
        "SpoofCNAME" => table("cname", domain(action.get("cname").map_or("", Node::text))?),
        _ => return Err(format!("hedgerow has no action {kind:?}: see docs/src/rules.md for what rules can do")),
    };
    if let Some(pool) = then.as_str().and_then(|word| word.strip_prefix("pool:"))
        && !draft.pools.contains_key(pool)
    {
        return Err(format!("no backend is in the pool {pool}: add one"));
    }
    for mut one in conditions {
        one.then = then.clone();
        if let Some(addresses) = then.get("addresses").and_then(Value::as_array)
            && one.types.is_empty()
        {
            // dnsdist forwards the types for which it has no address.
            let has = |mark: &str| addresses.iter().any(|ip| ip.as_str().is_some_and(|ip| ip.contains(mark)));
            one.types.extend(has(".").then(|| "A".to_owned()));
            one.types.extend(has(":").then(|| "AAAA".to_owned()));
        }
        draft.rules.push(one);
    }
    Ok(())
}

fn rcode(text: &str) -> Result<&'static str, String> {
    match text.to_ascii_lowercase().as_str() {
        "nxdomain" => Ok("nxdomain"),
        "refused" => Ok("refused"),
        "noerror" => Ok("nodata"),
        _ => Err(format!("hedgerow makes no {text}: use nxdomain, nodata or refused")),
    }
}

/// Returns rules with the conditions of a selector, of which one must hold.
fn conditions(selector: &Node) -> Result<Vec<DraftRule>, String> {
    let kind = selector.get("type").map_or("", Node::text);
    let list = |key: &str| selector.get(key).map(Node::texts).unwrap_or_default();
    let all = || DraftRule::all("routes");
    let below = || selector.get("selectors").map(Node::items).unwrap_or_default();
    let one = match kind {
        "All" => all(),
        "QNameSuffix" => DraftRule { names: domains(&list("suffixes"), "")?, ..all() },
        "QNameSet" => DraftRule { names: domains(&list("qnames"), "=")?, ..all() },
        "QName" => DraftRule { names: domains(&list("qname"), "=")?, ..all() },
        "QType" => DraftRule { types: vec![qtype(list("qtype").first().copied().unwrap_or_default())?], ..all() },
        "NetmaskGroup" => {
            let networks = list("netmasks");
            networks.iter().try_for_each(|text| words::prefix(text).map(drop).map_err(|e| e.to_string()))?;
            DraftRule { clients: networks.into_iter().map(str::to_owned).collect(), ..all() }
        }
        "Or" => {
            let lists: Result<Vec<_>, _> = below().iter().map(conditions).collect();
            return Ok(lists?.concat());
        }
        "And" => {
            return below().iter().try_fold(vec![all()], |known, selector| {
                let more = conditions(selector)?;
                let pairs = known.iter().flat_map(|left| more.iter().map(move |right| both(left, right)));
                pairs.collect()
            });
        }
        _ => {
            return Err(format!(
                "hedgerow has no selector {kind:?}: see docs/src/rules.md for the conditions of rules"
            ));
        }
    };
    if kind != "All" && one == all() {
        return Err(format!("the selector {kind} has no values: add them"));
    }
    Ok(vec![one])
}

/// Joins two conditions that must both hold.
fn both(left: &DraftRule, right: &DraftRule) -> Result<DraftRule, String> {
    let join = |left: &Vec<String>, right: &Vec<String>| match (left.is_empty(), right.is_empty()) {
        (_, true) => Ok(left.clone()),
        (true, false) => Ok(right.clone()),
        (false, false) => {
            Err("hedgerow has one condition of each kind in a rule: write the names in common".to_owned())
        }
    };
    Ok(DraftRule {
        names: join(&left.names, &right.names)?,
        types: join(&left.types, &right.types)?,
        clients: join(&left.clients, &right.clients)?,
        ..DraftRule::all("routes")
    })
}

fn domains(texts: &[&str], mark: &str) -> Result<Vec<String>, String> {
    texts.iter().map(|text| Ok(format!("{mark}{}", domain(text)?))).collect()
}

fn qtype(text: &str) -> Result<String, String> {
    let rtype = words::record_type(text).map_err(|error| error.to_string())?;
    Ok(rtype.to_string())
}
