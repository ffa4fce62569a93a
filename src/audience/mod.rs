//! Where recipients come from: a CSV file or the job's own list, as a stream of rows.
//!
//! Reads, checks and normalises; every row comes out, as a recipient or with the reason why it is
//! not one. It never sends, stores or renders anything, and holds no more than a row at a time
//! beside the set of numbers already seen.

mod csv_rows;
mod encoding;
mod list_rows;
mod number;
mod open;
mod path;
mod places;
mod quotes;
mod remote;
mod scan;
mod workbook;

use std::path::{Path, PathBuf};

use roaring::RoaringTreemap;

pub use encoding::Encoding;
pub use path::resolve;
pub use places::{Audiences, Root};
pub use remote::{Bucket, Fetched, Object};
pub use scan::{Scan, scan};

use crate::campaign::problem::listed;
use crate::campaign::{Columns, Phone, SkipReason};
use csv_rows::CsvRows;
use list_rows::ListRows;
use number::Numbers;

pub use number::{Numbers as PhoneNumbers, Refusal};

/// Under which names the phone column is looked for when the job names none. The last is that of
/// our own reports, so that what failed can be an audience again.
const PHONE_NAMES: [&str; 7] = ["phone", "phone_number", "mobile", "msisdn", "to", "whatsapp", "recipient"];

/// The longest row. A longer one is a quote that was never closed, or no table.
pub const ROW_LIMIT: u64 = 1 << 20;

/// Something wrong with an audience as a whole. Nothing of it can be sent.
#[derive(Debug, thiserror::Error)]
pub enum AudienceError {
    /// The file is not there.
    #[error("no such file: {path}; the path is taken from the audience root {root}")]
    NotFound {
        /// As the job writes it.
        path: String,
        /// The folder below which it must be.
        root: String,
    },
    /// The path leads out of the root.
    #[error(
        "{path} leads out of the audience root {root}; put the file below it, or set audiences.root in the configuration"
    )]
    Outside {
        /// As the job writes it.
        path: String,
        /// The folder below which it must be.
        root: String,
    },
    /// A folder, a device, a pipe.
    #[error("{0} is not a regular file")]
    NotAFile(String),
    /// No bytes at all.
    #[error("{0} is empty; its first line must name the columns")]
    Empty(String),
    /// A header and nothing else.
    #[error("{0} has a header and no rows: there is nobody to send to")]
    HeaderOnly(String),
    /// Not UTF-8.
    #[error("{name} is not UTF-8: byte {byte} (line {line}); save the file as \"CSV UTF-8\"")]
    NotUtf8 {
        /// The file.
        name: String,
        /// The offset of the first wrong byte, from 0.
        byte: u64,
        /// The line it is in, from 1.
        line: u64,
    },
    /// No workbook, or one that can't be read.
    #[error("{name} can't be read as a workbook: {detail}; save the first sheet as \"CSV UTF-8\"")]
    Workbook {
        /// The file.
        name: String,
        /// Why.
        detail: String,
    },
    /// A quote that would swallow other rows.
    #[error(
        "{name}: a quote opens in the row on line {line} and is not closed; close it, or double a quote that is meant"
    )]
    OpenQuote {
        /// The file.
        name: String,
        /// Where the row begins.
        line: u64,
    },
    /// A row without an end.
    #[error(
        "{name}: the row on line {line} is longer than 1 MiB; no row of an audience is, so look at the file"
    )]
    RowTooLong {
        /// The file.
        name: String,
        /// Where the row begins.
        line: u64,
    },
    /// A packed file that can't be unpacked.
    #[error("{name} can't be unpacked: {detail}; it is not whole, or not packed as its name says")]
    Packed {
        /// The file.
        name: String,
        /// Why.
        detail: String,
    },
    /// A packed file that unpacks to more than anybody means.
    #[error("{0} unpacks to more than 8 GiB; split it")]
    TooLarge(String),
    /// Two columns of one name.
    #[error("{name}: the column {column:?} occurs twice in the header; rename one")]
    DuplicateColumn {
        /// The file.
        name: String,
        /// The column.
        column: String,
    },
    /// More columns than a table has.
    #[error(
        "{name} has {count} columns, and the most are {most}; leave out those that the message does not name, or set \
         audiences.columns"
    )]
    TooManyColumns {
        /// The file.
        name: String,
        /// How many it has.
        count: usize,
        /// How many are allowed.
        most: usize,
    },
    /// The phone column is not there.
    #[error("{name}: {fault}; name the column of the numbers in /audience/csv/phone")]
    NoPhoneColumn {
        /// The file.
        name: String,
        /// What was looked for and what is near.
        fault: String,
    },
    /// No folder and no bucket.
    #[error("files can't be read: audiences.root is not configured on this worker")]
    NoRoot,
    /// An address that must not be read.
    #[error("the address {0}")]
    NotAllowed(String),
    /// Nothing is at an address.
    #[error("there is no {name} at its address")]
    Gone {
        /// The file.
        name: String,
    },
    /// Larger than what is fetched.
    #[error("{0} is larger than 2 GiB; pack it (.csv.zst), or split it")]
    TooLargeToFetch(String),
    /// It can't be fetched now.
    #[error("{name} can't be fetched: {detail}")]
    Unreachable {
        /// The file.
        name: String,
        /// Why.
        detail: String,
    },
    /// Reading failed.
    #[error("can't read {name}: {source}")]
    Io {
        /// The file.
        name: String,
        /// Why.
        source: std::io::Error,
    },
}

impl AudienceError {
    /// Where in the job the reason lies.
    pub fn pointer(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::Outside { .. } | Self::NotAFile(_) | Self::NoRoot => {
                "/audience/csv/path"
            }
            Self::NotAllowed(_) | Self::Gone { .. } => "/audience/csv/url",
            Self::NoPhoneColumn { .. } => "/audience/csv/phone",
            _ => "/audience",
        }
    }

    /// Whether a disk is full on which the audience is unpacked, or to which it is fetched: it may work later.
    pub fn lacks_room(&self) -> bool {
        let kind = match self {
            Self::Io { source, .. } => source.kind(),
            _ => return false,
        };
        matches!(kind, std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    }

    /// Whether the machine failed rather than the file being wrong.
    pub fn is_outside_failure(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Unreachable { .. })
    }
}

/// How to read an audience.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The phone column.
    pub phone: Option<String>,
    /// The delimiter, where it should not be found by itself.
    pub delimiter: Option<u8>,
    /// How its characters are written ([`Scan::encoding`]).
    pub encoding: Encoding,
    /// The region of numbers without a country code.
    pub default_region: Option<String>,
    /// The most columns that it may have.
    pub columns: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let encoding = Encoding::default();
        Self { phone: None, delimiter: None, encoding, default_region: None, columns: Columns::USUAL_LIMIT }
    }
}

/// What to read.
#[derive(Clone, Debug)]
pub enum Source {
    /// A CSV file, already known to be inside the root; `.gz`, `.zst` and `.xlsx` by name.
    File(PathBuf),
    /// The same, fetched from elsewhere.
    Fetched(Fetched),
    /// The job's own list.
    List(Vec<serde_json::Map<String, serde_json::Value>>),
}

/// An audience that is being read.
pub struct Audience {
    columns: Columns,
    phone: usize,
    rows: Rows,
    numbers: Numbers,
    seen: RoaringTreemap,
    row: u64,
}

enum Rows {
    Csv(Box<CsvRows>),
    List(ListRows),
}

/// The numbers of an audience, and how many rows hold none that can be read or one that was there before.
///
/// # Errors
///
/// When it can't be read, or has no phone column.
pub fn numbers(
    source: &Source,
    phone: Option<String>,
    default_region: Option<String>,
) -> Result<(Vec<Phone>, u64), AudienceError> {
    let encoding = scan(source, None)?.encoding;
    let settings = Settings { phone, encoding, default_region, ..Settings::default() };
    let mut audience = Audience::open(source, &settings)?;
    let (mut numbers, mut left_out) = (Vec::new(), 0);
    while let Some(line) = audience.next_line()? {
        match line {
            Line::Recipient(row) => numbers.push(row.phone),
            Line::Skipped { .. } => left_out += 1,
        }
    }
    Ok((numbers, left_out))
}

/// What a row came to.
pub enum Line<'a> {
    /// Somebody to send to.
    Recipient(Row<'a>),
    /// Nobody, and why.
    Skipped {
        /// The row, from 1.
        row: u64,
        /// The reason in the contract.
        reason: SkipReason,
        /// What exactly, without the number itself.
        detail: String,
        /// What stands in the phone column, cut to what a report shows.
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
    /// A column's value as it stands in the file; JSON for a list.
    pub fn value(&self, column: usize) -> &'a str {
        self.rows.value(column)
    }
}

impl Audience {
    /// Opens an audience and reads its header.
    ///
    /// # Errors
    ///
    /// When it has no rows, no phone column, a column twice, or can't be read.
    pub fn open(source: &Source, settings: &Settings) -> Result<Self, AudienceError> {
        let file = |path: &Path| {
            let rows = CsvRows::open(path, settings.delimiter, settings.encoding)?;
            Ok::<_, AudienceError>((rows.columns().clone(), Rows::Csv(Box::new(rows)), open::name(path)))
        };
        let (columns, rows, name) = match source {
            Source::File(path) => file(path)?,
            Source::Fetched(fetched) => file(fetched.path())?,
            Source::List(list) => {
                let rows = ListRows::new(list.clone());
                (rows.columns().clone(), Rows::List(rows), "the job's list of recipients".into())
            }
        };
        let (count, most) = (columns.names().len(), settings.columns);
        if count > most {
            return Err(AudienceError::TooManyColumns { name, count, most });
        }
        let phone = phone_column(&columns, settings.phone.as_deref())
            .map_err(|fault| AudienceError::NoPhoneColumn { name, fault })?;
        let numbers = Numbers::new(settings.default_region.as_deref());
        Ok(Self { columns, phone, rows, numbers, seen: RoaringTreemap::new(), row: 0 })
    }

    /// The columns.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Whether values are JSON texts rather than plain ones.
    pub fn has_json_values(&self) -> bool {
        matches!(self.rows, Rows::List(_))
    }

    /// A digest of all bytes that were read, where they are a file's: behind the last row that is
    /// [`Scan::digest`], unless the file has changed since it was scanned.
    pub fn digest(&self) -> Option<String> {
        match &self.rows {
            Rows::Csv(rows) => Some(rows.bytes().digest()),
            Rows::List(_) => None,
        }
    }

    /// The next row, `None` behind the last.
    ///
    /// # Errors
    ///
    /// When the file can't be read further.
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
        let phone = match self.rows.phone(self.phone, &mut self.numbers) {
            Ok(phone) => phone,
            Err(refusal) => {
                let spelling = self.rows.spelling(self.phone);
                return skipped(SkipReason::InvalidNumber, refusal.to_string(), spelling);
            }
        };
        if !self.seen.insert(phone.digits()) {
            return skipped(
                SkipReason::Duplicate,
                "an earlier row has this number".into(),
                phone.to_string(),
            );
        }
        Ok(Some(Line::Recipient(Row { row, phone, rows: &self.rows })))
    }
}

impl Rows {
    fn advance(&mut self) -> Result<bool, AudienceError> {
        match self {
            Self::Csv(rows) => rows.advance(),
            Self::List(rows) => Ok(rows.advance()),
        }
    }

    fn value(&self, column: usize) -> &str {
        match self {
            Self::Csv(rows) => rows.value(column),
            Self::List(rows) => rows.value(column),
        }
    }

    fn phone(&self, column: usize, numbers: &mut Numbers) -> Result<Phone, Refusal> {
        match self {
            Self::Csv(rows) => numbers.normalise(rows.value(column)),
            Self::List(rows) => numbers.normalise(&rows.text(column)),
        }
    }

    /// The phone column as it stands, for a person who looks for the row.
    fn spelling(&self, column: usize) -> String {
        self.value(column).trim_matches('"').chars().filter(|c| !c.is_control()).take(40).collect()
    }

    /// A row with more values than columns has a stray delimiter: its values stand in wrong places.
    fn too_many_values(&self, columns: usize) -> Option<String> {
        let Self::Csv(rows) = self else { return None };
        (rows.len() > columns)
            .then(|| format!("the row has {} values and the header {columns} columns; quote values that hold the delimiter", rows.len()))
    }
}

fn phone_column(columns: &Columns, named: Option<&str>) -> Result<usize, String> {
    match named {
        Some(name) => columns.find(name).map_err(|fault| fault.to_string()),
        None => PHONE_NAMES.iter().find_map(|name| columns.find(name).ok()).ok_or_else(|| {
            let names = columns.names().iter().map(String::as_str);
            format!("no column is called {}; it has {}", PHONE_NAMES.join(", "), listed(names))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, settings: &Settings) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, text).unwrap();
        let mut audience = match Audience::open(&Source::File(path), settings) {
            Ok(audience) => audience,
            Err(fault) => return vec![fault.to_string()],
        };
        let width = audience.columns().names().len();
        let mut lines = Vec::new();
        loop {
            lines.push(match audience.next_line() {
                Ok(None) => return lines,
                Ok(Some(Line::Recipient(row))) => {
                    let values: Vec<&str> = (0..width).map(|column| row.value(column)).collect();
                    format!("{} {} {}", row.row, row.phone, values.join("|"))
                }
                Ok(Some(Line::Skipped { row, reason, .. })) => format!("{row} {reason}"),
                Err(fault) => return vec![fault.to_string()],
            });
        }
    }

    fn indian() -> Settings {
        Settings { default_region: Some("IN".into()), ..Settings::default() }
    }

    #[test]
    fn every_usual_dialect_is_read() {
        for delimiter in [",", ";", "\t", "|"] {
            let text = "\u{feff}name,Phone\r\n\"Rao, Asha\nji\",9876543210\r\n\r\nBo,+91 98765 43211\r\n"
                .replace(',', delimiter);
            let name = format!("Rao{delimiter} Asha\nji");
            let expected =
                [format!("1 +919876543210 {name}|9876543210"), "2 +919876543211 Bo|+91 98765 43211".into()];
            assert_eq!(lines(&text, &indian()), expected, "{delimiter:?}");
        }
    }

    #[test]
    fn every_row_comes_out_with_its_reason() {
        let text = "phone,name\n9876543210,a\n+91 9876543210,b\n12,c\n9876543211\n9876543212,d,e\n,f\n";
        assert_eq!(
            lines(text, &indian()),
            [
                "1 +919876543210 9876543210|a",
                "2 duplicate",
                "3 invalid_number",
                "4 +919876543211 9876543211|",
                "5 invalid_content",
                "6 invalid_number"
            ]
        );
    }

    #[test]
    fn headers_come_in_any_case_and_with_hidden_characters() {
        assert_eq!(
            lines("\u{200b} MSISDN \u{feff},n\n9876543210,a\n", &indian()),
            ["1 +919876543210 9876543210|a"]
        );
        let named = Settings { phone: Some("cell no".into()), ..indian() };
        assert_eq!(lines("n,Cell No\na,9876543210\n", &named), ["1 +919876543210 a|9876543210"]);
    }

    #[test]
    fn an_audience_that_can_not_be_used_says_why() {
        let fault = |text: &str| lines(text, &indian()).remove(0);
        assert_eq!(fault(""), "a.csv is empty; its first line must name the columns");
        assert_eq!(fault("\n\n"), "a.csv is empty; its first line must name the columns");
        assert_eq!(fault("phone,name\n"), "a.csv has a header and no rows: there is nobody to send to");
        assert_eq!(
            fault("phone,a,a\n1,2,3\n"),
            "a.csv: the column \"a\" occurs twice in the header; rename one"
        );
        assert!(fault("name,age\nx,1\n").contains("no column is called phone, phone_number"));
        let named = Settings { phone: Some("fone".into()), ..indian() };
        assert!(lines("phone\n9876543210\n", &named)[0].contains("did you mean \"phone\"?"));
    }

    #[test]
    fn recipients_with_columns_of_their_own_cost_what_they_have() {
        let list = |count: usize| -> Vec<_> {
            let recipient = |nth: usize| {
                let mut map = serde_json::Map::new();
                map.insert("phone".into(), format!("+91980000{nth:04}").into());
                map.insert(format!("own{nth}"), nth.into());
                map
            };
            (0..count).map(recipient).collect()
        };
        let wide = Settings { columns: usize::MAX, ..Settings::default() };
        // As wide rows they would take four hundred million values.
        let mut audience = Audience::open(&Source::List(list(9_999)), &wide).unwrap();
        for nth in 0..9_999 {
            let Some(Line::Recipient(row)) = audience.next_line().unwrap() else { panic!("{nth}") };
            assert_eq!(
                (row.value(nth + 1), row.value((nth + 1) % 9_999 + 1)),
                (nth.to_string().as_str(), "")
            );
        }
        let fault =
            Audience::open(&Source::List(list(1_000)), &Settings::default()).err().unwrap().to_string();
        assert!(
            fault.starts_with("the job's list of recipients has 1001 columns, and the most are 1000"),
            "{fault}"
        );
        assert!(Audience::open(&Source::List(list(999)), &Settings::default()).is_ok());
    }

    #[test]
    fn a_header_of_very_many_columns_is_read_and_refused() {
        let header = (0..100_000).map(|nth| format!("c{nth}")).collect::<Vec<_>>().join(",");
        let fault = lines(&format!("phone,{header}\n+919876543210\n"), &indian()).remove(0);
        assert!(fault.contains("has 100001 columns, and the most are 1000"), "{fault}");
        let some = (0..900).map(|nth| format!("c{nth}")).collect::<Vec<_>>().join(",");
        let fault = lines(&format!("{some}\n1\n"), &indian()).remove(0);
        assert!(
            fault.contains("it has c0, c1, ") && fault.contains("and 880 more") && fault.len() < 1_000,
            "{fault}"
        );
    }

    #[test]
    fn a_quote_that_is_never_closed_does_not_swallow_the_file() {
        for rows in [1, 10, 200_000] {
            let text =
                format!("phone,name\n9876543212,b\n9876543210,\"a\n{}", "+919876543211,b\n".repeat(rows));
            let fault = lines(&text, &indian()).remove(0);
            assert!(fault.contains("a quote opens in the row on line 3 and is not closed"), "{fault}");
        }
        // The same lines with the quote closed are in order, with and without a last line break.
        for end in ["\n", ""] {
            let text = format!("phone,name\n9876543210,\"a\nb\"{end}");
            assert_eq!(lines(&text, &indian()), ["1 +919876543210 9876543210|a\nb"]);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_the_reader_panic(text in "(phone|a|\"|,|;|\n|\r|\u{feff}|[0-9+ .E-]|\\PC){0,60}") {
            let _ = lines(&text, &indian());
            let _ = lines(&format!("phone,name\n{text}"), &indian());
        }
    }

    #[test]
    fn a_list_in_the_job_is_an_audience_too() {
        let list = serde_json::from_str(
            r#"[{"phone":"9876543210","slots":["a"]},{"phone":919876543211},{"name":"x","phone":"+91 98765 43210"}]"#,
        );
        let mut audience = Audience::open(&Source::List(list.unwrap()), &indian()).unwrap();
        assert_eq!(audience.columns().names(), ["phone", "slots", "name"]);
        let Some(Line::Recipient(row)) = audience.next_line().unwrap() else { panic!() };
        assert_eq!((row.value(1), row.value(2)), ("[\"a\"]", ""));
        assert!(matches!(audience.next_line().unwrap(), Some(Line::Recipient(_))));
        assert!(matches!(
            audience.next_line().unwrap(),
            Some(Line::Skipped { reason: SkipReason::Duplicate, .. })
        ));
        assert!(audience.next_line().unwrap().is_none());
    }
}
