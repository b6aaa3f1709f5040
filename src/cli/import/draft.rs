//! The config that an import builds, and the directives that it could not take.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use config::words;
use dns::Name;
use toml::{Table, Value};

/// The name of the pool for all names without a route of their own.
pub(super) const DEFAULT: &str = "default";

/// A directive that the import could not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Untaken {
    /// The line of the file, from 1.
    pub(crate) line: usize,
    /// The directive, as the file spells it.
    pub(crate) directive: String,
    /// The reason and the remedy.
    pub(crate) reason: String,
}

/// The result of one directive: taken, or the reason and the remedy.
pub(super) type Taking = Result<(), String>;

/// A rule of the forwarder. Empty lists are no conditions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DraftRule {
    pub(super) names: Vec<String>,
    pub(super) names_file: Option<String>,
    pub(super) types: Vec<String>,
    pub(super) clients: Vec<String>,
    pub(super) then: Value,
}

impl DraftRule {
    /// A rule for all queries.
    pub(super) fn all(then: impl Into<Value>) -> Self {
        Self { names: Vec::new(), names_file: None, types: Vec::new(), clients: Vec::new(), then: then.into() }
    }

    /// A rule for a name and all names below it.
    pub(super) fn below(name: &str, then: impl Into<Value>) -> Self {
        let names = if name == "." { Vec::new() } else { vec![name.to_owned()] };
        Self { names, ..Self::all(then) }
    }

    /// A rule for one name.
    pub(super) fn exactly(name: &str, then: impl Into<Value>) -> Self {
        Self { names: vec![format!("={name}")], ..Self::all(then) }
    }

    pub(super) fn of_types(self, types: &[&str]) -> Self {
        Self { types: types.iter().map(|&rtype| rtype.to_owned()).collect(), ..self }
    }

    /// Returns the depth of the name, the kind of the pattern and the kind of the rule, most specific first.
    fn order(&self) -> (Reverse<usize>, bool, bool, String) {
        let name = self.names.first().map_or(".", String::as_str);
        let plain = name.trim_start_matches('=');
        (Reverse(depth(plain)), !name.starts_with('='), self.types.is_empty(), self.then.to_string())
    }

    fn to_table(&self, number: usize) -> Table {
        let kind = match &self.then {
            Value::String(word) => word.split(':').next().unwrap_or_default(),
            Value::Table(table) => table.keys().next().map_or("", String::as_str),
            _ => "",
        };
        let mut table = Table::from_iter([("name".to_owned(), Value::from(format!("{kind}-{number}")))]);
        let lists = [("names", &self.names), ("types", &self.types), ("clients", &self.clients)];
        for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            table.insert(key.to_owned(), strings(list));
        }
        table.extend(self.names_file.iter().map(|file| ("names_file".to_owned(), Value::from(file.as_str()))));
        table.insert("then".to_owned(), self.then.clone());
        table
    }
}

/// A pool of backends.
#[derive(Debug, Default, PartialEq)]
pub(super) struct DraftPool {
    pub(super) backends: Vec<Value>,
    /// The other keys, with subsections as tables.
    pub(super) keys: Table,
}

impl DraftPool {
    /// Adds a backend, unless the pool has it.
    pub(super) fn add(&mut self, backend: impl Into<Value>) {
        let backend = backend.into();
        if !self.backends.contains(&backend) {
            self.backends.push(backend);
        }
    }
}

/// A config under construction.
#[derive(Debug, Default)]
pub(super) struct DraftConfig {
    /// The sections by name, such as `forwarder.limits`.
    sections: BTreeMap<String, Table>,
    pub(super) listen: Vec<Value>,
    pub(super) pools: BTreeMap<String, DraftPool>,
    /// The pools by suffix.
    pub(super) routes: BTreeMap<String, String>,
    /// The local names with their addresses and reverse names.
    pub(super) names: BTreeMap<String, Vec<IpAddr>>,
    pub(super) hosts_files: Vec<String>,
    pub(super) rules: Vec<DraftRule>,
    /// The number of directives read so far.
    pub(super) directives: usize,
    pub(super) untaken: Vec<Untaken>,
}

impl DraftConfig {
    /// Counts a directive, and notes it if it is not taken.
    pub(super) fn count(&mut self, line: usize, directive: &str, taking: Taking) {
        self.directives += 1;
        if let Err(reason) = taking {
            self.note(line, directive, &reason);
        }
    }

    /// Notes something that the file implies and the config lacks.
    pub(super) fn note(&mut self, line: usize, directive: &str, reason: &str) {
        self.untaken.push(Untaken { line, directive: directive.to_owned(), reason: reason.to_owned() });
    }

    /// Sets a key of a section such as `forwarder.limits`; `""` is the top level.
    pub(super) fn set(&mut self, section: &str, key: &str, value: impl Into<Value>) {
        self.sections.entry(section.to_owned()).or_default().insert(key.to_owned(), value.into());
    }

    pub(super) fn value(&self, section: &str, key: &str) -> Option<&Value> {
        self.sections.get(section)?.get(key)
    }

    pub(super) fn remove(&mut self, section: &str, key: &str) {
        self.sections.get_mut(section).and_then(|table| table.remove(key));
    }

    pub(super) fn clear(&mut self, section: &str) {
        self.sections.remove(section);
    }

    pub(super) fn pool(&mut self, name: &str) -> &mut DraftPool {
        self.pools.entry(name.to_owned()).or_default()
    }

    /// Adds an address to a local name.
    pub(super) fn add_name(&mut self, name: &str, address: IpAddr) {
        let addresses = self.names.entry(name.to_owned()).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }

    /// Adds a pool for a suffix, and returns its name. Equal pools are one.
    pub(super) fn add_pool(&mut self, suffix: &str, pool: DraftPool) -> String {
        if let Some((name, _)) = self.pools.iter().find(|(_, known)| **known == pool) {
            return name.clone();
        }
        let base = if suffix == "." { DEFAULT.to_owned() } else { label(suffix) };
        let mut names = (1..).map(|number| if number == 1 { base.clone() } else { format!("{base}-{number}") });
        let name = names.find(|name| !self.pools.contains_key(name) && (suffix == "." || name != DEFAULT));
        let name = name.unwrap_or_default();
        self.pools.insert(name.clone(), pool);
        name
    }

    /// Routes a suffix to a pool with these backends.
    pub(super) fn route_to(&mut self, suffix: &str, backends: &[String]) {
        let mut pool = DraftPool::default();
        backends.iter().for_each(|backend| pool.add(backend.as_str()));
        let name = self.add_pool(suffix, pool);
        self.routes.insert(suffix.to_owned(), name);
    }

    /// Removes listeners by TLS, HTTPS and QUIC if there is no certificate for them.
    pub(super) fn remove_unusable_listeners(&mut self) {
        let mut known = std::mem::take(&mut self.listen);
        let mut seen = BTreeSet::new();
        known.retain(|listener| seen.insert(listener.to_string()));
        if self.sections.keys().any(|section| section.starts_with("certificates.")) {
            self.listen = known;
            return;
        }
        let is_plain = |listener: &Value| listener.as_str().is_none_or(|text| !text.contains("://"));
        let (plain, encrypted): (Vec<_>, Vec<_>) = known.into_iter().partition(is_plain);
        self.listen = plain;
        for listener in encrypted {
            let text = listener.as_str().unwrap_or_default().to_owned();
            self.note(
                1,
                &text,
                "an encrypted listener needs a certificate: add it to forwarder.listen with [certificates.NAME]",
            );
        }
        if self.listen.is_empty() {
            self.listen.push("127.0.0.1:53".into());
        }
    }

    /// Returns true if a rule for all types of queries, or for some, matches a name by a name above it.
    pub(super) fn is_covered(&self, name: &str) -> bool {
        let covers = |rule: &DraftRule| {
            rule.names.iter().any(|above| is_at_or_below(name, above))
                || rule.names.is_empty() && rule.names_file.is_none() && rule.clients.is_empty()
        };
        self.rules.iter().any(covers)
    }

    /// Orders rules so that the most specific one decides, and exempts local names from the others, as in
    /// servers where the longest name wins. Merges rules with the same result.
    pub(super) fn let_the_longest_name_win(&mut self) {
        if self.rules.is_empty() {
            return;
        }
        let reversed = self.names.values().flatten().map(|address| reverse(*address));
        let local: Vec<String> = self.names.keys().cloned().chain(reversed).collect();
        let exempt: Vec<_> = local.iter().filter(|name| self.is_covered(name)).collect();
        let exempt: Vec<_> = exempt.into_iter().map(|name| DraftRule::exactly(name, "routes")).collect();
        let subtrees = self.rules.iter().any(|rule| !rule.names.iter().any(|name| name.starts_with('=')));
        self.rules.extend(exempt);
        self.rules.sort_by_cached_key(DraftRule::order);
        self.rules.dedup();
        self.rules.dedup_by(|next, last| {
            let is_same = next.then == last.then && next.types == last.types && next.order() == last.order();
            if is_same && !next.names.is_empty() {
                last.names.append(&mut next.names);
            }
            is_same
        });
        if subtrees {
            let files = self
                .hosts_files
                .iter()
                .map(|file| DraftRule { names_file: Some(file.clone()), ..DraftRule::all("routes") });
            self.rules.splice(..0, files.collect::<Vec<_>>());
        }
    }

    /// Writes the config as TOML, after a comment with the origin.
    pub(super) fn into_toml(mut self, comment: &str) -> String {
        if !self.routes.contains_key(".") && self.pools.len() == 1 && self.routes.is_empty() {
            let only = self.pools.keys().next().cloned().unwrap_or_default();
            self.routes.insert(".".to_owned(), only);
        }
        self.set("forwarder", "listen", self.listen.clone());
        if !self.hosts_files.is_empty() {
            self.set("forwarder", "hosts_files", strings(&self.hosts_files));
        }
        let mut root = Table::new();
        for (section, table) in self.sections {
            place(&mut root, &section).extend(table);
        }
        let routes = self.routes.into_iter().map(|(suffix, pool)| (suffix, Value::from(pool)));
        place(&mut root, "forwarder.routes").extend(routes);
        let names = self.names.iter().map(|(name, addresses)| (name.clone(), strings(addresses)));
        place(&mut root, "forwarder.names").extend(names);
        let rules: Vec<Value> = (1..).zip(&self.rules).map(|(n, rule)| Value::from(rule.to_table(n))).collect();
        place(&mut root, "forwarder").insert("rules".to_owned(), Value::from(rules));
        let pools = place(&mut root, "pools");
        for (name, pool) in self.pools {
            let serves = [("backends".to_owned(), Value::from(pool.backends)), ("serves".to_owned(), "same".into())];
            pools.insert(name, Value::from(Table::from_iter(serves.into_iter().chain(pool.keys))));
        }
        remove_empty(&mut root);
        format!("# {comment}\n\n{}", toml::to_string_pretty(&root).unwrap_or_default())
    }
}

/// Returns the table of a section such as `forwarder.limits`, which it creates if missing.
fn place<'a>(root: &'a mut Table, section: &str) -> &'a mut Table {
    section.split('.').filter(|key| !key.is_empty()).fold(root, |table, key| {
        let below = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
        below.as_table_mut().expect("sections are tables")
    })
}

/// Removes empty lists and tables below `[forwarder]`, where they would only say that there is nothing.
fn remove_empty(root: &mut Table) {
    if let Some(forwarder) = root.get_mut("forwarder").and_then(Value::as_table_mut) {
        forwarder.retain(|key, value| match value {
            Value::Array(array) => key == "listen" || !array.is_empty(),
            Value::Table(table) => !table.is_empty(),
            _ => true,
        });
    }
}

/// Makes a TOML array of strings.
pub(super) fn strings<T: ToString>(items: &[T]) -> Value {
    Value::Array(items.iter().map(|item| Value::from(item.to_string())).collect())
}

/// Makes a TOML table with one key.
pub(super) fn table(key: &str, value: impl Into<Value>) -> Value {
    Value::Table(Table::from_iter([(key.to_owned(), value.into())]))
}

/// Reads a domain name, and writes it in lower case without the last dot; the root is `.`.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let name: Name = words::domain_name(text).map_err(|error| error.to_string())?;
    let text = name.to_string().to_ascii_lowercase();
    Ok(if name.is_root() { ".".to_owned() } else { text.trim_end_matches('.').to_owned() })
}

/// Reads an IP address.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("expected an IP address, not {text:?}: write one"))
}

/// Reads a number within bounds.
pub(super) fn number(text: &str, least: i64, most: i64) -> Result<i64, String> {
    let number: i64 = text.parse().map_err(|_| format!("expected a number, not {text:?}"))?;
    match (least..=most).contains(&number) {
        true => Ok(number),
        false => Err(format!("{number} is out of bounds in hedgerow: set {least} to {most} by hand")),
    }
}

/// Reads a duration of at most so many seconds.
pub(super) fn duration(text: &str, most: u64) -> Result<String, String> {
    let duration = words::duration(text).map_err(|error| error.to_string())?;
    match (Duration::from_millis(100)..=Duration::from_secs(most)).contains(&duration) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text} is out of bounds in hedgerow: set 100ms to {most}s by hand")),
    }
}

/// Reads the prefix of DNS64 (RFC 6052 section 2.2).
pub(super) fn dns64(text: &str) -> Result<String, String> {
    let (prefix, length) = text.split_once('/').unwrap_or((text, ""));
    match ["32", "40", "48", "56", "64", "96"].contains(&length) && address(prefix)?.is_ipv6() {
        true => Ok(text.to_owned()),
        false => Err("expected an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits: correct it".to_owned()),
    }
}

/// Writes an address as an element of `backends` or `listen`.
pub(super) fn url(scheme: &str, socket: SocketAddr, name: &str) -> String {
    let name = if name.is_empty() { String::new() } else { format!("#{name}") };
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    format!("{scheme}{socket}{name}")
}

/// Returns the size for a cache of this many answers: 64 MiB hold some 400,000.
pub(super) fn cache_size(answers: i64) -> String {
    format!("{}MiB", (answers / 6000 + 1).clamp(1, 65_536))
}

/// Returns the name of the PTR records of an address, without the last dot.
pub(super) fn reverse(address: IpAddr) -> String {
    Name::reverse_of(address).to_string().trim_end_matches('.').to_owned()
}

/// Returns the zone of the reverse names of a network, if its length is a multiple of a label.
pub(super) fn reverse_zone(network: &str) -> Result<String, String> {
    let (base, length) = network.split_once('/').unwrap_or((network, "32"));
    let base = address(base)?;
    let (step, total) = if base.is_ipv4() { (8, 32) } else { (4, 128) };
    let length = number(length, step, total)?;
    if length % step != 0 {
        return Err(format!("the length {length} is within a label: add one route for each reverse zone"));
    }
    let labels = usize::try_from((total - length) / step).unwrap_or(0);
    Ok(reverse(base).splitn(labels + 1, '.').last().unwrap_or_default().to_owned())
}

/// Returns the number of labels.
pub(super) fn depth(name: &str) -> usize {
    name.split('.').filter(|label| !label.is_empty()).count()
}

/// Returns true if a name is another one or below it.
pub(super) fn is_at_or_below(name: &str, above: &str) -> bool {
    above == "." || name.strip_suffix(above).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Returns a name and those above it, except the root.
pub(super) fn ancestors(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, above)| above))
}

/// Returns a label for a pool or an authority, from a name.
pub(super) fn label(suffix: &str) -> String {
    let letters = suffix.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    letters.collect::<String>().trim_matches('-').to_owned()
}
