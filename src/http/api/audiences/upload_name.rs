//! The names that files of the audience root may have. They are checked here only.

use axum::http::StatusCode;

use super::super::super::problem::Problem;

/// Maximum length of a file name, in bytes.
const MAX_NAME_BYTES: usize = 200;
/// Maximum number of files whose names differ only in a number.
pub(super) const MAX_COPIES: u32 = 100;
/// The supported endings of file names.
const ENDINGS: [&str; 4] = [".csv", ".csv.gz", ".csv.zst", ".xlsx"];

/// Why a file of the audience root cannot have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::http) enum NameError {
    /// It is empty or too long.
    #[error("the file name must have 1 to {MAX_NAME_BYTES} bytes")]
    Length,
    /// It is hidden, or could lead to another folder.
    #[error("the file name must not begin with a dot or contain /, \\, : or a control character")]
    Path,
    /// It is not the name of an audience.
    #[error("the file name must end with .csv, .csv.gz, .csv.zst or .xlsx")]
    Ending,
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
    }
}

/// Checks the name of an upload: a file directly in the audience root, with a known ending.
pub(in crate::http) fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(NameError::Length);
    }
    if name.starts_with('.') || name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\' | ':')) {
        return Err(NameError::Path);
    }
    let lower = name.to_lowercase();
    if ENDINGS.iter().any(|ending| lower.ends_with(ending)) { Ok(()) } else { Err(NameError::Ending) }
}

/// Turns the name of a file on a person's computer into one that may pass [`check_name`].
pub(in crate::http) fn name_of_upload(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String = last.chars().map(|c| if c.is_control() || c == ':' { '-' } else { c }).collect();
    let plain = plain.trim_start_matches('.');
    // The beginning is cut because the ending says which kind of file it is.
    let excess = plain.len().saturating_sub(MAX_NAME_BYTES - format!("-{MAX_COPIES}").len());
    let from = plain.char_indices().map(|(at, _)| at).find(|at| *at >= excess);
    let end = from.and_then(|from| plain.get(from..)).unwrap_or_default();
    end.trim_start_matches('.').to_owned()
}

/// Returns `people-2.csv` for the second file named `people.csv`.
pub(super) fn copy_name(name: &str, nth: u32) -> String {
    match name.split_once('.') {
        Some((stem, ending)) if nth > 1 => format!("{stem}-{nth}.{ending}"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_gets_a_name_without_folders() {
        assert_eq!(name_of_upload("people.csv"), "people.csv");
        assert_eq!(name_of_upload("C:\\Users\\a\\..people.csv"), "people.csv");
        assert_eq!(name_of_upload("../../etc/x:y\n.csv"), "x-y-.csv");
        for long in ["a".repeat(500), "दिवाली".repeat(100)] {
            let name = name_of_upload(&format!("{long}.csv"));
            assert_eq!(check_name(&copy_name(&name, MAX_COPIES)), Ok(()));
        }
    }

    #[test]
    fn a_name_with_a_folder_or_an_unknown_ending_is_refused() {
        for name in ["a.csv", "Diwali 2026.csv", "a.CSV.gz", "ä.csv.zst"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in
            ["", "../a.csv", "a/b.csv", "/etc/a.csv", ".a.csv", "a\0.csv", "a\n.csv", "c:a.csv", "a.txt", "a"]
        {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
