//! Evidence: what delivery reports prove of messages, whenever and however often they come.

use super::deliveries::{MessageReport, ReportEffect};
use super::draft::Draft;
use super::{Batches, LedgerError, Swap, Swapped};
use crate::campaign::CampaignId;

/// Takes in what reports say of a batch's messages: what became of them after the provider took
/// them, and that it did take what is not known to be taken. In any order and repetition it ends
/// the same. Returns what each changed, `None` of a message that there is not.
pub async fn apply_reports<L: Batches>(
    ledger: &L,
    id: &CampaignId,
    batch: u32,
    reports: Vec<MessageReport>,
) -> Result<Vec<Option<ReportEffect>>, LedgerError> {
    // Which report settled a message: the first that proves it, also when all is read again.
    loop {
        let numbers = [batch];
        let reading = (ledger.load(id, &numbers), ledger.deliveries(id, &numbers));
        let (stored, before) = futures_util::try_join!(reading.0, reading.1)?;
        let Some(stored) = stored.into_iter().next().flatten() else {
            return Ok(vec![None; reports.len()]);
        };
        let before = before.into_iter().next().unwrap_or_default();
        let mut draft = Draft::new(&stored.batch, stored.record, ledger.now());
        let mut effects = draft.report(&reports, &before)?;
        let change = draft.finish();
        if change.is_empty() {
            return Ok(effects);
        }
        let swap = Swap { batch: &stored.batch, purpose: None, change: &change };
        let Swapped::Done { responses, .. } = ledger.swap_batch(swap).await? else { continue };
        // An answer is news until others were told of it.
        let answers = effects.iter_mut().zip(&reports).filter(|(_, report)| report.is_answer());
        for (effect, is_news) in answers.filter_map(|(effect, _)| effect.as_mut()).zip(responses) {
            effect.is_news = is_news;
        }
        return Ok(effects);
    }
}
