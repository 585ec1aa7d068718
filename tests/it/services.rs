//! The real servers that `make services` starts, and fakes told as they are.

use std::path::PathBuf;

/// What `scripts/services` tells of one, e.g. `POSTGRESQL`; `None` where no services run, and then the test says so and
/// passes: `make test` and CI start them, a bare `cargo test` does not.
pub(crate) fn service(name: &str) -> Option<String> {
    let file = std::env::var_os("WATCHPOST_SERVICES").map(PathBuf::from);
    let Some(file) = file else {
        eprintln!("not tried: no services run; `make services` starts them, `make test` uses them");
        return None;
    };
    let told = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    Some(line.unwrap_or_else(|| panic!("{} tells nothing of {name}", file.display())).to_owned())
}

#[test]
fn ci_runs_the_tests_that_need_servers() {
    if std::env::var_os("CI").is_some() {
        assert!(std::env::var_os("WATCHPOST_SERVICES").is_some(), "CI runs without services");
    }
}
