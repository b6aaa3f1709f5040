//! Access lists of zones: addresses, prefixes and keys.
//!
//! A list admits a client that meets any of its rules. A rule is `192.0.2.1`, `2001:db8::/32`, `key:NAME`, or
//! an address or prefix and a key that must both match: `192.0.2.0/24 key:NAME`. An empty list admits no
//! client.

use std::net::IpAddr;
use std::str::FromStr;

use dns::{Name, NameError};
use limit::{Prefix, PrefixError};

use super::tsig::TsigKey;

/// The rules of one operation, such as transfers of one zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessList(Vec<AclRule>);

impl AccessList {
    /// Makes a list of these rules.
    pub fn new(rules: Vec<AclRule>) -> Self {
        Self(rules)
    }

    /// Returns true if a client at this address, verified with this key, is allowed.
    pub fn allows(&self, address: IpAddr, key: Option<&TsigKey>) -> bool {
        self.0.iter().any(|rule| rule.holds(address, key))
    }

    /// Returns the keys in the rules, so that a config can be checked for them.
    pub fn keys(&self) -> impl Iterator<Item = &Name> {
        self.0.iter().filter_map(|rule| rule.key.as_ref())
    }

    /// Returns true if no client is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One rule: at least one condition, and all of them must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclRule {
    prefix: Option<Prefix>,
    key: Option<Name>,
}

impl AclRule {
    fn holds(&self, address: IpAddr, key: Option<&TsigKey>) -> bool {
        let is_near = self.prefix.is_none_or(|prefix| prefix.contains(address));
        is_near && self.key.as_ref().is_none_or(|name| key.is_some_and(|key| key.name() == name))
    }
}

impl FromStr for AclRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let mut rule = Self { prefix: None, key: None };
        for word in text.split_ascii_whitespace() {
            let is_repeated = match word.strip_prefix("key:") {
                Some(name) => rule.key.replace(name.parse::<Name>().map_err(RuleError::Key)?.folded()).is_some(),
                None => rule.prefix.replace(word.parse().map_err(RuleError::Prefix)?).is_some(),
            };
            if is_repeated {
                return Err(RuleError::Repeated);
            }
        }
        if rule.prefix.is_none() && rule.key.is_none() { Err(RuleError::Empty) } else { Ok(rule) }
    }
}

/// The error for a text that is no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Empty text.
    #[error("empty rule: write an address, a prefix, key:NAME, or a prefix and key:NAME")]
    Empty,
    /// Two prefixes or two keys.
    #[error("more than one prefix or key in one rule: write a rule for each")]
    Repeated,
    /// A part that is neither `key:NAME` nor a prefix.
    #[error("{}", match .0 {
        PrefixError::Address => "neither an IP address, a prefix such as 192.0.2.0/24, nor key:NAME".to_owned(),
        other => other.to_string(),
    })]
    Prefix(PrefixError),
    /// An invalid name of a key.
    #[error("bad name of a key: {0}")]
    Key(NameError),
}

#[cfg(test)]
mod tests {
    use super::super::tsig::Algorithm;
    use super::*;

    #[test]
    fn whoever_meets_a_rule_is_let_in() {
        let key = |name: &str| TsigKey::new(&name.parse().unwrap(), Algorithm::HmacSha256, b"s");
        let check = |rules: &[&str], address: &str, signed: Option<&str>, expected: bool| {
            let list = AccessList::new(rules.iter().map(|rule| rule.parse().unwrap()).collect());
            let signed = signed.map(key);
            assert_eq!(list.allows(address.parse().unwrap(), signed.as_ref()), expected, "{rules:?} {address}");
        };
        check(&[], "127.0.0.1", Some("k"), false);
        check(&["127.0.0.0/8"], "127.255.0.1", None, true);
        check(&["127.0.0.0/8"], "128.0.0.1", None, false);
        check(&["127.0.0.0/8"], "::ffff:127.0.0.1", None, true);
        check(&["192.0.2.1"], "192.0.2.1", None, true);
        check(&["192.0.2.1"], "192.0.2.2", None, false);
        check(&["0.0.0.0/0"], "192.0.2.1", None, true);
        check(&["0.0.0.0/0"], "::1", None, false);
        check(&["::/0"], "2001:db8::1", None, true);
        check(&["2001:db8::/33"], "2001:db8:7fff::1", None, true);
        check(&["2001:db8::/33"], "2001:db8:8000::1", None, false);
        check(&["key:K.example"], "192.0.2.1", Some("k.EXAMPLE"), true);
        check(&["key:k.example"], "192.0.2.1", Some("other"), false);
        check(&["key:k.example"], "192.0.2.1", None, false);
        check(&["192.0.2.0/24 key:k"], "192.0.2.1", Some("k"), true);
        check(&["192.0.2.0/24 key:k"], "192.0.2.1", None, false);
        check(&["192.0.2.0/24 key:k"], "192.0.3.1", Some("k"), false);
        check(&["192.0.2.0/24", "key:k"], "192.0.3.1", Some("k"), true);
    }

    #[test]
    fn texts_that_are_no_rules_are_told() {
        for (text, expected) in [
            ("", RuleError::Empty),
            ("k", RuleError::Prefix(PrefixError::Address)),
            ("192.0.2.1 192.0.2.2", RuleError::Repeated),
            ("key:a key:b", RuleError::Repeated),
            ("192.0.2.0/33", RuleError::Prefix(PrefixError::Length)),
            ("192.0.2.0/", RuleError::Prefix(PrefixError::Length)),
            ("192.0.2.0/+8", RuleError::Prefix(PrefixError::Length)),
            ("192.0.2.1/24", RuleError::Prefix(PrefixError::HostBits)),
            ("::1/64", RuleError::Prefix(PrefixError::HostBits)),
            ("key:a..b", RuleError::Key(NameError::EmptyLabel)),
        ] {
            let found = text.parse::<AclRule>().expect_err(text);
            assert_eq!(found, expected, "{text}");
        }
    }
}
