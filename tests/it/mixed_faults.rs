//! Campaigns at every provider among all its faults at once, and killed in the middle: nobody gets a
//! message twice, nobody is left out.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use flowcast::sandbox::{Behaviour, Sandbox};
use serde_json::{Value, json};

use crate::support::{World, sandbox};

/// The messages of a campaign among all faults; `FLOWCAST_MIXED_ROWS=20000` is full size.
fn rows() -> u64 {
    std::env::var("FLOWCAST_MIXED_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(8_000)
}

/// Runs a campaign until nothing is open; what a fault has held is resumed by running it again.
async fn run_to_the_end(world: &World) -> Value {
    for _ in 0..50 {
        let ended = world.run(&["run", "job.json", "--json"]).await;
        assert!(matches!(ended.status, Some(0 | 3)), "{ended:?}");
        let status: Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
        if status["state"] == "completed" {
            return status;
        }
    }
    panic!("it does not end: {}", world.status("c1"));
}

/// Holds what the ledger says of every message against what the provider took.
fn assert_nothing_twice_nothing_lost(world: &World, sandbox: &Sandbox, rows: u64) -> HashMap<String, u64> {
    let mut taken = HashMap::<String, Vec<String>>::new();
    for message in sandbox.taken() {
        taken.entry(message.to).or_default().push(message.sid);
    }
    assert_eq!(taken.values().filter(|sids| sids.len() > 1).count(), 0, "sent twice");
    let mut states = HashMap::<String, u64>::new();
    for line in world.report("c1") {
        let sids = taken.get(line["recipient"].as_str().unwrap()).map(Vec::as_slice).unwrap_or_default();
        let state = line["state"].as_str().unwrap();
        *states.entry(state.into()).or_default() += 1;
        match state {
            "accepted" => assert_eq!(sids, [line["sid"].as_str().unwrap()], "{line}"),
            "rejected" => assert!(sids.is_empty(), "rejected, and it was taken: {line}"),
            "in_doubt" => {}
            _ => panic!("left out: {line}"),
        }
    }
    assert_eq!(states.values().sum::<u64>(), rows, "lost: {states:?}");
    // Whatever was taken is known as that, or is in doubt.
    let known = states.get("accepted").copied().unwrap_or(0);
    let doubts = states.get("in_doubt").copied().unwrap_or(0);
    assert!(taken.len() as u64 >= known && taken.len() as u64 <= known + doubts, "{states:?}");
    states
}

/// Runs a campaign while the provider shows each of its faults.
async fn among_all_faults(provider: &str, behaviour: Behaviour, faults: &[(&'static str, f64)]) {
    let rows = rows();
    let world = World::new(rows);
    let (sandbox, url) = sandbox(behaviour).await;
    sandbox.set_faults(faults.iter().copied());
    world.write_account(provider, &url, "limits = { messages = \"1000000/s\", requests = \"1000000/s\" }");
    let status = run_to_the_end(&world).await;
    let states = assert_nothing_twice_nothing_lost(&world, &sandbox, rows);
    for state in ["accepted", "rejected", "in_doubt"] {
        assert!(states.get(state).is_some_and(|count| *count > 20), "{state} did not occur: {states:?}");
    }
    eprintln!(
        "{provider}: {states:?}, rejected by code {}, answers {}",
        status["rejected"],
        sandbox.stats()["answers"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn exotel_among_all_its_faults() {
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
    among_all_faults("exotel", behaviour, &faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kaleyra_among_all_its_faults() {
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
    among_all_faults("kaleyra", behaviour, &faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn meta_among_all_its_faults() {
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
    among_all_faults("meta", behaviour, &faults).await;
}

/// A batch is many requests: those that were answered are known, those under way are in doubt, and
/// those that had not begun are sent later.
async fn killed_in_the_middle_of_a_batch(provider: &str) {
    const UNDER_WAY: u64 = 8;
    let world = World::new(100);
    let (sandbox, url) =
        sandbox(Behaviour { latency: Duration::from_millis(300), ..Behaviour::default() }).await;
    world.write_account(provider, &url, &format!("concurrency = {UNDER_WAY}"));
    let mut child = world.command(&["run", "job.json"]).stderr(Stdio::null()).spawn().unwrap();
    // In the middle of the sixth eight: some are answered, and some are surely under way.
    while sandbox.stats()["requests"].as_u64().unwrap() < 44 {
        assert_eq!(child.try_wait().unwrap(), None);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(world.status("c1")["counts"]["total"], 100, "one batch");
    let status = run_to_the_end(&world).await;
    let doubts = status["counts"]["in_doubt"].as_u64().unwrap();
    assert!((1..=UNDER_WAY).contains(&doubts), "{status}");
    assert_eq!(status["counts"]["accepted"], json!(100 - doubts));
    assert_nothing_twice_nothing_lost(&world, &sandbox, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn kaleyra_killed_in_the_middle_of_a_batch_leaves_its_requests_under_way_in_doubt() {
    killed_in_the_middle_of_a_batch("kaleyra").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn meta_killed_in_the_middle_of_a_batch_leaves_its_requests_under_way_in_doubt() {
    killed_in_the_middle_of_a_batch("meta").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_a_request_keeps_the_rate_whatever_the_latency() {
    let world = World::new(400);
    let (sandbox, url) =
        sandbox(Behaviour { latency: Duration::from_millis(500), ..Behaviour::default() }).await;
    world.write_account("kaleyra", &url, "limits = { messages = \"100/s\" }");
    let start = std::time::Instant::now();
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    let took = start.elapsed();
    assert_eq!(sandbox.count(), 400);
    // 100 at once, 300 in three seconds, and the last answer. One after another they would take
    // 200 s; a busy machine takes some more than four, so the bound lies between.
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(100), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_are_under_way_where_a_limit_could_not_be_used_else() {
    let world = World::new(1_600);
    let (sandbox, url) = sandbox(Behaviour { latency: Duration::from_secs(6), ..Behaviour::default() }).await;
    world.write_account("kaleyra", &url, "limits = { messages = \"100/s,burst=100\" }");
    let start = std::time::Instant::now();
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    let took = start.elapsed();
    assert_eq!(sandbox.count(), 1_600);
    // 1,500 in 15 s, and the last answer. The hundred at once that a worker begins with would take 96 s.
    assert!(took >= Duration::from_secs(15) && took < Duration::from_mins(1), "{took:?}");
}
