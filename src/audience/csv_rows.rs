//! Rows of a CSV file in any of the usual dialects.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{collections::HashMap, io, sync::Arc};

use csv::ByteRecord;

use super::open::{Bytes, failure};
use super::{AudienceError, Settings, path::name};
use crate::campaign::{Columns, PhoneParser, text::is_invisible};

/// The delimiters that are detected in the header.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

pub(super) struct CsvRows {
    reader: csv::Reader<Bytes>,
    path: PathBuf,
    pub(super) columns: Columns,
    record: ByteRecord,
    /// Offset of the current row, shared with [`Bytes`], which limits the row's length.
    row_start: Arc<AtomicU64>,
    /// Whether `record` is already the next row.
    ahead: bool,
    /// Whether a title line above the header was skipped.
    pub(super) has_title: bool,
    /// Number of empty rows so far.
    pub(super) empty_rows: u64,
}

/// Returns the I/O error behind an error of the `csv` crate.
pub(crate) fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

impl CsvRows {
    pub(super) fn open(path: &Path, settings: &Settings) -> Result<Self, AudienceError> {
        let mut bytes = Bytes::open(path, settings)?;
        let row_start = bytes.row_start.clone();
        let of_sheet = bytes.named_delimiter.filter(|_| bytes.hidden_rows.is_some());
        let delimiter = of_sheet.or(settings.delimiter).or(bytes.named_delimiter);
        let delimiter = delimiter.unwrap_or_else(|| find_delimiter(&bytes.start));
        bytes.check_quotes(delimiter);
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .buffer_capacity(64 * 1024)
            .from_reader(bytes);
        let mut rows = Self {
            reader,
            path: path.into(),
            columns: Columns::new(Vec::new()),
            record: ByteRecord::new(),
            row_start,
            ahead: false,
            has_title: false,
            empty_rows: 0,
        };
        if !rows.advance()? {
            return Err(AudienceError::Empty(name(path)));
        }
        let mut header = rows.record.clone();
        // Empty lines above the header do not count as rows.
        let mut above = rows.empty_rows;
        let is_data = |line: &csv::ByteRecord| line.iter().any(|name| is_phone_number(name, settings));
        if !rows.advance()? {
            if is_data(&header) {
                return Err(AudienceError::NoHeader(name(path)));
            }
            rows.columns = self::header(&header, path)?;
            return Err(AudienceError::HeaderOnly(name(path)));
        }
        if is_title(&header, &rows.record, settings) {
            rows.has_title = true;
            header = rows.record.clone();
            above = rows.empty_rows;
            if !rows.advance()? {
                return Err(AudienceError::HeaderOnly(name(path)));
            }
        }
        if is_data(&header) {
            return Err(AudienceError::NoHeader(name(path)));
        }
        rows.columns = self::header(&header, path)?;
        rows.ahead = true;
        rows.empty_rows -= above;
        Ok(rows)
    }

    pub(super) fn advance(&mut self) -> Result<bool, AudienceError> {
        if std::mem::take(&mut self.ahead) {
            return Ok(true);
        }
        while self.read()? {
            if !self.record.iter().all(is_blank) {
                return Ok(true);
            }
            self.empty_rows += 1;
        }
        Ok(false)
    }

    fn read(&mut self) -> Result<bool, AudienceError> {
        self.row_start.store(self.reader.position().byte(), Ordering::Relaxed);
        let line = self.reader.position().line();
        let read = self.reader.read_byte_record(&mut self.record);
        read.map_err(|error| failure(&self.path, io_error(error), line))
    }

    pub(super) fn bytes(&self) -> &Bytes {
        self.reader.get_ref()
    }

    /// Returns a value; empty if the row is too short.
    pub(super) fn value(&self, column: usize) -> &str {
        // The bytes are UTF-8 and the delimiter is ASCII, so no character is ever split.
        self.record.get(column).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
    }

    /// Returns the number of values up to the last that is not blank.
    pub(super) fn len(&self) -> usize {
        let trailing = self.record.iter().rev().take_while(|value| is_blank(value)).count();
        self.record.len() - trailing
    }
}

fn is_blank(value: &[u8]) -> bool {
    match value.first() {
        None => true,
        Some(byte) if byte.is_ascii_graphic() => false,
        _ => std::str::from_utf8(value)
            .is_ok_and(|text| text.chars().all(|c| c.is_whitespace() || is_invisible(c))),
    }
}

/// Returns whether the first line is a title and not the header: it has one value, which is not the name of a phone
/// column, and the next line has more.
fn is_title(first: &ByteRecord, second: &ByteRecord, settings: &Settings) -> bool {
    let mut values = first.iter().filter(|value| !is_blank(value));
    let (Some(only), None) = (values.next(), values.next()) else { return false };
    let names = Columns::new(vec![clean(only)]);
    let is_phone = super::phone_column(&names, settings.phone.as_deref()).is_ok();
    !is_phone && second.iter().filter(|value| !is_blank(value)).count() > 1
}

/// Returns whether a name in the header is a phone number: then the file has no header.
fn is_phone_number(name: &[u8], settings: &Settings) -> bool {
    let Ok(text) = std::str::from_utf8(name) else { return false };
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    digits >= 7
        && (PhoneParser::new(settings.default_region.as_deref()).parse(text).is_ok()
            || text.trim().trim_start_matches('+').bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns the most frequent delimiter of the first line, outside of quotes.
fn find_delimiter(start: &[u8]) -> u8 {
    let mut counts = [0_usize; DELIMITERS.len()];
    let mut quoted = false;
    for &byte in start {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' | b'\r' if !quoted => break,
            _ if quoted => {}
            _ => {
                if let Some(known) = DELIMITERS.iter().position(|delimiter| *delimiter == byte) {
                    counts[known] += 1;
                }
            }
        }
    }
    let best = (0..counts.len()).rev().max_by_key(|known| counts[*known]).unwrap_or(0);
    DELIMITERS[best]
}

/// Returns a column name without hidden characters, line breaks and repeated blanks.
fn clean(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    let is_shown = |c: &char| c.is_whitespace() || !(c.is_control() || is_invisible(*c));
    let shown: String = text.chars().filter(is_shown).collect();
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Reads the column names. Duplicate names are an error.
fn header(record: &ByteRecord, path: &Path) -> Result<Columns, AudienceError> {
    let mut names: Vec<String> = Vec::with_capacity(record.len());
    let mut known = HashMap::new();
    for (place, field) in record.iter().enumerate() {
        let clean = clean(field);
        if !clean.is_empty()
            && let Some(first) = known.insert(clean.clone(), place)
        {
            let places = (first + 1, place + 1);
            return Err(AudienceError::DuplicateColumn { name: name(path), column: clean, places });
        }
        names.push(clean);
    }
    // Empty columns after the last name do not count.
    while names.last().is_some_and(String::is_empty) {
        names.pop();
    }
    Ok(Columns::new(names))
}
