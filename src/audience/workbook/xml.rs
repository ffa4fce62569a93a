//! Reads the XML parts of a workbook piece by piece. Every length and depth is checked, so a part can neither make
//! the reader hold more than a few hundred KiB nor exceed the total size of all parts.

use std::io::{self, BufRead, BufReader, Read};
use std::{borrow::Cow, cell::Cell, rc::Rc};

use quick_xml::events::{BytesEnd, BytesStart, Event};
use quick_xml::{Reader, XmlVersion, escape::resolve_predefined_entity};

/// Maximum size of a tag or of a text between two tags, in bytes: a cell holds at most 32,767 characters.
const PIECE: usize = 256 * 1024;
/// Maximum number of pieces of all parts: ten million cells with a value, which take some seconds.
const PIECES: u64 = 50_000_000;
/// Maximum nesting depth of elements. A workbook needs about ten.
const DEPTH: usize = 64;

/// The size limit of all unpacked parts, how many bytes of it are left, and how many pieces may still be read.
pub(super) struct Budget {
    all: u64,
    left: Cell<u64>,
    pieces: Cell<u64>,
}

impl Budget {
    pub(super) fn new(all: u64) -> Self {
        Self { all, left: Cell::new(all), pieces: Cell::new(PIECES) }
    }
}

/// A reader of one part of a workbook.
pub(super) struct Xml<R: Read> {
    reader: Reader<Metered<BufReader<R>>>,
    buffer: Vec<u8>,
    /// A character that was written as an entity.
    character: [u8; 4],
    depth: usize,
}

/// A piece of XML. Names have no namespace.
pub(super) enum Piece<'a> {
    /// The start of an element.
    Open(Element<'a>),
    /// The end of an element.
    Close(End<'a>),
    /// A text, or part of one.
    Text(Cow<'a, str>),
    /// Anything else, e.g. a comment.
    Nothing,
}

/// The end of an element.
pub(super) struct End<'a>(BytesEnd<'a>);

impl End<'_> {
    /// Returns the local name.
    pub(super) fn is(&self, name: &str) -> bool {
        self.0.local_name().as_ref() == name.as_bytes()
    }
}

/// The start of an element.
pub(super) struct Element<'a>(BytesStart<'a>);

impl Element<'_> {
    /// Returns the local name.
    pub(super) fn is(&self, name: &str) -> bool {
        self.0.local_name().as_ref() == name.as_bytes()
    }

    /// Calls a function with the name and the raw value of each attribute.
    pub(super) fn each_attribute(&self, mut each: impl FnMut(&[u8], &[u8])) {
        for attribute in self.0.attributes().with_checks(false).flatten() {
            each(attribute.key.local_name().as_ref(), &attribute.value);
        }
    }

    /// Returns the value of an attribute.
    pub(super) fn attribute(&self, name: &str) -> Option<String> {
        let mut attributes = self.0.attributes();
        let mut all = attributes.with_checks(false).flatten();
        let found = all.find(|attribute| attribute.key.local_name().as_ref() == name.as_bytes())?;
        found.normalized_value(XmlVersion::Implicit1_0).ok().map(Cow::into_owned)
    }
}

impl<R: Read> Xml<R> {
    /// Reads a part.
    pub(super) fn new(part: R, budget: Rc<Budget>) -> Self {
        let mut reader = Reader::from_reader(Metered {
            reader: BufReader::with_capacity(64 << 10, part),
            budget,
            piece: PIECE,
        });
        let config = reader.config_mut();
        config.expand_empty_elements = true;
        Self { reader, buffer: Vec::new(), character: [0; 4], depth: 0 }
    }

    /// Reads the next piece; `None` at the end.
    ///
    /// # Errors
    ///
    /// Why the part is invalid.
    pub(super) fn next(&mut self) -> Result<Option<Piece<'_>>, String> {
        self.buffer.clear();
        let metered = self.reader.get_mut();
        metered.piece = PIECE;
        let pieces = metered.budget.pieces.get();
        if pieces == 0 {
            return Err("it has more than ten million cells".into());
        }
        metered.budget.pieces.set(pieces - 1);
        let malformed = |error: &dyn std::fmt::Display| format!("it is not well-formed: {error}");
        let event = self.reader.read_event_into(&mut self.buffer).map_err(|error| match error {
            quick_xml::Error::Io(error) => error.to_string(),
            other => malformed(&other),
        })?;
        Ok(Some(match event {
            Event::Eof => return Ok(None),
            Event::Start(start) => {
                self.depth += 1;
                if self.depth > DEPTH {
                    return Err(format!("its elements are nested more than {DEPTH} levels deep"));
                }
                Piece::Open(Element(start))
            }
            Event::End(end) => {
                self.depth -= 1;
                Piece::Close(End(end))
            }
            Event::Text(text) => Piece::Text(text.xml10_content().map_err(|error| malformed(&error))?),
            Event::CData(text) => Piece::Text(text.xml10_content().map_err(|error| malformed(&error))?),
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().map_err(|error| malformed(&error))?;
                Piece::Text(Cow::Borrowed(if let Some(character) = character {
                    character.encode_utf8(&mut self.character)
                } else {
                    let name = reference.decode().map_err(|error| malformed(&error))?;
                    resolve_predefined_entity(&name)
                        .ok_or_else(|| format!("it has an unknown entity {name:?}"))?
                }))
            }
            Event::DocType(_) => {
                return Err("it has a document type declaration, which a workbook must not have".into());
            }
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => Piece::Nothing,
        }))
    }
}

/// A reader that fails when a piece, or all parts together, exceed their limit.
struct Metered<R> {
    reader: R,
    budget: Rc<Budget>,
    piece: usize,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.reader.read(out)
    }
}

impl<R: BufRead> BufRead for Metered<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.budget.left.get() == 0 {
            let all = self.budget.all >> 20;
            return Err(io::Error::other(format!("it unpacks to more than {all} MiB")));
        }
        if self.piece == 0 {
            return Err(io::Error::other(format!(
                "a tag or a text in it is longer than {} KiB",
                PIECE >> 10
            )));
        }
        self.reader.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.budget.left.set(self.budget.left.get().saturating_sub(count as u64));
        self.piece = self.piece.saturating_sub(count);
        self.reader.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_counted_over_all_parts() {
        let budget = Rc::new(Budget { all: 1 << 20, left: Cell::new(1 << 20), pieces: Cell::new(10) });
        let read = |text: &'static str| {
            let mut xml = Xml::new(text.as_bytes(), budget.clone());
            while xml.next()?.is_some() {}
            Ok::<_, String>(())
        };
        assert_eq!(read("<a><b/><!-- --></a>"), Ok(()));
        assert_eq!(read("<a><b/><b/></a>"), Err("it has more than ten million cells".into()));
    }
}
