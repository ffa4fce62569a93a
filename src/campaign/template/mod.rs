//! Messages with placeholders, compiled once a campaign and rendered straight to bytes.
//!
//! The constant JSON is serialised once and cut at the placeholders. A message is those pieces and
//! its values, escaped into the request's body. Limits that depend on values are checked as they
//! are filled; what only the whole can tell is checked on the whole.

mod bounds;
mod expression;
mod numbers;
mod operators;

use std::collections::HashMap;
use std::sync::Arc;

use minijinja::Environment;
use serde_json::Value;

use super::batch::Recipient;
use super::capability::Callbacks;
use super::columns::{BUILT_IN, Columns};
use super::content::CONTENT;
use super::problem::{Problem, Problems, step};
use super::rules::{self, Limit, Whitespace, is_template, too_long};
use super::state::SkipReason;
use expression::{Compiler, Piece, Text, evaluate};
pub use operators::conditions;

/// The most bytes of a message, far above what any provider takes. A request holds up to a hundred.
const MESSAGE: usize = 64 * 1024;

/// A compiled message.
pub struct Template {
    ops: Vec<Op>,
    jinja: Environment<'static>,
    columns: Vec<usize>,
    callbacks: Option<Arc<Callbacks>>,
    /// Where the content stands, when it must be checked whole.
    check: Option<RenderedCheck>,
}

struct RenderedCheck {
    pointer: &'static str,
    beside: &'static [&'static str],
}

enum Op {
    /// Bytes of JSON.
    Constant(Box<[u8]>),
    /// The address that the message's reports come to.
    Callback,
    /// A string with placeholders.
    Text { text: Text, limit: Limit, pointer: String },
}

impl Op {
    /// How many bytes it writes at the least.
    fn least_bytes(&self) -> usize {
        match self {
            Self::Constant(bytes) => bytes.len(),
            Self::Callback => 0,
            Self::Text { text, .. } => text.least_length(),
        }
    }
}

/// Why a recipient gets no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// The reason in the contract.
    pub reason: SkipReason,
    /// The pointer, the rule and the value's length; never the value.
    pub detail: String,
}

/// Why a placeholder could not be filled.
enum Cause {
    /// The column is empty and has no default.
    Missing(String),
    Failed(String),
}

/// A message as a provider wants it, and where the job's own parts stand in it.
pub struct Envelope {
    /// The message, with the job's strings and `{{ recipient }}` in their places.
    value: Value,
    /// The pointer of the content in `value`.
    content: &'static str,
    /// Fields that stand among the content's own and are none.
    beside: &'static [&'static str],
    /// Further strings that stand elsewhere than in the job: the pointer here, and there.
    pub moved: Vec<(&'static str, &'static str)>,
    /// Where each message's own callback address goes, if anywhere.
    pub callback_at: Option<&'static str>,
    /// What the provider allows the strings beyond the content, by pointer into the message.
    pub limits: Vec<(&'static str, Limit)>,
}

impl Envelope {
    /// A message whose content stands at a pointer, among fields that are no content.
    pub fn new(value: Value, content: &'static str, beside: &'static [&'static str]) -> Self {
        Self { value, content, beside, moved: Vec::new(), callback_at: None, limits: Vec::new() }
    }

    /// Where in the job a string of the message stands.
    fn place_in_job(&self, pointer: &str) -> String {
        if let Some((_, place)) = self.moved.iter().find(|(here, _)| *here == pointer) {
            return (*place).into();
        }
        match pointer.strip_prefix(self.content) {
            Some(rest) => format!("/message{rest}"),
            None => pointer.into(),
        }
    }
}

impl Template {
    /// Compiles a message. `limits` are those of the job's strings, by pointer into the job.
    ///
    /// # Errors
    ///
    /// Each string whose placeholders are wrong or name no column, by pointer into the job.
    pub fn compile(
        envelope: &Envelope,
        limits: &[(String, Limit)],
        check_rendered: bool,
        columns: &Columns,
        callbacks: Option<Arc<Callbacks>>,
    ) -> Result<Self, Vec<Problem>> {
        // A message may hold as many strings as its sender likes.
        let limits: HashMap<&str, Limit> =
            limits.iter().map(|(known, limit)| (known.as_str(), *limit)).collect();
        let mut compiler = Compiler::new(columns);
        let callback_at = envelope.callback_at.filter(|_| callbacks.is_some());
        let mut builder = Builder { callback_at, ..Builder::default() };
        builder.value(&envelope.value, "", &mut |text, place| {
            let pointer = envelope.place_in_job(place);
            let own = envelope.limits.iter().find(|(known, _)| *known == place).map(|(_, limit)| *limit);
            let limit = limits.get(pointer.as_str()).copied();
            let limit = own.or(limit).unwrap_or(Limit::FREE);
            match compiler.compile(text, limit.is_text) {
                // Too long before any value is filled in: no recipient could get it.
                Ok(text) if limit.max > 0 && text.least_length() > limit.max => {
                    let fault = too_long(text.least_length(), limit.max, limit.source);
                    Err(Problem::new(pointer, format!("even without its values it {fault}")))
                }
                Ok(text) => Ok(Op::Text { text, limit, pointer }),
                Err(fault) => Err(Problem::new(pointer, fault)),
            }
        });
        builder.flush();
        if builder.least_bytes > MESSAGE {
            let fault = format!("is longer than {MESSAGE} bytes without its values; no message is");
            builder.problems.add(Problem::new("/message", fault));
        }
        builder.problems.or(())?;
        let too_long_already = envelope.limits.iter().filter_map(|(place, limit)| {
            let text = envelope.value.pointer(place)?.as_str().filter(|text| !is_template(text))?;
            let length = text.chars().count();
            let fault = || too_long(length, limit.max, limit.source);
            (length > limit.max).then(|| Problem::new(envelope.place_in_job(place), fault()))
        });
        let problems: Vec<Problem> = too_long_already.collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let check =
            check_rendered.then_some(RenderedCheck { pointer: envelope.content, beside: envelope.beside });
        Ok(Self { ops: builder.ops, jinja: compiler.jinja, columns: compiler.used, callbacks, check })
    }

    /// What a job's texts name that could be a column of its audience as well as flowcast's own: `row`, `recipient`.
    pub fn ambiguous(texts: &Value, pointer: &str, columns: &Columns) -> Vec<Problem> {
        match texts {
            Value::String(text) => {
                let is_both = |name: &&str| BUILT_IN.contains(name) && columns.find(name).is_ok();
                let named = operators::names(text).into_iter().find(is_both);
                let problem = named.map(|name| {
                    let why = format!("{{{{ {name} }}}} could be the audience's column or flowcast's own value; rename the column");
                    Problem::new(pointer, why)
                });
                problem.into_iter().collect()
            }
            Value::Array(items) => {
                let of = |(nth, item): (usize, &Value)| {
                    Self::ambiguous(item, &step(pointer, &nth.to_string()), columns)
                };
                items.iter().enumerate().flat_map(of).collect()
            }
            Value::Object(fields) => fields
                .iter()
                .flat_map(|(name, field)| Self::ambiguous(field, &step(pointer, name), columns))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The columns of the audience that are needed, in the order in which a batch has their values.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Appends a recipient's message to `out`. On an error `out` is as it was.
    ///
    /// # Errors
    ///
    /// Why this recipient gets no message.
    pub fn render(&self, recipient: &Recipient<'_>, out: &mut Vec<u8>) -> Result<(), Skip> {
        let start = out.len();
        // The address of reports is the operator's, and counts against nobody's message.
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

    /// The finished text that stands at a place in the job, for one recipient. `None` where none with placeholders does.
    pub fn text_at(&self, pointer: &str, recipient: &Recipient<'_>) -> Option<String> {
        let is_there = |op: &&Op| matches!(op, Op::Text { pointer: at, .. } if at == pointer);
        let Op::Text { text, limit, pointer } = self.ops.iter().find(is_there)? else { return None };
        let mut out = Vec::new();
        self.limited(text, limit, pointer, recipient, &mut out).ok()?;
        serde_json::from_slice(&out).ok()
    }

    /// Whether a recipient's message can be rendered. Fills the strings that wait for values and nothing
    /// else, where those alone decide; `scratch` is room for that.
    ///
    /// # Errors
    ///
    /// Why this recipient gets no message: what [`Template::render`] would say.
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

    /// Whether nothing can be wrong with a recipient's message, told by the lengths of its values alone.
    fn surely_fits(&self, recipient: &Recipient<'_>) -> bool {
        /// A byte of a value is at most so many of JSON.
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

    /// Writes a string, held to its limit.
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
                let detail = format!("the value {} ({pointer})", Whitespace::REFUSED);
                return Err(Skip { reason: SkipReason::InvalidContent, detail });
            }
            out.truncate(start);
            length = Some(write_quoted(&Whitespace::joined(&value), out));
        }
        check_length(length, limit, pointer)
    }

    /// Writes a string and tells its length in characters, `None` where the value is no string.
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
    /// Holds the whole rendered content against the rules.
    fn whole(&self, message: &[u8]) -> Result<(), Skip> {
        let fault = |detail| Skip { reason: SkipReason::InvalidContent, detail };
        let mut message: Value =
            serde_json::from_slice(message).map_err(|fault_| fault(fault_.to_string()))?;
        let mut content = message.pointer_mut(self.pointer).map(Value::take).unwrap_or_default();
        if let Some(content) = content.as_object_mut() {
            content.retain(|name, _| !self.beside.contains(&name.as_str()));
        }
        match rules::check_rendered(&CONTENT, &content, "/message").into_iter().next() {
            Some(problem) => Err(fault(problem.to_string())),
            None => Ok(()),
        }
    }
}

/// Whether a written parameter may hold what Meta refuses: an escape, or spaces in a row.
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
    let fault = match length {
        Some(0) if !limit.may_be_empty => "is empty".into(),
        Some(length) if limit.max > 0 && length > limit.max => too_long(length, limit.max, limit.source),
        _ => return Ok(()),
    };
    Err(Skip { reason: SkipReason::InvalidContent, detail: format!("the text {fault} ({pointer})") })
}

impl Cause {
    fn skip(self, pointer: &str) -> Skip {
        match self {
            Self::Missing(name) => Skip {
                reason: SkipReason::MissingVariable,
                detail: format!("the column {name} is empty and has no default ({pointer})"),
            },
            Self::Failed(fault) => Skip {
                reason: SkipReason::InvalidContent,
                detail: format!("the text can't be filled: {fault} ({pointer})"),
            },
        }
    }
}

/// Cuts a JSON value into constants and strings with placeholders.
#[derive(Default)]
struct Builder {
    /// Where the callback address goes.
    callback_at: Option<&'static str>,
    ops: Vec<Op>,
    constant: Vec<u8>,
    /// How many bytes the message has at the least.
    least_bytes: usize,
    problems: Problems,
}

impl Builder {
    fn value(
        &mut self,
        value: &Value,
        pointer: &str,
        compile: &mut impl FnMut(&str, &str) -> Result<Op, Problem>,
    ) {
        if self.least_bytes + self.constant.len() > MESSAGE {
            return;
        }
        match value {
            Value::Object(map) => {
                self.constant.push(b'{');
                for (index, (key, value)) in map.iter().enumerate() {
                    if index > 0 {
                        self.constant.push(b',');
                    }
                    write_quoted(key, &mut self.constant);
                    self.constant.push(b':');
                    self.value(value, &step(pointer, key), compile);
                }
                self.constant.push(b'}');
            }
            Value::Array(items) => {
                self.constant.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.constant.push(b',');
                    }
                    self.value(item, &step(pointer, &index.to_string()), compile);
                }
                self.constant.push(b']');
            }
            Value::String(_) if self.callback_at == Some(pointer) => {
                self.flush();
                self.ops.push(Op::Callback);
            }
            Value::String(text) if is_template(text) => match compile(text, pointer) {
                Ok(op) => {
                    self.flush();
                    self.least_bytes += op.least_bytes();
                    self.ops.push(op);
                }
                Err(problem) => self.problems.add(problem),
            },
            constant => {
                write_value(constant, &mut self.constant);
            }
        }
    }

    fn flush(&mut self) {
        if !self.constant.is_empty() {
            self.ops.push(Op::Constant(std::mem::take(&mut self.constant).into()));
        }
    }
}

/// Writes a value as JSON and tells its length in characters where it is a string.
fn write_value(value: &Value, out: &mut Vec<u8>) -> Option<usize> {
    match value {
        Value::String(text) => Some(write_quoted(text, out)),
        other => {
            out.extend_from_slice(other.to_string().as_bytes());
            None
        }
    }
}

fn write_quoted(text: &str, out: &mut Vec<u8>) -> usize {
    out.push(b'"');
    let length = write_text(text, out);
    out.push(b'"');
    length
}

/// Escapes a text for JSON, without quotes, and tells its length in characters.
fn write_text(text: &str, out: &mut Vec<u8>) -> usize {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut start = 0;
    let mut length = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        // Every byte begins a character but the continuation bytes 10xxxxxx.
        length += usize::from(byte & 0xC0 != 0x80);
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[start..at]);
        start = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
    }
    out.extend_from_slice(&bytes[start..]);
    length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::campaign::batch::{Batch, shown_and_number};

    fn compile(content: &Value, columns: &[&str]) -> Result<Template, Vec<Problem>> {
        let findings = rules::check(&CONTENT, content, "/message");
        assert_eq!(findings.problems.into_list(), []);
        let value = json!({ "to": "{{ recipient }}", "content": content });
        let envelope = Envelope::new(value, "/content", &[]);
        let columns = Columns::new(columns.iter().map(ToString::to_string).collect());
        Template::compile(&envelope, &findings.limits, findings.check_rendered, &columns, None)
    }

    fn body(text: &str) -> Value {
        json!({ "type": "text", "text": { "body": text } })
    }

    fn row(template: &Template, values: &[&str], json: bool) -> Batch {
        let mut batch = Batch::new("c".parse().unwrap(), 7, template.columns().len(), json);
        let used = template.columns().iter().map(|column| values[*column]);
        batch.push(12, "+919876543210".parse().unwrap(), used);
        batch
    }

    fn render(template: &Template, values: &[&str]) -> Result<Value, Skip> {
        let mut out = b"before".to_vec();
        let rendered = template.render(&row(template, values, false).recipient(0).unwrap(), &mut out);
        rendered.inspect_err(|_| assert_eq!(out, b"before"))?;
        Ok(serde_json::from_slice(&out[6..]).unwrap())
    }

    fn rendered_body(text: &str, columns: &[&str], values: &[&str]) -> Result<Value, Skip> {
        render(&compile(&body(text), columns).unwrap(), values).map(|m| m["content"]["text"]["body"].clone())
    }

    #[test]
    fn placeholders_are_filled() {
        let text = "Dear {{ name | default(\"there\") | title }}, row {{ row }} of {{ campaign_id }}: {{ message_ref }}";
        let values = ["ASHA rao"];
        assert_eq!(rendered_body(text, &["name"], &values).unwrap(), "Dear Asha Rao, row 12 of c: c.7.0");
        assert_eq!(rendered_body(text, &["name"], &[" "]).unwrap(), "Dear There, row 12 of c: c.7.0");
    }

    #[test]
    fn an_empty_value_without_a_default_skips_the_row() {
        for text in
            ["Hi {{ name }}", "{{ name | title }}", "{{ name ~ '!' }}", "Hi {{ name | replace('a', 'b') }}"]
        {
            let skip = rendered_body(text, &["name"], &[""]).unwrap_err();
            assert_eq!(skip.reason, SkipReason::MissingVariable, "{text}");
            assert_eq!(skip.detail, "the column name is empty and has no default (/message/text/body)");
        }
        let text = "{% if name %}Hi {{ name }}{% else %}Hello{% endif %}";
        assert_eq!(rendered_body(text, &["name"], &[""]).unwrap(), "Hello");
    }

    #[test]
    fn a_column_that_the_audience_lacks_refuses_the_job() {
        let problems = compile(&body("Hi {{ nmae }}"), &["phone", "name"]).err().unwrap();
        assert_eq!(
            problems[0].to_string(),
            r#"message text body: the audience has no column "nmae"; did you mean "name"? (/message/text/body)"#
        );
        let problems = compile(&body("{% if nmae %}x{% endif %}"), &["name"]).err().unwrap();
        assert!(problems[0].message.contains("no column \"nmae\""));
    }

    #[test]
    fn a_template_that_can_not_work_is_refused() {
        for bad in
            ["{{ name", "{{ name | shout }}", "{% if name %}", "{{ 1 + }}", "{{ name(1) }}x{{ nofunc() }}"]
        {
            assert!(compile(&body(bad), &["name"]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_body_over_its_limit_skips_the_row_and_tells_the_length() {
        let template = compile(&body("Hi {{ name }}"), &["name"]).unwrap();
        assert!(render(&template, &["é".repeat(4093).as_str()]).is_ok());
        let skip = render(&template, &["é".repeat(4094).as_str()]).unwrap_err();
        assert_eq!(skip.reason, SkipReason::InvalidContent);
        assert_eq!(
            skip.detail,
            "the text is 4,097 characters long; WhatsApp allows 4,096 (Exotel's documentation) (/message/text/body)"
        );
    }

    #[test]
    fn a_text_that_is_too_long_without_its_values_refuses_the_job() {
        let problems =
            compile(&body(&format!("{}{{{{ name }}}}", "x".repeat(4097))), &["name"]).err().unwrap();
        assert_eq!(
            problems[0].message,
            "even without its values it is 4,097 characters long; WhatsApp allows 4,096 (Exotel's documentation)"
        );
    }

    #[test]
    fn a_link_is_checked_when_it_is_filled() {
        let image = json!({ "type": "image", "image": { "link": "https://x.example/{{ file }}" } });
        let template = compile(&image, &["file"]).unwrap();
        assert!(render(&template, &["a.png"]).is_ok());
        let skip = render(&template, &["a b.png"]).unwrap_err();
        assert!(skip.detail.starts_with("message image link: must be an http"), "{}", skip.detail);
        let bare = json!({ "type": "image", "image": { "link": "{{ file }}" } });
        assert!(render(&compile(&bare, &["file"]).unwrap(), &["ftp://x/y"]).is_err());
    }

    #[test]
    fn one_expression_alone_keeps_its_type() {
        let flow = |data: Value| {
            json!({ "type": "interactive", "interactive": { "type": "flow", "body": { "text": "b" }, "action": {
                "name": "flow", "parameters": { "flow_message_version": "3", "flow_token": "t", "flow_id": "1",
                "flow_cta": "Go", "flow_action": "navigate",
                "flow_action_payload": { "screen": "S", "data": data } } } } })
        };
        let data = "/content/interactive/action/parameters/flow_action_payload/data";
        let template = compile(
            &flow(json!({ "price": "{{ price | int }}", "row": "{{ row }}", "text": "{{ price }}", "x": "n {{ price|int }}" })),
            &["price"],
        )
        .unwrap();
        let message = render(&template, &["7"]).unwrap();
        assert_eq!(message.pointer(data), Some(&json!({ "price": 7, "row": 12, "text": "7", "x": "n 7" })));

        let template = compile(&flow(json!({ "slots": "{{ slots }}" })), &["slots"]).unwrap();
        let mut out = Vec::new();
        let batch = row(&template, &[r#"["10:00","14:00"]"#], true);
        template.render(&batch.recipient(0).unwrap(), &mut out).unwrap();
        let message: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(message.pointer(data), Some(&json!({ "slots": ["10:00", "14:00"] })));
    }

    #[test]
    fn where_a_text_is_asked_for_one_expression_alone_is_a_text() {
        assert_eq!(rendered_body("{{ row }}", &[], &[]).unwrap(), "12");
        assert_eq!(rendered_body("{{ price | int }}", &["price"], &["7"]).unwrap(), "7");
        assert_eq!(rendered_body("{{ name }}", &["name"], &["7"]).unwrap(), "7");
    }

    #[test]
    fn an_endless_template_is_a_skipped_row_and_no_hang() {
        let skip = rendered_body(
            "{% for i in range(9000) %}{% for j in range(9000) %}x{% endfor %}{% endfor %}",
            &[],
            &[],
        );
        assert_eq!(skip.unwrap_err().reason, SkipReason::InvalidContent);
    }

    #[test]
    fn a_template_can_not_build_what_is_larger_than_any_message() {
        for bad in [
            "{% set a = name ~ name %}{{ a }}",
            "{%- macro a() %}{{ a() }}{% endmacro %}",
            "{% with a = name ~ name %}{{ a }}{% endwith %}",
            "{{ '%1000000000d' | format(1) }}",
            "{{ name | indent(1000000000) }}",
            "{{ debug() }}",
        ] {
            assert!(compile(&body(bad), &["name"]).is_err(), "{bad}");
        }
        let long = "{% for i in range(9000) %}{{ name }}{% endfor %}";
        assert_eq!(
            rendered_body(long, &["name"], &["x".repeat(90).as_str()]).unwrap_err().reason,
            SkipReason::InvalidContent
        );
    }

    #[test]
    fn titles_that_become_the_same_are_refused_for_that_row() {
        let content = json!({ "type": "interactive", "interactive": { "type": "button", "body": { "text": "b" },
            "action": { "buttons": [
                { "type": "reply", "reply": { "id": "1", "title": "Yes" } },
                { "type": "reply", "reply": { "id": "2", "title": "{{ other }}" } }] } } });
        let template = compile(&content, &["other"]).unwrap();
        assert!(render(&template, &["No"]).is_ok());
        let skip = render(&template, &["Yes"]).unwrap_err();
        assert!(skip.detail.contains("each button title must be different"), "{}", skip.detail);
    }

    proptest! {
        #[test]
        fn rendering_yields_valid_json_for_any_values(name in ".*", other in ".*") {
            // A mark with a number behind it is what a reader of audiences writes, and not a text.
            prop_assume!([&name, &other].iter().all(|value| shown_and_number(value).1.is_none()));
            let template = compile(&body("a{{ name | default('d') }}\"b{{ x | default('') | upper }}é"), &["name", "x"]).unwrap();
            match render(&template, &[&name, &other]) {
                Ok(message) => {
                    let name = if name.trim().is_empty() { "d" } else { &name };
                    let other = if other.trim().is_empty() { String::new() } else { other.to_uppercase() };
                    prop_assert_eq!(&message["content"]["text"]["body"], &json!(format!("a{name}\"b{other}é")));
                }
                Err(skip) => prop_assert!(skip.detail.contains("characters long")),
            }
        }

        #[test]
        fn a_check_says_what_rendering_says(
            name in "\\PC{0,1100}",
            text in prop::sample::select(vec![
                "{{ name }}",
                "Hi {{ name | title }}, {{ row + 1 }}",
                "{{ name | upper }}{{ message_ref }}",
                "{{ name | default('') | trim }}",
            ]),
        ) {
            let content = json!({ "type": "interactive", "interactive": {
                "type": "button", "body": { "text": text },
                "action": { "buttons": [{ "type": "reply", "reply": { "id": "1", "title": "Yes" } }] },
            } });
            let template = compile(&content, &["name"]).unwrap();
            let batch = row(&template, &[&name], false);
            let recipient = batch.recipient(0).unwrap();
            let checked = template.check(&recipient, &mut Vec::new());
            prop_assert_eq!(checked, template.render(&recipient, &mut Vec::new()));
        }

        #[test]
        fn what_is_done_here_is_what_jinja_does(
            value in "\\PC{0,20}|[ a-zA-Z(é-]{0,12}",
            default in prop::option::of("[ a-z'é]{0,6}"),
            filters in prop::collection::vec(prop::sample::select(vec!["title", "upper", "lower", "trim"]), 0..4),
        ) {
            let default = default.map_or(String::new(), |d| format!(" | default(\"{d}\")"));
            let filters: String = filters.iter().map(|f| format!(" | {f}")).collect();
            let here = format!("<{{{{ v{default}{filters} }}}}>");
            // A statement sends the same expression to minijinja.
            let jinja = format!("{{% if true %}}{here}{{% endif %}}");
            prop_assert_eq!(
                rendered_body(&here, &["v"], &[&value]).map_err(|s| s.reason),
                rendered_body(&jinja, &["v"], &[&value]).map_err(|s| s.reason)
            );
        }
    }
}
