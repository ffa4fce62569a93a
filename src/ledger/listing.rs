//! Lists of campaigns: filtered, and page by page. It only reads.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Campaign, Campaigns, Ledger, LedgerError};
use crate::campaign::{CampaignId, CampaignState, Reason};

/// Maximum number of campaigns read concurrently.
const READ: usize = 64;

/// Minimum number of campaigns read to find those that pass a filter.
const READ_AHEAD: usize = 64;

/// A filter of campaigns.
#[derive(Clone, Debug, Default)]
pub struct CampaignFilter {
    /// Those in this state.
    pub state: Option<CampaignState>,
    /// Those whose id or name contains this text, in any case.
    pub text: Option<String>,
    /// Those of this account.
    pub account: Option<String>,
    /// Only tests, or only other campaigns.
    pub tests: Option<bool>,
}

impl CampaignFilter {
    fn lets_through(&self, campaign: &Campaign) -> bool {
        let has = |text: &str| {
            let wanted = text.to_lowercase();
            let name = campaign.name.as_deref().unwrap_or_default().to_lowercase();
            name.contains(&wanted) || campaign.id.as_str().to_lowercase().contains(&wanted)
        };
        self.state.is_none_or(|state| campaign.state == state)
            && self.tests.is_none_or(|tests| campaign.id.is_test() == tests)
            && self.account.as_ref().is_none_or(|account| campaign.account == *account)
            && self.text.as_deref().is_none_or(has)
    }
}

/// A page of campaigns, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CampaignPage {
    /// The campaigns.
    pub campaigns: Vec<Campaign>,
    /// Cursor of the next page, `None` at the end.
    pub next: Option<String>,
}

/// Returns all campaigns, newest first.
pub async fn all<L: Campaigns>(ledger: &L) -> Result<Vec<Campaign>, LedgerError> {
    read_each(ledger, ledger.ids_before(None, usize::MAX).await?).await
}

/// Reads campaigns, without those that were removed.
pub async fn read_each<L: Campaigns>(ledger: &L, ids: Vec<CampaignId>) -> Result<Vec<Campaign>, LedgerError> {
    let each = stream::iter(ids).map(|id| async move { ledger.campaign(&id).await }).buffered(READ);
    each.try_filter_map(|campaign| async move { Ok(campaign) }).try_collect().await
}

/// Returns a page of the campaigns that pass a filter, newest first.
///
/// `from` is the cursor of the page before. Campaigns that are registered between two pages do not change the second one.
///
/// # Errors
///
/// If `from` is not a cursor.
pub async fn page<L: Campaigns>(
    ledger: &L,
    filter: &CampaignFilter,
    from: Option<&str>,
    limit: usize,
) -> Result<CampaignPage, LedgerError> {
    let mut before = from.map(|place| read_place(place).ok_or(LedgerError::NoPlace)).transpose()?;
    if filter.state.is_some_and(|state| !state.is_over()) {
        // Active campaigns are few, however many have ended.
        let mut found = read_each(ledger, ledger.changes(0).await?.ids).await?;
        found.retain(|campaign| filter.lets_through(campaign));
        return Ok(page_of(found, before.as_ref(), limit));
    }
    let mut page = CampaignPage::default();
    loop {
        let ids = ledger.ids_before(before.as_ref(), READ_AHEAD.max(limit + 1)).await?;
        let Some(last) = ids.last().cloned() else { return Ok(page) };
        for campaign in read_each(ledger, ids).await? {
            let place = (campaign.id.clone(), campaign.submitted_at.as_millisecond());
            if filter.lets_through(&campaign) {
                if page.campaigns.len() == limit {
                    page.next = before.map(|(id, at)| format!("{at}.{id}"));
                    return Ok(page);
                }
                page.campaigns.push(campaign);
            }
            before = Some(place);
        }
        // The last id may be that of a campaign that was removed.
        let at = before.map_or_else(|| ledger.now(), |(_, at)| at);
        before = Some((last, at));
    }
}

/// Returns a page of unsorted campaigns, after a cursor.
fn page_of(mut found: Vec<Campaign>, behind: Option<&(CampaignId, i64)>, limit: usize) -> CampaignPage {
    let place = |campaign: &Campaign| (campaign.submitted_at.as_millisecond(), campaign.id.clone());
    if let Some((id, at)) = behind {
        found.retain(|campaign| place(campaign) < (*at, id.clone()));
    }
    found.sort_by_cached_key(|campaign| std::cmp::Reverse(place(campaign)));
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| more).map(place);
    CampaignPage { campaigns: found, next: last.map(|(at, id)| format!("{at}.{id}")) }
}

/// Reads a cursor: the last campaign of the page before, and when it was registered.
fn read_place(place: &str) -> Option<(CampaignId, i64)> {
    let (at, id) = place.split_once('.')?;
    Some((id.parse().ok()?, at.parse().ok()?))
}

/// Reads a campaign for display.
///
/// If the ledger rejects writes, the campaign's reason cannot be stored: it is set here.
pub async fn look_at<L: Ledger>(ledger: &L, id: &CampaignId) -> Result<Option<Campaign>, LedgerError> {
    let Some(mut campaign) = ledger.campaign(id).await? else { return Ok(None) };
    if !campaign.state.is_over()
        && let Some(error) = ledger.write_error(id).await?
    {
        campaign.reason = Some(Reason::Backend { detail: error });
    }
    Ok(Some(campaign))
}
