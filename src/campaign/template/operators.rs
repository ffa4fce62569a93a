//! Checks the operators of a template before it is compiled: `*` is allowed only between numbers, because in Jinja it
//! repeats a text; names are counted, because `~` concatenates their values.

use super::tokens::{Expression, Token, expressions, operand_before, operand_behind};

/// Filters whose value is a number.
const NUMERIC: [&str; 7] = ["abs", "count", "float", "int", "length", "number", "round"];
/// Maximum number of tokens of a string: the compiler and its output recurse over them.
const TOKENS: usize = 1000;

/// Returns the number of names and text literals in a template.
///
/// # Errors
///
/// Why it is not supported: too long, or a `*` beside a value that may be a text.
pub(super) fn check(template: &str) -> Result<usize, String> {
    let (mut names, mut count) = (0, 0);
    for Expression { tokens, .. } in expressions(template) {
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

/// Returns the names that a template uses as conditions, as in `{% if vip %}`, where any text is true.
pub fn conditions(template: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for Expression { tokens, .. } in expressions(template) {
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
    for Expression { tokens, .. } in expressions(template) {
        let is_filter =
            |nth: usize| matches!(nth.checked_sub(1).and_then(|at| tokens.get(at)), Some(Token::Link(_)));
        let named = tokens.iter().enumerate().filter(|(nth, _)| !is_filter(*nth));
        found.extend(
            named.filter_map(|(_, token)| if let Token::Name(name) = token { Some(*name) } else { None }),
        );
    }
    found
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

/// Returns whether an operand is always a number: a literal, a group of arithmetic, or any value with a numeric
/// filter.
pub(super) fn is_number(operand: &[Token<'_>]) -> bool {
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
    fn names_are_counted_at_any_position() {
        assert_eq!(check("{{ a ~ 'b' }} c {% if d %}e{% endif %}"), Ok(4));
    }
}
