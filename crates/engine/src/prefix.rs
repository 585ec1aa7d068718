//! Keys and values of beginnings that prompts share, computed once and shared without copying.

use crate::chat::Encoded;
use crate::network::Sequence;

/// The most recently used beginnings, each with its sequence.
pub(crate) struct Prefixes {
    /// Least recently used first.
    entries: Vec<(Vec<u32>, Sequence)>,
    most: usize,
}

impl Prefixes {
    pub(crate) fn new(most: usize) -> Self {
        Self { entries: Vec::new(), most }
    }

    /// A sequence with the longest beginning of `prompt` that is known and ends at one of its ends, at most at `limit`.
    pub(crate) fn longest(&mut self, prompt: &Encoded, limit: usize) -> Option<Sequence> {
        let ends = prompt.ends.iter().rev().filter(|end| **end <= limit);
        let mut found =
            ends.filter_map(|end| self.entries.iter().position(|(known, _)| *known == prompt.tokens[..*end]));
        let at = found.next()?;
        let tokens = self.entries[at].0.clone();
        // What it begins with goes on being used through it. The sort is stable: their order among each other stays.
        self.entries.sort_by_key(|(known, _)| tokens.starts_with(known));
        let entry = self.entries.iter_mut().find(|(known, _)| *known == tokens)?;
        Some(entry.1.branch(0))
    }

    pub(crate) fn put(&mut self, tokens: &[u32], sequence: Sequence) {
        if self.most == 0 || self.entries.iter().any(|(known, _)| known == tokens) {
            return;
        }
        if self.entries.len() >= self.most {
            self.entries.remove(0);
        }
        self.entries.push((tokens.to_vec(), sequence));
    }

    /// Forgets a beginning that will not be used again.
    pub(crate) fn remove(&mut self, tokens: &[u32]) {
        self.entries.retain(|(known, _)| known != tokens);
    }

    /// Gives up the least recently used one; false when there is none.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        let some = !self.entries.is_empty();
        if some {
            self.entries.remove(0);
        }
        some
    }
}
