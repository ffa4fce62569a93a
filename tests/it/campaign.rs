//! A campaign as its user sees it: `run`, `status`, `report`, and the requests that the provider received.

use std::collections::BTreeMap;

use flowcast::sandbox::Behaviour;
use serde_json::{Value, json};

use crate::support::{Reaction, Scripted, World, accept, job_with, phone, sandbox};

fn fixture(name: &str) -> String {
    format!("{}/fixtures/jobs/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn sum(value: &Value) -> u64 {
    value.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

/// Asserts that a time is RFC 3339 in UTC with milliseconds: `2026-11-01T03:30:00.000Z`.
fn assert_millis(time: &str) {
    let at: jiff::Timestamp = time.parse().unwrap();
    assert_eq!(format!("{at:.3}"), time);
}

#[test]
fn the_fixture_runs_in_the_sandbox_and_all_counts_add_up() {
    let world = World::new(1);
    let ended = world.flowcast(&["run", &fixture("appointment.json"), "--sandbox", "--json"]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let last: Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
    let status = world.status("appointment-demo");
    assert_eq!(last["counts"], status["counts"]);
    assert_eq!(status["state"], "completed");
    assert_eq!((&last["account"], &last["sandbox"]), (&"main".into(), &true.into()));
    assert!(last["created_by"].as_str().unwrap().contains('@'), "{last}");
    for time in ["submitted_at", "started_at", "finished_at"] {
        assert_millis(last[time].as_str().unwrap());
    }
    for line in world.report("appointment-demo").iter().filter(|line| line["state"] == "accepted") {
        assert_millis(line["updated_at"].as_str().unwrap());
    }

    let mut reader = csv::ReaderBuilder::new().flexible(true).from_path(fixture("customers.csv")).unwrap();
    let rows = reader.byte_records().count() as u64;
    let counts = &status["counts"];
    assert_eq!((counts["total"].as_u64(), rows), (Some(rows), 1000));
    assert_eq!(sum(counts), 2 * rows);
    assert_eq!(sum(&status["skipped"]), counts["skipped"].as_u64().unwrap());
    for reason in ["invalid_number", "duplicate", "missing_variable", "invalid_content"] {
        assert!(status["skipped"][reason].as_u64().unwrap() > 0, "{status}");
    }

    let mut states = BTreeMap::<String, u64>::new();
    let report = world.report("appointment-demo");
    for line in &report {
        *states.entry(line["state"].as_str().unwrap().into()).or_default() += 1;
    }
    assert_eq!(
        report.iter().map(|line| line["row"].as_u64().unwrap()).collect::<Vec<_>>(),
        (1..=rows).collect::<Vec<_>>()
    );
    assert_eq!(states["accepted"], counts["accepted"].as_u64().unwrap());
    assert_eq!(states["skipped"], counts["skipped"].as_u64().unwrap());

    // The summary lists the skipped rows by reason.
    let summary = world.flowcast(&["status", "appointment-demo"]).out;
    for part in ["completed", "invalid_number", "duplicate", "missing_variable", "invalid_content"] {
        assert!(summary.contains(part), "{summary}");
    }
}

#[test]
fn a_job_is_read_from_standard_input() {
    let world = World::new(3);
    world.write_config("http://127.0.0.1:1", "");
    let checked = |input: &str| {
        world.write("input", input);
        let input = std::fs::File::open(world.path("input")).unwrap();
        let ended = world.command(&["check", "-", "--json"]).stdin(input).output().unwrap();
        (
            ended.status.code(),
            String::from_utf8(ended.stdout).unwrap(),
            String::from_utf8(ended.stderr).unwrap(),
        )
    };
    let (status, out, err) = checked(&crate::support::job().to_string());
    assert_eq!(status, Some(0), "{err}");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["recipients"], 3);
    let (status, _, err) = checked("{");
    assert_eq!(status, Some(2), "{err}");
    assert!(err.contains("-: "), "{err}");
}

#[test]
fn ignored_environment_variables_are_reported() {
    let world = World::new(1);
    let ended = world
        .command(&["campaigns"])
        .envs([("FLOWCAST_LOG", "verbose"), ("FLOWCAST_REDIS_URL", "redis://127.0.0.1")])
        .output()
        .unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert!(err.contains("invalid FLOWCAST_LOG"), "{err}");
    assert!(err.contains("FLOWCAST_REDIS__URL"), "{err}");
    assert!(!err.contains("redis://"), "{err}");
}

#[test]
fn a_run_with_rejections_exits_with_3_and_lists_them_by_code() {
    let world = World::new(1);
    let ended = world.flowcast(&[
        "run",
        &fixture("appointment.json"),
        "--sandbox",
        "--accept-rate",
        "0.8",
        "--seed",
        "3",
    ]);
    assert_eq!(ended.status, Some(3), "{ended:?}");
    let status = world.status("appointment-demo");
    assert_eq!(status["state"], "completed");
    let rejected = status["counts"]["rejected"].as_u64().unwrap();
    assert!(rejected > 80, "{status}");
    assert_eq!(sum(&status["rejected"]), rejected);
    for code in ["400", "131047"] {
        assert!(ended.out.contains(code), "{}", ended.out);
    }
    assert!(ended.out.contains("131047: Re-engagement: More than 24 hours have passed"), "{}", ended.out);
    let lines = world.flowcast(&["report", "appointment-demo", "--state", "rejected"]).out;
    assert_eq!(lines.lines().count() as u64, rejected + 1);
    assert!(lines.starts_with("recipient,row,batch,state,sid,code,detail,attempts,delivery,updated_at\n"));
}

#[test]
fn a_rehearsal_is_never_recovered_from_a_backup() {
    let world = World::new(1);
    let run = ["run", &fixture("appointment.json"), "--sandbox", "--accept-rate", "0.8", "--seed", "3"];
    let ended = world.flowcast(&run);
    assert_eq!(ended.status, Some(3), "{ended:?}");
    let list = "to list the rejected messages: flowcast report appointment-demo --state rejected";
    assert!(ended.err.contains(list), "{ended:?}");
    assert_eq!(world.flowcast(&["retry", "appointment-demo"]).status, Some(0));
    assert!(world.status("appointment-demo")["counts"]["pending"].as_u64().unwrap() > 80);
    for args in [&["--restored"][..], &["--restored", "--dry-run"]] {
        let ended = world.flowcast(&[&["recover", "appointment-demo"], args].concat());
        assert_eq!(ended.status, Some(2), "{ended:?}");
        assert!(ended.err.contains("is a rehearsal: none of its messages was really sent"), "{ended:?}");
        let all = world.flowcast(&[&["recover"], args].concat());
        assert_eq!(all.out, "no campaign in this ledger has messages left to send, apart from rehearsals\n");
    }
    let all = world.flowcast(&["recover", "--restored", "--dry-run", "--json"]);
    assert_eq!(all.out, "{\"would_recover\":[]}\n");
}

#[test]
fn the_other_fixtures_run() {
    let world = World::new(1);
    for (job, id) in
        [("offer-template.json", "offer-template-demo"), ("reminder-text.json", "reminder-text-demo")]
    {
        let ended = world.flowcast(&["run", &fixture(job), "--sandbox"]);
        assert_eq!(ended.status, Some(0), "{ended:?}");
        assert_eq!(world.status(id)["state"], "completed");
    }
    assert_eq!(world.status("reminder-text-demo")["counts"]["accepted"], 3);
    let list: Value = serde_json::from_str(&world.flowcast(&["campaigns", "--json"]).out).unwrap();
    let ids: Vec<&str> =
        list.as_array().unwrap().iter().map(|campaign| campaign["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["reminder-text-demo", "offer-template-demo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_reaches_the_provider_once_with_its_sid_in_the_report() {
    let world = World::new(1_234);
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config(&url, "limits = { messages = \"100000/s\", requests = \"1000/s\" }");
    let ended = world.run(&["run", "job.json"]).await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let stats = sandbox.stats();
    assert_eq!(
        (&stats["accepted"], &stats["sent_twice"], &stats["requests"]),
        (&json!(1234), &json!(0), &json!(13))
    );
    let sids: BTreeMap<String, String> =
        sandbox.taken().into_iter().map(|message| (message.to, message.sid)).collect();
    for line in world.report("c1") {
        assert_eq!(sids[line["recipient"].as_str().unwrap()], line["sid"].as_str().unwrap());
    }
    // A job without custom data sends the message reference instead.
    let refs: Vec<String> = sandbox.taken().into_iter().filter_map(|message| message.custom_data).collect();
    assert!(refs.contains(&"c1.0.0".to_string()) && refs.contains(&"c1.12.33".to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completed_campaign_that_is_run_again_sends_nothing() {
    let world = World::new(10);
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config(&url, "");
    for _ in 0..2 {
        assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    }
    assert_eq!(sandbox.stats()["requests"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_an_id_is_not_sent_twice() {
    let world = World::new(10);
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config(&url, "");
    let mut job = crate::support::job();
    job.as_object_mut().unwrap().remove("id");
    world.write_job(&job);
    let first = world.run(&["run", "job.json", "--json"]).await;
    let again = world.run(&["run", "job.json", "--json"]).await;
    let id = |ended: &crate::support::CommandOutput| {
        serde_json::from_str::<Value>(&ended.out).unwrap()["id"].clone()
    };
    assert_eq!((first.status, id(&first)), (again.status, id(&again)));
    assert_eq!(sandbox.stats()["accepted"], 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_does_not_replace_the_real_campaign() {
    let world = World::new(10);
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config(&url, "");
    assert_eq!(world.run(&["run", "job.json", "--sandbox"]).await.status, Some(0));
    assert_eq!(sandbox.stats()["accepted"], 0);
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    assert_eq!(sandbox.stats()["accepted"], 10);
    let rehearsal = world.run(&["run", "job.json", "--sandbox"]).await;
    assert_eq!(rehearsal.status, Some(2));
    assert!(rehearsal.err.contains("exists as a real campaign"), "{}", rehearsal.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_and_numbers_are_never_printed() {
    let world = World::new(200);
    let provider = Scripted::start(|nth, to| match nth {
        0 => Reaction::Close,
        1 => Reaction::Answer(500, "", json!({ "http_code": 500 }).to_string()),
        _ => accept(to),
    })
    .await;
    world.write_config(&provider.url, "");
    let mut command = world.command(&["run", "job.json"]);
    command.env("FLOWCAST_LOG", "trace");
    let ended: crate::support::CommandOutput =
        tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap();
    assert_eq!(ended.status, Some(3), "{}", ended.err);
    let encoded = "a2V5MTpzM2NyM3QtdG9rZW4";
    for secret in ["s3cr3t-token", "key1", encoded, &phone(1)[3..], &phone(200)[3..]] {
        assert!(!ended.err.contains(secret) && !ended.out.contains(secret), "{secret} in {}", ended.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_shrink_to_the_burst() {
    let world = World::new(100);
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config(&url, "limits = { messages = \"1000/s,burst=30\", requests = \"100/s\" }");
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    assert_eq!(sandbox.stats()["requests"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_variables_override_the_configuration() {
    let world = World::new(5);
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config("http://127.0.0.1:9", "");
    let mut command = world.command(&["run", "job.json"]);
    command.env("FLOWCAST_ACCOUNTS__MAIN__BASE_URL", &url);
    command.env("FLOWCAST_ACCOUNTS__MAIN__API_TOKEN", "12345");
    command.env("FLOWCAST_ACCOUNTS__MAIN__CONCURRENCY", "2");
    command.env("FLOWCAST_STORE__PATH", "other.db");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(sandbox.stats()["accepted"], 5);
    assert!(world.path("other.db").exists() && !world.path("flowcast.db").exists());
}

#[test]
fn a_check_shows_messages_problems_and_a_forecast_and_sends_nothing() {
    let world = World::new(1);
    let ended = world.flowcast(&["check", &fixture("appointment.json"), "--rows", "2"]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    insta::assert_snapshot!(ended.out);
    let json = world.flowcast(&["--json", "check", &fixture("appointment.json"), "--rows", "1"]);
    let found: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(found["rows"], 1000);
    assert_eq!(found["messages"][0]["content"]["interactive"]["type"], "flow");
    assert!(found["forecast"].get("price").is_none());
    assert!(!world.path("flowcast.db").exists());
}

#[test]
fn a_check_shows_the_price_if_the_account_has_prices() {
    let world = World::new(1_000);
    let priced = |per_message: &str| {
        let prices = format!("prices = {{ currency = \"INR\", per_message = {{ {per_message} }} }}");
        world.write_config("http://127.0.0.1:1", &prices);
        world.flowcast(&["check", "job.json"])
    };
    let ended = priced("91 = 0.8631");
    assert!(ended.out.contains("price: INR 863.10 by the account's price list\n"), "{ended:?}");
    let ended = priced("1 = 2");
    let expected = "price: INR 0.00 by the account's price list, and 1,000 messages without a price";
    assert!(ended.out.contains(expected), "{ended:?}");
    let json = world.flowcast(&["--json", "check", "job.json"]);
    let found: Value = serde_json::from_str(&json.out).unwrap();
    let price = json!({ "amount": "0.00", "value": 0.0, "currency": "INR", "unpriced": 1000 });
    assert_eq!(found["forecast"]["price"], price);
    priced("91 = 0.8631");
    let json = world.flowcast(&["--json", "check", "job.json"]);
    let found: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(found["forecast"]["price"]["value"], 863.1);
    let ended = priced("India = 2");
    assert_eq!(ended.status, Some(2), "{ended:?}");
    assert!(
        ended.err.contains("accounts.main.prices") && ended.err.contains("number prefix"),
        "{}",
        ended.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_sends_delivery_reports() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let (sender, mut reports) = tokio::sync::mpsc::unbounded_channel::<Value>();
    let router = axum::Router::new().route(
        "/dlr",
        axum::routing::post(move |axum::Json(report): axum::Json<Value>| {
            sender.send(report).unwrap();
            std::future::ready(())
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let callback = format!("http://{}/dlr", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let world = World::new(2);
    world.write_config(&url, "");
    world.write_job(&job_with("/status_callback", json!(callback)));
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    let sids: Vec<String> = sandbox.taken().into_iter().map(|message| message.sid).collect();
    for _ in 0..4 {
        let report = reports.recv().await.unwrap();
        let message = &report["whatsapp"]["messages"][0];
        assert_eq!(message["callback_type"], "dlr");
        assert!(sids.contains(&message["sid"].as_str().unwrap().into()));
        assert!(message["exo_detailed_status"].as_str().unwrap().starts_with("EX_MESSAGE_"));
    }
}

#[test]
fn schemas_and_completions_are_printed() {
    let world = World::new(1);
    for document in ["job", "config"] {
        let ended = world.flowcast(&["schema", document]);
        assert_eq!(ended.status, Some(0));
        let schema: Value = serde_json::from_str(&ended.out).unwrap();
        assert!(schema["properties"].is_object());
    }
    for shell in ["bash", "zsh", "fish"] {
        let ended = world.flowcast(&["completions", shell]);
        assert_eq!(ended.status, Some(0));
        assert!(ended.out.contains("flowcast"));
    }
}

#[test]
fn each_command_has_a_manual_page() {
    let world = World::new(0);
    let written = world.flowcast(&["man", "pages/man1"]);
    assert_eq!(written.status, Some(0), "{written:?}");
    let help = world.flowcast(&["--help"]).out;
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let mut count = 0;
    let names = commands.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    for name in names.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help") {
        let page = world.path(&format!("pages/man1/flowcast-{name}.1"));
        let checked = std::process::Command::new("mandoc")
            .args(["-T", "lint", "-W", "error"])
            .arg(&page)
            .output()
            .unwrap();
        assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stdout));
        count += 1;
    }
    assert!(count > 20, "{help}");
    let page = std::fs::read_to_string(world.path("pages/man1/flowcast-status.1")).unwrap();
    assert!(page.contains("Show a campaign in full") && page.contains(r"\-\-watch"), "{page}");
    // A folder that cannot be created.
    world.write("file", "");
    assert_eq!(world.flowcast(&["man", "file/man1"]).status, Some(1));
}

#[test]
fn the_store_option_is_accepted_anywhere_in_a_command() {
    let world = World::new(0);
    for (nth, args) in [
        "--store a.db suppress add +919876543210",
        "suppress --store a.db add +919876543211",
        "suppress add --store a.db +919876543212",
        "suppress add +919876543213 --store=a.db",
    ]
    .iter()
    .enumerate()
    {
        let ended = world.flowcast(&args.split(' ').collect::<Vec<_>>());
        assert_eq!((ended.status, ended.out.as_str()), (Some(0), "1 added\n"), "{args}: {ended:?}");
        for args in ["--store a.db suppress list", "suppress list --store a.db"] {
            let listed = world.flowcast(&args.split(' ').collect::<Vec<_>>());
            assert_eq!(listed.out.lines().count(), nth + 1, "{args}: {listed:?}");
        }
    }
    assert!(!world.path("flowcast.db").exists());
    let ended = world.flowcast(&["--store", "a.db", "campaigns"]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    // A command that uses no store refuses the option.
    for args in [["--store", "a.db", "explain", "500"], ["explain", "500", "--store", "a.db"]] {
        let ended = world.flowcast(&args);
        assert!(ended.status == Some(2) && ended.err.contains("does not use a store"), "{ended:?}");
    }
    let ended = world.flowcast(&["--store", "a.db", "worker"]);
    assert!(ended.status == Some(2) && ended.err.contains("--embedded"), "{ended:?}");
}
