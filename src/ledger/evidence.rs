//! Evidence: what delivery reports prove about messages, in any order and any number of times.

use super::deliveries::{MessageReport, ReportEffect};
use super::{BatchUpdate, Batches, CasOutcome, LedgerError, batch_machine::BatchMachine};
use crate::campaign::CampaignId;

/// Applies delivery reports to a batch. Returns the effect of each, `None` for a message that does not exist.
///
/// A report changes delivery progress, and proves that the provider accepted a message. The result does not depend on
/// the order or on repetitions.
pub async fn apply_reports<L: Batches>(
    ledger: &L,
    id: &CampaignId,
    batch: u32,
    reports: Vec<MessageReport>,
) -> Result<Vec<Option<ReportEffect>>, LedgerError> {
    // A retry applies the reports from the beginning, so the effects are always those of one pass.
    loop {
        let numbers = [batch];
        let reading = (ledger.load(id, &numbers), ledger.deliveries(id, &numbers));
        let (stored, before) = futures_util::try_join!(reading.0, reading.1)?;
        let Some(stored) = stored.into_iter().next().flatten() else {
            return Ok(vec![None; reports.len()]);
        };
        let before = before.into_iter().next().unwrap_or_default();
        let mut machine = BatchMachine::new(&stored.batch, stored.record, ledger.now());
        let mut effects = machine.report(&reports, &before)?;
        let change = machine.finish();
        if change.is_empty() {
            return Ok(effects);
        }
        let swap = BatchUpdate { batch: &stored.batch, purpose: None, change: &change };
        let CasOutcome::Done { responses, .. } = ledger.update_batch(swap).await? else { continue };
        // A reply counts as new until it is published.
        let answers = effects.iter_mut().zip(&reports).filter(|(_, report)| report.is_answer());
        for (effect, is_news) in answers.filter_map(|(effect, _)| effect.as_mut()).zip(responses) {
            effect.is_news = is_news;
        }
        return Ok(effects);
    }
}
