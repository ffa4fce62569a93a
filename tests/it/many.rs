//! Many campaigns at the same time: waiting ones cost few commands, small ones survive a killed worker, and a long
//! suppression list takes little memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flowcast::campaign::Phone;
use flowcast::ledger::{Suppress, Suppressed, Suppression, SuppressionUpdate};
use flowcast::sandbox::Behaviour;
use serde_json::{Value, json};

use crate::fleet::{Fleet, until};
use crate::servers::{RedisProcess, RedisStore, amqp_url, broker, redis_store};
use crate::support::{World, job_with, phone, sandbox};

const FAST: &str = "limits = { messages = \"100000/s\", requests = \"10000/s\" }";
const CAMPAIGNS: u64 = 400;

/// Returns a job with one message.
fn small_job(nth: u64) -> Value {
    let mut job = job_with("/audience", json!({ "recipients": [{ "phone": phone(nth), "name": "x" }] }));
    job["id"] = json!(format!("c{nth}"));
    job
}

async fn submit(fleet: &Fleet, jobs: impl Iterator<Item = Value>) {
    let broker = broker(&fleet.amqp).await;
    for job in jobs {
        broker.submit(serde_json::to_vec(&job).unwrap()).await.unwrap();
    }
}

/// Returns the status of each campaign.
fn campaigns(fleet: &Fleet) -> Vec<Value> {
    let listed = fleet.world.flowcast(&["campaigns", "--json"]).out;
    serde_json::from_str(&listed)
        .unwrap_or_else(|_| listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn processed_commands(redis: &mut redis::Connection) -> u64 {
    let stats: String = redis::cmd("INFO").arg("stats").query(redis).unwrap();
    let line = stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_campaigns_cost_few_redis_commands_and_delay_no_other_campaign() {
    let server = RedisProcess::start("");
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::on(World::new(1), &server.url(), &amqp_url(), &url, FAST);
    let _workers = [fleet.worker(), fleet.worker()];
    let tomorrow = jiff::Timestamp::now() + Duration::from_hours(24);
    let waiting = |nth: u64| {
        let mut job = small_job(nth);
        job["schedule"] = json!({ "start_at": tomorrow.to_string() });
        job
    };
    submit(&fleet, (0..CAMPAIGNS).map(waiting)).await;
    let mut redis = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut reason = |nth: u64| -> Option<String> {
        redis::cmd("HGET")
            .arg(format!("flowcast:{{c{nth}}}:campaign"))
            .arg("reason")
            .query(&mut redis)
            .unwrap()
    };
    for nth in 0..CAMPAIGNS {
        until("all campaigns to wait", || reason(nth).is_some_and(|reason| reason.contains("starts at")))
            .await;
    }
    // The commands of the registrations end when no worker supervises the campaigns any more.
    let mut redis = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let (mut before, mut since) = (processed_commands(&mut redis), Instant::now());
    until("the workers to send few commands", || {
        let (now, took) = (processed_commands(&mut redis) - before, since.elapsed().as_secs_f64());
        if took < 3.0 {
            return false;
        }
        // With a regression, two workers sent 34,000 commands per second for 400 campaigns.
        let is_quiet = (now as f64) < 500.0 * took;
        (before, since) = (before + now, Instant::now());
        is_quiet
    })
    .await;
    assert_eq!(sandbox.count(), 0);
    // The waiting campaigns can still be paused, and a new campaign starts at once.
    fleet.ok(&["pause", "c7"]).await;
    assert_eq!(fleet.status("c7")["state"], "paused");
    submit(&fleet, std::iter::once(small_job(CAMPAIGNS))).await;
    fleet.until_state(&format!("c{CAMPAIGNS}"), "completed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_campaigns_survive_a_killed_worker_and_send_each_message_once() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(1, &url, FAST);
    let mut workers = [fleet.worker(), fleet.worker()];
    submit(&fleet, (0..CAMPAIGNS).map(small_job)).await;
    until("the first messages to be sent", || sandbox.count() > 20).await;
    // The killed worker may have led any of the campaigns.
    workers[0].kill();
    until("all campaigns to complete", || {
        let all = campaigns(&fleet);
        all.iter().filter(|campaign| campaign["state"] == "completed").count() as u64 == CAMPAIGNS
    })
    .await;
    let mut times = BTreeMap::<String, u64>::new();
    for message in sandbox.taken() {
        *times.entry(message.to).or_default() += 1;
    }
    assert!(times.values().all(|times| *times == 1), "a message was sent twice");
    // Messages in flight when the worker was killed are in doubt, and none is lost.
    let in_doubt: u64 = campaigns(&fleet).iter().map(|one| one["counts"]["in_doubt"].as_u64().unwrap()).sum();
    assert!(
        times.len() as u64 + in_doubt >= CAMPAIGNS,
        "messages were lost: {} sent, {in_doubt} in doubt",
        times.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_suppression_list_takes_little_memory_and_is_updated_by_changes() {
    let count = std::env::var("FLOWCAST_SUPPRESSED").map_or(100_000, |count| count.parse().unwrap());
    let store: RedisStore = redis_store();
    let ledger = store.ledger().await;
    let number = |nth: u64| Phone::from_digits(919_800_000_000 + nth * 7919 % 99_999_989).unwrap();
    for chunk in (0..count).collect::<Vec<_>>().chunks(100_000) {
        let numbers = chunk.iter().map(|nth| number(*nth)).collect();
        assert_eq!(ledger.suppress(numbers, Suppress::Add, None).await.unwrap(), chunk.len() as u64);
    }
    let mut list = Suppressed::default();
    list.apply(ledger.suppressed(0).await.unwrap().unwrap());
    assert_eq!(list.numbers.len(), count);
    // At most 40 bytes for each number, and 1 MiB for an empty list.
    assert!(
        list.numbers.serialized_size() < count as usize * 40 + (1 << 20),
        "{}",
        list.numbers.serialized_size()
    );
    assert!(ledger.suppressed(list.version).await.unwrap().is_none());
    ledger.suppress(vec![number(1)], Suppress::Remove, None).await.unwrap();
    let update = ledger.suppressed(list.version).await.unwrap().unwrap();
    assert!(matches!(&update, SuppressionUpdate::Since { changes, .. } if changes.len() == 1));
    list.apply(update);
    assert!(!list.contains(number(1)) && list.contains(number(2)));
}
