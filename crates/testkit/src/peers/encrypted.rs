//! DNS servers and proxies for tests of encrypted DNS, as Debian packages them, run without privileges: each
//! with its files in a separate folder, on ports that were free, and waited for until it listens.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::{CertificateAuthority, Daemon, free_address, need_program, until};

/// The answer of each server to every question for an address below `example.`.
pub const ANSWER: &str = "192.0.2.1";

/// The answer of the dnsdist behind hedgerow to all clients but the one it knows.
pub const OTHER_ANSWER: &str = "192.0.2.2";

/// From where proxies ask us.
pub const PROXY: &str = "127.0.0.2";

/// A server by TLS and HTTPS, with the path `/q`.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Unbound.
    Unbound,
    /// dnsdist.
    Dnsdist,
}

/// A running server or proxy for encrypted DNS.
pub struct EncryptedPeer(#[expect(dead_code, reason = "it is held until it is dropped")] Daemon);

impl EncryptedPeer {
    /// Starts a server with a certificate for `dns.example`; and where it is asked by TLS and by HTTPS.
    /// `None` with a message if it is not installed.
    pub fn server(kind: Kind, authorities: &CertificateAuthority) -> Option<(Self, SocketAddr, SocketAddr)> {
        let (tls, https, plain) = (free_address(), free_address(), free_address());
        let (chain, key) = authorities.issue("dns.example");
        let folder = TempDir::new().expect("a temporary folder");
        for (name, text) in [("chain.pem", chain), ("key.pem", key)] {
            fs::write(folder.path().join(name), text).expect("our own folder");
        }
        let at = folder.path().display().to_string();
        let peer = match kind {
            Kind::Unbound => {
                Self::start("unbound", &["-d", "-c"], &unbound_config(&at, tls, https), folder, &[tls, https])
            }
            Kind::Dnsdist => {
                let config = format!(
                    "setSecurityPollSuffix('')\nsetLocal('{plain}')\naddTLSLocal('{tls}', '{at}/chain.pem', '{at}/key.pem')\n\
                     addDOHLocal('{https}', '{at}/chain.pem', '{at}/key.pem', {{'/q'}})\n\
                     addAction(AllRule(), SpoofAction('{ANSWER}'))\n"
                );
                Self::start("dnsdist", DNSDIST, &config, folder, &[tls, https])
            }
        };
        Some((peer?, tls, https))
    }

    /// Starts dnsdist before a server; it names the client by the PROXY protocol. Returns its address, for
    /// UDP and TCP.
    pub fn dnsdist_before(server: SocketAddr) -> Option<(Self, SocketAddr)> {
        let address = free_address();
        let config = format!(
            "setSecurityPollSuffix('')\nsetLocal('{address}')\n\
             newServer({{address='{server}', source='{PROXY}', useProxyProtocol=true}}):setUp()\n"
        );
        let folder = TempDir::new().expect("a temporary folder");
        Some((Self::start("dnsdist", DNSDIST, &config, folder, &[address])?, address))
    }

    /// Starts dnsdist behind a server, which must name the client by the PROXY protocol: this client gets
    /// [`ANSWER`], others get [`OTHER_ANSWER`]. Returns its address, for UDP and TCP.
    pub fn dnsdist_behind(client: &str) -> Option<(Self, SocketAddr)> {
        let address = free_address();
        let config = format!(
            "setSecurityPollSuffix('')\nsetLocal('{address}')\nsetProxyProtocolACL({{'127.0.0.0/8'}})\n\
             addAction(makeRule('{client}/32'), SpoofAction('{ANSWER}'))\naddAction(AllRule(), SpoofAction('{OTHER_ANSWER}'))\n"
        );
        let folder = TempDir::new().expect("a temporary folder");
        Some((Self::start("dnsdist", DNSDIST, &config, folder, &[address])?, address))
    }

    /// Starts HAProxy before these addresses of a server. It names the client by the PROXY protocol and
    /// passes on bytes unchanged. Returns its own addresses, in the same order.
    pub fn haproxy_before(server: &[SocketAddr]) -> Option<(Self, Vec<SocketAddr>)> {
        let addresses: Vec<_> = server.iter().map(|_| free_address()).collect();
        let mut config = "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 30s\n  timeout client 30s\n  \
                          timeout server 30s\n"
            .to_owned();
        for (at, server) in addresses.iter().zip(server) {
            config += &format!("listen {at}\n  bind {at}\n  server ours {server} source {PROXY} send-proxy-v2\n");
        }
        let folder = TempDir::new().expect("a temporary folder");
        Some((Self::start("haproxy", &["-db", "-f"], &config, folder, &addresses)?, addresses))
    }

    fn start(name: &str, words: &[&str], config: &str, folder: TempDir, listening: &[SocketAddr]) -> Option<Self> {
        let mut command = Command::new(need_program("a server of others", name)?);
        let file = folder.path().join("config");
        fs::write(&file, config).expect("our own folder");
        command.args(words).arg(&file).current_dir(folder.path());
        let peer = Self(Daemon::start_in(folder, command));
        for address in listening {
            until(&format!("{name} listens at {address}"), || TcpStream::connect(address).ok());
        }
        Some(peer)
    }
}

/// Runs a DNS client and returns its output; `None` with a message if it is not installed. Blanks separate
/// the words.
pub fn ask_by(program: &str, folder: &Path, words: &str) -> Option<String> {
    let mut command = Command::new(need_program("a client of others", program)?);
    let output = command.args(words.split_whitespace()).current_dir(folder).stdin(Stdio::null()).output();
    let output = output.expect("it is installed");
    Some((String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr)).into_owned())
}

/// In the foreground, with the log where we read it.
const DNSDIST: &[&str] = &["--supervised", "--disable-syslog", "-C"];

/// The config of Unbound.
fn unbound_config(at: &str, tls: SocketAddr, https: SocketAddr) -> String {
    let place = |address: SocketAddr| format!("{}@{}", address.ip(), address.port());
    format!(
        "server:\n  interface: {}\n  interface: {}\n  tls-port: {}\n  https-port: {}\n  http-endpoint: \"/q\"\n  \
         tls-service-key: \"{at}/key.pem\"\n  tls-service-pem: \"{at}/chain.pem\"\n  do-daemonize: no\n  username: \"\"\n  \
         chroot: \"\"\n  directory: \"{at}\"\n  pidfile: \"\"\n  use-syslog: no\n  logfile: \"\"\n  num-threads: 1\n  \
         module-config: \"iterator\"\n  local-zone: \"example.\" redirect\n  local-data: \"example. 300 IN A {ANSWER}\"\n\
         remote-control:\n  control-enable: no\n",
        place(tls),
        place(https),
        tls.port(),
        https.port(),
    )
}
