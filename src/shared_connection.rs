//! A connection that many tasks share. It is opened once for all of them, and again when it is gone.
//!
//! A waiting task never blocks the others. A fair lock around the connection would be granted to the next waiter even when
//! its task does not poll it, because the task is polling another future first. If that future needs the connection, too,
//! there is a deadlock for all. So the lock here is held for a few instructions only, and a spawned task opens the
//! connection. This module knows no server and no protocol.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{sync::watch, task::AbortHandle};

/// Connection that is open, being opened or closed. Clones share it.
pub(crate) struct SharedConnection<T, E>(Arc<Mutex<ConnectionState<T, E>>>);

struct ConnectionState<T, E> {
    /// Number of the connection that is open or being opened.
    nth: u64,
    connection: Option<T>,
    opening: Option<Opening<T, E>>,
}

struct Opening<T, E> {
    opened: watch::Receiver<Option<Result<T, E>>>,
    task: AbortHandle,
}

impl<T, E> Clone for SharedConnection<T, E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T, E> Default for SharedConnection<T, E> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(ConnectionState { nth: 0, connection: None, opening: None })))
    }
}

impl<T, E> SharedConnection<T, E> {
    /// Drops a connection by its number, unless it was replaced already.
    pub(crate) fn forget(&self, nth: u64) {
        let mut state = self.0.lock();
        if state.nth == nth {
            state.connection = None;
        }
    }

    /// Takes the connection if it matches.
    pub(crate) fn invalidate(&self, is_meant: impl FnOnce(&mut T) -> bool) -> Option<T> {
        self.0.lock().connection.take_if(is_meant)
    }

    /// Takes the connection; cancels the opening of one.
    pub(crate) fn close(&self) -> Option<T> {
        let mut state = self.0.lock();
        if let Some(opening) = state.opening.take() {
            opening.task.abort();
        }
        state.connection.take()
    }

    /// Whether there is a connection that matches.
    pub(crate) fn matches(&self, like: impl FnOnce(&T) -> bool) -> bool {
        self.0.lock().connection.as_ref().is_some_and(like)
    }
}

impl<T: Clone + Send + Sync + 'static, E: Clone + Send + Sync + 'static> SharedConnection<T, E> {
    /// Returns the connection and its number; opens another if it is not usable.
    ///
    /// `open` gets the unusable connection. If one is being opened already, this waits for it.
    ///
    /// # Errors
    ///
    /// When the connection cannot be opened. All waiting tasks get the error, and the next call tries again.
    pub(crate) async fn get<F>(
        &self,
        is_of_use: impl Fn(&T) -> bool,
        open: impl Fn(Option<T>) -> F,
    ) -> Result<(u64, T), E>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        loop {
            let (nth, mut opened) = {
                let mut state = self.0.lock();
                if let Some(connection) = state.connection.as_ref().filter(|connection| is_of_use(connection))
                {
                    return Ok((state.nth, connection.clone()));
                }
                let opened = if let Some(opening) = &state.opening {
                    opening.opened.clone()
                } else {
                    let useless = state.connection.take();
                    self.begin(&mut state, open(useless))
                };
                (state.nth, opened)
            };
            let result = opened.wait_for(Option::is_some).await.ok().and_then(|opened| opened.clone());
            if let Some(opened) = result {
                return opened.map(|connection| (nth, connection));
            }
            // Its opening was cancelled.
            self.give_up(nth);
            tokio::task::yield_now().await;
        }
    }

    fn give_up(&self, nth: u64) {
        let mut state = self.0.lock();
        if state.nth == nth {
            state.opening = None;
        }
    }

    fn begin(
        &self,
        state: &mut ConnectionState<T, E>,
        opening: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> watch::Receiver<Option<Result<T, E>>> {
        state.nth += 1;
        let (nth, slot) = (state.nth, self.clone());
        let (sender, opened) = watch::channel(None);
        let task = tokio::spawn(async move {
            let opened = opening.await;
            {
                let mut state = slot.0.lock();
                if state.nth != nth || state.opening.take().is_none() {
                    return;
                }
                state.connection = opened.as_ref().ok().cloned();
            }
            sender.send_replace(Some(opened));
        });
        state.opening = Some(Opening { opened: opened.clone(), task: task.abort_handle() });
        opened
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    type Slot = SharedConnection<u32, &'static str>;

    /// Opens a connection, which takes a second.
    async fn open(slot: &Slot, count: &Arc<AtomicU32>) -> Result<(u64, u32), &'static str> {
        let opened = |_| {
            let count = count.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(count.fetch_add(1, Ordering::Relaxed))
            }
        };
        slot.get(|_| true, opened).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_unpolled_waiter_does_not_block_others() {
        let (slot, count) = (Slot::default(), Arc::default());
        let mut left = std::pin::pin!(open(&slot, &count));
        assert!((&mut left).now_or_never().is_none());
        let other = tokio::time::timeout(Duration::from_secs(9), open(&slot, &count)).await;
        assert_eq!(other.unwrap(), Ok((1, 0)));
        assert_eq!(left.await, Ok((1, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_opened_once_for_all_and_again_when_it_is_gone() {
        let (slot, count) = (Slot::default(), Arc::default());
        let all = (0..100).map(|_| open(&slot, &count));
        let all = futures_util::future::join_all(all).await;
        assert!(all.iter().all(|one| *one == Ok((1, 0))), "{all:?}");
        slot.forget(7);
        assert_eq!(open(&slot, &count).await, Ok((1, 0)));
        slot.forget(1);
        assert!(!slot.matches(|_| true));
        assert_eq!(open(&slot, &count).await, Ok((2, 1)));
        // The unusable connection is passed to `open`.
        let next =
            slot.get(|one| *one != 1, |useless| async move { useless.map(|one| one + 10).ok_or("none") });
        assert_eq!(next.await, Ok((3, 11)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_returned_to_all_waiters_and_to_no_later_call() {
        let slot = Slot::default();
        let fails = || slot.get(|_| true, |_| async { Err("away") });
        assert_eq!(tokio::join!(fails(), fails()), (Err("away"), Err("away")));
        assert_eq!(open(&slot, &Arc::default()).await, Ok((2, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_opening_is_cancelled_is_not_kept() {
        let (slot, count) = (Slot::default(), Arc::default());
        let waiting = tokio::spawn({
            let (slot, count) = (slot.clone(), Arc::clone(&count));
            async move { open(&slot, &count).await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(slot.close(), None);
        // The waiter opens another one.
        assert_eq!(waiting.await.unwrap(), Ok((2, 0)));
        assert_eq!(slot.close(), Some(0));
    }
}
