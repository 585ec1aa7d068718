//! Whole paths, by what the user sees. One binary, a file per subject.

// clippy.toml allows it in test functions; here everything is a test.
#![allow(clippy::unwrap_used)]

mod architecture;
mod chat;
mod check;
mod cli;
mod close;
mod connect;
mod databricks;
mod datasources_http;
mod datasources_sql;
mod delivery;
mod demo;
mod detection;
mod eval;
mod fake;
mod judge;
mod loki;
mod mail;
mod model;
mod opensearch_ppl;
mod pipeline;
mod proxy;
mod receiver;
mod redteam;
mod reference;
mod replay;
mod search;
mod services;
mod soak;
mod soc;
mod tickets;
mod triage;
mod trust;
mod victorialogs;
