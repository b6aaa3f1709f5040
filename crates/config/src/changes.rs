//! The differences between two configs, for the log line of a reload.

use super::{Config, ProcessConfig, TapsConfig};

impl Config {
    /// Counts the differences from an earlier config, such as "1 pool changed"; empty if there are none.
    pub fn changes_since(&self, earlier: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        count(&mut changes, "pool", &earlier.pools, &self.pools, |pool| &pool.name);
        count(&mut changes, "authority", &earlier.authorities, &self.authorities, |authority| &authority.name);
        let sections = self.sections_changed_since(earlier);
        changes.extend(sections.into_iter().map(|name| format!("{name} changed")));
        changes
    }

    /// Returns the keys that differ from an earlier config and that a running process cannot change.
    pub fn fixed_changes_since(&self, earlier: &Self) -> Vec<&'static str> {
        let is_fixed = |name: &&str| matches!(*name, "workers" | "user" | "busy_poll" | "xdp");
        self.sections_changed_since(earlier).into_iter().filter(is_fixed).collect()
    }

    fn sections_changed_since(&self, earlier: &Self) -> Vec<&'static str> {
        // Names every field, so that the compiler asks for a new one.
        let Self {
            pools: _,
            authorities: _,
            process,
            forwarder,
            keys,
            certificates,
            cache,
            admin,
            supervisor,
            xdp,
            taps,
            etcd,
        } = self;
        let ProcessConfig { workers, user, watch, busy_poll, drain_delay, state_dir } = process;
        let TapsConfig { slow, query_log, dnstap, traces } = taps;
        macro_rules! compare {
            ($($earlier:expr => $($field:ident)*;)*) => {
                [$($((stringify!($field), *$field != $earlier.$field)),*),*]
            };
        }
        let sections = compare!(
            earlier.process => workers user watch busy_poll drain_delay;
            earlier => forwarder keys certificates cache admin supervisor xdp;
            earlier.taps => slow query_log dnstap traces;
            earlier => etcd;
            earlier.process => state_dir;
        );
        sections.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

fn count<T: PartialEq>(
    changes: &mut Vec<String>,
    kind: &str,
    earlier: &[T],
    later: &[T],
    name: impl Fn(&T) -> &String,
) {
    let find = |of: &[T], wanted: &T| of.iter().position(|one| name(one) == name(wanted));
    let added = later.iter().filter(|one| find(earlier, one).is_none()).count();
    let removed = earlier.iter().filter(|one| find(later, one).is_none()).count();
    let changed = later.iter().filter(|one| find(earlier, one).is_some_and(|at| earlier[at] != **one)).count();
    for (number, what) in [(added, "added"), (removed, "removed"), (changed, "changed")] {
        changes.extend((number > 0).then(|| format!("{} {what}", counted(number, kind))));
    }
}

/// A number with its noun, such as "1 zone" and "2 zones".
pub fn counted(number: usize, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;

    #[test]
    fn changes_are_counted_by_section() {
        let pool = |name: &str, port: u16| format!("[pools.{name}]\nbackends = [\"127.0.0.1:{port}\"]\n");
        let routes = "[forwarder.routes]\n\".\" = \"a\"\n";
        let listen = "[forwarder]\nlisten = [\"127.0.0.1:5300\"]\n";
        let old = parse(&format!("{listen}{routes}{}{}", pool("a", 1), pool("b", 2)));
        let new = parse(&format!("drain_delay = \"1s\"\n{listen}{routes}{}{}[cache]\n", pool("a", 3), pool("c", 2)));
        assert_eq!(
            new.changes_since(&old),
            ["1 pool added", "1 pool removed", "1 pool changed", "drain_delay changed", "cache changed"]
        );
        assert_eq!(old.changes_since(&old), Vec::<String>::new());
    }
}
