//! Prices of messages by destination, from the configuration. Used for the forecast only, not for billing.

use std::{collections::BTreeMap, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::{Phone, thousands};

/// Parts of a price's unit: millionths, so that the sum over ten million messages is exact.
const PARTS: u64 = 1_000_000;

/// The price of one message or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price(u64);

/// Prices by destination.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceList {
    /// Currency of the prices, e.g. `INR`.
    #[schemars(example = &"INR")]
    pub currency: String,
    /// Price of one message by the first digits of the number, which begin with the country code, e.g. `91`. The
    /// longest match counts; `other` is the price for all other numbers.
    #[schemars(schema_with = "prices", example = BTreeMap::from([("91", 0.88), ("other", 6.0)]))]
    per_message: BTreeMap<Prefix, Price>,
}

/// The first digits of numbers; none of them for all numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix(String);

fn prices(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "propertyNames": { "pattern": "^([0-9]{1,15}|other)$" },
        "additionalProperties": { "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 1_000_000 },
            { "type": "string", "pattern": "^\\s*[+-]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?\\s*$" },
        ] },
    })
}

impl PriceList {
    /// Returns the price of a message to a number, if the list has one.
    pub fn for_phone(&self, phone: Phone) -> Option<Price> {
        let number = phone.digits().to_string();
        (0..=number.len()).rev().find_map(|end| self.per_message.get(number.get(..end)?)).copied()
    }
}

impl Price {
    /// Returns the price in its unit, as a float.
    pub fn value(self) -> f64 {
        self.0 as f64 / PARTS as f64
    }
}

impl std::borrow::Borrow<str> for Prefix {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_prefix = (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.as_str() {
            "other" => Ok(Self(String::new())),
            _ if is_prefix => Ok(Self(text)),
            _ => Err(serde::de::Error::custom(format!(
                "{text:?} is neither a number prefix, e.g. 91, nor `other`"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(price) = number(deserializer).filter(|price: &f64| (0.0..=1_000_000.0).contains(price))
        else {
            return Err(serde::de::Error::custom("a price must be a number from 0 to 1000000"));
        };
        Ok(Self((price * PARTS as f64).round() as u64))
    }
}

/// Reads a number, or a text with a number: values of the environment are texts.
pub(crate) fn number<'de, T: Deserialize<'de> + FromStr, D: Deserializer<'de>>(deserializer: D) -> Option<T> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either<T> {
        Number(T),
        Text(String),
    }
    match Either::deserialize(deserializer).ok()? {
        Either::Number(number) => Some(number),
        Either::Text(text) => text.trim().parse().ok(),
    }
}

impl std::ops::AddAssign for Price {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }
}

/// With two decimals, rounded up: a forecast should not be too low.
impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = self.0.div_ceil(PARTS / 100);
        write!(f, "{}.{:02}", thousands(hundredths / 100), hundredths % 100)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn list(per_message: &Value) -> Result<PriceList, String> {
        serde_json::from_value(json!({ "currency": "INR", "per_message": per_message }))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_longest_prefix_counts_and_a_number_without_one_has_no_price() {
        let price =
            |list: &PriceList, number: &str| list.for_phone(number.parse().unwrap()).map(|p| p.to_string());
        let known = list(&json!({ "91": 0.8631, "9198": 1, "1": 2.5 })).unwrap();
        assert_eq!(price(&known, "+917012345678").as_deref(), Some("0.87"));
        assert_eq!(price(&known, "+919812345678").as_deref(), Some("1.00"));
        assert_eq!(price(&known, "+12025550123").as_deref(), Some("2.50"));
        assert_eq!(price(&known, "+4915112345678"), None);
        let all = list(&json!({ "91": "0.8631", "other": 7 })).unwrap();
        assert_eq!(price(&all, "+4915112345678").as_deref(), Some("7.00"));
    }

    #[test]
    fn sums_are_exact_and_rounded_up_once() {
        let one =
            list(&json!({ "other": 0.8631 })).unwrap().for_phone("+919876543210".parse().unwrap()).unwrap();
        let mut sum = Price::default();
        for _ in 0..10_000 {
            sum += one;
        }
        assert_eq!(sum.to_string(), "8,631.00");
    }

    #[test]
    fn invalid_lists_are_refused_with_the_reason() {
        for (per_message, said) in [
            (json!({ "+91": 1 }), "number prefix"),
            (json!({ "": 1 }), "number prefix"),
            (json!({ "India": 1 }), "number prefix"),
            (json!({ "91": -1 }), "from 0"),
            (json!({ "91": 1e9 }), "from 0"),
            (json!({ "91": "one" }), "from 0"),
            (json!({ "91": [] }), "from 0"),
        ] {
            let refused = list(&per_message).unwrap_err();
            assert!(refused.contains(said), "{per_message}: {refused}");
        }
    }
}
