//! `watchpost model`: the models of this machine.

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value as Json, json};
use watchpost_engine::{Control, Device, Info, Model, Options, Prompt, Request, gguf};

use super::{Code, Failure, RunnerArgs, table};
use crate::models::install::{Imported, Verdict};
use crate::models::{Found, Origin, Registry, embed, install, known, pull};
use crate::text::escape;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// The runner, whose `models/` is looked into too [default: as for `run`].
    #[arg(short, long, value_name = "FILE", env = "WATCHPOST_RUNNER", global = true)]
    runner: Option<PathBuf>,
    /// A folder of models that is looked into first, and that new models go to.
    #[arg(long = "models", value_name = "DIR", env = "WATCHPOST_MODELS", global = true)]
    folder: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Shows the models that are known and those that are here
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Takes a GGUF file into the models folder: checks it, copies it, records its SHA-256
    Import {
        file: PathBuf,
        /// Name to keep it under instead of its file's
        #[arg(long)]
        name: Option<String>,
    },
    /// Computes the SHA-256 of a model, or of all, and compares it with its record and models.toml
    Verify { name: Option<String> },
    /// Measures a model on this machine
    Bench {
        /// Name or path; the first model found when absent
        name: Option<String>,
        /// What computes: `cpu`, `cuda`, `cuda:1` or `metal`
        #[arg(long, default_value_t = Device::Cpu)]
        device: Device,
        /// Threads that compute; 0 is as many as there are processors
        #[arg(long, default_value_t = 0)]
        threads: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetches a known model from its hub; the only verb that opens a connection for a model
    Pull {
        name: String,
        /// SHA-256 the file must have, where models.toml has none
        #[arg(long, value_name = "HASH")]
        sha256: Option<String>,
        /// Address of a mirror of the hub
        #[arg(long, value_name = "URL", env = "HF_ENDPOINT")]
        endpoint: Option<String>,
    },
    /// Writes a copy of this program that carries a model: one file, nothing else needed
    Embed {
        /// Name or path
        model: String,
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Replace FILE
        #[arg(long)]
        force: bool,
    },
}

pub fn run(args: Args) -> Result<Code, Failure> {
    // An error may quote a model's file, which is a stranger's text.
    work(args).map_err(|failure| Failure { message: escape(&failure.message).into_owned(), ..failure })
}

fn work(args: Args) -> Result<Code, Failure> {
    let runner = RunnerArgs { runner: args.runner }.path();
    let registry = Registry::new(Some(&runner), args.folder.as_deref());
    let mut stdout = io::stdout().lock();
    let out: &mut dyn Write = &mut stdout;
    match args.verb {
        Verb::List { json } => list(&registry, json, out),
        Verb::Import { file, name } => {
            let bar = Bar::new("importing");
            let imported =
                install::import(&file, name.as_deref(), registry.install_folder(), &mut bar.progress())?;
            drop(bar);
            report(&imported, "imported", out)
        }
        Verb::Verify { name } => verify(&registry, name.as_deref(), out),
        Verb::Bench { name, device, threads, json } => {
            bench(&registry, name.as_deref(), device, threads, json, out)
        }
        Verb::Pull { name, sha256, endpoint } => {
            let options = pull::Options { endpoint, sha256 };
            let bar = Bar::new("pulling");
            let pulled = pull::pull(&name, registry.install_folder(), &options, &mut bar.progress())?;
            drop(bar);
            report(&pulled, "pulled", out)
        }
        Verb::Embed { model, output, force } => {
            let model = registry.resolve(&typed(&model))?;
            let executable = registry.executable().ok_or_else(|| {
                Failure::cannot_run("this system does not say which file is running: mount /proc")
            })?;
            let bar = Bar::new("embedding");
            let embedded = embed::embed(executable, &model, &output, force, &mut bar.progress())?;
            drop(bar);
            let output = output.to_string_lossy();
            let (name, output) = (escape(&embedded.name), escape(&output));
            writeln!(
                out,
                "{output} carries {name}, {}, sha256 {}",
                mb(embedded.source.len),
                embedded.sha256
            )?;
            Ok(Code::Good)
        }
    }
}

fn report(imported: &Imported, done: &str, out: &mut dyn Write) -> Result<Code, Failure> {
    let Imported { name, path, sha256, is_known, info } = imported;
    let known = if *is_known { " as models.toml has it" } else { "" };
    let path = path.to_string_lossy();
    let path = escape(&path);
    writeln!(out, "{done} {}: {}", escape(name), described(info))?;
    writeln!(out, "  file    {path}\n  sha256  {sha256}{known}")?;
    Ok(Code::Good)
}

fn described(info: &Info) -> String {
    format!(
        "{} {}, {}, context {}, needs {} of memory",
        escape(&info.architecture),
        escape(&info.quantization),
        mb(info.file_bytes),
        info.context_length,
        mb(info.memory_bytes_needed)
    )
}

/// A row of `list`.
struct Row {
    name: String,
    state: &'static str,
    bytes: u64,
    licence: Option<String>,
    memory_bytes: Option<u64>,
    /// Where the model is, and what its header says or why it does not.
    found: Option<(Found, Result<Info, String>)>,
}

fn list(registry: &Registry, json: bool, out: &mut dyn Write) -> Result<Code, Failure> {
    let found = registry.found()?.into_iter().map(row_of_found);
    let mut rows: Vec<Row> = found.collect();
    for known in known::all() {
        if !rows.iter().any(|row| row.name.eq_ignore_ascii_case(&known.name)) {
            rows.push(Row {
                name: known.name.clone(),
                state: "not installed",
                bytes: known.bytes,
                licence: Some(known.licence.clone()),
                memory_bytes: Some(known.memory_bytes),
                found: None,
            });
        }
    }
    if json {
        let rows: Vec<Json> = rows.iter().map(row_json).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
        return Ok(Code::Good);
    }
    let cells = rows.iter().map(|row| {
        let place = match &row.found {
            Some((found, _)) => found.source.path.to_string_lossy().into_owned(),
            None => format!("`watchpost model pull {}` or `import FILE`", row.name),
        };
        let memory = row.memory_bytes.map_or_else(|| "-".into(), mb);
        let licence = row.licence.clone().unwrap_or_else(|| "-".into());
        [row.name.clone(), row.state.into(), mb(row.bytes), memory, licence, place]
            .map(|cell| escape(&cell).into())
    });
    writeln!(out, "{}", table(&["model", "state", "size", "memory", "licence", "where"], cells))?;
    for (found, problem) in rows.iter().filter_map(|row| row.found.as_ref()) {
        if let Err(problem) = problem {
            writeln!(out, "{}: {}", escape(&found.name), escape(problem))?;
        }
    }
    Ok(Code::Good)
}

fn row_of_found(found: Found) -> Row {
    let known = known::find(&found.name);
    let info = gguf::inspect(&found.source).map_err(|error| error.to_string());
    let state = match (&info, found.origin) {
        (Err(_), _) => "unusable",
        (Ok(_), Origin::Embedded) => "embedded",
        (Ok(_), Origin::Folder | Origin::Path) => "installed",
    };
    let licence = known.map(|known| known.licence.clone());
    Row {
        name: found.name.clone(),
        state,
        bytes: found.source.len,
        licence: licence.or_else(|| info.as_ref().ok()?.licence.clone()),
        memory_bytes: info.as_ref().ok().map(|info| info.memory_bytes_needed),
        found: Some((found, info)),
    }
}

/// JSON needs no escaping of ours: control characters leave it as `\u001b`.
fn row_json(row: &Row) -> Json {
    let Row { name, state, bytes, licence, memory_bytes, found } = row;
    let mut json = json!({
        "name": name, "state": state, "bytes": bytes, "licence": licence, "memory_bytes": memory_bytes,
    });
    if let Some((found, info)) = found {
        json["path"] = json!(found.source.path.to_string_lossy());
        json["sha256"] = json!(found.sha256);
        match info {
            Ok(info) => {
                json["architecture"] = json!(info.architecture);
                json["quantization"] = json!(info.quantization);
                json["parameters"] = json!(info.parameters);
                json["context_length"] = json!(info.context_length);
            }
            Err(problem) => json["problem"] = json!(problem),
        }
    }
    json
}

fn verify(registry: &Registry, name: Option<&str>, out: &mut dyn Write) -> Result<Code, Failure> {
    let models = match name {
        Some(name) => vec![registry.resolve(&typed(name))?],
        None => registry.found()?,
    };
    if models.is_empty() {
        return Err(Failure::cannot_run(NONE_HERE));
    }
    let mut code = Code::Good;
    for model in &models {
        let bar = Bar::new("verifying");
        let verdict = install::verify(model, &mut bar.progress());
        drop(bar);
        let line = match verdict {
            Verdict::Good { sha256 } => format!("good      {}  sha256 {sha256}", model.name),
            Verdict::Unrecorded { sha256 } => {
                format!(
                    "unknown   {}  sha256 {sha256}, with nothing to compare it with: import the model",
                    model.name
                )
            }
            Verdict::Bad(error) => {
                code = Code::Findings;
                format!("MISMATCH  {}  {error}", model.name)
            }
        };
        writeln!(out, "{}", escape(&line))?;
    }
    Ok(code)
}

fn bench(
    registry: &Registry,
    name: Option<&str>,
    device: Device,
    threads: usize,
    json: bool,
    out: &mut dyn Write,
) -> Result<Code, Failure> {
    let model = match name {
        Some(name) => registry.resolve(&typed(name))?,
        None => registry.found()?.into_iter().next().ok_or_else(|| Failure::cannot_run(NONE_HERE))?,
    };
    let spinner = Bar::spinner("measuring");
    let mut opened = Model::open(&model.source, &Options { device, threads, ..Options::default() })?;
    let question = Prompt::new(
        "You triage security alerts. Answer in JSON.",
        "Alert: 200 failed ssh logins for root from 203.0.113.45, then one that succeeded.",
    );
    let schema = json!({
        "type": "object", "properties": { "title": { "type": "string", "maxLength": 60 } },
        "required": ["title"], "additionalProperties": false,
    });
    let answer = opened.generate(&Request::new(question, schema, 96), &Control::unlimited())?;
    let bench = opened.bench()?;
    drop(spinner);
    let first_token_s = answer.time_to_first_token.as_secs_f64();
    if json {
        let report = json!({
            "model": model.name,
            "threads": threads,
            "kernels": bench.kernels,
            "load_s": bench.load.as_secs_f64(),
            "first_token_s": first_token_s,
            "first_token_prompt_tokens": answer.prompt_tokens,
            "prompt_tokens_per_s": bench.prompt_tokens_per_second,
            "answer_tokens_per_s": bench.decode_tokens_per_second,
            "answer_at_700_tokens_per_s": bench.decode_at_700_tokens_per_second,
            "answers_8_together_tokens_per_s": bench.batch_tokens_per_second,
            "peak_memory_bytes": bench.peak_rss_bytes,
            "weight_bytes": bench.weight_bytes,
            "memory_bytes_per_s": bench.limits.map(|limits| limits.bytes_per_second),
            "products_per_s": bench.limits.map(|limits| limits.products_per_second),
            "answer_share_of_memory": bench.share_of_memory(),
            "prompt_share_of_products": bench.share_of_products(),
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        return Ok(Code::Good);
    }
    writeln!(out, "{}: {}", escape(&model.name), described(opened.info()))?;
    let threads = if threads == 0 { "default threads".into() } else { format!("{threads} threads") };
    writeln!(out, "  kernels       {}, {threads}", bench.kernels)?;
    writeln!(out, "  load          {:.2} s", bench.load.as_secs_f64())?;
    writeln!(out, "  first token   {first_token_s:.2} s after a prompt of {} tokens", answer.prompt_tokens)?;
    let share = |share: Option<f64>, of: &str| match share {
        Some(share) => format!(", {:.0} % of what {of} can do", 100.0 * share),
        None => String::new(),
    };
    let prompt = share(bench.share_of_products(), "the processor");
    let answer = share(bench.share_of_memory(), "the memory");
    writeln!(out, "  prompt        {:.1} tokens/s{prompt}", bench.prompt_tokens_per_second)?;
    writeln!(out, "  answer        {:.1} tokens/s{answer}", bench.decode_tokens_per_second)?;
    if let Some(speed) = bench.decode_at_700_tokens_per_second {
        writeln!(out, "  after 700     {speed:.1} tokens/s")?;
    }
    writeln!(out, "  8 together    {:.1} tokens/s in all", bench.batch_tokens_per_second)?;
    writeln!(out, "  peak memory   {}", bench.peak_rss_bytes.map_or_else(|| "not known".into(), mb))?;
    Ok(Code::Good)
}

/// What a user typed, from where the user stands: a path in an argument is not relative to the runner file.
fn typed(name_or_path: &str) -> String {
    let path = Path::new(name_or_path);
    let is_path = name_or_path.contains(std::path::MAIN_SEPARATOR) || path.is_file();
    match std::path::absolute(path) {
        Ok(absolute) if is_path => absolute.to_string_lossy().into_owned(),
        _ => name_or_path.into(),
    }
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// A progress bar on standard error where that is a terminal; gone when dropped.
struct Bar(ProgressBar);

impl Bar {
    fn new(doing: &'static str) -> Self {
        let bar = Self::hidden_unless_terminal();
        let style =
            ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")
                .expect("the template is constant and a test shows it");
        bar.set_style(style.progress_chars("=> "));
        bar.set_message(doing);
        Self(bar)
    }

    fn spinner(doing: &'static str) -> Self {
        let bar = Self::hidden_unless_terminal();
        bar.set_style(ProgressStyle::default_spinner());
        bar.set_message(doing);
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self(bar)
    }

    fn hidden_unless_terminal() -> ProgressBar {
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        ProgressBar::with_draw_target(None, target)
    }

    fn progress(&self) -> impl FnMut(u64, u64) + '_ {
        |done, all| {
            self.0.set_length(all);
            self.0.set_position(done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

const NONE_HERE: &str = "no model is here: get one with `watchpost model import FILE`";
