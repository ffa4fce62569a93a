//! The control document, with which another system controls a campaign.

use serde::Deserialize;
use serde_json::Value;

use super::problem::{Problem, json_error};
use super::rules::{
    self, Authority, Choice, Object, Rule, Spelled, object, optional, parses, required, text,
};
use super::{human_duration::HumanDuration, id::CampaignId, json, schema::fixed_schema};

/// An action on a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Control {
    /// The campaign.
    pub id: CampaignId,
    /// The action.
    #[serde(flatten)]
    pub action: Action,
    /// Who requested it, for the audit log.
    #[serde(default)]
    pub by: Option<String>,
    /// Time of the request, in microseconds since 1970, if it has waited in a queue.
    #[serde(skip)]
    pub asked_at: Option<i64>,
}

/// An action.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "control", rename_all = "snake_case")]
pub enum Action {
    /// Stops sending until the campaign is resumed.
    Pause,
    /// Resumes the campaign.
    Resume,
    /// Ends the campaign; unsent messages are never sent.
    Cancel,
    /// Sends rejected messages again; with `codes`, only those.
    Retry {
        /// The provider's codes; empty means all.
        #[serde(default)]
        codes: Vec<String>,
    },
    /// Sends messages in doubt again, or gives them up.
    Resolve {
        /// Whether they are sent again.
        resend: bool,
        /// Minimum time in doubt; all messages if absent.
        #[serde(default)]
        older_than: Option<HumanDuration>,
    },
}

impl Action {
    /// Returns whether it stops messages: it is processed before other waiting documents.
    pub fn is_urgent(&self) -> bool {
        matches!(self, Self::Pause | Self::Cancel)
    }

    /// Returns its name in a control document.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Retry { .. } => "retry",
            Self::Resolve { .. } => "resolve",
        }
    }
}

const SPAN: Rule = Rule::Parsed {
    check: parses::<HumanDuration>,
    about: "a time, e.g. 30min or 2h",
    spelled: Spelled::As(HumanDuration::PATTERN),
};
const ID: Rule = Rule::Parsed {
    check: parses::<CampaignId>,
    about: "a campaign's id",
    spelled: Spelled::As(CampaignId::PATTERN),
};
const NAME: Rule = Rule::Text(text(200, Authority::Flowcast));
const PLAIN: Object = object(&[]);
const DOCUMENT: Rule = Rule::Choice(Choice {
    tag: "control",
    common: &[
        required("version", Rule::Integer { range: (1, 1) }).about("Version of the format.").example("1"),
        optional("by", NAME)
            .about("Name of the person or system that requests it, for the audit log.")
            .example(r#""crm""#),
        required("id", ID).about("Id of the campaign.").example(r#""diwali-2026""#),
    ],
    arms: &[
        ("pause", PLAIN),
        ("resume", PLAIN),
        ("cancel", PLAIN),
        (
            "retry",
            object(&[optional("codes", Rule::List { of: &NAME, min: 0, max: 100 })
                .about("Codes of the rejected messages that are sent again. An empty list means all codes.")
                .example(r#"["500"]"#)
                .or("[]")]),
        ),
        (
            "resolve",
            object(&[
                required("resend", Rule::Bool)
                    .about("Whether the messages in doubt are sent again (`true`) or abandoned (`false`).")
                    .example("false"),
                optional("older_than", SPAN)
                    .about("Minimum time for which a message has been in doubt, e.g. `2h`.")
                    .example(r#""2h""#),
            ]),
        ),
    ],
});

/// Returns the JSON Schema of a control document (2020-12).
pub fn control_schema() -> Value {
    fixed_schema(&DOCUMENT, "control")
}

impl Control {
    /// Reads a control document; `None` if the document is not one, e.g. a job.
    ///
    /// # Errors
    ///
    /// All problems of its form, each with its place.
    pub fn read(json: &[u8]) -> Option<Result<Self, Vec<Problem>>> {
        let document = json::read(json).ok()?;
        document.get("control")?;
        let findings = rules::check(&Rule::Fixed(&DOCUMENT), &document, "");
        Some(findings.problems.or(document).and_then(|document| {
            serde_json::from_value(document).map_err(|error| vec![Problem::new("", json_error(&error))])
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Result<Action, String>> {
        let read = Control::read(text.as_bytes())?;
        Some(read.map(|control| control.action).map_err(|problems| problems[0].to_string()))
    }

    #[test]
    fn the_contracts_documents_are_read() {
        let of =
            |rest: &str| read(&format!(r#"{{"version":1,"id":"diwali-2026","control":{rest}}}"#)).unwrap();
        assert_eq!(of(r#""pause""#), Ok(Action::Pause));
        assert_eq!(of(r#""resume""#), Ok(Action::Resume));
        assert_eq!(of(r#""cancel""#), Ok(Action::Cancel));
        assert_eq!(of(r#""retry""#), Ok(Action::Retry { codes: Vec::new() }));
        assert_eq!(of(r#""retry","codes":["500"]"#), Ok(Action::Retry { codes: vec!["500".into()] }));
        let aged = Some(HumanDuration(std::time::Duration::from_hours(2)));
        assert_eq!(of(r#""resolve","resend":true"#), Ok(Action::Resolve { resend: true, older_than: None }));
        assert_eq!(
            of(r#""resolve","resend":false,"older_than":"2h""#),
            Ok(Action::Resolve { resend: false, older_than: aged })
        );
    }

    #[test]
    fn an_invalid_document_names_the_place_and_a_job_is_not_one() {
        assert_eq!(read(r#"{"version":1,"id":"a"}"#), None);
        assert_eq!(read("no json"), None);
        let error = |text: &str| read(text).unwrap().unwrap_err();
        assert!(error(r#"{"version":1,"id":"a","control":"pausse"}"#).contains(r#"did you mean "pause"?"#));
        assert!(error(r#"{"version":1,"id":"a}:b","control":"pause"}"#).starts_with("id: "));
        assert!(error(r#"{"version":1,"id":"a","control":"resolve"}"#).contains("resend"));
        assert!(error(r#"{"version":1,"id":"a","control":"pause","codes":[]}"#).starts_with("codes: "));
        assert!(error(r#"{"version":2,"id":"a","control":"pause"}"#).starts_with("version: "));
    }
}
