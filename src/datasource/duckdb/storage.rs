//! Object storage: the secret with which DuckDB's extension `httpfs` reads from it.

use std::path::Path;

use ::duckdb::Connection;

use super::Config;
use super::store::quoted;
use crate::config::words;
use crate::datasource::{QueryError, SettingsError};

words! {
    /// Whose object storage it is.
    pub enum Kind: "a kind of object storage" {
        S3 = "s3",
        Gcs = "gcs",
        R2 = "r2",
    }
}

/// Settings that cannot work together.
pub(super) fn check(config: &Config) -> Result<(), SettingsError> {
    let is_given = |secret: &Option<crate::config::Secret>| {
        secret.as_ref().is_some_and(|secret| !secret.reveal().is_empty())
    };
    let wrong = match (is_given(&config.s3_key), is_given(&config.s3_secret)) {
        (true, false) => "`s3_key` needs `s3_secret`",
        (false, true) => "`s3_secret` needs `s3_key`",
        (true, true)
            if config.s3_type == Kind::R2 && config.r2_account.is_empty() && config.s3_host.is_none() =>
        {
            "`s3_type: r2` needs `r2_account`"
        }
        _ => return Ok(()),
    };
    Err(SettingsError(wrong.into()))
}

/// Makes the secret, where the operator gave one. No error repeats it.
pub(super) fn open(root: &Connection, config: &Config) -> Result<(), QueryError> {
    let Some(sql) = statement(config) else { return Ok(()) };
    let unavailable = |reason: String| QueryError::Unavailable(reason);
    root.execute_batch("LOAD httpfs")
        .map_err(|error| unavailable(not_installed(root, &error.to_string())))?;
    // DuckDB's own message would repeat the statement.
    root.execute_batch(&sql).map_err(|_| {
        unavailable("`s3_key`: DuckDB refuses the secret made of `s3_*`, `r2_account`, `ssl` and `verify`: check them".into())
    })
}

/// `CREATE SECRET`, with which DuckDB reads `s3://`, `gcs://` and `r2://` addresses. It lives in memory.
/// <https://duckdb.org/docs/stable/core_extensions/httpfs/s3api>
fn statement(config: &Config) -> Option<String> {
    let key = config.s3_key.as_ref().filter(|key| !key.reveal().is_empty())?;
    let secret = config.s3_secret.as_ref().map_or("", |secret| secret.reveal());
    let mut parts = vec![
        format!("TYPE {}", config.s3_type.word()),
        "PROVIDER config".to_owned(),
        format!("KEY_ID {}", quoted(key.reveal())),
        format!("SECRET {}", quoted(secret)),
        format!("REGION {}", quoted(&config.s3_region)),
        format!("USE_SSL {}", config.ssl),
        format!("VERIFY_SSL {}", config.verify),
    ];
    // Without one DuckDB takes the provider's own, which for `gcs` and `r2` is not Amazon's.
    if let Some(host) = &config.s3_host {
        parts.push(format!("ENDPOINT {}", quoted(host)));
    }
    if config.s3_type == Kind::R2 && !config.r2_account.is_empty() {
        parts.push(format!("ACCOUNT_ID {}", quoted(&config.r2_account)));
    }
    Some(format!("CREATE OR REPLACE TEMPORARY SECRET watchpost ({})", parts.join(", ")))
}

/// What to install, and where.
fn not_installed(root: &Connection, error: &str) -> String {
    let ask = |sql: &str| root.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap_or_default();
    let (version, platform) = (ask("SELECT version()"), ask("SELECT platform FROM pragma_platform()"));
    // DuckDB's message names the file that it looked for.
    let file = error.split('"').find(|part| part.ends_with(".duckdb_extension")).map(Path::new);
    match file {
        Some(file) => format!(
            "`s3_key` needs DuckDB's extension `httpfs`, and `{}` is not there: put the one of DuckDB {version} for \
             {platform} there (`INSTALL httpfs` in that DuckDB fetches it), nothing is fetched here",
            file.display()
        ),
        None => {
            format!("`s3_key` needs DuckDB's extension `httpfs` of DuckDB {version} for {platform}: {error}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn config(kind: Kind) -> Config {
        Config {
            s3_key: Some(Secret::new("AKIA'X")),
            s3_secret: Some(Secret::new("hunter2")),
            s3_type: kind,
            ..Config::default()
        }
    }

    #[test]
    fn the_secret_is_as_clickdetect_makes_it_with_quotes_kept_harmless() {
        insta::assert_snapshot!(statement(&config(Kind::S3)).unwrap(), @"CREATE OR REPLACE TEMPORARY SECRET watchpost (TYPE s3, PROVIDER config, KEY_ID 'AKIA''X', SECRET 'hunter2', REGION 'us-east-1', USE_SSL true, VERIFY_SSL true)");
        let minio = Config {
            s3_host: Some("minio.example:9000".into()),
            ssl: false,
            verify: false,
            ..config(Kind::S3)
        };
        insta::assert_snapshot!(statement(&minio).unwrap(), @"CREATE OR REPLACE TEMPORARY SECRET watchpost (TYPE s3, PROVIDER config, KEY_ID 'AKIA''X', SECRET 'hunter2', REGION 'us-east-1', USE_SSL false, VERIFY_SSL false, ENDPOINT 'minio.example:9000')");
        let r2 = Config { r2_account: "abc".into(), ..config(Kind::R2) };
        insta::assert_snapshot!(statement(&r2).unwrap(), @"CREATE OR REPLACE TEMPORARY SECRET watchpost (TYPE r2, PROVIDER config, KEY_ID 'AKIA''X', SECRET 'hunter2', REGION 'us-east-1', USE_SSL true, VERIFY_SSL true, ACCOUNT_ID 'abc')");
        assert_eq!(statement(&Config { s3_key: Some(Secret::new("")), ..config(Kind::Gcs) }), None);
        assert_eq!(statement(&Config::default()), None);
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let told = |config: &Config| check(config).unwrap_err().to_string();
        assert!(told(&Config { s3_secret: None, ..config(Kind::S3) }).contains("needs `s3_secret`"));
        assert!(told(&Config { s3_key: None, ..config(Kind::S3) }).contains("needs `s3_key`"));
        assert!(told(&config(Kind::R2)).contains("`r2_account`"));
        assert!(check(&config(Kind::Gcs)).is_ok() && check(&Config::default()).is_ok());
    }
}
