//! `[xdp]`: the interfaces that bypass the kernel's network stack by AF_XDP.

use super::Config;
use super::readers::{boolean, distinct, integer, text, word};
use super::section::{ConfigNode, ConfigSection};
use super::words::{Expectation, KeyWord};

config_section! {
    /// `[xdp]`.
    #[derive(Eq)]
    pub struct XdpConfig {
        /// The distinct interfaces; at least one.
        interfaces: Vec<XdpInterface> = Vec::new(), |node| {
            let items = node.items(INTERFACES_EXAMPLE);
            Some(distinct(items, read_interface, |interface| format!("interface {} is named", interface.name)))
        }, required INTERFACES_EXAMPLE;
        /// True if the server starts with sockets alone when AF_XDP is not available: slow service is better
        /// than none.
        fallback: bool = true, boolean;
    }
}

impl Config {
    /// Returns true if datagrams bypass the kernel on any interface.
    pub fn has_interfaces(&self) -> bool {
        self.xdp.is_some()
    }
}

/// One entry of `xdp.interfaces`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpInterface {
    /// The name in the kernel.
    pub name: String,
    /// The served queues, without duplicates. `None`: all queues.
    pub queues: Option<Vec<u32>>,
    /// The hook of the XDP program.
    pub mode: XdpMode,
    /// The use of zero-copy.
    pub zero_copy: ZeroCopy,
}

impl XdpInterface {
    /// An interface with default settings.
    pub fn of_name(name: String) -> Self {
        Self { name, queues: None, mode: XdpMode::default(), zero_copy: ZeroCopy::default() }
    }
}

/// `mode` of an interface: the hook of the XDP program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver if it supports XDP, else in the kernel's stack.
    #[default]
    Auto,
    /// In the driver; an error if that is not possible.
    Native,
    /// In the kernel's stack, regardless of the driver.
    Generic,
}

/// `zero_copy` of an interface: the use of shared frame memory by card and process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopy {
    /// If the driver supports it.
    #[default]
    Auto,
    /// Always; without driver support AF_XDP does not serve the interface.
    On,
    /// Never; the kernel copies frames.
    Off,
}

impl KeyWord for XdpMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("native", Self::Native), ("generic", Self::Generic)];
}

impl KeyWord for ZeroCopy {
    const WORDS: &'static [(&'static str, Self)] = &[("auto", Self::Auto), ("on", Self::On), ("off", Self::Off)];
}

/// Reads the section. A build without AF_XDP knows its keys, but rejects it. Unit tests read it in all
/// builds.
pub(super) fn read(document: &mut ConfigSection<'_>) -> Option<XdpConfig> {
    let config = document.below("xdp", XdpConfig::read_keys);
    if config.is_some() && !document.is_described() && !cfg!(any(feature = "xdp", test)) {
        let spot = document.spot_of("xdp");
        spot.note("this hedgerow is built without AF_XDP, remove the section or build with the cargo feature \"xdp\"");
    }
    config
}

fn read_interface(item: &ConfigNode<'_>) -> Option<XdpInterface> {
    let Some(section) = item.table() else { return item.parsed(interface_name).map(XdpInterface::of_name) };
    section.whole(|section| {
        let name = section.required("name", "\"eth0\"", text(interface_name));
        // Drivers set up one queue per CPU, if the card has as many.
        let queues = section.optional("queues", |node| {
            let items = node.items("[0, 1]");
            Some(distinct(items, |item| integer(0..=1023)(item), |queue| format!("queue {queue} is named")))
        });
        let mode = section.read("mode", XdpMode::default(), word);
        let zero_copy = section.read("zero_copy", ZeroCopy::default(), word);
        if let (ZeroCopy::On, XdpMode::Generic) = (zero_copy, mode) {
            let spot = section.spot_of("zero_copy");
            spot.note("a generic program gets copies, write mode = \"native\" or zero_copy = \"off\"");
        }
        Some(XdpInterface { name: name?, queues, mode, zero_copy })
    })
}

/// Reads an interface name by the rules of Linux (`dev_valid_name`).
fn interface_name(text: &str) -> Result<String, Expectation> {
    // 0xa0 is a space in Latin-1, the encoding that the kernel assumes.
    let is_refused = |octet: u8| matches!(octet, 0 | b'\t'..=b'\r' | b' ' | b'/' | b':' | 0xa0);
    let is_name = (1..=MAX_NAME).contains(&text.len()) && text != "." && text != "..";
    if !is_name || text.bytes().any(is_refused) {
        let what = "the name of an interface, 1 to 15 octets without spaces, / and :";
        return Err(Expectation::new(what).matching(INTERFACE_NAME));
    }
    Ok(text.to_owned())
}

/// Longest name in bytes: `IFNAMSIZ` is 16, including the terminator.
const MAX_NAME: usize = 15;

const INTERFACE_NAME: &str = "^[^/:\\s]{1,15}$";

const INTERFACES_EXAMPLE: &str = "[\"eth0\"]";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::check;
    use super::*;

    const REST: &str = "[authorities.a]\nlisten = [\"127.0.0.1:5301\"]\nzones = [\"a.txt\"]\n";

    fn check_read(content: &str, interfaces: Vec<XdpInterface>, fallback: bool) {
        let text = format!("[xdp]\n{content}\n{REST}");
        let config = Config::parse(&text, "c.toml", Path::new("")).unwrap_or_else(|p| panic!("{text}\n{p}"));
        assert_eq!(config.xdp, Some(XdpConfig { interfaces, fallback }), "{content}");
    }

    #[test]
    fn interfaces_are_names_or_tables() {
        let plain = |name: &str| XdpInterface::of_name(name.to_owned());
        check_read("interfaces = [\"eth0\"]", vec![plain("eth0")], true);
        check_read("interfaces = [\"eth0\", \"ens1f0np0.100\"]", vec![plain("eth0"), plain("ens1f0np0.100")], true);
        check_read("interfaces = [\"fifteen-octets-\"]\nfallback = false", vec![plain("fifteen-octets-")], false);
        check_read("interfaces = [{ name = \"eth0\" }]", vec![plain("eth0")], true);
        let queues = XdpInterface { queues: Some(vec![1_023, 0]), ..plain("eth0") };
        check_read(
            "interfaces = [{ name = \"eth0\", queues = [1023, 0] }, \"eth1\"]",
            vec![queues, plain("eth1")],
            true,
        );
    }

    #[test]
    fn every_word_is_read() {
        for mode in [XdpMode::Auto, XdpMode::Native, XdpMode::Generic] {
            for zero_copy in [ZeroCopy::Auto, ZeroCopy::On, ZeroCopy::Off] {
                if (mode, zero_copy) == (XdpMode::Generic, ZeroCopy::On) {
                    continue;
                }
                let words = format!("mode = \"{}\", zero_copy = \"{}\"", mode.word(), zero_copy.word());
                let interface = XdpInterface { mode, zero_copy, ..XdpInterface::of_name("eth0".to_owned()) };
                check_read(&format!("interfaces = [{{ name = \"eth0\", {words} }}]"), vec![interface], true);
            }
        }
    }

    #[test]
    fn without_the_section_there_are_sockets_only() {
        assert_eq!(Config::parse(REST, "c.toml", Path::new("")).expect("a config").xdp, None);
    }

    #[test]
    fn names_are_those_that_linux_takes() {
        let long = "sixteen-octets-x";
        for name in ["", long, "a/b", "a b", "a\tb", "eth0:1", ".", "..", "\u{a0}", "\0", "\u{b}"] {
            assert!(interface_name(name).is_err(), "{name:?}");
        }
        for name in ["a", &long[1..], "a.b", "wlp0s20f3", "é", "...", "eth0%1"] {
            assert_eq!(interface_name(name).as_deref(), Ok(name));
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let name = "expected the name of an interface, 1 to 15 octets without spaces, / and :";
        for (line, expected) in [
            ("", "1:1: xdp: interfaces is missing, write interfaces = [\"eth0\"]"),
            ("interfaces = []", "2:14: xdp.interfaces: expected at least one, such as [\"eth0\"]"),
            ("interfaces = \"eth0\"", "2:14: xdp.interfaces: expected an array such as [\"eth0\"], not a string"),
            ("interfaces = [0]", "2:15: xdp.interfaces[0]: expected a string: put the integer in quotes"),
            ("interfaces = [\"eth 0\"]", &format!("2:15: xdp.interfaces[0]: invalid value \"eth 0\": {name}")),
            ("interfaces = [\"a\", \"a\"]", "2:20: xdp.interfaces[1]: interface a is named twice, first on line 2"),
            (
                "interfaces = [\"a\", { name = \"a\", queues = [0] }]",
                "2:20: xdp.interfaces[1]: interface a is named twice, first on line 2",
            ),
            ("interfaces = [{ queues = [0] }]", "2:15: xdp.interfaces[0]: name is missing, write name = \"eth0\""),
            (
                "interfaces = [{ name = \"a\", queue = [0] }]",
                "2:29: xdp.interfaces[0]: unknown key \"queue\", did you mean \"queues\"?",
            ),
            (
                "interfaces = [{ name = \"a\", queues = [] }]",
                "2:38: xdp.interfaces[0].queues: expected at least one, such as [0, 1]",
            ),
            (
                "interfaces = [{ name = \"a\", queues = [0, 1, 0] }]",
                "2:45: xdp.interfaces[0].queues[2]: queue 0 is named twice, first on line 2",
            ),
            (
                "interfaces = [{ name = \"a\", queues = [1024] }]",
                "2:39: xdp.interfaces[0].queues[0]: invalid value 1024: expected an integer from 0 to 1023",
            ),
            (
                "interfaces = [{ name = \"a\", mode = \"nativ\" }]",
                "2:36: xdp.interfaces[0].mode: invalid value \"nativ\": expected one of auto, native, generic; \
                 did you mean \"native\"?",
            ),
            (
                "interfaces = [{ name = \"a\", zero_copy = true }]",
                "2:41: xdp.interfaces[0].zero_copy: expected one of auto, on, off, not a boolean",
            ),
            (
                "interfaces = [{ name = \"a\", zero_copy = \"on\", mode = \"generic\" }]",
                "2:41: xdp.interfaces[0].zero_copy: a generic program gets copies, write mode = \"native\" or \
                 zero_copy = \"off\"",
            ),
            ("interfaces = [\"a\"]\nfallback = 1", "3:12: xdp.fallback: expected true or false, not an integer"),
            (
                "interface = [\"a\"]\ninterfaces = [\"a\"]",
                "2:1: xdp: unknown key \"interface\", did you mean \"interfaces\"?",
            ),
        ] {
            check(&format!("[xdp]\n{line}\n{REST}"), &[expected]);
        }
    }
}
