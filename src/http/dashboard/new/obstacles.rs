//! What keeps a draft from being sent, in the words of its pages. Reads the typed errors of a check, never their texts.

use super::super::super::problem::Problem;
use super::super::captions;
use super::draft::CampaignDraft;
use super::form::{label, missing};
use crate::campaign::problem::Excess;
use crate::campaign::thousands;
use crate::views::check::Warning;

/// JSON pointer of the message in a job.
pub(super) const MESSAGE: &str = "/message";

/// Returns the errors of a check, each with the JSON pointer of its field.
pub(super) fn described(problem: &Problem) -> Vec<(String, String)> {
    let missing = problem.missing().map(|pointer| {
        let text = missing(&pointer);
        (pointer, text)
    });
    let mistakes = problem.mistakes().map(|(pointer, detail, excess)| {
        let text = match excess {
            Some(Excess { length, max }) => {
                format!("Too long: {} of {} characters.", thousands(length as u64), thousands(max as u64))
            }
            None => captions::as_sentence(detail),
        };
        (pointer.to_owned(), text)
    });
    missing.chain(mistakes).collect()
}

/// Returns a likely mistake with the caption of its field.
pub(super) fn warned(warning: &Warning) -> String {
    format!("{}: {}", label(&warning.pointer), captions::as_sentence(&warning.detail))
}

/// A reason why a draft cannot be sent.
pub(super) struct Obstacle {
    /// What to do.
    pub(super) text: String,
    /// Address of the step and the field where it is done.
    pub(super) address: String,
}

/// Returns the reasons why a draft cannot be sent.
pub(super) fn obstacles(draft: &CampaignDraft, problem: &Problem) -> Vec<Obstacle> {
    let missing: Vec<String> = problem.missing().collect();
    let mut found = described(problem);
    if found.is_empty() {
        found.push((String::new(), captions::as_sentence(&problem.to_text())));
    }
    let obstacle = |(pointer, detail): (String, String)| {
        let (step, field) = steps_of(&pointer);
        let text = match pointer.as_str() {
            MESSAGE if missing.contains(&pointer) => "Write the message.".into(),
            "" => detail,
            // The text of a missing field names it.
            _ if missing.contains(&pointer) => detail,
            _ => format!("{}: {detail}", label(&pointer)),
        };
        Obstacle { text, address: format!("/new/{}/{step}{field}", draft.id) }
    };
    found.into_iter().map(obstacle).collect()
}

/// Returns the step of a job's field, and the fragment that leads to it.
fn steps_of(pointer: &str) -> (&'static str, String) {
    match pointer.split('/').nth(1).unwrap_or_default() {
        "audience" => ("audience", "#phone".into()),
        "account" | "from" => ("message", format!("#{}", pointer.trim_start_matches('/'))),
        "message" if pointer != "/message" => ("message", format!("#{pointer}")),
        "" | "message" => ("message", String::new()),
        _ => ("when", String::new()),
    }
}
