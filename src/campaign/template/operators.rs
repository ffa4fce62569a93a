//! Checks the operators of a template before it is compiled: `*` is allowed only between numbers, because in Jinja it
//! repeats a text; names are counted, because `~` concatenates their values.

use std::borrow::Cow;

use unicode_ident::{is_xid_continue, is_xid_start};

/// Filters whose value is a number.
const NUMERIC: [&str; 6] = ["abs", "count", "float", "int", "length", "round"];
/// Keywords between two operands, or before one.
const WORDS: [&str; 8] = ["and", "or", "not", "in", "is", "if", "elif", "else"];

/// Maximum number of tokens of a string: the compiler and its output recurse over them.
const TOKENS: usize = 1000;

/// A token of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'t> {
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

/// Returns the number of names and text literals in a template.
///
/// # Errors
///
/// Why it is not supported: too long, or a `*` beside a value that may be a text.
pub(super) fn check(template: &str) -> Result<usize, String> {
    let (mut names, mut count) = (0, 0);
    for tokens in placeholders(template) {
        names += tokens.iter().filter(|token| matches!(token, Token::Name(_) | Token::Text)).count();
        count += tokens.len();
        if count > TOKENS {
            return Err(format!("has more than {TOKENS} names, values and operators in its placeholders"));
        }
        if tokens.contains(&Token::Name("recursive")) {
            return Err("recursive loops are not supported in messages".into());
        }
        if !is_sound(&tokens) {
            return Err(
                "\"*\" works only between numbers; write {{ price | float * 2 }}, with | int or | float after a name"
                    .into(),
            );
        }
    }
    Ok(names)
}

/// Operators on numbers, besides the keywords.
const ARITHMETIC: [&str; 8] = ["+", "-", "*", "**", "/", "%", "<", ">"];

/// Adds filters so that names are numbers in arithmetic and comparisons: `price > 1000` becomes `price|number >
/// 1000`, and `share == "15%"` becomes `share|string == "15%"`. A name with a filter, a call or a field is unchanged.
pub(super) fn with_numbers(template: &str) -> Cow<'_, str> {
    let (mut out, mut copied) = (String::new(), 0);
    // Tokens are slices of the text, so their offsets are known.
    let place = |word: &str| word.as_ptr() as usize - template.as_ptr() as usize;
    for tokens in placeholders(template) {
        for (nth, token) in tokens.iter().enumerate() {
            let Token::Name(name) = token else { continue };
            let Some(filter) = operand_filter(&tokens, nth) else { continue };
            let end = place(name) + name.len();
            out.push_str(template.get(copied..end).unwrap_or_default());
            out.push_str(filter);
            copied = end;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(template);
    }
    out.push_str(template.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

/// Returns the names that a template uses as conditions, as in `{% if vip %}`, where any text is true.
pub fn conditions(template: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for tokens in placeholders(template) {
        for (nth, token) in tokens.iter().enumerate() {
            let Token::Name(name) = token else { continue };
            let before = nth.checked_sub(1).and_then(|before| tokens.get(before));
            let is_asked = matches!(before, Some(Token::Operator("if" | "elif" | "and" | "or" | "not")));
            let ends = matches!(
                tokens.get(nth + 1),
                None | Some(Token::Operator("and" | "or" | "else") | Token::Close)
            );
            if is_asked && ends {
                found.push(*name);
            }
        }
    }
    found
}

/// Returns the names in a template's placeholders and statements.
pub(super) fn names(template: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for tokens in placeholders(template) {
        let is_filter =
            |nth: usize| matches!(nth.checked_sub(1).and_then(|at| tokens.get(at)), Some(Token::Link(_)));
        let named = tokens.iter().enumerate().filter(|(nth, _)| !is_filter(*nth));
        found.extend(
            named.filter_map(|(_, token)| if let Token::Name(name) = token { Some(*name) } else { None }),
        );
    }
    found
}

/// Returns the tokens of each placeholder and statement.
fn placeholders(template: &str) -> impl Iterator<Item = Vec<Token<'_>>> {
    let mut rest = template;
    std::iter::from_fn(move || {
        let start = rest.find("{{").into_iter().chain(rest.find("{%")).min()?;
        let (tokens, after) = tokens(rest.get(start + 2..).unwrap_or_default());
        rest = after;
        Some(tokens)
    })
}

/// Returns the filter that a name beside an operator needs.
fn operand_filter(tokens: &[Token<'_>], nth: usize) -> Option<&'static str> {
    let token = |at: Option<usize>| at.and_then(|at| tokens.get(at)).copied();
    let (before, behind) = (token(nth.checked_sub(1)), token(Some(nth + 1)));
    if matches!(before, Some(Token::Link(_)))
        || matches!(behind, Some(Token::Link(_) | Token::Open('(' | '[')))
    {
        return None;
    }
    // `==` and `!=` have two characters; a single `=` names an argument.
    let is_equality = |first: Option<Token<'_>>, second: Option<Token<'_>>| {
        matches!((first, second), (Some(Token::Operator("=" | "!" | "<" | ">")), Some(Token::Operator("="))))
    };
    let is_arithmetic =
        |token: Option<Token<'_>>| matches!(token, Some(Token::Operator(sign)) if ARITHMETIC.contains(&sign));
    let (is_left, other) = if is_equality(behind, token(Some(nth + 2))) {
        (true, token(Some(nth + 3)))
    } else {
        (is_arithmetic(behind), token(Some(nth + 2)))
    };
    if is_left {
        return Some(if other == Some(Token::Text) { "|string" } else { "|number" });
    }
    let first = token(nth.checked_sub(2));
    let (is_right, other) = if is_equality(first, before) {
        (true, token(nth.checked_sub(3)))
    } else {
        (is_arithmetic(before), first)
    };
    is_right.then_some(if other == Some(Token::Text) { "|string" } else { "|number" })
}

/// Returns the tokens up to the end of an expression or a statement, and the rest of the text.
fn tokens(text: &str) -> (Vec<Token<'_>>, &str) {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("}}") || rest.starts_with("%}") {
            return (tokens, &rest[2..]);
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
        rest = &rest[length..];
    }
    (tokens, rest)
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

/// Returns whether every `*` is between numbers.
fn is_sound(tokens: &[Token<'_>]) -> bool {
    tokens.iter().enumerate().filter(|(_, token)| **token == Token::Operator("*")).all(|(at, _)| {
        // After a sign the operand continues.
        let sign = |token: &&Token<'_>| matches!(token, Token::Operator("-" | "+"));
        let after = &tokens[at + 1..];
        let after = &after[after.iter().take_while(sign).count()..];
        is_number(&tokens[operand_before(tokens, at)..at]) && is_number(&after[..operand_behind(after)])
    })
}

/// Returns the start of the operand that ends before an index.
fn operand_before(tokens: &[Token<'_>], end: usize) -> usize {
    let mut depth = 0_u32;
    for at in (0..end).rev() {
        match tokens[at] {
            Token::Close => depth += 1,
            Token::Open(_) | Token::Operator(_) if depth == 0 => return at + 1,
            Token::Open(_) => depth -= 1,
            _ => {}
        }
    }
    0
}

/// Returns the end of the operand that starts with the first token.
fn operand_behind(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0_u32;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Open(_) => depth += 1,
            Token::Close | Token::Operator(_) if depth == 0 => return at,
            Token::Close => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

/// Returns whether an operand is always a number: a literal, a group of arithmetic, or any value with a numeric
/// filter.
fn is_number(operand: &[Token<'_>]) -> bool {
    let mut depth = 0_u32;
    let mut last_filter = None;
    for (at, token) in operand.iter().enumerate() {
        match token {
            Token::Open(_) => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            Token::Link('|') if depth == 0 => last_filter = Some(at),
            _ => {}
        }
    }
    if let Some(at) = last_filter {
        // Only the filter's arguments may follow it.
        let Some(Token::Name(name)) = operand.get(at + 1) else { return false };
        let arguments = &operand[at + 2..];
        let closes = arguments.is_empty()
            || arguments[0] == Token::Open('(') && operand_behind(&arguments[1..]) + 2 == arguments.len();
        return NUMERIC.contains(name) && closes;
    }
    match operand {
        [Token::Number | Token::Name("row")] => true,
        [Token::Open('('), inner @ .., Token::Close] => {
            let mut rest = inner;
            loop {
                let end = operand_behind(rest);
                // The operand before a sign is empty.
                if end > 0 && !is_number(&rest[..end]) {
                    return false;
                }
                match rest.get(end) {
                    None => return !inner.is_empty(),
                    Some(Token::Operator("+" | "-" | "*" | "/" | "%" | "**")) => rest = &rest[end + 1..],
                    Some(_) => return false,
                }
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_multiplied() {
        for template in [
            "{{ price | int * 2 }}",
            "{{ 2 * price|float }}",
            "{{ (price | float * 1.18) | round(2) }}",
            "{{ price | int * (quantity | int + 1) }}",
            "{{ row * -3 }}",
            "{{ a ~ b | length * 2 ~ '*' }}",
            "{% if price | round(1) * 2 > 7 %}x{% endif %}",
            "{{ 2 ** 3 * 4 // 5 }}",
            "a * b {{ name }}",
        ] {
            assert!(check(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_text_can_not_be_repeated() {
        for template in [
            "{{ 'x' * 1000000 }}",
            "{{ 1000000 * 'x' }}",
            "{{ name * 2 }}",
            "{{ 2 * name }}",
            "{{ (name ~ name) * 2 }}",
            "{{ (name) * 2 }}",
            "{{ 3 | string * 1000000 }}",
            "{{ 1000000 * 3|string }}",
            "{{ [1] * 1000000 }}",
            "{{ name|int|string * 5 }}",
            "{{ name[1] * 5 }}",
            "{{ x.length * 5 }}",
            "{{ (2 if a else name) * 5 }}",
            "{{ name|default(2 * name) }}",
            "{{ 'a\\'' * 2 }}",
            "{{ 2 * - name }}",
            "{{ int * 2 }}",
            "{{ name|int.x * 2 }}",
        ] {
            assert!(check(template).is_err(), "{template}");
        }
        assert!(check(&format!("{{{{ {} }}}}", vec!["a"; 600].join(" ~ "))).is_err());
        assert!(check("{% for x in y recursive %}{{ loop(x) }}{% endfor %}").is_err());
    }

    #[test]
    fn names_next_to_operators_are_numbers() {
        for (template, expected) in [
            ("{% if price > 1000 %}a{% endif %}", "{% if price|number > 1000 %}a{% endif %}"),
            ("{% if 1000 <= price %}a{% endif %}", "{% if 1000 <= price|number %}a{% endif %}"),
            (
                "{{ price * 2 if a == b else name }}",
                "{{ price|number * 2 if a|number == b|number else name }}",
            ),
            ("{% if share == '15%' %}{{ share }}", "{% if share|string == '15%' %}{{ share }}"),
            ("{% if \"x\" != share %}", "{% if \"x\" != share|string %}"),
            ("{{ a + b }} a + b {{ -c }}", "{{ a|number + b|number }} a + b {{ -c|number }}"),
        ] {
            assert_eq!(with_numbers(template), expected);
        }
        for same in [
            "{{ price }}",
            "{{ price|int * 2 }}",
            "{{ name ~ price }}",
            "{{ f(x=price) }}",
            "{{ a.b }}",
            "a > b",
        ] {
            assert_eq!(with_numbers(same), same);
        }
    }

    #[test]
    fn names_are_counted_at_any_position() {
        assert_eq!(check("{{ a ~ 'b' }} c {% if d %}e{% endif %}"), Ok(4));
    }
}
