//! Delivery reports and replies, end to end: real workers and servers, and a sandbox that reports as providers do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flowcast::campaign::Callbacks;
use flowcast::sandbox::{Behaviour, Reporting, Sandbox};
use futures_util::StreamExt;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fleet::{Fleet, Worker, until};
use crate::jobs::{listen, next_event};
use crate::servers::{RabbitProcess, amqp_url, free_port, redis_url};
use crate::support::{Reaction, Scripted, World, accept, job, job_with, phone, sandbox};

const NOWHERE: &str = "http://127.0.0.1:9";
const KEY: &str = "the key of these tests";
const FAST: &str = "limits = { messages = \"100000/s\", requests = \"10000/s\" }\nconcurrency = 4";

/// A fleet whose worker receives callbacks at a URL that is known in advance.
struct CallbackWorld {
    fleet: Fleet,
    url: String,
    callbacks: Callbacks,
}

impl CallbackWorld {
    /// Creates a fleet on the servers that tests share; `more` is TOML for `[callbacks]`.
    fn new(provider: &str, rows: u64, sandbox: &str, more: &str) -> Self {
        Self::on(amqp_url(), provider, rows, sandbox, more)
    }

    fn on(amqp: String, provider: &str, rows: u64, sandbox: &str, more: &str) -> Self {
        let fleet = Fleet { world: World::new(rows), redis: redis_url(), amqp };
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let servers = format!(
            "[redis]\nurl = \"{}\"\n[amqp]\nurl = \"{}\"\n[audiences]\nroot = \".\"\n\
             [http]\nlisten = \"127.0.0.1:{port}\"\npublic_url = \"{url}\"\n\
             [callbacks]\nkeys = [\"{KEY}\"]\n{more}\n",
            fleet.redis, fleet.amqp
        );
        fleet.world.write_account(provider, sandbox, &format!("{FAST}\n{servers}"));
        let callbacks = Callbacks::new(&url.parse().unwrap(), "main", &[KEY]).unwrap();
        Self { fleet, url, callbacks }
    }

    /// Sends to a sandbox, which had to know the callback URL before it started.
    fn send_to(&self, sandbox: &str) {
        let config = std::fs::read_to_string(self.fleet.world.path("flowcast.toml")).unwrap();
        self.fleet.world.write("flowcast.toml", config.replace(NOWHERE, sandbox));
    }

    async fn worker(&self) -> Worker {
        let worker = self.fleet.worker();
        until("the worker to listen", || {
            std::net::TcpStream::connect(self.url.trim_start_matches("http://")).is_ok()
        })
        .await;
        worker
    }

    async fn submit(&self, job: &Value) {
        self.fleet.world.write_job(job);
        self.fleet.submit().await;
    }

    /// Posts a report to a message's own URL and returns the response's status and body.
    async fn post(&self, message: &str, body: String) -> (u16, String) {
        post(&format!("{}{}", self.callbacks.base(), self.callbacks.seal(message)), body).await
    }
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn post(url: &str, body: String) -> (u16, String) {
    let response =
        client().post(url).header("content-type", "application/json").body(body).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

fn dlr(row: u64, status: &str) -> String {
    json!({ "whatsapp": { "messages": [{ "callback_type": "dlr", "sid": "s", "to": phone(row),
        "exo_status_code": 0, "exo_detailed_status": status, "description": "why",
        "timestamp": "2026-01-01T00:00:00Z" }] } })
    .to_string()
}

fn reply(row: u64, text: &str) -> String {
    json!({ "whatsapp": { "messages": [{ "callback_type": "icm", "sid": format!("r-{row}-{text}"),
        "from": phone(row), "to": "+912248931479", "timestamp": "2026-01-01T00:00:00Z",
        "content": { "type": "text", "text": { "body": text }, "context": { "sid": "s" } } }] } })
    .to_string()
}

fn reporting() -> Reporting {
    let delay = Duration::from_millis(200);
    Reporting { delay, shuffle: 0.3, repeat: 0.2, ..Reporting::default() }
}

async fn reporting_sandbox(behaviour: Behaviour) -> (Sandbox, String) {
    sandbox(behaviour).await
}

/// Returns the number of recipients; `FLOWCAST_CALLBACK_ROWS=50000` is full size.
fn rows() -> u64 {
    std::env::var("FLOWCAST_CALLBACK_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(5_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_doubt_is_settled_by_callbacks_and_nothing_is_sent_twice() {
    let rows = rows();
    // One in five responses is cut off after the provider accepted the messages, which are then in doubt for two seconds.
    let reporting = Reporting { delay: Duration::from_secs(2), ..reporting() };
    let behaviour = Behaviour { cut_rate: 0.2, reporting, ..Behaviour::default() };
    let (sandbox, url) = reporting_sandbox(behaviour).await;
    let world = CallbackWorld::new("exotel", rows, &url, "");
    let _workers = [world.worker().await, world.fleet.worker()];
    world.submit(&job()).await;
    let mut doubts = 0;
    let mut status = Value::Null;
    // Wait as long as reports arrive.
    let mut seen = Value::Null;
    while status["delivery"]["delivered"] != rows || status["state"] != "completed" {
        until("a further report", || {
            status = world.fleet.status("c1");
            doubts = doubts.max(status["counts"]["in_doubt"].as_u64().unwrap_or(0));
            status != seen
        })
        .await;
        seen = status.clone();
    }
    assert!(doubts > 0, "some messages must be in doubt, or the test proves nothing");
    assert_eq!((&status["counts"]["accepted"], &status["counts"]["in_doubt"]), (&json!(rows), &json!(0)));
    assert_eq!((sandbox.stats()["sent_twice"].clone(), sandbox.count()), (json!(0), rows));
    let sids: HashMap<String, String> =
        sandbox.taken().into_iter().map(|message| (message.to, message.sid)).collect();
    for line in world.fleet.world.report("c1") {
        assert_eq!(line["sid"], sids[line["recipient"].as_str().unwrap()]);
        assert_eq!(line["delivery"], "delivered");
    }
    eprintln!("{doubts} messages were in doubt at once, and all are settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_every_provider_find_their_messages() {
    for provider in ["kaleyra", "meta", "exotel"] {
        let world = CallbackWorld::new(provider, 300, NOWHERE, "");
        let reporting = Reporting {
            // Kaleyra and Meta have one URL for the whole account.
            url: Some(world.callbacks.of_account()),
            fail: 0.2,
            read: 0.5,
            reply: 0.5,
            ..reporting()
        };
        let behaviour = Behaviour { cut_rate: 0.05, reporting, ..Behaviour::default() };
        let (sandbox, url) = reporting_sandbox(behaviour).await;
        world.send_to(&url);
        let _worker = world.worker().await;
        world.submit(&job()).await;
        let mut status = Value::Null;
        until("all reports", || {
            status = world.fleet.status("c1");
            let count = |name: &str| status["delivery"][name].as_u64().unwrap_or(0);
            let stats = sandbox.stats();
            let is_unsettled = status["counts"]["in_doubt"] != 0 || status["state"] != "completed";
            !is_unsettled
                && stats["callbacks"]["failed"] == 0
                && count("delivered") + count("read") + count("failed") == 300
        })
        .await;
        let count = |name: &str| status["delivery"][name].as_u64().unwrap();
        assert!(count("failed") > 20 && count("read") > 50, "{provider}: {status}");
        assert_eq!(sandbox.stats()["sent_twice"], 0);
        if provider == "exotel" {
            until("the replies", || world.fleet.status("c1")["delivery"]["replied"].as_u64().unwrap() > 20)
                .await;
            let csv = world.fleet.ok(&["responses", "c1"]).await.out;
            assert!(csv.starts_with("recipient,row,batch,at,reply,day,flow_token,time\n"), "{csv}");
            assert!(csv.contains(",monday,unused,10:00\n"), "{csv}");
        }
        let text = world.fleet.ok(&["status", "c1"]).await.out;
        assert!(text.contains("  delivered ") && text.contains("   median "), "{text}");
        assert!(text.contains("  not delivered "), "{text}");
    }
}

/// A key was replaced in one step: earlier reports are not lost if the old key is added again.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_with_an_unknown_key_gets_503_until_the_key_is_known() {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let world = CallbackWorld::new("exotel", 3, &url, "");
    let config = std::fs::read_to_string(world.fleet.world.path("flowcast.toml")).unwrap();
    let with_keys = async |keys: &str, old: Option<Worker>| {
        if let Some(old) = old {
            old.signal(Signal::SIGTERM);
            assert_eq!(old.exit_status().await, Some(0));
        }
        let file = config.replace(&format!("keys = [\"{KEY}\"]"), keys);
        world.fleet.world.write("flowcast.toml", file);
        world.worker().await
    };
    let worker = with_keys(&format!("keys = [\"{KEY}\"]"), None).await;
    world.submit(&job()).await;
    world.fleet.until_state("c1", "completed").await;
    let worker = with_keys("keys = [\"a newer key of ours\"]", Some(worker)).await;
    let report = || world.post("c1.0.0", dlr(1, "EX_MESSAGE_SEEN"));
    until("the worker to be connected", || world.fleet.log().contains("health and metrics")).await;
    let mut response = report().await;
    for _ in 0..50 {
        if response.1.contains("no key for the URL") {
            break;
        }
        // A worker that is not connected yet responds with 503, too.
        assert_eq!(response.0, 503, "{response:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        response = report().await;
    }
    assert_eq!(response.0, 503, "{response:?}");
    let metrics = client().get(format!("{}/metrics", world.url)).send().await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("result=\"unknown_key\"") && !metrics.contains("result=\"forged\"} 1"),
        "{metrics}"
    );
    let both = format!("keys = [\"a newer key of ours\", \"{KEY}\"]");
    let _worker = with_keys(&both, Some(worker)).await;
    while report().await.0 != 200 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.fleet.status("c1")["delivery"]["read"], 1);
    // Once the worker has all keys, a URL that no key opens is forged.
    let forged = world.callbacks.seal("c1.0.0").replace("c1.0.0", "c1.0.1");
    assert_eq!(
        post(&format!("{}/callbacks/main/{forged}", world.url), dlr(1, "EX_MESSAGE_SEEN")).await.0,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_invalid_reports_change_nothing() {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let world = CallbackWorld::new("exotel", 3, &url, "");
    let _worker = world.worker().await;
    world.submit(&job()).await;
    world.fleet.until_state("c1", "completed").await;
    until("the worker to be connected", || world.fleet.status("c1")["counts"]["accepted"] == 3).await;
    let sealed = world.callbacks.seal("c1.0.0");
    let at = |account: &str, capability: &str| format!("{}/callbacks/{account}/{capability}", world.url);
    let read = || dlr(1, "EX_MESSAGE_SEEN");
    for (account, capability) in [
        ("main", "c1.0.0"),
        ("main", "c1.0.0.AAAA"),
        ("main", &sealed.replace("c1.0.0", "c1.0.1")),
        ("other", &sealed),
        ("main", &format!("{sealed}x")),
    ] {
        assert_eq!(post(&at(account, capability), read()).await.0, 404, "{account}/{capability}");
    }
    // The body of a forged request is not read.
    let mut stranger = tokio::net::TcpStream::connect(world.url.trim_start_matches("http://")).await.unwrap();
    let head = "POST /callbacks/main/c1.0.0 HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n";
    stranger.write_all(head.as_bytes()).await.unwrap();
    let mut response = [0; 12];
    tokio::time::timeout(Duration::from_secs(30), stranger.read_exact(&mut response)).await.unwrap().unwrap();
    assert_eq!(&response, b"HTTP/1.1 404");
    assert_eq!(post(&at("main", &sealed), "no json".into()).await.0, 400);
    let (status, problem) =
        post(&at("main", &sealed), format!("{{\"x\":\"{}\"}}", "x".repeat(5 << 20))).await;
    assert_eq!((status, &serde_json::from_str::<Value>(&problem).unwrap()["status"]), (413, &json!(413)));
    // The largest valid body, without a report.
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat((4 << 20) - 8));
    assert_eq!(post(&at("main", &sealed), large).await.0, 200);
    assert_eq!(world.post("c1.0.0", "{\"hello\":1}".into()).await.0, 200);
    assert_eq!(world.post("nobody.0.0", read()).await.0, 200);
    assert_eq!(world.fleet.status("c1")["delivery"]["read"], 0);
    // Each provider's way to verify the URL.
    let challenge = "{\"type\":\"verification\",\"challenge\":\"abc\"}";
    assert_eq!(world.post("c1.0.0", challenge.into()).await, (200, "{\"challenge\":\"abc\"}".into()));
    let verify = format!("{}?hub.mode=subscribe&hub.challenge=1158", world.callbacks.of_account());
    assert_eq!(client().get(verify).send().await.unwrap().text().await.unwrap(), "1158");
    assert_eq!(world.post("c1.0.0", read()).await.0, 200);
    assert_eq!(world.fleet.status("c1")["delivery"]["read"], 1);
    let metrics = client().get(format!("{}/metrics", world.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("flowcast_callbacks_total{result=\"forged\"} 6"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_with_query_parameters_are_read_and_authenticated_by_a_header() {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let world = CallbackWorld::new("kaleyra", 3, &url, "");
    let config = std::fs::read_to_string(world.fleet.world.path("flowcast.toml")).unwrap();
    let header = "callback_profile_id = \"P1\"\ncallback_header = { name = \"x-key\", value = \"s3cret\" }";
    let config = config.replace("[accounts.main]\n", &format!("[accounts.main]\n{header}\n"));
    world.fleet.world.write("flowcast.toml", config);
    let _worker = world.worker().await;
    world.submit(&job()).await;
    world.fleet.until_state("c1", "completed").await;
    let ask = async |query: &[(&str, &str)], key: &str| {
        let mut url: url::Url = world.callbacks.of_account().parse().unwrap();
        url.query_pairs_mut().extend_pairs(query);
        client().get(url).header("x-key", key).send().await.unwrap().status().as_u16()
    };
    let number = phone(1);
    let delivered =
        [("ref", "c1.0.0"), ("message_id", "s"), ("status", "Delivered"), ("recipient", &number[1..])];
    assert_eq!(ask(&delivered, "another").await, 403);
    assert_eq!(world.fleet.status("c1")["delivery"]["delivered"], 0);
    assert_eq!(ask(&delivered, "s3cret").await, 200);
    assert_eq!(world.fleet.status("c1")["delivery"]["delivered"], 1);
    // STOP counts even if it is unknown which message it replies to.
    let number = phone(2);
    assert_eq!(ask(&[("from", &number[1..]), ("type", "text"), ("body", "STOP")], "s3cret").await, 200);
    let listed = world.fleet.ok(&["suppress", "list"]).await.out;
    assert!(listed.contains(&number), "{listed}");
    world.fleet.ok(&["suppress", "remove", &number]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_about_templates_and_numbers_are_in_the_status_of_their_campaigns() {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let world = CallbackWorld::new("kaleyra", 3, &url, "");
    let _worker = world.worker().await;
    let mut events = listen(&world.fleet, &["*.changed"]).await;
    let mut slow = job_with("/limits", json!({ "messages": "1/min" }));
    slow["message"] = json!({ "type": "template", "template": { "name": "offer", "language": { "code": "en" }, "components": [] } });
    world.submit(&slow).await;
    world.fleet.until_state("c1", "running").await;
    let reason = || world.fleet.status("c1")["reason"].as_str().unwrap_or_default().to_owned();
    // Kaleyra's profile for templates posts JSON; its incoming URL gets query parameters.
    let paused = json!({ "event": "Paused", "message_template_name": "offer", "reason": "low quality" });
    assert_eq!(post(&world.callbacks.of_account(), paused.to_string()).await.0, 200);
    until("the template's notice", || reason().contains("the template offer is paused (low quality)")).await;
    let approved = json!({ "event": "Approved", "message_template_name": "offer" });
    assert_eq!(post(&world.callbacks.of_account(), approved.to_string()).await.0, 200);
    until("the template's notice to be cleared", || !reason().contains("template")).await;
    let mut number_url: url::Url = world.callbacks.of_account().parse().unwrap();
    number_url.query_pairs_mut().extend_pairs([
        ("display_phone_number", "912248931479"),
        ("event", "FLAGGED"),
        ("current_limit", "TIER_10K"),
    ]);
    assert_eq!(client().get(number_url).send().await.unwrap().status(), 200);
    until("the number's notice", || reason().contains("is flagged (its limit is TIER_10K)")).await;
    let first = next_event(&mut events).await;
    assert_eq!(
        (&first["event"], &first["template"], &first["change"]),
        (&json!("template.changed"), &json!("offer"), &json!("paused"))
    );
}

/// Returns a flow job with a fixed token, as in document 000: it does not identify the message of a reply.
fn flow_job() -> Value {
    job_with(
        "/message",
        json!({ "type": "interactive", "interactive": { "type": "flow",
        "body": { "text": "Book a day" },
        "action": { "name": "flow", "parameters": { "flow_message_version": "3", "flow_id": "1323",
            "flow_token": "flows-builder-97dca41f", "flow_cta": "Book", "flow_action": "navigate",
            "flow_action_payload": { "screen": "FIRST" } } } } }),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_to_a_numbers_webhook_find_their_messages() {
    const ROWS: u64 = 300;
    for provider in ["exotel", "kaleyra", "meta"] {
        let world = CallbackWorld::new(provider, ROWS, NOWHERE, "");
        let account = world.callbacks.of_account();
        let reporting = Reporting {
            url: Some(account.clone()),
            // All replies arrive at the URL of the sender number.
            number_url: Some(account.clone()),
            read: 1.0,
            reply: 1.0,
            ..reporting()
        };
        let (_sandbox, sandbox) = sandbox(Behaviour { reporting, ..Behaviour::default() }).await;
        world.send_to(&sandbox);
        let _worker = world.worker().await;
        world.submit(&flow_job()).await;
        let mut status = Value::Null;
        until("every reply", || {
            status = world.fleet.status("c1");
            status["delivery"]["replied"] == ROWS
        })
        .await;
        let lines = world.fleet.ok(&["responses", "c1", "--format", "jsonl"]).await.out;
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len() as u64, ROWS, "{provider}");
        assert_eq!(lines[0]["fields"]["flow_token"], "flows-builder-97dca41f");
        if provider == "exotel" {
            // The fields of document 004 besides the form.
            let details = json!({ "profile_name": "Sandbox", "body": "Sent", "name": "galaxy_message" });
            assert_eq!(lines[0]["details"], details);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_with_only_a_number_belongs_to_the_last_message_from_the_number_it_was_sent_to() {
    let (_sandbox, sandbox) = sandbox(Behaviour::default()).await;
    let world = CallbackWorld::new("exotel", 20, &sandbox, "");
    let _worker = world.worker().await;
    world.submit(&flow_job()).await;
    world.fleet.until_state("c1", "completed").await;
    let account = world.callbacks.of_account();
    // Document 004's sample, with the numbers of this campaign.
    let form_reply = |row: u64, to: &str, context: Value| {
        json!({ "whatsapp": { "messages": [{ "callback_type": "incoming_message", "sid": format!("a{row}{to}"),
            "from": phone(row), "to": to, "timestamp": "2023-10-21T12:35:00+05:30", "profile_name": "Javed",
            "content": { "type": "interactive", "context": context, "interactive": { "type": "nfm_reply",
                "nfm_reply": { "body": "Sent", "name": "galaxy_message",
                    "response_json": "{\"flow_token\":\"flows-builder-97dca41f\",\"vehicle_number\":\"74785\"}" } } } }] } })
        .to_string()
    };
    let own = "+912248931479";
    let sid = world.fleet.world.report("c1")[2]["sid"].clone();
    for (row, to, context) in [
        (1, own, json!({})),
        (2, own, json!({ "sid": "f317c729f41c3e25d00d0b51c6ac17am" })),
        (3, own, json!({ "sid": sid })),
        // To another number, and from a number that got no message.
        (4, "+912240000000", json!({})),
        (99, own, json!({})),
    ] {
        assert_eq!(post(&account, form_reply(row, to, context)).await.0, 200);
    }
    until("three replies", || world.fleet.status("c1")["delivery"]["replied"] == 3).await;
    let csv = world.fleet.ok(&["responses", "c1"]).await.out;
    let rows: Vec<&str> = csv.lines().skip(1).filter_map(|line| line.split(',').nth(1)).collect();
    assert_eq!(rows, ["1", "2", "3"]);
    // STOP works for every number, and counts as a reply only if that number got a message.
    for row in [5, 99] {
        assert_eq!(post(&account, reply(row, "Stop")).await.0, 200);
    }
    let listed = || world.fleet.world.flowcast(&["suppress", "list"]).out;
    until("both to be on the list", || [5, 99].iter().all(|row| listed().contains(&phone(*row)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_who_replies_stop_gets_nothing_more_and_an_event_is_published() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let world = CallbackWorld::new("exotel", 5, &url, "");
    let mut events =
        listen(&world.fleet, &["recipient.#", "flow.#", "message.replied", "message.read"]).await;
    let _worker = world.worker().await;
    world.submit(&job()).await;
    world.fleet.until_state("c1", "completed").await;
    assert_eq!(world.post("c1.0.1", reply(2, " Stop! ")).await.0, 200);
    let mut names: Vec<String> = Vec::new();
    for _ in 0..2 {
        names.push(next_event(&mut events).await["event"].as_str().unwrap().into());
    }
    names.sort();
    assert_eq!(names, ["message.replied", "recipient.suppressed"]);
    assert_eq!(world.post("c1.0.0", dlr(1, "EX_MESSAGE_SEEN")).await.0, 200);
    assert_eq!(next_event(&mut events).await["event"], "message.read");
    assert_eq!(world.fleet.ok(&["suppress", "list"]).await.out, format!("{}\n", phone(2)));
    world.fleet.ok(&["suppress", "add", &phone(4)]).await;
    let mut second = job();
    second["id"] = json!("c2");
    world.submit(&second).await;
    let status = world.fleet.until_state("c2", "completed").await;
    assert_eq!((&status["counts"]["accepted"], &status["skipped"]), (&json!(3), &json!({ "suppressed": 2 })));
    assert_eq!(sandbox.count(), 8);
    world.fleet.ok(&["suppress", "remove", &phone(2), &phone(4)]).await;
    // A reply from another number suppresses both numbers.
    assert_eq!(world.post("c1.0.0", reply(5, "stop")).await.0, 200);
    assert_eq!(world.fleet.ok(&["suppress", "list"]).await.out, format!("{}\n{}\n", phone(1), phone(5)));
    world.fleet.ok(&["suppress", "remove", &phone(1), &phone(5)]).await;
    // The URL of a message works even after its campaign was removed.
    assert_eq!(world.post("forgotten.0.0", reply(3, "stop")).await.0, 200);
    assert_eq!(world.fleet.ok(&["suppress", "list"]).await.out, format!("{}\n", phone(3)));
    world.fleet.ok(&["suppress", "remove", &phone(3)]).await;
    world.fleet.world.write("stop.csv", format!("Mobile\n{}\n", phone(1)));
    assert_eq!(world.fleet.ok(&["suppress", "import", "stop.csv"]).await.out, "1 added\n");
    assert_eq!(world.fleet.ok(&["suppress", "list"]).await.out, format!("{}\n", phone(1)));
    world.fleet.world.write("named.csv", format!("who\n{}\n", phone(2)));
    let refused = world.fleet.world.flowcast(&["suppress", "import", "named.csv"]);
    assert!(refused.status == Some(2) && refused.err.contains("with --phone"), "{refused:?}");
    let import = ["suppress", "import", "named.csv", "--phone", "who"];
    assert_eq!(world.fleet.ok(&import).await.out, "1 added\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_bound_later_gets_the_events_from_then_on() {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let world = CallbackWorld::new("exotel", 90, &url, "");
    let _worker = world.worker().await;
    world.submit(&job()).await;
    world.fleet.until_state("c1", "completed").await;
    // No queue is bound, so these events are not published.
    for message in 0..20 {
        assert_eq!(world.post(&format!("c1.0.{message}"), dlr(message + 1, "EX_MESSAGE_SEEN")).await.0, 200);
    }
    let mut events = listen(&world.fleet, &["message.read"]).await;
    for message in 20.. {
        assert_eq!(world.post(&format!("c1.0.{message}"), dlr(message + 1, "EX_MESSAGE_SEEN")).await.0, 200);
        let soon = Duration::from_millis(50);
        let Ok(event) = tokio::time::timeout(soon, events.next()).await else { continue };
        let event: Value = serde_json::from_slice(&event.unwrap().unwrap().data).unwrap();
        assert!(event["row"].as_u64().unwrap() > 20, "{event}");
        break;
    }
    let status = world.fleet.status("c1");
    assert!(status["delivery"]["read"].as_u64().unwrap() > 20, "the ledger must have all reports: {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_configured_key_all_workers_use_the_ledgers_key() {
    let reporting = Reporting { delay: Duration::from_secs(2), read: 1.0, ..Reporting::default() };
    let (_sandbox, url) = sandbox(Behaviour { reporting, ..Behaviour::default() }).await;
    let world = CallbackWorld::new("exotel", 20, &url, "");
    let config = std::fs::read_to_string(world.fleet.world.path("flowcast.toml")).unwrap();
    world.fleet.world.write("flowcast.toml", config.replace(&format!("[callbacks]\nkeys = [\"{KEY}\"]"), ""));
    let mut first = world.worker().await;
    world.submit(&job()).await;
    world.fleet.until_state("c1", "completed").await;
    assert_eq!(
        world.post("c1.0.0", dlr(1, "EX_MESSAGE_SEEN")).await.0,
        404,
        "the removed key must be invalid"
    );
    first.kill();
    let _second = world.worker().await;
    until("all reports", || world.fleet.status("c1")["delivery"]["read"] == 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_is_published_even_if_the_broker_was_down_when_it_arrived() {
    let provider = Scripted::start(|_, to| accept(to)).await;
    let mut rabbit = RabbitProcess::start();
    let world = CallbackWorld::on(rabbit.url(), "exotel", 3, &provider.url, "");
    let _worker = world.worker().await;
    world.submit(&job()).await;
    world.fleet.until_state("c1", "completed").await;
    rabbit.kill();
    assert_eq!(world.post("c1.0.0", reply(1, "yes")).await.0, 503);
    assert_eq!(world.fleet.status("c1")["delivery"]["replied"], 1, "the ledger must have the reply");
    // Delivery reports are accepted even without the broker.
    assert_eq!(world.post("c1.0.1", dlr(2, "EX_MESSAGE_DELIVERED")).await.0, 200);
    rabbit.restart();
    let mut events = listen(&world.fleet, &["message.replied"]).await;
    // The provider retries until it gets a 200.
    let start = std::time::Instant::now();
    while world.post("c1.0.0", reply(1, "yes")).await.0 != 200 {
        assert!(start.elapsed() < Duration::from_mins(2));
    }
    assert_eq!(next_event(&mut events).await["response"], "yes");
    assert_eq!(world.post("c1.0.0", reply(1, "yes")).await.0, 200);
    assert_eq!(world.post("c1.0.2", reply(3, "no")).await.0, 200);
    // Events are published at least once: if the broker's confirm came too late, the event is published again.
    let mut event = next_event(&mut events).await;
    while event["response"] == "yes" {
        event = next_event(&mut events).await;
    }
    assert_eq!(event["response"], "no");
    assert_eq!(world.fleet.status("c1")["delivery"]["replied"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_reports_in_one_body_each_find_their_message() {
    let provider = Scripted::start(|_, to| accept(to)).await;
    let world = CallbackWorld::new("exotel", 5, &provider.url, "");
    let _worker = world.worker().await;
    world.submit(&job()).await;
    world.fleet.until_state("c1", "completed").await;
    let report = |index: u64, status: &str| {
        let mut body: Value = serde_json::from_str(&dlr(index + 1, status)).unwrap();
        let mut report = body["whatsapp"]["messages"][0].take();
        report["custom_data"] = json!(format!("c1.0.{index}"));
        report
    };
    let mut reports: Vec<Value> = (0..5).map(|index| report(index, "EX_MESSAGE_DELIVERED")).collect();
    reports.push(report(0, "EX_MESSAGE_SEEN"));
    let body = json!({ "whatsapp": { "messages": reports } }).to_string();
    // At the account's URL a body may report on any message, ...
    assert_eq!(post(&world.callbacks.of_account(), body.clone()).await.0, 200);
    let delivery = world.fleet.status("c1")["delivery"].clone();
    assert_eq!((&delivery["delivered"], &delivery["read"]), (&json!(4), &json!(1)));
    // ... and at a message's URL only on that message.
    let read =
        json!({ "whatsapp": { "messages": [report(1, "EX_MESSAGE_SEEN"), report(2, "EX_MESSAGE_SEEN")] } });
    assert_eq!(world.post("c1.0.1", read.to_string()).await.0, 200);
    assert_eq!(world.fleet.status("c1")["delivery"]["read"], 2);
}

fn flow_message(id: &str) -> Value {
    json!({ "type": "interactive", "interactive": { "type": "flow", "body": { "text": "Hello {{ name }}" },
        "action": { "name": "flow", "parameters": {
            "flow_message_version": "3", "flow_id": id, "flow_token": "{{ message_ref }}", "flow_cta": "Go",
            "flow_action": "data_exchange" } } } })
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_a_throttled_flow_did_not_deliver_are_sent_again_by_retry() {
    // This provider sends no reports.
    let provider = Scripted::start(|_, to| accept(to)).await;
    let world = CallbackWorld::new("exotel", 3, &provider.url, "");
    let _worker = world.worker().await;
    world.submit(&job_with("/message", flow_message("f1"))).await;
    world.fleet.until_state("c1", "completed").await;
    let mut failed: Value = serde_json::from_str(&dlr(2, "EX_UNKNOWN_ERROR")).unwrap();
    failed["whatsapp"]["messages"][0]["exo_status_code"] = json!(132_069);
    assert_eq!(world.post("c1.0.1", failed.to_string()).await.0, 200);
    let status = world.fleet.status("c1");
    assert_eq!(status["delivery"]["failed"], 1, "{status}");
    let retried = world.fleet.ok(&["retry", "c1", "--code", "132069"]).await.out;
    assert!(retried.contains("1 message will be sent again"), "{retried}");
    // The values are read from the audience again; the first message of a throttled flow is sent without a delay.
    until("the message to be sent again", || provider.requests().concat().len() == 4).await;
    let status = world.fleet.until_state("c1", "completed").await;
    assert_eq!((&status["counts"]["accepted"], &status["delivery"]["failed"]), (&json!(3), &json!(0)));
    assert_eq!(world.fleet.world.report("c1")[1]["attempts"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_is_reported_as_blocked_holds_its_campaigns() {
    let provider = Scripted::start(|_, to| accept(to)).await;
    let world = CallbackWorld::new("exotel", 3, &provider.url, "");
    let mut events = listen(&world.fleet, &["flow.#"]).await;
    let _worker = world.worker().await;
    world.submit(&job_with("/message", flow_message("f1"))).await;
    world.fleet.until_state("c1", "completed").await;
    // A submitted form, reported as a flow response.
    let form = json!({ "event": "flow_response", "message_id": "sid", "from": phone(1), "flow_token": "c1.0.0",
        "response_json": { "day": "monday" }, "timestamp": "2026-01-01T00:00:00Z" });
    assert_eq!(world.post("c1.0.0", form.to_string()).await.0, 200);
    let completed = next_event(&mut events).await;
    assert_eq!(
        (&completed["event"], &completed["response"]),
        (&json!("flow.completed"), &json!({ "day": "monday" }))
    );
    // The same form in the provider's other format is a duplicate; another form is not.
    let incoming_form = |day: &str| {
        json!({ "callback_type": "icm", "sid": "4743", "from": phone(1), "to": "+912248931479",
            "timestamp": "2026-01-01T00:00:01Z", "content": { "type": "interactive", "context": { "sid": "sid" },
            "interactive": { "type": "nfm_reply", "nfm_reply": { "body": "Sent", "name": "flow",
                "response_json": json!({ "flow_token": "c1.0.0", "day": day }).to_string() } } } })
        .to_string()
    };
    assert_eq!(world.post("c1.0.0", incoming_form("monday")).await.0, 200);
    assert_eq!(world.post("c1.0.0", incoming_form("friday")).await.0, 200);
    assert_eq!(next_event(&mut events).await["response"]["day"], "friday");
    let responses = world.fleet.ok(&["responses", "c1"]).await.out;
    assert_eq!(responses.lines().count(), 3, "{responses}");
    // A failure with a code of WhatsApp.
    let mut failed: Value = serde_json::from_str(&dlr(2, "EX_UNKNOWN_ERROR")).unwrap();
    failed["whatsapp"]["messages"][0]["exo_status_code"] = json!(132_068);
    assert_eq!(world.post("c1.0.1", failed.to_string()).await.0, 200);
    assert_eq!(next_event(&mut events).await["event"], "flow.held");
    for (id, flow, state) in [("c2", "f1", "held"), ("c3", "f2", "completed")] {
        let mut job = job_with("/message", flow_message(flow));
        job["id"] = json!(id);
        world.submit(&job).await;
        let status = world.fleet.until_state(id, state).await;
        assert_eq!(
            status["reason"].as_str().is_some_and(|reason| reason.contains("flow f1")),
            state == "held"
        );
    }
    assert_eq!(provider.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_forwarded_signed_and_retried() {
    let provider = Scripted::start(|_, to| accept(to)).await;
    // The receiver is down for its first request.
    let receiver = Scripted::start(|nth, _| {
        if nth == 0 {
            Reaction::Answer(503, "", String::new())
        } else {
            Reaction::Answer(200, "", String::new())
        }
    })
    .await;
    let world =
        CallbackWorld::new("exotel", 3, &provider.url, "signing_key = \"sign\"\nforward_to_private = true");
    let _worker = world.worker().await;
    let mut job = job_with("/custom_data", json!("order-{{ row }}"));
    job["status_callback"] = json!(format!("{}/dlr", receiver.url));
    world.submit(&job).await;
    world.fleet.until_state("c1", "completed").await;
    let body = dlr(1, "EX_MESSAGE_DELIVERED");
    assert_eq!(world.post("c1.0.0", body.clone()).await.0, 200);
    until("the report to be forwarded", || receiver.raw().len() == 2).await;
    let (head, forwarded) = receiver.raw().pop().unwrap();
    assert_eq!(forwarded, body);
    let signature =
        head.lines().find_map(|line| line.strip_prefix("flowcast-signature: ")).unwrap().to_owned();
    let (time, mac) = signature.split_once(",v1=").unwrap();
    let time = time.strip_prefix("t=").unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"sign");
    let mac: Vec<u8> =
        (0..mac.len()).step_by(2).map(|at| u8::from_str_radix(&mac[at..at + 2], 16).unwrap()).collect();
    ring::hmac::verify(&key, format!("{time}.{body}").as_bytes(), &mac).unwrap();
    // An unknown body is forwarded, too: the receiver may understand it.
    assert_eq!(world.post("c1.0.0", "{\"hello\":1}".into()).await.0, 200);
    until("the unknown body to be forwarded", || receiver.raw().len() == 3).await;
    assert_eq!(receiver.raw()[2].1, "{\"hello\":1}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_loses_no_report_that_is_to_be_forwarded() {
    let provider = Scripted::start(|_, to| accept(to)).await;
    // The receiver does not respond while the first worker is alive.
    let responds = Arc::new(AtomicBool::new(false));
    let receiver = Scripted::start({
        let responds = responds.clone();
        move |_, _| {
            if responds.load(Ordering::SeqCst) {
                Reaction::Answer(200, "", String::new())
            } else {
                Reaction::Hang
            }
        }
    })
    .await;
    let world = CallbackWorld::new("exotel", 3, &provider.url, "forward_to_private = true");
    let mut first = world.worker().await;
    let mut job = job();
    job["status_callback"] = json!(format!("{}/dlr", receiver.url));
    world.submit(&job).await;
    world.fleet.until_state("c1", "completed").await;
    let body = dlr(1, "EX_MESSAGE_DELIVERED");
    assert_eq!(world.post("c1.0.0", body.clone()).await.0, 200);
    until("the first attempt", || !receiver.raw().is_empty()).await;
    first.kill();
    let attempts = receiver.raw().len();
    responds.store(true, Ordering::SeqCst);
    let _second = world.worker().await;
    until("the report to be forwarded", || receiver.raw().len() > attempts).await;
    assert!(receiver.raw().iter().all(|(_, sent)| *sent == body));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forwarded_to_an_internal_address() {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let receiver = Scripted::start(|_, _| Reaction::Answer(200, "", String::new())).await;
    let world = CallbackWorld::new("exotel", 3, &url, "");
    let _worker = world.worker().await;
    let mut job = job();
    job["status_callback"] = json!(format!("{}/dlr", receiver.url));
    world.submit(&job).await;
    world.fleet.until_state("c1", "completed").await;
    assert_eq!(world.post("c1.0.0", dlr(1, "EX_MESSAGE_DELIVERED")).await.0, 200);
    until("the refusal", || world.fleet.log().contains("not a public address")).await;
    assert!(receiver.raw().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn doubts_show_their_age_and_an_operators_decision_is_logged() {
    let world = World::new(3);
    let provider = Scripted::start(|_, _| Reaction::Close).await;
    world.write_config(&provider.url, "");
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(3));
    let text = world.flowcast(&["status", "c1"]).out;
    assert!(text.contains("3 in doubt, the oldest for "), "{text}");
    assert!(
        text.contains("without http.public_url no delivery report arrives: flowcast resolve c1"),
        "{text}"
    );
    let aged = world.flowcast(&["resolve", "c1", "--abandon", "--older-than", "2h"]).out;
    assert!(aged.contains("0 messages abandoned"), "{aged}");
    assert_eq!(world.status("c1")["counts"]["in_doubt"], 3);
    world.flowcast(&["resolve", "c1", "--abandon"]);
    let text = world.flowcast(&["status", "c1"]).out;
    assert!(text.contains("marked as failed: 0 messages in doubt for 2h or more"), "{text}");
    assert!(text.contains("marked as failed: 3 messages in doubt"), "{text}");
    // The line has the operator and the time.
    let line = text.lines().find(|line| line.contains("as failed: 3")).unwrap();
    assert!(line.contains('@') && line.trim_start().starts_with("20"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_worker_accepts_reports_too() {
    let behaviour = Behaviour { cut_rate: 0.1, reporting: reporting(), ..Behaviour::default() };
    let (sandbox, url) = reporting_sandbox(behaviour).await;
    let world = CallbackWorld::new("exotel", 2_000, &url, "");
    let config = std::fs::read_to_string(world.fleet.world.path("flowcast.toml")).unwrap();
    let (account, rest) = config.split_once("[redis]").unwrap();
    let rest = rest.split_once("[audiences]").unwrap().1;
    world.fleet.world.write("flowcast.toml", format!("{account}[audiences]{rest}"));
    let _worker = world.fleet.worker_with(&["worker", "--embedded"]);
    until("the store", || world.fleet.world.path("flowcast.db").exists()).await;
    world.submit(&job()).await;
    until("every message to be delivered", || world.fleet.status("c1")["delivery"]["delivered"] == 2_000)
        .await;
    let status = world.fleet.status("c1");
    assert_eq!((&status["counts"]["accepted"], &status["counts"]["in_doubt"]), (&json!(2_000), &json!(0)));
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}

/// Returns bodies of each provider that report a message, named in every way, as read or replied to.
fn bodies_about(reference: &str, sid: &str, row: u64) -> Vec<Value> {
    let (digits, at) = (phone(row).trim_start_matches('+').to_owned(), "1790000000");
    let form = |token: &str| json!({ "flow_token": token, "slot": "x" });
    let mut bodies = Vec::new();
    for token in [reference, "flows-builder-97dca41f"] {
        for context in [sid, ""] {
            let nfm = json!({ "type": "nfm_reply",
                "nfm_reply": { "body": "Sent", "name": "flow", "response_json": form(token).to_string() } });
            // Exotel.
            bodies.push(json!({ "whatsapp": { "messages": [{ "callback_type": "incoming_message", "sid": format!("i{token}{context}{row}"),
                "from": phone(row), "to": "+912248931479", "timestamp": "2026-01-01T00:00:00Z",
                "content": { "type": "interactive", "context": { "sid": context }, "interactive": nfm } }] } }));
            bodies.push(json!({ "event": "flow_response", "message_id": format!("e{context}{row}"), "from": phone(row),
                "timestamp": "2026-01-01T00:00:00Z", "flow_token": token, "response_json": form(token) }));
            // Kaleyra.
            bodies.push(
                json!({ "from": digits, "wanumber": "912248931479", "reply_to": context, "created_at": at,
                "type": "interactive", "custom_response": form(token).to_string() }),
            );
            // Meta.
            bodies.push(json!({ "entry": [{ "changes": [{ "value": { "metadata": { "display_phone_number": "912248931479" },
                "messages": [{ "from": digits, "id": format!("m{token}{context}{row}"), "timestamp": at, "type": "interactive",
                    "context": { "id": context }, "interactive": nfm }] } }] }] }));
        }
    }
    // Delivery reports.
    bodies.push(json!({ "whatsapp": { "messages": [{ "callback_type": "dlr", "sid": sid, "to": phone(row), "custom_data": reference,
        "exo_status_code": 0, "exo_detailed_status": "EX_MESSAGE_SEEN", "timestamp": "2026-01-01T00:00:00Z" }] } }));
    bodies.push(json!({ "extra_info": { "ref1": reference }, "ref1": reference, "ref": reference, "id": sid, "message_id": sid,
        "recipient": digits, "mobile": digits, "status": "read", "created_at": at }));
    bodies.push(json!({ "entry": [{ "changes": [{ "value": { "statuses": [{ "id": sid, "status": "read", "timestamp": at,
        "recipient_id": digits, "biz_opaque_callback_data": reference }] } }] }] }));
    bodies
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accounts_url_cannot_report_on_messages_of_other_accounts() {
    let (_sandbox, sandbox) = sandbox(Behaviour {
        cut_rate: 0.4,
        // Only this test sends reports.
        reporting: Reporting { delay: Duration::from_hours(1), ..Reporting::default() },
        ..Behaviour::default()
    })
    .await;
    let world = CallbackWorld::new("exotel", 1_000, &sandbox, "");
    let path = world.fleet.world.path("flowcast.toml");
    let mut config = std::fs::read_to_string(&path).unwrap();
    for provider in ["exotel", "kaleyra", "meta"] {
        config += &format!(
            "\n[accounts.of_{provider}]\nprovider = \"{provider}\"\nbase_url = \"{sandbox}\"\naccount_sid = \"acme2\"\n\
             api_key = \"key2\"\napi_token = \"other-token\"\n"
        );
    }
    std::fs::write(path, config).unwrap();
    let _worker = world.worker().await;
    world.submit(&flow_job()).await;
    until("every message to have its outcome", || {
        let counts = world.fleet.status("c1")["counts"].clone();
        let of = |state: &str| counts[state].as_u64().unwrap_or_default();
        of("accepted") + of("in_doubt") == 1_000 && of("in_doubt") > 0
    })
    .await;
    let report = world.fleet.world.report("c1");
    let status = world.fleet.status("c1");
    // Messages of several batches, some of them in doubt.
    let message = |nth: usize| {
        let nth = nth * 97;
        let line = &report[nth];
        let index = report[..nth].iter().filter(|earlier| earlier["batch"] == line["batch"]).count();
        let reference = format!("c1.{}.{index}", line["batch"]);
        (reference, line["sid"].as_str().unwrap_or("none").to_owned(), nth as u64 + 1)
    };
    for provider in ["exotel", "kaleyra", "meta"] {
        let name = format!("of_{provider}");
        let other = Callbacks::new(&world.url.parse().unwrap(), &name, &[KEY]).unwrap().of_account();
        for nth in 0..10 {
            let (reference, sid, row) = message(nth);
            for body in bodies_about(&reference, &sid, row) {
                assert_eq!(post(&other, body.to_string()).await.0, 200, "{body}");
            }
        }
    }
    let after = world.fleet.status("c1");
    assert_eq!((&after["delivery"], &after["counts"]), (&status["delivery"], &status["counts"]));
    assert_eq!(world.fleet.world.report("c1"), report);
    let replies = world.fleet.world.flowcast(&["responses", "c1", "--format", "jsonl"]);
    assert_eq!(replies.out, "", "{replies:?}");
    let metrics = client().get(format!("{}/metrics", world.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("flowcast_callbacks_total{result=\"other_account\"}"), "{metrics}");
    // The same bodies count at the account's own URL, so the URL made the difference.
    let own = world.callbacks.of_account();
    for nth in 0..10 {
        let (reference, sid, row) = message(nth);
        for body in bodies_about(&reference, &sid, row).iter().filter(|body| body.get("whatsapp").is_some()) {
            assert_eq!(post(&own, body.to_string()).await.0, 200);
        }
    }
    until("the reports to count", || {
        let delivery = world.fleet.status("c1")["delivery"].clone();
        delivery["read"] == 10 && delivery["replied"] == 10
    })
    .await;
}

/// Returns a body of Meta's webhook.
fn meta_body(messages: &Value, statuses: &Value) -> String {
    json!({ "entry": [{ "changes": [{ "value": { "metadata": { "display_phone_number": "912248931479" },
        "messages": messages, "statuses": statuses } }] }] })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_names_its_message_counts_from_any_number() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let world = CallbackWorld::new("meta", 0, &provider, "");
    let _worker = world.worker().await;
    let numbers = ["+5511987654321", "+919876543210", "+919876543211", "+919876543212"];
    let recipients: Vec<Value> =
        numbers.iter().map(|number| json!({ "phone": number, "name": "Asha" })).collect();
    let mut job = job();
    job["audience"] = json!({ "recipients": recipients });
    world.submit(&job).await;
    world.fleet.until_state("c1", "completed").await;
    until("all messages to be sent", || world.fleet.status("c1")["counts"]["accepted"] == 4).await;
    let url = world.callbacks.of_account();
    let post_callback = async |messages: Value, statuses: Value| {
        assert_eq!(post(&url, meta_body(&messages, &statuses)).await.0, 200);
    };
    let listed = || world.fleet.world.flowcast(&["suppress", "list"]).out;
    // A status with our reference, and a form with our token, from a number that got no message.
    post_callback(
        json!([]),
        json!([{ "id": "wamid.x", "status": "delivered", "timestamp": "1795770000", "recipient_id": "15551234567",
            "biz_opaque_callback_data": "c1.0.1" }]),
    )
    .await;
    until("the status to count", || world.fleet.status("c1")["delivery"]["delivered"] == 1).await;
    let form = json!({ "flow_token": "c1.0.1", "slot": "10:00" }).to_string();
    post_callback(
        json!([{ "id": "wamid.f", "from": "15551234567", "timestamp": "1795770001", "type": "interactive",
            "interactive": { "type": "nfm_reply", "nfm_reply": { "response_json": form } } }]),
        json!([]),
    )
    .await;
    until("the form to count", || world.fleet.status("c1")["delivery"]["replied"] == 1).await;
    // Incoming messages that are not replies.
    let kinds = ["reaction", "unsupported", "system", "unknown"];
    let non_replies: Vec<Value> = kinds
        .iter()
        .map(|kind| json!({ "id": format!("wamid.{kind}"), "from": "919876543211", "timestamp": "1795770002", "type": kind }))
        .collect();
    post_callback(json!(non_replies), json!([])).await;
    // WhatsApp reports a Brazilian number without its ninth digit.
    post_callback(
        json!([{ "id": "wamid.s", "from": "551187654321", "timestamp": "1795770003", "type": "text", "text": { "body": "STOP" } }]),
        json!([]),
    )
    .await;
    until("the Brazilian number to be suppressed", || listed().contains("+5511987654321")).await;
    // The reply of a recipient with only a user id names its message.
    let lines = world.fleet.world.report("c1");
    let line = lines.iter().find(|line| line["recipient"] == numbers[3]).unwrap();
    post_callback(
        json!([{ "id": "wamid.u", "from_user_id": "IN.1234567890", "timestamp": "1795770004", "type": "text",
            "text": { "body": "stop" }, "context": { "id": line["sid"] } }]),
        json!([]),
    )
    .await;
    until("the recipient without a number to be suppressed", || listed().contains(numbers[3])).await;
    assert_eq!(world.fleet.status("c1")["delivery"]["replied"], 3);
    assert!(!listed().contains(numbers[2]), "{}", listed());
    // A reply from another number names its message: the recipient and the other number are both suppressed.
    let line = lines.iter().find(|line| line["recipient"] == numbers[2]).unwrap();
    post_callback(
        json!([{ "id": "wamid.o", "from": "15551234567", "timestamp": "1795770005", "type": "text",
            "text": { "body": "stop" }, "context": { "id": line["sid"] } }]),
        json!([]),
    )
    .await;
    until("both to be suppressed", || {
        let listed = listed();
        listed.contains(numbers[2]) && listed.contains("+15551234567")
    })
    .await;
}
