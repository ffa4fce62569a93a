//! Messages in doubt: which they are, and since when. It only reads.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::batches::PAGE;
use super::deliveries::Deliveries;
use super::report::batch_lines;
use super::{Batches, LedgerError, ListEntry, ReportLine, Reporting};
use crate::campaign::{CampaignId, MessageState};

/// Returns since when the oldest message in doubt is in doubt.
pub async fn oldest<L: Batches>(ledger: &L, id: &CampaignId) -> Result<Option<Timestamp>, LedgerError> {
    let mut oldest = None;
    for numbers in ledger.listed(id, ListEntry::Failed).await?.chunks(PAGE as usize) {
        for stored in ledger.load(id, numbers).await?.into_iter().flatten() {
            let doubts = stored.record.each().filter(|(_, m)| m.state == MessageState::InDoubt);
            oldest = oldest.into_iter().chain(doubts.map(|(_, message)| message.at)).min();
        }
    }
    Ok(oldest.and_then(|at| Timestamp::from_millisecond(at).ok()))
}

/// Returns up to `most` messages in doubt, in the order of the batches.
pub async fn first<L: Reporting>(
    ledger: &L,
    id: &CampaignId,
    most: usize,
) -> Result<Vec<ReportLine>, LedgerError> {
    let (texts, mut found) = (ledger.texts(id).await?, Vec::new());
    for numbers in ledger.listed(id, ListEntry::Failed).await?.chunks(PAGE as usize) {
        for stored in ledger.load(id, numbers).await?.iter().flatten() {
            let lines = batch_lines(stored, &BTreeMap::new(), &Deliveries::default(), &texts);
            found.extend(lines.into_iter().filter(|line| line.state == MessageState::InDoubt));
        }
        if found.len() >= most {
            break;
        }
    }
    found.truncate(most);
    Ok(found)
}
