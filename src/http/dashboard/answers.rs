//! What people answered, beside the campaign that they answered to.

use minijinja::{Value, context};

use super::super::problem::Problem;
use super::words;
use crate::ledger::{AnyLedger, Campaign, on_ledger};
use crate::views::answers::answers;

/// The answers to a campaign, where there are any.
pub(super) async fn of(ledger: &AnyLedger, campaign: &Campaign) -> Result<Option<Value>, Problem> {
    if campaign.delivery.replied == 0 {
        return Ok(None);
    }
    let answers = on_ledger!(ledger, ledger => answers(ledger, &campaign.id).await?);
    let fields = answers.fields.iter().map(|field| {
        let values = field.values.iter().map(|(value, count)| {
            context! { value => value.clone(), count => *count, share => words::percent(*count, field.count),
                width => (count * 1000).checked_div(field.count).unwrap_or_default() }
        });
        context! { name => field.name.clone(), count => field.count, others => field.others, values => values.collect::<Vec<_>>() }
    });
    Ok(Some(context! { count => answers.count, more => answers.more, fields => fields.collect::<Vec<_>>() }))
}
