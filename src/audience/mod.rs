//! Reads recipients as a stream of rows, from a file or from the job's own list.
//!
//! Every row comes out normalised, as a recipient or with the reason why it is skipped. The module never sends,
//! stores or renders anything, and holds one row at a time besides the set of numbers already seen.

mod csv_rows;
mod encoding;
mod error;
mod file_kind;
mod list_rows;
mod number_list;
mod open;
mod path;
mod quote_check;
mod remote;
mod rows;
mod scan;
mod sources;
mod workbook;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use roaring::RoaringTreemap;

pub use encoding::Encoding;
pub use error::{AudienceError, Strange};
pub use file_kind::FileKind;
pub use number_list::{NumberList, UnreadableRow, numbers};
pub use path::resolve;
pub use remote::{Bucket, Fetched, Object};
pub use scan::{Scan, scan};
pub use sources::{Audiences, Root};

pub use crate::campaign::job::HiddenRows;
use crate::campaign::{Columns, Phone, PhoneParser, SkipReason, problem::listed, shown_and_number};
use csv_rows::CsvRows;
pub(crate) use csv_rows::io_error;
use list_rows::ListRows;
use path::name;
use rows::Rows;

/// Names of the phone column when the job does not name it. `recipient` is the name in flowcast's own reports, so
/// that failed rows can be an audience again.
const PHONE_NAMES: [&str; 16] = [
    "phone",
    "phone_number",
    "mobile",
    "mobile_number",
    "msisdn",
    "to",
    "whatsapp",
    "whatsapp_number",
    "recipient",
    "mobile_no",
    "phone_no",
    "whatsapp_no",
    "contact_number",
    "contact_no",
    "cell_phone",
    "telephone",
];

/// Maximum size of a row, in bytes. A longer row means an unclosed quote, or a file that is not a table.
pub const ROW_LIMIT: u64 = 1 << 20;

/// Options for reading an audience.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The phone column.
    pub phone: Option<String>,
    /// The delimiter; detected if absent.
    pub delimiter: Option<u8>,
    /// The encoding: the named one, or that of an earlier scan ([`Scan::encoding`]); detected if absent.
    pub encoding: Option<Encoding>,
    /// The region of numbers without a country code.
    pub default_region: Option<String>,
    /// The name of the worksheet; if absent, the first visible one.
    pub sheet: Option<String>,
    /// Whether hidden rows of a sheet are sent.
    pub hidden_rows: HiddenRows,
    /// Maximum number of columns.
    pub columns: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            phone: None,
            delimiter: None,
            encoding: None,
            default_region: None,
            sheet: None,
            hidden_rows: HiddenRows::default(),
            columns: Columns::USUAL_LIMIT,
        }
    }
}

/// The source of an audience.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file that is known to be inside the root; its extension says whether it is `.gz`, `.zst` or `.xlsx`.
    File(PathBuf),
    /// A file that was fetched from a bucket or a URL.
    Fetched(Fetched),
    /// The job's own list.
    List(Vec<serde_json::Map<String, serde_json::Value>>),
}

/// An open audience.
pub struct Audience {
    columns: Columns,
    phone: usize,
    rows: Rows,
    numbers: PhoneParser,
    seen: RoaringTreemap,
    row: u64,
}

/// A row that was read.
pub enum Line<'a> {
    /// A recipient.
    Recipient(Row<'a>),
    /// A row that is skipped.
    Skipped {
        /// The row, from 1.
        row: u64,
        /// The reason in the contract.
        reason: SkipReason,
        /// The details, without the number itself.
        detail: String,
        /// The value of the phone column, cut to what a report shows.
        recipient: String,
    },
}

/// A recipient and the values of the row.
pub struct Row<'a> {
    /// The row, from 1; the header does not count.
    pub row: u64,
    /// The number.
    pub phone: Phone,
    rows: &'a Rows,
}

impl<'a> Row<'a> {
    /// Returns a column's value as it is planned: trimmed; followed by a mark and the number where a spreadsheet
    /// shows the number in another form; as JSON for a list.
    pub fn value(&self, column: usize) -> Cow<'a, str> {
        self.rows.cleaned(column)
    }

    /// Returns a column's value as it is shown; JSON for a list.
    pub fn shown(&self, column: usize) -> String {
        shown_and_number(&self.value(column)).0.to_owned()
    }
}

impl Audience {
    /// Opens an audience and reads its header.
    ///
    /// # Errors
    ///
    /// If it has no rows, no phone column or a duplicate column, or cannot be read.
    pub fn open(source: &Source, settings: &Settings) -> Result<Self, AudienceError> {
        let file = |path: &Path| {
            let rows = CsvRows::open(path, settings)?;
            Ok::<_, AudienceError>((rows.columns.clone(), Rows::Csv(Box::new(rows)), name(path)))
        };
        let (columns, rows, name) = match source {
            Source::File(path) => file(path)?,
            Source::Fetched(fetched) => file(fetched.path())?,
            Source::List(list) => {
                let rows = ListRows::new(list.clone());
                (rows.columns.clone(), Rows::List(rows), "the job's list of recipients".into())
            }
        };
        let (count, most) = (columns.names().len(), settings.columns);
        if count > most {
            return Err(AudienceError::TooManyColumns { name, count, most });
        }
        let phone = phone_column(&columns, settings.phone.as_deref()).map_err(|error| match source {
            Source::List(_) => AudienceError::NoPhone,
            _ => AudienceError::NoPhoneColumn { name, error },
        })?;
        let numbers = PhoneParser::new(settings.default_region.as_deref());
        Ok(Self { columns, phone, rows, numbers, seen: RoaringTreemap::new(), row: 0 })
    }

    /// Returns the columns.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Returns the name of the phone column.
    pub fn phone_column(&self) -> &str {
        self.columns.names().get(self.phone).map_or("", String::as_str)
    }

    /// Returns the columns whose names are those of phone columns.
    pub fn phone_columns(&self) -> impl Iterator<Item = &str> {
        let mut columns: Vec<usize> =
            PHONE_NAMES.iter().filter_map(|name| self.columns.find(name).ok()).collect();
        columns.sort_unstable();
        columns.dedup();
        columns.into_iter().filter_map(|column| self.columns.names().get(column)).map(String::as_str)
    }

    /// Returns whether values are JSON texts rather than plain texts.
    pub fn has_json_values(&self) -> bool {
        matches!(self.rows, Rows::List(_))
    }

    /// Returns whether a column holds the phone numbers.
    pub fn is_phone(&self, column: usize) -> bool {
        self.phone == column
    }

    /// Returns a column's value as [`Row::value`] does, in the row that was read last, skipped or not.
    pub fn value(&self, column: usize) -> Cow<'_, str> {
        self.rows.cleaned(column)
    }

    /// Returns the digest of all bytes read so far from a file. After the last row it equals [`Scan::digest`], unless
    /// the file has changed since the scan.
    pub fn digest(&self) -> Option<String> {
        match &self.rows {
            Rows::Csv(rows) => Some(rows.bytes().digest()),
            Rows::List(_) => None,
        }
    }

    /// Reads the next row; `None` after the last.
    ///
    /// # Errors
    ///
    /// If the file cannot be read further.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, AudienceError> {
        if !self.rows.advance()? {
            return Ok(None);
        }
        self.row += 1;
        let row = self.row;
        let skipped = |reason, detail, recipient| Ok(Some(Line::Skipped { row, reason, detail, recipient }));
        if let Some(detail) = self.rows.too_many_values(self.columns.names().len()) {
            return skipped(SkipReason::InvalidContent, detail, self.rows.spelling(self.phone));
        }
        let phone = match self.rows.phone(self.phone, self.numbers) {
            Ok(phone) => phone,
            Err(refusal) => {
                let spelling = self.rows.spelling(self.phone);
                return skipped(SkipReason::InvalidNumber, refusal.to_string(), spelling);
            }
        };
        if !self.seen.insert(phone.person().digits()) {
            return skipped(
                SkipReason::Duplicate,
                "an earlier row has this number".into(),
                phone.to_string(),
            );
        }
        Ok(Some(Line::Recipient(Row { row, phone, rows: &self.rows })))
    }
}

/// Returns whether a column has the name of a phone column.
pub fn has_phone_column(columns: &Columns) -> bool {
    phone_column(columns, None).is_ok()
}

fn phone_column(columns: &Columns, named: Option<&str>) -> Result<usize, String> {
    match named {
        Some(name) => columns.find(name).map_err(|error| error.to_string()),
        None => PHONE_NAMES.iter().find_map(|name| columns.find(name).ok()).ok_or_else(|| {
            let names = columns.names().iter().map(String::as_str);
            format!("found no phone column among {}", listed(names))
        }),
    }
}

#[cfg(test)]
mod tests;
