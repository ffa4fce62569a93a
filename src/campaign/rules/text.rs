//! Checks of texts: length, links, emoji, dates, placeholders.

use unicode_properties::{EmojiStatus, UnicodeEmoji};

use super::{Authority, Form, LONGEST_TEXT, Text, exceeds};
use crate::campaign::problem::Problem;

impl Text {
    /// Returns what is wrong with a rendered text, if anything.
    pub(super) fn problem(&self, text: &str, pointer: &str) -> Option<Problem> {
        let by = self.source.named();
        if text.is_empty() && !self.may_be_empty {
            return Some(Problem::new(pointer, "is empty"));
        }
        if !self.one_of.is_empty() && !self.one_of.contains(&text) {
            let known = self.one_of.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
            let one = if self.one_of.len() > 1 { "one of " } else { "" };
            return Some(Problem::new(pointer, format!("must be {one}{known}")));
        }
        let length = text.chars().count();
        if self.max > 0 && length > self.max {
            return Some(exceeds(pointer, length, self.max, self.source));
        }
        if length > LONGEST_TEXT {
            return Some(exceeds(pointer, length, LONGEST_TEXT, Authority::Flowcast));
        }
        let violation = match self.form {
            Form::Link if !is_link(text) => {
                Some(format!("must be an http:// or https:// address with a host{by}"))
            }
            Form::Trimmed if text.trim() != text => Some(format!("must not begin or end with a space{by}")),
            Form::NoEmoji if has_emoji(text) => Some(format!("must not contain an emoji{by}")),
            Form::Name
                if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') =>
            {
                Some(format!("must contain only lower-case letters, digits and underscores{by}"))
            }
            Form::Date if text.parse::<jiff::civil::Date>().is_err() || text.len() != 10 => {
                Some(format!("must be a date in the form YYYY-MM-DD{by}"))
            }
            Form::CountryCode if text.len() != 2 || !text.bytes().all(|b| b.is_ascii_alphabetic()) => {
                Some(format!("must be a two-letter country code{by}"))
            }
            _ => None,
        };
        violation.map(|violation| Problem::new(pointer, violation))
    }
}

/// Returns whether a text is a URL that a provider accepts.
pub fn is_link(text: &str) -> bool {
    !text.contains(|c: char| c.is_whitespace() || c.is_control())
        && url::Url::parse(text)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some())
}

/// Returns whether a text has an emoji: by Unicode's property, or by a character that turns the one before it into an
/// emoji.
fn has_emoji(text: &str) -> bool {
    /// The characters that turn the one before them into an emoji.
    const ASKS: [char; 2] = ['\u{fe0f}', '\u{20e3}'];
    text.chars().any(|c| ASKS.contains(&c) || is_shown_as_emoji(c))
}

fn is_shown_as_emoji(c: char) -> bool {
    matches!(
        c.emoji_status(),
        EmojiStatus::EmojiPresentation
            | EmojiStatus::EmojiPresentationAndModifierBase
            | EmojiStatus::EmojiPresentationAndModifierAndEmojiComponent
            | EmojiStatus::EmojiPresentationAndEmojiComponent
    )
}

/// Returns whether a text has a pair of the signs with which `WhatsApp` formats words.
pub fn plain_markdown(text: &str) -> bool {
    // The texts between two signs, without a space at either end.
    let is_pair = |sign: char| {
        let between: Vec<&str> = text.split(sign).collect();
        let between = between.get(1..between.len().saturating_sub(1)).unwrap_or_default();
        between.iter().any(|words| !words.is_empty() && words.trim() == *words)
    };
    ['*', '_', '~', '`'].into_iter().any(is_pair)
}

/// The part of [`is_link`] that a regular expression can express.
pub const LINK_PATTERN: &str = r"^[Hh][Tt][Tt][Pp][Ss]?:[^ ]+$";
/// Unicode's white space, as the contents of a character class.
pub const WHITE_SPACE: &str = r"\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";
/// [`is_template`] as a regular expression.
pub const PLACEHOLDER: &str = r"\{\{|\{%";

/// Returns whether a string has a placeholder or a statement.
pub fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}
