//! clickdetect's command line: what has a meaning here is done, all else is refused by name, with what to do instead.

use super::list::{self, Family};
use super::{Code, Failure};

#[derive(clap::Args)]
#[group(skip)]
#[command(next_help_heading = "As in clickdetect")]
pub struct Args {
    /// Read the runner from standard input; its paths start at the current folder.
    #[arg(long)]
    pub stdin: bool,
    /// Let every detector wait for one interval before it runs for the first time.
    #[arg(long)]
    pub no_start: bool,
    /// What `list datasources` prints.
    #[arg(long)]
    list_datasources: bool,
    /// What `list webhooks` prints.
    #[arg(long)]
    list_webhooks: bool,
    /// What `list plugins` prints.
    #[arg(long)]
    list_plugins: bool,
    #[arg(long, hide = true)]
    api: bool,
    #[arg(short, long, hide = true, value_name = "PORT")]
    port: Option<u16>,
    #[arg(long, hide = true)]
    reload: bool,
    #[arg(long, hide = true)]
    sigma: bool,
}

impl Args {
    /// Does what is done instead of running, if that was asked for.
    pub fn answer(&self) -> Option<Result<Code, Failure>> {
        let lists = [
            (self.list_datasources, Family::Datasources),
            (self.list_webhooks, Family::Webhooks),
            (self.list_plugins, Family::Plugins),
        ];
        if let Some((_, family)) = lists.into_iter().find(|(is_asked, _)| *is_asked) {
            return Some(list::show(family, None, false));
        }
        let refused = [
            (
                self.api || self.port.is_some(),
                "--api: the HTTP API is not built yet: `watchpost status --json` and `watchpost alerts --json` say \
                 what it would",
            ),
            (
                self.reload,
                "--reload: rules are read at the start only: restart after a change, no window is lost by it",
            ),
            (self.sigma, "--sigma: Sigma rules are not built yet: write their queries as `rule`"),
        ];
        let (_, why) = refused.into_iter().find(|(is_asked, _)| *is_asked)?;
        Some(Err(Failure::cannot_run(why)))
    }
}
