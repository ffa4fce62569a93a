//! `flowcast dead`: the dead-letter queue, with jobs that could not be read or were refused. They stay on the broker,
//! unchanged, until an operator requeues or discards them.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Failure, Outcome, open, operator, print, write_line};
use crate::campaign::{CampaignId, counted, visible, visible_lines};
use crate::config::Config;
use crate::ledger::{Audit, AuditEntry, Redis};
use crate::provider::transport::REQUEST_TIMEOUT;
use crate::queue::{DeadLetter, DeadLetterAction, QueueError, rabbitmq::Broker};
use crate::redis_client::RetryPolicy;

/// Maximum number of jobs in the list.
pub(super) const MAX_LISTED: usize = 1000;
/// Number of digits of a job's digest that name it in the list.
const NAME: usize = 8;

/// List, requeue or discard refused jobs (the dead-letter queue).
#[derive(Args)]
pub(super) struct Dead {
    #[command(subcommand)]
    what: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the refused jobs with the reasons
    List,
    /// Put refused jobs back on the queue, where workers take them again
    Requeue(Wanted),
    /// Delete refused jobs
    Discard(Wanted),
}

/// The jobs that an action is for.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Wanted {
    /// Jobs: names or numbers from the list, or ids
    which: Vec<String>,
    /// All refused jobs
    #[arg(long)]
    all: bool,
}

pub(super) async fn main(dead: Dead, config: &Config, json: bool) -> Outcome {
    if config.amqp.is_none() {
        // With the embedded store a job is refused on submission.
        if matches!(dead.what, Verb::List) {
            return print(if json { "[]\n" } else { "no dead-lettered jobs: no broker is configured\n" });
        }
        return Err(Failure::Usage("no broker is configured: set amqp.url in the configuration".into()));
    }
    let broker = open::broker(config, false).await?;
    let text = match dead.what {
        Verb::List => {
            let (buried, more) = broker.buried(MAX_LISTED).await?;
            list(&buried, more, json)
        }
        Verb::Requeue(wanted) => {
            let done = wanted.unbury(&broker, DeadLetterAction::Requeue).await?;
            log(config, "requeue", &format!("requeued {}", counted(done, "refused job"))).await;
            summary(done, "requeued", json)
        }
        Verb::Discard(wanted) => {
            let done = wanted.unbury(&broker, DeadLetterAction::Discard).await?;
            log(config, "discard", &format!("discarded {}", counted(done, "refused job"))).await;
            summary(done, "discarded", json)
        }
    };
    broker.close().await;
    print(&text)
}

/// Writes the action to the audit log of the fleet. An unreachable ledger does not undo the action.
async fn log(config: &Config, what: &str, detail: &str) {
    let Some(redis) = &config.redis else { return };
    let logged = async {
        let ledger = Redis::on(open::redis_server(redis, RetryPolicy::Short).await?, REQUEST_TIMEOUT);
        Ok::<_, Failure>(ledger.log(AuditEntry::new(&operator(), what, None, detail)).await?)
    };
    if let Err(failure) = logged.await {
        write_line(&format!("the action was done, but is not in the audit log: {failure}"));
    }
}

impl Wanted {
    async fn unbury(&self, broker: &Broker, what: DeadLetterAction) -> Result<u64, QueueError> {
        if self.all {
            return broker.unbury_all(what).await;
        }
        broker.unbury(what, |nth, job| self.includes(nth, job)).await
    }

    /// Whether a job was named. Numbers are positions in the list, which change when a job is removed.
    fn includes(&self, nth: usize, job: &DeadLetter) -> bool {
        let (id, digest) = (id(job), job.digest());
        let is_named = |which: &String| which.len() >= NAME && digest.starts_with(which.as_str());
        self.which
            .iter()
            .any(|which| is_named(which) || *which == nth.to_string() || Some(which) == id.as_ref())
    }
}

/// Returns the id in a job's document, if it can be read.
pub(super) fn id(job: &DeadLetter) -> Option<String> {
    let document: Value = serde_json::from_slice(&job.data).ok()?;
    let id = document.get("id")?.as_str()?;
    id.parse::<CampaignId>().is_ok().then(|| id.to_owned())
}

fn summary(count: u64, what: &str, json: bool) -> String {
    if json { format!("{}\n", json!({ what: count })) } else { format!("{what}: {count}\n") }
}

fn list(buried: &[DeadLetter], more: u32, json: bool) -> String {
    if json {
        let line = |(nth, job): (usize, &DeadLetter)| {
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
        text += "no dead-lettered jobs\n";
    } else {
        if more > 0 {
            text += &format!("and {more} more\n");
        }
        text += "to requeue: flowcast dead requeue NAME…, ID… or --all; to discard: flowcast dead discard NAME…, ID… or --all\n";
    }
    text
}
