//! Waits for a campaign's start and its window, by the wall clock.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::campaign::{Opening, Schedule};

/// The clock may be set meanwhile, so it is asked again at least this often.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// How a wait for the window ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    Open,
    Expired,
    Stopped,
}

/// Waits until the schedule is open. `closed` is told until when it must wait, once a wait.
pub(super) async fn pass<F: Future<Output = ()>>(
    schedule: &Schedule,
    stop: &CancellationToken,
    closed: impl Fn(Timestamp) -> F,
) -> Passed {
    let mut told = None;
    loop {
        match schedule.at(Timestamp::now()) {
            Opening::Open { .. } => return Passed::Open,
            Opening::Expired => return Passed::Expired,
            Opening::Opens(at) => {
                if told != Some(at) {
                    closed(at).await;
                    told = Some(at);
                }
                let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
                tokio::select! {
                    () = stop.cancelled() => return Passed::Stopped,
                    () = tokio::time::sleep(left.min(ASK_AGAIN)) => {}
                }
            }
        }
    }
}
