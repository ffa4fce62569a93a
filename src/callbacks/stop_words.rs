//! Recognises stop words, with which recipients opt out.

use crate::campaign::delivery::ReplyContent;

/// The stop words without configuration.
const USUAL: [&str; 8] = ["STOP", "STOPALL", "STOP ALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "OPT OUT"];

/// Words that opt out the recipient who replies with one of them.
pub struct StopWords(Vec<String>);

impl StopWords {
    /// Returns these words, or the usual ones if there are none.
    pub fn new(words: Option<&[String]>) -> Self {
        let usual = || USUAL.iter().map(ToString::to_string).collect();
        Self(words.map_or_else(usual, |words| words.iter().map(|word| normalize(word)).collect()))
    }

    /// Returns whether a reply consists only of a stop word.
    pub(super) fn is_one(&self, content: &ReplyContent) -> bool {
        matches!(content, ReplyContent::Text(text) if self.0.contains(&normalize(text)))
    }
}

/// Returns a text in capitals, without punctuation and surrounding white space.
fn normalize(text: &str) -> String {
    let letters: String = text.chars().map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect();
    letters.split_whitespace().collect::<Vec<_>>().join(" ").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_is_only_a_stop_word_counts_in_any_spelling() {
        let is_one = |words: &StopWords, text: &str| words.is_one(&ReplyContent::Text(text.into()));
        let usual = StopWords::new(None);
        for text in ["STOP", "stop", " Stop! ", "stop.", "opt-out", "Stop  all"] {
            assert!(is_one(&usual, text), "{text}");
        }
        for text in ["", "don't stop", "STOPS", "I can't stop thinking of it"] {
            assert!(!is_one(&usual, text), "{text}");
        }
        let own = StopWords::new(Some(&["बंद".into(), "Schluss".into()]));
        assert!(is_one(&own, "बंद") && is_one(&own, "schluss!") && !is_one(&own, "stop"));
        assert!(!usual.is_one(&ReplyContent::Other("image".into())));
    }
}
