//! Intake: checks all of a job — its form, its audience, its templates — and registers it.

use std::sync::Arc;
use std::time::SystemTime;

use uuid::Uuid;

use crate::audience::{self, Audience, AudienceError, Audiences, Encoding, Scan, Settings, Source};
use crate::campaign::job::AudienceSource;
use crate::campaign::{CampaignId, Columns, Job, Problem, Template, counted};
use crate::ledger::{Act, Campaign, Ledger, LedgerError, NewCampaign, UnmovedStore};
use crate::limiter::batch_size;
use crate::traces::Trace;

use super::Account;

/// A job that can be sent.
pub struct Prepared {
    /// The job.
    pub job: Job,
    /// Its audience.
    pub source: Source,
    /// How the audience is read.
    pub settings: Settings,
    /// Its columns.
    pub columns: Columns,
    /// The column that the numbers are taken from.
    pub phone_column: String,
    /// Others that are called as columns of numbers are, where the job names none.
    pub other_phone_columns: Vec<String>,
    /// What one pass over it told.
    pub scan: Scan,
    /// Its messages.
    pub template: Template,
    /// How many messages a full batch would have with today's limits.
    pub batch_size: usize,
    /// When its check began.
    pub begun: SystemTime,
}

/// How many people a draft of a flow may go to.
const DRAFT: u64 = 10;

/// Why a job is refused. Nothing of it was sent.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Something in the job.
    #[error("{}", lines(.0, ToString::to_string))]
    Problems(Vec<Problem>),
    /// Something in its audience.
    #[error(transparent)]
    Audience(#[from] AudienceError),
}

/// The most bytes of problems that are shown together, but for the last.
const LONGEST: usize = 1_536;

/// The problems, a line each: as many as are read with ease, and the last, which counts those that are not listed.
fn lines(problems: &[Problem], line: impl Fn(&Problem) -> String) -> String {
    let mut lines: Vec<String> = problems.iter().map(line).collect();
    let last = lines.len().saturating_sub(1);
    let mut bytes = 0;
    let fit = lines.iter().take_while(|line| {
        bytes += line.len();
        bytes <= LONGEST
    });
    let fit = fit.count().max(1);
    if fit < last {
        lines.splice(fit..last, ["…".to_owned()]);
    }
    lines.join("\n")
}

/// Checks a job against its audience and its account. Reads the audience once, from end to end.
///
/// # Errors
///
/// Why it can't be sent.
pub fn prepare(job: Job, audiences: &Audiences, account: &Account) -> Result<Prepared, Refusal> {
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
        let fault = format!(
            "a draft flow is for tests alone (document 004: not to be sent to users), and this audience has {} rows: \
             publish the flow, or send it to {DRAFT} people at the most",
            scan.rows
        );
        return Err(Refusal::Problems(vec![Problem::new(format!("/message{mode}"), fault)]));
    }
    let batch_size = batch_size(job.limits.messages, account.limits.rates());
    Ok(Prepared {
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

/// Finds a job's audience, and reads it once from end to end; returns also how it is read.
///
/// # Errors
///
/// When it is not there, may not be read, or is no audience.
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
                encoding: csv.encoding.as_deref().and_then(Encoding::named).unwrap_or_default(),
                default_region: csv.default_region.clone(),
                sheet: csv.sheet.clone(),
                hidden_rows: csv.hidden_rows,
                columns,
            };
            (audiences.find(csv)?, settings)
        }
    };
    let scan = audience::scan(&source, &settings)?;
    settings.encoding = scan.encoding;
    Ok((source, settings, scan))
}

/// A job's message as its account's provider wants it.
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
    /// Returns the reason in words only, a line for each problem. [`Refusal::pointer`] has the first's place.
    pub fn plain(&self) -> String {
        match self {
            Self::Problems(problems) => lines(problems, Problem::plain),
            Self::Audience(fault) => fault.to_string(),
        }
    }

    /// Where in the job the reason lies.
    pub fn pointer(&self) -> &str {
        match self {
            Self::Problems(problems) => problems.first().map_or("", |problem| &problem.pointer),
            Self::Audience(fault) => fault.pointer(),
        }
    }
}

/// Registers a job, or finds the campaign that it already is; returns also whether it is new. `again` says
/// whether a job without an id may have come before, `by` who wants it; what an `unmoved` store has is not begun again.
///
/// # Errors
///
/// When its id stands for another job, or for a campaign of the unmoved store, or the ledger fails.
pub async fn register(
    ledger: &impl Ledger,
    prepared: &Arc<Prepared>,
    rehearsal: bool,
    again: bool,
    by: &str,
    unmoved: &UnmovedStore,
) -> Result<(Campaign, bool), LedgerError> {
    let job = &prepared.job;
    let given = || Uuid::now_v7().to_string().parse::<CampaignId>();
    let id = match &job.id {
        Some(id) => id.clone(),
        None => given().map_err(|fault| LedgerError::Storage(fault.to_string()))?,
    };
    if !rehearsal
        && let Err(error) = unmoved.refuse(&id).await
        && ledger.campaign(&id).await?.is_none()
    {
        return Err(error);
    }
    // As it is kept, it has its id, also where it was given one.
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
        let rows = counted(campaign.rows, "row");
        let note = prepared.scan.encoding.note().map(|note| format!(", {note}")).unwrap_or_default();
        let detail = format!("submitted the campaign ({rows}{note})");
        ledger.log(Act::new(by, "submit", Some(&campaign.id), &detail)).await?;
        Trace::of(&campaign.id, campaign.submitted_at).job(prepared.begun, &job.account, campaign.rows);
    }
    Ok((campaign, is_new))
}
