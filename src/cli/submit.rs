//! `flowcast submit`: puts a job on the queue, confirmed by the broker, or without a broker into the store of the
//! embedded worker.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use serde_json::json;
use uuid::Uuid;

use super::{Failure, Outcome, callback_endpoint::CallbackEndpoint, open, operator, print};
use crate::campaign::{CampaignId, job::AudienceSource};
use crate::config::Config;
use crate::dispatch::{prepare, register};
use crate::ledger::{Access, Sqlite, UnmovedStore};

/// Put a job on the queue.
#[derive(Args)]
pub(super) struct Submit {
    /// JSON file with the job; - for standard input
    job: PathBuf,
    #[command(flatten)]
    store: open::StoreArgs,
}

/// Refuses an audience file that does not exist, if this machine has the audience root of the workers.
///
/// The workers would refuse the job later, where the submitter does not see it.
fn check_audience(source: &AudienceSource, config: &Config) -> Result<(), Failure> {
    let (AudienceSource::Csv(csv), Some(root)) = (source, &config.audiences.root) else { return Ok(()) };
    if csv.path.is_some() && std::path::Path::new(root).is_dir() {
        open::audiences(config)?.find(csv)?;
    }
    Ok(())
}

pub(super) async fn main(submit: Submit, config: &Config, json: bool) -> Outcome {
    let mut job = open::job(&submit.job)?;
    let given = || Uuid::now_v7().to_string().parse::<CampaignId>();
    let id = match &job.id {
        Some(id) => id.clone(),
        None => given().map_err(|error| Failure::Outside(error.to_string()))?,
    };
    if config.amqp.is_some() && submit.store.flag().is_empty() {
        let mut document = job.document.clone();
        document["id"] = id.as_str().into();
        check_audience(&job.audience, config)?;
        UnmovedStore::at(config.store.path.clone()).refuse(&id).await?;
        let broker = open::broker(config, false).await?;
        broker.submit(document.to_string().into_bytes()).await?;
        broker.close().await;
    } else {
        if config.redis.is_some() && submit.store.flag().is_empty() {
            let text = "the workers of a fleet take jobs from a broker, and none is configured: set amqp.url in the configuration, or FLOWCAST_AMQP__URL";
            return Err(Failure::Usage(text.into()));
        }
        job.id = Some(id.clone());
        let endpoint = CallbackEndpoint::in_shape(config)?;
        let account = open::account(config, &job.account, endpoint.as_ref())?;
        // The worker reads the audience below its own root, not in the folder of the job's file.
        let prepared = Arc::new(prepare(job, &open::audiences(config)?, &account)?);
        // A worker may already use the store, or be creating it.
        let ledger = Sqlite::open(submit.store.path(config), Access::Create)?;
        register(&ledger, &prepared, false, false, &operator(), &UnmovedStore::default()).await?;
    }
    print(&if json { format!("{}\n", json!({ "id": id })) } else { format!("{id}\n") })
}
