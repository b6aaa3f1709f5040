//! A client of etcd: its endpoints in turn, a time limit for each request, a token that is renewed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::time::timeout;

use super::http::{Connection, Lines};
use crate::config::EtcdConfig;
use crate::discover::etcd::{self, EtcdError};
use crate::net::tasks::Tasks;
use crate::net::tls::TlsRoots;

/// What is needed to talk to etcd.
#[derive(Clone, Debug)]
pub struct EtcdAccess {
    /// As configured.
    pub config: EtcdConfig,
    /// The password of the user.
    pub password: Option<Arc<str>>,
    /// Whose certificates are good, if any endpoint is asked by TLS.
    pub roots: Option<TlsRoots>,
}

impl EtcdAccess {
    /// Whether there is anything to change for who has another.
    pub fn is_same(&self, other: &Self) -> bool {
        self.config == other.config && self.password == other.password && self.roots == other.roots
    }

    /// Where members are registered under a key.
    pub fn members_prefix(&self, key: &str) -> String {
        format!("{}/pools/{key}/members/", self.config.prefix)
    }

    /// Where orders stand.
    pub fn orders_prefix(&self) -> String {
        format!("{}/orders/", self.config.prefix)
    }
}

/// A client of etcd.
pub(super) struct Client {
    access: Rc<EtcdAccess>,
    tasks: Tasks,
    /// Which endpoint is asked.
    endpoint: usize,
    /// To that endpoint, if it is there still.
    connection: Option<Connection>,
    token: Option<String>,
}

impl Client {
    /// A client that begins with one of the endpoints.
    pub(super) fn new(access: Rc<EtcdAccess>, tasks: Tasks) -> Self {
        // Not all clients of a fleet at the first one.
        let endpoint = rand::random_range(0..access.config.endpoints.len().max(1));
        Self::at(endpoint, access, tasks)
    }

    /// A client of one of the endpoints.
    pub(super) fn at(endpoint: usize, access: Rc<EtcdAccess>, tasks: Tasks) -> Self {
        Self { access, tasks, endpoint, connection: None, token: None }
    }

    /// Which endpoint is asked.
    pub(super) fn endpoint(&self) -> usize {
        self.endpoint
    }

    /// How long a request may take.
    pub(super) fn timeout(&self) -> Duration {
        self.access.config.timeout
    }

    /// Sends a request and reads the reply: of one endpoint after the other, until one has something to say.
    ///
    /// # Errors
    /// That of the last endpoint.
    pub(super) async fn call(&mut self, request: &etcd::Request) -> Result<Bytes, EtcdError> {
        let mut last = EtcdError::Failed("there is no endpoint".to_owned());
        for _ in 0..self.access.config.endpoints.len() {
            match self.call_here(request).await {
                Err(error @ (EtcdError::Failed(_) | EtcdError::Unauthenticated(_))) => {
                    self.move_on();
                    last = error;
                }
                // Another endpoint would say the same.
                Err(EtcdError::TooLong) => {
                    self.connection = None;
                    return Err(EtcdError::TooLong);
                }
                Ok(reply) => return Ok(reply),
            }
        }
        Err(last)
    }

    /// Begins a watch, on a connection of its own.
    ///
    /// # Errors
    /// If the endpoint that is asked does not begin it.
    pub(super) async fn watch(&mut self, request: &etcd::Request) -> Result<Lines, EtcdError> {
        let connection = self.connect().await?;
        let patience = self.timeout();
        match timeout(patience, connection.stream(request, self.token.as_deref())).await {
            Ok(Ok(lines)) => Ok(lines),
            Ok(Err(error)) => {
                if matches!(error, EtcdError::Unauthenticated(_)) {
                    self.token = None;
                }
                Err(error)
            }
            Err(_) => Err(self.silent()),
        }
    }

    /// The next request goes to the next endpoint.
    pub(super) fn move_on(&mut self) {
        self.connection = None;
        self.endpoint = (self.endpoint + 1) % self.access.config.endpoints.len().max(1);
    }

    /// Asks the endpoint whose turn it is, with a new token if the old one is not taken any more.
    ///
    /// # Errors
    /// If that endpoint does not do what it is asked for.
    pub(super) async fn call_here(&mut self, request: &etcd::Request) -> Result<Bytes, EtcdError> {
        if self.token.is_none() {
            self.authenticate().await?;
        }
        match self.exchange(request, self.token.clone()).await {
            Err(EtcdError::Unauthenticated(_)) if self.access.config.user.is_some() => {
                self.token = None;
                self.authenticate().await?;
                self.exchange(request, self.token.clone()).await
            }
            result => result,
        }
    }

    /// Gets a token, if we are somebody.
    async fn authenticate(&mut self) -> Result<(), EtcdError> {
        let access = Rc::clone(&self.access);
        let (Some(user), Some(password)) = (&access.config.user, &access.password) else { return Ok(()) };
        let reply = match self.exchange(&etcd::authenticate(user, password), None).await {
            // It knows no users for now, and takes requests without a token.
            Err(EtcdError::Failed(told)) if told.contains("authentication is not enabled") => return Ok(()),
            reply => reply?,
        };
        self.token = Some(etcd::read_token(&reply)?);
        Ok(())
    }

    /// Sends one request and reads its reply within the time.
    async fn exchange(&mut self, request: &etcd::Request, token: Option<String>) -> Result<Bytes, EtcdError> {
        loop {
            let (mut connection, is_kept) = match self.connection.take() {
                Some(connection) => (connection, true),
                None => (self.connect().await?, false),
            };
            match timeout(self.timeout(), connection.call(request, token.as_deref())).await {
                Ok(result @ (Ok(_) | Err(EtcdError::Unauthenticated(_)))) => {
                    self.connection = Some(connection);
                    return result;
                }
                // It was closed while nobody looked: that says nothing about the endpoint.
                Ok(Err(EtcdError::Failed(_))) if is_kept => {}
                Ok(result) => return result,
                Err(_) => return Err(self.silent()),
            }
        }
    }

    async fn connect(&self) -> Result<Connection, EtcdError> {
        let endpoint = &self.access.config.endpoints[self.endpoint];
        Connection::open(endpoint, self.access.roots.as_ref(), self.timeout(), &self.tasks).await
    }

    fn silent(&self) -> EtcdError {
        let endpoint = &self.access.config.endpoints[self.endpoint];
        EtcdError::Failed(format!("{endpoint}: no reply within {:?}", self.timeout()))
    }
}
