//! The tasks that send one campaign's batches in this worker.

use std::sync::Arc;

use tokio::{task::JoinSet, time::Instant};

use super::supervisor::{CampaignSupervisor, Involvement, RETRY_DELAY};
use super::{Account, DispatchError, intake::template, sender::SenderContext, sender_state::SenderState};
use crate::campaign::Job;
use crate::ledger::{Campaign, Ledger};
use crate::limiter::CampaignLimits;
use crate::queue::Queue;
use crate::traces::TraceHandle;

/// The senders of one campaign in this worker.
pub(super) struct SenderPool<L, Q> {
    pub(super) sending: Arc<SenderContext<L, Q>>,
    pub(super) tasks: JoinSet<()>,
    /// Whether they only send the probe of the breaker that suspends the campaign.
    pub(super) probe: bool,
}

impl<L: Ledger, Q: Queue> SenderPool<L, Q> {
    /// Starts senders until at least `wanted` are running.
    fn begin(&mut self, wanted: usize) {
        for _ in self.tasks.len()..wanted {
            let sending = self.sending.clone();
            self.tasks.spawn(async move { sending.send_batches().await });
        }
    }
}

impl<L: Ledger, Q: Queue> CampaignSupervisor<L, Q> {
    /// Waits until senders that are stopping have ended; otherwise for ever.
    pub(super) async fn senders_end(&mut self) {
        match &mut self.sending {
            Some(senders) if senders.probe || senders.sending.stop.is_cancelled() => {
                while senders.tasks.join_next().await.is_some() {}
            }
            _ => std::future::pending().await,
        }
    }

    /// Keeps as many senders running as the account allows.
    pub(super) async fn send(&mut self, job: &Arc<Job>, campaign: &Campaign) -> Result<(), DispatchError> {
        if self.rest_until.is_some_and(|until| until > Instant::now()) {
            return Ok(());
        }
        let batches =
            usize::try_from(campaign.rows).unwrap_or(usize::MAX).div_ceil(campaign.batch_size.max(1));
        let wanted = |account: &Account| account.senders(campaign.batch_size).min(batches.max(1));
        if let Some(senders) = &mut self.sending {
            let account = self.context.accounts.get(&job.account).ok();
            let is_same = account.is_some_and(|account| Arc::ptr_eq(&account, &senders.sending.account));
            if is_same && !senders.probe && !senders.sending.stop.is_cancelled() {
                // The account may allow more requests in flight than when they started.
                let wanted = wanted(&senders.sending.account);
                senders.begin(wanted);
                return Ok(());
            }
            // They stopped after an error, were a probe, or the account was replaced.
            if !self.idle().await? {
                return Ok(());
            }
        }
        let sending = self.sending(campaign, job).await?;
        let wanted = wanted(&sending.account);
        let mut senders = SenderPool { sending, tasks: JoinSet::new(), probe: false };
        senders.begin(wanted);
        self.involved = Involvement::Sends;
        self.sending = Some(senders);
        Ok(())
    }

    /// Returns the state that the campaign's senders share.
    pub(super) async fn sending(
        &mut self,
        campaign: &Campaign,
        job: &Arc<Job>,
    ) -> Result<Arc<SenderContext<L, Q>>, DispatchError> {
        let account = self.context.accounts.get(&job.account).map_err(DispatchError::Task)?;
        let columns = &self.load_job().await?.columns;
        let template = template(job, columns, &account).map_err(|problems| {
            let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            DispatchError::Job(self.id.clone(), text)
        })?;
        Ok(Arc::new(SenderContext {
            id: self.id.clone(),
            trace: TraceHandle::for_campaign(&self.id, campaign.submitted_at),
            ledger: self.ledger.clone(),
            queue: self.queue.clone(),
            endpoint: account.provider.endpoint(job.from),
            account,
            job: job.clone(),
            template,
            limits: CampaignLimits::new(self.id.clone(), job.flow(), job.limits.messages),
            flow: job.flow(),
            events: self.context.events.clone(),
            suppressed: self.context.suppressed.clone(),
            stop: self.stop.child_token(),
            wake_up: self.wake_up.clone(),
            doubt_below: campaign.doubt_below,
            state: SenderState::default(),
        }))
    }

    /// Stops the senders. Returns whether all of them have ended.
    pub(super) async fn idle(&mut self) -> Result<bool, DispatchError> {
        let Some(senders) = &mut self.sending else { return Ok(true) };
        senders.sending.stop.cancel();
        while let Some(ended) = senders.tasks.try_join_next() {
            ended.map_err(|error| DispatchError::Task(error.to_string()))?;
        }
        if !senders.tasks.is_empty() {
            return Ok(false);
        }
        let broken = senders.sending.state.broken.lock().take();
        self.sending = None;
        self.queue.close().await;
        if let Some(error) = broken {
            self.rest_until = Some(Instant::now() + RETRY_DELAY);
            return Err(error);
        }
        Ok(true)
    }
}
