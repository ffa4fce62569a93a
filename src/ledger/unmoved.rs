//! The embedded store at the configured path of a machine whose workers use a fleet's ledger.
//!
//! Its messages may have been sent and the fleet's ledger does not know them, so a campaign of the store must not start in
//! the fleet. The store is only read.

use std::path::PathBuf;

use super::{Access, Campaigns, LedgerError, Sqlite, listing};
use crate::campaign::{CampaignId, CampaignState};
use crate::runtime::blocking;

/// A store of this machine that was not moved to the fleet, if there is one.
///
/// It is opened for each call, because it may appear or disappear while workers run.
#[derive(Clone, Debug, Default)]
pub struct UnmovedStore(Option<PathBuf>);

impl UnmovedStore {
    /// Returns the store at a path, which need not exist.
    pub fn at(path: PathBuf) -> Self {
        Self(Some(path))
    }

    async fn open(&self) -> Result<Option<(Sqlite, String)>, LedgerError> {
        let Some(path) = self.0.clone() else { return Ok(None) };
        let shown = path.display().to_string();
        let opened = blocking(move || path.is_file().then(|| Sqlite::open(&path, Access::Read))).await;
        match opened.map_err(|error| LedgerError::Storage(error.to_string()))? {
            // It may have been removed since the check.
            None | Some(Err(LedgerError::NoStore(_))) => Ok(None),
            Some(opened) => Ok(Some((opened?, shown))),
        }
    }

    /// Rejects a campaign that the store has, in any state. Rehearsals are ignored: they have sent nothing.
    ///
    /// # Errors
    ///
    /// [`LedgerError::InStore`], and if the store cannot be read, because its campaigns are unknown then.
    pub async fn refuse(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let Some((store, path)) = self.open().await? else { return Ok(()) };
        match store.campaign(id).await? {
            Some(known) if !known.rehearsal => Err(LedgerError::InStore { id: id.clone(), store: path }),
            _ => Ok(()),
        }
    }

    /// Returns the store's path and its campaigns that have not ended, without rehearsals.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
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
