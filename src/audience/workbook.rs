//! Workbooks (`.xlsx`): the first sheet, as CSV, in a file without a name. What a cell shows as a number is
//! written in full, never in powers of ten; of a formula its last value counts, and none is ever run.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use calamine::{DataRef, ExcelDateTime, Reader, Xlsx};

use super::AudienceError;
use super::open::name;

/// How many bytes a part of a workbook may unpack to, and all of them together.
const LARGEST: u64 = 512 << 20;
/// How many columns a sheet may have.
const COLUMNS: usize = 16_384;
/// How many parts it may have.
const PARTS: usize = 10_000;

/// What the system said, which a writer of CSV wraps.
fn plain(fault: csv::Error) -> io::Error {
    match fault.into_kind() {
        csv::ErrorKind::Io(fault) => fault,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// The first sheet as CSV.
pub(super) fn unpack(path: &Path) -> Result<File, AudienceError> {
    let named = || name(path);
    let failed = |source: io::Error| AudienceError::Io { name: named(), source };
    let broken = |detail: String| AudienceError::Workbook { name: named(), detail };
    bound(File::open(path).map_err(failed)?, LARGEST).map_err(broken)?;
    let file = BufReader::new(File::open(path).map_err(failed)?);
    let mut workbook = Xlsx::new(file).map_err(|fault| broken(fault.to_string()))?;
    let sheet = workbook.sheet_names().first().cloned();
    let sheet = sheet.ok_or_else(|| broken("it has no sheet".into()))?;
    let mut cells = workbook.worksheet_cells_reader(&sheet).map_err(|fault| broken(fault.to_string()))?;
    let out = tempfile::tempfile().map_err(failed)?;
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(BufWriter::new(out));
    // Rows that are empty, and columns left of the table, are not there.
    let (mut row, mut record, mut width, mut first) = (None, Vec::<String>::new(), 0, None);
    let mut left = LARGEST;
    let mut write = |record: &mut Vec<String>, width: &mut usize| {
        if record.iter().all(String::is_empty) {
            record.clear();
            return Ok(());
        }
        // A row that is shorter than the header is filled up.
        if *width == 0 {
            *width = record.len();
        }
        while record.len() > *width && record.last().is_some_and(String::is_empty) {
            record.pop();
        }
        record.resize((*width).max(record.len()), String::new());
        let bytes: usize = record.iter().map(|value| value.len() + 1).sum();
        left = left
            .checked_sub(bytes as u64)
            .ok_or_else(|| io::Error::other("it is larger than 512 MiB as CSV"))?;
        let written = writer.write_record(&*record).map_err(plain);
        record.clear();
        written
    };
    while let Some(cell) = cells.next_cell().map_err(|fault| broken(fault.to_string()))? {
        let (at, column) = cell.get_position();
        if row != Some(at) {
            write(&mut record, &mut width).map_err(failed)?;
            row = Some(at);
        }
        let text = text(cell.get_value());
        if first.is_none() && !text.is_empty() {
            first = Some(column);
        }
        let Some(place) = first.and_then(|first| column.checked_sub(first)) else { continue };
        let place = place as usize;
        if place >= COLUMNS {
            return Err(broken(format!("row {} has more than {COLUMNS} columns", at + 1)));
        }
        if place >= record.len() {
            record.resize(place + 1, String::new());
        }
        record[place] = text;
    }
    write(&mut record, &mut width).map_err(failed)?;
    let buffered = writer.into_inner().map_err(|fault| failed(fault.into_error()))?;
    let mut out = buffered.into_inner().map_err(|fault| failed(fault.into_error()))?;
    out.flush().and_then(|()| out.rewind()).map_err(failed)?;
    Ok(out)
}

/// Whether a workbook unpacks to so many bytes at the most: its own sizes are not believed.
fn bound(file: File, largest: u64) -> Result<(), String> {
    let mut parts = zip::ZipArchive::new(BufReader::new(file)).map_err(|fault| fault.to_string())?;
    if parts.len() > PARTS {
        return Err(format!("it has more than {PARTS} parts"));
    }
    let mut left = largest;
    for nth in 0..parts.len() {
        let part = parts.by_index(nth).map_err(|fault| fault.to_string())?;
        let count = io::copy(&mut part.take(left + 1), &mut io::sink()).map_err(|fault| fault.to_string())?;
        left = left
            .checked_sub(count)
            .ok_or_else(|| format!("it unpacks to more than {} MiB", largest >> 20))?;
    }
    Ok(())
}

/// What a cell says, as text.
fn text(cell: &DataRef<'_>) -> String {
    match cell {
        DataRef::Int(number) => number.to_string(),
        // A number of a telephone is one to a spreadsheet.
        DataRef::Float(number) => number.to_string(),
        DataRef::String(text) | DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => text.clone(),
        DataRef::SharedString(text) => (*text).to_owned(),
        DataRef::Bool(is_so) => is_so.to_string(),
        DataRef::DateTime(at) => date(at),
        DataRef::Error(_) | DataRef::Empty => String::new(),
    }
}

/// A date as `2026-11-01`, with a time as `2026-11-01 09:30:00`.
fn date(at: &ExcelDateTime) -> String {
    if !at.is_datetime() {
        return at.as_f64().to_string();
    }
    let (year, month, day, hour, minute, second, _) = at.to_ymd_hms_milli();
    let day = format!("{year:04}-{month:02}-{day:02}");
    if (hour, minute, second) == (0, 0, 0) { day } else { format!("{day} {hour:02}:{minute:02}:{second:02}") }
}

#[cfg(test)]
mod tests {
    use rust_xlsxwriter::{ExcelDateTime, Format, Formula, Workbook};

    use super::*;

    fn csv_of(workbook: &mut Workbook) -> Result<String, AudienceError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("people.xlsx");
        workbook.save(&path).unwrap();
        let mut text = String::new();
        unpack(&path)?.read_to_string(&mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn the_first_sheet_is_read_as_people_see_it() {
        let mut workbook = Workbook::new();
        let sheet = workbook.add_worksheet();
        let day = Format::new().set_num_format("yyyy-mm-dd");
        for (column, name) in ["phone", "name", "due", "sum", "late"].into_iter().enumerate() {
            sheet.write(2, column as u16 + 1, name).unwrap();
        }
        // A number that a spreadsheet takes for one, a text with a comma and a quote, a date, a formula.
        sheet.write(3, 1, 919_876_543_210.0).unwrap();
        sheet.write(3, 2, "Rao, \"Asha\"\nJos\u{e9}").unwrap();
        sheet.write_with_format(3, 3, ExcelDateTime::parse_from_str("2026-11-01").unwrap(), &day).unwrap();
        sheet.write(3, 4, Formula::new("=1+1").set_result("2")).unwrap();
        sheet.write(3, 5, true).unwrap();
        // A row that is empty, and one that is short.
        sheet.write(5, 1, "+919876543211").unwrap();
        workbook.add_worksheet().write(0, 0, "another sheet").unwrap();
        let expected = "phone,name,due,sum,late\n\
                        919876543210,\"Rao, \"\"Asha\"\"\nJos\u{e9}\",2026-11-01,2,true\n\
                        +919876543211,,,,\n";
        assert_eq!(csv_of(&mut workbook).unwrap(), expected);
    }

    #[test]
    fn what_is_no_workbook_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("people.xlsx");
        for bytes in [&b"phone,name\n"[..], b"PK\x03\x04 and no more", b""] {
            std::fs::write(&path, bytes).unwrap();
            let fault = unpack(&path).unwrap_err().to_string();
            assert!(fault.starts_with("people.xlsx can't be read as a workbook: "), "{fault}");
        }
    }

    #[test]
    fn a_workbook_that_unpacks_without_end_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("people.xlsx");
        let mut parts = zip::ZipWriter::new(File::create(&path).unwrap());
        parts.start_file("xl/sharedStrings.xml", zip::write::SimpleFileOptions::default()).unwrap();
        let zeros = vec![0; 1 << 20];
        for _ in 0..3 {
            parts.write_all(&zeros).unwrap();
        }
        parts.finish().unwrap();
        let bounded = |largest| bound(File::open(&path).unwrap(), largest);
        assert_eq!(bounded(2 << 20), Err("it unpacks to more than 2 MiB".into()));
        assert_eq!(bounded(3 << 20), Ok(()));
    }

    #[test]
    fn a_cell_far_out_takes_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let (path, far) = (folder.path().join("people.xlsx"), folder.path().join("far.xlsx"));
        let mut workbook = Workbook::new();
        workbook.add_worksheet().write(0, 0, 1.0).unwrap().write(1, 0, 2.0).unwrap();
        workbook.save(&path).unwrap();
        let mut parts = zip::ZipArchive::new(File::open(&path).unwrap()).unwrap();
        let mut out = zip::ZipWriter::new(File::create(&far).unwrap());
        for nth in 0..parts.len() {
            let mut part = parts.by_index(nth).unwrap();
            out.start_file(part.name().unwrap(), zip::write::SimpleFileOptions::default()).unwrap();
            let mut text = String::new();
            part.read_to_string(&mut text).unwrap();
            out.write_all(text.replace("r=\"A2\"", "r=\"ZZZZZ2\"").as_bytes()).unwrap();
        }
        out.finish().unwrap();
        let fault = unpack(&far).unwrap_err().to_string();
        assert!(fault.contains("can't be read as a workbook"), "{fault}");
    }
}
