//! OpenSearch: Query DSL to `_search`, or SQL.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::search::{Close, Cursor, Dialect, Language, Names, Scope, Search};
use super::web::Access;
use super::{Datasource, Limits, QueryError, Rows, SettingsError};
use crate::clock::Window;
use crate::config::{Url, section};

section! {
    /// Indices of OpenSearch, e.g. those of Wazuh.
    ///
    /// A rule is the body of a `_search`, e.g. `{"size": 1000, "query": {"range": {"@timestamp": {"gte": {{ startime }},
    /// "lt": {{ endtime }}, "format": "epoch_second"}}}}`. Its hits become rows with `_id`, `_index` and the fields of
    /// `_source`; what else it asks for (`fields`, `highlight`, `inner_hits`) becomes columns too. With `"size": 0` the
    /// buckets of its aggregations become rows. The range of time is the rule's own: no filter is added.
    ///
    /// A rule that is not JSON is SQL for the SQL plugin, e.g. `SELECT user, COUNT(*) AS n FROM logs GROUP BY user`;
    /// `index` does not matter to it.
    pub struct Config {
        /// Address of a node or of the proxy before the cluster, e.g. `https://wazuh-indexer.example:9200`.
        pub url: Url,
    }
    shared { pub scope: Scope, pub access: Access }
}

/// The datasource `opensearch`.
pub struct Opensearch {
    search: Search,
    settings: Map<String, Value>,
}

impl Opensearch {
    /// Connects to nothing yet. Fails where `ca` cannot be read.
    pub fn new(config: Config) -> Result<Self, SettingsError> {
        let settings = Map::from_iter([
            ("type".to_owned(), json!("opensearch")),
            ("url".to_owned(), json!(config.url.without_secrets())),
            ("index".to_owned(), json!(config.scope.index.join(","))),
            ("verify".to_owned(), json!(config.access.verify)),
        ]);
        let search = Search::new(config.access.server(&config.url, None)?, &config.scope, &DIALECT);
        Ok(Self { search, settings })
    }
}

#[async_trait]
impl Datasource for Opensearch {
    async fn query(&self, query: &str, _window: Window, limits: &Limits) -> Result<Rows, QueryError> {
        self.search.query(query, limits).await
    }

    async fn probe(&self, limit: Duration) -> Result<String, QueryError> {
        self.search.probe(limit).await
    }

    fn settings(&self) -> &Map<String, Value> {
        &self.settings
    }
}

static DIALECT: Dialect = Dialect {
    // <https://docs.opensearch.org/latest/search-plugins/searching-data/point-in-time-api/>
    open: ("_search/point_in_time", "pit_id"),
    close: Close { method: "DELETE", path: "/_search/point_in_time", body: |id| json!({ "pit_id": [id] }) },
    // `_shard_doc` came with 3.3: <https://github.com/opensearch-project/OpenSearch/pull/18924>. An id is unique in its
    // index; to sort by it costs the server memory.
    ties: &[&["_shard_doc"], &["_id", "_index"]],
    language: Language {
        name: "SQL",
        // <https://docs.opensearch.org/latest/sql-and-ppl/sql-and-ppl-api/index/>
        path: "/_plugins/_sql",
        names: Names { columns: "schema", rows: "datarows" },
        cursor: Some(Cursor {
            fetch_size: 5_000,
            close: Close { method: "POST", path: "/_plugins/_sql/close", body: |id| json!({ "cursor": id }) },
        }),
        most: None,
    },
};
