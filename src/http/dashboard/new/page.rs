//! The page of a draft's step: the one place that reads the draft of a request and renders its pages.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::response::{Html, Redirect};
use minijinja::{Value as Shown, context};

use super::super::super::access::Caller;
use super::super::super::problem::Problem;
use super::super::Dashboard;
use super::super::extract::Fields;
use super::super::render::{Viewer, page_of};
use super::draft::CampaignDraft;

/// The steps of a draft in their order: the last part of the address, and the title.
const STEPS: [(&str, &str); 6] = [
    ("audience", "Audience"),
    ("message", "Message"),
    ("when", "Schedule"),
    ("check", "Review"),
    ("test", "Test"),
    ("send", "Send"),
];

/// A request for a step of a draft.
pub(super) struct DraftPage {
    pub(super) dashboard: Dashboard,
    pub(super) who: Caller,
    pub(super) look: Viewer,
    pub(super) draft: CampaignDraft,
}

impl FromRequestParts<Dashboard> for DraftPage {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Dashboard) -> Result<Self, Problem> {
        let who = Caller::from_request_parts(parts, dashboard).await?;
        let look = Viewer::from_request_parts(parts, dashboard).await?;
        let id = Path::<String>::from_request_parts(parts, dashboard).await;
        let Path(id) = id.map_err(|error| Problem::new(error.status(), "check the address"))?;
        let draft = CampaignDraft::find(dashboard, &id).await?;
        Ok(Self { dashboard: dashboard.clone(), who, look, draft })
    }
}

impl DraftPage {
    /// Renders a step. Every step shows the draft's name and links to the other steps.
    pub(super) fn render(&self, step: &str, template: &str, own: Shown) -> Html<String> {
        let here = STEPS.iter().position(|(name, _)| *name == step).unwrap_or_default();
        let steps = STEPS.iter().enumerate().map(|(nth, (name, title))| {
            context! { name => *name, title => *title, is_here => nth == here, is_done => nth < here }
        });
        let title = format!("{}: {}", self.draft.name(), STEPS[here].1);
        let frame = context! {
            draft => self.draft.id.clone(),
            name => self.draft.name(),
            step => STEPS[here].1,
            nth => here + 1,
            steps => steps.collect::<Vec<_>>(),
        };
        page_of(&self.look, Some(&self.who), template, &title, context! { ..own, ..frame })
    }

    /// Stores the draft as it is now.
    pub(super) async fn keep(&mut self) -> Result<(), Problem> {
        self.draft.keep(&self.dashboard, &self.who).await
    }

    /// Redirects to a step of this draft.
    pub(super) fn redirect(&self, step: &str) -> Redirect {
        address(&self.draft, step)
    }
}

/// Redirects to a step of a draft.
pub(super) fn address(draft: &CampaignDraft, step: &str) -> Redirect {
    Redirect::to(&format!("/new/{}/{step}", draft.id))
}

/// Returns the step whose link was clicked, if a form was left that way.
pub(super) fn left_for(fields: &Fields) -> Option<&'static str> {
    let wanted = fields.get("do").strip_prefix("go:")?;
    STEPS.iter().map(|(name, _)| *name).find(|name| *name == wanted)
}

/// Returns the errors of a page for its template, each with its field.
pub(super) fn errors<'e>(each: impl IntoIterator<Item = (&'e str, &'e str)>) -> Shown {
    let each = each.into_iter().map(|(field, detail)| context! { field, detail });
    Shown::from(each.collect::<Vec<_>>())
}
