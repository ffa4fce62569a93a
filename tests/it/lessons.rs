//! Bugs of similar tools, as tests. Each name is the behaviour that excludes the bug.

use std::time::{Duration, Instant};

use flowcast::sandbox::Behaviour;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{CommandOutput, Reaction, Scripted, World, accept, job_with, phone, sandbox};

/// Timeout of a wait: far longer than anything here takes.
const LONG: Duration = Duration::from_mins(1);

/// Waits until a condition holds.
async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < LONG, "timed out waiting for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Starts a run, interrupts it as soon as `ready` returns true, and waits for its end.
async fn run_and_interrupt(world: &World, signal: Signal, ready: impl FnMut() -> bool) -> CommandOutput {
    let child = world
        .command(&["run", "job.json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    until("the campaign to be sending", ready).await;
    kill(pid, signal).unwrap();
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap().into()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_campaign_sends_nothing_twice_and_skips_no_recipient() {
    let world = World::new(4_000);
    let (sandbox, url) =
        sandbox(Behaviour { latency: Duration::from_millis(20), ..Behaviour::default() }).await;
    world.write_config(&url, "limits = { messages = \"2000/s,burst=50\", requests = \"1000/s\" }");
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let before = sandbox.taken().len();
        let ended = run_and_interrupt(&world, signal, || sandbox.taken().len() > before + 300).await;
        assert_eq!(ended.status, Some(3), "{ended:?}");
        assert!(ended.err.contains("messages in flight are finished first"), "{}", ended.err);
        assert!(ended.err.contains("to resume: flowcast run job.json"), "{}", ended.err);
        let status = world.status("c1");
        assert_eq!((&status["state"], &status["counts"]["in_doubt"]), (&json!("paused"), &json!(0)));
        assert_eq!(status["counts"]["accepted"].as_u64().unwrap(), sandbox.taken().len() as u64);
    }
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    let stats = sandbox.stats();
    assert_eq!(
        (&stats["accepted"], &stats["messages"], &stats["sent_twice"]),
        (&json!(4000), &json!(4000), &json!(0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_takes_effect_even_while_a_sender_waits_for_tokens() {
    let world = World::new(50);
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    // After the first message the next one is due in six minutes.
    world.write_job(&job_with("/limits", json!({ "messages": "10/h" })));
    world.write_config(&url, "");
    let start = Instant::now();
    let ended = run_and_interrupt(&world, Signal::SIGINT, || sandbox.taken().len() == 1).await;
    assert_eq!(ended.status, Some(3), "{ended:?}");
    assert!(start.elapsed() < LONG);
    assert_eq!(world.status("c1")["state"], "paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_interrupted_before_its_first_message_resumes() {
    let world = World::new(20);
    // Far enough ahead for a busy machine to show the status before it.
    let start = (jiff::Timestamp::now() + Duration::from_secs(10)).to_string();
    world.write_job(&job_with("/schedule", json!({ "start_at": start })));
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config(&url, "");
    let is_scheduled = || {
        let ended = world.flowcast(&["status", "c1", "--json"]);
        ended.status == Some(0) && ended.out.contains("sending starts at")
    };
    let ended = run_and_interrupt(&world, Signal::SIGINT, is_scheduled).await;
    assert_eq!(ended.status, Some(3), "{ended:?}");
    assert_eq!(world.status("c1")["state"], "scheduled");
    assert_eq!(sandbox.taken().len(), 0);
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    assert_eq!(sandbox.taken().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn expires_at_holds_after_an_outage() {
    let world = World::new(250);
    world.write_job(&job_with("/schedule", json!({ "expires_at": "2026-01-01T00:00:00Z" })));
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config(&url, "");
    let ended = world.run(&["run", "job.json"]).await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let status = world.status("c1");
    assert_eq!((&status["state"], &status["skipped"]), (&json!("completed"), &json!({ "expired": 250 })));
    assert_eq!(sandbox.stats()["requests"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_send_window_holds_and_the_status_says_so() {
    let world = World::new(20);
    // A window that opened an hour ago and closed half an hour ago.
    let clock = |minutes: i64| {
        let time = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(minutes);
        time.to_zoned(jiff::tz::TimeZone::UTC).strftime("%H:%M").to_string()
    };
    let window = json!({ "from": clock(-60), "to": clock(-30), "timezone": "UTC" });
    world.write_job(&job_with("/schedule", json!({ "window": window })));
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config(&url, "");
    let says_why = || world.flowcast(&["status", "c1", "--json"]).out.contains("sending starts at");
    let ended = run_and_interrupt(&world, Signal::SIGINT, says_why).await;
    assert_eq!((ended.status, sandbox.taken().len()), (Some(3), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_delays_and_never_fails_a_message() {
    let world = World::new(200);
    // The provider allows far less than the account's limits.
    let rate_limit = Some("4/s,burst=2".parse().unwrap());
    let (sandbox, url) = sandbox(Behaviour { rate_limit, ..Behaviour::default() }).await;
    world.write_config(&url, "limits = { messages = \"1000/s,burst=20\", requests = \"1000/s\" }");
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    let stats = sandbox.stats();
    assert_eq!((&stats["accepted"], &stats["sent_twice"]), (&json!(200), &json!(0)));
    assert!(stats["answers"]["429"].as_u64().unwrap() > 0, "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_sends_only_what_is_left() {
    let world = World::new(500);
    let behaviour = Behaviour { error_rate: 0.4, seed: 7, ..Behaviour::default() };
    let (sandbox, url) = sandbox(behaviour).await;
    world.write_config(&url, "limits = { messages = \"100000/s,burst=25\", requests = \"1000/s\" }");
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    let stats = sandbox.stats();
    assert_eq!((&stats["accepted"], &stats["sent_twice"]), (&json!(500), &json!(0)));
    assert!(stats["answers"]["500"].as_u64().unwrap() > 0, "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_may_finish_out_of_order_and_the_lowest_may_fail() {
    let world = World::new(1_000);
    let first = phone(1);
    let provider = Scripted::start(move |nth, to| {
        if to.contains(&first) && nth < 10 {
            std::thread::sleep(Duration::from_millis(300));
            Reaction::Answer(500, "", json!({ "http_code": 500 }).to_string())
        } else {
            accept(to)
        }
    })
    .await;
    world.write_config(&provider.url, "limits = { messages = \"100000/s\", requests = \"1000/s\" }");
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    assert_eq!(world.status("c1")["counts"]["accepted"], 1000);
    assert_eq!(provider.times(&phone(1)), 2);
    assert!((101..=1000).all(|row| provider.times(&phone(row)) == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configured_rate_is_used_whatever_the_latency() {
    let world = World::new(1_100);
    let (sandbox, url) = sandbox(Behaviour { latency: Duration::from_secs(2), ..Behaviour::default() }).await;
    world.write_job(&job_with("/limits", json!({ "messages": "200/s,burst=100" })));
    world.write_config(&url, "limits = { messages = \"100000/s\", requests = \"1000/s\" }");
    let start = Instant::now();
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    let took = start.elapsed().as_secs_f64();
    // 1,000 messages after the burst take 5 s, and the last response 2 s. Eleven batches one after the other would take 22 s,
    // so a busy machine may take up to 20 s.
    assert!(took > 5.0, "must not be faster than the limit: {took}");
    assert!(took < 20.0, "must be nearly as fast as the limit: {took}");
    assert_eq!(sandbox.stats()["accepted"], 1100);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_rejections_hold_a_campaign_before_its_audience_is_used_up() {
    let world = World::new(5_000);
    world.write_job(&job_with("/stop_when", json!({ "rejected_percent": 20, "after": 300 })));
    let (sandbox, url) = sandbox(Behaviour { accept_rate: 0.5, ..Behaviour::default() }).await;
    world.write_config(&url, "limits = { messages = \"100000/s\", requests = \"1000/s\" }\nconcurrency = 2");
    let ended = world.run(&["run", "job.json", "--json"]).await;
    let status: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((ended.status, &status["state"]), (Some(3), &json!("held")));
    assert!(status["reason"].as_str().unwrap().contains("the limit in stop_when is 20 %"), "{status}");
    assert!(sandbox.stats()["requests"].as_u64().unwrap() <= 6, "{}", sandbox.stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_campaign_counts_its_unsent_messages_and_sends_them_later() {
    let world = World::new(12_345);
    let provider =
        Scripted::start(
            |nth, to| {
                if nth < 8 { Reaction::Answer(401, "", String::new()) } else { accept(to) }
            },
        )
        .await;
    world.write_config(
        &provider.url,
        "limits = { messages = \"1000000/s\", requests = \"10000/s\" }\nconcurrency = 1",
    );
    let ended = world.run(&["run", "job.json"]).await;
    assert_eq!(ended.status, Some(3), "{ended:?}");
    let status = world.status("c1");
    assert_eq!(
        (&status["state"], &status["planned"], &status["counts"]["pending"]),
        (&json!("held"), &json!(true), &json!(12_345))
    );
    assert_eq!(world.report("c1").len(), 12_345);
    for _ in 1..8 {
        assert_eq!(world.run(&["run", "job.json"]).await.status, Some(3));
    }
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    assert_eq!(world.status("c1")["counts"]["accepted"], 12_345);
    assert_eq!(provider.requests().len(), 8 + 124);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_that_changes_during_sending_holds_the_campaign() {
    // More batches than are planned ahead.
    let world = World::new(6_000);
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config(&url, "limits = { messages = \"2000/s,burst=10\", requests = \"1000/s\" }");
    let mut child = world.command(&["run", "job.json"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    until("the campaign to be sending", || sandbox.count() > 100).await;
    let mut csv = std::fs::read_to_string(world.path("audience.csv")).unwrap();
    csv += "+919811111111,one more\n";
    world.write("audience.csv", csv);
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(ended.code(), Some(3));
    let status = world.status("c1");
    assert_eq!(status["state"], "held");
    assert_eq!(status["reason"], "the audience changed while it was being read");
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_change_while_a_campaign_runs_without_a_restart() {
    let world = World::new(500);
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let configure = |rate: &str| {
        world.write_config(&url, &format!("limits = {{ messages = \"{rate}\", requests = \"10000/s\" }}"));
    };
    configure("1/h");
    let mut child = world.command(&["run", "job.json"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    until("the first message", || sandbox.count() == 1).await;
    configure("1000/s");
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!((ended.code(), sandbox.count()), (Some(0), 500));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_limit_holds_across_a_restart() {
    let world = World::new(30);
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config(
        &url,
        "limits = { recipients = \"30/d\", messages = \"1000/s\", requests = \"1000/s\" }",
    );
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    // The same recipients do not count again; one more does.
    for (id, rows, sent) in [("again", 30, 60), ("more", 31, 60)] {
        world.write_audience(rows);
        let mut job = job_with("/name", json!("again"));
        job["id"] = json!(id);
        world.write_job(&job);
        let mut child =
            world.command(&["run", "job.json"]).stdout(std::process::Stdio::null()).spawn().unwrap();
        until("the campaign", || {
            let ended = world.flowcast(&["status", id, "--json"]);
            let status: Value = serde_json::from_str(&ended.out).unwrap_or_default();
            status["state"] == "completed"
                || status["reason"].as_str().is_some_and(|reason| reason.contains("waits for its limits"))
        })
        .await;
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).ok();
        tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        assert!(sandbox.count() >= sent && sandbox.count() <= sent + 30, "{id}: {}", sandbox.count());
    }
    let status = world.status("more");
    assert!(status["counts"]["pending"].as_u64().unwrap() > 0, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn early_rejections_hold_a_campaign_once_enough_messages_are_settled() {
    let world = World::new(1_000);
    let behaviour = || Behaviour { accept_rate: 0.5, ..Behaviour::default() };
    let limits = "limits = { messages = \"100000/s\", requests = \"1000/s\" }\nconcurrency = 1";
    let (_first, url) = sandbox(behaviour()).await;
    world.write_config(&url, limits);
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(3));
    // The same seed rejects the same recipients: 150 of the first 300 are rejected, and none after them.
    let of = |state: &str| -> Vec<String> {
        let report = world.flowcast(&["report", "c1", "--state", state]).out;
        report.lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned()).collect()
    };
    let (rejected, accepted) = (of("rejected"), of("accepted"));
    let rows = rejected[..150].iter().chain(&accepted);
    world.write("audience.csv", rows.fold("phone,name\n".to_owned(), |all, phone| all + phone + ",Asha\n"));
    let mut job = job_with("/stop_when", json!({ "rejected_percent": 30, "after": 300 }));
    job["id"] = json!("c2");
    world.write_job(&job);
    let (sandbox, url) = sandbox(behaviour()).await;
    world.write_config(&url, limits);
    let ended = world.run(&["run", "job.json", "--json"]).await;
    let status: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((ended.status, &status["state"]), (Some(3), &json!("held")), "{status}");
    assert_eq!(status["reason"], "150 of 300 messages were rejected; the limit in stop_when is 30 %");
    assert_eq!(sandbox.count(), 150, "nothing must be sent after the hold");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_rejected_messages_is_a_valid_audience() {
    let world = World::new(100);
    let (refusing, url) = sandbox(Behaviour { accept_rate: 0.7, ..Behaviour::default() }).await;
    world.write_config(&url, "");
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(3));
    world.write("failed.csv", world.flowcast(&["report", "c1", "--state", "rejected"]).out);
    let mut job = job_with("/audience/csv/path", json!("failed.csv"));
    (job["id"], job["message"]["text"]["body"]) = (json!("c2"), json!("Hello again"));
    world.write_job(&job);
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config(&url, "");
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    assert_eq!(sandbox.count() + refusing.count(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_this_machine_use_no_proxy() {
    let world = World::new(3);
    let mut command = world.command(&["run", "job.json", "--sandbox"]);
    command.env("HTTP_PROXY", "http://127.0.0.1:9").env("http_proxy", "http://127.0.0.1:9");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_number_in_two_spellings_is_one_recipient() {
    let world = World::new(1);
    world.write(
        "audience.csv",
        "phone,name\n+91 98000-00001,a\n00919800000001,b\n919800000001.0,c\n9.198E+11,d\n",
    );
    let mut job = job_with("/audience/csv/default_region", json!("IN"));
    job["custom_data"] = json!("x");
    world.write_job(&job);
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config(&url, "");
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    assert_eq!(sandbox.taken().iter().map(|message| message.to.as_str()).collect::<Vec<_>>(), [phone(1)]);
    assert_eq!(world.status("c1")["skipped"], json!({ "duplicate": 2, "invalid_number": 1 }));
}
