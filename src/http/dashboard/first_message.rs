//! A campaign's message on the phone of its first recipient. The audience is read once per campaign, and never downloaded.

use std::sync::Arc;
use std::time::Duration;

use minijinja::{Value, context};

use super::super::api::campaigns::with_prepared;
use super::Dashboard;
use super::job_cache::JobFacts;
use super::phone::phone;
use crate::audience::Root;
use crate::campaign::{CampaignId, Job};
use crate::ledger::{Campaign, Campaigns};
use crate::views::check::{Rendered, first_message};

/// Maximum time that a page waits for the audience. Reading continues in the background for the next request.
const WAIT: Duration = Duration::from_secs(2);

/// Returns the message with the values of the first row.
///
/// If they are unknown, it has its placeholders and a note that says why.
pub(super) async fn shown(dashboard: &Dashboard, campaign: &Campaign, facts: &Arc<JobFacts>) -> Value {
    let reading = {
        let (dashboard, facts) = (dashboard.clone(), facts.clone());
        let (id, digest) = (campaign.id.clone(), campaign.audience.clone());
        tokio::spawn(async move {
            facts.first.get_or_try_init(|| read(&dashboard, id, digest)).await.ok().cloned().flatten()
        })
    };
    let note = match tokio::time::timeout(WAIT, reading).await {
        Ok(Ok(Some(message))) => {
            return context! { recipient => message.recipient, phone => phone(&message.content) };
        }
        Ok(_) => {
            "The audience isn’t here any more, so this shows the placeholders instead of a person’s values."
        }
        Err(_) => "The audience is still being read. Reload the page to see the values of the first row.",
    };
    context! { phone => facts.phone.clone(), note => facts.has_placeholders.then_some(note) }
}

/// A failure that may pass. It is not cached, so that the next request reads again; no page shows it.
struct Unread;

async fn read(dashboard: &Dashboard, id: CampaignId, digest: String) -> Result<Option<Rendered>, Unread> {
    let backing = dashboard.api.backing().map_err(|_| Unread)?;
    let stored = backing.ledger.job(&id).await.map_err(|_| Unread)?;
    let job = Job::read(stored.job.as_bytes()).map_err(|_| Unread)?;
    // An audience elsewhere would have to be downloaded.
    let is_list = job.document.pointer("/audience/recipients").is_some();
    let is_file = job.document.pointer("/audience/csv/path").is_some()
        && backing.context.audiences.root().and_then(Root::as_folder).is_some();
    if !is_list && !is_file {
        return Ok(None);
    }
    let reading = with_prepared(&dashboard.api, job, move |prepared, _| {
        // The file may have been replaced by another one with the same name.
        if prepared.scan.digest == digest { Ok(first_message(&prepared, id)?) } else { Ok(None) }
    });
    reading.await.map_err(|_| Unread)
}
