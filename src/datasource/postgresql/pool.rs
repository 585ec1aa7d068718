//! Connections: made when one is needed, kept for the next query, never trusted to be alive.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Config, Tls, failure};
use crate::datasource::{QueryError, SettingsError};
use crate::http::{Destination, tls};

pub(super) struct Pool {
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    /// `host:port`, for messages.
    name: String,
    idle: Mutex<Vec<Link>>,
    places: Semaphore,
}

/// One connection.
pub(super) struct Link {
    pub client: Client,
    wire: Wire,
    /// When it was last given back.
    used: Option<Instant>,
}

/// What moves bytes while somebody waits for an answer, and nothing else does: there is no task behind it.
pub(super) struct Wire(Option<Driving>);

type Driving = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

impl Pool {
    /// Opens no connection. Fails where `ca` cannot be read.
    pub(super) fn new(config: &Config, tls: Tls) -> Result<Self, SettingsError> {
        let mut driver = tokio_postgres::Config::new();
        driver
            .host(&config.host)
            .port(config.port)
            .user(&config.username)
            .password(config.password.reveal())
            .dbname(&config.database)
            .application_name("watchpost")
            .connect_timeout(CONNECT_TIME)
            .ssl_mode(match tls {
                Tls::Off => SslMode::Disable,
                Tls::Prefer => SslMode::Prefer,
                Tls::Require => SslMode::Require,
            });
        // Only what is trusted counts here: the address is the driver's.
        let destination = Destination {
            url: "https://localhost".parse().expect("a constant address"),
            verify: tls == Tls::Require && config.verify.unwrap_or(true),
            ca: config.ca.clone(),
        };
        let mut trust = tls::config(&destination, tls != Tls::Off).map_err(SettingsError)?;
        // https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
        trust.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Self {
            config: driver,
            tls: MakeRustlsConnect::new(trust),
            name: format!("{}:{}", config.host, config.port),
            idle: Mutex::default(),
            places: Semaphore::new(config.connections),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Waits until there may be one more connection in use.
    pub(super) async fn place(&self) -> SemaphorePermit<'_> {
        self.places.acquire().await.expect("nobody closes the semaphore")
    }

    /// A connection that waits and is alive, or a new one.
    pub(super) async fn link(&self) -> Result<Link, QueryError> {
        loop {
            let Some(mut link) = self.lock().pop() else { break };
            let is_fresh = link.used.is_some_and(|used| used.elapsed() < IDLE_TIME);
            if link.wire.is_alive() {
                if is_fresh {
                    return Ok(link);
                }
                link.close().await;
            }
        }
        let connected = self.config.connect(self.tls.clone()).await;
        let (client, wire) = connected.map_err(|error| failure::of_connect(&error, &self.name))?;
        Ok(Link { client, wire: Wire(Some(Box::pin(wire))), used: None })
    }

    /// Keeps `link` for the next query, where what it last did can be undone.
    pub(super) async fn give_back(&self, mut link: Link) {
        let (client, wire) = link.parts();
        if wire.drive(client.batch_execute("ROLLBACK")).await.is_ok() {
            link.used = Some(Instant::now());
            self.lock().push(link);
        }
    }

    /// Ends what `link` is doing in the server.
    pub(super) fn cancel(&self, link: &Link) -> impl Future<Output = ()> + Send + use<> {
        let (token, tls) = (link.client.cancel_token(), self.tls.clone());
        async move {
            if let Err(error) = token.cancel_query(tls).await {
                tracing::debug!(%error, "a query could not be ended in PostgreSQL");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Who asks, and what moves the bytes meanwhile.
    pub(super) fn parts(&mut self) -> (&Client, &mut Wire) {
        (&self.client, &mut self.wire)
    }

    /// Says goodbye, as far as that goes at once.
    async fn close(self) {
        let Self { client, wire, .. } = self;
        drop(client);
        if let Some(wire) = wire.0
            && let Ok(Err(error)) = tokio::time::timeout(CLOSE_TIME, wire).await
        {
            tracing::debug!(%error, "a connection to PostgreSQL ended with an error");
        }
    }

    /// Whether a query ran on it before.
    pub(super) fn is_used(&self) -> bool {
        self.used.is_some()
    }
}

impl Wire {
    /// Waits for `answer`.
    pub(super) async fn drive<T>(
        &mut self,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut answer = std::pin::pin!(answer);
        let Some(wire) = &mut self.0 else { return answer.await };
        let ended = tokio::select! {
            biased;
            answer = &mut answer => return answer,
            ended = wire => ended,
        };
        // Nothing comes any more, but what came may be the whole answer. Dropped, so that the client knows.
        self.0 = None;
        match answer.await {
            Err(error) if error.is_closed() => Err(ended.err().unwrap_or(error)),
            answer => answer,
        }
    }

    /// Whether the server has not closed it, as far as is known.
    fn is_alive(&mut self) -> bool {
        self.0.as_mut().is_some_and(|wire| wire.as_mut().now_or_never().is_none())
    }
}

const CLOSE_TIME: Duration = Duration::from_millis(100);
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Longer, and a firewall may have forgotten the connection without a word.
const IDLE_TIME: Duration = Duration::from_secs(60);
