//! Encodings other than UTF-8: spreadsheets still write Windows-1252 and UTF-16.
//!
//! An uncertain guess is an error, since recipients would see a wrong one. A file that is UTF-8 except for a damaged
//! byte is refused: read as Windows-1252, each of its other non-ASCII characters would become two. A file that only
//! might be Windows-1252 is refused: its names would be misspelt. The job must then name the encoding.

use std::io::{self, BufRead, Read};

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs_io::DecodeReaderBytesBuilder;

use crate::campaign::CharacterSet;

/// The encoding of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8.
    #[default]
    Utf8,
    /// UTF-16, recognised by its byte-order mark, or by every other byte being zero.
    Utf16(&'static encoding_rs::Encoding),
    /// Windows-1252, guessed from the bytes.
    Windows1252,
    /// The encoding that the job names.
    Named(CharacterSet),
}

/// The characters of the bytes 128 to 255 in code page 850.
const CP850: &str = "\
    ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐\
    └┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{ad}±‗¾¶§÷¸°¨·¹³²■\u{a0}";

impl Encoding {
    /// Returns the encoding of a name ([`CharacterSet::named`]).
    pub fn named(name: &str) -> Option<Self> {
        Some(match CharacterSet::named(name)? {
            CharacterSet::Whatwg(encoding) if encoding == encoding_rs::UTF_8 => Self::Utf8,
            set => Self::Named(set),
        })
    }

    /// Returns a note about an assumed encoding, for the person who provided the file; `None` for UTF-8 and a named
    /// one.
    pub fn note(self) -> Option<&'static str> {
        match self {
            Self::Utf8 | Self::Named(_) => None,
            Self::Utf16(_) => Some("read as UTF-16"),
            Self::Windows1252 => Some(
                "read as Windows-1252, because it is not UTF-8; set its \"encoding\" if names with accents are wrong",
            ),
        }
    }

    /// Converts the bytes to UTF-8.
    pub(super) fn decoded(self, reader: Box<dyn BufRead + Send>) -> Box<dyn Read + Send> {
        let encoding = match self {
            Self::Utf8 => return Box::new(reader),
            Self::Named(CharacterSet::Cp850) => {
                return Box::new(CodePage { reader, table: CP850.chars().collect(), rest: Vec::new() });
            }
            Self::Utf16(encoding) | Self::Named(CharacterSet::Whatwg(encoding)) => encoding,
            Self::Windows1252 => encoding_rs::WINDOWS_1252,
        };
        Box::new(DecodeReaderBytesBuilder::new().encoding(Some(encoding)).build(reader))
    }

    /// Detects UTF-16 from the first bytes of a file: by its byte-order mark, or by every other byte being zero, as
    /// in mostly ASCII text.
    pub(super) fn by_start(start: &[u8]) -> Option<Self> {
        if start.starts_with(b"\xff\xfe") {
            return Some(Self::Utf16(encoding_rs::UTF_16LE));
        }
        if start.starts_with(b"\xfe\xff") {
            return Some(Self::Utf16(encoding_rs::UTF_16BE));
        }
        let start = start.get(..start.len().min(4096) & !1).unwrap_or_default();
        let zeros = |offset: usize| start.iter().skip(offset).step_by(2).filter(|byte| **byte == 0).count();
        let (first, second, half) = (zeros(0), zeros(1), start.len() / 2);
        // ASCII in UTF-16 has one zero in each pair; other scripts have zeros only for their separators.
        let is_most = |one: usize, other: usize| one > half / 10 && one > 0 && other == 0;
        if is_most(second, first) {
            Some(Self::Utf16(encoding_rs::UTF_16LE))
        } else {
            is_most(first, second).then_some(Self::Utf16(encoding_rs::UTF_16BE))
        }
    }

    /// Guesses the encoding of bytes that are not UTF-8; `None` if it is uncertain.
    pub(super) fn guess(mut bytes: impl BufRead) -> io::Result<Option<Self>> {
        let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
        let mut plausible = Plausible::default();
        loop {
            let chunk = bytes.fill_buf()?;
            let is_last = chunk.is_empty();
            // Valid multi-byte characters: the file is damaged UTF-8.
            if chunk.utf8_chunks().any(|part| !part.valid().is_ascii()) {
                return Ok(None);
            }
            detector.feed(chunk, is_last);
            plausible.see(chunk);
            if is_last {
                break;
            }
            let count = chunk.len();
            bytes.consume(count);
        }
        let guess = detector.guess(None, Utf8Detection::Deny);
        Ok((guess == encoding_rs::WINDOWS_1252 && plausible.is_so()).then_some(Self::Windows1252))
    }
}

/// Checks that bytes can only be Windows-1252. Other encodings have letters where Windows-1252 has signs, so an
/// accented letter of `MacRoman` or code page 850 shows as a dash, a quotation mark or a currency sign within a word.
#[derive(Default)]
struct Plausible {
    /// The last two characters.
    last: [char; 2],
    /// Number of consecutive non-ASCII letters.
    row: usize,
    is_wrong: bool,
}

impl Plausible {
    fn see(&mut self, chunk: &[u8]) {
        for byte in chunk {
            let c = char_of(*byte);
            let [before, last] = self.last;
            // A sign between two letters, judged when the second one comes.
            if c.is_alphabetic() && before.is_alphabetic() && !last.is_ascii() && !last.is_alphabetic() {
                // `D’Souza`, `l’eau`, `Asha’s`.
                let is_apostrophe = last == '’' && (c.is_uppercase() || c == 's');
                self.is_wrong |= !is_apostrophe;
            }
            if c.is_ascii() {
                self.row = 0;
            } else {
                self.row = if c.is_alphabetic() { self.row + 1 } else { 0 };
                // A word of only accented letters is Cyrillic or Greek.
                self.is_wrong |= self.row > 2 || is_unlikely(c) || (last.is_alphabetic() && is_glued(c));
            }
            self.last = [last, c];
        }
    }

    fn is_so(&self) -> bool {
        !self.is_wrong
    }
}

fn char_of(byte: u8) -> char {
    if byte.is_ascii() {
        return char::from(byte);
    }
    let bytes = [byte];
    let (text, _) = encoding_rs::WINDOWS_1252.decode_without_bom_handling(&bytes);
    text.chars().next().unwrap_or('\u{fffd}')
}

/// Characters of Windows-1252 that Western names and prices do not contain: other encodings have letters at these
/// bytes.
fn is_unlikely(c: char) -> bool {
    matches!(c, '\u{80}'..='\u{9f}' | '\u{fffd}') || "ƒ†‡‰ˆ˜¤¦¨¬¯¸¶µ¢¥ŠšŽžŸÐðÞþÝý×÷‹›".contains(c)
}

/// Characters that never follow a letter within a word.
fn is_glued(c: char) -> bool {
    matches!(c, '¹' | '²' | '³' | '¿' | '¡' | '£' | '„' | '‚')
}

/// Converts a code page of 256 characters to UTF-8.
struct CodePage {
    reader: Box<dyn BufRead + Send>,
    /// The characters of the bytes from 128 on.
    table: Vec<char>,
    /// Converted bytes that are not returned yet.
    rest: Vec<u8>,
}

impl Read for CodePage {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            let chunk = self.reader.fill_buf()?;
            let count = chunk.len().min(4096);
            for byte in chunk.iter().take(count) {
                let high = byte.checked_sub(128).and_then(|nth| self.table.get(usize::from(nth)));
                let c = high.copied().unwrap_or(char::from(*byte));
                self.rest.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            self.reader.consume(count);
        }
        let count = self.rest.len().min(out.len());
        for (to, from) in out.iter_mut().zip(self.rest.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(bytes: &[u8]) -> Option<Encoding> {
        Encoding::guess(bytes).unwrap()
    }

    fn windows(text: &str) -> Vec<u8> {
        let (bytes, _, is_lossy) = encoding_rs::WINDOWS_1252.encode(text);
        assert!(!is_lossy, "{text}");
        bytes.into_owned()
    }

    #[test]
    fn only_unmistakable_windows_1252_is_detected() {
        for text in [
            "José Müller, Renée – €5",
            "D’Souza, O’Brien, l’Église, Asha’s “offer”",
            "JOÃO, Conceição, Ñandú, Łukasz".trim_end_matches(", Łukasz"),
            "Zoë Gößling; ½ off; 20 °C; © 2026 “x”…",
        ] {
            assert_eq!(guess(&windows(text)), Some(Encoding::Windows1252), "{text}");
        }
        let (cyrillic, _, _) = encoding_rs::WINDOWS_1251.encode("Иван Петров, Мария");
        let (polish, _, _) = encoding_rs::WINDOWS_1250.encode("Łukasz Wałęsa, Małgorzata Żak");
        let (turkish, _, _) = encoding_rs::WINDOWS_1254.encode("Ayşe Yıldız, Gökhan Şahin");
        let mac = |text: &str| -> Vec<u8> {
            let byte = |c: char| {
                if c.is_ascii() {
                    c as u8
                } else {
                    match c {
                        'é' => 0x8e,
                        'ñ' => 0x96,
                        'ü' => 0x9f,
                        'í' => 0x92,
                        'ó' => 0x97,
                        'ç' => 0x8d,
                        _ => panic!("{c}"),
                    }
                }
            };
            text.chars().map(byte).collect()
        };
        let dos = |text: &str| -> Vec<u8> {
            let byte = |c: char| {
                if c.is_ascii() {
                    c as u8
                } else {
                    128 + CP850.chars().position(|known| known == c).unwrap() as u8
                }
            };
            text.chars().map(byte).collect()
        };
        for bytes in [
            cyrillic.into_owned(),
            polish.into_owned(),
            turkish.into_owned(),
            mac("José"),
            mac("Peña, Müller"),
            mac("María"),
            mac("Simón, François"),
            dos("José"),
            dos("Müller"),
            dos("Peña, García"),
        ] {
            assert_eq!(guess(&bytes), None, "{bytes:x?}");
        }
    }

    #[test]
    fn encodings_have_their_usual_names() {
        let text = "José Müller";
        let mut bytes = b"Jos\x82 M\x81ller".to_vec();
        let read = |name: &str, bytes: Vec<u8>| {
            let encoding = Encoding::named(name).unwrap();
            let mut out = String::new();
            encoding.decoded(Box::new(io::Cursor::new(bytes))).read_to_string(&mut out).unwrap();
            out
        };
        for name in ["ibm850", "CP850"] {
            assert_eq!(read(name, bytes.clone()), text);
        }
        bytes = b"Jos\x8e M\x9fller".to_vec();
        for name in ["macintosh", "MacRoman", "x-mac-roman"] {
            assert_eq!(read(name, bytes.clone()), text);
        }
        for (name, letter, byte) in
            [("windows-1251", "Ж", 0xc6), ("windows-1250", "Ł", 0xa3), ("windows-1254", "Ş", 0xde)]
        {
            assert_eq!(read(name, vec![byte]), letter);
        }
        assert_eq!(CP850.chars().count(), 128);
        assert_eq!(Encoding::named("utf-8"), Some(Encoding::Utf8));
        for none in ["", "klingon", "replacement", "iso-2022-kr"] {
            assert_eq!(Encoding::named(none), None, "{none}");
        }
    }

    #[test]
    fn utf_16_is_known_without_its_mark() {
        let text = "phone,name\n+919876543210,Asha\n";
        let bytes = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        assert_eq!(
            Encoding::by_start(&bytes(u16::to_le_bytes)),
            Some(Encoding::Utf16(encoding_rs::UTF_16LE))
        );
        assert_eq!(
            Encoding::by_start(&bytes(u16::to_be_bytes)),
            Some(Encoding::Utf16(encoding_rs::UTF_16BE))
        );
        for none in [text.as_bytes(), b"", b"a", b"a\0\0b,c,d"] {
            assert_eq!(Encoding::by_start(none), None);
        }
    }
}
