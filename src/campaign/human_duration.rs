//! Durations: `30s`, `5min`, `2h`, `30d`.

use std::{borrow::Cow, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

/// A duration: a whole number and a unit.
///
/// ```
/// use flowcast::campaign::HumanDuration;
///
/// let duration: HumanDuration = "2h".parse()?;
/// assert_eq!(duration.0.as_secs(), 7200);
/// # Ok::<(), &'static str>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// The form of a duration, as a regular expression.
    pub const PATTERN: &str = r"^\s*\+?0*[1-9][0-9]{0,9}\s*(s|min|h|d)\s*$";
}

/// In the largest unit of which it is a whole number.
impl std::fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.as_secs();
        let unit = [(86_400, "d"), (3_600, "h"), (60, "min")]
            .into_iter()
            .find(|(unit, _)| seconds.is_multiple_of(*unit));
        let (unit, name) = unit.filter(|_| seconds > 0).unwrap_or((1, "s"));
        write!(f, "{}{name}", seconds / unit)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for HumanDuration {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A time: a whole number and a unit, e.g. 30s, 5min, 2h or 30d.",
            "type": "string",
            "pattern": Self::PATTERN,
        })
    }
}

impl TryFrom<String> for HumanDuration {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse()
    }
}

impl std::str::FromStr for HumanDuration {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let wrong = "a time is a whole number and a unit, e.g. 30s, 5min, 2h or 30d";
        let digits = text.trim().trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let seconds = match text.trim().get(digits.len()..) {
            Some("s") => 1,
            Some("min") => 60,
            Some("h") => 3600,
            Some("d") => 86_400,
            _ => return Err(wrong),
        };
        let count: u32 = digits.trim().parse().map_err(|_| wrong)?;
        if count == 0 {
            return Err("a time of 0 is too short");
        }
        Ok(Self(Duration::from_secs(u64::from(count) * seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_their_usual_forms() {
        let time = |text: &str| text.parse::<HumanDuration>().map(|time| time.0.as_secs());
        assert_eq!(
            [time("40s"), time("2min"), time("1h"), time("30d")],
            [Ok(40), Ok(120), Ok(3600), Ok(2_592_000)]
        );
        for text in ["40s", "2min", "1h", "30d", "36h"] {
            assert_eq!(text.parse::<HumanDuration>().unwrap().to_string(), text);
        }
        for bad in ["", "40", "s", "0s", "-1s", "1.5h", "1 week", "99999999999d"] {
            assert!(time(bad).is_err(), "{bad:?}");
        }
    }
}
