//! Name servers that produce or consume a catalog zone: Knot, BIND and PowerDNS as Debian packages them, run
//! without privileges, each with its files in a separate folder, on a port that was free.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Daemon, leave_out, need_program};

/// The name of the catalog zone.
pub const CATALOG: &str = "cat.example";

/// A running name server with a catalog zone.
pub struct CatalogPeer {
    daemon: Daemon,
    address: SocketAddr,
}

/// The text of a zone: its host's address ends in the serial.
pub fn member_text(serial: u32) -> String {
    format!("$TTL 300\n@ SOA ns.elsewhere. h {serial} 3600 3600 86400 60\n@ NS ns.elsewhere.\nwww A 192.0.2.{serial}\n")
}

impl CatalogPeer {
    /// Starts a Knot that lists these zones, each with a group or without, and sends NOTIFY to a secondary.
    pub fn knot_producer(address: SocketAddr, secondary: SocketAddr, zones: &[(&str, &str)]) -> Option<Self> {
        let folder = TempDir::new().expect("a temporary folder");
        fs::write(folder.path().join("member.zone"), member_text(1)).expect("our own folder");
        let config = knot_producer(folder.path(), address, secondary, zones);
        Self::run("knotd", folder, address, &config, &["-c", "config"])
    }

    /// Has it list other zones.
    pub fn set_knot_zones(&self, secondary: SocketAddr, zones: &[(&str, &str)]) {
        let config = knot_producer(&self.daemon.path(""), self.address, secondary, zones);
        self.daemon.write("config", &config);
        self.daemon.signal(Signal::HUP);
    }

    /// Knot that has what a primary lists.
    pub fn knot_consumer(address: SocketAddr, primary: SocketAddr) -> Option<Self> {
        let folder = TempDir::new().expect("a temporary folder");
        let config = format!(
            "{}template:\n  - id: members\n    master: other\n    acl: allow\n    storage: {1}\n    zonefile-sync: -1\n\
             zone:\n  - domain: {CATALOG}\n    storage: {1}\n    master: other\n    acl: allow\n    zonefile-sync: -1\n    \
             catalog-role: interpret\n    catalog-template: members\n",
            knot_head(folder.path(), address, primary),
            folder.path().display(),
        );
        Self::run("knotd", folder, address, &config, &["-c", "config"])
    }

    /// BIND that has what a primary lists.
    pub fn bind_consumer(address: SocketAddr, primary: SocketAddr) -> Option<Self> {
        let folder = TempDir::new().expect("a temporary folder");
        let (at, ip, port) = (folder.path().display(), address.ip(), address.port());
        let primary = format!("{} port {}", primary.ip(), primary.port());
        let config = format!(
            "options {{ directory \"{at}\"; pid-file \"{at}/pid\"; session-keyfile \"{at}/session.key\"; \
             listen-on port {port} {{ {ip}; }}; listen-on-v6 {{ none; }}; recursion no; dnssec-validation no; \
             min-refresh-time 1; allow-notify {{ 127.0.0.0/8; }}; \
             catalog-zones {{ zone \"{CATALOG}\" default-primaries {{ {primary}; }} min-update-interval 0 in-memory no; }}; }};\n\
             controls {{ }};\n\
             zone \"{CATALOG}\" {{ type secondary; file \"catalog.db\"; primaries {{ {primary}; }}; notify no; }};\n",
        );
        Self::run("named", folder, address, &config, &["-g", "-n", "1", "-c", "config"])
    }

    /// Starts a PowerDNS that lists these zones, each with a group or without, and sends NOTIFY to a
    /// secondary.
    pub fn power_dns_producer(address: SocketAddr, secondary: SocketAddr, zones: &[(&str, &str)]) -> Option<Self> {
        let folder = power_dns_folder()?;
        let at = folder.path();
        let config = format!("{}primary=yes\nalso-notify={secondary}\n", power_dns_head(at, address));
        fs::write(at.join("pdns.conf"), &config).expect("our own folder");
        let catalog = format!("$ORIGIN {CATALOG}.\n@ 0 SOA invalid. invalid. 1 3600 60 86400 0\n@ 0 NS invalid.\n");
        fs::write(at.join("catalog.zone"), catalog).expect("our own folder");
        power_dns_tool(at, &["load-zone", CATALOG, "catalog.zone"]);
        power_dns_tool(at, &["set-kind", CATALOG, "producer"]);
        for (zone, group) in zones {
            fs::write(at.join("zone"), format!("$ORIGIN {zone}.\n{}", member_text(1))).expect("our own folder");
            power_dns_tool(at, &["load-zone", zone, "zone"]);
            power_dns_tool(at, &["set-kind", zone, "primary"]);
            power_dns_tool(at, &["set-catalog", zone, CATALOG]);
            if !group.is_empty() {
                power_dns_tool(at, &["set-option", zone, "producer", "group", group]);
            }
        }
        Self::run("pdns_server", folder, address, &config, &["--config-dir=."])
    }

    /// PowerDNS that has what a primary lists.
    pub fn power_dns_consumer(address: SocketAddr, primary: SocketAddr) -> Option<Self> {
        let folder = power_dns_folder()?;
        let at = folder.path();
        let config = format!("{}secondary=yes\nxfr-cycle-interval=1\n", power_dns_head(at, address));
        fs::write(at.join("pdns.conf"), &config).expect("our own folder");
        power_dns_tool(at, &["create-secondary-zone", CATALOG, &primary.to_string()]);
        power_dns_tool(at, &["set-kind", CATALOG, "consumer"]);
        Self::run("pdns_server", folder, address, &config, &["--config-dir=."])
    }

    /// Starts a program in a folder, with a file `config` there.
    fn run(program: &str, folder: TempDir, address: SocketAddr, config: &str, arguments: &[&str]) -> Option<Self> {
        let mut command = Command::new(need_program("catalogs", program)?);
        command.args(arguments).current_dir(folder.path());
        fs::write(folder.path().join("config"), config).expect("our own folder");
        Some(Self { daemon: Daemon::start_in(folder, command), address })
    }
}

/// Returns the beginning of all configs of Knot.
fn knot_head(at: &Path, address: SocketAddr, other: SocketAddr) -> String {
    let at = at.display();
    format!(
        "server:\n  listen: {}@{}\n  rundir: {at}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
         log:\n  - target: stderr\n    any: info\n\
         database:\n  storage: {at}\n\
         remote:\n  - id: other\n    address: {}@{}\n\
         acl:\n  - id: allow\n    address: 127.0.0.0/8\n    action: [transfer, notify]\n",
        address.ip(),
        address.port(),
        other.ip(),
        other.port(),
    )
}

/// The config of Knot as the primary of zones that it lists.
fn knot_producer(at: &Path, address: SocketAddr, secondary: SocketAddr, zones: &[(&str, &str)]) -> String {
    let storage = at.display();
    let mut config = format!(
        "{}zone:\n  - domain: {CATALOG}\n    storage: {storage}\n    catalog-role: generate\n    notify: other\n    acl: allow\n",
        knot_head(at, address, secondary)
    );
    for (zone, group) in zones {
        config += &format!(
            "  - domain: {zone}\n    storage: {storage}\n    file: member.zone\n    zonefile-sync: -1\n    acl: allow\n    \
             catalog-role: member\n    catalog-zone: {CATALOG}\n"
        );
        if !group.is_empty() {
            config += &format!("    catalog-group: {group}\n");
        }
    }
    config
}

/// Returns the beginning of all configs of PowerDNS.
fn power_dns_head(at: &Path, address: SocketAddr) -> String {
    let (at, ip, port) = (at.display(), address.ip(), address.port());
    format!(
        "launch=gsqlite3\ngsqlite3-database={at}/pdns.db\nlocal-address={ip}\nlocal-port={port}\nsocket-dir={at}\n\
         daemon=no\nguardian=no\ndisable-syslog=yes\nallow-axfr-ips=127.0.0.0/8\nallow-notify-from=127.0.0.0/8\n\
         zone-cache-refresh-interval=0\nloglevel=5\n"
    )
}

/// A folder with an empty database of PowerDNS, if that is installed.
fn power_dns_folder() -> Option<TempDir> {
    need_program("catalogs", "pdns_server")?;
    let schema = Path::new("/usr/share/doc/pdns-backend-sqlite3/schema.sqlite3.sql");
    let schemas = [schema, Path::new("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")];
    let Some(schema) = schemas.iter().find(|schema| schema.exists()) else {
        leave_out("catalogs", "pdns-backend-sqlite3 is not installed");
        return None;
    };
    let sqlite = need_program("catalogs", "sqlite3")?;
    let folder = TempDir::new().expect("a temporary folder");
    let status = Command::new(sqlite)
        .arg(folder.path().join("pdns.db"))
        .stdin(File::open(schema).expect("it is there"))
        .status()
        .expect("it is installed");
    assert!(status.success());
    Some(folder)
}

/// Changes the database of PowerDNS.
fn power_dns_tool(at: &Path, words: &[&str]) {
    let tool = Command::new("pdnsutil").arg("--config-dir=.").args(words).current_dir(at).output();
    let output = tool.expect("it is installed with the server");
    assert!(output.status.success(), "{words:?}: {output:?}");
}
