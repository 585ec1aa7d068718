//! `watchpost completions SHELL` and `watchpost man`: made from the command line's own description.

use std::io::{self, Write as _};

use clap::Command;
use clap_complete::Shell;

use super::{Code, Failure};

#[derive(clap::Args)]
pub struct CompletionArgs {
    shell: Shell,
}

pub fn completions(args: CompletionArgs, command: &mut Command) -> Result<Code, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "watchpost", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Code::Good)
}

/// One page in roff: the command, then every verb with its options.
pub fn manual(command: Command) -> Result<Code, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        writeln!(page, ".SH \"WATCHPOST {}\"", verb.get_name().to_uppercase())?;
        let verb = verb.clone().display_name(format!("watchpost {}", verb.get_name()));
        let verb = clap_mangen::Man::new(verb);
        verb.render_synopsis_section(&mut page)?;
        verb.render_description_section(&mut page)?;
        verb.render_options_section(&mut page)?;
    }
    io::stdout().write_all(&page)?;
    Ok(Code::Good)
}
