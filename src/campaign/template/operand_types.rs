//! Converts the operands of comparisons and arithmetic, because every value of a CSV file is a text. In Jinja a text is
//! greater than any number and equal to none, so `{% if amount > 1000 %}` would be true for each row.
//!
//! An operand that is not a number where one is needed skips the row; it is never compared as a text.

use std::{borrow::Cow, cmp::Ordering, collections::BTreeMap, ops::Range};

use minijinja::tests::{is_divisibleby, is_even, is_odd};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::numbers::{self, ShownNumber};
use super::operators::is_number;
use super::tokens::{Expression, Token, expressions, operand_before, operand_behind};

/// Filters whose value is a text.
const TEXTUAL: [&str; 10] =
    ["capitalize", "e", "escape", "join", "lower", "replace", "string", "title", "trim", "upper"];

/// Operators that need numbers; `+` also joins texts.
const ARITHMETIC: [&str; 5] = ["-", "*", "**", "/", "%"];

/// Conversion of an operand. If two operators need different ones, the later one here applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Conversion<'t> {
    /// A workbook's cell to its number.
    Cell,
    Text,
    /// A text to the number that it spells, if it spells one.
    NumberOrText,
    /// Checks that this other operand and it are not two texts that spell numbers.
    Addend(&'t str),
    /// To a number if this other operand is one.
    NumberIf(&'t str),
    /// To a number; a text that spells none is an error.
    Number,
    /// None, but a text is an error: a sum of two texts may have been meant to join or to add them.
    NoText,
}

impl Conversion<'_> {
    /// Returns the filter that converts, with the bar before it.
    fn filter(self) -> Cow<'static, str> {
        match self {
            Self::Cell => "|cell".into(),
            Self::Text => "|string".into(),
            Self::NumberOrText => "|number_or_text".into(),
            Self::Addend(other) => format!("|addend({other})").into(),
            Self::NumberIf(other) => format!("|number_if({other})").into(),
            Self::Number => "|number".into(),
            Self::NoText => "|no_text".into(),
        }
    }
}

/// What is known of an operand's type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind<'t> {
    Number,
    Text,
    /// A name, whose type depends on the row.
    Name(&'t str),
    Unknown,
}

/// An operator that needs operands of one type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Order,
    Equality,
    Addition,
    Arithmetic,
}

/// Adds filters so that operands have the type that their operator needs: `price > 1000` becomes `price|number >
/// 1000`, and `share == "15%"` becomes `share|string == "15%"`.
pub(super) fn convert(template: &str) -> Cow<'_, str> {
    let mut insertions: Vec<(usize, Cow<'static, str>)> = Vec::new();
    for Expression { tokens, places, .. } in expressions(template) {
        for (last, (first, conversion)) in conversions(&tokens) {
            let (Some(start), Some(end)) = (places.get(first), places.get(last)) else { continue };
            let filter = conversion.filter();
            if has_sign(&tokens, first) {
                // A filter without parentheses would apply to the sign as well.
                insertions.extend([(start.start, "(".into()), (end.end, format!("{filter})").into())]);
            } else {
                insertions.push((end.end, filter));
            }
        }
    }
    if insertions.is_empty() {
        return Cow::Borrowed(template);
    }
    insertions.sort_by_key(|(place, _)| *place);
    let (mut out, mut copied) = (String::new(), 0);
    for (place, text) in insertions {
        out.push_str(template.get(copied..place).unwrap_or_default());
        out.push_str(&text);
        copied = place;
    }
    out.push_str(template.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

/// Replaces the tests that compare, as in `price is gt(1000)` and `select("gt", 1000)`, by ones that convert alike.
pub(super) fn add_tests(jinja: &mut Environment<'static>) {
    let of = |value| ShownNumber::for_filter("number", value);
    let orders = [
        (["lt", "lessthan", "<"].as_slice(), Ordering::is_lt as fn(Ordering) -> bool),
        (&["le", "<="], Ordering::is_le),
        (&["gt", "greaterthan", ">"], Ordering::is_gt),
        (&["ge", ">="], Ordering::is_ge),
    ];
    for (names, holds) in orders {
        for name in names {
            jinja.add_test(*name, move |value: Value, other: Value| {
                let (value, other) = (of(value), of(other));
                let left = numbers::number_if(value.clone(), &other)?;
                Ok::<_, Error>(holds(left.cmp(&numbers::number_if(other, &value)?)))
            });
        }
    }
    for (names, expected) in [(["eq", "equalto", "=="].as_slice(), true), (&["ne", "!="], false)] {
        for name in names {
            jinja.add_test(*name, move |value: Value, other: Value| {
                let (value, other) = (of(value), of(other));
                let is_equal = match (value.is_number(), other.is_number()) {
                    (true, false) => value == numbers::number_or_text(other),
                    (false, true) => numbers::number_or_text(value) == other,
                    _ => value == other,
                };
                is_equal == expected
            });
        }
    }
    jinja.add_test("odd", move |value| Ok::<_, Error>(is_odd(numbers::number(of(value))?)));
    jinja.add_test("even", move |value| Ok::<_, Error>(is_even(numbers::number(of(value))?)));
    jinja.add_test("divisibleby", move |value, by| {
        let (value, by) = (numbers::number(of(value))?, numbers::number(of(by))?);
        // minijinja panics.
        let is_zero = by == Value::from(0);
        if is_zero { Err(ErrorKind::InvalidOperation.into()) } else { Ok(is_divisibleby(&value, &by)) }
    });
}

/// Returns whether the operand that starts at an index has a sign.
fn has_sign(tokens: &[Token<'_>], first: usize) -> bool {
    let before = |count: usize| first.checked_sub(count).and_then(|at| tokens.get(at));
    matches!(before(1), Some(Token::Operator("-" | "+")))
        && matches!(before(2), None | Some(Token::Operator(_) | Token::Open(_)))
}

/// Returns the conversions of an expression's operands, by the index of the operand's last token, with that of its first.
fn conversions<'t>(tokens: &[Token<'t>]) -> BTreeMap<usize, (usize, Conversion<'t>)> {
    let mut found: BTreeMap<usize, (usize, Conversion<'t>)> = BTreeMap::new();
    let mut add = |operand: Range<usize>, conversion: Option<Conversion<'t>>| {
        let Some((last, conversion)) = operand.end.checked_sub(1).zip(conversion) else { return };
        let (_, found) = found.entry(last).or_insert((operand.start, conversion));
        *found = conversion.max(*found);
    };
    for at in 0..tokens.len() {
        if let Some(name) = name_in_numbers(tokens, at) {
            add(name, Some(Conversion::NumberOrText));
        }
        let Some((operator, after)) = operator_at(tokens, at) else { continue };
        // After a sign the operand continues.
        let sign = |token: &&Token<'_>| matches!(token, Token::Operator("-" | "+"));
        let start = after + tokens[after..].iter().take_while(sign).count();
        let left = operand_before(tokens, at)..at;
        let right = start..start + operand_behind(&tokens[start..]);
        let (left_kind, right_kind) = (kind(&tokens[left.clone()]), kind(&tokens[right.clone()]));
        let is_signed = start > after;
        let right_kind = if is_signed { Kind::Number } else { right_kind };
        for (operand, own, other) in [(left, left_kind, right_kind), (right, right_kind, left_kind)] {
            if !operand.is_empty() {
                let is_group = matches!(tokens[operand.start], Token::Open('('));
                add(operand, conversion(operator, own, other, is_group));
            }
        }
    }
    found
}

/// Returns the operator that starts at an index, and where its right operand starts.
fn operator_at(tokens: &[Token<'_>], at: usize) -> Option<(Operator, usize)> {
    let Token::Operator(sign) = tokens.get(at)? else { return None };
    let is_next_equal = tokens.get(at + 1) == Some(&Token::Operator("="));
    let previous = at.checked_sub(1).and_then(|before| tokens.get(before));
    match *sign {
        "<" | ">" => Some((Operator::Order, at + 1 + usize::from(is_next_equal))),
        "!" | "=" if is_next_equal => Some((Operator::Equality, at + 2)),
        // The second character of an operator, or the name of an argument.
        "=" => None,
        // The second character of `//`.
        "/" if previous == Some(&Token::Operator("/")) => None,
        "/" if tokens.get(at + 1) == Some(&Token::Operator("/")) => Some((Operator::Arithmetic, at + 2)),
        "+" => Some((Operator::Addition, at + 1)),
        sign if ARITHMETIC.contains(&sign) => Some((Operator::Arithmetic, at + 1)),
        _ => None,
    }
}

/// Returns the name before an `in` at an index, if a list of numbers follows.
fn name_in_numbers(tokens: &[Token<'_>], at: usize) -> Option<Range<usize>> {
    let [Token::Operator("in"), Token::Open('[' | '('), list @ ..] = tokens.get(at..)? else { return None };
    let list = &list[..list.iter().position(|token| *token == Token::Close)?];
    let is_number = |token: &Token<'_>| matches!(token, Token::Number | Token::Operator("," | "-"));
    let end = if at > 0 && tokens[at - 1] == Token::Operator("not") { at - 1 } else { at };
    let start = operand_before(tokens, end);
    let is_name = matches!(tokens[start..end], [Token::Name(_)]);
    (is_name && list.iter().all(is_number)).then_some(start..end)
}

fn kind<'t>(operand: &[Token<'t>]) -> Kind<'t> {
    if is_number(operand) {
        return Kind::Number;
    }
    let last_filter = operand.iter().rposition(|token| *token == Token::Link('|'));
    let filter = last_filter.and_then(|at| operand.get(at + 1));
    match operand {
        [Token::Text] => Kind::Text,
        [Token::Name(name)] => Kind::Name(name),
        // A bar in a group belongs to the group.
        _ if matches!(filter, Some(Token::Name(name)) if TEXTUAL.contains(name)) => Kind::Text,
        _ => Kind::Unknown,
    }
}

/// Returns the conversion of an operand beside another one.
fn conversion<'t>(
    operator: Operator,
    own: Kind<'t>,
    other: Kind<'t>,
    is_group: bool,
) -> Option<Conversion<'t>> {
    let number = if is_group { Conversion::NoText } else { Conversion::Number };
    match (operator, own, other) {
        (_, Kind::Number, _) | (Operator::Order | Operator::Equality, Kind::Text, Kind::Text) => None,
        (Operator::Arithmetic, ..) | (Operator::Order | Operator::Addition, _, Kind::Number) => Some(number),
        (Operator::Equality, _, Kind::Number) if is_group => Some(number),
        (Operator::Equality, _, Kind::Number) => Some(Conversion::NumberOrText),
        (_, Kind::Text, _) => None,
        (Operator::Order, _, Kind::Text) | (_, Kind::Name(_), Kind::Text) => Some(Conversion::Text),
        (Operator::Order, Kind::Name(_), Kind::Name(other)) => Some(Conversion::NumberIf(other)),
        (Operator::Order, ..) => Some(number),
        (Operator::Addition, Kind::Name(_), Kind::Name(other)) => Some(Conversion::Addend(other)),
        (_, Kind::Name(_), _) => Some(Conversion::Cell),
        (_, Kind::Unknown, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_have_the_type_that_their_operator_needs() {
        for (template, expected) in [
            ("{% if price > 1000 %}a{% endif %}", "{% if price|number > 1000 %}a{% endif %}"),
            ("{% if 1000 <= price %}a{% endif %}", "{% if 1000 <= price|number %}a{% endif %}"),
            ("{%- if price > -1000 -%}", "{%- if price|number > -1000 -%}"),
            ("{% if a >= b %}", "{% if a|number_if(b) >= b|number_if(a) %}"),
            ("{% if 1 < a < 9 %}", "{% if 1 < a|number < 9 %}"),
            ("{% if a > 'm' and b|lower < c %}", "{% if a|string > 'm' and b|lower < c|string %}"),
            (
                "{% if a | trim > 5 or loop.index > 2 %}",
                "{% if a | trim|number > 5 or loop.index|number > 2 %}",
            ),
            ("{% if (a + b) > 3 %}", "{% if (a|addend(b) + b|addend(a))|no_text > 3 %}"),
            ("{% if a[0] > 3 %}", "{% if a[0]|number > 3 %}"),
            ("{% if price|default(0) > 3 %}", "{% if price|default(0)|number > 3 %}"),
            ("{{ price * 2 if a == b else name }}", "{{ price|number * 2 if a|cell == b|cell else name }}"),
            ("{% if count == 1 %}", "{% if count|number_or_text == 1 %}"),
            ("{% if count != -1 %}", "{% if count|number_or_text != -1 %}"),
            ("{% if (a + b) == 1 %}", "{% if (a|addend(b) + b|addend(a))|no_text == 1 %}"),
            ("{% if count not in [1, 2] %}", "{% if count|number_or_text not in [1, 2] %}"),
            ("{% if share == '15%' %}{{ share }}", "{% if share|string == '15%' %}{{ share }}"),
            ("{% if \"x\" != share %}", "{% if \"x\" != share|string %}"),
            ("{{ a + b }} a + b {{ -c }}", "{{ a|addend(b) + b|addend(a) }} a + b {{ -(c|number) }}"),
            ("{{ a + 'x' + b + 1 }}", "{{ a|string + 'x' + b|number + 1 }}"),
            ("{{ 2 ** -a > -b }}", "{{ 2 ** -(a|number) > -(b|number) }}"),
            ("{{ a // 7 - b }}", "{{ a|number // 7 - b|number }}"),
        ] {
            assert_eq!(convert(template), expected);
        }
        for same in [
            "{{ price }}",
            "{{- name -}}",
            "{{ price|int * 2 }}",
            "{{ name ~ price }}",
            "{{ f(x=price) }}",
            "{{ a.b }}",
            "{% for a in [1, 2] %}",
            "{% if a in ['1', 2] %}",
            "{% if a|lower == b|lower %}",
            "a > b",
        ] {
            assert_eq!(convert(same), same);
        }
    }
}
