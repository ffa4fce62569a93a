//! `flowcast doctor`: checks the configuration and everything that a worker needs, and says what to fix. It sends
//! nothing.

use std::{path::Path, process::ExitCode, time::Duration};

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{Failure, Outcome, callback_endpoint::CallbackEndpoint, open, print};
use crate::audience::Audiences;
use crate::campaign::{Doubt, Phone, counted};
use crate::config::Config;
use crate::dispatch::Account;
use crate::http::check_address;
use crate::ledger::{Access, CLOCK_SKEW, Redis, Sqlite, UnmovedStore};
use crate::provider::{ParsedBody, ProviderResponse, RequestBody, classify};
use crate::queue::rabbitmq::Broker;
use crate::redis_client::{RedisNode, RetryPolicy, probe_nodes};

/// Oldest version of Redis with all commands that the scripts use.
const REDIS: (u32, u32) = (6, 2);
/// Oldest version of RabbitMQ whose quorum queues support a TTL.
const RABBITMQ: (u32, u32) = (3, 10);

/// Check configuration, servers and credentials; say what to fix.
#[derive(Args)]
pub(super) struct Doctor {}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grade {
    Ok,
    Warning,
    Bad,
}

impl Grade {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// The result of one check.
struct Finding {
    check: String,
    grade: Grade,
    text: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, check: &str, grade: Grade, text: impl Into<String>) {
        self.0.push(Finding { check: check.into(), grade, text: text.into() });
    }

    /// Adds a good finding, or a bad one that says what to do.
    fn judge(&mut self, check: &str, fine: Result<String, String>) {
        match fine {
            Ok(text) => self.add(check, Grade::Ok, text),
            Err(text) => self.add(check, Grade::Bad, text),
        }
    }
}

pub(super) async fn main(_: &Doctor, config: &Config, json: bool) -> Outcome {
    let mut findings = Findings::default();
    check_accounts(config, &mut findings).await;
    let listen = &config.http.listen;
    let listens = check_address(listen).await.map(|()| format!("a worker will listen on {listen}"));
    findings.judge("http.listen", listens.map_err(|error| error.to_string()));
    check_audiences(config, &mut findings);
    check_redis(config, &mut findings).await;
    check_broker(config, &mut findings).await;
    if config.redis.is_some() {
        check_store(config, &mut findings).await;
    }
    let bad = findings.0.iter().any(|finding| finding.grade == Grade::Bad);
    let text = if json {
        let line = |finding: &Finding| json!({ "check": finding.check, "grade": finding.grade.as_str(), "text": finding.text });
        format!("{}\n", serde_json::Value::from(findings.0.iter().map(line).collect::<Vec<_>>()))
    } else {
        let line = |finding: &Finding| {
            format!("{:8} {:24} {}\n", finding.grade.as_str(), finding.check, finding.text)
        };
        findings.0.iter().map(line).collect()
    };
    print(&text)?;
    Ok(if bad { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Checks for unfinished campaigns in a store that was used before the fleet.
async fn check_store(config: &Config, findings: &mut Findings) {
    match UnmovedStore::at(config.store.path.clone()).unfinished().await {
        Ok(None) => {}
        Ok(Some((_, campaigns))) if campaigns.is_empty() => {}
        Ok(Some((store, campaigns))) => findings.add(
            "store",
            Grade::Warning,
            format!(
                "{store} has {}, which the fleet does not send: move them with `flowcast migrate --store \
                 {store}`, or finish them with `flowcast worker --embedded --store {store}`",
                counted(campaigns.len() as u64, "unfinished campaign")
            ),
        ),
        Err(error) => findings.add(
            "store",
            Grade::Bad,
            format!("{error}; this machine accepts no new campaign until the store can be read: repair or remove the file"),
        ),
    }
}

/// Checks the accounts. Credentials are tested with a request without a message, so that nothing can be sent.
async fn check_accounts(config: &Config, findings: &mut Findings) {
    if config.accounts.is_empty() {
        findings.add("accounts", Grade::Bad, "no account is configured: add one under [accounts.NAME]");
    }
    let endpoint = endpoint(config).await;
    for name in config.accounts.keys() {
        let check = format!("accounts.{name}");
        let opened = match &endpoint {
            Ok(endpoint) => open::account(config, name, endpoint.as_ref()),
            Err(_) => open::account(config, name, None),
        };
        match opened {
            Err(error) => findings.add(&check, Grade::Bad, error.to_string()),
            Ok(account) => {
                let (grade, text) = test_credentials(&account).await;
                findings.add(&check, grade, text);
                let (grade, text) = match &endpoint {
                    Ok(_) => callbacks(&account),
                    Err(error) => (Grade::Warning, format!("cannot determine the callback URL: {error}")),
                };
                findings.add(&format!("{check} callbacks"), grade, text);
            }
        }
    }
}

/// Returns the callback URLs. Without a configured key, the key comes from the ledger.
async fn endpoint(config: &Config) -> Result<Option<CallbackEndpoint>, Failure> {
    if config.http.public_url.is_none() || !config.callbacks.keys.is_empty() {
        return CallbackEndpoint::in_shape(config);
    }
    if let Some(redis) = &config.redis {
        let ledger = Redis::on(open::redis_server(redis, RetryPolicy::Short).await?, Duration::ZERO);
        return CallbackEndpoint::open(config, config.http.public_url.as_ref(), &ledger).await;
    }
    let ledger = Sqlite::open(&config.store.path, Access::Change)?;
    CallbackEndpoint::open(config, config.http.public_url.as_ref(), &ledger).await
}

/// Checks where the provider sends its reports.
fn callbacks(account: &Account) -> (Grade, String) {
    match &account.callbacks {
        None => (
            Grade::Warning,
            "http.public_url is not set: flowcast gets no delivery reports, so an operator must resolve messages in doubt"
                .into(),
        ),
        Some(callbacks) if account.kind.takes_callback => (
            Grade::Ok,
            format!(
                "each message carries the URL for its reports; to receive replies, set this URL as the webhook of each \
                 sender number in the provider's console, and keep it secret like a password: {}",
                callbacks.of_account()
            ),
        ),
        Some(callbacks) => (
            Grade::Ok,
            format!(
                "set this URL in the provider's console, and keep it secret like a password: {}; {}",
                callbacks.of_account(),
                account.kind.console
            ),
        ),
    }
}

async fn test_credentials(account: &Account) -> (Grade, String) {
    // Without a job no sender number is known, so an invented one is used.
    let Some(invented) = Phone::from_digits(10_000_000) else {
        return (Grade::Warning, "not tested".into());
    };
    let endpoint = account.provider.endpoint(invented);
    let request = account.provider.request(endpoint, RequestBody::new(account.kind, 0));
    match account.transport.post(request, None).await {
        Ok(reply) => {
            let said = account.provider.parse(&reply, 0);
            let code = if let ParsedBody::Error { code, .. } = &said { code.clone() } else { None };
            match classify(&reply, said) {
                _ if code.is_some() && code.as_deref() == account.kind.unknown_sender => {
                    (Grade::Ok, "the provider accepts the credentials".into())
                }
                ProviderResponse::Refused { reason, .. } => {
                    (Grade::Bad, format!("the provider refuses the credentials: {reason}"))
                }
                ProviderResponse::TryAgain { detail, .. }
                | ProviderResponse::Unknown(Doubt { detail, .. }) => {
                    (Grade::Warning, format!("the provider responded with {detail}; try again later"))
                }
                _ => (Grade::Ok, "the provider accepts the credentials".into()),
            }
        }
        Err(error) => (Grade::Bad, format!("{error}; check region or base_url, and the network")),
    }
}

fn check_audiences(config: &Config, findings: &mut Findings) {
    match &config.audiences.root {
        None => findings.add(
            "audiences.root",
            Grade::Warning,
            "not set: workers refuse jobs that name a file; set it to a folder that all workers can read",
        ),
        Some(root) if Path::new(root).is_dir() => findings.add("audiences.root", Grade::Ok, root.clone()),
        Some(root) if root.contains("://") => match Audiences::new(Some(root), &[]) {
            Ok(_) => findings.add("audiences.root", Grade::Ok, root.clone()),
            Err(error) => findings.add("audiences.root", Grade::Bad, error),
        },
        Some(root) => {
            findings.add(
                "audiences.root",
                Grade::Bad,
                format!("the folder {root} does not exist on this machine; create or mount it"),
            );
        }
    }
    if let Err(error) = Audiences::new(None, &config.audiences.allow) {
        findings.add("audiences.allow", Grade::Bad, error);
    }
}

async fn check_redis(config: &Config, findings: &mut Findings) {
    let Some(redis) = &config.redis else {
        let text = format!("not configured; the embedded store is {}", config.store.path.display());
        findings.add("redis", Grade::Ok, text);
        return;
    };
    let url = match redis.url.read("redis.url") {
        Ok(url) => url,
        Err(error) => return findings.add("redis", Grade::Bad, error.to_string()),
    };
    let nodes = match probe_nodes(&url).await {
        Ok(nodes) => nodes,
        Err(error) => return findings.add("redis", Grade::Bad, error.to_string()),
    };
    for (nth, node) in nodes.into_iter().enumerate() {
        let check = if nth == 0 { "redis".to_owned() } else { format!("redis (node {})", nth + 1) };
        match node {
            Err(error) => findings.add(&check, Grade::Bad, error.to_string()),
            Ok(node) => {
                check_node(&check, &node, findings);
                check_replicas(&check, &node, redis.replicas, findings);
            }
        }
    }
}

fn check_node(check: &str, node: &RedisNode, findings: &mut Findings) {
    let version = node.fact("redis_version").unwrap_or("unknown");
    findings.judge(
        check,
        if is_at_least(version, REDIS) {
            Ok(format!(
                "version {version}, {}",
                if node.is_cluster() { "in a cluster" } else { "a single server" }
            ))
        } else {
            Err(format!("version {version} is too old: flowcast needs {}.{} or newer", REDIS.0, REDIS.1))
        },
    );
    if node.fact("role") == Some("slave") {
        findings.add(check, Grade::Bad, "a replica, which accepts no writes: point redis.url to the master");
    }
    let fsync = node.setting("appendfsync");
    match (node.fact("aof_enabled"), fsync) {
        (Some("1"), Some("always")) => findings.add(check, Grade::Ok, "appendonly yes, appendfsync always"),
        (Some("1"), Some(other)) => findings.add(
            check,
            Grade::Warning,
            format!(
                "appendfsync {other}: if the machine crashes, Redis loses the most recent claims; workers restore them, but \
                 if a worker crashes too, its campaigns are held; set appendfsync always"
            ),
        ),
        (Some("1"), None) => {
            findings.add(check, Grade::Warning, "its settings cannot be read; make sure that appendfsync is always");
        }
        _ => findings.add(
            check,
            Grade::Bad,
            "appendonly no: a restart loses the records of sent messages; set appendonly yes and appendfsync always",
        ),
    }
    match node.fact("maxmemory_policy").or(node.setting("maxmemory-policy")) {
        Some("noeviction") => findings.add(check, Grade::Ok, "maxmemory-policy noeviction"),
        Some(other) => findings.add(
            check,
            Grade::Bad,
            format!("maxmemory-policy {other}: a full Redis deletes records of sent messages; set maxmemory-policy noeviction"),
        ),
        None => findings.add(check, Grade::Warning, "its maxmemory-policy cannot be read; it must be noeviction"),
    }
    let skew = node.time.duration_since(Timestamp::now()).unsigned_abs();
    findings.judge(
        "clock",
        if skew <= CLOCK_SKEW {
            Ok("the clocks of this machine and of Redis agree".into())
        } else {
            Err(format!(
                "the clocks of this machine and of Redis are {:.1} s apart; campaigns use Redis' clock: run an NTP client on \
                 both machines",
                skew.as_secs_f64()
            ))
        },
    );
}

/// Checks whether a master has the replicas that a claim waits for.
fn check_replicas(check: &str, node: &RedisNode, wanted: u32, findings: &mut Findings) {
    let has = node.fact("connected_slaves").and_then(|count| count.parse::<u32>().ok()).unwrap_or_default();
    if node.fact("role") != Some("master") || (wanted == 0 && has == 0) {
        return;
    }
    let replicas = counted(has.into(), "replica");
    if has < wanted {
        findings.add(
            check,
            Grade::Bad,
            format!(
                "has {replicas}, but redis.replicas is {wanted}: nothing is sent until enough replicas are connected"
            ),
        );
    } else if wanted == 0 {
        findings.add(
            check,
            Grade::Warning,
            format!(
                "has {replicas}, but redis.replicas is 0: after a failover, messages whose claims were not replicated may \
                 be sent again; set redis.replicas = 1"
            ),
        );
    } else {
        findings.add(check, Grade::Ok, format!("has {replicas}, and claims wait for {wanted}"));
    }
}

async fn check_broker(config: &Config, findings: &mut Findings) {
    let Some(amqp) = &config.amqp else {
        let text = "not configured; jobs are submitted to the embedded store";
        findings.add("rabbitmq", Grade::Ok, text);
        return;
    };
    // Asked before connecting, which declares what is missing.
    let missing = match amqp.url.read("amqp.url") {
        Ok(url) => Broker::missing(&url).await,
        Err(error) => return findings.add("rabbitmq", Grade::Bad, Failure::from(error).to_string()),
    };
    // Connecting declares the queues, so it fails if one exists with other arguments.
    let broker = match open::broker(config, false).await {
        Ok(broker) => broker,
        Err(error) => return findings.add("rabbitmq", Grade::Bad, error.to_string()),
    };
    match missing {
        Ok(missing) if missing.is_all => {
            findings.add(
                "rabbitmq",
                Grade::Ok,
                "flowcast's queues and exchanges did not exist, and are now declared",
            );
        }
        Ok(missing) if !missing.names.is_empty() => {
            let text = format!(
                "was missing {}; declared again now: messages that were in a missing queue, or published to it, are lost; \
                 submit their jobs again",
                missing.names.join(", ")
            );
            findings.add("rabbitmq", Grade::Warning, text);
        }
        Ok(_) => findings.add("rabbitmq", Grade::Ok, "all queues and exchanges exist"),
        Err(error) => {
            findings.add("rabbitmq", Grade::Warning, format!("cannot list queues and exchanges: {error}"));
        }
    }
    let nodes = broker.nodes().await;
    for (place, version) in &nodes {
        let check = if nodes.len() == 1 { "rabbitmq".into() } else { format!("rabbitmq {place}") };
        match version {
            Ok(Some(version)) if !is_at_least(version, RABBITMQ) => {
                let (major, minor) = RABBITMQ;
                let text = format!("version {version} is too old: flowcast needs {major}.{minor} or newer");
                findings.add(&check, Grade::Bad, text);
            }
            Ok(Some(version)) => findings.add(&check, Grade::Ok, format!("version {version}")),
            Ok(None) => findings.add(&check, Grade::Ok, "responds"),
            Err(error) => {
                let text = format!(
                    "unavailable: {error}; the cluster works while more than half of its nodes are available"
                );
                findings.add(&check, Grade::Warning, text);
            }
        }
    }
    match broker.buried(1).await {
        Ok((buried, more)) => {
            let count = buried.len() as u64 + u64::from(more);
            if count > 0 {
                let text = format!(
                    "{} in the dead-letter queue; to list them: flowcast dead list",
                    counted(count, "job")
                );
                findings.add("dead letters", Grade::Warning, text);
            }
        }
        Err(error) => findings.add("dead letters", Grade::Bad, error.to_string()),
    }
    broker.close().await;
}

/// Returns whether a version is new enough.
fn is_at_least(version: &str, (major, minor): (u32, u32)) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(
            is_at_least("7.0.15", REDIS) && is_at_least("6.2.0", REDIS) && is_at_least("3.13.1", RABBITMQ)
        );
        assert!(
            !is_at_least("6.0.16", REDIS) && !is_at_least("3.9.99", RABBITMQ) && !is_at_least("?", REDIS)
        );
    }
}
