//! Watchpost: scheduled detection queries, every alert kept, each triaged by a local model.
//!
//! In reading order. `pipeline` is where to begin: it tells what happens to an alert.

pub mod pipeline;

pub mod alert;
pub mod clock;
pub mod closing;
pub mod config;
pub mod rule;

pub mod datasource;
pub mod detector;
pub mod learning;
pub mod measure;
pub mod models;
pub mod redteam;
pub mod store;
pub mod triage;
pub mod trust;
pub mod webhook;

pub mod http;
pub mod mail;
pub mod telemetry;
pub mod text;

pub mod app;
pub mod cli;
