//! A small language for what a JSON document may hold, and the walk that checks a value against it.
//!
//! Rules are tables (`content/documents.rs`, `job/form.rs`) that read like the documents they come
//! from. One table serves three ends: checking, the JSON Schema, and the limits that rendering keeps.

use serde_json::{Map, Value};
use unicode_properties::{EmojiStatus, UnicodeEmoji};

use super::problem::{Problem, Problems, nearest, quoted, step};
use super::text::thousands;

/// The longest string where no rule has a limit of its own, in characters: no message is longer than that.
pub const LONGEST_TEXT: usize = 64 * 1024;
/// The longest string that another parser reads, in bytes.
pub const LONGEST_PARSED: usize = 2_048;
/// The longest name of a column, or of a field of a free object, in characters.
pub const LONGEST_NAME: usize = 200;

/// What a value may be.
#[derive(Clone, Copy)]
pub enum Rule {
    /// A string.
    Text(Text),
    /// `true` or `false`.
    Bool,
    /// A number, or a string that holds one where the documents write it so.
    Number {
        /// The least and the greatest.
        range: (f64, f64),
    },
    /// A whole number that is no template.
    Integer {
        /// The least and the greatest.
        range: (u64, u64),
    },
    /// An object with these fields and no others.
    Object(Object),
    /// An object whose `tag` says which further fields it has.
    Choice(Choice),
    /// A list.
    List {
        /// What each item is.
        of: &'static Rule,
        /// The fewest items.
        min: usize,
        /// The most items.
        max: usize,
    },
    /// Any object, by default a non-empty one.
    AnyObject {
        /// Whether `{}` is allowed.
        may_be_empty: bool,
    },
    /// A string that another parser reads; it is never a template.
    Parsed {
        /// Says what is wrong with it.
        check: fn(&str) -> Result<(), String>,
        /// What it is, for a form.
        about: &'static str,
        /// What the schema says of its spelling. It never refuses what `check` takes.
        spelled: Spelled,
    },
    /// The same for every recipient: no placeholder in it means anything.
    Fixed(&'static Rule),
    /// A string, or an object with these fields.
    Either(&'static Rule, &'static Rule),
}

/// How a string that another parser reads is spelled, as far as a schema can say it.
#[derive(Clone, Copy)]
pub enum Spelled {
    /// In any way.
    Any,
    /// As a regular expression, in what all dialects share.
    As(&'static str),
    /// As one of these, in small or capital letters.
    InAnyCase(fn() -> Vec<String>),
}

/// Whose documentation a rule is taken from, so that a person can look it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// A rule of our own.
    Flowcast,
    /// `WhatsApp`'s, as Exotel's documentation has it.
    Exotel,
    /// Kaleyra's own.
    Kaleyra,
    /// `WhatsApp`'s, as Meta's documentation has it.
    Meta,
}

impl Authority {
    /// Who sets the limit.
    fn authority(self) -> &'static str {
        match self {
            Self::Flowcast => "flowcast",
            Self::Kaleyra => "Kaleyra",
            Self::Exotel | Self::Meta => "WhatsApp",
        }
    }

    /// Where it is written, behind an error: ` (Exotel's documentation)`.
    pub fn named(self) -> &'static str {
        match self {
            Self::Flowcast => "",
            Self::Exotel => " (Exotel's documentation)",
            Self::Kaleyra => " (Kaleyra's documentation)",
            Self::Meta => " (Meta's documentation)",
        }
    }
}

/// What a string may be.
#[derive(Clone, Copy)]
pub struct Text {
    /// The most characters, 0 for no limit.
    pub max: usize,
    /// Whether it may be empty.
    pub may_be_empty: bool,
    /// Who says so, for the error.
    pub source: Authority,
    /// One of these and nothing else; then it is never a template.
    pub one_of: &'static [&'static str],
    /// A further property of the text.
    pub form: Form,
}

/// A property of a text beyond its length.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Any text.
    Any,
    /// An address that begins with `http://` or `https://` and has a host.
    Link,
    /// No spaces at either end.
    Trimmed,
    /// No emoji.
    NoEmoji,
    /// Lower-case letters, digits and underscores.
    Name,
    /// `YYYY-MM-DD`.
    Date,
    /// Two letters.
    CountryCode,
    /// A parameter of a template: no line break, no tab, no five spaces. What becomes of one that has them the job says.
    Parameter,
}

/// An object's fields and what must hold between them.
#[derive(Clone, Copy)]
pub struct Object {
    /// The fields it may have.
    pub fields: &'static [Field],
    /// Fields that belong elsewhere, and where: people write them here, and are told.
    pub elsewhere: &'static [(&'static str, &'static str)],
    /// What no field says alone. Called when the fields are well-formed; the pointer is the object's.
    pub also: fn(&Map<String, Value>, &mut Findings, &str),
    /// As much of `also` as JSON Schema can say, as the members of a schema; may be empty.
    pub also_as_schema: &'static str,
}

/// An object that is told apart by one field.
#[derive(Clone, Copy)]
pub struct Choice {
    /// The field that tells.
    pub tag: &'static str,
    /// The fields that every arm has.
    pub common: &'static [Field],
    /// The tag's values and what each adds.
    pub arms: &'static [(&'static str, Object)],
}

/// A field of an object.
#[derive(Clone, Copy)]
pub struct Field {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) rule: Rule,
    /// What it is, in a sentence or two.
    pub(super) about: &'static str,
    /// A value it may have, as JSON.
    pub(super) example: &'static str,
    /// What holds without it, as JSON; empty where nothing does.
    pub(super) default: &'static str,
}

impl Field {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it must be there.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// What it may be.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The same with what holds without it, as JSON.
    #[must_use]
    pub const fn or(self, default: &'static str) -> Self {
        Self { default, ..self }
    }
}

/// A field that must be there, what it is, and an example as JSON.
pub const fn required(name: &'static str, rule: Rule, about: &'static str, example: &'static str) -> Field {
    Field { name, required: true, rule, about, example, default: "" }
}

/// A field that may be there, what it is, and an example as JSON.
pub const fn optional(name: &'static str, rule: Rule, about: &'static str, example: &'static str) -> Field {
    Field { name, required: false, rule, about, example, default: "" }
}

/// An object with no conditions between its fields.
pub const fn object(fields: &'static [Field]) -> Object {
    Object { fields, elsewhere: &[], also: |_, _, _| {}, also_as_schema: "" }
}

/// A non-empty text of at most `max` characters, as `source` says.
pub const fn text(max: usize, source: Authority) -> Text {
    Text { max, may_be_empty: false, source, one_of: &[], form: Form::Any }
}

/// A text of any length up to [`LONGEST_TEXT`].
pub const ANY_TEXT: Rule = Rule::Text(text(0, Authority::Flowcast));

/// One of a few words.
pub const fn one_of(words: &'static [&'static str]) -> Rule {
    Rule::Text(Text { one_of: words, ..text(0, Authority::Flowcast) })
}

impl Text {
    /// The same with a further property.
    #[must_use]
    pub const fn form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// What is wrong with a finished text, if anything.
    fn fault(&self, text: &str) -> Option<String> {
        let by = self.source.named();
        if text.is_empty() && !self.may_be_empty {
            return Some("is empty".into());
        }
        if !self.one_of.is_empty() && !self.one_of.contains(&text) {
            let known = self.one_of.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
            return Some(format!("must be {}{known}", if self.one_of.len() > 1 { "one of " } else { "" }));
        }
        let length = text.chars().count();
        if self.max > 0 && length > self.max {
            return Some(too_long(length, self.max, self.source));
        }
        if length > LONGEST_TEXT {
            return Some(too_long(length, LONGEST_TEXT, Authority::Flowcast));
        }
        match self.form {
            Form::Link if !is_link(text) => {
                Some(format!("must be an http:// or https:// address with a host{by}"))
            }
            Form::Trimmed if text.trim() != text => Some(format!("must not begin or end with a space{by}")),
            Form::NoEmoji if has_emoji(text) => Some(format!("must not hold an emoji{by}")),
            Form::Name
                if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') =>
            {
                Some(format!("must be lower-case letters, digits and underscores alone{by}"))
            }
            Form::Date if text.parse::<jiff::civil::Date>().is_err() || text.len() != 10 => {
                Some(format!("must be a date as YYYY-MM-DD{by}"))
            }
            Form::CountryCode if text.len() != 2 || !text.bytes().all(|b| b.is_ascii_alphabetic()) => {
                Some(format!("must be a two-letter country code{by}"))
            }
            _ => None,
        }
    }
}

/// The error of a text over its limit; it tells the lengths and never the text.
pub fn too_long(length: usize, max: usize, source: Authority) -> String {
    let (length, max) = (thousands(length as u64), thousands(max as u64));
    format!("is {length} characters long; {} allows {max}{}", source.authority(), source.named())
}

/// Whether a text may be given to a provider as an address.
pub fn is_link(text: &str) -> bool {
    !text.contains(|c: char| c.is_whitespace() || c.is_control())
        && url::Url::parse(text)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some())
}

/// Whether something in a text is shown as an emoji: by Unicode's own property, or because what follows asks for it.
fn has_emoji(text: &str) -> bool {
    /// The signs that make an emoji of what stands before them.
    const ASKS: [char; 2] = ['\u{fe0f}', '\u{20e3}'];
    text.chars().any(|c| ASKS.contains(&c) || is_shown_as_emoji(c))
}

fn is_shown_as_emoji(c: char) -> bool {
    use EmojiStatus::{
        EmojiPresentation, EmojiPresentationAndEmojiComponent, EmojiPresentationAndModifierAndEmojiComponent,
        EmojiPresentationAndModifierBase,
    };
    matches!(
        c.emoji_status(),
        EmojiPresentation
            | EmojiPresentationAndModifierBase
            | EmojiPresentationAndModifierAndEmojiComponent
            | EmojiPresentationAndEmojiComponent
    )
}

/// Whether a text holds a pair of the signs with which `WhatsApp` formats words.
pub fn plain_markdown(text: &str) -> bool {
    // What stands between two signs, with no space inside at either end.
    let is_pair = |sign: char| {
        let between: Vec<&str> = text.split(sign).collect();
        let between = between.get(1..between.len().saturating_sub(1)).unwrap_or_default();
        between.iter().any(|words| !words.is_empty() && words.trim() == *words)
    };
    ['*', '_', '~', '`'].into_iter().any(is_pair)
}

/// As much of [`is_link`] as a regular expression says.
pub const LINK_PATTERN: &str = r"^[Hh][Tt][Tt][Pp][Ss]?:[^ ]+$";
/// The blanks of Unicode, as a class of a regular expression holds them.
pub const WHITE_SPACE: &str = r"\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";
/// [`is_template`] as a regular expression.
pub const PLACEHOLDER: &str = r"\{\{|\{%";

/// Whether a string holds a placeholder or a statement.
pub fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

/// A string that will be filled for each recipient, and the limit that it must keep then.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The most characters, 0 for no limit.
    pub max: usize,
    /// Whether it may be empty.
    pub may_be_empty: bool,
    /// Who says so.
    pub source: Authority,
    /// Whether it must be a string; elsewhere one expression alone keeps its type.
    pub is_text: bool,
    /// What becomes of blanks that Meta takes in no parameter, where it is one.
    pub whitespace: Option<Whitespace>,
}

/// What becomes of a template's parameter with a line break, a tab or five spaces, which Meta refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whitespace {
    /// Its row is not sent.
    #[default]
    Refuse,
    /// They become one space.
    Join,
}

impl Whitespace {
    /// The most spaces in a row.
    const SPACES: &str = "    ";

    /// Whether Meta refuses a parameter.
    pub fn is_refused(text: &str) -> bool {
        text.contains(['\n', '\r', '\t'])
            || text.split(Self::SPACES).skip(1).any(|rest| rest.starts_with(' '))
    }

    /// A text with each run of blanks that Meta refuses as one space.
    pub fn joined(text: &str) -> String {
        let mut joined = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find([' ', '\n', '\r', '\t']) {
            let (before, from) = rest.split_at(start);
            let behind = from.trim_start_matches([' ', '\n', '\r', '\t']);
            let run = from.get(..from.len() - behind.len()).unwrap_or_default();
            joined.push_str(before);
            joined.push_str(if Self::is_refused(run) { " " } else { run });
            rest = behind;
        }
        joined.push_str(rest);
        joined
    }

    /// What is said of a parameter that Meta refuses.
    pub const REFUSED: &str = "has a line break, a tab or five spaces in a row, which Meta takes in no parameter; take them out, or set \
                               \"whitespace\": \"join\" in the job";
}

impl Limit {
    /// Anything goes.
    pub const FREE: Self =
        Self { max: 0, may_be_empty: true, source: Authority::Flowcast, is_text: false, whitespace: None };
}

/// What a walk found.
#[derive(Default)]
pub struct Findings {
    /// What is wrong.
    pub problems: Problems,
    /// The strings with placeholders, by pointer, and their limits.
    pub limits: Vec<(String, Limit)>,
    /// Whether some rule can only be checked on the rendered value, beyond the limits of its strings.
    pub check_rendered: bool,
    /// Whether the value is already rendered: then braces are only braces.
    rendered: bool,
}

impl Findings {
    /// Reports a problem.
    pub fn problem(&mut self, pointer: &str, message: impl Into<String>) {
        self.problems.add(Problem::new(pointer, message));
    }

    /// Whether `text` waits for a recipient's values.
    pub fn waits(&self, text: &str) -> bool {
        !self.rendered && is_template(text)
    }
}

/// Checks a value that may hold placeholders.
pub fn check(rule: &Rule, value: &Value, pointer: &str) -> Findings {
    let mut findings = Findings::default();
    walk(rule, value, pointer, &mut findings);
    findings
}

/// Checks a value whose placeholders are filled.
pub fn check_rendered(rule: &Rule, value: &Value, pointer: &str) -> Vec<Problem> {
    let mut findings = Findings { rendered: true, ..Findings::default() };
    walk(rule, value, pointer, &mut findings);
    findings.problems.into_list()
}

fn walk(rule: &Rule, value: &Value, pointer: &str, findings: &mut Findings) {
    if let Rule::Fixed(rule) = rule {
        let rendered = std::mem::replace(&mut findings.rendered, true);
        walk(rule, value, pointer, findings);
        findings.rendered = rendered;
        return;
    }
    if let Value::String(text) = value
        && findings.waits(text)
    {
        has_length(text, LONGEST_TEXT, pointer, findings);
        return walk_template(rule, pointer, findings);
    }
    match (rule, value) {
        (Rule::Text(rule), Value::String(text)) => {
            if let Some(fault) = rule.fault(text) {
                findings.problem(pointer, fault);
            }
        }
        (Rule::Bool, Value::Bool(_)) => {}
        (Rule::Number { range }, Value::Number(_) | Value::String(_)) => {
            let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
            if !number.is_some_and(|n| n >= range.0 && n <= range.1) {
                findings.problem(pointer, format!("must be a number from {} to {}", range.0, range.1));
            }
        }
        (Rule::Integer { range }, Value::Number(number)) => {
            if !number.as_u64().is_some_and(|n| n >= range.0 && n <= range.1) {
                findings.problem(pointer, format!("must be a whole number from {} to {}", range.0, range.1));
            }
        }
        (Rule::Object(rule), Value::Object(map)) => walk_object(rule, &[], None, map, pointer, findings),
        (Rule::Choice(choice), Value::Object(map)) => walk_choice(choice, map, pointer, findings),
        (Rule::List { of, min, max }, Value::Array(items)) => {
            if items.len() < *min || items.len() > *max {
                findings.problem(pointer, format!("has {} items; {}", items.len(), allowed(*min, *max)));
            }
            for (index, item) in items.iter().enumerate() {
                walk(of, item, &step(pointer, &index.to_string()), findings);
            }
        }
        (Rule::AnyObject { may_be_empty }, Value::Object(map)) => {
            if map.is_empty() && !may_be_empty {
                findings.problem(pointer, "must be a non-empty object, or be left out");
            }
            walk_any_object(map, pointer, findings);
        }
        (Rule::Parsed { .. }, Value::String(text)) if text.len() > LONGEST_PARSED => {
            let (length, most) = (thousands(text.len() as u64), thousands(LONGEST_PARSED as u64));
            findings.problem(pointer, format!("is {length} bytes long; flowcast allows {most}"));
        }
        (Rule::Parsed { check, .. }, Value::String(text)) => {
            if let Err(fault) = check(text) {
                findings.problem(pointer, fault);
            }
        }
        (Rule::Either(first, _), value) if fits(first, value) => walk(first, value, pointer, findings),
        (Rule::Either(_, second), value) if fits(second, value) => walk(second, value, pointer, findings),
        _ => findings.problem(pointer, format!("must be {}, and is {}", kind_of_rule(rule), kind(value))),
    }
}

/// A string with a placeholder stands where `rule` is asked for.
fn walk_template(rule: &Rule, pointer: &str, findings: &mut Findings) {
    match rule {
        Rule::Text(rule) if rule.one_of.is_empty() => {
            let whitespace = (rule.form == Form::Parameter).then(Whitespace::default);
            let Text { max, may_be_empty, source, .. } = *rule;
            findings
                .limits
                .push((pointer.into(), Limit { max, may_be_empty, source, is_text: true, whitespace }));
            findings.check_rendered |= !matches!(rule.form, Form::Any | Form::Parameter);
        }
        Rule::Bool | Rule::Number { .. } | Rule::Object(_) | Rule::List { .. } | Rule::AnyObject { .. } => {
            findings.check_rendered = true;
        }
        Rule::Fixed(rule) => walk_template(rule, pointer, findings),
        Rule::Either(first, second) => {
            let of = if matches!(first, Rule::Text(_)) { first } else { second };
            walk_template(of, pointer, findings);
        }
        Rule::Text(_) | Rule::Parsed { .. } | Rule::Integer { .. } | Rule::Choice(_) => {
            findings.problem(pointer, "must be the same for every recipient, so it can't hold a placeholder");
        }
    }
}

/// Whether a string is not too long, or a problem.
fn has_length(text: &str, most: usize, pointer: &str, findings: &mut Findings) {
    // There are at most as many characters as bytes.
    if text.len() > most && text.chars().count() > most {
        findings.problem(pointer, too_long(text.chars().count(), most, Authority::Flowcast));
    }
}

/// A free-form object: only the lengths of its names and values and their placeholders matter.
fn walk_any_object(map: &Map<String, Value>, pointer: &str, findings: &mut Findings) {
    for (key, value) in map {
        let place = step(pointer, key);
        if key.len() > LONGEST_NAME && key.chars().count() > LONGEST_NAME {
            let most = LONGEST_NAME;
            findings.problem(
                &place,
                format!("its name has more than the {most} characters that flowcast allows"),
            );
        }
        walk_any(value, &place, findings);
    }
}

fn walk_any(value: &Value, pointer: &str, findings: &mut Findings) {
    if let Value::String(text) = value {
        has_length(text, LONGEST_TEXT, pointer, findings);
    }
    match value {
        Value::String(text) if findings.waits(text) => {
            findings.limits.push((pointer.into(), Limit::FREE));
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(index, item)| walk_any(item, &step(pointer, &index.to_string()), findings)),
        Value::Object(map) => walk_any_object(map, pointer, findings),
        _ => {}
    }
}

fn walk_object(
    object: &Object,
    common: &'static [Field],
    tag: Option<&str>,
    map: &Map<String, Value>,
    pointer: &str,
    findings: &mut Findings,
) {
    let before = findings.problems.count();
    let fields = || common.iter().chain(object.fields);
    for (key, value) in map {
        if Some(key.as_str()) == tag {
            continue;
        }
        let place = step(pointer, key);
        if let Some(field) = fields().find(|field| field.name == key) {
            walk(&field.rule, value, &place, findings);
        } else {
            let elsewhere = object.elsewhere.iter().find(|(name, _)| name == key);
            let near = || nearest(key, fields().map(|field| field.name).chain(tag));
            let why = elsewhere.map_or_else(|| format!("unknown field{}", near()), |(_, why)| (*why).into());
            findings.problem(&place, why);
        }
    }
    for field in fields() {
        if field.required && !map.contains_key(field.name) {
            findings.problems.add(Problem::missing(pointer, field.name, ""));
        }
    }
    if findings.problems.count() == before {
        (object.also)(map, findings, pointer);
    }
}

fn walk_choice(choice: &Choice, map: &Map<String, Value>, pointer: &str, findings: &mut Findings) {
    let tag = choice.tag;
    let words = || choice.arms.iter().map(|(word, _)| *word);
    let place = step(pointer, tag);
    match map.get(tag) {
        Some(Value::String(word)) => match choice.arms.iter().find(|(name, _)| name == word) {
            Some((_, arm)) => walk_object(arm, choice.common, Some(tag), map, pointer, findings),
            None => {
                findings.problem(&place, format!("{} is unknown{}", quoted(word), nearest(word, words())));
            }
        },
        Some(other) => findings.problem(&place, format!("must be a text, and is {}", kind(other))),
        None => {
            let known = words().collect::<Vec<_>>().join(", ");
            findings.problems.add(Problem::missing(pointer, tag, &format!("; it is one of {known}")));
        }
    }
}

fn allowed(min: usize, max: usize) -> String {
    if max == usize::MAX {
        format!("at least {min} are needed")
    } else {
        format!("{min} to {max} are allowed")
    }
}

fn fits(rule: &Rule, value: &Value) -> bool {
    match rule {
        Rule::Text(_) | Rule::Parsed { .. } => value.is_string(),
        Rule::Bool => value.is_boolean(),
        Rule::Number { .. } | Rule::Integer { .. } => value.is_number(),
        Rule::Object(_) | Rule::Choice(_) | Rule::AnyObject { .. } => value.is_object(),
        Rule::List { .. } => value.is_array(),
        Rule::Fixed(rule) => fits(rule, value),
        Rule::Either(first, second) => fits(first, value) || fits(second, value),
    }
}

fn kind_of_rule(rule: &Rule) -> String {
    match rule {
        Rule::Text(_) | Rule::Parsed { .. } => "a text".into(),
        Rule::Bool => "true or false".into(),
        Rule::Number { .. } => "a number".into(),
        Rule::Integer { .. } => "a whole number".into(),
        Rule::Object(_) | Rule::Choice(_) | Rule::AnyObject { .. } => "an object".into(),
        Rule::List { .. } => "a list".into(),
        Rule::Fixed(rule) => kind_of_rule(rule),
        Rule::Either(first, second) => format!("{} or {}", kind_of_rule(first), kind_of_rule(second)),
    }
}

/// What a value is, for an error.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
