//! White space that Meta rejects in a parameter of a template.

/// The handling of a template's parameter with a line break, a tab or five spaces in a row, which Meta rejects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whitespace {
    /// The row is skipped.
    #[default]
    Refuse,
    /// Each run becomes one space.
    Join,
}

impl Whitespace {
    /// The longest allowed run of spaces.
    const SPACES: &str = "    ";

    /// Returns whether Meta rejects a parameter.
    pub fn is_refused(text: &str) -> bool {
        text.contains(['\n', '\r', '\t'])
            || text.split(Self::SPACES).skip(1).any(|rest| rest.starts_with(' '))
    }

    /// Replaces each run of blanks that Meta rejects by one space.
    pub fn joined(text: &str) -> String {
        let mut joined = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find([' ', '\n', '\r', '\t']) {
            let (before, from) = rest.split_at(start);
            let behind = from.trim_start_matches([' ', '\n', '\r', '\t']);
            let run = from.get(..from.len() - behind.len()).unwrap_or_default();
            joined.push_str(before);
            joined.push_str(if Self::is_refused(run) { " " } else { run });
            rest = behind;
        }
        joined.push_str(rest);
        joined
    }

    /// The error for a parameter that Meta rejects.
    pub const REFUSED_WHITESPACE: &str = "contains a line break, a tab or five spaces in a row, which Meta rejects in a parameter; remove them, or set \
                               \"whitespace\": \"join\" in the job";
}
