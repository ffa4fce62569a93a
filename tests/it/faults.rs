//! The real binary, killed at random times: no message is sent twice, no recipient is skipped, and messages in flight are
//! listed as in doubt.

use std::collections::{HashMap, HashSet};
use std::process::Stdio;
use std::time::Duration;

use flowcast::sandbox::Behaviour;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::support::{World, sandbox};

/// Rows per kill: enough for each kill to find the campaign still sending.
const ROWS_PER_KILL: u64 = 700;
const BATCH: u64 = 20;
const CONCURRENCY: u64 = 4;

/// Returns the number of kills; `FLOWCAST_KILLS=30` is full size.
fn kills() -> u64 {
    std::env::var("FLOWCAST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_run_killed_before_it_recorded_them_are_in_doubt_and_never_sent_again() {
    let world = World::new(500);
    // The provider accepts the requests, and responds long after the process was killed.
    let (sandbox, url) =
        sandbox(Behaviour { latency: Duration::from_millis(500), ..Behaviour::default() }).await;
    world.write_config(&url, "limits = { messages = \"100000/s\", requests = \"1000/s\" }\nconcurrency = 2");
    let mut child = world.command(&["run", "job.json"]).stderr(Stdio::null()).spawn().unwrap();
    while sandbox.stats()["requests"] != 2 {
        assert_eq!(child.try_wait().unwrap(), None);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // Until the next run, messages in flight are shown as sending.
    assert_eq!(world.status("c1")["counts"]["sending"], 200);

    let ended = world.run(&["run", "job.json"]).await;
    assert_eq!(ended.status, Some(3), "{ended:?}");
    let counts = &world.status("c1")["counts"];
    assert_eq!((&counts["accepted"], &counts["in_doubt"]), (&json!(300), &json!(200)));
    let stats = sandbox.stats();
    assert_eq!((&stats["requests"], &stats["sent_twice"]), (&json!(5), &json!(0)));
    let listed = world.flowcast(&["report", "c1", "--state", "in_doubt"]).out;
    assert_eq!(listed.lines().count(), 201);
    assert!(listed.contains("flowcast ended while the request was in flight"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_at_any_time_sends_nothing_twice_and_loses_nothing() {
    // Some more for the kills at the start, and a rest for the last run.
    let (kills, rows) = (kills(), kills() * ROWS_PER_KILL + 3_000);
    let world = World::new(rows);
    let (sandbox, url) =
        sandbox(Behaviour { latency: Duration::from_millis(5), ..Behaviour::default() }).await;
    // Slow enough for each kill to hit the run while it sends; small batches, for many different states.
    let limits = format!("limits = {{ messages = \"4000/s,burst={BATCH}\", requests = \"100000/s\" }}");
    world.write_config(&url, &format!("{limits}\nconcurrency = {CONCURRENCY}"));
    let seed = rand::random();
    let mut rng = StdRng::seed_from_u64(seed);
    eprintln!("seed {seed}");

    let in_doubt = |world: &World| {
        let ended = world.flowcast(&["status", "c1", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&ended.out).unwrap_or_default();
        // A message that is still "sending" is in doubt as soon as flowcast runs again.
        let count = |name: &str| status["counts"][name].as_u64().unwrap_or(0);
        count("in_doubt") + count("sending")
    };
    let mut doubts = 0;
    let mut killed = 0;
    while killed < kills {
        let mut child =
            world.command(&["run", "job.json"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The fault, at a random time: every fifth while the run starts, the others later in the campaign.
        let further = if killed % 5 == 4 { 0 } else { rng.random_range(1..600) };
        let goal = sandbox.count() + further;
        while sandbox.count() < goal {
            assert_eq!(
                child.try_wait().unwrap(),
                None,
                "seed {seed}: the run must not end before it is killed"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let max_micros = if further == 0 { 400_000 } else { 10_000 };
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..max_micros))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
        let now = in_doubt(&world);
        assert!(now <= doubts + BATCH * CONCURRENCY, "seed {seed}: {now} in doubt after {doubts}");
        doubts = now;
    }
    assert!(doubts > 0, "seed {seed}: a kill must hit a request in flight, or the test proves nothing");
    let ended = world.run(&["run", "job.json"]).await;
    assert_eq!(ended.status, Some(3), "seed {seed}: {ended:?}");

    let mut sids_by_recipient = HashMap::<String, Vec<String>>::new();
    for message in sandbox.taken() {
        sids_by_recipient.entry(message.to).or_default().push(message.sid);
    }
    let twice = sids_by_recipient.values().filter(|sids| sids.len() > 1).count();
    assert_eq!((twice, sandbox.stats()["sent_twice"].clone()), (0, json!(0)), "seed {seed}");

    let report = world.report("c1");
    let mut seen = HashSet::new();
    let (mut accepted, mut doubtful, mut lost) = (0_u64, 0_u64, 0_u64);
    for line in &report {
        let recipient = line["recipient"].as_str().unwrap();
        assert!(seen.insert(recipient.to_owned()), "seed {seed}: {recipient} must be listed once");
        match line["state"].as_str().unwrap() {
            "accepted" => {
                accepted += 1;
                let sids = sids_by_recipient.get(recipient).map(Vec::as_slice).unwrap_or_default();
                assert_eq!(sids, [line["sid"].as_str().unwrap()], "seed {seed}");
            }
            "in_doubt" => doubtful += 1,
            _ => lost += 1,
        }
    }
    assert_eq!((report.len() as u64, lost), (rows, 0), "seed {seed}");
    assert_eq!((accepted + doubtful, doubtful), (rows, doubts), "seed {seed}");
    // What the provider accepted is accepted or in doubt here; what it did not accept is in doubt at most.
    let reached = sids_by_recipient.len() as u64;
    assert!(reached >= accepted && reached <= accepted + doubtful, "seed {seed}");
    eprintln!("{killed} kills: accepted {accepted}, in doubt {doubtful}, sent twice 0, lost 0");
}
