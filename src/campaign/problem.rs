//! Problems of a job, with the place, the rule and a correction.

use std::fmt;

use super::text::{counted, shortened, visible};

/// Maximum length of a problem's pointer and message, in bytes: the names and values in them may be very long.
const LONGEST_POINTER: usize = 256;
const LONGEST_MESSAGE: usize = 1_024;
/// Maximum length of a name for which a similar one is suggested, in bytes.
const LONGEST_NAME: usize = 64;

/// A problem of a document: its place, and what to do.
///
/// The message never quotes a value that came from a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A JSON pointer into the job, empty for the whole job; cut to 256 bytes.
    pub pointer: String,
    /// What is wrong and what would be right; cut to 1,024 bytes.
    pub message: String,
    /// The missing required field of the object at the pointer, if that is the problem.
    pub missing: Option<&'static str>,
    /// How long the text at the pointer is, where it is too long.
    pub excess: Option<Excess>,
}

/// The length of a text that is too long, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// How many it has.
    pub length: usize,
    /// How many are allowed.
    pub max: usize,
}

impl Problem {
    /// Creates a problem at a place.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        let cut = |text: String, longest| match shortened(&text, longest) {
            std::borrow::Cow::Owned(short) => short,
            std::borrow::Cow::Borrowed(_) => text,
        };
        Self {
            pointer: cut(pointer.into(), LONGEST_POINTER),
            message: cut(message.into(), LONGEST_MESSAGE),
            missing: None,
            excess: None,
        }
    }

    /// Creates the problem of a missing required field; `more` follows in the message.
    pub fn missing(pointer: impl Into<String>, field: &'static str, more: &str) -> Self {
        let message = format!("{field:?} is required but missing{more}");
        Self { missing: Some(field), ..Self::new(pointer, message) }
    }

    /// Returns the place and what is wrong there, in words only: what a page shows.
    pub fn to_text(&self) -> String {
        format!("{}: {}", location(&self.pointer), visible(&self.message))
    }
}

/// The plain words, and the JSON pointer behind them for engineers.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())?;
        if self.pointer.is_empty() { Ok(()) } else { write!(f, " ({})", visible(&self.pointer)) }
    }
}

/// Returns the words for a place in a job: `message text body`, `audience recipient 2 phone`, `the job`.
/// Items of a list are counted from 1.
pub fn location(pointer: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        let nth = step.parse::<u64>().ok().and_then(|index| index.checked_add(1));
        match (nth, words.last_mut()) {
            (Some(nth), Some(list)) => {
                if list.len() > 1 && list.ends_with('s') {
                    list.pop();
                }
                *list += &format!(" {nth}");
            }
            _ => words.push(visible(&step).replace('_', " ")),
        }
    }
    if words.is_empty() { "the job".into() } else { words.join(" ") }
}

/// The first 20 problems of a document, and the number of others. A document may have a million.
#[derive(Debug, Default)]
pub struct Problems {
    first: Vec<Problem>,
    more: u64,
}

impl Problems {
    /// Maximum number of problems that are listed.
    const MAX_LISTED: usize = 20;

    /// Adds a problem.
    pub fn add(&mut self, problem: Problem) {
        if self.first.len() < Self::MAX_LISTED {
            self.first.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// Returns the number of problems.
    pub fn count(&self) -> u64 {
        self.first.len() as u64 + self.more
    }

    /// Returns the list; its last entry counts the problems that are not listed.
    pub fn into_list(mut self) -> Vec<Problem> {
        if self.more > 0 {
            self.first.push(Problem::new("", format!("and {}", counted(self.more, "more problem"))));
        }
        self.first
    }

    /// Returns `value`, or the problems.
    ///
    /// # Errors
    ///
    /// The problems, if there are any.
    pub fn or<T>(self, value: T) -> Result<T, Vec<Problem>> {
        if self.count() == 0 { Ok(value) } else { Err(self.into_list()) }
    }
}

/// Returns why a JSON text cannot be read. It never quotes the text, which may contain names of recipients.
pub fn json_error(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data if error.line() > 0 => {
            format!("has an unexpected structure, at line {} column {}", error.line(), error.column())
        }
        serde_json::error::Category::Data => "has an unexpected structure".into(),
        // These are serde_json's own words and a place.
        _ => format!("is not JSON: {error}"),
    }
}

/// Extends a JSON pointer by one step (RFC 6901).
pub fn step(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Quotes a word for an error if it looks like a name; otherwise it may be a recipient's number or text and is not
/// shown.
pub fn quoted(word: &str) -> String {
    let is_name = word.len() <= LONGEST_NAME
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && word.bytes().filter(u8::is_ascii_digit).count() < 7;
    if is_name { format!("{word:?}") } else { "this value".into() }
}

/// Returns `; did you mean "x"?` if a known name is similar, otherwise the known names.
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match similar(unknown, known.iter().copied()) {
        Some(name) => format!("; did you mean {name:?}?"),
        _ if known.is_empty() => String::new(),
        _ => format!("; expected one of: {}", listed(known)),
    }
}

/// Lists the first twenty names, and the number of others.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let (first, more) = names.split_at(names.len().min(Problems::MAX_LISTED));
    let first = first.join(", ");
    if more.is_empty() { first } else { format!("{first}, and {} more", more.len()) }
}

/// Returns the known name that is most similar to an unknown one, if any is similar enough to be meant.
pub fn similar<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let best = known
        .into_iter()
        .filter(|name| unknown.len().max(name.len()) <= LONGEST_NAME)
        .map(|name| (strsim::damerau_levenshtein(&unknown.to_lowercase(), &name.to_lowercase()), name))
        .min();
    best.filter(|(distance, name)| *distance <= 1 + name.len() / 3).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered() {
        assert_eq!(nearest("acount", ["account", "audience"]), r#"; did you mean "account"?"#);
        assert_eq!(nearest("zzzzzz", ["from", "to"]), "; expected one of: from, to");
        assert_eq!(nearest("x", []), "");
    }

    #[test]
    fn an_error_of_json_quotes_nothing() {
        let error = |json: &str| json_error(&serde_json::from_str::<Vec<u8>>(json).unwrap_err());
        assert_eq!(error("\"Asha +919876543210\""), "has an unexpected structure, at line 1 column 20");
        assert_eq!(error("[919876543210]"), "has an unexpected structure, at line 1 column 13");
        assert_eq!(error("[919876543210 Asha"), "has an unexpected structure, at line 1 column 13");
        assert!(error("Asha").starts_with("is not JSON: expected value at line 1"), "{}", error("Asha"));
    }

    #[test]
    fn problems_are_counted_and_listed_up_to_a_bound() {
        let mut problems = Problems::default();
        (0..100_000).for_each(|_| problems.add(Problem::new("/x".repeat(1 << 10), "y".repeat(1 << 20))));
        assert_eq!(problems.count(), 100_000);
        let list = problems.into_list();
        assert_eq!(list.last().unwrap().to_string(), "the job: and 99,980 more problems");
        let length: usize = list.iter().map(|problem| problem.to_string().len()).sum();
        assert!(length < 32 << 10, "{length}");
    }

    #[test]
    fn a_place_is_said_in_words() {
        assert_eq!(location(""), "the job");
        assert_eq!(location("/limits/messages"), "limits messages");
        assert_eq!(location("/audience/recipients/1/phone"), "audience recipient 2 phone");
        assert_eq!(
            location("/message/template/components/0/sub_type"),
            "message template component 1 sub type"
        );
        assert_eq!(location("/extra_info/a~1b"), "extra info a/b");
        let problem = Problem::new("/limits/messages", "a limit of 0 allows nothing");
        assert_eq!(problem.to_text(), "limits messages: a limit of 0 allows nothing");
        assert_eq!(problem.to_string(), "limits messages: a limit of 0 allows nothing (/limits/messages)");
        assert_eq!(Problem::new("", "is no object").to_string(), "the job: is no object");
    }

    #[test]
    fn a_pointer_escapes_its_steps() {
        assert_eq!(step("/a", "b/c~d"), "/a/b~1c~0d");
    }
}
