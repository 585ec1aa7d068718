//! The chat template of a GGUF, rendered once, when the model is opened.
//!
//! The template sees placeholders, never a prompt's text: its result is cut at the placeholders, the pieces between
//! are encoded with control tokens, and a prompt's texts are put in later, as data. So nothing in a log can close
//! its message and speak for the system, whatever the template does with it.

use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, State, context};

use crate::error::LoadError;
use crate::gguf::Header;
use crate::request::Prompt;
use crate::tokenizer::{Before, Tokenizer};

/// The order of control tokens and texts in a prompt.
pub(crate) struct Chat {
    pieces: Vec<Piece>,
    /// What stands before the answer.
    before_answer: Before,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Tokens(Vec<u32>),
    System(Before),
    User(Before),
}

/// A prompt in tokens.
pub(crate) struct Encoded {
    pub(crate) tokens: Vec<u32>,
    /// Where its parts end that other prompts may begin with too: those that depend on the system text alone, those that
    /// depend on the guidance too, and all but the last token before the answer. Rising, each below the number of tokens:
    /// the last token is always computed, since it gives the answer's first.
    pub(crate) ends: Vec<usize>,
    /// Tokens of the user text.
    pub(crate) user: Range<usize>,
}

impl Encoded {
    /// Tokens after those that other prompts may share.
    pub(crate) fn own_tokens(&self) -> usize {
        self.tokens.len() - self.ends.last().copied().unwrap_or(0)
    }
}

impl Chat {
    pub(crate) fn read(header: &Header<'_>, tokenizer: &Tokenizer) -> Result<Self, LoadError> {
        let own = header.text("tokenizer.chat_template")?;
        let template = own.unwrap_or(match tokenizer.control("<|im_start|>") {
            Some(_) => CHATML,
            None => PLAIN,
        });
        let text = render(template, tokenizer).map_err(|what| {
            let what = format!("{what}: convert the model again, or use another");
            LoadError::ChatTemplate { path: header.path().into(), what }
        })?;
        let (pieces, before_answer) = cut(&text, tokenizer);
        Ok(Self { pieces, before_answer })
    }

    pub(crate) fn encode(&self, prompt: &Prompt, tokenizer: &Tokenizer) -> Encoded {
        let (mut tokens, mut ends, mut user) = (Vec::new(), Vec::new(), 0..0);
        for piece in &self.pieces {
            match piece {
                Piece::Tokens(ids) => tokens.extend(ids),
                Piece::System(before) => tokens.extend(tokenizer.encode_data_after(*before, &prompt.system)),
                Piece::User(before) => {
                    ends.push(tokens.len());
                    tokens.extend(tokenizer.encode_data_after(*before, &prompt.guidance));
                    ends.push(tokens.len());
                    let start = tokens.len();
                    let before = if prompt.guidance.is_empty() { *before } else { Before::Text };
                    tokens.extend(tokenizer.encode_data_after(before, &prompt.user));
                    user = start..tokens.len();
                }
            }
        }
        ends.push(tokens.len().saturating_sub(1));
        tokens.extend(tokenizer.encode_data_after(self.before_answer, &prompt.answer));
        // A template may show a text twice, or nothing between two of them.
        ends.sort_unstable();
        ends.dedup();
        ends.retain(|end| (1..tokens.len()).contains(end));
        Encoded { tokens, ends, user }
    }
}

fn render(template: &str, tokenizer: &Tokenizer) -> Result<String, String> {
    let system = context! { role => "system", content => SYSTEM };
    let user = |content: &str| context! { role => "user", content => content };
    let both = run(template, tokenizer, vec![system, user(USER)]);
    match both {
        Ok(text) if text.contains(USER) && text.contains(SYSTEM) => return Ok(text),
        _ => {}
    }
    // Some models know no system message: theirs begins the user's.
    let text = run(template, tokenizer, vec![user(&format!("{SYSTEM}\n\n{USER}"))]);
    match (text, both) {
        (Ok(text), _) if text.contains(USER) && text.contains(SYSTEM) => Ok(text),
        (Ok(_), Ok(_)) => Err("it leaves messages out".into()),
        (Err(error), Ok(_)) | (_, Err(error)) => Err(error.to_string()),
    }
}

fn run(template: &str, tokenizer: &Tokenizer, messages: Vec<Value>) -> Result<String, Error> {
    let mut environment = Environment::new();
    // As transformers does, for which templates are written.
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(python_method);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    let token = |id: Option<u32>| id.and_then(|id| tokenizer.control_text(id)).unwrap_or_default();
    let text = environment.render_str(
        template,
        context! {
            messages,
            add_generation_prompt => true,
            enable_thinking => false,
            bos_token => token(tokenizer.beginning),
            eos_token => token(Some(tokenizer.end)),
        },
    )?;
    // Each of its tokens is part of every prompt.
    if text.len() > TEXT_BYTES { Err(too_long()) } else { Ok(text) }
}

fn cut(text: &str, tokenizer: &Tokenizer) -> (Vec<Piece>, Before) {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut before = Before::Control;
    let mut first = true;
    while !rest.is_empty() {
        let next = [(SYSTEM, Piece::System as fn(Before) -> Piece), (USER, Piece::User)]
            .into_iter()
            .filter_map(|(mark, piece)| rest.find(mark).map(|at| (at, mark.len(), piece)))
            .min_by_key(|(at, ..)| *at);
        let template = next.as_ref().map_or(rest, |(at, ..)| &rest[..*at]);
        let mut ids;
        (ids, before) = tokenizer.encode_template(template, before);
        if let Some(id) =
            tokenizer.beginning.filter(|id| first && tokenizer.adds_beginning && ids.first() != Some(id))
        {
            ids.insert(0, id);
        }
        first = false;
        if !ids.is_empty() {
            pieces.push(Piece::Tokens(ids));
        }
        rest = match next {
            Some((at, len, piece)) => {
                pieces.push(piece(before));
                before = Before::Text;
                &rest[at + len..]
            }
            None => "",
        };
    }
    (pieces, before)
}

/// The methods of Python's strings and dictionaries that chat templates call.
fn python_method(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let unknown =
        || Error::new(ErrorKind::UnknownMethod, format!("`{method}` is not supported in chat templates"));
    if matches!(method, "items" | "keys") {
        return state
            .apply_filter(if method == "items" { "items" } else { "list" }, std::slice::from_ref(value));
    }
    if method == "get" {
        let key = args.first().ok_or_else(unknown)?;
        let found = value.get_item(key)?;
        return Ok(if found.is_undefined() {
            args.get(1).cloned().unwrap_or_else(|| Value::from(()))
        } else {
            found
        });
    }
    let text = value.as_str().ok_or_else(unknown)?;
    let argument = |i: usize| args.get(i).and_then(Value::as_str);
    // Fuel is charged for what a method gave, when it is there: what it may take is bounded before.
    if std::iter::once(value).chain(args).filter_map(Value::as_str).any(|text| text.len() > TEXT_BYTES) {
        return Err(too_long());
    }
    let set: Vec<char> = argument(0).unwrap_or(" \t\r\n").chars().collect();
    Ok(match method {
        "strip" => Value::from(text.trim_matches(&set[..])),
        "lstrip" => Value::from(text.trim_start_matches(&set[..])),
        "rstrip" => Value::from(text.trim_end_matches(&set[..])),
        "lower" => Value::from(text.to_lowercase()),
        "upper" => Value::from(text.to_uppercase()),
        "startswith" => Value::from(text.starts_with(argument(0).ok_or_else(unknown)?)),
        "endswith" => Value::from(text.ends_with(argument(0).ok_or_else(unknown)?)),
        "split" => match argument(0) {
            Some(separator) if !separator.is_empty() => text.split(separator).map(Value::from).collect(),
            _ => text.split_whitespace().map(Value::from).collect(),
        },
        "replace" => {
            let (from, to) = argument(0).zip(argument(1)).ok_or_else(unknown)?;
            if text.matches(from).count().saturating_mul(to.len()) > TEXT_BYTES {
                return Err(too_long());
            }
            Value::from(text.replace(from, to))
        }
        _ => return Err(unknown()),
    })
}

fn too_long() -> Error {
    let what = format!("it makes texts of more than {} KiB", TEXT_BYTES >> 10);
    Error::new(ErrorKind::InvalidOperation, what)
}

/// Private-use characters, which no template writes.
const SYSTEM: &str = "\u{f8f0}system\u{f8f1}";
const USER: &str = "\u{f8f0}user\u{f8f1}";
/// Steps and, for 64 bytes that are made, one more. Enough for the longest templates known (tools, reasoning) a hundred times over;
/// at most 64 MB.
const FUEL: u64 = 1_000_000;
/// Of a text that a method of a template sees or gives, and of all that a template writes around the messages. The longest
/// templates known have 20 KiB themselves.
const TEXT_BYTES: usize = 64 << 10;
/// For models that have the control tokens and lost the template.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n' }}";
const PLAIN: &str = "{% for message in messages %}{{ message.content + '\n\n' }}{% endfor %}";
