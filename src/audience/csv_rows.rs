//! Rows of a CSV file, in whatever of the usual dialects it is written.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use csv::ByteRecord;

use super::open::{Bytes, failure, name};
use super::{AudienceError, Encoding};
use crate::campaign::Columns;
use crate::campaign::text::is_invisible;

/// The delimiters that are looked for in the header.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

pub(super) struct CsvRows {
    reader: csv::Reader<Bytes>,
    path: PathBuf,
    columns: Columns,
    record: ByteRecord,
    /// Tells the bytes where the row begins, so that they can bound its length.
    row_start: Arc<AtomicU64>,
    /// Whether `record` is already the next row.
    ahead: bool,
}

impl CsvRows {
    pub(super) fn open(
        path: &Path,
        delimiter: Option<u8>,
        encoding: Encoding,
    ) -> Result<Self, AudienceError> {
        let mut bytes = Bytes::open(path, encoding)?;
        let row_start = bytes.row_start();
        let delimiter = delimiter.unwrap_or_else(|| find_delimiter(bytes.start()));
        bytes.check_quotes(delimiter);
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .buffer_capacity(64 * 1024)
            .from_reader(bytes);
        let columns = Columns::new(Vec::new());
        let mut rows =
            Self { reader, path: path.into(), columns, record: ByteRecord::new(), row_start, ahead: false };
        if !rows.advance()? {
            return Err(AudienceError::Empty(name(path)));
        }
        rows.columns = header(&rows.record, path)?;
        if !rows.advance()? {
            return Err(AudienceError::HeaderOnly(name(path)));
        }
        rows.ahead = true;
        Ok(rows)
    }

    pub(super) fn columns(&self) -> &Columns {
        &self.columns
    }

    pub(super) fn advance(&mut self) -> Result<bool, AudienceError> {
        if std::mem::take(&mut self.ahead) {
            return Ok(true);
        }
        self.row_start.store(self.reader.position().byte(), Ordering::Relaxed);
        let line = self.reader.position().line();
        self.reader.read_byte_record(&mut self.record).map_err(|fault| match fault.into_kind() {
            csv::ErrorKind::Io(fault) => failure(&self.path, fault, line),
            // A flexible reader of bytes has no other errors.
            other => {
                let source = std::io::Error::other(format!("{other:?}"));
                AudienceError::Io { name: name(&self.path), source }
            }
        })
    }

    pub(super) fn bytes(&self) -> &Bytes {
        self.reader.get_ref()
    }

    /// A value; empty where the row is too short.
    pub(super) fn value(&self, column: usize) -> &str {
        // The bytes are UTF-8 and the delimiter is ASCII, so no character is ever cut.
        self.record.get(column).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.record.len()
    }
}

/// The delimiter that occurs most in the first line, outside of quotes.
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

/// The columns' names, without the hidden characters that programs leave in a header.
fn header(record: &ByteRecord, path: &Path) -> Result<Columns, AudienceError> {
    let (mut names, mut known) = (Vec::with_capacity(record.len()), HashSet::new());
    for field in record {
        let clean: String =
            String::from_utf8_lossy(field).chars().filter(|c| !c.is_control() && !is_invisible(*c)).collect();
        let clean = clean.trim().to_string();
        if !clean.is_empty() && !known.insert(clean.clone()) {
            return Err(AudienceError::DuplicateColumn { name: name(path), column: clean });
        }
        names.push(clean);
    }
    Ok(Columns::new(names))
}
