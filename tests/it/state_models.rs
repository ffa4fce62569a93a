//! A campaign's life, held against a plain model of the states of its messages.
//!
//! The model knows the states of the contract and nothing of how a ledger keeps them: what a worker may claim, what an
//! answer, late or early, says, and what a person may decide. After every step the ledger's counts and its report say
//! what the model says.

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

/// A message as the model knows it.
#[derive(Clone, Debug)]
struct Message {
    state: MessageState,
    /// The SID, the code or the reason.
    word: String,
    /// The claim under which it is sent, or was sent when its worker went away.
    claim: u64,
    was_claimed: bool,
}

impl Message {
    fn put(&mut self, state: MessageState, word: &str) {
        (self.state, self.word) = (state, word.to_owned());
    }

    /// What the answer to a request says, however late it comes.
    fn answered(&mut self, claim: u64, outcome: &Outcome) {
        let is_own = self.claim == claim;
        match (self.state, outcome) {
            // Evidence that it was taken counts whenever it comes: but a first one is not replaced.
            (Sending | InDoubt | Rejected, Outcome::Accepted { sid }) => self.put(Accepted, sid),
            (Pending, Outcome::Accepted { sid }) if self.was_claimed => self.put(Accepted, sid),
            // That it was refused says nothing of a later request.
            (Sending, Outcome::Rejected { code, .. }) if is_own => self.put(Rejected, code),
            (InDoubt, Outcome::Rejected { code, .. }) => self.put(Rejected, code),
            (Sending, Outcome::InDoubt { .. }) if is_own => {
                self.claim = 0;
                self.put(InDoubt, "");
            }
            (Sending | InDoubt, Outcome::Released) if is_own => {
                self.claim = 0;
                self.put(Pending, "");
            }
            (Pending, Outcome::Skipped { reason, .. }) => self.put(Skipped, reason.as_str()),
            _ => {}
        }
    }

    /// What a callback of the provider says.
    fn reported(&mut self, state: Delivery, sid: &str) {
        let is_proof = match self.state {
            Sending | InDoubt => true,
            Pending => self.was_claimed,
            // That it failed may be just what the refusal said.
            Rejected => state != Delivery::Failed,
            Accepted | Skipped => false,
        };
        if is_proof {
            self.put(Accepted, sid);
        }
    }
}

/// A campaign as the model knows it: messages by batch and place.
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

    /// Moves all messages that a decision is about, and says how many.
    fn decide(&mut self, is_meant: impl Fn(&Message) -> bool, state: MessageState, word: &str) -> u64 {
        let meant = self.messages.values_mut().filter(|message| is_meant(message));
        meant.map(|message| message.put(state, word)).count() as u64
    }
}

/// A campaign of a store, in the middle of its life, goes on in a fleet's Redis as if nothing had been.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_goes_on_after_its_store_was_moved() {
    let first = first_seed_of_commit();
    let count = std::env::var("FLOWCAST_STATE_SEEDS").map_or(12, |count| count.parse().unwrap());
    let fleet = redis_store();
    for seed in first..first + count {
        let file = SqliteFile(tempfile::tempdir().unwrap());
        let store = file.open().await;
        let mut life = Life::begin(&store, seed).await;
        let store = life.live(&file, store, 50).await;
        let before = report(&store).await;
        drop(store);
        let path = file.0.path().join("flowcast.db");
        let store = Sqlite::open(&path, Access::Move).unwrap();
        let redis = fleet.open().await;
        let lost = life.model.decide(|message| message.state == Sending, InDoubt, "");
        let within = |_: &str| std::time::Duration::from_hours(1);
        let moved = migrate(&store, &redis, &[], within).await.unwrap();
        assert_eq!((moved.campaigns, moved.in_doubt), (vec![id()], lost), "seed {seed}");
        life.steps.push(format!("moved: {lost} in doubt"));
        assert_same(&redis, &life.model, &life.so_far()).await;
        // Times, attempts and texts, too.
        if lost == 0 {
            assert_eq!(report(&redis).await, before, "{}", life.so_far());
        }
        // Moved once more it is the same, and nobody else opens the store.
        migrate(&store, &redis, &[], within).await.unwrap();
        assert_same(&redis, &life.model, &life.so_far()).await;
        drop(store);
        assert!(Sqlite::open(&path, Access::Send).is_err());
        let redis = life.live(&fleet, redis, 50).await;
        redis.remove(&id()).await.unwrap();
    }
}

/// Lives of a campaign, one behind the other in the same ledger, each from a seed of its own.
pub async fn random_lives_are_as_a_plain_model_says(store: impl Store) {
    let first = first_seed_of_commit();
    let count = std::env::var("FLOWCAST_STATE_SEEDS").map_or(12, |count| count.parse().unwrap());
    let mut ledger = store.open().await;
    for seed in first..first + count {
        let mut life = Life::begin(&ledger, seed).await;
        ledger = life.live(&store, ledger, 100).await;
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
    async fn begin(ledger: &impl Ledger, seed: u64) -> Self {
        register_campaign(ledger).await;
        transitions::change_state(ledger, &id(), CampaignState::Running, None).await.unwrap();
        let size = u64::from(SIZE);
        let rows = u64::from(BATCHES) * size;
        let checkpoint = Checkpoint { batches: BATCHES, rows, digest: "d".into(), complete: true };
        let batches = (0..BATCHES).map(|number| batch(number, size)).collect();
        ledger.checkpoint(&id(), 0, checkpoint, batches, Vec::new()).await.unwrap();
        let new = Message { state: Pending, word: String::new(), claim: 0, was_claimed: false };
        let places = (0..BATCHES).flat_map(|number| (0..SIZE).map(move |place| (number, place)));
        let messages = places.map(|place| (place, new.clone())).collect();
        let model = Model { state: CampaignState::Running, messages };
        Self { seed, random: SmallRng::seed_from_u64(seed), model, claims: Vec::new(), steps: Vec::new() }
    }

    fn so_far(&self) -> String {
        format!("seed {}: {:#?}", self.seed, self.steps)
    }

    async fn live<S: Store>(&mut self, store: &S, mut ledger: S::Ledger, steps: u32) -> S::Ledger {
        for _ in 0..steps {
            let Self { random, model, claims, .. } = self;
            // Workers do more than people.
            let step = match random.random_range(0..20) {
                0..=4 => claim(&ledger, model, claims, random).await,
                5..=10 => answer(&ledger, model, claims, random).await,
                11 => call_back(&ledger, model, random).await,
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
            assert_same(&ledger, &self.model, &self.so_far()).await;
        }
        ledger
    }
}

/// Some places of a batch.
fn some(random: &mut SmallRng) -> (u32, Vec<u8>) {
    let places = (0..SIZE).filter(|_| random.random_bool(0.6)).collect();
    (random.random_range(0..BATCHES), places)
}

async fn claim(
    ledger: &impl Ledger,
    model: &mut Model,
    claims: &mut Vec<(u32, Claim)>,
    random: &mut SmallRng,
) -> String {
    let (number, places) = some(random);
    let size = u64::from(SIZE);
    let claim = claims::claim(ledger, batch(number, size), places.clone(), ClaimPurpose::Send).await.unwrap();
    let runs = model.state == CampaignState::Running;
    let free = |message: &Message| runs && message.state == Pending;
    let mut granted = Vec::new();
    for (place, message) in model.of_batch(number) {
        if places.contains(&place) && free(message) {
            message.put(Sending, "");
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

/// A request is answered, or answered once more, in whole or in part.
async fn answer(
    ledger: &impl Ledger,
    model: &mut Model,
    claims: &[(u32, Claim)],
    random: &mut SmallRng,
) -> String {
    // Mostly one of the last; sometimes one that everybody has given up.
    let from = if random.random_bool(0.5) { claims.len().saturating_sub(2) } else { 0 };
    let Some((number, claim)) = claims[from..].choose(random) else { return "answers nothing".into() };
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
    // Nothing waits for a late proof in a campaign that has ended.
    let has_ended = model.state.is_over();
    for (place, outcome) in &outcomes {
        let message = model.messages.get_mut(&(*number, *place)).unwrap();
        if !(has_ended && message.state == InDoubt && *outcome == Outcome::Released) {
            message.answered(claim.token, outcome);
        }
    }
    let step = format!("answers {outcomes:?} to claim {:x} of batch {number}", claim.token);
    let recorded: Vec<RecordOutcome> = outcomes.into_iter().map(RecordOutcome::from).collect();
    claims::record(ledger, &id(), *number, claim.token, recorded).await.unwrap();
    step
}

async fn call_back(ledger: &impl Ledger, model: &mut Model, random: &mut SmallRng) -> String {
    let (number, place) = (random.random_range(0..BATCHES), random.random_range(0..SIZE));
    let state = *[Delivery::Sent, Delivery::Read, Delivery::Failed].choose(random).unwrap();
    let sid = format!("reported-{number}-{place}");
    let news = DeliveryUpdate::Delivery { state, code: Some("30016".into()), text: "no media".into() };
    let report = MessageReport { message: place, sid: Some(sid.clone()), at: 5_000, news };
    evidence::apply_reports(ledger, &id(), number, vec![report]).await.unwrap();
    model.messages.get_mut(&(number, place)).unwrap().reported(state, &sid);
    format!("message {place} of batch {number} is reported {state:?}")
}

/// A number is found on the suppression list just before its request.
async fn skip(ledger: &impl Ledger, model: &mut Model, random: &mut SmallRng) -> String {
    let (number, place) = (random.random_range(0..BATCHES), random.random_range(0..SIZE));
    let outcome = Outcome::Skipped { reason: SkipReason::Suppressed, detail: String::new() };
    model.messages.get_mut(&(number, place)).unwrap().answered(0, &outcome);
    claims::record(ledger, &id(), number, 0, vec![(place, outcome).into()]).await.unwrap();
    format!("message {place} of batch {number} is suppressed")
}

/// What a person does, and what follows from it.
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
            // A completed one that has something to send again runs again as it is decided.
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
            let is_meant = |message: &Message| {
                let is_named = codes.contains(&message.word);
                message.state == Rejected && (is_named || codes.is_empty() && message.word != ABANDONED)
            };
            let expected = model.decide(is_meant, Pending, "");
            assert_eq!(decided, expected, "a retry of {codes:?}");
            format!("retries {codes:?}: {decided}")
        }
        15..=17 if !is_cancelled => {
            let decided =
                decisions::decide(ledger, &id(), Decision::Resend { until: i64::MAX }).await.unwrap();
            assert_eq!(decided, model.decide(|message| message.state == InDoubt, Pending, ""));
            format!("sends what is in doubt again: {decided}")
        }
        _ => {
            let decided =
                decisions::decide(ledger, &id(), Decision::Abandon { until: i64::MAX }).await.unwrap();
            assert_eq!(decided, model.decide(|message| message.state == InDoubt, Rejected, ABANDONED));
            format!("gives up what is in doubt: {decided}")
        }
    }
}

async fn assert_same(ledger: &impl Ledger, model: &Model, so_far: &str) {
    let campaign = read_campaign(ledger).await;
    assert_eq!(campaign.state, model.state, "{so_far}");
    let counts = &campaign.counts;
    for (state, count) in [
        (Pending, counts.pending),
        (Sending, counts.sending),
        (Accepted, counts.accepted),
        (Rejected, counts.rejected),
        (InDoubt, counts.in_doubt),
        (Skipped, counts.skipped),
    ] {
        assert_eq!(count, model.count(state), "{state}, {so_far}");
    }
    let mut codes = BTreeMap::<String, u64>::new();
    for message in model.messages.values().filter(|message| message.state == Rejected) {
        *codes.entry(message.word.clone()).or_default() += 1;
    }
    assert_eq!(campaign.rejected, codes, "{so_far}");
    let lines = report(ledger).await;
    assert_eq!(lines.len(), model.messages.len(), "{so_far}");
    for (line, message) in lines.iter().zip(model.messages.values()) {
        assert_eq!(line.state, message.state, "row {}, {so_far}", line.row);
        let word = match message.state {
            Accepted => line.sid.as_deref(),
            Rejected | Skipped => line.code.as_deref(),
            Pending | Sending | InDoubt => None,
        };
        assert_eq!(word.unwrap_or_default(), message.word, "row {}, {so_far}", line.row);
    }
}
