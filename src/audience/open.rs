//! Reads the bytes of a file: unpacks them, converts them to UTF-8, checks and digests them.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{path::Path, sync::Arc};

use memchr::{memchr, memchr_iter, memmem};

use super::path::{name, open_real};
use super::quote_check::{Quotes, newlines};
use super::{AudienceError, Encoding, FileKind, ROW_LIMIT, Settings, Strange, workbook};

/// Size of the read buffer, in bytes.
const CHUNK: usize = 128 * 1024;

/// Maximum size of a compressed file when unpacked, in bytes: about a hundred million rows.
const MAX_UNPACKED_BYTES: u64 = 8 << 30;

/// Converts a reader's error into the audience's. `line` is the line on which the current row begins.
pub(super) fn failure(path: &Path, error: io::Error, line: u64) -> AudienceError {
    let name = name(path);
    match error.get_ref().and_then(|inner| inner.downcast_ref::<ReadError>()) {
        Some(ReadError::NotUtf8 { byte, line }) => AudienceError::NotUtf8 { name, byte: *byte, line: *line },
        Some(ReadError::RowTooLong { quote: None }) => AudienceError::RowTooLong { name, line },
        Some(ReadError::RowTooLong { quote: Some(line) } | ReadError::OpenQuote { line }) => {
            AudienceError::OpenQuote { name, line: *line }
        }
        Some(ReadError::Strange { what, line }) => AudienceError::Strange { name, what: *what, line: *line },
        Some(ReadError::TooLarge) => AudienceError::TooLarge(name),
        Some(ReadError::Packed(detail)) => AudienceError::Packed { name, detail: detail.clone() },
        None => AudienceError::Io { name, source: error },
    }
}

/// An error of this reader, carried through `io::Error`.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("not UTF-8")]
    NotUtf8 { byte: u64, line: u64 },
    /// With the line on which an unclosed quote began.
    #[error("row too long")]
    RowTooLong { quote: Option<u64> },
    #[error("open quote")]
    OpenQuote { line: u64 },
    #[error("{what}")]
    Strange { what: Strange, line: u64 },
    #[error("too large")]
    TooLarge,
    #[error("not compressed as its name says: {0}")]
    Packed(String),
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The unpacked bytes of a file.
pub(super) struct Unpacked {
    pub(super) reader: Box<dyn BufRead + Send>,
    /// Number of hidden rows, for a sheet of a workbook.
    hidden_rows: Option<u64>,
}

/// Unpacks a file as its extension says.
pub(super) fn unpacked(path: &Path, settings: &Settings) -> Result<Unpacked, AudienceError> {
    let failed = |error| failure(path, error, 1);
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
    if ending == "xlsx" {
        let sheet = workbook::unpack(path, settings)?;
        let reader = Box::new(BufReader::with_capacity(CHUNK, sheet.csv));
        return Ok(Unpacked { reader, hidden_rows: Some(sheet.hidden_rows) });
    }
    let file = open_real(path).map_err(failed)?;
    let mut reader: Box<dyn BufRead + Send> = match ending.as_str() {
        "gz" => Box::new(bounded(flate2::read::MultiGzDecoder::new(file))),
        "zst" => Box::new(bounded(zstd::Decoder::new(file).map_err(failed)?)),
        _ => Box::new(BufReader::with_capacity(CHUNK, file)),
    };
    let start = reader.fill_buf().map_err(failed)?;
    if let Some(kind) = FileKind::detect(start) {
        return Err(AudienceError::OtherFile { name: name(path), kind });
    }
    Ok(Unpacked { reader, hidden_rows: None })
}

fn bounded<R: Read>(reader: R) -> BufReader<Bounded<R>> {
    BufReader::with_capacity(CHUNK, Bounded { reader, left: MAX_UNPACKED_BYTES })
}

/// A reader with a limit: a small compressed file may unpack to more than a machine can read.
struct Bounded<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        // An error without an OS error code is the decompressor's: the file is invalid or incomplete.
        let broken = |error: io::Error| match error.raw_os_error() {
            Some(_) => error,
            None => ReadError::Packed(error.to_string()).into(),
        };
        let count = self.reader.read(out).map_err(broken)?;
        self.left = self.left.checked_sub(count as u64).ok_or(ReadError::TooLarge)?;
        Ok(count)
    }
}

/// Returns the reader with a copy of its first bytes. A single read may return fewer.
fn begun(reader: Box<dyn BufRead + Send>) -> io::Result<(Box<dyn BufRead + Send>, Vec<u8>)> {
    let (mut start, mut beginning) = (Vec::new(), reader.take(CHUNK as u64));
    beginning.read_to_end(&mut start)?;
    Ok((Box::new(io::Cursor::new(start.clone()).chain(beginning.into_inner())), start))
}

/// The bytes of a file, unpacked and converted to UTF-8. Each byte is checked to be UTF-8, and its quotes to be
/// closed, before it is returned.
pub(super) struct Bytes {
    reader: Box<dyn BufRead + Send>,
    /// The first bytes.
    pub(super) start: Vec<u8>,
    pub(super) encoding: Encoding,
    /// The number of hidden rows, for a sheet of a workbook.
    pub(super) hidden_rows: Option<u64>,
    /// The delimiter that the file itself names in a line before its header: `sep=;`.
    pub(super) named_delimiter: Option<u8>,
    /// The last two bytes of the previous chunk.
    last: [u8; 2],
    /// Number of bytes returned so far.
    position: u64,
    /// The line of the next byte, from 1.
    lines: u64,
    /// The bytes of a character that is split across two chunks.
    cut: Vec<u8>,
    /// Offset of that character.
    cut_at: u64,
    /// Offset of the current row, which the reader of rows updates; it limits the row's length.
    pub(super) row_start: Arc<AtomicU64>,
    hasher: blake3::Hasher,
    /// The quote checker, once the delimiter is known.
    quotes: Option<Quotes>,
}

impl Bytes {
    pub(super) fn open(path: &Path, settings: &Settings) -> Result<Self, AudienceError> {
        let failed = |error| failure(path, error, 1);
        let Unpacked { reader, hidden_rows } = unpacked(path, settings)?;
        let (mut reader, mut start) = begun(reader).map_err(failed)?;
        if start.is_empty() {
            return Err(AudienceError::Empty(name(path)));
        }
        let by_start = Encoding::by_start(&start).filter(|_| hidden_rows.is_none());
        let encoding = by_start.or(settings.encoding).unwrap_or_default();
        if encoding != Encoding::Utf8 {
            let decoded = encoding.decoded(reader);
            (reader, start) = begun(Box::new(BufReader::with_capacity(CHUNK, decoded))).map_err(failed)?;
        }
        let mut named_delimiter = None;
        // flowcast writes a sheet as CSV with commas, whatever its first cell says.
        if hidden_rows.is_some() {
            named_delimiter = Some(b',');
        } else if let Some((delimiter, length)) = separator_line(&start) {
            named_delimiter = Some(delimiter);
            io::copy(&mut reader.by_ref().take(length as u64), &mut io::sink()).map_err(failed)?;
            start.drain(..length);
        }
        Ok(Self {
            reader,
            start,
            encoding,
            hidden_rows,
            named_delimiter,
            last: [b'\n'; 2],
            position: 0,
            lines: if named_delimiter.is_some() && hidden_rows.is_none() { 2 } else { 1 },
            cut: Vec::new(),
            cut_at: 0,
            row_start: Arc::default(),
            hasher: blake3::Hasher::new(),
            quotes: None,
        })
    }

    /// Returns the digest of all bytes returned so far.
    pub(super) fn digest(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// Starts checking quotes with this delimiter.
    pub(super) fn check_quotes(&mut self, delimiter: u8) {
        self.quotes = Some(Quotes::new(delimiter));
    }

    /// Checks a chunk for UTF-8, together with the character that the previous chunk split.
    fn check(&mut self, chunk: &[u8]) -> Result<(), ReadError> {
        let mut rest = chunk;
        while !self.cut.is_empty() && !rest.is_empty() {
            // A split character lacks at most three bytes.
            self.cut.push(rest[0]);
            rest = &rest[1..];
            match std::str::from_utf8(&self.cut) {
                Ok(_) => self.cut.clear(),
                Err(error) if error.error_len().is_some() => {
                    return Err(ReadError::NotUtf8 { byte: self.cut_at, line: self.lines });
                }
                Err(_) => {}
            }
        }
        let skipped = (chunk.len() - rest.len()) as u64;
        if let Err(error) = std::str::from_utf8(rest) {
            let (good, bad) = rest.split_at(error.valid_up_to());
            if error.error_len().is_some() {
                let line = self.lines + newlines(good);
                return Err(ReadError::NotUtf8 { byte: self.position + skipped + good.len() as u64, line });
            }
            self.cut.extend_from_slice(bad);
            self.cut_at = self.position + skipped + good.len() as u64;
        }
        Ok(())
    }
}

/// Returns the delimiter and the length of a first line `sep=;`, which spreadsheets write and read.
fn separator_line(start: &[u8]) -> Option<(u8, usize)> {
    let mark = if start.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let line = start.get(mark..)?;
    let end = line.iter().position(|byte| *byte == b'\n')?;
    let text = line.get(..end)?.trim_ascii().strip_prefix(b"\"").unwrap_or(line.get(..end)?).trim_ascii_end();
    let named = text.get(..4).filter(|word| word.eq_ignore_ascii_case(b"sep=")).and(text.get(4..))?;
    let delimiter = match named.strip_suffix(b"\"").unwrap_or(named) {
        // Any other byte would split values, or characters, without notice.
        [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && *byte != b'"' => *byte,
        // A tab has been trimmed with the blanks around the line.
        [] => b'\t',
        _ => return None,
    };
    Some((delimiter, mark + end + 1))
}

/// Returns bytes that do not occur in ordinary text, and their offset: the file was read in the wrong encoding.
fn strange(chunk: &[u8], last: u8) -> Option<(Strange, usize)> {
    if let Some(at) = memchr(0, chunk) {
        return Some((Strange::Nul, at));
    }
    if last == 0xc2 && chunk.first().is_some_and(|first| (0x80..0xa0).contains(first)) {
        return Some((Strange::Control, 0));
    }
    let is_control = |at: &usize| chunk.get(at + 1).is_some_and(|next| (0x80..0xa0).contains(next));
    if let Some(at) = memchr_iter(0xc2, chunk).find(is_control) {
        return Some((Strange::Control, at));
    }
    if last == b'\r' && chunk.first() != Some(&b'\n') {
        return Some((Strange::Return, 0));
    }
    let is_alone = |at: &usize| chunk.get(at + 1).is_some_and(|next| *next != b'\n');
    memchr_iter(b'\r', chunk).find(is_alone).map(|at| (Strange::Return, at))
}

/// Returns the offset of a replacement character: bytes that the file's encoding does not define.
fn replaced(chunk: &[u8], last: [u8; 2]) -> Option<usize> {
    const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();
    let seam: Vec<u8> = last.iter().chain(chunk.iter().take(2)).copied().collect();
    if memmem::find(&seam, REPLACEMENT).is_some() { Some(0) } else { memmem::find(chunk, REPLACEMENT) }
}

impl Read for Bytes {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.position.saturating_sub(self.row_start.load(Ordering::Relaxed)) > ROW_LIMIT {
            let quote = self.quotes.as_ref().and_then(Quotes::open);
            return Err(ReadError::RowTooLong { quote }.into());
        }
        let count = self.reader.read(out)?;
        if count == 0 && !self.cut.is_empty() {
            return Err(ReadError::NotUtf8 { byte: self.cut_at, line: self.lines }.into());
        }
        self.check(&out[..count])?;
        // The cells of a workbook are already text.
        if self.hidden_rows.is_none() && count > 0 {
            let chunk = &out[..count];
            let mut found = strange(chunk, self.last[1]);
            if found.is_none() && self.encoding != Encoding::Utf8 {
                found = replaced(chunk, self.last).map(|at| (Strange::Undefined, at));
            }
            if let Some((what, at)) = found {
                return Err(ReadError::Strange { what, line: self.lines + newlines(&chunk[..at]) }.into());
            }
            self.last = match *chunk {
                [.., before, last] => [before, last],
                [only] => [self.last[1], only],
                [] => self.last,
            };
        }
        if let Some(quotes) = &mut self.quotes {
            // A byte-order mark is not part of the first value.
            let mark: &[u8] = if self.position == 0 { b"\xef\xbb\xbf" } else { b"" };
            let chunk = out[..count].strip_prefix(mark).unwrap_or(&out[..count]);
            let followed = if count == 0 { quotes.open().map_or(Ok(()), Err) } else { quotes.follow(chunk) };
            followed.map_err(|line| ReadError::OpenQuote { line })?;
        }
        self.hasher.update(&out[..count]);
        self.position += count as u64;
        self.lines += newlines(&out[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_endless_compressed_file_is_refused() {
        let mut reader = Bounded { reader: io::repeat(b'x'), left: 10 };
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(
            matches!(failure(Path::new("a.csv.gz"), error, 1), AudienceError::TooLarge(name) if name == "a.csv.gz")
        );
        let mut reader = Bounded { reader: &[b'x'; 10][..], left: 10 };
        assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 10);
    }

    proptest! {
        #[test]
        fn a_character_cut_by_a_chunk_is_still_checked(text in "[^\\r\\x00\\x{80}-\\x{9f}]{0,40}", size in 1..8_usize, bad in any::<prop::sample::Index>(), spoil in any::<bool>()) {
            let mut content = format!("x{text}").into_bytes();
            if spoil {
                let at = bad.index(content.len());
                content[at] = 0xff;
            }
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.csv");
            std::fs::write(&path, &content).unwrap();
            prop_assume!(!content.starts_with(b"\xff\xfe") && !content.starts_with(b"\xfe\xff"));
            prop_assume!(strange(&content, b'\n').is_none() && Encoding::by_start(&content).is_none());
            let mut bytes = Bytes::open(&path, &Settings::default()).unwrap();
            let mut chunk = vec![0; size];
            let result = loop {
                match bytes.read(&mut chunk) {
                    Ok(0) => break Ok(()),
                    Ok(_) => {}
                    Err(error) => break Err(failure(&path, error, 1)),
                }
            };
            match (std::str::from_utf8(&content), result) {
                (Ok(_), Ok(())) => {}
                (Err(expected), Err(AudienceError::NotUtf8 { byte, .. })) => {
                    prop_assert_eq!(byte, expected.valid_up_to() as u64);
                }
                (expected, found) => prop_assert!(false, "{expected:?} {found:?}"),
            }
        }
    }
}
