//! Audiences that lie elsewhere: in an object store, or at an address. They are fetched into a file of this
//! machine, and read there as every other: packed ones and workbooks too.
//!
//! A transfer that breaks off goes on where it stood, as long as it is the same object. Redirects are not
//! followed, and an address that a job names leads to nothing inside our network.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpClient, HttpConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use object_store::{PutMode, PutOptions, WriteMultipart};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use url::Url;

use super::AudienceError;
use crate::backoff::Backoff;
use crate::egress::EgressPolicy;

/// The largest object, in bytes: as the largest upload.
pub(super) const LARGEST: u64 = 2 << 30;
/// How often a transfer that makes no progress is taken up again.
const TRIES: u32 = 5;
/// Delays before that.
const RETRY: Backoff = Backoff::new(Duration::from_millis(400), Duration::from_secs(10));
/// No longer may nothing come.
const SILENCE: Duration = Duration::from_secs(30);
/// Up to so many bytes an object is written with one request, which fails where one is there already.
const ONE_REQUEST: usize = 32 << 20;
/// The schemes of object stores.
const STORES: [&str; 5] = ["s3", "s3a", "gs", "az", "azure"];

/// What transfers run on: whoever waits for one is a thread that reads an audience.
static RUNTIME: LazyLock<Result<Runtime, String>> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.worker_threads(1).thread_name("audiences").enable_all().build();
    built.map_err(|fault| format!("can't start a thread: {fault}"))
});

/// Runs something to its end on the thread of transfers.
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

/// A file that was fetched; it goes with the last of its readers.
#[derive(Clone, Debug)]
pub struct Fetched {
    path: PathBuf,
    _folder: Arc<TempDir>,
}

impl Fetched {
    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

/// Connections that go where a configuration says, or outside alone, and nowhere else from there.
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
            .read_timeout(SILENCE)
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
    /// As it is configured.
    name: String,
    store: Arc<dyn ObjectStore>,
    folder: ObjectPath,
}

/// An object of a bucket.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its path below the folder.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// When it was last written, in milliseconds since 1970.
    pub at: i64,
}

/// Whether an address is one of an object store.
pub(super) fn is_store(address: &str) -> bool {
    address.split_once("://").is_some_and(|(scheme, _)| STORES.contains(&scheme))
}

impl Bucket {
    /// The folder at an address, as `s3://bucket/folder`. Credentials and endpoints come from the environment,
    /// under the names that the makers of each store use.
    ///
    /// # Errors
    ///
    /// What is wrong with the address or the environment.
    pub fn open(address: &str) -> Result<Self, String> {
        let url: Url = address.parse().map_err(|fault| format!("{address} is no address: {fault}"))?;
        let bucket = url.host_str().filter(|host| !host.is_empty());
        let bucket = bucket.ok_or_else(|| format!("{address} names no bucket, as s3://bucket/folder"))?;
        // Whoever configures an endpoint says where it is.
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
            other => return Err(format!("{other}:// is no object store; s3, gs and az are")),
        };
        let store = store.map_err(|fault| format!("{address}: {fault}"))?;
        let folder = ObjectPath::from_url_path(url.path()).map_err(|fault| format!("{address}: {fault}"))?;
        Ok(Self { name: address.trim_end_matches('/').to_owned(), store, folder })
    }

    /// As it is configured.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn place(&self, path: &str) -> Result<ObjectPath, AudienceError> {
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
    /// When it is not there, or the store can't be reached.
    pub fn fetch(&self, path: &str) -> Result<Fetched, AudienceError> {
        let gone = |path| AudienceError::NotFound { path, root: self.name.clone() };
        fetch(self.store.clone(), self.place(path)?, path, gone)
    }

    /// The objects of the folder itself, in no order.
    ///
    /// # Errors
    ///
    /// When the store can't be reached.
    pub async fn list(&self) -> Result<Vec<Object>, String> {
        let listed = self.store.list_with_delimiter(Some(&self.folder)).await;
        let object = |meta: ObjectMeta| {
            let path = meta.location.filename()?.to_owned();
            Some(Object { path, bytes: meta.size, at: meta.last_modified.timestamp_millis() })
        };
        let listed = listed.map_err(|fault| format!("{} can't be listed: {fault}", self.name))?;
        Ok(listed.objects.into_iter().filter_map(object).collect())
    }

    /// Deletes an object. Returns whether it was there.
    ///
    /// # Errors
    ///
    /// When the store can't be written.
    pub async fn delete(&self, name: &str) -> Result<bool, String> {
        let failed =
            |fault: &dyn std::fmt::Display| format!("{name} can't be deleted from {}: {fault}", self.name);
        let place = self.place(name).map_err(|fault| failed(&fault))?;
        match self.store.head(&place).await {
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            Err(fault) => return Err(failed(&fault)),
        }
        self.store.delete(&place).await.map_err(|fault| failed(&fault))?;
        Ok(true)
    }

    /// Writes a file under a name that is free. Returns whether it was.
    ///
    /// # Errors
    ///
    /// When the file can't be read, or the store can't be written.
    pub async fn put(&self, name: &str, file: PathBuf) -> Result<bool, String> {
        let failed =
            |fault: &dyn std::fmt::Display| format!("{name} can't be written to {}: {fault}", self.name);
        let place = self.place(name).map_err(|fault| failed(&fault))?;
        match self.store.head(&place).await {
            Ok(_) => return Ok(false),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(fault) => return Err(failed(&fault)),
        }
        let size = tokio::fs::metadata(&file).await.map_err(|fault| failed(&fault))?.len();
        if size <= ONE_REQUEST as u64 {
            let bytes = tokio::fs::read(&file).await.map_err(|fault| failed(&fault))?;
            let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            return match self.store.put_opts(&place, bytes.into(), create).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                Err(fault) => Err(failed(&fault)),
            };
        }
        // In parts, and there when the last is: two of one name at the same moment end as one of them.
        let upload = self.store.put_multipart(&place).await.map_err(|fault| failed(&fault))?;
        let mut writer = WriteMultipart::new(upload);
        let mut file = tokio::fs::File::open(&file).await.map_err(|fault| failed(&fault))?;
        let mut chunk = vec![0; 1 << 20];
        loop {
            let count = tokio::io::AsyncReadExt::read(&mut file, &mut chunk).await;
            let count = count.map_err(|fault| failed(&fault))?;
            if count == 0 {
                break;
            }
            writer.wait_for_capacity(4).await.map_err(|fault| failed(&fault))?;
            writer.write(&chunk[..count]);
        }
        writer.finish().await.map_err(|fault| failed(&fault))?;
        Ok(true)
    }
}

/// Fetches what is at an address that was allowed: an object of a store, or a file by HTTP.
pub(super) fn fetch_url(url: &Url, egress: EgressPolicy) -> Result<Fetched, AudienceError> {
    let name = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default().to_owned();
    let failed = |detail: String| AudienceError::Unreachable { name: name.clone(), detail };
    if is_store(url.as_str()) {
        let bucket = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
        let bucket = Bucket::open(&bucket).map_err(failed)?;
        let path = ObjectPath::from_url_path(url.path()).map_err(|fault| failed(fault.to_string()))?;
        return fetch(bucket.store, path, &name, |name| AudienceError::Gone { name });
    }
    let options = ClientOptions::new().with_allow_http(true);
    let builder = HttpBuilder::new().with_url(url.as_str()).with_client_options(options);
    let store = builder.with_http_connector(Connector(egress)).build();
    let store = store.map_err(|fault| failed(hidden(&fault, url)))?;
    fetch(Arc::new(store), ObjectPath::default(), &name, |name| AudienceError::Gone { name })
}

/// A fault without the address's query, which may hold a signature.
fn hidden(fault: &object_store::Error, url: &Url) -> String {
    let text = fault.to_string();
    url.query().map_or(text.clone(), |query| text.replace(query, "…"))
}

/// Fetches an object into a file, taking the transfer up again where it broke off.
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
    // Its ending says how it is packed.
    let plain: String =
        name.rsplit('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    let file_name =
        if plain.trim_matches('.').is_empty() || plain.len() > 200 { "audience.csv".into() } else { plain };
    let target = folder.path().join(file_name);
    let file = std::fs::File::create(&target).map_err(io)?;
    let moved = wait_for(async move { transfer(&*store, &path, file).await });
    match moved.unwrap_or_else(|fault| Err(Fault::Broken(fault))) {
        Ok(()) => Ok(Fetched { path: target, _folder: Arc::new(folder) }),
        Err(Fault::Gone) => Err(gone(name.into())),
        Err(Fault::TooLarge) => Err(AudienceError::TooLargeToFetch(name.into())),
        Err(Fault::Unwritten(fault)) => Err(io(fault)),
        Err(Fault::Broken(detail)) => Err(AudienceError::Unreachable { name: name.into(), detail }),
    }
}

enum Fault {
    Gone,
    TooLarge,
    Unwritten(std::io::Error),
    Broken(String),
}

fn changed() -> Fault {
    Fault::Broken("it was changed while it was read; hand it in under a new name".into())
}

async fn transfer(store: &dyn ObjectStore, path: &ObjectPath, mut file: std::fs::File) -> Result<(), Fault> {
    let (mut known, mut have, mut failures) = (None::<ObjectMeta>, 0_u64, 0);
    loop {
        let before = have;
        let options = GetOptions {
            range: (have > 0).then_some(GetRange::Offset(have)),
            // What is there now must be what was begun.
            if_match: known.as_ref().filter(|_| have > 0).and_then(|meta| meta.e_tag.clone()),
            ..GetOptions::default()
        };
        let fault = match store.get_opts(path, options).await {
            Err(object_store::Error::NotFound { .. }) => return Err(Fault::Gone),
            Err(object_store::Error::Precondition { .. }) => {
                return Err(changed());
            }
            Err(fault) => fault.to_string(),
            Ok(answer) => {
                let size = answer.meta.size;
                if size > LARGEST {
                    return Err(Fault::TooLarge);
                }
                let is_other = |meta: &ObjectMeta| {
                    let own = (size, &answer.meta.e_tag, answer.meta.last_modified);
                    (meta.size, &meta.e_tag, meta.last_modified) != own
                };
                if known.as_ref().is_some_and(is_other) {
                    return Err(changed());
                }
                known.get_or_insert(answer.meta.clone());
                let mut stream = answer.into_stream().map_err(|fault| fault.to_string());
                loop {
                    match tokio::time::timeout(SILENCE, stream.next()).await {
                        Err(_) => break format!("nothing came for {} s", SILENCE.as_secs()),
                        Ok(Some(Err(fault))) => break fault,
                        Ok(Some(Ok(chunk))) => {
                            file.write_all(&chunk).map_err(Fault::Unwritten)?;
                            have += chunk.len() as u64;
                            if have > LARGEST {
                                return Err(Fault::TooLarge);
                            }
                        }
                        Ok(None) if have == size => {
                            return file.sync_all().map_err(Fault::Unwritten);
                        }
                        Ok(None) => break format!("it ended after {have} of {size} bytes"),
                    }
                }
            }
        };
        failures = if have > before { 1 } else { failures + 1 };
        if failures > TRIES {
            return Err(Fault::Broken(fault));
        }
        tracing::warn!("an audience's transfer broke off after {have} bytes and is taken up again");
        tokio::time::sleep(RETRY.delay_after(failures - 1)).await;
    }
}
