//! The tokens of a template's placeholders and statements. It knows no operator's meaning.

use std::ops::Range;

use unicode_ident::{is_xid_continue, is_xid_start};

/// Keywords between two operands, or before one.
const WORDS: [&str; 8] = ["and", "or", "not", "in", "is", "if", "elif", "else"];

/// A token of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'t> {
    Name(&'t str),
    Number,
    Text,
    /// `(`, `[` or `{`.
    Open(char),
    Close,
    /// The tokens of filters and fields: `|` and `.`.
    Link(char),
    /// Any other token: it ends an operand.
    Operator(&'t str),
}

/// The kind of an expression.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Delimiter {
    /// `{{ }}`
    Value,
    /// `{% %}`
    Statement,
}

/// A placeholder or a statement.
pub(super) struct Expression<'t> {
    pub(super) delimiter: Delimiter,
    /// Whether it ends before the template does.
    pub(super) is_closed: bool,
    /// The text between its delimiters.
    pub(super) inner: &'t str,
    pub(super) tokens: Vec<Token<'t>>,
    /// The places of the tokens in the template.
    pub(super) places: Vec<Range<usize>>,
}

/// Returns the placeholders and statements of a template.
pub(super) fn expressions(template: &str) -> impl Iterator<Item = Expression<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = next_start(template, at)?;
            if template[start..].starts_with("{#") {
                at = template[start..].find("#}").map_or(template.len(), |end| start + end + 2);
                continue;
            }
            let (expression, end) = read(template, start);
            at = if expression.tokens == [Token::Name("raw")] { end_of_raw(template, end) } else { end };
            return Some(expression);
        }
    })
}

/// Returns where the next placeholder, statement or comment starts.
fn next_start(template: &str, mut at: usize) -> Option<usize> {
    loop {
        let start = at + template.get(at..)?.find('{')?;
        if matches!(template.as_bytes().get(start + 1), Some(b'{' | b'%' | b'#')) {
            return Some(start);
        }
        at = start + 1;
    }
}

/// Returns where the text that starts at an offset, which is sent as written, ends.
fn end_of_raw(template: &str, start: usize) -> usize {
    let rest = &template[start..];
    let is_end = |(at, _): &(usize, &str)| {
        let inner = rest[at + 2..].trim_start_matches(['-', '+']).trim_start();
        inner.starts_with("endraw")
    };
    rest.match_indices("{%").find(is_end).map_or(template.len(), |(at, _)| start + at)
}

/// Reads the expression that starts at an offset. Returns where it ends, too.
fn read(template: &str, start: usize) -> (Expression<'_>, usize) {
    let (mut tokens, mut places) = (Vec::new(), Vec::new());
    let delimiter = if template[start..].starts_with("{{") { Delimiter::Value } else { Delimiter::Statement };
    let mut is_closed = false;
    let whole = &template[start + 2..];
    let mut rest = whole;
    // Directly beside a delimiter, `-` and `+` control white space.
    rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    while let Some(first) = rest.chars().next() {
        if ["-}}", "-%}", "+}}", "+%}"].iter().any(|end| rest.starts_with(end)) {
            rest = &rest[1..];
        }
        if rest.starts_with("}}") || rest.starts_with("%}") {
            is_closed = true;
            break;
        }
        let mut length = first.len_utf8();
        match first {
            '"' | '\'' => {
                length = closing(rest, first);
                tokens.push(Token::Text);
            }
            c if c.is_whitespace() => {}
            c if c.is_ascii_digit() => {
                let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
                length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                tokens.push(Token::Number);
            }
            c if is_xid_start(c) || c == '_' => {
                length = rest.find(|c: char| !is_xid_continue(c)).unwrap_or(rest.len());
                let word = &rest[..length];
                let is_operator = WORDS.contains(&word);
                tokens.push(if is_operator { Token::Operator(word) } else { Token::Name(word) });
            }
            '(' | '[' | '{' => tokens.push(Token::Open(first)),
            ')' | ']' | '}' => tokens.push(Token::Close),
            '|' | '.' => tokens.push(Token::Link(first)),
            _ => {
                if rest.starts_with("**") {
                    length = 2;
                }
                tokens.push(Token::Operator(&rest[..length]));
            }
        }
        let start = template.len() - rest.len();
        places.resize(tokens.len(), start..start + length);
        rest = &rest[length..];
    }
    let inner = &whole[..whole.len() - rest.len()];
    let end = template.len() - rest.len() + if is_closed { 2 } else { 0 };
    (Expression { delimiter, is_closed, inner, tokens, places }, end)
}

/// Returns the length of a quoted text, including its quotes.
fn closing(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}
