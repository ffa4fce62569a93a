//! The answers to a campaign, counted by field and value for its page. Never shows who answered what.

use std::collections::HashMap;

use minijinja::{Value, context};
use parking_lot::Mutex;

use super::super::problem::Problem;
use super::captions;
use crate::campaign::CampaignId;
use crate::ledger::{AnyLedger, Campaign};
use crate::views::reply_counts::count_replies;

/// Maximum number of campaigns in the cache.
const CACHE_SIZE: usize = 100;

/// Cache of counted answers. A campaign's answers are counted again when their number has changed.
#[derive(Default)]
pub(super) struct KnownAnswers(Mutex<HashMap<CampaignId, (u64, Value)>>);

impl KnownAnswers {
    /// Returns the answers to a campaign, if it has any.
    pub(super) async fn for_campaign(
        &self,
        ledger: &AnyLedger,
        campaign: &Campaign,
    ) -> Result<Option<Value>, Problem> {
        let replied = campaign.delivery.replied;
        if replied == 0 {
            return Ok(None);
        }
        let known = || self.0.lock();
        if let Some((_, answers)) = known().get(&campaign.id).filter(|(count, _)| *count == replied) {
            return Ok(Some(answers.clone()));
        }
        let answers = counted(ledger, &campaign.id).await?;
        let mut known = known();
        if known.len() >= CACHE_SIZE {
            known.clear();
        }
        known.insert(campaign.id.clone(), (replied, answers.clone()));
        Ok(Some(answers))
    }
}

async fn counted(ledger: &AnyLedger, id: &CampaignId) -> Result<Value, Problem> {
    let answers = count_replies(ledger, id).await?;
    let fields = answers.fields.iter().map(|field| {
        let values = field.values.iter().map(|(value, count)| {
            context! { value => value.clone(), count => *count, share => captions::percent(*count, field.count),
                width => (count * 1000).checked_div(field.count).unwrap_or_default() }
        });
        context! { name => field.name.clone(), count => field.count, others => field.others, values => values.collect::<Vec<_>>() }
    });
    Ok(context! { count => answers.count, more => answers.more, fields => fields.collect::<Vec<_>>() })
}
