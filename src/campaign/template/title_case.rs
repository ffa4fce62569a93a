//! Title case by Unicode's rules.

/// Returns the text with each word's first letter in title case and the others in lower case, like Jinja's `title`,
/// by Unicode's rules: final sigma, digraphs, scripts without title case.
pub(super) fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(is_border).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        titled.push_str(&capitalized(word));
        let border = after.chars().next();
        titled.extend(border);
        rest = after.get(border.map_or(0, char::len_utf8)..).unwrap_or_default();
    }
    titled
}

/// Returns a word with its first letter in title case and the others in lower case.
pub(super) fn capitalized(word: &str) -> String {
    let Some(first) = word.chars().next() else { return String::new() };
    // Convert the whole word, because the lower case of a letter may depend on its position.
    let lower = word.to_lowercase();
    let of_first: usize = first.to_lowercase().map(char::len_utf8).sum();
    let mapped = unicode_case_mapping::to_titlecase(first);
    let mut capitalized: String =
        mapped.into_iter().filter(|code| *code != 0).filter_map(char::from_u32).collect();
    if capitalized.is_empty() {
        capitalized.push(first);
    }
    capitalized.push_str(lower.get(of_first..).unwrap_or_default());
    capitalized
}

/// Converts ASCII to title case in place.
pub(super) fn title_ascii(text: &mut [u8]) {
    let mut is_start = true;
    for byte in text {
        let titled = if is_start { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() };
        is_start = is_border(char::from(*byte));
        *byte = titled;
    }
}

/// Returns whether a word starts after this character.
fn is_border(c: char) -> bool {
    matches!(c, '-' | '(' | '{' | '[' | '<') || c.is_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_follow_unicode() {
        for (text, titled) in [
            ("asha RAO-o'brien", "Asha Rao-O'brien"),
            // A final sigma has another lower case.
            (
                "\u{39f}\u{394}\u{3a5}\u{3a3}\u{3a3}\u{395}\u{3a5}\u{3a3}",
                "\u{39f}\u{3b4}\u{3c5}\u{3c3}\u{3c3}\u{3b5}\u{3c5}\u{3c2}",
            ),
            ("\u{391}\u{3a3}", "\u{391}\u{3c2}"),
            ("\u{fb01}nn", "Finn"),
            ("\u{df}a", "Ssa"),
            ("\u{1c6}ungla", "\u{1c5}ungla"),
            // Georgian has no title case.
            ("\u{10d7}\u{10d1}\u{10d8}", "\u{10d7}\u{10d1}\u{10d8}"),
            ("\u{130}stanbul", "\u{130}stanbul"),
            ("\u{906}\u{936}\u{93e}", "\u{906}\u{936}\u{93e}"),
        ] {
            assert_eq!(title(text), titled, "{text}");
        }
    }
}
