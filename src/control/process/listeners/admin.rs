//! The listeners of the admin server: TCP, and a Unix socket for changes without a token.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use config::{AdminConfig, AdminSocket};
use net::from_clients::listening::Endpoint;
use net::sys::bind;

use super::inherited::{InheritedSockets, is_meant};
use super::{ADMIN, ListenError, meets, socket_name};
use crate::admin::{AdminUnixSocket, SocketOwner};
use crate::control::StartError;

#[derive(Debug)]
pub(in crate::control) struct AdminListeners {
    config: AdminConfig,
    pub(in crate::control) address: SocketAddr,
    pub(in crate::control) tcp: Arc<TcpListener>,
    pub(in crate::control) socket: Option<Arc<AdminUnixSocket>>,
}

impl AdminListeners {
    pub(in crate::control) fn open(
        admin: &AdminConfig,
        earlier: Option<&Self>,
        owner: SocketOwner,
        inherited: &mut InheritedSockets,
        is_confined: bool,
    ) -> Result<Self, StartError> {
        let (name, listen) = (socket_name(ADMIN, 0), admin.listen);
        let fail = |source| ListenError { key: "admin.listen".to_owned(), source, is_confined };
        let same = earlier.filter(|earlier| earlier.config.listen == listen || earlier.address == listen);
        let passed = inherited.take(|socket| match socket.endpoint() {
            Endpoint::Tcp(bound) => is_meant(listen, *bound) && (listen.port() != 0 || socket.name == name),
            Endpoint::Udp(_) | Endpoint::Unix(_) => false,
        });
        let tcp = match (same, passed) {
            (Some(earlier), _) => Arc::clone(&earlier.tcp),
            (None, Some(passed)) => Arc::new(bind::adopt_stream(passed.into_fd().into(), listen).map_err(fail)?),
            (None, None) => {
                let is_beside = listen.port() != 0 && earlier.is_some_and(|earlier| meets(earlier.address, listen));
                Arc::new(bind::stream(listen, is_beside).map_err(fail)?)
            }
        };
        let address = tcp.local_addr()?;
        let known = earlier.and_then(|earlier| match (&admin.socket, &earlier.socket) {
            (AdminSocket::At(path), Some(socket)) => (socket.path() == path).then(|| earlier.socket.clone()),
            (AdminSocket::Auto, _) => {
                (same.is_some() && earlier.config.socket == AdminSocket::Auto).then(|| earlier.socket.clone())
            }
            (AdminSocket::At(_) | AdminSocket::Off, _) => None,
        });
        let socket = match known {
            Some(socket) => socket,
            None => {
                let mut passed = |path: &Path| {
                    let passed = inherited.take(|socket| *socket.endpoint() == Endpoint::Unix(path.to_owned()));
                    passed.map(|socket| socket.into_fd().into())
                };
                AdminUnixSocket::open(&admin.socket, address, owner, &mut passed)?.map(Arc::new)
            }
        };
        Ok(Self { config: admin.clone(), address, tcp, socket })
    }
}

impl PartialEq for AdminListeners {
    /// Compares the sockets, not the config.
    fn eq(&self, other: &Self) -> bool {
        let socket = |one: &Self| one.socket.as_ref().map(Arc::as_ptr);
        Arc::ptr_eq(&self.tcp, &other.tcp) && socket(self) == socket(other)
    }
}
