//! How byte-level tokenizers cut a text into words before they merge: by regular expressions that GGUF files only name.
//!
//! Names: llama.cpp's `llama-vocab.cpp`. Expressions: the `tokenizer.json` of the models.

use tokenizers::PreTokenizerWrapper as Cutter;
use tokenizers::SplitDelimiterBehavior::Isolated;
use tokenizers::pre_tokenizers::{byte_level::ByteLevel, digits::Digits, sequence::Sequence, split};

/// What the name of a pre-tokenizer says.
pub(super) struct Words {
    pub(super) cutter: Cutter,
    /// A word that is in the vocabulary is one token, whatever the merges say.
    pub(super) whole: bool,
    /// Prompts start with the token of the beginning, unless the file says otherwise.
    pub(super) begins: bool,
    /// Characters are composed first (NFC).
    pub(super) composes: bool,
}

impl Words {
    pub(super) fn named(name: &str) -> Result<Self, String> {
        let words = |cutter| Self { cutter, whole: false, begins: false, composes: false };
        let digits = |most: &str| LLAMA3.replace("DIGITS", most);
        let gpt2 = || ByteLevel::new(false, true, true);
        Ok(match name {
            "default" => words(cut(&[r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"])?),
            "gpt-2" | "gpt2" | "phi-2" | "mpt" | "olmo" | "jais" | "gigachat" | "a.x-4.0" | "mellum"
            | "exaone4" | "trillion" | "granite-docling" => words(gpt2().into()),
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b"
            | "mellum2" => words(Sequence::new(vec![Digits::new(true).into(), gpt2().into()]).into()),
            "llama-bpe" | "llama3" | "llama-v3" | "lfm2" | "falcon3" | "falcon-h1" | "pixtral"
            | "midm-2.0" => Self { whole: true, begins: true, ..words(cut(&[&digits(r"\p{N}{1,3}")])?) },
            "dbrx" | "smaug-bpe" | "glm4" => words(cut(&[&digits(r"\p{N}{1,3}")])?),
            "qwen2" => Self { composes: true, ..words(cut(&[&digits(r"\p{N}")])?) },
            "deepseek-r1-qwen" | "kormo" | "megrez" | "stablelm2" | "hunyuan" | "solar-open" | "grok-2" => {
                words(cut(&[&digits(r"\p{N}")])?)
            }
            "gpt-4o" | "llama4" | "kanana2" => {
                words(cut(&[&cased("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}{1,3}")])?)
            }
            "tekken" => Self { whole: true, begins: true, ..words(cut(&[&cased("", r"\p{N}")])?) },
            other => {
                let known = "gpt-2, smollm, refact, llama-bpe, lfm2, qwen2, dbrx, gpt-4o or tekken";
                let other: String = other.chars().take(80).collect();
                let other = other.escape_debug();
                return Err(format!("pre-tokenizer `{other}` is not supported: use a model with {known}"));
            }
        })
    }
}

/// Each expression cuts what the ones before it left.
fn cut(expressions: &[&str]) -> Result<Cutter, String> {
    let mut cutters = Vec::<Cutter>::new();
    for expression in expressions {
        let pattern = split::SplitPattern::Regex((*expression).into());
        let split = split::Split::new(pattern, Isolated, false).map_err(|error| error.to_string())?;
        cutters.push(split.into());
    }
    cutters.push(ByteLevel::new(false, true, false).into());
    Ok(Sequence::new(cutters).into())
}

/// Words in which small letters follow capitals.
fn cased(suffix: &str, digits: &str) -> String {
    let (capitals, small) = (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]");
    let lead = r"[^\r\n\p{L}\p{N}]?";
    format!(
        r"{lead}{capitals}*{small}+{suffix}|{lead}{capitals}+{small}*{suffix}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's words; Qwen 2's differ in how many digits stand together.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
