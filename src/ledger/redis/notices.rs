//! Notices in Redis: a hash for each account, by subject. It shares the hash tag of the account's breakers.
//!
//! Earlier versions stored a notice as the breaker of a Flow with an impossible name. Such a breaker is read as the notice
//! until a notice of the same subject is stored or removed; then it is removed, too.

use serde::{Deserialize, Serialize};

use super::Redis;
use super::layout::{breaker_key, notices_key};
use crate::campaign::notice::{KeptNotice, Notice, NoticeSubject};
use crate::ledger::{Breaker, Clock, LedgerError, Notices, StoredNotice};

/// The stored form of a notice.
#[derive(Serialize, Deserialize)]
struct Written {
    /// Missing if the detail is the text that an earlier version stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    detail: String,
    /// Time, in milliseconds since 1970.
    since: i64,
}

impl Notices for Redis {
    async fn store_notice(&self, account: &str, notice: &Notice) -> Result<(), LedgerError> {
        let known = self.notice(account, &notice.about).await?.filter(|known| known.is(notice));
        let since = known.map_or_else(|| self.time(), |known| known.since);
        let written = write(&StoredNotice { notice: KeptNotice::Notice(notice.clone()), since })?;
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("HSET").arg(notices_key(account)).arg(notice.about.code()).arg(written).ignore();
        pipe.cmd("DEL").arg(earlier_key(account, &notice.about)).ignore();
        Ok(self.client.pipeline(&pipe).await?)
    }

    async fn clear_notice(&self, account: &str, about: &NoticeSubject) -> Result<(), LedgerError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("HDEL").arg(notices_key(account)).arg(about.code()).ignore();
        pipe.cmd("DEL").arg(earlier_key(account, about)).ignore();
        Ok(self.client.pipeline(&pipe).await?)
    }

    async fn notice(
        &self,
        account: &str,
        about: &NoticeSubject,
    ) -> Result<Option<StoredNotice>, LedgerError> {
        let mut pipe = redis::pipe();
        pipe.cmd("HGET").arg(notices_key(account)).arg(about.code());
        pipe.cmd("HMGET").arg(earlier_key(account, about)).arg(&["reason", "since"]);
        let (written, earlier): (Option<String>, (Option<String>, Option<String>)) =
            self.client.pipeline(&pipe).await?;
        // If both exist, a worker of an earlier version wrote its own later.
        if let (Some(text), Some(since)) = earlier {
            let since = since.parse().ok().and_then(|since| jiff::Timestamp::from_microsecond(since).ok());
            let since = since.unwrap_or_default();
            return Ok(Some(StoredNotice { notice: KeptNotice::Text(text), since }));
        }
        let written = written.and_then(|json| serde_json::from_str::<Written>(&json).ok());
        Ok(written.map(|written| StoredNotice {
            notice: KeptNotice::from_parts(about, written.event, written.detail),
            since: jiff::Timestamp::from_millisecond(written.since).unwrap_or_default(),
        }))
    }
}

impl Redis {
    /// Stores a notice of a moved store, unless the fleet has one.
    pub(in crate::ledger) async fn keep_notice(
        &self,
        account: &str,
        about: &NoticeSubject,
        stored: &StoredNotice,
    ) -> Result<(), LedgerError> {
        let notice = (notices_key(account), about.code(), write(stored)?);
        Ok(self.client.command(redis::cmd("HSETNX").arg(notice)).await?)
    }
}

fn write(stored: &StoredNotice) -> Result<String, LedgerError> {
    let (event, detail) = stored.notice.parts();
    let since = stored.since.as_millisecond();
    let written = Written { event: event.map(str::to_owned), detail: detail.to_owned(), since };
    serde_json::to_string(&written)
        .map_err(|error| LedgerError::Storage(format!("cannot save a notice: {error}")))
}

/// Returns the key of the breaker in which earlier versions stored a notice.
fn earlier_key(account: &str, about: &NoticeSubject) -> String {
    breaker_key(&Breaker::flow(account, format!("(notice) {}", about.code())))
}
