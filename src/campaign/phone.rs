//! An E.164 number as a value. How a person's spelling becomes one is the audience's business.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The digits of an E.164 number at the least and at the most: country code and number together.
const DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

/// A number in E.164: `+`, a country code that does not begin with 0, and 7 to 15 digits in all.
///
/// Its debug print hides all but the country code and the last two digits.
///
/// ```
/// use flowcast::campaign::Phone;
///
/// let phone: Phone = "+919876543210".parse()?;
/// assert_eq!(phone.to_string(), "+919876543210");
/// assert_eq!(format!("{phone:?}"), "+91********10");
/// # Ok::<(), flowcast::campaign::phone::InvalidPhone>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Phone(u64);

/// A text that is no E.164 number.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an E.164 number is a + and 7 to 15 digits, the first not 0")]
pub struct InvalidPhone;

impl Phone {
    /// The number whose digits, country code first, are those of `digits`.
    pub fn from_digits(digits: u64) -> Option<Self> {
        let count = digits.checked_ilog10()? as usize + 1;
        DIGITS.contains(&count).then_some(Self(digits))
    }

    /// The digits, country code first.
    pub fn digits(self) -> u64 {
        self.0
    }
}

impl FromStr for Phone {
    type Err = InvalidPhone;

    fn from_str(text: &str) -> Result<Self, InvalidPhone> {
        let digits = text.strip_prefix('+').ok_or(InvalidPhone)?.as_bytes();
        if !DIGITS.contains(&digits.len()) || digits[0] == b'0' {
            return Err(InvalidPhone);
        }
        let mut number = 0;
        for &digit in digits {
            if !digit.is_ascii_digit() {
                return Err(InvalidPhone);
            }
            number = number * 10 + u64::from(digit - b'0');
        }
        Ok(Self(number))
    }
}

/// Where people read it, it is written as they do; elsewhere its digits are a number.
impl Serialize for Phone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Phone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return String::deserialize(deserializer)?.parse().map_err(de::Error::custom);
        }
        Self::from_digits(u64::deserialize(deserializer)?).ok_or_else(|| de::Error::custom(InvalidPhone))
    }
}

impl fmt::Display for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.0)
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_string();
        write!(f, "{}{}{}", &text[..3], "*".repeat(text.len() - 5), &text[text.len() - 2..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_e164_is_taken() {
        for bad in
            ["", "+", "919876543210", "+0123456789", "+91 98765", "+123456", "+1234567890123456", "+9１"]
        {
            assert_eq!(bad.parse::<Phone>(), Err(InvalidPhone), "{bad:?}");
        }
        assert_eq!("+919876543210".parse::<Phone>().unwrap().to_string(), "+919876543210");
        assert_eq!(Phone::from_digits(0), None);
        assert_eq!(Phone::from_digits(919_876_543_210), "+919876543210".parse().ok());
    }

    #[test]
    fn a_debug_print_hides_the_number() {
        let phone: Phone = "+919876543210".parse().unwrap();
        assert_eq!(format!("{phone:?}"), "+91********10");
    }
}
