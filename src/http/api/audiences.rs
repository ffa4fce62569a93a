//! Audiences that are handed in: streamed into the root, read once on the way, and there only when they are
//! whole.

use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::access::Who;
use super::super::problem::Problem;
use super::Api;
use super::extract::Params;
use super::refusals::{OnJob, OnList};
use crate::audience::{Bucket, Encoding, Object, Root, Settings, Source, scan};
use crate::campaign::{counted, time};
use crate::ledger::{Act, Audit};

/// The largest file, in bytes: about twenty million rows.
const LARGEST: u64 = 2 << 30;
/// How the folders begin in which files lie while they arrive.
const ARRIVING: &str = ".upload-";
/// No upload takes so long.
const ABANDONED: Duration = Duration::from_hours(24);
/// The longest name, in bytes.
const LONGEST_NAME: usize = 200;
/// So many files may have a name that a number tells apart.
const RENAMED: u32 = 100;
/// The endings that are read.
const ENDINGS: [&str; 4] = [".csv", ".csv.gz", ".csv.zst", ".xlsx"];

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadParams {
    /// The name of the file: it ends with `.csv`, `.csv.gz`, `.csv.zst` or `.xlsx`.
    #[param(pattern = r"^[^./\\:\x00-\x1f][^/\\:\x00-\x1f]*\.(csv|csv\.gz|csv\.zst|xlsx)$")]
    name: String,
    /// How its characters are written, where that is not found by itself: a WHATWG or IANA name, as `macintosh`.
    encoding: Option<String>,
}

/// An audience that was handed in.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Uploaded {
    /// As a job's `audience.csv.path` wants it.
    pub(in crate::http) path: String,
    /// The size of the file.
    bytes: u64,
    /// How many rows it has.
    rows: u64,
    /// Its columns.
    columns: Vec<String>,
    /// What was found of it that whoever handed it in should know, a sentence each; left out where there is nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    notes: Vec<String>,
}

/// Takes an audience in: the file's bytes, or a form with `file`.
///
/// The same bytes under the same name change nothing; other bytes are refused with 409. A file that is no audience is
/// refused with the line that is wrong.
#[utoipa::path(
    post, path = "/audiences", tag = "audiences", operation_id = "uploadAudience", params(UploadParams),
    request_body(content = String, description = "The bytes of the file, or a form with them", content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "The same bytes again", body = Uploaded),
        (status = 201, description = "Taken in", body = Uploaded), OnJob,
    )
)]
pub(super) async fn upload(
    State(api): State<Api>,
    who: Who,
    Params(asked): Params<UploadParams>,
    request: Request,
) -> Result<Response, Problem> {
    let unknown = || Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "encoding: is none that is known here");
    let encoding =
        asked.encoding.as_deref().map(|name| Encoding::named(name).ok_or_else(unknown)).transpose()?;
    let arrival = Arrival { name: asked.name, taken: Taken::Refuse, encoding: encoding.unwrap_or_default() };
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let (uploaded, is_new) = if kind.is_some_and(|kind| kind.starts_with("multipart/form-data")) {
        let wrong = |detail: String| Problem::bad_request(format!("the form: {detail}"));
        let form = Multipart::from_request(request, &api).await;
        let mut form = form.map_err(|fault| wrong(fault.body_text()))?;
        loop {
            let field = form.next_field().await.map_err(|fault| wrong(fault.body_text()))?;
            let field = field.ok_or_else(|| wrong("has no field `file`".into()))?;
            if field.name() == Some("file") {
                break take_in(&api, &who, arrival, field).await?;
            }
        }
    } else {
        take_in(&api, &who, arrival, request.into_body().into_data_stream()).await?
    };
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(uploaded)).into_response())
}

/// What becomes of a file whose name another one has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Taken {
    Refuse,
    /// It is called `name-2.csv` or the like.
    Rename,
}

/// A file that is handed in.
pub(in crate::http) struct Arrival {
    pub(in crate::http) name: String,
    pub(in crate::http) taken: Taken,
    /// How it is read.
    pub(in crate::http) encoding: Encoding,
}

/// Takes a file in under a name. Returns also whether it was not there before.
pub(in crate::http) async fn take_in<E: std::fmt::Display>(
    api: &Api,
    who: &Who,
    arrival: Arrival,
    stream: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(Uploaded, bool), Problem> {
    let Arrival { name, taken, encoding } = arrival;
    let root = root(api)?;
    check_name(&name)?;
    let (uploaded, is_new) = match root {
        Root::Folder(root) => {
            let arriving = Arriving::new(&root, &name).map_err(|fault| unwritten(&fault))?;
            let bytes = write(stream, &arriving.file).await?;
            let keep =
                move || keep(&arriving, &root, &name, taken, || read(&arriving.file, &name, bytes, encoding));
            let kept = tokio::task::spawn_blocking(keep).await;
            kept.map_err(|fault| Problem::away(fault.to_string()))??
        }
        Root::Bucket(bucket) => {
            let temporary = std::env::temp_dir().canonicalize().map_err(|fault| unwritten(&fault))?;
            let folder = tempfile::tempdir_in(temporary).map_err(|fault| unwritten(&fault))?;
            let file = folder.path().join(&name);
            let bytes = write(stream, &file).await?;
            let (path, called) = (file.clone(), name.clone());
            let scanned = tokio::task::spawn_blocking(move || read(&path, &called, bytes, encoding)).await;
            let uploaded = scanned.map_err(|fault| Problem::away(fault.to_string()))??;
            keep_in_bucket(&bucket, file, name, uploaded, taken).await?
        }
    };
    if is_new {
        let detail = format!("uploaded {} ({})", uploaded.path, counted(uploaded.rows, "row"));
        let act = Act::new(&who.name, "upload", None, &detail).to_file(&uploaded.path);
        api.ledger()?.log(act).await?;
    }
    Ok((uploaded, is_new))
}

fn root(api: &Api) -> Result<Root, Problem> {
    let root = api.backing()?.context.audiences.root().cloned();
    root.ok_or_else(|| Problem::new(StatusCode::CONFLICT, "audiences.root is not configured on this worker"))
}

/// Whether a file's name ends as the audiences that can be read do.
pub(in crate::http) fn has_known_ending(name: &str) -> bool {
    let lower = name.to_lowercase();
    ENDINGS.iter().any(|ending| lower.ends_with(ending))
}

/// Deletes a file of the root.
pub(in crate::http) async fn delete(api: &Api, who: &Who, name: &str) -> Result<(), Problem> {
    check_name(name)?;
    let gone = || Problem::not_found("this file was already deleted");
    match root(api)? {
        Root::Folder(root) => match tokio::fs::remove_file(root.join(name)).await {
            Err(fault) if fault.kind() == ErrorKind::NotFound => return Err(gone()),
            Err(fault) => return Err(Problem::away(format!("the file can't be deleted: {fault}"))),
            Ok(()) => {}
        },
        Root::Bucket(bucket) => {
            if !bucket.delete(name).await.map_err(Problem::away)? {
                return Err(gone());
            }
        }
    }
    let detail = format!("deleted {name}");
    api.ledger()?.log(Act::new(&who.name, "delete", None, &detail).to_file(name)).await?;
    Ok(())
}

/// A name is one that a file of the root may have, and no way anywhere else.
fn check_name(name: &str) -> Result<(), Problem> {
    let refused =
        |detail: &str| Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("name: {detail}")));
    if name.is_empty() || name.len() > LONGEST_NAME {
        return refused("has from 1 to 200 bytes");
    }
    if name.starts_with('.') || name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\' | ':')) {
        return refused("is one name: no folder, and no dot before it");
    }
    if !has_known_ending(name) {
        return refused("ends with .csv, .csv.gz, .csv.zst or .xlsx");
    }
    Ok(())
}

/// A file that is on its way, in a folder of its own; gone when this is dropped.
struct Arriving {
    folder: PathBuf,
    file: PathBuf,
}

impl Arriving {
    fn new(root: &Path, name: &str) -> std::io::Result<Self> {
        std::fs::create_dir_all(root)?;
        // No link is followed where an audience is opened, and the root may be one.
        let folder = root.canonicalize()?.join(format!("{ARRIVING}{}", Uuid::now_v7()));
        sweep(root)?;
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let file = folder.join(name);
        Ok(Self { folder, file })
    }
}

/// Removes what a worker that was ended has left behind.
fn sweep(root: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root)?.flatten() {
        let is_arriving = entry.file_name().to_string_lossy().starts_with(ARRIVING);
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|at| at.elapsed().ok());
        if is_arriving && age.is_some_and(|age| age > ABANDONED) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Writes what comes to a file. Returns how many bytes that are.
async fn write<E: std::fmt::Display>(
    stream: impl Stream<Item = Result<Bytes, E>>,
    path: &Path,
) -> Result<u64, Problem> {
    // It holds numbers and names of people: nobody else on the machine reads them.
    let made = File::options().write(true).create_new(true).mode(0o600).open(path).await;
    let mut file = made.map_err(|fault| unwritten(&fault))?;
    let (mut stream, mut count) = (std::pin::pin!(stream), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|fault| Problem::bad_request(format!("the file broke off: {fault}")))?;
        count += chunk.len() as u64;
        if count > LARGEST {
            let detail =
                format!("the file is larger than {} GiB; pack it (.csv.zst), or split it", LARGEST >> 30);
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        file.write_all(&chunk).await.map_err(|fault| unwritten(&fault))?;
    }
    file.sync_all().await.map_err(|fault| unwritten(&fault))?;
    Ok(count)
}

fn unwritten(fault: &std::io::Error) -> Problem {
    tracing::error!("an audience can't be written: {fault}");
    Problem::away(format!("the file can't be written: {fault}"))
}

/// Reads the file once, and gives it its name if it is an audience and the name is free. Returns also
/// whether it was.
fn keep(
    arriving: &Arriving,
    root: &Path,
    name: &str,
    taken: Taken,
    read: impl FnOnce() -> Result<Uploaded, Problem>,
) -> Result<(Uploaded, bool), Problem> {
    let mut uploaded = read()?;
    let tries = if taken == Taken::Rename { RENAMED } else { 1 };
    for nth in 1..=tries {
        uploaded.path = nth_name(name, nth);
        let path = root.join(&uploaded.path);
        // A link is made only where nothing is; a rename would replace what is there.
        match std::fs::hard_link(&arriving.file, &path) {
            Ok(()) => {
                let folder = std::fs::File::open(root).and_then(|folder| folder.sync_all());
                folder.map_err(|fault| unwritten(&fault))?;
                return Ok((uploaded, true));
            }
            Err(fault) if fault.kind() == ErrorKind::AlreadyExists => {
                if same(&arriving.file, &path).map_err(|fault| unwritten(&fault))? {
                    return Ok((uploaded, false));
                }
            }
            Err(fault) => return Err(unwritten(&fault)),
        }
    }
    Err(taken_name(name))
}

/// Reads a file that was handed in.
fn read(file: &Path, name: &str, bytes: u64, encoding: Encoding) -> Result<Uploaded, Problem> {
    let settings = Settings { encoding, ..Settings::default() };
    let scan = scan(&Source::File(file.to_owned()), &settings).map_err(|fault| {
        if fault.is_outside_failure() {
            Problem::away(fault.to_string())
        } else {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, fault.to_string())
        }
    })?;
    let notes = scan.notes(settings.hidden_rows);
    Ok(Uploaded { path: name.to_owned(), bytes, rows: scan.rows, columns: scan.columns, notes })
}

/// The same as [`keep`] where the root is a bucket: an object is there when all of it is.
async fn keep_in_bucket(
    bucket: &Bucket,
    file: PathBuf,
    name: String,
    mut uploaded: Uploaded,
    taken: Taken,
) -> Result<(Uploaded, bool), Problem> {
    let tries = if taken == Taken::Rename { RENAMED } else { 1 };
    for nth in 1..=tries {
        uploaded.path = nth_name(&name, nth);
        if bucket.put(&uploaded.path, file.clone()).await.map_err(Problem::away)? {
            return Ok((uploaded, true));
        }
        let (bucket, path, file) = (bucket.clone(), uploaded.path.clone(), file.clone());
        let is_same = tokio::task::spawn_blocking(move || {
            let there = bucket.fetch(&path).map_err(|fault| Problem::away(fault.to_string()))?;
            same(&file, there.path()).map_err(|fault| unwritten(&fault))
        });
        if is_same.await.map_err(|fault| Problem::away(fault.to_string()))?? {
            return Ok((uploaded, false));
        }
    }
    Err(taken_name(&name))
}

fn taken_name(name: &str) -> Problem {
    let detail = format!("there is another file of the name {name:?}; give this one another");
    Problem::new(StatusCode::CONFLICT, detail)
}

/// `people-2.csv` for the second of the name `people.csv`.
fn nth_name(name: &str, nth: u32) -> String {
    match name.split_once('.') {
        Some((stem, ending)) if nth > 1 => format!("{stem}-{nth}.{ending}"),
        _ => name.to_owned(),
    }
}

/// Whether two files have the same bytes.
fn same(one: &Path, other: &Path) -> std::io::Result<bool> {
    if std::fs::metadata(one)?.len() != std::fs::metadata(other)?.len() {
        return Ok(false);
    }
    let digest = |path: &Path| {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(std::fs::File::open(path)?)?;
        Ok::<_, std::io::Error>(hasher.finalize())
    };
    Ok(digest(one)? == digest(other)?)
}

/// A file of the audience root.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct AudienceFile {
    /// As a job's `audience.csv.path` wants it.
    pub(in crate::http) path: String,
    /// The size of the file.
    pub(in crate::http) bytes: u64,
    /// When it was last written.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    pub(in crate::http) uploaded_at: Timestamp,
}

/// The files of the audience root.
#[derive(Serialize, ToSchema)]
pub(super) struct AudienceFiles {
    /// The newest first.
    items: Vec<AudienceFile>,
}

/// Lists the files of the audience root.
///
/// The newest first; paths are as a job's `audience.csv.path` wants them.
#[utoipa::path(
    get, path = "/audiences", tag = "audiences", operation_id = "listAudiences",
    responses((status = 200, description = "The files", body = AudienceFiles), (status = 409, description = "Conflict", body = Problem, content_type = "application/problem+json"), OnList)
)]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<AudienceFiles>, Problem> {
    Ok(Json(AudienceFiles { items: all(&api).await? }))
}

/// The files of the root, the newest first.
pub(in crate::http) async fn all(api: &Api) -> Result<Vec<AudienceFile>, Problem> {
    let mut files = match root(api)? {
        Root::Folder(root) => {
            let files = tokio::task::spawn_blocking(move || files(&root)).await;
            let away = |fault| Problem::away(format!("the audience root can't be read: {fault}"));
            files.map_err(|fault| Problem::away(fault.to_string()))?.map_err(away)?
        }
        Root::Bucket(bucket) => {
            let objects = bucket.list().await.map_err(Problem::away)?;
            let named = objects.into_iter().filter(|object| check_name(&object.path).is_ok());
            let file = |object: Object| AudienceFile {
                path: object.path,
                bytes: object.bytes,
                uploaded_at: Timestamp::from_millisecond(object.at).unwrap_or_default(),
            };
            named.map(file).collect()
        }
    };
    files.sort_by(|one, other| (other.uploaded_at, &one.path).cmp(&(one.uploaded_at, &other.path)));
    Ok(files)
}

fn files(root: &Path) -> std::io::Result<Vec<AudienceFile>> {
    let mut files = Vec::new();
    let entries = match std::fs::read_dir(root) {
        Err(fault) if fault.kind() == ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let (Ok(name), Ok(data)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
        if !data.is_file() || check_name(&name).is_err() {
            continue;
        }
        let at = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let uploaded_at = Timestamp::try_from(at).unwrap_or_default();
        files.push(AudienceFile { path: name, bytes: data.len(), uploaded_at });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        for name in ["a.csv", "Diwali 2026.csv", "a.CSV.gz", "ä.csv.zst"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in
            ["", "../a.csv", "a/b.csv", "/etc/a.csv", ".a.csv", "a\0.csv", "a\n.csv", "c:a.csv", "a.txt", "a"]
        {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_file_takes_its_name_only_where_none_is() {
        let root = tempfile::tempdir().unwrap();
        let take = |text: &str, taken| {
            let arriving = Arriving::new(root.path(), "a.csv").unwrap();
            std::fs::write(&arriving.file, text).unwrap();
            keep(&arriving, root.path(), "a.csv", taken, || {
                read(&arriving.file, "a.csv", text.len() as u64, Encoding::Utf8)
            })
        };
        let hand_in = |text: &str| take(text, Taken::Refuse).map(|(_, is_new)| is_new);
        assert!(hand_in("phone\n").is_err(), "a header is no audience");
        assert!(hand_in("phone\n\"x").is_err());
        assert!(hand_in("phone\n+919876543210\n").unwrap());
        assert!(!hand_in("phone\n+919876543210\n").unwrap());
        assert!(hand_in("phone\n+919876543211\n").is_err());
        let renamed = || take("phone\n+919876543211\n", Taken::Rename).unwrap();
        assert_eq!((renamed().0.path, renamed().1), ("a-2.csv".into(), false));
        std::fs::remove_file(root.path().join("a-2.csv")).unwrap();
        assert_eq!(files(root.path()).unwrap().len(), 1);
        // What a worker left behind that was ended in the middle is gone a day later.
        let left = root.path().join(".upload-left");
        std::fs::create_dir(&left).unwrap();
        sweep(root.path()).unwrap();
        assert!(left.exists());
        let long_ago = SystemTime::now() - ABANDONED * 2;
        std::fs::File::open(&left).unwrap().set_modified(long_ago).unwrap();
        sweep(root.path()).unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "nothing half is left");
    }
}
