//! A span of time as people write it: `30s`, `5min`, `2h`, `30d`.

use std::time::Duration;

use serde::Deserialize;

/// A span of time: a whole number and a unit.
///
/// ```
/// use flowcast::campaign::Span;
///
/// let span: Span = "2h".parse()?;
/// assert_eq!(span.0.as_secs(), 7200);
/// # Ok::<(), &'static str>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl TryFrom<String> for Span {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse()
    }
}

impl std::str::FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let wrong = "a time is a whole number and a unit, as 30s, 5min, 2h or 30d";
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
    fn times_are_read_as_people_write_them() {
        let time = |text: &str| text.parse::<Span>().map(|time| time.0.as_secs());
        assert_eq!(
            [time("40s"), time("2min"), time("1h"), time("30d")],
            [Ok(40), Ok(120), Ok(3600), Ok(2_592_000)]
        );
        for bad in ["", "40", "s", "0s", "-1s", "1.5h", "1 week", "99999999999d"] {
            assert!(time(bad).is_err(), "{bad:?}");
        }
    }
}
