//! A client of etcd: rotating endpoints, a time limit for each request, and a renewed token.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use config::EtcdConfig;
use hyper::body::Bytes;
use net::tasks::Tasks;
use net::to_backends::tls::TlsRoots;
use tokio::time::timeout;

use super::http::{EtcdConnection, WatchLines};
use crate::control::pools::discover::etcd::{self, EtcdError, EtcdRequest};

/// The settings and secrets for etcd.
#[derive(Clone, Debug, PartialEq)]
pub struct EtcdAccess {
    /// The configuration of etcd.
    pub config: EtcdConfig,
    /// The password of the user.
    pub password: Option<Arc<str>>,
    /// The trust anchors, if any endpoint uses TLS.
    pub roots: Option<TlsRoots>,
}

impl EtcdAccess {
    /// Returns the prefix of members registered under a key.
    pub fn members_prefix(&self, key: &str) -> String {
        format!("{}/pools/{key}/members/", self.config.prefix)
    }

    /// Returns the prefix of orders.
    pub fn orders_prefix(&self) -> String {
        format!("{}/orders/", self.config.prefix)
    }
}

pub(super) struct EtcdClient {
    access: Rc<EtcdAccess>,
    tasks: Tasks,
    pub(super) endpoint: usize,
    connection: Option<EtcdConnection>,
    token: Option<String>,
}

impl EtcdClient {
    pub(super) fn new(access: Rc<EtcdAccess>, tasks: Tasks) -> Self {
        // Spreads the clients of a fleet over the endpoints.
        let endpoint = rand::random_range(0..access.config.endpoints.len().max(1));
        Self::at(endpoint, access, tasks)
    }

    pub(super) fn at(endpoint: usize, access: Rc<EtcdAccess>, tasks: Tasks) -> Self {
        Self { access, tasks, endpoint, connection: None, token: None }
    }

    fn timeout(&self) -> Duration {
        self.access.config.timeout
    }

    /// Sends a request to one endpoint after the other, until one replies.
    pub(super) async fn call(&mut self, request: &EtcdRequest) -> Result<Bytes, EtcdError> {
        let mut last = EtcdError::Failed("there is no endpoint".to_owned());
        for _ in 0..self.access.config.endpoints.len() {
            match self.call_here(request).await {
                Err(error @ (EtcdError::Failed(_) | EtcdError::Unauthenticated(_))) => {
                    self.move_on();
                    last = error;
                }
                // Another endpoint would send the same.
                result => return result,
            }
        }
        Err(last)
    }

    /// Begins a watch on a separate connection.
    pub(super) async fn watch(&mut self, request: &EtcdRequest) -> Result<WatchLines, EtcdError> {
        let connection = self.connect().await?;
        let begun = timeout(self.timeout(), connection.watch(request, self.token.as_deref())).await;
        let begun = begun.unwrap_or_else(|_| Err(self.silent()));
        if matches!(begun, Err(EtcdError::Unauthenticated(_))) {
            self.token = None;
        }
        begun
    }

    pub(super) fn move_on(&mut self) {
        self.connection = None;
        self.endpoint = (self.endpoint + 1) % self.access.config.endpoints.len().max(1);
    }

    /// Asks the current endpoint, with a new token if the old one is rejected.
    pub(super) async fn call_here(&mut self, request: &EtcdRequest) -> Result<Bytes, EtcdError> {
        if self.token.is_none() {
            self.authenticate().await?;
        }
        match self.exchange(request).await {
            Err(EtcdError::Unauthenticated(_)) if self.access.config.user.is_some() => {
                self.authenticate().await?;
                self.exchange(request).await
            }
            result => result,
        }
    }

    /// Gets a token, if a user is configured.
    async fn authenticate(&mut self) -> Result<(), EtcdError> {
        self.token = None;
        let access = Rc::clone(&self.access);
        let (Some(user), Some(password)) = (&access.config.user, &access.password) else { return Ok(()) };
        let reply = match self.exchange(&etcd::authenticate(user, password)).await {
            // Authentication is disabled now, so requests need no token.
            Err(EtcdError::Failed(message)) if message.contains("authentication is not enabled") => return Ok(()),
            reply => reply?,
        };
        self.token = Some(etcd::read_token(&reply)?);
        Ok(())
    }

    async fn exchange(&mut self, request: &EtcdRequest) -> Result<Bytes, EtcdError> {
        loop {
            let (mut connection, is_kept) = match self.connection.take() {
                Some(connection) => (connection, true),
                None => (self.connect().await?, false),
            };
            match timeout(self.timeout(), connection.call(request, self.token.as_deref())).await {
                Ok(result @ (Ok(_) | Err(EtcdError::Unauthenticated(_)))) => {
                    self.connection = Some(connection);
                    return result;
                }
                // The idle connection was closed: that is no failure of the endpoint.
                Ok(Err(EtcdError::Failed(_))) if is_kept => {}
                Ok(result) => return result,
                Err(_) => return Err(self.silent()),
            }
        }
    }

    async fn connect(&self) -> Result<EtcdConnection, EtcdError> {
        let endpoint = &self.access.config.endpoints[self.endpoint];
        EtcdConnection::open(endpoint, self.access.roots.as_ref(), self.timeout(), &self.tasks).await
    }

    fn silent(&self) -> EtcdError {
        let endpoint = &self.access.config.endpoints[self.endpoint];
        EtcdError::Failed(format!("{endpoint}: no reply within {:?}", self.timeout()))
    }
}
