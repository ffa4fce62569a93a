//! Reads the phone numbers of a list and nothing else of its rows.

use super::{Audience, AudienceError, Line, Settings, Source, scan};
use crate::campaign::{Phone, SkipReason};

/// The phone numbers of a list.
#[derive(Debug, Default)]
pub struct NumberList {
    /// Each number once, in the order of the rows.
    pub numbers: Vec<Phone>,
    /// Number of rows that repeat an earlier phone number.
    pub duplicates: u64,
    /// Number of rows without a valid phone number.
    pub unreadable: u64,
    /// The first rows without a valid phone number.
    pub unreadable_rows: Vec<UnreadableRow>,
}

/// A row without a valid phone number.
#[derive(Debug)]
pub struct UnreadableRow {
    /// The row number, from 1, without the header.
    pub row: u64,
    /// The value of the phone column, at most 40 characters.
    pub text: String,
    /// Why the value is not a valid phone number.
    pub reason: String,
}

/// Reads the numbers of a list, and keeps the first `most` unreadable rows.
///
/// # Errors
///
/// If it cannot be read, or has no phone column.
pub fn numbers(
    source: &Source,
    phone: Option<String>,
    default_region: Option<String>,
    most: usize,
) -> Result<NumberList, AudienceError> {
    let settings = Settings { phone, default_region, ..Settings::default() };
    let encoding = scan(source, &settings)?.encoding;
    let settings = Settings { encoding: Some(encoding), ..settings };
    let mut audience = Audience::open(source, &settings)?;
    let mut list = NumberList::default();
    while let Some(line) = audience.next_line()? {
        match line {
            Line::Recipient(row) => list.numbers.push(row.phone),
            Line::Skipped { reason: SkipReason::Duplicate, .. } => list.duplicates += 1,
            Line::Skipped { row, detail, recipient, .. } => {
                list.unreadable += 1;
                if list.unreadable_rows.len() < most {
                    list.unreadable_rows.push(UnreadableRow { row, text: recipient, reason: detail });
                }
            }
        }
    }
    Ok(list)
}
