//! The audit log in memory: a list.

use super::Memory;
use crate::campaign::CampaignId;
use crate::ledger::{Audit, AuditEntry, AuditPage, LedgerError, audit::page};

impl Audit for Memory {
    async fn log(&self, act: AuditEntry) -> Result<(), LedgerError> {
        self.state.lock().acts.push(act);
        Ok(())
    }

    async fn acts(
        &self,
        campaign: Option<&CampaignId>,
        from: Option<&str>,
        limit: usize,
    ) -> Result<AuditPage, LedgerError> {
        let before = from.map_or(Ok(usize::MAX), |place| place.parse().map_err(|_| LedgerError::NoPlace))?;
        let state = self.state.lock();
        let acts = state.acts.iter().enumerate().rev().filter(|(nth, act)| {
            *nth < before && campaign.is_none_or(|id| act.campaign.as_ref() == Some(id))
        });
        Ok(page(acts.take(limit + 1).map(|(nth, act)| (nth.to_string(), act.clone())).collect(), limit))
    }
}
