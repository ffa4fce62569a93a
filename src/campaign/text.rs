//! Texts for people: numbers, counts, and untrusted text made safe to show.
//!
//! Characters that move the cursor, start a line or change the reading direction are escaped, so that no job,
//! audience or provider can overwrite a terminal, a log or a page.

use std::{borrow::Cow, fmt::Write};

/// Returns bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Returns a text on one line, with control characters escaped as in JSON: `\n`, `\u001b`.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Escapes a text of several lines: line breaks and tabs stay. In the strings of a JSON text the escapes do not
/// change the value.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

fn escaped(text: &str, stays: fn(char) -> bool) -> Cow<'_, str> {
    let is_escaped = |c: char| is_hidden(c) && !stays(c);
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            _ if !is_escaped(c) => shown.push(c),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            _ => {
                let _ = write!(shown, "\\u{:04x}", u32::from(c));
            }
        }
    }
    Cow::Owned(shown)
}

/// Returns a field's name as a title: `flow_action` becomes `Flow action`.
pub fn titled(name: &str) -> String {
    let name = name.replace('_', " ");
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Cuts a text to at most `longest` bytes; a cut text ends with `…`.
pub fn shortened(text: &str, longest: usize) -> Cow<'_, str> {
    const CUT: char = '…';
    if text.len() <= longest {
        return Cow::Borrowed(text);
    }
    let mut end = longest.saturating_sub(CUT.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}{CUT}", text.get(..end).unwrap_or_default()))
}

/// Returns a value for use in a message: trimmed, with balanced marks of reading direction, so that a name cannot
/// reverse the rest of the message. A value that shows nothing is empty.
pub fn value(text: &str) -> Cow<'_, str> {
    let is_blank = |c: char| c.is_whitespace() || is_invisible(c) && !is_joiner(c);
    if text.is_ascii() {
        return Cow::Borrowed(text.trim());
    }
    if text.chars().all(|c| is_blank(c) || is_joiner(c)) {
        return Cow::Borrowed("");
    }
    let text = text.trim_matches(|c: char| is_blank(c) && !is_direction(c));
    if text.contains(is_direction) { Cow::Owned(balanced(text)) } else { Cow::Borrowed(text) }
}

/// Joiners shape the letters around them, as in Persian and Hindi.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

/// Marks that change the reading direction until they are closed, with the closing mark (Unicode, annex 9).
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Balances the marks of reading direction: removes unmatched closing marks, and closes open ones at the end.
fn balanced(text: &str) -> String {
    let (mut out, mut open) = (String::with_capacity(text.len() + 8), Vec::new());
    for c in text.chars() {
        match c {
            '\u{202a}' | '\u{202b}' | '\u{202d}' | '\u{202e}' => open.push('\u{202c}'),
            '\u{2066}'..='\u{2068}' => open.push('\u{2069}'),
            '\u{202c}' | '\u{2069}' if open.last() == Some(&c) => drop(open.pop()),
            '\u{202c}' | '\u{2069}' => continue,
            _ => {}
        }
        out.push(c);
    }
    out.extend(open.into_iter().rev());
    out
}

/// Formats a number with thousands separators: `12,345`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a count with its noun: `1 request`, `1,200 requests`.
pub fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// Returns whether a character is invisible: zero-width, a mark of direction, or a byte-order mark.
pub fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{ad}')
}

/// Returns whether a character must be escaped: control characters, line and paragraph separators, and overrides of
/// the reading direction. Joiners stay: Indian scripts and emoji need them.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_control_characters_are_escaped() {
        assert_eq!(visible("Diwali \u{1b}[2Jnow\r\n\u{9b}1m"), "Diwali \\u001b[2Jnow\\r\\n\\u009b1m");
        assert_eq!(visible("a\u{202e}b\u{7f}"), "a\\u202eb\\u007f");
        assert_eq!(visible_lines("a\n\tb\u{1b}"), "a\n\tb\\u001b");
        for plain in ["", "दीवाली 🪔", "क्\u{200d}ष", "tab-less"] {
            assert!(matches!(visible(plain), Cow::Borrowed(_)), "{plain}");
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(shortened("दीवाली", 18), "दीवाली");
        for longest in 3..18 {
            let cut = shortened("दीवाली", longest);
            assert!(cut.len() <= longest && cut.ends_with('…'), "{longest}: {cut}");
        }
    }

    #[test]
    fn an_escaped_json_text_keeps_its_meaning() {
        let value = serde_json::json!({ "name": "a\u{9b}b\u{202e}\u{1b}\n" });
        let shown = visible_lines(&value.to_string()).into_owned();
        assert!(!shown.contains(is_hidden));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn a_value_has_only_its_visible_characters() {
        for (text, shown) in [
            (" Asha ", "Asha"),
            ("\u{a0}Asha\u{200b}", "Asha"),
            (" \u{200b}\u{a0}\u{feff} ", ""),
            ("\u{200c}", ""),
            ("\u{202e}ahsA", "\u{202e}ahsA\u{202c}"),
            ("Asha\u{202c}", "Asha"),
            ("\u{2067}\u{202b}a\u{2069}", "\u{2067}\u{202b}a\u{202c}\u{2069}"),
            ("\u{2067}a\u{2069}", "\u{2067}a\u{2069}"),
            // Joiners shape the letters next to them.
            ("\u{915}\u{94d}\u{200d}", "\u{915}\u{94d}\u{200d}"),
        ] {
            assert_eq!(value(text), shown, "{text:?}");
        }
    }
}
