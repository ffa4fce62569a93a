//! Combines concurrent reports of a batch, so that a burst of thousands takes few writes.
//!
//! A batch has one write in flight. Reports that arrive during it go into the next write; otherwise a report is written at
//! once. So no report waits for others, and the more arrive, the fewer writes each costs.

use std::collections::{HashMap, HashSet, VecDeque};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::{mpsc, oneshot};

use crate::campaign::CampaignId;
use crate::ledger::{Ledger, LedgerError, MessageReport, ReportEffect, evidence};

/// Maximum number of queued reports; beyond that the providers wait.
const CHANNEL_CAPACITY: usize = 10_000;
/// Maximum number of writes in flight.
const CONCURRENCY: usize = 64;

type ReportResult = Result<Option<ReportEffect>, LedgerError>;

/// The batch of a report.
type BatchKey = (CampaignId, u32);

struct ReportRequest {
    of: BatchKey,
    report: MessageReport,
    answer: oneshot::Sender<ReportResult>,
}

/// Writes single reports to the ledger, in combined writes.
#[derive(Clone)]
pub(super) struct Collector(mpsc::Sender<ReportRequest>);

impl Collector {
    pub(super) fn start<L: Ledger>(ledger: L) -> Self {
        let (sender, receiver) = mpsc::channel(CHANNEL_CAPACITY);
        tokio::spawn(collect(ledger, receiver));
        Self(sender)
    }

    /// Writes a report. Returns its effect after the ledger has it.
    pub(super) async fn apply(
        &self,
        campaign: CampaignId,
        batch: u32,
        report: MessageReport,
    ) -> ReportResult {
        let (answer, effect) = oneshot::channel();
        let asked = ReportRequest { of: (campaign, batch), report, answer };
        let gone = || LedgerError::Storage("no longer accepts reports".into());
        self.0.send(asked).await.map_err(|_| gone())?;
        effect.await.map_err(|_| gone())?
    }
}

type Reports = Vec<(MessageReport, oneshot::Sender<ReportResult>)>;

async fn collect<L: Ledger>(ledger: L, mut receiver: mpsc::Receiver<ReportRequest>) {
    // The reports to write next, and their batches in order. None of these batches has a write in flight.
    let mut waiting = HashMap::<BatchKey, Reports>::new();
    let mut due = VecDeque::<BatchKey>::new();
    let mut writing = HashSet::<BatchKey>::new();
    let mut in_flight = FuturesUnordered::new();
    let mut arrived = Vec::new();
    let mut is_open = true;
    while is_open || !in_flight.is_empty() {
        tokio::select! {
            Some(of) = in_flight.next(), if !in_flight.is_empty() => {
                writing.remove(&of);
                if waiting.contains_key(&of) {
                    due.push_back(of);
                }
            }
            count = receiver.recv_many(&mut arrived, CHANNEL_CAPACITY), if is_open && waiting.len() < CHANNEL_CAPACITY => {
                is_open = count > 0;
                for ReportRequest { of, report, answer } in arrived.drain(..) {
                    if !waiting.contains_key(&of) && !writing.contains(&of) {
                        due.push_back(of.clone());
                    }
                    waiting.entry(of).or_default().push((report, answer));
                }
            }
            else => break,
        }
        while in_flight.len() < CONCURRENCY
            && let Some(of) = due.pop_front()
        {
            let reports = waiting.remove(&of).unwrap_or_default();
            writing.insert(of.clone());
            in_flight.push(write(&ledger, of, reports));
        }
    }
}

/// Writes reports of a batch. Returns the batch.
async fn write<L: Ledger>(ledger: &L, of: BatchKey, reports: Reports) -> BatchKey {
    let (reports, answers): (Vec<MessageReport>, Vec<_>) = reports.into_iter().unzip();
    match evidence::apply_reports(ledger, &of.0, of.1, reports).await {
        Ok(effects) => {
            for (answer, effect) in answers.into_iter().zip(effects) {
                let _ = answer.send(Ok(effect));
            }
        }
        Err(error) => {
            for answer in answers {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
    of
}
