//! The tokenizer that a GGUF describes.
//!
//! There are two ways in, and they are the wall between an attacker's text and the model's control tokens:
//! [`Tokenizer::encode_data`] cannot produce a control token, because the vocabulary it works with has none;
//! only [`Tokenizer::encode_template`], for the chat template's own text, looks for them.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::{byte_level::ByteLevel, digits::Digits, sequence::Sequence, split};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, normalizers};
use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::error::LoadError;
use crate::gguf::{Header, Value};

pub(crate) struct Tokenizer {
    /// Without control tokens.
    plain: tokenizers::Tokenizer,
    /// Longest first, so that the longest match wins.
    controls: Vec<(String, u32)>,
    trie: TokTrie,
    pub(crate) beginning: Option<u32>,
    /// Whether every prompt starts with `beginning`, as the model was trained.
    pub(crate) adds_beginning: bool,
    pub(crate) end: u32,
    /// SentencePiece models expect a space before the first word after a control token.
    adds_space: bool,
}

impl Tokenizer {
    pub(crate) fn read(header: &Header<'_>, vocab: usize) -> Result<Self, LoadError> {
        let missing = |key: &str| LoadError::MissingKey { path: header.path().into(), key: key.into() };
        let wrong = |what: String| LoadError::Tokenizer { path: header.path().into(), what };
        let tokens = header.array("tokenizer.ggml.tokens").ok_or_else(|| missing("tokenizer.ggml.tokens"))?;
        if tokens.len == 0 || tokens.len > vocab || tokens.len > MAX_VOCABULARY {
            let what = format!(
                "{} tokens, but the embedding has {vocab} rows (at most {MAX_VOCABULARY})",
                tokens.len
            );
            return Err(wrong(what));
        }
        let tokens = tokens.texts().ok_or_else(|| wrong("a token is not text".into()))?;
        let kinds = match header.array("tokenizer.ggml.token_type") {
            Some(kinds) => kinds.integers().unwrap_or_default(),
            None => vec![NORMAL; tokens.len()],
        };
        if kinds.len() != tokens.len() {
            return Err(wrong(format!("{} tokens, but {} token types", tokens.len(), kinds.len())));
        }
        let id = |name: &str| {
            header.token(&format!("tokenizer.ggml.{name}")).filter(|&id| (id as usize) < tokens.len())
        };
        let (beginning, end) = (id("bos_token_id"), id("eos_token_id"));
        let end = end.or_else(|| id("eot_token_id")).ok_or_else(|| missing("tokenizer.ggml.eos_token_id"))?;
        let ends = [Some(end), beginning, id("eot_token_id"), id("padding_token_id"), id("unknown_token_id")];
        // Converters have labelled control tokens as normal ones, so the name and the role count too.
        let is_control = |i: usize| {
            matches!(kinds[i], UNKNOWN | CONTROL | USER_DEFINED)
                || ends.contains(&Some(i as u32))
                || (tokens[i].starts_with("<|") && tokens[i].ends_with("|>"))
        };

        let controls: Vec<bool> = (0..tokens.len()).map(is_control).collect();
        let model = header.text("tokenizer.ggml.model").ok_or_else(|| missing("tokenizer.ggml.model"))?;
        let plain = Plain { header, tokens: &tokens, kinds: &kinds, controls: &controls };
        let (plain, style) = match model {
            "gpt2" => (plain.byte_level().map_err(wrong)?, Style::ByteLevel),
            "llama" => (plain.sentence_piece().map_err(wrong)?, Style::SentencePiece),
            other => {
                let found = Value::Text(other.as_bytes());
                return Err(header.bad("tokenizer.ggml.model", found, "`gpt2` or `llama` is supported"));
            }
        };

        let bytes_of_letter = byte_letters().map(|(byte, letter)| (letter, byte)).collect();
        let bytes: Vec<Vec<u8>> = (0..tokens.len())
            .map(|i| token_bytes(tokens[i], kinds[i], controls[i], style, &bytes_of_letter))
            .collect();
        if bytes.iter().map(Vec::len).sum::<usize>() > MAX_VOCABULARY_BYTES {
            return Err(wrong(format!("its tokens have more than {MAX_VOCABULARY_BYTES} bytes")));
        }
        let mut info = TokRxInfo::new(tokens.len() as u32, end);
        info.tok_bos = beginning;
        let mut controls: Vec<(String, u32)> = (0..tokens.len())
            .filter(|&i| controls[i] && !tokens[i].is_empty())
            .map(|i| (tokens[i].to_owned(), i as u32))
            .collect();
        controls.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        let sentence_piece = style == Style::SentencePiece;
        Ok(Self {
            plain,
            controls,
            trie: TokTrie::from(&info, &bytes),
            beginning,
            adds_beginning: header.flag("tokenizer.ggml.add_bos_token").unwrap_or(sentence_piece)
                && beginning.is_some(),
            end,
            adds_space: sentence_piece && header.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true),
        })
    }

    /// Text of a log, a user, a file: whatever it says, no control token comes out.
    pub(crate) fn encode_data(&self, text: &str) -> Vec<u32> {
        match self.plain.encode_fast(text, false) {
            Ok(encoding) => encoding.get_ids().to_vec(),
            // The pre-tokenizer's regex gave up. Longest match has no such limit, and knows no control tokens
            // either: in the trie they begin with a byte that no UTF-8 text contains.
            Err(_) => self.trie.greedy_tokenize(text.as_bytes()),
        }
    }

    /// Text of the chat template, in which control tokens mean what they say.
    pub(crate) fn encode_template(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            // The leftmost control token, and of those that begin there the longest.
            let found = self
                .controls
                .iter()
                .filter_map(|(control, id)| rest.find(control.as_str()).map(|at| (at, control, *id)))
                .min_by_key(|(at, ..)| *at);
            let plain = found.map_or(rest, |(at, ..)| &rest[..at]);
            if !plain.is_empty() {
                let spaced = self.adds_space.then(|| format!(" {plain}"));
                ids.extend(self.encode_data(spaced.as_deref().unwrap_or(plain)));
            }
            rest = match found {
                Some((at, control, id)) => {
                    ids.push(id);
                    &rest[at + control.len()..]
                }
                None => "",
            };
        }
        ids
    }

    /// The bytes that `ids` stand for, control tokens left out.
    pub(crate) fn decode(&self, ids: &[u32]) -> Vec<u8> {
        self.trie.decode_ext(ids, false)
    }

    pub(crate) fn token(&self, id: u32) -> &[u8] {
        self.trie.token(id)
    }

    pub(crate) fn control(&self, text: &str) -> Option<u32> {
        self.controls.iter().find(|(control, _)| control == text).map(|(_, id)| *id)
    }

    pub(crate) fn control_text(&self, id: u32) -> Option<&str> {
        self.controls.iter().find(|(_, control)| *control == id).map(|(text, _)| text.as_str())
    }

    #[cfg(test)]
    pub(crate) fn controls(&self) -> &[(String, u32)] {
        &self.controls
    }
}

/// What constrained decoding asks of a tokenizer.
pub(crate) struct Environment(pub(crate) Arc<Tokenizer>);

impl Environment {
    pub(crate) fn shared(tokenizer: &Arc<Tokenizer>) -> TokEnv {
        Arc::new(Self(Arc::clone(tokenizer)))
    }
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.0.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.0.trie.tokenize_with_greedy_fallback(bytes, |text| self.0.encode_data(text))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// Every byte is a letter of GPT-2's alphabet.
    ByteLevel,
    /// `▁` is a space, `<0x0A>` a byte.
    SentencePiece,
}

/// The parts of a GGUF that the plain tokenizer is made of.
struct Plain<'a> {
    header: &'a Header<'a>,
    tokens: &'a [&'a str],
    kinds: &'a [i64],
    controls: &'a [bool],
}

impl Plain<'_> {
    fn vocabulary(&self) -> Vocab {
        let plain = self.tokens.iter().enumerate().filter(|(i, _)| !self.controls[*i]);
        plain.map(|(i, token)| ((*token).to_owned(), i as u32)).collect()
    }

    fn byte_level(&self) -> Result<tokenizers::Tokenizer, String> {
        let merges =
            self.header.array("tokenizer.ggml.merges").ok_or("no merges: convert the model again")?;
        let vocabulary = self.vocabulary();
        let mut pairs = Vec::new();
        for merge in merges.texts().ok_or("a merge is not text")? {
            let (a, b) = merge.split_once(' ').ok_or_else(|| format!("the merge `{merge}` is not a pair"))?;
            let known = |token: &str| vocabulary.contains_key(token);
            if known(a) && known(b) && known(&format!("{a}{b}")) {
                pairs.push((a.to_owned(), b.to_owned()));
            } // The others lead to control tokens, which plain text must not reach.
        }
        let kind = self.header.text("tokenizer.ggml.pre").unwrap_or("default");
        let words = |regex: &str, whole_words: bool| -> Result<_, String> {
            let split = split::Split::new(
                split::SplitPattern::Regex(regex.into()),
                SplitDelimiterBehavior::Isolated,
                false,
            );
            let split = split.map_err(|error| error.to_string())?;
            let bytes = ByteLevel::new(false, true, false);
            Ok((Sequence::new(vec![split.into(), bytes.into()]).into(), whole_words))
        };
        let gpt2 = ByteLevel::new(false, true, true);
        let (pre, whole_words): (PreTokenizerWrapper, bool) = match kind {
            "default" | "gpt-2" | "gpt2" => (gpt2.into(), false),
            "smollm" | "starcoder" => {
                (Sequence::new(vec![Digits::new(true).into(), gpt2.into()]).into(), false)
            }
            "llama-bpe" | "llama3" | "llama-v3" => words(&LLAMA3.replace("DIGITS", r"\p{N}{1,3}"), true)?,
            "qwen2" | "deepseek-r1-qwen" => words(&LLAMA3.replace("DIGITS", r"\p{N}"), false)?,
            other => {
                return Err(format!(
                    "pre-tokenizer `{other}` is not supported: use a model with gpt-2, smollm, llama-bpe or qwen2"
                ));
            }
        };
        let bpe = BPE::builder().vocab_and_merges(vocabulary, pairs).ignore_merges(whole_words).build();
        let mut tokenizer = tokenizers::Tokenizer::new(bpe.map_err(|error| error.to_string())?);
        tokenizer.with_pre_tokenizer(Some(pre));
        if kind == "qwen2" {
            let composed: NormalizerWrapper = normalizers::NFC.into();
            tokenizer.with_normalizer(Some(composed)).map_err(|error| error.to_string())?;
        }
        Ok(tokenizer)
    }

    /// SentencePiece's BPE: the merges are not in the file, so they are rebuilt from the pieces, best score first.
    fn sentence_piece(&self) -> Result<tokenizers::Tokenizer, String> {
        let scores = self.header.array("tokenizer.ggml.scores").and_then(|scores| scores.floats());
        let scores =
            scores.filter(|scores| scores.len() == self.tokens.len()).ok_or("no scores for its tokens")?;
        let vocabulary = self.vocabulary();
        let mut merges = Vec::new();
        for (i, piece) in self.tokens.iter().enumerate().filter(|(i, _)| self.kinds[*i] == NORMAL) {
            if self.controls[i] || piece.len() > MAX_TOKEN_BYTES {
                continue;
            }
            for (at, _) in piece.char_indices().skip(1) {
                let (left, right) = piece.split_at(at);
                if let (Some(&a), Some(&b)) = (vocabulary.get(left), vocabulary.get(right)) {
                    merges.push((scores[i], (a, b), (left.to_owned(), right.to_owned())));
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let pairs: Vec<_> = merges.into_iter().map(|merge| merge.2).collect();
        let bpe = BPE::builder().vocab_and_merges(vocabulary, pairs).byte_fallback(true).build();
        let mut tokenizer = tokenizers::Tokenizer::new(bpe.map_err(|error| error.to_string())?);
        let spaces = normalizers::Replace::new(" ", "▁").map_err(|error| error.to_string())?;
        tokenizer.with_normalizer(Some(spaces)).map_err(|error| error.to_string())?;
        Ok(tokenizer)
    }
}

fn token_bytes(
    token: &str,
    kind: i64,
    control: bool,
    style: Style,
    bytes_of_letter: &HashMap<char, u8>,
) -> Vec<u8> {
    let byte = || u8::from_str_radix(token.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok();
    let mut bytes = match style {
        _ if control => [&[TokTrie::SPECIAL_TOKEN_MARKER], token.as_bytes()].concat(),
        Style::SentencePiece if kind == BYTE && byte().is_some() => byte().into_iter().collect(),
        Style::SentencePiece => token.replace('▁', " ").into_bytes(),
        Style::ByteLevel => {
            let letters = token.chars().map(|letter| bytes_of_letter.get(&letter).copied());
            letters.collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec())
        }
    };
    // Such a token is never generated; none that a model was trained on is so long.
    if bytes.len() > MAX_TOKEN_BYTES {
        bytes.clear();
    }
    bytes
}

/// GPT-2's alphabet: printable bytes stand for themselves, the others for the letters from U+0100.
fn byte_letters() -> impl Iterator<Item = (u8, char)> {
    let mut next = 0x100;
    (0..=255u8).map(move |byte| {
        let letter = char::from(byte);
        if matches!(letter, '!'..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{ff}') {
            return (byte, letter);
        }
        next += 1;
        (byte, char::from_u32(next - 1).expect("U+0100 to U+0144 are letters"))
    })
}

/// Llama 3's words; Qwen 2's differ in how many digits stand together.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const BYTE: i64 = 6;
/// The trie of constrained decoding holds 2^22 nodes, at most one for each byte of a token.
const MAX_VOCABULARY: usize = 1 << 21;
const MAX_VOCABULARY_BYTES: usize = (1 << 22) - 2;
const MAX_TOKEN_BYTES: usize = 250;
