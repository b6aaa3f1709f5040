//! RFC 9432, catalog zones: the real binary as consumer and as producer, with itself and with Knot, BIND and
//! PowerDNS. What is read of a catalog, and whose word counts, has its tables in
//! `crates/zone/src/transfer/catalog/tests.rs`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use testkit::peers::catalog::{CATALOG, CatalogPeer, member_text};
use testkit::tree::Tree;
use testkit::*;

/// Asks a server for the host of a zone.
fn ask(server: SocketAddr, zone: &str) -> Option<Response> {
    Client::of(server).try_ask(&query(&format!("www.{zone}"), A))
}

/// Waits until a server answers from the first version of a zone.
fn wait_for_zone(server: SocketAddr, zone: &str) {
    until(&format!("{zone} at {server}"), || (ask(server, zone)?.answers() == ["192.0.2.1"]).then_some(()));
}

/// Waits until a server has a zone no more.
fn wait_until_gone(server: SocketAddr, zone: &str) {
    until(&format!("no {zone} at {server}"), || (ask(server, zone)?.rcode() == REFUSED).then_some(()));
}

/// The text of a catalog that lists zones by their labels: `zone=label`, and `>catalog` for a `coo`.
fn catalog_text(serial: u32, version: &str, members: &str) -> String {
    let mut text = format!("$TTL 0\n@ SOA invalid. invalid. {serial} 3600 3600 86400 0\n@ NS invalid.\n{version}\n");
    for member in members.split_whitespace() {
        let (member, coo) = member.split_once('>').map_or((member, None), |(member, coo)| (member, Some(coo)));
        let (zone, label) = member.split_once('=').expect("a zone and its label");
        text += &format!("{label}.zones PTR {zone}.\n");
        text += &coo.map_or_else(String::new, |coo| format!("coo.{label}.zones PTR {coo}.\n"));
    }
    text
}

/// The version that all catalogs have.
const VERSION: &str = "version TXT \"2\"";

/// Zones that the primary of these tests has.
const ZONES: [&str; 12] = [
    "a.example",
    "b.example",
    "c.example",
    "d.example",
    "e.example",
    "f.example",
    "g.example",
    "h.example",
    "i.example",
    "a.other",
    "b.other",
    "c.other",
];

/// A primary whose catalogs are written by the test, and a consumer of them.
struct Pair {
    primary: Server,
    consumer: Server,
    /// Where the consumer saves.
    folder: TempDir,
    /// How the consumer has the catalog besides.
    settings: String,
}

impl Pair {
    /// A consumer of `cat.example`, which lists these zones at first.
    fn start(members: &str, settings: &str) -> Self {
        let zones: String = ZONES
            .iter()
            .map(|zone| format!("{{ file = 'member.zone', origin = '{zone}', transfer_to = ['127.0.0.1'] }},\n"))
            .collect();
        let address = free_address();
        let catalog = |name: &str, file: &str| {
            format!(
                "{{ file = '{file}', origin = '{name}', transfer_to = ['127.0.0.1'], also_notify = ['{address}'] }},\n"
            )
        };
        let config = format!(
            "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [\n{}{}{zones}]\n",
            catalog(CATALOG, "cat.zone"),
            catalog("second.example", "second.zone"),
        );
        let files = [
            ("member.zone", member_text(1)),
            ("cat.zone", catalog_text(1, VERSION, members)),
            ("second.zone", catalog_text(1, VERSION, "")),
        ];
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let primary = Server::start_with_files(&config, &files);
        let folder = TempDir::new().expect("a temporary folder");
        let consumer = consumer(address, primary.listener("ts"), folder.path(), settings);
        Self { primary, consumer, folder, settings: settings.to_owned() }
    }

    /// Another version of a catalog; waits until the consumer has it.
    fn set(&self, catalog: &str, file: &str, text: &str, serial: u32) {
        self.primary.reload(file, text);
        self.consumer.process.wait_for_log(&format!("transferred zone={catalog}. serial={serial} "));
    }

    /// Another version of `cat.example`.
    fn list(&self, serial: u32, members: &str) {
        self.set(CATALOG, "cat.zone", &catalog_text(serial, VERSION, members), serial);
    }

    fn address(&self) -> SocketAddr {
        self.consumer.listener("ts")
    }

    /// Ends the consumer and starts it again, with the primary at this address.
    fn restart(self, primary: SocketAddr) -> (Server, Server, TempDir) {
        let Self { primary: server, consumer: running, folder, settings } = self;
        let address = running.listener("ts");
        drop(running);
        let again = consumer(address, primary, folder.path(), &settings);
        (server, again, folder)
    }

    /// Files of zones that catalogs list.
    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join("members").join("ts")).into_iter().flatten();
        let files = entries.map(|entry| entry.expect("an entry").path());
        files.filter(|file| file.extension().is_some_and(|extension| extension == "zone")).collect()
    }
}

/// A consumer of two catalogs, both of one primary.
fn consumer(address: SocketAddr, primary: SocketAddr, folder: &Path, settings: &str) -> Server {
    let (folder, settings) = (folder.display(), settings.replace("PRIMARY", &primary.to_string()));
    Server::start(&format!(
        "[admin]\nlisten = '127.0.0.1:0'\n[authorities.ts]\nlisten = ['{address}']\nzones = [\n\
         {{ catalog = '{CATALOG}', primaries = ['{primary}'], file = '{folder}/cat.zone'{settings} }},\n\
         {{ catalog = 'second.example', primaries = ['{primary}'], file = '{folder}/second.zone' }} ]\n"
    ))
}

/// Returns all zones as the admin server reports them, by name: state and catalog.
fn zones(server: &Server) -> Vec<(String, String, String)> {
    let report: Value = serde_json::from_str(&server.admin().get("/api/v1/zones").body).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let zones = report["zones"].as_array().expect("a list of zones");
    zones.iter().map(|zone| (text(&zone["name"]), text(&zone["state"]), text(&zone["catalog"]))).collect()
}

/// The metric that a catalog of the consumer has.
fn metric(server: &Server, name: &str, catalog: &str) -> u64 {
    server.admin().metrics().sum(name, &[("authority", "ts"), ("catalog", catalog)])
}

#[test]
fn zones_come_and_go_with_what_is_listed() {
    let pair = Pair::start("a.example=1 b.example=2", "");
    let address = pair.address();
    wait_for_zone(address, "a.example");
    wait_for_zone(address, "b.example");
    assert_eq!(ask(address, "c.example").expect("an answer").rcode(), REFUSED);
    until("both are saved", || (pair.files().len() == 2).then_some(()));
    pair.list(2, "b.example=2 c.example=3");
    wait_for_zone(address, "c.example");
    wait_until_gone(address, "a.example");
    until("the files of what has gone are gone", || {
        let files = pair.files();
        (files.len() == 2 && !files.iter().any(|file| file.display().to_string().contains("a.example"))).then_some(())
    });
    let reported = zones(&pair.consumer);
    assert!(reported.contains(&("c.example.".into(), "served".into(), "cat.example.".into())), "{reported:?}");
    assert!(reported.contains(&("cat.example.".into(), "served".into(), "-".into())), "{reported:?}");
    assert_eq!(metric(&pair.consumer, "hedgerow_catalog_members", "cat.example."), 2);
    let served = pair.consumer.admin().metrics().sum("hedgerow_zones", &[("authority", "ts"), ("state", "served")]);
    assert_eq!(served, 4, "two catalogs and what they list");
    let shown =
        pair.consumer.process.ctl(&["zones", "--admin", &format!("http://{}", pair.consumer.listener("admin"))]);
    let shown = String::from_utf8(shown.stdout).expect("UTF-8");
    assert!(shown.contains("b.example.") && shown.contains("MEMBERS"), "{shown}");
}

#[test]
fn section_5_1_a_broken_catalog_is_not_processed() {
    let pair = Pair::start("a.example=1", "");
    wait_for_zone(pair.address(), "a.example");
    for (serial, text, reason) in [
        (2, catalog_text(2, "", "b.example=1"), "it has no version record"),
        (3, catalog_text(3, "version TXT \"1\"", "b.example=1"), "its version is"),
        (4, catalog_text(4, VERSION, "b.example=1 b.example=2"), "it lists b.example. more than once"),
        (5, catalog_text(5, VERSION, "b.example=1 c.example=1"), "1.zones lists more than one zone"),
    ] {
        pair.set(CATALOG, "cat.zone", &text, serial);
        pair.consumer.process.wait_for_log(reason);
        assert_eq!(metric(&pair.consumer, "hedgerow_catalog_broken", "cat.example."), 1, "{reason}");
        assert_eq!(ask(pair.address(), "a.example").expect("an answer").answers(), ["192.0.2.1"]);
    }
    let refused = pair.consumer.admin().try_post(&format!("/api/v1/accept/{CATALOG}"), "");
    assert!(refused.status == 409 && refused.body.contains("is broken"), "{}", refused.body);
    // What was had is had after a restart too, though the catalog that was saved last is broken.
    let nobody = free_address();
    let (_primary, consumer, _folder) = pair.restart(nobody);
    assert_eq!(ask(consumer.listener("ts"), "a.example").expect("an answer").answers(), ["192.0.2.1"]);
    assert_eq!(metric(&consumer, "hedgerow_catalog_broken", "cat.example."), 1);
}

#[test]
fn section_5_1_an_expired_catalog_keeps_its_zones() {
    let pair = Pair::start("a.example=1", "");
    wait_for_zone(pair.address(), "a.example");
    let text = catalog_text(2, VERSION, "a.example=1").replace("3600 3600 86400", "2 1 3");
    pair.set(CATALOG, "cat.zone", &text, 2);
    let Pair { primary, consumer, folder: _folder, .. } = pair;
    drop(primary);
    consumer.process.wait_for_log("the zone has expired");
    assert_eq!(ask(consumer.listener("ts"), "a.example").expect("an answer").answers(), ["192.0.2.1"]);
    assert_eq!(metric(&consumer, "hedgerow_catalog_members", "cat.example."), 1);
}

#[test]
fn section_5_4_another_label_begins_anew() {
    let pair = Pair::start("a.example=1 b.example=2", "");
    wait_for_zone(pair.address(), "a.example");
    until("both are saved", || (pair.files().len() == 2).then_some(()));
    let before = pair.files();
    pair.list(2, "a.example=other b.example=2");
    until("it has another file", || {
        let after = pair.files();
        let changed = after.iter().filter(|file| !before.contains(file)).count();
        (after.len() == 2 && changed == 1).then_some(())
    });
    wait_for_zone(pair.address(), "a.example");
    let log = pair.consumer.process.log();
    assert_eq!(log.matches("transferred zone=a.example. ").count(), 2, "{log}");
    assert_eq!(log.matches("transferred zone=b.example. ").count(), 1, "{log}");
}

#[test]
fn section_4_3_1_a_zone_moves_without_a_gap() {
    let pair = Pair::start("a.example=1 b.example=2", "");
    wait_for_zone(pair.address(), "a.example");
    let owner = |zone: &str| zones(&pair.consumer).into_iter().find(|(name, ..)| name == zone).map(|(.., owner)| owner);
    // The other one lists it, but this one does not give it away.
    pair.set("second.example", "second.zone", &catalog_text(2, VERSION, "a.example=1"), 2);
    pair.consumer.process.wait_for_log("which catalog cat.example. has: it stays there");
    assert_eq!(owner("a.example.").as_deref(), Some("cat.example."));
    pair.list(2, "a.example=1>second.example b.example=2");
    until("it has moved", || (owner("a.example.").as_deref() == Some("second.example.")).then_some(()));
    assert_eq!(ask(pair.address(), "a.example").expect("an answer").answers(), ["192.0.2.1"]);
    pair.list(3, "b.example=2");
    assert_eq!(ask(pair.address(), "a.example").expect("an answer").answers(), ["192.0.2.1"]);
    let log = pair.consumer.process.log();
    assert_eq!(log.matches("transferred zone=a.example. ").count(), 1, "nothing begins anew: {log}");
    // And is gone when its new owner says so.
    pair.set("second.example", "second.zone", &catalog_text(3, VERSION, ""), 3);
    wait_until_gone(pair.address(), "a.example");
}

#[test]
fn section_7_what_a_catalog_may_list_is_limited() {
    let pair = Pair::start("a.example=1 a.other=2", ", allow = ['example']");
    wait_for_zone(pair.address(), "a.example");
    pair.consumer.process.wait_for_log("lists a.other., which its allow does not name");
    assert_eq!(ask(pair.address(), "a.other").expect("an answer").rcode(), REFUSED);
    // A reload lets it list more; and the config has a zone of its own, which wins.
    let config = std::fs::read_to_string(pair.consumer.path("config.toml")).expect("it is there");
    let own = "{ file = 'own.zone', origin = 'a.example' }, { catalog = 'cat";
    pair.consumer.rewrite("own.zone", &member_text(9));
    let config =
        config.replace("allow = ['example']", "allow = ['example', 'other']").replacen("{ catalog = 'cat", own, 1);
    pair.consumer.reload("config.toml", &config);
    wait_for_zone(pair.address(), "a.other");
    pair.consumer.process.wait_for_log("lists a.example., which the config has: the config wins");
    assert_eq!(ask(pair.address(), "a.example").expect("an answer").answers(), ["192.0.2.9"]);
}

#[test]
fn a_catalog_takes_no_names_from_zones_and_tables_of_the_config() {
    let pair = Pair::start("www.own.example=1 table.example=2 a.example=3", "");
    wait_for_zone(pair.address(), "a.example");
    let config = std::fs::read_to_string(pair.consumer.path("config.toml")).expect("it is there");
    let own = "{ file = 'own.zone', origin = 'own.example' }, 'hosts.txt', { catalog = 'cat";
    let config = config.replacen("{ catalog = 'cat", own, 1);
    pair.consumer.rewrite("own.zone", &member_text(9));
    pair.consumer.rewrite("hosts.txt", "www.table.example 192.0.2.3 A\n");
    pair.consumer.reload("config.toml", &config);
    for note in
        ["lists www.own.example., which is below own.example. of the config", "lists table.example., which covers"]
    {
        pair.consumer.process.wait_for_log(note);
    }
    let is_answered = |zone: &str, address: &str| {
        until(zone, || (ask(pair.address(), zone)?.answers() == [address]).then_some(()));
    };
    is_answered("own.example", "192.0.2.9");
    is_answered("table.example", "192.0.2.3");
    // The primary does not have the zone, so it is without an answer where the catalog may give it.
    let allow = "allow = ['own.example', 'example'], primaries";
    pair.consumer.reload("config.toml", &config.replacen("primaries", allow, 1));
    until("the zone of the catalog", || (ask(pair.address(), "own.example")?.rcode() == SERVFAIL).then_some(()));
    is_answered("table.example", "192.0.2.3");
}

#[test]
fn a_catalog_gives_at_most_max_members_and_no_other_labels_at_once() {
    let list = |label: &str| ZONES[..9].iter().map(|zone| format!("{zone}={label}{} ", &zone[..1])).collect::<String>();
    let pair = Pair::start(&list("l"), ", max_members = 8");
    ZONES[..8].iter().for_each(|zone| wait_for_zone(pair.address(), zone));
    pair.consumer.process.wait_for_log("lists 1 zones more than its max_members of 8: left out");
    assert_eq!(ask(pair.address(), ZONES[8]).expect("an answer").rcode(), REFUSED);
    pair.list(2, &list("other"));
    pair.consumer.process.wait_for_log("the catalog no longer lists 8 of 8 zones");
    for zone in &ZONES[..8] {
        assert_eq!(ask(pair.address(), zone).expect("an answer").answers(), ["192.0.2.1"], "{zone}");
    }
}

#[test]
fn the_loss_of_most_zones_is_doubted_until_somebody_takes_it() {
    let all: String = ZONES.iter().enumerate().map(|(label, zone)| format!("{zone}=l{label} ")).collect();
    let pair = Pair::start(&all, "");
    ZONES.iter().for_each(|zone| wait_for_zone(pair.address(), zone));
    pair.list(2, "a.example=l0");
    pair.consumer.process.wait_for_log("the catalog no longer lists 11 of 12 zones");
    assert_eq!(metric(&pair.consumer, "hedgerow_catalog_broken", "cat.example."), 1);
    assert_eq!(metric(&pair.consumer, "hedgerow_catalog_members", "cat.example."), 12);
    let status: Value = serde_json::from_str(&pair.consumer.admin().get("/api/v1/status").body).expect("JSON");
    assert_eq!(status["catalogs"][0]["state"], "doubted", "{status}");
    let unknown = pair.consumer.admin().try_post("/api/v1/accept/cat.exampel", "");
    assert!(unknown.status == 404 && unknown.body.contains("did you mean"), "{}", unknown.body);
    // It is doubted after a restart as well.
    let nobody = free_address();
    let (_primary, consumer, _folder) = pair.restart(nobody);
    let address = consumer.listener("ts");
    for zone in ZONES {
        assert_eq!(ask(address, zone).expect("an answer").answers(), ["192.0.2.1"], "{zone}");
    }
    assert_eq!(metric(&consumer, "hedgerow_catalog_broken", "cat.example."), 1);
    let socket = consumer.process.admin_socket(consumer.listener("admin"));
    let done = consumer.process.ctl(&["accept", CATALOG, "--admin", &format!("unix:{}", socket.display())]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && said.contains("11 zones are removed, 1 remain"), "{done:?}");
    for zone in &ZONES[1..] {
        assert_eq!(ask(address, zone).expect("an answer").rcode(), REFUSED, "{zone}");
    }
    assert_eq!(ask(address, "a.example").expect("an answer").answers(), ["192.0.2.1"]);
    assert_eq!(metric(&consumer, "hedgerow_catalog_broken", "cat.example."), 0);
    let again = consumer.admin().try_post(&format!("/api/v1/accept/{CATALOG}"), "");
    assert!(again.status == 409 && again.body.contains("is not doubted"), "{}", again.body);
}

#[test]
fn groups_have_settings_of_their_own() {
    let nobody = free_address();
    let settings = format!(", members = {{ primaries = ['{nobody}'] }}, groups.red = {{ primaries = ['PRIMARY'] }}");
    let pair = Pair::start("", &settings);
    let address = pair.address();
    let text =
        catalog_text(2, VERSION, "a.example=1 b.example=2") + "group.1.zones TXT \"red\"\ngroup.2.zones TXT \"blue\"\n";
    pair.set(CATALOG, "cat.zone", &text, 2);
    wait_for_zone(address, "a.example");
    assert_eq!(ask(address, "b.example").expect("an answer").rcode(), SERVFAIL);
    // Another group: it goes on with what it has, by other settings.
    let text = catalog_text(3, VERSION, "a.example=1 b.example=2") + "group.2.zones TXT \"red\"\n";
    pair.set(CATALOG, "cat.zone", &text, 3);
    wait_for_zone(address, "b.example");
    assert_eq!(ask(address, "a.example").expect("an answer").answers(), ["192.0.2.1"]);
}

#[test]
fn a_few_zones_are_transferred_at_a_time() {
    // Takes connections and says nothing.
    let primary = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = primary.local_addr().expect("it is bound");
    let all: String = ZONES.iter().enumerate().map(|(label, zone)| format!("{zone}=l{label} ")).collect();
    let pair = Pair::start(&all, &format!(", members = {{ primaries = ['{address}'] }}"));
    let mut taken: Vec<_> = (0..8).map(|_| primary.accept().expect("eight ask for their zones").0).collect();
    let absent = |server: &Server| server.admin().metrics().sum("hedgerow_zones", &[("state", "absent")]);
    until("those that are listed are absent, and nothing else", || (absent(&pair.consumer) == 12).then_some(()));
    primary.set_nonblocking(true).expect("it is ours");
    for _ in 0..4 {
        let more = primary.accept().expect_err("no other connection before one of them ends");
        assert_eq!(more.kind(), std::io::ErrorKind::WouldBlock);
        taken.remove(0);
        let (next, _) = until("the next one's turn", || primary.accept().ok());
        taken.push(next);
        assert_eq!(absent(&pair.consumer), 12);
    }
}

#[test]
fn a_standby_serves_what_was_listed_at_once() {
    let zones = format!(
        "zones = [{{ file = 'cat.zone', origin = '{CATALOG}', transfer_to = ['127.0.0.1'] }}, \
         {{ file = 'member.zone', origin = 'a.example', transfer_to = ['127.0.0.1'] }}]"
    );
    let texts = [catalog_text(1, VERSION, "a.example=1"), member_text(1)];
    let files = [("cat.zone", texts[0].as_str()), ("member.zone", texts[1].as_str())];
    let primary = Server::start_with_files(&format!("[authorities.ts]\nlisten = ['127.0.0.1:0']\n{zones}\n"), &files);
    let folder = TempDir::new().expect("a temporary folder");
    let keys = format!(
        "[authorities.copy]\nlisten = ['127.0.0.1:0']\nzones = [{{ catalog = '{CATALOG}', primaries = ['{}'], \
         file = '{}/cat.zone' }}]",
        primary.listener("ts"),
        folder.path().display()
    );
    let tree = Tree::start_as(&keys, 2, |command| {
        command.env("HEDGEROW_LOG", "hedgerow=debug");
    });
    let address = tree.server.listener("copy");
    wait_for_zone(address, "a.example");
    // The zone, and its entry in the list: a standby reads these on request, or when it starts.
    let saved = folder.path().join("members/copy");
    until("it is saved", || (std::fs::read_dir(&saved).ok()?.count() >= 2).then_some(()));
    drop(primary);
    tree.kill(&[tree.pid("server")]);
    let first = until("the first answer", || ask(address, "a.example"));
    assert_eq!(first.answers(), ["192.0.2.1"]);
}

/// A producer of zones, of which a part is listed.
fn producer(folder: &Path, secondary: SocketAddr, zones: &str) -> String {
    format!(
        "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [\n\
         {{ catalog = '{CATALOG}', produce = true, file = '{}/cat.zone', transfer_to = ['127.0.0.1'], also_notify = ['{secondary}'] }},\n{zones}]\n",
        folder.display()
    )
}

/// A zone that goes to others.
fn shared(zone: &str, rest: &str) -> String {
    format!("{{ file = 'member.zone', origin = '{zone}', transfer_to = ['127.0.0.1']{rest} }},\n")
}

/// The serial of the catalog at a server.
fn serial(server: SocketAddr) -> u32 {
    let response = Client::of(server).ask(&query(CATALOG, SOA));
    let soa = response.message().answers.first().expect("an SOA record").data.to_string();
    soa.split_whitespace().nth(2).and_then(|serial| serial.parse().ok()).expect("a serial")
}

#[test]
fn what_is_shared_is_listed_and_a_serial_changes_with_that_alone() {
    let (folder, nobody) = (TempDir::new().expect("a temporary folder"), free_address());
    let files = [("member.zone", member_text(1))];
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let unshared = "{ file = 'member.zone', origin = 'b.example' },\n";
    let zones = shared("a.example", ", group = 'red'") + unshared + &shared("c.example", ", listed = false");
    let config = producer(folder.path(), nobody, &zones);
    let server = Server::start_with_files(&config, &files);
    let address = server.listener("ts");
    let listed = |address: SocketAddr| {
        let response = TcpClient::of(address).ask(&query(CATALOG, AXFR));
        let text: Vec<_> = response.message().answers.iter().map(ToString::to_string).collect();
        let mut zones: Vec<_> =
            ZONES.into_iter().filter(|zone| text.iter().any(|line| line.ends_with(&format!("PTR {zone}.")))).collect();
        zones.sort_unstable();
        zones
    };
    assert_eq!(listed(address), ["a.example"]);
    let first = serial(address);
    server.process.signal(rustix::process::Signal::HUP);
    server.process.wait_for_log("edition 2");
    assert_eq!(serial(address), first, "nothing has changed");
    server.reload("member.zone", &member_text(2));
    server.process.wait_for_log("edition 3");
    assert_eq!(serial(address), first, "a zone has changed, but not which there are");
    drop(server);
    let server = Server::start_with_files(&config, &files);
    let address = server.listener("ts");
    assert_eq!(serial(address), first, "a restart is no change");
    server.reload("config.toml", &producer(folder.path(), nobody, &(zones + &shared("d.example", ""))));
    server.process.wait_for_log("edition 2");
    assert_eq!(listed(address), ["a.example", "d.example"]);
    let second = serial(address);
    assert!(second.wrapping_sub(first) < 1 << 31 && second != first, "{first} {second}");
    server.reload("config.toml", &producer(folder.path(), nobody, &shared("a.example", ", group = 'red'")));
    server.process.wait_for_log("edition 3");
    assert_eq!(listed(address), ["a.example"]);
}

#[test]
fn what_a_catalog_gives_is_listed_in_our_own() {
    let settings = ", members = { transfer_to = ['127.0.0.1'] } }, { catalog = 'out.example', produce = true, \
                    transfer_to = ['127.0.0.1']";
    let pair = Pair::start("a.example=1", settings);
    let listed = || {
        let response = TcpClient::of(pair.address()).try_ask(&query("out.example", AXFR))?;
        let text: String = response.message().answers.iter().map(|record| format!("{record}\n")).collect();
        Some(ZONES.into_iter().filter(|zone| text.contains(&format!("PTR {zone}."))).collect::<Vec<_>>())
    };
    until("the first zone", || (listed()? == ["a.example"]).then_some(()));
    let text = catalog_text(2, VERSION, "b.example=2") + "group.2.zones TXT \"red\"\n";
    pair.set(CATALOG, "cat.zone", &text, 2);
    until("the second zone", || (listed()? == ["b.example"]).then_some(()));
    // Another worker may serve the earlier catalog for a moment.
    until("its group too", || {
        let response = TcpClient::of(pair.address()).try_ask(&query("out.example", AXFR))?;
        response.message().answers.iter().any(|record| record.to_string().contains("red")).then_some(())
    });
}

/// Has a consumer follow what we list.
fn check_consumer<T>(start: impl FnOnce(SocketAddr, SocketAddr) -> Option<T>) {
    let (folder, address) = (TempDir::new().expect("a temporary folder"), free_address());
    let text = member_text(1);
    let notify = format!(", also_notify = ['{address}']");
    let both = shared("a.example", &notify) + &shared("b.example", &format!("{notify}, group = 'red'"));
    let server = Server::start_with_files(&producer(folder.path(), address, &both), &[("member.zone", text.as_str())]);
    let Some(_peer) = start(address, server.listener("ts")) else { return };
    wait_for_zone(address, "a.example");
    wait_for_zone(address, "b.example");
    let other = shared("b.example", &format!("{notify}, group = 'red'")) + &shared("c.example", &notify);
    server.reload(
        "config.toml",
        &producer(folder.path(), address, &other).replace("127.0.0.1:0", &server.listener("ts").to_string()),
    );
    wait_for_zone(address, "c.example");
    until("a.example has gone", || (ask(address, "a.example")?.answers().is_empty()).then_some(()));
    wait_for_zone(address, "b.example");
}

#[test]
fn what_we_list_comes_to_knot() {
    check_consumer(CatalogPeer::knot_consumer);
}

#[test]
fn what_we_list_comes_to_bind() {
    check_consumer(CatalogPeer::bind_consumer);
}

#[test]
fn what_we_list_comes_to_power_dns() {
    check_consumer(CatalogPeer::power_dns_consumer);
}

#[test]
fn what_we_list_comes_to_us() {
    let folder = TempDir::new().expect("a temporary folder");
    check_consumer(|address, primary| Some(consumer(address, primary, folder.path(), "")));
}

#[test]
fn what_knot_lists_is_had() {
    let (folder, address, theirs) = (TempDir::new().expect("a temporary folder"), free_address(), free_address());
    let Some(peer) = CatalogPeer::knot_producer(theirs, address, &[("a.example", ""), ("b.example", "red")]) else {
        return;
    };
    let server = consumer(address, theirs, folder.path(), "");
    wait_for_zone(address, "a.example");
    wait_for_zone(address, "b.example");
    let report: Value = serde_json::from_str(&server.admin().get("/api/v1/zones").body).expect("JSON");
    let red = report["zones"].as_array().and_then(|zones| zones.iter().find(|zone| zone["name"] == "b.example."));
    assert_eq!(red.map(|zone| &zone["groups"][0]), Some(&"red".into()), "{report}");
    peer.set_knot_zones(address, &[("b.example", "red"), ("c.example", "")]);
    wait_for_zone(address, "c.example");
    wait_until_gone(address, "a.example");
    // Without its primary, all is served again at once.
    drop((peer, server));
    let server = consumer(address, theirs, folder.path(), "");
    for zone in ["b.example", "c.example"] {
        assert_eq!(ask(server.listener("ts"), zone).expect("an answer").answers(), ["192.0.2.1"], "{zone}");
    }
}

#[test]
fn what_power_dns_lists_is_had() {
    let (folder, address, theirs) = (TempDir::new().expect("a temporary folder"), free_address(), free_address());
    let zones = [("a.example", ""), ("b.example", "red")];
    let Some(_peer) = CatalogPeer::power_dns_producer(theirs, address, &zones) else { return };
    let server = consumer(address, theirs, folder.path(), "");
    wait_for_zone(address, "a.example");
    wait_for_zone(address, "b.example");
    assert_eq!(metric(&server, "hedgerow_catalog_members", "cat.example."), 2);
}
