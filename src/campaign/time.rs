//! Timestamps in all interfaces: RFC 3339 in UTC, with milliseconds.

use jiff::Timestamp;
use serde::Serializer;

/// Formats a timestamp: `2026-11-01T03:30:00.000Z`.
pub fn rfc3339(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// Serializes a timestamp.
///
/// # Errors
///
/// The serializer's.
pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

/// Serializes an optional timestamp.
///
/// # Errors
///
/// The serializer's.
pub fn serialize_option<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serialize(at, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_always_has_milliseconds() {
        for (at, text) in [
            ("2026-11-01T09:00:00+05:30", "2026-11-01T03:30:00.000Z"),
            ("2026-11-28T01:32:59.19Z", "2026-11-28T01:32:59.190Z"),
            ("2026-11-28T01:32:59.123999Z", "2026-11-28T01:32:59.123Z"),
        ] {
            assert_eq!(rfc3339(at.parse().unwrap()), text);
        }
    }
}
