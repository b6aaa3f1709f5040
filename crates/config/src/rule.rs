//! `[[forwarder.rules]]`: which queries get which answer, in order.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use dns::address::ListenAddress;
use dns::{Name, RecordType, Transport};
use limit::Prefix;
use rules::{MAX_RULES, NamePattern};

use super::PoolIndex;
use super::forwarder::read_pool;
use super::limits::secs;
use super::listen::{ListenConfig, listen_address};
use super::readers::{distinct, file, label, text, word};
use super::section::{ConfigNode, ConfigSection, note_repeats};
use super::words::{self, Expectation};

/// One entry of `[[forwarder.rules]]`. An empty list is no condition.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleConfig {
    /// The unique name.
    pub name: String,
    /// The addresses of clients.
    pub clients: Vec<Prefix>,
    /// The listeners, by their index in `listen`.
    pub listeners: Vec<usize>,
    /// The transports.
    pub transports: Vec<Transport>,
    /// The names; one condition together with `names_file`.
    pub names: Vec<NamePattern>,
    /// The file with further names, already resolved against the folder of the config file.
    pub names_file: Option<PathBuf>,
    /// The types of the question.
    pub types: Vec<RecordType>,
    /// The result.
    pub then: RuleAction,
    /// The TTL of made-up records.
    pub ttl: Duration,
}

impl RuleConfig {
    /// The default of `ttl`: a removed rule is without effect after a minute.
    pub const TTL: Duration = secs(60);
}

/// `rules[].then`: the result for a matching query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// NXDOMAIN.
    Nxdomain,
    /// No records.
    Nodata,
    /// REFUSED.
    Refused,
    /// No response; counted as dropped.
    Drop,
    /// As if no rule had matched.
    Routes,
    /// The backends of this pool.
    Pool(PoolIndex),
    /// These addresses.
    Addresses(Vec<IpAddr>),
    /// A CNAME record to this name.
    Cname(Box<Name>),
}

/// The parts of the config that rules refer to.
pub(super) struct RuleSurroundings<'a> {
    pub(super) listen: &'a [ListenConfig],
    pub(super) pools: &'a [&'a str],
}

pub(super) fn read(node: &ConfigNode<'_>, around: &RuleSurroundings<'_>) -> Option<Vec<RuleConfig>> {
    let items = node.any_items("[{ name = \"ads\", names = [\"ads.example\"], then = \"nxdomain\" }]");
    if items.len() > MAX_RULES {
        node.spot.note(format!(
            "there are {} rules, expected at most {MAX_RULES}: names_file takes a million names",
            items.len()
        ));
        return None;
    }
    let mut names = Vec::new();
    let rules = items.iter().filter_map(|item| {
        let section = item.section()?;
        let spot = section.spot_of("name");
        let rule = section.whole(|section| read_rule(section, around))?;
        names.push((rule.name.clone(), spot));
        Some(rule)
    });
    let rules = rules.collect();
    note_repeats(names, |name| format!("the name {name:?} is used"));
    Some(rules)
}

fn read_rule(section: &mut ConfigSection<'_>, around: &RuleSurroundings<'_>) -> Option<RuleConfig> {
    let name = section.required("name", "\"ads\"", label);
    let clients = list(section, "clients", "[\"192.0.2.0/24\"]", text(words::prefix));
    let listeners = section.optional("listeners", |node| Some(read_listeners(node, around.listen)));
    let transports = list(section, "transports", "[\"udp\"]", word);
    let names = list(section, "names", "[\"ads.example\", \"*.ads.example\", \"=ads.example\"]", text(pattern));
    let names_file = section.optional("names_file", file);
    let types = list(section, "types", "[\"AAAA\"]", text(words::record_type));
    let then = section.require("then", "\"nxdomain\"");
    let then = then.and_then(|node| read_action(&node, around.pools));
    let ttl = section.read("ttl", RuleConfig::TTL, text(words::ttl));
    let listeners = listeners.unwrap_or_default();
    Some(RuleConfig { name: name?, clients, listeners, transports, names, names_file, types, then: then?, ttl })
}

/// Reads a condition. An empty list would match no query, so it is most likely an error.
fn list<'d, T>(
    section: &mut ConfigSection<'d>,
    key: &'static str,
    example: &str,
    read: impl Fn(&ConfigNode<'d>) -> Option<T>,
) -> Vec<T> {
    let items = section.take(key).map(|node| node.items(example)).unwrap_or_default();
    items.iter().filter_map(read).collect()
}

fn pattern(text: &str) -> Result<NamePattern, Expectation> {
    text.parse::<NamePattern>().map_err(|error| {
        let expected = error.to_string();
        Expectation::new(expected.strip_prefix("expected ").unwrap_or(&expected)).matching(words::NOT_EMPTY)
    })
}

fn read_listeners(node: &ConfigNode<'_>, listen: &[ListenConfig]) -> Vec<usize> {
    let mut found = Vec::new();
    let read = |item: &ConfigNode<'_>| {
        let ListenAddress { scheme, socket } = item.parsed(listen_address)?.address;
        let is_meant = |one: &ListenConfig| one.address.scheme == scheme && one.address.socket == socket;
        let places = listen.iter().enumerate().filter(|(_, one)| is_meant(one)).map(|(place, _)| place);
        let before = found.len();
        found.extend(places);
        if found.len() == before {
            let known: Vec<_> = listen.iter().map(|one| one.address.to_string()).collect();
            let address = ListenAddress { scheme, socket };
            item.spot.note(format!("{address} is no listener, expected one of listen: {}", known.join(", ")));
        }
        Some(ListenAddress { scheme, socket }.to_string())
    };
    distinct(node.items("[\"127.0.0.1:5300\"]"), read, |address| format!("{address} stands"));
    found
}

fn read_action(node: &ConfigNode<'_>, pools: &[&str]) -> Option<RuleAction> {
    let word = |node: &ConfigNode<'_>| match node.parsed(written_action)? {
        WrittenAction::Word(action) => Some(action),
        WrittenAction::Pool(pool) => read_pool(node, &pool, pools).map(RuleAction::Pool),
    };
    node.table_or(word, |section| {
        let examples = "expected addresses = [\"192.0.2.7\"] or cname = \"safe.example\"";
        let [addresses, cname] = section.take_either(["addresses", "cname"], examples);
        let addresses = addresses.map(|node| {
            let items = node.items("[\"192.0.2.7\", \"2001:db8::7\"]");
            RuleAction::Addresses(distinct(items, text(address), |address| format!("{address} stands")))
        });
        // Both are read, because the description of the keys has both.
        let cname = cname.and_then(|node| node.parsed(words::domain_name)).map(Box::new).map(RuleAction::Cname);
        addresses.or(cname)
    })
}

enum WrittenAction {
    Word(RuleAction),
    Pool(String),
}

fn written_action(text: &str) -> Result<WrittenAction, Expectation> {
    let found = ACTIONS.iter().find(|(word, _)| *word == text);
    if let Some((_, action)) = found {
        return Ok(WrittenAction::Word(action.clone()));
    }
    if let Some(pool) = text.strip_prefix("pool:").filter(|pool| !pool.is_empty()) {
        return Ok(WrittenAction::Pool(pool.to_owned()));
    }
    let other = "pool:NAME, or a table such as { addresses = [\"192.0.2.7\"] } or { cname = \"safe.example\" }";
    let other = Expectation::new(other).matching("^pool:.+$");
    Err(Expectation::one_of(text, ACTIONS.iter().map(|(word, _)| *word), Some(other)))
}

const ACTIONS: &[(&str, RuleAction)] = &[
    ("nxdomain", RuleAction::Nxdomain),
    ("nodata", RuleAction::Nodata),
    ("refused", RuleAction::Refused),
    ("drop", RuleAction::Drop),
    ("routes", RuleAction::Routes),
];

fn address(text: &str) -> Result<IpAddr, Expectation> {
    let expected =
        || Expectation::new("an address such as \"192.0.2.7\" or \"2001:db8::7\"").matching("^[0-9A-Fa-f:.]+$");
    text.parse().map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::super::tests::check;
    use super::*;

    fn config(rules: &str) -> String {
        format!(
            "[forwarder]\nlisten = [\"127.0.0.1:53\", \"tls://127.0.0.1\"]\nroutes.\".\" = \"a\"\n{rules}\n\
             [pools.a]\nbackends = [\"192.0.2.1\"]\n[pools.b]\nbackends = [\"192.0.2.1\"]\n\
             [certificates.c]\nchain = \"c\"\nkey = \"k\"\n"
        )
    }

    fn rules(rules: &str) -> Vec<RuleConfig> {
        let config = Config::parse(&config(rules), "c.toml", Path::new("/etc"));
        config.unwrap_or_else(|problems| panic!("{problems}")).forwarder.expect("there is one").rules
    }

    #[test]
    fn rules_are_read_in_order() {
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let all = "[[forwarder.rules]]\nname = \"kids\"\nclients = [\"192.168.7.0/24\"]\n\
                   listeners = [\"tls://127.0.0.1:853\"]\ntransports = [\"tls\"]\n\
                   names = [\"ads.example\", \"*.x.example\", \"=y.example\"]\nnames_file = \"block.txt\"\n\
                   types = [\"ANY\", \"TYPE65\"]\nthen = \"nxdomain\"\nttl = \"5s\"\n\
                   [[forwarder.rules]]\nname = \"rest\"\nthen = \"routes\"\n";
        let found = rules(all);
        let first = RuleConfig {
            name: "kids".to_owned(),
            clients: vec!["192.168.7.0/24".parse().expect("a prefix")],
            listeners: vec![1],
            transports: vec![Transport::Tls],
            names: vec![
                NamePattern::AtAndBelow(name("ads.example")),
                NamePattern::Below(name("x.example")),
                NamePattern::Exactly(name("y.example")),
            ],
            names_file: Some("/etc/block.txt".into()),
            types: vec![RecordType(255), RecordType::HTTPS],
            then: RuleAction::Nxdomain,
            ttl: secs(5),
        };
        assert_eq!((found.len(), &found[0]), (2, &first));
        assert_eq!((&*found[1].name, &found[1].then, found[1].ttl), ("rest", &RuleAction::Routes, secs(60)));
        let action = |then: &str| rules(&format!("rules = [{{ name = \"a\", then = {then} }}]"))[0].then.clone();
        assert_eq!(action("\"pool:b\""), RuleAction::Pool(PoolIndex(1)));
        assert_eq!(action("{ cname = \"safe.example\" }"), RuleAction::Cname(Box::new(name("safe.example"))));
        let both = ["192.0.2.7", "2001:db8::7"].map(|text| text.parse().expect("an address"));
        assert_eq!(action("{ addresses = [\"192.0.2.7\", \"2001:db8::7\"] }"), RuleAction::Addresses(both.to_vec()));
        assert_eq!(rules("rules = []"), []);
    }

    #[test]
    fn rules_are_checked() {
        let words = "expected nxdomain, nodata, refused, drop, routes or pool:NAME, or a table such as \
                     { addresses = [\"192.0.2.7\"] } or { cname = \"safe.example\" }";
        for (keys, expected) in [
            ("then = \"drop\"", "4:10: forwarder.rules[0]: name is missing, write name = \"ads\"".to_owned()),
            ("name = \"a\"", "4:10: forwarder.rules[0]: then is missing, write then = \"nxdomain\"".to_owned()),
            (
                "name = \"a\", then = \"nxdomian\"",
                format!("4:31: forwarder.rules[0].then: invalid value \"nxdomian\": {words}; did you mean \"nxdomain\"?"),
            ),
            (
                "name = \"a\", then = \"pool:c\"",
                "4:31: forwarder.rules[0].then: there is no pool \"c\", expected one of a, b".to_owned(),
            ),
            ("name = \"a\", then = 1", format!("4:31: forwarder.rules[0].then: {words}, not an integer")),
            (
                "name = \"a\", then = {}",
                "4:31: forwarder.rules[0].then: expected addresses = [\"192.0.2.7\"] or cname = \"safe.example\"".to_owned(),
            ),
            (
                "name = \"a\", then = { addresses = [\"a\"] }",
                "4:46: forwarder.rules[0].then.addresses[0]: invalid value \"a\": expected an address such as \
                 \"192.0.2.7\" or \"2001:db8::7\""
                    .to_owned(),
            ),
            (
                "name = \"a\", listeners = [\"tls://127.0.0.1:854\"], then = \"drop\"",
                "4:37: forwarder.rules[0].listeners[0]: tls://127.0.0.1:854 is no listener, expected one of listen: \
                 127.0.0.1:53, tls://127.0.0.1:853"
                    .to_owned(),
            ),
            (
                "name = \"a\", clients = [], then = \"drop\"",
                "4:34: forwarder.rules[0].clients: expected at least one, such as [\"192.0.2.0/24\"]".to_owned(),
            ),
            (
                "name = \"a\", transports = [\"dot\"], then = \"drop\"",
                "4:38: forwarder.rules[0].transports[0]: invalid value \"dot\": expected one of udp, tcp, tls, https, \
                 http, quic"
                    .to_owned(),
            ),
            (
                "name = \"a\", names = [\"||ads.example^\"], then = \"drop\"",
                "4:33: forwarder.rules[0].names[0]: invalid value \"||ads.example^\": expected a name such as \
                 \"ads.example\", \"*.ads.example\" or \"=ads.example\" ('|' in a name: write it as \\124 if it is meant)"
                    .to_owned(),
            ),
            (
                "name = \"a\", type = \"A\", then = \"drop\"",
                "4:24: forwarder.rules[0]: unknown key \"type\", did you mean \"types\"?".to_owned(),
            ),
            (
                "name = \"a\", then = \"drop\" }, { name = \"a\", then = \"drop\"",
                "4:50: forwarder.rules[1].name: the name \"a\" is used twice, first on line 4".to_owned(),
            ),
        ] {
            check(&config(&format!("rules = [{{ {keys} }}]")), &[&expected]);
        }
        let many = "{ name = \"a\", then = \"drop\" },".repeat(MAX_RULES + 1);
        check(
            &config(&format!("rules = [{many}]")),
            &["4:9: forwarder.rules: there are 1001 rules, expected at most 1000: names_file takes a million names"],
        );
    }
}
