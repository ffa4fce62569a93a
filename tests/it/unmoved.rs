//! Migration from one machine to a fleet: the fleet does not start a campaign of the store again.

use std::process::Stdio;
use std::time::Duration;

use flowcast::queue::rabbitmq::Broker;
use flowcast::sandbox::Behaviour;

use crate::fleet::{Fleet, until};
use crate::servers::{amqp_url, redis_url};
use crate::support::{World, job, sandbox};

const ROWS: u64 = 400;
const SLOW: &str = "limits = { messages = \"200/s,burst=20\", requests = \"1000/s\" }";

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_does_not_start_a_campaign_of_a_store_again() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let world = World::new(ROWS);
    world.write_config(&url, SLOW);
    let mut child = world.command(&["run", "job.json"]).stderr(Stdio::null()).spawn().unwrap();
    until("the first messages to be sent", || sandbox.count() > 60).await;
    child.kill().unwrap();
    child.wait().unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let sent = sandbox.count();
    assert!(sent < ROWS, "the run was killed too late");

    // The same folder with the servers of a fleet.
    let fleet = Fleet::on(world, &redis_url(), &amqp_url(), &url, SLOW);
    let expected = "is in the store flowcast.db of this machine, and may have been sent from there";
    let refused = fleet.world.run(&["submit", "job.json"]).await;
    assert_eq!(refused.status, Some(2), "{refused:?}");
    assert!(refused.err.contains(expected), "{refused:?}");
    let doctor = fleet.world.run(&["doctor"]).await;
    assert!(
        doctor.out.contains("flowcast.db has 1 unfinished campaign, which the fleet does not send"),
        "{doctor:?}"
    );

    // Another program submits the job, and the worker refuses it.
    let _worker = fleet.worker();
    until("the worker's warning", || fleet.log().contains("has 1 unfinished campaign (c1)")).await;
    let broker = Broker::connect(&fleet.amqp.as_str().into(), true).await.unwrap();
    broker.submit(job().to_string().into_bytes()).await.unwrap();
    until("the job to be refused", || fleet.log().contains(expected)).await;
    let dead = fleet.ok(&["dead", "list"]).await;
    assert!(dead.out.contains(expected), "{dead:?}");
    assert!(fleet.status("c1").is_null());

    // Another campaign is sent, although the store has a rehearsal of it.
    let mut other = job();
    other["id"] = "c2".into();
    other["audience"] = serde_json::json!({ "recipients": [{ "phone": "+919700000001", "name": "Asha" }] });
    fleet.world.write("c2.json", other.to_string());
    let rehearsed = fleet.world.run(&["run", "c2.json", "--sandbox"]).await;
    assert_eq!(rehearsed.status, Some(0), "{rehearsed:?}");
    fleet.ok(&["submit", "c2.json"]).await;
    fleet.until_state("c2", "completed").await;
    assert_eq!(sandbox.count(), sent + 1);

    // The campaign completes from the store, and no message is sent twice.
    let ended = fleet.world.run(&["run", "job.json"]).await;
    assert!(matches!(ended.status, Some(0 | 3)), "{ended:?}");
    let lines = fleet.world.flowcast(&["report", "c1", "--store", "flowcast.db", "--format", "jsonl"]).out;
    let accepted = lines.lines().filter(|line| line.contains("\"accepted\"")).count();
    let in_doubt = lines.lines().filter(|line| line.contains("\"in_doubt\"")).count();
    assert_eq!((accepted + in_doubt) as u64, ROWS, "{lines}");
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}

/// Kills the migration of a running campaign after longer and longer times until it completes; then the fleet continues.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_migration_of_a_running_campaign_is_completed_by_the_next() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let world = World::new(2_000);
    world.write_config(&url, SLOW);
    let mut child = world.command(&["run", "job.json"]).stderr(Stdio::null()).spawn().unwrap();
    until("the first messages to be sent", || sandbox.count() > 150).await;
    child.kill().unwrap();
    child.wait().unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let sent = sandbox.count();
    let suppressed = world.run(&["suppress", "add", "+919800000001"]).await;
    assert_eq!(suppressed.status, Some(0), "{suppressed:?}");

    let fleet = Fleet::on(world, &redis_url(), &amqp_url(), &url, SLOW);
    let is_moved = || fleet.world.path("flowcast.db.moved").exists();
    let mut wait = Duration::ZERO;
    while !is_moved() {
        let mut command = fleet.world.command(&["migrate"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(wait).await;
        let _ = child.kill();
        child.wait().unwrap();
        wait += Duration::from_millis(3);
        assert!(wait < Duration::from_secs(20), "the migration must complete");
    }
    assert!(!fleet.world.path("flowcast.db").exists());

    let _worker = fleet.worker();
    let ended = fleet.until_state("c1", "completed").await;
    let (accepted, in_doubt) = (ended["counts"]["accepted"].as_u64(), ended["counts"]["in_doubt"].as_u64());
    assert_eq!(accepted.unwrap() + in_doubt.unwrap(), 2_000, "{ended}");
    assert!(in_doubt.unwrap() <= 100 && sandbox.count() >= 1_900, "{ended}");
    assert_eq!(sandbox.stats()["sent_twice"], 0);
    assert!(sandbox.count() > sent);
    let list = fleet.ok(&["suppress", "list"]).await;
    assert!(list.out.contains("+919800000001"), "{list:?}");
    let mut redis = redis::Client::open(fleet.redis.as_str()).unwrap().get_connection().unwrap();
    let mut added = redis::cmd("HGET");
    let added: String =
        added.arg("{flowcast:suppressed}:added").arg("919800000001").query(&mut redis).unwrap();
    assert!(added.contains(" operator "), "the actor of the suppression must be migrated: {added}");
    // The fleet knows the job: a second submission is the same campaign.
    fleet.submit().await;
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_overwrites_no_campaign_of_the_fleet() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let world = World::new(20);
    world.write_config(&url, SLOW);
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    let mut other = job();
    other["id"] = "c2".into();
    other["audience"] = serde_json::json!({ "recipients": [{ "phone": "+919700000001", "name": "Asha" }] });
    world.write("c2.json", other.to_string());
    assert_eq!(world.run(&["run", "c2.json"]).await.status, Some(0));
    std::fs::rename(world.path("flowcast.db"), world.path("kept.db")).unwrap();

    let fleet = Fleet::on(world, &redis_url(), &amqp_url(), &url, SLOW);
    let _worker = fleet.worker();
    other["audience"] = serde_json::json!({ "recipients": [{ "phone": "+919700000002", "name": "Ravi" }] });
    fleet.world.write("c2.json", other.to_string());
    fleet.ok(&["submit", "c2.json"]).await;
    fleet.until_state("c2", "completed").await;
    let refused = fleet.world.run(&["migrate", "--store", "kept.db"]).await;
    assert_eq!(refused.status, Some(2), "{refused:?}");
    assert!(refused.err.contains("the fleet has other campaigns with these ids: c2"), "{refused:?}");
    assert!(fleet.status("c1").is_null());

    let moved = fleet.ok(&["migrate", "--store", "kept.db", "--except", "c2", "--json"]).await;
    let moved: serde_json::Value = serde_json::from_str(&moved.out).unwrap();
    assert_eq!((&moved["campaigns"][0], &moved["messages"]), (&"c1".into(), &20.into()), "{moved}");
    let status = fleet.status("c1");
    assert_eq!((&status["state"], &status["counts"]["accepted"]), (&"completed".into(), &20.into()));
    assert_eq!(sandbox.count(), 22);
    // The campaign that was not migrated can be read from the old store, but not sent.
    let status = fleet.ok(&["status", "c2", "--store", "kept.db.moved", "--json"]).await;
    assert!(status.out.contains("\"completed\""), "{status:?}");
    let refused = fleet.world.run(&["run", "c2.json", "--store", "kept.db.moved"]).await;
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.err.contains("moved to a fleet's ledger"), "{refused:?}");
}
