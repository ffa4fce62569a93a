//! Notices in memory.

use super::Memory;
use crate::campaign::notice::{KeptNotice, Notice, NoticeSubject};
use crate::ledger::{Clock, LedgerError, Notices, StoredNotice};

impl Notices for Memory {
    async fn store_notice(&self, account: &str, notice: &Notice) -> Result<(), LedgerError> {
        let stored = StoredNotice { notice: KeptNotice::Notice(notice.clone()), since: self.time() };
        let mut state = self.state.lock();
        let known = state.notices.entry((account.into(), notice.about.code()));
        let known = known.or_insert_with(|| stored.clone());
        if !known.is(notice) {
            *known = stored;
        }
        Ok(())
    }

    async fn clear_notice(&self, account: &str, about: &NoticeSubject) -> Result<(), LedgerError> {
        self.state.lock().notices.remove(&(account.into(), about.code()));
        Ok(())
    }

    async fn notice(
        &self,
        account: &str,
        about: &NoticeSubject,
    ) -> Result<Option<StoredNotice>, LedgerError> {
        Ok(self.state.lock().notices.get(&(account.into(), about.code())).cloned())
    }
}
