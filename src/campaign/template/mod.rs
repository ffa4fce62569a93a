//! Templates of messages, compiled once per campaign and rendered directly to bytes.
//!
//! The constant JSON is serialised once and split at the placeholders. A message is these pieces and its values,
//! escaped into the request's body. Limits of strings are checked while they are rendered; the other rules are
//! checked on the rendered message.

mod bounds;
mod compile;
mod envelope;
mod expression;
mod json_text;
mod lists;
mod numbers;
mod operations;
mod placeholder;
mod rewrite;
mod source;
mod syntax;
mod title_case;
mod tokens;
mod value_error;

use std::sync::Arc;

use minijinja::Environment;
use serde_json::Value;

use super::rules::{self, Limit, Whitespace, too_long};
use super::{batch::Recipient, capability::Callbacks, content::CONTENT, state::SkipReason};
pub use envelope::Envelope;
use expression::{Piece, Text, evaluate};
use json_text::{write_quoted, write_value};
pub use rewrite::conditions;

/// Maximum size of a message, in bytes, far above any provider's limit. A request has up to a hundred messages.
const MESSAGE: usize = 64 * 1024;

/// A compiled message.
pub struct Template {
    ops: Vec<Op>,
    jinja: Environment<'static>,
    columns: Vec<usize>,
    callbacks: Option<Arc<Callbacks>>,
    /// The place of the content, if it must be checked after rendering.
    check: Option<RenderedCheck>,
}

struct RenderedCheck {
    pointer: &'static str,
    beside: &'static [&'static str],
}

enum Op {
    /// Bytes of JSON.
    Constant(Box<[u8]>),
    /// The callback address for the message's reports.
    Callback,
    /// A string with placeholders.
    Text { text: Text, limit: Limit, pointer: String },
}

impl Op {
    /// Returns the minimum number of bytes that it writes.
    fn least_bytes(&self) -> usize {
        match self {
            Self::Constant(bytes) => bytes.len(),
            Self::Callback => 0,
            Self::Text { text, .. } => text.least_length(),
        }
    }
}

/// Why a recipient is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// The reason in the contract.
    pub reason: SkipReason,
    /// The pointer, the rule and the value's length; never the value.
    pub detail: String,
}

/// Why a placeholder could not be rendered.
enum Cause {
    /// This column, or another value of the expression, is empty and has no default.
    Missing(Option<String>),
    Failed(String),
}

impl Template {
    /// Returns the audience's columns that are used, in the order of a batch's values.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Appends a recipient's message to `out`. On an error `out` is unchanged.
    ///
    /// # Errors
    ///
    /// Why this recipient is skipped.
    pub fn render(&self, recipient: &Recipient<'_>, out: &mut Vec<u8>) -> Result<(), Skip> {
        let start = out.len();
        // The callback address is the operator's and does not count towards the size of a message.
        let mut address = 0;
        let rendered = self.ops.iter().try_for_each(|op| match op {
            Op::Constant(bytes) => {
                out.extend_from_slice(bytes);
                Ok(())
            }
            Op::Callback => {
                if let Some(callbacks) = &self.callbacks {
                    let before = out.len();
                    write_quoted(
                        &format!("{}{}", callbacks.base(), callbacks.seal(&recipient.message_ref())),
                        out,
                    );
                    address = out.len() - before;
                }
                Ok(())
            }
            Op::Text { text, limit, pointer } => self
                .limited(text, limit, pointer, recipient, out)
                .and_then(|()| check_size(out.len() - start - address)),
        });
        let rendered =
            rendered.and_then(|()| self.check.as_ref().map_or(Ok(()), |check| check.whole(&out[start..])));
        if rendered.is_err() {
            out.truncate(start);
        }
        rendered
    }

    /// Returns the rendered text at a pointer into the job, for one recipient; `None` if it has no placeholders.
    pub fn text_at(&self, pointer: &str, recipient: &Recipient<'_>) -> Option<String> {
        let is_there = |op: &&Op| matches!(op, Op::Text { pointer: at, .. } if at == pointer);
        let Op::Text { text, limit, pointer } = self.ops.iter().find(is_there)? else { return None };
        let mut out = Vec::new();
        self.limited(text, limit, pointer, recipient, &mut out).ok()?;
        serde_json::from_slice(&out).ok()
    }

    /// Checks whether a recipient's message can be rendered. Renders only the strings with placeholders if these
    /// decide; `scratch` is a buffer for that.
    ///
    /// # Errors
    ///
    /// Why this recipient is skipped: the same as of [`Template::render`].
    pub fn check(&self, recipient: &Recipient<'_>, scratch: &mut Vec<u8>) -> Result<(), Skip> {
        scratch.clear();
        if self.check.is_some() {
            return self.render(recipient, scratch);
        }
        if self.surely_fits(recipient) {
            return Ok(());
        }
        let mut size = 0;
        for op in &self.ops {
            match op {
                Op::Constant(bytes) => size += bytes.len(),
                Op::Callback => {}
                Op::Text { text, limit, pointer } => {
                    scratch.clear();
                    self.limited(text, limit, pointer, recipient, scratch)?;
                    size += scratch.len();
                    check_size(size)?;
                }
            }
        }
        Ok(())
    }

    /// Returns whether the lengths of the values alone prove that a recipient's message is valid.
    fn surely_fits(&self, recipient: &Recipient<'_>) -> bool {
        /// Maximum number of JSON bytes for a byte of a value.
        const ESCAPED: usize = 6;
        let mut size = 0;
        self.ops.iter().all(|op| match op {
            Op::Constant(bytes) => {
                size += bytes.len();
                size <= MESSAGE
            }
            Op::Callback => true,
            Op::Text { text, limit, .. } => {
                let mut length = 0;
                let fits = match text {
                    Text::Pieces(pieces) => pieces.iter().all(|piece| match piece {
                        Piece::Constant(bytes, characters) => {
                            size += bytes.len();
                            length += characters;
                            limit.whitespace.is_none() || !may_be_refused(bytes)
                        }
                        Piece::Placeholder(placeholder) => {
                            placeholder.surely(recipient).is_some_and(|most| {
                                size += ESCAPED * most;
                                length += most;
                                limit.whitespace.is_none() || placeholder.is_one_line(recipient)
                            })
                        }
                    }),
                    Text::Alone(placeholder) => {
                        placeholder.is_text()
                            && placeholder.surely(recipient).is_some_and(|most| {
                                size += ESCAPED * most;
                                length += most;
                                true
                            })
                    }
                    Text::Jinja(_) => false,
                };
                fits && size <= MESSAGE && (limit.max == 0 || length <= limit.max)
            }
        })
    }

    /// Writes a string and checks its limit.
    fn limited(
        &self,
        text: &Text,
        limit: &Limit,
        pointer: &str,
        recipient: &Recipient<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Skip> {
        let start = out.len();
        let mut length = self.text(text, recipient, out).map_err(|cause| cause.skip(pointer))?;
        if let Some(whitespace) = limit.whitespace
            && let Some(written) = out.get(start..).filter(|written| may_be_refused(written))
            && let Ok(value) = serde_json::from_slice::<String>(written)
            && Whitespace::is_refused(&value)
        {
            if whitespace == Whitespace::Refuse {
                let detail = format!("the value {} ({pointer})", Whitespace::REFUSED_WHITESPACE);
                return Err(Skip { reason: SkipReason::InvalidContent, detail });
            }
            out.truncate(start);
            length = Some(write_quoted(&Whitespace::joined(&value), out));
        }
        check_length(length, limit, pointer)
    }

    /// Writes a string and returns its length in characters; `None` if the value is not a string.
    fn text(
        &self,
        text: &Text,
        recipient: &Recipient<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, Cause> {
        match text {
            Text::Pieces(pieces) => {
                out.push(b'"');
                let mut length = 0;
                for piece in pieces {
                    length += match piece {
                        Piece::Constant(bytes, length) => {
                            out.extend_from_slice(bytes);
                            *length
                        }
                        Piece::Placeholder(placeholder) => placeholder.write(recipient, out)?,
                    };
                }
                out.push(b'"');
                Ok(Some(length))
            }
            Text::Alone(placeholder) => {
                if let Some(written) = placeholder.written_number(recipient) {
                    out.extend_from_slice(written.as_bytes());
                    return Ok(None);
                }
                if let Some(value) = placeholder.typed(recipient) {
                    return Ok(write_value(&value, out));
                }
                out.push(b'"');
                let length = placeholder.write(recipient, out)?;
                out.push(b'"');
                Ok(Some(length))
            }
            Text::Jinja(expression) => Ok(write_value(&evaluate(&self.jinja, expression, recipient)?, out)),
        }
    }
}

impl RenderedCheck {
    /// Checks the rendered content against the rules.
    fn whole(&self, message: &[u8]) -> Result<(), Skip> {
        let error = |detail| Skip { reason: SkipReason::InvalidContent, detail };
        let mut message: Value =
            serde_json::from_slice(message).map_err(|fault_| error(fault_.to_string()))?;
        let mut content = message.pointer_mut(self.pointer).map(Value::take).unwrap_or_default();
        if let Some(content) = content.as_object_mut() {
            content.retain(|name, _| !self.beside.contains(&name.as_str()));
        }
        match rules::check_rendered(&CONTENT, &content, "/message").into_iter().next() {
            Some(problem) => Err(error(problem.to_string())),
            None => Ok(()),
        }
    }
}

/// Returns whether an escaped parameter may contain what Meta rejects: an escape, or spaces in a row.
fn may_be_refused(written: &[u8]) -> bool {
    memchr::memchr(b'\\', written).is_some() || memchr::memmem::find(written, b"     ").is_some()
}

fn check_size(bytes: usize) -> Result<(), Skip> {
    if bytes <= MESSAGE {
        return Ok(());
    }
    let detail = format!("the message is longer than {MESSAGE} bytes with this row's values");
    Err(Skip { reason: SkipReason::InvalidContent, detail })
}

fn check_length(length: Option<usize>, limit: &Limit, pointer: &str) -> Result<(), Skip> {
    let error = match length {
        Some(0) if !limit.may_be_empty => "is empty".into(),
        Some(length) if limit.max > 0 && length > limit.max => too_long(length, limit.max, limit.source),
        _ => return Ok(()),
    };
    Err(Skip { reason: SkipReason::InvalidContent, detail: format!("the text {error} ({pointer})") })
}

impl Cause {
    fn skip(self, pointer: &str) -> Skip {
        match self {
            Self::Missing(name) => Skip {
                reason: SkipReason::MissingVariable,
                detail: match name {
                    Some(name) => format!("the column {name} is empty and has no default ({pointer})"),
                    None => format!("a value of the expression is missing and has no default ({pointer})"),
                },
            },
            Self::Failed(error) => Skip {
                reason: SkipReason::InvalidContent,
                detail: format!("cannot render the text: {error} ({pointer})"),
            },
        }
    }
}

#[cfg(test)]
mod tests;
