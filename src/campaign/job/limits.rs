//! The limits of a job, and rates: `80/s`, `200/min`, `10/h`, `10000/d`, with an optional `,burst=100`.
//!
//! An account's limits in the configuration are rates, too.

use std::{borrow::Cow, fmt, num::NonZeroU32, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::campaign::rules::{Rule, Spelled, object, optional, parses};

/// Limits of a job.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct JobLimits {
    /// Rate of messages of this campaign.
    pub messages: Option<Rate>,
}

/// The form of a job's limits.
pub(super) const LIMITS: Rule = Rule::Object(object(&[optional(
    "messages",
    Rule::Parsed {
        check: parses::<Rate>,
        about: "a limit, e.g. 80/s or 200/min,burst=20",
        spelled: Spelled::As(Rate::PATTERN),
    },
)
.about("Maximum rate of the campaign's messages: per second (`s`), minute (`min`), hour (`h`) or day (`d`). The default is \
     no limit.")
.example(r#""50/s""#)]));

/// A rate and its burst: at most `rate × t + burst` in any period `t`.
///
/// ```
/// use flowcast::campaign::Rate;
///
/// let rate: Rate = "200/min".parse()?;
/// assert_eq!(rate.burst().get(), 3); // what comes in a second
/// assert_eq!("80/s,burst=100".parse::<Rate>()?.burst().get(), 100);
/// # Ok::<(), flowcast::campaign::job::InvalidRate>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Rate {
    count: NonZeroU32,
    per: Per,
    burst: Option<NonZeroU32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Per {
    Second,
    Minute,
    Hour,
    Day,
}

impl Per {
    const ALL: [(Self, &'static str, u64); 4] = [
        (Self::Second, "s", 1),
        (Self::Minute, "min", 60),
        (Self::Hour, "h", 3_600),
        (Self::Day, "d", 86_400),
    ];

    fn seconds(self) -> u64 {
        Self::ALL.iter().find(|(per, ..)| *per == self).map_or(1, |(.., seconds)| *seconds)
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(per, ..)| *per == self).map_or("s", |(_, name, _)| *name)
    }
}

/// An invalid limit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidRate {
    /// The form is wrong.
    #[error(
        "a limit is a whole number and a unit, e.g. 80/s, 200/min, 10/h or 10000/d, with an optional burst: 80/s,burst=100"
    )]
    Form,
    /// The rate is 0: nothing could ever be sent.
    #[error("a limit of 0 allows nothing; omit it, or pause campaigns instead")]
    Zero,
    /// The burst is 0: nothing could ever be sent.
    #[error("a burst of 0 allows nothing; write the number of messages that may be sent at once, or omit it")]
    NoBurst,
}

impl Rate {
    /// The form of a limit, as a regular expression.
    pub const PATTERN: &str =
        r"^\s*0*[1-9][0-9]{0,9}\s*/\s*(s|min|h|d)\s*(,\s*burst\s*=\s*0*[1-9][0-9]{0,9}\s*)?$";

    /// Returns the time in which one unit is refilled.
    pub fn period(self) -> Duration {
        Duration::from_secs(self.per.seconds()) / self.count.get()
    }

    /// Returns the count per period.
    pub fn count(self) -> u32 {
        self.count.get()
    }

    /// Returns the period.
    pub fn per(self) -> Duration {
        Duration::from_secs(self.per.seconds())
    }

    /// Returns the rate per second.
    pub fn per_second(self) -> f64 {
        f64::from(self.count.get()) / self.per.seconds() as f64
    }

    /// Returns the burst. The default is one second's worth, and at least 1: a burst of a minute's worth would double
    /// the first minute.
    pub fn burst(self) -> NonZeroU32 {
        self.burst.unwrap_or_else(|| {
            let in_a_second = u64::from(self.count.get()) / self.per.seconds();
            u32::try_from(in_a_second).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
        })
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A limit: a whole number per second, minute, hour or day, and optionally the number that may be sent at once, e.g. 80/s or 200/min,burst=20.",
            "type": "string",
            "pattern": Self::PATTERN,
        })
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let whole = |text: &str| {
            let text = text.trim();
            if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
                return Err(InvalidRate::Form);
            }
            let number: u32 = text.parse().map_err(|_| InvalidRate::Form)?;
            Ok(NonZeroU32::new(number))
        };
        let (rate, burst) = match text.split_once(',') {
            None => (text, None),
            Some((rate, rest)) => {
                let (key, value) = rest.split_once('=').ok_or(InvalidRate::Form)?;
                if key.trim() != "burst" {
                    return Err(InvalidRate::Form);
                }
                (rate, Some(whole(value)?.ok_or(InvalidRate::NoBurst)?))
            }
        };
        let (count, unit) = rate.split_once('/').ok_or(InvalidRate::Form)?;
        let (per, ..) =
            Per::ALL.into_iter().find(|(_, name, _)| *name == unit.trim()).ok_or(InvalidRate::Form)?;
        Ok(Self { count: whole(count)?.ok_or(InvalidRate::Zero)?, per, burst })
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RateVisitor;

        impl Visitor<'_> for RateVisitor {
            type Value = Rate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a limit such as \"80/s\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Rate, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(RateVisitor)
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.per.name())?;
        self.burst.map_or(Ok(()), |burst| write!(f, ",burst={burst}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_reads_and_prints_the_same() {
        for text in ["80/s", "200/min", "10/h", "10000/d", "80/s,burst=100"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        assert_eq!(" 80 / s , burst = 9 ".parse::<Rate>().unwrap().to_string(), "80/s,burst=9");
    }

    #[test]
    fn a_limit_that_can_not_be_met_is_refused() {
        assert_eq!("0/s".parse::<Rate>(), Err(InvalidRate::Zero));
        assert_eq!("80/s,burst=0".parse::<Rate>(), Err(InvalidRate::NoBurst));
        for bad in ["", "80", "80/m", "-1/s", "+1/s", "1.5/s", "80/s,100", "80/s,burst", "99999999999/s"] {
            assert_eq!(bad.parse::<Rate>(), Err(InvalidRate::Form), "{bad:?}");
        }
    }

    #[test]
    fn the_burst_is_a_seconds_worth_and_at_least_one() {
        let burst = |text: &str| text.parse::<Rate>().unwrap().burst().get();
        assert_eq!([burst("80/s"), burst("200/min"), burst("10/h"), burst("1/d")], [80, 3, 1, 1]);
        assert_eq!(burst("80/s,burst=7"), 7);
    }

    #[test]
    fn a_limit_below_one_a_second_has_a_long_period() {
        assert_eq!("10/h".parse::<Rate>().unwrap().period(), Duration::from_mins(6));
    }
}
