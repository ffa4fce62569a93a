//! Reads a draft's audience from end to end and stores in the draft what its pages show: counts, skipped rows, sample rows.
//! Never changes the file.

use serde_json::{Map, Value, json};

use super::super::super::api::campaigns::{suppression, with_prepared};
use super::super::super::problem::Problem;
use super::super::Dashboard;
use super::super::captions::as_sentence;
use super::super::skipped::SkippedExample;
use super::draft::{CampaignDraft, Suggestion};
use crate::audience::{self, Audience, Encoding, Line, Settings};
use crate::campaign::{Columns, Job};
use crate::dispatch::LoadedJob;
use crate::views::check::{Checked, Note, check};

/// Number of sample rows.
const SAMPLE: usize = 5;

/// Why nothing can be sent to an audience.
pub(super) enum Wrong {
    /// No column has the name of a phone column, and none was chosen.
    NoPhoneColumn,
    /// Any other reason, as the page shows it.
    Other(String),
}

impl Wrong {
    /// Returns the reason as the page shows it.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::NoPhoneColumn => "We couldn’t find the phone column. Choose it below.",
            Self::Other(text) => text,
        }
    }
}

/// A sample row: its values by column, and the recipient's number as `phone`.
type SampleRow = Map<String, Value>;

/// Reads a draft's audience from end to end.
///
/// Returns why nothing can be sent to it, if so.
pub(super) async fn inspect(
    dashboard: &Dashboard,
    draft: &mut CampaignDraft,
) -> Result<Option<Wrong>, Problem> {
    draft.is_read = false;
    if let Some(wrong) = find_columns(dashboard, draft).await? {
        return Ok(Some(wrong));
    }
    let Some((account, _)) = dashboard.api.backing()?.context.accounts.usable().into_iter().next() else {
        return Ok(Some(Wrong::Other("No account is available. See Accounts.".into())));
    };
    // The message may not be written yet, and any message shows which rows have recipients.
    let job = json!({ "version": 1, "account": account, "from": "+10000000000", "audience": draft.job["audience"],
        "message": { "type": "text", "text": { "body": "x" } } });
    let job = match Job::read(job.to_string().as_bytes()) {
        Ok(job) => job,
        Err(problems) => {
            let first = problems.first();
            return Ok(first.map(|problem| Wrong::Other(as_sentence(&problem.message))));
        }
    };
    let is_suppressed = suppression(&dashboard.api).await?;
    let read = with_prepared(&dashboard.api, job, move |prepared, account| {
        let checked = check(&prepared, account, &is_suppressed, 0)?;
        Ok((checked, first_rows(&prepared)?))
    });
    match read.await {
        Ok((checked, sample)) => {
            record(draft, checked, sample);
            Ok(None)
        }
        Err(problem) if problem.status().is_client_error() => {
            let first = problem.errors().next().map(|(_, detail)| detail.to_owned());
            let text = first.unwrap_or_else(|| problem.to_text().into_owned());
            Ok(Some(Wrong::Other(as_sentence(&text))))
        }
        Err(problem) => Err(problem),
    }
}

/// Reads a new draft's audience.
///
/// If no number can be read, and more than half of them only lack the `+` and belong to one country, that country becomes the
/// default country, and the page says so.
pub(super) async fn inspect_new(dashboard: &Dashboard, draft: &mut CampaignDraft) -> Result<(), Problem> {
    // The audience page inspects again and shows what is wrong.
    let _ = inspect(dashboard, draft).await?;
    let certain = draft.suggestion.as_ref().filter(|suggestion| suggestion.is_certain && draft.people == 0);
    if let Some(region) = certain.map(|suggestion| suggestion.region.clone()) {
        draft.job["audience"]["csv"]["default_region"] = region.into();
        draft.is_assumed = true;
        let _ = inspect(dashboard, draft).await?;
    }
    Ok(())
}

/// Reads the columns, unless they are known, and looks for the phone column.
async fn find_columns(dashboard: &Dashboard, draft: &mut CampaignDraft) -> Result<Option<Wrong>, Problem> {
    let context = &dashboard.api.backing()?.context;
    let path = draft.text("/audience/csv/path").to_owned();
    let named = |pointer: &str| Some(draft.text(pointer).to_owned()).filter(|text| !text.is_empty());
    let settings = Settings {
        encoding: named("/audience/csv/encoding").as_deref().and_then(Encoding::named),
        sheet: named("/audience/csv/sheet"),
        ..Settings::default()
    };
    if draft.columns.is_empty() && context.audiences.root().is_some() {
        let audiences = context.audiences.clone();
        let scanned =
            tokio::task::spawn_blocking(move || audience::scan(&audiences.find_path(&path)?, &settings));
        match scanned.await.map_err(|error| Problem::away(error.to_string()))? {
            Ok(scan) => (draft.columns, draft.rows) = (scan.columns, scan.rows),
            Err(error) if error.is_outside_failure() => return Err(Problem::away(error.to_string())),
            Err(error) => return Ok(Some(Wrong::Other(as_sentence(&error.to_string())))),
        }
    }
    let is_named = !draft.text("/audience/csv/phone").is_empty();
    let is_found =
        draft.columns.is_empty() || audience::has_phone_column(&Columns::new(draft.columns.clone()));
    Ok((!is_named && !is_found).then_some(Wrong::NoPhoneColumn))
}

/// Reads the first rows that have a recipient.
fn first_rows(prepared: &LoadedJob) -> Result<Vec<SampleRow>, Problem> {
    let mut audience = Audience::open(&prepared.source, &prepared.settings)
        .map_err(|error| Problem::away(error.to_string()))?;
    let names = audience.columns().names().to_vec();
    let mut sample = Vec::new();
    while sample.len() < SAMPLE {
        match audience.next_line().map_err(|error| Problem::away(error.to_string()))? {
            None => break,
            Some(Line::Skipped { .. }) => {}
            Some(Line::Recipient(row)) => {
                let values =
                    names.iter().enumerate().map(|(nth, name)| (name.clone(), row.shown(nth).into()));
                let mut values: SampleRow = values.collect();
                values.insert("phone".into(), row.phone.to_string().into());
                sample.push(values);
            }
        }
    }
    Ok(sample)
}

/// Stores the findings of a check in the draft.
fn record(draft: &mut CampaignDraft, checked: Checked, sample: Vec<SampleRow>) {
    draft.rows = checked.rows;
    draft.people = checked.recipients;
    draft.phone_column = checked.phone_column;
    draft.skipped = checked.skipped.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
    draft.skipped_examples = checked.problems.iter().map(SkippedExample::from).collect();
    (draft.notes, draft.suggestion) = (Vec::new(), None);
    for note in checked.notes {
        match note {
            Note::Audience(note) => draft.notes.push(note),
            Note::Region { region, valid, tried, is_certain, .. } => {
                draft.suggestion = Some(Suggestion { region, valid, tried, is_certain });
            }
        }
    }
    draft.sample = sample;
    draft.is_read = true;
}
