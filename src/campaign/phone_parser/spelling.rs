//! Extracts the digits of a text, and where a second number may begin.

use std::borrow::Cow;

use rlibphonenumber::PHONE_NUMBER_UTIL;

use super::{PhoneError, amount::whole_number};
use crate::campaign::text::is_invisible;

/// A prefix of the digits of a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct DigitRun {
    pub(super) to: usize,
    /// Whether a `+` precedes them.
    pub(super) is_international: bool,
    /// Whether a second number follows if this is one: after a slash or a line end, but not after a blank.
    pub(super) is_strict: bool,
}

/// The digits of a text, and the prefixes that may be a number of their own.
pub(super) struct Spelling {
    pub(super) digits: String,
    pub(super) is_international: bool,
    /// Prefixes after which a second number may begin. If one of them is a number, the text has two.
    pub(super) parts: Vec<DigitRun>,
}

/// Labels that programs write before a number.
const LABELS: [&str; 9] = ["p", "tel", "phone", "mobile", "mob", "whatsapp", "wa", "callto", "sms"];
/// Links to a chat with a number in international form without its `+`.
const LINKS: [&str; 3] = ["wa.me/", "api.whatsapp.com/send?phone=", "api.whatsapp.com/send/?phone="];
/// Words before an extension, besides `#`.
const EXTENSIONS: [&str; 9] = ["x", "ext", "extn", "extension", "int", "anexo", "ramal", "poste", "доб"];
/// Minimum length of a number, in digits; fewer digits after a separator are a part of it, or an extension.
pub(super) const SHORTEST: usize = 6;
/// Maximum length of an E.164 number, in digits.
pub(super) const MAX_DIGITS: usize = 15;

impl Spelling {
    pub(super) fn whole(&self) -> DigitRun {
        DigitRun { to: self.digits.len(), is_international: self.is_international, is_strict: false }
    }

    pub(super) fn read(text: &str) -> Result<Self, PhoneError> {
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
        // A separator takes effect at the next digit, since a trailing one separates nothing.
        let (mut is_separated, mut is_strict) = (false, false);
        for c in text.chars() {
            if c.is_ascii_digit() {
                let to = spelling.digits.len();
                if is_separated && to >= SHORTEST {
                    let is_international = spelling.is_international;
                    spelling.parts.push(DigitRun { to, is_international, is_strict });
                }
                (is_separated, is_strict) = (false, false);
                spelling.digits.push(c);
                continue;
            }
            match c {
                // Only before the digits; `(+91)` is allowed.
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
        // `0812-3456-785 / 6`: an alternative last digit follows the slash.
        let is_ending = |part: &DigitRun| part.is_strict && whole.to - part.to <= 2;
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

/// Converts digits and signs of any script to ASCII, line ends to `\n` and other white space to blanks, and removes
/// invisible characters.
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

/// Removes the marks with which spreadsheets keep a number a text: `'…`, `="…"`, `=+…`.
fn unquoted(text: &str) -> &str {
    let text = text.strip_prefix('\'').unwrap_or(text);
    let text = text.strip_prefix('=').unwrap_or(text).trim_start();
    text.trim_matches('"').trim()
}

/// Removes a label before a number, and returns whether it was a link, with a number in international form.
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

/// Returns whether a number is followed by an extension.
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
