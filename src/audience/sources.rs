//! The sources from which audiences may be read: a folder or a bucket, and the URL prefixes that the configuration
//! allows. Jobs are untrusted, so nothing else is ever read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use url::{Host, Url};

use super::remote::{Bucket, fetch_url, is_store};
use super::{AudienceError, Source, resolve};
use crate::campaign::{Columns, job::CsvSource};
use crate::egress::EgressPolicy;

/// The allowed sources of audiences, and the maximum number of columns.
#[derive(Clone, Debug)]
pub struct Audiences {
    root: Option<Root>,
    allow: Arc<Vec<Url>>,
    columns: usize,
}

impl Default for Audiences {
    fn default() -> Self {
        Self { root: None, allow: Arc::default(), columns: Columns::USUAL_LIMIT }
    }
}

/// The root of a job's paths.
#[derive(Clone, Debug)]
pub enum Root {
    /// A folder on this machine, or one that all workers have mounted.
    Folder(PathBuf),
    /// A folder of an object store, which all workers can read.
    Bucket(Bucket),
}

impl Audiences {
    /// Allows a folder and no URL.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self { root: Some(Root::Folder(path.into())), ..Self::default() }
    }

    /// Reads the configuration: `audiences.root`, a path or the address of a bucket, and `audiences.allow`, URL
    /// prefixes.
    ///
    /// # Errors
    ///
    /// The invalid key and the reason.
    pub fn new(root: Option<&str>, allow: &[String]) -> Result<Self, String> {
        let root = match root {
            Some(root) if is_store(root) => {
                Some(Root::Bucket(Bucket::open(root).map_err(|error| format!("audiences.root: {error}"))?))
            }
            Some(root) if root.contains("://") => {
                return Err(format!("audiences.root: {root} is neither a folder nor a bucket (s3, gs, az)"));
            }
            root => root.map(|root| Root::Folder(root.into())),
        };
        let read = |(nth, text): (usize, &String)| {
            let wrong = |error: &str| format!("audiences.allow.{nth}: {text}: {error}");
            let prefix = "must be a URL prefix, e.g. https://files.example.com/";
            let url: Url = text.parse().map_err(|_| wrong(prefix))?;
            let is_known = matches!(url.scheme(), "http" | "https") || is_store(url.as_str());
            match url.host_str() {
                Some(host) if is_known && !host.is_empty() => Ok(url),
                _ => Err(wrong(prefix)),
            }
        };
        let allow = allow.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(Self { root, allow: Arc::new(allow), ..Self::default() })
    }

    /// Sets the maximum number of columns (`audiences.columns`).
    #[must_use]
    pub fn with_columns(self, columns: usize) -> Self {
        Self { columns, ..self }
    }

    /// Returns the maximum number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Returns the root of paths.
    pub fn root(&self) -> Option<&Root> {
        self.root.as_ref()
    }

    /// Returns a job's audience, which is fetched if it is not on this machine.
    ///
    /// # Errors
    ///
    /// If it does not exist, is not allowed, or cannot be reached.
    pub fn find(&self, csv: &CsvSource) -> Result<Source, AudienceError> {
        match (&csv.path, &csv.url) {
            (Some(path), _) => self.find_path(path),
            (None, Some(url)) => {
                let (url, egress) = self.allowed(url)?;
                Ok(Source::Fetched(fetch_url(&url, egress)?))
            }
            (None, None) => Err(AudienceError::Empty("the audience".into())),
        }
    }

    /// Returns a file below the root.
    ///
    /// # Errors
    ///
    /// As [`Audiences::find`].
    pub fn find_path(&self, path: &str) -> Result<Source, AudienceError> {
        match &self.root {
            None => Err(AudienceError::NoRoot),
            Some(Root::Folder(root)) => Ok(Source::File(resolve(root, path)?)),
            Some(Root::Bucket(bucket)) => Ok(Source::Fetched(bucket.fetch(path)?)),
        }
    }

    /// Checks that the configuration allows an address, and returns it with the policy for connections.
    fn allowed(&self, text: &str) -> Result<(Url, EgressPolicy), AudienceError> {
        let refused = |why: &str| AudienceError::NotAllowed(why.to_owned());
        let url: Url = text.parse().map_err(|_| refused("is not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("must not contain credentials; configure them for the object store"));
        }
        let begins = |allowed: &&Url| {
            let place = |url: &Url| {
                (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default())
            };
            let below = allowed.path().trim_end_matches('/');
            let rest = url.path().strip_prefix(below);
            place(allowed) == place(&url) && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let Some(allowed) = self.allow.iter().find(begins) else {
            return Err(refused(
                "does not begin with any URL prefix in audiences.allow; add its prefix there",
            ));
        };
        // A prefix with an IP address allows exactly that address, even a private one; the addresses of a host name
        // are checked.
        let allow_private = matches!(allowed.host(), Some(Host::Ipv4(_) | Host::Ipv6(_)));
        Ok((url, EgressPolicy { allow_private }))
    }
}

impl Root {
    /// Returns the folder, if the root is one.
    pub fn as_folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(path) => Some(path),
            Self::Bucket(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_if_the_configuration_allows_its_prefix() {
        let allow = ["https://files.example.com/campaigns", "s3://audiences/", "http://127.0.0.1:9000/"];
        let audiences = Audiences::new(None, &allow.map(str::to_owned)).unwrap();
        for url in [
            "https://files.example.com/campaigns/a.csv",
            "https://FILES.example.com:443/campaigns/b/a.csv?signature=x",
            "s3://audiences/a/b.csv",
            "http://127.0.0.1:9000/a.csv",
        ] {
            assert!(audiences.allowed(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "a.csv",
            "https://files.example.com/campaigns-of-others/a.csv",
            "https://files.example.com/campaigns/../secret.csv",
            "https://files.example.com/campaigns/%2e%2e/secret.csv",
            "http://files.example.com/campaigns/a.csv",
            "https://files.example.com:8443/campaigns/a.csv",
            "https://files.example.com.evil.example/campaigns/a.csv",
            "https://evil.example/?https://files.example.com/campaigns/",
            "https://user:pass@files.example.com/campaigns/a.csv",
            "https://files.example.com@evil.example/campaigns/a.csv",
            "s3://other/a.csv",
            "file:///etc/passwd",
            "http://169.254.169.254/latest/meta-data",
        ] {
            assert!(matches!(audiences.allowed(url), Err(AudienceError::NotAllowed(_))), "{url}");
        }
        assert!(!audiences.allowed("https://files.example.com/campaigns/a").unwrap().1.allow_private);
        assert!(audiences.allowed("http://127.0.0.1:9000/a").unwrap().1.allow_private);
    }

    #[test]
    fn an_invalid_source_is_reported_with_its_key() {
        let error = |root: Option<&str>, allow: &[&str]| {
            Audiences::new(root, &allow.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap_err()
        };
        assert!(error(Some("ftp://x/y"), &[]).starts_with("audiences.root: ftp://x/y is neither"));
        assert!(error(Some("s3:///folder"), &[]).starts_with("audiences.root: "));
        assert!(error(None, &["files.example.com"]).starts_with("audiences.allow.0: "));
        assert!(error(None, &["https://a.example/", "file:///etc/"]).starts_with("audiences.allow.1: "));
    }
}
