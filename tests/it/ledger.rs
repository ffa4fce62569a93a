//! The contract of every ledger. A new backend is one more call of `ledger_suite!`.

use flowcast::campaign::MessageState::{Accepted, InDoubt, Pending, Rejected, Sending};
use flowcast::campaign::delivery::{Delivery, DeliveryUpdate, Reply, ReplyContent};
use flowcast::campaign::job::StopWhen;
use flowcast::campaign::notice::{KeptNotice, Notice, NoticeSubject};
use flowcast::campaign::{
    CampaignId, CampaignState, Doubt, DoubtCause, MessageState, Phone, Reason, SkipReason,
};
use flowcast::ledger::{
    claims, decisions, doubts, evidence, listing, replays, replies, report_page, response_page, transitions,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;

use flowcast::ledger::{
    ABANDONED, Access, Audit, AuditEntry, AuditPage, BatchWriter, Breaker, Breakers, Campaign,
    CampaignDrafts, CampaignFilter, Campaigns, Checkpoint, Claim, ClaimPurpose, Cursor, Decision,
    FIRST_PROBE, Lease, Ledger, LedgerError, Memory, MessageReport, NewCampaign, Notices, OptOut,
    OptOutSource, Outcome, PlannedBatch, Plans, Point, RecordOutcome, Redis, ReplyTarget, ReportLine,
    Reporting, SentMessages, Series, SkippedRow, Sqlite, Suppress, Suppressed, Suppression,
    SuppressionUpdate,
};
use flowcast::ledger::{PlannedSoFar, skip_unplanned};

use crate::servers::{RedisStore, cluster_store, redis_store};
use crate::state_models::random_campaigns_match_a_plain_model;

/// Returns a reason that is a text.
fn text_reason(text: &str) -> Reason {
    Reason::Text { text: text.into() }
}

/// A store that outlives the processes that use it.
pub trait Store: Send + Sync {
    type Ledger: Ledger;

    /// Opens it as a new process; the earlier one has died, and its claims have expired.
    fn open(&self) -> impl Future<Output = Self::Ledger> + Send;
}

pub struct SqliteFile(pub tempfile::TempDir);

impl Store for SqliteFile {
    type Ledger = Sqlite;

    async fn open(&self) -> Sqlite {
        Sqlite::open(&self.0.path().join("flowcast.db"), Access::Send).unwrap()
    }
}

/// A ledger in memory: each process is a session, and the clock moves forward between two.
struct MemoryStore {
    ledger: Memory,
    /// Offset of the clock, in milliseconds.
    ahead: Arc<AtomicI64>,
    opened: AtomicBool,
}

impl MemoryStore {
    fn new() -> Self {
        let ahead = Arc::new(AtomicI64::new(0));
        let clock = {
            let ahead = ahead.clone();
            move || jiff::Timestamp::now().as_millisecond() + ahead.load(Ordering::Relaxed)
        };
        Self {
            ledger: Memory::new(Arc::new(clock), Duration::from_mins(1)),
            ahead,
            opened: AtomicBool::new(false),
        }
    }
}

impl Store for MemoryStore {
    type Ledger = Memory;

    async fn open(&self) -> Memory {
        if self.opened.swap(true, Ordering::Relaxed) {
            self.ahead.fetch_add(120_000, Ordering::Relaxed);
        }
        self.ledger.another()
    }
}

impl Store for RedisStore {
    type Ledger = Redis;

    async fn open(&self) -> Redis {
        self.expire_claims().await;
        self.ledger().await
    }
}

pub fn id() -> CampaignId {
    "c1".parse().unwrap()
}

fn new_campaign() -> NewCampaign {
    NewCampaign {
        id: id(),
        named: true,
        name: Some("a campaign".into()),
        again: true,
        account: "main".into(),
        fingerprint: "f1".into(),
        job: "{}".into(),
        columns: vec!["phone".into(), "name".into()],
        audience: "a1".into(),
        rows: 1000,
        batch_size: 100,
        rehearsal: false,
        created_by: "asha".into(),
    }
}

pub fn batch(number: u32, size: u64) -> PlannedBatch {
    let first = u64::from(number) * size + 1;
    let recipient = |row: u64| (row, format!("+91{}", 9_800_000_000 + row).parse().unwrap());
    PlannedBatch { campaign: id(), number, recipients: (first..first + size).map(recipient).collect() }
}

/// Returns the indexes of all messages of a batch.
fn all_messages(size: u8) -> Vec<u8> {
    (0..size).collect()
}

fn accepted(sid: &str) -> Outcome {
    Outcome::Accepted { sid: sid.into() }
}

fn rejected(code: &str, detail: &str) -> Outcome {
    Outcome::Rejected { code: code.into(), detail: detail.into() }
}

fn in_doubt() -> Outcome {
    Outcome::InDoubt(Doubt { cause: DoubtCause::NoResponse, detail: "no answer within 7 s".into() })
}

/// Registers a campaign.
pub async fn register_campaign(ledger: &impl Ledger) -> Campaign {
    ledger.register(new_campaign()).await.unwrap().0
}

/// Registers a campaign and sets it to running.
async fn register_running(ledger: &impl Ledger) {
    register_campaign(ledger).await;
    transitions::change_state(ledger, &id(), CampaignState::Running, None).await.unwrap();
}

async fn claim(ledger: &impl Ledger, batch: PlannedBatch, messages: Vec<u8>) -> Claim {
    let claim = claims::claim(ledger, batch, messages, ClaimPurpose::Send).await.unwrap();
    assert!(claim.running);
    claim
}

async fn record(ledger: &impl Ledger, claim: &Claim, batch: u32, outcomes: Vec<(u8, Outcome)>) -> u64 {
    let outcomes = outcomes.into_iter().map(RecordOutcome::from).collect();
    claims::record(ledger, &id(), batch, claim.token, outcomes).await.unwrap()
}

/// Returns the campaign and checks that its counts add up.
pub async fn read_campaign(ledger: &impl Ledger) -> Campaign {
    let campaign = ledger.campaign(&id()).await.unwrap().unwrap();
    let counts = &campaign.counts;
    let sum = counts.pending
        + counts.sending
        + counts.accepted
        + counts.rejected
        + counts.in_doubt
        + counts.skipped;
    assert_eq!(counts.total, sum);
    campaign
}

/// Returns the counts in the order `pending sending accepted rejected in_doubt skipped`.
async fn counts(ledger: &impl Ledger) -> [u64; 6] {
    let counts = read_campaign(ledger).await.counts;
    [counts.pending, counts.sending, counts.accepted, counts.rejected, counts.in_doubt, counts.skipped]
}

pub async fn report(ledger: &impl Ledger) -> Vec<ReportLine> {
    let (mut lines, mut cursor) = (Vec::new(), Some(Cursor::default()));
    while let Some(from) = cursor {
        let page = report_page(ledger, &id(), from).await.unwrap();
        lines.extend(page.lines);
        cursor = page.next;
    }
    lines
}

async fn a_campaign_is_registered_once(store: impl Store) {
    let ledger = store.open().await;
    let first = register_campaign(&ledger).await;
    assert_eq!((first.state, first.batch_size), (CampaignState::Scheduled, 100));
    // Later limits do not change the batch size.
    let repeated = ledger.register(NewCampaign { batch_size: 7, ..new_campaign() }).await.unwrap();
    assert_eq!(repeated, (first, false));
    assert_eq!(listing::all(&ledger).await.unwrap().len(), 1);
    assert_eq!(ledger.campaign(&"other".parse().unwrap()).await.unwrap(), None);
}

async fn the_same_id_with_other_content_is_refused(store: impl Store) {
    let ledger = store.open().await;
    register_campaign(&ledger).await;
    let other = ledger.register(NewCampaign { fingerprint: "f2".into(), ..new_campaign() }).await;
    assert!(matches!(other, Err(LedgerError::OtherContent(_))));
}

async fn a_repeated_job_without_an_id_is_the_same_campaign(store: impl Store) {
    let ledger = store.open().await;
    let unnamed = |id: &str, fingerprint: &str| NewCampaign {
        id: id.parse().unwrap(),
        named: false,
        fingerprint: fingerprint.into(),
        ..new_campaign()
    };
    assert_eq!(ledger.register(unnamed("u1", "f1")).await.unwrap().0.id.as_str(), "u1");
    assert_eq!(ledger.register(unnamed("u2", "f1")).await.unwrap().0.id.as_str(), "u1");
    assert_eq!(ledger.register(unnamed("u3", "f2")).await.unwrap().0.id.as_str(), "u3");
}

async fn the_real_campaign_replaces_its_rehearsal_and_not_the_other_way_round(store: impl Store) {
    let ledger = store.open().await;
    let rehearsal = || NewCampaign { rehearsal: true, ..new_campaign() };
    ledger.register(rehearsal()).await.unwrap();
    transitions::change_state(&ledger, &id(), CampaignState::Running, None).await.unwrap();
    claims::claim(&ledger, batch(0, 3), all_messages(3), ClaimPurpose::Send).await.unwrap();
    assert_eq!(counts(&ledger).await, [0, 3, 0, 0, 0, 0]);
    let real = register_campaign(&ledger).await;
    assert!(!real.rehearsal);
    assert_eq!(real.counts.total, 0);
    assert_eq!(report(&ledger).await, []);
    assert!(matches!(ledger.register(rehearsal()).await, Err(LedgerError::NotARehearsal(_))));
}

fn account_breaker() -> Breaker {
    Breaker::account("main")
}

async fn a_campaign_behind_an_open_breaker_is_held_and_only_a_probe_claims(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let flow = Breaker::flow("main", "13 :{x} 23");
    for breaker in [account_breaker(), flow] {
        transitions::suspend(&ledger, &id(), &breaker, text_reason("no money")).await.unwrap();
        let held = read_campaign(&ledger).await;
        assert_eq!((held.state, held.reason), (CampaignState::Held, Some(text_reason("no money"))));
        assert_eq!(held.suspended_by, Some(breaker));
        let refused = claims::claim(&ledger, batch(0, 3), vec![0], ClaimPurpose::Send).await.unwrap();
        assert!(!refused.running && refused.messages.is_empty());
        let probe = claims::claim(&ledger, batch(0, 3), vec![0], ClaimPurpose::Probe).await.unwrap();
        assert_eq!((probe.running, &probe.messages[..]), (true, &[0_u8][..]));
        record(&ledger, &probe, 0, vec![(0, Outcome::Released)]).await;
        transitions::change_state(&ledger, &id(), CampaignState::Running, None).await.unwrap();
        assert_eq!(read_campaign(&ledger).await.suspended_by, None);
    }
    // An operator's pause and any other hold get no probe, and a breaker does not change them.
    for state in [CampaignState::Paused, CampaignState::Held] {
        transitions::change_state(&ledger, &id(), state, Some(text_reason("so"))).await.unwrap();
        assert!(!claims::claim(&ledger, batch(0, 3), vec![0], ClaimPurpose::Probe).await.unwrap().running);
        transitions::suspend(&ledger, &id(), &account_breaker(), text_reason("no money")).await.unwrap();
        assert_eq!(
            (read_campaign(&ledger).await.state, read_campaign(&ledger).await.suspended_by),
            (state, None)
        );
    }
}

async fn a_breaker_is_open_until_it_is_closed_and_others_stay_closed(store: impl Store) {
    let ledger = store.open().await;
    let breaker = account_breaker();
    assert_eq!(ledger.breaker(&breaker).await.unwrap(), None);
    assert!(!ledger.close_breaker(&breaker).await.unwrap());
    assert!(ledger.open_breaker(&breaker, "no money".into(), true).await.unwrap());
    assert!(!ledger.open_breaker(&breaker, "still none".into(), true).await.unwrap());
    let opened = ledger.breaker(&breaker).await.unwrap().unwrap();
    assert_eq!((opened.reason.as_str(), opened.probe_is_due), ("still none", false));
    let wait = opened.probe_at.unwrap().duration_since(opened.since);
    assert!((wait.as_millis() - FIRST_PROBE.as_millis().cast_signed()).abs() < 50, "{wait:?}");
    assert!(opened.since.duration_since(jiff::Timestamp::now()).as_secs().abs() < 60);
    for other in [Breaker::account("other"), Breaker::flow("main", "f")] {
        assert_eq!(ledger.breaker(&other).await.unwrap(), None);
    }
    drop(ledger);
    let ledger = store.open().await;
    assert!(ledger.breaker(&breaker).await.unwrap().is_some(), "a breaker must outlive its process");
    assert!(ledger.close_breaker(&breaker).await.unwrap());
    assert_eq!(ledger.breaker(&breaker).await.unwrap(), None);
}

async fn a_probe_is_due_after_a_delay_and_granted_to_one_caller(store: impl Store) {
    let ledger = store.open().await;
    let (breaker, blocked) = (account_breaker(), Breaker::flow("main", "f"));
    ledger.open_breaker(&breaker, "no money".into(), true).await.unwrap();
    ledger.open_breaker(&blocked, "blocked".into(), false).await.unwrap();
    assert!(!ledger.half_open(&breaker).await.unwrap(), "the first probe must not be due immediately");
    let start = std::time::Instant::now();
    while !ledger.breaker(&breaker).await.unwrap().unwrap().probe_is_due {
        assert!(start.elapsed() < FIRST_PROBE * 4);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(start.elapsed() + std::time::Duration::from_millis(100) >= FIRST_PROBE);
    let mut granted = 0;
    for _ in 0..5 {
        granted += u32::from(ledger.half_open(&breaker).await.unwrap());
    }
    assert_eq!(granted, 1, "the next probe must be due after a longer delay");
    // A breaker that cannot close by waiting is never probed automatically.
    let never = ledger.breaker(&blocked).await.unwrap().unwrap();
    assert_eq!((never.probe_at, never.probe_is_due), (None, false));
    assert!(!ledger.half_open(&blocked).await.unwrap());
}

async fn a_notice_is_kept_until_it_is_cleared_and_is_not_a_breaker(store: impl Store) {
    let ledger = store.open().await;
    let about = NoticeSubject::Template("of fer :{x}".into());
    let paused = Notice { about: about.clone(), event: "paused".into(), detail: "low \"quality\"".into() };
    assert_eq!(ledger.notice("main", &about).await.unwrap(), None);
    ledger.clear_notice("main", &about).await.unwrap();
    ledger.store_notice("main", &paused).await.unwrap();
    let stored = ledger.notice("main", &about).await.unwrap().unwrap();
    assert_eq!(stored.notice, KeptNotice::Notice(paused.clone()));
    assert!(stored.since.duration_since(jiff::Timestamp::now()).as_secs().abs() < 60);
    let number = NoticeSubject::Number("912248931479".into());
    for (account, other) in [("main", &number), ("other", &about)] {
        assert_eq!(ledger.notice(account, other).await.unwrap(), None);
    }
    for flow in ["of fer :{x}", "(notice) template of fer :{x}"] {
        assert_eq!(ledger.breaker(&Breaker::flow("main", flow)).await.unwrap(), None);
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    ledger.store_notice("main", &paused).await.unwrap();
    assert_eq!(
        ledger.notice("main", &about).await.unwrap(),
        Some(stored.clone()),
        "a repeated notice must keep its time"
    );
    drop(ledger);
    let ledger = store.open().await;
    assert_eq!(
        ledger.notice("main", &about).await.unwrap(),
        Some(stored.clone()),
        "a notice must outlive its process"
    );
    let disabled = Notice { event: "disabled".into(), detail: String::new(), ..paused };
    ledger.store_notice("main", &disabled).await.unwrap();
    let later = ledger.notice("main", &about).await.unwrap().unwrap();
    assert_eq!(later.notice, KeptNotice::Notice(disabled));
    assert!(later.since > stored.since);
    ledger.clear_notice("main", &about).await.unwrap();
    assert_eq!(ledger.notice("main", &about).await.unwrap(), None);
}

async fn rejections_forgiven_by_a_resume_are_stored(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    assert_eq!(read_campaign(&ledger).await.forgiven, (0, 0));
    let claimed = claim(&ledger, batch(0, 3), all_messages(3)).await;
    let outcomes = vec![(0, rejected("400", "x")), (1, accepted("s")), (2, in_doubt())];
    record(&ledger, &claimed, 0, outcomes).await;
    // A new reason of a running campaign is not a resume.
    transitions::change_state(&ledger, &id(), CampaignState::Running, None).await.unwrap();
    assert_eq!(read_campaign(&ledger).await.forgiven, (0, 0));
    transitions::change_state(&ledger, &id(), CampaignState::Held, Some(text_reason("too many")))
        .await
        .unwrap();
    transitions::change_state(&ledger, &id(), CampaignState::Running, None).await.unwrap();
    assert_eq!(read_campaign(&ledger).await.forgiven, (1, 3));
}

async fn a_message_is_claimed_by_only_one_caller(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    assert_eq!(claim(&ledger, batch(0, 4), vec![0, 1]).await.messages, [0, 1]);
    assert_eq!(claim(&ledger, batch(0, 4), all_messages(4)).await.messages, [2, 3]);
    assert_eq!(claim(&ledger, batch(0, 4), all_messages(4)).await.messages, [0_u8; 0]);
    assert_eq!(claim(&ledger, batch(1, 4), vec![9]).await.messages, [0_u8; 0]);
    assert_eq!(counts(&ledger).await, [4, 4, 0, 0, 0, 0]);
}

async fn concurrent_callers_claim_each_message_once(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let mut granted = Vec::new();
                for number in 0..20 {
                    let claimed = claim(&ledger, batch(number, 50), all_messages(50)).await.messages;
                    granted.extend(claimed.into_iter().map(|index| (number, index)));
                }
                granted
            })
        })
        .collect();
    let mut granted = Vec::new();
    for caller in callers {
        granted.extend(caller.await.unwrap());
    }
    granted.sort_unstable();
    let expected: Vec<(u32, u8)> =
        (0..20).flat_map(|number| (0..50).map(move |index| (number, index))).collect();
    assert_eq!(granted, expected);
}

async fn outcomes_are_recorded_and_counted(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 6), all_messages(6)).await;
    let outcomes = vec![
        (0, accepted("s0")),
        (1, rejected("400", "bad number")),
        (2, rejected("400", "worse number")),
        (3, in_doubt()),
        (4, Outcome::Released),
    ];
    record(&ledger, &claimed, 0, outcomes).await;
    assert_eq!(counts(&ledger).await, [1, 1, 1, 2, 1, 0]);
    let campaign = read_campaign(&ledger).await;
    assert_eq!(campaign.rejected["400"], 2);
    assert_eq!(campaign.texts["400"], "bad number");
    let lines = report(&ledger).await;
    let shown: Vec<_> = lines.iter().map(|line| (line.row, line.state, line.attempts)).collect();
    assert_eq!(
        shown,
        [
            (1, Accepted, 1),
            (2, Rejected, 1),
            (3, Rejected, 1),
            (4, InDoubt, 1),
            (5, Pending, 1),
            (6, Sending, 1)
        ]
    );
    assert_eq!((lines[0].sid.as_deref(), lines[0].recipient.as_str()), (Some("s0"), "+919800000001"));
    assert_eq!((lines[1].code.as_deref(), lines[1].detail.as_deref()), (Some("400"), Some("bad number")));
    // Only the cause of a doubt is kept, because the details may differ for each message.
    let (code, detail) = (lines[3].code.as_deref(), lines[3].detail.as_deref());
    assert_eq!((code, detail), (None, Some("the provider did not respond in time")));
    let texts = ledger.texts(&id()).await.unwrap();
    assert!(texts.contains_key(&("in_doubt".into(), "no_response".into())), "{texts:?}");
}

async fn an_outcome_is_recorded_even_if_another_claim_was_granted_nothing(store: impl Store) {
    let ledger = &store.open().await;
    register_running(ledger).await;
    let writer = BatchWriter::new(ledger, batch(0, 3));
    let first = writer.claim(vec![0, 1], ClaimPurpose::Send).await.unwrap();
    // Another claim of the same message makes the writer forget what it knew of the batch.
    let second = writer.claim(vec![0], ClaimPurpose::Send).await.unwrap();
    assert_eq!((first.messages.len(), second.messages.len()), (2, 0));
    writer.record(first.token, vec![(0, accepted("s0")).into()]).await.unwrap();
    assert_eq!(counts(ledger).await, [1, 1, 1, 0, 0, 0]);
    writer.record(first.token, vec![(0, accepted("s0")).into()]).await.unwrap();
    writer.record(first.token, vec![(1, accepted("s1")).into()]).await.unwrap();
    assert_eq!(counts(ledger).await, [1, 0, 2, 0, 0, 0]);
}

async fn requests_claimed_together_settle_only_their_own_messages(store: impl Store) {
    {
        let ledger = &store.open().await;
        register_running(ledger).await;
        let writer = &BatchWriter::new(ledger, batch(0, 20));
        let pending_claims =
            all_messages(20).into_iter().map(|message| writer.claim(vec![message], ClaimPurpose::Send));
        let claims = try_join_all(pending_claims).await.unwrap();
        let granted: Vec<u8> = claims.iter().flat_map(|claim| claim.messages.clone()).collect();
        assert_eq!(granted, all_messages(20));
        let tokens: BTreeSet<u64> = claims.iter().map(|claim| claim.token).collect();
        assert!(tokens.len() <= 2, "the claims must be written together: {tokens:?}");
        let recorded = claims[..18].iter().zip(0..).map(|(claim, message)| {
            let outcome = if message == 0 { Outcome::Released } else { accepted("s") };
            writer.record(claim.token, vec![(message, outcome).into()])
        });
        try_join_all(recorded).await.unwrap();
        assert_eq!(counts(ledger).await, [1, 2, 17, 0, 0, 0]);
    }
    // Its worker has died: the recorded outcomes are kept, and only the last two messages are in doubt.
    let ledger = store.open().await;
    assert_eq!(claims::expire(&ledger, &id(), false).await.unwrap(), 2);
    assert_eq!(counts(&ledger).await, [1, 0, 17, 0, 2, 0]);
    assert_eq!(claims::expire(&ledger, &id(), false).await.unwrap(), 0);
}

async fn a_released_message_can_be_claimed_again(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 3), all_messages(3)).await;
    record(&ledger, &claimed, 0, vec![(0, accepted("s")), (1, Outcome::Released), (2, in_doubt())]).await;
    assert_eq!(claim(&ledger, batch(0, 3), all_messages(3)).await.messages, [1]);
}

async fn an_illegal_transition_changes_nothing(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 2), vec![0]).await;
    record(
        &ledger,
        &claimed,
        0,
        vec![(0, accepted("s")), (1, accepted("never sent")), (99, accepted("nobody"))],
    )
    .await;
    record(&ledger, &claimed, 0, vec![(0, rejected("500", "too late")), (0, accepted("other"))]).await;
    assert_eq!(counts(&ledger).await, [1, 0, 1, 0, 0, 0]);
    assert_eq!(report(&ledger).await[0].sid.as_deref(), Some("s"));
}

async fn a_late_response_settles_a_doubt(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 2), all_messages(2)).await;
    record(&ledger, &claimed, 0, vec![(0, in_doubt()), (1, in_doubt())]).await;
    record(&ledger, &claimed, 0, vec![(0, accepted("late")), (1, rejected("7", "late"))]).await;
    assert_eq!(counts(&ledger).await, [0, 0, 1, 1, 0, 0]);
}

async fn claims_of_a_dead_worker_become_in_doubt(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 3), all_messages(3)).await;
    record(&ledger, &claimed, 0, vec![(0, accepted("s"))]).await;
    claim(&ledger, batch(1, 3), vec![1]).await;
    drop(ledger);
    let ledger = store.open().await;
    assert_eq!(claims::expire(&ledger, &id(), false).await.unwrap(), 3);
    assert_eq!(counts(&ledger).await, [2, 0, 1, 0, 3, 0]);
    assert_eq!(claims::expire(&ledger, &id(), false).await.unwrap(), 0);
    // Messages in doubt are never claimed again automatically.
    assert_eq!(claim(&ledger, batch(0, 3), all_messages(3)).await.messages, [0_u8; 0]);
}

async fn claims_of_a_dead_worker_are_sent_again_if_the_job_says_so(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    claim(&ledger, batch(0, 3), all_messages(3)).await;
    drop(ledger);
    let ledger = store.open().await;
    assert_eq!(claims::expire(&ledger, &id(), true).await.unwrap(), 3);
    assert_eq!(claim(&ledger, batch(0, 3), all_messages(3)).await.messages, [0, 1, 2]);
}

async fn claims_of_a_live_worker_do_not_expire(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    claim(&ledger, batch(0, 3), all_messages(3)).await;
    assert_eq!(claims::expire(&ledger, &id(), false).await.unwrap(), 0);
    assert_eq!(counts(&ledger).await, [0, 3, 0, 0, 0, 0]);
}

async fn a_checkpoint_counts_everything_once(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let skipped = |row| SkippedRow {
        row,
        recipient: "12".into(),
        reason: SkipReason::InvalidNumber,
        detail: "no such number".into(),
    };
    let checkpoint = Checkpoint { batches: 2, rows: 8, digest: "d".into(), complete: true };
    // A batch may be claimed before its checkpoint is written.
    claim(&ledger, batch(1, 3), vec![0]).await;
    for _ in 0..2 {
        let batches = vec![batch(0, 3), batch(1, 3)];
        let rows = vec![skipped(7), skipped(8)];
        ledger.checkpoint(&id(), 0, checkpoint.clone(), batches, rows).await.unwrap();
    }
    assert_eq!(counts(&ledger).await, [5, 1, 0, 0, 0, 2]);
    let campaign = read_campaign(&ledger).await;
    assert!(campaign.planned);
    assert_eq!(campaign.skipped["invalid_number"], 2);
    drop(ledger);
    let ledger = store.open().await;
    let plan = ledger.plan(&id()).await.unwrap();
    assert_eq!(plan.checkpoint, checkpoint);
    assert!(plan.settled.is_empty());
}

async fn the_plan_lists_the_settled_batches(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let checkpoint = Checkpoint { batches: 3, rows: 6, digest: "d".into(), complete: true };
    let batches = (0..3).map(|number| batch(number, 2)).collect();
    ledger.checkpoint(&id(), 0, checkpoint, batches, Vec::new()).await.unwrap();
    let first = claim(&ledger, batch(0, 2), all_messages(2)).await;
    let second = claim(&ledger, batch(1, 2), all_messages(2)).await;
    claim(&ledger, batch(2, 2), all_messages(2)).await;
    record(&ledger, &first, 0, vec![(0, accepted("s")), (1, in_doubt())]).await;
    record(&ledger, &second, 1, vec![(0, accepted("s")), (1, Outcome::Released)]).await;
    assert_eq!(ledger.plan(&id()).await.unwrap().settled.iter().collect::<Vec<_>>(), [0]);
}

async fn a_batch_with_other_recipients_is_refused(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    claim(&ledger, batch(0, 2), vec![0]).await;
    let other = PlannedBatch { number: 0, ..batch(5, 2) };
    assert!(matches!(
        claims::claim(&ledger, other, all_messages(2), ClaimPurpose::Send).await,
        Err(LedgerError::OtherPlan(_, 0))
    ));
    assert_eq!(counts(&ledger).await, [1, 1, 0, 0, 0, 0]);
}

async fn an_expired_message_is_skipped_and_never_sent(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 2), Vec::new()).await;
    let expired = || Outcome::Skipped { reason: SkipReason::Expired, detail: "too late".into() };
    record(&ledger, &claimed, 0, vec![(0, expired()), (1, expired())]).await;
    assert_eq!(counts(&ledger).await, [0, 0, 0, 0, 0, 2]);
    assert_eq!(read_campaign(&ledger).await.skipped["expired"], 2);
    assert_eq!(claim(&ledger, batch(0, 2), all_messages(2)).await.messages, [0_u8; 0]);
}

async fn a_campaign_makes_only_legal_transitions(store: impl Store) {
    let ledger = store.open().await;
    register_campaign(&ledger).await;
    let to = async |state, reason: Option<&str>| {
        transitions::change_state(&ledger, &id(), state, reason.map(text_reason)).await
    };
    assert!(matches!(to(CampaignState::Completed, None).await, Err(LedgerError::IllegalMove { .. })));
    to(CampaignState::Running, None).await.unwrap();
    to(CampaignState::Running, Some("waits")).await.unwrap();
    assert_eq!(read_campaign(&ledger).await.reason, Some(text_reason("waits")));
    let started = read_campaign(&ledger).await.started_at.unwrap();
    to(CampaignState::Held, Some("why")).await.unwrap();
    to(CampaignState::Running, None).await.unwrap();
    to(CampaignState::Completed, None).await.unwrap();
    let done = read_campaign(&ledger).await;
    assert_eq!((done.started_at, done.reason), (Some(started), None));
    assert!(done.finished_at.is_some());
    let unknown =
        transitions::change_state(&ledger, &"nobody".parse().unwrap(), CampaignState::Running, None).await;
    assert!(matches!(unknown, Err(LedgerError::NoCampaign(_))));
}

async fn a_report_lists_every_row_once_and_in_order(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    // 250 batches of 3 rows, and every fourth row skipped.
    for number in 0..250_u32 {
        let first = u64::from(number) * 4 + 1;
        let recipients =
            (first..first + 3).map(|row| (row, format!("+91{}", 9_800_000_000 + row).parse().unwrap()));
        let batch = PlannedBatch { campaign: id(), number, recipients: recipients.collect() };
        let skipped = SkippedRow {
            row: first + 3,
            recipient: String::new(),
            reason: SkipReason::Duplicate,
            detail: String::new(),
        };
        let checkpoint = Checkpoint {
            batches: number + 1,
            rows: first + 3,
            digest: String::new(),
            complete: number == 249,
        };
        ledger.checkpoint(&id(), first - 1, checkpoint, vec![batch], vec![skipped]).await.unwrap();
    }
    let lines = report(&ledger).await;
    assert_eq!(lines.iter().map(|line| line.row).collect::<Vec<_>>(), (1..=1000).collect::<Vec<_>>());
    assert_eq!(lines.iter().filter(|line| line.state == MessageState::Skipped).count(), 250);
    assert_eq!(lines[4].batch, Some(1));
}

async fn two_campaigns_do_not_affect_each_other(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let other: CampaignId = "c2".parse().unwrap();
    ledger.register(NewCampaign { id: other.clone(), ..new_campaign() }).await.unwrap();
    transitions::change_state(&ledger, &other, CampaignState::Running, None).await.unwrap();
    let claimed = claim(&ledger, batch(0, 3), all_messages(3)).await;
    claim(&ledger, PlannedBatch { campaign: other.clone(), ..batch(0, 3) }, all_messages(2)).await;
    record(&ledger, &claimed, 0, vec![(0, accepted("s")), (1, accepted("s"))]).await;
    assert_eq!(counts(&ledger).await, [0, 1, 2, 0, 0, 0]);
    assert_eq!(ledger.campaign(&other).await.unwrap().unwrap().counts.sending, 2);
}

async fn a_claim_requires_a_running_campaign(store: impl Store) {
    let ledger = store.open().await;
    register_campaign(&ledger).await;
    for state in [CampaignState::Paused, CampaignState::Held, CampaignState::Cancelled] {
        let claim = claims::claim(&ledger, batch(0, 3), all_messages(3), ClaimPurpose::Send).await.unwrap();
        assert!(!claim.running && claim.messages.is_empty());
        transitions::change_state(&ledger, &id(), state, None).await.unwrap();
    }
    assert_eq!(counts(&ledger).await, [3, 0, 0, 0, 0, 0]);
    let unknown = PlannedBatch { campaign: "nobody".parse().unwrap(), ..batch(0, 3) };
    assert!(matches!(
        claims::claim(&ledger, unknown, all_messages(3), ClaimPurpose::Send).await,
        Err(LedgerError::NoCampaign(_))
    ));
}

async fn recording_returns_the_number_of_open_messages(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 3), all_messages(3)).await;
    assert_eq!(record(&ledger, &claimed, 0, vec![(0, accepted("s")), (1, in_doubt())]).await, 1);
    assert_eq!(record(&ledger, &claimed, 0, vec![(2, accepted("s"))]).await, 0);
}

async fn an_outcome_recorded_twice_counts_once(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 4), all_messages(4)).await;
    let outcomes = vec![(0, accepted("s")), (1, rejected("7", "x")), (2, in_doubt())];
    for _ in 0..2 {
        record(&ledger, &claimed, 0, outcomes.clone()).await;
    }
    assert_eq!(counts(&ledger).await, [0, 1, 1, 1, 1, 0]);
    assert_eq!(read_campaign(&ledger).await.rejected["7"], 1);
}

async fn an_overtaken_planner_changes_nothing(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let to = |batches: u32| Checkpoint {
        batches,
        rows: u64::from(batches) * 3,
        digest: batches.to_string(),
        complete: false,
    };
    ledger.checkpoint(&id(), 0, to(1), vec![batch(0, 3)], Vec::new()).await.unwrap();
    ledger.checkpoint(&id(), 3, to(2), vec![batch(1, 3)], Vec::new()).await.unwrap();
    let stale = ledger.checkpoint(&id(), 3, to(3), vec![batch(1, 3), batch(2, 3)], Vec::new()).await;
    assert!(matches!(stale, Err(LedgerError::StalePlan(_))));
    assert_eq!(ledger.plan(&id()).await.unwrap().checkpoint, to(2));
    assert_eq!(counts(&ledger).await[0], 6);
}

async fn nothing_is_planned_for_a_campaign_that_has_ended(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let to = |batches: u32| {
        let digest = batches.to_string();
        Checkpoint { batches, rows: u64::from(batches) * 3, digest, complete: false }
    };
    ledger.checkpoint(&id(), 0, to(1), vec![batch(0, 3)], Vec::new()).await.unwrap();
    transitions::change_state(&ledger, &id(), CampaignState::Cancelled, None).await.unwrap();
    // Writes that were in flight when the campaign was cancelled arrive late.
    ledger.checkpoint(&id(), 0, to(1), vec![batch(0, 3)], Vec::new()).await.unwrap();
    let late = ledger.checkpoint(&id(), 3, to(2), vec![batch(1, 3)], Vec::new()).await;
    assert!(matches!(late, Err(LedgerError::StalePlan(_))), "{late:?}");
    let claim = claims::claim(&ledger, batch(1, 3), all_messages(3), ClaimPurpose::Send).await.unwrap();
    assert_eq!((claim.messages.len(), claim.running), (0, false));
    record(&ledger, &claim, 1, vec![(0, Outcome::Released), (1, rejected("7", "x"))]).await;
    assert_eq!(counts(&ledger).await[0], 3);
    decisions::decide(&ledger, &id(), Decision::Cancel).await.unwrap();
    assert_eq!(counts(&ledger).await, [0, 0, 0, 0, 0, 3]);
    assert_eq!(read_campaign(&ledger).await.counts.total, 3);
}

async fn a_campaign_is_held_by_its_counts_whatever_the_last_outcome_was(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let stop_when = StopWhen { rejected_percent: 50, after: 4 };
    let checkpoint = Checkpoint { batches: 1, rows: 6, digest: "d".into(), complete: true };
    ledger.checkpoint(&id(), 0, checkpoint, vec![batch(0, 6)], Vec::new()).await.unwrap();
    let settle = async |messages: Vec<u8>, outcome: Outcome| {
        let claimed = claim(&ledger, batch(0, 6), messages.clone()).await;
        record(
            &ledger,
            &claimed,
            0,
            messages.into_iter().map(|message| (message, outcome.clone())).collect(),
        )
        .await;
    };
    settle(vec![0, 1], rejected("500", "x")).await;
    assert!(
        !transitions::judge(&ledger, &id(), stop_when).await.unwrap(),
        "two settled messages must be too few"
    );
    settle(vec![2, 3], accepted("s")).await;
    assert!(transitions::judge(&ledger, &id(), stop_when).await.unwrap());
    let campaign = read_campaign(&ledger).await;
    assert_eq!(campaign.state, CampaignState::Held);
    assert_eq!(campaign.reason, Some(Reason::TooManyRejected { rejected: 2, settled: 4, limit: 50 }));
    assert!(
        !transitions::judge(&ledger, &id(), stop_when).await.unwrap(),
        "a held campaign must not be held again"
    );
    // A resume forgives these rejections.
    transitions::change_state(&ledger, &id(), CampaignState::Running, None).await.unwrap();
    settle(vec![4, 5], rejected("500", "x")).await;
    assert!(!transitions::judge(&ledger, &id(), stop_when).await.unwrap());
    // A campaign over its limit is held instead of completed.
    let strict = StopWhen { rejected_percent: 50, after: 2 };
    assert!(!transitions::complete(&ledger, &id(), Some(strict)).await.unwrap());
    assert_eq!(read_campaign(&ledger).await.state, CampaignState::Held);
}

async fn unplanned_rows_are_counted_once_when_nothing_more_is_sent(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let rows = read_campaign(&ledger).await.rows;
    let checkpoint = Checkpoint { batches: 1, rows: 2, digest: "d".into(), complete: false };
    ledger.checkpoint(&id(), 0, checkpoint, vec![batch(0, 2)], Vec::new()).await.unwrap();
    let claimed = claim(&ledger, batch(0, 2), all_messages(1)).await;
    transitions::change_state(&ledger, &id(), CampaignState::Cancelled, None).await.unwrap();
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Cancel).await.unwrap(), 1);
    // The plan has moved on since it was read.
    let stale = PlannedSoFar { rows: 1, batches: 1 };
    assert!(!ledger.count_unplanned(&id(), stale, 5, SkipReason::Cancelled).await.unwrap());
    assert_eq!(skip_unplanned(&ledger, &id(), SkipReason::Cancelled).await.unwrap(), rows - 2);
    assert_eq!(skip_unplanned(&ledger, &id(), SkipReason::Cancelled).await.unwrap(), 0);
    record(&ledger, &claimed, 0, vec![(0, accepted("s"))]).await;
    let campaign = read_campaign(&ledger).await;
    assert!(campaign.planned);
    assert_eq!((campaign.counts.total, campaign.counts.accepted), (rows, 1));
    assert_eq!(campaign.skipped["cancelled"], rows - 1);
}

async fn a_paused_campaign_with_nothing_left_to_send_can_be_completed(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let checkpoint = Checkpoint { batches: 1, rows: 2, digest: "d".into(), complete: false };
    ledger.checkpoint(&id(), 0, checkpoint, vec![batch(0, 2)], Vec::new()).await.unwrap();
    let claimed = claim(&ledger, batch(0, 2), all_messages(1)).await;
    transitions::change_state(&ledger, &id(), CampaignState::Paused, None).await.unwrap();
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Expire).await.unwrap(), 1);
    skip_unplanned(&ledger, &id(), SkipReason::Expired).await.unwrap();
    assert!(
        !transitions::complete_expired(&ledger, &id()).await.unwrap(),
        "a campaign with a message in flight must not complete"
    );
    record(&ledger, &claimed, 0, vec![(0, accepted("s"))]).await;
    assert!(transitions::complete_expired(&ledger, &id()).await.unwrap());
    let campaign = read_campaign(&ledger).await;
    assert_eq!((campaign.state, campaign.counts.total), (CampaignState::Completed, campaign.rows));
    assert_eq!(campaign.skipped["expired"], campaign.rows - 1);
}

async fn a_campaign_completes_only_when_its_counts_add_up(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    assert!(
        !transitions::complete(&ledger, &id(), None).await.unwrap(),
        "an unplanned campaign must not complete"
    );
    let checkpoint = Checkpoint { batches: 1, rows: 2, digest: "d".into(), complete: true };
    ledger.checkpoint(&id(), 0, checkpoint, vec![batch(0, 2)], Vec::new()).await.unwrap();
    assert!(
        !transitions::complete(&ledger, &id(), None).await.unwrap(),
        "a campaign with pending messages must not complete"
    );
    let claimed = claim(&ledger, batch(0, 2), all_messages(2)).await;
    assert!(
        !transitions::complete(&ledger, &id(), None).await.unwrap(),
        "a campaign with messages in flight must not complete"
    );
    record(&ledger, &claimed, 0, vec![(0, accepted("s")), (1, in_doubt())]).await;
    transitions::change_state(&ledger, &id(), CampaignState::Paused, None).await.unwrap();
    assert!(
        !transitions::complete(&ledger, &id(), None).await.unwrap(),
        "a paused campaign must not complete"
    );
    transitions::change_state(&ledger, &id(), CampaignState::Running, None).await.unwrap();
    assert!(transitions::complete(&ledger, &id(), None).await.unwrap());
    let campaign = read_campaign(&ledger).await;
    assert_eq!(campaign.state, CampaignState::Completed);
    assert!(campaign.finished_at.is_some());
}

async fn a_note_does_not_start_a_paused_campaign(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    transitions::set_reason(&ledger, &id(), Some(text_reason("waits for its limits"))).await.unwrap();
    assert_eq!(read_campaign(&ledger).await.reason, Some(text_reason("waits for its limits")));
    transitions::change_state(&ledger, &id(), CampaignState::Paused, Some(text_reason("by a person")))
        .await
        .unwrap();
    transitions::set_reason(&ledger, &id(), None).await.unwrap();
    let campaign = read_campaign(&ledger).await;
    assert_eq!((campaign.state, campaign.reason), (CampaignState::Paused, Some(text_reason("by a person"))));
}

async fn a_campaign_is_active_until_its_end_is_published(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let active = async || ledger.changes(0).await.unwrap().ids;
    assert_eq!(active().await, [id()]);
    transitions::change_state(&ledger, &id(), CampaignState::Cancelled, None).await.unwrap();
    ledger.published(&id(), CampaignState::Running).await.unwrap();
    assert_eq!(active().await, [id()]);
    ledger.published(&id(), CampaignState::Cancelled).await.unwrap();
    assert_eq!(active().await, []);
    assert_eq!(read_campaign(&ledger).await.published, Some(CampaignState::Cancelled));
}

async fn only_campaigns_changed_since_a_version_are_listed(store: impl Store) {
    let ledger = store.open().await;
    let before = ledger.changes(0).await.unwrap();
    assert_eq!(before.ids, []);
    register_running(&ledger).await;
    let other: CampaignId = "other".parse().unwrap();
    let new = NewCampaign { id: other.clone(), fingerprint: "f2".into(), ..new_campaign() };
    ledger.register(new).await.unwrap();
    let all = ledger.changes(before.version).await.unwrap();
    assert_eq!(all.ids.iter().collect::<BTreeSet<_>>(), BTreeSet::from([&id(), &other]));
    // A note is not a change.
    transitions::set_reason(&ledger, &id(), Some(text_reason("waits"))).await.unwrap();
    let none = ledger.changes(all.version).await.unwrap();
    assert_eq!((none.ids, none.version), (vec![], all.version));
    transitions::change_state(&ledger, &id(), CampaignState::Paused, None).await.unwrap();
    let paused = ledger.changes(all.version).await.unwrap();
    assert_eq!(paused.ids, [id()]);
    ledger.touch(&other).await.unwrap();
    assert_eq!(ledger.changes(paused.version).await.unwrap().ids, [other]);
}

async fn a_worker_is_present_until_it_departs(store: impl Store) {
    let ledger = store.open().await;
    let present = ledger.present().await.unwrap();
    assert_eq!(present.len(), 1);
    assert_eq!(ledger.present().await.unwrap(), present);
    ledger.depart().await.unwrap();
    drop(ledger);
    // Another worker does not see it.
    let other = store.open().await;
    assert!(other.present().await.unwrap().is_disjoint(&present));
}

async fn a_job_is_stored_unchanged(store: impl Store) {
    let ledger = store.open().await;
    let job = r#"{"version":1,"name":"d\u00e9j\u00e0 vu"}"#;
    ledger.register(NewCampaign { job: job.into(), ..new_campaign() }).await.unwrap();
    let stored = ledger.job(&id()).await.unwrap();
    assert_eq!((stored.job.as_str(), stored.columns), (job, vec!["phone".to_string(), "name".into()]));
    assert!(matches!(ledger.job(&"nobody".parse().unwrap()).await, Err(LedgerError::NoCampaign(_))));
}

/// Registers a campaign with messages of two rejected codes, one in doubt, one pending and one accepted, with payloads.
async fn register_with_failures(ledger: &impl Ledger) {
    register_running(ledger).await;
    let checkpoint = Checkpoint { batches: 1, rows: 6, digest: "d".into(), complete: true };
    ledger.checkpoint(&id(), 0, checkpoint, vec![batch(0, 6)], Vec::new()).await.unwrap();
    let claimed = claim(ledger, batch(0, 6), vec![0, 1, 2, 3, 4]).await;
    let recorded =
        |message: u8, outcome| RecordOutcome { message, outcome, payload: Some(format!("values {message}")) };
    let outcomes = vec![
        (0, accepted("s")).into(),
        recorded(1, rejected("400", "bad")),
        recorded(2, rejected("400", "bad")),
        recorded(3, rejected("500", "worse")),
        recorded(4, in_doubt()),
    ];
    claims::record(ledger, &id(), 0, claimed.token, outcomes).await.unwrap();
    assert_eq!(counts(ledger).await, [1, 0, 1, 3, 1, 0]);
}

async fn replays_due(ledger: &impl Ledger, known: &[(u32, u64)]) -> Vec<(u32, Vec<u8>)> {
    let batches = replays::due(ledger, &id(), known.iter().copied().collect()).await.unwrap();
    batches.into_iter().map(|again| (again.batch.number, again.payloads.into_keys().collect())).collect()
}

async fn rejected_messages_are_sent_again_by_code(store: impl Store) {
    let ledger = store.open().await;
    register_with_failures(&ledger).await;
    assert_eq!(
        decisions::decide(&ledger, &id(), Decision::Retry(vec!["500".into(), "x".into()])).await.unwrap(),
        1
    );
    assert_eq!(counts(&ledger).await, [2, 0, 1, 2, 1, 0]);
    assert_eq!(read_campaign(&ledger).await.rejected, BTreeMap::from([("400".into(), 2)]));
    assert_eq!(replays_due(&ledger, &[]).await, [(0, vec![3])]);
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Retry(Vec::new())).await.unwrap(), 2);
    assert_eq!(replays_due(&ledger, &[]).await, [(0, vec![1, 2, 3])]);
    let found = replays::due(&ledger, &id(), BTreeMap::new()).await.unwrap().remove(0);
    assert_eq!(found.payloads[&3], "values 3");
    assert_eq!(found.batch, batch(0, 6));
    // A worker that has queued the batch does not get it again; others get it until nothing is open.
    assert_eq!(replays_due(&ledger, &[(0, found.since)]).await, []);
    let claimed = claim(&ledger, batch(0, 6), all_messages(6)).await;
    assert_eq!(claimed.messages, [1, 2, 3, 5]);
    let outcomes = [1, 2, 3, 5].map(|message| (message, accepted("again"))).to_vec();
    assert_eq!(record(&ledger, &claimed, 0, outcomes).await, 0);
    assert_eq!(replays_due(&ledger, &[]).await, []);
    assert_eq!(counts(&ledger).await, [0, 0, 5, 0, 1, 0]);
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Retry(Vec::new())).await.unwrap(), 0);
}

async fn the_rate_counts_a_message_as_often_as_it_is_settled(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let (start, mut settled) = (std::time::Instant::now(), 0.0);
    loop {
        let claimed = claim(&ledger, batch(0, 100), all_messages(99)).await;
        let outcomes = claimed.messages.iter().map(|message| (*message, rejected("1", "x"))).collect();
        record(&ledger, &claimed, 0, outcomes).await;
        settled += 99.0;
        // Only complete seconds are counted.
        let max = settled / (start.elapsed().as_secs_f64() - 1.0).max(1.0);
        let rate = read_campaign(&ledger).await.rate;
        assert!(rate <= max, "{rate} of {max}");
        // More than the batch's number of messages.
        if rate > 200.0 {
            return;
        }
        assert!(start.elapsed().as_secs() < 60, "{rate} of {max}");
        decisions::decide(&ledger, &id(), Decision::Retry(Vec::new())).await.unwrap();
    }
}

async fn a_retry_includes_recipients_over_the_marketing_limit_only_by_code(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 3), all_messages(3)).await;
    let outcomes = vec![(0, rejected("131049", "x")), (1, rejected("131026", "y")), (2, accepted("s"))];
    record(&ledger, &claimed, 0, outcomes).await;
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Retry(Vec::new())).await.unwrap(), 1);
    assert_eq!(read_campaign(&ledger).await.rejected, BTreeMap::from([("131049".into(), 1)]));
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Retry(vec!["131049".into()])).await.unwrap(), 1);
}

async fn an_operator_decides_about_messages_in_doubt(store: impl Store) {
    let ledger = store.open().await;
    register_with_failures(&ledger).await;
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Resend { until: i64::MAX }).await.unwrap(), 1);
    assert_eq!(counts(&ledger).await, [2, 0, 1, 3, 0, 0]);
    assert_eq!(replays_due(&ledger, &[]).await, [(0, vec![4])]);
    let claimed = claim(&ledger, batch(0, 6), vec![4]).await;
    record(&ledger, &claimed, 0, vec![(4, in_doubt())]).await;
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Abandon { until: i64::MAX }).await.unwrap(), 1);
    assert_eq!(counts(&ledger).await, [1, 0, 1, 4, 0, 0]);
    assert_eq!(read_campaign(&ledger).await.rejected[ABANDONED], 1);
    // It may have been delivered, so a retry includes it only by its code.
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Retry(Vec::new())).await.unwrap(), 3);
    assert_eq!(read_campaign(&ledger).await.rejected, BTreeMap::from([(ABANDONED.into(), 1)]));
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Retry(vec![ABANDONED.into()])).await.unwrap(), 1);
}

fn delivery_report(message: u8, state: Delivery, at: i64) -> MessageReport {
    let update = DeliveryUpdate::Delivery { state, code: Some("30016".into()), text: "no media".into() };
    MessageReport { message, sid: Some(format!("sid-{message}")), at, update }
}

fn reply_report(message: u8, id: &str, at: i64) -> MessageReport {
    let content = ReplyContent::Text("yes".into());
    let update = DeliveryUpdate::Reply(Reply { id: id.into(), content, details: BTreeMap::new() });
    MessageReport { message, sid: None, at, update }
}

/// Applies reports and returns for each whether it was new, or `None` if it proves nothing about a message.
async fn apply_reports(ledger: &impl Ledger, batch: u32, reports: Vec<MessageReport>) -> Vec<Option<bool>> {
    let applied = evidence::apply_reports(ledger, &id(), batch, reports).await.unwrap();
    applied.into_iter().map(|applied| applied.map(|applied| applied.is_news)).collect()
}

async fn reports_only_advance_a_message_and_repeated_ones_change_nothing(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 3), all_messages(3)).await;
    record(
        &ledger,
        &claimed,
        0,
        (0..3).map(|message| (message, accepted(&format!("sid-{message}")))).collect(),
    )
    .await;
    let start = jiff::Timestamp::now().as_millisecond();
    let reports = vec![
        delivery_report(0, Delivery::Read, start + 9_000),
        delivery_report(0, Delivery::Sent, start + 1_000),
        delivery_report(1, Delivery::Failed, start + 500),
        delivery_report(2, Delivery::Failed, start + 500),
    ];
    assert_eq!(apply_reports(&ledger, 0, reports.clone()).await, [Some(true); 4]);
    assert_eq!(apply_reports(&ledger, 0, reports).await, [Some(false); 4]);
    // A delivery after a failure is real: a recipient may have two devices.
    assert_eq!(
        apply_reports(&ledger, 0, vec![delivery_report(1, Delivery::Delivered, start + 700)]).await,
        [Some(true)]
    );
    assert_eq!(
        apply_reports(&ledger, 0, vec![delivery_report(1, Delivery::Sent, start + 100)]).await,
        [Some(true)]
    );
    let campaign = read_campaign(&ledger).await;
    let delivery = campaign.delivery;
    assert_eq!((delivery.sent, delivery.delivered, delivery.read, delivery.failed), (0, 1, 1, 1));
    assert_eq!(campaign.undelivered, BTreeMap::from([("30016".into(), 1)]));
    assert_eq!(campaign.texts["30016"], "no media");
    let lines = report(&ledger).await;
    let seen: Vec<_> = lines.iter().map(|line| (line.delivery.as_deref(), line.code.as_deref())).collect();
    assert_eq!(seen, [(Some("read"), None), (Some("delivered"), None), (Some("failed"), Some("30016"))]);
    assert_eq!(lines[0].sid.as_deref(), Some("sid-0"));
    // Each step is counted once, in whatever order the reports arrive.
    let total = |step: usize| campaign.took[step].0.values().sum::<u64>();
    assert_eq!([total(0), total(1), total(2), total(3)], [2, 1, 1, 0]);
}

async fn a_report_settles_a_doubt_even_before_the_response_is_recorded(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 4), all_messages(4)).await;
    let outcomes = vec![(0, in_doubt()), (1, in_doubt()), (2, rejected("400", "no"))];
    record(&ledger, &claimed, 0, outcomes).await;
    let reports = vec![
        delivery_report(0, Delivery::Delivered, 5_000),
        delivery_report(1, Delivery::Failed, 5_000),
        // A failure report proves nothing for a rejected message.
        delivery_report(2, Delivery::Failed, 5_000),
        delivery_report(3, Delivery::Sent, 5_000),
    ];
    assert_eq!(apply_reports(&ledger, 0, reports).await, [Some(true), Some(true), None, Some(true)]);
    assert_eq!(counts(&ledger).await, [0, 0, 3, 1, 0, 0]);
    // The later response changes nothing.
    record(&ledger, &claimed, 0, vec![(3, in_doubt())]).await;
    assert_eq!(counts(&ledger).await, [0, 0, 3, 1, 0, 0]);
    let sids: Vec<_> = report(&ledger).await.into_iter().map(|line| line.sid).collect();
    assert_eq!(sids, [Some("sid-0".into()), Some("sid-1".into()), None, Some("sid-3".into())]);
    assert_eq!(doubts::oldest(&ledger, &id()).await.unwrap(), None);
}

async fn a_report_prevents_a_second_send_of_a_message_that_is_to_be_sent_again(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 2), all_messages(2)).await;
    record(&ledger, &claimed, 0, vec![(0, in_doubt()), (1, in_doubt())]).await;
    let until = jiff::Timestamp::now().as_millisecond() - 3_600_000;
    assert_eq!(
        decisions::decide(&ledger, &id(), Decision::Resend { until }).await.unwrap(),
        0,
        "a recent doubt must not be sent again"
    );
    assert!(doubts::oldest(&ledger, &id()).await.unwrap().is_some());
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Resend { until: i64::MAX }).await.unwrap(), 2);
    assert_eq!(
        apply_reports(&ledger, 0, vec![delivery_report(0, Delivery::Delivered, 5_000)]).await,
        [Some(true)]
    );
    assert_eq!(claim(&ledger, batch(0, 2), all_messages(2)).await.messages, [1]);
}

async fn a_report_about_an_unsent_message_changes_nothing(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 3), vec![0]).await;
    record(&ledger, &claimed, 0, vec![(0, accepted("sid-0"))]).await;
    // A message that does not exist, and one that was never sent.
    let reports = vec![delivery_report(99, Delivery::Read, 5_000), delivery_report(1, Delivery::Read, 5_000)];
    assert_eq!(apply_reports(&ledger, 0, reports).await, [None, None]);
    assert_eq!(apply_reports(&ledger, 7, vec![delivery_report(0, Delivery::Read, 5_000)]).await, [None]);
    let other = "other".parse().unwrap();
    assert_eq!(
        evidence::apply_reports(&ledger, &other, 0, vec![delivery_report(0, Delivery::Read, 5_000)])
            .await
            .unwrap(),
        [None]
    );
    assert_eq!(counts(&ledger).await, [2, 0, 1, 0, 0, 0]);
    assert_eq!(read_campaign(&ledger).await.delivery, flowcast::ledger::DeliveryCounts::default());
}

async fn messages_that_a_throttled_flow_did_not_deliver_are_sent_again_by_code(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 4), all_messages(4)).await;
    let outcomes = (0..4).map(|message| (message, accepted(&format!("sid-{message}")))).collect();
    record(&ledger, &claimed, 0, outcomes).await;
    let failed = |message: u8, code: &str| {
        let update =
            DeliveryUpdate::Delivery { state: Delivery::Failed, code: Some(code.into()), text: "why".into() };
        MessageReport { message, sid: None, at: 5_000, update }
    };
    let delivered = delivery_report(3, Delivery::Delivered, 6_000);
    let reports =
        vec![failed(0, "132069"), failed(1, "132069"), failed(2, "131026"), failed(3, "132069"), delivered];
    apply_reports(&ledger, 0, reports).await;
    // No other code includes accepted messages, and neither does a retry without a code.
    for codes in [vec![], vec!["131026".into()], vec!["500".into()]] {
        assert_eq!(decisions::decide(&ledger, &id(), Decision::Retry(codes)).await.unwrap(), 0);
    }
    let retry = || Decision::Retry(vec!["132069".into(), "131026".into()]);
    assert_eq!(decisions::decide(&ledger, &id(), retry()).await.unwrap(), 2);
    assert_eq!(decisions::decide(&ledger, &id(), retry()).await.unwrap(), 0);
    assert_eq!(counts(&ledger).await, [2, 0, 2, 0, 0, 0]);
    let delivery = read_campaign(&ledger).await.delivery;
    assert_eq!((delivery.failed, delivery.delivered), (1, 1));
    assert_eq!(read_campaign(&ledger).await.undelivered, BTreeMap::from([("131026".into(), 1)]));
    let lines = report(&ledger).await;
    assert_eq!((lines[0].sid.as_deref(), lines[0].delivery.as_deref()), (None, None));
    // A repeated report says why they are sent again; it does not prove that they were.
    assert_eq!(apply_reports(&ledger, 0, vec![failed(0, "132069")]).await, [None]);
    assert_eq!(counts(&ledger).await, [2, 0, 2, 0, 0, 0]);
    // They are sent again, and only the new results are kept.
    let claimed = claim(&ledger, batch(0, 4), all_messages(4)).await;
    assert_eq!(claimed.messages, [0, 1]);
    record(&ledger, &claimed, 0, vec![(0, accepted("again")), (1, accepted("again"))]).await;
    apply_reports(&ledger, 0, vec![delivery_report(0, Delivery::Delivered, 9_000)]).await;
    let lines = report(&ledger).await;
    assert_eq!((lines[0].sid.as_deref(), lines[0].delivery.as_deref()), (Some("again"), Some("delivered")));
    assert_eq!(lines[0].attempts, 2);
}

async fn a_reply_finds_its_message_by_its_sid_or_by_its_number(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 4), vec![0, 1, 2]).await;
    let recipients: Vec<(Phone, u8)> =
        batch(0, 4).recipients.iter().zip(0..).map(|((_, phone), message)| (*phone, message)).collect();
    let hour = Duration::from_hours(1);
    // Noted twice, they are found once.
    for _ in 0..2 {
        ledger.note_sent("main", hour, &id(), 0, &recipients).await.unwrap();
    }
    record(&ledger, &claimed, 0, vec![(0, accepted("sid-0")), (1, in_doubt()), (2, rejected("400", "no"))])
        .await;
    let find =
        async |account: &str, within: Duration, message: usize, sid: Option<&'static str>, is_form: bool| {
            let target = ReplyTarget { phone: recipients[message].0, sid, is_form };
            let found = replies::find_message(&ledger, account, within, target, |_| async { Ok(true) })
                .await
                .unwrap();
            found.map(|message| message.to_string())
        };
    let first = Some("c1.0.0".to_owned());
    assert_eq!(find("main", hour, 0, None, false).await, first);
    assert_eq!(find("main", hour, 0, Some("sid-0"), false).await, first);
    // A text that replies to another message is ignored; a form is kept anyway.
    assert_eq!(find("main", hour, 0, Some("other"), false).await, None);
    assert_eq!(find("main", hour, 0, Some("other"), true).await, first);
    // A message in doubt has no SID, and a reply settles it; a rejected or unsent message cannot have a reply.
    assert_eq!(find("main", hour, 1, Some("any"), false).await, Some("c1.0.1".into()));
    assert_eq!(find("main", hour, 2, None, false).await, None);
    assert_eq!(find("main", hour, 3, None, false).await, None);
    assert_eq!(find("another", hour, 0, None, false).await, None);
    // Of two campaigns, the most recent one that is allowed is found.
    let other: CampaignId = "c2".parse().unwrap();
    ledger.register(NewCampaign { id: other.clone(), ..new_campaign() }).await.unwrap();
    transitions::change_state(&ledger, &other, CampaignState::Running, None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let other_batch = PlannedBatch { campaign: other.clone(), ..batch(0, 4) };
    let claimed = claim(&ledger, other_batch, vec![0]).await;
    ledger.note_sent("main", hour, &other, 0, &recipients[..1]).await.unwrap();
    let outcomes = vec![RecordOutcome::from((0, accepted("sid-9")))];
    claims::record(&ledger, &other, 0, claimed.token, outcomes).await.unwrap();
    assert_eq!(find("main", hour, 0, None, false).await, Some("c2.0.0".into()));
    assert_eq!(find("main", hour, 0, Some("sid-0"), false).await, first);
    let target = ReplyTarget { phone: recipients[0].0, sid: None, is_form: false };
    let allowed =
        replies::find_message(&ledger, "main", hour, target, async |id: CampaignId| Ok(id.as_str() == "c1"))
            .await;
    assert_eq!(allowed.unwrap().map(|message| message.to_string()), first);
    // A message older than the period is not found.
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(find("main", Duration::from_millis(1), 0, None, false).await, None);
}

async fn the_providers_request_id_is_in_the_report(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let writer = BatchWriter::new(&ledger, batch(0, 3));
    for (message, request) in [(0, Some("r-1")), (1, Some("r-2")), (2, None)] {
        let claimed = writer.claim(vec![message], ClaimPurpose::Send).await.unwrap();
        let outcomes = vec![(message, accepted("s")).into()];
        writer.record_answer(claimed.token, outcomes, request.map(str::to_owned)).await.unwrap();
    }
    claim(&ledger, batch(1, 3), all_messages(3)).await;
    let requests: Vec<_> = report(&ledger).await.into_iter().map(|line| line.request_id).collect();
    let last = Some("r-2".to_owned());
    assert_eq!(requests, [last.clone(), last.clone(), last, None, None, None]);
}

async fn concurrent_reports_are_all_applied(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 50), all_messages(50)).await;
    record(&ledger, &claimed, 0, (0..50).map(|message| (message, accepted("s"))).collect()).await;
    let tasks: Vec<_> = [Delivery::Sent, Delivery::Delivered, Delivery::Read, Delivery::Failed]
        .into_iter()
        .map(|state| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                for first in (0..50_u8).step_by(10) {
                    apply_reports(
                        &ledger,
                        0,
                        (first..first + 10).map(|message| delivery_report(message, state, 5_000)).collect(),
                    )
                    .await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let delivery = read_campaign(&ledger).await.delivery;
    assert_eq!((delivery.read, delivery.sent + delivery.delivered + delivery.failed), (50, 0));
}

async fn a_reply_is_kept_once_and_is_new_until_its_event_is_published(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 2), all_messages(2)).await;
    record(&ledger, &claimed, 0, vec![(0, accepted("s")), (1, in_doubt())]).await;
    let reports = || vec![reply_report(1, "r1", 7_000), reply_report(0, "r2", 8_000)];
    assert_eq!(apply_reports(&ledger, 0, reports()).await, [Some(true), Some(true)]);
    assert_eq!(apply_reports(&ledger, 0, reports()).await, [Some(true), Some(true)]);
    ledger.answer_published(&id(), 0, "r1".into()).await.unwrap();
    assert_eq!(apply_reports(&ledger, 0, reports()).await, [Some(false), Some(true)]);
    assert_eq!(apply_reports(&ledger, 0, vec![reply_report(1, "r3", 9_000)]).await, [Some(true)]);
    assert_eq!(read_campaign(&ledger).await.delivery.replied, 2);
    let page = response_page(&ledger, &id(), 0).await.unwrap();
    assert_eq!(page.next, None);
    let responses = page.responses;
    let seen: Vec<_> = responses.iter().map(|response| (response.row, response.at)).collect();
    assert_eq!(seen, [(1, 8_000), (2, 7_000), (2, 9_000)]);
    assert_eq!(counts(&ledger).await, [0, 0, 2, 0, 0, 0], "a reply must prove that its message was accepted");
}

async fn the_first_of_several_reports_settles_a_doubt(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 2), all_messages(2)).await;
    record(&ledger, &claimed, 0, vec![(0, in_doubt()), (1, in_doubt())]).await;
    let reports = vec![
        delivery_report(0, Delivery::Sent, 1_000),
        delivery_report(1, Delivery::Read, 3_000),
        delivery_report(0, Delivery::Delivered, 2_000),
    ];
    let applied = evidence::apply_reports(&ledger, &id(), 0, reports).await.unwrap();
    let settled: Vec<_> =
        applied.iter().flatten().map(|applied| (applied.settled, applied.is_news)).collect();
    assert_eq!(settled, [(true, true), (true, true), (false, true)]);
    let delivery = read_campaign(&ledger).await.delivery;
    assert_eq!((delivery.sent, delivery.delivered, delivery.read), (0, 1, 1));
    assert_eq!(counts(&ledger).await, [0, 0, 2, 0, 0, 0]);
}

async fn replies_are_paged_in_the_order_of_the_audience(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    for number in [0, 99, 100, 350] {
        let claimed = claim(&ledger, batch(number, 2), all_messages(2)).await;
        record(&ledger, &claimed, number, vec![(0, accepted("s")), (1, accepted("t"))]).await;
        let reply = |message: u8| reply_report(message, &format!("r{number}.{message}"), 1_000);
        apply_reports(&ledger, number, vec![reply(1), reply(0)]).await;
    }
    let (mut seen, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let page = response_page(&ledger, &id(), from).await.unwrap();
        assert!(page.responses.len() <= 4, "a page must not have more than four replies");
        seen.extend(page.responses.iter().map(|response| (response.batch, response.message)));
        next = page.next;
    }
    assert_eq!(seen, [(0, 0), (0, 1), (99, 0), (99, 1), (100, 0), (100, 1), (350, 0), (350, 1)]);
}

async fn the_suppression_list_is_read_only_after_a_change(store: impl Store) {
    let ledger = store.open().await;
    assert!(ledger.suppressed(0).await.unwrap().is_none());
    let numbers = || vec!["+919876543210".parse().unwrap(), "+15550001".parse().unwrap()];
    assert_eq!(ledger.suppress(numbers(), Suppress::Add, None).await.unwrap(), 2);
    assert_eq!(ledger.suppress(numbers(), Suppress::Add, None).await.unwrap(), 0);
    let mut list = Suppressed::default();
    list.apply(ledger.suppressed(0).await.unwrap().unwrap());
    assert!(list.contains("+15550001".parse().unwrap()) && list.numbers.len() == 2);
    assert!(ledger.suppressed(list.version).await.unwrap().is_none());
    assert_eq!(ledger.suppress(numbers()[..1].to_vec(), Suppress::Remove, None).await.unwrap(), 1);
    // A reader of an earlier version gets only the changes.
    let update = ledger.suppressed(list.version).await.unwrap().unwrap();
    assert!(matches!(&update, SuppressionUpdate::Since { changes, .. } if changes.len() == 1));
    list.apply(update);
    assert!(list.numbers.len() == 1 && !list.contains(numbers()[0]));
    assert_eq!(ledger.suppress(numbers(), Suppress::Add, None).await.unwrap(), 1);
    list.apply(ledger.suppressed(list.version).await.unwrap().unwrap());
    assert!(list.contains(numbers()[0]));
}

async fn the_suppression_list_has_the_source_and_time_of_each_number(store: impl Store) {
    let ledger = store.open().await;
    let [one, two, three]: [Phone; 3] =
        ["+919876543210", "+15550001", "+15550002"].map(|number| number.parse().unwrap());
    let sources = async |phones: &[Phone]| {
        let opt_outs = ledger.opt_outs(phones).await.unwrap();
        opt_outs.into_iter().map(|opt_out| opt_out.map(|opt_out| opt_out.source)).collect::<Vec<_>>()
    };
    let operator = |name: &str| Some(OptOutSource::Operator(name.into()));
    let added = |source: Option<OptOutSource>| source.map(|source| OptOut { at: 1_790_000_000_123, source });
    ledger.suppress(vec![one], Suppress::Add, added(operator("Asha Rao"))).await.unwrap();
    ledger.suppress(vec![one, two], Suppress::Add, added(Some(OptOutSource::Reply))).await.unwrap();
    ledger.suppress(vec![three], Suppress::Add, None).await.unwrap();
    assert_eq!(ledger.opt_outs(&[two]).await.unwrap(), [added(Some(OptOutSource::Reply))]);
    assert_eq!(sources(&[one, two, three]).await, [operator("Asha Rao"), Some(OptOutSource::Reply), None]);
    assert_eq!(sources(&[]).await, []);
    // A number that is removed and added again has its new source.
    ledger.suppress(vec![one], Suppress::Remove, added(operator("Asha Rao"))).await.unwrap();
    assert_eq!(sources(&[one]).await, [None]);
    ledger.suppress(vec![one], Suppress::Add, added(operator("b"))).await.unwrap();
    assert_eq!(sources(&[one]).await, [operator("b")]);
}

async fn a_reader_far_behind_gets_the_whole_suppression_list(store: impl Store) {
    let ledger = store.open().await;
    let first = "+15550001".parse().unwrap();
    ledger.suppress(vec![first], Suppress::Add, None).await.unwrap();
    let mut list = Suppressed::default();
    list.apply(ledger.suppressed(0).await.unwrap().unwrap());
    ledger.suppress(vec![first], Suppress::Remove, None).await.unwrap();
    let numbers = (0..12_000_u64).map(|nth| format!("+91{}", 9_800_000_000 + nth).parse().unwrap());
    assert_eq!(ledger.suppress(numbers.collect(), Suppress::Add, None).await.unwrap(), 12_000);
    let update = ledger.suppressed(list.version).await.unwrap().unwrap();
    assert!(matches!(update, SuppressionUpdate::Whole(_)));
    list.apply(update);
    assert!(list.numbers.len() == 12_000 && !list.contains(first));
}

async fn the_callback_key_is_created_once_and_shared_by_all_workers(store: impl Store) {
    let ledger = store.open().await;
    let key = ledger.callback_key().await.unwrap();
    assert!(key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
    assert_eq!(ledger.callback_key().await.unwrap(), key);
    drop(ledger);
    assert_eq!(store.open().await.callback_key().await.unwrap(), key);
}

async fn audit_entries_are_listed_newest_first(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    for nth in 0..7 {
        let id = id();
        let campaign = (nth % 2 == 0).then_some(&id);
        ledger.log(AuditEntry::new("asha\n", "pause", campaign, &format!("act {nth}"))).await.unwrap();
    }
    let details = |page: &AuditPage| page.acts.iter().map(|act| act.detail.clone()).collect::<Vec<_>>();
    let first = ledger.acts(None, None, 3).await.unwrap();
    assert_eq!(details(&first), ["act 6", "act 5", "act 4"]);
    assert_eq!((first.acts[0].who.as_str(), first.acts[0].campaign.clone()), ("asha", Some(id())));
    // An entry added in between does not change the following pages.
    ledger.log(AuditEntry::new("asha", "upload", None, "later").to_file("a.csv")).await.unwrap();
    let later = ledger.acts(None, None, 2).await.unwrap();
    let files: Vec<_> = later.acts.iter().map(|act| act.file.as_deref()).collect();
    assert_eq!(files, [Some("a.csv"), None]);
    let second = ledger.acts(None, first.next.as_deref(), 3).await.unwrap();
    assert_eq!(details(&second), ["act 3", "act 2", "act 1"]);
    let third = ledger.acts(None, second.next.as_deref(), 3).await.unwrap();
    assert_eq!((details(&third), third.next), (vec!["act 0".to_owned()], None));
    let own = ledger.acts(Some(&id()), None, 10).await.unwrap();
    assert_eq!(
        (details(&own), own.next),
        (["act 6", "act 4", "act 2", "act 0"].map(str::to_owned).into(), None)
    );
    assert_eq!(ledger.acts(Some(&"other".parse().unwrap()), None, 10).await.unwrap(), AuditPage::default());
    drop(ledger);
    assert_eq!(store.open().await.acts(None, None, 10).await.unwrap().acts.len(), 8);
}

async fn the_series_of_a_campaign_is_kept_and_removed_with_it(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    let point = |at: i64| Point { at, accepted: at as u64, rejected: 2, in_doubt: 1 };
    assert_eq!(ledger.points(&id()).await.unwrap(), []);
    ledger.write_points(&id(), vec![point(1000)], false).await.unwrap();
    ledger.write_points(&id(), vec![point(2000), point(3000)], false).await.unwrap();
    assert_eq!(ledger.points(&id()).await.unwrap(), [point(1000), point(2000), point(3000)]);
    ledger.write_points(&id(), vec![point(1000), point(3000)], true).await.unwrap();
    drop(ledger);
    let ledger = store.open().await;
    assert_eq!(ledger.points(&id()).await.unwrap(), [point(1000), point(3000)]);
    // A sample adds a point if something has changed.
    let mut known = None;
    let counts = flowcast::ledger::Counts { accepted: 4000, ..Default::default() };
    flowcast::ledger::series::sample(&ledger, &id(), &mut known, &counts, false).await.unwrap();
    flowcast::ledger::series::sample(&ledger, &id(), &mut known, &counts, true).await.unwrap();
    let points = ledger.points(&id()).await.unwrap();
    assert_eq!(points.last().unwrap().accepted, 4000);
    assert_eq!(known.unwrap(), points);
    ledger.remove(&id()).await.unwrap();
    register_running(&ledger).await;
    assert_eq!(ledger.points(&id()).await.unwrap(), []);
}

async fn a_draft_is_kept_until_it_is_removed(store: impl Store) {
    let ledger = store.open().await;
    let name = format!("draft-{}", uuid::Uuid::now_v7());
    assert_eq!(ledger.draft(&name).await.unwrap(), None);
    ledger.keep_draft(&name, "one".into()).await.unwrap();
    ledger.keep_draft(&name, "two".into()).await.unwrap();
    drop(ledger);
    let ledger = store.open().await;
    assert_eq!(ledger.draft(&name).await.unwrap().as_deref(), Some("two"));
    let all = ledger.drafts().await.unwrap();
    assert_eq!(all.iter().filter(|(known, _)| *known == name).count(), 1);
    assert!(ledger.draft_names().await.unwrap().contains(&name));
    ledger.remove_draft(&name).await.unwrap();
    assert_eq!(ledger.draft(&name).await.unwrap(), None);
}

async fn an_ended_session_stays_ended(store: impl Store) {
    use flowcast::ledger::{Clock as _, Sessions as _};
    let ledger = store.open().await;
    let (one, other) = (uuid::Uuid::now_v7().to_string(), uuid::Uuid::now_v7().to_string());
    assert!(!ledger.is_session_ended(&one).await.unwrap());
    let later = ledger.now() + 3_600_000;
    ledger.end_session(&one, later).await.unwrap();
    ledger.end_session(&one, later).await.unwrap();
    drop(ledger);
    let ledger = store.open().await;
    assert!(ledger.is_session_ended(&one).await.unwrap());
    assert!(!ledger.is_session_ended(&other).await.unwrap());
}

async fn messages_in_doubt_are_found_among_all_messages(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    for number in 0..3 {
        let claim = claim(&ledger, batch(number, 2), all_messages(2)).await;
        let outcomes =
            if number == 1 { [in_doubt(), accepted("s")] } else { [accepted("s"), rejected("1", "x")] };
        record(&ledger, &claim, number, (0..2).zip(outcomes).collect()).await;
    }
    let found = doubts::first(&ledger, &id(), 10).await.unwrap();
    assert_eq!(found.iter().map(|line| (line.row, line.state)).collect::<Vec<_>>(), [(3, InDoubt)]);
    assert_eq!(found[0].detail.as_deref(), Some("the provider did not respond in time"));
    assert!(found[0].updated_at.is_some());
    assert_eq!(doubts::first(&ledger, &id(), 0).await.unwrap(), []);
}

async fn pages_of_the_campaign_list_stay_consistent(store: impl Store) {
    let ledger = store.open().await;
    let register = |nth: u32| {
        let id = format!("n{nth:03}").parse().unwrap();
        let name = nth.is_multiple_of(10).then(|| format!("Reminder {nth}"));
        let account = if nth < 5 { "other" } else { "main" }.into();
        NewCampaign { id, name, account, ..new_campaign() }
    };
    for nth in 0..150 {
        ledger.register(register(nth)).await.unwrap();
    }
    let all = CampaignFilter::default();
    let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = listing::page(&ledger, &all, cursor.as_deref(), 40).await.unwrap();
        seen.extend(page.campaigns.into_iter().map(|campaign| campaign.id.to_string()));
        pages += 1;
        // A campaign is added and one removed between two pages.
        ledger.register(register(500 + pages)).await.unwrap();
        if pages == 2 {
            ledger.remove(&seen.last().unwrap().parse().unwrap()).await.unwrap();
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    // After the last campaign of a page was removed, others of the same millisecond may be listed again, as may one that was
    // added in it; no campaign is skipped.
    let distinct = seen.iter().filter(|id| id.as_str() < "n500").collect::<BTreeSet<_>>().len();
    assert_eq!(distinct, 150);
    assert!(pages >= 4, "{pages}");
    let found = async |filter: CampaignFilter| {
        let page = listing::page(&ledger, &filter, None, 200).await.unwrap();
        assert_eq!(page.next, None);
        page.campaigns.len()
    };
    let text = |text: &str| CampaignFilter { text: Some(text.into()), ..CampaignFilter::default() };
    let campaigns = listing::all(&ledger).await.unwrap();
    let named = campaigns.iter().filter(|campaign| campaign.name.as_deref() != Some("a campaign"));
    let named = named.filter(|campaign| campaign.name.is_some()).count();
    assert!(named >= 14);
    assert_eq!(found(text("reminder")).await, named);
    assert_eq!(found(text("N00")).await, 10);
    assert_eq!(found(CampaignFilter { account: Some("other".into()), ..all.clone() }).await, 5);
    let completed = CampaignFilter { state: Some(CampaignState::Completed), ..all.clone() };
    assert_eq!(found(completed).await, 0);
    for invalid in ["", "x", "1.", "x.n001", "1.a b"] {
        assert!(
            matches!(listing::page(&ledger, &all, Some(invalid), 1).await, Err(LedgerError::NoPlace)),
            "{invalid:?}"
        );
    }
}

async fn a_cancelled_campaign_skips_its_pending_messages(store: impl Store) {
    let ledger = store.open().await;
    register_with_failures(&ledger).await;
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Cancel).await.unwrap(), 1);
    assert_eq!(counts(&ledger).await, [0, 0, 1, 3, 1, 1]);
    assert_eq!(read_campaign(&ledger).await.skipped["cancelled"], 1);
    let lines = report(&ledger).await;
    assert_eq!((lines[5].code.as_deref(), lines[5].state), (Some("cancelled"), MessageState::Skipped));
}

async fn a_removed_campaign_leaves_nothing(store: impl Store) {
    let ledger = store.open().await;
    register_with_failures(&ledger).await;
    ledger.remove(&id()).await.unwrap();
    assert_eq!(ledger.campaign(&id()).await.unwrap(), None);
    assert_eq!(listing::all(&ledger).await.unwrap(), []);
    assert_eq!(ledger.changes(0).await.unwrap().ids, []);
    // A report in progress fails, because what was read of it is incomplete.
    assert!(matches!(report_page(&ledger, &id(), Cursor::default()).await, Err(LedgerError::NoCampaign(_))));
    assert!(matches!(response_page(&ledger, &id(), 1).await, Err(LedgerError::NoCampaign(_))));
    register_running(&ledger).await;
    assert_eq!((counts(&ledger).await, report(&ledger).await), ([0; 6], Vec::new()));
}

async fn a_heartbeat_reports_the_held_batches(store: impl Store) {
    let ledger = store.open().await;
    register_running(&ledger).await;
    for held in [3, 0] {
        assert_eq!(ledger.heartbeat(&id(), held).await.unwrap(), Lease { leads: true, held, gap: None });
    }
    ledger.release(&id()).await.unwrap();
}

/// Defines the suite for a store; each name is a test.
macro_rules! ledger_suite {
    ($backend:ident, $store:expr) => {
        ledger_suite! { $backend, $store,
                a_campaign_is_registered_once
                the_same_id_with_other_content_is_refused
                a_repeated_job_without_an_id_is_the_same_campaign
                the_real_campaign_replaces_its_rehearsal_and_not_the_other_way_round
                a_campaign_behind_an_open_breaker_is_held_and_only_a_probe_claims
                a_breaker_is_open_until_it_is_closed_and_others_stay_closed
                a_probe_is_due_after_a_delay_and_granted_to_one_caller
                a_notice_is_kept_until_it_is_cleared_and_is_not_a_breaker
                rejections_forgiven_by_a_resume_are_stored
                a_message_is_claimed_by_only_one_caller
                concurrent_callers_claim_each_message_once
                outcomes_are_recorded_and_counted
                an_outcome_is_recorded_even_if_another_claim_was_granted_nothing
                requests_claimed_together_settle_only_their_own_messages
                a_released_message_can_be_claimed_again
                an_illegal_transition_changes_nothing
                a_late_response_settles_a_doubt
                claims_of_a_dead_worker_become_in_doubt
                claims_of_a_dead_worker_are_sent_again_if_the_job_says_so
                claims_of_a_live_worker_do_not_expire
                a_checkpoint_counts_everything_once
                the_plan_lists_the_settled_batches
                a_batch_with_other_recipients_is_refused
                an_expired_message_is_skipped_and_never_sent
                a_campaign_makes_only_legal_transitions
                a_report_lists_every_row_once_and_in_order
                two_campaigns_do_not_affect_each_other
                a_claim_requires_a_running_campaign
                recording_returns_the_number_of_open_messages
                an_outcome_recorded_twice_counts_once
                an_overtaken_planner_changes_nothing
                nothing_is_planned_for_a_campaign_that_has_ended
                a_campaign_completes_only_when_its_counts_add_up
                unplanned_rows_are_counted_once_when_nothing_more_is_sent
                a_paused_campaign_with_nothing_left_to_send_can_be_completed
                a_campaign_is_held_by_its_counts_whatever_the_last_outcome_was
                a_note_does_not_start_a_paused_campaign
                a_campaign_is_active_until_its_end_is_published
                only_campaigns_changed_since_a_version_are_listed
                a_worker_is_present_until_it_departs
                a_job_is_stored_unchanged
                rejected_messages_are_sent_again_by_code
                the_rate_counts_a_message_as_often_as_it_is_settled
                a_retry_includes_recipients_over_the_marketing_limit_only_by_code
                an_operator_decides_about_messages_in_doubt
                reports_only_advance_a_message_and_repeated_ones_change_nothing
                a_report_settles_a_doubt_even_before_the_response_is_recorded
                a_report_prevents_a_second_send_of_a_message_that_is_to_be_sent_again
                a_report_about_an_unsent_message_changes_nothing
                messages_that_a_throttled_flow_did_not_deliver_are_sent_again_by_code
                a_reply_finds_its_message_by_its_sid_or_by_its_number
                the_providers_request_id_is_in_the_report
                concurrent_reports_are_all_applied
                a_reply_is_kept_once_and_is_new_until_its_event_is_published
                the_first_of_several_reports_settles_a_doubt
                replies_are_paged_in_the_order_of_the_audience
                the_suppression_list_is_read_only_after_a_change
                the_suppression_list_has_the_source_and_time_of_each_number
                a_reader_far_behind_gets_the_whole_suppression_list
                the_callback_key_is_created_once_and_shared_by_all_workers
                audit_entries_are_listed_newest_first
                the_series_of_a_campaign_is_kept_and_removed_with_it
                a_draft_is_kept_until_it_is_removed
                an_ended_session_stays_ended
                messages_in_doubt_are_found_among_all_messages
                pages_of_the_campaign_list_stay_consistent
                a_cancelled_campaign_skips_its_pending_messages
                a_removed_campaign_leaves_nothing
                a_heartbeat_reports_the_held_batches
                random_campaigns_match_a_plain_model
        }
    };
    ($backend:ident, $store:expr, $($test:ident)+) => {
        mod $backend {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test($store).await;
                }
            )+
        }
    };
}

ledger_suite!(sqlite, SqliteFile(tempfile::tempdir().unwrap()));
ledger_suite!(memory, MemoryStore::new());
ledger_suite!(redis_server, redis_store());
ledger_suite!(redis_cluster, cluster_store().await);

#[test]
fn one_process_at_a_time_sends_from_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flowcast.db");
    let first = Sqlite::open(&path, Access::Send).unwrap();
    let second = Sqlite::open(&path, Access::Send).err().unwrap();
    assert!(second.to_string().contains(&format!("(process {})", std::process::id())), "{second}");
    assert!(Sqlite::open(&path, Access::Read).is_ok(), "reading must always be possible");
    drop(first);
    assert!(Sqlite::open(&path, Access::Send).is_ok());
}

#[test]
fn only_the_owner_can_read_a_store() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flowcast.db");
    drop(Sqlite::open(&path, Access::Send).unwrap());
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_database_of_another_program_is_refused_and_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theirs.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE orders (id INTEGER)").unwrap();
    drop(other);
    let before = std::fs::read(&path).unwrap();
    for access in [Access::Send, Access::Read] {
        let error = Sqlite::open(&path, access).err().unwrap();
        assert!(error.to_string().contains(": not a flowcast store"), "{error}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_that_is_not_a_store_is_refused_and_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "these are notes and no database at all, ".repeat(100)).unwrap();
    for access in [Access::Send, Access::Read] {
        assert!(matches!(Sqlite::open(&path, access), Err(LedgerError::Storage(_))));
    }
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("these are notes"));
}
