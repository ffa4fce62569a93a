//! A small language of rules for JSON documents.
//!
//! Rules are tables (`content/documents.rs`, `job/form.rs`) that read like the documents they come from. One table
//! has three uses: the check of a value (`check.rs`), the JSON Schema, and the limits that apply to rendered texts.

mod check;
mod text;
mod whitespace;

use serde_json::{Map, Value};

use super::problem::{Excess, Problem};
use super::text::thousands;
pub use check::{Findings, check, check_rendered, kind};
pub use text::{LINK_PATTERN, PLACEHOLDER, WHITE_SPACE, is_link, is_template, plain_markdown};
pub use whitespace::Whitespace;

/// Maximum length of a string without a limit of its own, in characters: no message is longer.
pub const LONGEST_TEXT: usize = 64 * 1024;
/// Maximum length of a string that another parser reads, in bytes.
pub const LONGEST_PARSED: usize = 2_048;
/// Maximum length of the name of a column, or of a field of a free object, in characters.
pub const LONGEST_NAME: usize = 200;

/// The rule of a value.
#[derive(Clone, Copy)]
pub enum Rule {
    /// A string.
    Text(Text),
    /// `true` or `false`.
    Bool,
    /// A number, or a string that contains one.
    Number {
        /// Minimum and maximum.
        range: (f64, f64),
    },
    /// A whole number; never a template.
    Integer {
        /// Minimum and maximum.
        range: (u64, u64),
    },
    /// An object with these fields and no others.
    Object(Object),
    /// An object whose `tag` determines its other fields.
    Choice(Choice),
    /// A list.
    List {
        /// Rule of each item.
        of: &'static Rule,
        /// Minimum number of items.
        min: usize,
        /// Maximum number of items.
        max: usize,
    },
    /// Any object.
    AnyObject {
        /// Whether `{}` is allowed.
        may_be_empty: bool,
    },
    /// A string that another parser reads; it is never a template.
    Parsed {
        /// Checks the string; the error is the reason.
        check: fn(&str) -> Result<(), String>,
        /// Description of the value, for a form.
        about: &'static str,
        /// Spelling for the schema. It never refuses a value that `check` accepts.
        spelled: Spelled,
    },
    /// The same for every recipient: it has no placeholders.
    Fixed(&'static Rule),
    /// One of two rules.
    Either(&'static Rule, &'static Rule),
}

/// The spelling of a string that another parser reads, as far as a schema can express it.
#[derive(Clone, Copy)]
pub enum Spelled {
    /// Any text.
    Any,
    /// A regular expression in the subset that all dialects share.
    As(&'static str),
    /// One of these words, in any case.
    InAnyCase(fn() -> Vec<String>),
}

/// The source of a rule, so that a person can look it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// flowcast's own rule.
    Flowcast,
    /// `WhatsApp`'s rule, from Exotel's documentation.
    Exotel,
    /// Kaleyra's rule.
    Kaleyra,
    /// `WhatsApp`'s rule, from Meta's documentation.
    Meta,
}

impl Authority {
    /// Returns who sets the limit.
    fn authority(self) -> &'static str {
        match self {
            Self::Flowcast => "flowcast",
            Self::Kaleyra => "Kaleyra",
            Self::Exotel | Self::Meta => "WhatsApp",
        }
    }

    /// Returns the suffix of an error with the source: ` (Exotel's documentation)`.
    pub fn named(self) -> &'static str {
        match self {
            Self::Flowcast => "",
            Self::Exotel => " (Exotel's documentation)",
            Self::Kaleyra => " (Kaleyra's documentation)",
            Self::Meta => " (Meta's documentation)",
        }
    }
}

/// The rule of a string.
#[derive(Clone, Copy)]
pub struct Text {
    /// Maximum length in characters, 0 for no limit.
    pub max: usize,
    /// Whether it may be empty.
    pub may_be_empty: bool,
    /// The source of the rule, for the error.
    pub source: Authority,
    /// The allowed values, if not empty; the string is never a template then.
    pub one_of: &'static [&'static str],
    /// A further requirement.
    pub form: Form,
}

/// A requirement on a text beyond its length.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Any text.
    Any,
    /// A URL with `http://` or `https://` and a host.
    Link,
    /// No spaces at the start or the end.
    Trimmed,
    /// No emoji.
    NoEmoji,
    /// Lower-case letters, digits and underscores.
    Name,
    /// `YYYY-MM-DD`.
    Date,
    /// Two letters.
    CountryCode,
    /// A parameter of a template: no line break, tab or five spaces in a row. The job says what happens otherwise.
    Parameter,
}

/// The fields of an object and the conditions between them.
#[derive(Clone, Copy)]
pub struct Object {
    /// The known fields.
    pub fields: &'static [Field],
    /// Fields that people misplace here, with the error that says where they belong.
    pub elsewhere: &'static [(&'static str, &'static str)],
    /// Checks conditions between fields. Called if all fields are valid, with the object's pointer.
    pub also: fn(&Map<String, Value>, &mut Findings, &str),
    /// The part of `also` that JSON Schema can express, as members of a schema; may be empty.
    pub also_as_schema: &'static str,
}

/// An object with variants, selected by one field.
#[derive(Clone, Copy)]
pub struct Choice {
    /// The field that selects the variant.
    pub tag: &'static str,
    /// The fields of every variant.
    pub common: &'static [Field],
    /// The tag's values, each with the fields it adds.
    pub arms: &'static [(&'static str, Object)],
}

/// A field of an object.
#[derive(Clone, Copy)]
pub struct Field {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) rule: Rule,
    /// Description, a sentence or two.
    pub(super) about: &'static str,
    /// An example value, as JSON.
    pub(super) example: &'static str,
    /// The default, as JSON; empty without one.
    pub(super) default: &'static str,
}

impl Field {
    /// Returns the name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns whether it is required.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Returns its rule.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Sets the description.
    #[must_use]
    pub const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// Sets the example value, as JSON.
    #[must_use]
    pub const fn example(self, example: &'static str) -> Self {
        Self { example, ..self }
    }

    /// Sets the default, as JSON.
    #[must_use]
    pub const fn or(self, default: &'static str) -> Self {
        Self { default, ..self }
    }
}

/// Checks a string by parsing it, with the type's own error.
pub fn parses<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<(), String> {
    text.parse::<T>().map(drop).map_err(|error| error.to_string())
}

/// Creates a required field.
pub const fn required(name: &'static str, rule: Rule) -> Field {
    Field { required: true, ..optional(name, rule) }
}

/// Creates an optional field.
pub const fn optional(name: &'static str, rule: Rule) -> Field {
    Field { name, required: false, rule, about: "", example: "", default: "" }
}

/// Creates an object without conditions between its fields.
pub const fn object(fields: &'static [Field]) -> Object {
    Object { fields, elsewhere: &[], also: |_, _, _| {}, also_as_schema: "" }
}

/// Creates a non-empty text of at most `max` characters, as `source` requires.
pub const fn text(max: usize, source: Authority) -> Text {
    Text { max, may_be_empty: false, source, one_of: &[], form: Form::Any }
}

/// A text of any length up to [`LONGEST_TEXT`].
pub const ANY_TEXT: Rule = Rule::Text(text(0, Authority::Flowcast));

/// Creates a text that is one of a few words.
pub const fn one_of(words: &'static [&'static str]) -> Rule {
    Rule::Text(Text { one_of: words, ..text(0, Authority::Flowcast) })
}

impl Text {
    /// Adds a requirement.
    #[must_use]
    pub const fn form(self, form: Form) -> Self {
        Self { form, ..self }
    }
}

/// The error of a text over its limit; it tells the lengths and never the text.
pub fn too_long(length: usize, max: usize, source: Authority) -> String {
    let (length, max) = (thousands(length as u64), thousands(max as u64));
    format!("is {length} characters long; {} allows {max}{}", source.authority(), source.named())
}

/// The problem of a text over its limit.
pub fn exceeds(pointer: impl Into<String>, length: usize, max: usize, source: Authority) -> Problem {
    Problem { excess: Some(Excess { length, max }), ..Problem::new(pointer, too_long(length, max, source)) }
}

/// The limit of a string that is rendered for each recipient.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Maximum length in characters, 0 for no limit.
    pub max: usize,
    /// Whether it may be empty.
    pub may_be_empty: bool,
    /// The source of the limit.
    pub source: Authority,
    /// Whether it must be a string; otherwise a single expression keeps its type.
    pub is_text: bool,
    /// The handling of blanks that Meta rejects, if it is a parameter.
    pub whitespace: Option<Whitespace>,
}

impl Limit {
    /// No limit.
    pub const FREE: Self =
        Self { max: 0, may_be_empty: true, source: Authority::Flowcast, is_text: false, whitespace: None };
}
