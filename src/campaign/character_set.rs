//! The names of encodings, as a job may write them.

/// How characters are written in a file that says so nowhere itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CharacterSet {
    /// One that browsers know.
    Whatwg(&'static encoding_rs::Encoding),
    /// That of DOS in Western Europe, which no browser knows.
    Cp850,
}

impl CharacterSet {
    /// The encoding of a name, as WHATWG or IANA have it: `macintosh`, `ibm850`, `windows-1251`.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.trim();
        if ["ibm850", "cp850", "850"].contains(&name.to_ascii_lowercase().as_str()) {
            return Some(Self::Cp850);
        }
        let alias = if name.eq_ignore_ascii_case("macroman") { "macintosh" } else { name };
        encoding_rs::Encoding::for_label_no_replacement(alias.as_bytes()).map(Self::Whatwg)
    }
}
