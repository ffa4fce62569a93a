//! Jobs that are made to stop a worker: each is refused whole at its first delivery, in a few KiB of words, and the
//! worker goes on.

use std::io::Write as _;

use flowcast::sandbox::Behaviour;
use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fleet::{Fleet, until};
use crate::servers::broker;
use crate::support::{World, ask, job, job_with, phone, sandbox};

const FAST: &str = "limits = { messages = \"100000/s\", requests = \"10000/s\" }";
/// A frame of RabbitMQ.
const FRAME: usize = 128 << 10;

/// The bytes of a job in which something is put at a place.
fn with(pointer: &str, value: Value) -> Vec<u8> {
    job_with(pointer, value).to_string().into_bytes()
}

/// Documents that are made to stop intake, each with what its refusal says.
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
            with("/status_callback", json!(format!("https://example.com/{}", long(200_000)))),
            "flowcast allows 2,048",
        ),
        (with("/id", json!(long(FRAME))), "flowcast allows 2,048"),
        (with("/name", json!(long(FRAME))), "flowcast allows 2,048"),
        (with("/account", json!(long(FRAME))), "flowcast allows 2,048"),
        (with("/from", json!(long(FRAME))), "flowcast allows 2,048"),
        (with("/on_in_doubt", json!(long(FRAME))), "must be one of"),
        (with("/message/type", json!(long(FRAME))), "is unknown"),
        (with("/message/text/body", json!(long(FRAME))), "characters long"),
        (with("/message/text/body", json!(format!("{{{{ {} }}}}", long(FRAME)))), "characters long"),
        (with("/message/text/body", json!(format!("{{{{ {} }}}}", long(60_000)))), "has no column"),
        (with("/custom_data", json!(long(FRAME))), "flowcast allows 4,096"),
        (with("/extra_info", json!({ "ref1": long(FRAME) })), "flowcast allows 4,096"),
        (with("/audience", json!({ "csv": { "path": long(FRAME) } })), "flowcast allows 2,048"),
        (with("/audience", json!({ "csv": { "path": format!("{}.csv", long(2_000)) } })), ""),
        (with("/audience", json!({ "recipients": [wide] })), "its name has more than the 200 characters"),
        (with("/audience", json!({ "recipients": [deep] })), "flowcast allows 65,536"),
        (with("/audience", json!({ "recipients": vec![json!({}); 50_000] })), "and 49,980 more problems"),
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
        // Each string compares itself with all others, where they are in a list.
        (
            with(
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
        let looked =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(broker.buried(100)));
        dead = looked.unwrap().0;
        dead.len() >= jobs.len()
    })
    .await;
    assert_eq!(dead.len(), jobs.len());
    for (data, error) in &jobs {
        let found = dead.iter().find(|dead| dead.data == *data).expect("dead-lettered whole");
        assert!(found.error.contains(error), "{error:?}: {}", found.error);
        assert!(found.error.len() <= 2_048 && found.pointer.len() <= 256, "{}", found.error.len());
    }
    fleet.submit().await;
    fleet.until_state("c1", "completed").await;
    assert_eq!(sandbox.count(), 20);
    let log = fleet.log();
    assert_eq!(log.matches("job refused").count(), jobs.len(), "each was delivered once");
    assert_eq!(log.matches("connected to RabbitMQ").count(), 1, "its connection stood");
    assert!(log.len() < 100_000, "{} bytes of log", log.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_never_quoted() {
    let fleet = Fleet::new(1, "http://127.0.0.1:9", FAST);
    let broker = broker(&fleet.amqp).await;
    let _worker = fleet.worker();
    let (who, name) = (phone(7), "Ashalata");
    let inside = json!({ "phone": who, "name": name }).to_string();
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
        job_with("/from", json!(format!("{who}0000000000"))),
        job_with("/account", json!(inside)),
        job_with("/on_in_doubt", json!(inside)),
    ];
    for job in &jobs {
        broker.submit(job.to_string().into_bytes()).await.unwrap();
    }
    // One waits for its account.
    until("all but one to be refused", || fleet.log().matches("job refused").count() >= jobs.len() - 1).await;
    until("one to wait", || fleet.log().contains("a job waits until")).await;
    let listed = fleet.ok(&["dead", "list"]).await.out;
    for text in [fleet.log(), listed] {
        assert!(!text.contains(&who[3..]) && !text.contains(name), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_and_exchanges_that_are_deleted_are_declared_again_within_seconds() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet =
        Fleet::on(World::new(20), &crate::servers::redis_url(), &crate::servers::amqp_url(), &url, FAST);
    let _worker = fleet.worker();
    until("the worker to listen", || fleet.log().contains("connected to RabbitMQ")).await;
    let connection = Connection::connect(&fleet.amqp, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    // Before anything else is there, a person is told what is missing, and it is no alarm.
    let empty = crate::servers::amqp_url();
    let doctor = async |amqp: &str| {
        let mut command = fleet.world.command(&["doctor", "--json"]);
        let said = command.env("FLOWCAST_AMQP__URL", amqp).output().unwrap();
        let said: Vec<Value> = serde_json::from_slice(&said.stdout).unwrap();
        said.into_iter().find(|line| line["check"] == "rabbitmq").unwrap()
    };
    let told = doctor(&empty).await;
    assert_eq!(told["grade"], "ok", "{told}");
    assert!(told["text"].as_str().unwrap().contains("had none of flowcast's queues"), "{told}");
    let told = doctor(&empty).await;
    assert!(told["text"].as_str().unwrap().contains("all queues and exchanges exist"), "{told}");

    for name in ["flowcast.jobs", "flowcast.dead", "flowcast.forwards", "flowcast.delay.5"] {
        channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
        channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await.unwrap();
    }
    channel.exchange_delete("flowcast.batches".into(), ExchangeDeleteOptions::default()).await.unwrap();
    until("the log to say so", || fleet.log().contains("RabbitMQ ended the consumer of flowcast.jobs")).await;
    // A job that goes nowhere is told to whoever submits it, so one that is taken is safe.
    fleet.submit().await;
    fleet.until_state("c1", "completed").await;
    assert_eq!(sandbox.count(), 20);
    let told = doctor(&fleet.amqp).await;
    assert!(told["text"].as_str().unwrap().contains("all queues and exchanges exist"), "{told}");

    channel.queue_delete("flowcast.dead".into(), QueueDeleteOptions::default()).await.unwrap();
    let told = doctor(&fleet.amqp).await;
    assert_eq!(told["grade"], "warning", "{told}");
    assert!(
        told["text"].as_str().unwrap().starts_with("did not have queue flowcast.dead; declared again"),
        "{told}"
    );
    // Gone once more just when a job is refused: it is declared again for it.
    channel.queue_delete("flowcast.dead".into(), QueueDeleteOptions::default()).await.unwrap();
    let broker = broker(&fleet.amqp).await;
    broker.submit(b"no job".to_vec()).await.unwrap();
    until("the refused job to be kept", || {
        let looked =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(broker.buried(1)));
        looked.is_ok_and(|(dead, _)| !dead.is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_takes_no_jobs_is_not_ready() {
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
    // Somebody takes the queue for itself: the worker may not take from it until a person has mended it. It stands still
    // meanwhile, because it would be as quick to declare the queue.
    let connection = Connection::connect(&fleet.amqp, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    worker.signal(Signal::SIGSTOP);
    channel.queue_delete("flowcast.jobs".into(), QueueDeleteOptions::default()).await.unwrap();
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("flowcast.jobs".into(), options, FieldTable::default()).await.unwrap();
    worker.signal(Signal::SIGCONT);
    until("the worker to say that it takes no jobs", || {
        let said = readyz(port);
        said.starts_with("HTTP/1.1 503") && said.contains("jobs")
    })
    .await;
    assert!(fleet.log().contains("cannot consume flowcast.jobs on RabbitMQ"), "{}", fleet.log());
    channel.queue_delete("flowcast.jobs".into(), QueueDeleteOptions::default()).await.unwrap();
    until("the worker to be ready again", || readyz(port).starts_with("HTTP/1.1 200")).await;
    assert!(fleet.log().contains("consuming flowcast.jobs again"));
}

fn readyz(port: u16) -> String {
    ask(port, "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

/// The rows of the campaign that goes on beside it all; `FLOWCAST_SURVIVAL_ROWS=100000` is full size.
fn rows() -> u64 {
    std::env::var("FLOWCAST_SURVIVAL_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(4_000)
}

/// A workbook of one sheet whose texts are repeated so often.
fn workbook(start: &str, again: &str, times: usize) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let mut part = |name: &str, text: &str, again: &str, times: usize| {
        archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(text.as_bytes()).unwrap();
        let block = again.repeat(10_000);
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
    part("xl/texts.xml", start, again, times);
    archive.finish().unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_little_memory_survives_it_all_while_it_sends() {
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
    until("it to be on its way", || sandbox.count() > 200).await;
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
        let answer = upload.send().await.unwrap();
        assert!(
            answer.status().is_client_error() || *name == "comments.xlsx" || *name == "wide.csv",
            "{name}: {answer:?}"
        );
    }
    // Each recipient with a column of its own.
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
        assert!(sent.is_ok_and(|answer| answer.status().is_client_error()), "{path}");
    }

    let mut dead = Vec::new();
    until("all of it to be refused", || {
        let looked =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(broker.buried(100)));
        dead = looked.unwrap().0;
        dead.len() >= expected
    })
    .await;
    assert_eq!(dead.len(), expected);
    let error = |name: &str| {
        let of =
            dead.iter().find(|dead| String::from_utf8_lossy(&dead.data).contains(&format!("\"{name}\"")));
        of.map(|dead| dead.error.clone()).unwrap()
    };
    assert!(error("texts.xlsx").contains("its texts are more than"), "{}", error("texts.xlsx"));
    assert!(error("long.xlsx").contains("longer than 256 KiB"), "{}", error("long.xlsx"));
    assert!(error("wide.csv").contains("has 90001 columns"), "{}", error("wide.csv"));
    assert!(error("own-columns").contains("has 8001 columns"), "{}", error("own-columns"));
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], rows(), "{status}");
    assert_eq!((sandbox.count(), &sandbox.stats()["sent_twice"]), (rows(), &json!(0)));
    assert!(readyz(port).starts_with("HTTP/1.1 200"), "it is the same worker");
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.ends().await, Some(0));
    let left = std::fs::read_dir(fleet.world.path("")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.starts_with(".upload-")), "{left:?}");
}
