//! One string with placeholders, compiled.
//!
//! What nearly all placeholders are — a column, with a default and the common filters — is done
//! here directly. Anything else is Jinja's: the same string, given to minijinja. A property test
//! holds the two against each other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value as Jinja};
use serde_json::Value;
use unicode_ident::{is_xid_continue, is_xid_start};

use super::bounds::{VALUE, begin, bound};
use super::numbers::ShownNumber;
use super::operators;
use super::{Cause, write_text};
use crate::campaign::batch::{Field, Recipient, shown_and_number};
use crate::campaign::columns::Columns;
use crate::campaign::rules::Whitespace;

/// What a placeholder may spend before it is taken for an endless loop.
const FUEL: u64 = 50_000;

/// What a message needs of Jinja's statements. The others only serve to build larger things than
/// any message is.
const STATEMENTS: [&str; 8] = ["if", "elif", "else", "endif", "for", "endfor", "raw", "endraw"];

/// What is said of a value that no message could hold.
pub(super) const TOO_LONG: &str = "a value is longer than any message";

/// The name under which a template of one expression leaves its value.
const RESULT: &str = "flowcast_value";

/// The Jinja environment and the columns that a set of templates uses.
pub(super) struct Compiler<'a> {
    pub(super) columns: &'a Columns,
    pub(super) used: Vec<usize>,
    pub(super) jinja: Environment<'static>,
}

/// A string, ready to be filled.
pub(super) enum Text {
    /// Pieces, one after the other.
    Pieces(Vec<Piece>),
    /// One expression alone: its value keeps its type.
    Alone(Placeholder),
    /// Anything else: the name of a template in the environment.
    Jinja(Expression),
}

/// A string that Jinja fills.
pub(super) struct Expression {
    /// The name of a template in the environment.
    name: String,
    /// Whether it is one expression alone: its value keeps its type.
    alone: bool,
    /// The values that it needs.
    used: Vec<(String, Source)>,
    /// How often it uses a name or a text.
    names: usize,
}

impl Text {
    /// How long it is without any value, as far as that can be told.
    pub(super) fn least_length(&self) -> usize {
        let Self::Pieces(pieces) = self else { return 0 };
        let constant = |piece: &Piece| match piece {
            Piece::Constant(_, length) => *length,
            Piece::Placeholder(_) => 0,
        };
        pieces.iter().map(constant).sum()
    }
}

/// A part of a string.
pub(super) enum Piece {
    /// Already escaped for JSON, with its length in characters.
    Constant(Box<[u8]>, usize),
    Placeholder(Placeholder),
}

/// `{{ source | default("…") | filter }}`.
pub(super) struct Placeholder {
    source: Source,
    name: String,
    default: Option<String>,
    filters: Vec<Filter>,
}

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// A column, by its place among those in use.
    Column(usize),
    Recipient,
    CampaignId,
    MessageRef,
    Row,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Filter {
    Title,
    Upper,
    Lower,
    Trim,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(columns: &'a Columns) -> Self {
        let mut jinja = Environment::new();
        jinja.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        jinja.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
            jinja.set_syntax(syntax);
        }
        jinja.set_fuel(Some(FUEL));
        bound(&mut jinja);
        Self { columns, used: Vec::new(), jinja }
    }

    /// Compiles a string that holds placeholders; where a text is asked for it stays one. The error
    /// says what is wrong with the placeholders.
    pub(super) fn compile(&mut self, text: &str, is_text: bool) -> Result<Text, String> {
        if let Some(wrong) = self.not_a_name(text) {
            return Err(wrong);
        }
        if let Some(pieces) = self.pieces(text)? {
            return Ok(match <[Piece; 1]>::try_from(pieces) {
                Ok([Piece::Placeholder(alone)]) if !is_text => Text::Alone(alone),
                Ok([piece]) => Text::Pieces(vec![piece]),
                Err(pieces) => Text::Pieces(pieces),
            });
        }
        if let Some(word) = statements(text).find(|word| !STATEMENTS.contains(word)) {
            return Err(format!(
                "{{% {word} %}} is not offered in messages; known here: {}",
                STATEMENTS.join(", ")
            ));
        }
        let uses = operators::check(text)?;
        let text = &*operators::with_numbers(text);
        let alone = if is_text { None } else { Some(text) };
        let inner = alone.and_then(|text| text.strip_prefix("{{")).and_then(|rest| rest.strip_suffix("}}"));
        let expression = inner.filter(|inner| self.jinja.compile_expression_owned(inner.to_string()).is_ok());
        let source =
            expression.map_or_else(|| text.into(), |inner| format!("{{% set {RESULT} = ({inner}) %}}"));
        let name = format!("t{}", self.jinja.templates().count());
        self.jinja
            .add_template_owned(name.clone(), source)
            .map_err(|fault| format!("is no valid template: {}", fault.detail().unwrap_or("syntax error")))?;
        let template = self.jinja.get_template(&name).map_err(|fault| fault.to_string())?;
        let globals = ["range", "dict"];
        let mut names: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        names.retain(|name| !globals.contains(&name.as_str()));
        names.sort();
        let used: Vec<(String, Source)> = names
            .into_iter()
            .map(|name| self.source(&name).map(|source| (name, source)))
            .collect::<Result<_, _>>()?;
        // A filter that does not exist shows only when it is called.
        let sample = |source: &Source| if *source == Source::Row { Value::from(1) } else { "1".into() };
        let sample: BTreeMap<&str, Value> =
            used.iter().map(|(name, source)| (name.as_str(), sample(source))).collect();
        begin(0, 0);
        if let Err(fault) = self.jinja.get_template(&name).and_then(|t| t.render(Jinja::from(Serde(&sample))))
            && matches!(
                fault.kind(),
                ErrorKind::UnknownFilter
                    | ErrorKind::UnknownFunction
                    | ErrorKind::UnknownTest
                    | ErrorKind::TemplateNotFound
                    | ErrorKind::TooManyArguments
                    | ErrorKind::MissingArgument
            )
        {
            return Err(format!(
                "is no valid template: {}: {}",
                fault.kind(),
                fault.detail().unwrap_or_default()
            ));
        }
        Ok(Text::Jinja(Expression { name, alone: expression.is_some(), used, names: uses }))
    }

    /// What is wrong with a placeholder that people write, and that is none: `{{ First Name }}`, `{{1}}`.
    fn not_a_name(&self, text: &str) -> Option<String> {
        let mut rest = text;
        while let Some((_, after)) = rest.split_once("{{") {
            let (inner, after) = after.split_once("}}")?;
            rest = after;
            let inner = inner.trim();
            if !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_digit()) {
                return Some(format!(
                    "{{{{{inner}}}}} is a placeholder of a template in WhatsApp Manager; here a placeholder names a column, as {}",
                    self.example()
                ));
            }
            // The column as its header writes it, before any filter.
            let (name, filters) = inner.split_once('|').unwrap_or((inner, ""));
            let name = name.trim();
            let identifier = Columns::identifier(name);
            let is_column = self.columns.names().iter().any(|column| column.eq_ignore_ascii_case(name));
            if is_column && identifier != name {
                let filters =
                    if filters.is_empty() { String::new() } else { format!("| {} ", filters.trim()) };
                return Some(format!(
                    "{{{{ {inner} }}}} isn't a valid column name; use {{{{ {identifier} {filters}}}}}"
                ));
            }
        }
        None
    }

    /// A placeholder of the audience's first column.
    fn example(&self) -> String {
        let first = self.columns.names().iter().find(|name| !name.is_empty());
        first.map_or_else(|| "{{ name }}".into(), |name| format!("{{{{ {} }}}}", Columns::identifier(name)))
    }

    /// The pieces of a string all of whose placeholders are simple; `None` where one is not.
    fn pieces(&mut self, text: &str) -> Result<Option<Vec<Piece>>, String> {
        if text.contains("{%") || text.contains("{#") {
            return Ok(None);
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((constant, after)) = rest.split_once("{{") {
            push_constant(&mut pieces, constant);
            let Some((inner, after)) = after.split_once("}}") else { return Ok(None) };
            let Some((name, default, filters)) = simple(inner) else { return Ok(None) };
            let source = self.source(name)?;
            pieces.push(Piece::Placeholder(Placeholder { source, name: name.into(), default, filters }));
            rest = after;
        }
        push_constant(&mut pieces, rest);
        Ok(Some(pieces))
    }

    fn source(&mut self, name: &str) -> Result<Source, String> {
        match name {
            "recipient" => Ok(Source::Recipient),
            "campaign_id" => Ok(Source::CampaignId),
            "message_ref" => Ok(Source::MessageRef),
            "row" => Ok(Source::Row),
            column => {
                let index = self.columns.find(column).map_err(|fault| fault.to_string())?;
                let place = self.used.iter().position(|used| *used == index).unwrap_or_else(|| {
                    self.used.push(index);
                    self.used.len() - 1
                });
                Ok(Source::Column(place))
            }
        }
    }
}

/// The words that statements begin with.
fn statements(text: &str) -> impl Iterator<Item = &str> {
    text.split("{%").skip(1).map(|rest| {
        let rest = rest.trim_start_matches(['-', '+']).trim_start();
        &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())]
    })
}

fn push_constant(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        let mut escaped = Vec::new();
        let length = write_text(text, &mut escaped);
        pieces.push(Piece::Constant(escaped.into(), length));
    }
}

/// Reads `name`, `name | default("…")` and the filters that are done here.
fn simple(inner: &str) -> Option<(&str, Option<String>, Vec<Filter>)> {
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
            // A default behind a filter comes too late for a missing value: Jinja decides.
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

impl Source {
    /// How many bytes its value has, as far as that is up to the audience.
    fn length(self, recipient: &Recipient<'_>) -> usize {
        match self {
            Self::Column(place) => match recipient.field(place) {
                Field::Empty => 0,
                Field::Text(text) | Field::Number(text, _) | Field::Json(text) => text.len(),
            },
            _ => 0,
        }
    }

    /// The value as text, `None` where it is empty.
    fn text<'r>(self, recipient: &Recipient<'r>) -> Option<Cow<'r, str>> {
        Some(match self {
            Self::Column(place) => match recipient.field(place) {
                Field::Empty => return None,
                Field::Text(text) | Field::Number(text, _) => Cow::Borrowed(text),
                Field::Json(_) => match self.value(recipient)? {
                    Value::String(text) => match shown_and_number(&text) {
                        (shown, Some(_)) => shown.to_owned().into(),
                        _ => text.into(),
                    },
                    value => Jinja::from(Serde(&value)).to_string().into(),
                },
            },
            Self::Recipient => recipient.phone.to_string().into(),
            Self::CampaignId => recipient.campaign().as_str().into(),
            Self::MessageRef => recipient.message_ref().into(),
            Self::Row => recipient.row.to_string().into(),
        })
    }

    /// The value with its type, `None` where it is empty.
    fn value(self, recipient: &Recipient<'_>) -> Option<Value> {
        match self {
            Self::Row => Some(recipient.row.into()),
            Self::Column(place) => match recipient.field(place) {
                Field::Json(json) => match serde_json::from_str(json).ok()? {
                    Value::Null => None,
                    Value::String(text) if text.trim().is_empty() => None,
                    value => Some(value),
                },
                _ => self.text(recipient).map(|text| text.into_owned().into()),
            },
            _ => self.text(recipient).map(|text| text.into_owned().into()),
        }
    }

    /// The value as an expression sees it, `None` where it is empty.
    fn in_expressions(self, recipient: &Recipient<'_>) -> Option<Jinja> {
        if let Self::Column(place) = self
            && let Field::Number(shown, number) = recipient.field(place)
        {
            return Some(ShownNumber::value(shown, number));
        }
        let value = self.value(recipient)?;
        Some(match value.as_str().map(shown_and_number) {
            Some((shown, Some(number))) => ShownNumber::value(shown, number),
            _ => Jinja::from(Serde(&value)),
        })
    }
}

/// Each word with its first letter in title case and the others in lower case, as Jinja's `title` does, by Unicode's rules: the
/// last letter of a Greek word, letters that are two, scripts whose words begin small.
pub(super) fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(is_border).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        titled.push_str(&capitalized(word));
        let border = after.chars().next();
        titled.extend(border);
        rest = after.get(border.map_or(0, char::len_utf8)..).unwrap_or_default();
    }
    titled
}

/// A word with its first letter in title case and the others in lower case.
pub(super) fn capitalized(word: &str) -> String {
    let Some(first) = word.chars().next() else { return String::new() };
    // All of it, so that each letter is seen where it stands.
    let lower = word.to_lowercase();
    let of_first: usize = first.to_lowercase().map(char::len_utf8).sum();
    let mapped = unicode_case_mapping::to_titlecase(first);
    let mut capitalized: String =
        mapped.into_iter().filter(|code| *code != 0).filter_map(char::from_u32).collect();
    if capitalized.is_empty() {
        capitalized.push(first);
    }
    capitalized.push_str(lower.get(of_first..).unwrap_or_default());
    capitalized
}

/// The same of ASCII, in its place.
fn title_ascii(text: &mut [u8]) {
    let mut is_start = true;
    for byte in text {
        let titled = if is_start { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() };
        is_start = is_border(char::from(*byte));
        *byte = titled;
    }
}

/// Whether a word begins after it.
fn is_border(c: char) -> bool {
    matches!(c, '-' | '(' | '{' | '[' | '<') || c.is_whitespace()
}

/// What flowcast itself says of a recipient — its number, its row, its campaign, its reference — is no
/// longer than that.
const LONGEST_OWN: usize = 100;

impl Placeholder {
    /// The value as text.
    pub(super) fn text<'r>(&'r self, recipient: &Recipient<'r>) -> Result<Cow<'r, str>, Cause> {
        if self.source.length(recipient) > VALUE {
            return Err(Cause::Failed(TOO_LONG.into()));
        }
        let found = self.source.text(recipient);
        let mut text = match (found, &self.default) {
            (Some(text), _) => text,
            (None, Some(default)) => Cow::Borrowed(default.as_str()),
            (None, None) => return Err(Cause::Missing(self.name.clone())),
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

    /// Writes the value, escaped for JSON, and tells its length in characters. The usual ones are written
    /// without a text in between.
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
                    // An escape must keep its letters.
                    out.truncate(start);
                }
            }
            _ => {}
        }
        Ok(write_text(&self.text(recipient)?, out))
    }

    /// Whether the value of a column has nothing in it that Meta takes in no parameter of a template.
    pub(super) fn is_one_line(&self, recipient: &Recipient<'_>) -> bool {
        let Source::Column(place) = self.source else { return true };
        match recipient.field(place) {
            Field::Text(text) | Field::Number(text, _) => !Whitespace::is_refused(text),
            Field::Empty => true,
            Field::Json(_) => false,
        }
    }

    /// How many bytes the value has at the most, where it is sure to have one that is a text and not
    /// empty.
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
        // A character becomes at most three in the other case.
        let grows = if self.filters.is_empty() { 1 } else { 3 };
        (stays && (1..=VALUE).contains(&length)).then_some(grows * length)
    }

    /// A number of JSON as it was written, where it is shown in a way of its own and no filter changes it.
    pub(super) fn written_number(&self, recipient: &Recipient<'_>) -> Option<String> {
        if !self.filters.is_empty() || !self.is_json(recipient) {
            return None;
        }
        let value = self.source.value(recipient)?;
        let (shown, number) = shown_and_number(value.as_str()?);
        number.map(|_| shown.to_owned())
    }

    /// The value with its type, where it is not a text.
    pub(super) fn typed(&self, recipient: &Recipient<'_>) -> Option<Value> {
        if self.source.length(recipient) > VALUE {
            return None;
        }
        let keeps_type = self.filters.is_empty() && (self.source == Source::Row || self.is_json(recipient));
        keeps_type.then(|| self.source.value(recipient)).flatten().filter(|value| !value.is_string())
    }

    /// Whether its value is a text wherever the audience has texts.
    pub(super) fn is_text(&self) -> bool {
        self.source != Source::Row
    }

    fn is_json(&self, recipient: &Recipient<'_>) -> bool {
        matches!(self.source, Source::Column(place) if matches!(recipient.field(place), Field::Json(_)))
    }
}

/// Fills a template of the environment: its value, with its type where it is one expression alone.
pub(super) fn evaluate(
    jinja: &Environment<'static>,
    expression: &Expression,
    recipient: &Recipient<'_>,
) -> Result<Value, Cause> {
    let Expression { name, alone, used, names } = expression;
    let longest = used.iter().map(|(_, source)| source.length(recipient)).max().unwrap_or_default();
    if !begin(*names, longest) {
        return Err(Cause::Failed(TOO_LONG.into()));
    }
    // An empty value is left out, so that `default` and `if` see it as missing.
    let context: BTreeMap<&str, Jinja> = used
        .iter()
        .filter_map(|(name, source)| source.in_expressions(recipient).map(|value| (name.as_str(), value)))
        .collect();
    let missing = || {
        let name = used.iter().map(|(name, _)| name).find(|name| !context.contains_key(name.as_str()));
        name.cloned().unwrap_or_else(|| "a value".into())
    };
    let cause = |fault: minijinja::Error| match fault.kind() {
        ErrorKind::UndefinedError => Cause::Missing(missing()),
        // Only the kind: a detail may quote the recipient's value.
        kind => Cause::Failed(kind.to_string()),
    };
    let template = jinja.get_template(name).map_err(cause)?;
    let mut output = Bounded(Vec::new());
    let captured = template.render_captured_to(Jinja::from(Serde(&context)), &mut output).map_err(cause)?;
    if !*alone {
        return Ok(String::from_utf8_lossy(&output.0).into());
    }
    let value = captured.state().lookup(RESULT).unwrap_or(Jinja::UNDEFINED);
    if value.is_undefined() || value.is_none() {
        return Err(Cause::Missing(missing()));
    }
    serde_json::to_value(&value).map_err(|_| Cause::Failed("its value is no JSON".into()))
}

/// A text that does not grow beyond [`VALUE`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > VALUE {
            return Err(io::Error::other(TOO_LONG));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_follow_unicode() {
        for (text, titled) in [
            ("asha RAO-o'brien", "Asha Rao-O'brien"),
            // The last sigma of a word is another letter.
            (
                "\u{39f}\u{394}\u{3a5}\u{3a3}\u{3a3}\u{395}\u{3a5}\u{3a3}",
                "\u{39f}\u{3b4}\u{3c5}\u{3c3}\u{3c3}\u{3b5}\u{3c5}\u{3c2}",
            ),
            ("\u{391}\u{3a3}", "\u{391}\u{3c2}"),
            ("\u{fb01}nn", "Finn"),
            ("\u{df}a", "Ssa"),
            ("\u{1c6}ungla", "\u{1c5}ungla"),
            // Georgian words begin as they go on.
            ("\u{10d7}\u{10d1}\u{10d8}", "\u{10d7}\u{10d1}\u{10d8}"),
            ("\u{130}stanbul", "\u{130}stanbul"),
            ("\u{906}\u{936}\u{93e}", "\u{906}\u{936}\u{93e}"),
        ] {
            assert_eq!(title(text), titled, "{text}");
        }
    }

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
