//! What is wrong with a job, said so that a person can mend it: where, which rule, what instead.

use std::fmt;

use super::text::visible;

/// One thing wrong with a document: a JSON pointer, and what to do about it.
///
/// The message never quotes a value that came from a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A JSON pointer into the job, empty for the whole of it.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Problem {
    /// A problem at a place.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() { "the job".into() } else { visible(&self.pointer) };
        write!(f, "{place}: {}", visible(&self.message))
    }
}

/// A JSON pointer one step deeper (RFC 6901).
pub fn step(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// `; did you mean "x"?` where one of the known names is near enough to be meant, else the known names.
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let best = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&unknown.to_lowercase(), &name.to_lowercase()), *name))
        .min();
    match best {
        Some((distance, name)) if distance <= 1 + name.len() / 3 => format!("; did you mean {name:?}?"),
        _ if known.is_empty() => String::new(),
        _ => format!("; known here: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered() {
        assert_eq!(nearest("acount", ["account", "audience"]), r#"; did you mean "account"?"#);
        assert_eq!(nearest("zzzzzz", ["from", "to"]), "; known here: from, to");
        assert_eq!(nearest("x", []), "");
    }

    #[test]
    fn a_pointer_escapes_its_steps() {
        assert_eq!(step("/a", "b/c~d"), "/a/b~1c~0d");
    }
}
