//! The audit log in Redis: a stream of all entries, and one for each campaign.

use std::collections::HashMap;

use super::{Redis, layout::Keys};
use crate::campaign::CampaignId;
use crate::ledger::audit::{RETAINED, RETAINED_PER_CAMPAIGN, page};
use crate::ledger::{Audit, AuditEntry, AuditPage, LedgerError};

/// Key of the stream of all entries.
const AUDIT: &str = "flowcast:audit";
/// Field of an entry, JSON.
const ACT: &str = "act";

impl Audit for Redis {
    async fn log(&self, act: AuditEntry) -> Result<(), LedgerError> {
        let json = serde_json::to_string(&act)
            .map_err(|error| LedgerError::Storage(format!("cannot save an audit entry: {error}")))?;
        let add = async |key: String, kept: usize| {
            let entry = (key, "MAXLEN", "~", kept, "*", ACT, &json);
            self.client.command::<()>(redis::cmd("XADD").arg(entry)).await
        };
        if let Some(id) = &act.campaign {
            add(Keys(id).audit(), RETAINED_PER_CAMPAIGN).await?;
        }
        Ok(add(AUDIT.into(), RETAINED).await?)
    }

    async fn acts(
        &self,
        campaign: Option<&CampaignId>,
        from: Option<&str>,
        limit: usize,
    ) -> Result<AuditPage, LedgerError> {
        let mut range = redis::cmd("XREVRANGE");
        range.arg(campaign.map_or_else(|| AUDIT.into(), |id| Keys(id).audit()));
        match from {
            Some(place) if is_place(place) => range.arg(format!("({place}")),
            Some(_) => return Err(LedgerError::NoPlace),
            None => range.arg("+"),
        };
        range.arg(("-", "COUNT", limit + 1));
        let found: Vec<(String, HashMap<String, String>)> = self.client.command(&range).await?;
        let acts = found
            .into_iter()
            .filter_map(|(place, fields)| Some((place, serde_json::from_str(fields.get(ACT)?).ok()?)));
        Ok(page(acts.collect(), limit))
    }
}

/// Returns whether a text is the id of a stream entry.
fn is_place(text: &str) -> bool {
    text.split_once('-').is_some_and(|(at, nth)| at.parse::<u64>().is_ok() && nth.parse::<u64>().is_ok())
}
