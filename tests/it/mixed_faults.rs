//! Campaigns at every provider with all its faults at once, and killed during a batch: no message is sent twice, and none is
//! lost.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use flowcast::sandbox::{Behaviour, Sandbox};
use serde_json::{Value, json};

use crate::support::{World, sandbox};

/// Returns the number of messages of a campaign with all faults; `FLOWCAST_MIXED_ROWS=20000` is full size.
fn rows() -> u64 {
    std::env::var("FLOWCAST_MIXED_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(8_000)
}

/// Runs a campaign until it has completed. A campaign that a fault has held is resumed by another run.
async fn run_to_the_end(world: &World) -> Value {
    for _ in 0..50 {
        let ended = world.run(&["run", "job.json", "--json"]).await;
        assert!(matches!(ended.status, Some(0 | 3)), "{ended:?}");
        let status: Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
        if status["state"] == "completed" {
            return status;
        }
    }
    panic!("the campaign does not complete: {}", world.status("c1"));
}

/// Compares the report of every message with the messages that the provider accepted.
fn assert_each_message_sent_at_most_once(
    world: &World,
    sandbox: &Sandbox,
    rows: u64,
) -> HashMap<String, u64> {
    let mut accepted = HashMap::<String, Vec<String>>::new();
    for message in sandbox.taken() {
        accepted.entry(message.to).or_default().push(message.sid);
    }
    assert_eq!(accepted.values().filter(|sids| sids.len() > 1).count(), 0, "messages were sent twice");
    let mut states = HashMap::<String, u64>::new();
    for line in world.report("c1") {
        let sids = accepted.get(line["recipient"].as_str().unwrap()).map(Vec::as_slice).unwrap_or_default();
        let state = line["state"].as_str().unwrap();
        *states.entry(state.into()).or_default() += 1;
        match state {
            "accepted" => assert_eq!(sids, [line["sid"].as_str().unwrap()], "{line}"),
            "rejected" => assert!(sids.is_empty(), "a rejected message was accepted: {line}"),
            "in_doubt" => {}
            _ => panic!("a message was skipped: {line}"),
        }
    }
    assert_eq!(states.values().sum::<u64>(), rows, "messages were lost: {states:?}");
    // Every accepted message is reported as accepted or in doubt.
    let known = states.get("accepted").copied().unwrap_or(0);
    let in_doubt = states.get("in_doubt").copied().unwrap_or(0);
    assert!(accepted.len() as u64 >= known && accepted.len() as u64 <= known + in_doubt, "{states:?}");
    states
}

/// Runs a campaign while the provider injects each of its faults.
async fn run_with_all_faults(provider: &str, behaviour: Behaviour, faults: &[(&'static str, f64)]) {
    let rows = rows();
    let world = World::new(rows);
    let (sandbox, url) = sandbox(behaviour).await;
    sandbox.set_faults(faults.iter().copied());
    world.write_account(provider, &url, "limits = { messages = \"1000000/s\", requests = \"1000000/s\" }");
    let status = run_to_the_end(&world).await;
    let states = assert_each_message_sent_at_most_once(&world, &sandbox, rows);
    for state in ["accepted", "rejected", "in_doubt"] {
        assert!(states.get(state).is_some_and(|count| *count > 20), "{state} did not occur: {states:?}");
    }
    eprintln!(
        "{provider}: {states:?}, rejected by code {}, responses {}",
        status["rejected"],
        sandbox.stats()["answers"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_or_sent_twice_with_all_faults_of_exotel() {
    let behaviour = Behaviour { accept_rate: 0.97, error_rate: 0.05, cut_rate: 0.02, ..Behaviour::default() };
    let faults = [
        ("400", 0.02),
        ("404", 0.005),
        ("401", 0.005),
        ("429", 0.02),
        ("502", 0.02),
        ("entry:429", 0.0005),
        ("entry:503", 0.005),
        ("130429", 0.0005),
        ("131026", 0.005),
        ("131048", 0.00005),
    ];
    run_with_all_faults("exotel", behaviour, &faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_or_sent_twice_with_all_faults_of_kaleyra() {
    let behaviour = Behaviour { accept_rate: 0.97, error_rate: 0.02, cut_rate: 0.01, ..Behaviour::default() };
    let faults = [
        ("WA400", 0.005),
        ("WA401", 0.000_05),
        ("WA-401", 0.000_05),
        ("RBC001", 0.000_05),
        ("E110", 0.000_1),
        ("429", 0.000_5),
        ("502", 0.005),
    ];
    run_with_all_faults("kaleyra", behaviour, &faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_or_sent_twice_with_all_faults_of_meta() {
    let behaviour = Behaviour { accept_rate: 0.97, error_rate: 0.02, cut_rate: 0.01, ..Behaviour::default() };
    let faults = [
        ("131047", 0.005),
        ("131056", 0.005),
        ("190", 0.000_05),
        ("131048", 0.000_05),
        ("132001", 0.000_05),
        ("130429", 0.000_5),
        ("504", 0.005),
    ];
    run_with_all_faults("meta", behaviour, &faults).await;
}

/// Kills a run during a batch of many requests.
///
/// The outcomes of requests with a response are known, in-flight requests are in doubt, and the others are sent later.
async fn kill_during_a_batch(provider: &str) {
    const IN_FLIGHT: u64 = 8;
    let world = World::new(100);
    let (sandbox, url) =
        sandbox(Behaviour { latency: Duration::from_millis(300), ..Behaviour::default() }).await;
    world.write_account(provider, &url, &format!("concurrency = {IN_FLIGHT}"));
    let mut child = world.command(&["run", "job.json"]).stderr(Stdio::null()).spawn().unwrap();
    // During the sixth group of eight requests: some have a response, and some are certainly in flight.
    while sandbox.stats()["requests"].as_u64().unwrap() < 44 {
        assert_eq!(child.try_wait().unwrap(), None);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(world.status("c1")["counts"]["total"], 100, "all messages are in one batch");
    let status = run_to_the_end(&world).await;
    let in_doubt = status["counts"]["in_doubt"].as_u64().unwrap();
    assert!((1..=IN_FLIGHT).contains(&in_doubt), "{status}");
    assert_eq!(status["counts"]["accepted"], json!(100 - in_doubt));
    assert_each_message_sent_at_most_once(&world, &sandbox, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_during_a_kaleyra_batch_leaves_its_in_flight_requests_in_doubt() {
    kill_during_a_batch("kaleyra").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_during_a_meta_batch_leaves_its_in_flight_requests_in_doubt() {
    kill_during_a_batch("meta").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_per_request_keeps_the_rate_at_high_latency() {
    let world = World::new(400);
    let (sandbox, url) =
        sandbox(Behaviour { latency: Duration::from_millis(500), ..Behaviour::default() }).await;
    world.write_account("kaleyra", &url, "limits = { messages = \"100/s\" }");
    let start = std::time::Instant::now();
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    let took = start.elapsed();
    assert_eq!(sandbox.count(), 400);
    // 100 at once, 300 in three seconds, and the last response. One after another the requests would take 200 s; a busy
    // machine needs a little more than 4 s, so the bound is between the two.
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(100), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_grows_until_the_rate_limit_is_used() {
    let world = World::new(1_600);
    let (sandbox, url) = sandbox(Behaviour { latency: Duration::from_secs(6), ..Behaviour::default() }).await;
    world.write_account("kaleyra", &url, "limits = { messages = \"100/s,burst=100\" }");
    let start = std::time::Instant::now();
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    let took = start.elapsed();
    assert_eq!(sandbox.count(), 1_600);
    // 1,500 in 15 s, and the last response. The initial concurrency of 100 would take 96 s.
    assert!(took >= Duration::from_secs(15) && took < Duration::from_mins(1), "{took:?}");
}
