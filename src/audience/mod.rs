//! Where recipients come from: a CSV file or the job's own list, as a stream of rows.
//!
//! Reads, checks and normalises; every row comes out, as a recipient or with the reason why it is
//! not one. It never sends, stores or renders anything, and holds no more than a row at a time
//! beside the set of numbers already seen.

mod csv_rows;
mod encoding;
mod error;
mod list_rows;
mod open;
mod path;
mod places;
mod quotes;
mod remote;
mod scan;
mod workbook;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use roaring::RoaringTreemap;

pub use encoding::Encoding;
pub use error::{AudienceError, Strange};
pub use open::FileKind;
pub use path::resolve;
pub use places::{Audiences, Root};
pub use remote::{Bucket, Fetched, Object};
pub use scan::{Scan, scan};

pub use crate::campaign::job::HiddenRows;
use crate::campaign::problem::listed;
use crate::campaign::{
    Columns, NUMBER_MARK, Phone, PhoneError, PhoneParser, SkipReason, shown_and_number, text,
};
use csv_rows::CsvRows;
use list_rows::ListRows;

/// Under which names the phone column is looked for when the job names none. The last is that of
/// our own reports, so that what failed can be an audience again.
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

/// The longest row. A longer one is a quote that was never closed, or no table.
pub const ROW_LIMIT: u64 = 1 << 20;

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
    /// The worksheet of a workbook, by its name; without one the first that is not hidden.
    pub sheet: Option<String>,
    /// What becomes of a sheet's hidden rows.
    pub hidden_rows: HiddenRows,
    /// The most columns that it may have.
    pub columns: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let encoding = Encoding::default();
        Self {
            phone: None,
            delimiter: None,
            encoding,
            default_region: None,
            sheet: None,
            hidden_rows: HiddenRows::default(),
            columns: Columns::USUAL_LIMIT,
        }
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
    numbers: PhoneParser,
    seen: RoaringTreemap,
    row: u64,
}

enum Rows {
    Csv(Box<CsvRows>),
    List(ListRows),
}

/// The numbers of a list, without anything else that its rows hold.
#[derive(Debug, Default)]
pub struct NumberList {
    /// Each number once, in the order of the rows.
    pub numbers: Vec<Phone>,
    /// How many rows repeat an earlier number.
    pub duplicates: u64,
    /// How many rows have no number that can be read.
    pub unreadable: u64,
    /// The first of them.
    pub unreadable_rows: Vec<UnreadableRow>,
}

/// A row without a number that can be read.
#[derive(Debug)]
pub struct UnreadableRow {
    /// The row, from 1; the header does not count.
    pub row: u64,
    /// What the phone column holds, at most 40 characters.
    pub text: String,
    /// Why it is no number.
    pub reason: String,
}

/// Reads the numbers of a list; of unreadable rows it keeps the first `most`.
///
/// # Errors
///
/// When it can't be read, or has no phone column.
pub fn numbers(
    source: &Source,
    phone: Option<String>,
    default_region: Option<String>,
    most: usize,
) -> Result<NumberList, AudienceError> {
    let settings = Settings { phone, default_region, ..Settings::default() };
    let encoding = scan(source, &settings)?.encoding;
    let settings = Settings { encoding, ..settings };
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
    /// A column's value as it is planned: without blanks around it, with the number behind its mark where a spreadsheet shows it in
    /// another way; JSON for a list.
    pub fn value(&self, column: usize) -> Cow<'a, str> {
        self.rows.cleaned(column)
    }

    /// A column's value as people see it; JSON for a list.
    pub fn shown(&self, column: usize) -> String {
        shown_and_number(&self.value(column)).0.to_owned()
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
            let rows = CsvRows::open(path, settings)?;
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
        let numbers = PhoneParser::new(settings.default_region.as_deref());
        Ok(Self { columns, phone, rows, numbers, seen: RoaringTreemap::new(), row: 0 })
    }

    /// The columns.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The name of the column that holds the numbers.
    pub fn phone_column(&self) -> &str {
        self.columns.names().get(self.phone).map_or("", String::as_str)
    }

    /// The columns that are called as columns of numbers are.
    pub fn phone_columns(&self) -> impl Iterator<Item = &str> {
        let mut columns: Vec<usize> =
            PHONE_NAMES.iter().filter_map(|name| self.columns.find(name).ok()).collect();
        columns.sort_unstable();
        columns.dedup();
        columns.into_iter().filter_map(|column| self.columns.names().get(column)).map(String::as_str)
    }

    /// Whether values are JSON texts rather than plain ones.
    pub fn has_json_values(&self) -> bool {
        matches!(self.rows, Rows::List(_))
    }

    /// A column's value in the row that was read last, whether it is a recipient or skipped, as people see it.
    pub fn shown(&self, column: usize) -> String {
        shown_and_number(&self.rows.cleaned(column)).0.to_owned()
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

    /// The value as it may stand in a message. The mark of numbers is the workbook's own: elsewhere it is a control character
    /// that somebody wrote.
    fn cleaned(&self, column: usize) -> Cow<'_, str> {
        match self {
            Self::Csv(rows) if rows.bytes().hidden_rows().is_some() => {
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

    fn phone(&self, column: usize, numbers: PhoneParser) -> Result<Phone, PhoneError> {
        match self {
            // Of a number the number counts, however the sheet shows it.
            Self::Csv(rows) => match rows.value(column).split_once(NUMBER_MARK) {
                Some((_, number)) => numbers.parse(number),
                None => numbers.parse(rows.value(column)),
            },
            Self::List(rows) => numbers.parse(shown_and_number(&rows.text(column)).0),
        }
    }

    /// The phone column as it is written, for a person who looks for the row: of a number all its digits, however the sheet
    /// shows it (`9.19877E+11`).
    fn spelling(&self, column: usize) -> String {
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

    /// A row with more values than columns has a stray delimiter: its values stand in wrong places.
    fn too_many_values(&self, columns: usize) -> Option<String> {
        let Self::Csv(rows) = self else { return None };
        let values = Some(rows.len()).filter(|values| *values > columns)?;
        Some(format!(
            "the row has {values} values and the header {columns} columns; quote values that hold the delimiter"
        ))
    }
}

/// Whether a column is called as columns of numbers are.
pub fn has_phone_column(columns: &Columns) -> bool {
    phone_column(columns, None).is_ok()
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
                    let values: Vec<_> = (0..width).map(|column| row.value(column)).collect();
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
            "a.csv: the column \"a\" occurs twice in the header, as column 2 and column 3; rename one"
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
                (nth.to_string().into(), "".into())
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
        assert_eq!((row.value(1), row.value(2)), ("[\"a\"]".into(), "".into()));
        assert!(matches!(audience.next_line().unwrap(), Some(Line::Recipient(_))));
        assert!(matches!(
            audience.next_line().unwrap(),
            Some(Line::Skipped { reason: SkipReason::Duplicate, .. })
        ));
        assert!(audience.next_line().unwrap().is_none());
    }

    /// What comes of a file as spreadsheets export it: its lines, and what is said of it.
    fn read_as(name: &str, bytes: &[u8], settings: &Settings) -> Result<(Vec<String>, Vec<String>), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let source = Source::File(path);
        let scan = scan(&source, settings).map_err(|error| error.to_string())?;
        let settings = Settings { encoding: scan.encoding, ..settings.clone() };
        let mut audience = Audience::open(&source, &settings).map_err(|error| error.to_string())?;
        let columns = audience.columns().names().len();
        let mut lines = Vec::new();
        while let Some(line) = audience.next_line().map_err(|error| error.to_string())? {
            lines.push(match line {
                Line::Recipient(row) => {
                    let values: Vec<String> = (0..columns).map(|column| row.shown(column)).collect();
                    format!("{} {}", row.phone, values[1..].join("|"))
                }
                Line::Skipped { reason, .. } => reason.as_str().to_owned(),
            });
        }
        Ok((lines, scan.notes(settings.hidden_rows)))
    }

    #[test]
    fn csv_is_read_as_programs_export_it() {
        let india = Settings { default_region: Some("IN".into()), ..Settings::default() };
        let asha = ["+919876543210 Asha"];
        for text in [
            "sep=;\nphone;name\n9876543210;Asha\n",
            "\"sep=;\"\r\nphone;name\r\n9876543210;Asha\r\n",
            "\u{feff}sep=\t\nphone\tname\n9876543210\tAsha\n",
            "\"Phone\nNumber\",name\n9876543210,Asha\n",
            "Phone\u{a0}Number\u{200b},\u{feff}name\n9876543210, Asha \n",
            "phone,name,,,\n9876543210,Asha,,,\n",
            "phone,name\n9876543210,Asha,,,,\n",
            "phone,name\n9876543210,\u{a0}Asha\u{200b}\n",
        ] {
            assert_eq!(read_as("a.csv", text.as_bytes(), &india).unwrap().0, asha, "{text:?}");
        }
        let (lines, notes) =
            read_as("a.csv", b"Customers of Pune\n\nphone,name\n,\n9876543210,Asha\n,,,\n , \n", &india)
                .unwrap();
        assert_eq!(lines, asha);
        assert_eq!(
            notes,
            [
                "the first line is a title; the columns are named by the next one",
                "3 rows without any value: not counted"
            ]
        );
        // One column alone is no title.
        assert_eq!(read_as("a.csv", b"phone\n9876543210\n", &india).unwrap().0, ["+919876543210 "]);
        assert_eq!(read_as("a.csv", b"phone,\n9876543210,Asha\n", &india).unwrap().0.len(), 1);
    }

    #[test]
    fn what_is_no_list_of_people_says_what_it_is_and_what_to_do() {
        let india = Settings { default_region: Some("IN".into()), ..Settings::default() };
        for (name, bytes, part) in [
            (
                "a.csv",
                &b"9876543210,Asha\n9876543211,Ravi\n"[..],
                "the first line holds a phone number; put a line above",
            ),
            (
                "a.csv",
                b"phone,name,name\n9876543210,a,b\n",
                "occurs twice in the header, as column 2 and column 3",
            ),
            ("a.csv", b"PK\x03\x04rest", "a workbook, and its name does not end in .xlsx"),
            ("a.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "older kind .xls"),
            ("a.csv", b"<html><table><tr><td>phone", "a web page, whatever its name says"),
            ("a.csv", b"%PDF-1.7", "a PDF"),
            ("a.xlsx", b"<html><table><tr><td>phone", "a web page, whatever its name says"),
            ("a.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "older kind .xls, or one with a password"),
            (
                "a.xlsx",
                b"PK\x03\x04\x14\0\0\x08\0\0mimetypeapplication/vnd.oasis.opendocument.spreadsheet",
                "an OpenDocument file, as .ods: save it as .xlsx",
            ),
            ("a.csv", b"phone,name\n9876543210,A\x00sha\n", "line 2 holds a NUL byte"),
            ("a.csv", b"phone,name\n9876543210,A\xc2\x85sha\n", "line 2 holds a control character"),
            ("a.csv", b"phone,name\r9876543210,Asha\r", "a carriage return without a line feed"),
            ("a.csv", b"phone,name\n9876543210,Jos\x8e\n", "name its \"encoding\""),
        ] {
            let error = read_as(name, bytes, &india).unwrap_err();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("98765"), "{error}");
        }
        // A name that can't be read is nobody's name.
        let shift_jis = Settings { encoding: Encoding::named("shift_jis").unwrap(), ..india.clone() };
        let error =
            read_as("a.csv", b"phone,name\n9876543210,\x83A\x83T\n9876543211,\x81\x00\xff\n", &shift_jis);
        let error = error.unwrap_err();
        assert!(error.contains("line 3 holds a NUL byte"), "{error}");
        let error = read_as("a.csv", b"phone,name\n9876543210,\x83A\x83T\n9876543211,\xff\n", &shift_jis);
        let error = error.unwrap_err();
        assert!(error.contains("line 3 holds bytes that its encoding gives no character"), "{error}");
        // A line that names no delimiter is a line like others.
        for text in
            [&b"sep=\xa9\nphone;name\n9876543210;Jos\xc3\xa9\n"[..], b"sep=a\nphone,name\n9876543210,Asha\n"]
        {
            let read = read_as("a.csv", text, &india);
            assert!(!format!("{read:?}").contains("Jos\""), "{read:?}");
        }
        let mac = Settings { encoding: Encoding::named("macintosh").unwrap(), ..india };
        assert_eq!(
            read_as("a.csv", b"phone,name\n9876543210,Jos\x8e\n", &mac).unwrap().0,
            ["+919876543210 Jos\u{e9}"]
        );
    }

    #[test]
    fn one_person_in_two_spellings_is_one_recipient() {
        let text = "phone\n+5511987654321\n+551187654321\n+525512345678\n+5215512345678\n+5491123456789\n+541123456789\n";
        let lines = lines(text, &Settings::default());
        assert_eq!(lines.iter().filter(|line| line.contains("duplicate")).count(), 3, "{lines:?}");
    }
}
