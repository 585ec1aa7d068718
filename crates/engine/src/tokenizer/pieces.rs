//! SentencePiece's BPE: of all neighbours that make a piece together, those with the best score become one, until no two
//! do; characters that are no piece become their bytes.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use super::{BYTE, MAX_TOKEN_BYTES, NORMAL};
use crate::gguf::Header;

pub(super) struct Pieces {
    /// Id and score.
    pieces: HashMap<Box<str>, (u32, f32)>,
    /// The token of each byte, where there is one.
    bytes: [Option<u32>; 256],
    longest: usize,
}

impl Pieces {
    /// Of the tokens that are no `controls`.
    pub(super) fn read(
        header: &Header<'_>,
        tokens: &[&str],
        kinds: &[i64],
        controls: &[bool],
    ) -> Result<Self, String> {
        let scores = header.array("tokenizer.ggml.scores").and_then(|scores| scores.floats());
        let scores =
            scores.ok_or("no `tokenizer.ggml.scores`, or one is not a number: convert the model again")?;
        if scores.len() != tokens.len() {
            return Err(format!("{} tokens, but {} scores", tokens.len(), scores.len()));
        }
        let (mut pieces, mut bytes, mut longest) = (HashMap::new(), [None; 256], 0);
        for (id, token) in tokens.iter().enumerate().filter(|(id, _)| !controls[*id]) {
            match kinds[id] {
                NORMAL if token.len() <= MAX_TOKEN_BYTES => {
                    longest = longest.max(token.len());
                    pieces.insert((*token).into(), (id as u32, scores[id]));
                }
                BYTE => {
                    if let Some(byte) = byte(token) {
                        bytes[usize::from(byte)] = Some(id as u32);
                    }
                }
                _ => {}
            }
        }
        Ok(Self { pieces, bytes, longest })
    }

    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let text = text.replace(' ', "▁");
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(i, (start, letter))| Symbol {
                start,
                end: start + letter.len_utf8(),
                before: i.checked_sub(1),
                after: Some(i + 1),
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.after = None;
        }
        let mut merges = BinaryHeap::new();
        let propose = |merges: &mut BinaryHeap<Merge>, symbols: &[Symbol], left: usize| {
            let Some(right) = symbols[left].after else { return };
            let (start, end) = (symbols[left].start, symbols[right].end);
            if end - start <= self.longest
                && let Some((_, score)) = self.pieces.get(&text[start..end])
            {
                merges.push(Merge { score: *score, left, end });
            }
        };
        for left in 0..symbols.len() {
            propose(&mut merges, &symbols, left);
        }
        while let Some(Merge { left, end, .. }) = merges.pop() {
            // One of the two has been merged with another since, unless together they still end there.
            let Some(right) = symbols[left].after.filter(|right| symbols[*right].end == end) else {
                continue;
            };
            let after = symbols[right].after;
            symbols[left].end = end;
            symbols[left].after = after;
            symbols[right].after = None;
            symbols[right].end = symbols[right].start;
            if let Some(after) = after {
                symbols[after].before = Some(left);
            }
            propose(&mut merges, &symbols, left);
            if let Some(before) = symbols[left].before {
                propose(&mut merges, &symbols, before);
            }
        }
        let mut ids = Vec::new();
        let mut next = (!symbols.is_empty()).then_some(0);
        while let Some(i) = next {
            let piece = &text[symbols[i].start..symbols[i].end];
            match self.pieces.get(piece) {
                Some((id, _)) => ids.push(*id),
                None => ids.extend(piece.bytes().filter_map(|byte| self.bytes[usize::from(byte)])),
            }
            next = symbols[i].after;
        }
        ids
    }
}

/// The byte that a token like `<0x0A>` stands for.
pub(super) fn byte(token: &str) -> Option<u8> {
    u8::from_str_radix(token.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()
}

/// A stretch of the text; empty once it is merged into the one before.
struct Symbol {
    start: usize,
    end: usize,
    before: Option<usize>,
    after: Option<usize>,
}

/// The symbol `left` and the one after it, which together end at `end`.
struct Merge {
    score: f32,
    left: usize,
    end: usize,
}

/// The best score is the greatest; of equal ones the leftmost.
impl Ord for Merge {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left)).then(self.end.cmp(&other.end))
    }
}

impl PartialOrd for Merge {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Merge {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Merge {}
