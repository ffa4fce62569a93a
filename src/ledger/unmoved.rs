//! The embedded store that lies beside a fleet's configuration: what was begun there is not begun again.
//!
//! Its messages may have been sent; the fleet's ledger knows nothing of them.

use std::path::PathBuf;

use super::{Access, Campaigns, LedgerError, Sqlite, listing};
use crate::campaign::{CampaignId, CampaignState};
use crate::runtime::blocking;

/// A store of this machine that a fleet has not taken over, if there is one. It is looked at anew each time: it may be
/// put there, or taken away, while workers run.
#[derive(Clone, Debug, Default)]
pub struct UnmovedStore(Option<PathBuf>);

impl UnmovedStore {
    /// The store at a path, where there is one.
    pub fn at(path: PathBuf) -> Self {
        Self(Some(path))
    }

    async fn open(&self) -> Result<Option<(Sqlite, String)>, LedgerError> {
        let Some(path) = self.0.clone() else { return Ok(None) };
        let shown = path.display().to_string();
        let opened = blocking(move || path.is_file().then(|| Sqlite::open(&path, Access::Read))).await;
        match opened.map_err(|error| LedgerError::Storage(error.to_string()))? {
            // It may have gone away just now.
            None | Some(Err(LedgerError::NoStore(_))) => Ok(None),
            Some(opened) => Ok(Some((opened?, shown))),
        }
    }

    /// Refuses a campaign that the store has, whatever became of it there. Rehearsals have sent nothing.
    ///
    /// # Errors
    ///
    /// [`LedgerError::InStore`], and when the store can't be read: what it has is not known then.
    pub async fn refuse(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let Some((store, path)) = self.open().await? else { return Ok(()) };
        match store.campaign(id).await? {
            Some(known) if !known.rehearsal => Err(LedgerError::InStore { id: id.clone(), store: path }),
            _ => Ok(()),
        }
    }

    /// The campaigns of the store that have not ended, with its path. Rehearsals are none.
    ///
    /// # Errors
    ///
    /// When the store can't be read.
    pub async fn unfinished(&self) -> Result<Option<(String, Vec<CampaignId>)>, LedgerError> {
        let Some((store, path)) = self.open().await? else { return Ok(None) };
        let campaigns = listing::all(&store).await?;
        let open = campaigns.into_iter().filter(|campaign| {
            !campaign.rehearsal
                && campaign.state != CampaignState::Cancelled
                && !(campaign.state == CampaignState::Completed && campaign.counts.open() == 0)
        });
        Ok(Some((path, open.map(|campaign| campaign.id).collect())))
    }
}
