//! The codes of providers, as `explain` and the API show them.

use serde::Serialize;
use utoipa::ToSchema;

use crate::campaign::codes::{CODES, Code};
use crate::campaign::problem::similar;

/// A code with its meaning, what flowcast does, and what a person can do.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CodeView {
    /// The code, as in a status or a report.
    pub code: &'static str,
    /// Other names of the code.
    pub also: &'static str,
    /// The source, e.g. a provider.
    pub source: &'static str,
    /// The meaning.
    pub meaning: &'static str,
    /// The kind of action for a person.
    pub action: &'static str,
    /// The action in detail.
    pub remedy: &'static str,
    /// What flowcast does automatically.
    pub flowcast: &'static str,
}

impl From<&Code> for CodeView {
    fn from(code: &Code) -> Self {
        Self {
            code: code.code,
            also: code.also,
            source: code.source.as_str(),
            meaning: code.meaning,
            action: code.advice.as_str(),
            remedy: code.remedy,
            flowcast: code.effect.as_str(),
        }
    }
}

/// Returns `; did you mean "X"?` if a known code is similar. A list of all codes would not help.
pub fn near(code: &str) -> String {
    let near = similar(code, CODES.iter().map(|code| code.code));
    near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"))
}
