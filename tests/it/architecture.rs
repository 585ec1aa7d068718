//! Who may import whom: the table of ARCHITECTURE.md against the `use crate::` lines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[test]
fn modules_import_only_what_the_architecture_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = table(&std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap());
    let mut wrong = Vec::new();
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    for file in files {
        let module = module_of(file.strip_prefix(root.join("src")).unwrap());
        let text = std::fs::read_to_string(&file).unwrap();
        // Tests may know more than what they test.
        let code = text.split("#[cfg(test)]").next().unwrap();
        for used in imports(code) {
            let allowed =
                table.get(&module).unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for `{module}`"));
            if used != module && !allowed.contains(&used) {
                wrong.push(format!("{}: `{module}` imports `{used}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_kind_does_not_know_another_kind() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let families = [
        ("datasource", watchpost::datasource::Config::KINDS),
        ("webhook", watchpost::webhook::Config::KINDS),
    ];
    for (family, kinds) in families {
        let kinds: Vec<String> = kinds.iter().map(|kind| kind.name.replace('-', "_")).collect();
        for kind in &kinds {
            let mut files = Vec::new();
            sources(&root.join(family), &mut files);
            let (file, folder) = (format!("{family}/{kind}.rs"), format!("{family}/{kind}"));
            let own = files.iter().map(|path| (path, path.strip_prefix(&root).unwrap()));
            let own = own.filter(|(_, path)| path.ends_with(&file) || path.starts_with(&folder));
            let own: Vec<_> = own.map(|(path, _)| path).collect();
            assert!(!own.is_empty(), "{family} `{kind}` has no file of its own");
            for file in own {
                let text = std::fs::read_to_string(file).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                for other in kinds.iter().filter(|other| *other != kind) {
                    let told = ["::", ";"]
                        .map(|end| [format!("super::{other}{end}"), format!("{family}::{other}{end}")]);
                    assert!(
                        !told.iter().flatten().any(|path| code.contains(path)),
                        "{} knows `{other}`",
                        file.display()
                    );
                }
                assert!(!code.contains("crate::store"), "{} knows the store", file.display());
            }
        }
    }
}

/// Rows of the table `| module | may import |`.
fn table(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let rows = text.lines().skip_while(|line| !line.starts_with("| module | may import |")).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            let module = cells.next().unwrap().trim_matches('`').to_owned();
            let allowed =
                cells.next().unwrap().split([',', ' ']).map(|name| name.trim_matches('`').to_owned());
            (module, allowed.filter(|name| !name.is_empty()).collect())
        })
        .collect()
}

fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` in a macro is the same crate; `watchpost_engine::` is another.
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let group = group.split('}').next().unwrap();
            found.extend(group.split(',').map(|name| first_word(name.trim())));
        } else {
            found.insert(first_word(rest));
        }
    }
    found.remove("");
    found
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

fn module_of(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
