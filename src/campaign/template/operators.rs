//! Reads the operators of a template before it is compiled: `*` stands between numbers only, because
//! Jinja repeats a text with it; and names are counted, because `~` joins what they stand for.

/// Filters whose value is a number.
const NUMERIC: [&str; 6] = ["abs", "count", "float", "int", "length", "round"];
/// Words that stand between two operands, or before one.
const WORDS: [&str; 8] = ["and", "or", "not", "in", "is", "if", "elif", "else"];

/// The most tokens of a string: the compiler and what it makes recurse over them.
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
    /// What filters, fields and calls are made of: `|` and `.`.
    Link(char),
    /// Everything else: it ends an operand.
    Operator(&'t str),
}

/// How many names and texts a template uses.
///
/// # Errors
///
/// Why it can't be offered: too long, or a `*` beside what may be a text.
pub(super) fn check(template: &str) -> Result<usize, String> {
    let (mut names, mut count) = (0, 0);
    let mut rest = template;
    while let Some(start) = rest.find("{{").into_iter().chain(rest.find("{%")).min() {
        let (tokens, after) = tokens(&rest[start + 2..]);
        names += tokens.iter().filter(|token| matches!(token, Token::Name(_) | Token::Text)).count();
        count += tokens.len();
        if count > TOKENS {
            return Err(format!("has more than {TOKENS} names, values and operators in its placeholders"));
        }
        if tokens.contains(&Token::Name("recursive")) {
            return Err("recursive loops are not offered in messages".into());
        }
        if !is_sound(&tokens) {
            return Err(
                "\"*\" stands between numbers only; write {{ price | float * 2 }}, with | int or | float behind a name"
                    .into(),
            );
        }
        rest = after;
    }
    Ok(names)
}

/// The tokens up to the end of an expression or a statement, and what stands behind it.
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
            c if c.is_alphanumeric() || c == '_' => {
                length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
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

/// How long a quoted text is, its quotes included.
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

/// Whether every `*` stands between numbers.
fn is_sound(tokens: &[Token<'_>]) -> bool {
    tokens.iter().enumerate().filter(|(_, token)| **token == Token::Operator("*")).all(|(at, _)| {
        // Behind a sign the operand goes on.
        let sign = |token: &&Token<'_>| matches!(token, Token::Operator("-" | "+"));
        let after = &tokens[at + 1..];
        let after = &after[after.iter().take_while(sign).count()..];
        is_number(&tokens[operand_before(tokens, at)..at]) && is_number(&after[..operand_behind(after)])
    })
}

/// Where the operand that ends before a place begins.
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

/// Where the operand that begins with the first token ends.
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

/// Whether an operand is a number whatever its names stand for: a number, a group of arithmetic, or
/// anything behind a filter that makes a number of it.
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
        // Nothing may follow the filter but its own arguments.
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
                // An empty operand stands before a sign.
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
    fn names_are_counted_wherever_they_stand() {
        assert_eq!(check("{{ a ~ 'b' }} c {% if d %}e{% endif %}"), Ok(4));
    }
}
