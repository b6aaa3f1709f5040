//! The config file as a whole: its syntax, its top-level sections, and checks across them.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::backend::BackendReferences;
use super::description::Shape;
use super::listen::{self, ListenConfig, ListenReferences};
use super::problem::Problem;
use super::section::{ConfigNode, ConfigSection, DocumentSpot, Notes, quoted_if_needed};
use super::transfer::Claims;
use super::words::Expectation;
use super::{
    Config, Problems, SlowConfig, User, admin, authority, cache, discover, dnstap, forwarder, keys, limits, pool,
    query_log, slow, supervisor, traces, words, xdp,
};

pub(super) fn parse(
    text: &str,
    file: &str,
    folder: &Path,
    find_user: &dyn Fn(&str) -> Option<User>,
) -> Result<Config, Problems> {
    let notes = Notes::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // Broken TOML recovers only in part: half a file has half its pools, and problems with that would
        // hide the real ones.
        note_syntax(&notes, text, errors);
        return Err(Problems::new(notes.into_found()));
    }
    let config = read(ConfigSection::document(document.get_ref(), &notes), folder, find_user);
    let found = notes.into_found();
    if found.is_empty() { Ok(config) } else { Err(Problems::new(found)) }
}

pub(super) fn describe() -> Shape {
    let notes = Notes::new("", "");
    read(ConfigSection::described(&notes), Path::new(""), &|_| None);
    Shape::of(notes.into_facts())
}

pub(super) fn places(text: &str, file: &str) -> Vec<(String, String)> {
    let (document, _) = DeTable::parse_recoverable(text);
    let mut found = Vec::new();
    for (key, value) in document.get_ref() {
        add_places(value, &quoted_if_needed(key.get_ref()), &mut |value, span, path| {
            let place = Problem::new(file, text, Some(span), path, String::new()).headline();
            found.push((value.to_owned(), place.trim_end_matches(": ").to_owned()));
        });
    }
    found
}

fn add_places(value: &Spanned<DeValue<'_>>, path: &str, add: &mut dyn FnMut(&str, Range<usize>, &str)) {
    match value.get_ref() {
        DeValue::String(text) => add(text, value.span(), path),
        DeValue::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| add_places(item, &format!("{path}[{index}]"), add));
        }
        DeValue::Table(table) => table.iter().for_each(|(key, value)| {
            add_places(value, &format!("{path}.{}", quoted_if_needed(key.get_ref())), add);
        }),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}

fn note_syntax(notes: &Notes<'_>, text: &str, mut errors: Vec<toml::de::Error>) {
    let start = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
    errors.sort_by_key(start);
    errors.dedup_by_key(|error| text.bytes().take(start(error)).filter(|&octet| octet == b'\n').count());
    for error in errors {
        let message = error.message();
        let message = message.strip_suffix(", expected nothing").unwrap_or(message);
        notes.add(error.span(), "", message.to_owned());
    }
}

fn read(mut document: ConfigSection<'_>, folder: &Path, find_user: &dyn Fn(&str) -> Option<User>) -> Config {
    let workers = NonZeroUsize::new(document.integer("workers", limits::WORKERS, 0));
    let user = document.take("user").and_then(|node| node.parsed(|name| read_user(name, find_user)));
    let usual = Config::default();
    let watch = document.boolean("watch", usual.watch);
    let busy_poll = document.parsed("busy_poll", |text| limits::BUSY_POLL.parse(text), usual.busy_poll);
    let drain_delay = document.parsed("drain_delay", |text| limits::DRAIN_DELAY.parse(text), usual.drain_delay);
    let state_dir = document.take("state_dir").and_then(|node| node.parsed(folder_name));
    let forwarder_node = document.take("forwarder");
    let pool_defaults = document.section("defaults").map(pool::read_defaults).unwrap_or_default();
    let pool_nodes = read_named(document.section("pools"));
    let authorities_node = document.take("authorities");
    let certificate_nodes = read_named(document.section("certificates"));
    let key_nodes = read_named(document.section("keys"));
    let cache_section = document.section("cache");
    let admin_section = document.section("admin");
    let supervisor = document.section("supervisor").map(supervisor::read);
    let xdp = document.section("xdp").map(xdp::read);
    let slow = document.section("slow").map(slow::read);
    let query_log = document.section("query_log").map(|section| query_log::read(section, folder));
    let dnstap = document.section("dnstap").map(|section| dnstap::read(section, folder));
    let traces_section = document.section("traces");
    let traces_spot = traces_section.as_ref().map(|section| section.spot.clone());
    let traces = traces_section.map(traces::read);
    let etcd = document.section("etcd").map(|section| discover::read_etcd(section, folder));
    let mut etcd_uses = Vec::new();

    let certificates = listen::read_certificates(&certificate_nodes, folder);
    let mut listening = ListenReferences::default();
    let mut asked = BackendReferences::default();
    let pool_names: Vec<_> = pool_nodes.iter().map(|&(name, _)| name).collect();
    let sections = pool_nodes.iter().filter_map(|(name, node)| Some((name, node.section()?)));
    let pools = sections
        .map(|(name, section)| pool::read(name, section, &pool_defaults, folder, &mut asked, &mut etcd_uses))
        .collect();
    let forwarder = forwarder_node
        .and_then(|node| node.section())
        .map(|section| forwarder::read(section, &pool_names, folder, &mut listening));
    if let Some(forwarder) = &forwarder {
        note_loops(&forwarder.listen, &asked.addresses);
    }
    let authority_nodes = read_named(authorities_node.and_then(|node| node.section()));
    let sections = authority_nodes.iter().filter_map(|(name, node)| Some((name, node.section()?)));
    let mut claims = Claims::default();
    let authorities = sections
        .map(|(name, section)| authority::read(name, section, folder, &mut listening, &mut claims, &mut etcd_uses));
    let authorities = authorities.collect();
    discover::note_missing_etcd(etcd.as_ref(), etcd_uses);
    let keys = keys::read(&key_nodes, folder);
    let shown_to_primaries = std::mem::take(&mut claims.certificates);
    claims.check(&keys);

    let cache = cache_section.map(|section| cache::read(section, folder));
    let admin = admin_section.map(|section| admin::read(section, folder, &mut listening));

    let slow = slow.or_else(|| admin.is_some().then(SlowConfig::default));
    if let Some(spot) = &traces_spot {
        traces::check_source(spot, slow, forwarder.is_some());
    }
    asked.certificates.into_iter().chain(shown_to_primaries).for_each(|(name, spot)| listening.shows(name, spot));
    listening.check(&certificates);
    document.need_any(
        &["forwarder", "authorities"],
        "nothing to run, add [forwarder] with [pools.NAME], or [authorities.NAME]",
    );
    document.finish();
    Config {
        workers,
        user,
        watch,
        busy_poll,
        drain_delay,
        forwarder,
        pools,
        authorities,
        keys,
        certificates,
        cache,
        admin,
        supervisor,
        xdp,
        slow,
        query_log,
        dnstap,
        traces,
        etcd,
        state_dir: state_dir.map(|state_dir| folder.join(state_dir)),
    }
}

fn folder_name(text: &str) -> Result<String, Expectation> {
    match text.is_empty() {
        true => Err(Expectation::new("the name of a folder").matching(words::NOT_EMPTY)),
        false => Ok(text.to_owned()),
    }
}

fn read_user(name: &str, find_user: &dyn Fn(&str) -> Option<User>) -> Result<User, Expectation> {
    match find_user(name) {
        Some(User { uid: 0, .. }) => Err(Expectation::new("a user without root's rights")),
        Some(user) => Ok(user),
        None => Err(Expectation::new("the name of a user of this host, as in /etc/passwd; useradd --system makes one")),
    }
}

fn read_named<'d>(section: Option<ConfigSection<'d>>) -> Vec<(&'d str, ConfigNode<'d>)> {
    section.map(|section| section.named()).unwrap_or_default()
}

/// Reports backends that are the forwarder itself. `load/loops.rs` checks wildcard listeners.
fn note_loops(listen: &[ListenConfig], asked: &[(SocketAddr, DocumentSpot<'_>)]) {
    for (address, spot) in asked {
        let ip = address.ip().to_canonical();
        let is_here = ip.is_loopback() || ip.is_unspecified();
        let is_all = |own: SocketAddr| is_here && own.ip().is_unspecified() && own.port() == address.port();
        if listen.iter().map(ListenConfig::socket).any(|own| own == *address || is_all(own)) {
            spot.note(format!("{address} is this forwarder itself, expected another server"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn broken_toml_is_told_before_anything_else() {
        check(
            "worker = 1\na = \nb = 1__0\n[e]\n[e]\n[d\n",
            &[
                "2:5: string values must be quoted, expected literal string",
                "3:6: `_` may only go between digits",
                "5:2: duplicate key",
                "6:3: unclosed table, expected `]`",
            ],
        );
    }

    #[test]
    fn something_must_be_there_to_run() {
        let expected = " nothing to run, add [forwarder] with [pools.NAME], or [authorities.NAME]";
        check("", &[expected]);
        check("[pools.ts]\nbackends = [\"192.0.2.1:53\"]", &[expected]);
        check("[forwarder]", &["1:1: forwarder: there are no pools, add [pools.NAME] with backends"]);
    }

    #[test]
    fn sections_of_the_top_are_known() {
        let one = "[authorities.a]\nlisten = [\"127.0.0.1:53\"]\nzones = [\"a.txt\"]\n";
        for (line, expected) in [
            (
                "database = 1",
                "1:1: unknown key \"database\", expected one of workers, user, watch, busy_poll, drain_delay, state_dir, forwarder, defaults, pools, authorities, certificates, keys, cache, admin, supervisor, xdp, slow, query_log, dnstap, traces, etcd",
            ),
            ("cache = 1", "1:9: cache: expected a table, not an integer"),
            ("forwader = 1", "1:1: unknown key \"forwader\", did you mean \"forwarder\"?"),
            ("forwarder = [{}]", "1:13: forwarder: expected a table, not an array"),
            ("pools = 1", "1:9: pools: expected a table, not an integer"),
            ("pools.ts = 1", "1:12: pools.ts: expected a table, not an integer"),
        ] {
            check(&format!("{line}\n{one}"), &[expected]);
        }
        check("authorities.b = 1", &["1:17: authorities.b: expected a table, not an integer"]);
        check("authorities = []", &["1:15: authorities: expected a table, not an array"]);
        for (value, what) in [
            ("1025", "invalid value 1025: expected an integer from 0 to 1024"),
            ("-1", "invalid value -1: expected an integer from 0 to 1024"),
            ("\"all\"", "expected an integer from 0 to 1024, not a string"),
            ("0xffff", "invalid value 0xffff: expected an integer from 0 to 1024"),
            ("99999999999999999999", "invalid value 99999999999999999999: expected an integer from 0 to 1024"),
        ] {
            check(&format!("workers = {value}\n{one}"), &[&format!("1:11: workers: {what}")]);
        }
        for (value, what) in [
            ("\"1001us\"", "invalid value \"1001us\": expected a duration from 0s to 1ms"),
            ("\"on\"", "invalid value \"on\": expected a duration such as \"250ms\" or \"3s\""),
            ("20", "expected a duration with its unit, such as \"20s\" or \"20ms\", not an integer"),
        ] {
            check(&format!("busy_poll = {value}\n{one}"), &[&format!("1:13: busy_poll: {what}")]);
        }
        let what = "invalid value \"6m\": expected a duration from 0s to 5m";
        check(&format!("drain_delay = \"6m\"\n{one}"), &[&format!("1:15: drain_delay: {what}")]);
    }

    #[test]
    fn a_user_is_one_of_this_host() {
        let users = |name: &str| {
            let uid = ["root", "nobody"].iter().position(|known| *known == name)? as u32;
            Some(User { name: name.to_owned(), uid, gid: 7 })
        };
        let read = |name: &str| {
            let text =
                format!("user = \"{name}\"\n[authorities.a]\nlisten = [\"127.0.0.1:53\"]\nzones = [\"a.txt\"]\n");
            Config::parse_among(&text, "c.toml", Path::new(""), &users).map_err(|problems| problems.to_string())
        };
        assert_eq!(read("nobody").expect("a config").user, Some(User { name: "nobody".to_owned(), uid: 1, gid: 7 }));
        for (name, expected) in [
            ("nobdy", "c.toml:1:8: user: invalid value \"nobdy\": expected the name of a user of this host"),
            ("root", "c.toml:1:8: user: invalid value \"root\": expected a user without root's rights"),
        ] {
            let message = read(name).expect_err("no such user");
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn listeners_do_not_share_an_address() {
        let text = r#"
[authorities.a]
listen = ["127.0.0.1:5300", "127.0.0.1:0"]
zones = ["a.txt"]
[authorities.b]
listen = ["[::1]:53", "127.0.0.1:0", "[::1]:53"]
zones = ["a.txt"]
[forwarder]
[pools.ts]
backends = ["192.0.2.1:53"]
"#;
        check(
            text,
            &[
                "6:38: authorities.b.listen[2]: [::1]:53 is listened on twice, first on line 6",
                "8:1: forwarder: 127.0.0.1:5300 is listened on twice, first on line 3",
            ],
        );
    }
}
