//! Compiles strings with placeholders.
//!
//! Most placeholders are a column with a default and common filters: `placeholder.rs` renders these. Any other string
//! is rendered by minijinja. A property test compares the two.

use std::{collections::BTreeMap, io, sync::LazyLock};

use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value as Jinja};
use serde_json::Value;

use super::bounds::{TOO_LONG, VALUE, begin, bound};
use super::numbers::ShownNumber;
use super::operations::add_operators;
use super::placeholder::{Placeholder, simple};
use super::rewrite::{self, Rewritten, rewrite};
use super::tokens::{self, Delimiter};
use super::value_error::describe;
use super::{Cause, json_text::write_text, source::Source};
use crate::campaign::{batch::Recipient, columns::Columns};

/// Maximum number of instructions of a template, against endless loops.
pub(super) const FUEL: u64 = 50_000;

/// The variable that holds the value of a template of one expression.
const RESULT: &str = "flowcast_value";

/// The Jinja environment and the used columns of a set of templates.
pub(super) struct Compiler<'a> {
    pub(super) columns: &'a Columns,
    pub(super) used: Vec<usize>,
    pub(super) jinja: Environment<'static>,
    /// Size of the rewritten strings, in bytes.
    rewritten: usize,
}

/// The filters, tests and limits of every template. Copies share them.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut jinja = Environment::new();
    jinja.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    jinja.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    jinja.set_syntax(rewrite::jinja_syntax());
    jinja.set_fuel(Some(FUEL));
    bound(&mut jinja);
    add_operators(&mut jinja);
    jinja
});

/// A compiled string.
pub(super) enum Text {
    /// A sequence of pieces.
    Pieces(Vec<Piece>),
    /// A single placeholder, whose value keeps its type.
    Alone(Placeholder),
    /// Any other string, which minijinja renders.
    Jinja(Expression),
}

/// A string that minijinja renders.
pub(super) struct Expression {
    /// The name of the template in the environment.
    name: String,
    /// Whether it is a single expression, whose value keeps its type.
    alone: bool,
    /// The values that it uses.
    used: Vec<Used>,
    /// How often it uses a name or a text literal.
    uses: usize,
}

/// A value that a template uses.
struct Used {
    /// The name in the rewritten template.
    identifier: String,
    /// The name in the job.
    name: String,
    source: Source,
}

impl Text {
    /// Returns its minimum length, in characters, as far as known.
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
    /// Text escaped for JSON, with its length in characters.
    Constant(Box<[u8]>, usize),
    Placeholder(Placeholder),
}

impl<'a> Compiler<'a> {
    pub(super) fn new(columns: &'a Columns) -> Self {
        Self { columns, used: Vec::new(), jinja: ENVIRONMENT.clone(), rewritten: 0 }
    }

    /// Compiles a string with placeholders; if `is_text`, its value is always a text. The error says what is wrong
    /// with the placeholders.
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
        let template = self.jinja.templates().count();
        let Rewritten { source, alone, names, constants, uses } = rewrite(text, template)?;
        self.rewritten += source.len();
        if self.rewritten > 4 * rewrite::RESULT {
            return Err(rewrite::TOO_LARGE.into());
        }
        let alone = alone.filter(|_| !is_text);
        let is_alone = alone.is_some();
        let source = alone.map_or(source, |alone| format!("{{% set {RESULT} = ({alone}) %}}"));
        for (index, value) in constants.into_iter().enumerate() {
            self.jinja.add_global(rewrite::constant(template, index), value);
        }
        let name = format!("t{template}");
        self.jinja.add_template_owned(name.clone(), source).map_err(|error| {
            format!("is not a valid template: {}", error.detail().unwrap_or("syntax error"))
        })?;
        let used: Vec<Used> = names
            .into_iter()
            .enumerate()
            .map(|(index, name)| {
                Ok(Used { identifier: rewrite::column(index), source: self.source(&name)?, name })
            })
            .collect::<Result<_, String>>()?;
        // An unknown filter is detected only when it is called.
        let sample = |source: &Source| if *source == Source::Row { Value::from(1) } else { "1".into() };
        let sample: BTreeMap<&str, Value> =
            used.iter().map(|used| (used.identifier.as_str(), sample(&used.source))).collect();
        begin(0, 0);
        if let Err(error) = self.jinja.get_template(&name).and_then(|t| t.render(Jinja::from(Serde(&sample))))
            && matches!(
                error.kind(),
                ErrorKind::UnknownFilter
                    | ErrorKind::UnknownFunction
                    | ErrorKind::UnknownTest
                    | ErrorKind::TemplateNotFound
                    | ErrorKind::TooManyArguments
                    | ErrorKind::UnknownMethod
                    | ErrorKind::MissingArgument
            )
        {
            return Err(format!("is not a valid template: {}", describe(&error)));
        }
        Ok(Text::Jinja(Expression { name, alone: is_alone, used, uses }))
    }

    /// Returns the error for common mistakes in placeholders: `{{ First Name }}`, `{{1}}`.
    fn not_a_name(&self, text: &str) -> Option<String> {
        let values =
            tokens::expressions(text).filter(|found| found.is_closed && found.delimiter == Delimiter::Value);
        for tokens::Expression { inner, .. } in values {
            let inner = inner.trim();
            if !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_digit()) {
                return Some(format!(
                    "{{{{{inner}}}}} is a placeholder of WhatsApp Manager; here a placeholder names a column, e.g. {}",
                    self.example()
                ));
            }
            // The column as in the header, before any filter.
            let (name, filters) = inner.split_once('|').unwrap_or((inner, ""));
            let name = name.trim();
            let identifier = Columns::identifier(name);
            let is_column = self.columns.names().iter().any(|column| column.eq_ignore_ascii_case(name));
            if is_column && identifier != name {
                let filters =
                    if filters.is_empty() { String::new() } else { format!("| {} ", filters.trim()) };
                return Some(format!(
                    "{{{{ {inner} }}}} is not a valid column name; use {{{{ {identifier} {filters}}}}}"
                ));
            }
        }
        None
    }

    /// Returns a placeholder of the audience's first column.
    fn example(&self) -> String {
        let first = self.columns.names().iter().find(|name| !name.is_empty());
        first.map_or_else(|| "{{ name }}".into(), |name| format!("{{{{ {} }}}}", Columns::identifier(name)))
    }

    /// Splits a string into pieces; `None` if a placeholder is not simple.
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
            pieces.push(Piece::Placeholder(Placeholder::new(source, name, default, filters)));
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
                let index = self.columns.find_for_placeholder(column).map_err(|error| error.to_string())?;
                let place = self.used.iter().position(|used| *used == index).unwrap_or_else(|| {
                    self.used.push(index);
                    self.used.len() - 1
                });
                Ok(Source::Column(place))
            }
        }
    }
}

fn push_constant(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        let mut escaped = Vec::new();
        let length = write_text(text, &mut escaped);
        pieces.push(Piece::Constant(escaped.into(), length));
    }
}

/// Renders a template of the environment; the value of a single expression keeps its type.
pub(super) fn evaluate(
    jinja: &Environment<'static>,
    expression: &Expression,
    recipient: &Recipient<'_>,
) -> Result<Value, Cause> {
    let Expression { name, alone, used, uses } = expression;
    let longest = used.iter().map(|used| used.source.length(recipient)).max().unwrap_or_default();
    if !begin(*uses, longest) {
        return Err(Cause::Failed(TOO_LONG.into()));
    }
    // Omit empty values, so that `default` and `if` treat them as missing.
    let context: BTreeMap<&str, Jinja> = used
        .iter()
        .filter_map(|used| {
            used.source.in_expressions(recipient).map(|value| (used.identifier.as_str(), value))
        })
        .collect();
    let missing = || {
        let name = used.iter().find(|used| !context.contains_key(used.identifier.as_str()));
        name.map(|used| used.name.clone())
    };
    let cause = |error: minijinja::Error| match error.kind() {
        ErrorKind::UndefinedError => Cause::Missing(missing()),
        // Not minijinja's detail, which may quote the recipient's value.
        _ => Cause::Failed(describe(&error)),
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
    if let Some(number) = ShownNumber::typed(&value) {
        return Ok(number.into());
    }
    serde_json::to_value(&value).map_err(|_| Cause::Failed("its value cannot be JSON".into()))
}

/// A buffer that does not grow beyond [`VALUE`].
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
