//! How clickdetect is started: files beside the runner that say so.

use std::path::Path;

use super::{Note, Notes, Sort};
use crate::config::read_text;
use crate::config::yaml::Position;

/// What its flags are here, where a container's file beside the runner gives them.
pub fn notes(dir: &Path) -> Vec<Note> {
    let files = FILES.iter().map(|name| dir.join(name));
    files.flat_map(|path| of_file(&path)).collect()
}

fn of_file(path: &Path) -> Vec<Note> {
    let Ok(text) = read_text(path, MAX_BYTES) else { return Vec::new() };
    let mut notes = Notes::of(&path.to_string_lossy());
    if !text.contains("clickdetect") {
        return notes.all;
    }
    for (index, line) in text.lines().enumerate() {
        let code = line.split('#').next().unwrap_or_default();
        for (flag, message) in FLAGS {
            let found = code.match_indices(flag).find(|(at, _)| {
                let next = code[at + flag.len()..].chars().next();
                !next.is_some_and(|next| next.is_alphanumeric() || next == '-')
            });
            if let Some((at, _)) = found {
                let column = code[..at].chars().count() + 1;
                notes.add(Sort::Differs, Position { line: index + 1, column }, flag, message);
            }
        }
    }
    notes.all
}

const FILES: [&str; 5] =
    ["compose.yml", "compose.yaml", "docker-compose.yml", "docker-compose.yaml", "Dockerfile"];
const FLAGS: [(&str, &str); 3] = [
    (
        "--api",
        "clickdetect's API listens on 0.0.0.0, without a login; there is none here yet, and the flag is refused: take it \
         out, `watchpost status --json` and `watchpost alerts --json` say what it would",
    ),
    (
        "--reload",
        "rules are read at the start only, and the flag is refused: take it out, and restart after a change; no window is \
         lost by it",
    ),
    ("--sigma", "Sigma rules are not built yet, and the flag is refused: write their queries as `rule`"),
];
/// Of such a file.
const MAX_BYTES: u64 = 1 << 20;
