//! Names of encodings in a job.

/// The encoding of a file that does not declare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CharacterSet {
    /// An encoding of the WHATWG standard.
    Whatwg(&'static encoding_rs::Encoding),
    /// Code page 850 (DOS, Western Europe), which WHATWG does not have.
    Cp850,
}

impl CharacterSet {
    /// Returns the encoding of a WHATWG or IANA name: `macintosh`, `ibm850`, `windows-1251`.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.trim();
        if ["ibm850", "cp850", "850"].contains(&name.to_ascii_lowercase().as_str()) {
            return Some(Self::Cp850);
        }
        let alias = if name.eq_ignore_ascii_case("macroman") { "macintosh" } else { name };
        encoding_rs::Encoding::for_label_no_replacement(alias.as_bytes()).map(Self::Whatwg)
    }
}
