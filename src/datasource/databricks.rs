//! Databricks SQL warehouses, over the SQL Statement Execution API.
//!
//! <https://docs.databricks.com/api/workspace/statementexecution>

mod cells;
mod reply;
mod statement;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use self::reply::Found;
use self::statement::{Statement, Warehouse};
use super::web::{Deadline, Server};
use super::{Datasource, Limits, QueryError, Rows, SettingsError};
use crate::clock::Window;
use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, Secret, Url, section};

section! {
    /// A Databricks SQL warehouse.
    ///
    /// A rule is one statement of Databricks SQL with its own time range, e.g. `SELECT * FROM main.security.logins WHERE
    /// time >= timestamp_seconds({{ startime }}) AND time < timestamp_seconds({{ endtime }})`. Its count is the number of
    /// rows; of a result of more than 24 MiB, of those in its beginning, and the alert says so. A statement whose time is
    /// up is cancelled in the warehouse. A warehouse that sleeps is woken: let `timeout` allow for its start.
    pub struct Config {
        /// The workspace's host name, e.g. `adb-1234567890123456.7.azuredatabricks.net`.
        #[read(host)]
        pub host: String,
        /// The warehouse's HTTP path, e.g. `/sql/1.0/warehouses/abcdef1234567890`. Paths of clusters are refused.
        #[read(path)]
        pub path: String,
        /// A personal access token, or a service principal's OAuth token.
        pub token: Secret,
        /// The catalog of tables that are named without one; the warehouse's default where it is not given.
        pub catalog: Option<String>,
        /// Whether the server's certificate is verified.
        pub verify: bool = "true",
        /// A file of certificates (PEM) that are trusted besides the system's, e.g. a proxy's.
        pub ca: Option<PathBuf>,
    }
}

/// The datasource `databricks`.
pub struct Databricks {
    warehouse: Arc<Warehouse>,
    settings: Map<String, Value>,
}

impl Databricks {
    pub fn new(config: Config) -> Result<Self, SettingsError> {
        let settings = Map::from_iter([
            ("type".to_owned(), json!("databricks")),
            ("host".to_owned(), json!(config.host)),
            ("path".to_owned(), json!(config.path)),
            ("catalog".to_owned(), json!(config.catalog)),
        ]);
        let url = address(&config.host).ok_or_else(|| SettingsError("`host` is no host name".into()))?;
        let id = warehouse(&config.path).ok_or_else(|| SettingsError("`path` is no warehouse's".into()))?;
        let headers = vec![
            ("accept".to_owned(), Secret::new("application/json")),
            ("authorization".to_owned(), Secret::new(format!("Bearer {}", config.token.reveal()))),
        ];
        let server = Server::new(&url, config.verify, config.ca, headers)?;
        let warehouse = Warehouse::new(server, id.to_owned(), config.catalog);
        Ok(Self { warehouse: Arc::new(warehouse), settings })
    }
}

#[async_trait]
impl Datasource for Databricks {
    async fn query(&self, query: &str, _window: Window, limits: &Limits) -> Result<Rows, QueryError> {
        let deadline = Deadline::after(limits.time);
        let rows = async {
            let (statement, answer) = Statement::run(&self.warehouse, query, deadline).await?;
            let mut found = Found::new(answer, limits)?;
            while let Some(chunk) = found.next_chunk()? {
                found.push(statement.chunk(chunk, deadline).await?)?;
            }
            found.into_rows()
        };
        rows.await.map_err(|error| deadline.said(error))
    }

    async fn probe(&self, limit: Duration) -> Result<String, QueryError> {
        self.warehouse.describe(Deadline::after(limit)).await
    }

    fn settings(&self) -> &Map<String, Value> {
        &self.settings
    }

    async fn close(&self) {
        self.warehouse.close().await;
    }
}

/// A host name is spoken to over TLS; an address says for itself.
fn address(host: &str) -> Option<Url> {
    if host.contains("://") { host.parse().ok() } else { format!("https://{host}").parse().ok() }
}

/// The id in a warehouse's HTTP path: `/sql/1.0/warehouses/ID`, or as it was called before, `/sql/1.0/endpoints/ID`.
fn warehouse(path: &str) -> Option<&str> {
    let (before, id) = path.trim_end_matches('/').rsplit_once('/')?;
    let is_warehouse = ["/warehouses", "/endpoints"].iter().any(|kind| before.ends_with(kind));
    let is_id =
        !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    (is_warehouse && is_id).then_some(id)
}

fn host(node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    let host = String::from_yaml(node, reader)?;
    let is_host = host.contains("://") || !host.contains(['/', '?', '#', '@']);
    if is_host && address(&host).is_some() {
        return Some(host);
    }
    reader.refuse(node, "a host name, e.g. `adb-1234567890123456.7.azuredatabricks.net`")
}

fn path(node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    let path = String::from_yaml(node, reader)?;
    if warehouse(&path).is_some() {
        return Some(path);
    }
    if path.contains("protocolv1/o/") {
        let message = "this is the path of a cluster, and clusters do not run statements over HTTP: give a SQL \
            warehouse's, e.g. `/sql/1.0/warehouses/abcdef1234567890`";
        reader.error(node.at, message);
        return None;
    }
    reader.refuse(node, "the HTTP path of a SQL warehouse, e.g. `/sql/1.0/warehouses/abcdef1234567890`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warehouse_is_the_last_part_of_its_path() {
        assert_eq!(warehouse("/sql/1.0/warehouses/abc123"), Some("abc123"));
        assert_eq!(warehouse("sql/1.0/endpoints/abc123/"), Some("abc123"));
        for path in [
            "",
            "/",
            "abc123",
            "/sql/1.0/warehouses/",
            "/sql/protocolv1/o/1/0123-abc",
            "/warehouses/a?b",
            "/x/y",
        ] {
            assert_eq!(warehouse(path), None, "{path}");
        }
    }

    #[test]
    fn a_host_is_spoken_to_over_tls() {
        assert_eq!(
            address("adb-1.azuredatabricks.net").unwrap().as_str(),
            "https://adb-1.azuredatabricks.net"
        );
        assert_eq!(address("http://127.0.0.1:8080").unwrap().as_str(), "http://127.0.0.1:8080");
        assert_eq!(address("not a host"), None);
    }
}
