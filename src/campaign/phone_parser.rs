//! Parses phone numbers as people and files write them, and converts them to E.164.
//!
//! An obvious mobile number is matched against the pattern of its country ([`plans`]). Any other text goes through
//! the phone-number library. A text with several numbers, or with a part of one, is an error: nothing is guessed, cut
//! off or joined.

mod amount;
mod error;
mod plans;
mod spelling;

use std::sync::LazyLock;

use rlibphonenumber::{
    CountryCodeSource, PHONE_NUMBER_UTIL, ParseError, PhoneNumber, PhoneNumberFormat, Region,
};

use super::phone::Phone;
pub use error::PhoneError;
use plans::Plan;
use spelling::{DigitRun, MAX_DIGITS, SHORTEST, Spelling};

/// The regions with the most users of `WhatsApp`, the largest first.
const LARGEST_REGIONS: [&str; 10] = ["IN", "BR", "ID", "US", "MX", "NG", "PK", "DE", "ES", "IT"];

/// Parses numbers with a default region. A number that begins with `+` or `00` does not depend on the region.
///
/// ```
/// use flowcast::campaign::{PhoneError, PhoneParser};
///
/// let numbers = PhoneParser::new(Some("IN"));
/// for text in ["98765 43210", "0091 98765-43210", "(+91) 98765 43210", "919876543210.0", "p:+919876543210"] {
///     assert_eq!(numbers.parse(text)?.to_string(), "+919876543210");
/// }
/// assert_eq!(numbers.parse("9.19876E+11"), Err(PhoneError::Rounded));
/// assert_eq!(numbers.parse("98765 43210 / 98765 43211"), Err(PhoneError::Several));
/// # Ok::<(), PhoneError>(())
/// ```
#[derive(Clone, Copy)]
pub struct PhoneParser {
    region: Option<Region>,
    /// The region's calling code, if the region is the main one of that code.
    plain_code: Option<u16>,
}

impl PhoneParser {
    /// Loads the library's numbering plans in advance, so that the first audience does not wait for them.
    pub fn load() {
        LazyLock::force(&PHONE_NUMBER_UTIL);
    }

    /// Returns whether a region code exists, in capitals as in ISO 3166.
    pub fn knows_region(region: &str) -> bool {
        known_region(region).is_some()
    }

    /// Returns all two-letter region codes.
    pub fn regions() -> Vec<String> {
        let known = PHONE_NUMBER_UTIL.get_supported_regions();
        let mut codes: Vec<String> = known.map(|region| region.as_region_str().as_str().to_owned()).collect();
        codes.sort_unstable();
        codes
    }

    /// Returns the calling code of a region: 91 of `IN`.
    pub fn calling_code(region: &str) -> Option<u16> {
        let code = PHONE_NUMBER_UTIL.get_country_code_for_region(known_region(region)?)?;
        u16::try_from(code).ok()
    }

    /// Returns the region that a number belongs to, by its two letters.
    pub fn region(phone: Phone) -> Option<String> {
        region_of(phone).map(|region| region.as_region_str().as_str().to_owned())
    }

    /// Creates a parser. `region` is a two-letter code; an unknown one is ignored.
    pub fn new(region: Option<&str>) -> Self {
        Self::of_region(region.and_then(known_region))
    }

    fn of_region(region: Option<Region>) -> Self {
        let plain_code = region.and_then(|region| {
            let code = PHONE_NUMBER_UTIL.get_country_code_for_region(region)?;
            let is_main = PHONE_NUMBER_UTIL.get_region_for_country_code(code) == Some(region);
            u16::try_from(code).ok().filter(|_| is_main)
        });
        Self { region, plain_code }
    }

    /// Parses a number in international form.
    ///
    /// # Errors
    ///
    /// Why it is not a number.
    pub fn international(text: &str) -> Result<Phone, PhoneError> {
        Self { region: None, plain_code: None }.parse(text)
    }

    /// Parses a number that is already on a list, even one that numbering plans no longer have.
    ///
    /// # Errors
    ///
    /// Why it is not a number.
    pub fn listed(text: &str) -> Result<Phone, PhoneError> {
        Self::international(text).or_else(|error| text.parse().map_err(|_| error))
    }

    /// Parses a number.
    ///
    /// # Errors
    ///
    /// Why it is not a number.
    pub fn parse(self, text: &str) -> Result<Phone, PhoneError> {
        if let Some(phone) = self.plainly(text) {
            return Ok(phone);
        }
        let spelling = Spelling::read(text)?;
        let is_number = |part: &DigitRun| self.resolve(*part, &spelling.digits).is_ok();
        if spelling.parts.iter().any(|part| part.is_strict && is_number(part)) {
            return Err(PhoneError::Several);
        }
        let whole = spelling.whole();
        self.resolve(whole, &spelling.digits).map_err(|error| {
            let is_long = whole.to > MAX_DIGITS;
            let mut more = spelling.parts.iter().filter(|part| whole.to - part.to >= SHORTEST);
            if more.any(|part| is_long || is_number(part)) { PhoneError::Several } else { error }
        })
    }

    /// Returns the region whose calling code most of these numbers begin with, if they only lack the `+`, and their
    /// count.
    pub fn region_without_plus(texts: &[&str]) -> Option<(String, usize)> {
        let region = |text: &&str| {
            let digits = text.trim();
            let is_plain = digits.starts_with(|c: char| c.is_ascii_digit() && c != '0');
            region_of(Self::international(&format!("+{digits}")).ok().filter(|_| is_plain)?)
        };
        let mut counts = std::collections::BTreeMap::<Region, usize>::new();
        for region in texts.iter().filter_map(region) {
            *counts.entry(region).or_default() += 1;
        }
        let (region, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        (count * 2 > texts.len()).then(|| (region.as_region_str().as_str().to_owned(), count))
    }

    /// Returns the region in which most of these numbers are valid, and their count, as a hint for numbers without a
    /// country code. Of equal regions that of `likely` is preferred, then the one with the most users of `WhatsApp`.
    pub fn best_region(texts: &[&str], likely: Option<Phone>) -> Option<(String, usize)> {
        let likely = likely.and_then(region_of);
        let count =
            |region| texts.iter().filter(|text| Self::of_region(Some(region)).parse(text).is_ok()).count();
        let rank = |region: Region| {
            let name = region.as_region_str();
            std::cmp::Reverse(
                LARGEST_REGIONS
                    .iter()
                    .position(|known| *known == name.as_str())
                    .unwrap_or(LARGEST_REGIONS.len()),
            )
        };
        let counted = PHONE_NUMBER_UTIL.get_supported_regions().map(|region| (count(region), region));
        let best = counted.max_by_key(|(count, region)| {
            (*count, Some(*region) == likely, rank(*region), std::cmp::Reverse(*region))
        });
        best.filter(|(count, _)| *count > 0)
            .map(|(count, region)| (region.as_region_str().as_str().to_owned(), count))
    }

    /// Resolves digits as written.
    fn resolve(self, part: DigitRun, digits: &str) -> Result<Phone, PhoneError> {
        let national = digits.get(..part.to).unwrap_or_default();
        if part.is_international {
            return valid(PHONE_NUMBER_UTIL.parse(format!("+{national}"), None));
        }
        let Some(after) = national.strip_prefix("00") else {
            let region = self.region.ok_or(PhoneError::NoRegion)?;
            return valid(PHONE_NUMBER_UTIL.parse(national, Some(region)));
        };
        valid(PHONE_NUMBER_UTIL.parse(format!("+{after}"), None)).or_else(|error| {
            // A region's international prefix may begin with 00, e.g. Australia's 0011. This is tried second, because
            // some regions read the digits after 00 as a carrier code and would turn the rest into another person's
            // number.
            let number =
                PHONE_NUMBER_UTIL.parse_and_keep_raw_input(national, Some(self.region.ok_or(error)?));
            let number = number.map_err(|_| error)?;
            let is_abroad = number.country_code_source() == CountryCodeSource::FromNumberWithIdd;
            if is_abroad { valid::<ParseError>(Ok(number)) } else { Err(error) }
        })
    }

    /// Matches `+` and digits, or digits of the default region, that are an obvious mobile number.
    fn plainly(self, text: &str) -> Option<Phone> {
        let (digits, code) = match text.strip_prefix('+') {
            Some(digits) => (digits, None),
            None => (text, Some(self.plain_code?)),
        };
        if digits.len() > MAX_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (code, national) = match code {
            Some(code) => (code, digits),
            // No calling code is a prefix of another.
            None => (1..=3).find_map(|length| {
                let (code, national) = digits.split_at_checked(length)?;
                let code = code.parse().ok().filter(|_| !code.starts_with('0'))?;
                Plan::for_country(code).map(|_| (code, national))
            })?,
        };
        if !Plan::for_country(code)?.is_mobile(national) {
            return None;
        }
        let national_number: u64 = national.parse().ok()?;
        let length = u32::try_from(national.len()).ok()?;
        Phone::from_digits(u64::from(code) * 10_u64.pow(length) + national_number)
    }
}

fn known_region(code: &str) -> Option<Region> {
    let region = Region::from_code(code).ok()?;
    PHONE_NUMBER_UTIL.get_country_code_for_region(region).map(|_| region)
}

/// Returns the region of a number.
fn region_of(phone: Phone) -> Option<Region> {
    let number = PHONE_NUMBER_UTIL.parse(phone.to_string(), None).ok()?;
    PHONE_NUMBER_UTIL.get_region_for_number(&number)
}

/// Returns the number that the library parsed, if it is valid.
fn valid<E>(read: Result<PhoneNumber, E>) -> Result<Phone, PhoneError> {
    let number = read.map_err(|_| PhoneError::Invalid)?;
    let phone: Phone = PHONE_NUMBER_UTIL
        .format(&number, PhoneNumberFormat::E164)
        .parse()
        .map_err(|_| PhoneError::Invalid)?;
    if PHONE_NUMBER_UTIL.is_valid_number(&number) {
        return Ok(phone);
    }
    // WhatsApp still uses spellings that numbering plans have dropped: Brazil without the ninth digit, Mexico with 1.
    let is_valid = |other: Phone| {
        PHONE_NUMBER_UTIL
            .parse(other.to_string(), None)
            .is_ok_and(|number| PHONE_NUMBER_UTIL.is_valid_number(&number))
    };
    if phone.spellings().filter(|other| *other != phone).any(is_valid) {
        Ok(phone)
    } else {
        Err(PhoneError::Invalid)
    }
}

#[cfg(test)]
mod tests;
