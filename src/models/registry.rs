//! Where models are looked for, and which is meant.

use std::path::{Path, PathBuf};

use watchpost_engine::Source;

use super::embed::{self, Embedded};
use super::{ModelError, install, known};
use crate::config::suggestion;

/// The places where models are. Looks when it is asked, so a model imported meanwhile is found.
#[derive(Clone, Debug)]
pub struct Registry {
    /// What relative paths are relative to.
    base: PathBuf,
    executable: Option<PathBuf>,
    /// The first that has a model wins.
    folders: Vec<PathBuf>,
}

/// A model somebody asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    pub name: String,
    pub source: Source,
    /// As recorded when it was imported or embedded, in lower-case hex; not computed here.
    pub sha256: Option<String>,
    pub origin: Origin,
}

/// A model that is there.
pub type Found = Resolved;

/// How a model was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Somebody gave its path.
    Path,
    /// Inside the running executable.
    Embedded,
    /// In a models folder.
    Folder,
}

impl Registry {
    /// The places of this process, in order: its executable; `chosen`, which is `--models` or `$WATCHPOST_MODELS`;
    /// `models/` beside the runner file and in the current folder; `/var/lib/watchpost/models`.
    pub fn new(runner: Option<&Path>, chosen: Option<&Path>) -> Self {
        let beside = |runner: &Path| runner.parent().map(Path::to_path_buf).unwrap_or_default();
        let base = runner.map(beside).unwrap_or_default();
        let folders = [chosen.map(Path::to_path_buf), Some(base.join("models")), Some("models".into())];
        let folders = folders.into_iter().flatten().chain(["/var/lib/watchpost/models".into()]);
        // A running executable that was replaced or removed is still to be had from the kernel.
        let executable = [std::env::current_exe().ok(), Some("/proc/self/exe".into())];
        Self::at(base, executable.into_iter().flatten().find(|path| path.exists()), folders)
    }

    /// These places and no others.
    pub fn at(
        base: PathBuf,
        executable: Option<PathBuf>,
        folders: impl IntoIterator<Item = PathBuf>,
    ) -> Self {
        let mut distinct = Vec::new();
        for folder in folders {
            let folder = std::path::absolute(&folder).unwrap_or(folder);
            if !distinct.contains(&folder) {
                distinct.push(folder);
            }
        }
        Self { base, executable, folders: distinct }
    }

    /// The executable that is running.
    pub fn executable(&self) -> Option<&Path> {
        self.executable.as_deref()
    }

    /// Where a new model goes: the first folder that exists, else the first, which is then created.
    pub fn install_folder(&self) -> &Path {
        let existing = self.folders.iter().find(|folder| folder.is_dir());
        existing.or(self.folders.first()).map_or(Path::new("models"), PathBuf::as_path)
    }

    /// The model meant by a path, or by a name in any case: the executable's, else the first folder's that has it.
    ///
    /// A relative path is relative to the runner file. What contains a `/`, or is a file, is a path.
    pub fn resolve(&self, name_or_path: &str) -> Result<Resolved, ModelError> {
        let path = self.base.join(name_or_path);
        if name_or_path.contains(std::path::MAIN_SEPARATOR) || path.is_file() {
            return at_path(path);
        }
        let found = self.found()?;
        let is_meant = |model: &&Found| known::is_called(name_or_path, &model.name, &file_name(model));
        if let Some(model) = found.iter().find(is_meant) {
            return Ok(model.clone());
        }
        let (near, pull) = match known::find(name_or_path) {
            Some(known) if known.hub.is_some() => {
                (String::new(), format!(" or, with a network, `watchpost model pull {}`", known.name))
            }
            _ => {
                let names = known::all().iter().map(|known| known.name.as_str());
                let names = names.chain(found.iter().map(|model| model.name.as_str()));
                let near = suggestion(name_or_path, names);
                (near, "; `watchpost model list` shows what is known".into())
            }
        };
        Err(ModelError::NotInstalled { name: name_or_path.into(), looked: self.looked(&found), near, pull })
    }

    /// Every model that is there, in the order of the places; of two with one name the first counts.
    pub fn found(&self) -> Result<Vec<Found>, ModelError> {
        let embedded = self.embedded()?.map(|Embedded { name, source, sha256, .. }| Found {
            name,
            source,
            sha256: Some(sha256),
            origin: Origin::Embedded,
        });
        let mut found: Vec<Found> = embedded.into_iter().collect();
        for model in self.folders.iter().flat_map(|folder| in_folder(folder)) {
            if !found.iter().any(|other| other.name.eq_ignore_ascii_case(&model.name)) {
                found.push(model);
            }
        }
        Ok(found)
    }

    /// The model inside the executable.
    pub fn embedded(&self) -> Result<Option<Embedded>, ModelError> {
        self.executable.as_deref().map_or(Ok(None), embed::find)
    }

    fn looked(&self, found: &[Found]) -> Vec<String> {
        let executable = match found.iter().find(|model| model.origin == Origin::Embedded) {
            Some(model) => format!("this executable (it carries `{}`)", model.name),
            None => "this executable (it carries none)".into(),
        };
        let folder = |folder: &PathBuf| match folder.is_dir() {
            true => format!("`{}`", folder.display()),
            false => format!("`{}` (not there)", folder.display()),
        };
        std::iter::once(executable).chain(self.folders.iter().map(folder)).collect()
    }
}

fn at_path(path: PathBuf) -> Result<Resolved, ModelError> {
    let source = Source::file(&path).map_err(|error| match error {
        watchpost_engine::LoadError::Read { path, error } => ModelError::Read { path, error },
        other => other.into(),
    })?;
    Ok(described(source, Origin::Path))
}

/// The GGUF files of a folder by name; nothing where it cannot be read.
fn in_folder(folder: &Path) -> Vec<Found> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| is_model(path)).collect();
    paths.sort();
    let sources = paths.into_iter().filter_map(|path| Source::file(path).ok());
    sources.map(|source| described(source, Origin::Folder)).collect()
}

fn is_model(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !is_hidden && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

fn described(source: Source, origin: Origin) -> Found {
    let sha256 = install::recorded(&source.path).ok().flatten();
    let stem = || source.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let file = source.path.file_name().unwrap_or_default().to_string_lossy();
    let name = known::find(&file).map_or_else(stem, |known| known.name.clone());
    Found { name, source, sha256, origin }
}

/// The name of a model's own file; that of an embedded model is its name.
pub(super) fn file_name(model: &Found) -> String {
    match model.origin {
        Origin::Embedded => known::find(&model.name).map_or(model.name.clone(), |known| known.file.clone()),
        Origin::Path | Origin::Folder => {
            model.source.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
        }
    }
}
