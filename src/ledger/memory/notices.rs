//! Notices in memory.

use super::Memory;
use crate::campaign::notice::{KeptNotice, Notice, Noticed};
use crate::ledger::{LedgerError, Notices, Store, StoredNotice};

impl Notices for Memory {
    async fn store_notice(&self, account: &str, notice: &Notice) -> Result<(), LedgerError> {
        let stored = StoredNotice { notice: KeptNotice::Notice(notice.clone()), since: self.time() };
        let mut state = self.state();
        let known = state.notices.entry((account.into(), notice.about.word()));
        let known = known.or_insert_with(|| stored.clone());
        if !known.is(notice) {
            *known = stored;
        }
        Ok(())
    }

    async fn clear_notice(&self, account: &str, about: &Noticed) -> Result<(), LedgerError> {
        self.state().notices.remove(&(account.into(), about.word()));
        Ok(())
    }

    async fn notice(&self, account: &str, about: &Noticed) -> Result<Option<StoredNotice>, LedgerError> {
        Ok(self.state().notices.get(&(account.into(), about.word())).cloned())
    }
}
