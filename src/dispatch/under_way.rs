//! Futures of one task, whose results it takes one after the other.
//!
//! A future that is not polled keeps its locks, its permits and its places in line. What a task does between two
//! results may need one of them, or need what another task can't do without them; so it is never done alone: the
//! others go on beside it.

use std::collections::VecDeque;

use futures_util::{Stream, StreamExt};

/// Such futures, as a stream of their results.
pub(super) struct UnderWay<S: Stream> {
    /// Those that have not ended.
    pub(super) futures: S,
    /// The results that nobody has taken yet.
    ended: VecDeque<S::Item>,
}

impl<S: Stream + Unpin> UnderWay<S> {
    pub(super) fn new(futures: S) -> Self {
        Self { futures, ended: VecDeque::new() }
    }

    /// How many there are whose result was not taken yet.
    pub(super) fn len(&self) -> usize {
        self.futures.size_hint().0 + self.ended.len()
    }

    /// The next result, `None` where there is none. Can be given up without a loss.
    pub(super) async fn next(&mut self) -> Option<S::Item> {
        match self.ended.pop_front() {
            Some(result) => Some(result),
            None => self.futures.next().await,
        }
    }

    /// Does something, while these go on.
    pub(super) async fn beside<T>(&mut self, doing: impl Future<Output = T>) -> T {
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
    async fn what_one_of_them_holds_can_be_waited_for_beside_them() {
        let lock = Mutex::new(());
        let mut under_way = UnderWay::new(FuturesOrdered::new());
        for nth in 0..3 {
            let lock = &lock;
            under_way.futures.push_back(async move {
                let _held = lock.lock().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                nth
            });
        }
        assert_eq!(under_way.next().await, Some(0));
        // The next one holds it by now.
        let beside = under_way.beside(lock.lock());
        drop(tokio::time::timeout(Duration::from_secs(9), beside).await.unwrap());
        assert_eq!(under_way.len(), 2);
        assert_eq!(under_way.next().await, Some(1));
        assert_eq!(under_way.next().await, Some(2));
        assert_eq!(under_way.next().await, None);
    }
}
