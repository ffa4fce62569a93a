//! Compares a campaign in a ledger with a plain model of the states of its messages.
//!
//! The model has the states of the contract and does not depend on how a ledger stores them: which messages a worker may
//! claim, what an early or late outcome changes, and what an operator may decide. After every step the ledger's counts and
//! report must match the model.

use std::collections::BTreeMap;

use flowcast::campaign::MessageState::{Accepted, InDoubt, Pending, Rejected, Sending, Skipped};
use flowcast::campaign::delivery::{Delivery, DeliveryUpdate};
use flowcast::campaign::{CampaignState, DoubtCause, MessageState, SkipReason};
use flowcast::ledger::{
    ABANDONED, Access, Campaigns, Checkpoint, Claim, ClaimPurpose, Decision, Ledger, MessageReport, Outcome,
    RecordOutcome, Sqlite, migrate,
};
use flowcast::ledger::{claims, decisions, evidence, transitions};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::ledger::{SqliteFile, Store, batch, id, read_campaign, register_campaign, report};
use crate::servers::redis_store;
use crate::support::first_seed_of_commit;

const BATCHES: u32 = 2;
const SIZE: u8 = 3;
const CODES: [&str; 2] = ["400", "500"];

/// A message of the model.
#[derive(Clone, Debug)]
struct Message {
    state: MessageState,
    /// SID, code or reason.
    code: String,
    /// Token of the claim under which it is sent, or was sent when its worker died.
    claim: u64,
    was_claimed: bool,
}

impl Message {
    fn set(&mut self, state: MessageState, code: &str) {
        (self.state, self.code) = (state, code.to_owned());
    }

    /// Applies the outcome of a request, at any time.
    fn apply_outcome(&mut self, claim: u64, outcome: &Outcome) {
        let is_own = self.claim == claim;
        match (self.state, outcome) {
            // Proof of acceptance counts at any time, but does not replace an earlier one.
            (Sending | InDoubt | Rejected, Outcome::Accepted { sid }) => self.set(Accepted, sid),
            (Pending, Outcome::Accepted { sid }) if self.was_claimed => self.set(Accepted, sid),
            // A rejection proves nothing about a later request.
            (Sending, Outcome::Rejected { code, .. }) if is_own => self.set(Rejected, code),
            (InDoubt, Outcome::Rejected { code, .. }) => self.set(Rejected, code),
            (Sending, Outcome::InDoubt { .. }) if is_own => {
                self.claim = 0;
                self.set(InDoubt, "");
            }
            (Sending | InDoubt, Outcome::Released) if is_own => {
                self.claim = 0;
                self.set(Pending, "");
            }
            (Pending, Outcome::Skipped { reason, .. }) => self.set(Skipped, reason.as_str()),
            _ => {}
        }
    }

    /// Applies a delivery report of the provider.
    fn apply_report(&mut self, state: Delivery, sid: &str) {
        let is_proof = match self.state {
            Sending | InDoubt => true,
            Pending => self.was_claimed,
            // A failure may be the rejection itself.
            Rejected => state != Delivery::Failed,
            Accepted | Skipped => false,
        };
        if is_proof {
            self.set(Accepted, sid);
        }
    }
}

/// A campaign of the model, with its messages by batch and position.
struct Model {
    state: CampaignState,
    messages: BTreeMap<(u32, u8), Message>,
}

impl Model {
    fn of_batch(&mut self, number: u32) -> impl Iterator<Item = (u8, &mut Message)> {
        self.messages.iter_mut().filter(move |((of, _), _)| *of == number).map(|((_, place), m)| (*place, m))
    }

    fn count(&self, state: MessageState) -> u64 {
        self.messages.values().filter(|message| message.state == state).count() as u64
    }

    fn is_settled(&self) -> bool {
        self.count(Pending) + self.count(Sending) == 0
    }

    /// Moves all messages to which a decision applies, and returns their number.
    fn decide(&mut self, applies: impl Fn(&Message) -> bool, state: MessageState, code: &str) -> u64 {
        let affected = self.messages.values_mut().filter(|message| applies(message));
        affected.map(|message| message.set(state, code)).count() as u64
    }
}

/// Migrates a store mid-campaign to a fleet's Redis, where the campaign continues.
#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_continues_after_its_store_was_migrated() {
    let first = first_seed_of_commit();
    let count = std::env::var("FLOWCAST_STATE_SEEDS").map_or(12, |count| count.parse().unwrap());
    let fleet = redis_store();
    for seed in first..first + count {
        let file = SqliteFile(tempfile::tempdir().unwrap());
        let store = file.open().await;
        let mut life = Life::start(&store, seed).await;
        let store = life.run(&file, store, 50).await;
        let before = report(&store).await;
        drop(store);
        let path = file.0.path().join("flowcast.db");
        let store = Sqlite::open(&path, Access::Move).unwrap();
        let redis = fleet.open().await;
        let lost = life.model.decide(|message| message.state == Sending, InDoubt, "");
        let within = |_: &str| std::time::Duration::from_hours(1);
        let moved = migrate(&store, &redis, &[], within).await.unwrap();
        assert_eq!((moved.campaigns, moved.in_doubt), (vec![id()], lost), "seed {seed}");
        life.steps.push(format!("migrates: {lost} in doubt"));
        assert_same(&redis, &life.model, &life.history()).await;
        // Without lost messages the report is the same, with times, attempts and texts.
        if lost == 0 {
            assert_eq!(report(&redis).await, before, "{}", life.history());
        }
        // A repeated migration changes nothing, and no process can send from the store.
        migrate(&store, &redis, &[], within).await.unwrap();
        assert_same(&redis, &life.model, &life.history()).await;
        drop(store);
        assert!(Sqlite::open(&path, Access::Send).is_err());
        let redis = life.run(&fleet, redis, 50).await;
        redis.remove(&id()).await.unwrap();
    }
}

/// Runs random campaigns one after another in the same ledger, each from a seed of its own.
pub async fn random_campaigns_match_a_plain_model(store: impl Store) {
    let first = first_seed_of_commit();
    let count = std::env::var("FLOWCAST_STATE_SEEDS").map_or(12, |count| count.parse().unwrap());
    let mut ledger = store.open().await;
    for seed in first..first + count {
        let mut life = Life::start(&ledger, seed).await;
        ledger = life.run(&store, ledger, 100).await;
        ledger.remove(&id()).await.unwrap();
    }
}

struct Life {
    seed: u64,
    random: SmallRng,
    model: Model,
    claims: Vec<(u32, Claim)>,
    steps: Vec<String>,
}

impl Life {
    async fn start(ledger: &impl Ledger, seed: u64) -> Self {
        register_campaign(ledger).await;
        transitions::change_state(ledger, &id(), CampaignState::Running, None).await.unwrap();
        let size = u64::from(SIZE);
        let rows = u64::from(BATCHES) * size;
        let checkpoint = Checkpoint { batches: BATCHES, rows, digest: "d".into(), complete: true };
        let batches = (0..BATCHES).map(|number| batch(number, size)).collect();
        ledger.checkpoint(&id(), 0, checkpoint, batches, Vec::new()).await.unwrap();
        let new = Message { state: Pending, code: String::new(), claim: 0, was_claimed: false };
        let places = (0..BATCHES).flat_map(|number| (0..SIZE).map(move |place| (number, place)));
        let messages = places.map(|place| (place, new.clone())).collect();
        let model = Model { state: CampaignState::Running, messages };
        Self { seed, random: SmallRng::seed_from_u64(seed), model, claims: Vec::new(), steps: Vec::new() }
    }

    fn history(&self) -> String {
        format!("seed {}: {:#?}", self.seed, self.steps)
    }

    async fn run<S: Store>(&mut self, store: &S, mut ledger: S::Ledger, steps: u32) -> S::Ledger {
        for _ in 0..steps {
            let Self { random, model, claims, .. } = self;
            // Steps of workers are more frequent than decisions.
            let step = match random.random_range(0..20) {
                0..=4 => claim(&ledger, model, claims, random).await,
                5..=10 => respond(&ledger, model, claims, random).await,
                11 => report_delivery(&ledger, model, random).await,
                12 if random.random_bool(0.3) => skip(&ledger, model, random).await,
                13..=17 => decide(&ledger, model, random).await,
                _ => {
                    drop(ledger);
                    ledger = store.open().await;
                    let expired = claims::expire(&ledger, &id(), false).await.unwrap();
                    let lost = model.decide(|message| message.state == Sending, InDoubt, "");
                    format!("the worker dies: {expired} of {lost} in doubt")
                }
            };
            self.steps.push(step);
            assert_same(&ledger, &self.model, &self.history()).await;
        }
        ledger
    }
}

/// Returns a random batch and random positions in it.
fn random_messages(random: &mut SmallRng) -> (u32, Vec<u8>) {
    let places = (0..SIZE).filter(|_| random.random_bool(0.6)).collect();
    (random.random_range(0..BATCHES), places)
}

async fn claim(
    ledger: &impl Ledger,
    model: &mut Model,
    claims: &mut Vec<(u32, Claim)>,
    random: &mut SmallRng,
) -> String {
    let (number, places) = random_messages(random);
    let size = u64::from(SIZE);
    let claim = claims::claim(ledger, batch(number, size), places.clone(), ClaimPurpose::Send).await.unwrap();
    let runs = model.state == CampaignState::Running;
    let free = |message: &Message| runs && message.state == Pending;
    let mut granted = Vec::new();
    for (place, message) in model.of_batch(number) {
        if places.contains(&place) && free(message) {
            message.set(Sending, "");
            (message.claim, message.was_claimed) = (claim.token, true);
            granted.push(place);
        }
    }
    let step = format!("claims {places:?} of batch {number}, is granted {:?}", claim.messages);
    assert_eq!(claim.messages, granted, "{step}");
    if !granted.is_empty() {
        claims.push((number, claim));
    }
    step
}

/// Records outcomes of all or some messages of a claim, possibly again.
async fn respond(
    ledger: &impl Ledger,
    model: &mut Model,
    claims: &[(u32, Claim)],
    random: &mut SmallRng,
) -> String {
    // Mostly one of the latest claims, sometimes one that has expired.
    let from = if random.random_bool(0.5) { claims.len().saturating_sub(2) } else { 0 };
    let Some((number, claim)) = claims[from..].choose(random) else { return "records nothing".into() };
    let mut outcomes = Vec::new();
    for place in claim.messages.iter().filter(|_| random.random_bool(0.7)).copied().collect::<Vec<_>>() {
        let outcome = match random.random_range(0..10) {
            0..=3 => Outcome::Accepted { sid: format!("sid-{}-{place}", claim.token) },
            4..=6 => Outcome::Rejected { code: (*CODES.choose(random).unwrap()).into(), detail: "no".into() },
            7 | 8 => Outcome::InDoubt(DoubtCause::NoResponse.into()),
            _ => Outcome::Released,
        };
        outcomes.push((place, outcome));
    }
    // In an ended campaign, late proof does not release a message.
    let has_ended = model.state.is_over();
    for (place, outcome) in &outcomes {
        let message = model.messages.get_mut(&(*number, *place)).unwrap();
        if !(has_ended && message.state == InDoubt && *outcome == Outcome::Released) {
            message.apply_outcome(claim.token, outcome);
        }
    }
    let step = format!("records {outcomes:?} for claim {:x} of batch {number}", claim.token);
    let recorded: Vec<RecordOutcome> = outcomes.into_iter().map(RecordOutcome::from).collect();
    claims::record(ledger, &id(), *number, claim.token, recorded).await.unwrap();
    step
}

async fn report_delivery(ledger: &impl Ledger, model: &mut Model, random: &mut SmallRng) -> String {
    let (number, place) = (random.random_range(0..BATCHES), random.random_range(0..SIZE));
    let state = *[Delivery::Sent, Delivery::Read, Delivery::Failed].choose(random).unwrap();
    let sid = format!("reported-{number}-{place}");
    let update = DeliveryUpdate::Delivery { state, code: Some("30016".into()), text: "no media".into() };
    let report = MessageReport { message: place, sid: Some(sid.clone()), at: 5_000, update };
    evidence::apply_reports(ledger, &id(), number, vec![report]).await.unwrap();
    model.messages.get_mut(&(number, place)).unwrap().apply_report(state, &sid);
    format!("message {place} of batch {number} is reported {state:?}")
}

/// Skips a number that is on the suppression list when its request is due.
async fn skip(ledger: &impl Ledger, model: &mut Model, random: &mut SmallRng) -> String {
    let (number, place) = (random.random_range(0..BATCHES), random.random_range(0..SIZE));
    let outcome = Outcome::Skipped { reason: SkipReason::Suppressed, detail: String::new() };
    model.messages.get_mut(&(number, place)).unwrap().apply_outcome(0, &outcome);
    claims::record(ledger, &id(), number, 0, vec![(place, outcome).into()]).await.unwrap();
    format!("message {place} of batch {number} is suppressed")
}

/// Makes a random decision of an operator, in the ledger and in the model.
async fn decide(ledger: &impl Ledger, model: &mut Model, random: &mut SmallRng) -> String {
    use CampaignState::{Cancelled, Completed, Held, Paused, Running};
    let is_cancelled = model.state == CampaignState::Cancelled;
    let move_to = |model: &mut Model, to: CampaignState, from: &[CampaignState]| {
        let is_legal = from.contains(&model.state);
        if is_legal {
            model.state = to;
        }
        is_legal
    };
    match random.random_range(0..20) {
        0..=2 => {
            let done = transitions::stop(ledger, &id(), Paused, 0).await.is_ok();
            let legal = move_to(model, Paused, &[Running, Held, Paused]);
            assert_eq!(done, legal);
            format!("pauses: {done}")
        }
        3..=6 => {
            let done = transitions::change_state(ledger, &id(), Running, None).await.is_ok();
            // A completed campaign with messages to send again runs again after the decision.
            let legal = move_to(model, Running, &[Running, Held, Paused, Completed]);
            assert_eq!(done, legal);
            format!("resumes: {done}")
        }
        7 if random.random_bool(0.2) => {
            let done = transitions::stop(ledger, &id(), Cancelled, 0).await.is_ok();
            let legal = move_to(model, Cancelled, &[Running, Held, Paused, Cancelled]);
            assert_eq!(done, legal);
            let mut skipped = 0;
            if legal {
                skipped = decisions::decide(ledger, &id(), Decision::Cancel).await.unwrap();
                let expected = model.decide(|message| message.state == Pending, Skipped, "cancelled");
                assert_eq!(skipped, expected);
            }
            format!("cancels: {done}, {skipped} skipped")
        }
        8..=10 => {
            let done = transitions::complete(ledger, &id(), None).await.unwrap();
            let is_settled = model.is_settled() && model.state == Running;
            assert_eq!(done, is_settled);
            if done {
                model.state = Completed;
            }
            format!("completes: {done}")
        }
        11..=14 if !is_cancelled => {
            let codes: Vec<String> = [CODES[0], CODES[1], ABANDONED]
                .iter()
                .filter(|_| random.random_bool(0.3))
                .map(|c| (*c).into())
                .collect();
            let decided = decisions::decide(ledger, &id(), Decision::Retry(codes.clone())).await.unwrap();
            let applies = |message: &Message| {
                let is_named = codes.contains(&message.code);
                message.state == Rejected && (is_named || codes.is_empty() && message.code != ABANDONED)
            };
            let expected = model.decide(applies, Pending, "");
            assert_eq!(decided, expected, "a retry of {codes:?}");
            format!("retries {codes:?}: {decided}")
        }
        15..=17 if !is_cancelled => {
            let decided =
                decisions::decide(ledger, &id(), Decision::Resend { until: i64::MAX }).await.unwrap();
            assert_eq!(decided, model.decide(|message| message.state == InDoubt, Pending, ""));
            format!("resends messages in doubt: {decided}")
        }
        _ => {
            let decided =
                decisions::decide(ledger, &id(), Decision::Abandon { until: i64::MAX }).await.unwrap();
            assert_eq!(decided, model.decide(|message| message.state == InDoubt, Rejected, ABANDONED));
            format!("abandons messages in doubt: {decided}")
        }
    }
}

async fn assert_same(ledger: &impl Ledger, model: &Model, history: &str) {
    let campaign = read_campaign(ledger).await;
    assert_eq!(campaign.state, model.state, "{history}");
    let counts = &campaign.counts;
    for (state, count) in [
        (Pending, counts.pending),
        (Sending, counts.sending),
        (Accepted, counts.accepted),
        (Rejected, counts.rejected),
        (InDoubt, counts.in_doubt),
        (Skipped, counts.skipped),
    ] {
        assert_eq!(count, model.count(state), "{state}, {history}");
    }
    let mut codes = BTreeMap::<String, u64>::new();
    for message in model.messages.values().filter(|message| message.state == Rejected) {
        *codes.entry(message.code.clone()).or_default() += 1;
    }
    assert_eq!(campaign.rejected, codes, "{history}");
    let lines = report(ledger).await;
    assert_eq!(lines.len(), model.messages.len(), "{history}");
    for (line, message) in lines.iter().zip(model.messages.values()) {
        assert_eq!(line.state, message.state, "row {}, {history}", line.row);
        let code = match message.state {
            Accepted => line.sid.as_deref(),
            Rejected | Skipped => line.code.as_deref(),
            Pending | Sending | InDoubt => None,
        };
        assert_eq!(code.unwrap_or_default(), message.code, "row {}, {history}", line.row);
    }
}
