//! How a person's spelling of a number becomes E.164. Everything that reads a number which a person or a file wrote goes
//! through [`PhoneParser`].
//!
//! What is plainly a mobile number is taken by one match against the pattern of its country ([`plans`]). Everything else goes
//! through the phone-number library. What holds more than one number, or not all of one, is refused:
//! nothing is guessed, cut off or put together.

mod plans;

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Regex, RegexBuilder};
use rlibphonenumber::{
    CountryCodeSource, PHONE_NUMBER_UTIL, ParseError, PhoneNumber, PhoneNumberFormat, Region,
};

use self::plans::Plan;
use super::phone::Phone;
use super::text::is_invisible;

/// Why a text is no number. It never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum PhoneError {
    /// Nothing there.
    #[error("no number in the phone column")]
    Empty,
    /// `9.19876E+11`: the digits are gone.
    #[error(
        "a spreadsheet rounded the number (as in 9.19876E+11); format the column as text and export again"
    )]
    Rounded,
    /// `9876543210 / 9876543211`.
    #[error("the cell holds more than one number; keep one")]
    Several,
    /// `022 2489 3147 ext. 12`: who is behind a switchboard can't be reached.
    #[error("the number has an extension, which WhatsApp can't reach; give the person's own number")]
    Extension,
    /// Letters and the like.
    #[error("the number holds characters that belong to no number")]
    Characters,
    /// No `+`, and no region to read it in.
    #[error("the number has no country code; write it with + and the country code, or set default_region")]
    NoRegion,
    /// No such number in its country's plan.
    #[error("no such number exists in its country's numbering plan")]
    Invalid,
}

/// The regions with the most people on `WhatsApp`, the largest first.
const LARGEST: [&str; 10] = ["IN", "BR", "ID", "US", "MX", "NG", "PK", "DE", "ES", "IT"];

/// Reads numbers, in the light of a default region. A number that begins with `+` or `00` means the same whatever the region
/// is.
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
    /// The region's calling code, where the region is the main one of that code.
    plain_code: Option<u16>,
}

impl PhoneParser {
    /// Loads the library's plans of all countries before the first audience waits for them.
    pub fn load() {
        LazyLock::force(&PHONE_NUMBER_UTIL);
    }

    /// Whether there is a region of this code, in capitals as in ISO 3166.
    pub fn knows_region(region: &str) -> bool {
        known_region(region).is_some()
    }

    /// All regions that there are, by their two letters.
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

    /// `region` is a two-letter code; an unknown one is as good as none.
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

    /// A number in international form.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn international(text: &str) -> Result<Phone, PhoneError> {
        Self { region: None, plain_code: None }.parse(text)
    }

    /// A number that is already on a list: also one that no numbering plan has any more.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn listed(text: &str) -> Result<Phone, PhoneError> {
        Self::international(text).or_else(|error| text.parse().map_err(|_| error))
    }

    /// The number that a text means.
    ///
    /// # Errors
    ///
    /// Why it means none.
    pub fn parse(self, text: &str) -> Result<Phone, PhoneError> {
        if let Some(phone) = self.plainly(text) {
            return Ok(phone);
        }
        let spelling = Spelling::read(text)?;
        let is_number = |part: &Part| self.resolve(*part, &spelling.digits).is_ok();
        if spelling.parts.iter().any(|part| part.is_strict && is_number(part)) {
            return Err(PhoneError::Several);
        }
        let whole = spelling.whole();
        self.resolve(whole, &spelling.digits).map_err(|error| {
            let is_long = whole.to > LONGEST;
            let mut more = spelling.parts.iter().filter(|part| whole.to - part.to >= SHORTEST);
            if more.any(|part| is_long || is_number(part)) { PhoneError::Several } else { error }
        })
    }

    /// Returns the region whose calling code most of these numbers begin with, where they only lack the `+`, and how many do.
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

    /// In which region most of these numbers can be read, and how many of them: what helps where they can't be read as they
    /// are. Where several do as well, `likely` is taken if it is one of them, else the one with the most people on `WhatsApp`.
    pub fn best_region(texts: &[&str], likely: Option<Phone>) -> Option<(String, usize)> {
        let likely = likely.and_then(region_of);
        let count =
            |region| texts.iter().filter(|text| Self::of_region(Some(region)).parse(text).is_ok()).count();
        let rank = |region: Region| {
            let name = region.as_region_str();
            std::cmp::Reverse(
                LARGEST.iter().position(|known| *known == name.as_str()).unwrap_or(LARGEST.len()),
            )
        };
        let counted = PHONE_NUMBER_UTIL.get_supported_regions().map(|region| (count(region), region));
        let best = counted.max_by_key(|(count, region)| {
            (*count, Some(*region) == likely, rank(*region), std::cmp::Reverse(*region))
        });
        best.filter(|(count, _)| *count > 0)
            .map(|(count, region)| (region.as_region_str().as_str().to_owned(), count))
    }

    /// Reads digits as they were written.
    fn resolve(self, part: Part, digits: &str) -> Result<Phone, PhoneError> {
        let national = digits.get(..part.to).unwrap_or_default();
        if part.is_international {
            return valid(PHONE_NUMBER_UTIL.parse(format!("+{national}"), None));
        }
        let Some(after) = national.strip_prefix("00") else {
            let region = self.region.ok_or(PhoneError::NoRegion)?;
            return valid(PHONE_NUMBER_UTIL.parse(national, Some(region)));
        };
        valid(PHONE_NUMBER_UTIL.parse(format!("+{after}"), None)).or_else(|error| {
            // A region may dial abroad in another way that begins so, as Australia does with 0011. This comes second, because
            // some also read the digits behind 00 as the name of a carrier, and would make a stranger's number of the rest.
            let number =
                PHONE_NUMBER_UTIL.parse_and_keep_raw_input(national, Some(self.region.ok_or(error)?));
            let number = number.map_err(|_| error)?;
            let is_abroad = number.country_code_source() == CountryCodeSource::FromNumberWithIdd;
            if is_abroad { valid::<ParseError>(Ok(number)) } else { Err(error) }
        })
    }

    /// `+` and digits, or digits of the default region, that are a mobile number as they stand.
    fn plainly(self, text: &str) -> Option<Phone> {
        let (digits, code) = match text.strip_prefix('+') {
            Some(digits) => (digits, None),
            None => (text, Some(self.plain_code?)),
        };
        if digits.len() > LONGEST || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (code, national) = match code {
            Some(code) => (code, digits),
            // No calling code is the beginning of another one.
            None => (1..=3).find_map(|length| {
                let (code, national) = digits.split_at_checked(length)?;
                let code = code.parse().ok().filter(|_| !code.starts_with('0'))?;
                Plan::of(code).map(|_| (code, national))
            })?,
        };
        if !Plan::of(code)?.is_mobile(national) {
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

/// The region that a number belongs to.
fn region_of(phone: Phone) -> Option<Region> {
    let number = PHONE_NUMBER_UTIL.parse(phone.to_string(), None).ok()?;
    PHONE_NUMBER_UTIL.get_region_for_number(&number)
}

/// What the library has read, where such a number exists.
fn valid<E>(read: Result<PhoneNumber, E>) -> Result<Phone, PhoneError> {
    let number = read.map_err(|_| PhoneError::Invalid)?;
    let phone: Phone = PHONE_NUMBER_UTIL
        .format(&number, PhoneNumberFormat::E164)
        .parse()
        .map_err(|_| PhoneError::Invalid)?;
    if PHONE_NUMBER_UTIL.is_valid_number(&number) {
        return Ok(phone);
    }
    // WhatsApp still knows people by spellings that numbering plans have given up: Brazil without the ninth digit, Mexico with 1.
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

/// A pattern of ASCII digits: what it is matched against holds no others.
fn pattern(text: &str) -> Option<Regex> {
    RegexBuilder::new(text).unicode(false).build().ok()
}

/// The first digits of a spelling.
#[derive(Clone, Copy, Debug)]
struct Part {
    to: usize,
    /// Whether a `+` stands before them.
    is_international: bool,
    /// Whether a second number follows wherever this is one: behind a stroke or a line's end, not behind a blank.
    is_strict: bool,
}

/// The digits of a text, and what they may be beside one number.
struct Spelling {
    digits: String,
    is_international: bool,
    /// Beginnings that end where a second number may begin. If one of them is a number, the text holds two.
    parts: Vec<Part>,
}

/// What programs write before a number.
const LABELS: [&str; 9] = ["p", "tel", "phone", "mobile", "mob", "whatsapp", "wa", "callto", "sms"];
/// Links to a chat with a number, which is in international form without its `+`.
const LINKS: [&str; 3] = ["wa.me/", "api.whatsapp.com/send?phone=", "api.whatsapp.com/send/?phone="];
/// What stands before an extension, beside `#`.
const EXTENSIONS: [&str; 9] = ["x", "ext", "extn", "extension", "int", "anexo", "ramal", "poste", "доб"];
/// A number is at least so long; less behind a separator is a part of one, or of an extension.
const SHORTEST: usize = 6;
/// E.164 has at most so many digits.
const LONGEST: usize = 15;

impl Spelling {
    fn whole(&self) -> Part {
        Part { to: self.digits.len(), is_international: self.is_international, is_strict: false }
    }

    fn read(text: &str) -> Result<Self, PhoneError> {
        let text = visible(text);
        let text = unquoted(text.trim());
        let (text, is_link) = unlabelled(text);
        if text.is_empty() {
            return Err(PhoneError::Empty);
        }
        let text = whole_number(text)?;
        if has_extension(&text) {
            return Err(PhoneError::Extension);
        }
        let mut spelling = Self { digits: String::new(), is_international: is_link, parts: Vec::new() };
        let (mut plus, mut is_foreign) = (None, false);
        // A separator takes effect with the next digit, since one at the end separates nothing.
        let (mut is_separated, mut is_strict) = (false, false);
        for c in text.chars() {
            if c.is_ascii_digit() {
                let to = spelling.digits.len();
                if is_separated && to >= SHORTEST {
                    let is_international = spelling.is_international;
                    spelling.parts.push(Part { to, is_international, is_strict });
                }
                (is_separated, is_strict) = (false, false);
                spelling.digits.push(c);
                continue;
            }
            match c {
                // Only in front, where `(+91)` is in front too.
                '+' if plus.is_none() && spelling.digits.is_empty() => {
                    plus = Some(());
                    spelling.is_international = true;
                }
                '/' | '\n' => is_strict = true,
                ' ' => {}
                c if is_punctuation(c) => continue,
                _ => is_foreign = true,
            }
            is_separated = true;
        }
        let whole = spelling.whole();
        if is_foreign {
            let is_several = spelling.parts.iter().any(|part| whole.to - part.to >= SHORTEST);
            return Err(if is_several { PhoneError::Several } else { PhoneError::Characters });
        }
        // `0812-3456-785 / 6`: what is behind the stroke is another last digit.
        let is_ending = |part: &Part| part.is_strict && whole.to - part.to <= 2;
        if spelling.parts.last().is_some_and(is_ending) {
            return Err(PhoneError::Several);
        }
        Ok(spelling)
    }
}

fn is_punctuation(c: char) -> bool {
    matches!(
        c,
        '-' | '(' | ')' | '.' | '~' | '[' | ']' | '\u{2010}'
            ..='\u{2015}' | '\u{2053}' | '\u{2212}' | '\u{223c}' | '\u{30fc}'
    )
}

fn digit_count(text: &str) -> usize {
    text.chars().filter(char::is_ascii_digit).count()
}

/// The text with the digits and signs of any script as those of ASCII, a line's end as `\n`, other blanks as one kind, and
/// without what is not shown.
fn visible(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => visible.push('\n'),
            c if c.is_whitespace() => visible.push(' '),
            c if c.is_control() || is_invisible(c) => {}
            // Full width.
            '\u{ff01}'..='\u{ff5e}' => visible.extend(char::from_u32(u32::from(c) - 0xfee0)),
            c if !c.is_ascii() && c.is_numeric() => {
                let digit = PHONE_NUMBER_UTIL.normalize_digits_only(c.encode_utf8(&mut [0; 4]));
                visible.push_str(if digit.is_empty() { "?" } else { &digit });
            }
            c => visible.push(c),
        }
    }
    Cow::Owned(visible)
}

/// Without the marks that spreadsheets put around a number to keep it a text: `'…`, `="…"`, `=+…`.
fn unquoted(text: &str) -> &str {
    let text = text.strip_prefix('\'').unwrap_or(text);
    let text = text.strip_prefix('=').unwrap_or(text).trim_start();
    text.trim_matches('"').trim()
}

/// Without what programs put before a number; and whether that was a link, where the number is in international form.
fn unlabelled(text: &str) -> (&str, bool) {
    let lower = text.to_ascii_lowercase();
    let at = |part: &str| text.get(part.len()..).unwrap_or_default();
    let scheme =
        ["https://", "http://"].into_iter().find(|scheme| lower.starts_with(scheme)).unwrap_or_default();
    let address = lower.strip_prefix(scheme).unwrap_or(&lower);
    if let Some(link) = LINKS.into_iter().find(|link| address.starts_with(link)) {
        let number = text.get(scheme.len() + link.len()..).unwrap_or_default();
        let end = number.find(['?', '&', '#', '/']).unwrap_or(number.len());
        return (number.get(..end).unwrap_or_default().trim_start_matches('+'), true);
    }
    let label = LABELS
        .into_iter()
        .find(|label| lower.strip_prefix(label).is_some_and(|rest| rest.trim_start().starts_with(':')));
    match label {
        Some(label) => (at(label).trim_start().strip_prefix(':').unwrap_or_default().trim(), false),
        None => (text, false),
    }
}

/// A number that a spreadsheet wrote as an amount, as the digits that it is: `919876543210.00`, `919,876,543,210`,
/// `9.19876543210E+11`. What is none stays as it is.
fn whole_number(text: &str) -> Result<Cow<'_, str>, PhoneError> {
    static GROUPED: LazyLock<Option<Regex>> =
        LazyLock::new(|| pattern(r"^[0-9]{1,3}(,[0-9]{2,3})*,[0-9]{3}(\.0+)?$"));
    static DECIMALS: LazyLock<Option<Regex>> =
        LazyLock::new(|| pattern(r"^([0-9]+|[0-9]{1,3}(\.[0-9]{3})+)([.,])0+$"));
    let (sign, amount) = text.strip_prefix('+').map_or(("", text), |rest| ("+", rest));
    if let Some((mantissa, exponent)) = amount.split_once(['e', 'E'])
        && !mantissa.is_empty()
        && mantissa.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b',' | b'-'))
        && exponent.trim_start_matches(['+', '-']).bytes().all(|byte| byte.is_ascii_digit())
    {
        return written_out(mantissa, exponent)
            .map(|digits| Cow::Owned(format!("{sign}{digits}")))
            .ok_or(PhoneError::Rounded);
    }
    if GROUPED.as_ref().is_some_and(|grouped| grouped.is_match(amount)) {
        let whole = amount.split('.').next().unwrap_or_default();
        return Ok(Cow::Owned(format!("{sign}{}", whole.replace(',', ""))));
    }
    if let Some(found) = DECIMALS.as_ref().and_then(|decimals| decimals.captures(amount)) {
        let part = |nth| found.get(nth).map_or("", |part| part.as_str());
        // `98.765.000` may be a number in groups; `98.765.000,00` is an amount.
        if part(3) == "," || !part(1).contains('.') && part(1).len() > SHORTEST {
            return Ok(Cow::Owned(format!("{sign}{}", part(1).replace('.', ""))));
        }
    }
    Ok(Cow::Borrowed(text))
}

/// A power of ten written out, where all of its digits are there.
fn written_out(mantissa: &str, exponent: &str) -> Option<String> {
    let exponent: usize = exponent.trim_start_matches('+').parse().ok().filter(|exponent| *exponent <= 15)?;
    let (whole, fraction) = mantissa.split_once(['.', ',']).unwrap_or((mantissa, ""));
    let (known, rest) = fraction.split_at_checked(exponent)?;
    let is_exact = whole.len() == 1 && rest.bytes().all(|byte| byte == b'0');
    let digits = format!("{whole}{known}");
    (is_exact && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
}

/// Whether an extension stands behind a number.
fn has_extension(text: &str) -> bool {
    let lower = text.to_lowercase();
    let before_digits = lower.trim_end().trim_end_matches(|c: char| c.is_ascii_digit());
    if before_digits.len() == lower.trim_end().len() {
        return false;
    }
    let mark = before_digits.trim_end_matches([' ', '.', ':', '=', '-']);
    if let Some(number) = mark.strip_suffix('#') {
        return digit_count(number) > SHORTEST;
    }
    let number = mark.trim_end_matches(char::is_alphabetic);
    let word = mark.get(number.len()..).unwrap_or_default();
    EXTENSIONS.contains(&word) && digit_count(number) > SHORTEST
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn indian(text: &str) -> Result<String, PhoneError> {
        PhoneParser::new(Some("IN")).parse(text).map(|phone| phone.to_string())
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
            "+91-98765-43210",
            "\u{202a}+91 98765 43210\u{202c}",
            "+91.98765.43210",
            // As spreadsheets and other programs write them.
            "919876543210.0",
            "9876543210.00",
            "9876543210,0",
            "919.876.543.210,00",
            "919,876,543,210",
            "9,876,543,210.00",
            "+919,876,543,210",
            "9.19876543210E+11",
            "9.198765432100E+11",
            "9,19876543210e11",
            "9.876543210E9",
            "=\"+919876543210\"",
            "=+919876543210",
            "\"9876543210\"",
            "p:+919876543210",
            "whatsapp:+919876543210",
            "tel:+91-98765-43210",
            "Mob: 98765 43210",
            "wa.me/919876543210",
            "https://wa.me/919876543210?text=hi",
            "https://api.whatsapp.com/send?phone=919876543210&text=hi",
            "\u{669}\u{668}\u{667}\u{666}\u{665}\u{664}\u{663}\u{662}\u{661}\u{660}",
            "\u{96f}\u{96e}\u{96d}\u{96c}\u{96b}\u{96a}\u{969}\u{968}\u{967}\u{966}",
            "\u{ff0b}\u{ff19}\u{ff11}9876543210",
            "98765/43210",
            "98765 43210\r\n",
            "98765 43210 /",
        ] {
            assert_eq!(indian(text).as_deref(), Ok("+919876543210"), "{text:?}");
        }
        assert_eq!(indian("+1 (415) 555-2671").as_deref(), Ok("+14155552671"));
        assert_eq!(indian("0044 7911 123456").as_deref(), Ok("+447911123456"));
        // Its country's code stands at the front of the national number.
        assert_eq!(indian("91002 67917").as_deref(), Ok("+919100267917"));
    }

    #[test]
    fn what_is_no_number_is_refused_with_its_reason() {
        use PhoneError::*;
        for (text, reason) in [
            ("", Empty),
            (" \u{200b}", Empty),
            ("whatsapp:", Empty),
            ("9.19876E+11", Rounded),
            ("9,19876e+11", Rounded),
            ("9.1987654321E+11", Rounded),
            ("9.1987654321E-11", Rounded),
            ("9.19876543210E+99", Rounded),
            ("98765O3210", Characters),
            ("+91 98765+43210", Characters),
            ("98765,43210", Characters),
            ("\u{bd}9876543210", Characters),
            ("98765 43210 / 98765 43211", Several),
            ("98765 43210 / 6", Several),
            ("9876543210/11", Several),
            ("98765 43210\n98765 43211", Several),
            ("9876543210 9876543211", Several),
            ("9876543210 - 9876543211", Several),
            ("9876543210, 9876543211", Several),
            ("9876543210;9876543211", Several),
            ("9876543210 or 9876543211", Several),
            ("+919876543210+919876543211", Several),
            ("022-24893147/80", Several),
            ("+91 22 2489 3147 ext. 12", Extension),
            ("022 24893147 x12", Extension),
            ("022 24893147#12", Extension),
            ("tel:+91-22-24893147;ext=12", Extension),
            ("12345", Invalid),
            ("+91 12345", Invalid),
            ("+919876543210123", Invalid),
            ("0000000000", Invalid),
            ("+", Invalid),
            ("-", Invalid),
            ("99999999999999999999999999", Invalid),
            ("+0", Invalid),
        ] {
            assert_eq!(indian(text), Err(reason), "{text:?}");
        }
        assert_eq!(PhoneParser::new(None).parse("9876543210"), Err(NoRegion));
        let indonesian = PhoneParser::new(Some("ID"));
        assert_eq!(indonesian.parse("0812-3456-785 / 6"), Err(Several));
        assert_eq!(indonesian.parse("0812-3456-785"), "+628123456785".parse().map_err(|_| Invalid));
    }

    #[test]
    fn a_number_means_the_same_in_every_region() {
        let read = |region: &str, text: &str| PhoneParser::new(Some(region)).parse(text).unwrap().to_string();
        for region in PHONE_NUMBER_UTIL.get_supported_regions() {
            for (text, number) in [
                ("+49 1512 3456789", "+4915123456789"),
                ("0049 1512 3456789", "+4915123456789"),
                ("0091 98765 43210", "+919876543210"),
                ("001 415 555 2671", "+14155552671"),
                ("wa.me/4915123456789", "+4915123456789"),
            ] {
                assert_eq!(read(region.as_region_str().as_str(), text), number, "{region:?}: {text}");
            }
        }
        // Abroad as people dial it there.
        for (region, text) in [
            ("US", "011 49 1512 3456789"),
            ("AU", "0011 49 1512 3456789"),
            ("RU", "8~10 49 1512 3456789"),
            ("JP", "010 49 1512 3456789"),
            ("BR", "0021 49 1512 3456789"),
        ] {
            assert_eq!(read(region, text), "+4915123456789", "{region}");
        }
        for (region, text, number) in [
            ("DE", "490 36328215", "+4949036328215"),
            ("DE", "0176/12345678", "+4917612345678"),
            ("AT", "0664/123 45 67", "+436641234567"),
            ("BE", "0475/12.34.56", "+32475123456"),
            ("KZ", "7013816130", "+77013816130"),
            ("NO", "47123457", "+4747123457"),
            ("IT", "06 6988 3145", "+390669883145"),
            ("AR", "011 15-2345-6789", "+5491123456789"),
            ("MX", "55 1234 5678", "+525512345678"),
        ] {
            assert_eq!(read(region, text), number, "{region}: {text}");
        }
    }

    #[test]
    fn the_region_that_would_help_is_found() {
        let texts = ["98765 43210", "91234 56789", "70123 45678", "12"];
        let best = |likely: &str| PhoneParser::best_region(&texts, likely.parse().ok());
        assert_eq!(best("+912248931479"), Some(("IN".to_owned(), 3)));
        assert_eq!(PhoneParser::best_region(&["x", ""], None), None);
        // A number that several countries have is the sender's own.
        let one = ["2015550123"];
        assert_eq!(PhoneParser::best_region(&one, "+14155552671".parse().ok()), Some(("US".to_owned(), 1)));
    }

    #[test]
    fn the_usual_numbers_need_no_library() {
        for number in ["+919876543210", "+5511961234567", "+6281234567890", "+14155552671", "+447400123456"] {
            assert!(PhoneParser::new(None).plainly(number).is_some(), "{number}");
        }
        assert!(PhoneParser::new(Some("IN")).plainly("9876543210").is_some());
    }

    proptest! {
        #[test]
        fn parsing_is_idempotent_and_never_panics(text in "[+0-9 ()./-]{0,20}|\\PC{0,20}|.{0,20}|(\\+|00)?(91|1|44|55|62|49)[0-9]{6,11}|(p:|=|tel:|wa.me/)?[0-9E.,+]{0,20}( ?(ext|x|#|/) ?[0-9]{1,4})?") {
            for region in [None, Some("IN"), Some("US"), Some("IT")] {
                let numbers = PhoneParser::new(region);
                if let Ok(phone) = numbers.parse(&text) {
                    prop_assert_eq!(numbers.parse(&phone.to_string()), Ok(phone));
                }
            }
        }

        #[test]
        fn the_fast_way_and_the_parser_agree(code in prop::sample::select(vec![91_u16, 1, 44, 55, 62, 49, 39, 52, 54, 234, 7, 971, 225]), national in "[0-9]{6,12}") {
            let text = format!("+{code}{national}");
            if let Some(phone) = PhoneParser::new(None).plainly(&text) {
                prop_assert_eq!(valid(PHONE_NUMBER_UTIL.parse(&text, None)), Ok(phone));
            }
        }

        #[test]
        fn the_fast_way_and_the_parser_agree_within_a_region(region in prop::sample::select(vec!["IN", "US", "GB", "BR", "ID", "DE", "IT", "MX", "AR", "NG", "RU", "AE", "CI", "FR", "ZA"]), national in "[0-9]{5,13}") {
            let parser = PhoneParser::new(Some(region));
            if let Some(phone) = parser.plainly(&national) {
                prop_assert_eq!(valid(PHONE_NUMBER_UTIL.parse(&national, parser.region)), Ok(phone));
            }
        }
    }
}
