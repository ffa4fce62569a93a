//! An E.164 number. `phone_parser.rs` reads other spellings.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Minimum and maximum number of digits of an E.164 number, country code included.
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

/// An invalid E.164 number.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("write the number with + and the country code, 7 to 15 digits in all, e.g. +912248931479")]
pub struct InvalidPhone;

impl Phone {
    /// Creates a number from its digits, country code first.
    pub fn from_digits(digits: u64) -> Option<Self> {
        let count = digits.checked_ilog10()? as usize + 1;
        DIGITS.contains(&count).then_some(Self(digits))
    }

    /// Returns the digits, country code first.
    pub fn digits(self) -> u64 {
        self.0
    }

    /// Returns the canonical spelling of a number for which `WhatsApp` has two: Mexico with and without `1` (`52 1`),
    /// Argentina with and without `9` (`54 9`), Brazilian mobile numbers with and without their ninth digit. It is
    /// only compared, never sent to.
    ///
    /// ```
    /// use flowcast::campaign::Phone;
    ///
    /// let person = |text: &str| Ok::<_, flowcast::campaign::phone::InvalidPhone>(text.parse::<Phone>()?.person());
    /// assert_eq!(person("+5511987654321")?, person("+551187654321")?);
    /// assert_eq!(person("+5215512345678")?, person("+525512345678")?);
    /// # Ok::<(), flowcast::campaign::phone::InvalidPhone>(())
    /// ```
    #[must_use]
    pub fn person(self) -> Self {
        /// Ten digits follow a country code and one digit.
        const TEN: u64 = 10_000_000_000;
        /// The digits of a Brazilian number after the area code and the ninth digit.
        const EIGHT: u64 = 100_000_000;
        let (front, rest) = (self.0 / TEN, self.0 % TEN);
        match front {
            521 => return Self(52 * TEN + rest),
            549 => return Self(54 * TEN + rest),
            _ => {}
        }
        let (front, last) = (self.0 / EIGHT, self.0 % EIGHT);
        let (area, ninth) = (front / 10, front % 10);
        // Only numbers that are older than the ninth digit have a spelling without it; they begin with 6 to 9.
        let is_old = (5511..=5599).contains(&area) && ninth == 9 && last >= EIGHT / 10 * 6;
        if is_old { Self(area * EIGHT + last) } else { self }
    }

    /// Returns all spellings that `WhatsApp` may use for this number, [`Phone::person`] first.
    pub fn spellings(self) -> impl Iterator<Item = Self> {
        const TEN: u64 = 10_000_000_000;
        const EIGHT: u64 = 100_000_000;
        let person = self.person();
        let (front, rest) = (person.0 / TEN, person.0 % TEN);
        let (area, last) = (person.0 / EIGHT, person.0 % EIGHT);
        let other = match front {
            52 => Some(521 * TEN + rest),
            54 => Some(549 * TEN + rest),
            _ if (5511..=5599).contains(&area) => Some((area * 10 + 9) * EIGHT + last),
            _ => None,
        };
        let other = other.map(Self).filter(|other| *other != person && other.person() == person);
        std::iter::once(person).chain(other)
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

/// Human-readable formats have the `+` form; binary formats have the digits as a number.
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
    fn only_e164_is_accepted() {
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
    fn a_recipient_has_one_key_in_any_spelling() {
        let spelled = |text: &str| {
            let phone: Phone = text.parse().unwrap();
            phone.spellings().map(|phone| phone.to_string()).collect::<Vec<_>>()
        };
        for (one, other) in [
            ("+525512345678", "+5215512345678"),
            ("+541123456789", "+5491123456789"),
            ("+551187654321", "+5511987654321"),
        ] {
            assert_eq!(spelled(one), [one, other]);
            assert_eq!(spelled(other), [one, other]);
        }
        // A mobile number that never had eight digits, a fixed-line number, other countries, other lengths.
        for alone in [
            "+5511923456789",
            "+551123456789",
            "+919876543210",
            "+52551234567",
            "+14155552671",
            "+5411234567",
            "+5511",
        ]
        .iter()
        .filter(|text| text.len() > 7)
        {
            assert_eq!(spelled(alone), [*alone]);
        }
    }

    #[test]
    fn a_debug_print_hides_the_number() {
        let phone: Phone = "+919876543210".parse().unwrap();
        assert_eq!(format!("{phone:?}"), "+91********10");
    }
}
