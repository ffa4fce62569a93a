//! Files on their way into the audience root: written to a private place, scanned once, and given their name only when
//! complete. Never replaces a file that exists.

use std::path::{Path, PathBuf};
use std::{io::ErrorKind, os::unix::fs::DirBuilderExt, time::Duration};

use axum::{body::Bytes, http::StatusCode};
use futures_util::{Stream, StreamExt};
use tokio::{fs::File, io::AsyncWriteExt};
use uuid::Uuid;

use super::super::super::{access::Caller, problem::Problem};
use super::super::Api;
use super::upload_name::{MAX_COPIES, check_name, copy_name};
use super::{Uploaded, root};
use crate::audience::{Bucket, Encoding, Root, Settings, Source, scan};
use crate::campaign::counted;
use crate::ledger::{Audit, AuditEntry};

/// Maximum size of a file, in bytes: about twenty million rows.
const MAX_BYTES: u64 = 2 << 30;
/// Prefix of the folders that hold files while they arrive.
const INCOMING_PREFIX: &str = ".upload-";
/// Age from which an incomplete upload is removed.
const ABANDONED_AFTER: Duration = Duration::from_hours(24);

/// What to do if another file has the name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum NameConflict {
    /// Refuse the upload.
    Refuse,
    /// Name it `name-2.csv` or similar.
    Rename,
}

/// An upload.
pub(in crate::http) struct Arrival {
    pub(in crate::http) name: String,
    pub(in crate::http) taken: NameConflict,
    /// The character encoding; detected if absent.
    pub(in crate::http) encoding: Option<Encoding>,
}

/// Stores an upload under a name; also returns whether the file is new.
pub(in crate::http) async fn take_in<E: std::fmt::Display>(
    api: &Api,
    who: &Caller,
    arrival: Arrival,
    stream: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(Uploaded, bool), Problem> {
    let Arrival { name, taken, encoding } = arrival;
    let root = root(api)?;
    check_name(&name)?;
    let (uploaded, is_new) = match root {
        Root::Folder(root) => {
            let arriving = Arriving::new(&root, &name).map_err(|error| unwritten(&error))?;
            let bytes = write(stream, &arriving.file).await?;
            let keep =
                move || keep(&arriving, &root, &name, taken, || read(&arriving.file, &name, bytes, encoding));
            let kept = tokio::task::spawn_blocking(keep).await;
            kept.map_err(|error| Problem::away(error.to_string()))??
        }
        Root::Bucket(bucket) => {
            let temporary = std::env::temp_dir().canonicalize().map_err(|error| unwritten(&error))?;
            let folder = tempfile::tempdir_in(temporary).map_err(|error| unwritten(&error))?;
            let file = folder.path().join(&name);
            let bytes = write(stream, &file).await?;
            let (path, called) = (file.clone(), name.clone());
            let scanned = tokio::task::spawn_blocking(move || read(&path, &called, bytes, encoding)).await;
            let uploaded = scanned.map_err(|error| Problem::away(error.to_string()))??;
            keep_in_bucket(&bucket, file, name, uploaded, taken).await?
        }
    };
    if is_new {
        let detail = format!("uploaded {} ({})", uploaded.path, counted(uploaded.rows, "row"));
        let act = AuditEntry::new(&who.name, "upload", None, &detail).to_file(&uploaded.path);
        api.ledger()?.log(act).await?;
    }
    Ok((uploaded, is_new))
}

/// An incomplete file in its own folder, which is removed on drop.
struct Arriving {
    folder: PathBuf,
    file: PathBuf,
}

impl Arriving {
    fn new(root: &Path, name: &str) -> std::io::Result<Self> {
        std::fs::create_dir_all(root)?;
        // Opening an audience follows no symbolic links, but the root may be one.
        let folder = root.canonicalize()?.join(format!("{INCOMING_PREFIX}{}", Uuid::now_v7()));
        sweep(root)?;
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let file = folder.join(name);
        Ok(Self { folder, file })
    }
}

/// Removes incomplete uploads of workers that were killed.
fn sweep(root: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root)?.flatten() {
        let is_arriving = entry.file_name().to_string_lossy().starts_with(INCOMING_PREFIX);
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|at| at.elapsed().ok());
        if is_arriving && age.is_some_and(|age| age > ABANDONED_AFTER) {
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

/// Writes a stream to a file, and returns the number of bytes.
async fn write<E: std::fmt::Display>(
    stream: impl Stream<Item = Result<Bytes, E>>,
    path: &Path,
) -> Result<u64, Problem> {
    // It has personal data: no other user of the machine may read it.
    let made = File::options().write(true).create_new(true).mode(0o600).open(path).await;
    let mut file = made.map_err(|error| unwritten(&error))?;
    let (mut stream, mut count) = (std::pin::pin!(stream), 0);
    while let Some(chunk) = stream.next().await {
        let chunk =
            chunk.map_err(|error| Problem::bad_request(format!("the upload ended early: {error}")))?;
        count += chunk.len() as u64;
        if count > MAX_BYTES {
            let detail = format!(
                "the file is larger than {} GiB; compress it (.csv.zst) or split it",
                MAX_BYTES >> 30
            );
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        file.write_all(&chunk).await.map_err(|error| unwritten(&error))?;
    }
    file.sync_all().await.map_err(|error| unwritten(&error))?;
    Ok(count)
}

fn unwritten(error: &std::io::Error) -> Problem {
    tracing::error!(error = %error, "could not write an audience");
    Problem::away(format!("cannot write the file: {error}"))
}

/// Scans the file, and gives it its name if it is an audience and the name is free; also returns whether it is new.
fn keep(
    arriving: &Arriving,
    root: &Path,
    name: &str,
    taken: NameConflict,
    read: impl FnOnce() -> Result<Uploaded, Problem>,
) -> Result<(Uploaded, bool), Problem> {
    let mut uploaded = read()?;
    let tries = if taken == NameConflict::Rename { MAX_COPIES } else { 1 };
    for nth in 1..=tries {
        uploaded.path = copy_name(name, nth);
        let path = root.join(&uploaded.path);
        // Creating a link fails if the name exists; a rename would replace the file.
        match std::fs::hard_link(&arriving.file, &path) {
            Ok(()) => {
                let folder = std::fs::File::open(root).and_then(|folder| folder.sync_all());
                folder.map_err(|error| unwritten(&error))?;
                return Ok((uploaded, true));
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if same(&arriving.file, &path).map_err(|error| unwritten(&error))? {
                    return Ok((uploaded, false));
                }
            }
            Err(error) => return Err(unwritten(&error)),
        }
    }
    Err(taken_name(name))
}

/// Scans an uploaded file.
fn read(file: &Path, name: &str, bytes: u64, encoding: Option<Encoding>) -> Result<Uploaded, Problem> {
    let settings = Settings { encoding, ..Settings::default() };
    let scan = scan(&Source::File(file.to_owned()), &settings).map_err(|error| {
        if error.is_outside_failure() {
            Problem::away(error.to_string())
        } else {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
        }
    })?;
    let notes = scan.notes(settings.hidden_rows);
    Ok(Uploaded { path: name.to_owned(), bytes, rows: scan.rows, columns: scan.columns, notes })
}

/// Does the same as [`keep`] in a bucket, where an object is visible only when complete.
async fn keep_in_bucket(
    bucket: &Bucket,
    file: PathBuf,
    name: String,
    mut uploaded: Uploaded,
    taken: NameConflict,
) -> Result<(Uploaded, bool), Problem> {
    let tries = if taken == NameConflict::Rename { MAX_COPIES } else { 1 };
    for nth in 1..=tries {
        uploaded.path = copy_name(&name, nth);
        if bucket.upload(&uploaded.path, file.clone()).await.map_err(Problem::away)? {
            return Ok((uploaded, true));
        }
        let (bucket, path, file) = (bucket.clone(), uploaded.path.clone(), file.clone());
        let is_same = tokio::task::spawn_blocking(move || {
            let there = bucket.fetch(&path).map_err(|error| Problem::away(error.to_string()))?;
            same(&file, there.path()).map_err(|error| unwritten(&error))
        });
        if is_same.await.map_err(|error| Problem::away(error.to_string()))?? {
            return Ok((uploaded, false));
        }
    }
    Err(taken_name(&name))
}

fn taken_name(name: &str) -> Problem {
    let detail = format!("another file is named {name:?}; choose another name");
    Problem::new(StatusCode::CONFLICT, detail)
}

/// Returns whether two files have the same bytes.
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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn an_upload_gets_its_name_only_if_that_is_free() {
        let root = tempfile::tempdir().unwrap();
        let take = |text: &str, taken| {
            let arriving = Arriving::new(root.path(), "a.csv").unwrap();
            std::fs::write(&arriving.file, text).unwrap();
            keep(&arriving, root.path(), "a.csv", taken, || {
                read(&arriving.file, "a.csv", text.len() as u64, None)
            })
        };
        let hand_in = |text: &str| take(text, NameConflict::Refuse).map(|(_, is_new)| is_new);
        assert!(hand_in("phone\n").is_err(), "a header without rows is not an audience");
        assert!(hand_in("phone\n\"x").is_err());
        assert!(hand_in("phone\n+919876543210\n").unwrap());
        assert!(!hand_in("phone\n+919876543210\n").unwrap());
        assert!(hand_in("phone\n+919876543211\n").is_err());
        let renamed = || take("phone\n+919876543211\n", NameConflict::Rename).unwrap();
        assert_eq!((renamed().0.path, renamed().1), ("a-2.csv".into(), false));
        std::fs::remove_file(root.path().join("a-2.csv")).unwrap();
        assert_eq!(super::super::files(root.path()).unwrap().len(), 1);
        // The incomplete upload of a worker that was killed is removed a day later.
        let left = root.path().join(".upload-left");
        std::fs::create_dir(&left).unwrap();
        sweep(root.path()).unwrap();
        assert!(left.exists());
        let long_ago = SystemTime::now() - ABANDONED_AFTER * 2;
        std::fs::File::open(&left).unwrap().set_modified(long_ago).unwrap();
        sweep(root.path()).unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "no incomplete upload is left");
    }
}
