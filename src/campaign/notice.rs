//! Notices of a provider about a template or a sender number, which concern every campaign that uses it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::text::visible;

/// Maximum length of a reason that is shown, in characters.
const MAX_DETAIL_CHARS: usize = 200;

/// What a notice is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeSubject {
    /// A template, by its name.
    Template(String),
    /// A sender number, by its digits.
    Number(String),
}

impl NoticeSubject {
    /// Returns the subject as a ledger keeps it: `template NAME` or `number DIGITS`.
    pub fn code(&self) -> String {
        match self {
            Self::Template(name) => format!("template {name}"),
            Self::Number(digits) => format!("number {digits}"),
        }
    }

    /// Reads the subject that [`Self::code`] wrote.
    pub fn read(word: &str) -> Option<Self> {
        match word.split_once(' ')? {
            ("template", name) => Some(Self::Template(name.into())),
            ("number", digits) => Some(Self::Number(digits.into())),
            _ => None,
        }
    }
}

/// A notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What it is about.
    pub about: NoticeSubject,
    /// What happened, in lower case: `paused`, `flagged`, `approved`.
    pub event: String,
    /// The cause, or the limit that now applies.
    pub detail: String,
}

impl Notice {
    /// Reads a notice in Meta's format, which other providers forward: `event` with `message_template_name` and
    /// `reason`, or with `display_phone_number` and `current_limit`.
    pub fn read(body: &Value) -> Option<Self> {
        let text = |name: &str| body[name].as_str().map(str::trim).filter(|text| !text.is_empty());
        let event = text("event")?.to_lowercase();
        let short = |text: &str| -> String { visible(text).chars().take(MAX_DETAIL_CHARS).collect() };
        if let Some(name) = text("message_template_name") {
            let detail = text("reason").filter(|reason| !reason.eq_ignore_ascii_case("none")).map(short);
            let about = NoticeSubject::Template(short(name));
            return Some(Self { about, event: short(&event), detail: detail.unwrap_or_default() });
        }
        let digits: String = text("display_phone_number")?.chars().filter(char::is_ascii_digit).collect();
        if digits.is_empty() {
            return None;
        }
        let detail = text("current_limit").map(|limit| format!("its limit is {}", short(limit)));
        Some(Self {
            about: NoticeSubject::Number(digits),
            event: short(&event),
            detail: detail.unwrap_or_default(),
        })
    }

    /// Returns whether it reports a problem, which lasts until another notice reports its end.
    pub fn is_bad(&self) -> bool {
        matches!(
            self.event.as_str(),
            "rejected" | "disabled" | "paused" | "flagged" | "downgrade" | "restricted"
        )
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.about {
            NoticeSubject::Template(name) => {
                write!(f, "WhatsApp says: the template {name} is {}", self.event)?;
            }
            NoticeSubject::Number(digits) => {
                write!(f, "WhatsApp says: the number +{digits} is {}", self.event)?;
            }
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

/// A notice as ledgers and reasons keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeptNotice {
    /// The notice.
    Notice(Notice),
    /// The text that an earlier version stored instead.
    Text(String),
}

impl KeptNotice {
    /// Returns the event and the detail; the text of an earlier version is a detail without an event.
    pub fn parts(&self) -> (Option<&str>, &str) {
        match self {
            Self::Notice(notice) => (Some(&notice.event), &notice.detail),
            Self::Text(text) => (None, text),
        }
    }

    /// Reads the notice whose parts are these.
    pub fn from_parts(about: &NoticeSubject, event: Option<String>, detail: String) -> Self {
        match event {
            Some(event) => Self::Notice(Notice { about: about.clone(), event, detail }),
            None => Self::Text(detail),
        }
    }
}

impl fmt::Display for KeptNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Notice(notice) => notice.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn notices_of_templates_and_numbers_are_read() {
        let paused = json!({ "event": "Paused", "message_template_name": "offer", "reason": "low quality" });
        let notice = Notice::read(&paused).unwrap();
        assert_eq!(notice.about, NoticeSubject::Template("offer".into()));
        assert!(notice.is_bad());
        assert_eq!(notice.to_string(), "WhatsApp says: the template offer is paused (low quality)");
        let flagged = json!({ "display_phone_number": "91 22489 31479", "event": "FLAGGED", "current_limit": "TIER_10K" });
        let notice = Notice::read(&flagged).unwrap();
        assert_eq!(notice.about, NoticeSubject::Number("912248931479".into()));
        assert_eq!(
            notice.to_string(),
            "WhatsApp says: the number +912248931479 is flagged (its limit is TIER_10K)"
        );
        let approved = json!({ "event": "APPROVED", "message_template_name": "offer", "reason": "NONE" });
        assert!(!Notice::read(&approved).unwrap().is_bad());
        for none in [json!({}), json!({ "event": "x" }), json!({ "message_template_name": "a" }), json!([])] {
            assert_eq!(Notice::read(&none), None);
        }
    }

    #[test]
    fn subjects_and_parts_read_back() {
        for about in [NoticeSubject::Template("a b  c".into()), NoticeSubject::Number("912248931479".into())]
        {
            assert_eq!(NoticeSubject::read(&about.code()), Some(about.clone()));
            let notice = Notice { about: about.clone(), event: "paused".into(), detail: String::new() };
            for kept in [KeptNotice::Notice(notice), KeptNotice::Text("it is paused".into())] {
                let (event, detail) = kept.parts();
                let (event, detail) = (event.map(str::to_owned), detail.to_owned());
                assert_eq!(KeptNotice::from_parts(&about, event, detail), kept);
            }
        }
        assert_eq!(NoticeSubject::read("flow 1"), None);
        assert_eq!(NoticeSubject::read("template"), None);
    }
}
