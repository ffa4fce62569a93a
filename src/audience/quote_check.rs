//! Checks the quotes of a CSV file (RFC 4180): a quoted value must be closed, and a delimiter or a line end must
//! follow it.
//!
//! Without the check, an unclosed quote pairs with the next row's opening quote: that row is swallowed, and its text
//! appears in another recipient's message.

use memchr::memchr;

/// Tracks the quotes of a file, chunk by chunk.
pub(super) struct Quotes {
    delimiter: u8,
    state: QuoteState,
    /// The byte before the next one.
    previous: u8,
    /// The line of the next byte, from 1.
    line: u64,
    /// The line on which the last quoted value opened.
    opened: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum QuoteState {
    Outside,
    Inside,
    /// After a quote within a quoted value: the end of the value, or the first half of a doubled quote.
    AtQuote,
}

impl Quotes {
    pub(super) fn new(delimiter: u8) -> Self {
        Self { delimiter, state: QuoteState::Outside, previous: b'\n', line: 1, opened: 1 }
    }

    /// Checks a chunk. The error is the line on which the invalid value began.
    pub(super) fn follow(&mut self, chunk: &[u8]) -> Result<(), u64> {
        let mut at = 0;
        let mut counted = 0;
        while at < chunk.len() {
            if self.state == QuoteState::AtQuote {
                self.state = match chunk[at] {
                    b'"' => QuoteState::Inside,
                    byte if byte == self.delimiter || matches!(byte, b'\r' | b'\n') => QuoteState::Outside,
                    _ => return Err(self.opened),
                };
                self.previous = chunk[at];
                at += 1;
                continue;
            }
            let Some(quote) = memchr(b'"', &chunk[at..]).map(|found| at + found) else { break };
            if quote > at {
                self.previous = chunk[quote - 1];
            }
            self.state = match self.state {
                QuoteState::Inside => QuoteState::AtQuote,
                // A quote opens a value only at the start of the value; elsewhere it is text.
                _ if self.previous == self.delimiter || matches!(self.previous, b'\r' | b'\n') => {
                    self.line += newlines(&chunk[counted..quote]);
                    counted = quote;
                    self.opened = self.line;
                    QuoteState::Inside
                }
                state => state,
            };
            self.previous = b'"';
            at = quote + 1;
        }
        self.line += newlines(&chunk[counted..]);
        self.previous = chunk.last().copied().unwrap_or(self.previous);
        Ok(())
    }

    /// Returns the line on which the unclosed value began.
    pub(super) fn open(&self) -> Option<u64> {
        (self.state == QuoteState::Inside).then_some(self.opened)
    }
}

pub(super) fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn follow(text: &str, size: usize) -> Result<(), u64> {
        let mut quotes = Quotes::new(b',');
        text.as_bytes().chunks(size).try_for_each(|chunk| quotes.follow(chunk))?;
        quotes.open().map_or(Ok(()), Err)
    }

    #[test]
    fn valid_quotes_are_accepted() {
        for text in [
            "",
            "a,b\nc,d\n",
            "\"a\",\"b\"\r\n\"c\",d",
            "\"a \"\"b\"\" c\",d\n",
            "\"\",\"\"\n",
            "\"a\nb\",c\n",
            "5\" pipe,a\n",
            "a,b \"c\" d\n",
            "\"\"\"\"\n",
        ] {
            for size in [1, 2, 3, 100] {
                assert_eq!(follow(text, size), Ok(()), "{text:?} in {size}");
            }
        }
    }

    #[test]
    fn an_unclosed_quote_is_reported_with_its_line() {
        for (text, line) in [
            ("p,n\n1,\"a\n2,b\n", 2),
            ("p,n\n1,a\n2,\"b", 3),
            ("p,n\n1,\"a\n2,\"b\"\n3,c\n", 2),
            ("p,n\n\"x\ny\",1\n2,\"b\"c\n", 4),
            ("\"a\" ,b\n", 1),
        ] {
            for size in [1, 2, 3, 100] {
                assert_eq!(follow(text, size), Err(line), "{text:?} in {size}");
            }
        }
    }

    proptest! {
        #[test]
        fn quotes_of_a_csv_library_are_valid(
            rows in prop::collection::vec(prop::collection::vec("[a,\"\n\r é]{0,6}", 2), 1..6),
            size in 1..9_usize,
        ) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            prop_assert_eq!(follow(&text, size), Ok(()));
        }
    }
}
