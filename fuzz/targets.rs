//! What is fed with hostile bytes, one function each: none may panic, hang, or take memory without bound. A fuzzer
//! runs them (`cargo fuzz run TARGET`), and so do the project's tests, on the corpus and on changes of it.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use flowcast::audience::{Audiences, Settings, Source, numbers, scan};
use flowcast::campaign::control::Control;
use flowcast::campaign::{Batch, Columns, Job, Template};
use flowcast::config::Config;
use flowcast::provider::{Credentials, Kind, PROVIDERS, Provider, Reply, classify};

/// A target by its name: its function, and how the name of a file that it reads ends.
pub type Target = (&'static str, fn(&[u8], &Path));

/// All of them. The path is a folder to write to.
pub const TARGETS: [Target; 7] = [
    ("jobs", jobs),
    ("csv", csv),
    ("workbooks", workbooks),
    ("templates", templates),
    ("answers", answers),
    ("callbacks", callbacks),
    ("configuration", configuration),
];

static PROVIDERS_OPEN: LazyLock<Vec<Box<dyn Provider>>> = LazyLock::new(|| {
    let credentials = Credentials {
        account_sid: "a".into(),
        api_key: "k".into(),
        api_token: "t".into(),
        ..Credentials::default()
    };
    let open = |kind: &&'static Kind| {
        let url = "http://127.0.0.1:1".parse().ok()?;
        (kind.open)(&url, &credentials).ok()
    };
    PROVIDERS.iter().filter_map(open).collect()
});

/// A job or a control document from the queue.
fn jobs(bytes: &[u8], _: &Path) {
    if let Some(Ok(control)) = Control::read(bytes) {
        let _ = format!("{control:?}");
    }
    match Job::read(bytes) {
        Ok(job) => {
            let _ = (job.fingerprint(), job.content_fingerprint());
        }
        Err(problems) => assert!(!problems.is_empty() && problems.len() < 10_000),
    }
}

/// An audience in CSV: every dialect is found, every row is a person or a reason.
fn csv(bytes: &[u8], folder: &Path) {
    audience(bytes, &folder.join("a.csv"), folder);
}

/// An audience in a workbook.
fn workbooks(bytes: &[u8], folder: &Path) {
    audience(bytes, &folder.join("a.xlsx"), folder);
}

fn audience(bytes: &[u8], file: &Path, folder: &Path) {
    if std::fs::write(file, bytes).is_err() {
        return;
    }
    let root = folder.display().to_string();
    let Ok(audiences) = Audiences::new(Some(&root), &[]) else { return };
    let Some(name) = file.file_name().and_then(|name| name.to_str()) else { return };
    let Ok(source) = audiences.find_path(name) else { return };
    read_all(&source);
}

fn read_all(source: &Source) {
    let Ok(scanned) = scan(source, None) else { return };
    let _ = (scanned.rows, Settings::default());
    if let Ok((numbers, left_out)) = numbers(source, None, Some("IN".into())) {
        assert!(numbers.len() as u64 + left_out <= scanned.rows, "more people than rows");
    }
}

/// What stands between braces in a job's message.
fn templates(bytes: &[u8], _: &Path) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let job = serde_json::json!({
        "version": 1, "id": "c1", "account": "main", "from": "+912248931479",
        "audience": { "recipients": [{ "phone": "+919876543210", "name": "Zoë" }] },
        "message": { "type": "text", "text": { "body": text } },
    });
    let Ok(job) = Job::read(job.to_string().as_bytes()) else { return };
    let columns = Columns::new(vec!["phone".into(), "name".into()]);
    let Some(Ok(envelope)) = PROVIDERS_OPEN.first().map(|provider| provider.envelope(&job, false)) else {
        return;
    };
    let compiled = Template::compile(&envelope, &job.limits_of_strings, job.check_rendered, &columns, None);
    let Ok(template) = compiled else { return };
    let Ok(campaign) = "c1".parse() else { return };
    let mut batch = Batch::new(campaign, 0, template.columns().len(), false);
    let Ok(phone) = "+919876543210".parse() else { return };
    let values = ["+919876543210", "Zoë"];
    batch.push(
        1,
        phone,
        template.columns().iter().map(|column| values.get(*column).copied().unwrap_or_default()),
    );
    if let Some(recipient) = batch.recipient(0) {
        let mut out = Vec::new();
        let _ = template.render(&recipient, &mut out);
        assert!(out.len() < 1 << 20, "{} bytes of one message", out.len());
    }
}

/// An answer of each provider, under every kind of status, to one message and to many.
fn answers(bytes: &[u8], _: &Path) {
    for provider in PROVIDERS_OPEN.iter() {
        for status in [200, 202, 207, 301, 400, 401, 429, 500, 502] {
            let retry_after = Some(Duration::from_secs(1));
            let reply = Reply { status, retry_after, body: bytes.to_vec().into() };
            for count in [1, 3] {
                let answer = classify(&reply, provider.parse(&reply, count));
                assert!(format!("{answer:?}").len() < 64 * (bytes.len() + 1024));
            }
        }
    }
}

/// A callback of each provider.
fn callbacks(bytes: &[u8], _: &Path) {
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    for provider in PROVIDERS_OPEN.iter() {
        // A body has room for so many reports and no more.
        assert!(provider.reports(&json).len() <= bytes.len());
        assert!(provider.notices(&json).len() <= bytes.len());
    }
}

/// A configuration.
fn configuration(bytes: &[u8], folder: &Path) {
    let file = folder.join("flowcast.toml");
    if std::fs::write(&file, bytes).is_ok()
        && let Err(fault) = Config::load(Some(&file))
    {
        assert!(!fault.0.is_empty() && fault.0.len() < 64 * (bytes.len() + 1024));
    }
}
