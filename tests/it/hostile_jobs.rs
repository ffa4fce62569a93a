//! Jobs that are made to stop a worker: each is dead-lettered unchanged at its first delivery, with an error of a few KiB, and
//! the worker continues.

use std::io::Write as _;

use flowcast::sandbox::Behaviour;
use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fleet::{Fleet, until};
use crate::servers::broker;
use crate::support::{World, job, job_with, phone, sandbox, send_raw};

const FAST: &str = "limits = { messages = \"100000/s\", requests = \"10000/s\" }";
/// Size of a RabbitMQ frame, in bytes.
const FRAME: usize = 128 << 10;

/// Returns the bytes of a job with a value at a pointer.
fn job_bytes(pointer: &str, value: Value) -> Vec<u8> {
    job_with(pointer, value).to_string().into_bytes()
}

/// Returns documents that are made to stop intake, each with a part of its error.
fn hostile_documents() -> Vec<(Vec<u8>, &'static str)> {
    let long = |length: usize| "x".repeat(length);
    let many = |count: usize| -> Value {
        let mut job = job();
        let fields = (0..count).map(|nth| (format!("field{nth}"), json!(0)));
        job.as_object_mut().unwrap().extend(fields);
        job
    };
    let recipient = json!({ "phone": phone(0), "name": "Asha" });
    let mut wide = recipient.clone();
    wide[long(FRAME)] = json!("x");
    let mut deep = recipient.clone();
    deep["name"] = json!(long(1 << 20));
    let mut jobs: Vec<(Vec<u8>, &'static str)> = (0..5)
        .map(|nth| {
            let mut job = job();
            job[long((1 << 20) + nth)] = json!(1);
            (job.to_string().into_bytes(), "unknown field")
        })
        .collect();
    let mut just_over = job();
    just_over[long(FRAME + 8_192)] = json!(1);
    jobs.extend([
        (just_over.to_string().into_bytes(), "unknown field"),
        (many(100_000).to_string().into_bytes(), "and 99,980 more problems"),
        (
            job_bytes("/status_callback", json!(format!("https://example.com/{}", long(200_000)))),
            "flowcast allows 2,048",
        ),
        (job_bytes("/id", json!(long(FRAME))), "flowcast allows 2,048"),
        (job_bytes("/name", json!(long(FRAME))), "flowcast allows 2,048"),
        (job_bytes("/account", json!(long(FRAME))), "flowcast allows 2,048"),
        (job_bytes("/from", json!(long(FRAME))), "flowcast allows 2,048"),
        (job_bytes("/on_in_doubt", json!(long(FRAME))), "must be one of"),
        (job_bytes("/message/type", json!(long(FRAME))), "is unknown"),
        (job_bytes("/message/text/body", json!(long(FRAME))), "characters long"),
        (job_bytes("/message/text/body", json!(format!("{{{{ {} }}}}", long(FRAME)))), "characters long"),
        (job_bytes("/message/text/body", json!(format!("{{{{ {} }}}}", long(60_000)))), "has no column"),
        (job_bytes("/custom_data", json!(long(FRAME))), "flowcast allows 4,096"),
        (job_bytes("/extra_info", json!({ "ref1": long(FRAME) })), "flowcast allows 4,096"),
        (job_bytes("/audience", json!({ "csv": { "path": long(FRAME) } })), "flowcast allows 2,048"),
        (job_bytes("/audience", json!({ "csv": { "path": format!("{}.csv", long(2_000)) } })), ""),
        (job_bytes("/audience", json!({ "recipients": [wide] })), "its name has more than 200 characters"),
        (job_bytes("/audience", json!({ "recipients": [deep] })), "flowcast allows 65,536"),
        (
            job_bytes("/audience", json!({ "recipients": vec![json!({}); 50_000] })),
            "and 49,980 more problems",
        ),
        (
            json!({ "version": 1, "control": "pause", "id": long(FRAME) }).to_string().into_bytes(),
            "allows 2,048",
        ),
        (json!({ "version": 1, "control": long(FRAME), "id": "c1" }).to_string().into_bytes(), "is unknown"),
        (
            json!({ "version": 1, "control": "pause", "id": "c1", "by": long(FRAME) })
                .to_string()
                .into_bytes(),
            "200",
        ),
        (format!("{}1{}", "[".repeat(FRAME), "]".repeat(FRAME)).into_bytes(), "is not JSON"),
        // Takes quadratic time if each string of a list is compared with all others.
        (
            job_bytes(
                "/message",
                json!({ "type": "text", "text": { "body": "x", "all": vec!["{{ name }}"; 200_000] } }),
            ),
            "",
        ),
    ]);
    jobs
}

#[tokio::test(flavor = "multi_thread")]
async fn long_names_and_long_lists_are_refused_at_their_first_delivery() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(20, &url, FAST);
    let broker = broker(&fleet.amqp).await;
    let _worker = fleet.worker();
    let jobs = hostile_documents();
    for (job, _) in &jobs {
        broker.submit(job.clone()).await.unwrap();
    }
    let mut dead = Vec::new();
    until("all of them to be refused", || {
        let listed =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(broker.buried(100)));
        dead = listed.unwrap().0;
        dead.len() >= jobs.len()
    })
    .await;
    assert_eq!(dead.len(), jobs.len());
    for (data, error) in &jobs {
        let found = dead.iter().find(|dead| dead.data == *data).expect("dead-lettered unchanged");
        assert!(found.error.contains(error), "{error:?}: {}", found.error);
        assert!(found.error.len() <= 2_048 && found.pointer.len() <= 256, "{}", found.error.len());
    }
    fleet.submit().await;
    fleet.until_state("c1", "completed").await;
    assert_eq!(sandbox.count(), 20);
    let log = fleet.log();
    assert_eq!(log.matches("job refused").count(), jobs.len(), "each job must be delivered once");
    assert_eq!(log.matches("connected to RabbitMQ").count(), 1, "the connection must not be lost");
    assert!(log.len() < 100_000, "{} bytes of log", log.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_never_quote_what_they_refuse() {
    let fleet = Fleet::new(1, "http://127.0.0.1:9", FAST);
    let broker = broker(&fleet.amqp).await;
    let _worker = fleet.worker();
    let (number, name) = (phone(7), "Ashalata");
    let inside = json!({ "phone": number, "name": name }).to_string();
    let list = json!([inside]);
    let jobs = [
        json!(inside),
        json!(job().to_string()),
        list.clone(),
        json!({ "version": 1, "control": inside, "id": "c1" }),
        job_with("/audience", json!(inside)),
        job_with("/audience", json!({ "recipients": inside })),
        job_with("/audience", json!({ "recipients": list })),
        job_with("/audience", json!({ "recipients": [{ "phone": inside }], "csv": inside })),
        job_with("/message", json!(inside)),
        job_with("/schedule", json!(inside)),
        job_with("/limits", json!({ "messages": inside })),
        job_with("/from", json!(inside)),
        job_with("/from", json!(format!("{number}0000000000"))),
        job_with("/account", json!(inside)),
        job_with("/on_in_doubt", json!(inside)),
    ];
    for job in &jobs {
        broker.submit(job.to_string().into_bytes()).await.unwrap();
    }
    // One job waits for its account.
    until("all but one to be refused", || fleet.log().matches("job refused").count() >= jobs.len() - 1).await;
    until("one job to wait", || fleet.log().contains("a job waits until")).await;
    let listed = fleet.ok(&["dead", "list"]).await.out;
    for text in [fleet.log(), listed] {
        assert!(!text.contains(&number[3..]) && !text.contains(name), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_queues_and_exchanges_are_declared_again_within_seconds() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet =
        Fleet::on(World::new(20), &crate::servers::redis_url(), &crate::servers::amqp_url(), &url, FAST);
    let _worker = fleet.worker();
    until("the worker to listen", || fleet.log().contains("connected to RabbitMQ")).await;
    let connection = Connection::connect(&fleet.amqp, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    // On an empty broker, doctor says what was missing, and that is not a warning.
    let empty = crate::servers::amqp_url();
    let doctor = async |amqp: &str| {
        let mut command = fleet.world.command(&["doctor", "--json"]);
        let output = command.env("FLOWCAST_AMQP__URL", amqp).output().unwrap();
        let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        findings.into_iter().find(|line| line["check"] == "rabbitmq").unwrap()
    };
    let finding = doctor(&empty).await;
    assert_eq!(finding["grade"], "ok", "{finding}");
    assert!(finding["text"].as_str().unwrap().contains("queues and exchanges did not exist"), "{finding}");
    let finding = doctor(&empty).await;
    assert!(finding["text"].as_str().unwrap().contains("all queues and exchanges exist"), "{finding}");

    for name in ["flowcast.jobs", "flowcast.dead", "flowcast.forwards", "flowcast.delay.5"] {
        channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
        channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await.unwrap();
    }
    channel.exchange_delete("flowcast.batches".into(), ExchangeDeleteOptions::default()).await.unwrap();
    until("the lost consumer to be logged", || fleet.log().contains("RabbitMQ ended a consumer")).await;
    // The submitter of a job that cannot be routed gets an error, so an accepted job is safe.
    fleet.submit().await;
    fleet.until_state("c1", "completed").await;
    assert_eq!(sandbox.count(), 20);
    let finding = doctor(&fleet.amqp).await;
    assert!(finding["text"].as_str().unwrap().contains("all queues and exchanges exist"), "{finding}");

    channel.queue_delete("flowcast.dead".into(), QueueDeleteOptions::default()).await.unwrap();
    let finding = doctor(&fleet.amqp).await;
    assert_eq!(finding["grade"], "warning", "{finding}");
    assert!(
        finding["text"].as_str().unwrap().starts_with("was missing queue flowcast.dead; declared again"),
        "{finding}"
    );
    // The queue is deleted again just before a job is refused, and is declared again for that job.
    channel.queue_delete("flowcast.dead".into(), QueueDeleteOptions::default()).await.unwrap();
    let broker = broker(&fleet.amqp).await;
    broker.submit(b"no job".to_vec()).await.unwrap();
    until("the refused job to be kept", || {
        let listed =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(broker.buried(1)));
        listed.is_ok_and(|(dead, _)| !dead.is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_consume_jobs_is_not_ready() {
    let fleet = Fleet::new(1, "http://127.0.0.1:9", FAST);
    let worker = fleet.worker();
    let mut port = 0;
    until("the worker to be ready", || {
        let log = fleet.log();
        let listens = log
            .split("http://127.0.0.1:")
            .nth(1)
            .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        port = listens.and_then(|digits| digits.parse().ok()).unwrap_or(0);
        port > 0 && readyz(port).starts_with("HTTP/1.1 200")
    })
    .await;
    // Another connection declares the queue as exclusive, so the worker cannot consume it until an operator fixes that. The
    // worker is frozen during the change, because it might declare the queue first.
    let connection = Connection::connect(&fleet.amqp, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    worker.signal(Signal::SIGSTOP);
    channel.queue_delete("flowcast.jobs".into(), QueueDeleteOptions::default()).await.unwrap();
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("flowcast.jobs".into(), options, FieldTable::default()).await.unwrap();
    worker.signal(Signal::SIGCONT);
    until("the worker not to be ready", || {
        let response = readyz(port);
        response.starts_with("HTTP/1.1 503") && response.contains("jobs")
    })
    .await;
    assert!(fleet.log().contains("cannot consume flowcast.jobs on RabbitMQ"), "{}", fleet.log());
    channel.queue_delete("flowcast.jobs".into(), QueueDeleteOptions::default()).await.unwrap();
    until("the worker to be ready again", || readyz(port).starts_with("HTTP/1.1 200")).await;
    assert!(fleet.log().contains("consuming again"));
}

fn readyz(port: u16) -> String {
    send_raw(port, "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

/// Returns the rows of the campaign that runs during hostile input; `FLOWCAST_SURVIVAL_ROWS=100000` is full size.
fn rows() -> u64 {
    std::env::var("FLOWCAST_SURVIVAL_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(4_000)
}

/// Returns a workbook of one sheet; its texts are `start` and then `repeated`, `times` times.
fn workbook(start: &str, repeated: &str, times: usize) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let mut part = |name: &str, text: &str, repeated: &str, times: usize| {
        archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(text.as_bytes()).unwrap();
        let block = repeated.repeat(10_000);
        (0..times / 10_000).for_each(|_| archive.write_all(block.as_bytes()).unwrap());
    };
    part("xl/workbook.xml", r#"<workbook><sheets><sheet name="a" r:id="r1"/></sheets></workbook>"#, "", 0);
    let relations = r#"<Relationships><Relationship Id="r1" Type="a/worksheet" Target="sheet.xml"/><Relationship Id="r2" Type="a/sharedStrings" Target="texts.xml"/></Relationships>"#;
    part("xl/_rels/workbook.xml.rels", relations, "", 0);
    part(
        "xl/sheet.xml",
        r#"<worksheet><sheetData><row><c t="s"><v>0</v></c></row></sheetData></worksheet>"#,
        "",
        0,
    );
    part("xl/texts.xml", start, repeated, times);
    archive.finish().unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_little_memory_keeps_sending_during_hostile_input() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let account = "limits = { messages = \"1000/s,burst=100\", requests = \"1000/s\" }";
    let fleet = Fleet::new(rows(), &url, account);
    let broker = broker(&fleet.amqp).await;
    // At most 1 GiB of address space.
    let mut command = std::process::Command::new("bash");
    command.args(["-c", "ulimit -v 1048576; exec \"$0\" worker", env!("CARGO_BIN_EXE_flowcast")]);
    command
        .current_dir(fleet.world.path(""))
        .env("TMPDIR", fleet.world.path(""))
        .env("MALLOC_ARENA_MAX", "4");
    let worker = fleet.start(command);
    fleet.submit().await;
    until("the campaign to be sending", || sandbox.count() > 200).await;
    let port: u16 = {
        let log = fleet.log();
        log.split("http://127.0.0.1:").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
    };

    let mut expected = 0;
    for (job, _) in hostile_documents() {
        broker.submit(job).await.unwrap();
        expected += 1;
    }
    let count = r#"<sst count="99999999999" uniqueCount="99999999999">"#;
    let files = [
        ("claims.xlsx", workbook(count, "", 0)),
        ("texts.xlsx", workbook("<sst>", "<si/>", 20_000_000)),
        ("long.xlsx", workbook("<sst><si><t>", "x", 50_000_000)),
        ("comments.xlsx", workbook("<sst>", "<!-- -->", 2_000_000)),
        (
            "wide.csv",
            format!(
                "phone,{}\n+919876543210\n",
                (0..90_000).map(|nth| format!("c{nth}")).collect::<Vec<_>>().join(",")
            )
            .into(),
        ),
        ("quote.csv", [b"phone,name\n\"".to_vec(), vec![b'x'; 4 << 20]].concat()),
    ];
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (name, bytes) in &files {
        fleet.world.write(name, bytes);
        let mut job = job_with("/audience", json!({ "csv": { "path": name } }));
        job["id"] = json!(name.replace('.', "-"));
        broker.submit(job.to_string().into_bytes()).await.unwrap();
        expected += 1;
        let upload = client
            .post(format!("http://127.0.0.1:{port}/api/v1/audiences?name=up-{name}"))
            .body(bytes.clone());
        let response = upload.send().await.unwrap();
        assert!(
            response.status().is_client_error() || *name == "comments.xlsx" || *name == "wide.csv",
            "{name}: {response:?}"
        );
    }
    // Each recipient has its own column.
    let own: Vec<Value> = (0..8_000)
        .map(|nth| {
            let mut recipient = json!({ "phone": phone(600_000 + nth) });
            recipient[format!("c{nth}")] = json!(nth);
            recipient
        })
        .collect();
    let mut job = job_with("/audience", json!({ "recipients": own }));
    job["id"] = json!("own-columns");
    broker.submit(job.to_string().into_bytes()).await.unwrap();
    expected += 1;
    for path in ["/callbacks/main/c1.0.0", "/callbacks/main/x", "/api/v1/campaigns"] {
        let sent =
            client.post(format!("http://127.0.0.1:{port}{path}")).body("[".repeat(500_000)).send().await;
        assert!(sent.is_ok_and(|response| response.status().is_client_error()), "{path}");
    }

    let mut dead = Vec::new();
    until("all of them to be refused", || {
        let listed =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(broker.buried(100)));
        dead = listed.unwrap().0;
        dead.len() >= expected
    })
    .await;
    assert_eq!(dead.len(), expected);
    let error = |name: &str| {
        let dead_letter =
            dead.iter().find(|dead| String::from_utf8_lossy(&dead.data).contains(&format!("\"{name}\"")));
        dead_letter.map(|dead| dead.error.clone()).unwrap()
    };
    assert!(error("texts.xlsx").contains("MiB of texts"), "{}", error("texts.xlsx"));
    assert!(error("long.xlsx").contains("longer than 256 KiB"), "{}", error("long.xlsx"));
    assert!(error("wide.csv").contains("has 90001 columns"), "{}", error("wide.csv"));
    assert!(error("own-columns").contains("has 8001 columns"), "{}", error("own-columns"));
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], rows(), "{status}");
    assert_eq!((sandbox.count(), &sandbox.stats()["sent_twice"]), (rows(), &json!(0)));
    assert!(readyz(port).starts_with("HTTP/1.1 200"), "the worker must still be ready");
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.exit_status().await, Some(0));
    let files = std::fs::read_dir(fleet.world.path("")).unwrap();
    let files: Vec<_> = files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(files.iter().all(|name| !name.starts_with(".upload-")), "{files:?}");
}
