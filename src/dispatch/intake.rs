//! Intake: checks a job's form, audience and templates, then registers it. It never sends.

use std::{sync::Arc, time::SystemTime};

use uuid::Uuid;

use crate::audience::{self, Audience, AudienceError, Audiences, Encoding, Scan, Settings, Source};
use crate::campaign::{CampaignId, Columns, Job, Problem, Template, job::AudienceSource};
use crate::ledger::{AuditEntry, Campaign, Ledger, LedgerError, NewCampaign, UnmovedStore};
use crate::limiter::batch_size;
use crate::traces::TraceHandle;

use super::Account;

/// A job that can be sent.
pub struct LoadedJob {
    /// The job.
    pub job: Job,
    /// The audience's source.
    pub source: Source,
    /// The settings for reading the audience.
    pub settings: Settings,
    /// The audience's columns.
    pub columns: Columns,
    /// The column with the phone numbers.
    pub phone_column: String,
    /// Other columns that look like phone columns, if the job names none.
    pub other_phone_columns: Vec<String>,
    /// The result of reading the audience once.
    pub scan: Scan,
    /// The compiled message.
    pub template: Template,
    /// Number of messages in a full batch, by the current limits.
    pub batch_size: usize,
    /// When the check of the job began.
    pub begun: SystemTime,
}

/// Maximum number of recipients of a draft flow.
const DRAFT: u64 = 10;

/// The reason why a job is refused. Nothing of it was sent.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Problems in the job.
    #[error("{}", lines(.0, ToString::to_string))]
    Problems(Vec<Problem>),
    /// An error in the audience.
    #[error(transparent)]
    Audience(#[from] AudienceError),
}

/// Size limit of the problems shown together, in bytes, without the last one.
const MAX_PROBLEM_BYTES: usize = 1_536;

/// Returns problems as lines: as many as fit in [`MAX_PROBLEM_BYTES`], and the last one, which counts those that are not listed.
fn lines(problems: &[Problem], line: impl Fn(&Problem) -> String) -> String {
    let mut lines: Vec<String> = problems.iter().map(line).collect();
    let last = lines.len().saturating_sub(1);
    let mut bytes = 0;
    let fit = lines.iter().take_while(|line| {
        bytes += line.len();
        bytes <= MAX_PROBLEM_BYTES
    });
    let fit = fit.count().max(1);
    if fit < last {
        lines.splice(fit..last, ["…".to_owned()]);
    }
    lines.join("\n")
}

/// Checks a job against its audience and its account. Reads the whole audience once.
///
/// # Errors
///
/// Returns the reason why the job cannot be sent.
pub fn prepare(job: Job, audiences: &Audiences, account: &Account) -> Result<LoadedJob, Refusal> {
    let begun = SystemTime::now();
    let (source, settings, scan) = scan_audience(&job, audiences)?;
    let opened = Audience::open(&source, &settings)?;
    let (columns, phone_column) = (opened.columns().clone(), opened.phone_column().to_owned());
    let is_found = settings.phone.is_none() && !opened.has_json_values();
    let others = opened.phone_columns().filter(|name| is_found && **name != phone_column);
    let other_phone_columns = others.map(str::to_owned).collect();
    let template = template(&job, &columns, account).map_err(Refusal::Problems)?;
    let mode = "/interactive/action/parameters/mode";
    if job.message.pointer(mode).is_some_and(|mode| mode == "draft") && scan.rows > DRAFT {
        let error = format!(
            "a draft flow is only for tests (the provider's documentation), and this audience has {} rows; \
             publish the flow, or send it to at most {DRAFT} recipients",
            scan.rows
        );
        return Err(Refusal::Problems(vec![Problem::new(format!("/message{mode}"), error)]));
    }
    let batch_size = batch_size(job.limits.messages, account.limits.rates());
    Ok(LoadedJob {
        job,
        source,
        settings,
        columns,
        phone_column,
        other_phone_columns,
        scan,
        template,
        batch_size,
        begun,
    })
}

/// Finds a job's audience and reads it once. Returns also the settings for reading it.
///
/// # Errors
///
/// Returns an error if the audience is missing, not permitted or invalid.
pub fn scan_audience(job: &Job, audiences: &Audiences) -> Result<(Source, Settings, Scan), AudienceError> {
    let columns = audiences.columns();
    let (source, mut settings) = match &job.audience {
        AudienceSource::Recipients(list) => {
            (Source::List(list.clone()), Settings { columns, ..Settings::default() })
        }
        AudienceSource::Csv(csv) => {
            let settings = Settings {
                phone: csv.phone.clone(),
                delimiter: csv.delimiter.and_then(|delimiter| u8::try_from(delimiter).ok()),
                encoding: csv.encoding.as_deref().and_then(Encoding::named),
                default_region: csv.default_region.clone(),
                sheet: csv.sheet.clone(),
                hidden_rows: csv.hidden_rows,
                columns,
            };
            (audiences.find(csv)?, settings)
        }
    };
    let scan = audience::scan(&source, &settings)?;
    settings.encoding = Some(scan.encoding);
    Ok((source, settings, scan))
}

/// Compiles a job's message for its account's provider.
pub(super) fn template(job: &Job, columns: &Columns, account: &Account) -> Result<Template, Vec<Problem>> {
    let mut ambiguous = Template::ambiguous(&job.message, "/message", columns);
    if let Some(custom_data) = &job.custom_data {
        ambiguous.extend(Template::ambiguous(&custom_data.as_str().into(), "/custom_data", columns));
    }
    if !ambiguous.is_empty() {
        return Err(ambiguous);
    }
    let envelope = account.provider.envelope(job, account.callbacks.is_some())?;
    let callbacks = account.callbacks.clone();
    Template::compile(&envelope, &job.limits_of_strings, job.check_rendered, columns, callbacks)
}

impl Refusal {
    /// Returns the reason without places, a line for each problem. [`Refusal::pointer`] is the first one's place.
    pub fn to_text(&self) -> String {
        match self {
            Self::Problems(problems) => lines(problems, Problem::to_text),
            Self::Audience(error) => error.to_string(),
        }
    }

    /// Returns the place of the first problem in the job.
    pub fn pointer(&self) -> &str {
        match self {
            Self::Problems(problems) => problems.first().map_or("", |problem| &problem.pointer),
            Self::Audience(error) => error.pointer(),
        }
    }
}

/// Registers a job, or finds its existing campaign. Returns also whether the campaign is new.
///
/// `again` is whether a job without an id may have been delivered before; `by` is the name for the audit log. A campaign of
/// the `unmoved` store is not started again.
///
/// # Errors
///
/// Returns an error if the id belongs to another job or to a campaign of the unmoved store, or if the ledger fails.
pub async fn register(
    ledger: &impl Ledger,
    prepared: &Arc<LoadedJob>,
    rehearsal: bool,
    again: bool,
    by: &str,
    unmoved: &UnmovedStore,
) -> Result<(Campaign, bool), LedgerError> {
    let job = &prepared.job;
    let given = || Uuid::now_v7().to_string().parse::<CampaignId>();
    let id = match &job.id {
        Some(id) => id.clone(),
        None => given().map_err(|error| LedgerError::Storage(error.to_string()))?,
    };
    if !rehearsal
        && let Err(error) = unmoved.refuse(&id).await
        && ledger.campaign(&id).await?.is_none()
    {
        return Err(error);
    }
    // The stored job always has an id, even if it was generated.
    let mut document = job.document.clone();
    document["id"] = id.as_str().into();
    let new = NewCampaign {
        id,
        named: job.id.is_some(),
        name: job.name.clone(),
        again,
        account: job.account.clone(),
        fingerprint: job.fingerprint(),
        job: document.to_string(),
        columns: prepared.columns.names().to_vec(),
        audience: prepared.scan.digest.clone(),
        rows: prepared.scan.rows,
        batch_size: prepared.batch_size,
        rehearsal,
        created_by: by.into(),
    };
    let (campaign, is_new) = ledger.register(new).await?;
    if is_new {
        let note = prepared.scan.encoding.note().map(|note| format!(" ({note})")).unwrap_or_default();
        let detail = format!("submitted the campaign{note}");
        ledger.log(AuditEntry::new(by, "submit", Some(&campaign.id), &detail)).await?;
        TraceHandle::for_campaign(&campaign.id, campaign.submitted_at).job(
            prepared.begun,
            &job.account,
            campaign.rows,
        );
    }
    Ok((campaign, is_new))
}
