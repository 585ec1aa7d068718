//! The keys and values of a system text, in a file: the next process reads them faster than it would compute them.
//!
//! The file is a cache. One that is damaged, or was written by another model, build or instruction set, is not used, and
//! one that cannot be written is done without.
//!
//! Format, little-endian: [`MAGIC`], sha256 of all that follows it, 32 bytes that name the model ([`Kept::new`]), the number of
//! tokens as u32, the tokens as u32 each, and [`Sequence::bytes`].

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use crate::network::{Network, Sequence};
use crate::source::Mapping;

pub(crate) struct Kept {
    path: PathBuf,
    model: [u8; 32],
    /// Whether this process has written or read the file: the first system text is the one that returns.
    is_done: AtomicBool,
}

impl Kept {
    /// What a kept text depends on beside its tokens: the weights, this build, its kernels, and the context, which chooses
    /// among frequencies.
    pub(crate) fn new(path: &Path, mapping: &Mapping, network: &Network, context: usize) -> Self {
        let mut hash = Sha256::new();
        hash.update(env!("CARGO_PKG_VERSION"));
        hash.update(network.kernels());
        hash.update(context.to_le_bytes());
        hash.update(mapping.len().to_le_bytes());
        // A sample: hashing all of a large model would take longer than what is saved.
        let step = (mapping.len() / SAMPLES).max(SAMPLE);
        for sample in mapping.chunks(step) {
            hash.update(&sample[..SAMPLE.min(sample.len())]);
        }
        Self { path: path.into(), model: hash.finalize().into(), is_done: AtomicBool::new(false) }
    }

    pub(crate) fn load(&self, network: &Network) -> Option<(Vec<u32>, Sequence)> {
        if std::fs::metadata(&self.path).ok()?.len() > MOST_BYTES {
            return None;
        }
        let bytes = std::fs::read(&self.path).ok()?;
        let rest = bytes.strip_prefix(MAGIC)?;
        let (hash, rest) = rest.split_first_chunk::<32>()?;
        let (model, body) = rest.split_first_chunk::<32>()?;
        if *model != self.model || Sha256::digest(rest)[..] != *hash {
            return None;
        }
        let (count, body) = body.split_first_chunk::<4>()?;
        let count = u32::from_le_bytes(*count) as usize;
        let (tokens, body) = body.split_at_checked(count.checked_mul(4)?)?;
        let tokens: Vec<u32> = tokens.as_chunks::<4>().0.iter().map(|id| u32::from_le_bytes(*id)).collect();
        let sequence = network.sequence_from(count, body)?;
        self.is_done.store(true, Ordering::Relaxed);
        Some((tokens, sequence))
    }

    /// Writes the first text that it is given, if the file did not have it.
    pub(crate) fn save(&self, tokens: &[u32], sequence: &Sequence) {
        if tokens.len() < WORTH_KEEPING || self.is_done.swap(true, Ordering::Relaxed) {
            return;
        }
        let Some(keys_and_values) = sequence.bytes() else { return };
        let mut body = self.model.to_vec();
        body.extend((tokens.len() as u32).to_le_bytes());
        body.extend(tokens.iter().flat_map(|id| id.to_le_bytes()));
        body.extend(keys_and_values);
        if body.len() as u64 + 64 <= MOST_BYTES {
            // Without it the next process computes.
            self.write(&body).ok();
        }
    }

    /// Beside the file first, so that a process that ends meanwhile leaves the old one, and two do not mix.
    fn write(&self, body: &[u8]) -> std::io::Result<()> {
        let beside = self.path.with_extension(format!("{}.new", std::process::id()));
        let mut options = std::fs::File::options();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&beside)?;
        file.write_all(MAGIC)?;
        file.write_all(&Sha256::digest(body))?;
        file.write_all(body)?;
        drop(file);
        std::fs::rename(&beside, &self.path).inspect_err(|_| drop(std::fs::remove_file(&beside)))
    }
}

const MAGIC: &[u8] = b"watchpost kept prefix 1\n";
const MOST_BYTES: u64 = 1 << 30;
/// Tokens; fewer are computed as fast as a file is opened.
const WORTH_KEEPING: usize = 32;
const SAMPLES: usize = 256;
const SAMPLE: usize = 4096;
