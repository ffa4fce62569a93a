//! How a file's bytes stand for characters, where they are not UTF-8: spreadsheets still write Windows-1252
//! and UTF-16.
//!
//! It never guesses where a wrong guess would reach people: a file that is mostly UTF-8 with a byte damaged
//! is refused, since each of its other characters would become two.

use std::io::{self, BufRead, Read};

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs_io::DecodeReaderBytesBuilder;

/// How characters are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// As the rest of the world writes them.
    #[default]
    Utf8,
    /// By the mark at its beginning.
    Utf16,
    /// By what its bytes look like.
    Windows1252,
}

impl Encoding {
    /// What was assumed, for those who handed the file in; nothing of UTF-8.
    pub fn note(self) -> Option<&'static str> {
        match self {
            Self::Utf8 => None,
            Self::Utf16 => Some("read as UTF-16"),
            Self::Windows1252 => {
                Some("read as Windows-1252, as it is not UTF-8: look at names with accents before you send")
            }
        }
    }

    /// Makes UTF-8 of the bytes.
    pub(super) fn decoded(self, reader: Box<dyn BufRead + Send>) -> Box<dyn Read + Send> {
        // Without an encoding the mark says which it is, and is taken off.
        let encoding = match self {
            Self::Utf8 => return Box::new(reader),
            Self::Utf16 => None,
            Self::Windows1252 => Some(encoding_rs::WINDOWS_1252),
        };
        Box::new(DecodeReaderBytesBuilder::new().encoding(encoding).build(reader))
    }

    /// By the first bytes of a file.
    pub(super) fn by_mark(start: &[u8]) -> Option<Self> {
        let is_marked = start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff");
        is_marked.then_some(Self::Utf16)
    }

    /// What bytes that are not UTF-8 are, if that can be told.
    pub(super) fn guess(mut bytes: impl BufRead) -> io::Result<Option<Self>> {
        let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
        loop {
            let chunk = bytes.fill_buf()?;
            let is_last = chunk.is_empty();
            // Characters that are right as they are: it is UTF-8, and damaged.
            if chunk.utf8_chunks().any(|part| !part.valid().is_ascii()) {
                return Ok(None);
            }
            detector.feed(chunk, is_last);
            if is_last {
                break;
            }
            let count = chunk.len();
            bytes.consume(count);
        }
        let guess = detector.guess(None, Utf8Detection::Deny);
        Ok((guess == encoding_rs::WINDOWS_1252).then_some(Self::Windows1252))
    }
}
