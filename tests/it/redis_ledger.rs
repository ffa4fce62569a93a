//! Tests of the ledger in Redis only: keys, failures, claims of several workers.

use std::collections::BTreeMap;
use std::time::Duration;

use flowcast::campaign::notice::{KeptNotice, Notice, NoticeSubject};
use flowcast::campaign::{CampaignId, CampaignState, Phone};
use flowcast::ledger::{
    Access, Breaker, Breakers, Campaigns, Checkpoint, ClaimPurpose, Cursor, Decision, LedgerError,
    NewCampaign, Notices, Outcome, PlannedBatch, Plans, RecordOutcome, Redis, RetryPolicy, SentMessages,
    Sqlite, migrate,
};
use flowcast::ledger::{claims, decisions, listing, report_page, transitions};
use redis::Commands;

use crate::servers::{DURABLE, RedisProcess, RedisStore, redis_store};

fn id() -> CampaignId {
    "c1".parse().unwrap()
}

fn batch(number: u32, size: u64) -> PlannedBatch {
    let first = u64::from(number) * size + 1;
    let recipient = |row: u64| (row, format!("+91{}", 9_800_000_000 + row).parse().unwrap());
    PlannedBatch { campaign: id(), number, recipients: (first..first + size).map(recipient).collect() }
}

async fn running_campaign(ledger: &Redis) {
    let new = NewCampaign {
        id: id(),
        named: true,
        name: None,
        again: false,
        account: "main".into(),
        fingerprint: "f".into(),
        job: "{}".into(),
        columns: Vec::new(),
        audience: "a".into(),
        rows: 1,
        batch_size: 100,
        rehearsal: false,
        created_by: "asha".into(),
    };
    ledger.register(new).await.unwrap();
    transitions::change_state(ledger, &id(), CampaignState::Running, None).await.unwrap();
}

fn connection(store: &RedisStore) -> redis::Connection {
    redis::Client::open(store.url.as_str()).unwrap().get_connection().unwrap()
}

/// Registers a campaign of full batches, all accepted with SIDs in Exotel's format.
async fn accepted_campaign(ledger: &Redis, batches: u32) {
    running_campaign(ledger).await;
    for number in 0..batches {
        let to = Checkpoint {
            batches: number + 1,
            rows: u64::from(number + 1) * 100,
            digest: String::new(),
            complete: number + 1 == batches,
        };
        ledger
            .checkpoint(&id(), u64::from(number) * 100, to, vec![batch(number, 100)], Vec::new())
            .await
            .unwrap();
        let claim =
            claims::claim(ledger, batch(number, 100), (0..100).collect(), ClaimPurpose::Send).await.unwrap();
        let accepted = |message: &u8| {
            let sid = format!("{:032x}", u64::from(number) * 100 + u64::from(*message));
            RecordOutcome::from((*message, Outcome::Accepted { sid }))
        };
        claims::record(ledger, &id(), number, claim.token, claim.messages.iter().map(accepted).collect())
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_keep_their_compact_encoding_and_a_message_takes_few_bytes() {
    let server = RedisProcess::start(DURABLE);
    let store = RedisStore::at(server.url(), server);
    let mut redis = connection(&store);
    let used = |redis: &mut redis::Connection| {
        let info: String = redis::cmd("INFO").arg("memory").query(redis).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    let ledger = store.ledger().await;
    listing::all(&ledger).await.unwrap();
    let before = used(&mut redis);
    let batches: u32 = std::env::var("FLOWCAST_TEST_BATCHES").map_or(300, |text| text.parse().unwrap());
    accepted_campaign(&ledger, batches).await;
    for number in [0, batches / 2, batches - 1] {
        let encoding: String = redis::cmd("OBJECT")
            .arg("ENCODING")
            .arg(format!("flowcast:{{c1}}:batch:{number}"))
            .query(&mut redis)
            .unwrap();
        assert_eq!(encoding, "listpack");
    }
    let bytes = (used(&mut redis) - before) as f64 / f64::from(batches) / 100.0;
    eprintln!("{bytes:.1} bytes for each of {} messages", batches * 100);
    assert!(bytes <= 160.0, "{bytes} bytes for a message");
    let value: String = redis.hget("flowcast:{c1}:batch:0", "+919800000001").unwrap();
    assert_eq!(value, format!("accepted {:032x}", 0));
    // The additional memory of an account that matches replies by number.
    let before = used(&mut redis);
    for number in 0..batches {
        let batch = batch(number, 100);
        let recipients: Vec<(Phone, u8)> =
            batch.recipients.iter().map(|(_, phone)| *phone).zip(0..).collect();
        ledger
            .note_sent("main", Duration::from_hours(72), &batch.campaign, number, &recipients)
            .await
            .unwrap();
    }
    let bytes = (used(&mut redis) - before) as f64 / f64::from(batches) / 100.0;
    eprintln!("{bytes:.1} more bytes for a message whose replies are matched by number");
    assert!(bytes <= 250.0, "{bytes} bytes for a message in the index");
}

/// Returns SIDs of every length that has an encoding of its own, and SIDs with unusual characters.
fn unusual_sids() -> Vec<String> {
    let lengths = [0, 1, 44, 54, 55, 56, 117, 118, 119, 200, 4085, 4086, 4087];
    let of_length = |length: &usize| "s".repeat(*length);
    lengths.iter().map(of_length).chain(["12345".into(), "-7".into(), "sid é 😀".into()]).collect()
}

/// Records that all messages of a batch were accepted with these SIDs, and returns the stored hash.
async fn record_accepted(
    ledger: &Redis,
    redis: &mut redis::Connection,
    number: u32,
    sids: &[String],
) -> BTreeMap<String, String> {
    let batch = batch(number, sids.len() as u64);
    let all: Vec<u8> = (0..).take(sids.len()).collect();
    let claim = claims::claim(ledger, batch, all, ClaimPurpose::Send).await.unwrap();
    let outcome = |(message, sid): (&u8, &String)| {
        RecordOutcome::from((*message, Outcome::Accepted { sid: sid.clone() }))
    };
    let outcomes = claim.messages.iter().zip(sids).map(outcome).collect();
    claims::record(ledger, &id(), number, claim.token, outcomes).await.unwrap();
    redis.hgetall(format!("flowcast:{{c1}}:batch:{number}")).unwrap()
}

fn expected(number: u32, sids: &[String]) -> BTreeMap<String, String> {
    let phones = batch(number, sids.len() as u64).recipients.into_iter().map(|(_, phone)| phone.to_string());
    let value = |sid: &String| if sid.is_empty() { "accepted".into() } else { format!("accepted {sid}") };
    phones.zip(sids.iter().map(value)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_are_stored_as_the_hash_that_redis_would_write() {
    let server = RedisProcess::start(DURABLE);
    let store = RedisStore::at(server.url(), server);
    let mut redis = connection(&store);
    // The server checks every payload that it receives, and does not compress its own.
    for (setting, value) in [("sanitize-dump-payload", "yes"), ("rdbcompression", "no")] {
        let _: () = redis::cmd("CONFIG").arg("SET").arg(setting).arg(value).query(&mut redis).unwrap();
    }
    let ledger = store.ledger().await;
    running_campaign(&ledger).await;
    let mut all: Vec<Vec<String>> = unusual_sids().into_iter().map(|sid| vec![sid]).collect();
    all.extend([unusual_sids(), (0..100).map(|nth| format!("{nth:032x}")).collect(), vec!["s".into(); 100]]);
    for (number, sids) in (0..).zip(&all) {
        assert_eq!(
            record_accepted(&ledger, &mut redis, number, sids).await,
            expected(number, sids),
            "{sids:?}"
        );
        let key = format!("flowcast:{{c1}}:batch:{number}");
        let _: () = redis.del("own").unwrap();
        let fields: Vec<(String, String)> = batch(number, sids.len() as u64)
            .recipients
            .iter()
            .map(|(_, phone)| phone.to_string())
            .map(|phone| (phone.clone(), expected(number, sids)[&phone].clone()))
            .collect();
        let _: () = redis.hset_multiple("own", &fields).unwrap();
        let dump = |redis: &mut redis::Connection, key: &str| -> Vec<u8> {
            redis::cmd("DUMP").arg(key).query(redis).unwrap()
        };
        // A server stores a hash with a long value in another encoding; the payload stays compact.
        let is_short = sids.iter().all(|sid| sid.len() <= 55);
        assert!(!is_short || dump(&mut redis, &key) == dump(&mut redis, "own"), "{sids:?}");
    }
    let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut redis).unwrap();
    assert!(stats.contains("cmdstat_restore:"), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_are_written_as_fields_where_restore_is_not_allowed() {
    let server = RedisProcess::start(DURABLE);
    let store = RedisStore::at(server.url(), server);
    let mut redis = connection(&store);
    let _: () = redis::cmd("ACL").arg("SETUSER").arg("default").arg("-restore").query(&mut redis).unwrap();
    let ledger = store.ledger().await;
    running_campaign(&ledger).await;
    for number in 0..2 {
        let sids = unusual_sids();
        assert_eq!(record_accepted(&ledger, &mut redis, number, &sids).await, expected(number, &sids));
    }
    let campaign = ledger.campaign(&id()).await.unwrap().unwrap();
    assert_eq!(campaign.counts.accepted, 2 * unusual_sids().len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_are_loaded_again_after_the_server_lost_them() {
    let store = redis_store();
    let ledger = store.ledger().await;
    running_campaign(&ledger).await;
    claims::claim(&ledger, batch(0, 3), vec![0], ClaimPurpose::Send).await.unwrap();
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut connection(&store)).unwrap();
    assert_eq!(claims::claim(&ledger, batch(0, 3), vec![1], ClaimPurpose::Send).await.unwrap().messages, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_outcome_of_an_expired_claim_counts_only_as_proof() {
    let store = redis_store();
    let (slow, other) = (store.ledger().await, store.ledger().await);
    running_campaign(&slow).await;
    let stale = claims::claim(&slow, batch(0, 5), vec![0, 1, 2, 3, 4], ClaimPurpose::Send).await.unwrap();
    assert_eq!(
        claims::expire(&other, &id(), false).await.unwrap(),
        0,
        "the claim is still valid by the store's clock"
    );
    store.expire_claims().await;
    assert_eq!(claims::expire(&other, &id(), false).await.unwrap(), 5);
    // Proof that a message was not sent releases it from doubt; a late response settles it.
    let late = vec![(0, Outcome::Released).into(), (1, Outcome::Accepted { sid: "late".into() }).into()];
    claims::record(&slow, &id(), 0, stale.token, late).await.unwrap();
    let counts = slow.campaign(&id()).await.unwrap().unwrap().counts;
    assert_eq!((counts.pending, counts.accepted, counts.in_doubt), (1, 1, 3));
    // An operator resends the others, and another worker claims them.
    decisions::decide(&other, &id(), Decision::Resend { until: i64::MAX }).await.unwrap();
    let fresh = claims::claim(&other, batch(0, 5), vec![2, 3, 4], ClaimPurpose::Send).await.unwrap();
    assert_eq!(fresh.messages, [2, 3, 4]);
    let late = vec![
        (2, Outcome::Released).into(),
        (3, Outcome::Rejected { code: "7".into(), detail: String::new() }).into(),
        (4, Outcome::Accepted { sid: "first".into() }).into(),
    ];
    claims::record(&slow, &id(), 0, stale.token, late).await.unwrap();
    let counts = slow.campaign(&id()).await.unwrap().unwrap().counts;
    assert_eq!((counts.sending, counts.accepted, counts.rejected), (2, 2, 0));
    let outcomes = [2, 3, 4].map(|message| (message, Outcome::Accepted { sid: "second".into() }).into());
    claims::record(&other, &id(), 0, fresh.token, outcomes.into()).await.unwrap();
    let counts = slow.campaign(&id()).await.unwrap().unwrap().counts;
    assert_eq!((counts.sending, counts.accepted), (0, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_leads_and_all_report_their_held_batches() {
    let store = redis_store();
    let (one, two) = (store.ledger().await, store.ledger().await);
    running_campaign(&one).await;
    let heartbeat = async |ledger: &Redis, held| {
        let response = ledger.heartbeat(&id(), held).await.unwrap();
        (response.leads, response.held)
    };
    assert_eq!(heartbeat(&one, 3).await, (true, 3));
    assert_eq!(heartbeat(&two, 4).await, (false, 7));
    assert_eq!(heartbeat(&one, 1).await, (true, 5));
    one.release(&id()).await.unwrap();
    assert_eq!(heartbeat(&two, 4).await, (true, 4));
    // A worker that sends no heartbeat is dead.
    let mut redis = connection(&store);
    let _: () = redis.hset("flowcast:{c1}:campaign", "lease_until", 1).unwrap();
    let session: Vec<String> = redis.hkeys("flowcast:{c1}:workers").unwrap();
    let _: () = redis.hset("flowcast:{c1}:workers", &session[0], "4 1").unwrap();
    assert_eq!(heartbeat(&one, 0).await, (true, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_keeps_all_writes_and_a_waiting_one_completes() {
    let mut server = RedisProcess::start(DURABLE);
    let url = server.url();
    let ledger =
        Redis::connect(&url.as_str().into(), RetryPolicy::Endless, Duration::from_secs(1)).await.unwrap();
    running_campaign(&ledger).await;
    let claim = claims::claim(&ledger, batch(0, 3), vec![0, 1], ClaimPurpose::Send).await.unwrap();
    server.kill();
    let recording = {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            let outcomes = vec![(0, Outcome::Accepted { sid: "s".into() }).into()];
            claims::record(&ledger, &id(), 0, claim.token, outcomes).await
        })
    };
    let impatient = Redis::connect(&url.as_str().into(), RetryPolicy::Short, Duration::from_secs(1)).await;
    let error = impatient.err().unwrap().to_string();
    assert!(error.contains("is it running, and is redis.url correct?"), "{error}");
    assert!(!recording.is_finished(), "recording must wait until Redis is back");
    server.restart();
    assert_eq!(recording.await.unwrap().unwrap(), 2);
    let counts = ledger.campaign(&id()).await.unwrap().unwrap().counts;
    assert_eq!((counts.accepted, counts.sending, counts.pending), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_and_a_full_server_are_errors_with_advice() {
    let server = RedisProcess::start(DURABLE);
    let url = server.url();
    let mut redis = redis::Client::open(url.as_str()).unwrap().get_connection().unwrap();
    let ledger =
        Redis::connect(&url.as_str().into(), RetryPolicy::Short, Duration::from_secs(1)).await.unwrap();
    running_campaign(&ledger).await;
    let mut config = |name: &str, value: &str| {
        let _: () = redis::cmd("CONFIG").arg("SET").arg(name).arg(value).query(&mut redis).unwrap();
    };
    config("maxmemory", "1");
    let error = claims::claim(&ledger, batch(0, 3), vec![0], ClaimPurpose::Send).await.unwrap_err();
    assert!(matches!(error, LedgerError::Away(_)) && error.to_string().contains("maxmemory"), "{error}");
    config("maxmemory", "0");
    assert_eq!(claims::claim(&ledger, batch(0, 3), vec![0], ClaimPurpose::Send).await.unwrap().messages, [0]);
    config("replica-read-only", "yes");
    let _: () = redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).query(&mut redis).unwrap();
    let error = claims::claim(&ledger, batch(0, 3), vec![1], ClaimPurpose::Send).await.unwrap_err();
    assert!(error.to_string().contains("point redis.url to the master"), "{error}");
    let _: () = redis::cmd("REPLICAOF").arg("NO").arg("ONE").query(&mut redis).unwrap();
    // As a master again, it may have lost writes, and no worker's journal has them.
    let claim = claims::claim(&ledger, batch(0, 3), vec![1], ClaimPurpose::Send).await.unwrap();
    assert!(claim.messages.is_empty() && !claim.running, "{claim:?}");
    assert!(ledger.heartbeat(&id(), 0).await.unwrap().gap.is_some());
    ledger.close_gap(&id()).await.unwrap();
    assert_eq!(ledger.heartbeat(&id(), 0).await.unwrap().gap, None);
    assert_eq!(claims::claim(&ledger, batch(0, 3), vec![1], ClaimPurpose::Send).await.unwrap().messages, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_campaign_is_removed_after_its_retention() {
    let store = redis_store();
    let ledger = store.ledger().await;
    accepted_campaign(&ledger, 3).await;
    let later = jiff::Timestamp::now() + Duration::from_mins(1);
    assert_eq!(ledger.forget_ended(later).await.unwrap(), 0, "the campaign has not ended");
    assert!(transitions::complete(&ledger, &id(), None).await.unwrap());
    assert_eq!(ledger.forget_ended(later).await.unwrap(), 0, "its end has not been published");
    ledger.published(&id(), CampaignState::Completed).await.unwrap();
    assert_eq!(ledger.forget_ended(jiff::Timestamp::now() - Duration::from_mins(1)).await.unwrap(), 0);
    assert_eq!(ledger.forget_ended(later).await.unwrap(), 1);
    // Only the version of the last change stays, and for a month the mark that this campaign was removed.
    let mut connection = connection(&store);
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    keys.sort();
    assert_eq!(keys, ["flowcast:active", "flowcast:{c1}:forgotten"]);
    let seconds: i64 = redis::cmd("TTL").arg(&keys[1]).query(&mut connection).unwrap();
    assert!(seconds > 29 * 86_400, "{seconds}");
    let members: Vec<String> =
        redis::cmd("ZRANGE").arg(&keys[0]).arg(0).arg(-1).query(&mut connection).unwrap();
    assert_eq!(members, [""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_an_error_that_shows_no_secret() {
    let server = RedisProcess::start("--requirepass right");
    let url = format!("redis://:s3cr3t@127.0.0.1:{}/0", server.port);
    let error =
        Redis::connect(&url.into(), RetryPolicy::Endless, Duration::from_secs(1)).await.err().unwrap();
    let text = error.to_string();
    assert!(!text.contains("s3cr3t") && text.contains("redis.url"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_redis_sends_before_closing_is_quoted() {
    let server = RedisProcess::start("--maxclients 1");
    let _only = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let url = server.url().into();
    let error = Redis::connect(&url, RetryPolicy::Short, Duration::from_secs(1)).await.err().unwrap();
    let text = error.to_string();
    assert!(text.contains("connection failed: ERR max number of clients reached"), "{text}");
}

#[tokio::test]
async fn a_campaign_that_is_being_removed_has_no_report() {
    let store = redis_store();
    let ledger = store.ledger().await;
    running_campaign(&ledger).await;
    claims::claim(&ledger, batch(0, 3), vec![0], ClaimPurpose::Send).await.unwrap();
    assert_eq!(report_page(&ledger, &id(), Cursor::default()).await.unwrap().lines.len(), 3);
    // The state after the first step of a removal.
    let mut field = redis::cmd("HSET");
    field.arg("flowcast:{c1}:campaign").arg("removed").arg(1);
    let _: u64 = store.server().await.command(&field).await.unwrap();
    let report = report_page(&ledger, &id(), Cursor::default()).await;
    assert!(matches!(report, Err(LedgerError::NoCampaign(_))), "{report:?}");
    // The next call completes the removal.
    ledger.remove(&id()).await.unwrap();
    running_campaign(&ledger).await;
    assert_eq!(report_page(&ledger, &id(), Cursor::default()).await.unwrap().lines.len(), 0);
}

fn paused_template() -> Notice {
    Notice { about: NoticeSubject::Template("offer".into()), event: "paused".into(), detail: String::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_an_earlier_version_stored_as_a_breaker_is_valid_until_the_next() {
    let store = redis_store();
    let ledger = store.ledger().await;
    let (paused, earlier) = (paused_template(), Breaker::flow("main", "(notice) template offer"));
    for is_bad in [true, false] {
        ledger.open_breaker(&earlier, paused.to_string(), false).await.unwrap();
        let stored = ledger.notice("main", &paused.about).await.unwrap().unwrap();
        assert_eq!(stored.notice, KeptNotice::Text(paused.to_string()));
        assert!(stored.since.duration_since(jiff::Timestamp::now()).as_secs().abs() < 60);
        let after = if is_bad {
            ledger.store_notice("main", &paused).await.unwrap();
            Some(KeptNotice::Notice(paused.clone()))
        } else {
            ledger.clear_notice("main", &paused.about).await.unwrap();
            None
        };
        let stored = ledger.notice("main", &paused.about).await.unwrap();
        assert_eq!(stored.map(|stored| stored.notice), after);
        assert_eq!(ledger.breaker(&earlier).await.unwrap(), None);
    }
    // The format that docs/redis.md specifies.
    ledger.store_notice("main", &paused).await.unwrap();
    let written: String =
        connection(&store).hget("flowcast:{account:main}:notices", "template offer").unwrap();
    assert!(written.starts_with(r#"{"event":"paused","detail":"","since":1"#), "{written}");
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_of_a_store_are_migrated_once() {
    let redis = redis_store();
    let ledger = redis.ledger().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flowcast.db");
    let store = Sqlite::open(&path, Access::Send).unwrap();
    let paused = paused_template();
    store.store_notice("main", &paused).await.unwrap();
    let stored = store.notice("main", &paused.about).await.unwrap();
    drop(store);
    let store = Sqlite::open(&path, Access::Move).unwrap();
    let within = |_: &str| Duration::from_hours(1);
    migrate(&store, &ledger, &[], within).await.unwrap();
    assert_eq!(ledger.notice("main", &paused.about).await.unwrap(), stored);
    ledger.clear_notice("main", &paused.about).await.unwrap();
    migrate(&store, &ledger, &[], within).await.unwrap();
    assert_eq!(ledger.notice("main", &paused.about).await.unwrap(), None);
}
