//! The plot of a campaign's rate: settled messages per second over time, with the limit as a second line, axes with units, and
//! the same numbers as a table for screen readers. Nothing is read here: the points are passed in.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::ledger::Point;

/// Size of the picture and its margins, in SVG units.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 26.0;
/// Maximum number of parts that the time is divided into.
const PARTS: f64 = 80.0;
/// Minimum length of a part, in milliseconds. In a shorter part the limiter's burst would show as a rate above the limit.
const SHORTEST: f64 = 1000.0;
/// Approximate maximum number of rows of the table.
const ROWS: usize = 12;

/// A plot, for its template.
#[derive(Debug, Serialize)]
pub(super) struct Plot {
    width: f64,
    height: f64,
    /// SVG points of the line, and of the area below it.
    line: String,
    area: String,
    /// Height and caption of the limit.
    limit: Option<(f64, String)>,
    /// Marks of the time axis.
    across: Vec<Mark>,
    /// Marks of the rate axis: height and caption.
    up: Vec<(f64, String)>,
    /// Precision of the times: `day`, `minute` or `second`.
    precision: &'static str,
    /// Name of the time zone of the marks.
    zone: String,
    left: f64,
    right: f64,
    bottom: f64,
    /// Rows of the table: time, messages per second, and messages settled in total.
    rows: Vec<(String, String, u64)>,
    /// Highest rate.
    most: String,
}

/// A mark of the time axis.
#[derive(Debug, Serialize)]
struct Mark {
    x: f64,
    text: String,
    /// The time in RFC 3339.
    at: String,
}

/// A part of the time. Times are in milliseconds since the first point, the rate is in messages per second.
struct Slice {
    from: f64,
    to: f64,
    rate: f64,
}

/// Plots points, with times in a zone. Returns `None` for less than a second.
pub(super) fn plot(points: &[Point], limit: Option<f64>, zone: &TimeZone) -> Option<Plot> {
    let (first, last) = (points.first()?, points.last()?);
    let whole = (last.at - first.at) as f64;
    if points.len() < 2 || whole < SHORTEST {
        return None;
    }
    let mut slices = slices(points, first.at, whole);
    if let Some(limit) = limit {
        settle_earlier(&mut slices, limit);
    }
    let most = slices.iter().map(|slice| slice.rate).fold(0.0, f64::max);
    // A limit far above the rate would flatten the line: then only the caption mentions it.
    let shown = limit.filter(|limit| *limit <= most * 4.0);
    let top = round_up(most.max(shown.unwrap_or_default()).max(1.0) * 1.05);
    let x = |at: f64| LEFT + at / whole * (WIDTH - LEFT - RIGHT);
    let y = |rate: f64| HEIGHT - BOTTOM - (rate / top).min(1.0) * (HEIGHT - TOP - BOTTOM);
    let line: String = slices
        .iter()
        .map(|slice| {
            format!("{:.1},{:.1} {:.1},{:.1} ", x(slice.from), y(slice.rate), x(slice.to), y(slice.rate))
        })
        .collect();
    let area = format!("{:.1},{:.1} {line}{:.1},{:.1}", x(0.0), y(0.0), x(whole), y(0.0));
    let moment = |at: f64| Timestamp::from_millisecond(first.at + at as i64).unwrap_or_default();
    let (precision, clock) = if whole > 86_400_000.0 {
        ("day", "%-d %b %H:%M")
    } else if whole > 600_000.0 {
        ("minute", "%H:%M")
    } else {
        ("second", "%H:%M:%S")
    };
    let mark = |nth: i32| {
        let at = f64::from(nth) / 2.0 * whole;
        let text = moment(at).to_zoned(zone.clone()).strftime(clock).to_string();
        Mark { x: x(at), text, at: format!("{:.0}", moment(at)) }
    };
    let mut across: Vec<Mark> = (0..=2).map(mark).collect();
    across.dedup_by(|next, before| next.text == before.text);
    let up = [0.0, top / 2.0, top];
    let every = slices.len().div_ceil(ROWS);
    let rows = slices.iter().step_by(every.max(1)).map(|slice| {
        let upto = points.iter().take_while(|point| (point.at - first.at) as f64 <= slice.to).last();
        let settled = upto.map_or(0, Point::settled);
        (moment(slice.to).to_string(), super::captions::rate(slice.rate), settled)
    });
    Some(Plot {
        width: WIDTH,
        height: HEIGHT,
        rows: rows.collect(),
        line,
        area,
        limit: shown.map(|limit| (y(limit), super::captions::rate(limit))),
        across,
        precision,
        zone: zone.iana_name().unwrap_or("UTC").to_owned(),
        up: up.map(|rate| (y(rate), format_rate(rate))).to_vec(),
        left: LEFT,
        right: WIDTH - RIGHT,
        bottom: HEIGHT - BOTTOM,
        most: super::captions::rate(most),
    })
}

/// Returns the rates between points, over parts of at least the minimum length.
fn slices(points: &[Point], begin: i64, whole: f64) -> Vec<Slice> {
    let narrowest = (whole / PARTS).max(SHORTEST);
    let mut ends = vec![points[0]];
    for to in &points[1..] {
        if (to.at - ends[ends.len() - 1].at) as f64 >= narrowest {
            ends.push(*to);
        }
    }
    // A rest that is too short for a part of its own extends the last part.
    let last = points[points.len() - 1];
    match ends.len() {
        1 => ends.push(last),
        more => ends[more - 1] = last,
    }
    let slice = |pair: &[Point]| {
        let [from, to] = pair else { return None };
        let settled = to.settled().saturating_sub(from.settled()) as f64;
        let (start, end) = ((from.at - begin) as f64, (to.at - begin) as f64);
        Some(Slice { from: start, to: end, rate: settled * 1000.0 / (end - start) })
    };
    ends.windows(2).filter_map(slice).collect()
}

/// Maximum time between sending and recording a message, in milliseconds.
const RECORDED_LATE: f64 = 30_000.0;

/// Moves the excess of a part over the limit to preceding parts below it.
///
/// No more than the limit can have been sent in the part, so the responses came late. An excess without room before it stays, such
/// as a burst at the start or the rate of an earlier limit.
fn settle_earlier(slices: &mut [Slice], limit: f64) {
    for late in (1..slices.len()).rev() {
        let (width, from) = (slices[late].to - slices[late].from, slices[late].from);
        let mut excess = (slices[late].rate - limit).max(0.0) * width;
        for slice in slices[..late].iter_mut().rev().take_while(|slice| from - slice.to < RECORDED_LATE) {
            let own = slice.to - slice.from;
            let moved = ((limit - slice.rate).max(0.0) * own).min(excess);
            slice.rate += moved / own;
            excess -= moved;
        }
        slices[late].rate = slices[late].rate.min(limit) + excess / width;
    }
}

/// Rounds up to a number that suits an axis, e.g. 1, 2, 5, 10, 20, 50.
fn round_up(number: f64) -> f64 {
    let unit = 10.0_f64.powf(number.log10().floor());
    [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .iter()
        .map(|part| part * unit)
        .find(|round| *round >= number)
        .unwrap_or(number)
}

fn format_rate(rate: f64) -> String {
    if rate >= 10_000.0 {
        format!("{}k", format_rate(rate / 1000.0))
    } else if rate >= 10.0 || rate == 0.0 {
        crate::campaign::thousands(rate.round() as u64)
    } else {
        format!("{rate:.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(each: &[(i64, u64)]) -> Vec<Point> {
        each.iter().map(|(at, accepted)| Point { at: *at, accepted: *accepted, ..Point::default() }).collect()
    }

    #[test]
    fn a_steady_rate_is_a_level_line_below_its_limit() {
        let each: Vec<_> = (0..=60).map(|second| (second * 1000, second as u64 * 48)).collect();
        let plot = plot(&points(&each), Some(50.0), &TimeZone::UTC).unwrap();
        assert_eq!(plot.most, "48/s");
        let (limit, word) = plot.limit.clone().unwrap();
        assert_eq!(word, "50/s");
        let heights: Vec<f64> = plot
            .line
            .split_whitespace()
            .map(|point| point.split_once(',').unwrap().1.parse().unwrap())
            .collect();
        assert!(heights.iter().all(|height| *height > limit && *height < limit + 8.0), "{heights:?}");
        assert!(plot.rows.len() <= ROWS + 1);
        assert_eq!(plot.up[2].1, "60");
    }

    #[test]
    fn late_responses_do_not_show_a_rate_above_the_limit() {
        // 60 per second; those of the fifth second are recorded in the sixth, and the first second has the burst.
        let settled = [0, 120, 180, 240, 300, 300, 420, 480];
        let each: Vec<_> = (0..).zip(settled).map(|(second, settled)| (second * 1000, settled)).collect();
        let mut slices = slices(&points(&each), 0, 7000.0);
        settle_earlier(&mut slices, 60.0);
        let rates: Vec<f64> = slices.iter().map(|slice| slice.rate).collect();
        assert_eq!(rates, [120.0, 60.0, 60.0, 60.0, 60.0, 60.0, 60.0]);
    }

    #[test]
    fn too_few_points_are_not_plotted() {
        for each in [&[][..], &[(5, 1)], &[(5, 1), (5, 2)], &[(0, 1), (999, 80)]] {
            assert!(plot(&points(each), None, &TimeZone::UTC).is_none(), "{each:?}");
        }
    }

    #[test]
    fn parts_last_at_least_a_second_and_labels_are_unique() {
        // A burst of 80 messages, then 80 per second, recorded every 100 ms.
        let each: Vec<_> = (0..=25).map(|tenth: i64| (tenth * 100, (tenth / 10) as u64 * 80)).collect();
        let plot = plot(&points(&each), Some(80.0), &TimeZone::get("Asia/Kolkata").unwrap()).unwrap();
        assert_eq!(
            (plot.most.as_str(), plot.zone.as_str(), plot.precision),
            ("80/s", "Asia/Kolkata", "second")
        );
        assert_eq!(plot.across[0].text, "05:30:00");
        let texts: Vec<&str> = plot.across.iter().map(|mark| mark.text.as_str()).collect();
        let mut once = texts.clone();
        once.dedup();
        assert_eq!(texts, once);
        assert_eq!([9_999.0, 12_000.0].map(format_rate), ["9,999", "12k"]);
    }

    proptest::proptest! {
        #[test]
        fn plotting_never_panics(each in proptest::collection::vec((0..1_000_000_i64, 0..1_000_000_u64), 0..300), limit in proptest::option::of(0.0..1e6)) {
            let mut each = each;
            each.sort_unstable();
            let _ = plot(&points(&each), limit, &TimeZone::UTC);
        }
    }
}
