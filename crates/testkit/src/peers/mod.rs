//! Name servers as Debian packages them, run without privileges: each as primary and as secondary of one
//! zone, with its files in a separate folder, on a port that was free.

pub mod catalog;
pub mod encrypted;
pub mod etcd;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Daemon, need_program};

/// The zone that all have.
pub const ZONE: &str = "example.net";

/// The secret of the key `transfer.key`.
pub const SECRET: &str = "dGhlIHNlY3JldCBvZiBhbGwgdGhlIHRlc3Rz";

/// A server of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// NSD.
    Nsd,
    /// Knot DNS.
    Knot,
    /// BIND 9.
    Bind,
}

/// The role of a server for the zone.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Reads the zone from a file, and sends NOTIFY to the secondary at this address.
    Primary(SocketAddr),
    /// It has the zone from the primary at this address.
    Secondary(SocketAddr),
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Self::Nsd => "nsd",
            Self::Knot => "knotd",
            Self::Bind => "named",
        }
    }
}

/// A running name server with the zone.
pub struct Peer(Daemon);

/// The text of a version of the zone.
pub fn zone_text(serial: u32) -> String {
    let hosts: String = (1..200).map(|host| format!("h{host} A 192.0.2.{host}\n")).collect();
    format!(
        "$ORIGIN {ZONE}.\n$TTL 300\n@ SOA ns.elsewhere. hostmaster.{ZONE}. {serial} 3600 5 1000 60\n@ NS ns.elsewhere.\n\
         @ MX 10 mail\nmail AAAA 2001:db8::1\ntext TXT \"a b\" \"c\\\"d\"\nv{serial} A 192.0.2.{serial}\n{hosts}"
    )
}

impl Peer {
    /// Starts one at this address; `None` with a message if it is not installed.
    pub fn start(kind: Kind, address: SocketAddr, role: Role) -> Option<Self> {
        let config = |at: &Path| match kind {
            Kind::Nsd => nsd_config(at, address, role),
            Kind::Knot => knot_config(at, address, role),
            Kind::Bind => bind_config(at, address, role),
        };
        Self::start_with(kind, config)
    }

    /// Starts NSD with the zone at this address, by TLS alone, with `rsa.pem` and `rsa.key` of this folder.
    pub fn start_by_tls(address: SocketAddr, certificate: &Path) -> Option<Self> {
        let (discard, port, certificate) =
            (SocketAddr::from(([127, 0, 0, 1], 9)), address.port(), certificate.display());
        Self::start_with(Kind::Nsd, |at| {
            let tls = format!(
                "server:\n  tls-port: {port}\n  tls-service-pem: \"{certificate}/rsa.pem\"\n  \
                 tls-service-key: \"{certificate}/rsa.key\"\n"
            );
            nsd_config(at, address, Role::Primary(discard)).replacen("server:\n", &tls, 1)
        })
    }

    /// Starts BIND with the zone at this address, by HTTPS, with `rsa.pem` and `rsa.key` of this folder.
    pub fn start_by_https(address: SocketAddr, certificate: &Path) -> Option<Self> {
        let (discard, plain) = (SocketAddr::from(([127, 0, 0, 1], 9)), crate::free_address());
        let (ip, port, certificate) = (address.ip(), address.port(), certificate.display());
        Self::start_with(Kind::Bind, |at| {
            let ways = format!(
                "tls ours {{ cert-file \"{certificate}/rsa.pem\"; key-file \"{certificate}/rsa.key\"; }};\n\
                 http ours {{ endpoints {{ \"/q\"; }}; }};\noptions {{ listen-on port {port} tls ours http ours {{ {ip}; }};"
            );
            bind_config(at, plain, Role::Primary(discard)).replacen("options {", &ways, 1)
        })
    }

    /// Starts BIND with the zone, by TLS at this address, with `chain.pem` and `key.pem` of this folder; it
    /// sends NOTIFY to a secondary.
    pub fn primary_by_tls(address: SocketAddr, secondary: SocketAddr, certificate: &Path) -> Option<Self> {
        Self::start_with(Kind::Bind, |at| {
            let (chain, key) = (certificate.join("chain.pem"), certificate.join("key.pem"));
            let tls = format!("tls own {{ cert-file \"{}\"; key-file \"{}\"; }};\n", chain.display(), key.display());
            let plain = bind_config(at, address, Role::Primary(secondary));
            let listen = format!("listen-on port {} {{", address.port());
            tls + &plain.replacen(&listen, &format!("listen-on port {} tls own {{", address.port()), 1)
        })
    }

    /// Starts a server that transfers the zone by TLS from a primary whose certificate carries `ns1.example`,
    /// signed by `ca.pem` of this folder.
    pub fn secondary_by_tls(kind: Kind, address: SocketAddr, primary: SocketAddr, certificate: &Path) -> Option<Self> {
        let ca = certificate.join("ca.pem");
        Self::start_with(kind, |at| match kind {
            Kind::Nsd => {
                let bundle = format!("server:\n  tls-cert-bundle: \"{}\"\n", ca.display());
                let auth = "tls-auth:\n  name: primary\n  auth-domain-name: ns1.example\nzone:\n";
                let request = format!("request-xfr: {} transfer.key", nsd_address(primary));
                let config = nsd_config(at, address, Role::Secondary(primary)).replacen("server:\n", &bundle, 1);
                config.replacen("zone:\n", auth, 1).replacen(&request, &format!("{request} primary"), 1)
            }
            Kind::Bind | Kind::Knot => {
                let tls =
                    format!("tls primary {{ ca-file \"{}\"; remote-hostname \"ns1.example\"; }};\n", ca.display());
                let place = format!("{} port {} key transfer.key", primary.ip(), primary.port());
                let config = bind_config(at, address, Role::Secondary(primary));
                tls + &config.replacen(&place, &format!("{place} tls primary"), 1)
            }
        })
    }

    fn start_with(kind: Kind, config: impl FnOnce(&Path) -> String) -> Option<Self> {
        let program = need_program("a server of others", kind.program())?;
        let folder = TempDir::new().expect("a temporary folder");
        let at = folder.path();
        fs::write(at.join("primary.zone"), zone_text(1)).expect("our own folder");
        let config = config(at);
        let arguments = match kind {
            Kind::Nsd => vec!["-d", "-c"],
            Kind::Knot => vec!["-c"],
            Kind::Bind => vec!["-g", "-n", "1", "-c"],
        };
        fs::write(at.join("config"), config).expect("our own folder");
        let mut command = Command::new(program);
        command.args(arguments).arg(at.join("config")).current_dir(at);
        Some(Self(Daemon::start_in(folder, command)))
    }

    /// Gives a primary another version of the zone.
    pub fn set_version(&self, serial: u32) {
        self.0.write("primary.zone", &zone_text(serial));
        self.0.signal(Signal::HUP);
    }
}

/// The config of NSD.
fn nsd_config(at: &Path, address: SocketAddr, role: Role) -> String {
    let at = at.display();
    let zone = match role {
        Role::Primary(secondary) => format!(
            "zonefile: {at}/primary.zone\n  store-ixfr: yes\n  create-ixfr: yes\n  notify: {} transfer.key\n  provide-xfr: 127.0.0.1 transfer.key",
            nsd_address(secondary)
        ),
        Role::Secondary(primary) => format!(
            "zonefile: {at}/secondary.zone\n  request-xfr: {0} transfer.key\n  allow-notify: 127.0.0.1 transfer.key",
            nsd_address(primary)
        ),
    };
    format!(
        "server:\n  ip-address: {}\n  port: {}\n  username: \"\"\n  chroot: \"\"\n  server-count: 1\n  database: \"\"\n  \
         pidfile: {at}/pid\n  xfrdfile: {at}/xfrd.state\n  zonelistfile: {at}/zone.list\n  xfrdir: {at}\n  verbosity: 2\n  \
         xfrd-reload-timeout: 0\n\
         remote-control:\n  control-enable: no\n\
         key:\n  name: transfer.key\n  algorithm: hmac-sha256\n  secret: \"{SECRET}\"\n\
         zone:\n  name: {ZONE}\n  {zone}\n",
        address.ip(),
        address.port(),
    )
}

/// An address in the form of NSD.
fn nsd_address(address: SocketAddr) -> String {
    format!("{}@{}", address.ip(), address.port())
}

/// The config of Knot.
fn knot_config(at: &Path, address: SocketAddr, role: Role) -> String {
    let at = at.display();
    let (other, zone) = match role {
        Role::Primary(secondary) => (
            secondary,
            "file: primary.zone\n    zonefile-load: difference\n    zonefile-sync: -1\n    journal-content: changes\n    \
             notify: other\n    acl: allow",
        ),
        Role::Secondary(primary) => (primary, "master: other\n    acl: allow\n    zonefile-sync: -1"),
    };
    format!(
        "server:\n  listen: {}\n  rundir: {at}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
         log:\n  - target: stderr\n    any: info\n\
         database:\n  storage: {at}\n\
         key:\n  - id: transfer.key\n    algorithm: hmac-sha256\n    secret: {SECRET}\n\
         remote:\n  - id: other\n    address: {}\n    key: transfer.key\n\
         acl:\n  - id: allow\n    address: 127.0.0.1\n    key: transfer.key\n    action: [transfer, notify]\n\
         zone:\n  - domain: {ZONE}\n    storage: {at}\n    {zone}\n",
        knot_address(address),
        knot_address(other),
    )
}

/// An address in the form of Knot.
fn knot_address(address: SocketAddr) -> String {
    nsd_address(address)
}

/// The config of BIND.
fn bind_config(at: &Path, address: SocketAddr, role: Role) -> String {
    let at = at.display();
    let place = |address: SocketAddr| format!("{} port {} key transfer.key", address.ip(), address.port());
    let zone = match role {
        Role::Primary(secondary) => format!(
            "type primary; file \"primary.zone\"; ixfr-from-differences yes; notify explicit; \
             also-notify {{ {}; }}; allow-transfer {{ key transfer.key; }};",
            place(secondary)
        ),
        Role::Secondary(primary) => {
            format!("type secondary; file \"secondary.zone\"; primaries {{ {}; }}; notify no;", place(primary))
        }
    };
    format!(
        "options {{ directory \"{at}\"; pid-file \"{at}/pid\"; session-keyfile \"{at}/session.key\"; \
         listen-on port {} {{ {}; }}; listen-on-v6 {{ none; }}; recursion no; dnssec-validation no; \
         notify-delay 0; startup-notify-rate 1000; notify-rate 1000; min-refresh-time 1; }};\n\
         controls {{ }};\n\
         key transfer.key {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
         zone \"{ZONE}\" {{ {zone} }};\n",
        address.port(),
        address.ip(),
    )
}
