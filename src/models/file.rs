//! Files that appear whole or not at all, and hashing on the way.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use watchpost_engine::Source;

use super::{ModelError, Progress};

/// A file being written beside its final place. Removed when dropped before [`Part::finish`].
pub(super) struct Part {
    file: File,
    path: PathBuf,
    target: PathBuf,
    is_finished: bool,
}

impl Part {
    pub(super) fn create(target: &Path) -> io::Result<Self> {
        let mut name = std::ffi::OsString::from(".");
        name.push(target.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
        name.push(format!(".{:08x}.part", rand::random::<u32>()));
        let path = target.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path, target: target.into(), is_finished: false })
    }

    /// Puts the file in its place, over what is there, once its bytes are on the disk.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, &self.target)?;
        self.is_finished = true;
        sync_folder(&self.target)
    }

    pub(super) fn make_executable(&self) -> io::Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            self.file.set_permissions(fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_finished {
            // Nobody is left to tell, and the error that brought us here is on its way already.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Makes the name of `target` as lasting as its bytes.
pub(super) fn sync_folder(target: &Path) -> io::Result<()> {
    match target.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

/// Which side of [`stream`] failed.
pub(super) enum StreamError {
    Read(io::Error),
    Write(io::Error),
}

impl StreamError {
    /// `needed` bytes were to be written to `target`.
    pub(super) fn at(self, source: &Source, target: &Path, needed: u64) -> ModelError {
        match self {
            Self::Read(error) => ModelError::Read { path: source.path.clone(), error },
            Self::Write(error) => ModelError::write(target, needed, error),
        }
    }
}

/// Copies the bytes of `source` to `sink` and returns their SHA-256.
pub(super) fn stream(
    source: &Source,
    sink: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<[u8; 32], StreamError> {
    let mut file = File::open(&source.path).map_err(StreamError::Read)?;
    file.seek(SeekFrom::Start(source.offset)).map_err(StreamError::Read)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    while done < source.len {
        let want = usize::try_from(source.len - done).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = match file.read(&mut buffer[..want]) {
            Ok(0) => return Err(StreamError::Read(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StreamError::Read(error)),
        };
        hash.update(&buffer[..read]);
        sink.write_all(&buffer[..read]).map_err(StreamError::Write)?;
        done += read as u64;
        progress(done, source.len);
    }
    Ok(hash.finalize().into())
}

/// SHA-256 in lower-case hex.
pub(super) fn sha256(source: &Source, progress: Progress<'_>) -> Result<String, ModelError> {
    let hash =
        stream(source, &mut io::sink(), progress).map_err(|error| error.at(source, &source.path, 0))?;
    Ok(hex(&hash))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_how_much_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        fs::write(&path, b"model").unwrap();
        let source = Source::file(path).unwrap();
        let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let Err(error) = stream(&source, &mut full, &mut |_, _| ()) else { panic!("the disk is full") };
        let error = error.at(&source, Path::new("/dev/full"), 5 << 20).to_string();
        assert!(error.starts_with("/dev/full: ") && error.contains("5 MiB are needed there"), "{error}");
    }

    #[test]
    fn an_unfinished_file_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model.gguf");
        let mut part = Part::create(&target).unwrap();
        part.write_all(b"half").unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        drop(part);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
}
