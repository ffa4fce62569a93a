//! What is known of codes.

use serde::Serialize;
use utoipa::ToSchema;

use crate::campaign::codes::{CODES, Code};
use crate::campaign::problem::nearest;

/// A code: what it means, what flowcast does about it, and what a person can do.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CodeView {
    /// The code, as a status or a report has it.
    pub code: &'static str,
    /// Other names of it.
    pub also: &'static str,
    /// Whose code it is.
    pub source: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What kind of thing to do.
    pub action: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// What flowcast does by itself.
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

/// The nearest code, where one is near: a list of all would be of no help.
pub fn near(code: &str) -> String {
    let text = nearest(code, CODES.iter().map(|code| code.code));
    if text.contains("did you mean") { text } else { String::new() }
}
