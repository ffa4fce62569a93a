//! Many campaigns at once: those that wait cost nothing, small ones survive the worker that sends them, and a
//! long list of suppressed numbers is small.

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

/// A job of one message.
fn small(nth: u64) -> Value {
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

/// The status of each campaign.
fn campaigns(fleet: &Fleet) -> Vec<Value> {
    let listed = fleet.world.flowcast(&["campaigns", "--json"]).out;
    serde_json::from_str(&listed)
        .unwrap_or_else(|_| listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn commands(redis: &mut redis::Connection) -> u64 {
    let stats: String = redis::cmd("INFO").arg("stats").query(redis).unwrap();
    let line = stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn campaigns_that_wait_cost_no_more_than_none_and_begin_at_once() {
    let server = RedisProcess::start("");
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::on(World::new(1), &server.url(), &amqp_url(), &url, FAST);
    let _workers = [fleet.worker(), fleet.worker()];
    let tomorrow = jiff::Timestamp::now() + Duration::from_hours(24);
    let waiting = |nth: u64| {
        let mut job = small(nth);
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
        until("all to wait", || reason(nth).is_some_and(|reason| reason.contains("opens at"))).await;
    }
    // What their registration caused is over when nobody looks after one any more.
    let mut redis = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let (mut before, mut since) = (commands(&mut redis), Instant::now());
    until("the workers to be quiet", || {
        let (now, took) = (commands(&mut redis) - before, since.elapsed().as_secs_f64());
        if took < 3.0 {
            return false;
        }
        // 400 of them cost two workers 34,000 commands a second once.
        let is_quiet = (now as f64) < 500.0 * took;
        (before, since) = (before + now, Instant::now());
        is_quiet
    })
    .await;
    assert_eq!(sandbox.count(), 0);
    // And yet each of them is there: resumed by a person, it begins at once.
    fleet.ok(&["pause", "c7"]).await;
    assert_eq!(fleet.status("c7")["state"], "paused");
    submit(&fleet, std::iter::once(small(CAMPAIGNS))).await;
    fleet.until_state(&format!("c{CAMPAIGNS}"), "completed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_campaigns_at_once_survive_a_worker_and_each_message_goes_out_once() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(1, &url, FAST);
    let mut workers = [fleet.worker(), fleet.worker()];
    submit(&fleet, (0..CAMPAIGNS).map(small)).await;
    until("some to be sent", || sandbox.count() > 20).await;
    // The one that goes may have led any of them.
    workers[0].kill();
    until("all to be settled", || {
        let all = campaigns(&fleet);
        all.iter().filter(|campaign| campaign["state"] == "completed").count() as u64 == CAMPAIGNS
    })
    .await;
    let mut times = BTreeMap::<String, u64>::new();
    for message in sandbox.taken() {
        *times.entry(message.to).or_default() += 1;
    }
    assert!(times.values().all(|times| *times == 1), "sent twice");
    // What was under way when the worker was killed is in doubt, and nothing is lost.
    let doubts: u64 = campaigns(&fleet).iter().map(|one| one["counts"]["in_doubt"].as_u64().unwrap()).sum();
    assert!(times.len() as u64 + doubts >= CAMPAIGNS, "lost: {} and {doubts}", times.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_of_suppressed_numbers_is_small_and_followed_by_what_changes() {
    let count = std::env::var("FLOWCAST_SUPPRESSED").map_or(100_000, |count| count.parse().unwrap());
    let store: RedisStore = redis_store();
    let ledger = store.ledger().await;
    let number = |nth: u64| Phone::from_digits(919_800_000_000 + nth * 7919 % 99_999_989).unwrap();
    for some in (0..count).collect::<Vec<_>>().chunks(100_000) {
        let numbers = some.iter().map(|nth| number(*nth)).collect();
        assert_eq!(ledger.suppress(numbers, Suppress::Add, None).await.unwrap(), some.len() as u64);
    }
    let mut list = Suppressed::default();
    list.apply(ledger.suppressed(0).await.unwrap().unwrap());
    assert_eq!(list.numbers.len(), count);
    // At most 40 bytes a number, and what an empty list costs.
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
