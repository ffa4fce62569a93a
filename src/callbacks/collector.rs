//! Gathers reports of one batch that come at the same time, so that a burst of thousands is a few writes.
//!
//! A batch's reports are written one write at a time, at once where none is under way; what comes
//! meanwhile goes with the next. So nobody waits for others to come, and the more come the fewer writes
//! each of them costs.

use std::collections::{HashMap, HashSet, VecDeque};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use crate::campaign::CampaignId;
use crate::ledger::evidence;
use crate::ledger::{Ledger, LedgerError, MessageReport, ReportEffect};

/// How many reports wait at the most to be looked at; beyond that the providers wait.
const WAITING: usize = 10_000;
/// How many batches are written at once.
const AT_ONCE: usize = 64;

type Answer = Result<Option<ReportEffect>, LedgerError>;

/// The batch that a report is about.
type BatchKey = (CampaignId, u32);

struct ReportRequest {
    of: BatchKey,
    report: MessageReport,
    answer: oneshot::Sender<Answer>,
}

/// A way into the ledger for single reports.
#[derive(Clone)]
pub(super) struct Collector(mpsc::Sender<ReportRequest>);

impl Collector {
    pub(super) fn start<L: Ledger>(ledger: L) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(collect(ledger, receiver));
        Self(sender)
    }

    /// Has a report written down. Returns what it changed, once the ledger has it.
    pub(super) async fn apply(&self, campaign: CampaignId, batch: u32, report: MessageReport) -> Answer {
        let (answer, effect) = oneshot::channel();
        let asked = ReportRequest { of: (campaign, batch), report, answer };
        let gone = || LedgerError::Storage("takes no reports any more".into());
        self.0.send(asked).await.map_err(|_| gone())?;
        effect.await.map_err(|_| gone())?
    }
}

type Reports = Vec<(MessageReport, oneshot::Sender<Answer>)>;

async fn collect<L: Ledger>(ledger: L, mut receiver: mpsc::Receiver<ReportRequest>) {
    // What is to be written next, and of which batches, in their order; none of them is being written.
    let mut waiting = HashMap::<BatchKey, Reports>::new();
    let mut due = VecDeque::<BatchKey>::new();
    let mut writing = HashSet::<BatchKey>::new();
    let mut under_way = FuturesUnordered::new();
    let mut arrived = Vec::new();
    let mut is_open = true;
    while is_open || !under_way.is_empty() {
        tokio::select! {
            Some(of) = under_way.next(), if !under_way.is_empty() => {
                writing.remove(&of);
                if waiting.contains_key(&of) {
                    due.push_back(of);
                }
            }
            count = receiver.recv_many(&mut arrived, WAITING), if is_open && waiting.len() < WAITING => {
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
        while under_way.len() < AT_ONCE
            && let Some(of) = due.pop_front()
        {
            let reports = waiting.remove(&of).unwrap_or_default();
            writing.insert(of.clone());
            under_way.push(write(&ledger, of, reports));
        }
    }
}

/// Writes reports of a batch; returns which.
async fn write<L: Ledger>(ledger: &L, of: BatchKey, reports: Reports) -> BatchKey {
    let (reports, answers): (Vec<MessageReport>, Vec<_>) = reports.into_iter().unzip();
    match evidence::apply_reports(ledger, &of.0, of.1, reports).await {
        Ok(effects) => {
            for (answer, effect) in answers.into_iter().zip(effects) {
                let _ = answer.send(Ok(effect));
            }
        }
        Err(fault) => {
            for answer in answers {
                let _ = answer.send(Err(fault.clone()));
            }
        }
    }
    of
}
