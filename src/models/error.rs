//! Why a model cannot be used, kept or fetched.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use watchpost_engine::LoadError;

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// `looked` names every place, `near` is empty or a suggestion, `pull` is empty or the second way to get it.
    #[error("no model `{name}`{near}; looked in {}: get it with `watchpost model import FILE`{pull}", .looked.join(", "))]
    NotInstalled { name: String, looked: Vec<String>, near: String, pull: String },
    #[error("{}: {error}: give the path of a GGUF file, or a name that `watchpost model list` shows", .path.display())]
    Read { path: PathBuf, error: std::io::Error },
    /// The engine refuses the file.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// `by` says who expects it, e.g. `models.toml`.
    #[error(
        "{}: the SHA-256 is {found}, {by} says {expected}: the file is damaged or another one; copy or download it again",
        .path.display()
    )]
    WrongHash { path: PathBuf, found: String, expected: String, by: String },
    #[error(
        "{}: {found} bytes, models.toml says {expected} for `{name}`: copy or download it again, or give another model \
         another name with `--name`",
        .path.display()
    )]
    WrongSize { path: PathBuf, name: String, found: u64, expected: u64 },
    #[error("{}: the record is not in the format of sha256sum: import the model again", .path.display())]
    Record { path: PathBuf },
    #[error("{}: exists already and is not this: {fix}", .path.display())]
    Exists { path: PathBuf, fix: &'static str },
    #[error("{}: {error}: {fix}", .path.display())]
    Write { path: PathBuf, error: std::io::Error, fix: String },
    /// The executable says it carries a model, and does not carry it whole.
    #[error("{}: {what}: this copy of the program is damaged; copy it again", .path.display())]
    Executable { path: PathBuf, what: String },
    #[error(
        "`{name}` is no name for a model: use up to 128 letters, digits and `.`, `-`, `_`, not a dot first"
    )]
    Name { name: String },
    #[error("`{given}` is no SHA-256: 64 hexadecimal digits were expected")]
    Hash { given: String },
    /// Only models of models.toml can be pulled.
    #[error(
        "models.toml knows no `{name}` that can be pulled{near}: download the GGUF file and run \
         `watchpost model import FILE`"
    )]
    NotKnown { name: String, near: String },
    #[error("models.toml has no SHA-256 for `{name}`: give the one its publisher states with `--sha256`")]
    NoHash { name: String },
    #[error(
        "{name}: {hub} did not give it: {reason}: this needs a network (a proxy or mirror is taken from HTTPS_PROXY and \
         HF_ENDPOINT); without one, bring the GGUF file here and run `watchpost model import FILE`"
    )]
    Hub { name: String, hub: String, reason: String },
}

impl ModelError {
    /// A failed write of up to `needed` bytes at `path`.
    pub(super) fn write(path: &Path, needed: u64, error: std::io::Error) -> Self {
        let fix = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                format!(
                    "{} MiB are needed there: free space, or choose another folder",
                    needed.div_ceil(1 << 20)
                )
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "run as a user who may write there, or choose another folder".into()
            }
            ErrorKind::FileTooLarge => "raise the limit on the size of files (`ulimit -f`)".into(),
            _ => "choose a folder that exists and can be written".into(),
        };
        Self::Write { path: path.into(), error, fix }
    }
}
