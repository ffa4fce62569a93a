//! The rows of an audience: of a file, or of the job's own list.

use std::borrow::Cow;

use super::{AudienceError, csv_rows::CsvRows, list_rows::ListRows};
use crate::campaign::{NUMBER_MARK, Phone, PhoneError, PhoneParser, shown_and_number, text};

pub(super) enum Rows {
    Csv(Box<CsvRows>),
    List(ListRows),
}

impl Rows {
    pub(super) fn advance(&mut self) -> Result<bool, AudienceError> {
        match self {
            Self::Csv(rows) => rows.advance(),
            Self::List(rows) => Ok(rows.advance()),
        }
    }

    pub(super) fn value(&self, column: usize) -> &str {
        match self {
            Self::Csv(rows) => rows.value(column),
            Self::List(rows) => rows.value(column),
        }
    }

    /// Returns the value as it may be used in a message. Only a workbook's CSV has the number mark; elsewhere it is
    /// an ordinary control character in the data, which is removed.
    pub(super) fn cleaned(&self, column: usize) -> Cow<'_, str> {
        match self {
            Self::Csv(rows) if rows.bytes().hidden_rows.is_some() => {
                let value = rows.value(column);
                match value.split_once(NUMBER_MARK) {
                    Some(_) => Cow::Borrowed(value),
                    None => text::value(value),
                }
            }
            Self::Csv(rows) => match text::value(rows.value(column)) {
                value if value.contains(NUMBER_MARK) => Cow::Owned(value.replace(NUMBER_MARK, "")),
                value => value,
            },
            Self::List(rows) => Cow::Borrowed(rows.value(column)),
        }
    }

    pub(super) fn phone(&self, column: usize, numbers: PhoneParser) -> Result<Phone, PhoneError> {
        match self {
            // For a numeric cell, parse the number itself, however the sheet shows it.
            Self::Csv(rows) => match rows.value(column).split_once(NUMBER_MARK) {
                Some((_, number)) => numbers.parse(number),
                None => numbers.parse(rows.value(column)),
            },
            Self::List(rows) => numbers.parse(shown_and_number(&rows.text(column)).0),
        }
    }

    /// Returns the phone column as written, so that a person can find the row: a numeric cell has all its digits,
    /// even if the sheet shows `9.19877E+11`.
    pub(super) fn spelling(&self, column: usize) -> String {
        let value = self.value(column);
        value
            .split_once(NUMBER_MARK)
            .map_or(value, |(_, number)| number)
            .trim_matches('"')
            .chars()
            .filter(|c| !c.is_control())
            .take(40)
            .collect()
    }

    /// Returns the error for a row with more values than columns: a stray delimiter has shifted its values.
    pub(super) fn too_many_values(&self, columns: usize) -> Option<String> {
        let Self::Csv(rows) = self else { return None };
        let values = Some(rows.len()).filter(|values| *values > columns)?;
        Some(format!(
            "the row has {values} values but the header has {columns} columns; quote values that contain the delimiter"
        ))
    }
}
