//! Reads the JSON of jobs and control documents. JSON does not define duplicate names and numbers beyond 64 bits:
//! here a duplicate name is an error, and a large number keeps its digits.

use std::{borrow::Cow, cell::RefCell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::batch::NUMBER_MARK;
use super::problem::{Problem, json_error, quoted, step};

/// Reads a document. A whole number beyond 64 bits is an identifier, so it becomes a text of its digits.
///
/// # Errors
///
/// Where the document is not JSON, or which name occurs twice in an object.
pub fn read(bytes: &[u8]) -> Result<Value, Problem> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Problem::new("", format!("is not UTF-8 (byte {})", error.valid_up_to())))?;
    let text = with_quoted_identifiers(text.trim_start_matches('\u{feff}'));
    let twice = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let place = Place { above: None, name: Cow::Borrowed("") };
    let read = Strict { place: &place, twice: &twice }.deserialize(&mut deserializer);
    let read = read.and_then(|value| deserializer.end().map(|()| value));
    read.map_err(|error| twice.take().unwrap_or_else(|| Problem::new("", json_error(&error))))
}

/// Puts whole numbers beyond 64 bits in quotes; also numbers of recipients that would not be printed as written, with
/// [`NUMBER_MARK`] between the written text and the number: `1499.00` becomes `"1499.00\u001f1499.0"`.
fn with_quoted_identifiers(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    // The nesting depth, the names on the path, and the last character that is neither white space nor in a value.
    let (mut depth, mut names, mut last) = (0_usize, [""; 2], b' ');
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let start = at + 1;
                at += 1;
                while let Some(inside) = bytes.get(at).filter(|inside| **inside != b'"') {
                    at += if *inside == b'\\' { 2 } else { 1 };
                }
                if matches!(last, b'{' | b',')
                    && let Some(name) = depth.checked_sub(1).and_then(|level| names.get_mut(level))
                {
                    *name = text.get(start..at).unwrap_or_default();
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let length = bytes.get(at..).unwrap_or_default().iter().take_while(|byte| {
                    byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E')
                });
                let end = at + length.count();
                let number = text.get(at..end).unwrap_or_default();
                let digits = number.strip_prefix('-').unwrap_or(number);
                // An invalid number stays unchanged and is refused by the parser.
                let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit())
                    && digits.bytes().next().is_some_and(|first| first != b'0');
                if is_whole && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    out.push_str(text.get(copied..at).unwrap_or_default());
                    out.push('"');
                    out.push_str(number);
                    out.push('"');
                    copied = end;
                } else if depth > 3
                    && names == ["audience", "recipients"]
                    && let Some(printed) = printed_otherwise(number)
                {
                    out.push_str(text.get(copied..at).unwrap_or_default());
                    out.push_str(&format!("\"{number}\\u{:04x}{printed}\"", u32::from(NUMBER_MARK)));
                    copied = end;
                }
                at = end;
            }
            b'{' | b'[' | b'}' | b']' | b',' | b':' => {
                last = *byte;
                match byte {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                at += 1;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

/// Returns a recipient's text without any [`NUMBER_MARK`] that [`read`] did not add.
pub fn without_foreign_mark(text: &str) -> Cow<'_, str> {
    match text.split_once(NUMBER_MARK) {
        Some((number, printed)) if printed_otherwise(number).as_deref() == Some(printed) => {
            Cow::Borrowed(text)
        }
        Some(_) => Cow::Owned(text.replace(NUMBER_MARK, "")),
        None => Cow::Borrowed(text),
    }
}

/// Returns a number as it is printed, if that differs from how it was written.
fn printed_otherwise(number: &str) -> Option<String> {
    let read: Number = serde_json::from_str(number).ok()?;
    Some(read.to_string()).filter(|printed| printed != number)
}

/// The place of a value in a document.
struct Place<'a> {
    above: Option<&'a Place<'a>>,
    name: Cow<'a, str>,
}

impl Place<'_> {
    fn pointer(&self) -> String {
        self.above.map_or_else(String::new, |above| step(&above.pointer(), &self.name))
    }
}

/// Reads a value. A duplicate name is stored in `twice`, and stops the parser.
struct Strict<'a> {
    place: &'a Place<'a>,
    twice: &'a RefCell<Option<Problem>>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let place = Place { above: Some(self.place), name: Cow::Owned(list.len().to_string()) };
            match items.next_element_seed(Strict { place: &place, twice: self.twice })? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            if map.contains_key(&name) {
                let message = format!("{} occurs twice in this object; remove one", quoted(&name));
                *self.twice.borrow_mut() = Some(Problem::new(self.place.pointer(), message));
                return Err(A::Error::custom("a name occurs twice"));
            }
            let place = Place { above: Some(self.place), name: Cow::Borrowed(&name) };
            let value = fields.next_value_seed(Strict { place: &place, twice: self.twice })?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(text: &str) -> Value {
        read(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_number_beyond_64_bits_keeps_its_digits() {
        assert_eq!(value("18446744073709551615"), json!(18_446_744_073_709_551_615_u64));
        assert_eq!(value("-9223372036854775808"), json!(-9_223_372_036_854_775_808_i64));
        assert_eq!(value("[18446744073709551616, 1]"), json!(["18446744073709551616", 1]));
        let digits = "1234567890123456789012345678901234567890";
        assert_eq!(
            value(&format!(r#"{{"a":{digits},"b":-{digits}}}"#)),
            json!({ "a": digits, "b": format!("-{digits}") })
        );
        // Texts are unchanged, whatever precedes them.
        let text = format!(r#"{{"a\\\"":"x\"{digits}","b":"{digits}"}}"#);
        assert_eq!(value(&text), serde_json::from_str::<Value>(&text).unwrap());
        assert_eq!(
            value("[1.5e3, 0.1, -0, 123456789012345678901234567890.5]"),
            serde_json::from_str::<Value>("[1.5e3, 0.1, -0, 123456789012345678901234567890.5]").unwrap()
        );
        for wrong in [
            "00000000000000000000000000000000",
            "--99999999999999999999999",
            "99999999999999999999999 1",
            "-",
            "[-]",
            "[1,",
            "\"\\",
        ] {
            assert!(read(wrong.as_bytes()).unwrap_err().message.starts_with("is not JSON"), "{wrong}");
        }
    }

    #[test]
    fn numbers_of_recipients_keep_their_notation() {
        let job = |value: &str| {
            let text = format!(
                r#"{{"a":[{value}],"audience":{{"x":{value},"recipients":[{{"phone":"1","sum":{value}}}]}}}}"#
            );
            super::read(text.as_bytes()).unwrap()
        };
        for (written, kept) in [
            ("1499.00", json!("1499.00\u{1f}1499.0")),
            ("1e3", json!("1e3\u{1f}1000.0")),
            ("-0.50", json!("-0.50\u{1f}-0.5")),
            ("1499", json!(1499)),
            ("0.5", json!(0.5)),
            ("123456789012345678901", json!("123456789012345678901")),
        ] {
            let read = job(written);
            assert_eq!(read["audience"]["recipients"][0]["sum"], kept, "{written}");
            assert_eq!(
                (&read["a"][0], &read["audience"]["x"]),
                (&value(written), &value(written)),
                "{written}"
            );
        }
    }

    #[test]
    fn a_name_that_occurs_twice_is_refused_with_its_place() {
        let error = |text: &str| read(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            error(r#"{"id":"a","name":"x","id":"b"}"#),
            r#"the job: "id" occurs twice in this object; remove one"#
        );
        assert_eq!(
            error(r#"{"audience":{"recipients":[{"phone":"1"},{"phone":"2","phone":"3"}]}}"#),
            r#"audience recipient 2: "phone" occurs twice in this object; remove one (/audience/recipients/1)"#
        );
        assert_eq!(
            error(r#"{"+919876543210":1,"+919876543210":1}"#),
            "the job: this value occurs twice in this object; remove one"
        );
    }

    proptest::proptest! {
        #[test]
        fn every_other_document_is_read_as_by_serde_json(text in "([\\[\\]{},:]|\"[a-z\\\\\"]{0,3}\"|[0-9eE.+-]{1,5}|true|null| ){0,12}") {
            let (own, theirs) = (read(text.as_bytes()), serde_json::from_str::<Value>(&text));
            match own {
                Ok(value) => proptest::prop_assert_eq!(Some(value), theirs.ok()),
                Err(problem) => proptest::prop_assert!(theirs.is_err() || problem.message.contains("twice"), "{}", problem),
            }
        }
    }
}
