//! The runner: what `runner.yml` says, parsed once into types that cannot be wrong.
//!
//! [`yaml`] makes a tree in which everything knows its place, [`read`] makes types of it and notes every problem
//! as a [`Diagnostic`]. A section of a file is declared once, with [`section!`], where it belongs: a kind's in the
//! kind's file, the runner's own in [`runner`].

pub mod yaml;

mod diagnostic;
mod kind;
mod read;
mod reference;
mod runner;
pub mod schema;
mod secret;
mod section;
mod types;
pub mod units;
mod url;
mod values;

pub use diagnostic::{Diagnostic, Severity, suggestion};
pub use kind::{Kind, KindTable, tagged};
pub use read::{Environment, Field, FromYaml, Reader, Section, Unreadable, clip, list, prose, read_text};
pub(crate) use read::{either, reason};
pub use reference::{Page, pages};
pub(crate) use runner::not_sigma;
pub use runner::{Detector, DetectorSection, Loaded, Runner, RunnerSection};
pub use secret::Secret;
pub use section::defaults;
pub(crate) use section::{count_fields, join_fields, kinds, section, words};
pub use url::Url;
pub use values::{Interval, Named, Patterns, Plugins, Switch};
