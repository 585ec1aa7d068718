//! Keys and values of system prompts, computed once.

use crate::network::Sequence;

/// The most recently used prefixes, each with its sequence.
pub(crate) struct Prefixes {
    /// Least recently used first.
    entries: Vec<(Vec<u32>, Sequence)>,
    most: usize,
}

impl Prefixes {
    pub(crate) fn new(most: usize) -> Self {
        Self { entries: Vec::new(), most }
    }

    pub(crate) fn get(&mut self, tokens: &[u32]) -> Option<&Sequence> {
        let at = self.entries.iter().position(|(known, _)| known == tokens)?;
        let entry = self.entries.remove(at);
        self.entries.push(entry);
        self.entries.last().map(|(_, sequence)| sequence)
    }

    pub(crate) fn put(&mut self, tokens: &[u32], sequence: Sequence) {
        if self.most == 0 {
            return;
        }
        if self.entries.len() >= self.most {
            self.entries.remove(0);
        }
        self.entries.push((tokens.to_vec(), sequence));
    }

    /// Tokens kept, of all prefixes together.
    pub(crate) fn tokens(&self) -> usize {
        self.entries.iter().map(|(tokens, _)| tokens.len()).sum()
    }

    /// Gives up the least recently used prefix; false when there is none.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        let some = !self.entries.is_empty();
        if some {
            self.entries.remove(0);
        }
        some
    }
}
