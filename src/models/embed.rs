//! The self-contained binary: a copy of the executable that carries a model.
//!
//! ```text
//! program | LEAD | zeros up to a multiple of ALIGNMENT | model | footer
//! ```
//!
//! The footer is the last [`FOOTER_BYTES`] of the file, numbers little-endian:
//!
//! ```text
//!   0  16  MAGIC                      40   8  length of the model
//!  16   4  version, 1                 48  32  SHA-256 of the model
//!  20   4  length of the name         80 144  name, UTF-8, zeros after it
//!  24   8  length of the program     224  32  SHA-256 of the footer before this field
//!  32   8  offset of the model
//! ```
//!
//! Tools that rewrite executables (`strip`, `objcopy`, packers) drop what is appended: embed last.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use watchpost_engine::{Source, gguf};

use super::file::{Part, hex, stream};
use super::{ModelError, Progress};

/// A model inside an executable.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    pub name: String,
    pub source: Source,
    /// As computed when it was embedded; `watchpost model verify` computes it again, a start does not.
    pub sha256: String,
    /// Where the program ends.
    program_bytes: u64,
}

/// The model that `executable` carries, if it carries one. Fails where it should and does not carry it whole.
pub fn find(executable: &Path) -> Result<Option<Embedded>, ModelError> {
    let unreadable = |error| ModelError::Read { path: executable.into(), error };
    let mut file = File::open(executable).map_err(unreadable)?;
    let file_bytes = file.metadata().map_err(unreadable)?.len();
    let damaged = |what: &str| Err(ModelError::Executable { path: executable.into(), what: what.into() });
    if file_bytes >= FOOTER_BYTES as u64 {
        let mut footer = [0; FOOTER_BYTES];
        read_at(&mut file, file_bytes - FOOTER_BYTES as u64, &mut footer).map_err(unreadable)?;
        if footer.starts_with(MAGIC) {
            return match Footer::read(&footer, file_bytes) {
                Ok(footer) => Ok(Some(footer.embedded(executable))),
                Err(what) => damaged(what),
            };
        }
    }
    if has_lead(&mut file).map_err(unreadable)? {
        return damaged("it carried a model, and its end is missing");
    }
    Ok(None)
}

/// Writes a copy of `executable` that carries `model` under `name` to `out`. A model it carried before is replaced.
/// Fails when `out` exists without `force`, and when the model's hash is not `expected`.
pub fn embed(
    executable: &Path,
    model: &super::Resolved,
    out: &Path,
    force: bool,
    progress: Progress<'_>,
) -> Result<Embedded, ModelError> {
    gguf::inspect(&model.source)?;
    if !force && out.symlink_metadata().is_ok() {
        return Err(ModelError::Exists {
            path: out.into(),
            fix: "write elsewhere, or replace it with `--force`",
        });
    }
    let program_bytes = match find(executable)? {
        Some(carried) => carried.program_bytes,
        None => Source::file(executable)?.len,
    };
    let program = Source { path: executable.into(), offset: 0, len: program_bytes };
    let offset = (program_bytes + LEAD.len() as u64).next_multiple_of(ALIGNMENT);
    let needed = offset + model.source.len + FOOTER_BYTES as u64;
    let unwritable = |error| ModelError::write(out, needed, error);

    let mut part = Part::create(out).map_err(unwritable)?;
    stream(&program, &mut part, &mut |done, _| progress(done, needed))
        .map_err(|error| error.at(&program, out, needed))?;
    part.write_all(LEAD).map_err(unwritable)?;
    let padding = offset - program_bytes - LEAD.len() as u64;
    part.write_all(&vec![0; padding as usize]).map_err(unwritable)?;
    let sha256 = stream(&model.source, &mut part, &mut |done, _| progress(offset + done, needed))
        .map_err(|error| error.at(&model.source, out, needed))?;
    if let Some(expected) = model.sha256.clone().filter(|expected| *expected != hex(&sha256)) {
        let (path, by) = (model.source.path.clone(), "its record".into());
        return Err(ModelError::WrongHash { path, found: hex(&sha256), expected, by });
    }
    let footer = Footer { name: model.name.clone(), program_bytes, offset, len: model.source.len, sha256 };
    part.write_all(&footer.write()).map_err(unwritable)?;
    part.make_executable().map_err(unwritable)?;
    part.finish().map_err(unwritable)?;
    Ok(footer.embedded(out))
}

struct Footer {
    name: String,
    program_bytes: u64,
    offset: u64,
    len: u64,
    sha256: [u8; 32],
}

impl Footer {
    fn write(&self) -> [u8; FOOTER_BYTES] {
        let mut name = self.name.as_str();
        while name.len() > NAME_BYTES {
            name = &name[..name.floor_char_boundary(name.len() - 1)];
        }
        let mut bytes = [0; FOOTER_BYTES];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..20].copy_from_slice(&VERSION.to_le_bytes());
        bytes[20..24].copy_from_slice(&(name.len() as u32).to_le_bytes());
        bytes[24..32].copy_from_slice(&self.program_bytes.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.offset.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.len.to_le_bytes());
        bytes[48..80].copy_from_slice(&self.sha256);
        bytes[80..80 + name.len()].copy_from_slice(name.as_bytes());
        let check = Sha256::digest(&bytes[..CHECK_AT]);
        bytes[CHECK_AT..].copy_from_slice(&check);
        bytes
    }

    /// The footer of a file of `file_bytes`, or what is wrong with it.
    fn read(bytes: &[u8; FOOTER_BYTES], file_bytes: u64) -> Result<Self, &'static str> {
        if Sha256::digest(&bytes[..CHECK_AT])[..] != bytes[CHECK_AT..] {
            return Err("the record of its model is damaged");
        }
        let small = |at: usize| u32::from_le_bytes(field(bytes, at));
        let large = |at: usize| u64::from_le_bytes(field(bytes, at));
        if small(16) != VERSION {
            return Err("its model was embedded by another version");
        }
        let (program_bytes, offset, len) = (large(24), large(32), large(40));
        let end = offset.checked_add(len).and_then(|end| end.checked_add(FOOTER_BYTES as u64));
        let is_in_order =
            program_bytes <= offset && offset.is_multiple_of(ALIGNMENT) && end == Some(file_bytes);
        if !is_in_order {
            return Err("its length is not what it was when the model was embedded");
        }
        let name = bytes[80..CHECK_AT].get(..small(20) as usize).and_then(|name| str::from_utf8(name).ok());
        let name = name.ok_or("the name of its model is damaged")?.to_owned();
        Ok(Self { name, program_bytes, offset, len, sha256: field(bytes, 48) })
    }

    fn embedded(&self, path: &Path) -> Embedded {
        Embedded {
            name: self.name.clone(),
            source: Source { path: path.into(), offset: self.offset, len: self.len },
            sha256: hex(&self.sha256),
            program_bytes: self.program_bytes,
        }
    }
}

/// Whether [`LEAD`] follows the program: a footer must then be there too. Knows 64-bit little-endian ELF, where the
/// table of sections ends the program.
fn has_lead(file: &mut File) -> std::io::Result<bool> {
    let mut header = [0; 64];
    let mut lead = [0; LEAD.len()];
    if read_at(file, 0, &mut header).is_err() || !header.starts_with(b"\x7fELF\x02\x01") {
        return Ok(false);
    }
    let entry = u64::from(u16::from_le_bytes(field(&header, 58)));
    let entries = u64::from(u16::from_le_bytes(field(&header, 60)));
    let Some(end) = u64::from_le_bytes(field(&header, 40)).checked_add(entry * entries) else {
        return Ok(false);
    };
    match read_at(file, end, &mut lead) {
        Ok(()) => Ok(lead == *LEAD),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn read_at(file: &mut File, at: u64, bytes: &mut [u8]) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(bytes)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the caller's field lies within its header")
}

/// Begins the footer.
const MAGIC: &[u8; 16] = b"WATCHPOST-MODEL\n";
/// Directly after the program, so that a copy cut short is known for one.
const LEAD: &[u8; 16] = b"WATCHPOST-MODEL>";
const VERSION: u32 = 1;
/// The largest page of the processors we run on (arm64 may have 64 KiB).
const ALIGNMENT: u64 = 64 << 10;
const FOOTER_BYTES: usize = 256;
const NAME_BYTES: usize = 144;
const CHECK_AT: usize = FOOTER_BYTES - 32;
