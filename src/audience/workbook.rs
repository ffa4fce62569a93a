//! Converts one sheet of a workbook (`.xlsx`) to CSV in an unnamed temporary file. A cell is written as the
//! spreadsheet shows it; if that is not the number itself, e.g. `15%`, a mark and the number follow. A formula counts
//! with its stored value and is never evaluated.

mod number_format;
mod package;
mod sheet;
mod xml;

use std::io::{self, BufWriter, Read, Seek, Write};
use std::{fs::File, path::Path};

use super::path::{name, open_real};
use super::{AudienceError, FileKind, HiddenRows, ROW_LIMIT, Settings, io_error};
use crate::campaign::problem::listed;
use number_format::DateSystem;
use package::Package;
use sheet::{Context, Formats, SharedStrings};

/// Maximum size of a workbook's unpacked parts, and of a sheet as CSV, in bytes.
const MAX_UNPACKED_BYTES: u64 = 512 << 20;
/// Maximum number of columns of a sheet.
const COLUMNS: usize = 16_384;

/// Why a workbook cannot be read.
enum WorkbookError {
    /// Something in the workbook is invalid.
    Broken(String),
    /// An I/O error.
    Io(io::Error),
}

impl From<String> for WorkbookError {
    fn from(detail: String) -> Self {
        Self::Broken(detail)
    }
}

impl From<io::Error> for WorkbookError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<csv::Error> for WorkbookError {
    fn from(error: csv::Error) -> Self {
        Self::Io(io_error(error))
    }
}

/// A sheet as CSV.
pub(super) struct Sheet {
    pub(super) csv: File,
    /// Number of hidden rows, e.g. by a filter.
    pub(super) hidden_rows: u64,
}

/// Converts the selected sheet to CSV.
pub(super) fn unpack(path: &Path, settings: &Settings) -> Result<Sheet, AudienceError> {
    let opened = open_real(path).map_err(WorkbookError::Io).and_then(|mut file| {
        let mut start = [0; 512];
        let length = file.read(&mut start)?;
        file.rewind()?;
        let kind = start.get(..length).and_then(FileKind::detect).filter(|kind| *kind != FileKind::Archive);
        Ok((file, kind))
    });
    if let Ok((_, Some(kind))) = opened {
        return Err(AudienceError::OtherFile { name: name(path), kind });
    }
    let written = opened.and_then(|(file, _)| as_csv(file, MAX_UNPACKED_BYTES, settings));
    written.map_err(|error| match error {
        WorkbookError::Io(source) => AudienceError::Io { name: name(path), source },
        WorkbookError::Broken(detail) => AudienceError::Workbook { name: name(path), detail },
    })
}

fn as_csv(file: File, largest: u64, settings: &Settings) -> Result<Sheet, WorkbookError> {
    let mut package = Package::open(file, largest)?;
    let workbook = package.workbook()?;
    let part = match &settings.sheet {
        Some(name) => workbook.sheet(name).ok_or_else(|| {
            format!("it has no worksheet {name:?}; it has {}", listed(workbook.worksheets()))
        })?,
        None => workbook
            .first_sheet()
            .ok_or_else(|| "all its worksheets are hidden; unhide one, or set \"sheet\"".to_owned())?,
    };
    let dates = if workbook.from_1904 { DateSystem::From1904 } else { DateSystem::From1900 };
    let mut context = Context { texts: SharedStrings::default(), formats: Formats::default(), dates };
    if let Some(part) = workbook.part("sharedStrings")
        && let Some(mut xml) = package.part(part)?
    {
        context.texts = SharedStrings::read(&mut xml)?;
    }
    if let Some(part) = workbook.part("styles")
        && let Some(mut xml) = package.part(part)?
    {
        context.formats = Formats::read(&mut xml)?;
    }
    let mut rows = Rows::new(tempfile::tempfile()?, largest, settings.hidden_rows);
    let mut xml = package.part(part)?.ok_or_else(|| format!("it has no {part}"))?;
    sheet::cells(&mut xml, &context, |place, text| rows.cell(place, text))?;
    rows.finish()
}

/// Writes rows of CSV cell by cell.
struct Rows {
    writer: csv::Writer<BufWriter<File>>,
    row: Option<u32>,
    hidden: HiddenRows,
    is_hidden: bool,
    hidden_count: u64,
    record: Vec<String>,
    bytes: usize,
    /// Number of columns of the first row.
    width: usize,
    /// The first column of the table; columns left of it are ignored.
    first: Option<u32>,
    largest: u64,
    left: u64,
}

impl Rows {
    fn new(out: File, largest: u64, hidden: HiddenRows) -> Self {
        let writer = csv::WriterBuilder::new().flexible(true).from_writer(BufWriter::new(out));
        Self {
            writer,
            row: None,
            hidden,
            is_hidden: false,
            hidden_count: 0,
            record: Vec::new(),
            bytes: 0,
            width: 0,
            first: None,
            largest,
            left: largest,
        }
    }

    fn cell(&mut self, place: sheet::Place, text: &str) -> Result<(), WorkbookError> {
        let sheet::Place { row, column, is_hidden } = place;
        if self.row != Some(row) {
            self.end_row()?;
            self.row = Some(row);
            self.is_hidden = is_hidden;
        }
        if text.is_empty() {
            return Ok(());
        }
        let first = *self.first.get_or_insert(column);
        let Some(place) = column.checked_sub(first).map(|place| place as usize) else { return Ok(()) };
        if place >= COLUMNS {
            return Err(format!("row {} has more than {COLUMNS} columns", row + 1).into());
        }
        self.bytes += text.len();
        if self.bytes as u64 > ROW_LIMIT {
            return Err(format!("row {} is longer than {} KiB", row + 1, ROW_LIMIT >> 10).into());
        }
        if place >= self.record.len() {
            self.record.resize(place + 1, String::new());
        }
        self.record[place] = text.into();
        Ok(())
    }

    /// Writes the row unless it is empty. A row shorter than the header is padded.
    fn end_row(&mut self) -> Result<(), WorkbookError> {
        self.bytes = 0;
        if self.record.is_empty() {
            return Ok(());
        }
        if self.width == 0 {
            self.width = self.record.len();
        } else if self.is_hidden {
            self.hidden_count += 1;
            if self.hidden == HiddenRows::Skip {
                self.record.clear();
                return Ok(());
            }
        }
        self.record.resize(self.width.max(self.record.len()), String::new());
        let bytes: usize = self.record.iter().map(|value| value.len() + 1).sum();
        let left = self.left.checked_sub(bytes as u64);
        self.left = left.ok_or_else(|| format!("it is larger than {} MiB as CSV", self.largest >> 20))?;
        self.writer.write_record(&self.record)?;
        self.record.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Sheet, WorkbookError> {
        self.end_row()?;
        let buffered = self.writer.into_inner().map_err(|error| WorkbookError::Io(error.into_error()))?;
        let mut out = buffered.into_inner().map_err(|error| WorkbookError::Io(error.into_error()))?;
        out.flush()?;
        out.rewind()?;
        Ok(Sheet { csv: out, hidden_rows: self.hidden_count })
    }
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
        unpack(&path, &Settings::default())?.csv.read_to_string(&mut text).unwrap();
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
        // A phone number as a numeric cell, a text with a comma and a quote, a date, a formula.
        sheet.write(3, 1, 919_876_543_210.0).unwrap();
        sheet.write(3, 2, "Rao, \"Asha\"\nJos\u{e9}").unwrap();
        sheet.write_with_format(3, 3, ExcelDateTime::parse_from_str("2026-11-01").unwrap(), &day).unwrap();
        sheet.write(3, 4, Formula::new("=1+1").set_result("2")).unwrap();
        sheet.write(3, 5, true).unwrap();
        // An empty row, and a short one.
        sheet.write(5, 1, "+919876543211").unwrap();
        workbook.add_worksheet().write(0, 0, "another sheet").unwrap();
        let expected = "phone,name,due,sum,late\n\
                        919876543210,\"Rao, \"\"Asha\"\"\nJos\u{e9}\",2026-11-01\u{1f}46327,2,TRUE\u{1f}1\n\
                        +919876543211,,,,\n";
        assert_eq!(csv_of(&mut workbook).unwrap(), expected);
    }

    #[test]
    fn an_invalid_workbook_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("people.xlsx");
        for bytes in [&b"phone,name\n"[..], b"PK\x03\x04 and no more", b""] {
            std::fs::write(&path, bytes).unwrap();
            let error = unpack(&path, &Settings::default()).err().unwrap().to_string();
            assert!(error.starts_with("cannot read people.xlsx as a workbook: "), "{error}");
        }
    }

    /// Reads a workbook of one sheet made of raw parts. Each part is its name, its beginning, a repeated text with
    /// its count, and its end.
    fn hostile(parts: &[(&str, &str, (&str, usize), &str)]) -> Result<String, String> {
        const WORKBOOK: &str =
            r#"<workbook xmlns:r="r"><sheets><sheet name="a" r:id="r1"/></sheets></workbook>"#;
        const RELATIONS: &str = r#"<Relationships><Relationship Id="r1" Type="x/worksheet" Target="sheet.xml"/>
            <Relationship Id="r2" Type="x/sharedStrings" Target="texts.xml"/>
            <Relationship Id="r3" Type="x/styles" Target="styles.xml"/></Relationships>"#;
        const SHEET: &str =
            r#"<worksheet><sheetData><row><c t="s"><v>0</v></c></row></sheetData></worksheet>"#;
        let usual = [
            ("xl/workbook.xml", WORKBOOK),
            ("xl/_rels/workbook.xml.rels", RELATIONS),
            ("xl/sheet.xml", SHEET),
        ];
        let usual = usual.map(|(name, text)| (name, text, ("", 0), ""));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("people.xlsx");
        let mut archive = zip::ZipWriter::new(BufWriter::new(File::create(&path).unwrap()));
        let other = usual.iter().filter(|(name, ..)| parts.iter().all(|(own, ..)| own != name));
        for (name, start, (again, times), end) in other.chain(parts) {
            archive.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(start.as_bytes()).unwrap();
            let block = again.repeat(1_000);
            for _ in 0..times / 1_000 {
                archive.write_all(block.as_bytes()).unwrap();
            }
            archive.write_all(end.as_bytes()).unwrap();
        }
        archive.finish().unwrap();
        let mut text = String::new();
        let sheet = as_csv(File::open(&path).unwrap(), 8 << 20, &Settings::default());
        let mut sheet = sheet.map_err(|error| match error {
            WorkbookError::Broken(detail) => detail,
            WorkbookError::Io(error) => panic!("{error}"),
        })?;
        sheet.csv.read_to_string(&mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn sizes_that_a_workbook_declares_reserve_no_memory() {
        let texts = |count: &str| {
            format!(r#"<sst uniqueCount="{count}" count="{count}"><si><t>phone</t></si></sst>"#)
        };
        for count in ["99999999999", "18446744073709551615", "-1", "x"] {
            assert_eq!(hostile(&[("xl/texts.xml", &texts(count), ("", 0), "")]).unwrap(), "phone\n");
        }
        let sheet = r#"<worksheet><dimension ref="A1:XFD1048576"/><sheetData><row><c t="s"><v>0</v></c></row></sheetData></worksheet>"#;
        let parts = [("xl/sheet.xml", sheet, ("", 0), ""), ("xl/texts.xml", &texts("1"), ("", 0), "")];
        assert_eq!(hostile(&parts).unwrap(), "phone\n");
        let styles =
            r#"<styleSheet><cellXfs count="99999999999"><xf numFmtId="4294967296"/></cellXfs></styleSheet>"#;
        assert_eq!(hostile(&[("xl/styles.xml", styles, ("", 0), "")]).unwrap(), "");
    }

    #[test]
    fn an_endless_workbook_is_refused() {
        let sheet = |start, again, end| [("xl/sheet.xml", start, again, end)];
        let data = "<worksheet><sheetData>";
        let cases: [(&[_], &str); 9] = [
            (&sheet(data, ("<!-- -->", 2_000_000), ""), "it unpacks to more than 8 MiB"),
            (&sheet(data, ("x", 1_000_000), ""), "a tag or a text in it is longer than 256 KiB"),
            (&sheet("<worksheet a=\"", ("x", 1_000_000), "\">"), "longer than 256 KiB"),
            (&sheet(data, ("<a>", 1_000_000), ""), "more than 64 levels deep"),
            (&sheet("<worksheet", (" a=\"\"", 1_000_000), ">"), "longer than 256 KiB"),
            (&sheet("<!DOCTYPE a [<!ENTITY b \"c\">]><worksheet>", ("", 0), "&b;"), "document type"),
            (&sheet("<worksheet><sheetData><row><c t=\"str\"><v>", ("&b;", 1_000), ""), "entity"),
            (
                &sheet("<worksheet><sheetData><row><c t=\"str\"><v>", ("&#x61;", 1_000_000), ""),
                "longer than 128 KiB",
            ),
            (&[("xl/styles.xml", "<styleSheet><cellXfs>", ("<xf/>", 100_000), "")], "formats"),
        ];
        for (parts, expected) in cases {
            let error = hostile(parts).unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        let cell = |at: &str| {
            format!(
                r#"<worksheet><sheetData><row r="1"><c r="{at}"><v>1</v></c></row></sheetData></worksheet>"#
            )
        };
        for at in ["ZZZZZ2", "A0", "A99999999999", "", "1"] {
            let cell = cell(at);
            let error = hostile(&[("xl/sheet.xml", &cell, ("", 0), "")]).unwrap_err();
            assert!(error.contains("is outside the limits"), "{at}: {error}");
        }
        // A few references to a shared text become many bytes of CSV.
        let text = format!("<sst><si><t>{}</t></si></sst>", "x".repeat(100_000));
        let long = ("xl/texts.xml", text.as_str(), ("", 0), "");
        let wide = ("xl/sheet.xml", "<worksheet><sheetData><row>", ("<c t=\"s\"><v>0</v></c>", 10_000), "");
        assert!(hostile(&[long, wide]).unwrap_err().contains("row 1 is longer than 1024 KiB"));
        let high = ("xl/sheet.xml", data, ("<row><c t=\"s\"><v>0</v></c></row>", 10_000), "");
        assert!(hostile(&[long, high]).unwrap_err().contains("larger than 8 MiB as CSV"));
        // The ZIP reader's memory grows with the number of parts that the archive claims.
        let mut end = b"PK\x06\x06".to_vec();
        end.extend([0; 28]);
        end.extend(10_001_u64.to_le_bytes());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&end).unwrap();
        file.rewind().unwrap();
        assert_eq!(Package::open(file, 1 << 20).err().unwrap(), "it has more than 10000 parts");
    }

    #[test]
    fn the_first_sheet_that_people_see_is_read() {
        let mut workbook = Workbook::new();
        workbook.add_worksheet().set_hidden(true).write(0, 0, "hidden").unwrap();
        workbook.add_worksheet().set_active(true).write(0, 0, "seen").unwrap();
        assert_eq!(csv_of(&mut workbook).unwrap(), "seen\n");
    }

    /// A file that another program has made, as CSV, with the settings.
    fn made(name: &str, settings: &Settings) -> (String, u64) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/workbooks").join(name);
        let mut sheet = unpack(&path, settings).unwrap();
        let mut text = String::new();
        sheet.csv.read_to_string(&mut text).unwrap();
        (text, sheet.hidden_rows)
    }

    /// Returns the records of a CSV text, without the numbers behind the shown values.
    fn shown(text: &str) -> Vec<Vec<String>> {
        let mut reader =
            csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(text.as_bytes());
        let cell = |cell: &str| crate::campaign::shown_and_number(cell).0.to_owned();
        reader.records().map(|record| record.unwrap().iter().map(cell).collect()).collect()
    }

    #[test]
    fn a_workbook_of_libreoffice_reads_as_libreoffice_prints_it() {
        let judged = include_str!("../../tests/fixtures/workbooks/libreoffice.csv");
        let (text, hidden_rows) = made("libreoffice.xlsx", &Settings::default());
        assert_eq!((shown(&text), hidden_rows), (shown(judged), 2));
        // Computations use the number.
        for (name, number) in
            [("percent", 0.15), ("elapsed time", 1.5), ("thousands", 1499.5), ("formula", 0.3)]
        {
            let row = text.lines().find(|line| line.starts_with(&format!("{name},"))).unwrap();
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(row.as_bytes());
            let record = reader.records().next().unwrap().unwrap();
            let (shown, computed) = crate::campaign::shown_and_number(&record[1]);
            let computed = computed.or_else(|| shown.parse().ok()).unwrap();
            assert!((computed - number).abs() < 1e-9, "{name}: {computed}");
        }
        let skip = Settings { hidden_rows: HiddenRows::Skip, ..Settings::default() };
        let kept: Vec<_> = shown(judged).into_iter().filter(|row| row[2] != "drop").collect();
        assert_eq!(shown(&made("libreoffice.xlsx", &skip).0), kept);
    }

    #[test]
    fn no_cell_changes_how_a_sheet_is_split() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("people.xlsx");
        let mut workbook = Workbook::new();
        let sheet = workbook.add_worksheet();
        for (row, cells) in
            [["sep=;", "a;b;c;d"], ["phone", "name; or nick; or both"], ["+919876543210", "x;y"]]
                .iter()
                .enumerate()
        {
            for (column, cell) in cells.iter().enumerate() {
                sheet.write(row as u32, column as u16, *cell).unwrap();
            }
        }
        workbook.save(&path).unwrap();
        for delimiter in [None, Some(b';')] {
            let settings = Settings { delimiter, ..Settings::default() };
            let rows = super::super::csv_rows::CsvRows::open(&path, &settings).unwrap();
            assert_eq!(rows.columns.names(), ["sep=;", "a;b;c;d"]);
            assert_eq!(rows.value(1), "name; or nick; or both");
        }
    }

    #[test]
    fn a_sheet_is_found_by_its_name() {
        let named = |name: &str| Settings { sheet: Some(name.into()), ..Settings::default() };
        assert!(made("libreoffice.xlsx", &named("overview")).0.starts_with("what,value"));
        assert!(!made("libreoffice.xlsx", &named("Notes")).0.starts_with("what,value"));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/workbooks/libreoffice.xlsx");
        let error = unpack(&path, &named("Sheet9")).err().unwrap().to_string();
        assert!(error.contains("no worksheet \"Sheet9\"; it has ") && error.contains("Overview"), "{error}");
    }
}
