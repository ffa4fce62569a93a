//! What a template may contain, and what is wrong with one that minijinja cannot parse: the common mistakes, with what to
//! write.

use super::tokens::{Delimiter, Expression, Token, expressions};

/// The supported statements. A message does not need the others, which could build very large values.
const STATEMENTS: [&str; 8] = ["if", "elif", "else", "endif", "for", "endfor", "raw", "endraw"];

/// The supported filters.
pub(super) const FILTERS: [&str; 39] = [
    "abs",
    "bool",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
];

/// The supported tests.
pub(super) const TESTS: [&str; 36] = [
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "int",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "safe",
    "sameas",
    "sequence",
    "startingwith",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

/// Checks the syntax of a template.
///
/// # Errors
///
/// The first mistake, and what to write.
pub(super) fn check(template: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    for expression in expressions(template) {
        closing(&expression, template)?;
        match expression.delimiter {
            Delimiter::Value if expression.tokens.is_empty() => {
                return Err("has an empty placeholder {{ }}; write a column's name in it".into());
            }
            Delimiter::Value => {}
            Delimiter::Statement => statement(&expression.tokens, &mut open)?,
        }
    }
    match open.last() {
        Some(word) => Err(format!("has {{% {word} %}} without {{% end{word} %}}")),
        None => Ok(()),
    }
}

/// The characters of operators, and of their keywords.
const KNOWN: &str = "+-*/%<>=!~,:abcdefghijklmnopqrstuvwxyz";

/// Quotes that word processors write.
const CURLY_QUOTES: [&str; 4] = ["\u{201c}", "\u{201d}", "\u{2018}", "\u{2019}"];

/// Checks the brackets of an expression, and that it ends with the delimiter of its kind.
fn closing(expression: &Expression<'_>, template: &str) -> Result<(), String> {
    let (start, end) = match expression.delimiter {
        Delimiter::Value => ("{{", "}}"),
        Delimiter::Statement => ("{%", "%}"),
    };
    let mut open = Vec::new();
    for (token, place) in expression.tokens.iter().zip(&expression.places) {
        match token {
            Token::Open(bracket) => open.push(*bracket),
            Token::Close => {
                let found = template.get(place.clone()).unwrap_or_default();
                match open.pop() {
                    None => {
                        return Err(format!(
                            "has an unexpected \"{found}\" after \"{start}\"; the placeholder ends with \"{end}\""
                        ));
                    }
                    Some(bracket) if closing_of(bracket) != found => return Err(not_closed(bracket, found)),
                    Some(_) => {}
                }
            }
            Token::Operator(quote) if CURLY_QUOTES.contains(quote) => {
                return Err(format!("has the quote {quote} in a placeholder; write \" or '"));
            }
            Token::Operator(sign) if !sign.contains(|c: char| KNOWN.contains(c)) => {
                return Err(format!("has an unexpected {sign:?} between \"{start}\" and \"{end}\""));
            }
            _ => {}
        }
    }
    if !expression.is_closed {
        return Err(format!("has \"{start}\" without \"{end}\""));
    }
    match open.pop() {
        Some('{') if expression.tokens.first() == Some(&Token::Open('{')) => {
            Err("has \"{{{\"; a placeholder starts with \"{{\" and ends with \"}}\"".into())
        }
        Some(bracket) => Err(not_closed(bracket, end)),
        None => Ok(()),
    }
}

fn closing_of(bracket: char) -> &'static str {
    match bracket {
        '(' => ")",
        '[' => "]",
        _ => "}",
    }
}

fn not_closed(bracket: char, before: &str) -> String {
    format!("has \"{bracket}\" without \"{}\" before \"{before}\"", closing_of(bracket))
}

/// Checks the keyword of a statement, and that it fits the open ones.
fn statement<'t>(tokens: &[Token<'t>], open: &mut Vec<&'t str>) -> Result<(), String> {
    let word = match tokens.first() {
        Some(Token::Name(word) | Token::Operator(word)) => *word,
        _ => "",
    };
    if !STATEMENTS.contains(&word) {
        return Err(unsupported_statement(word));
    }
    let is_condition = matches!(word, "if" | "elif");
    if is_condition && tokens.len() == 1 {
        return Err(format!("has {{% {word} %}} without a condition, e.g. {{% {word} amount > 1000 %}}"));
    }
    if is_condition && has_single_equals(tokens) {
        return Err(format!("compares with \"=\" in {{% {word} %}}; write \"==\""));
    }
    let opened = match word {
        "if" | "for" => {
            open.push(word);
            return Ok(());
        }
        "endif" | "elif" => "if",
        "endfor" => "for",
        "else" if open.is_empty() => "if",
        _ => return Ok(()),
    };
    if open.last() != Some(&opened) {
        return Err(format!("has {{% {word} %}} without {{% {opened} %}}"));
    }
    if word.starts_with("end") {
        open.pop();
    }
    Ok(())
}

/// Returns whether a condition has a `=` that is neither part of a comparison nor of an argument.
fn has_single_equals(tokens: &[Token<'_>]) -> bool {
    let mut depth = 0_u32;
    tokens.iter().enumerate().any(|(at, token)| {
        match token {
            Token::Open(_) => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            Token::Operator("=") if depth == 0 => {
                let before = at.checked_sub(1).and_then(|at| tokens.get(at));
                let is_second = matches!(before, Some(Token::Operator("=" | "!" | "<" | ">")));
                return !is_second && tokens.get(at + 1) != Some(&Token::Operator("="));
            }
            _ => {}
        }
        false
    })
}

/// Returns the error of a statement that is not supported.
pub(super) fn unsupported_statement(word: &str) -> String {
    format!("{{% {word} %}} is not supported in messages; expected one of: {}", STATEMENTS.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named_with_what_to_write() {
        for (template, expected) in [
            ("Hi {{ name", r#"has "{{" without "}}""#),
            (
                "{{ name } and {{ city }}",
                r#"has an unexpected "}" after "{{"; the placeholder ends with "}}""#,
            ),
            ("{{ name) }}", r#"has an unexpected ")" after "{{"; the placeholder ends with "}}""#),
            ("{% if a", r#"has "{%" without "%}""#),
            ("{% if a %}x", "has {% if %} without {% endif %}"),
            ("{% if a %}x{% endfor %}", "has {% endfor %} without {% for %}"),
            ("{% for a in b %}x{% endif %}", "has {% endif %} without {% if %}"),
            ("x{% endif %}", "has {% endif %} without {% if %}"),
            ("{% else %}", "has {% else %} without {% if %}"),
            ("{% if %}x{% endif %}", "has {% if %} without a condition, e.g. {% if amount > 1000 %}"),
            ("{% if a = 1 %}x{% endif %}", r#"compares with "=" in {% if %}; write "==""#),
            ("{{ name ? 1 : 2 }}", r#"has an unexpected "?" between "{{" and "}}""#),
            (
                "{{ name | default(\u{201c}x\u{201d}) }}",
                "has the quote \u{201c} in a placeholder; write \" or '",
            ),
            ("{{ name | default(\"a\" }}", r#"has "(" without ")" before "}}""#),
            ("{{ [name | default(\"a\"] }}", r#"has "(" without ")" before "]""#),
            ("{% if (a %}x{% endif %}", r#"has "(" without ")" before "%}""#),
            ("{{{name}}}", r#"has "{{{"; a placeholder starts with "{{" and ends with "}}""#),
            ("{{ }}", "has an empty placeholder {{ }}; write a column's name in it"),
        ] {
            assert_eq!(check(template), Err(expected.into()), "{template}");
        }
        assert!(check("{% set a = 1 %}").unwrap_err().starts_with("{% set %} is not supported"));
    }

    #[test]
    fn correct_templates_have_no_mistakes() {
        for template in [
            "{% if a == 1 and b >= 2 %}x{% elif f(x=1) %}y{% else %}z{% endif %}",
            "{% for a in [1, {'b': (2)}] %}{{ a }}{% else %}none{% endfor %}",
            "{# {{ #}{{ '}}' ~ \"{%\" }}{% raw %}{{ {% if %}{% endraw %}",
            "{%- if a is not none -%}x{%- endif -%}",
            "a } b = c {",
        ] {
            assert_eq!(check(template), Ok(()), "{template}");
        }
    }

    #[test]
    fn the_listed_filters_and_tests_exist() {
        let mut jinja = minijinja::Environment::new();
        super::super::bounds::bound(&mut jinja);
        for name in FILTERS {
            let error = jinja.render_str(&format!("{{{{ x|{name} }}}}"), ()).err();
            let is_unknown = error.is_some_and(|error| error.kind() == minijinja::ErrorKind::UnknownFilter);
            assert!(!is_unknown, "{name}");
        }
        for name in TESTS {
            let error = jinja.render_str(&format!("{{{{ 1 is {name} }}}}"), ()).err();
            let is_unknown = error.is_some_and(|error| error.kind() == minijinja::ErrorKind::UnknownTest);
            assert!(!is_unknown, "{name}");
        }
    }
}
