//! Gathers reports that come at the same time, so that a burst of thousands is a few writes.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use crate::campaign::CampaignId;
use crate::ledger::{Ledger, LedgerError, MessageReport, ReportEffect};

/// How many reports wait at the most; beyond that the providers wait.
const WAITING: usize = 10_000;
/// How many are gathered at the most.
const GATHERED: usize = 2_000;
/// How long is gathered.
const GATHER: Duration = Duration::from_millis(5);
/// How many batches are written at once.
const AT_ONCE: usize = 64;

type Answer = Result<Option<ReportEffect>, LedgerError>;

struct ReportRequest {
    of: (CampaignId, u32),
    report: MessageReport,
    answer: oneshot::Sender<Answer>,
}

/// A way into the ledger for single reports.
#[derive(Clone)]
pub(super) struct Collector(mpsc::Sender<ReportRequest>);

impl Collector {
    pub(super) fn start<L: Ledger>(ledger: L) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(gather(ledger, receiver));
        Self(sender)
    }

    /// Has a report written down. Returns what was effects from it, once the ledger has it.
    pub(super) async fn apply(&self, campaign: CampaignId, batch: u32, report: MessageReport) -> Answer {
        let (answer, effects) = oneshot::channel();
        let asked = ReportRequest { of: (campaign, batch), report, answer };
        let gone = || LedgerError::Storage("takes no reports any more".into());
        self.0.send(asked).await.map_err(|_| gone())?;
        effects.await.map_err(|_| gone())?
    }
}

async fn gather<L: Ledger>(ledger: L, mut receiver: mpsc::Receiver<ReportRequest>) {
    while let Some(first) = receiver.recv().await {
        let mut batches = HashMap::<(CampaignId, u32), Vec<(MessageReport, oneshot::Sender<Answer>)>>::new();
        let mut next = Some(first);
        let until = tokio::time::Instant::now() + GATHER;
        for _ in 0..GATHERED {
            let Some(ReportRequest { of, report, answer }) = next else { break };
            batches.entry(of).or_default().push((report, answer));
            next = tokio::time::timeout_at(until, receiver.recv()).await.ok().flatten();
        }
        if let Some(ReportRequest { of, report, answer }) = next {
            batches.entry(of).or_default().push((report, answer));
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
    reports: Vec<(MessageReport, oneshot::Sender<Answer>)>,
) {
    let (report, answers): (Vec<MessageReport>, Vec<_>) = reports.into_iter().unzip();
    match ledger.apply_reports(&campaign, batch, report).await {
        Ok(effects) => {
            for (answer, effects) in answers.into_iter().zip(effects) {
                let _ = answer.send(Ok(effects));
            }
        }
        Err(fault) => {
            for answer in answers {
                let _ = answer.send(Err(fault.clone()));
            }
        }
    }
}
