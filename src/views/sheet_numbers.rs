//! Numbers of an audience as cells of a workbook: the number itself, shown as the audience shows it.

use std::fmt::Write;

/// The most digits that a cell keeps of a number.
const DIGITS: usize = 15;
/// The longest text beside the digits, in characters.
const LONGEST_UNIT: usize = 12;

/// A number, and the format of the spreadsheet that shows it as it was.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SheetNumber {
    pub(super) number: f64,
    pub(super) format: String,
}

impl SheetNumber {
    /// The number that a value is, where a cell of a number loses nothing of it. `known` is the number behind the value, where a
    /// sheet shows it in another way: `15%`, `₹ 1,499.50`.
    ///
    /// Nothing that begins with `+` or with a needless zero is one: that is a phone number or a code. Nor is a date, which is a
    /// number to a spreadsheet alone.
    pub(super) fn parse(shown: &str, known: Option<f64>) -> Option<Self> {
        match known {
            Some(number) => formatted(shown, number),
            None => without_format(shown),
        }
    }
}

/// A text that is a number and nothing else, written as a spreadsheet writes one.
fn without_format(shown: &str) -> Option<SheetNumber> {
    let digits = shown.strip_prefix('-').unwrap_or(shown);
    let decimals = decimals_of(digits)?;
    if digits.contains(',') {
        return None;
    }
    Some(SheetNumber { number: shown.parse().ok()?, format: format!("0{decimals}") })
}

/// The format of the digits behind the point, where all of the text is a number: `.00`. Commas may part its thousands.
fn decimals_of(digits: &str) -> Option<String> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = whole.bytes().all(|byte| byte.is_ascii_digit() || byte == b',')
        && whole.starts_with(|first: char| first.is_ascii_digit())
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.ends_with('.');
    let has_needless_zero = whole.len() > 1 && whole.starts_with('0');
    let count = digits.bytes().filter(u8::is_ascii_digit).count();
    (is_number && !has_needless_zero && count <= DIGITS)
        .then(|| if fraction.is_empty() { String::new() } else { format!(".{}", "0".repeat(fraction.len())) })
}

/// A number that a sheet shows in a way of its own: with thousands apart, rounded, with a currency or as a percentage.
fn formatted(shown: &str, number: f64) -> Option<SheetNumber> {
    let first = shown.find(|c: char| c.is_ascii_digit())?;
    let end = shown.rfind(|c: char| c.is_ascii_digit())? + 1;
    let (before, digits, behind) = (shown.get(..first)?, shown.get(first..end)?, shown.get(end..)?);
    let decimals = decimals_of(digits)?;
    let value: f64 = digits.replace(',', "").parse().ok()?;
    let is_percentage = behind.trim() == "%";
    let (value, places) = if is_percentage {
        (value / 100.0, decimals.len().saturating_sub(1) + 2)
    } else {
        (value, decimals.len().saturating_sub(1))
    };
    // What is shown is the number, rounded.
    let half = 0.5 * 0.1_f64.powi(i32::try_from(places).ok()?);
    if (value - number.abs()).abs() > half * 1.001 {
        return None;
    }
    // A sheet writes the sign of a negative number itself.
    let before = if number < 0.0 { before.strip_prefix('-')? } else { before };
    let mut format = String::new();
    unit(before, &mut format)?;
    format += if digits.contains(',') { "#,##0" } else { "0" };
    format += &decimals;
    if is_percentage {
        format.push('%');
    } else {
        unit(behind, &mut format)?;
    }
    Some(SheetNumber { number, format })
}

/// Writes what stands beside the digits into a format.
fn unit(text: &str, format: &mut String) -> Option<()> {
    if text.is_empty() {
        return Some(());
    }
    if text.chars().count() > LONGEST_UNIT || text.contains(|c: char| c == '"' || c == '\\' || c.is_control())
    {
        return None;
    }
    write!(format, "\"{text}\"").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_shown_as_it_was() {
        for (shown, known, number, format) in [
            ("0", None, 0.0, "0"),
            ("-12.50", None, -12.5, "0.00"),
            ("123456789012345", None, 123_456_789_012_345.0, "0"),
            ("1,499.50", Some(1499.5), 1499.5, "#,##0.00"),
            ("₹ 1,499.50", Some(1499.504), 1499.504, "\"₹ \"#,##0.00"),
            ("15%", Some(0.15), 0.15, "0%"),
            ("12.3%", Some(0.1234), 0.1234, "0.0%"),
            ("-1,499 kg", Some(-1499.0), -1499.0, "#,##0\" kg\""),
            ("1499.00", Some(1499.0), 1499.0, "0.00"),
        ] {
            let expected = SheetNumber { number, format: format.into() };
            assert_eq!(SheetNumber::parse(shown, known), Some(expected), "{shown}");
        }
    }

    #[test]
    fn a_code_a_phone_number_and_a_date_are_not_numbers() {
        for shown in [
            "",
            "007",
            "+919876543210",
            "1234567890123456",
            "1e5",
            "1.",
            ".5",
            "1,000",
            "12-3",
            "NaN",
            "-",
            "١",
        ] {
            assert_eq!(SheetNumber::parse(shown, None), None, "{shown}");
        }
        for (shown, known) in [
            ("24/12/2026", 46_380.0),
            ("2026-12-01 9:30:00", 46_357.4),
            ("2026", 46_357.0),
            ("TRUE", 1.0),
            ("9.19877E+11", 919_876_540_001.0),
            ("(12)", -12.0),
            ("\"a\" 12", 12.0),
        ] {
            assert_eq!(SheetNumber::parse(shown, Some(known)), None, "{shown}");
        }
    }
}
