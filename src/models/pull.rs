//! Fetching a known model from its hub: the only part of Watchpost that opens a connection for a model, and only when
//! `watchpost model pull` asks for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Repo, RepoType};
use watchpost_engine::Source;

use super::install::{self, Imported};
use super::known::{self, Hub, Known};
use super::{ModelError, Progress, file};
use crate::config::suggestion;

/// How to fetch.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Address of a mirror of the hub, e.g. `http://mirror.example:8080`; the public hub when absent.
    pub endpoint: Option<String>,
    /// The hash the file must have, where models.toml has none.
    pub sha256: Option<String>,
}

/// Fetches the model called `name` into `folder`. A download that was cut off goes on where it ended.
pub fn pull(
    name: &str,
    folder: &Path,
    options: &Options,
    progress: Progress<'_>,
) -> Result<Imported, ModelError> {
    let known = known::find(name);
    let Some((known, hub)) = known.and_then(|known| Some((known, known.hub.as_ref()?))) else {
        let names = known::all().iter().filter(|known| known.hub.is_some()).map(|known| known.name.as_str());
        return Err(ModelError::NotKnown { name: name.into(), near: suggestion(name, names) });
    };
    fetch(known, hub, folder, options, progress)
}

pub(super) fn fetch(
    known: &Known,
    hub: &Hub,
    folder: &Path,
    options: &Options,
    progress: Progress<'_>,
) -> Result<Imported, ModelError> {
    let expected = expected_sha256(known, options)?;
    let unwritable = |error| ModelError::write(folder, known.bytes, error);
    let folder = std::path::absolute(folder).map_err(unwritable)?;
    let target = folder.join(&known.file);
    if target.exists() {
        if file::sha256(&Source::file(&target)?, &mut |_, _| ())? != expected {
            return Err(ModelError::Exists { path: target, fix: "remove it first" });
        }
        return install::import(&target, None, &folder, progress);
    }
    let is_new_folder = !folder.exists();
    let cache = folder.join(format!(".pull-{}", known.name));
    fs::create_dir_all(&cache).map_err(unwritable)?;
    let blob = match download(known, hub, &cache, options, progress) {
        // What an earlier pull left does not fit what the hub has now.
        Err(Failure::Leftover) => {
            fs::remove_dir_all(&cache).and_then(|()| fs::create_dir_all(&cache)).map_err(unwritable)?;
            download(known, hub, &cache, options, progress)
        }
        other => other,
    };
    let outcome = match blob {
        Ok(blob) => install::adopt(&blob, &target, &expected, progress),
        Err(failure) => {
            // What came stays for the next pull; where nothing came, nothing stays.
            if fs::remove_dir(&cache).is_ok() && is_new_folder {
                drop(fs::remove_dir(&folder));
            }
            return Err(failure.of(known, options));
        }
    };
    fs::remove_dir_all(&cache).map_err(unwritable)?;
    outcome
}

/// The hash of models.toml, or the one given where there is none; they may not contradict each other.
fn expected_sha256(known: &Known, options: &Options) -> Result<String, ModelError> {
    let given = options.sha256.as_deref().map(install::parse_sha256).transpose()?;
    match (known.sha256.clone(), given) {
        (Some(expected), Some(found)) if expected != found => {
            let (path, by) = (PathBuf::from("--sha256"), "models.toml".into());
            Err(ModelError::WrongHash { path, found, expected, by })
        }
        (Some(expected), _) | (None, Some(expected)) => Ok(expected),
        (None, None) => Err(ModelError::NoHash { name: known.name.clone() }),
    }
}

enum Failure {
    /// An earlier download that cannot go on.
    Leftover,
    Other(String),
}

impl Failure {
    fn of(self, known: &Known, options: &Options) -> ModelError {
        let reason = match self {
            Self::Leftover => "it refused to continue the download".into(),
            Self::Other(reason) => reason,
        };
        let hub = options.endpoint.clone().unwrap_or_else(|| "the public model hub".into());
        ModelError::Hub { name: known.name.clone(), hub, reason }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let reason = error.to_string();
        match error {
            ApiError::InvalidResume => Self::Leftover,
            ApiError::RequestError(_) if reason.contains("status: 416") => Self::Leftover,
            _ => Self::Other(reason),
        }
    }
}

/// What the downloading thread tells.
enum Event {
    Bytes(u64),
    Ended(Result<PathBuf, Failure>),
}

/// Downloads into `cache` and returns where the bytes are.
///
/// The library knows no time limit, so it works in a thread of its own, which is given up when nothing has come for
/// [`PATIENCE`] or more comes than was promised; the verb then ends the process.
fn download(
    known: &Known,
    hub: &Hub,
    cache: &Path,
    options: &Options,
    progress: Progress<'_>,
) -> Result<PathBuf, Failure> {
    let (sender, events) = mpsc::channel();
    let (file, bytes, api) = (hub.file.clone(), known.bytes, api(cache, options)?);
    let repository = Repo::with_revision(hub.repository.clone(), RepoType::Model, hub.revision.clone());
    std::thread::spawn(move || {
        let ended = transfer(&api, repository, &file, bytes, &sender);
        // Nobody listens any more when this thread was given up.
        drop(sender.send(Event::Ended(ended)));
    });
    let mut done = 0;
    loop {
        match events.recv_timeout(PATIENCE) {
            Ok(Event::Bytes(bytes)) => done += bytes,
            Ok(Event::Ended(result)) => return result,
            Err(RecvTimeoutError::Timeout) => {
                return Err(Failure::Other(format!("nothing came for {} s", PATIENCE.as_secs())));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::Other("its answer made no sense".into()));
            }
        }
        if done > known.bytes {
            return Err(Failure::Other(format!("it sends more than the {} bytes of the model", known.bytes)));
        }
        progress(done, known.bytes);
    }
}

/// No token is sent: known models are public.
fn api(cache: &Path, options: &Options) -> Result<Api, Failure> {
    let builder = ApiBuilder::new().with_cache_dir(cache.into()).with_token(None).with_progress(false);
    let builder = match &options.endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint.trim_end_matches('/').into()),
        None => builder,
    };
    Ok(builder.build()?)
}

fn transfer(
    api: &Api,
    repository: Repo,
    file: &str,
    bytes: u64,
    sender: &Sender<Event>,
) -> Result<PathBuf, Failure> {
    let repository = api.repo(repository);
    let promised = api.metadata(&repository.url(file))?;
    // The library makes paths of these two as they come.
    let is_plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if !is_plain(promised.etag()) || !is_plain(promised.commit_hash()) {
        return Err(Failure::Other("its answer made no sense".into()));
    }
    if promised.size() as u64 != bytes {
        let size = promised.size();
        return Err(Failure::Other(format!("its file has {size} bytes, models.toml says {bytes}")));
    }
    let path = repository.download_with_progress(file, Told(sender.clone()))?;
    Ok(fs::canonicalize(path).map_err(ApiError::from)?)
}

struct Told(Sender<Event>);

impl hf_hub::api::Progress for Told {
    fn init(&mut self, _: usize, _: &str) {}

    fn update(&mut self, bytes: usize) {
        // A listener that is gone has reported why.
        drop(self.0.send(Event::Bytes(bytes as u64)));
    }

    fn finish(&mut self) {}
}

/// Longest silence of the hub.
const PATIENCE: Duration = Duration::from_secs(60);
