//! A rule that is not JSON: ES|QL, or SQL of OpenSearch.

use serde_json::json;

use super::super::feed::parsed;
use super::super::kept::Kept;
use super::super::web::Deadline;
use super::super::{Limits, QueryError, Rows};
use super::lease::{Close, Lease, closing_time};
use super::table::{self, Names};
use super::{JSON, Search};

/// What a rule that is not JSON is written in.
pub(in super::super) struct Language {
    pub(in super::super) name: &'static str,
    pub(in super::super) path: &'static str,
    pub(in super::super) names: Names,
    /// Where rows come some at a time, by a cursor.
    pub(in super::super) cursor: Option<Cursor>,
    /// Rows that come at most without a `LIMIT`, and at all.
    pub(in super::super) most: Option<(u64, u64)>,
}

pub(in super::super) struct Cursor {
    /// Rows at a time.
    pub(in super::super) fetch_size: u64,
    pub(in super::super) close: Close,
}

impl Search {
    /// Rows of a query in the store's language.
    pub(super) async fn table(&self, query: &str, limits: &Limits) -> Result<Rows, QueryError> {
        let language = &self.dialect.language;
        match &language.cursor {
            None => self.tables(query, limits, None, Deadline::after(limits.time)).await,
            Some(cursor) => {
                let closing = closing_time(limits.time);
                let mut lease = Lease::new(&self.server, cursor.close);
                let deadline = Deadline::after(limits.time - closing);
                let rows = self.tables(query, limits, Some((cursor, &mut lease)), deadline).await;
                lease.close(closing).await;
                rows
            }
        }
    }

    async fn tables(
        &self,
        query: &str,
        limits: &Limits,
        mut cursor: Option<(&Cursor, &mut Lease)>,
        deadline: Deadline,
    ) -> Result<Rows, QueryError> {
        let language = &self.dialect.language;
        let mut asked = json!({ "query": query });
        if let Some((cursor, _)) = &cursor {
            asked["fetch_size"] = cursor.fetch_size.into();
        }
        let (mut kept, mut columns, mut count) = (Kept::new(limits), None, 0);
        loop {
            let request =
                self.server.post(language.path, &[], JSON, asked.to_string().into_bytes(), deadline)?;
            let answer = self.send(&request).await.map_err(|error| match error {
                QueryError::Refused(said) => {
                    QueryError::Refused(format!("as {}, since the query is not JSON: {said}", language.name))
                }
                error => error,
            })?;
            let names = language.names;
            let table = parsed(answer, move |feed| table::read(feed, names, columns, kept)).await?;
            if table.is_partial && !self.allow_partial {
                return Err(QueryError::Unavailable("the answer is partial (`is_partial`)".into()));
            }
            count += table.rows;
            (kept, columns) = (table.kept, Some(table.columns));
            if table.is_partial {
                kept.note("partial: not everything was searched");
            }
            let Some((_, lease)) = &mut cursor else { break };
            lease.id = table.cursor.filter(|cursor| !cursor.is_empty());
            match &lease.id {
                Some(next) => asked = json!({ "cursor": next }),
                None => break,
            }
        }
        match language.most {
            Some((_, most)) if count >= most => {
                kept.note(format!("{} gives {most} rows at most: there may be more", language.name));
            }
            Some((most, _)) if count == most && !query.to_ascii_lowercase().contains("limit") => {
                kept.note(format!(
                    "{} gives {most} rows without a `LIMIT`: there may be more",
                    language.name
                ));
            }
            _ => {}
        }
        Ok(kept.into_rows())
    }
}
