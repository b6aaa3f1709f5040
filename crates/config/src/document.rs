//! The config file as a whole: its syntax, its top-level sections, and checks across them.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::description::Shape;
use super::limits::{self, ms, secs};
use super::problem::Problem;
use super::readers::{boolean, duration, integer, text};
use super::references::References;
use super::section::{ConfigNode, ConfigSection, Notes, quoted_if_needed};
use super::supervisor::SupervisorConfig;
use super::taps::{self, SlowConfig};
use super::words::{self, Expectation};
use super::{
    Config, Problems, ProcessConfig, User, admin, authority, cache, discover, forwarder, keys, listen, pool, warnings,
    xdp,
};

pub(super) fn parse(
    text: &str,
    file: &str,
    folder: &Path,
    find_user: &dyn Fn(&str) -> Option<User>,
) -> Result<Config, Problems> {
    let notes = Notes::new(file, text, folder);
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // Broken TOML recovers only in part: half a file has half its pools, and problems with that would
        // hide the real ones.
        note_syntax(&notes, text, errors);
        return Err(Problems::new(notes.into_found()));
    }
    let config = ConfigSection::document(document.get_ref(), &notes).whole(|document| read(document, find_user));
    let found = notes.into_found();
    if found.is_empty() { Ok(config) } else { Err(Problems::new(found)) }
}

pub(super) fn warnings(text: &str, file: &str) -> Vec<String> {
    let notes = Notes::new(file, text, Path::new(""));
    let Ok(document) = DeTable::parse(text) else { return Vec::new() };
    ConfigSection::document(document.get_ref(), &notes).whole(|document| read(document, &|_| None));
    let found = notes.into_warnings();
    if found.is_empty() { Vec::new() } else { Problems::new(found).iter().map(Problem::headline).collect() }
}

pub(super) fn describe() -> Shape {
    let notes = Notes::new("", "", Path::new(""));
    ConfigSection::described(&notes).whole(|document| read(document, &|_| None));
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

fn read(document: &mut ConfigSection<'_>, find_user: &dyn Fn(&str) -> Option<User>) -> Config {
    let usual = ProcessConfig::default();
    let process = ProcessConfig {
        workers: NonZeroUsize::new(document.read("workers", 0, integer(limits::WORKERS))),
        user: document.optional("user", text(|name| read_user(name, find_user))),
        watch: document.read("watch", usual.watch, boolean),
        // Above the maximum a worker would never sleep.
        busy_poll: document.read("busy_poll", usual.busy_poll, duration(ms(0)..=ms(1))),
        // systemd and Kubernetes kill a process that takes longer to end.
        drain_delay: document.read("drain_delay", usual.drain_delay, duration(ms(0)..=secs(300))),
        state_dir: document
            .optional("state_dir", text(|text| words::non_empty(text, "the name of a folder")))
            .map(|state_dir| document.folder().join(state_dir)),
    };
    let mut config = Config { process, ..Config::default() };
    let forwarder = document.take("forwarder");
    let pool_defaults = document.below("defaults", pool::read_defaults).unwrap_or_default();
    let pools = named(document, "pools");
    let authorities = document.take("authorities");
    let tables = named(document, "certificates");
    config.certificates = tables.iter().filter_map(|(name, node)| listen::read_certificate(name, node)).collect();
    let tables = named(document, "keys");
    config.keys = tables.iter().filter_map(|(name, node)| keys::read(name, node)).collect();
    config.cache = document.below("cache", cache::read);
    let admin = document.section("admin");
    config.supervisor = document.below("supervisor", SupervisorConfig::read_keys);
    config.xdp = xdp::read(document);
    config.taps = taps::read(document);
    config.etcd = document.below("etcd", discover::read_etcd);

    let mut references = References::default();
    for (name, node) in &pools {
        let read = |section: &mut _| pool::read(name, section, &pool_defaults, &mut references);
        config.pools.extend(node.section().map(|section| section.whole(read)));
    }
    let names: Vec<_> = pools.iter().map(|&(name, _)| name).collect();
    let read = |section: &mut _| forwarder::read(section, &names, &mut references);
    config.forwarder = forwarder.and_then(|node| node.section()).map(|section| section.whole(read));
    warnings::check_use(&config, &pools);
    if let Some(forwarder) = &config.forwarder {
        references.note_loops(&forwarder.listen);
    }
    for (name, node) in authorities.and_then(|node| node.section()).iter().flat_map(ConfigSection::named) {
        let read = |section: &mut _| authority::read(name, section, &mut references);
        config.authorities.extend(node.section().map(|section| section.whole(read)));
    }
    config.admin = admin.map(|section| section.whole(|section| admin::read(section, &mut references)));
    config.taps.slow = config.taps.slow.or_else(|| config.admin.is_some().then(SlowConfig::default));
    if config.taps.traces.is_some() {
        taps::check_source(&document.spot_of("traces"), config.taps.slow, config.forwarder.is_some());
    }
    references.check(&config.certificates, &config.keys, config.etcd.as_ref());
    document.need_any(
        &["forwarder", "authorities"],
        "nothing to run, add [forwarder] with [pools.NAME], or [authorities.NAME]",
    );
    config
}

fn named<'d>(document: &mut ConfigSection<'d>, key: &'static str) -> Vec<(&'d str, ConfigNode<'d>)> {
    document.section(key).map(|section| section.named()).unwrap_or_default()
}

fn read_user(name: &str, find_user: &dyn Fn(&str) -> Option<User>) -> Result<User, Expectation> {
    match User::from_ids(name).or_else(|| find_user(name)) {
        Some(User { uid: 0, .. }) => Err(Expectation::new("a user without root's rights")),
        Some(user) => Ok(user),
        None => Err(Expectation::new(
            "the name of a user of this host, as in /etc/passwd (useradd --system makes one), or UID:GID, such as 990:990",
        )),
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
            Some(User { name: name.to_owned(), uid, gid: 7, groups: vec![7, 8] })
        };
        let read = |name: &str| {
            let text =
                format!("user = \"{name}\"\n[authorities.a]\nlisten = [\"127.0.0.1:53\"]\nzones = [\"a.txt\"]\n");
            Config::parse_among(&text, "c.toml", Path::new(""), &users).map_err(|problems| problems.to_string())
        };
        let user = |name: &str| read(name).expect("a config").process.user.expect("a user");
        assert_eq!(user("nobody"), User { name: "nobody".to_owned(), uid: 1, gid: 7, groups: vec![7, 8] });
        // No host needs to know these numbers.
        let ids = user("65534:65533");
        assert_eq!((ids.uid, ids.gid, &*ids.groups, ids.owner()), (65534, 65533, &[][..], "65534"));
        assert_eq!(user("990:0").gid, 0);
        for name in
            ["nobdy", "990", "990:", ":990", "990:990:990", "+990:990", "-1:990", "4294967295:990", "990:4294967295"]
        {
            let message = read(name).expect_err("no such user");
            let place = format!("c.toml:1:8: user: invalid value {name:?}: ");
            let expected =
                "expected the name of a user of this host, as in /etc/passwd (useradd --system makes one), or UID:GID";
            assert!(message.starts_with(&format!("{place}{expected}")), "{message}");
        }
        for name in ["root", "0:0", "0:990", "00:990"] {
            let message = read(name).expect_err("root");
            let place = format!("c.toml:1:8: user: invalid value {name:?}: ");
            assert!(message.starts_with(&format!("{place}expected a user without root's rights")), "{message}");
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
