//! What every ledger keeps to. A new backend is one more call of `ledger_suite!`.

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
    FIRST_PROBE, Lease, Ledger, LedgerError, Memory, MessageReport, NewCampaign, Notices, OptOutSource,
    Outcome, PlannedBatch, Plans, Point, RecordOutcome, Redis, ReplyTarget, ReportLine, Reporting,
    SentMessages, Series, SkippedRow, Sqlite, Suppress, Suppressed, Suppression, SuppressionUpdate,
};
use flowcast::ledger::{PlannedSoFar, skip_unplanned};

use crate::servers::{RedisStore, cluster_store, redis_store};
use crate::state_models::random_lives_are_as_a_plain_model_says;

/// A reason in plain words.
fn because(text: &str) -> Reason {
    Reason::Text { text: text.into() }
}

/// A store that outlives the processes that use it.
pub trait Store: Send + Sync {
    type Ledger: Ledger;

    /// Opens it as a process does; an earlier one has died, and its claims have run out.
    fn open(&self) -> impl Future<Output = Self::Ledger> + Send;
}

pub struct SqliteFile(pub tempfile::TempDir);

impl Store for SqliteFile {
    type Ledger = Sqlite;

    async fn open(&self) -> Sqlite {
        Sqlite::open(&self.0.path().join("flowcast.db"), Access::Send).unwrap()
    }
}

/// A ledger in memory: another process is another session, and time goes by between two.
struct MemoryStore {
    ledger: Memory,
    /// How far the clock is ahead, in milliseconds.
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
        self.let_claims_run_out().await;
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

fn all(size: u8) -> Vec<u8> {
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

pub async fn registered(ledger: &impl Ledger) -> Campaign {
    ledger.register(new_campaign()).await.unwrap().0
}

/// A campaign that runs.
async fn running(ledger: &impl Ledger) {
    registered(ledger).await;
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

/// The campaign, whose counts always add up.
pub async fn now(ledger: &impl Ledger) -> Campaign {
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

/// Counts as `pending sending accepted rejected in_doubt skipped`.
async fn counts(ledger: &impl Ledger) -> [u64; 6] {
    let counts = now(ledger).await.counts;
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
    let first = registered(&ledger).await;
    assert_eq!((first.state, first.batch_size), (CampaignState::Scheduled, 100));
    // Later limits do not change how it is cut.
    let again = ledger.register(NewCampaign { batch_size: 7, ..new_campaign() }).await.unwrap();
    assert_eq!(again, (first, false));
    assert_eq!(listing::all(&ledger).await.unwrap().len(), 1);
    assert_eq!(ledger.campaign(&"other".parse().unwrap()).await.unwrap(), None);
}

async fn the_same_id_with_other_content_is_refused(store: impl Store) {
    let ledger = store.open().await;
    registered(&ledger).await;
    let other = ledger.register(NewCampaign { fingerprint: "f2".into(), ..new_campaign() }).await;
    assert!(matches!(other, Err(LedgerError::OtherContent(_))));
}

async fn a_job_without_an_id_is_the_same_campaign_when_it_comes_again(store: impl Store) {
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

async fn a_rehearsal_gives_way_to_the_real_campaign_and_not_the_other_way_round(store: impl Store) {
    let ledger = store.open().await;
    let rehearsal = || NewCampaign { rehearsal: true, ..new_campaign() };
    ledger.register(rehearsal()).await.unwrap();
    transitions::change_state(&ledger, &id(), CampaignState::Running, None).await.unwrap();
    claims::claim(&ledger, batch(0, 3), all(3), ClaimPurpose::Send).await.unwrap();
    assert_eq!(counts(&ledger).await, [0, 3, 0, 0, 0, 0]);
    let real = registered(&ledger).await;
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
    running(&ledger).await;
    let flow = Breaker::flow("main", "13 :{x} 23");
    for breaker in [account_breaker(), flow] {
        transitions::suspend(&ledger, &id(), &breaker, because("no money")).await.unwrap();
        let held = now(&ledger).await;
        assert_eq!((held.state, held.reason), (CampaignState::Held, Some(because("no money"))));
        assert_eq!(held.suspended_by, Some(breaker));
        let refused = claims::claim(&ledger, batch(0, 3), vec![0], ClaimPurpose::Send).await.unwrap();
        assert!(!refused.running && refused.messages.is_empty());
        let probe = claims::claim(&ledger, batch(0, 3), vec![0], ClaimPurpose::Probe).await.unwrap();
        assert_eq!((probe.running, &probe.messages[..]), (true, &[0_u8][..]));
        record(&ledger, &probe, 0, vec![(0, Outcome::Released)]).await;
        transitions::change_state(&ledger, &id(), CampaignState::Running, None).await.unwrap();
        assert_eq!(now(&ledger).await.suspended_by, None);
    }
    // A person's pause, and any other hold, are probed by nobody and left alone by a breaker.
    for state in [CampaignState::Paused, CampaignState::Held] {
        transitions::change_state(&ledger, &id(), state, Some(because("so"))).await.unwrap();
        assert!(!claims::claim(&ledger, batch(0, 3), vec![0], ClaimPurpose::Probe).await.unwrap().running);
        transitions::suspend(&ledger, &id(), &account_breaker(), because("no money")).await.unwrap();
        assert_eq!((now(&ledger).await.state, now(&ledger).await.suspended_by), (state, None));
    }
}

async fn a_breaker_is_open_until_it_is_closed_and_each_is_its_own(store: impl Store) {
    let ledger = store.open().await;
    let breaker = account_breaker();
    assert_eq!(ledger.breaker(&breaker).await.unwrap(), None);
    assert!(!ledger.close_breaker(&breaker).await.unwrap());
    assert!(ledger.open_breaker(&breaker, "no money".into(), true).await.unwrap());
    assert!(!ledger.open_breaker(&breaker, "still none".into(), true).await.unwrap());
    let hold = ledger.breaker(&breaker).await.unwrap().unwrap();
    assert_eq!((hold.reason.as_str(), hold.probe_is_due), ("still none", false));
    let wait = hold.probe_at.unwrap().duration_since(hold.since);
    assert!((wait.as_millis() - FIRST_PROBE.as_millis().cast_signed()).abs() < 50, "{wait:?}");
    assert!(hold.since.duration_since(jiff::Timestamp::now()).as_secs().abs() < 60);
    for other in [Breaker::account("other"), Breaker::flow("main", "f")] {
        assert_eq!(ledger.breaker(&other).await.unwrap(), None);
    }
    drop(ledger);
    let ledger = store.open().await;
    assert!(ledger.breaker(&breaker).await.unwrap().is_some(), "it outlives a process");
    assert!(ledger.close_breaker(&breaker).await.unwrap());
    assert_eq!(ledger.breaker(&breaker).await.unwrap(), None);
}

async fn a_probe_comes_after_a_while_and_is_one_callers_alone(store: impl Store) {
    let ledger = store.open().await;
    let (breaker, blocked) = (account_breaker(), Breaker::flow("main", "f"));
    ledger.open_breaker(&breaker, "no money".into(), true).await.unwrap();
    ledger.open_breaker(&blocked, "blocked".into(), false).await.unwrap();
    assert!(!ledger.half_open(&breaker).await.unwrap(), "not at once");
    let start = std::time::Instant::now();
    while !ledger.breaker(&breaker).await.unwrap().unwrap().probe_is_due {
        assert!(start.elapsed() < FIRST_PROBE * 4);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(start.elapsed() + std::time::Duration::from_millis(100) >= FIRST_PROBE);
    let mut turns = 0;
    for _ in 0..5 {
        turns += u32::from(ledger.half_open(&breaker).await.unwrap());
    }
    assert_eq!(turns, 1, "and then after a longer while");
    // What nobody can mend by waiting is never tried again by itself.
    let never = ledger.breaker(&blocked).await.unwrap().unwrap();
    assert_eq!((never.probe_at, never.probe_is_due), (None, false));
    assert!(!ledger.half_open(&blocked).await.unwrap());
}

async fn a_notice_stands_until_it_is_removed_and_is_no_breaker(store: impl Store) {
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
    assert_eq!(ledger.notice("main", &about).await.unwrap(), Some(stored.clone()), "it keeps its time");
    drop(ledger);
    let ledger = store.open().await;
    assert_eq!(ledger.notice("main", &about).await.unwrap(), Some(stored.clone()), "it outlives a process");
    let disabled = Notice { event: "disabled".into(), detail: String::new(), ..paused };
    ledger.store_notice("main", &disabled).await.unwrap();
    let later = ledger.notice("main", &about).await.unwrap().unwrap();
    assert_eq!(later.notice, KeptNotice::Notice(disabled));
    assert!(later.since > stored.since);
    ledger.clear_notice("main", &about).await.unwrap();
    assert_eq!(ledger.notice("main", &about).await.unwrap(), None);
}

async fn what_a_person_let_pass_by_resuming_is_remembered(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    assert_eq!(now(&ledger).await.forgiven, (0, 0));
    let claimed = claim(&ledger, batch(0, 3), all(3)).await;
    let outcomes = vec![(0, rejected("400", "x")), (1, accepted("s")), (2, in_doubt())];
    record(&ledger, &claimed, 0, outcomes).await;
    // A new word on why it runs is no resumption.
    transitions::change_state(&ledger, &id(), CampaignState::Running, None).await.unwrap();
    assert_eq!(now(&ledger).await.forgiven, (0, 0));
    transitions::change_state(&ledger, &id(), CampaignState::Held, Some(because("too many"))).await.unwrap();
    transitions::change_state(&ledger, &id(), CampaignState::Running, None).await.unwrap();
    assert_eq!(now(&ledger).await.forgiven, (1, 3));
}

async fn a_message_is_claimed_by_one_caller_alone(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    assert_eq!(claim(&ledger, batch(0, 4), vec![0, 1]).await.messages, [0, 1]);
    assert_eq!(claim(&ledger, batch(0, 4), all(4)).await.messages, [2, 3]);
    assert_eq!(claim(&ledger, batch(0, 4), all(4)).await.messages, [0_u8; 0]);
    assert_eq!(claim(&ledger, batch(1, 4), vec![9]).await.messages, [0_u8; 0]);
    assert_eq!(counts(&ledger).await, [4, 4, 0, 0, 0, 0]);
}

async fn many_callers_at_once_claim_each_message_once(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let mut granted = Vec::new();
                for number in 0..20 {
                    let claimed = claim(&ledger, batch(number, 50), all(50)).await.messages;
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
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 6), all(6)).await;
    let outcomes = vec![
        (0, accepted("s0")),
        (1, rejected("400", "bad number")),
        (2, rejected("400", "worse number")),
        (3, in_doubt()),
        (4, Outcome::Released),
    ];
    record(&ledger, &claimed, 0, outcomes).await;
    assert_eq!(counts(&ledger).await, [1, 1, 1, 2, 1, 0]);
    let campaign = now(&ledger).await;
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
    // What is kept of a doubt is its cause: what exactly was seen may differ from message to message.
    let (code, detail) = (lines[3].code.as_deref(), lines[3].detail.as_deref());
    assert_eq!((code, detail), (None, Some("the provider did not answer in time")));
    let texts = ledger.texts(&id()).await.unwrap();
    assert!(texts.contains_key(&("in_doubt".into(), "no_response".into())), "{texts:?}");
}

async fn an_outcome_is_recorded_also_when_another_claim_was_granted_nothing(store: impl Store) {
    let ledger = &store.open().await;
    running(ledger).await;
    let writer = BatchWriter::new(ledger, batch(0, 3));
    let first = writer.claim(vec![0, 1], ClaimPurpose::Send).await.unwrap();
    // Somebody else asks for the same, and the writer knows nothing of the batch any more.
    let second = writer.claim(vec![0], ClaimPurpose::Send).await.unwrap();
    assert_eq!((first.messages.len(), second.messages.len()), (2, 0));
    writer.record(first.token, vec![(0, accepted("s0")).into()]).await.unwrap();
    assert_eq!(counts(ledger).await, [1, 1, 1, 0, 0, 0]);
    writer.record(first.token, vec![(0, accepted("s0")).into()]).await.unwrap();
    writer.record(first.token, vec![(1, accepted("s1")).into()]).await.unwrap();
    assert_eq!(counts(ledger).await, [1, 0, 2, 0, 0, 0]);
}

async fn requests_that_are_claimed_together_settle_their_own_messages_alone(store: impl Store) {
    {
        let ledger = &store.open().await;
        running(ledger).await;
        let writer = &BatchWriter::new(ledger, batch(0, 20));
        let asked = all(20).into_iter().map(|message| writer.claim(vec![message], ClaimPurpose::Send));
        let claims = try_join_all(asked).await.unwrap();
        let granted: Vec<u8> = claims.iter().flat_map(|claim| claim.messages.clone()).collect();
        assert_eq!(granted, all(20));
        let tokens: BTreeSet<u64> = claims.iter().map(|claim| claim.token).collect();
        assert!(tokens.len() <= 2, "they are written together: {tokens:?}");
        let recorded = claims[..18].iter().zip(0..).map(|(claim, message)| {
            let outcome = if message == 0 { Outcome::Released } else { accepted("s") };
            writer.record(claim.token, vec![(message, outcome).into()])
        });
        try_join_all(recorded).await.unwrap();
        assert_eq!(counts(ledger).await, [1, 2, 17, 0, 0, 0]);
    }
    // Its worker has died: what was recorded stands, and the last two alone are in doubt.
    let ledger = store.open().await;
    assert_eq!(claims::expire(&ledger, &id(), false).await.unwrap(), 2);
    assert_eq!(counts(&ledger).await, [1, 0, 17, 0, 2, 0]);
    assert_eq!(claims::expire(&ledger, &id(), false).await.unwrap(), 0);
}

async fn a_released_message_can_be_claimed_again(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 3), all(3)).await;
    record(&ledger, &claimed, 0, vec![(0, accepted("s")), (1, Outcome::Released), (2, in_doubt())]).await;
    assert_eq!(claim(&ledger, batch(0, 3), all(3)).await.messages, [1]);
}

async fn a_move_that_is_not_legal_changes_nothing(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
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

async fn a_late_answer_settles_a_doubt(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 2), all(2)).await;
    record(&ledger, &claimed, 0, vec![(0, in_doubt()), (1, in_doubt())]).await;
    record(&ledger, &claimed, 0, vec![(0, accepted("late")), (1, rejected("7", "late"))]).await;
    assert_eq!(counts(&ledger).await, [0, 0, 1, 1, 0, 0]);
}

async fn the_claims_of_the_dead_are_in_doubt(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 3), all(3)).await;
    record(&ledger, &claimed, 0, vec![(0, accepted("s"))]).await;
    claim(&ledger, batch(1, 3), vec![1]).await;
    drop(ledger);
    let ledger = store.open().await;
    assert_eq!(claims::expire(&ledger, &id(), false).await.unwrap(), 3);
    assert_eq!(counts(&ledger).await, [2, 0, 1, 0, 3, 0]);
    assert_eq!(claims::expire(&ledger, &id(), false).await.unwrap(), 0);
    // In doubt is never claimed again by itself.
    assert_eq!(claim(&ledger, batch(0, 3), all(3)).await.messages, [0_u8; 0]);
}

async fn the_claims_of_the_dead_may_be_sent_again_where_the_job_says_so(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    claim(&ledger, batch(0, 3), all(3)).await;
    drop(ledger);
    let ledger = store.open().await;
    assert_eq!(claims::expire(&ledger, &id(), true).await.unwrap(), 3);
    assert_eq!(claim(&ledger, batch(0, 3), all(3)).await.messages, [0, 1, 2]);
}

async fn the_claims_of_the_living_do_not_expire(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    claim(&ledger, batch(0, 3), all(3)).await;
    assert_eq!(claims::expire(&ledger, &id(), false).await.unwrap(), 0);
    assert_eq!(counts(&ledger).await, [0, 3, 0, 0, 0, 0]);
}

async fn a_checkpoint_counts_everything_once(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let skipped = |row| SkippedRow {
        row,
        recipient: "12".into(),
        reason: SkipReason::InvalidNumber,
        detail: "no such number".into(),
    };
    let checkpoint = Checkpoint { batches: 2, rows: 8, digest: "d".into(), complete: true };
    // A batch may be claimed before the checkpoint passes it.
    claim(&ledger, batch(1, 3), vec![0]).await;
    for _ in 0..2 {
        let batches = vec![batch(0, 3), batch(1, 3)];
        let rows = vec![skipped(7), skipped(8)];
        ledger.checkpoint(&id(), 0, checkpoint.clone(), batches, rows).await.unwrap();
    }
    assert_eq!(counts(&ledger).await, [5, 1, 0, 0, 0, 2]);
    let campaign = now(&ledger).await;
    assert!(campaign.planned);
    assert_eq!(campaign.skipped["invalid_number"], 2);
    drop(ledger);
    let ledger = store.open().await;
    let plan = ledger.plan(&id()).await.unwrap();
    assert_eq!(plan.checkpoint, checkpoint);
    assert!(plan.settled.is_empty());
}

async fn the_plan_knows_which_batches_are_settled(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let checkpoint = Checkpoint { batches: 3, rows: 6, digest: "d".into(), complete: true };
    let batches = (0..3).map(|number| batch(number, 2)).collect();
    ledger.checkpoint(&id(), 0, checkpoint, batches, Vec::new()).await.unwrap();
    let first = claim(&ledger, batch(0, 2), all(2)).await;
    let second = claim(&ledger, batch(1, 2), all(2)).await;
    claim(&ledger, batch(2, 2), all(2)).await;
    record(&ledger, &first, 0, vec![(0, accepted("s")), (1, in_doubt())]).await;
    record(&ledger, &second, 1, vec![(0, accepted("s")), (1, Outcome::Released)]).await;
    assert_eq!(ledger.plan(&id()).await.unwrap().settled.iter().collect::<Vec<_>>(), [0]);
}

async fn a_batch_with_other_recipients_is_refused(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    claim(&ledger, batch(0, 2), vec![0]).await;
    let other = PlannedBatch { number: 0, ..batch(5, 2) };
    assert!(matches!(
        claims::claim(&ledger, other, all(2), ClaimPurpose::Send).await,
        Err(LedgerError::OtherPlan(_, 0))
    ));
    assert_eq!(counts(&ledger).await, [1, 1, 0, 0, 0, 0]);
}

async fn a_message_that_expires_is_skipped_and_never_sent(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 2), Vec::new()).await;
    let expired = || Outcome::Skipped { reason: SkipReason::Expired, detail: "too late".into() };
    record(&ledger, &claimed, 0, vec![(0, expired()), (1, expired())]).await;
    assert_eq!(counts(&ledger).await, [0, 0, 0, 0, 0, 2]);
    assert_eq!(now(&ledger).await.skipped["expired"], 2);
    assert_eq!(claim(&ledger, batch(0, 2), all(2)).await.messages, [0_u8; 0]);
}

async fn a_campaign_moves_only_as_its_states_allow(store: impl Store) {
    let ledger = store.open().await;
    registered(&ledger).await;
    let to = async |state, reason: Option<&str>| {
        transitions::change_state(&ledger, &id(), state, reason.map(because)).await
    };
    assert!(matches!(to(CampaignState::Completed, None).await, Err(LedgerError::IllegalMove { .. })));
    to(CampaignState::Running, None).await.unwrap();
    to(CampaignState::Running, Some("waits")).await.unwrap();
    assert_eq!(now(&ledger).await.reason, Some(because("waits")));
    let started = now(&ledger).await.started_at.unwrap();
    to(CampaignState::Held, Some("why")).await.unwrap();
    to(CampaignState::Running, None).await.unwrap();
    to(CampaignState::Completed, None).await.unwrap();
    let done = now(&ledger).await;
    assert_eq!((done.started_at, done.reason), (Some(started), None));
    assert!(done.finished_at.is_some());
    let nobody =
        transitions::change_state(&ledger, &"nobody".parse().unwrap(), CampaignState::Running, None).await;
    assert!(matches!(nobody, Err(LedgerError::NoCampaign(_))));
}

async fn a_report_lists_every_row_once_and_in_order(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
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

async fn two_campaigns_do_not_touch_each_other(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let other: CampaignId = "c2".parse().unwrap();
    ledger.register(NewCampaign { id: other.clone(), ..new_campaign() }).await.unwrap();
    transitions::change_state(&ledger, &other, CampaignState::Running, None).await.unwrap();
    let claimed = claim(&ledger, batch(0, 3), all(3)).await;
    claim(&ledger, PlannedBatch { campaign: other.clone(), ..batch(0, 3) }, all(2)).await;
    record(&ledger, &claimed, 0, vec![(0, accepted("s")), (1, accepted("s"))]).await;
    assert_eq!(counts(&ledger).await, [0, 1, 2, 0, 0, 0]);
    assert_eq!(ledger.campaign(&other).await.unwrap().unwrap().counts.sending, 2);
}

async fn a_claim_needs_a_campaign_that_runs(store: impl Store) {
    let ledger = store.open().await;
    registered(&ledger).await;
    for state in [CampaignState::Paused, CampaignState::Held, CampaignState::Cancelled] {
        let claim = claims::claim(&ledger, batch(0, 3), all(3), ClaimPurpose::Send).await.unwrap();
        assert!(!claim.running && claim.messages.is_empty());
        transitions::change_state(&ledger, &id(), state, None).await.unwrap();
    }
    assert_eq!(counts(&ledger).await, [3, 0, 0, 0, 0, 0]);
    let nobody = PlannedBatch { campaign: "nobody".parse().unwrap(), ..batch(0, 3) };
    assert!(matches!(
        claims::claim(&ledger, nobody, all(3), ClaimPurpose::Send).await,
        Err(LedgerError::NoCampaign(_))
    ));
}

async fn a_record_tells_how_much_is_open(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 3), all(3)).await;
    assert_eq!(record(&ledger, &claimed, 0, vec![(0, accepted("s")), (1, in_doubt())]).await, 1);
    assert_eq!(record(&ledger, &claimed, 0, vec![(2, accepted("s"))]).await, 0);
}

async fn an_outcome_that_is_recorded_twice_counts_once(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 4), all(4)).await;
    let outcomes = vec![(0, accepted("s")), (1, rejected("7", "x")), (2, in_doubt())];
    for _ in 0..2 {
        record(&ledger, &claimed, 0, outcomes.clone()).await;
    }
    assert_eq!(counts(&ledger).await, [0, 1, 1, 1, 1, 0]);
    assert_eq!(now(&ledger).await.rejected["7"], 1);
}

async fn a_planner_that_was_overtaken_changes_nothing(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
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

async fn nothing_is_planned_into_a_campaign_that_is_over(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let to = |batches: u32| {
        let digest = batches.to_string();
        Checkpoint { batches, rows: u64::from(batches) * 3, digest, complete: false }
    };
    ledger.checkpoint(&id(), 0, to(1), vec![batch(0, 3)], Vec::new()).await.unwrap();
    transitions::change_state(&ledger, &id(), CampaignState::Cancelled, None).await.unwrap();
    // What was under way when it was cancelled comes late.
    ledger.checkpoint(&id(), 0, to(1), vec![batch(0, 3)], Vec::new()).await.unwrap();
    let late = ledger.checkpoint(&id(), 3, to(2), vec![batch(1, 3)], Vec::new()).await;
    assert!(matches!(late, Err(LedgerError::StalePlan(_))), "{late:?}");
    let claim = claims::claim(&ledger, batch(1, 3), all(3), ClaimPurpose::Send).await.unwrap();
    assert_eq!((claim.messages.len(), claim.running), (0, false));
    record(&ledger, &claim, 1, vec![(0, Outcome::Released), (1, rejected("7", "x"))]).await;
    assert_eq!(counts(&ledger).await[0], 3);
    decisions::decide(&ledger, &id(), Decision::Cancel).await.unwrap();
    assert_eq!(counts(&ledger).await, [0, 0, 0, 0, 0, 3]);
    assert_eq!(now(&ledger).await.counts.total, 3);
}

async fn a_campaign_is_held_by_its_counts_whatever_was_counted_last(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let stop_when = StopWhen { rejected_percent: 50, after: 4 };
    let checkpoint = Checkpoint { batches: 1, rows: 6, digest: "d".into(), complete: true };
    ledger.checkpoint(&id(), 0, checkpoint, vec![batch(0, 6)], Vec::new()).await.unwrap();
    let settle = async |places: Vec<u8>, outcome: Outcome| {
        let claimed = claim(&ledger, batch(0, 6), places.clone()).await;
        record(&ledger, &claimed, 0, places.into_iter().map(|place| (place, outcome.clone())).collect())
            .await;
    };
    settle(vec![0, 1], rejected("500", "x")).await;
    assert!(!transitions::judge(&ledger, &id(), stop_when).await.unwrap(), "two are too few to judge by");
    settle(vec![2, 3], accepted("s")).await;
    assert!(transitions::judge(&ledger, &id(), stop_when).await.unwrap());
    let campaign = now(&ledger).await;
    assert_eq!(campaign.state, CampaignState::Held);
    assert_eq!(campaign.reason, Some(Reason::TooManyRejected { rejected: 2, settled: 4, limit: 50 }));
    assert!(!transitions::judge(&ledger, &id(), stop_when).await.unwrap(), "it is held already");
    // Whoever resumes it lets these pass.
    transitions::change_state(&ledger, &id(), CampaignState::Running, None).await.unwrap();
    settle(vec![4, 5], rejected("500", "x")).await;
    assert!(!transitions::judge(&ledger, &id(), stop_when).await.unwrap());
    // What it forbids is not completed.
    let strict = StopWhen { rejected_percent: 50, after: 2 };
    assert!(!transitions::complete(&ledger, &id(), Some(strict)).await.unwrap());
    assert_eq!(now(&ledger).await.state, CampaignState::Held);
}

async fn what_was_never_planned_is_counted_once_when_nothing_is_sent_any_more(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let rows = now(&ledger).await.rows;
    let checkpoint = Checkpoint { batches: 1, rows: 2, digest: "d".into(), complete: false };
    ledger.checkpoint(&id(), 0, checkpoint, vec![batch(0, 2)], Vec::new()).await.unwrap();
    let claimed = claim(&ledger, batch(0, 2), all(1)).await;
    transitions::change_state(&ledger, &id(), CampaignState::Cancelled, None).await.unwrap();
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Cancel).await.unwrap(), 1);
    // A plan that is not as far as it was when it was looked at.
    let stale = PlannedSoFar { rows: 1, batches: 1 };
    assert!(!ledger.count_unplanned(&id(), stale, 5, SkipReason::Cancelled).await.unwrap());
    assert_eq!(skip_unplanned(&ledger, &id(), SkipReason::Cancelled).await.unwrap(), rows - 2);
    assert_eq!(skip_unplanned(&ledger, &id(), SkipReason::Cancelled).await.unwrap(), 0);
    record(&ledger, &claimed, 0, vec![(0, accepted("s"))]).await;
    let campaign = now(&ledger).await;
    assert!(campaign.planned);
    assert_eq!((campaign.counts.total, campaign.counts.accepted), (rows, 1));
    assert_eq!(campaign.skipped["cancelled"], rows - 1);
}

async fn a_paused_campaign_of_which_nothing_is_left_can_be_completed(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let checkpoint = Checkpoint { batches: 1, rows: 2, digest: "d".into(), complete: false };
    ledger.checkpoint(&id(), 0, checkpoint, vec![batch(0, 2)], Vec::new()).await.unwrap();
    let claimed = claim(&ledger, batch(0, 2), all(1)).await;
    transitions::change_state(&ledger, &id(), CampaignState::Paused, None).await.unwrap();
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Expire).await.unwrap(), 1);
    skip_unplanned(&ledger, &id(), SkipReason::Expired).await.unwrap();
    assert!(!transitions::complete_expired(&ledger, &id()).await.unwrap(), "one is being sent");
    record(&ledger, &claimed, 0, vec![(0, accepted("s"))]).await;
    assert!(transitions::complete_expired(&ledger, &id()).await.unwrap());
    let campaign = now(&ledger).await;
    assert_eq!((campaign.state, campaign.counts.total), (CampaignState::Completed, campaign.rows));
    assert_eq!(campaign.skipped["expired"], campaign.rows - 1);
}

async fn a_campaign_completes_only_when_its_counts_add_up(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    assert!(!transitions::complete(&ledger, &id(), None).await.unwrap(), "it is not planned");
    let checkpoint = Checkpoint { batches: 1, rows: 2, digest: "d".into(), complete: true };
    ledger.checkpoint(&id(), 0, checkpoint, vec![batch(0, 2)], Vec::new()).await.unwrap();
    assert!(!transitions::complete(&ledger, &id(), None).await.unwrap(), "two are pending");
    let claimed = claim(&ledger, batch(0, 2), all(2)).await;
    assert!(!transitions::complete(&ledger, &id(), None).await.unwrap(), "two are being sent");
    record(&ledger, &claimed, 0, vec![(0, accepted("s")), (1, in_doubt())]).await;
    transitions::change_state(&ledger, &id(), CampaignState::Paused, None).await.unwrap();
    assert!(!transitions::complete(&ledger, &id(), None).await.unwrap(), "it is paused");
    transitions::change_state(&ledger, &id(), CampaignState::Running, None).await.unwrap();
    assert!(transitions::complete(&ledger, &id(), None).await.unwrap());
    let campaign = now(&ledger).await;
    assert_eq!(campaign.state, CampaignState::Completed);
    assert!(campaign.finished_at.is_some());
}

async fn a_note_does_not_start_a_campaign_that_was_paused(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    transitions::note(&ledger, &id(), Some(because("waits for its limits"))).await.unwrap();
    assert_eq!(now(&ledger).await.reason, Some(because("waits for its limits")));
    transitions::change_state(&ledger, &id(), CampaignState::Paused, Some(because("by a person")))
        .await
        .unwrap();
    transitions::note(&ledger, &id(), None).await.unwrap();
    let campaign = now(&ledger).await;
    assert_eq!((campaign.state, campaign.reason), (CampaignState::Paused, Some(because("by a person"))));
}

async fn a_campaign_is_active_until_its_end_was_published(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let active = async || ledger.changes(0).await.unwrap().ids;
    assert_eq!(active().await, [id()]);
    transitions::change_state(&ledger, &id(), CampaignState::Cancelled, None).await.unwrap();
    ledger.published(&id(), CampaignState::Running).await.unwrap();
    assert_eq!(active().await, [id()]);
    ledger.published(&id(), CampaignState::Cancelled).await.unwrap();
    assert_eq!(active().await, []);
    assert_eq!(now(&ledger).await.published, Some(CampaignState::Cancelled));
}

async fn only_what_has_changed_since_is_looked_at(store: impl Store) {
    let ledger = store.open().await;
    let before = ledger.changes(0).await.unwrap();
    assert_eq!(before.ids, []);
    running(&ledger).await;
    let other: CampaignId = "other".parse().unwrap();
    let new = NewCampaign { id: other.clone(), fingerprint: "f2".into(), ..new_campaign() };
    ledger.register(new).await.unwrap();
    let all = ledger.changes(before.version).await.unwrap();
    assert_eq!(all.ids.iter().collect::<BTreeSet<_>>(), BTreeSet::from([&id(), &other]));
    // Nothing has changed, and a note is no change.
    transitions::note(&ledger, &id(), Some(because("waits"))).await.unwrap();
    let none = ledger.changes(all.version).await.unwrap();
    assert_eq!((none.ids, none.version), (vec![], all.version));
    transitions::change_state(&ledger, &id(), CampaignState::Paused, None).await.unwrap();
    let paused = ledger.changes(all.version).await.unwrap();
    assert_eq!(paused.ids, [id()]);
    ledger.touch(&other).await.unwrap();
    assert_eq!(ledger.changes(paused.version).await.unwrap().ids, [other]);
}

async fn a_worker_is_there_until_it_says_that_it_is_gone(store: impl Store) {
    let ledger = store.open().await;
    let there = ledger.present().await.unwrap();
    assert_eq!(there.len(), 1);
    assert_eq!(ledger.present().await.unwrap(), there);
    ledger.depart().await.unwrap();
    drop(ledger);
    // Another one does not see it.
    let other = store.open().await;
    assert!(other.present().await.unwrap().is_disjoint(&there));
}

async fn a_job_is_kept_as_it_was_registered(store: impl Store) {
    let ledger = store.open().await;
    let job = r#"{"version":1,"name":"d\u00e9j\u00e0 vu"}"#;
    ledger.register(NewCampaign { job: job.into(), ..new_campaign() }).await.unwrap();
    let stored = ledger.job(&id()).await.unwrap();
    assert_eq!((stored.job.as_str(), stored.columns), (job, vec!["phone".to_string(), "name".into()]));
    assert!(matches!(ledger.job(&"nobody".parse().unwrap()).await, Err(LedgerError::NoCampaign(_))));
}

/// A campaign with two rejected codes, one in doubt, one pending and one accepted, with payloads.
async fn with_failures(ledger: &impl Ledger) {
    running(ledger).await;
    let checkpoint = Checkpoint { batches: 1, rows: 6, digest: "d".into(), complete: true };
    ledger.checkpoint(&id(), 0, checkpoint, vec![batch(0, 6)], Vec::new()).await.unwrap();
    let claimed = claim(ledger, batch(0, 6), vec![0, 1, 2, 3, 4]).await;
    let kept =
        |message: u8, outcome| RecordOutcome { message, outcome, payload: Some(format!("values {message}")) };
    let outcomes = vec![
        (0, accepted("s")).into(),
        kept(1, rejected("400", "bad")),
        kept(2, rejected("400", "bad")),
        kept(3, rejected("500", "worse")),
        kept(4, in_doubt()),
    ];
    claims::record(ledger, &id(), 0, claimed.token, outcomes).await.unwrap();
    assert_eq!(counts(ledger).await, [1, 0, 1, 3, 1, 0]);
}

async fn again(ledger: &impl Ledger, known: &[(u32, u64)]) -> Vec<(u32, Vec<u8>)> {
    let batches = replays::due(ledger, &id(), known.iter().copied().collect()).await.unwrap();
    batches.into_iter().map(|again| (again.batch.number, again.payloads.into_keys().collect())).collect()
}

async fn rejected_messages_are_sent_again_by_code(store: impl Store) {
    let ledger = store.open().await;
    with_failures(&ledger).await;
    assert_eq!(
        decisions::decide(&ledger, &id(), Decision::Retry(vec!["500".into(), "x".into()])).await.unwrap(),
        1
    );
    assert_eq!(counts(&ledger).await, [2, 0, 1, 2, 1, 0]);
    assert_eq!(now(&ledger).await.rejected, BTreeMap::from([("400".into(), 2)]));
    assert_eq!(again(&ledger, &[]).await, [(0, vec![3])]);
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Retry(Vec::new())).await.unwrap(), 2);
    assert_eq!(again(&ledger, &[]).await, [(0, vec![1, 2, 3])]);
    let found = replays::due(&ledger, &id(), BTreeMap::new()).await.unwrap().remove(0);
    assert_eq!(found.payloads[&3], "values 3");
    assert_eq!(found.batch, batch(0, 6));
    // Told of once to whoever has queued it, to others until nothing is open.
    assert_eq!(again(&ledger, &[(0, found.since)]).await, []);
    let claimed = claim(&ledger, batch(0, 6), all(6)).await;
    assert_eq!(claimed.messages, [1, 2, 3, 5]);
    let outcomes = [1, 2, 3, 5].map(|message| (message, accepted("again"))).to_vec();
    assert_eq!(record(&ledger, &claimed, 0, outcomes).await, 0);
    assert_eq!(again(&ledger, &[]).await, []);
    assert_eq!(counts(&ledger).await, [0, 0, 5, 0, 1, 0]);
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Retry(Vec::new())).await.unwrap(), 0);
}

async fn the_rate_counts_a_message_as_often_as_it_is_settled(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let (start, mut settled) = (std::time::Instant::now(), 0.0);
    loop {
        let claimed = claim(&ledger, batch(0, 100), all(99)).await;
        let outcomes = claimed.messages.iter().map(|message| (*message, rejected("1", "x"))).collect();
        record(&ledger, &claimed, 0, outcomes).await;
        settled += 99.0;
        // Seconds that are over are counted whole.
        let most = settled / (start.elapsed().as_secs_f64() - 1.0).max(1.0);
        let rate = now(&ledger).await.rate;
        assert!(rate <= most, "{rate} of {most}");
        // More than the batch has messages.
        if rate > 200.0 {
            return;
        }
        assert!(start.elapsed().as_secs() < 60, "{rate} of {most}");
        decisions::decide(&ledger, &id(), Decision::Retry(Vec::new())).await.unwrap();
    }
}

async fn who_gets_enough_marketing_is_not_tried_again_the_same_day(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 3), all(3)).await;
    let outcomes = vec![(0, rejected("131049", "x")), (1, rejected("131026", "y")), (2, accepted("s"))];
    record(&ledger, &claimed, 0, outcomes).await;
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Retry(Vec::new())).await.unwrap(), 1);
    assert_eq!(now(&ledger).await.rejected, BTreeMap::from([("131049".into(), 1)]));
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Retry(vec!["131049".into()])).await.unwrap(), 1);
}

async fn what_is_in_doubt_is_decided_by_a_person(store: impl Store) {
    let ledger = store.open().await;
    with_failures(&ledger).await;
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Resend { until: i64::MAX }).await.unwrap(), 1);
    assert_eq!(counts(&ledger).await, [2, 0, 1, 3, 0, 0]);
    assert_eq!(again(&ledger, &[]).await, [(0, vec![4])]);
    let claimed = claim(&ledger, batch(0, 6), vec![4]).await;
    record(&ledger, &claimed, 0, vec![(4, in_doubt())]).await;
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Abandon { until: i64::MAX }).await.unwrap(), 1);
    assert_eq!(counts(&ledger).await, [1, 0, 1, 4, 0, 0]);
    assert_eq!(now(&ledger).await.rejected[ABANDONED], 1);
    // It may have been delivered: a retry takes it only by its name.
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Retry(Vec::new())).await.unwrap(), 3);
    assert_eq!(now(&ledger).await.rejected, BTreeMap::from([(ABANDONED.into(), 1)]));
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Retry(vec![ABANDONED.into()])).await.unwrap(), 1);
}

fn delivery_report(message: u8, state: Delivery, at: i64) -> MessageReport {
    let news = DeliveryUpdate::Delivery { state, code: Some("30016".into()), text: "no media".into() };
    MessageReport { message, sid: Some(format!("sid-{message}")), at, news }
}

fn answered(message: u8, id: &str, at: i64) -> MessageReport {
    let content = ReplyContent::Text("yes".into());
    let news = DeliveryUpdate::Reply(Reply { id: id.into(), content, details: BTreeMap::new() });
    MessageReport { message, sid: None, at, news }
}

/// Whether each report was of a message, and news.
async fn apply_reports(ledger: &impl Ledger, batch: u32, reports: Vec<MessageReport>) -> Vec<Option<bool>> {
    let learnt = evidence::apply_reports(ledger, &id(), batch, reports).await.unwrap();
    learnt.into_iter().map(|learnt| learnt.map(|learnt| learnt.is_news)).collect()
}

async fn reports_only_move_a_message_up_and_repeated_ones_are_no_news(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 3), all(3)).await;
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
    // A delivery after a failure is real, a person may have two devices.
    assert_eq!(
        apply_reports(&ledger, 0, vec![delivery_report(1, Delivery::Delivered, start + 700)]).await,
        [Some(true)]
    );
    assert_eq!(
        apply_reports(&ledger, 0, vec![delivery_report(1, Delivery::Sent, start + 100)]).await,
        [Some(true)]
    );
    let campaign = now(&ledger).await;
    let delivery = campaign.delivery;
    assert_eq!((delivery.sent, delivery.delivered, delivery.read, delivery.failed), (0, 1, 1, 1));
    assert_eq!(campaign.undelivered, BTreeMap::from([("30016".into(), 1)]));
    assert_eq!(campaign.texts["30016"], "no media");
    let lines = report(&ledger).await;
    let seen: Vec<_> = lines.iter().map(|line| (line.delivery.as_deref(), line.code.as_deref())).collect();
    assert_eq!(seen, [(Some("read"), None), (Some("delivered"), None), (Some("failed"), Some("30016"))]);
    assert_eq!(lines[0].sid.as_deref(), Some("sid-0"));
    // Each step is counted once, whatever came first.
    let total = |step: usize| campaign.took[step].0.values().sum::<u64>();
    assert_eq!([total(0), total(1), total(2), total(3)], [2, 1, 1, 0]);
}

async fn a_report_settles_a_doubt_also_before_the_answer_is_recorded(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 4), all(4)).await;
    let outcomes = vec![(0, in_doubt()), (1, in_doubt()), (2, rejected("400", "no"))];
    record(&ledger, &claimed, 0, outcomes).await;
    let reports = vec![
        delivery_report(0, Delivery::Delivered, 5_000),
        delivery_report(1, Delivery::Failed, 5_000),
        // That it failed says nothing of a message that was refused.
        delivery_report(2, Delivery::Failed, 5_000),
        delivery_report(3, Delivery::Sent, 5_000),
    ];
    assert_eq!(apply_reports(&ledger, 0, reports).await, [Some(true), Some(true), None, Some(true)]);
    assert_eq!(counts(&ledger).await, [0, 0, 3, 1, 0, 0]);
    // The answer that comes then changes nothing.
    record(&ledger, &claimed, 0, vec![(3, in_doubt())]).await;
    assert_eq!(counts(&ledger).await, [0, 0, 3, 1, 0, 0]);
    let sids: Vec<_> = report(&ledger).await.into_iter().map(|line| line.sid).collect();
    assert_eq!(sids, [Some("sid-0".into()), Some("sid-1".into()), None, Some("sid-3".into())]);
    assert_eq!(doubts::oldest(&ledger, &id()).await.unwrap(), None);
}

async fn a_report_for_a_message_that_is_sent_again_keeps_it_from_being_sent_twice(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 2), all(2)).await;
    record(&ledger, &claimed, 0, vec![(0, in_doubt()), (1, in_doubt())]).await;
    let until = jiff::Timestamp::now().as_millisecond() - 3_600_000;
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Resend { until }).await.unwrap(), 0, "too young");
    assert!(doubts::oldest(&ledger, &id()).await.unwrap().is_some());
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Resend { until: i64::MAX }).await.unwrap(), 2);
    assert_eq!(
        apply_reports(&ledger, 0, vec![delivery_report(0, Delivery::Delivered, 5_000)]).await,
        [Some(true)]
    );
    assert_eq!(claim(&ledger, batch(0, 2), all(2)).await.messages, [1]);
}

async fn a_report_of_nothing_that_was_sent_changes_nothing(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 3), vec![0]).await;
    record(&ledger, &claimed, 0, vec![(0, accepted("sid-0"))]).await;
    // A place that is none, and one that was never sent.
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
    assert_eq!(now(&ledger).await.delivery, flowcast::ledger::DeliveryCounts::default());
}

async fn what_a_throttled_flow_did_not_send_on_is_sent_again_by_its_code(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 4), all(4)).await;
    let outcomes = (0..4).map(|place| (place, accepted(&format!("sid-{place}")))).collect();
    record(&ledger, &claimed, 0, outcomes).await;
    let failed = |place: u8, code: &str| {
        let news =
            DeliveryUpdate::Delivery { state: Delivery::Failed, code: Some(code.into()), text: "why".into() };
        MessageReport { message: place, sid: None, at: 5_000, news }
    };
    let delivered = delivery_report(3, Delivery::Delivered, 6_000);
    let reports =
        vec![failed(0, "132069"), failed(1, "132069"), failed(2, "131026"), failed(3, "132069"), delivered];
    apply_reports(&ledger, 0, reports).await;
    // No other code takes what the provider took, and without one nothing does.
    for codes in [vec![], vec!["131026".into()], vec!["500".into()]] {
        assert_eq!(decisions::decide(&ledger, &id(), Decision::Retry(codes)).await.unwrap(), 0);
    }
    let retry = || Decision::Retry(vec!["132069".into(), "131026".into()]);
    assert_eq!(decisions::decide(&ledger, &id(), retry()).await.unwrap(), 2);
    assert_eq!(decisions::decide(&ledger, &id(), retry()).await.unwrap(), 0);
    assert_eq!(counts(&ledger).await, [2, 0, 2, 0, 0, 0]);
    let delivery = now(&ledger).await.delivery;
    assert_eq!((delivery.failed, delivery.delivered), (1, 1));
    assert_eq!(now(&ledger).await.undelivered, BTreeMap::from([("131026".into(), 1)]));
    let lines = report(&ledger).await;
    assert_eq!((lines[0].sid.as_deref(), lines[0].delivery.as_deref()), (None, None));
    // What is told of them once more says why they are to go out, and not that they did.
    assert_eq!(apply_reports(&ledger, 0, vec![failed(0, "132069")]).await, [None]);
    assert_eq!(counts(&ledger).await, [2, 0, 2, 0, 0, 0]);
    // They go out once more, and what comes of it is all that is known of them.
    let claimed = claim(&ledger, batch(0, 4), all(4)).await;
    assert_eq!(claimed.messages, [0, 1]);
    record(&ledger, &claimed, 0, vec![(0, accepted("again")), (1, accepted("again"))]).await;
    apply_reports(&ledger, 0, vec![delivery_report(0, Delivery::Delivered, 9_000)]).await;
    let lines = report(&ledger).await;
    assert_eq!((lines[0].sid.as_deref(), lines[0].delivery.as_deref()), (Some("again"), Some("delivered")));
    assert_eq!(lines[0].attempts, 2);
}

async fn an_answer_finds_its_message_by_the_sid_that_it_names_or_by_its_number(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 4), vec![0, 1, 2]).await;
    let people: Vec<(Phone, u8)> =
        batch(0, 4).recipients.iter().zip(0..).map(|((_, phone), place)| (*phone, place)).collect();
    let hour = Duration::from_hours(1);
    // Noted twice, they are found once.
    for _ in 0..2 {
        ledger.note_sent("main", hour, &id(), 0, &people).await.unwrap();
    }
    record(&ledger, &claimed, 0, vec![(0, accepted("sid-0")), (1, in_doubt()), (2, rejected("400", "no"))])
        .await;
    let find =
        async |account: &str, within: Duration, place: usize, sid: Option<&'static str>, is_form: bool| {
            let answer = ReplyTarget { phone: people[place].0, sid, is_form };
            let found = replies::find_message(&ledger, account, within, answer, |_| async { Ok(true) })
                .await
                .unwrap();
            found.map(|message| message.to_string())
        };
    let first = Some("c1.0.0".to_owned());
    assert_eq!(find("main", hour, 0, None, false).await, first);
    assert_eq!(find("main", hour, 0, Some("sid-0"), false).await, first);
    // They answered something else; a form is kept all the same.
    assert_eq!(find("main", hour, 0, Some("other"), false).await, None);
    assert_eq!(find("main", hour, 0, Some("other"), true).await, first);
    // A doubt has no SID, and an answer settles it; what was refused, or never sent, nobody has answered.
    assert_eq!(find("main", hour, 1, Some("any"), false).await, Some("c1.0.1".into()));
    assert_eq!(find("main", hour, 2, None, false).await, None);
    assert_eq!(find("main", hour, 3, None, false).await, None);
    assert_eq!(find("another", hour, 0, None, false).await, None);
    // Of two campaigns the last one that went to them, of those that are meant.
    let other: CampaignId = "c2".parse().unwrap();
    ledger.register(NewCampaign { id: other.clone(), ..new_campaign() }).await.unwrap();
    transitions::change_state(&ledger, &other, CampaignState::Running, None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let theirs = PlannedBatch { campaign: other.clone(), ..batch(0, 4) };
    let claimed = claim(&ledger, theirs, vec![0]).await;
    ledger.note_sent("main", hour, &other, 0, &people[..1]).await.unwrap();
    let taken = vec![RecordOutcome::from((0, accepted("sid-9")))];
    claims::record(&ledger, &other, 0, claimed.token, taken).await.unwrap();
    assert_eq!(find("main", hour, 0, None, false).await, Some("c2.0.0".into()));
    assert_eq!(find("main", hour, 0, Some("sid-0"), false).await, first);
    let answer = ReplyTarget { phone: people[0].0, sid: None, is_form: false };
    let meant =
        replies::find_message(&ledger, "main", hour, answer, async |id: CampaignId| Ok(id.as_str() == "c1"))
            .await;
    assert_eq!(meant.unwrap().map(|message| message.to_string()), first);
    // What is older than the time is not found.
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(find("main", Duration::from_millis(1), 0, None, false).await, None);
}

async fn what_the_provider_calls_a_request_stands_in_the_report(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let writer = BatchWriter::new(&ledger, batch(0, 3));
    for (place, request) in [(0, Some("r-1")), (1, Some("r-2")), (2, None)] {
        let claimed = writer.claim(vec![place], ClaimPurpose::Send).await.unwrap();
        let outcomes = vec![(place, accepted("s")).into()];
        writer.record_answer(claimed.token, outcomes, request.map(str::to_owned)).await.unwrap();
    }
    claim(&ledger, batch(1, 3), all(3)).await;
    let requests: Vec<_> = report(&ledger).await.into_iter().map(|line| line.request_id).collect();
    let last = Some("r-2".to_owned());
    assert_eq!(requests, [last.clone(), last.clone(), last, None, None, None]);
}

async fn many_reports_at_once_are_all_taken(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 50), all(50)).await;
    record(&ledger, &claimed, 0, (0..50).map(|message| (message, accepted("s"))).collect()).await;
    let takers: Vec<_> = [Delivery::Sent, Delivery::Delivered, Delivery::Read, Delivery::Failed]
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
    for taker in takers {
        taker.await.unwrap();
    }
    let delivery = now(&ledger).await.delivery;
    assert_eq!((delivery.read, delivery.sent + delivery.delivered + delivery.failed), (50, 0));
}

async fn an_answer_is_kept_once_and_is_news_until_others_were_told(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 2), all(2)).await;
    record(&ledger, &claimed, 0, vec![(0, accepted("s")), (1, in_doubt())]).await;
    let reports = || vec![answered(1, "r1", 7_000), answered(0, "r2", 8_000)];
    assert_eq!(apply_reports(&ledger, 0, reports()).await, [Some(true), Some(true)]);
    assert_eq!(apply_reports(&ledger, 0, reports()).await, [Some(true), Some(true)]);
    ledger.answer_published(&id(), 0, "r1".into()).await.unwrap();
    assert_eq!(apply_reports(&ledger, 0, reports()).await, [Some(false), Some(true)]);
    assert_eq!(apply_reports(&ledger, 0, vec![answered(1, "r3", 9_000)]).await, [Some(true)]);
    assert_eq!(now(&ledger).await.delivery.replied, 2);
    let page = response_page(&ledger, &id(), 0).await.unwrap();
    assert_eq!(page.next, None);
    let responses = page.responses;
    let seen: Vec<_> = responses.iter().map(|response| (response.row, response.at)).collect();
    assert_eq!(seen, [(1, 8_000), (2, 7_000), (2, 9_000)]);
    assert_eq!(counts(&ledger).await, [0, 0, 2, 0, 0, 0], "who answers has got it");
}

async fn of_several_reports_at_once_the_first_settles_a_doubt(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let claimed = claim(&ledger, batch(0, 2), all(2)).await;
    record(&ledger, &claimed, 0, vec![(0, in_doubt()), (1, in_doubt())]).await;
    let reports = vec![
        delivery_report(0, Delivery::Sent, 1_000),
        delivery_report(1, Delivery::Read, 3_000),
        delivery_report(0, Delivery::Delivered, 2_000),
    ];
    let learnt = evidence::apply_reports(&ledger, &id(), 0, reports).await.unwrap();
    let settled: Vec<_> = learnt.iter().flatten().map(|learnt| (learnt.settled, learnt.is_news)).collect();
    assert_eq!(settled, [(true, true), (true, true), (false, true)]);
    let delivery = now(&ledger).await.delivery;
    assert_eq!((delivery.sent, delivery.delivered, delivery.read), (0, 1, 1));
    assert_eq!(counts(&ledger).await, [0, 0, 2, 0, 0, 0]);
}

async fn answers_come_a_part_at_a_time_in_the_order_of_the_audience(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    for number in [0, 99, 100, 350] {
        let claimed = claim(&ledger, batch(number, 2), all(2)).await;
        record(&ledger, &claimed, number, vec![(0, accepted("s")), (1, accepted("t"))]).await;
        let answer = |place: u8| answered(place, &format!("r{number}.{place}"), 1_000);
        apply_reports(&ledger, number, vec![answer(1), answer(0)]).await;
    }
    let (mut seen, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let page = response_page(&ledger, &id(), from).await.unwrap();
        assert!(page.responses.len() <= 4, "no more than a part");
        seen.extend(page.responses.iter().map(|response| (response.batch, response.message)));
        next = page.next;
    }
    assert_eq!(seen, [(0, 0), (0, 1), (99, 0), (99, 1), (100, 0), (100, 1), (350, 0), (350, 1)]);
}

async fn the_list_of_suppressed_numbers_is_read_when_it_has_changed(store: impl Store) {
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
    // Who knows the list reads no more than what has changed.
    let update = ledger.suppressed(list.version).await.unwrap().unwrap();
    assert!(matches!(&update, SuppressionUpdate::Since { changes, .. } if changes.len() == 1));
    list.apply(update);
    assert!(list.numbers.len() == 1 && !list.contains(numbers()[0]));
    assert_eq!(ledger.suppress(numbers(), Suppress::Add, None).await.unwrap(), 1);
    list.apply(ledger.suppressed(list.version).await.unwrap().unwrap());
    assert!(list.contains(numbers()[0]));
}

async fn it_is_known_who_put_a_number_on_the_list_and_when(store: impl Store) {
    use flowcast::ledger::Clock as _;

    let ledger = store.open().await;
    let [one, two, three]: [Phone; 3] =
        ["+919876543210", "+15550001", "+15550002"].map(|number| number.parse().unwrap());
    let known = async |phones: &[Phone]| {
        let known = ledger.opt_outs(phones).await.unwrap();
        known.into_iter().map(|one| one.map(|one| one.source)).collect::<Vec<_>>()
    };
    let operator = |name: &str| Some(OptOutSource::Operator(name.into()));
    let before = ledger.now();
    ledger.suppress(vec![one], Suppress::Add, operator("Asha Rao")).await.unwrap();
    ledger.suppress(vec![one, two], Suppress::Add, Some(OptOutSource::Reply)).await.unwrap();
    ledger.suppress(vec![three], Suppress::Add, None).await.unwrap();
    let at = ledger.opt_outs(&[two]).await.unwrap()[0].as_ref().unwrap().at;
    assert!((before..=ledger.now()).contains(&at), "{at}");
    assert_eq!(known(&[one, two, three]).await, [operator("Asha Rao"), Some(OptOutSource::Reply), None]);
    assert_eq!(known(&[]).await, []);
    // Who is taken off and put on again was put on by the last.
    ledger.suppress(vec![one], Suppress::Remove, operator("Asha Rao")).await.unwrap();
    assert_eq!(known(&[one]).await, [None]);
    ledger.suppress(vec![one], Suppress::Add, operator("b")).await.unwrap();
    assert_eq!(known(&[one]).await, [operator("b")]);
}

async fn who_is_far_behind_reads_the_whole_list_of_suppressed_numbers(store: impl Store) {
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

async fn the_key_of_callbacks_is_made_once_and_the_same_for_all(store: impl Store) {
    let ledger = store.open().await;
    let key = ledger.callback_key().await.unwrap();
    assert!(key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
    assert_eq!(ledger.callback_key().await.unwrap(), key);
    drop(ledger);
    assert_eq!(store.open().await.callback_key().await.unwrap(), key);
}

async fn what_people_did_is_remembered_the_newest_first(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    for nth in 0..7 {
        let id = id();
        let campaign = (nth % 2 == 0).then_some(&id);
        ledger.log(AuditEntry::new("asha\n", "pause", campaign, &format!("act {nth}"))).await.unwrap();
    }
    let details = |page: &AuditPage| page.acts.iter().map(|act| act.detail.clone()).collect::<Vec<_>>();
    let first = ledger.acts(None, None, 3).await.unwrap();
    assert_eq!(details(&first), ["act 6", "act 5", "act 4"]);
    assert_eq!((first.acts[0].who.as_str(), first.acts[0].campaign.clone()), ("asha", Some(id())));
    // What comes meanwhile changes nothing of what follows.
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

async fn how_a_campaign_went_is_kept_in_few_points_and_goes_with_it(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    let point = |at: i64| Point { at, accepted: at as u64, rejected: 2, in_doubt: 1 };
    assert_eq!(ledger.points(&id()).await.unwrap(), []);
    ledger.write_points(&id(), vec![point(1000)], false).await.unwrap();
    ledger.write_points(&id(), vec![point(2000), point(3000)], false).await.unwrap();
    assert_eq!(ledger.points(&id()).await.unwrap(), [point(1000), point(2000), point(3000)]);
    ledger.write_points(&id(), vec![point(1000), point(3000)], true).await.unwrap();
    drop(ledger);
    let ledger = store.open().await;
    assert_eq!(ledger.points(&id()).await.unwrap(), [point(1000), point(3000)]);
    // A look adds a point where something has changed.
    let mut known = None;
    let counts = flowcast::ledger::Counts { accepted: 4000, ..Default::default() };
    ledger.sample(&id(), &mut known, &counts, false).await.unwrap();
    ledger.sample(&id(), &mut known, &counts, true).await.unwrap();
    let points = ledger.points(&id()).await.unwrap();
    assert_eq!(points.last().unwrap().accepted, 4000);
    assert_eq!(known.unwrap(), points);
    ledger.remove(&id()).await.unwrap();
    running(&ledger).await;
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

async fn a_session_that_was_ended_stays_so(store: impl Store) {
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

async fn messages_in_doubt_are_found_among_all(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    for number in 0..3 {
        let claim = claim(&ledger, batch(number, 2), all(2)).await;
        let outcomes =
            if number == 1 { [in_doubt(), accepted("s")] } else { [accepted("s"), rejected("1", "x")] };
        record(&ledger, &claim, number, (0..2).zip(outcomes).collect()).await;
    }
    let found = doubts::first(&ledger, &id(), 10).await.unwrap();
    assert_eq!(found.iter().map(|line| (line.row, line.state)).collect::<Vec<_>>(), [(3, InDoubt)]);
    assert_eq!(found[0].detail.as_deref(), Some("the provider did not answer in time"));
    assert!(found[0].updated_at.is_some());
    assert_eq!(doubts::first(&ledger, &id(), 0).await.unwrap(), []);
}

async fn campaigns_are_listed_by_pages_that_stay_right(store: impl Store) {
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
        // One is added and one forgotten between two pages.
        ledger.register(register(500 + pages)).await.unwrap();
        if pages == 2 {
            ledger.remove(&seen.last().unwrap().parse().unwrap()).await.unwrap();
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    // Where the last of a page was forgotten, those of its very millisecond may come again, and with them one that was
    // added in it; no campaign is skipped.
    let all_of_them = seen.iter().filter(|id| id.as_str() < "n500").collect::<BTreeSet<_>>().len();
    assert_eq!(all_of_them, 150);
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
    for wrong in ["", "x", "1.", "x.n001", "1.a b"] {
        assert!(
            matches!(listing::page(&ledger, &all, Some(wrong), 1).await, Err(LedgerError::NoPlace)),
            "{wrong:?}"
        );
    }
}

async fn a_cancelled_campaign_skips_what_is_pending(store: impl Store) {
    let ledger = store.open().await;
    with_failures(&ledger).await;
    assert_eq!(decisions::decide(&ledger, &id(), Decision::Cancel).await.unwrap(), 1);
    assert_eq!(counts(&ledger).await, [0, 0, 1, 3, 1, 1]);
    assert_eq!(now(&ledger).await.skipped["cancelled"], 1);
    let lines = report(&ledger).await;
    assert_eq!((lines[5].code.as_deref(), lines[5].state), (Some("cancelled"), MessageState::Skipped));
}

async fn a_campaign_that_is_removed_leaves_nothing(store: impl Store) {
    let ledger = store.open().await;
    with_failures(&ledger).await;
    ledger.remove(&id()).await.unwrap();
    assert_eq!(ledger.campaign(&id()).await.unwrap(), None);
    assert_eq!(listing::all(&ledger).await.unwrap(), []);
    assert_eq!(ledger.changes(0).await.unwrap().ids, []);
    // A report that goes on breaks off: what was read of it is not all.
    assert!(matches!(report_page(&ledger, &id(), Cursor::default()).await, Err(LedgerError::NoCampaign(_))));
    assert!(matches!(response_page(&ledger, &id(), 1).await, Err(LedgerError::NoCampaign(_))));
    running(&ledger).await;
    assert_eq!((counts(&ledger).await, report(&ledger).await), ([0; 6], Vec::new()));
}

async fn whoever_attends_says_what_it_holds(store: impl Store) {
    let ledger = store.open().await;
    running(&ledger).await;
    for held in [3, 0] {
        assert_eq!(ledger.heartbeat(&id(), held).await.unwrap(), Lease { leads: true, held, gap: None });
    }
    ledger.release(&id()).await.unwrap();
}

/// The suite on a store, each sentence a test.
macro_rules! ledger_suite {
    ($backend:ident, $store:expr) => {
        ledger_suite! { $backend, $store,
                a_campaign_is_registered_once
                the_same_id_with_other_content_is_refused
                a_job_without_an_id_is_the_same_campaign_when_it_comes_again
                a_rehearsal_gives_way_to_the_real_campaign_and_not_the_other_way_round
                a_campaign_behind_an_open_breaker_is_held_and_only_a_probe_claims
                a_breaker_is_open_until_it_is_closed_and_each_is_its_own
                a_probe_comes_after_a_while_and_is_one_callers_alone
                a_notice_stands_until_it_is_removed_and_is_no_breaker
                what_a_person_let_pass_by_resuming_is_remembered
                a_message_is_claimed_by_one_caller_alone
                many_callers_at_once_claim_each_message_once
                outcomes_are_recorded_and_counted
                an_outcome_is_recorded_also_when_another_claim_was_granted_nothing
                requests_that_are_claimed_together_settle_their_own_messages_alone
                a_released_message_can_be_claimed_again
                a_move_that_is_not_legal_changes_nothing
                a_late_answer_settles_a_doubt
                the_claims_of_the_dead_are_in_doubt
                the_claims_of_the_dead_may_be_sent_again_where_the_job_says_so
                the_claims_of_the_living_do_not_expire
                a_checkpoint_counts_everything_once
                the_plan_knows_which_batches_are_settled
                a_batch_with_other_recipients_is_refused
                a_message_that_expires_is_skipped_and_never_sent
                a_campaign_moves_only_as_its_states_allow
                a_report_lists_every_row_once_and_in_order
                two_campaigns_do_not_touch_each_other
                a_claim_needs_a_campaign_that_runs
                a_record_tells_how_much_is_open
                an_outcome_that_is_recorded_twice_counts_once
                a_planner_that_was_overtaken_changes_nothing
                nothing_is_planned_into_a_campaign_that_is_over
                a_campaign_completes_only_when_its_counts_add_up
                what_was_never_planned_is_counted_once_when_nothing_is_sent_any_more
                a_paused_campaign_of_which_nothing_is_left_can_be_completed
                a_campaign_is_held_by_its_counts_whatever_was_counted_last
                a_note_does_not_start_a_campaign_that_was_paused
                a_campaign_is_active_until_its_end_was_published
                only_what_has_changed_since_is_looked_at
                a_worker_is_there_until_it_says_that_it_is_gone
                a_job_is_kept_as_it_was_registered
                rejected_messages_are_sent_again_by_code
                the_rate_counts_a_message_as_often_as_it_is_settled
                who_gets_enough_marketing_is_not_tried_again_the_same_day
                what_is_in_doubt_is_decided_by_a_person
                reports_only_move_a_message_up_and_repeated_ones_are_no_news
                a_report_settles_a_doubt_also_before_the_answer_is_recorded
                a_report_for_a_message_that_is_sent_again_keeps_it_from_being_sent_twice
                a_report_of_nothing_that_was_sent_changes_nothing
                what_a_throttled_flow_did_not_send_on_is_sent_again_by_its_code
                an_answer_finds_its_message_by_the_sid_that_it_names_or_by_its_number
                what_the_provider_calls_a_request_stands_in_the_report
                many_reports_at_once_are_all_taken
                an_answer_is_kept_once_and_is_news_until_others_were_told
                of_several_reports_at_once_the_first_settles_a_doubt
                answers_come_a_part_at_a_time_in_the_order_of_the_audience
                the_list_of_suppressed_numbers_is_read_when_it_has_changed
                it_is_known_who_put_a_number_on_the_list_and_when
                who_is_far_behind_reads_the_whole_list_of_suppressed_numbers
                the_key_of_callbacks_is_made_once_and_the_same_for_all
                what_people_did_is_remembered_the_newest_first
                how_a_campaign_went_is_kept_in_few_points_and_goes_with_it
                a_draft_is_kept_until_it_is_removed
                a_session_that_was_ended_stays_so
                messages_in_doubt_are_found_among_all
                campaigns_are_listed_by_pages_that_stay_right
                a_cancelled_campaign_skips_what_is_pending
                a_campaign_that_is_removed_leaves_nothing
                whoever_attends_says_what_it_holds
                random_lives_are_as_a_plain_model_says
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
    assert!(Sqlite::open(&path, Access::Read).is_ok(), "looking is always allowed");
    drop(first);
    assert!(Sqlite::open(&path, Access::Send).is_ok());
}

#[test]
fn a_store_is_for_its_owners_eyes() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flowcast.db");
    drop(Sqlite::open(&path, Access::Send).unwrap());
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_database_of_another_program_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theirs.db");
    let theirs = rusqlite::Connection::open(&path).unwrap();
    theirs.execute_batch("CREATE TABLE orders (id INTEGER)").unwrap();
    drop(theirs);
    let before = std::fs::read(&path).unwrap();
    for access in [Access::Send, Access::Read] {
        let error = Sqlite::open(&path, access).err().unwrap();
        assert!(error.to_string().contains("is not a flowcast store"), "{error}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_that_is_no_store_is_an_error_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "these are notes and no database at all, ".repeat(100)).unwrap();
    for access in [Access::Send, Access::Read] {
        assert!(matches!(Sqlite::open(&path, access), Err(LedgerError::Storage(_))));
    }
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("these are notes"));
}
