//! `flowcast worker`: takes jobs from the queue and sends them; with `--embedded` it sends the campaigns in the store of
//! this machine.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use axum::Router;
use clap::Args;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::reloading::{HttpSide, Reloading};
use super::sandbox::{Faults, start_in_process};
use super::{
    Failure, Outcome, callback_endpoint::CallbackEndpoint, open, open::Destination, run::listen_for_signals,
};
use crate::callbacks::{Reports, Slot, StopWords, router};
use crate::campaign::{CampaignId, PhoneParser, counted};
use crate::config::Config;
use crate::dispatch::{Context, Events, LoopProgress, Webhooks, take_jobs, work};
use crate::forward::Forward;
use crate::http::{self, Api, Health, Http};
use crate::ledger::{Access, AnyLedger, Clock, Ledger, Redis, Sqlite, UnmovedStore};
use crate::provider::transport::REQUEST_TIMEOUT;
use crate::queue::{Local, RabbitMq, rabbitmq::Broker};
use crate::redis_client::{RedisClient, RetryPolicy};
use crate::sandbox::Reporting;

/// Maximum number of campaigns of a store that are named.
const MAX_NAMED: usize = 5;
/// Interval between removals of expired campaigns.
const CLEAN: Duration = Duration::from_mins(10);

/// Audience root of a sandbox if none is configured.
const AUDIENCES: &str = "audiences";

/// Capacity of the channel of registered campaigns that no supervisor has yet.
const CHANNEL_CAPACITY: usize = 64;

/// Run a worker: it takes jobs from the queue and sends their messages.
#[derive(Args)]
pub(super) struct WorkerArgs {
    /// Send the campaigns in this machine's store; needs no broker and no Redis
    #[arg(long)]
    embedded: bool,
    /// Store to use with --embedded [default: store.path of the configuration]
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Send to a simulated provider with simulated recipients; needs --embedded, but no configuration
    #[arg(long, requires = "embedded")]
    sandbox: bool,
    #[command(flatten)]
    faults: Faults,
}

pub(super) async fn main(worker: WorkerArgs, config: &Config, file: Option<PathBuf>) -> Outcome {
    tokio::task::spawn_blocking(PhoneParser::load);
    let stop = CancellationToken::new();
    tokio::spawn(listen_for_signals(stop.clone(), |text| tracing::info!("{text}")));
    if worker.faults.any() && !worker.sandbox {
        return Err(Failure::Usage("faults need a sandbox; add --sandbox".into()));
    }
    if worker.store.is_some() && !worker.embedded {
        return Err(Failure::Usage("--store needs --embedded; the fleet's ledger is Redis".into()));
    }
    if worker.embedded {
        return embedded(&worker, config, file, &stop).await;
    }
    let Some(redis) = &config.redis else {
        let text = "no Redis is configured: set redis.url in the configuration or FLOWCAST_REDIS__URL, or add --embedded";
        return Err(Failure::Usage(text.into()));
    };
    if config.amqp.is_none() {
        let text = "no broker is configured: set amqp.url in the configuration or FLOWCAST_AMQP__URL, or add --embedded";
        return Err(Failure::Usage(text.into()));
    }
    let health = Health::default();
    // Served from the start, so that operators see what the worker waits for.
    let slot = Slot::default();
    let api = Api::default();
    let access = http::Access::new(open::tokens(config)?);
    let more = router(slot.clone()).merge(pages(config, &api, &access, &health));
    let http = Http::start(&config.http.listen, health.clone(), more).await?;
    let longest = config.accounts.values().map(|account| account.timeout.0).max();
    let connecting = async {
        let server = open::redis_server(redis, RetryPolicy::Endless).await?;
        let broker = open::broker(config, true).await?;
        let ledger = Redis::on(server.clone(), longest.unwrap_or(REQUEST_TIMEOUT));
        let ledger = ledger.with_replicas(redis.replicas).with_journal(&std::env::temp_dir())?;
        let endpoint = CallbackEndpoint::open(config, config.http.public_url.as_ref(), &ledger).await?;
        Ok::<_, Failure>((server, broker, ledger, endpoint))
    };
    let (server, broker, redis_ledger, endpoint) = tokio::select! {
        () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
        connected = connecting => connected?,
    };
    let ledger = AnyLedger::Fleet(redis_ledger.clone());
    let forward = forward(config, Some(&broker))?;
    let events = events(config, Some(broker.clone()), &forward);
    let destination = Destination::Providers(Some(server.clone()));
    let accounts = destination.accounts(config, endpoint.as_ref());
    let mut context = Context::new(accounts, open::audiences(config)?, events, false);
    context.unmoved = UnmovedStore::at(config.store.path.clone());
    log_unfinished_campaigns(&context.unmoved).await;
    http::count_from_zero(&context.accounts);
    let _ = slot.set(reports(config, &ledger, &context, forward));
    api.open(ledger.clone(), context.clone());
    add_health_checks(&health, &server, &broker);
    let progress = LoopProgress::default();
    let recovering = redis_ledger.clone();
    health.watch_loop(progress.clone(), move || recovering.recovery_steps());
    log_start(&http, "Redis and RabbitMQ");
    let http_side = Some(HttpSide { access, public_url: None });
    let accounts = context.accounts.clone();
    Reloading { file, accounts, only: None, destination, ledger: ledger.clone(), http: http_side }
        .start(config, stop.clone());
    tokio::spawn(remove_expired(redis_ledger, redis.keep_for.0, stop.clone()));
    let done = drain(config, &stop, async {
        let (taken, registered) = mpsc::channel(CHANNEL_CAPACITY);
        let work = Box::pin(work::<_, RabbitMq>(&ledger, &broker, &context, registered, &progress, &stop));
        let jobs = Box::pin(take_jobs(&ledger, &broker, &context, &taken, &stop));
        tokio::join!(work, jobs).0
    })
    .await;
    broker.close().await;
    done
}

/// Logs unfinished campaigns of a store on this machine, which the fleet does not send.
async fn log_unfinished_campaigns(unmoved: &UnmovedStore) {
    match unmoved.unfinished().await {
        Ok(Some((store, campaigns))) if !campaigns.is_empty() => tracing::warn!(
            "the store {store} of this machine has {} ({}), which the fleet does not send: move them \
             with `flowcast migrate --store {store}`, or finish them with `flowcast worker --embedded --store {store}`",
            counted(campaigns.len() as u64, "unfinished campaign"),
            campaigns.iter().take(MAX_NAMED).map(CampaignId::as_str).collect::<Vec<_>>().join(", "),
        ),
        Ok(_) => {}
        Err(error) => {
            tracing::error!(%error, "this machine accepts no new campaign until the store can be read");
        }
    }
}

/// Runs a worker on the store of this machine.
async fn embedded(
    worker: &WorkerArgs,
    config: &Config,
    file: Option<PathBuf>,
    stop: &CancellationToken,
) -> Outcome {
    let path = worker.store.as_deref().unwrap_or(&config.store.path);
    let ledger = AnyLedger::Embedded(Sqlite::open(path, Access::Send)?);
    let (health, slot, api) = (Health::default(), Slot::default(), Api::default());
    let access = http::Access::new(open::tokens(config)?);
    let more = router(slot.clone()).merge(pages(config, &api, &access, &health));
    let http = Http::start(&config.http.listen, health.clone(), more).await?;
    let forward = forward(config, None)?;
    let events = events(config, None, &forward);
    let (_sandbox, destination) = if worker.sandbox {
        // A few simulated recipients are unreachable, most read, some reply, within seconds.
        let delay = Duration::from_secs(3);
        let reporting = Reporting { delay, fail: 0.02, read: 0.7, reply: 0.3, ..Reporting::default() };
        let (sandbox, address) = start_in_process(&worker.faults, reporting).await?;
        (Some(sandbox), Destination::Sandbox(address))
    } else {
        (None, Destination::Providers(None))
    };
    // A sandbox sends its reports to this process.
    let own_url = worker.sandbox.then(|| format!("http://{}", http.address).parse().ok()).flatten();
    let public_url = config.http.public_url.as_ref().or(own_url.as_ref());
    let endpoint = CallbackEndpoint::open(config, public_url, &ledger).await?;
    let audiences = match &config.audiences.root {
        None if worker.sandbox => open::audiences_below(config, Some(AUDIENCES))?,
        _ => open::audiences(config)?,
    };
    let accounts = destination.accounts(config, endpoint.as_ref());
    let context = Context::new(accounts, audiences, events, worker.sandbox);
    http::count_from_zero(&context.accounts);
    let _ = slot.set(reports(config, &ledger, &context, forward.clone()));
    api.open(ledger.clone(), context.clone());
    // The store is open, so the worker is ready.
    health.check("store", || true);
    let progress = LoopProgress::default();
    health.watch_loop(progress.clone(), || 0);
    for (name, account) in context.accounts.usable() {
        open::remember_recipients(&ledger, &name, &account, account.limits.rates()).await?;
    }
    let sandbox = if worker.sandbox { ", with a sandbox: nothing is really sent" } else { "" };
    log_start(&http, &format!("the store {}{sandbox}", path.display()));
    let http_side = Some(HttpSide { access, public_url: own_url });
    let accounts = context.accounts.clone();
    let reloading =
        Reloading { file, accounts, only: None, destination, ledger: ledger.clone(), http: http_side }
            .start(config, stop.clone());
    let (_, nothing) = mpsc::channel(1);
    let done = drain(config, stop, work::<_, Local>(&ledger, &(), &context, nothing, &progress, stop)).await;
    stop.cancel();
    // The task holds the store open.
    let _ = reloading.await;
    if forward.waiting() > 0 {
        tracing::warn!(
            "{} with events or reports lost: their receivers did not accept them, and no broker keeps them",
            counted(forward.waiting() as u64, "message")
        );
    }
    done
}

/// Returns the routes of the API and the dashboard.
fn pages(config: &Config, api: &Api, access: &http::Access, health: &Health) -> Router {
    let dashboard =
        http::dashboard_router(api.clone(), access.clone(), health.clone(), config.http.public_url.as_ref());
    dashboard.merge(http::api_router(api.clone(), access.clone(), health.clone()))
}

/// Starts forwarding of reports and events.
fn forward(config: &Config, broker: Option<&Broker>) -> Result<Forward, Failure> {
    let callbacks = &config.callbacks;
    let key = callbacks.signing_key.as_ref().map(|key| key.read("callbacks.signing_key")).transpose()?;
    let webhooks = config.events.webhooks.iter().map(|webhook| webhook.url.clone());
    Forward::start(broker, key.as_ref(), callbacks.forward_to_private, webhooks).map_err(Failure::Outside)
}

/// Returns the destinations of events.
fn events(config: &Config, broker: Option<Broker>, forward: &Forward) -> Events {
    let webhooks = &config.events.webhooks;
    let to = webhooks.iter().map(|webhook| (webhook.url.to_string(), webhook.events.clone())).collect();
    let to = (!webhooks.is_empty()).then(|| Webhooks { forward: forward.clone(), to: Arc::new(to) });
    Events { broker, webhooks: to }
}

/// Returns the receiver of reports for a ledger.
fn reports<L: Ledger>(config: &Config, ledger: &L, context: &Context, forward: Forward) -> Reports<L> {
    let callbacks = &config.callbacks;
    let words = StopWords::new(callbacks.stop_words.as_deref());
    Reports::new(ledger, &context.accounts, &context.events, forward, words)
}

fn log_start(http: &Http, on: &str) {
    tracing::info!("working on {on}; the API, health and metrics on http://{}", http.address);
}

/// Adds the health checks, which read the most recent state of the connections.
fn add_health_checks(health: &Health, server: &RedisClient, broker: &Broker) {
    let (server, broker) = (server.clone(), broker.clone());
    health.check("redis", move || server.is_here() && server.takes_writes());
    let intake = broker.clone();
    health.check("rabbitmq", move || broker.is_here());
    health.check("jobs", move || intake.takes_jobs());
}

/// Works until it is stopped, and then for at most the grace period.
async fn drain(
    config: &Config,
    stop: &CancellationToken,
    work: impl Future<Output = Result<(), crate::dispatch::DispatchError>>,
) -> Outcome {
    let grace = config.worker.grace.0;
    let over = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        done = work => {
            done?;
            Ok(ExitCode::SUCCESS)
        }
        () = over => {
            let text = format!("the worker did not finish within {} s; messages in flight will be in doubt when their claims expire", grace.as_secs());
            Err(Failure::Outside(text))
        }
    }
}

/// Removes campaigns that ended longer ago than they are kept.
async fn remove_expired(ledger: Redis, keep_for: Duration, stop: CancellationToken) {
    loop {
        let before = ledger.time() - keep_for;
        match ledger.forget_ended(before).await {
            Ok(0) => {}
            Ok(count) => tracing::info!("{count} expired campaigns removed"),
            Err(error) => tracing::error!(error = %error, "cannot remove expired campaigns"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CLEAN) => {}
        }
    }
}
