//! Delays between retries: exponentially longer, bounded, and with jitter.
//!
//! After an outage all workers fail at about the same time. Jitter keeps their retries from arriving at the same time,
//! too. This module never sleeps and counts no attempts that its caller does not report.

use std::time::Duration;

use crate::runtime;

/// Doublings after which a delay grows no further, whatever its maximum.
const MAX_DOUBLINGS: u32 = 16;
/// Jitter added to a fixed delay, as a share of it.
const SPREAD: f64 = 0.1;

/// A schedule of delays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Creates a schedule; `first` and `max` bound its first and its longest delay.
    pub(crate) const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failures: 0 }
    }

    /// Returns the delay after a number of earlier failures.
    ///
    /// Half of it is fixed, half is random.
    pub(crate) fn delay_after(&self, failures: u32) -> Duration {
        let full = self.first.saturating_mul(1 << failures.min(MAX_DOUBLINGS)).min(self.max);
        full / 2 + full.mul_f64(runtime::chance() / 2.0)
    }

    /// Counts a failure, and returns the delay before the next attempt.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = self.delay_after(self.failures);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// Whether no failure was counted yet.
    pub(crate) fn is_first(&self) -> bool {
        self.failures == 0
    }
}

/// Adds jitter to a delay of a fixed schedule: up to a tenth of it.
pub(crate) fn spread(delay: Duration) -> Duration {
    delay + delay.mul_f64(runtime::chance() * SPREAD)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const FIRST: Duration = Duration::from_millis(500);
    const MAX: Duration = Duration::from_secs(30);

    #[test]
    fn delays_double_up_to_the_maximum() {
        let mut backoff = Backoff::new(FIRST, MAX);
        for failures in 0..40 {
            assert_eq!(backoff.is_first(), failures == 0);
            let full = Duration::from_millis(500 << failures.min(16)).min(MAX);
            for delay in [backoff.delay_after(failures), backoff.next_delay()] {
                assert!(delay >= full / 2 && delay <= full, "{failures}: {delay:?}");
            }
        }
    }

    #[test]
    fn workers_that_fail_together_retry_at_different_times() {
        let mut workers = [Backoff::new(FIRST, MAX); 20];
        for _ in 0..10 {
            let delays: HashSet<Duration> = workers.iter_mut().map(Backoff::next_delay).collect();
            assert!(delays.len() > 15, "{delays:?}");
        }
    }

    #[test]
    fn a_fixed_delay_grows_by_a_tenth_at_most() {
        let minute = Duration::from_mins(1);
        let delays: HashSet<Duration> = (0..20).map(|_| spread(minute)).collect();
        assert!(delays.len() > 15);
        assert!(delays.iter().all(|delay| (minute..=minute + minute / 10).contains(delay)), "{delays:?}");
    }

    #[test]
    fn a_simulation_repeats_its_delays() {
        let delays = || {
            runtime::simulated::begin(7);
            let mut backoff = Backoff::new(FIRST, MAX);
            let delays: Vec<Duration> = (0..5).map(|_| backoff.next_delay()).collect();
            runtime::simulated::end();
            delays
        };
        assert_eq!(delays(), delays());
    }
}
