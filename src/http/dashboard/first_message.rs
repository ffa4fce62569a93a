//! A campaign's message as the phone of its first recipient shows it. The audience is read for it, once for each campaign.

use std::sync::Arc;
use std::time::Duration;

use minijinja::{Value, context};

use super::super::api::campaigns::with_prepared;
use super::Dashboard;
use super::facts::Facts;
use super::phone::phone;
use crate::audience::Root;
use crate::campaign::{CampaignId, Job};
use crate::ledger::{Campaign, Campaigns};
use crate::views::check::{Rendered, first_message};

/// How long a page waits for it. A large audience is read on for the next look.
const WAIT: Duration = Duration::from_secs(2);

/// The message with the values of the first row; with its placeholders, and why, where they can't be known.
pub(super) async fn shown(dashboard: &Dashboard, campaign: &Campaign, facts: &Arc<Facts>) -> Value {
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

/// What it can't be read for may change, and is asked again: that is an error, which nobody sees.
struct Unread;

async fn read(dashboard: &Dashboard, id: CampaignId, digest: String) -> Result<Option<Rendered>, Unread> {
    let backing = dashboard.api.backing().map_err(|_| Unread)?;
    let stored = backing.ledger.job(&id).await.map_err(|_| Unread)?;
    let job = Job::read(stored.job.as_bytes()).map_err(|_| Unread)?;
    // What lies elsewhere would have to be fetched.
    let is_list = job.document.pointer("/audience/recipients").is_some();
    let is_file = job.document.pointer("/audience/csv/path").is_some()
        && backing.context.audiences.root().and_then(Root::as_folder).is_some();
    if !is_list && !is_file {
        return Ok(None);
    }
    let reading = with_prepared(&dashboard.api, job, move |prepared, _| {
        // Another file of the same name has other people.
        if prepared.scan.digest == digest { Ok(first_message(&prepared, id)?) } else { Ok(None) }
    });
    reading.await.map_err(|_| Unread)
}
