//! Fetches audiences from an object store or a URL into a local file, which is read like any other file, compressed
//! ones and workbooks included.
//!
//! An interrupted transfer resumes where it stopped, as long as the object is unchanged. Redirects are not followed,
//! and an address that a job names cannot reach private networks.

use std::sync::{Arc, LazyLock};
use std::{io::Write, path::PathBuf, time::Duration};

use futures_util::{StreamExt, TryStreamExt};
use object_store::client::{HttpClient, HttpConnector};
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    WriteMultipart, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder,
    http::HttpBuilder, path::Path as ObjectPath,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use url::Url;

use super::AudienceError;
use crate::backoff::Backoff;
use crate::egress::EgressPolicy;

/// Maximum size of an object, in bytes: the same as of an upload.
pub(super) const MAX_BYTES: u64 = 2 << 30;
/// Maximum number of retries of a transfer without progress.
const TRIES: u32 = 5;
/// Delays before retries.
const RETRY: Backoff = Backoff::new(Duration::from_millis(400), Duration::from_secs(10));
/// Maximum time without data.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of an object that is written with one request, in bytes. Such a request fails if the object exists.
const ONE_REQUEST: usize = 32 << 20;
/// URL schemes of object stores.
const STORES: [&str; 5] = ["s3", "s3a", "gs", "az", "azure"];

/// The runtime of transfers. The threads that read audiences wait for it.
static RUNTIME: LazyLock<Result<Runtime, String>> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.worker_threads(1).thread_name("audiences").enable_all().build();
    built.map_err(|error| format!("cannot start a thread: {error}"))
});

/// Runs a future to its end on the runtime of transfers.
pub(super) fn wait_for<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, String> {
    let runtime = RUNTIME.as_ref().map_err(Clone::clone)?;
    let (sender, receiver) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        let _ = sender.send(work.await);
    });
    receiver.recv().map_err(|_| "a transfer ended without a result".into())
}

/// A fetched file. It is deleted when its last reader is dropped.
#[derive(Clone, Debug)]
pub struct Fetched {
    path: PathBuf,
    _folder: Arc<TempDir>,
}

impl Fetched {
    /// Returns the path.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

/// Opens connections as the egress policy allows, and follows no redirects.
#[derive(Debug)]
struct Connector(EgressPolicy);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let failed =
            |source: reqwest::Error| object_store::Error::Generic { store: "HTTP", source: source.into() };
        let client = reqwest::Client::builder()
            .user_agent(concat!("flowcast/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(self.0))
            .http1_only()
            .build()
            .map_err(failed)?;
        Ok(HttpClient::new(client))
    }
}

/// A folder of an object store.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// The address as configured.
    name: String,
    store: Arc<dyn ObjectStore>,
    folder: ObjectPath,
}

/// An object of a bucket.
#[derive(Clone, Debug)]
pub struct Object {
    /// The path below the folder.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Time of the last write, in milliseconds since 1970.
    pub at: i64,
}

/// Returns whether an address is one of an object store.
pub(super) fn is_store(address: &str) -> bool {
    address.split_once("://").is_some_and(|(scheme, _)| STORES.contains(&scheme))
}

impl Bucket {
    /// Opens the folder at an address, e.g. `s3://bucket/folder`. Credentials and endpoints come from the
    /// environment, in each store's own variables.
    ///
    /// # Errors
    ///
    /// Why the address or the environment is invalid.
    pub fn open(address: &str) -> Result<Self, String> {
        let url: Url = address.parse().map_err(|error| format!("{address} is not a URL: {error}"))?;
        let bucket = url.host_str().filter(|host| !host.is_empty());
        let bucket =
            bucket.ok_or_else(|| format!("{address} has no bucket name; write e.g. s3://bucket/folder"))?;
        // The operator configures the endpoint, so a private address is allowed.
        let connector = Connector(EgressPolicy { allow_private: true });
        let plain = format!("{}://{bucket}", url.scheme());
        let store: Result<Arc<dyn ObjectStore>, _> = match url.scheme() {
            "s3" | "s3a" => {
                let builder = AmazonS3Builder::from_env().with_url(plain).with_http_connector(connector);
                builder.build().map(|store| Arc::new(store) as _)
            }
            "gs" => {
                let builder =
                    GoogleCloudStorageBuilder::from_env().with_url(plain).with_http_connector(connector);
                builder.build().map(|store| Arc::new(store) as _)
            }
            "az" | "azure" => {
                let builder =
                    MicrosoftAzureBuilder::from_env().with_url(plain).with_http_connector(connector);
                builder.build().map(|store| Arc::new(store) as _)
            }
            other => return Err(format!("{other}:// is not an object store; use s3, gs or az")),
        };
        let store = store.map_err(|error| format!("{address}: {error}"))?;
        let folder = ObjectPath::from_url_path(url.path()).map_err(|error| format!("{address}: {error}"))?;
        Ok(Self { name: address.trim_end_matches('/').to_owned(), store, folder })
    }

    fn object_path(&self, path: &str) -> Result<ObjectPath, AudienceError> {
        let refused = || AudienceError::Outside { path: path.into(), root: self.name.clone() };
        let below = ObjectPath::parse(path).map_err(|_| refused())?;
        if below.parts().any(|part| matches!(part.as_ref(), "." | ".." | "%2E%2E" | "%2E")) {
            return Err(refused());
        }
        Ok(self.folder.parts().chain(below.parts()).collect())
    }

    /// Fetches an object.
    ///
    /// # Errors
    ///
    /// If it does not exist, or the store cannot be reached.
    pub fn fetch(&self, path: &str) -> Result<Fetched, AudienceError> {
        let gone = |path| AudienceError::NotFound { path, root: self.name.clone() };
        fetch(self.store.clone(), self.object_path(path)?, path, gone)
    }

    /// Lists the objects directly in the folder, unordered.
    ///
    /// # Errors
    ///
    /// If the store cannot be reached.
    pub async fn list(&self) -> Result<Vec<Object>, String> {
        let listed = self.store.list_with_delimiter(Some(&self.folder)).await;
        let object = |meta: ObjectMeta| {
            let path = meta.location.filename()?.to_owned();
            Some(Object { path, bytes: meta.size, at: meta.last_modified.timestamp_millis() })
        };
        let listed = listed.map_err(|error| format!("cannot list {}: {error}", self.name))?;
        Ok(listed.objects.into_iter().filter_map(object).collect())
    }

    /// Deletes an object. Returns whether it was there.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub async fn delete(&self, name: &str) -> Result<bool, String> {
        let failed =
            |error: &dyn std::fmt::Display| format!("cannot delete {name} from {}: {error}", self.name);
        let place = self.object_path(name).map_err(|error| failed(&error))?;
        match self.store.head(&place).await {
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(failed(&error)),
        }
        self.store.delete(&place).await.map_err(|error| failed(&error))?;
        Ok(true)
    }

    /// Writes a file under a free name. Returns whether the name was free.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or the store cannot be written.
    pub async fn upload(&self, name: &str, file: PathBuf) -> Result<bool, String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot write {name} to {}: {error}", self.name);
        let place = self.object_path(name).map_err(|error| failed(&error))?;
        match self.store.head(&place).await {
            Ok(_) => return Ok(false),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(&error)),
        }
        let size = tokio::fs::metadata(&file).await.map_err(|error| failed(&error))?.len();
        if size <= ONE_REQUEST as u64 {
            let bytes = tokio::fs::read(&file).await.map_err(|error| failed(&error))?;
            let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            return match self.store.put_opts(&place, bytes.into(), create).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                Err(error) => Err(failed(&error)),
            };
        }
        // A multipart upload appears with its last part: of two simultaneous uploads with the same name, one wins.
        let upload = self.store.put_multipart(&place).await.map_err(|error| failed(&error))?;
        let mut writer = WriteMultipart::new(upload);
        let mut file = tokio::fs::File::open(&file).await.map_err(|error| failed(&error))?;
        let mut chunk = vec![0; 1 << 20];
        loop {
            let count = tokio::io::AsyncReadExt::read(&mut file, &mut chunk).await;
            let count = count.map_err(|error| failed(&error))?;
            if count == 0 {
                break;
            }
            writer.wait_for_capacity(4).await.map_err(|error| failed(&error))?;
            writer.write(&chunk[..count]);
        }
        writer.finish().await.map_err(|error| failed(&error))?;
        Ok(true)
    }
}

/// Fetches an allowed address: an object of a store, or a file by HTTP.
pub(super) fn fetch_url(url: &Url, egress: EgressPolicy) -> Result<Fetched, AudienceError> {
    let name = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default().to_owned();
    let failed = |detail: String| AudienceError::Unreachable { name: name.clone(), detail };
    if is_store(url.as_str()) {
        let bucket = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
        let bucket = Bucket::open(&bucket).map_err(failed)?;
        let path = ObjectPath::from_url_path(url.path()).map_err(|error| failed(error.to_string()))?;
        return fetch(bucket.store, path, &name, |name| AudienceError::Gone { name });
    }
    let options = ClientOptions::new().with_allow_http(true);
    let builder = HttpBuilder::new().with_url(url.as_str()).with_client_options(options);
    let store = builder.with_http_connector(Connector(egress)).build();
    let store = store.map_err(|error| failed(hidden(&error, url)))?;
    fetch(Arc::new(store), ObjectPath::default(), &name, |name| AudienceError::Gone { name })
}

/// Returns the text of an error without the URL's query, which may contain a signature.
fn hidden(error: &object_store::Error, url: &Url) -> String {
    let text = error.to_string();
    url.query().map_or(text.clone(), |query| text.replace(query, "…"))
}

/// Fetches an object into a file, and resumes interrupted transfers.
fn fetch(
    store: Arc<dyn ObjectStore>,
    path: ObjectPath,
    name: &str,
    gone: impl Fn(String) -> AudienceError,
) -> Result<Fetched, AudienceError> {
    let io = |source: std::io::Error| AudienceError::Io { name: name.into(), source };
    let folder = std::env::temp_dir()
        .canonicalize()
        .and_then(|folder| tempfile::Builder::new().prefix("flowcast-audience-").tempdir_in(folder))
        .map_err(io)?;
    // Keep the extension: it says how the file is compressed.
    let plain: String =
        name.rsplit('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    let file_name =
        if plain.trim_matches('.').is_empty() || plain.len() > 200 { "audience.csv".into() } else { plain };
    let target = folder.path().join(file_name);
    let file = std::fs::File::create(&target).map_err(io)?;
    let moved = wait_for(async move { transfer(&*store, &path, file).await });
    match moved.unwrap_or_else(|error| Err(TransferError::Broken(error))) {
        Ok(()) => Ok(Fetched { path: target, _folder: Arc::new(folder) }),
        Err(TransferError::Gone) => Err(gone(name.into())),
        Err(TransferError::TooLarge) => Err(AudienceError::TooLargeToFetch(name.into())),
        Err(TransferError::Unwritten(error)) => Err(io(error)),
        Err(TransferError::Broken(detail)) => Err(AudienceError::Unreachable { name: name.into(), detail }),
    }
}

enum TransferError {
    Gone,
    TooLarge,
    Unwritten(std::io::Error),
    Broken(String),
}

fn changed() -> TransferError {
    TransferError::Broken("it changed while it was read; upload it under a new name".into())
}

async fn transfer(
    store: &dyn ObjectStore,
    path: &ObjectPath,
    mut file: std::fs::File,
) -> Result<(), TransferError> {
    let (mut known, mut have, mut failures) = (None::<ObjectMeta>, 0_u64, 0);
    loop {
        let before = have;
        let options = GetOptions {
            range: (have > 0).then_some(GetRange::Offset(have)),
            // A resumed transfer must read the same version.
            if_match: known.as_ref().filter(|_| have > 0).and_then(|meta| meta.e_tag.clone()),
            ..GetOptions::default()
        };
        let error = match store.get_opts(path, options).await {
            Err(object_store::Error::NotFound { .. }) => return Err(TransferError::Gone),
            Err(object_store::Error::Precondition { .. }) => return Err(changed()),
            Err(error) => error.to_string(),
            Ok(answer) => {
                let size = answer.meta.size;
                if size > MAX_BYTES {
                    return Err(TransferError::TooLarge);
                }
                let is_other = |meta: &ObjectMeta| {
                    let own = (size, &answer.meta.e_tag, answer.meta.last_modified);
                    (meta.size, &meta.e_tag, meta.last_modified) != own
                };
                if known.as_ref().is_some_and(is_other) {
                    return Err(changed());
                }
                known.get_or_insert(answer.meta.clone());
                let mut stream = answer.into_stream().map_err(|error| error.to_string());
                loop {
                    match tokio::time::timeout(IDLE_TIMEOUT, stream.next()).await {
                        Err(_) => break format!("no data arrived for {} s", IDLE_TIMEOUT.as_secs()),
                        Ok(Some(Err(error))) => break error,
                        Ok(Some(Ok(chunk))) => {
                            file.write_all(&chunk).map_err(TransferError::Unwritten)?;
                            have += chunk.len() as u64;
                            if have > MAX_BYTES {
                                return Err(TransferError::TooLarge);
                            }
                        }
                        Ok(None) if have == size => {
                            return file.sync_all().map_err(TransferError::Unwritten);
                        }
                        Ok(None) => break format!("it ended after {have} of {size} bytes"),
                    }
                }
            }
        };
        failures = if have > before { 1 } else { failures + 1 };
        if failures > TRIES {
            return Err(TransferError::Broken(error));
        }
        tracing::warn!(bytes = have, failures, "transfer of an audience interrupted; resuming");
        tokio::time::sleep(RETRY.delay_after(failures - 1)).await;
    }
}
