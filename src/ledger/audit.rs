//! The audit log: what people did, whichever way it came. What flowcast does by itself is not in it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{LedgerError, Store};
use crate::campaign::CampaignId;

/// About how many acts are kept at the least, of all and of one campaign; the oldest go first.
pub(super) const KEPT: usize = 100_000;
pub(super) const KEPT_OF_ONE: usize = 1000;
/// The longest name of who did something, and the longest detail, in characters.
const LONGEST: (usize, usize) = (100, 300);

/// An act of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// When.
    pub at: Timestamp,
    /// Who: a token's name, a user at a host, or the way it came.
    pub who: String,
    /// What was done, one word: `submit`, `pause`, `retry` and the like.
    pub what: String,
    /// To which campaign, if to one.
    pub campaign: Option<CampaignId>,
    /// The same in words.
    pub detail: String,
    /// The path of the audience file that was uploaded or deleted; earlier versions did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl Act {
    /// An act of now. Names and codes may come from a queue: they stay on one line, and that a short one.
    pub fn new(who: &str, what: &str, campaign: Option<&CampaignId>, detail: &str) -> Self {
        let plain = |text: &str, longest| -> String {
            text.chars().filter(|c| !c.is_control()).take(longest).collect()
        };
        Self {
            at: Timestamp::now(),
            who: plain(who, LONGEST.0),
            what: what.into(),
            campaign: campaign.cloned(),
            detail: plain(detail, LONGEST.1),
            file: None,
        }
    }

    /// The same, done to an audience file.
    #[must_use]
    pub fn to_file(self, path: &str) -> Self {
        Self { file: Some(path.to_owned()), ..self }
    }
}

impl std::fmt::Display for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} {}: {}", self.at, self.who, self.detail)
    }
}

/// A part of the log, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActPage {
    /// The acts.
    pub acts: Vec<Act>,
    /// Where it goes on, `None` at the end.
    pub next: Option<String>,
}

/// The log of a ledger.
pub trait Audit: Store {
    /// Writes an act down.
    fn log(&self, act: Act) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// The acts, the newest first, those of one campaign or all: so many, from where a page before says that
    /// it goes on. What is no such place is the beginning.
    fn acts(
        &self,
        campaign: Option<&CampaignId>,
        from: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<ActPage, LedgerError>> + Send;
}

/// A page out of one act more than it has room for, each with its place.
pub(super) fn page(mut found: Vec<(String, Act)>, limit: usize) -> ActPage {
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|(place, _)| place.clone());
    ActPage { acts: found.into_iter().map(|(_, act)| act).collect(), next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_of_an_earlier_version_is_read_without_its_file() {
        let act = Act::new("asha", "upload", None, "uploaded a.csv (1 row)");
        let earlier = serde_json::to_string(&act).unwrap();
        assert!(!earlier.contains("file"), "{earlier}");
        assert_eq!(serde_json::from_str::<Act>(&earlier).unwrap(), act);
        let act = act.to_file("a.csv");
        let json = serde_json::to_string(&act).unwrap();
        assert_eq!(serde_json::from_str::<Act>(&json).unwrap(), act);
    }
}
