//! Taking a model file into a models folder, and checking that it is still what was taken.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use watchpost_engine::{Info, Source, gguf};

use super::file::{Part, hex, sha256, stream};
use super::known::{self, Known};
use super::registry::{Found, Origin};
use super::{ModelError, Progress};

/// A model that is now in the models folder, with its hash recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    pub name: String,
    pub path: PathBuf,
    pub sha256: String,
    /// Whether models.toml has this hash.
    pub is_known: bool,
    pub info: Info,
}

/// Checks the GGUF file at `path` and copies it into `folder` under `name`, else under the name of its file.
///
/// A model whose hash models.toml knows gets the file name it has there. One that claims a known name must be it, byte
/// for byte. A file that is in the folder already only gets its hash recorded.
pub fn import(
    path: &Path,
    name: Option<&str>,
    folder: &Path,
    progress: Progress<'_>,
) -> Result<Imported, ModelError> {
    let source = Source::file(path)?;
    let info = gguf::inspect(&source)?;
    let name = name
        .map_or_else(|| path.file_name().unwrap_or_default().to_string_lossy().into_owned(), str::to_owned);
    let claimed = claimed(&name, &source)?;
    // The bytes are read twice, to hash and to copy, and must be the same both times.
    let both = 2 * source.len;
    let found = sha256(&source, &mut |done, len| progress(done, len * 2))?;
    check(path, &found, claimed.and_then(|known| known.sha256.as_deref()), "models.toml")?;

    let is_this = |known: &&Known| known.sha256.as_deref() == Some(&found);
    let known = known::all().iter().find(is_this);
    let target =
        folder.join(known.or(claimed).map_or_else(|| file_name(&name), |known| Ok(known.file.clone()))?);
    fs::create_dir_all(folder).map_err(|error| ModelError::write(folder, source.len, error))?;
    if !is_installed(&target, &source, &found)? {
        copy(&source, &target, &found, &mut |done, len| progress(len + done, both))?;
    }
    record(&target, &found)?;
    progress(both, both);
    Ok(Imported {
        name: shown_name(&target, known),
        path: target,
        sha256: found,
        is_known: known.is_some(),
        info,
    })
}

/// Moves a file that was downloaded beside `target` to its place once it is known to be what was asked for.
pub(super) fn adopt(
    path: &Path,
    target: &Path,
    expected: &str,
    progress: Progress<'_>,
) -> Result<Imported, ModelError> {
    let source = Source::file(path)?;
    let found = sha256(&source, progress)?;
    check(path, &found, Some(expected), "what was asked for")?;
    let info = gguf::inspect(&source)?;
    let unwritable = |error| ModelError::write(target, source.len, error);
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(unwritable)?;
    fs::rename(path, target).map_err(unwritable)?;
    record(target, &found)?;
    let known = known::all().iter().find(|known| known.sha256.as_deref() == Some(&found));
    let name = shown_name(target, known);
    Ok(Imported { name, path: target.into(), sha256: found, is_known: known.is_some(), info })
}

/// What [`verify`] found.
#[derive(Debug)]
pub enum Verdict {
    /// As recorded, and as models.toml says where it knows the model.
    Good {
        sha256: String,
    },
    /// Nobody recorded a hash and models.toml has none.
    Unrecorded {
        sha256: String,
    },
    Bad(ModelError),
}

/// Computes a model's hash again and holds it against the record and models.toml.
pub fn verify(model: &Found, progress: Progress<'_>) -> Verdict {
    let path = &model.source.path;
    let mut compare = || {
        let (recorded, by) = match model.origin {
            Origin::Embedded => (model.sha256.clone(), "the record in the executable"),
            Origin::Path | Origin::Folder => (recorded(path)?, "its record"),
        };
        let known = known::find(&super::registry::file_name(model)).and_then(|known| known.sha256.as_deref());
        let found = sha256(&model.source, progress)?;
        check(path, &found, recorded.as_deref(), by)?;
        check(path, &found, known, "models.toml")?;
        gguf::inspect(&model.source)?;
        Ok((found, recorded.is_some() || known.is_some()))
    };
    match compare() {
        Ok((sha256, true)) => Verdict::Good { sha256 },
        Ok((sha256, false)) => Verdict::Unrecorded { sha256 },
        Err(error) => Verdict::Bad(error),
    }
}

/// The hash in the record beside the model at `path`, if there is one: `<file>.sha256`, as sha256sum writes and checks it.
pub fn recorded(path: &Path) -> Result<Option<String>, ModelError> {
    let record = record_path(path);
    let text = match fs::read_to_string(&record) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return Err(ModelError::Record { path: record });
        }
        Err(error) => return Err(ModelError::Read { path: record, error }),
    };
    let hash = text.split_ascii_whitespace().next().and_then(|hash| parse_sha256(hash).ok());
    hash.map(Some).ok_or(ModelError::Record { path: record })
}

/// 64 hexadecimal digits, in lower case.
pub fn parse_sha256(text: &str) -> Result<String, ModelError> {
    match text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(ModelError::Hash { given: text.chars().take(80).collect() }),
    }
}

/// The known model that a file called `name` must be.
fn claimed(name: &str, source: &Source) -> Result<Option<&'static Known>, ModelError> {
    let claimed = known::find(name);
    if let Some(known) = claimed.filter(|known| known.bytes != source.len) {
        let (path, name) = (source.path.clone(), known.name.clone());
        return Err(ModelError::WrongSize { path, name, found: source.len, expected: known.bytes });
    }
    Ok(claimed)
}

fn check(path: &Path, found: &str, expected: Option<&str>, by: &str) -> Result<(), ModelError> {
    match expected.filter(|expected| *expected != found) {
        None => Ok(()),
        Some(expected) => {
            let (found, expected) = (found.into(), expected.into());
            Err(ModelError::WrongHash { path: path.into(), found, expected, by: by.into() })
        }
    }
}

/// Whether `target` is there and has the same bytes. Fails where it has others.
fn is_installed(target: &Path, source: &Source, hash: &str) -> Result<bool, ModelError> {
    if target.symlink_metadata().is_err() {
        return Ok(false);
    }
    let fix = "remove it first, or import under another name with `--name`";
    let exists = || ModelError::Exists { path: target.into(), fix };
    let there = Source::file(target).map_err(|_| exists())?;
    let is_same_file = fs::canonicalize(target).ok() == fs::canonicalize(&source.path).ok();
    if is_same_file || (there.len == source.len && sha256(&there, &mut |_, _| ())? == hash) {
        return Ok(true);
    }
    Err(exists())
}

fn copy(source: &Source, target: &Path, expected: &str, progress: Progress<'_>) -> Result<(), ModelError> {
    let unwritable = |error| ModelError::write(target, source.len, error);
    let mut part = Part::create(target).map_err(unwritable)?;
    let found = stream(source, &mut part, progress).map_err(|error| error.at(source, target, source.len))?;
    check(&source.path, &hex(&found), Some(expected), "the first reading of it")?;
    part.finish().map_err(unwritable)
}

fn record(path: &Path, hash: &str) -> Result<(), ModelError> {
    let record = record_path(path);
    let line = format!("{hash}  {}\n", path.file_name().unwrap_or_default().to_string_lossy());
    let write = || {
        let mut part = Part::create(&record)?;
        part.write_all(line.as_bytes())?;
        part.finish()
    };
    write().map_err(|error| ModelError::write(&record, 1, error))
}

fn record_path(path: &Path) -> PathBuf {
    let mut record = path.as_os_str().to_owned();
    record.push(".sha256");
    record.into()
}

/// `name` as the name of a file: safe in a shell, in a record of sha256sum, and with `.gguf` at its end.
fn file_name(name: &str) -> Result<String, ModelError> {
    let stem = name.strip_suffix(".gguf").unwrap_or(name);
    let is_safe = |c: char| c.is_alphanumeric() || ".-_".contains(c);
    match (1..=128).contains(&stem.len()) && !stem.starts_with('.') && stem.chars().all(is_safe) {
        true => Ok(format!("{stem}.gguf")),
        false => Err(ModelError::Name { name: stem.into() }),
    }
}

fn shown_name(target: &Path, known: Option<&Known>) -> String {
    let stem = || target.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    known.map_or_else(stem, |known| known.name.clone())
}
