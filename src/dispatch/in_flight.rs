//! The futures that a task has in flight, whose results it takes one after the other.
//!
//! A future that is not polled keeps its locks, its permits and its place in a queue. What the task does between two results
//! may depend on them, directly or through another task. So it keeps polling the futures during everything else it does.

use std::collections::VecDeque;

use futures_util::{Stream, StreamExt};

/// Futures in flight, as a stream of their results.
pub(super) struct InFlight<S: Stream> {
    /// The futures that have not ended.
    pub(super) futures: S,
    /// The results that have not been taken.
    ended: VecDeque<S::Item>,
}

impl<S: Stream + Unpin> InFlight<S> {
    pub(super) fn new(futures: S) -> Self {
        Self { futures, ended: VecDeque::new() }
    }

    /// Returns the number of futures whose result has not been taken.
    pub(super) fn len(&self) -> usize {
        self.futures.size_hint().0 + self.ended.len()
    }

    /// Returns the next result, or `None` if there is none. Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> Option<S::Item> {
        match self.ended.pop_front() {
            Some(result) => Some(result),
            None => self.futures.next().await,
        }
    }

    /// Runs `doing` while polling the futures.
    pub(super) async fn poll_while<T>(&mut self, doing: impl Future<Output = T>) -> T {
        let mut doing = std::pin::pin!(doing);
        loop {
            tokio::select! {
                biased;
                done = &mut doing => return done,
                Some(result) = self.futures.next() => self.ended.push_back(result),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::stream::FuturesOrdered;
    use tokio::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lock_that_a_future_in_flight_holds_can_be_waited_for() {
        let lock = Mutex::new(());
        let mut in_flight = InFlight::new(FuturesOrdered::new());
        for nth in 0..3 {
            let lock = &lock;
            in_flight.futures.push_back(async move {
                let _held = lock.lock().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                nth
            });
        }
        assert_eq!(in_flight.next().await, Some(0));
        // The second future holds the lock.
        let beside = in_flight.poll_while(lock.lock());
        drop(tokio::time::timeout(Duration::from_secs(9), beside).await.unwrap());
        assert_eq!(in_flight.len(), 2);
        assert_eq!(in_flight.next().await, Some(1));
        assert_eq!(in_flight.next().await, Some(2));
        assert_eq!(in_flight.next().await, None);
    }
}
