//! The tokenizer that a GGUF describes.
//!
//! There are two ways in, and they are the wall between an attacker's text and the model's control tokens:
//! [`Tokenizer::encode_data`] cannot produce a control token, because the vocabulary it works with has none;
//! only [`Tokenizer::encode_template`], for the chat template's own text, looks for them.

#[cfg(test)]
mod equality;
mod pieces;
#[cfg(test)]
mod tests;
mod words;

use std::collections::HashMap;
use std::sync::Arc;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{NormalizerWrapper, normalizers};
use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::error::LoadError;
use crate::gguf::{Header, Value};
use pieces::Pieces;
use words::Words;

pub(crate) struct Tokenizer {
    /// Without control tokens.
    plain: Plain,
    /// Tokens that are nothing but blanks and line breaks, taken before all others; longest first.
    blanks: Vec<(String, u32)>,
    /// Longest first, so that the longest match wins.
    controls: Vec<(String, u32)>,
    trie: TokTrie,
    pub(crate) beginning: Option<u32>,
    /// Whether every prompt starts with `beginning`, as the model was trained.
    pub(crate) adds_beginning: bool,
    pub(crate) end: u32,
    /// SentencePiece models expect a space before the first word after a control token.
    adds_space: bool,
    /// Blanks behind a control token of the template belong to it (Phi 3).
    strips: bool,
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
        let end = end.or_else(|| id("eot_token_id")).ok_or_else(|| match header.metadata.get(END) {
            Some(found) => header.bad(END, *found, "the number of a token was expected"),
            None => missing(END),
        })?;
        let ends = [Some(end), beginning, id("eot_token_id"), id("padding_token_id"), id("unknown_token_id")];
        // Gemma's runs of blanks are text, other tokens of this kind may be as good as control tokens (`</think>`).
        let is_blank =
            |i: usize| kinds[i] == USER_DEFINED && !tokens[i].is_empty() && tokens[i].trim().is_empty();
        // Converters have labelled control tokens as normal ones, so the name and the role count too.
        let is_control = |i: usize| {
            (matches!(kinds[i], UNKNOWN | CONTROL | USER_DEFINED) && !is_blank(i))
                || ends.contains(&Some(i as u32))
                || (tokens[i].starts_with("<|") && tokens[i].ends_with("|>"))
        };

        let controls: Vec<bool> = (0..tokens.len()).map(is_control).collect();
        let model = header.text("tokenizer.ggml.model")?.ok_or_else(|| missing("tokenizer.ggml.model"))?;
        let (plain, style, begins) = match model {
            "gpt2" => {
                let words = header.text("tokenizer.ggml.pre")?.unwrap_or("default");
                let words = Words::named(words).map_err(wrong)?;
                let begins = words.begins;
                let merged = merged(header, words, &tokens, &controls).map_err(wrong)?;
                (Plain::Merged(Box::new(merged)), Style::ByteLevel, begins)
            }
            "llama" => {
                let pieces = Pieces::read(header, &tokens, &kinds, &controls).map_err(wrong)?;
                (Plain::Pieces(Box::new(pieces)), Style::SentencePiece, true)
            }
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
        let longest_first = |chosen: &dyn Fn(usize) -> bool| {
            let chosen = (0..tokens.len()).filter(|&i| chosen(i) && !tokens[i].is_empty());
            let mut chosen: Vec<_> = chosen.map(|i| (tokens[i].to_owned(), i as u32)).collect();
            chosen.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
            chosen
        };
        let sentence_piece = style == Style::SentencePiece;
        Ok(Self {
            plain,
            blanks: longest_first(&|i| is_blank(i) && !controls[i]),
            controls: longest_first(&|i| controls[i]),
            trie: TokTrie::from(&info, &bytes),
            beginning,
            adds_beginning: header.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(begins)
                && beginning.is_some(),
            end,
            strips: sentence_piece && header.text("general.architecture")? == Some("phi3"),
            adds_space: sentence_piece && header.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true),
        })
    }

    /// Text of a log, a user, a file: whatever it says, no control token comes out.
    pub(crate) fn encode_data(&self, text: &str) -> Vec<u32> {
        let (mut ids, mut from, mut at) = (Vec::new(), 0, 0);
        while !self.blanks.is_empty()
            && let Some(next) = text[at..].find(char::is_whitespace)
        {
            at += next;
            match self.blanks.iter().find(|(blank, _)| text[at..].starts_with(blank)) {
                Some((blank, id)) => {
                    self.encode_plain(&text[from..at], &mut ids);
                    ids.push(*id);
                    at += blank.len();
                    from = at;
                }
                None => at += text[at..].chars().next().map_or(1, char::len_utf8),
            }
        }
        self.encode_plain(&text[from..], &mut ids);
        ids
    }

    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) {
        match &self.plain {
            _ if text.is_empty() => {}
            Plain::Pieces(pieces) => ids.extend(pieces.encode(text)),
            Plain::Merged(merged) => match merged.encode_fast(text, false) {
                Ok(encoding) => ids.extend_from_slice(encoding.get_ids()),
                // The regex that cuts words gave up. Longest match has no such limit, and knows no control tokens
                // either: in the trie they begin with a byte that no UTF-8 text contains.
                Err(_) => ids.extend(self.trie.greedy_tokenize(text.as_bytes())),
            },
        }
    }

    /// As [`Tokenizer::encode_data`], in the middle of a prompt.
    pub(crate) fn encode_data_after(&self, before: Before, text: &str) -> Vec<u32> {
        match before {
            Before::Blank => self.encode_data(&format!(" {text}")),
            Before::Control if self.adds_space && !text.is_empty() => self.encode_data(&format!(" {text}")),
            Before::Control | Before::Text => self.encode_data(text),
        }
    }

    /// Text of the chat template, in which control tokens mean what they say; and what is before the text after it.
    pub(crate) fn encode_template(&self, text: &str, mut before: Before) -> (Vec<u32>, Before) {
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
            // A blank at the end belongs to the first word of what comes next.
            let owed = plain.strip_suffix(' ').filter(|start| found.is_none() && !start.is_empty());
            if !plain.is_empty() {
                ids.extend(self.encode_data_after(before, owed.unwrap_or(plain)));
                before = if owed.is_some() { Before::Blank } else { Before::Text };
            }
            rest = match found {
                Some((at, control, id)) => {
                    ids.push(id);
                    before = Before::Control;
                    let rest = &rest[at + control.len()..];
                    if self.strips && !KEPT_BLANKS.contains(&control.as_str()) {
                        rest.trim_start()
                    } else {
                        rest
                    }
                }
                None => "",
            };
        }
        (ids, before)
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

/// What stands in a prompt before a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// A control token, or nothing.
    Control,
    Text,
    /// Text whose last blank was not encoded: words begin with their blank.
    Blank,
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

/// What turns text without control tokens into ids.
enum Plain {
    Merged(Box<tokenizers::Tokenizer>),
    Pieces(Box<Pieces>),
}

/// GPT-2's kind: bytes as letters, cut into words, merged in the order of the file's merges.
fn merged(
    header: &Header<'_>,
    words: Words,
    tokens: &[&str],
    controls: &[bool],
) -> Result<tokenizers::Tokenizer, String> {
    let merges = header.array("tokenizer.ggml.merges").ok_or("no merges: convert the model again")?;
    let plain = tokens.iter().enumerate().filter(|(i, _)| !controls[*i]);
    let vocabulary: Vocab = plain.map(|(i, token)| ((*token).to_owned(), i as u32)).collect();
    let mut pairs = Vec::new();
    for merge in merges.texts().ok_or("a merge is not text")? {
        let (a, b) = merge.split_once(' ').ok_or_else(|| format!("the merge `{merge}` is not a pair"))?;
        let known = |token: &str| vocabulary.contains_key(token);
        if known(a) && known(b) && known(&format!("{a}{b}")) {
            pairs.push((a.to_owned(), b.to_owned()));
        } // The others lead to control tokens, which plain text must not reach.
    }
    let bpe = BPE::builder().vocab_and_merges(vocabulary, pairs).ignore_merges(words.whole).build();
    let mut tokenizer = tokenizers::Tokenizer::new(bpe.map_err(|error| error.to_string())?);
    tokenizer.with_pre_tokenizer(Some(words.cutter));
    if words.composes {
        let composed: NormalizerWrapper = normalizers::NFC.into();
        tokenizer.with_normalizer(Some(composed)).map_err(|error| error.to_string())?;
    }
    Ok(tokenizer)
}

fn token_bytes(
    token: &str,
    kind: i64,
    control: bool,
    style: Style,
    bytes_of_letter: &HashMap<char, u8>,
) -> Vec<u8> {
    let mut bytes = match style {
        _ if control => [&[TokTrie::SPECIAL_TOKEN_MARKER], token.as_bytes()].concat(),
        Style::SentencePiece => match pieces::byte(token).filter(|_| kind == BYTE) {
            Some(byte) => vec![byte],
            None => token.replace('▁', " ").into_bytes(),
        },
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

/// Tokens of Phi 3 that leave the blanks behind them alone.
const KEPT_BLANKS: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];
const END: &str = "tokenizer.ggml.eos_token_id";
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const BYTE: i64 = 6;
/// The trie of constrained decoding holds 2^22 nodes, at most one for each byte of a token.
const MAX_VOCABULARY: usize = 1 << 21;
const MAX_VOCABULARY_BYTES: usize = (1 << 22) - 2;
const MAX_TOKEN_BYTES: usize = 250;
