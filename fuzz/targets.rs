//! Fuzz targets, a function each: none may panic, hang or use unbounded memory. A fuzzer runs them (`cargo fuzz run TARGET`),
//! and so do the tests, on the corpus and on mutations of it.

use std::io::Write;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use flowcast::audience::{Audiences, Settings, Source, numbers, scan};
use flowcast::campaign::control::Control;
use flowcast::campaign::{Batch, Columns, Job, Problem, Template};
use flowcast::config::Config;
use flowcast::provider::{Credentials, HttpResponse, Kind, PROVIDERS, Provider, classify};

/// Name and function of a target. The path is a folder for its files.
pub type Target = (&'static str, fn(&[u8], &Path));

/// All targets.
pub const TARGETS: [Target; 10] = [
    ("jobs", jobs),
    ("csv", csv),
    ("workbooks", workbooks),
    ("templates", templates),
    ("answers", answers),
    ("callbacks", callbacks),
    ("configuration", configuration),
    ("long_strings", long_strings),
    ("workbook_xml", workbook_xml),
    ("wide_rows", wide_rows),
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

/// Reads a job or a control document from the queue.
fn jobs(bytes: &[u8], _: &Path) {
    if let Some(Ok(control)) = Control::read(bytes) {
        let _ = format!("{control:?}");
    }
    match Job::read(bytes) {
        Ok(job) => {
            let _ = (job.fingerprint(), job.content_fingerprint());
        }
        Err(problems) => are_short(&problems),
    }
}

/// Asserts that the problems of a job have a bounded size.
fn are_short(problems: &[Problem]) {
    let bytes: usize = problems.iter().map(|problem| problem.pointer.len() + problem.message.len()).sum();
    assert!(
        (1..=21).contains(&problems.len()) && bytes < 32 << 10,
        "{} problems, {bytes} bytes",
        problems.len()
    );
}

/// Reads a job with a long name or string at some place, or with very many of either.
///
/// The first bytes choose the place, the kind and the length; the others are the text that is repeated.
fn long_strings(bytes: &[u8], _: &Path) {
    let Some((&[place, kind, high, low], text)) = bytes.split_first_chunk::<4>() else { return };
    let text = String::from_utf8_lossy(text);
    let mut job = serde_json::json!({
        "version": 1, "id": "c1", "name": "x", "account": "main", "from": "+912248931479", "custom_data": "x",
        "status_callback": "https://example.com/x", "extra_info": { "ref1": "x" }, "limits": { "messages": "1/s" },
        "schedule": { "start_at": "2030-01-01T00:00:00Z", "window": { "from": "09:00", "to": "21:00", "timezone": "Asia/Kolkata" } },
        "stop_when": { "rejected_percent": 20 }, "on_in_doubt": "hold",
        "audience": { "recipients": [{ "phone": "+919876543210", "name": "Zoë" }], "csv": { "path": "a.csv", "phone": "x" } },
        "message": { "type": "interactive", "interactive": { "type": "flow", "body": { "text": "x" }, "action": { "name": "flow",
            "parameters": { "flow_message_version": "3", "flow_id": "1", "flow_token": "x", "flow_cta": "x",
                "flow_action_payload": { "screen": "A", "data": { "list": ["x"] } } } } } },
    });
    let mut places = Vec::new();
    collect(&job, String::new(), &mut places);
    let Some(at) = places.get(usize::from(place) % places.len()).and_then(|pointer| job.pointer_mut(pointer))
    else {
        return;
    };
    let long =
        text.repeat(usize::from(u16::from_be_bytes([high, low])).min((1 << 20) / text.len().max(1)) + 1);
    match (kind % 4, at) {
        (0, at) => *at = long.into(),
        (1, serde_json::Value::Object(map)) => {
            map.insert(long, 1.into());
        }
        (2, serde_json::Value::Object(map)) => {
            map.extend((0..=usize::from(low) * 8).map(|nth| (format!("{text}{nth}"), nth.into())));
        }
        (_, at) => *at = vec![long.chars().take(40).collect::<String>(); 1 + usize::from(low) * 8].into(),
    }
    if let Err(problems) = Job::read(job.to_string().as_bytes()) {
        are_short(&problems);
    }
}

/// Collects the pointers of all values in a document.
fn collect(value: &serde_json::Value, pointer: String, places: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            map.iter().for_each(|(name, value)| collect(value, format!("{pointer}/{name}"), places));
        }
        serde_json::Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(nth, value)| collect(value, format!("{pointer}/{nth}"), places));
        }
        _ => {}
    }
    places.push(pointer);
}

/// Reads a workbook with one part of hostile XML, which the first byte chooses.
fn workbook_xml(bytes: &[u8], folder: &Path) {
    const PARTS: [(&str, &str); 5] = [
        (
            "xl/worksheets/sheet1.xml",
            r#"<worksheet><sheetData><row><c t="s"><v>0</v></c></row><row><c s="1"><v>919876543210</v></c></row></sheetData></worksheet>"#,
        ),
        ("xl/sharedStrings.xml", "<sst><si><t>phone</t></si></sst>"),
        (
            "xl/styles.xml",
            r#"<styleSheet><numFmts><numFmt numFmtId="164" formatCode="0"/></numFmts><cellXfs><xf/><xf numFmtId="164"/></cellXfs></styleSheet>"#,
        ),
        ("xl/workbook.xml", r#"<workbook><sheets><sheet name="a" r:id="r1"/></sheets></workbook>"#),
        (
            "xl/_rels/workbook.xml.rels",
            r#"<Relationships><Relationship Id="r1" Type="a/worksheet" Target="worksheets/sheet1.xml"/><Relationship Id="r2" Type="a/sharedStrings" Target="sharedStrings.xml"/><Relationship Id="r3" Type="a/styles" Target="/xl/styles.xml"/></Relationships>"#,
        ),
    ];
    let Some((which, xml)) = bytes.split_first() else { return };
    let write = || -> Result<Vec<u8>, zip::result::ZipError> {
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let stored =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (nth, (name, usual)) in PARTS.iter().enumerate() {
            archive.start_file(*name, stored)?;
            archive.write_all(if nth == usize::from(*which) % PARTS.len() {
                xml
            } else {
                usual.as_bytes()
            })?;
        }
        Ok(archive.finish()?.into_inner())
    };
    if let Ok(workbook) = write() {
        audience(&workbook, &folder.join("a.xlsx"), folder);
    }
}

/// Reads wide rows of different widths, in a file and in a job's list of recipients.
fn wide_rows(bytes: &[u8], folder: &Path) {
    let Some((&[wide, high], rest)) = bytes.split_first_chunk::<2>() else { return };
    let width = 1 + usize::from(wide) * 8;
    let header: Vec<String> = (0..width).map(|nth| format!("c{nth}")).collect();
    let mut csv = format!("phone,{}\n", header.join(","));
    let mut list = Vec::new();
    for (nth, byte) in rest.iter().cycle().take(1 + usize::from(high) / 32).enumerate() {
        csv += &format!("+91987654{nth:04}{}\n", ",x".repeat(usize::from(*byte) * 8));
        let mut recipient = serde_json::Map::new();
        recipient.insert("phone".into(), format!("+91987654{nth:04}").into());
        recipient.extend((0..u32::from(*byte)).map(|column| (format!("r{nth}c{column}"), column.into())));
        list.push(recipient);
    }
    audience(csv.as_bytes(), &folder.join("a.csv"), folder);
    read_all(&Source::List(list));
}

/// Reads an audience in CSV.
fn csv(bytes: &[u8], folder: &Path) {
    audience(bytes, &folder.join("a.csv"), folder);
}

/// Reads an audience in a workbook.
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
    let Ok(scanned) = scan(source, &Settings::default()) else { return };
    let _ = (scanned.rows, Settings::default());
    if let Ok(list) = numbers(source, None, Some("IN".into()), 10) {
        let rows = list.numbers.len() as u64 + list.duplicates + list.unreadable;
        assert!(rows <= scanned.rows && list.unreadable_rows.len() <= 10, "more numbers than rows");
    }
}

/// Compiles and renders a template in a job's message.
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

/// Classifies a response of each provider, with each kind of status, to one message and to many.
fn answers(bytes: &[u8], _: &Path) {
    for provider in PROVIDERS_OPEN.iter() {
        for status in [200, 202, 207, 301, 400, 401, 429, 500, 502] {
            let retry_after = Some(Duration::from_secs(1));
            let reply = HttpResponse { status, retry_after, body: bytes.to_vec().into() };
            for count in [1, 3] {
                let outcome = classify(&reply, provider.parse(&reply, count));
                assert!(format!("{outcome:?}").len() < 64 * (bytes.len() + 1024));
            }
        }
    }
}

/// Reads a callback of each provider.
fn callbacks(bytes: &[u8], _: &Path) {
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    for provider in PROVIDERS_OPEN.iter() {
        // A body cannot contain more reports than bytes.
        assert!(provider.reports(&json).len() <= bytes.len());
        assert!(provider.notices(&json).len() <= bytes.len());
    }
}

/// Reads a configuration.
fn configuration(bytes: &[u8], folder: &Path) {
    let file = folder.join("flowcast.toml");
    if std::fs::write(&file, bytes).is_ok()
        && let Err(error) = Config::load(Some(&file))
    {
        assert!(!error.0.is_empty() && error.0.len() < 64 * (bytes.len() + 1024));
    }
}
