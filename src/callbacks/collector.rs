//! Gathers reports that come at the same time, so that a burst of thousands is a few writes.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use crate::campaign::CampaignId;
use crate::ledger::{Heard, Learnt, Ledger, LedgerError};

/// How many reports wait at the most; beyond that the providers wait.
const WAITING: usize = 10_000;
/// How many are gathered at the most.
const GATHERED: usize = 2_000;
/// How long is gathered.
const GATHER: Duration = Duration::from_millis(5);
/// How many batches are written at once.
const AT_ONCE: usize = 64;

type Answer = Result<Option<Learnt>, LedgerError>;

struct Asked {
    of: (CampaignId, u32),
    heard: Heard,
    answer: oneshot::Sender<Answer>,
}

/// A way into the ledger for single reports.
#[derive(Clone)]
pub(super) struct Collector(mpsc::Sender<Asked>);

impl Collector {
    pub(super) fn start<L: Ledger>(ledger: L) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(gather(ledger, receiver));
        Self(sender)
    }

    /// Has a report written down. Returns what was learnt from it, once the ledger has it.
    pub(super) async fn hear(&self, campaign: CampaignId, batch: u32, heard: Heard) -> Answer {
        let (answer, learnt) = oneshot::channel();
        let asked = Asked { of: (campaign, batch), heard, answer };
        let gone = || LedgerError::Storage("takes no reports any more".into());
        self.0.send(asked).await.map_err(|_| gone())?;
        learnt.await.map_err(|_| gone())?
    }
}

async fn gather<L: Ledger>(ledger: L, mut receiver: mpsc::Receiver<Asked>) {
    while let Some(first) = receiver.recv().await {
        let mut batches = HashMap::<(CampaignId, u32), Vec<(Heard, oneshot::Sender<Answer>)>>::new();
        let mut next = Some(first);
        let until = tokio::time::Instant::now() + GATHER;
        for _ in 0..GATHERED {
            let Some(Asked { of, heard, answer }) = next else { break };
            batches.entry(of).or_default().push((heard, answer));
            next = tokio::time::timeout_at(until, receiver.recv()).await.ok().flatten();
        }
        if let Some(Asked { of, heard, answer }) = next {
            batches.entry(of).or_default().push((heard, answer));
        }
        let mut writes = batches.into_iter();
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < AT_ONCE
                && let Some(((campaign, batch), reports)) = writes.next()
            {
                under_way.push(write(&ledger, campaign, batch, reports));
            }
            if under_way.next().await.is_none() {
                break;
            }
        }
    }
}

async fn write<L: Ledger>(
    ledger: &L,
    campaign: CampaignId,
    batch: u32,
    reports: Vec<(Heard, oneshot::Sender<Answer>)>,
) {
    let (heard, answers): (Vec<Heard>, Vec<_>) = reports.into_iter().unzip();
    match ledger.hear(&campaign, batch, heard).await {
        Ok(learnt) => {
            for (answer, learnt) in answers.into_iter().zip(learnt) {
                let _ = answer.send(Ok(learnt));
            }
        }
        Err(fault) => {
            for answer in answers {
                let _ = answer.send(Err(fault.clone()));
            }
        }
    }
}
