//! PostgreSQL.

mod cells;
mod failure;
mod literal;
mod pool;
mod query;
mod statement;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use self::pool::Pool;
use super::cancel::Cancel;
use super::{Datasource, Limits, QueryError, Rows, SettingsError};
use crate::clock::Window;
use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, Secret, section, words};

section! {
    /// PostgreSQL: SQL over one database.
    ///
    /// A rule is one statement that returns rows (`SELECT`, `WITH`, `VALUES`, `TABLE`, `SHOW`, `EXPLAIN`). It runs in a
    /// transaction that only reads. Rows beyond `max_rows` are counted in the server and not sent. A query whose time
    /// is up is ended in the server too. The user needs no more than `SELECT`.
    pub struct Config {
        /// The database.
        pub database: String,
        /// Name or address of the server, e.g. `10.0.0.5`, or the folder of its socket, e.g. `/var/run/postgresql`.
        pub host: String,
        /// The server's port.
        pub port: u16 = "5432",
        /// The role to log in as.
        pub username: String,
        /// Its password, e.g. `{env: PG_PASSWORD}`.
        pub password: Secret,
        /// `prefer`: TLS where the server offers it, with any certificate, as clickdetect does; that helps against who
        /// listens, not against who stands between. `require`: nothing without TLS, and the certificate is verified.
        /// `off`: no TLS. Where this is not written, it is `require` with `ca` or `verify: true`, else `prefer`.
        pub tls: Option<Tls>,
        /// Whether the server's certificate is verified, with `tls: require`: yes, unless this is `false`.
        pub verify: Option<bool>,
        /// Certificates (PEM) that are trusted besides the system's, e.g. `/etc/watchpost/postgresql-ca.pem`.
        pub ca: Option<PathBuf>,
        /// The most connections that are open at one time, 1 to 100; more queries wait for one.
        #[read(connections)]
        pub connections: usize = "10",
    }
}

words! {
    /// Whether TLS is used.
    pub enum Tls: "a way to use TLS" {
        Off = "off",
        /// Where the server offers it, unverified.
        Prefer = "prefer",
        Require = "require",
    }
}

impl Config {
    fn tls(&self) -> Result<Tls, SettingsError> {
        let wants_verified = self.ca.is_some() || self.verify == Some(true);
        match self.tls {
            Some(Tls::Require) => Ok(Tls::Require),
            Some(Tls::Off | Tls::Prefer) if wants_verified => {
                Err(SettingsError("`ca` and `verify` need TLS: write `tls: require`".into()))
            }
            Some(tls) => Ok(tls),
            None => Ok(if wants_verified { Tls::Require } else { Tls::Prefer }),
        }
    }
}

/// The datasource `postgresql`.
///
/// A value becomes the JSON that `cells` describes.
pub struct PostgreSql {
    pool: Pool,
    settings: Map<String, Value>,
}

impl PostgreSql {
    /// Opens nothing: the first query does.
    pub fn new(config: &Config) -> Result<Self, SettingsError> {
        let settings = Map::from_iter([
            ("type".to_owned(), json!("postgresql")),
            ("database".to_owned(), json!(config.database)),
            ("host".to_owned(), json!(config.host)),
            ("port".to_owned(), json!(config.port)),
        ]);
        Ok(Self { pool: Pool::new(config, config.tls()?)?, settings })
    }

    async fn rows(&self, query: &str, limits: &Limits) -> Result<Rows, QueryError> {
        let _place = self.pool.place().await;
        loop {
            let mut link = self.pool.link().await?;
            let cancel = Cancel::new(self.pool.cancel(&link));
            match query::run(&mut link, query, limits, self.pool.name()).await {
                Ok(rows) => {
                    cancel.disarm();
                    self.pool.give_back(link).await;
                    return Ok(rows);
                }
                // The server closed it while it waited, e.g. in a restart: a new one tells whether it is back.
                Err(failed) if failed.is_stale && link.is_used() => cancel.disarm(),
                Err(failed) => {
                    if failed.is_ended {
                        cancel.disarm();
                        self.pool.give_back(link).await;
                    }
                    return Err(failed.error);
                }
            }
        }
    }
}

#[async_trait]
impl Datasource for PostgreSql {
    async fn query(&self, query: &str, _window: Window, limits: &Limits) -> Result<Rows, QueryError> {
        let answer = tokio::time::timeout(limits.time, self.rows(query, limits));
        answer.await.unwrap_or(Err(QueryError::TimedOut { limit: limits.time }))
    }

    async fn probe(&self, limit: Duration) -> Result<String, QueryError> {
        let limits = Limits { time: limit, ..Limits::default() };
        let answer = tokio::time::timeout(limit, self.rows("SHOW server_version", &limits));
        let rows = answer.await.unwrap_or(Err(QueryError::TimedOut { limit }))?;
        let version = rows.rows.first().and_then(|row| row.get("server_version")).and_then(Value::as_str);
        version
            .map(|version| format!("PostgreSQL {version}"))
            .ok_or_else(|| QueryError::Unreadable("it tells no version".into()))
    }

    fn settings(&self) -> &Map<String, Value> {
        &self.settings
    }
}

fn connections(node: &Node, reader: &mut Reader<'_>) -> Option<usize> {
    let connections = usize::from_yaml(node, reader)?;
    if (1..=100).contains(&connections) {
        Some(connections)
    } else {
        reader.refuse(node, "between 1 and 100")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &str) -> Config {
        let text = format!("{{database: logs, host: 10.0.0.5, username: u, password: s3cret{settings}}}");
        let mut reader = Reader::new("runner.yml", &text, std::path::Path::new("/etc"), None);
        let node = reader.parse().unwrap();
        Config::from_yaml(&node, &mut reader).unwrap()
    }

    #[test]
    fn tls_is_as_clickdetect_has_it_unless_the_operator_wants_more() {
        for (settings, tls) in [
            ("", Tls::Prefer),
            (", tls: 'off'", Tls::Off),
            (", tls: off", Tls::Off),
            (", tls: require, verify: false", Tls::Require),
            (", verify: true", Tls::Require),
            (", ca: ca.pem", Tls::Require),
        ] {
            assert_eq!(config(settings).tls().unwrap(), tls, "{settings}");
        }
        for settings in [", tls: prefer, ca: ca.pem", ", tls: off, verify: true"] {
            assert!(config(settings).tls().unwrap_err().to_string().contains("`tls: require`"), "{settings}");
        }
    }

    #[test]
    fn settings_tell_what_clickdetects_tell_and_no_secret() {
        let source = PostgreSql::new(&config("")).unwrap();
        let told = json!({"type": "postgresql", "database": "logs", "host": "10.0.0.5", "port": 5432});
        assert_eq!(Value::Object(source.settings().clone()), told);
        assert!(!format!("{:?}", config("")).contains("s3cret"));
    }
}
