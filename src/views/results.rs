//! The results of a campaign: each row of its audience with all its columns, what became of its message, and what the person
//! answered. CSV, or a workbook of one sheet.
//!
//! The audience is read again; it has to be the one that was sent to. No more is in memory than a page of the ledger.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};

use rust_xlsxwriter::{Format as CellFormat, Workbook, Worksheet, XlsxError};
use serde_json::Value;
use tokio::sync::mpsc::Receiver;

use super::lines::{cell, plain_cell};
use super::{report, responses};
use crate::audience::{Audience, AudienceError};
use crate::campaign::MessageState;
use crate::campaign::delivery::{Delivery, FLOW_TOKEN};
use crate::campaign::time::rfc3339;
use crate::ledger::{ReportLine, Response};

/// The columns behind the audience's own, before those of the answers.
const OURS: [&str; 6] = ["Message state", "Delivery", "Code", "Reason", "Last change", "Reply"];
/// The most rows of a sheet, with its header, and the most characters of a cell, as Excel has them.
pub const SHEET_ROWS: u64 = 1_048_576;
const CELL: usize = 32_767;

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For any program.
    Csv,
    /// A workbook, in which every value is a text: no number is changed, and nothing is run.
    Xlsx,
}

/// Which rows are written; all where nothing is said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Only {
    /// Those whose message is in this state.
    pub state: Option<MessageState>,
    /// Those whose message is in this delivery state.
    pub delivery: Option<Delivery>,
}

impl Only {
    fn lets_through(self, line: Option<&ReportLine>, state: MessageState) -> bool {
        let delivery = line.and_then(|line| line.delivery.as_deref());
        self.state.is_none_or(|wanted| wanted == state)
            && self.delivery.is_none_or(|wanted| delivery == Some(wanted.as_str()))
    }
}

/// What the ledger has of some rows, in the order of the audience.
#[derive(Default)]
pub struct Part {
    /// Their lines in the report.
    pub lines: Vec<ReportLine>,
    /// Their answers.
    pub responses: Vec<Response>,
    /// Whether no more follow.
    pub is_last: bool,
}

/// Why results can't be written.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The ledger did not give all of it, or the reader has gone.
    #[error("the report broke off")]
    Incomplete,
    /// The audience can't be read to its end.
    #[error(transparent)]
    Audience(#[from] AudienceError),
    /// The file can't be written.
    #[error("the results can't be written: {0}")]
    Write(#[from] io::Error),
    /// The workbook can't be written.
    #[error("the results can't be written: {0}")]
    Sheet(#[from] XlsxError),
}

/// Writes rows of an audience with what comes of them, into a file. Blocks.
///
/// # Errors
///
/// When the audience can't be read, or the file can't be written.
pub fn write(
    audience: Audience,
    parts: Receiver<Part>,
    columns: &responses::Columns,
    only: Only,
    format: Format,
    file: File,
) -> Result<File, ResultsError> {
    let rows = Rows { audience, parts, only, lines: HashMap::new(), responses: HashMap::new(), known: 0 };
    match format {
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(BufWriter::new(file));
            let error = |error: csv::Error| ResultsError::Write(error.into());
            rows.each(columns, |row| {
                writer.write_record(row.iter().map(|value| cell(value))).map_err(error)
            })?;
            let written = writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
            Ok(rewound(written.into_inner().map_err(io::IntoInnerError::into_error)?)?)
        }
        Format::Xlsx => {
            let mut workbook = Workbook::new();
            let sheet = workbook.add_worksheet_with_constant_memory()?;
            sheet.set_name("Results")?.set_freeze_panes(1, 0)?;
            let (bold, mut nth) = (CellFormat::new().set_bold(), 0);
            rows.each(columns, |row| {
                write_row(sheet, nth, row, (nth == 0).then_some(&bold))?;
                nth += 1;
                Ok(())
            })?;
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

fn write_row(
    sheet: &mut Worksheet,
    row: u32,
    values: &[String],
    format: Option<&CellFormat>,
) -> Result<(), XlsxError> {
    for (column, value) in (0..).zip(values).filter(|(_, value)| !value.is_empty()) {
        let mut value = plain_cell(value);
        if value.encode_utf16().count() > CELL {
            let end = value.char_indices().nth(CELL / 2).map_or(value.len(), |(at, _)| at);
            value.truncate(end);
            value.push('…');
        }
        match format {
            Some(format) => sheet.write_string_with_format(row, column, value, format)?,
            None => sheet.write_string(row, column, value)?,
        };
    }
    Ok(())
}

/// The rows of an audience, and what has come of the ledger so far.
struct Rows {
    audience: Audience,
    parts: Receiver<Part>,
    only: Only,
    lines: HashMap<u64, ReportLine>,
    responses: HashMap<u64, Vec<Response>>,
    /// The last row that the ledger has told of.
    known: u64,
}

impl Rows {
    fn each(
        mut self,
        columns: &responses::Columns,
        mut write: impl FnMut(&[String]) -> Result<(), ResultsError>,
    ) -> Result<(), ResultsError> {
        let width = self.audience.columns().names().len();
        write(&header(self.audience.columns().names(), columns))?;
        let mut row = 0;
        while self.audience.next_line()?.is_some() {
            row += 1;
            while self.known < row {
                self.read_on()?;
            }
            let (line, responses) = (self.lines.remove(&row), self.responses.remove(&row));
            // What is not planned yet is pending.
            let state = line.as_ref().map_or(MessageState::Pending, |line| line.state);
            if !self.only.lets_through(line.as_ref(), state) {
                continue;
            }
            let mut values: Vec<String> = (0..width).map(|column| self.value(column)).collect();
            values.extend(outcome(line, state));
            values.extend(answers(&responses.unwrap_or_default(), columns));
            write(&values)?;
        }
        Ok(())
    }

    fn value(&self, column: usize) -> String {
        let value = self.audience.shown(column);
        if !self.audience.has_json_values() {
            return value;
        }
        match serde_json::from_str(&value) {
            Ok(Value::String(text)) => text,
            Ok(Value::Null) => String::new(),
            _ => value,
        }
    }

    /// Takes the next part of the ledger in. One that ends before its last part was not whole.
    fn read_on(&mut self) -> Result<(), ResultsError> {
        let part = self.parts.blocking_recv().ok_or(ResultsError::Incomplete)?;
        if part.is_last {
            self.known = u64::MAX;
        }
        for line in part.lines {
            self.known = self.known.max(line.row);
            self.lines.insert(line.row, line);
        }
        for response in part.responses {
            self.responses.entry(response.row).or_default().push(response);
        }
        Ok(())
    }
}

/// The names of all columns, each of them once, so that the results can be an audience again.
fn header(audience: &[String], columns: &responses::Columns) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let ours = OURS.into_iter().chain(columns.names());
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

/// What became of a row's message.
fn outcome(line: Option<ReportLine>, state: MessageState) -> [String; 5] {
    let Some(line) = line.map(report::explained) else {
        return [state.to_string(), String::new(), String::new(), String::new(), String::new()];
    };
    [
        state.to_string(),
        line.delivery.unwrap_or_default(),
        line.code.unwrap_or_default(),
        line.detail.unwrap_or_default(),
        line.updated_at.map(rfc3339).unwrap_or_default(),
    ]
}

/// What a person answered: the words of all replies, and of each field the latest value.
fn answers(responses: &[Response], columns: &responses::Columns) -> Vec<String> {
    let (mut replies, mut form) = (Vec::new(), serde_json::Map::<String, Value>::new());
    for response in responses {
        let (reply, fields) = responses::parts(response);
        replies.extend(reply);
        form.extend(fields);
    }
    form.remove(FLOW_TOKEN);
    let mut all = vec![replies.join("\n")];
    all.extend(columns.values(form));
    all
}
