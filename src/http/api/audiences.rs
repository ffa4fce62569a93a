//! The files of the audience root: uploaded, listed and deleted.

mod incoming;
mod upload_name;

use std::{io::ErrorKind, path::Path, time::SystemTime};

use axum::Json;
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::{access::Caller, problem::Problem};
use super::refusals::{OnJob, OnList};
use super::{Api, extract::Params};
use crate::audience::{Encoding, Object, Root};
use crate::campaign::time;
use crate::ledger::{Audit, AuditEntry};
pub(in crate::http) use incoming::{Arrival, NameConflict, take_in};
pub(in crate::http) use upload_name::{NameError, check_name, name_of_upload};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadParams {
    /// File name; must end with `.csv`, `.csv.gz`, `.csv.zst` or `.xlsx`.
    #[param(pattern = r"^[^./\\:\x00-\x1f][^/\\:\x00-\x1f]*\.(csv|csv\.gz|csv\.zst|xlsx)$")]
    name: String,
    /// Character encoding, a WHATWG or IANA name such as `macintosh`; detected by default.
    encoding: Option<String>,
}

/// An uploaded audience.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Uploaded {
    /// The path to use as a job's `audience.csv.path`.
    pub(in crate::http) path: String,
    /// File size, in bytes.
    bytes: u64,
    /// Number of rows.
    rows: u64,
    /// Names of the columns.
    columns: Vec<String>,
    /// Notes about the file, a sentence each; omitted if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    notes: Vec<String>,
}

/// Uploads an audience: the file's bytes, or a form with the field `file`.
///
/// Uploading the same bytes under the same name again changes nothing; different bytes are refused with 409. For an invalid
/// file the error names the line.
#[utoipa::path(
    post, path = "/audiences", tag = "audiences", operation_id = "uploadAudience", params(UploadParams),
    request_body(content = String, description = "The file's bytes, or a form with them", content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "Already uploaded", body = Uploaded),
        (status = 201, description = "Uploaded", body = Uploaded), OnJob,
    )
)]
pub(super) async fn upload(
    State(api): State<Api>,
    who: Caller,
    Params(asked): Params<UploadParams>,
    request: Request,
) -> Result<Response, Problem> {
    let unknown = || {
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unknown encoding; use a WHATWG or IANA name, e.g. macintosh",
        )
    };
    let encoding =
        asked.encoding.as_deref().map(|name| Encoding::named(name).ok_or_else(unknown)).transpose()?;
    let arrival = Arrival { name: asked.name, taken: NameConflict::Refuse, encoding };
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let (uploaded, is_new) = if kind.is_some_and(|kind| kind.starts_with("multipart/form-data")) {
        let wrong = |detail: String| Problem::bad_request(format!("cannot read the form: {detail}"));
        let form = Multipart::from_request(request, &api).await;
        let mut form = form.map_err(|error| wrong(error.body_text()))?;
        loop {
            let field = form.next_field().await.map_err(|error| wrong(error.body_text()))?;
            let field = field.ok_or_else(|| wrong("the field `file` is missing".into()))?;
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

/// Returns the audience root of this worker.
fn root(api: &Api) -> Result<Root, Problem> {
    let root = api.backing()?.context.audiences.root().cloned();
    root.ok_or_else(|| Problem::new(StatusCode::CONFLICT, "audiences.root is not configured on this worker"))
}

/// Deletes a file of the audience root.
pub(in crate::http) async fn delete(api: &Api, who: &Caller, name: &str) -> Result<(), Problem> {
    check_name(name)?;
    let gone = || Problem::not_found("the file was already deleted");
    match root(api)? {
        Root::Folder(root) => match tokio::fs::remove_file(root.join(name)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(gone()),
            Err(error) => return Err(Problem::away(format!("cannot delete the file: {error}"))),
            Ok(()) => {}
        },
        Root::Bucket(bucket) => {
            if !bucket.delete(name).await.map_err(Problem::away)? {
                return Err(gone());
            }
        }
    }
    let detail = format!("deleted {name}");
    api.ledger()?.log(AuditEntry::new(&who.name, "delete", None, &detail).to_file(name)).await?;
    Ok(())
}

/// A file of the audience root.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct AudienceFile {
    /// The path to use as a job's `audience.csv.path`.
    pub(in crate::http) path: String,
    /// File size, in bytes.
    pub(in crate::http) bytes: u64,
    /// When the file was last written.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    pub(in crate::http) uploaded_at: Timestamp,
}

/// The files of the audience root.
#[derive(Serialize, ToSchema)]
pub(super) struct AudienceFiles {
    /// Files, newest first.
    items: Vec<AudienceFile>,
}

/// Lists the files of the audience root.
///
/// Newest first; the paths can be used as a job's `audience.csv.path`.
#[utoipa::path(
    get, path = "/audiences", tag = "audiences", operation_id = "listAudiences",
    responses((status = 200, description = "The files", body = AudienceFiles), (status = 409, description = "Conflict", body = Problem, content_type = "application/problem+json"), OnList)
)]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<AudienceFiles>, Problem> {
    Ok(Json(AudienceFiles { items: all(&api).await? }))
}

/// Returns the files of the audience root, newest first.
pub(in crate::http) async fn all(api: &Api) -> Result<Vec<AudienceFile>, Problem> {
    let mut files = match root(api)? {
        Root::Folder(root) => {
            let files = tokio::task::spawn_blocking(move || files(&root)).await;
            let away = |error| Problem::away(format!("cannot read the audience root: {error}"));
            files.map_err(|error| Problem::away(error.to_string()))?.map_err(away)?
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
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(files),
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
