//! The compiled table: finds the first rule of a query.
//!
//! Each dimension of a query (client, listener with transport, name, type) has classes, and each class has
//! the set of rules whose condition it fulfills. A look-up finds four classes and combines their sets, word
//! by word, up to the first rule that is in all of them.

use std::net::IpAddr;
use std::sync::Arc;

use dns::{RecordType, Transport};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::clients::ClientClasses;
use super::pattern::{AT, BELOW};
use super::sets::{self, RuleSets};
use super::{MAX_RULES, NameSet, Rule, RuleQuery};

/// A compiled list of rules.
#[derive(Debug)]
pub struct RuleTable {
    /// Words of a set.
    words: usize,
    sets: Box<[u64]>,
    clients: ClientClasses,
    /// The class of each transport, first without a listener of any rule, then for each listener.
    listeners: Box<[u32]>,
    /// The types that rules name, in order, with their classes.
    types: Box<[(RecordType, u32)]>,
    other_types: u32,
    names: NameClasses,
    files: NameFiles,
}

/// The classes of names.
#[derive(Debug)]
struct NameClasses {
    by_name: HashMap<Box<[u8]>, Relatives, RandomState>,
    root: Relatives,
}

/// The class of a name, and of the names below it that no rule names.
#[derive(Clone, Copy, Debug)]
struct Relatives {
    at: u32,
    below: u32,
}

/// The names files of rules.
#[derive(Debug)]
struct NameFiles {
    /// Each file once, with the set of the rules that use it.
    files: Box<[(Arc<NameSet>, u32)]>,
    /// The file of each rule; without meaning for rules without one.
    of_rule: Box<[usize]>,
    /// The set of the rules with a file.
    users: u32,
}

impl RuleTable {
    /// Compiles rules. The caller rejects more than [`MAX_RULES`].
    pub fn new(rules: &[Rule]) -> Self {
        assert!(rules.len() <= MAX_RULES, "more than {MAX_RULES} rules");
        let mut sets = RuleSets::new(rules.len());
        let lists: Vec<_> = rules.iter().map(|rule| &*rule.clients).collect();
        let clients = ClientClasses::new(&lists, &mut sets);
        let listeners = listener_classes(rules, &mut sets);
        let (types, other_types) = type_classes(rules, &mut sets);
        let names = NameClasses::new(rules, &mut sets);
        let files = NameFiles::new(rules, &mut sets);
        let (words, sets) = sets.freeze();
        Self { words, sets, clients, listeners, types, other_types, names, files }
    }

    /// Returns true if the table has no rules.
    pub fn is_empty(&self) -> bool {
        self.words == 0
    }

    /// Returns the number of the first rule that matches.
    pub fn first_match(&self, query: &RuleQuery<'_>) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let client = self.client_set(query.client);
        let listener = self.listener_set(query.listener, query.transport);
        let rtype = self.type_set(query.qtype);
        let name = self.set(self.names.class(query.qname, AT));
        let conditions =
            client.iter().zip(listener).zip(rtype).map(|((client, listener), rtype)| client & listener & rtype);
        if !self.files.files.is_empty() {
            return self.first_with_files(conditions, name, query.qname);
        }
        let mut words = conditions.zip(name).enumerate();
        words.find_map(|(word, (others, name))| first_rule(word, others & name))
    }

    /// Finds the first rule. A file is searched only if the other conditions of one of its rules hold, and
    /// then once.
    fn first_with_files(&self, conditions: impl Iterator<Item = u64>, name: &[u64], qname: &[u8]) -> Option<usize> {
        let users = self.set(self.files.users);
        let (mut inside, mut outside) = ([0; MAX_WORDS], [0; MAX_WORDS]);
        for (word, others) in conditions.enumerate() {
            loop {
                let matches = others & (name[word] | inside[word]);
                let open = others & users[word] & !(name[word] | outside[word]);
                let Some(rule) = first_rule(word, matches | open) else { break };
                if sets::has(&[matches], rule % 64) {
                    return Some(rule);
                }
                let (file, users) = &self.files.files[self.files.of_rule[rule]];
                let result = if file.contains(qname) { &mut inside } else { &mut outside };
                sets::unite(result, self.set(*users));
            }
        }
        None
    }

    /// Returns the rules whose condition on the client holds.
    pub(crate) fn client_set(&self, client: IpAddr) -> &[u64] {
        self.set(self.clients.class(client))
    }

    /// Returns the rules whose conditions on the listener and the transport hold.
    pub(crate) fn listener_set(&self, listener: Option<usize>, transport: Transport) -> &[u64] {
        let row = listener.map_or(0, |listener| listener + 1) * TRANSPORTS;
        let row = if row < self.listeners.len() { row } else { 0 };
        self.set(self.listeners[row + transport as usize])
    }

    /// Returns the rules whose condition on the type holds.
    pub(crate) fn type_set(&self, qtype: RecordType) -> &[u64] {
        let found = self.types.binary_search_by_key(&qtype, |(rtype, _)| *rtype);
        self.set(found.map_or(self.other_types, |at| self.types[at].1))
    }

    /// Puts the rules into `set` whose condition holds for a name with this relation to `wire`, and to no
    /// name of a pattern below `wire`. Returns the number of look-ups.
    pub(crate) fn name_set(&self, wire: &[u8], relation: u8, set: &mut Vec<u64>) -> usize {
        set.clear();
        set.extend_from_slice(self.set(self.names.class(wire, relation)));
        for (_, users) in self.files.files.iter().filter(|(file, _)| file.covers(wire, relation)) {
            sets::unite(set, self.set(*users));
        }
        1 + self.files.files.len()
    }

    /// Returns true if a pattern names this name.
    pub(crate) fn has_name(&self, wire: &[u8]) -> bool {
        self.names.by_name.contains_key(wire) || self.files().any(|file| file.names(wire))
    }

    /// Returns the names files, each once.
    pub(crate) fn files(&self) -> impl Iterator<Item = &NameSet> {
        self.files.files.iter().map(|(file, _)| &**file)
    }

    fn set(&self, class: u32) -> &[u64] {
        let from = class as usize * self.words;
        &self.sets[from..from + self.words]
    }
}

const MAX_WORDS: usize = MAX_RULES.div_ceil(64);

const TRANSPORTS: usize = Transport::ALL.len();

fn first_rule(word: usize, bits: u64) -> Option<usize> {
    (bits > 0).then(|| word * 64 + bits.trailing_zeros() as usize)
}

/// Returns the set of the rules that a condition selects.
fn set_of(rules: &[Rule], sets: &RuleSets, mut condition: impl FnMut(&Rule) -> bool) -> Vec<u64> {
    let mut set = sets.none();
    rules.iter().enumerate().filter(|(_, rule)| condition(rule)).for_each(|(rule, _)| sets::insert(&mut set, rule));
    set
}

fn listener_classes(rules: &[Rule], sets: &mut RuleSets) -> Box<[u32]> {
    let listeners = rules.iter().flat_map(|rule| &rule.listeners).max().map_or(0, |last| last + 1);
    let rows = std::iter::once(None).chain((0..listeners).map(Some));
    let pairs = rows.flat_map(|row| Transport::ALL.map(|transport| (row, transport)));
    let number = |(row, transport): (Option<usize>, _)| {
        let set = set_of(rules, sets, |rule| {
            let has_listener = row.is_some_and(|listener| rule.listeners.contains(&listener));
            (rule.listeners.is_empty() || has_listener)
                && (rule.transports.is_empty() || rule.transports.contains(&transport))
        });
        sets.number(&set)
    };
    pairs.map(number).collect()
}

fn type_classes(rules: &[Rule], sets: &mut RuleSets) -> (Box<[(RecordType, u32)]>, u32) {
    let mut types: Vec<_> = rules.iter().flat_map(|rule| rule.types.iter().copied()).collect();
    types.sort_unstable();
    types.dedup();
    let mut number = |rtype: Option<RecordType>| {
        let set =
            set_of(rules, sets, |rule| rule.types.is_empty() || rtype.is_some_and(|rtype| rule.types.contains(&rtype)));
        sets.number(&set)
    };
    (types.into_iter().map(|rtype| (rtype, number(Some(rtype)))).collect(), number(None))
}

impl NameClasses {
    fn new(rules: &[Rule], sets: &mut RuleSets) -> Self {
        let everything = set_of(rules, sets, |rule| !rule.has_names());
        let root = [everything.clone(), everything];
        // The sets of the rules that name a name: for the name, and for names below it.
        let mut named: HashMap<Box<[u8]>, [Vec<u64>; 2], RandomState> = HashMap::default();
        named.insert([0].into(), root);
        for (number, rule) in rules.iter().enumerate() {
            for pattern in &rule.names {
                let wire = pattern.name().folded().as_wire().into();
                let [at, below] = named.entry(wire).or_insert_with(|| [sets.none(), sets.none()]);
                let relations = pattern.relations();
                if relations & AT > 0 {
                    sets::insert(at, number);
                }
                if relations & BELOW > 0 {
                    sets::insert(below, number);
                }
            }
        }
        // Each name inherits the set of its nearest ancestor, which has inherited before: it is shorter.
        let mut names: Vec<_> = named.keys().cloned().collect();
        names.sort_unstable_by_key(|name| name.len());
        let mut by_name: HashMap<_, Relatives, RandomState> = HashMap::default();
        for name in names {
            let Some([mut at, mut below]) = named.remove(&name) else { continue };
            if let Some(above) = dns::suffixes(&name).skip(1).find_map(|above| by_name.get(above)) {
                sets::unite(&mut at, sets.get(above.below));
                sets::unite(&mut below, sets.get(above.below));
            }
            by_name.insert(name, Relatives { at: sets.number(&at), below: sets.number(&below) });
        }
        let root = by_name.remove(&[0][..]).unwrap_or(Relatives { at: 0, below: 0 });
        Self { by_name, root }
    }

    /// Returns the class of a name with this relation to `wire`, and to nothing below `wire`.
    fn class(&self, wire: &[u8], relation: u8) -> u32 {
        let (mut is_at, mut rest) = (relation == AT, wire);
        while let Some((&length, below)) = rest.split_first()
            && length > 0
        {
            if let Some(found) = self.by_name.get(rest) {
                return if is_at { found.at } else { found.below };
            }
            is_at = false;
            rest = below.get(usize::from(length)..).unwrap_or_default();
        }
        if is_at { self.root.at } else { self.root.below }
    }
}

impl NameFiles {
    fn new(rules: &[Rule], sets: &mut RuleSets) -> Self {
        let mut files: Vec<(Arc<NameSet>, Vec<u64>)> = Vec::new();
        let mut of_rule = vec![0; rules.len()];
        for (number, rule) in rules.iter().enumerate() {
            let Some(file) = &rule.names_file else { continue };
            let known = files.iter().position(|(known, _)| Arc::ptr_eq(known, file));
            of_rule[number] = known.unwrap_or_else(|| {
                files.push((file.clone(), sets.none()));
                files.len() - 1
            });
            sets::insert(&mut files[of_rule[number]].1, number);
        }
        let users = set_of(rules, sets, |rule| rule.names_file.is_some());
        let files = files.into_iter().map(|(file, users)| (file, sets.number(&users))).collect();
        Self { files, of_rule: of_rule.into(), users: sets.number(&users) }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
