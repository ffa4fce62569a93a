//! From one machine to a fleet: what was begun in a store is not begun again beside it.

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
async fn a_campaign_of_a_store_is_not_begun_again_by_a_fleet_beside_it() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let world = World::new(ROWS);
    world.write_config(&url, SLOW);
    let mut child = world.command(&["run", "job.json"]).stderr(Stdio::null()).spawn().unwrap();
    until("it to be on its way", || sandbox.count() > 60).await;
    child.kill().unwrap();
    child.wait().unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let sent = sandbox.count();
    assert!(sent < ROWS, "it was killed too late");

    // The same folder, with servers.
    let fleet = Fleet::on(world, &redis_url(), &amqp_url(), &url, SLOW);
    let told = "is in the store flowcast.db of this machine, and may have been sent from there";
    let refused = fleet.world.run(&["submit", "job.json"]).await;
    assert_eq!(refused.status, Some(2), "{refused:?}");
    assert!(refused.err.contains(told), "{refused:?}");
    let doctor = fleet.world.run(&["doctor"]).await;
    assert!(
        doctor.out.contains("flowcast.db has 1 unfinished campaign, which the fleet does not send"),
        "{doctor:?}"
    );

    // Another system hands it in, and the worker refuses it.
    let _worker = fleet.worker();
    until("the worker's word", || fleet.log().contains("has 1 unfinished campaign (c1)")).await;
    let broker = Broker::connect(&fleet.amqp.as_str().into(), true).await.unwrap();
    broker.submit(job().to_string().into_bytes()).await.unwrap();
    until("it to be refused", || fleet.log().contains(told)).await;
    let dead = fleet.ok(&["dead", "list"]).await;
    assert!(dead.out.contains(told), "{dead:?}");
    assert!(fleet.status("c1").is_null());

    // Others are sent, and so is one that the store has as a rehearsal alone.
    let mut other = job();
    other["id"] = "c2".into();
    other["audience"] = serde_json::json!({ "recipients": [{ "phone": "+919700000001", "name": "Asha" }] });
    fleet.world.write("c2.json", other.to_string());
    let ran = fleet.world.run(&["run", "c2.json", "--sandbox"]).await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    fleet.ok(&["submit", "c2.json"]).await;
    fleet.until_state("c2", "completed").await;
    assert_eq!(sandbox.count(), sent + 1);

    // It ends where it was begun, and nobody is sent to twice.
    let ended = fleet.world.run(&["run", "job.json"]).await;
    assert!(matches!(ended.status, Some(0 | 3)), "{ended:?}");
    let lines = fleet.world.flowcast(&["report", "c1", "--store", "flowcast.db", "--format", "jsonl"]).out;
    let accepted = lines.lines().filter(|line| line.contains("\"accepted\"")).count();
    let in_doubt = lines.lines().filter(|line| line.contains("\"in_doubt\"")).count();
    assert_eq!((accepted + in_doubt) as u64, ROWS, "{lines}");
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}
