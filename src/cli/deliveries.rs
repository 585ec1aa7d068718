//! `watchpost deliveries`: the outbox, and its dead letters.

use std::io::Write as _;

use super::{Code, Failure, StoreArgs, table};
use crate::clock::{Clock, Timestamp};
use crate::store::outbox::{self, Delivery, Which};
use crate::text::escape;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Only those that were given up.
    #[arg(long)]
    dead: bool,
    /// How many, newest first.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// JSON lines instead of a table.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Try a dead delivery again, with its old idempotency key; a running service takes it within a minute.
    Retry {
        /// The delivery's number, or `all`.
        id: String,
    },
}

pub fn run(args: Args) -> Result<Code, Failure> {
    let store = args.store.open()?;
    let mut out = std::io::stdout().lock();
    if let Some(Verb::Retry { id }) = args.verb {
        let which = match id.as_str() {
            "all" => Which::AllDead,
            number => Which::One(number.parse().map_err(|_| {
                Failure::cannot_run(format!("`{}` is no delivery: give its number, or `all`", escape(number)))
            })?),
        };
        let now = Clock::system().now().as_millisecond();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let retried = runtime.block_on(store.write(move |tx| outbox::retry(tx, which, now)))?;
        if retried == 0 {
            return Err(Failure::cannot_run(format!("no dead delivery `{}`", escape(&id))));
        }
        writeln!(out, "{retried} due again")?;
        return Ok(Code::Good);
    }
    let found = store.read_here(|connection| outbox::list(connection, args.dead, args.limit))?;
    if args.json {
        for delivery in &found {
            writeln!(out, "{}", serde_json::to_string(delivery)?)?;
        }
    } else if found.is_empty() {
        writeln!(out, "no {}deliveries", if args.dead { "dead " } else { "" })?;
    } else {
        let header = ["id", "webhook", "alert", "kind", "state", "attempts", "next attempt", "last answer"];
        writeln!(out, "{}", table(&header, found.iter().map(row)))?;
    }
    Ok(Code::Good)
}

fn row(delivery: &Delivery) -> [String; 8] {
    let next = (delivery.state == "due").then(|| Timestamp::from_millisecond(delivery.next_attempt_at).ok());
    [
        delivery.id.to_string(),
        escape(&delivery.webhook).into_owned(),
        delivery.alert_id.clone(),
        delivery.kind.as_str().to_owned(),
        delivery.state.clone(),
        delivery.attempts.to_string(),
        next.flatten().map_or(String::new(), |at| at.strftime("%F %T").to_string()),
        delivery.last_answer.as_deref().map_or(String::new(), |answer| escape(answer).into_owned()),
    ]
}
