//! How much memory a model needs, and how much there is: asked before weights are read, so that a model too large
//! is an error and not a killed process.

use candle_core::Device;

use crate::error::LoadError;
use crate::gguf::{Header, Shape};
use crate::network::{ROWS, device_bytes, packed_bytes, part_bytes};

/// The context of a model whose options name none.
pub(crate) fn default_context(shape: &Shape) -> usize {
    shape.context.min(4096)
}

/// Bytes of an open model with one sequence of `context` tokens.
pub(crate) fn needed(header: &Header<'_>, shape: &Shape, context: usize) -> u64 {
    header.tensors.values().map(packed_bytes).fold(beside_weights(shape, context), u64::saturating_add)
}

/// The same on a device of candle's: of the machine's memory, or of a GPU's.
pub(crate) fn needed_on(device: &Device, header: &Header<'_>, shape: &Shape, context: usize) -> u64 {
    let bytes = header.tensors.values().map(|tensor| device_bytes(device, tensor));
    bytes.fold(beside_weights(shape, context), u64::saturating_add)
}

fn beside_weights(shape: &Shape, context: usize) -> u64 {
    let rows = ROWS.min(context) as u64;
    let (wide, parts) = (shape.feed_forward, shape.experts.map_or(1, |experts| experts.used));
    let row =
        4 * ((4 + 2 * parts) * shape.hidden + 4 * parts * wide + 4 * shape.heads * shape.head_dim) as u64;
    sequence(shape, context) + rows * row + TOKENIZER_BYTES_PER_TOKEN * shape.vocab as u64
}

/// Bytes of the keys and values of one sequence of `context` tokens, each of whose parts is rounded up.
pub(crate) fn sequence(shape: &Shape, context: usize) -> u64 {
    part_bytes(shape, context + PARTS * 16)
}

/// Fails when `needed` bytes pass what is `allowed` or `available`.
pub(crate) fn check(
    header: &Header<'_>,
    needed: u64,
    allowed: Option<u64>,
    available: Option<u64>,
) -> Result<(), LoadError> {
    let limits = [(allowed, "allowed"), (available, "available")];
    for (limit, name) in limits {
        if let Some(limit) = limit.filter(|&limit| needed > limit) {
            let (needed_mib, limit_mib) = (needed.div_ceil(MIB), limit / MIB);
            return Err(LoadError::Memory { path: header.path().into(), needed_mib, limit_mib, limit: name });
        }
    }
    Ok(())
}

/// What this process may still take: of the machine, and of its control group where that has a limit.
pub(crate) fn available() -> Option<u64> {
    let machine = line_kib(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:");
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max")
        .zip(number("/sys/fs/cgroup/memory.current"))
        .map(|(limit, used)| limit.saturating_sub(used));
    machine.into_iter().chain(group).min()
}

/// Most memory this process has had resident so far.
pub(crate) fn peak_rss() -> Option<u64> {
    line_kib(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

fn line_kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Parts of a sequence: system text, guidance, question, answer.
const PARTS: usize = 4;
pub(crate) const MIB: u64 = 1 << 20;
/// Vocabulary, merges and the trie of constrained decoding: measured with 49,152 tokens, rounded up.
const TOKENIZER_BYTES_PER_TOKEN: u64 = 1024;
