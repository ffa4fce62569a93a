//! The results of a campaign: each row of its audience with all columns, the outcome of its message, and the replies. CSV, or a
//! workbook with one sheet, with number cells and date cells.
//!
//! The audience is read again and must be unchanged. Only one page of the ledger is in memory.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};

use jiff::{Timestamp, tz::TimeZone};
use rust_xlsxwriter::{ExcelDateTime, Format as CellFormat, Workbook, Worksheet, XlsxError};
use serde_json::Value;
use tokio::sync::mpsc::Receiver;

use super::lines::{cell, plain_cell};
use super::{replies, report, sheet_numbers::SheetNumber};
use crate::audience::{Audience, AudienceError};
use crate::campaign::delivery::{Delivery, FLOW_TOKEN};
use crate::campaign::{MessageState, shown_and_number, time::rfc3339};
use crate::ledger::{ReportLine, Response};

/// The columns after the audience's, before those of the form fields.
const OURS: [&str; 6] = ["Message state", "Delivery", "Code", "Reason", STATE_SINCE, "Reply"];
const STATE_SINCE: &str = "State since";
/// Excel's maximum numbers of rows of a sheet, with its header, and of characters of a cell.
pub const SHEET_ROWS: u64 = 1_048_576;
const CELL: usize = 32_767;
/// How a workbook shows times, and how wide their column is, in characters.
const TIME_FORMAT: &str = "yyyy-mm-dd hh:mm:ss";
const TIME_WIDTH: f64 = 24.0;
/// The most ways in which numbers of a workbook are shown; a number that would need another one is written as a text.
const NUMBER_FORMATS: usize = 100;

/// The file format of results.
#[derive(Clone, Debug)]
pub enum Format {
    /// CSV, for any program; times are RFC 3339.
    Csv,
    /// A workbook with times in a zone, which the header names. Formulas and phone numbers are text.
    Xlsx(TimeZone),
}

/// A value of a row.
enum CellValue {
    /// Text.
    Text(String),
    /// A number, as the audience shows it and as a value.
    Number(String, SheetNumber),
    /// A time.
    Time(Timestamp),
}

impl CellValue {
    /// Returns the value as text.
    fn text(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Self::Text(text) | Self::Number(text, _) => text.into(),
            Self::Time(at) => rfc3339(*at).into(),
        }
    }
}

/// Filter for rows; all rows by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Only {
    /// Only rows whose message is in this state.
    pub state: Option<MessageState>,
    /// Only rows whose message is in this delivery state.
    pub delivery: Option<Delivery>,
}

impl Only {
    fn lets_through(self, line: Option<&ReportLine>, state: MessageState) -> bool {
        let delivery = line.and_then(|line| line.delivery.as_deref());
        self.state.is_none_or(|wanted| wanted == state)
            && self.delivery.is_none_or(|wanted| delivery == Some(wanted.as_str()))
    }
}

/// The ledger's data for some rows, in the order of the audience.
#[derive(Default)]
pub struct ResultChunk {
    /// Lines of the report.
    pub lines: Vec<ReportLine>,
    /// Replies.
    pub replies: Vec<Response>,
    /// Whether this is the last part.
    pub is_last: bool,
}

/// Why results cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The ledger failed, or the reader disconnected.
    #[error("the report is incomplete")]
    Incomplete,
    /// The audience cannot be read to its end.
    #[error(transparent)]
    Audience(#[from] AudienceError),
    /// The file cannot be written.
    #[error("cannot write the results: {0}")]
    Write(#[from] io::Error),
    /// The workbook cannot be written.
    #[error("cannot write the results: {0}")]
    Sheet(#[from] XlsxError),
}

/// Writes the rows of an audience with their outcomes into a file. Blocks.
///
/// # Errors
///
/// When the audience cannot be read, or the file cannot be written.
pub fn write(
    audience: Audience,
    parts: Receiver<ResultChunk>,
    columns: &replies::Columns,
    only: Only,
    format: Format,
    file: File,
) -> Result<File, ResultsError> {
    let rows = Rows { audience, parts, only, lines: HashMap::new(), replies: HashMap::new(), known: 0 };
    match format {
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(BufWriter::new(file));
            let error = |error: csv::Error| ResultsError::Write(error.into());
            rows.each(columns, STATE_SINCE, |row| {
                writer.write_record(row.iter().map(|value| cell(&value.text()))).map_err(error)
            })?;
            let written = writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
            Ok(rewound(written.into_inner().map_err(io::IntoInnerError::into_error)?)?)
        }
        Format::Xlsx(zone) => {
            let mut workbook = Workbook::new();
            let sheet = workbook.add_worksheet_with_constant_memory()?;
            sheet.set_name("Results")?.set_freeze_panes(1, 0)?;
            let state_since = format!("{STATE_SINCE} ({})", zone.iana_name().unwrap_or("UTC"));
            let place = OURS.iter().position(|name| *name == STATE_SINCE).unwrap_or_default();
            let place = rows.audience.columns().names().len() + place;
            sheet.set_column_width(u16::try_from(place).unwrap_or_default(), TIME_WIDTH)?;
            let mut writer = SheetWriter::new(sheet, zone);
            rows.each(columns, &state_since, |row| Ok(writer.write(row)?))?;
            let mut file = file;
            workbook.save_to_writer(&mut file)?;
            Ok(rewound(file)?)
        }
    }
}

fn rewound(mut file: File) -> io::Result<File> {
    file.flush()?;
    file.rewind()?;
    Ok(file)
}

/// Writes rows into a sheet. The first is the header.
struct SheetWriter<'s> {
    sheet: &'s mut Worksheet,
    zone: TimeZone,
    row: u32,
    header: CellFormat,
    time: CellFormat,
    /// The formats of numbers, by their text.
    numbers: HashMap<String, CellFormat>,
}

impl<'s> SheetWriter<'s> {
    fn new(sheet: &'s mut Worksheet, zone: TimeZone) -> Self {
        let (header, time) = (CellFormat::new().set_bold(), CellFormat::new().set_num_format(TIME_FORMAT));
        Self { sheet, zone, row: 0, header, time, numbers: HashMap::new() }
    }

    fn write(&mut self, values: &[CellValue]) -> Result<(), XlsxError> {
        for (column, value) in (0..).zip(values) {
            match value {
                CellValue::Text(text) => self.write_text(column, text)?,
                CellValue::Number(text, number) => self.write_number(column, text, number)?,
                CellValue::Time(at) => self.write_time(column, *at)?,
            }
        }
        self.row += 1;
        Ok(())
    }

    fn write_text(&mut self, column: u16, text: &str) -> Result<(), XlsxError> {
        if text.is_empty() {
            return Ok(());
        }
        let mut value = plain_cell(text);
        if value.encode_utf16().count() > CELL {
            let end = value.char_indices().nth(CELL / 2).map_or(value.len(), |(at, _)| at);
            value.truncate(end);
            value.push('…');
        }
        if self.row == 0 {
            self.sheet.write_string_with_format(self.row, column, value, &self.header)?;
        } else {
            self.sheet.write_string(self.row, column, value)?;
        }
        Ok(())
    }

    fn write_number(&mut self, column: u16, text: &str, number: &SheetNumber) -> Result<(), XlsxError> {
        if !self.numbers.contains_key(&number.format) {
            if self.numbers.len() >= NUMBER_FORMATS {
                return self.write_text(column, text);
            }
            let format = CellFormat::new().set_num_format(&number.format);
            self.numbers.insert(number.format.clone(), format);
        }
        if let Some(format) = self.numbers.get(&number.format) {
            self.sheet.write_number_with_format(self.row, column, number.number, format)?;
        }
        Ok(())
    }

    fn write_time(&mut self, column: u16, at: Timestamp) -> Result<(), XlsxError> {
        let there = at.to_zoned(self.zone.clone());
        let part = |part: i8| u8::try_from(part).unwrap_or_default();
        let year = u16::try_from(there.year()).unwrap_or_default();
        let time = ExcelDateTime::from_ymd(year, part(there.month()), part(there.day()))?;
        let time =
            time.and_hms(part(there.hour()).into(), part(there.minute()), f64::from(there.second()))?;
        self.sheet.write_datetime_with_format(self.row, column, &time, &self.time)?;
        Ok(())
    }
}

/// The rows of an audience, and the ledger's data received so far.
struct Rows {
    audience: Audience,
    parts: Receiver<ResultChunk>,
    only: Only,
    lines: HashMap<u64, ReportLine>,
    replies: HashMap<u64, Vec<Response>>,
    /// The last row with data.
    known: u64,
}

impl Rows {
    fn each(
        mut self,
        columns: &replies::Columns,
        state_since: &str,
        mut write: impl FnMut(&[CellValue]) -> Result<(), ResultsError>,
    ) -> Result<(), ResultsError> {
        let width = self.audience.columns().names().len();
        let names = header(self.audience.columns().names(), columns, state_since);
        write(&names.into_iter().map(CellValue::Text).collect::<Vec<_>>())?;
        let mut row = 0;
        while self.audience.next_line()?.is_some() {
            row += 1;
            while self.known < row {
                self.read_on()?;
            }
            let (line, replies) = (self.lines.remove(&row), self.replies.remove(&row));
            // A row without a line is not planned yet.
            let state = line.as_ref().map_or(MessageState::Pending, |line| line.state);
            if !self.only.lets_through(line.as_ref(), state) {
                continue;
            }
            let mut values: Vec<CellValue> = (0..width).map(|column| self.value(column)).collect();
            values.extend(outcome(line, state));
            values
                .extend(reply_cells(&replies.unwrap_or_default(), columns).into_iter().map(CellValue::Text));
            write(&values)?;
        }
        Ok(())
    }

    /// A column's value in the row that was read last.
    fn value(&self, column: usize) -> CellValue {
        let value = self.audience.value(column);
        if self.audience.is_phone(column) {
            let shown = shown_and_number(&value).0;
            let text = if self.audience.has_json_values() { of_json(shown).0 } else { shown.to_owned() };
            return CellValue::Text(text);
        }
        let (text, is_text) =
            if self.audience.has_json_values() { of_json(&value) } else { (value.into_owned(), false) };
        let (shown, known) = shown_and_number(&text);
        match SheetNumber::parse(shown, known).filter(|_| !is_text || known.is_some()) {
            Some(number) => CellValue::Number(shown.to_owned(), number),
            None => CellValue::Text(shown.to_owned()),
        }
    }

    /// Receives the next part. The parts are incomplete if they end before the last one.
    fn read_on(&mut self) -> Result<(), ResultsError> {
        let part = self.parts.blocking_recv().ok_or(ResultsError::Incomplete)?;
        if part.is_last {
            self.known = u64::MAX;
        }
        for line in part.lines {
            self.known = self.known.max(line.row);
            self.lines.insert(line.row, line);
        }
        for reply in part.replies {
            self.replies.entry(reply.row).or_default().push(reply);
        }
        Ok(())
    }
}

/// Returns a value of a job's list of recipients as it is shown, and whether it is a JSON string.
fn of_json(value: &str) -> (String, bool) {
    match serde_json::from_str(value) {
        Ok(Value::String(text)) => (text, true),
        Ok(Value::Null) => (String::new(), false),
        _ => (value.to_owned(), false),
    }
}

/// Returns unique names for all columns, so that the results can be used as an audience.
fn header(audience: &[String], columns: &replies::Columns, state_since: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let ours = OURS.into_iter().map(|name| if name == STATE_SINCE { state_since } else { name });
    let ours = ours.chain(columns.names());
    let mut unique = |name: &str| {
        let mut unique = name.to_owned();
        let mut nth = 2;
        while !seen.insert(unique.to_lowercase()) {
            unique = format!("{name} ({nth})");
            nth += 1;
        }
        unique
    };
    audience.iter().map(String::as_str).chain(ours).map(&mut unique).collect()
}

/// Returns the outcome of a row's message.
fn outcome(line: Option<ReportLine>, state: MessageState) -> [CellValue; 5] {
    let line = line.map(report::explained);
    let (delivery, code, detail, at) =
        line.map_or_else(Default::default, |line| (line.delivery, line.code, line.detail, line.updated_at));
    let text = |text: Option<String>| CellValue::Text(text.unwrap_or_default());
    [
        CellValue::Text(state.to_string()),
        text(delivery),
        text(code),
        text(detail),
        at.map_or_else(|| text(None), CellValue::Time),
    ]
}

/// Returns the texts of all replies, and the latest value of each field.
fn reply_cells(replies: &[Response], columns: &replies::Columns) -> Vec<String> {
    let (mut texts, mut form) = (Vec::new(), serde_json::Map::<String, Value>::new());
    for reply in replies {
        let (text, fields) = replies::parts(reply);
        texts.extend(text);
        form.extend(fields);
    }
    form.remove(FLOW_TOKEN);
    let mut all = vec![texts.join("\n")];
    all.extend(columns.values(form));
    all
}
