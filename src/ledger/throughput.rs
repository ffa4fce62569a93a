//! The throughput of a campaign, from the numbers of messages that were settled in each of the last seconds.
//!
//! A backend stores the counts. The rate is only shown: it limits nothing.

/// Number of seconds whose counts are kept: the window, and the seconds at its ends.
pub(super) const SECONDS: i64 = 12;
/// Length of the window, in seconds.
const WINDOW: i64 = 10;

/// Returns the messages settled per second, from the counts of complete seconds since 1970.
///
/// Times are milliseconds since 1970.
pub(super) fn rate(counts: impl Iterator<Item = (i64, u64)>, started_at: i64, now: i64) -> f64 {
    let second = now / 1000;
    let since = started_at.max((second - WINDOW) * 1000);
    let took = second * 1000 - since;
    // A campaign that has just started has no complete second.
    let (end, took) = if took < 1000 { (second + 1, (now - since).max(1000)) } else { (second, took) };
    let settled: u64 =
        counts.filter(|(at, _)| (since / 1000..end).contains(at)).map(|(_, count)| count).sum();
    settled as f64 * 1000.0 / took as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_500;

    fn steady(from: i64, to: i64) -> impl Iterator<Item = (i64, u64)> {
        (from..=to).map(|second| (second, 80))
    }

    #[test]
    fn a_steady_rate_does_not_depend_on_the_part_of_a_second() {
        let second = NOW / 1000;
        for part in [0, 1, 500, 999] {
            let seen = rate(steady(second - 11, second), 0, second * 1000 + part);
            assert!((seen - 80.0).abs() < 0.001, "{part}: {seen}");
        }
    }

    #[test]
    fn a_campaign_that_has_just_started_is_measured_since_its_start() {
        let second = NOW / 1000;
        assert!((rate([(second, 40)].into_iter(), NOW - 500, NOW) - 40.0).abs() < 0.001);
        let begun = [(second - 2, 40), (second - 1, 80), (second, 33)];
        assert!((rate(begun.into_iter(), NOW - 2000, NOW) - 80.0).abs() < 0.001);
    }

    #[test]
    fn counts_outside_the_window_are_ignored() {
        let second = NOW / 1000;
        let counts = [(second - 11, 1000), (second - 5, 10), (second + 60, 1000)];
        assert!((rate(counts.into_iter(), 0, NOW) - 1.0).abs() < 0.001);
    }
}
