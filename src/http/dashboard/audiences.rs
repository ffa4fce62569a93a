//! The uploaded audiences: their rows and columns, who uploaded them, and what uses them. A file that a draft or an active
//! campaign needs is never deleted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use axum::extract::State;
use axum::response::{Html, IntoResponse, Redirect, Response};
use minijinja::{Value, context};
use parking_lot::Mutex;
use serde::Deserialize;

use super::super::access::Caller;
use super::super::api::audiences::{AudienceFile, all, delete as delete_file};
use super::super::api::extract::Params;
use super::super::problem::Problem;
use super::Dashboard;
use super::captions;
use super::extract::Fields;
use super::log::just_done;
use super::new::draft_paths;
use super::render::{Viewer, page_of};
use crate::audience::{self, Root, Settings};
use crate::campaign::CampaignId;
use crate::ledger::listing;
use crate::ledger::{Audit, Campaign, CampaignFilter, Campaigns};

/// Maximum number of files in the list.
const PAGE_SIZE: usize = 100;
/// Number of recent campaigns that are searched for uses of a file. The job of each is read, and may be long.
const CAMPAIGNS: usize = 100;
/// Number of audit entries that are searched for the upload of a file.
const ENTRIES: usize = 500;
/// Size up to which a file is read for its rows and columns, in bytes.
const LOOKED_INTO: u64 = 32 << 20;
/// Maximum number of files in the cache.
const CACHE_SIZE: usize = 1_000;
/// Maximum number of columns, and of campaigns, that a row names.
const MAX_NAMES: usize = 5;

/// Cache of the rows and columns of files, by path, size and upload time.
#[derive(Default)]
pub(super) struct KnownAudiences(Mutex<HashMap<(String, u64, i64), Looked>>);

/// Number of rows, and the columns, of a file that can be read.
type Looked = Option<(u64, Vec<String>)>;

impl KnownAudiences {
    async fn for_file(&self, dashboard: &Dashboard, file: &AudienceFile) -> Result<Looked, Problem> {
        let context = &dashboard.api.backing()?.context;
        // A file in a bucket would have to be downloaded.
        if file.bytes > LOOKED_INTO || context.audiences.root().and_then(Root::as_folder).is_none() {
            return Ok(None);
        }
        let key = (file.path.clone(), file.bytes, file.uploaded_at.as_millisecond());
        if let Some(known) = self.0.lock().get(&key) {
            return Ok(known.clone());
        }
        let (audiences, path) = (context.audiences.clone(), file.path.clone());
        let scanned = tokio::task::spawn_blocking(move || {
            let source = audiences.find_path(&path).ok()?;
            audience::scan(&source, &Settings::default()).ok().map(|scan| (scan.rows, scan.columns))
        });
        let looked = scanned.await.map_err(|error| Problem::away(error.to_string()))?;
        let mut known = self.0.lock();
        if known.len() >= CACHE_SIZE {
            known.clear();
        }
        known.insert(key, looked.clone());
        Ok(looked)
    }
}

#[derive(Default, Deserialize)]
pub(super) struct ListParams {
    /// Path of the file that the person wants to delete.
    delete: Option<String>,
    /// Present if a file was just deleted.
    deleted: Option<String>,
}

pub(super) async fn list(
    State(dashboard): State<Dashboard>,
    who: Caller,
    look: Viewer,
    Params(asked): Params<ListParams>,
) -> Result<Html<String>, Problem> {
    let files = match all(&dashboard.api).await {
        Ok(files) => files,
        Err(problem) if problem.status().is_client_error() => {
            return Ok(page_of(
                &look,
                Some(&who),
                "audiences.html",
                "Audiences",
                context! { is_off => true },
            ));
        }
        Err(problem) => return Err(problem),
    };
    let uses = uses(&dashboard, false).await?;
    let page = dashboard.api.ledger()?.acts(None, None, ENTRIES).await?;
    let mut rows = Vec::new();
    for file in files.iter().take(PAGE_SIZE) {
        let looked = dashboard.audiences.for_file(&dashboard, file).await?;
        let by = page.acts.iter().find(|act| act.what == "upload" && act.file.as_ref() == Some(&file.path));
        let used = uses.get(&file.path);
        let campaigns: Vec<Value> = used
            .iter()
            .flat_map(|uses| uses.campaigns.iter().take(MAX_NAMES))
            .map(|campaign| context! { id => campaign.id.as_str(), name => captions::name(campaign) })
            .collect();
        let columns =
            looked.as_ref().map(|(_, columns)| columns.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>());
        rows.push(context! {
            path => file.path.clone(),
            bytes => file.bytes,
            at => file.uploaded_at.to_string(),
            by => by.map(|act| captions::without_markup(&act.who)),
            rows => looked.as_ref().map(|(rows, _)| *rows),
            more_columns => looked.as_ref().map_or(0, |(_, columns)| columns.len().saturating_sub(MAX_NAMES)),
            columns => columns.unwrap_or_default(),
            more_campaigns => used.map_or(0, |uses| uses.campaigns.len().saturating_sub(MAX_NAMES)),
            campaigns,
            drafts => used.map_or(0, |uses| uses.drafts),
            is_needed => used.is_some_and(Uses::need_it),
        });
    }
    let own = context! {
        is_off => false,
        rows,
        more => files.len().saturating_sub(PAGE_SIZE),
        deletes => asked.delete.filter(|path| files.iter().any(|file| file.path == *path)),
        did => asked.deleted.and_then(|_| just_done(&page.acts, &who, &["delete"])),
    };
    Ok(page_of(&look, Some(&who), "audiences.html", "Audiences", own))
}

/// The campaigns and drafts that use a file.
#[derive(Default)]
struct Uses {
    campaigns: Vec<Campaign>,
    drafts: usize,
}

impl Uses {
    /// Returns whether the file will still be read.
    fn need_it(&self) -> bool {
        self.drafts > 0 || self.campaigns.iter().any(|campaign| !campaign.state.is_over())
    }
}

/// Returns the uses of each file by drafts and recent campaigns.
///
/// `with_all_active` adds all campaigns that have not ended.
async fn uses(dashboard: &Dashboard, with_all_active: bool) -> Result<BTreeMap<String, Uses>, Problem> {
    let ledger = dashboard.api.ledger()?;
    let mut campaigns = listing::page(ledger, &CampaignFilter::default(), None, CAMPAIGNS).await?.campaigns;
    if with_all_active {
        let known: BTreeSet<CampaignId> = campaigns.iter().map(|campaign| campaign.id.clone()).collect();
        let active = listing::read_each(ledger, ledger.changes(0).await?.ids).await?;
        campaigns.extend(active.into_iter().filter(|campaign| !known.contains(&campaign.id)));
    }
    let mut uses: BTreeMap<String, Uses> = BTreeMap::new();
    for campaign in campaigns {
        if let Some(path) = &dashboard.facts.for_campaign(ledger, &campaign.id).await?.file {
            uses.entry(path.clone()).or_default().campaigns.push(campaign);
        }
    }
    for path in draft_paths(dashboard).await? {
        uses.entry(path).or_default().drafts += 1;
    }
    Ok(uses)
}

/// Deletes a file that is no longer needed.
pub(super) async fn delete(
    State(dashboard): State<Dashboard>,
    who: Caller,
    fields: Fields,
) -> Result<Response, Problem> {
    let path = fields.get("path");
    if uses(&dashboard, true).await?.get(path).is_some_and(Uses::need_it) {
        let detail = "a draft or a campaign that has not ended still needs this file";
        return Err(Problem::new(axum::http::StatusCode::CONFLICT, detail));
    }
    delete_file(&dashboard.api, &who, path).await?;
    Ok(Redirect::to("/audiences?deleted=yes").into_response())
}
