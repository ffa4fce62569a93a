//! Points of charts, campaign drafts and ended sessions in memory.

use super::Memory;
use crate::campaign::CampaignId;
use crate::ledger::{CampaignDrafts, LedgerError, Point, Series, Sessions};

impl Series for Memory {
    async fn points(&self, id: &CampaignId) -> Result<Vec<Point>, LedgerError> {
        Ok(self.state.lock().campaign(id)?.points.clone())
    }

    async fn write_points(&self, id: &CampaignId, points: Vec<Point>, all: bool) -> Result<(), LedgerError> {
        let mut state = self.state.lock();
        let known = &mut state.campaign(id)?.points;
        if all {
            known.clear();
        }
        known.extend(points);
        Ok(())
    }
}

impl CampaignDrafts for Memory {
    async fn drafts(&self) -> Result<Vec<(String, String)>, LedgerError> {
        Ok(self.state.lock().drafts.clone().into_iter().collect())
    }

    async fn draft_names(&self) -> Result<Vec<String>, LedgerError> {
        Ok(self.state.lock().drafts.keys().cloned().collect())
    }

    async fn draft(&self, name: &str) -> Result<Option<String>, LedgerError> {
        Ok(self.state.lock().drafts.get(name).cloned())
    }

    async fn keep_draft(&self, name: &str, draft: String) -> Result<(), LedgerError> {
        self.state.lock().drafts.insert(name.to_owned(), draft);
        Ok(())
    }

    async fn remove_draft(&self, name: &str) -> Result<(), LedgerError> {
        self.state.lock().drafts.remove(name);
        Ok(())
    }
}

impl Sessions for Memory {
    async fn end_session(&self, digest: &str, _: i64) -> Result<(), LedgerError> {
        self.state.lock().ended_sessions.insert(digest.to_owned());
        Ok(())
    }

    async fn is_session_ended(&self, digest: &str) -> Result<bool, LedgerError> {
        Ok(self.state.lock().ended_sessions.contains(digest))
    }
}
