//! Remote audiences, in an object store with the real protocol and at URLs of unreliable servers; and audience files of
//! several formats, which must give the same rows.

use std::sync::{Arc, Mutex};

use flowcast::sandbox::Behaviour;
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::Method;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::service::{FAST, Service, TOKENS};
use crate::support::{World, job, job_with, sandbox};

/// Starts an object store in a folder and returns the environment variables to reach it.
async fn object_store(folder: &std::path::Path) -> Vec<(String, String)> {
    let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder).unwrap());
    service.set_auth(SimpleAuth::from_single("key", "secret"));
    let service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service.clone();
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let endpoint = format!("http://{address}");
    [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_can_be_the_audience_root_without_a_shared_folder() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("audiences/sent")).unwrap();
    let env = object_store(folder.path()).await;
    let root = "audiences = { root = \"s3://audiences/sent\", allow = [\"s3://audiences/others/\"] }\n";
    let mut world = World::new(0);
    world.env = env;
    let service = Service::in_world(world, root, &provider, TOKENS, FAST).await;
    let rows = |from: u64| {
        (from..from + 50).map(|row| format!("{},n{row}\n", crate::support::phone(row))).collect::<String>()
    };
    let csv = format!("phone,name\n{}", rows(0));
    let put = |name: &'static str, body: String| {
        service.send(service.request(Method::POST, &format!("/audiences?name={name}"), "act-1").body(body))
    };
    let first = put("people.csv", csv.clone()).await;
    assert_eq!((first.status.as_u16(), &first.json()["rows"]), (201, &json!(50)), "{first:?}");
    assert!(folder.path().join("audiences/sent/people.csv").exists());
    assert_eq!(put("people.csv", csv).await.status, 200);
    assert_eq!(put("people.csv", format!("phone,name\n{}", rows(50))).await.status, 409);
    put("half.csv", "phone\n\"+91".into()).await.detail(422);
    let listed = service.get("/audiences").await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["items"][0]["path"], "people.csv");

    let sent = job_with("/audience/csv/path", json!("people.csv"));
    assert_eq!(service.post("/campaigns", &sent).await.status, 201);
    assert_eq!(service.until_state("c1", "completed").await["counts"]["accepted"], 50);

    // An object outside the root that the configuration allows.
    std::fs::create_dir_all(folder.path().join("audiences/others")).unwrap();
    std::fs::write(folder.path().join("audiences/others/b.csv"), format!("phone,name\n{}", rows(100)))
        .unwrap();
    let mut other = job();
    other["id"] = "c2".into();
    other["audience"] = json!({ "csv": { "url": "s3://audiences/others/b.csv" } });
    assert_eq!(service.post("/campaigns", &other).await.status, 201);
    assert_eq!(service.until_state("c2", "completed").await["counts"]["accepted"], 50);
    for (audience, expected) in [
        (json!({ "csv": { "path": "nobody.csv" } }), "no such file"),
        (json!({ "csv": { "path": "../others/b.csv" } }), "is outside the audience root"),
        (json!({ "csv": { "url": "s3://audiences/sent/people.csv" } }), "audiences.allow"),
        (json!({ "csv": { "url": "s3://audiences/others/none.csv" } }), "none.csv does not exist"),
    ] {
        let mut refused = other.clone();
        refused["id"] = "c3".into();
        refused["audience"] = audience;
        let detail = service.post("/campaigns", &refused).await.detail(422);
        assert!(detail.contains(expected), "{detail}");
    }
}

/// Builds a file server's response from the request's number, its head and the file.
type Script = Arc<dyn Fn(usize, &str, &[u8]) -> Vec<u8> + Send + Sync>;

/// Starts a server of one file that responds by script and closes. Returns its URL and the heads that it received.
async fn serve_file(content: Vec<u8>, script: Script) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heads = seen.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let head = String::from_utf8_lossy(&head).to_lowercase();
            if head.is_empty() {
                continue;
            }
            let nth = {
                let mut heads = heads.lock().unwrap();
                heads.push(head.clone());
                heads.len() - 1
            };
            let _ = stream.write_all(&script(nth, &head, &content)).await;
        }
    });
    (url, seen)
}

/// Returns a response from the requested offset on, cut after `sent` bytes of content.
fn response(head: &str, content: &[u8], etag: &str, sent: usize) -> Vec<u8> {
    let from =
        head.split("range: bytes=").nth(1).and_then(|rest| rest.split('-').next()?.parse::<usize>().ok());
    let (status, range) = match from {
        Some(from) => (
            "206 Partial Content",
            format!("Content-Range: bytes {from}-{}/{}\r\n", content.len() - 1, content.len()),
        ),
        None => ("200 OK", String::new()),
    };
    let rest = &content[from.unwrap_or_default()..];
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{range}ETag: \"{etag}\"\r\nLast-Modified: Wed, 01 Jul 2026 00:00:00 GMT\r\nConnection: close\r\n\r\n",
        rest.len()
    );
    [head.as_bytes(), &rest[..sent.min(rest.len())]].concat()
}

async fn run_from(url: &str, allow: &str, provider: &str) -> crate::support::CommandOutput {
    let world = World::new(0);
    world.write_config(provider, &format!("{FAST}\n[audiences]\nallow = [\"{allow}\"]"));
    let mut job = job();
    job["audience"] = json!({ "csv": { "url": url } });
    world.write_job(&job);
    world.run(&["run", "job.json", "--json"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_transfer_resumes_where_it_stopped() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let rows: String = (0..5000).map(|row| format!("{},n{row}\n", crate::support::phone(row))).collect();
    let content = format!("phone,name\n{rows}").into_bytes();
    let size = content.len();
    let (url, seen) = serve_file(
        content.clone(),
        Arc::new(move |nth, head, content| match nth {
            0 | 2 => response(head, content, "one", size / 3),
            1 => {
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
            }
            _ => response(head, content, "one", size),
        }),
    )
    .await;
    let ended =
        run_from(&format!("{url}a/people.csv?signature=s3cr3t"), &format!("{url}a/"), &provider).await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let status: Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
    assert_eq!(status["counts"]["accepted"], 5000, "{status}");
    let heads = seen.lock().unwrap().clone();
    assert!(
        heads[0].starts_with("get /a/people.csv?signature=s3cr3t ") && !heads[0].contains("range:"),
        "{heads:?}"
    );
    assert!(heads[1].contains(&format!("range: bytes={}-", size / 3)), "{heads:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsafe_audience_urls_are_refused() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let content = b"phone,name\n+919876543210,Asha\n".to_vec();
    let (target, target_requests) =
        serve_file(content.clone(), Arc::new(|_, head, content| response(head, content, "one", 1000))).await;
    let location = target.clone();
    let redirects: Script = Arc::new(move |_, _, _| {
        format!("HTTP/1.1 302 Found\r\nLocation: {location}secret.csv\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
    });
    let (redirect, _) = serve_file(content.clone(), redirects).await;
    let changes: Script = Arc::new(|nth, head, content| match nth {
        0 => response(head, content, "one", 5),
        _ => b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
    });
    let (change, _) = serve_file(content.clone(), changes).await;
    // A server that ignores which version was requested and sends the rest of another one.
    let swaps: Script = Arc::new(|nth, head, content| match nth {
        0 => response(head, content, "one", 5),
        _ => response(head, content, "two", 1000),
    });
    let (swap, _) = serve_file(content.clone(), swaps).await;
    let (gone, _) = serve_file(
        content,
        Arc::new(|_, _, _| {
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
        }),
    )
    .await;
    let named = target.replace("127.0.0.1", "localhost");
    let refused = [
        (format!("{redirect}a.csv"), redirect.clone(), "cannot fetch"),
        (format!("{change}a.csv"), change.clone(), "changed while it was read"),
        (format!("{swap}a.csv"), swap.clone(), "changed while it was read"),
        (format!("{gone}a.csv?key=s3cr3t"), gone.clone(), "a.csv does not exist"),
        // A host name that resolves to an internal address is refused although its URL prefix is allowed.
        (format!("{named}a.csv"), named.clone(), "cannot fetch"),
        (format!("{target}a.csv"), "https://files.example.com/".into(), "audiences.allow"),
        (format!("{target}b/../../a.csv"), format!("{target}b/"), "audiences.allow"),
    ];
    // All at the same time, because some are retried for a while.
    let runs = refused.map(|(url, allow, expected)| {
        let provider = &provider;
        async move {
            let ended = run_from(&url, &allow, provider).await;
            assert_ne!(ended.status, Some(0), "{url}: {ended:?}");
            assert!(ended.err.contains(expected), "{url}: {ended:?}");
            assert!(!ended.err.contains("s3cr3t"), "{ended:?}");
        }
    });
    futures_util::future::join_all(runs).await;
    assert_eq!(target_requests.lock().unwrap().len(), 0, "no redirect must be followed");
}

/// Rows with names whose bytes differ between encodings, and with numbers that spreadsheets may change.
const ROWS: [(&str, &str, &str); 4] = [
    ("919876543210", "José Müller", "monday"),
    ("919876543211", "Renée – “Zoë”", "=1+1"),
    ("919876543212", "Ünal €5", ""),
    ("12", "Nobody", "x"),
];

fn audience_file(ending: &str) -> Vec<u8> {
    let mut text = String::from("phone,name,slot\n");
    for (phone, name, slot) in ROWS {
        text += &format!("{phone},{name},{slot}\n");
    }
    match ending {
        "windows-1252.csv" => encoding_rs::WINDOWS_1252.encode(&text).0.into_owned(),
        "utf-16.csv" => {
            "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
        }
        "xlsx" => {
            let mut workbook = rust_xlsxwriter::Workbook::new();
            let sheet = workbook.add_worksheet();
            for (column, name) in ["phone", "name", "slot"].into_iter().enumerate() {
                sheet.write(0, u16::try_from(column).unwrap(), name).unwrap();
            }
            for (row, (phone, name, slot)) in (1..).zip(ROWS) {
                // Stored as a number, as spreadsheets do.
                sheet.write(row, 0, phone.parse::<f64>().unwrap()).unwrap();
                sheet.write(row, 1, name).unwrap();
                sheet.write(row, 2, slot).unwrap();
            }
            workbook.save_to_buffer().unwrap()
        }
        _ => text.into_bytes(),
    }
}

/// Returns the rows of a report without SIDs and times.
fn rows_of(report: &str) -> Vec<Value> {
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        json!([line["row"], line["recipient"], line["state"], line["code"]])
    };
    report.lines().map(line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workbooks_and_other_encodings_give_the_same_rows_as_utf8() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(false, &provider, TOKENS).await;
    let world = &service.fleet.world;
    let mut expected: Option<(Vec<Value>, Value)> = None;
    for (nth, ending) in ["utf-8.csv", "windows-1252.csv", "utf-16.csv", "xlsx"].into_iter().enumerate() {
        let name = format!("people-{nth}.{ending}");
        let upload = service.request(Method::POST, &format!("/audiences?name={name}"), "act-1");
        let uploaded = service.send(upload.body(audience_file(ending))).await;
        assert_eq!(uploaded.status, 201, "{ending}: {uploaded:?}");
        let uploaded = uploaded.json();
        assert_eq!(
            uploaded["notes"].is_array(),
            ending.starts_with("win") || ending.starts_with("utf-16"),
            "{uploaded}"
        );
        let mut seen = Vec::new();
        for way in ["run", "submit", "api"] {
            let id = format!("c{nth}-{way}");
            let mut job = job_with("/audience", json!({ "csv": { "path": name, "default_region": "IN" } }));
            job["id"] = id.clone().into();
            job["message"]["text"]["body"] = "Hello {{ name }} {{ slot | default('any day') }}".into();
            world.write_job(&job);
            let report = match way {
                "run" => {
                    // On one machine, with its own store.
                    let config = std::fs::read_to_string(world.path("flowcast.toml")).unwrap();
                    let single =
                        config.split("[redis]").next().unwrap().to_owned() + "[audiences]\nroot = \".\"\n";
                    world.write("alone.toml", single);
                    let ended = world.run(&["--config", "alone.toml", "run", "job.json", "--json"]).await;
                    assert_eq!(ended.status, Some(0), "{ending}: {ended:?}");
                    world.run(&["--config", "alone.toml", "report", &id, "--format", "jsonl"]).await.out
                }
                "submit" => {
                    let ended = world.run(&["submit", "job.json"]).await;
                    assert_eq!(ended.status, Some(0), "{ending}: {ended:?}");
                    service.until_state(&id, "completed").await;
                    world.run(&["report", &id, "--format", "jsonl"]).await.out
                }
                _ => {
                    assert_eq!(service.post("/campaigns", &job).await.status, 201);
                    service.until_state(&id, "completed").await;
                    service.get(&format!("/campaigns/{id}/report.jsonl")).await.text
                }
            };
            seen.push((way, rows_of(&report)));
        }
        let columns = json!([uploaded["rows"], uploaded["columns"]]);
        let (rows, first) = expected.get_or_insert_with(|| (seen[0].1.clone(), columns.clone()));
        assert_eq!(rows.len(), ROWS.len());
        assert_eq!(&columns, first, "{ending}");
        for (way, found) in seen {
            assert_eq!(&found, rows, "{ending} by {way}");
        }
    }
}
