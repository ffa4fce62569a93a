//! The schedule of a campaign: its start, daily window and end. The time is passed in.

use jiff::civil::{Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Span, Timestamp};
use serde::{Deserialize, Deserializer};

/// A job's schedule. An empty one is always open.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Schedule {
    /// The start.
    pub start_at: Option<Timestamp>,
    /// The end: messages left then are skipped as `expired`.
    pub expires_at: Option<Timestamp>,
    /// The daily window.
    pub window: Option<Window>,
}

/// Hours of the day, in a time zone, on some days. If `to` is before `from`, the window spans midnight.
#[derive(Clone, Debug, Deserialize)]
pub struct Window {
    from: Time,
    to: Time,
    #[serde(deserialize_with = "zone")]
    timezone: TimeZone,
    days: Option<Vec<Day>>,
}

/// A day of the week, in the order of the week.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

fn zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TimeZone, D::Error> {
    let name = String::deserialize(deserializer)?;
    TimeZone::get(&name).map_err(serde::de::Error::custom)
}

/// Whether a campaign may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Open.
    Open {
        /// When it closes, if it does.
        until: Option<Timestamp>,
    },
    /// Closed until this time.
    Opens(Timestamp),
    /// Expired.
    Expired,
}

impl Schedule {
    /// Returns the state at `now`.
    pub fn at(&self, now: Timestamp) -> Opening {
        if self.expires_at.is_some_and(|end| now >= end) {
            return Opening::Expired;
        }
        let from = self.start_at.map_or(now, |start| start.max(now));
        let opening = match self.window.as_ref().map(|window| window.at(from)) {
            Some(Opening::Open { until }) if from == now => {
                Opening::Open { until: [until, self.expires_at].into_iter().flatten().min() }
            }
            None if from == now => Opening::Open { until: self.expires_at },
            Some(Opening::Opens(opens)) => Opening::Opens(opens),
            _ => Opening::Opens(from),
        };
        match opening {
            Opening::Opens(opens) if self.expires_at.is_some_and(|end| opens >= end) => Opening::Expired,
            opening => opening,
        }
    }

    /// Returns when work of a given duration is finished, from `start` and while the schedule is open; `None` if the
    /// schedule expires before, or the work takes longer than the forecast covers.
    pub fn end_of(&self, start: Timestamp, takes: std::time::Duration) -> Option<Timestamp> {
        let (mut at, mut left) = (start, SignedDuration::try_from(takes).ok()?);
        for _ in 0..OPENINGS {
            match self.at(at) {
                Opening::Expired => return None,
                Opening::Opens(opens) => at = opens,
                Opening::Open { until } => match until.map(|until| (until, until.duration_since(at))) {
                    Some((until, open)) if open < left => (at, left) = (until, left - open),
                    _ => return at.checked_add(left).ok(),
                },
            }
        }
        None
    }

    /// Returns the time zone of the window, if there is one.
    pub fn timezone(&self) -> Option<&TimeZone> {
        self.window.as_ref().map(|window| &window.timezone)
    }
}

/// Maximum number of openings in a forecast: about two years of days.
const OPENINGS: usize = 1500;

impl Window {
    fn at(&self, now: Timestamp) -> Opening {
        let today = now.to_zoned(self.timezone.clone()).date();
        // From yesterday, whose window may span midnight, to the same day of the week after next: the clock may skip
        // next week's window.
        for day in -1..=15_i64 {
            let Ok(date) = today.checked_add(Span::new().days(day)) else { continue };
            if !self.includes(date.weekday()) {
                continue;
            }
            let past_midnight = i64::from(self.to <= self.from);
            let end_date = date.checked_add(Span::new().days(past_midnight)).unwrap_or(date);
            let opens = self.timezone.to_ambiguous_timestamp(date.to_datetime(self.from)).compatible().ok();
            let (Some(opens), Some(closes)) = (opens, self.closes(end_date)) else {
                continue;
            };
            // The clock skips the whole window.
            if closes <= opens {
                continue;
            }
            if now < opens {
                return Opening::Opens(opens);
            }
            if now < closes {
                return Opening::Open { until: Some(closes) };
            }
        }
        Opening::Expired
    }

    /// Returns when the window closes on a day. If the clock skips that time, it closes at the jump; if the clock
    /// shows it twice, it closes the first time. So it never closes late.
    fn closes(&self, date: jiff::civil::Date) -> Option<Timestamp> {
        let closes = self.timezone.to_ambiguous_timestamp(date.to_datetime(self.to));
        if let AmbiguousOffset::Gap { .. } = closes.offset() {
            let before = closes.earlier().ok()?;
            return self.timezone.following(before).next().map(|jump| jump.timestamp());
        }
        closes.compatible().ok()
    }

    fn includes(&self, weekday: Weekday) -> bool {
        let is_it = |day: &Day| *day as i8 == weekday.to_monday_zero_offset();
        self.days.as_ref().is_none_or(|days| days.iter().any(is_it))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schedule(value: serde_json::Value) -> Schedule {
        serde_json::from_value(value).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_campaign_without_a_schedule_is_always_open() {
        assert_eq!(Schedule::default().at(at("2026-11-01T00:00:00Z")), Opening::Open { until: None });
    }

    #[test]
    fn a_campaign_waits_for_its_start_and_ends_at_its_expiry() {
        let schedule = schedule(json!({
            "start_at": "2026-11-01T09:00:00+05:30", "expires_at": "2026-11-03T21:00:00+05:30" }));
        assert_eq!(schedule.at(at("2026-10-31T00:00:00Z")), Opening::Opens(at("2026-11-01T03:30:00Z")));
        let open = Opening::Open { until: Some(at("2026-11-03T15:30:00Z")) };
        assert_eq!(schedule.at(at("2026-11-01T03:30:00Z")), open);
        assert_eq!(schedule.at(at("2026-11-03T15:30:00Z")), Opening::Expired);
    }

    #[test]
    fn a_window_opens_only_on_its_days() {
        let schedule = schedule(json!({ "window": {
            "from": "09:00", "to": "21:00", "timezone": "Asia/Kolkata", "days": ["mon", "sat"] } }));
        // 2026-11-21 is a Saturday.
        assert_eq!(
            schedule.at(at("2026-11-21T10:00:00+05:30")),
            Opening::Open { until: Some(at("2026-11-21T21:00:00+05:30")) }
        );
        assert_eq!(
            schedule.at(at("2026-11-21T21:00:00+05:30")),
            Opening::Opens(at("2026-11-23T09:00:00+05:30"))
        );
    }

    #[test]
    fn a_campaign_longer_than_a_window_continues_in_the_next() {
        let schedule = schedule(json!({
            "expires_at": "2026-11-24T12:00:00Z",
            "window": { "from": "09:00", "to": "17:00", "timezone": "UTC" } }));
        let end = |hours| schedule.end_of(at("2026-11-21T20:00:00Z"), std::time::Duration::from_hours(hours));
        assert_eq!(end(3), Some(at("2026-11-22T12:00:00Z")));
        assert_eq!(end(8), Some(at("2026-11-22T17:00:00Z")));
        assert_eq!(end(18), Some(at("2026-11-24T11:00:00Z")));
        assert_eq!(end(20), None, "it expires before");
        let always = Schedule::default();
        let start = at("2026-11-21T20:00:00Z");
        assert_eq!(always.end_of(start, std::time::Duration::ZERO), Some(start));
    }

    #[test]
    fn a_window_may_reach_past_midnight() {
        let schedule = schedule(json!({ "window": { "from": "22:00", "to": "02:00", "timezone": "UTC" } }));
        assert_eq!(
            schedule.at(at("2026-11-21T01:00:00Z")),
            Opening::Open { until: Some(at("2026-11-21T02:00:00Z")) }
        );
        assert_eq!(schedule.at(at("2026-11-21T02:00:00Z")), Opening::Opens(at("2026-11-21T22:00:00Z")));
    }

    #[test]
    fn a_window_that_only_opens_after_the_expiry_has_expired() {
        let schedule = schedule(json!({
            "expires_at": "2026-11-21T08:00:00Z",
            "window": { "from": "09:00", "to": "21:00", "timezone": "UTC" } }));
        assert_eq!(schedule.at(at("2026-11-21T07:00:00Z")), Opening::Expired);
    }

    #[test]
    fn a_window_closes_early_where_the_clock_jumps_or_shows_an_hour_twice() {
        let berlin = |from: &str, to: &str| {
            schedule(json!({ "window": { "from": from, "to": to, "timezone": "Europe/Berlin" } }))
        };
        let at = |schedule: &Schedule, time: &str| schedule.at(time.parse().unwrap());
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        // On 29 March the clock jumps from 02:00 to 03:00.
        let spring = berlin("01:00", "02:30");
        let open = at(&spring, "2026-03-29T00:59:59Z");
        assert_eq!(open, Opening::Open { until: Some(time("2026-03-29T01:00:00Z")) });
        assert_eq!(at(&spring, "2026-03-29T01:00:00Z"), Opening::Opens(time("2026-03-29T23:00:00Z")));
        // A window within the jump does not open that day.
        let within = berlin("02:10", "02:50");
        assert_eq!(at(&within, "2026-03-29T00:30:00Z"), Opening::Opens(time("2026-03-30T00:10:00Z")));
        // On 25 October the clock shows 02:00 to 03:00 twice.
        let autumn = berlin("01:00", "02:30");
        let open = at(&autumn, "2026-10-25T00:29:59Z");
        assert_eq!(open, Opening::Open { until: Some(time("2026-10-25T00:30:00Z")) });
        assert_eq!(at(&autumn, "2026-10-25T01:29:00Z"), Opening::Opens(time("2026-10-26T00:00:00Z")));
        // A weekly window on Sunday that the clock skips opens a week later.
        let sundays = schedule(json!({ "window":
            { "from": "02:10", "to": "02:50", "timezone": "Europe/Berlin", "days": ["sun"] } }));
        assert_eq!(at(&sundays, "2026-03-28T12:00:00Z"), Opening::Opens(time("2026-04-05T00:10:00Z")));
    }
}
