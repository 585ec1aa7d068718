//! `watchpost model`, by what the command line prints and leaves on the disk.

#[path = "../../src/models/tiny.rs"]
mod tiny;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// An empty folder to work in, with a models folder that is not there yet.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn model(&self, arguments: &[&str]) -> Output {
        self.run(Path::new(env!("CARGO_BIN_EXE_watchpost")), arguments)
    }

    fn run(&self, program: &Path, arguments: &[&str]) -> Output {
        Command::new(program)
            .arg("model")
            .args(arguments)
            .current_dir(&self.folder)
            .env("WATCHPOST_MODELS", self.path("models"))
            .env_remove("HF_ENDPOINT")
            .output()
            .unwrap()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn stdout(output: &Output) -> &str {
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

fn listed(output: &Output, name: &str) -> Value {
    let rows: Vec<Value> = serde_json::from_str(stdout(output)).unwrap();
    rows.into_iter().find(|row| row["name"] == name).unwrap()
}

#[test]
fn a_model_is_imported_listed_and_verified() {
    let machine = Machine::new();
    let file = machine.write("download.gguf", &tiny::gguf("tiny"));
    let imported = machine.model(&["import", file.to_str().unwrap(), "--name", "tiny"]);
    assert_eq!(imported.status.code(), Some(0));
    assert!(stdout(&imported).starts_with("imported tiny: llama "), "{}", stdout(&imported));

    let list = machine.model(&["list", "--json"]);
    let row = listed(&list, "tiny");
    assert_eq!((&row["state"], &row["licence"]), (&"installed".into(), &"apache-2.0".into()));
    assert_eq!(listed(&list, "SmolLM2-135M-Instruct")["state"], "not installed");
    let verified = machine.model(&["verify"]);
    assert!(stdout(&verified).starts_with("good "), "{}", stdout(&verified));
    assert_eq!(verified.status.code(), Some(0));
}

#[test]
fn verify_exits_1_and_says_which_model_has_a_flipped_byte() {
    let machine = Machine::new();
    for name in ["one", "two"] {
        let file = machine.write(&format!("{name}.gguf"), &tiny::gguf(name));
        assert_eq!(machine.model(&["import", file.to_str().unwrap()]).status.code(), Some(0));
    }
    let path = machine.path("models/two.gguf");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let verified = machine.model(&["verify"]);
    assert_eq!(verified.status.code(), Some(1));
    let lines: Vec<&str> = stdout(&verified).lines().collect();
    assert!(lines[0].starts_with("good      one ") && lines[1].starts_with("MISMATCH  two "), "{lines:?}");
    assert_eq!(machine.model(&["verify", "one"]).status.code(), Some(0));
}

#[test]
fn a_binary_that_carries_its_model_needs_nothing_else() {
    let machine = Machine::new();
    let file = machine.write("tiny.gguf", &tiny::gguf("tiny"));
    let full = machine.path("watchpost-full");
    let arguments = ["embed", file.to_str().unwrap(), "-o", full.to_str().unwrap()];
    assert_eq!(machine.model(&arguments).status.code(), Some(0));
    let again = machine.model(&arguments);
    assert_eq!(again.status.code(), Some(4));
    assert!(stderr(&again).contains("replace it with `--force`"), "{}", stderr(&again));

    // Another folder, and no model in it.
    let elsewhere = Machine::new();
    let row = listed(&elsewhere.run(&full, &["list", "--json"]), "tiny");
    assert_eq!((&row["state"], &row["path"]), (&"embedded".into(), &full.to_str().unwrap().into()));
    let verified = elsewhere.run(&full, &["verify", "TINY"]);
    assert!(stdout(&verified).starts_with("good      tiny "), "{}", stdout(&verified));

    // Cut short on its way to another machine, it says so.
    let bytes = std::fs::read(&full).unwrap();
    let short = std::fs::File::options().write(true).open(&full).unwrap();
    short.set_len(bytes.len() as u64 - 1).unwrap();
    drop(short);
    let cut = elsewhere.run(&full, &["list"]);
    assert_eq!(cut.status.code(), Some(4));
    assert!(stderr(&cut).contains("this copy of the program is damaged"), "{}", stderr(&cut));
}

#[test]
fn a_write_that_fails_leaves_no_half_model() {
    let machine = Machine::new();
    let file = machine.write("tiny.gguf", &tiny::gguf("tiny"));
    std::fs::create_dir(machine.path("models")).unwrap();
    // A file may have no byte at all.
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" model --models models import \"$1\"";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_watchpost"), file.to_str().unwrap()])
        .current_dir(&machine.folder)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("models/tiny.gguf: File too large"), "{}", stderr(&output));
    assert!(machine.names("models").is_empty());
}

#[test]
fn what_a_models_file_calls_itself_cannot_move_the_cursor() {
    let machine = Machine::new();
    let mut bytes = tiny::gguf("tiny");
    let licence = bytes.windows(10).position(|window| window == b"apache-2.0").unwrap();
    bytes[licence..licence + 4].copy_from_slice(b"\x1b[2J");
    machine.write("models/tiny.gguf", &bytes);
    let list = machine.model(&["list"]);
    assert!(!list.stdout.contains(&0x1b), "{:?}", stdout(&list));
    assert!(stdout(&list).contains(r"\u{1b}[2J"), "{}", stdout(&list));

    let architecture = bytes.windows(13).position(|window| window == b"\x05\0\0\0\0\0\0\0llama").unwrap();
    bytes[architecture + 8..architecture + 12].copy_from_slice(b"\x1b[2J");
    let file = machine.write("hostile.gguf", &bytes);
    let refused = machine.model(&["import", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(4));
    assert!(!refused.stderr.contains(&0x1b), "{:?}", stderr(&refused));
    assert!(stderr(&refused).contains(r"architecture `\u{1b}[2Ja` is not supported"), "{}", stderr(&refused));
}

#[test]
fn pull_without_a_network_names_the_other_way() {
    let machine = Machine::new();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{address}");
    let output = machine.model(&["pull", "SmolLM2-135M-Instruct", "--endpoint", &endpoint]);
    assert_eq!(output.status.code(), Some(4));
    let text = stderr(&output);
    assert!(text.contains(&endpoint) && text.contains("`watchpost model import FILE`"), "{text}");
    assert!(machine.names(".").is_empty());
}
