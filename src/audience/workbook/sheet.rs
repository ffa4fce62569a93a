//! Reads the cells of a sheet in order, with the shared texts and formats that they refer to.

use std::{collections::HashMap, io::Read};

use super::WorkbookError;
use super::number_format::{DateSystem, NumberFormat};
use super::xml::{Element, Piece, Xml};
use crate::campaign::NUMBER_MARK;

/// Maximum size and number of all shared texts: together at most 80 MiB in memory.
const TEXTS: usize = 64 << 20;
const COUNT: usize = 4 << 20;
/// Maximum size of one text, in bytes: 32,767 characters.
const TEXT: usize = 128 * 1024;
/// Maximum number of cell formats.
const FORMATS: usize = 65_536;
/// Maximum number of number formats, and of bytes of all their codes.
const NUMBER_FORMATS: usize = 4_096;
const CODES: usize = 256 * 1024;

/// The shared texts, concatenated. The count that the workbook claims is ignored.
#[derive(Default)]
pub(super) struct SharedStrings {
    bytes: String,
    ends: Vec<u32>,
}

impl SharedStrings {
    pub(super) fn read<R: Read>(xml: &mut Xml<R>) -> Result<Self, String> {
        let mut texts = Self::default();
        let mut text = Text::default();
        while let Some(piece) = xml.next()? {
            match piece {
                Piece::Close(end) if end.is("si") => texts.push(&text.finish())?,
                piece => text.see(piece)?,
            }
        }
        Ok(texts)
    }

    fn push(&mut self, text: &str) -> Result<(), String> {
        if self.bytes.len() + text.len() > TEXTS || self.ends.len() >= COUNT {
            return Err(format!("it has more than {} MiB of texts, or more than {COUNT} texts", TEXTS >> 20));
        }
        // Grow in fixed steps: doubling would need three times the memory for a moment.
        if self.bytes.capacity() < self.bytes.len() + text.len() {
            self.bytes.reserve_exact(text.len().max(4 << 20));
        }
        if self.ends.len() == self.ends.capacity() {
            self.ends.reserve_exact(1 << 18);
        }
        self.bytes.push_str(text);
        self.ends.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
        Ok(())
    }

    fn get(&self, index: usize) -> Option<&str> {
        let start = index.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.bytes.get(start as usize..*self.ends.get(index)? as usize)
    }
}

/// Collects the `t` elements of a text, without its pronunciation.
#[derive(Default)]
struct Text {
    so_far: String,
    is_inside: bool,
    pronounced: bool,
}

impl Text {
    fn see(&mut self, piece: Piece<'_>) -> Result<(), String> {
        match piece {
            Piece::Open(element) if element.is("t") => self.is_inside = true,
            Piece::Open(element) if element.is("rPh") => self.pronounced = true,
            Piece::Close(end) if end.is("t") => self.is_inside = false,
            Piece::Close(end) if end.is("rPh") => self.pronounced = false,
            Piece::Text(text) if self.is_inside && !self.pronounced => self.add(&text)?,
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        if self.so_far.len() + text.len() > TEXT {
            return Err(format!("a text in it is longer than {} KiB", TEXT >> 10));
        }
        self.so_far.push_str(text);
        Ok(())
    }

    fn finish(&mut self) -> String {
        unescaped(&std::mem::take(&mut self.so_far))
    }
}

/// A workbook writes characters that XML does not allow as `_x000D_`.
fn unescaped(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("_x") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let code = from.get(2..7).and_then(|code| code.strip_suffix('_'));
        let code = code.filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let character = code.and_then(|code| u32::from_str_radix(code, 16).ok()).and_then(char::from_u32);
        let read = if let Some(character) = character {
            out.push(character);
            7
        } else {
            out.push_str("_x");
            2
        };
        rest = from.get(read..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Number formats, by the format of a cell.
#[derive(Default)]
pub(super) struct Formats {
    numbers: Vec<NumberFormat>,
    /// For each cell format, the index of its number format.
    cells: Vec<u16>,
}

impl Formats {
    pub(super) fn read<R: Read>(xml: &mut Xml<R>) -> Result<Self, String> {
        let mut formats = Self::default();
        // By the id that the workbook gives them.
        let mut known: HashMap<u32, u16> = HashMap::new();
        let (mut codes, mut is_inside) = (0, false);
        while let Some(piece) = xml.next()? {
            match piece {
                Piece::Open(element) if element.is("numFmt") => {
                    let code = element.attribute("formatCode").unwrap_or_default();
                    codes += code.len();
                    let place = formats.add(NumberFormat::parse(&code))?;
                    known.insert(number(&element, "numFmtId"), place);
                }
                Piece::Open(element) if element.is("cellXfs") => is_inside = true,
                Piece::Close(end) if end.is("cellXfs") => is_inside = false,
                Piece::Open(element) if is_inside && element.is("xf") => {
                    let id = number(&element, "numFmtId");
                    let place = if let Some(place) = known.get(&id) {
                        *place
                    } else {
                        let built_in = NumberFormat::builtin(id);
                        let place =
                            formats.add(built_in.unwrap_or_else(|| NumberFormat::parse("General")))?;
                        known.insert(id, place);
                        place
                    };
                    formats.cells.push(place);
                }
                _ => {}
            }
            if formats.cells.len() > FORMATS {
                return Err(format!("it has more than {FORMATS} formats"));
            }
            if codes > CODES {
                return Err(format!("its number formats are longer than {} KiB", CODES >> 10));
            }
        }
        Ok(formats)
    }

    fn add(&mut self, format: NumberFormat) -> Result<u16, String> {
        let place = u16::try_from(self.numbers.len()).ok().filter(|_| self.numbers.len() < NUMBER_FORMATS);
        self.numbers.push(format);
        place.ok_or_else(|| format!("it has more than {NUMBER_FORMATS} number formats"))
    }

    fn format_of(&self, cell: usize) -> Option<&NumberFormat> {
        self.numbers.get(usize::from(*self.cells.get(cell)?))
    }
}

/// Reads the index of a cell's format.
fn format(value: &[u8]) -> usize {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn number(element: &Element<'_>, name: &str) -> u32 {
    element.attribute(name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The shared texts, formats and date system for reading cells.
pub(super) struct Context {
    pub(super) texts: SharedStrings,
    pub(super) formats: Formats,
    pub(super) dates: DateSystem,
}

/// The type of a cell: its attribute `t`.
#[derive(Clone, Copy, Default)]
enum Kind {
    #[default]
    Number,
    Shared,
    Text,
    Date,
    Bool,
    Error,
}

impl Kind {
    fn read(value: &[u8]) -> Self {
        match value {
            b"s" => Self::Shared,
            b"inlineStr" | b"str" => Self::Text,
            b"d" => Self::Date,
            b"b" => Self::Bool,
            b"e" => Self::Error,
            _ => Self::Number,
        }
    }
}

/// The cell that is being read.
#[derive(Default)]
struct Open {
    kind: Kind,
    format: usize,
    value: Text,
}

/// The position of a cell: row and column, from 0.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) row: u32,
    pub(super) column: u32,
    /// Whether its row is hidden.
    pub(super) is_hidden: bool,
}

/// Calls a function with the position and the text of each cell.
pub(super) fn cells<R: Read>(
    xml: &mut Xml<R>,
    context: &Context,
    mut each: impl FnMut(Place, &str) -> Result<(), WorkbookError>,
) -> Result<(), WorkbookError> {
    let (mut row, mut column, mut in_data, mut is_hidden) = (0_u32, 0_u32, false, false);
    let mut cell: Option<Open> = None;
    let far = |at: u32| format!("a cell in row {} is outside the limits of a sheet", at.saturating_add(1));
    while let Some(piece) = xml.next()? {
        match piece {
            Piece::Open(element) if element.is("sheetData") => in_data = true,
            Piece::Close(end) if end.is("sheetData") => return Ok(()),
            _ if !in_data => {}
            Piece::Open(element) if element.is("row") => {
                if let Some(at) = element.attribute("r") {
                    row = at.parse::<u32>().ok().and_then(|at| at.checked_sub(1)).ok_or_else(|| far(row))?;
                }
                is_hidden = element.attribute("hidden").is_some_and(|is| is == "1" || is == "true");
                column = 0;
            }
            Piece::Close(end) if end.is("row") => row = row.checked_add(1).ok_or_else(|| far(row))?,
            Piece::Open(element) if element.is("c") => {
                let mut open = Open::default();
                let mut at = Some((row, column));
                element.each_attribute(|name, value| match name {
                    b"r" => at = std::str::from_utf8(value).ok().and_then(cell_position),
                    b"t" => open.kind = Kind::read(value),
                    b"s" => open.format = format(value),
                    _ => {}
                });
                (row, column) = at.ok_or_else(|| far(row))?;
                cell = Some(open);
            }
            Piece::Close(end) if end.is("c") => {
                if let Some(mut open) = cell.take() {
                    each(Place { row, column, is_hidden }, &open.says(context))?;
                }
                column = column.checked_add(1).ok_or_else(|| far(row))?;
            }
            piece => {
                let Some(open) = &mut cell else { continue };
                match piece {
                    Piece::Open(element) if element.is("v") => open.value.is_inside = true,
                    Piece::Close(end) if end.is("v") => open.value.is_inside = false,
                    piece => open.value.see(piece)?,
                }
            }
        }
    }
    Err(WorkbookError::Broken("its sheet is incomplete".into()))
}

/// Parses `B7` as row 6 and column 1, within the limits of a sheet.
fn cell_position(text: &str) -> Option<(u32, u32)> {
    const ROWS: u32 = 1 << 20;
    const COLUMNS: u32 = 1 << 14;
    let letters = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (letters, digits) = text.split_at_checked(letters)?;
    let column = letters.bytes().try_fold(0_u32, |column, letter| {
        column.checked_mul(26)?.checked_add(u32::from(letter.to_ascii_uppercase() - b'A') + 1)
    })?;
    let (row, column) = (digits.parse::<u32>().ok()?.checked_sub(1)?, column.checked_sub(1)?);
    (row < ROWS && column < COLUMNS).then_some((row, column))
}

impl Open {
    /// Returns the cell as text.
    fn says(&mut self, context: &Context) -> String {
        let raw = std::mem::take(&mut self.value.so_far);
        match self.kind {
            Kind::Shared => {
                let index = raw.trim().parse().ok();
                self.text(index.and_then(|index| context.texts.get(index)).unwrap_or_default(), context)
            }
            Kind::Text => self.text(&unescaped(&raw), context),
            Kind::Date => raw,
            Kind::Bool if raw.trim() == "1" => marked("TRUE".into(), "1"),
            Kind::Bool => marked("FALSE".into(), "0"),
            // An error, e.g. #N/A.
            Kind::Error => String::new(),
            Kind::Number => self.number(raw.trim(), context),
        }
    }

    /// Returns a text as it is shown, without any number mark that it may contain.
    fn text(&self, text: &str, context: &Context) -> String {
        let format = context.formats.format_of(self.format).filter(|format| !format.is_general());
        let shown = format.map_or_else(|| text.to_owned(), |format| format.text(text));
        if shown.contains(NUMBER_MARK) { shown.replace(NUMBER_MARK, "") } else { shown }
    }

    /// Returns a number as it is shown, followed by the number itself if that is another text.
    fn number(&self, raw: &str, context: &Context) -> String {
        let Some(number) = raw.parse::<f64>().ok().filter(|number| number.is_finite()) else {
            return raw.into();
        };
        let general = || NumberFormat::parse("General").number(number, context.dates);
        let shown = match context.formats.format_of(self.format) {
            Some(format) if !format.is_general() => format.number(number, context.dates),
            _ => general(),
        };
        marked(shown, &number.to_string())
    }
}

/// Joins the shown text and the number, if they differ.
fn marked(mut shown: String, number: &str) -> String {
    if shown != number {
        shown.push(NUMBER_MARK);
        shown.push_str(number);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_of_a_cell_is_within_a_sheet() {
        assert_eq!(cell_position("A1"), Some((0, 0)));
        assert_eq!(cell_position("XFD1048576"), Some((1_048_575, 16_383)));
        for far in ["", "A", "1", "A0", "XFE1", "A1048577", "ZZZZZZZZZZZZZ1", "A99999999999", "A-1", "A1B"] {
            assert_eq!(cell_position(far), None, "{far}");
        }
    }

    #[test]
    fn texts_are_bounded_in_bytes_and_number() {
        let (mut texts, longest) = (SharedStrings::default(), "x".repeat(TEXT));
        let fit = (0..10_000).take_while(|_| texts.push(&longest).is_ok()).count();
        assert_eq!(fit, TEXTS / TEXT);
        assert!(texts.bytes.capacity() <= TEXTS + (8 << 20), "{}", texts.bytes.capacity());
        assert_eq!((texts.get(fit - 1), texts.get(fit)), (Some(longest.as_str()), None));
        let mut texts = SharedStrings::default();
        assert_eq!((0..2 * COUNT).take_while(|_| texts.push("").is_ok()).count(), COUNT);
    }

    #[test]
    fn characters_that_xml_forbids_are_read() {
        assert_eq!(unescaped("a_x000D_\nb_x005F_x000D_ _x _xZZZZ_ _x12"), "a\r\nb_x000D_ _x _xZZZZ_ _x12");
    }
}
