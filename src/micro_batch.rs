//! Handles together what many tasks ask for at the same time.
//!
//! One task at a time handles all items that wait, its own among them. Items that arrive during its call share the next one.
//! No task waits for others to arrive, and the more items arrive, the fewer calls each of them costs. This module knows
//! neither the items nor their answers.

use tokio::sync::{Mutex, MutexGuard, oneshot};

/// Items that wait, and the state that the task which handles them needs for itself.
pub(crate) struct MicroBatch<S, T, R> {
    waiting: parking_lot::Mutex<Vec<Waiting<T, R>>>,
    state: Mutex<S>,
}

/// Item that waits, and the channel for its answer.
struct Waiting<T, R> {
    item: T,
    answer: oneshot::Sender<R>,
}

impl<S: Default, T, R> Default for MicroBatch<S, T, R> {
    fn default() -> Self {
        Self { waiting: parking_lot::Mutex::default(), state: Mutex::default() }
    }
}

impl<S: Default, T, R> MicroBatch<S, T, R> {
    /// Locks the state: nothing is handled until the guard is dropped.
    pub(crate) async fn lock(&self) -> MutexGuard<'_, S> {
        self.state.lock().await
    }

    /// Has an item handled together with others, and returns its answer.
    ///
    /// `count` says how many of the items that wait go into one call, at least one. `handle` gets the state and the items,
    /// and returns the state and an answer for each item. Items whose caller was dropped are handled, too, unless
    /// `skip_dropped`. Returns `None` when the task that handled the item was dropped: it may have taken effect or not, and
    /// the state is the default again.
    pub(crate) async fn submit<F: Future<Output = (S, Vec<R>)>>(
        &self,
        item: T,
        skip_dropped: bool,
        count: impl Fn(&mut dyn Iterator<Item = &T>) -> usize,
        handle: impl Fn(S, Vec<T>) -> F,
    ) -> Option<R> {
        let (sender, mut answer) = oneshot::channel();
        self.waiting.lock().push(Waiting { item, answer: sender });
        loop {
            let mut state = tokio::select! {
                biased;
                answer = &mut answer => return answer.ok(),
                state = self.state.lock() => state,
            };
            // Other tasks that are ready to submit join this call.
            tokio::task::yield_now().await;
            let together: Vec<Waiting<T, R>> = {
                let mut waiting = self.waiting.lock();
                if skip_dropped {
                    waiting.retain(|each| !each.answer.is_closed());
                }
                let most = waiting.len();
                let count = count(&mut waiting.iter().map(|each| &each.item));
                waiting.drain(..count.max(1).min(most)).collect()
            };
            if together.is_empty() {
                continue;
            }
            let (items, senders): (Vec<T>, Vec<_>) =
                together.into_iter().map(|each| (each.item, each.answer)).unzip();
            let answers;
            (*state, answers) = handle(std::mem::take(&mut *state), items).await;
            for (sender, answer) in senders.into_iter().zip(answers) {
                // A caller that was dropped wants no answer.
                let _ = sender.send(answer);
            }
            // The state is unlocked only now: the next task finds its answer first, if it was among these.
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::future::join_all;

    use super::*;

    type Batches = MicroBatch<Vec<usize>, u32, u32>;

    /// Doubles numbers, a second for each call; the state has the size of each.
    async fn double(batches: &Batches, number: u32, most: usize) -> Option<u32> {
        let handle = |mut sizes: Vec<usize>, numbers: Vec<u32>| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sizes.push(numbers.len());
            (sizes, numbers.into_iter().map(|number| number * 2).collect())
        };
        batches.submit(number, true, |all| all.count().min(most), handle).await
    }

    #[tokio::test(start_paused = true)]
    async fn items_that_arrive_during_a_call_share_the_next() {
        let batches = Arc::new(Batches::default());
        let start = |number| {
            let batches = batches.clone();
            tokio::spawn(async move { double(&batches, number, 100).await.unwrap() })
        };
        let mut all: Vec<_> = (0..3).map(start).collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        all.extend((3..50).map(start));
        let answers: Vec<u32> = join_all(all).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, (0..50).map(|number| number * 2).collect::<Vec<_>>());
        assert_eq!(*batches.lock().await, [3, 47]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_takes_no_more_items_than_allowed() {
        let batches = Batches::default();
        let answers = join_all((0..10).map(|number| double(&batches, number, 4))).await;
        assert!(answers.iter().all(Option::is_some));
        let sizes = batches.lock().await;
        assert!(sizes.iter().all(|size| *size <= 4) && sizes.iter().sum::<usize>() == 10, "{sizes:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_caller_leaves_its_items_unknown_and_the_others_continue() {
        let batches = Batches::default();
        let first = tokio::time::timeout(Duration::from_millis(500), double(&batches, 1, 100));
        let (first, second) = tokio::join!(first, double(&batches, 2, 100));
        assert!(first.is_err());
        assert_eq!(second, None, "it was handled by the caller that was dropped");
        assert_eq!(double(&batches, 3, 100).await, Some(6));
    }
}
