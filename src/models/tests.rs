//! Models come, stay and travel as promised, on small files; the command line has its tests in tests/it/model.rs.

mod embedding;
mod installing;
mod pulling;
mod resolving;

use std::path::{Path, PathBuf};

use super::{Registry, tiny};

/// A folder for one test, with a models folder and a fake executable in it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("program"), [b"#!program\n".as_slice(), &[7; 5_000]].concat())
            .unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn models(&self) -> PathBuf {
        self.path("models")
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn registry(&self) -> Registry {
        Registry::at(self.folder.path().into(), Some(self.path("program")), [self.models()])
    }
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
