//! How long to wait before trying again: exponentially longer, with jitter, and bounded.

use std::time::Duration;

use crate::runtime;

/// The first wait is up to twice this.
const BASE: Duration = Duration::from_millis(250);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(30);
/// After so many failed tries in a row a campaign is held.
pub(super) const TRIES: u32 = 6;

/// The wait after the `attempt`th failure, from 0: half of it is fixed, half is chance, so that
/// many who failed together do not come back together.
pub(super) fn backoff(attempt: u32) -> Duration {
    let full = BASE.saturating_mul(2_u32.saturating_pow(attempt.min(16) + 1)).min(LONGEST);
    full / 2 + full.mul_f64(runtime::chance() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        for attempt in 0..40 {
            let full = Duration::from_millis(500 << attempt.min(16)).min(LONGEST);
            let wait = backoff(attempt);
            assert!(wait >= full / 2 && wait <= full, "{attempt}: {wait:?}");
        }
    }
}
