//! Adds the phone numbers of a file to the opt-out list, and reports each unreadable row. Keeps neither the file nor the report.

use axum::extract::{Multipart, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use minijinja::{Value, context};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::super::super::access::Caller;
use super::super::super::api::suppressed::change;
use super::super::super::problem::Problem;
use super::super::Dashboard;
use super::super::captions::as_sentence;
use super::super::countries::country;
use super::super::render::{Viewer, unprocessable};
use super::{ListParams, Shown, page};
use crate::audience::{self, AudienceError, NumberList, Settings, Source, UnreadableRow};
use crate::campaign::{counted, thousands};
use crate::ledger::Suppress;
use crate::views::lines::cell;

/// Size limit of an imported file, in bytes.
const MAX_BYTES: usize = 256 << 20;
/// Maximum number of unreadable rows in the download, and on the page.
const UNREADABLE: (usize, usize) = (10_000, 20);
/// Maximum number of row numbers in a sentence.
const MAX_NAMED_ROWS: usize = 5;

/// A submitted form with a file.
struct Upload {
    /// Folder of the file, deleted when this is dropped.
    folder: TempDir,
    /// Name of the file on the person's machine; empty if none was chosen.
    name: String,
    path: std::path::PathBuf,
    bytes: usize,
    phone: String,
    region: String,
}

impl Upload {
    /// Reads the form, and writes its file to a temporary folder.
    async fn read(mut form: Multipart) -> Result<Self, Problem> {
        let wrong = |detail: String| Problem::bad_request(format!("the form: {detail}"));
        let failed = |error: std::io::Error| Problem::away(format!("the file can't be written: {error}"));
        let folder = tempfile::tempdir().map_err(failed)?;
        let path = folder.path().join("numbers.csv");
        let mut upload =
            Self { folder, name: String::new(), path, bytes: 0, phone: String::new(), region: String::new() };
        while let Some(mut field) = form.next_field().await.map_err(|error| wrong(error.body_text()))? {
            match field.name() {
                Some("phone") => {
                    upload.phone = field.text().await.map_err(|error| wrong(error.body_text()))?;
                }
                Some("region") => {
                    upload.region = field.text().await.map_err(|error| wrong(error.body_text()))?;
                }
                Some("file") => {
                    upload.name = field.file_name().unwrap_or_default().to_owned();
                    let ending = upload.name.rsplit_once('.').map_or("csv", |(_, ending)| ending);
                    let ending = if matches!(ending, "xlsx" | "gz" | "zst") { ending } else { "csv" };
                    upload.path.set_extension(ending);
                    let mut file = tokio::fs::File::create(&upload.path).await.map_err(failed)?;
                    while let Some(chunk) = field.chunk().await.map_err(|error| wrong(error.body_text()))? {
                        upload.bytes += chunk.len();
                        if upload.bytes > MAX_BYTES {
                            let detail = "the file is too large; split it";
                            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
                        }
                        file.write_all(&chunk).await.map_err(failed)?;
                    }
                    file.flush().await.map_err(failed)?;
                }
                _ => {}
            }
        }
        Ok(upload)
    }

    /// Reads the numbers.
    ///
    /// The error has the columns of the file if none of them is recognised as the phone column.
    fn numbers(&self) -> Result<NumberList, (AudienceError, Vec<String>)> {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let source = Source::File(self.path.clone());
        audience::numbers(&source, given(&self.phone), given(&self.region), UNREADABLE.0).map_err(|error| {
            let columns = match &error {
                AudienceError::NoPhoneColumn { .. } => {
                    audience::scan(&source, &Settings::default()).map(|scan| scan.columns).unwrap_or_default()
                }
                _ => Vec::new(),
            };
            (error, columns)
        })
    }
}

/// Adds the numbers of a file, and shows why rows could not be read.
pub(in super::super) async fn import(
    State(dashboard): State<Dashboard>,
    who: Caller,
    look: Viewer,
    form: Multipart,
) -> Result<Response, Problem> {
    let upload = Upload::read(form).await?;
    let region = upload.region.clone();
    let refuse = async |field: &'static str, error: String, columns: Vec<String>| {
        let shown = Shown { errors: vec![(field, error)], columns, region: &region, ..Shown::default() };
        Ok(unprocessable(page(&dashboard, &who, &look, ListParams::default(), shown).await?))
    };
    if upload.bytes == 0 {
        return refuse("file", "Choose a file with a column of numbers.".into(), Vec::new()).await;
    }
    if !region.is_empty() && country(&region).is_none() {
        return refuse("region", "Choose a country from the list.".into(), Vec::new()).await;
    }
    let read = tokio::task::spawn_blocking(move || (upload.numbers(), upload)).await;
    let (read, upload) = read.map_err(|error| Problem::away(error.to_string()))?;
    drop(upload.folder);
    let name = upload.name;
    let list = match read {
        Ok(list) => list,
        Err((_, columns)) if !columns.is_empty() => {
            let error =
                format!("We couldn’t find the phone column of {name}. Choose it, and the file again.");
            return refuse("column", error, columns).await;
        }
        Err((error, _)) => {
            // The person knows the file by its own name, not by that of the temporary copy.
            let error = error.to_string();
            let stored = upload.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            return refuse("file", as_sentence(&error.replace(stored, &name)), Vec::new()).await;
        }
    };
    if list.numbers.is_empty() {
        let rows = counted(list.unreadable, "row");
        let error = format!(
            "No number was added: {name} has {rows} without a valid number. If numbers lack the + and the country code, choose their country."
        );
        return refuse("file", error, Vec::new()).await;
    }
    let added = change(&dashboard.api, &who, list.numbers.clone(), Suppress::Add).await?;
    let imported = Some(report(&name, &list, added));
    let shown = Shown { region: &region, imported, ..Shown::default() };
    Ok(page(&dashboard, &who, &look, ListParams::default(), shown).await?.into_response())
}

/// Returns what an import did, for the template.
fn report(name: &str, list: &NumberList, added: u64) -> Value {
    let count = list.numbers.len() as u64;
    let mut parts = vec![format!("{} added", counted(added, "number"))];
    if count > added {
        parts.push(format!("{} already on the list", thousands(count - added)));
    }
    if list.duplicates > 0 {
        parts.push(format!("{} with a number of an earlier row", counted(list.duplicates, "row")));
    }
    if list.unreadable > 0 {
        let named: Vec<String> =
            list.unreadable_rows.iter().take(MAX_NAMED_ROWS).map(|one| thousands(one.row)).collect();
        let more = if list.unreadable > MAX_NAMED_ROWS as u64 { " …" } else { "" };
        let which = if list.unreadable == 1 { "row" } else { "rows" };
        let rows = counted(list.unreadable, "row");
        parts.push(format!("{rows} couldn’t be read ({which} {}{more})", named.join(", ")));
    }
    let unreadable = list.unreadable_rows.iter().take(UNREADABLE.1).map(|one| {
        context! { row => one.row, text => one.text.clone(), reason => as_sentence(&one.reason) }
    });
    context! {
        sentence => format!("{}: {}.", name, parts.join(", ")),
        unreadable => unreadable.collect::<Vec<_>>(),
        count => list.unreadable,
        download => (list.unreadable > 0).then(|| download(&list.unreadable_rows)),
        is_cut => list.unreadable > UNREADABLE.0 as u64,
    }
}

/// Returns the unreadable rows as a CSV file in a data URL.
///
/// So none of them has to be stored.
fn download(rows: &[UnreadableRow]) -> String {
    let mut csv = csv::Writer::from_writer(Vec::new());
    let mut write = |row: [&str; 3]| drop(csv.write_record(row));
    write(["row", "text", "reason"]);
    for one in rows {
        write([&one.row.to_string(), &cell(&one.text), &one.reason]);
    }
    let bytes = csv.into_inner().unwrap_or_default();
    let text: String = url::form_urlencoded::byte_serialize(&bytes).collect();
    format!("data:text/csv;charset=utf-8,{}", text.replace('+', "%20"))
}
