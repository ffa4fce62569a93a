//! What holds for the ledger in Redis alone: its keys, its bad days, its claims between workers.

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

async fn running(ledger: &Redis) {
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

/// A campaign of full batches, all accepted with SIDs as Exotel's.
async fn sent(ledger: &Redis, batches: u32) {
    running(ledger).await;
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
    sent(&ledger, batches).await;
    for number in [0, batches / 2, batches - 1] {
        let encoding: String = redis::cmd("OBJECT")
            .arg("ENCODING")
            .arg(format!("flowcast:{{c1}}:batch:{number}"))
            .query(&mut redis)
            .unwrap();
        assert_eq!(encoding, "listpack");
    }
    let bytes = (used(&mut redis) - before) as f64 / f64::from(batches) / 100.0;
    eprintln!("{bytes:.1} bytes a message at {} messages", batches * 100);
    assert!(bytes <= 160.0, "{bytes} bytes a message");
    let value: String = redis.hget("flowcast:{c1}:batch:0", "+919800000001").unwrap();
    assert_eq!(value, format!("accepted {:032x}", 0));
    // What an account pays that wants answers found by their number.
    let before = used(&mut redis);
    for number in 0..batches {
        let batch = batch(number, 100);
        let people: Vec<(Phone, u8)> = batch.recipients.iter().map(|(_, phone)| *phone).zip(0..).collect();
        ledger.note_sent("main", Duration::from_hours(72), &batch.campaign, number, &people).await.unwrap();
    }
    let bytes = (used(&mut redis) - before) as f64 / f64::from(batches) / 100.0;
    eprintln!("{bytes:.1} bytes more a message whose answers are found by their number");
    assert!(bytes <= 250.0, "{bytes} bytes a message in the index");
}

/// SIDs of every length that is written in another way, and of other letters.
fn odd_sids() -> Vec<String> {
    let lengths = [0, 1, 44, 54, 55, 56, 117, 118, 119, 200, 4085, 4086, 4087];
    let of_length = |length: &usize| "s".repeat(*length);
    lengths.iter().map(of_length).chain(["12345".into(), "-7".into(), "sid é 😀".into()]).collect()
}

/// Records that all messages of a batch were accepted with these SIDs, and returns what Redis has then.
async fn accepted(
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
    let number = batch(number, sids.len() as u64).recipients.into_iter().map(|(_, phone)| phone.to_string());
    let value = |sid: &String| if sid.is_empty() { "accepted".into() } else { format!("accepted {sid}") };
    number.zip(sids.iter().map(value)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_are_a_hash_that_the_server_would_have_written() {
    let server = RedisProcess::start(DURABLE);
    let store = RedisStore::at(server.url(), server);
    let mut redis = connection(&store);
    // It looks into every payload that it is given, and writes its own as they stand.
    for (setting, value) in [("sanitize-dump-payload", "yes"), ("rdbcompression", "no")] {
        let _: () = redis::cmd("CONFIG").arg("SET").arg(setting).arg(value).query(&mut redis).unwrap();
    }
    let ledger = store.ledger().await;
    running(&ledger).await;
    let mut all: Vec<Vec<String>> = odd_sids().into_iter().map(|sid| vec![sid]).collect();
    all.extend([odd_sids(), (0..100).map(|nth| format!("{nth:032x}")).collect(), vec!["s".into(); 100]]);
    for (number, sids) in (0..).zip(&all) {
        assert_eq!(accepted(&ledger, &mut redis, number, sids).await, expected(number, sids), "{sids:?}");
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
        // A server that finds a value long keeps the hash in another form; ours stays compact.
        let is_short = sids.iter().all(|sid| sid.len() <= 55);
        assert!(!is_short || dump(&mut redis, &key) == dump(&mut redis, "own"), "{sids:?}");
    }
    let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut redis).unwrap();
    assert!(stats.contains("cmdstat_restore:"), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_payloads_gets_fields() {
    let server = RedisProcess::start(DURABLE);
    let store = RedisStore::at(server.url(), server);
    let mut redis = connection(&store);
    let _: () = redis::cmd("ACL").arg("SETUSER").arg("default").arg("-restore").query(&mut redis).unwrap();
    let ledger = store.ledger().await;
    running(&ledger).await;
    for number in 0..2 {
        let sids = odd_sids();
        assert_eq!(accepted(&ledger, &mut redis, number, &sids).await, expected(number, &sids));
    }
    let campaign = ledger.campaign(&id()).await.unwrap().unwrap();
    assert_eq!(campaign.counts.accepted, 2 * odd_sids().len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgot_the_scripts_is_told_them_again() {
    let store = redis_store();
    let ledger = store.ledger().await;
    running(&ledger).await;
    claims::claim(&ledger, batch(0, 3), vec![0], ClaimPurpose::Send).await.unwrap();
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut connection(&store)).unwrap();
    assert_eq!(claims::claim(&ledger, batch(0, 3), vec![1], ClaimPurpose::Send).await.unwrap().messages, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_claim_that_ran_out_was_told_is_taken_as_far_as_it_proves_something() {
    let store = redis_store();
    let (slow, other) = (store.ledger().await, store.ledger().await);
    running(&slow).await;
    let stale = claims::claim(&slow, batch(0, 5), vec![0, 1, 2, 3, 4], ClaimPurpose::Send).await.unwrap();
    assert_eq!(claims::expire(&other, &id(), false).await.unwrap(), 0, "it holds by the store's clock");
    store.let_claims_run_out().await;
    assert_eq!(claims::expire(&other, &id(), false).await.unwrap(), 5);
    // Proof that it never went out releases a doubt; a late answer settles one.
    let late = vec![(0, Outcome::Released).into(), (1, Outcome::Accepted { sid: "late".into() }).into()];
    claims::record(&slow, &id(), 0, stale.token, late).await.unwrap();
    let counts = slow.campaign(&id()).await.unwrap().unwrap().counts;
    assert_eq!((counts.pending, counts.accepted, counts.in_doubt), (1, 1, 3));
    // A person has the others sent again, and another worker has them in its hands now.
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
async fn one_worker_leads_and_all_say_what_they_hold() {
    let store = redis_store();
    let (one, two) = (store.ledger().await, store.ledger().await);
    running(&one).await;
    let attend = async |ledger: &Redis, held| {
        let attendance = ledger.heartbeat(&id(), held).await.unwrap();
        (attendance.leads, attendance.held)
    };
    assert_eq!(attend(&one, 3).await, (true, 3));
    assert_eq!(attend(&two, 4).await, (false, 7));
    assert_eq!(attend(&one, 1).await, (true, 5));
    one.release(&id()).await.unwrap();
    assert_eq!(attend(&two, 4).await, (true, 4));
    // A worker that says nothing any more has gone.
    let mut redis = connection(&store);
    let _: () = redis.hset("flowcast:{c1}:campaign", "lease_until", 1).unwrap();
    let session: Vec<String> = redis.hkeys("flowcast:{c1}:workers").unwrap();
    let _: () = redis.hset("flowcast:{c1}:workers", &session[0], "4 1").unwrap();
    assert_eq!(attend(&one, 0).await, (true, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_comes_back_with_all_that_was_written() {
    let mut server = RedisProcess::start(DURABLE);
    let url = server.url();
    let ledger =
        Redis::connect(&url.as_str().into(), RetryPolicy::Endless, Duration::from_secs(1)).await.unwrap();
    running(&ledger).await;
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
    assert!(error.contains("is it running, and is redis.url right?"), "{error}");
    assert!(!recording.is_finished(), "an outcome is kept until Redis is back");
    server.restart();
    assert_eq!(recording.await.unwrap().unwrap(), 2);
    let counts = ledger.campaign(&id()).await.unwrap().unwrap().counts;
    assert_eq!((counts.accepted, counts.sending, counts.pending), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_and_a_full_server_are_waited_for_with_what_to_do() {
    let server = RedisProcess::start(DURABLE);
    let url = server.url();
    let mut redis = redis::Client::open(url.as_str()).unwrap().get_connection().unwrap();
    let ledger =
        Redis::connect(&url.as_str().into(), RetryPolicy::Short, Duration::from_secs(1)).await.unwrap();
    running(&ledger).await;
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
    // It is a master again, and may have forgotten something: nobody here knows what was written before.
    let claim = claims::claim(&ledger, batch(0, 3), vec![1], ClaimPurpose::Send).await.unwrap();
    assert!(claim.messages.is_empty() && !claim.running, "{claim:?}");
    assert!(ledger.heartbeat(&id(), 0).await.unwrap().gap.is_some());
    ledger.close_gap(&id()).await.unwrap();
    assert_eq!(ledger.heartbeat(&id(), 0).await.unwrap().gap, None);
    assert_eq!(claims::claim(&ledger, batch(0, 3), vec![1], ClaimPurpose::Send).await.unwrap().messages, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_is_forgotten_when_its_time_is_over() {
    let store = redis_store();
    let ledger = store.ledger().await;
    sent(&ledger, 3).await;
    let later = jiff::Timestamp::now() + Duration::from_mins(1);
    assert_eq!(ledger.forget_ended(later).await.unwrap(), 0, "it has not ended");
    assert!(transitions::complete(&ledger, &id(), None).await.unwrap());
    assert_eq!(ledger.forget_ended(later).await.unwrap(), 0, "nobody was told of its end");
    ledger.published(&id(), CampaignState::Completed).await.unwrap();
    assert_eq!(ledger.forget_ended(jiff::Timestamp::now() - Duration::from_mins(1)).await.unwrap(), 0);
    assert_eq!(ledger.forget_ended(later).await.unwrap(), 1);
    // Of all campaigns together the version of their last change stays, and for a month that this one was forgotten.
    let mut connection = connection(&store);
    let mut left: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    left.sort();
    assert_eq!(left, ["flowcast:active", "flowcast:{c1}:forgotten"]);
    let seconds: i64 = redis::cmd("TTL").arg(&left[1]).query(&mut connection).unwrap();
    assert!(seconds > 29 * 86_400, "{seconds}");
    let left: Vec<String> = redis::cmd("ZRANGE").arg(&left[0]).arg(0).arg(-1).query(&mut connection).unwrap();
    assert_eq!(left, [""]);
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
async fn a_server_that_refuses_and_closes_is_quoted() {
    let server = RedisProcess::start("--maxclients 1");
    let _only = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let url = server.url().into();
    let error = Redis::connect(&url, RetryPolicy::Short, Duration::from_secs(1)).await.err().unwrap();
    let text = error.to_string();
    assert!(text.contains("refuses the connection: ERR max number of clients reached"), "{text}");
}

#[tokio::test]
async fn a_campaign_that_is_being_removed_has_no_report() {
    let store = redis_store();
    let ledger = store.ledger().await;
    running(&ledger).await;
    claims::claim(&ledger, batch(0, 3), vec![0], ClaimPurpose::Send).await.unwrap();
    assert_eq!(report_page(&ledger, &id(), Cursor::default()).await.unwrap().lines.len(), 3);
    // As a removal leaves it that has just begun.
    let mut field = redis::cmd("HSET");
    field.arg("flowcast:{c1}:campaign").arg("removed").arg(1);
    let _: u64 = store.server().await.command(&field).await.unwrap();
    let report = report_page(&ledger, &id(), Cursor::default()).await;
    assert!(matches!(report, Err(LedgerError::NoCampaign(_))), "{report:?}");
    // It is finished by whoever comes next.
    ledger.remove(&id()).await.unwrap();
    running(&ledger).await;
    assert_eq!(report_page(&ledger, &id(), Cursor::default()).await.unwrap().lines.len(), 0);
}

fn paused() -> Notice {
    Notice { about: NoticeSubject::Template("offer".into()), event: "paused".into(), detail: String::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_an_earlier_version_kept_as_a_breaker_stands_until_the_next() {
    let store = redis_store();
    let ledger = store.ledger().await;
    let (paused, earlier) = (paused(), Breaker::flow("main", "(notice) template offer"));
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
    // As docs/redis.md has it.
    ledger.store_notice("main", &paused).await.unwrap();
    let written: String =
        connection(&store).hget("flowcast:{account:main}:notices", "template offer").unwrap();
    assert!(written.starts_with(r#"{"event":"paused","detail":"","since":1"#), "{written}");
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_of_a_store_are_moved_once() {
    let redis = redis_store();
    let ledger = redis.ledger().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flowcast.db");
    let store = Sqlite::open(&path, Access::Send).unwrap();
    let paused = paused();
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
