//! Prints a spreadsheet number as its cell's number format shows it.
//!
//! People see `09:30` or `15%` in the sheet, not the stored `0.395833333333333` or `0.15`, and expect the same here.
//!
//! The decimal point is `.` and the thousands separator `,`, because a workbook does not record the language in which
//! it was shown. Only a locale tag without a currency (`[$-407]`) changes them.

mod dates;
mod decimal;
mod locale;
mod section;
#[cfg(test)]
mod tests;

use decimal::Decimal;
use section::{Kind, Op, Piece, Section};

/// Codes longer than this are not read. Spreadsheet programs allow 255 characters.
const LONGEST_CODE: usize = 1000;
/// Maximum number of repetitions of a text, so that a short code cannot multiply a long text.
const MOST_TEXTS: usize = 4;

/// Which day is number 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum DateSystem {
    /// Day 1 is 1 January 1900, and 1900 has a 29 February.
    #[default]
    From1900,
    /// Day 0 is 1 January 1904.
    From1904,
}

/// A number format, read from its code.
#[derive(Clone, Debug)]
pub(super) struct NumberFormat {
    /// For numbers: one to three.
    numbers: Vec<Section>,
    /// For text.
    text: Option<Section>,
}

impl NumberFormat {
    /// Reads a format code, e.g. `#,##0.00;[Red]-#,##0.00`. An invalid one, or one longer than 1,000 bytes, is
    /// `General`.
    pub(super) fn parse(code: &str) -> Self {
        let mut sections = if code.len() <= LONGEST_CODE { section::parse(code) } else { Vec::new() };
        // A lone colour leaves the number as it is. An empty section among others hides it.
        if sections.len() > 4 || (sections.len() == 1 && sections.iter().all(|only| only.pieces.is_empty())) {
            sections.clear();
        }
        let last_is_text = sections.last().is_some_and(|last| last.kind == Kind::Text);
        let text = match sections.len() {
            4 => sections.pop(),
            2 | 3 if last_is_text => sections.pop(),
            1 if last_is_text => sections.first().cloned(),
            _ => None,
        };
        Self { numbers: sections, text }
    }

    /// Returns the format of a built-in id (ECMA-376 part 1, 18.8.30), which workbooks do not spell out; `None` if
    /// unknown.
    ///
    /// Some of these follow the language of the program. They are given as in American English.
    pub(super) fn builtin(id: u32) -> Option<Self> {
        let code = match id {
            0 => "General",
            1 => "0",
            2 => "0.00",
            3 => "#,##0",
            4 => "#,##0.00",
            5 => "$#,##0_);($#,##0)",
            6 => "$#,##0_);[Red]($#,##0)",
            7 => "$#,##0.00_);($#,##0.00)",
            8 => "$#,##0.00_);[Red]($#,##0.00)",
            9 => "0%",
            10 => "0.00%",
            11 => "0.00E+00",
            12 => "# ?/?",
            13 => "# ??/??",
            // 27 to 36 and 50 to 58 are East Asian dates and times, shown plainly elsewhere.
            14 | 27..=31 | 36 | 50..=58 => "m/d/yyyy",
            15 => "d-mmm-yy",
            16 => "d-mmm",
            17 => "mmm-yy",
            18 => "h:mm AM/PM",
            19 => "h:mm:ss AM/PM",
            20 => "h:mm",
            21 | 32..=35 => "h:mm:ss",
            22 => "m/d/yyyy h:mm",
            37 => "#,##0_);(#,##0)",
            38 => "#,##0_);[Red](#,##0)",
            39 => "#,##0.00_);(#,##0.00)",
            40 => "#,##0.00_);[Red](#,##0.00)",
            41 => r#"_(* #,##0_);_(* (#,##0);_(* "-"_);_(@_)"#,
            42 => r#"_($* #,##0_);_($* (#,##0);_($* "-"_);_(@_)"#,
            43 => r#"_(* #,##0.00_);_(* (#,##0.00);_(* "-"??_);_(@_)"#,
            44 => r#"_($* #,##0.00_);_($* (#,##0.00);_($* "-"??_);_(@_)"#,
            45 => "mm:ss",
            46 => "[h]:mm:ss",
            47 => "mm:ss.0",
            48 => "##0.0E+0",
            49 => "@",
            _ => return None,
        };
        Some(Self::parse(code))
    }

    /// Returns a number as the cell shows it.
    pub(super) fn number(&self, value: f64, dates: DateSystem) -> String {
        if !value.is_finite() {
            return value.to_string();
        }
        let Some((section, signed)) = self.choose(value) else { return general(value) };
        let sign = if signed && value < 0.0 { "-" } else { "" };
        let shown = match section.kind {
            Kind::Text => return general(value),
            Kind::Literal => return section.literals(),
            Kind::General => Some(section.with_general(&format!("{sign}{}", general(value.abs())))),
            Kind::Date if value < 0.0 => None,
            Kind::Date => dates::print(section, value, dates),
            Kind::Elapsed => dates::print(section, value.abs(), dates).map(|shown| format!("{sign}{shown}")),
            Kind::Fraction => decimal::fraction(section, value.abs(), sign),
            Kind::Scientific => Some(decimal::scientific(section, Decimal::from_value(value), sign)),
            Kind::Number => Some(decimal::number(section, Decimal::from_value(value), sign)),
        };
        shown.unwrap_or_else(|| general(value))
    }

    /// Returns a text in such a cell: the fourth section (`@`), or the text itself.
    pub(super) fn text(&self, text: &str) -> String {
        let Some(section) = &self.text else { return text.to_owned() };
        let mut shown = String::new();
        let mut left = MOST_TEXTS;
        for piece in &section.pieces {
            match piece {
                Piece::Literal(literal) => shown.push(*literal),
                Piece::Text if left > 0 => {
                    left -= 1;
                    shown.push_str(text);
                }
                _ => (),
            }
        }
        shown
    }

    /// Returns whether it shows the number as General does.
    pub(super) fn is_general(&self) -> bool {
        match self.numbers.as_slice() {
            [] => true,
            [only] => match only.kind {
                Kind::Text => true,
                Kind::General => {
                    only.pieces.len() == 1 && only.condition.is_none() && only.marks.point == '.'
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// Returns the section for a number, and whether a negative one gets a minus sign.
    ///
    /// A section only for negative numbers formats them itself, e.g. in parentheses. Any other needs a sign, or a
    /// debt would read as a credit.
    fn choose(&self, value: f64) -> Option<(&Section, bool)> {
        let holds = |section: &Section| section.condition.is_none_or(|condition| condition.holds(value));
        match self.numbers.as_slice() {
            [] => None,
            [only] => holds(only).then_some((only, true)),
            [first, second] => match (first.condition, second.condition) {
                (None, None) => Some(if value < 0.0 { (second, false) } else { (first, true) }),
                (None, Some(condition)) if condition.holds(value) => {
                    Some((second, !condition.only_negative()))
                }
                (None, Some(_)) => Some((first, true)),
                (Some(condition), _) if condition.holds(value) => Some((first, !condition.only_negative())),
                (Some(condition), None) => Some((second, !condition.every_positive())),
                (Some(_), Some(condition)) => holds(second).then_some((second, !condition.only_negative())),
            },
            [first, second, rest @ ..] => {
                let one = first.condition.unwrap_or(section::Condition { op: Op::Greater, than: 0.0 });
                let two = second.condition.unwrap_or(section::Condition { op: Op::Less, than: 0.0 });
                if one.holds(value) {
                    return Some((first, !one.only_negative()));
                }
                if two.holds(value) {
                    return Some((second, !two.only_negative()));
                }
                let explicit = [first, second].into_iter().filter_map(|section| section.condition);
                let signed = !explicit.into_iter().any(section::Condition::every_positive);
                rest.first().map(|third| (third, signed))
            }
        }
    }
}

/// Formats a number without a format: up to 15 digits.
///
/// A whole number of up to 17 digits keeps them all: it may be a phone number or an account.
fn general(value: f64) -> String {
    let mut number = Decimal::from_value(value);
    let sign = if value < 0.0 { "-" } else { "" };
    if !(number.is_whole() && number.point <= 17) {
        number.round(15_i32.saturating_sub(number.point));
    }
    // The power of ten of its first digit, and how many digits follow the point.
    let power = number.point - 1;
    let places = number.places();
    if power <= 16 && (power >= -4 || (power >= -9 && places <= 16)) {
        return format!("{sign}{}", number.to_text());
    }
    let exponent = if power < 0 { format!("-{:02}", -power) } else { format!("+{power:02}") };
    number.point = 1;
    format!("{sign}{}E{exponent}", number.to_text())
}
