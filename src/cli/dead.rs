//! `flowcast dead`: jobs that could not be read or were refused. They stay on the broker, whole, until
//! a person requeues or discards them.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Failure, Outcome, open, operator, print, write_line};
use crate::campaign::{CampaignId, counted, visible, visible_lines};
use crate::config::Config;
use crate::ledger::{Act, Audit, Redis};
use crate::provider::transport::REQUEST_TIMEOUT;
use crate::queue::rabbitmq::Broker;
use crate::queue::{Buried, DeadAction, QueueError};
use crate::redis_client::RetryPolicy;

/// How many are listed.
pub(super) const LISTED: usize = 1000;
/// How much of a job's digest names it in the list.
const NAME: usize = 8;

/// Look at jobs that could not be read or were refused.
#[derive(Args)]
pub(super) struct Dead {
    #[command(subcommand)]
    what: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List them, with the reasons
    List,
    /// Put them back to the jobs
    Requeue(Wanted),
    /// Let them go
    Discard(Wanted),
}

/// Which of them.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Wanted {
    /// Their names in the list, or the ids of their jobs
    which: Vec<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

pub(super) async fn main(dead: Dead, config: &Config, json: bool) -> Outcome {
    if config.amqp.is_none() {
        // The embedded store refuses a job when it is submitted.
        if matches!(dead.what, Verb::List) {
            print(if json { "[]\n" } else { "there is no broker, and so no dead jobs\n" })?;
            return Ok(ExitCode::SUCCESS);
        }
        return Err(Failure::Usage("there is no broker: set amqp.url in the configuration".into()));
    }
    let broker = open::broker(config, false).await?;
    let text = match dead.what {
        Verb::List => {
            let (buried, more) = broker.buried(LISTED).await?;
            list(&buried, more, json)
        }
        Verb::Requeue(wanted) => {
            let done = wanted.unbury(&broker, DeadAction::Requeue).await?;
            log(config, "requeue", &format!("put {} back", counted(done, "refused job"))).await;
            summary(done, "requeued", json)
        }
        Verb::Discard(wanted) => {
            let done = wanted.unbury(&broker, DeadAction::Discard).await?;
            log(config, "discard", &format!("let {} go", counted(done, "refused job"))).await;
            summary(done, "discarded", json)
        }
    };
    broker.close().await;
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes down what was done, where the fleet's ledger is. That it can't be reached undoes nothing.
async fn log(config: &Config, what: &str, detail: &str) {
    let Some(redis) = &config.redis else { return };
    let logged = async {
        let ledger = Redis::on(open::redis_server(redis, RetryPolicy::Short).await?, REQUEST_TIMEOUT);
        Ok::<_, Failure>(ledger.log(Act::new(&operator(), what, None, detail)).await?)
    };
    if let Err(failure) = logged.await {
        write_line(&format!("done, and not in the audit log: {failure}"));
    }
}

impl Wanted {
    async fn unbury(&self, broker: &Broker, what: DeadAction) -> Result<u64, QueueError> {
        if self.all {
            return broker.unbury_all(what).await;
        }
        broker.unbury(what, |nth, job| self.includes(nth, job)).await
    }

    /// A number is its place in the list, which changes as soon as one is taken out.
    fn includes(&self, nth: usize, job: &Buried) -> bool {
        let (id, digest) = (id(job), job.digest());
        let is_named = |which: &String| which.len() >= NAME && digest.starts_with(which.as_str());
        self.which
            .iter()
            .any(|which| is_named(which) || *which == nth.to_string() || Some(which) == id.as_ref())
    }
}

/// The id that a job's document gives, if it can be read so far.
pub(super) fn id(job: &Buried) -> Option<String> {
    let document: Value = serde_json::from_slice(&job.data).ok()?;
    let id = document.get("id")?.as_str()?;
    id.parse::<CampaignId>().is_ok().then(|| id.to_owned())
}

fn summary(count: u64, what: &str, json: bool) -> String {
    if json { format!("{}\n", json!({ what: count })) } else { format!("{what}: {count}\n") }
}

fn list(buried: &[Buried], more: u32, json: bool) -> String {
    if json {
        let line = |(nth, job): (usize, &Buried)| {
            json!({
                "number": nth + 1, "name": job.digest(), "id": id(job), "error": job.error, "pointer": job.pointer,
                "bytes": job.data.len(), "job": String::from_utf8_lossy(&job.data),
            })
        };
        return format!("{}\n", Value::from(buried.iter().enumerate().map(line).collect::<Vec<_>>()));
    }
    let mut text = String::new();
    for (nth, job) in buried.iter().enumerate() {
        let id = id(job).unwrap_or_else(|| "without an id".into());
        let name = &job.digest()[..NAME];
        text += &format!("{:>4}  {name}  {}, {} bytes\n", nth + 1, visible(&id), job.data.len());
        for line in visible_lines(&job.error).lines() {
            text += &format!("      {line}\n");
        }
    }
    if buried.is_empty() {
        text += "no dead jobs\n";
    } else {
        if more > 0 {
            text += &format!("and {more} more\n");
        }
        text += "put back with: flowcast dead requeue NAME… or ID… or --all; let go with: flowcast dead discard …\n";
    }
    text
}
