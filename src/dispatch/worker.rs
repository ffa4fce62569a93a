//! The worker: looks which campaigns there are and attends to each, takes jobs in, and drains when
//! it is stopped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::supervisor::CampaignSupervisor;
use super::{Account, Context, DispatchError};
use crate::campaign::CampaignId;
use crate::campaign::problem::nearest;
use crate::ledger::Ledger;
use crate::queue::Queue;

/// How often it is looked for campaigns.
const TICK: Duration = Duration::from_millis(500);

/// The accounts of a worker.
#[derive(Clone, Default)]
pub struct Accounts(Arc<HashMap<String, Result<Arc<Account>, String>>>);

impl Accounts {
    /// Accounts by name; one that can't be used has the reason in its place.
    pub fn new(accounts: HashMap<String, Result<Arc<Account>, String>>) -> Self {
        Self(Arc::new(accounts))
    }

    /// An account, or why it can't be used.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and what to do.
    pub fn get(&self, name: &str) -> Result<Arc<Account>, String> {
        if let Some(account) = self.0.get(name) {
            account.clone()
        } else {
            let near = nearest(name, self.0.keys().map(String::as_str));
            Err(format!("the account {name:?} is not configured{near}"))
        }
    }

    /// Those that can be used.
    pub fn usable(&self) -> impl Iterator<Item = (&String, &Arc<Account>)> {
        self.0.iter().filter_map(|(name, account)| Some((name, account.as_ref().ok()?)))
    }
}

/// Attends to all campaigns until it is stopped; what is under way then is finished and recorded.
///
/// # Errors
///
/// When the embedded ledger fails. One that is shared is waited for.
pub async fn work<L: Ledger, Q: Queue>(
    ledger: &L,
    home: &Q::Home,
    context: &Context,
    stop: &CancellationToken,
) -> Result<(), DispatchError> {
    let mut supervised: HashMap<CampaignId, JoinHandle<Result<(), DispatchError>>> = HashMap::new();
    let done = loop {
        let active = tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(()),
            active = ledger.active() => active,
        };
        match active {
            Ok(active) => {
                for id in active {
                    supervised.entry(id.clone()).or_insert_with(|| {
                        let queue = Q::open(home, &id, ahead(context));
                        let supervisor = CampaignSupervisor::new(
                            id,
                            ledger.clone(),
                            queue,
                            context.clone(),
                            stop.child_token(),
                        );
                        tokio::spawn(supervisor.supervise())
                    });
                }
            }
            Err(fault) if L::SHARED => tracing::error!("{fault}"),
            Err(fault) => break Err(fault.into()),
        }
        metrics::gauge!("flowcast_campaigns_supervised").set(supervised.len() as f64);
        let ended: Vec<CampaignId> =
            supervised.iter().filter(|(_, task)| task.is_finished()).map(|(id, _)| id.clone()).collect();
        let mut broken = None;
        for id in ended {
            let Some(task) = supervised.remove(&id) else { continue };
            match task.await {
                Ok(Ok(())) => {}
                Ok(Err(fault)) if L::SHARED => tracing::error!(campaign = %id, "{fault}"),
                Ok(Err(fault)) => broken = Some(fault),
                // It is supervised to again at the next look.
                Err(fault) => tracing::error!(campaign = %id, "a task failed: {fault}"),
            }
        }
        if let Some(fault) = broken {
            stop.cancel();
            break Err(fault);
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(TICK) => {}
        }
    };
    for task in supervised.into_values() {
        let _ = task.await;
    }
    done
}

/// The broker hands over so many batches ahead at the most, for any account.
fn ahead(context: &Context) -> usize {
    context.accounts.usable().map(|(_, account)| account.ahead()).max().unwrap_or(1)
}
