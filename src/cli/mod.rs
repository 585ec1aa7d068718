//! cli

pub mod model;
