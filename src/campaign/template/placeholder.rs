//! Renders simple placeholders without Jinja: a column or flowcast's own value, with a default and common filters.

use std::borrow::Cow;

use serde_json::Value;
use unicode_ident::{is_xid_continue, is_xid_start};

use super::bounds::{TOO_LONG, VALUE};
use super::title_case::{title, title_ascii};
use super::{Cause, json_text::write_text, source::Source};
use crate::campaign::batch::{Field, Recipient, shown_and_number};
use crate::campaign::rules::Whitespace;

/// `{{ source | default("…") | filter }}`.
pub(super) struct Placeholder {
    source: Source,
    name: String,
    default: Option<String>,
    filters: Vec<Filter>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Filter {
    Title,
    Upper,
    Lower,
    Trim,
}

/// Parses `name`, `name | default("…")` and the supported filters.
pub(super) fn simple(inner: &str) -> Option<(&str, Option<String>, Vec<Filter>)> {
    let inner = inner.trim();
    let end = inner.find(|c: char| !is_xid_continue(c)).unwrap_or(inner.len());
    let (name, mut rest) = inner.split_at(end);
    let reserved = ["true", "false", "none", "True", "False", "None", "not", "loop", "self"];
    let begins_well = |c: char| is_xid_start(c) || c == '_';
    if !name.starts_with(begins_well) || reserved.contains(&name) {
        return None;
    }
    let (mut default, mut filters) = (None, Vec::new());
    while !rest.trim_start().is_empty() {
        rest = rest.trim_start().strip_prefix('|')?.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        match word {
            // A default after a filter does not apply to a missing value: leave it to Jinja.
            "default" if default.is_none() && filters.is_empty() => {
                let argument = rest.trim_start().strip_prefix('(')?.trim_start();
                let quote = argument.chars().next().filter(|c| matches!(c, '"' | '\''))?;
                let (text, after) = argument[1..].split_once(quote)?;
                if text.contains('\\') {
                    return None;
                }
                default = Some(text.into());
                rest = after.trim_start().strip_prefix(')')?;
            }
            "title" => filters.push(Filter::Title),
            "upper" => filters.push(Filter::Upper),
            "lower" => filters.push(Filter::Lower),
            "trim" => filters.push(Filter::Trim),
            _ => return None,
        }
    }
    Some((name, default, filters))
}

/// Maximum length of flowcast's own values (number, row, campaign, reference), in bytes.
const LONGEST_OWN: usize = 100;

impl Placeholder {
    /// Creates a placeholder.
    pub(super) fn new(source: Source, name: &str, default: Option<String>, filters: Vec<Filter>) -> Self {
        Self { source, name: name.into(), default, filters }
    }

    /// Returns the value as text.
    pub(super) fn text<'r>(&'r self, recipient: &Recipient<'r>) -> Result<Cow<'r, str>, Cause> {
        if self.source.length(recipient) > VALUE {
            return Err(Cause::Failed(TOO_LONG.into()));
        }
        let found = self.source.text(recipient);
        let mut text = match (found, &self.default) {
            (Some(text), _) => text,
            (None, Some(default)) => Cow::Borrowed(default.as_str()),
            (None, None) => return Err(Cause::Missing(Some(self.name.clone()))),
        };
        for filter in &self.filters {
            text = match filter {
                Filter::Title => title(&text).into(),
                Filter::Upper => text.to_uppercase().into(),
                Filter::Lower => text.to_lowercase().into(),
                Filter::Trim => text.trim().to_owned().into(),
            };
        }
        Ok(text)
    }

    /// Writes the value, escaped for JSON, and returns its length in characters. Common values are written without an
    /// intermediate string.
    pub(super) fn write(&self, recipient: &Recipient<'_>, out: &mut Vec<u8>) -> Result<usize, Cause> {
        let start = out.len();
        match (self.source, self.filters.as_slice()) {
            (Source::Recipient, []) => {
                out.push(b'+');
                out.extend_from_slice(itoa::Buffer::new().format(recipient.phone.digits()).as_bytes());
                return Ok(out.len() - start);
            }
            (Source::MessageRef, []) => {
                recipient.write_ref(out);
                return Ok(out.len() - start);
            }
            (Source::Column(place), [Filter::Title]) => {
                if let Field::Text(text) = recipient.field(place)
                    && text.len() <= VALUE
                    && text.is_ascii()
                {
                    let length = write_text(text, out);
                    if out.len() - start == text.len() {
                        title_ascii(&mut out[start..]);
                        return Ok(length);
                    }
                    // Title case must not change the letters of an escape.
                    out.truncate(start);
                }
            }
            _ => {}
        }
        Ok(write_text(&self.text(recipient)?, out))
    }

    /// Returns whether a column's value contains nothing that Meta rejects in a template's parameter.
    pub(super) fn is_one_line(&self, recipient: &Recipient<'_>) -> bool {
        let Source::Column(place) = self.source else { return true };
        match recipient.field(place) {
            Field::Text(text) | Field::Number(text, _) => !Whitespace::is_refused(text),
            Field::Empty => true,
            Field::Json(_) => false,
        }
    }

    /// Returns the maximum number of bytes of the value, if it is certain to be a non-empty text.
    pub(super) fn surely(&self, recipient: &Recipient<'_>) -> Option<usize> {
        let length = match self.source {
            Source::Column(place) => match (recipient.field(place), &self.default) {
                (Field::Text(text) | Field::Number(text, _), _) => text.len(),
                (Field::Empty, Some(default)) => default.len(),
                _ => return None,
            },
            _ => LONGEST_OWN,
        };
        let stays = self.filters.iter().all(|filter| *filter != Filter::Trim);
        // A change of case turns a character into at most three.
        let grows = if self.filters.is_empty() { 1 } else { 3 };
        (stays && (1..=VALUE).contains(&length)).then_some(grows * length)
    }

    /// Returns a JSON number as it was written, if that differs from its value and no filter applies.
    pub(super) fn written_number(&self, recipient: &Recipient<'_>) -> Option<String> {
        if !self.filters.is_empty() || !self.is_json(recipient) {
            return None;
        }
        let value = self.source.value(recipient)?;
        let (shown, number) = shown_and_number(value.as_str()?);
        number.map(|_| shown.to_owned())
    }

    /// Returns the value with its type, if it is not a text.
    pub(super) fn typed(&self, recipient: &Recipient<'_>) -> Option<Value> {
        if self.source.length(recipient) > VALUE {
            return None;
        }
        let keeps_type = self.filters.is_empty() && (self.source == Source::Row || self.is_json(recipient));
        keeps_type.then(|| self.source.value(recipient)).flatten().filter(|value| !value.is_string())
    }

    /// Returns whether its value is a text whenever the audience's values are.
    pub(super) fn is_text(&self) -> bool {
        self.source != Source::Row
    }

    fn is_json(&self, recipient: &Recipient<'_>) -> bool {
        matches!(self.source, Source::Column(place) if matches!(recipient.field(place), Field::Json(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_placeholders_are_read_and_others_left_to_jinja() {
        let read = |text| simple(text).map(|(name, default, filters)| (name, default, filters.len()));
        assert_eq!(read(" name "), Some(("name", None, 0)));
        assert_eq!(read("name|default('x')|title"), Some(("name", Some("x".into()), 1)));
        assert_eq!(read(" a | upper | trim "), Some(("a", None, 2)));
        for jinja in
            ["", "1", "a + b", "a.b", "a|int", "a|title|default('x')", "- a -", "a|default(b)", "true", "f()"]
        {
            assert_eq!(read(jinja), None, "{jinja}");
        }
    }
}
