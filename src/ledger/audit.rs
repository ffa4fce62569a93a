//! The audit log: actions of people, from the command line, the API and the dashboard.
//!
//! It does not contain what flowcast does automatically.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Clock, LedgerFuture};
use crate::campaign::CampaignId;

/// Approximate number of entries kept; the oldest are deleted first.
pub(super) const RETAINED: usize = 100_000;
/// Approximate number of entries kept for one campaign.
pub(super) const RETAINED_PER_CAMPAIGN: usize = 1000;
/// Maximum length of a name and of a detail, in characters.
const MAX_CHARS: (usize, usize) = (100, 300);

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Time of the action.
    pub at: Timestamp,
    /// Who did it: a token's name, a user at a host, or the interface.
    pub who: String,
    /// Code of the action, e.g. `submit`, `pause`, `retry`.
    pub what: String,
    /// The campaign, if the action was on one.
    pub campaign: Option<CampaignId>,
    /// The action as a text.
    pub detail: String,
    /// Path of the audience file that was uploaded or deleted; earlier versions did not store it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl AuditEntry {
    /// Returns an entry of now. Texts may come from a queue, so control characters are removed and lengths limited.
    pub fn new(who: &str, what: &str, campaign: Option<&CampaignId>, detail: &str) -> Self {
        let plain = |text: &str, longest| -> String {
            text.chars().filter(|c| !c.is_control()).take(longest).collect()
        };
        Self {
            at: Timestamp::now(),
            who: plain(who, MAX_CHARS.0),
            what: what.into(),
            campaign: campaign.cloned(),
            detail: plain(detail, MAX_CHARS.1),
            file: None,
        }
    }

    /// Returns the entry with the audience file that it is about.
    #[must_use]
    pub fn to_file(self, path: &str) -> Self {
        Self { file: Some(path.to_owned()), ..self }
    }
}

impl std::fmt::Display for AuditEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} {}: {}", self.at, self.who, self.detail)
    }
}

/// A page of the log, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditPage {
    /// The entries.
    pub acts: Vec<AuditEntry>,
    /// Cursor of the next page, `None` at the end.
    pub next: Option<String>,
}

/// The audit log.
pub trait Audit: Clock {
    /// Writes an entry.
    fn log(&self, act: AuditEntry) -> impl LedgerFuture<()>;

    /// Returns a page of entries, newest first, of one campaign or of all.
    ///
    /// `from` is the cursor of the page before.
    ///
    /// # Errors
    ///
    /// [`NoPlace`](super::LedgerError::NoPlace) if `from` is not a cursor.
    fn acts(
        &self,
        campaign: Option<&CampaignId>,
        from: Option<&str>,
        limit: usize,
    ) -> impl LedgerFuture<AuditPage>;
}

/// Returns a page from up to `limit + 1` entries with their cursors.
pub(super) fn page(mut found: Vec<(String, AuditEntry)>, limit: usize) -> AuditPage {
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|(place, _)| place.clone());
    AuditPage { acts: found.into_iter().map(|(_, act)| act).collect(), next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_an_earlier_version_is_read_without_a_file() {
        let act = AuditEntry::new("asha", "upload", None, "uploaded a.csv (1 row)");
        let earlier = serde_json::to_string(&act).unwrap();
        assert!(!earlier.contains("file"), "{earlier}");
        assert_eq!(serde_json::from_str::<AuditEntry>(&earlier).unwrap(), act);
        let act = act.to_file("a.csv");
        let json = serde_json::to_string(&act).unwrap();
        assert_eq!(serde_json::from_str::<AuditEntry>(&json).unwrap(), act);
    }
}
