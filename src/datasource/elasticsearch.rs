//! Elasticsearch: Query DSL to `_search`, or ES|QL.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::search::{Close, Dialect, Language, Names, Scope, Search};
use super::web::Access;
use super::{Datasource, Limits, QueryError, Rows, SettingsError};
use crate::clock::Window;
use crate::config::{Secret, Url, section};

section! {
    /// Indices of Elasticsearch 7.10 or later.
    ///
    /// A rule is the body of a `_search`, e.g. `{"size": 1000, "query": {"range": {"@timestamp": {"gte": {{ startime }},
    /// "lt": {{ endtime }}, "format": "epoch_second"}}}}`. Its hits become rows with `_id`, `_index` and the fields of
    /// `_source`; what else it asks for (`fields`, `highlight`, `inner_hits`) becomes columns too. With `"size": 0` the
    /// buckets of its aggregations become rows. The range of time is the rule's own: no filter is added.
    ///
    /// A rule that is not JSON is ES|QL (Elasticsearch 8.11), e.g. `FROM logs-* | WHERE ... | STATS n = COUNT(*) BY user`;
    /// `index` does not matter to it.
    pub struct Config {
        /// Address of a node or of the proxy before the cluster, e.g. `https://es.example:9200`.
        pub url: Url,
        /// An API key as Elasticsearch gives it out (`encoded`); used instead of `username` and `password`.
        pub api_key: Option<Secret>,
    }
    shared { pub scope: Scope, pub access: Access }
}

/// The datasource `elasticsearch`.
pub struct Elasticsearch {
    search: Search,
    settings: Map<String, Value>,
}

impl Elasticsearch {
    /// Connects to nothing yet. Fails where `ca` cannot be read.
    pub fn new(config: Config) -> Result<Self, SettingsError> {
        let key =
            |key: &Secret| ("authorization".to_owned(), Secret::new(format!("ApiKey {}", key.reveal())));
        let key = config.api_key.as_ref().filter(|key| !key.reveal().is_empty()).map(key);
        let settings = Map::from_iter([
            ("type".to_owned(), json!("elasticsearch")),
            ("url".to_owned(), json!(config.url.without_secrets())),
            ("index".to_owned(), json!(config.scope.index.join(","))),
            // clickdetect shows the key itself here, also in what webhooks send.
            ("api_key".to_owned(), json!(config.api_key)),
            ("verify".to_owned(), json!(config.access.verify)),
        ]);
        let search = Search::new(config.access.server(&config.url, key)?, &config.scope, &DIALECT);
        Ok(Self { search, settings })
    }
}

#[async_trait]
impl Datasource for Elasticsearch {
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
    // <https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-open-point-in-time>
    open: ("_pit", "id"),
    close: Close { method: "DELETE", path: "/_pit", body: |id| json!({ "id": id }) },
    ties: &[&["_shard_doc"]],
    language: Language {
        name: "ES|QL",
        // <https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-esql-query>
        path: "/_query",
        names: Names { columns: "columns", rows: "values" },
        cursor: None,
        // `esql.query.result_truncation_default_size` and `_max_size`.
        most: Some((1_000, 10_000)),
    },
};
