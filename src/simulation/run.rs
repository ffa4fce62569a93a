//! One run: campaigns and workers with faults, then a calm period in which all campaigns must end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::broker::{Batches as SimulatedQueue, Broker};
use super::ledger::Remote;
use super::network::Network;
use super::node::Node;
use super::{Broken, Faults, World, check};
use crate::audience::Audiences;
use crate::campaign::control::{Action, Control};
use crate::campaign::delivery::{Delivery, DeliveryUpdate};
use crate::campaign::{CampaignId, CampaignState, Job, MessageState, Phone, Rate};
use crate::dispatch::{
    Account, Accounts, Context, Events, LoadedJob, LoopProgress, control, prepare, register, work,
};
use crate::ledger::{Batches, Campaigns, Cursor, Memory, MessageReport, Reporting};
use crate::ledger::{evidence, report_page};
use crate::limiter::{AccountLimits, Concurrency, Rates};
use crate::provider::{Credentials, PROVIDERS, Transport};
use crate::runtime::{chance, one_of, simulated};

/// Timeout for a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much longer than a request a claim lasts.
const MARGIN: Duration = Duration::from_secs(10);
/// Longest period with faults, in seconds.
const STORM: f64 = 60.0;
/// Period without faults within which all campaigns must end.
const CALM: Duration = Duration::from_mins(30);

/// A campaign of a run.
struct Sent {
    id: CampaignId,
    prepared: Arc<LoadedJob>,
    to: Vec<Phone>,
}

/// The parts of a run.
struct SimulationRun {
    world: Arc<World>,
    ledger: Memory,
    broker: Broker,
    numbers: AtomicU32,
    kind: usize,
    /// The account's limits of messages over time, each with its start, if it has a limit.
    rates: Vec<(i64, Rate)>,
    campaigns: Vec<Sent>,
    workers: Vec<RunningWorker>,
}

/// A running worker.
struct RunningWorker {
    node: Arc<Node>,
    account: Arc<Account>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Runs a seed. Returns a summary, or the violated invariant.
pub(super) fn run(seed: u64, broken: Option<Broken>, logs: bool) -> Result<String, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let done = runtime.block_on(async {
        simulated::begin(seed);
        let faults = Faults::by_chance(broken);
        if logs {
            eprintln!("seed {seed}: {faults:?}");
        }
        let world = Arc::new(World { faults, state: parking_lot::Mutex::default(), logs });
        let run = SimulationRun::new(&world);
        run.whole().await
    });
    simulated::end();
    done
}

impl SimulationRun {
    fn new(world: &Arc<World>) -> Self {
        let clock = Arc::new(|| simulated::true_time().unwrap_or_default());
        let mut run = Self {
            world: world.clone(),
            ledger: Memory::new(clock, TIMEOUT + MARGIN),
            broker: Broker::new(world),
            numbers: AtomicU32::new(0),
            kind: one_of(2),
            rates: Vec::new(),
            campaigns: Vec::new(),
            workers: Vec::new(),
        };
        if chance() < 0.5 {
            run.rates.push(Self::limit());
        }
        let account = run.account(&Node::new(world, &run.numbers));
        for nth in 0..=one_of(2) as u64 {
            let rows = 1 + one_of(if chance() < 0.5 { 8 } else { 50 }) as u64;
            let to: Vec<Phone> =
                (0..rows).filter_map(|row| Phone::from_digits(919_876_000_000 + nth * 1000 + row)).collect();
            let id: CampaignId = format!("c{nth}").parse().unwrap();
            let job = Self::job(&id, &to);
            let job = Job::read(job.to_string().as_bytes()).unwrap();
            if job.on_in_doubt == crate::campaign::job::OnInDoubt::Resend {
                let mut seen = world.seen();
                seen.allowed.extend(to.iter().map(|phone| (*phone, 1000)));
            }
            let prepared = Arc::new(prepare(job, &Audiences::default(), &account).unwrap());
            run.campaigns.push(Sent { id, prepared, to });
        }
        run
    }

    /// Returns a random limit of messages that starts now.
    fn limit() -> (i64, Rate) {
        let (rate, burst) = (2 + one_of(20), 1 + one_of(6));
        let rate = format!("{rate}/s,burst={burst}").parse().unwrap();
        (simulated::true_time().unwrap_or_default(), rate)
    }

    fn job(id: &CampaignId, to: &[Phone]) -> Value {
        let recipients: Vec<Value> = to.iter().map(|phone| json!({ "phone": phone.to_string() })).collect();
        let mut job = json!({
            "version": 1, "id": id, "account": "main", "from": "+912248931479",
            "audience": { "recipients": recipients },
            "message": { "type": "text", "text": { "body": "x" } },
        });
        if chance() < 0.7 {
            // Small batches, so that a few rows make several.
            job["limits"] = json!({ "messages": format!("{}/s,burst={}", 5 + one_of(100), 1 + one_of(5)) });
        }
        if chance() < 0.1 {
            job["on_in_doubt"] = "resend".into();
        }
        job
    }

    /// Returns the account of a worker on a node.
    fn account(&self, node: &Arc<Node>) -> Arc<Account> {
        let credentials = Credentials {
            account_sid: "a".into(),
            api_key: "k".into(),
            api_token: "t".into(),
            ..Credentials::default()
        };
        let kind = PROVIDERS[self.kind];
        let provider = (kind.open)(&"http://127.0.0.1:1".parse().unwrap(), &credentials).unwrap();
        let transport = Transport::simulated(
            TIMEOUT,
            Arc::new(Network { node: node.clone(), ledger: self.ledger.clone() }),
        );
        let rates = Rates { messages: self.rates.last().map(|(_, rate)| *rate), ..Rates::default() };
        let limits = AccountLimits::new(rates, Concurrency::fixed(1 + one_of(4)));
        Arc::new(Account::new(kind, provider, transport, limits, None))
    }

    fn begin_worker(&mut self) {
        let node = Node::new(&self.world, &self.numbers);
        let ledger = Remote { inner: self.ledger.another(), node: node.clone() };
        let account = self.account(&node);
        let accounts = Accounts::new(BTreeMap::from([("main".to_owned(), Ok(account.clone()))]));
        let context = Context::new(accounts, Audiences::default(), Events::default(), false);
        let (home, stop) = ((self.broker.clone(), node.clone()), CancellationToken::new());
        let stopped = stop.clone();
        self.world.log(|| format!("worker {} begins", node.number));
        let task = tokio::spawn(async move {
            let (_, registered) = mpsc::channel(1);
            work::<Remote, SimulatedQueue>(
                &ledger,
                &home,
                &context,
                registered,
                &LoopProgress::default(),
                &stopped,
            )
            .await
            .unwrap();
        });
        self.workers.push(RunningWorker { node, account, stop, task });
    }

    async fn whole(mut self) -> Result<String, String> {
        let people = Remote { inner: self.ledger.another(), node: Node::new(&self.world, &self.numbers) };
        for _ in 0..=one_of(3) {
            self.begin_worker();
        }
        for campaign in &self.campaigns {
            if chance() < 0.3 {
                sleep(Duration::from_secs_f64(chance() * 5.0)).await;
            }
            register(
                &people,
                &campaign.prepared,
                false,
                false,
                "an operator",
                &crate::ledger::UnmovedStore::default(),
            )
            .await
            .unwrap();
        }
        let calm_at = Instant::now() + Duration::from_secs_f64(chance() * STORM);
        while Instant::now() < calm_at && !self.is_over().await {
            sleep(Duration::from_secs_f64(chance() * 2.0)).await;
            self.happen(&people).await;
        }
        self.world.seen().is_calm = true;
        self.world.log(|| "the faults end".into());
        if self.living().is_empty() {
            self.begin_worker();
        }
        let until = Instant::now() + CALM;
        loop {
            let mut are_over = true;
            for campaign in &self.campaigns {
                let known = self.ledger.campaign(&campaign.id).await.unwrap().unwrap();
                are_over &= known.state.is_over() && known.published == Some(known.state);
                if matches!(known.state, CampaignState::Paused | CampaignState::Held) {
                    self.act(&people, &campaign.id, Action::Resume).await;
                }
            }
            if are_over || Instant::now() > until {
                break;
            }
            sleep(Duration::from_secs(5)).await;
        }
        // Requests that were in flight when the campaigns ended have ended too.
        for worker in self.workers.iter_mut().filter(|worker| !worker.node.is_dead()) {
            worker.stop.cancel();
            let ended = tokio::time::timeout(CALM, &mut worker.task).await;
            let ended = ended.map_err(|_| format!("worker {} does not end", worker.node.number))?;
            ended.map_err(|error| format!("worker {}: {error}", worker.node.number))?;
        }
        if let Some(wrong) = self.world.seen().wrong.take() {
            return Err(wrong);
        }
        let mut story = String::new();
        for Sent { id, to, .. } in &self.campaigns {
            check::campaign(&self.world, &self.ledger, id, to).await?;
            let campaign = self.ledger.campaign(id).await.unwrap().unwrap();
            story += &format!("{id} {} {:?}; ", campaign.state, campaign.counts);
        }
        let faults = &self.world.faults;
        if !self.rates.is_empty()
            && self.workers.len() == 1
            && self.numbers.load(std::sync::atomic::Ordering::Relaxed) == 3
            && !faults.is_slow
            && !faults.freezes
            && !faults.loses
        {
            check::limit(&self.world, &self.rates)?;
        }
        let ended = simulated::true_time().unwrap_or_default();
        Ok(format!("{story}{} requests, {ended}", self.world.seen().sent.len()))
    }

    /// Returns the indices of the workers that are alive and not stopping.
    fn living(&self) -> Vec<usize> {
        let lives = |worker: &RunningWorker| !worker.node.is_dead() && !worker.stop.is_cancelled();
        (0..self.workers.len()).filter(|nth| lives(&self.workers[*nth])).collect()
    }

    async fn is_over(&self) -> bool {
        for campaign in &self.campaigns {
            if !self.ledger.campaign(&campaign.id).await.unwrap().unwrap().state.is_over() {
                return false;
            }
        }
        true
    }

    /// Causes a random event.
    async fn happen(&mut self, people: &Remote) {
        let faults = self.world.faults.clone();
        let living = self.living();
        match one_of(8) {
            0 if faults.crashes && !living.is_empty() => {
                let worker = &self.workers[living[one_of(living.len())]];
                self.world.log(|| format!("worker {} crashes", worker.node.number));
                worker.node.die();
                worker.task.abort();
                self.broker.lose_connection(worker.node.number);
            }
            1 if faults.freezes && !living.is_empty() => {
                let worker = &self.workers[living[one_of(living.len())]];
                let time = Duration::from_secs_f64(chance() * 40.0);
                self.world.log(|| format!("worker {} freezes for {time:.1?}", worker.node.number));
                worker.node.freeze(time);
                if chance() < 0.7 {
                    // The broker closes the connection.
                    self.broker.lose_connection(worker.node.number);
                }
            }
            2 if faults.broker => self.broker.misbehave(),
            3 if living.len() < 3 => self.begin_worker(),
            4 if faults.crashes && living.len() > 1 => {
                let worker = &self.workers[living[0]];
                self.world.log(|| format!("worker {} is stopped", worker.node.number));
                worker.stop.cancel();
            }
            5 if faults.people => {
                let id = self.campaigns[one_of(self.campaigns.len())].id.clone();
                let action = match one_of(9) {
                    0 | 1 => Action::Pause,
                    2..=4 => Action::Resume,
                    5 => Action::Retry { codes: Vec::new() },
                    6 => Action::Resolve { resend: true, older_than: None },
                    7 => Action::Resolve { resend: false, older_than: None },
                    _ if chance() < 0.3 => Action::Cancel,
                    _ => Action::Resume,
                };
                self.act(people, &id, action).await;
            }
            6 => {
                for worker in &self.workers {
                    worker.node.jump();
                }
                self.report().await;
            }
            7 if !self.rates.is_empty() => {
                let (at, rate) = Self::limit();
                self.world.log(|| format!("the limit is now {rate}"));
                self.rates.push((at, rate));
                for worker in &self.workers {
                    worker.account.limits.set_rates(Rates { messages: Some(rate), ..Rates::default() });
                }
            }
            _ => {}
        }
    }

    /// Carries out an operator's action on a campaign.
    async fn act(&self, people: &Remote, id: &CampaignId, action: Action) {
        self.world.log(|| format!("an operator: {id} {action:?}"));
        if matches!(action, Action::Resolve { resend: true, .. }) {
            let states: HashMap<Phone, MessageState> = self.states(id).await.into_iter().collect();
            let recipients = self.campaigns.iter().filter(|campaign| campaign.id == *id);
            let mut seen = self.world.seen();
            for phone in recipients.flat_map(|campaign| &campaign.to) {
                let is_meant = match states.get(phone) {
                    Some(MessageState::InDoubt | MessageState::Sending) => true,
                    // With clock skew, a later doubt may seem older than the action, even one about a message that is
                    // not planned yet.
                    Some(MessageState::Pending) | None => self.world.faults.drift != 0,
                    Some(_) => false,
                };
                if is_meant {
                    *seen.allowed.entry(*phone).or_default() += 1;
                }
            }
        }
        let asked = Control { id: id.clone(), action, by: Some("an operator".into()), asked_at: None };
        // An action that the campaign's state does not allow fails.
        let _ = control(people, &asked).await;
    }

    async fn states(&self, id: &CampaignId) -> Vec<(Phone, MessageState)> {
        let (mut states, mut at) = (Vec::new(), Some(Cursor::default()));
        while let Some(from) = at {
            let page = report_page(&self.ledger, id, from).await.unwrap();
            states.extend(
                page.lines.iter().filter_map(|line| Some((line.recipient.parse().ok()?, line.state))),
            );
            at = page.next;
        }
        states
    }

    /// Sends delivery reports for some accepted messages.
    async fn report(&self) {
        for Sent { id, .. } in &self.campaigns {
            let written = self.ledger.written(id).await.unwrap();
            let numbers: Vec<u32> = (0..written).collect();
            for stored in self.ledger.load(id, &numbers).await.unwrap().into_iter().flatten() {
                let mut reports = Vec::new();
                for (place, (_, phone)) in (0..).zip(&stored.batch.recipients) {
                    if self.world.seen().taken.contains_key(phone) && chance() < 0.3 {
                        let update = DeliveryUpdate::Delivery {
                            state: Delivery::Delivered,
                            code: None,
                            text: String::new(),
                        };
                        let at = simulated::true_time().unwrap_or_default();
                        let sid = Some("sid-reported".to_owned());
                        reports.push(MessageReport { message: place, sid, at, update });
                    }
                }
                if !reports.is_empty() {
                    evidence::apply_reports(&self.ledger, id, stored.batch.number, reports).await.unwrap();
                }
            }
        }
    }
}
