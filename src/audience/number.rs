//! How a person's spelling of a number becomes E.164.
//!
//! What is plainly a valid number is taken by one match against the phone-number library's own
//! patterns for its country. Everything else goes through the library's parser.

use std::str::FromStr;
use std::sync::OnceLock;

use phonenumber::metadata::DATABASE;
use phonenumber::{Mode, country};
use regex::{Regex, RegexBuilder};

use crate::campaign::Phone;
use crate::campaign::text::is_invisible;

/// Why a text is no number. It never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing there.
    #[error("no number in the phone column")]
    Empty,
    /// `9.19876E+11`: the digits are gone.
    #[error(
        "a spreadsheet rounded the number (as in 9.19876E+11); format the column as text and export again"
    )]
    Rounded,
    /// Letters and the like.
    #[error("the number holds characters that belong to no number")]
    Characters,
    /// No `+`, and no region to read it in.
    #[error("the number has no country code and the job no default_region")]
    NoRegion,
    /// No such number in its country's plan.
    #[error("no such number exists in its country's numbering plan")]
    Invalid,
}

/// Normalises numbers, in the light of a default region.
///
/// ```
/// use flowcast::audience::PhoneNumbers;
///
/// let numbers = PhoneNumbers::new(Some("IN"));
/// for text in ["98765 43210", "0091 98765-43210", "(+91) 98765 43210", "919876543210.0"] {
///     assert_eq!(numbers.normalise(text)?.to_string(), "+919876543210");
/// }
/// assert!(numbers.normalise("9.19876E+11").is_err());
/// # Ok::<(), flowcast::audience::Refusal>(())
/// ```
pub struct Numbers {
    region: Option<country::Id>,
    /// The region's calling code.
    region_code: Option<u16>,
}

/// By calling code, made at first sight and kept for all audiences: a small one would take longer to make
/// them than to be read.
static PLAIN: [OnceLock<Known>; 1000] = [const { OnceLock::new() }; 1000];

/// What is known of a calling code: what is plainly a number there, where that can be told.
type Known = Option<Plain>;

/// The patterns of a calling code's main country.
struct Plain {
    /// Mobile and fixed lines: both have `WhatsApp`.
    number: Regex,
    /// What stands before a number within the country. A number that begins so is the parser's.
    prefix: Option<Regex>,
}

impl Plain {
    fn is_match(&self, national: &str) -> bool {
        self.number.is_match(national)
            && !self.prefix.as_ref().is_some_and(|prefix| prefix.is_match(national))
    }
}

impl Numbers {
    /// Loads the library's plans of all countries, which takes a tenth of a second, before the first
    /// audience waits for it.
    pub fn load() {
        let _ = DATABASE.by_id("IN");
    }

    /// `region` is a two-letter code; an unknown one is as good as none.
    pub fn new(region: Option<&str>) -> Self {
        let region = region.and_then(|region| country::Id::from_str(region).ok());
        let region_code =
            region.and_then(|id| DATABASE.by_id(id.as_ref())).map(phonenumber::Metadata::country_code);
        Self { region, region_code }
    }

    /// The number that a text means.
    ///
    /// # Errors
    ///
    /// Why it means none.
    pub fn normalise(&self, text: &str) -> Result<Phone, Refusal> {
        if let Some(phone) = self.plainly(text) {
            return Ok(phone);
        }
        let clean = clean(text)?;
        // The parser would take what it does not know for a part of the number.
        if self.region.is_none() && !clean.starts_with('+') {
            return Err(Refusal::NoRegion);
        }
        let number = phonenumber::parse(self.region, &clean).map_err(|_| Refusal::Invalid)?;
        if !phonenumber::is_valid(&number) {
            return Err(Refusal::Invalid);
        }
        number.format().mode(Mode::E164).to_string().parse().map_err(|_| Refusal::Invalid)
    }

    /// `+` and digits, or digits of the default region, that match a pattern as they stand.
    fn plainly(&self, text: &str) -> Option<Phone> {
        let (digits, code) = match text.strip_prefix('+') {
            Some(digits) => (digits, None),
            None => (text, Some(self.region_code?)),
        };
        if digits.len() > 15 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (code, national) = match code {
            Some(code) => (code, digits),
            None => Self::split(digits)?,
        };
        if !Self::is_plain(code, national) {
            return None;
        }
        let national_number: u64 = national.parse().ok()?;
        let length = u32::try_from(national.len()).ok()?;
        Phone::from_digits(u64::from(code) * 10_u64.pow(length) + national_number)
    }

    /// The calling code at the front. No code is the beginning of another one.
    fn split(digits: &str) -> Option<(u16, &str)> {
        (1..=3).find_map(|length| {
            let (code, national) = digits.split_at_checked(length)?;
            let code = code.parse().ok().filter(|_| !code.starts_with('0'))?;
            patterns(code).map(|_| (code, national))
        })
    }

    fn is_plain(code: u16, national: &str) -> bool {
        patterns(code).and_then(Option::as_ref).is_some_and(|plain| plain.is_match(national))
    }
}

/// The patterns of a calling code, `None` where there is no such code.
fn patterns(code: u16) -> Option<&'static Known> {
    let slot = PLAIN.get(usize::from(code))?;
    if slot.get().is_none() {
        DATABASE.region(&code)?;
    }
    Some(slot.get_or_init(|| plain_patterns(code)))
}

/// The patterns of the first region of a calling code, where it decides alone.
///
/// The library asks the regions of a code in order, so a number of the first is valid.
fn plain_patterns(code: u16) -> Option<Plain> {
    let meta = DATABASE.by_id(*DATABASE.region(&code)?.first()?)?;
    let kinds = [meta.descriptors().mobile(), meta.descriptors().fixed_line()];
    let compact = |pattern: &str| pattern.split_whitespace().collect::<String>();
    let patterns: Vec<String> =
        kinds.iter().flatten().map(|kind| compact(kind.national_number().as_str())).collect();
    let prefix = match meta.national_prefix_for_parsing() {
        Some(prefix) => Some(pattern(&format!("^(?:{})", compact(prefix.as_str())))?),
        None => None,
    };
    let plain = Plain { number: pattern(&format!("^(?:{})$", patterns.join("|")))?, prefix };
    // Tried on the library's own example: a pattern that reads otherwise here is not used.
    let example = kinds.iter().flatten().find_map(|kind| kind.example())?;
    (meta.leading_digits().is_none() && plain.is_match(example)).then_some(plain)
}

/// A pattern of ASCII digits: what it is matched against holds no others.
fn pattern(text: &str) -> Option<Regex> {
    RegexBuilder::new(text).unicode(false).build().ok()
}

/// The text without what people and programs put around digits.
fn clean(text: &str) -> Result<String, Refusal> {
    let mut clean: String =
        text.chars().filter(|c| !c.is_whitespace() && !c.is_control() && !is_invisible(*c)).collect();
    // A spreadsheet's mark for "this is text".
    if clean.starts_with('\'') {
        clean.remove(0);
    }
    if clean.is_empty() {
        return Err(Refusal::Empty);
    }
    // `919876543210.0` lost nothing; `9.19876E+11` did.
    if let Some(whole) = clean.strip_suffix(".0").filter(|whole| whole.bytes().all(|b| b.is_ascii_digit())) {
        clean.truncate(whole.len());
    }
    let looks_rounded = |text: &str| {
        let (mantissa, exponent) = text.split_once(['e', 'E'])?;
        let digits =
            |text: &str| text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b',' | b'+' | b'-'));
        (!mantissa.is_empty() && digits(mantissa) && digits(exponent)).then_some(())
    };
    if looks_rounded(&clean).is_some() {
        return Err(Refusal::Rounded);
    }
    let known = |c: char| {
        c.is_ascii_digit()
            || matches!(c, '+' | '-' | '(' | ')' | '.' | '/' | '\u{2010}'..='\u{2015}' | '\u{2212}')
    };
    if !clean.chars().all(known) {
        return Err(Refusal::Characters);
    }
    let digits: String = clean.chars().filter(char::is_ascii_digit).collect();
    // `+` only in front, where `(+91)` is in front too.
    let international = match clean.rfind('+') {
        None => false,
        Some(at) if clean[..at].chars().all(|c| c == '(') => true,
        Some(_) => return Err(Refusal::Characters),
    };
    Ok(if international {
        format!("+{digits}")
    } else if let Some(rest) = digits.strip_prefix("00") {
        format!("+{rest}")
    } else {
        digits
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn indian(text: &str) -> Result<String, Refusal> {
        Numbers::new(Some("IN")).normalise(text).map(|phone| phone.to_string())
    }

    #[test]
    fn every_usual_spelling_is_understood() {
        for text in [
            "+919876543210",
            "9876543210",
            "09876543210",
            "919876543210",
            "0091 98765 43210",
            "+91 (98765) 43-210",
            "(+91) 98765-43210",
            " +91\u{a0}98765\u{200b}43210 ",
            "'+919876543210",
            "919876543210.0",
            "+91-98765-43210",
            "\u{202a}+91 98765 43210\u{202c}",
            "+91.98765.43210",
            "9876543210.0",
        ] {
            assert_eq!(indian(text).as_deref(), Ok("+919876543210"), "{text:?}");
        }
        assert_eq!(indian("+1 (415) 555-2671").as_deref(), Ok("+14155552671"));
        assert_eq!(indian("0044 7911 123456").as_deref(), Ok("+447911123456"));
    }

    #[test]
    fn what_is_no_number_is_refused_with_its_reason() {
        assert_eq!(indian(""), Err(Refusal::Empty));
        assert_eq!(indian(" \u{200b}"), Err(Refusal::Empty));
        assert_eq!(indian("9.19876E+11"), Err(Refusal::Rounded));
        assert_eq!(indian("9,19876e+11"), Err(Refusal::Rounded));
        assert_eq!(indian("98765O3210"), Err(Refusal::Characters));
        assert_eq!(indian("+91 98765+43210"), Err(Refusal::Characters));
        for text in [
            "12345",
            "+91 12345",
            "+919876543210123",
            "0000000000",
            "+",
            "-",
            "99999999999999999999999999",
            "+0",
        ] {
            assert_eq!(indian(text), Err(Refusal::Invalid), "{text:?}");
        }
        assert_eq!(Numbers::new(None).normalise("9876543210"), Err(Refusal::NoRegion));
    }

    #[test]
    fn what_is_taken_as_it_stands_is_what_the_parser_finds() {
        let mut taken = 0;
        let numbers = Numbers::new(None);
        for meta in DATABASE.iter().filter(|meta| meta.country_code() > 0) {
            let descriptors = meta.descriptors();
            let kinds = [descriptors.mobile(), descriptors.fixed_line(), descriptors.voip()];
            for example in kinds.into_iter().flatten().filter_map(|kind| kind.example()) {
                for last in 0..=9 {
                    let mut example = example.to_string();
                    example.replace_range(example.len() - 1.., &format!("{last}"));
                    let text = format!("+{}{example}", meta.country_code());
                    let plainly = numbers.plainly(&text);
                    let parsed = phonenumber::parse(None, &text).ok().filter(phonenumber::is_valid);
                    if let Some(phone) = plainly {
                        taken += 1;
                        let parsed = parsed.map(|number| number.format().mode(Mode::E164).to_string());
                        assert_eq!(parsed, Some(phone.to_string()), "{text}");
                    }
                }
            }
        }
        // Nearly all countries have the fast path; India and the others with most users certainly.
        assert!(taken > 1000, "{taken}");
        for number in ["+919876543210", "+5511961234567", "+6281234567890", "+14155552671", "+447400123456"] {
            assert!(numbers.plainly(number).is_some(), "{number}");
        }
    }

    proptest! {
        #[test]
        fn normalisation_is_idempotent(text in "[+0-9 ()./-]{0,20}|\\PC{0,20}|(\\+|00)?(91|1|44|55|62|49)[0-9]{6,11}") {
            for region in [None, Some("IN"), Some("US"), Some("IT")] {
                let numbers = Numbers::new(region);
                if let Ok(phone) = numbers.normalise(&text) {
                    prop_assert_eq!(numbers.normalise(&phone.to_string()), Ok(phone));
                }
            }
        }

        #[test]
        fn the_fast_way_and_the_parser_agree(code in prop::sample::select(vec![91_u16, 1, 44, 55, 62, 49, 39, 52, 54, 234, 7, 971, 225]), national in "[0-9]{6,12}") {
            thread_local!(static NUMBERS: std::cell::RefCell<Numbers> = Numbers::new(None).into());
            let text = format!("+{code}{national}");
            if let Some(phone) = NUMBERS.with_borrow_mut(|numbers| numbers.plainly(&text)) {
                let number = phonenumber::parse(None, &text).unwrap();
                prop_assert!(phonenumber::is_valid(&number));
                prop_assert_eq!(number.format().mode(Mode::E164).to_string(), phone.to_string());
            }
        }
    }
}
