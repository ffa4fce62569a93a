//! Points of a campaign's chart: its counts over time, a bounded number of them.
//!
//! The worker that leads the campaign writes them, about one per second at first. The interval grows with the campaign's
//! duration, so that a day needs hardly more points than a minute. Nothing is decided on them.

use super::{Clock, Counts, LedgerError, LedgerFuture};
use crate::campaign::CampaignId;

/// Maximum number of points of a campaign.
pub const MOST_POINTS: usize = 240;
/// Minimum interval between two points, in milliseconds.
const NEAREST: i64 = 1000;
/// Approximate number of intervals since the first point.
const PARTS: i64 = 120;

/// The messages settled up to a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// The time, in milliseconds since 1970.
    pub at: i64,
    /// Messages that the provider accepted.
    pub accepted: u64,
    /// Messages that the provider rejected.
    pub rejected: u64,
    /// Messages in doubt.
    pub in_doubt: u64,
}

impl Point {
    /// Returns the point of a time and its counts.
    pub fn new(at: i64, counts: &Counts) -> Self {
        let Counts { accepted, rejected, in_doubt, .. } = *counts;
        Self { at, accepted, rejected, in_doubt }
    }

    /// Returns the number of settled messages.
    pub fn settled(&self) -> u64 {
        self.accepted + self.rejected + self.in_doubt
    }
}

/// What to write for a new point.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// Append these.
    Add(Vec<Point>),
    /// Replace all points with these.
    Replace(Vec<Point>),
}

/// Returns what to write for a new point. With `is_last` the point must not be dropped.
fn step(known: &[Point], new: Point, is_last: bool) -> Step {
    let (Some(first), Some(last)) = (known.first(), known.last()) else { return Step::Add(vec![new]) };
    let apart = NEAREST.max((last.at - first.at) / PARTS);
    let since = new.at - last.at;
    let is_news = new.settled() != last.settled() || new.accepted != last.accepted;
    if !is_news || since <= 0 || (since < apart && !is_last) {
        return Step::Nothing;
    }
    let mut points = Vec::with_capacity(2);
    if since > 3 * apart {
        // Nothing changed for some time: the change came at the end.
        points.push(Point { at: new.at - apart, ..*last });
    }
    points.push(new);
    if known.len() + points.len() <= MOST_POINTS {
        return Step::Add(points);
    }
    let thinned = known.iter().step_by(2).copied();
    Step::Replace(thinned.chain(points).collect())
}

/// The points of campaigns.
pub trait Series: Clock {
    /// Returns all points of a campaign, in order.
    fn points(&self, id: &CampaignId) -> impl LedgerFuture<Vec<Point>>;

    /// Appends points; with `all` it replaces the stored ones.
    fn write_points(&self, id: &CampaignId, points: Vec<Point>, all: bool) -> impl LedgerFuture<()>;
}

/// Writes the point of the present counts, if it is due.
///
/// `known` holds the stored points, read at the first call. With `is_last` no point follows for now, so this one is
/// written even if it is not due.
pub async fn sample(
    ledger: &impl Series,
    id: &CampaignId,
    known: &mut Option<Vec<Point>>,
    counts: &Counts,
    is_last: bool,
) -> Result<(), LedgerError> {
    let points = match known.take() {
        Some(points) => points,
        None => ledger.points(id).await?,
    };
    let points = known.insert(points);
    match step(points, Point::new(ledger.now(), counts), is_last) {
        Step::Nothing => {}
        Step::Add(new) => {
            ledger.write_points(id, new.clone(), false).await?;
            points.extend(new);
        }
        Step::Replace(all) => {
            ledger.write_points(id, all.clone(), true).await?;
            *points = all;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn follow(looks: impl IntoIterator<Item = (i64, u64)>) -> Vec<Point> {
        let mut known = Vec::new();
        for (at, accepted) in looks {
            match step(&known, Point { at, accepted, ..Point::default() }, false) {
                Step::Nothing => {}
                Step::Add(new) => known.extend(new),
                Step::Replace(all) => known = all,
            }
        }
        known
    }

    #[test]
    fn a_steady_campaign_of_a_week_has_a_bounded_number_of_points() {
        let week = 7 * 86_400;
        let points = follow((0..week).map(|second| (second * 1000, second as u64 * 80)));
        assert!((60..=MOST_POINTS).contains(&points.len()), "{}", points.len());
        assert_eq!(points[0].at, 0);
        let last = points.last().unwrap();
        assert!(last.at > (week - week / 50) * 1000, "{}", last.at);
        assert!(points.is_sorted_by(|one, next| one.at < next.at && one.accepted <= next.accepted));
    }

    #[test]
    fn a_pause_keeps_its_start_and_end() {
        let points = follow([(0, 0), (1000, 80), (2000, 160), (100_000, 160), (101_000, 240)]);
        let at: Vec<_> = points.iter().map(|point| (point.at, point.accepted)).collect();
        assert_eq!(at, [(0, 0), (1000, 80), (2000, 160), (100_000, 160), (101_000, 240)]);
    }

    proptest! {
        #[test]
        fn points_stay_in_order_and_few(looks in prop::collection::vec((0..100_000_i64, 0..1000_u64), 0..2000)) {
            let (mut at, mut count) = (0, 0);
            let points = follow(looks.into_iter().map(|(wait, settled)| {
                (at, count) = (at + wait, count + settled);
                (at, count)
            }));
            prop_assert!(points.len() <= MOST_POINTS);
            prop_assert!(points.is_sorted_by(|one, next| one.at < next.at && one.accepted <= next.accepted));
        }
    }
}
