//! Converts numbers that a spreadsheet wrote as amounts.

use std::{borrow::Cow, sync::LazyLock};

use regex::{Regex, RegexBuilder};

use super::{PhoneError, spelling::SHORTEST};

/// Compiles a pattern of ASCII digits: the matched text has no other digits.
fn pattern(text: &str) -> Option<Regex> {
    RegexBuilder::new(text).unicode(false).build().ok()
}

/// Returns the digits of a number that a spreadsheet wrote as an amount: `919876543210.00`, `919,876,543,210`,
/// `9.19876543210E+11`. Any other text is unchanged.
pub(super) fn whole_number(text: &str) -> Result<Cow<'_, str>, PhoneError> {
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
        // `98.765.000` may be a grouped number; `98.765.000,00` is an amount.
        if part(3) == "," || !part(1).contains('.') && part(1).len() > SHORTEST {
            return Ok(Cow::Owned(format!("{sign}{}", part(1).replace('.', ""))));
        }
    }
    Ok(Cow::Borrowed(text))
}

/// Writes out a number in exponential form, if no digit is lost.
fn written_out(mantissa: &str, exponent: &str) -> Option<String> {
    let exponent: usize = exponent.trim_start_matches('+').parse().ok().filter(|exponent| *exponent <= 15)?;
    let (whole, fraction) = mantissa.split_once(['.', ',']).unwrap_or((mantissa, ""));
    let (known, rest) = fraction.split_at_checked(exponent)?;
    let is_exact = whole.len() == 1 && rest.bytes().all(|byte| byte == b'0');
    let digits = format!("{whole}{known}");
    (is_exact && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
}
