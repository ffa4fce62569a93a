//! An audience's bytes: unpacked by name, held to be UTF-8, digested.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::path::open_real;
use super::quotes::{Quotes, newlines};
use super::{AudienceError, Encoding, ROW_LIMIT, workbook};

/// How much is read at a time.
const CHUNK: usize = 128 * 1024;

/// How many bytes a packed file may unpack to: a hundred million rows.
const LARGEST: u64 = 8 << 30;

/// What a file is called in an error.
pub(super) fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// The audience's own error out of a reader's.
/// `line` is where the row begins that was being read.
pub(super) fn failure(path: &Path, fault: io::Error, line: u64) -> AudienceError {
    let name = name(path);
    match fault.get_ref().and_then(|inner| inner.downcast_ref::<ReadError>()) {
        Some(ReadError::NotUtf8 { byte, line }) => AudienceError::NotUtf8 { name, byte: *byte, line: *line },
        Some(ReadError::RowTooLong { quote: None }) => AudienceError::RowTooLong { name, line },
        Some(ReadError::RowTooLong { quote: Some(line) } | ReadError::OpenQuote { line }) => {
            AudienceError::OpenQuote { name, line: *line }
        }
        Some(ReadError::TooLarge) => AudienceError::TooLarge(name),
        Some(ReadError::Packed(detail)) => AudienceError::Packed { name, detail: detail.clone() },
        None => AudienceError::Io { name, source: fault },
    }
}

/// A fault that this reader finds itself, carried through `io::Error`.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("not UTF-8")]
    NotUtf8 { byte: u64, line: u64 },
    /// With the line on which a quote opened that is not closed by then.
    #[error("row too long")]
    RowTooLong { quote: Option<u64> },
    #[error("open quote")]
    OpenQuote { line: u64 },
    #[error("too large")]
    TooLarge,
    #[error("not packed as its name says: {0}")]
    Packed(String),
}

impl From<ReadError> for io::Error {
    fn from(fault: ReadError) -> Self {
        Self::new(io::ErrorKind::InvalidData, fault)
    }
}

/// A file's own bytes, unpacked by its name.
pub(super) fn unpacked(path: &Path) -> Result<Box<dyn BufRead + Send>, AudienceError> {
    let failed = |fault| failure(path, fault, 1);
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
    if ending == "xlsx" {
        return Ok(Box::new(BufReader::with_capacity(CHUNK, workbook::unpack(path)?)));
    }
    let file = open_real(path).map_err(failed)?;
    Ok(match ending.as_str() {
        "gz" => Box::new(bounded(flate2::read::MultiGzDecoder::new(file))),
        "zst" => Box::new(bounded(zstd::Decoder::new(file).map_err(failed)?)),
        _ => Box::new(BufReader::with_capacity(CHUNK, file)),
    })
}

fn bounded<R: Read>(reader: R) -> BufReader<Bounded<R>> {
    BufReader::with_capacity(CHUNK, Bounded { reader, left: LARGEST })
}

/// What a packed file unpacks to, up to a bound: a small file may hold more than a machine ever reads.
struct Bounded<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        // What the system does not say the packer says: the file is none, or not whole.
        let broken = |fault: io::Error| match fault.raw_os_error() {
            Some(_) => fault,
            None => ReadError::Packed(fault.to_string()).into(),
        };
        let count = self.reader.read(out).map_err(broken)?;
        self.left = self.left.checked_sub(count as u64).ok_or(ReadError::TooLarge)?;
        Ok(count)
    }
}

/// A reader with a copy of its first bytes. One read may give as few as it likes.
fn begun(reader: Box<dyn BufRead + Send>) -> io::Result<(Box<dyn BufRead + Send>, Vec<u8>)> {
    let (mut start, mut beginning) = (Vec::new(), reader.take(CHUNK as u64));
    beginning.read_to_end(&mut start)?;
    Ok((Box::new(io::Cursor::new(start.clone()).chain(beginning.into_inner())), start))
}

/// A file's bytes, unpacked, as UTF-8, each of them proven to be UTF-8 and its quotes in order before it is
/// handed on.
pub(super) struct Bytes {
    reader: Box<dyn BufRead + Send>,
    /// Its first bytes.
    start: Vec<u8>,
    encoding: Encoding,
    /// How many bytes were handed on.
    position: u64,
    /// The line of the next byte, from 1.
    lines: u64,
    /// A character that is cut by the end of a chunk.
    cut: Vec<u8>,
    /// Where that character begins.
    cut_at: u64,
    /// Where the row being read begins; its length is bounded by it.
    row_start: Arc<AtomicU64>,
    hasher: blake3::Hasher,
    /// Once the delimiter is known.
    quotes: Option<Quotes>,
}

impl Bytes {
    pub(super) fn open(path: &Path, encoding: Encoding) -> Result<Self, AudienceError> {
        let failed = |fault| failure(path, fault, 1);
        let (mut reader, mut start) = begun(unpacked(path)?).map_err(failed)?;
        if start.is_empty() {
            return Err(AudienceError::Empty(name(path)));
        }
        let encoding = Encoding::by_mark(&start).unwrap_or(encoding);
        if encoding != Encoding::Utf8 {
            let decoded = encoding.decoded(reader);
            (reader, start) = begun(Box::new(BufReader::with_capacity(CHUNK, decoded))).map_err(failed)?;
        }
        Ok(Self {
            reader,
            start,
            encoding,
            position: 0,
            lines: 1,
            cut: Vec::new(),
            cut_at: 0,
            row_start: Arc::default(),
            hasher: blake3::Hasher::new(),
            quotes: None,
        })
    }

    /// The offset at which the reader of rows says that a row begins.
    pub(super) fn row_start(&self) -> Arc<AtomicU64> {
        self.row_start.clone()
    }

    /// The first bytes, without taking them.
    pub(super) fn start(&self) -> &[u8] {
        &self.start
    }

    /// How the file's characters are written.
    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// A digest of all bytes handed on.
    pub(super) fn digest(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// From here on the quotes must be in order, with this delimiter.
    pub(super) fn check_quotes(&mut self, delimiter: u8) {
        self.quotes = Some(Quotes::new(delimiter));
    }

    /// Checks what was read, together with what the last chunk cut off.
    fn check(&mut self, chunk: &[u8]) -> Result<(), ReadError> {
        let mut rest = chunk;
        while !self.cut.is_empty() && !rest.is_empty() {
            // At most three bytes are missing to a character that was cut.
            self.cut.push(rest[0]);
            rest = &rest[1..];
            match std::str::from_utf8(&self.cut) {
                Ok(_) => self.cut.clear(),
                Err(fault) if fault.error_len().is_some() => {
                    return Err(ReadError::NotUtf8 { byte: self.cut_at, line: self.lines });
                }
                Err(_) => {}
            }
        }
        let skipped = (chunk.len() - rest.len()) as u64;
        if let Err(fault) = std::str::from_utf8(rest) {
            let (good, bad) = rest.split_at(fault.valid_up_to());
            if fault.error_len().is_some() {
                let line = self.lines + newlines(good);
                return Err(ReadError::NotUtf8 { byte: self.position + skipped + good.len() as u64, line });
            }
            self.cut.extend_from_slice(bad);
            self.cut_at = self.position + skipped + good.len() as u64;
        }
        Ok(())
    }
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
        if let Some(quotes) = &mut self.quotes {
            // A byte-order mark is no part of the first value.
            let mark: &[u8] = if self.position == 0 { b"\xef\xbb\xbf" } else { b"" };
            let chunk = out[..count].strip_prefix(mark).unwrap_or(&out[..count]);
            let followed = if count == 0 { quotes.finish() } else { quotes.follow(chunk) };
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
    fn a_packed_file_without_end_is_refused() {
        let mut reader = Bounded { reader: io::repeat(b'x'), left: 10 };
        let fault = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(
            matches!(failure(Path::new("a.csv.gz"), fault, 1), AudienceError::TooLarge(name) if name == "a.csv.gz")
        );
        let mut reader = Bounded { reader: &[b'x'; 10][..], left: 10 };
        assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 10);
    }

    proptest! {
        #[test]
        fn a_character_cut_by_a_chunk_is_still_checked(text in ".{0,40}", size in 1..8_usize, bad in any::<prop::sample::Index>(), spoil in any::<bool>()) {
            let mut content = format!("x{text}").into_bytes();
            if spoil {
                let at = bad.index(content.len());
                content[at] = 0xff;
            }
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.csv");
            std::fs::write(&path, &content).unwrap();
            prop_assume!(!content.starts_with(b"\xff\xfe") && !content.starts_with(b"\xfe\xff"));
            let mut bytes = Bytes::open(&path, Encoding::Utf8).unwrap();
            let mut chunk = vec![0; size];
            let result = loop {
                match bytes.read(&mut chunk) {
                    Ok(0) => break Ok(()),
                    Ok(_) => {}
                    Err(fault) => break Err(failure(&path, fault, 1)),
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
