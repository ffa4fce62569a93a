//! The words with which a person asks for nothing more.

use crate::campaign::delivery::ReplyContent;

/// What is understood without configuration.
const USUAL: [&str; 8] = ["STOP", "STOPALL", "STOP ALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "OPT OUT"];

/// Words that put who answers with one of them on the list of suppressed numbers.
pub struct StopWords(Vec<String>);

impl StopWords {
    /// These words; without any the usual ones.
    pub fn new(words: Option<&[String]>) -> Self {
        let usual = || USUAL.iter().map(ToString::to_string).collect();
        Self(words.map_or_else(usual, |words| words.iter().map(|word| plain(word)).collect()))
    }

    /// Whether an answer is one of them, and nothing else.
    pub(super) fn is_one(&self, content: &ReplyContent) -> bool {
        matches!(content, ReplyContent::Text(text) if self.0.contains(&plain(text)))
    }
}

/// A text in capitals, without signs and without white space around.
fn plain(text: &str) -> String {
    let letters: String = text.chars().map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect();
    letters.split_whitespace().collect::<Vec<_>>().join(" ").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_word_stands_alone_in_any_writing() {
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
