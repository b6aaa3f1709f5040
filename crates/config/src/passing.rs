//! Keys of a pool for the content of queries and replies that pass: `private_answers`, `private_names`,
//! `client_subnet`, `dns64`.

use dns::{Dns64Prefix, Name, NoDns64Prefix};

use super::readers::{integer, text, word};
use super::section::{ConfigNode, ConfigSection};
use super::words::{self, Expectation};

/// The content that a pool lets pass. By default, replies pass as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PassingRules {
    /// The fate of private addresses in replies.
    pub private_answers: PrivateAnswers,
    /// The names at and below which private addresses pass, folded.
    pub private_names: Vec<Name>,
    /// The network of the client in queries to backends.
    pub client_subnet: ClientSubnetRule,
    /// The prefix of addresses that are made of A records (RFC 6147).
    pub dns64: Option<Dns64Prefix>,
}

/// `pools.*.client_subnet` (RFC 7871).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientSubnetRule {
    /// None is sent.
    #[default]
    Strip,
    /// That of the client's own option.
    Pass,
    /// A prefix of the client's public address, with so many bits.
    Prefix {
        /// The bits of an IPv4 address.
        ipv4: u8,
        /// The bits of an IPv6 address.
        ipv6: u8,
    },
}

/// `pools.*.private_answers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrivateAnswers {
    /// They pass.
    #[default]
    Allow,
    /// Their records are removed.
    Drop,
}

pub(super) fn read(section: &mut ConfigSection<'_>, usual: &PassingRules) -> PassingRules {
    let private_answers = section.read("private_answers", usual.private_answers, word);
    let private_names = section.take("private_names").map(|node| {
        let items = node.any_items("[\"corp.example\"]");
        items.iter().filter_map(|item| Some(text(words::domain_name)(item)?.folded())).collect()
    });
    if private_names.is_some() && private_answers == PrivateAnswers::Allow && !section.is_described() {
        section.spot_of("private_names").note("all private addresses pass, write private_answers = \"drop\"");
    }
    PassingRules {
        private_answers,
        private_names: private_names.unwrap_or_else(|| usual.private_names.clone()),
        client_subnet: section.read("client_subnet", usual.client_subnet, client_subnet),
        dns64: section.optional("dns64", text(dns64_prefix)).or(usual.dns64),
    }
}

fn dns64_prefix(text: &str) -> Result<Dns64Prefix, Expectation> {
    let expected = "an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits, such as \"64:ff9b::/96\"";
    text.parse().map_err(|NoDns64Prefix| Expectation::new(expected))
}

fn client_subnet(node: &ConfigNode<'_>) -> Option<ClientSubnetRule> {
    node.table_or(word, |section| {
        // RFC 7871 section 11.1 recommends these lengths at most.
        let ipv4 = section.read("ipv4", 24, integer(1..=32));
        Some(ClientSubnetRule::Prefix { ipv4, ipv6: section.read("ipv6", 56, integer(1..=128)) })
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::super::tests::check;
    use super::*;

    fn passing(lines: &str) -> PassingRules {
        let text = format!("[forwarder]\n[pools.p]\nbackends = [\"192.0.2.1:53\"]\n{lines}");
        Config::parse(&text, "c.toml", Path::new("")).expect("a sound config").pools.remove(0).rules.passing
    }

    #[test]
    fn private_answers_are_read_and_checked() {
        assert_eq!(passing(""), PassingRules::default());
        let read = passing("private_answers = \"drop\"\nprivate_names = [\"Corp.example\", \"lan.\"]");
        let names = ["corp.example", "lan"].map(|name| name.parse().expect("a name")).to_vec();
        assert_eq!((read.private_answers, read.private_names), (PrivateAnswers::Drop, names));
        let start = "[forwarder]\n[pools.p]\nbackends = [\"192.0.2.1:53\"]\n";
        for (line, expected) in [
            (
                "private_answers = \"block\"",
                "4:19: pools.p.private_answers: invalid value \"block\": expected one of allow, drop",
            ),
            (
                "private_names = [\"corp.example\"]",
                "4:17: pools.p.private_names: all private addresses pass, write private_answers = \"drop\"",
            ),
        ] {
            check(&format!("{start}{line}\n"), &[expected]);
        }
    }

    #[test]
    fn client_subnets_are_read_and_checked() {
        let check_rule = |text: &str, expected| {
            assert_eq!(passing(&format!("client_subnet = {text}")).client_subnet, expected, "{text}");
        };
        check_rule("\"strip\"", ClientSubnetRule::Strip);
        check_rule("\"pass\"", ClientSubnetRule::Pass);
        check_rule("{}", ClientSubnetRule::Prefix { ipv4: 24, ipv6: 56 });
        check_rule("{ ipv4 = 20, ipv6 = 48 }", ClientSubnetRule::Prefix { ipv4: 20, ipv6: 48 });
        let start = "[forwarder]\n[pools.p]\nbackends = [\"192.0.2.1:53\"]\n";
        for (line, expected) in [
            (
                "client_subnet = \"add\"",
                "4:17: pools.p.client_subnet: invalid value \"add\": expected one of strip, pass",
            ),
            (
                "client_subnet = { ipv4 = 33 }",
                "4:26: pools.p.client_subnet.ipv4: invalid value 33: expected an integer from 1 to 32",
            ),
        ] {
            check(&format!("{start}{line}\n"), &[expected]);
        }
    }

    #[test]
    fn prefixes_for_dns64_are_read_and_checked() {
        assert_eq!(passing("dns64 = \"64:ff9b::/96\"").dns64, "64:ff9b::/96".parse().ok());
        let start = "[forwarder]\n[pools.p]\nbackends = [\"192.0.2.1:53\"]\n";
        let expected = "4:9: pools.p.dns64: invalid value \"64:ff9b::/95\": \
                        expected an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits, such as \"64:ff9b::/96\"";
        check(&format!("{start}dns64 = \"64:ff9b::/95\"\n"), &[expected]);
    }
}
