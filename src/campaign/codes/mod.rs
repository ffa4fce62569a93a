//! The codes of providers, delivery reports and flowcast: their meaning, what flowcast does, and what the user can
//! do.
//!
//! One table is used for providers' responses, `flowcast explain`, reports and `docs/reference/codes.md`.

mod table;

pub use table::CODES;

use super::text::titled;

/// A code with its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The source.
    pub source: Source,
    /// The code as it is stored with a message.
    pub code: &'static str,
    /// The number of an `EX_…` code in document 001, or Meta's name of a number.
    pub also: &'static str,
    /// The effect on a message, a campaign or an account.
    pub effect: Effect,
    /// The action for a person.
    pub advice: Advice,
    /// The meaning.
    pub meaning: &'static str,
    /// The action, in words.
    pub remedy: &'static str,
}

/// The source of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Exotel's delivery reports (document 001).
    Exotel,
    /// Kaleyra's responses (document 002).
    Kaleyra,
    /// Meta's Cloud API; the providers forward its codes.
    Meta,
    /// An HTTP status used as the code of one message (document 001).
    Http,
    /// flowcast.
    Flowcast,
}

/// The effect of a code in a response. A message refused with it was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// No failure.
    None,
    /// The message is rejected.
    Reject,
    /// The message is retried later.
    Retry,
    /// The account is slowed for every worker, and the message is retried.
    Slow,
    /// The flow is slowed for every campaign that uses it.
    SlowFlow,
    /// Every campaign that uses the flow is held.
    HoldFlow,
    /// The campaign is held.
    HoldCampaign,
    /// Every campaign that sends flows from the sender number is held.
    HoldFlows,
    /// Every campaign that sends from the number is held.
    HoldSender,
    /// The account is held, with all its campaigns.
    HoldAccount,
}

/// What a person should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing.
    None,
    /// Wait, and send it again.
    Wait,
    /// Skip this recipient.
    SkipPerson,
    /// Stop, and fix the account, the number or the flow.
    StopCampaign,
    /// Fix the template or the content.
    FixTemplate,
}

impl Advice {
    /// All values.
    pub const ALL: [Self; 5] =
        [Self::None, Self::Wait, Self::SkipPerson, Self::StopCampaign, Self::FixTemplate];

    /// Returns the words for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "nothing to do",
            Self::Wait => "wait",
            Self::SkipPerson => "skip this person",
            Self::StopCampaign => "stop the campaign",
            Self::FixTemplate => "fix the template",
        }
    }
}

impl Source {
    /// Returns the words for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exotel => "Exotel",
            Self::Kaleyra => "Kaleyra",
            Self::Meta => "WhatsApp (Meta)",
            Self::Http => "HTTP",
            Self::Flowcast => "flowcast",
        }
    }
}

impl Effect {
    /// Returns what flowcast does when a response has the code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Reject => "counts the message as rejected",
            Self::Retry => "retries the message later",
            Self::Slow => "slows the account down and retries the message",
            Self::SlowFlow => "slows every campaign with this flow down",
            Self::HoldFlow => "holds every campaign with this flow",
            Self::HoldCampaign => "holds the campaign",
            Self::HoldFlows => {
                "holds every campaign that sends flows from the number; if the campaign sends no flow, holds the account"
            }
            Self::HoldSender => "holds every campaign that sends from the number",
            Self::HoldAccount => "holds the account and all its campaigns",
        }
    }
}

impl Code {
    /// Returns the meaning and the remedy on one line.
    pub fn summary(&self) -> String {
        let Self { meaning, remedy, advice, .. } = self;
        match advice {
            Advice::None => format!("{meaning} {remedy}").trim_end().into(),
            advice => format!("{meaning} {}: {remedy}", titled(advice.as_str())),
        }
    }

    /// Returns the same for use after the provider's text, which may include the meaning.
    pub fn with_text(&self, text: &str) -> String {
        let summary = self.summary();
        let rest = summary.strip_prefix(self.meaning).filter(|_| text.contains(self.meaning));
        rest.map_or(summary.as_str(), str::trim_start).to_owned()
    }
}

/// Looks up a code of one source.
///
/// ```
/// use flowcast::campaign::codes::{self, Effect, Source};
///
/// assert_eq!(codes::lookup(Source::Kaleyra, "E110").unwrap().effect, Effect::HoldAccount);
/// assert_eq!(codes::lookup(Source::Meta, "130429").unwrap().effect, Effect::Slow);
/// ```
pub fn lookup(source: Source, code: &str) -> Option<&'static Code> {
    // Meta documents its permission errors as a range of numbers.
    let code = match code.parse::<u32>() {
        Ok(200..=299) if source == Source::Meta => "200",
        _ => code,
    };
    CODES.iter().find(|known| known.source == source && known.code == code)
}

/// Looks up a code of Meta's that a provider forwards. Only its six-digit numbers, and 368, are unambiguous.
pub fn of_meta_handed_on(code: &str) -> Option<&'static Code> {
    (code == "368" || code.len() == 6).then(|| lookup(Source::Meta, code)).flatten()
}

/// Returns whether a report with this code says that a message was not sent because its flow was throttled: resending
/// it is no duplicate.
pub fn is_unsent(code: &str) -> bool {
    of_meta_handed_on(code).is_some_and(|known| known.effect == Effect::SlowFlow)
}

/// Looks up a code in a report without a source, by name or number.
pub fn in_report(code: &str) -> Option<&'static Code> {
    explain(code).into_iter().next()
}

/// Looks up a code together with its text: Exotel's name of a failure says more than its number.
pub fn reported(code: &str, text: &str) -> Option<&'static Code> {
    let name = text.split(':').next().filter(|name| name.starts_with("EX_"));
    name.and_then(in_report).or_else(|| in_report(code))
}

/// Returns all meanings of a code, from any source, the most likely first. Case is ignored.
pub fn explain(code: &str) -> Vec<&'static Code> {
    let is = |known: &&Code| known.code.eq_ignore_ascii_case(code);
    let mut found: Vec<&Code> = CODES.iter().filter(is).collect();
    found.extend(CODES.iter().filter(|known| {
        known.source == Source::Exotel && !is(known) && known.also.split(", ").any(|also| also == code)
    }));
    if found.is_empty() {
        found.extend(lookup(Source::Meta, code));
    }
    // A short number is more often an HTTP status than a code of Meta's.
    found.sort_by_key(|code| code.source != Source::Http);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_listed_once_with_its_advice() {
        for (nth, code) in CODES.iter().enumerate() {
            let twice =
                CODES[..nth].iter().any(|other| (other.source, other.code) == (code.source, code.code));
            assert!(!twice, "{} is there twice", code.code);
            assert!(code.meaning.ends_with('.'), "{}", code.code);
            assert_eq!(code.remedy.is_empty(), code.advice == Advice::None, "{}", code.code);
            assert!(code.remedy.is_empty() || code.remedy.ends_with('.'), "{}", code.code);
        }
    }

    #[test]
    fn effects_agree_with_actions() {
        for code in CODES {
            let fits = match code.effect {
                Effect::None => code.advice == Advice::None,
                Effect::Retry | Effect::Slow | Effect::SlowFlow => code.advice == Advice::Wait,
                Effect::HoldFlow | Effect::HoldFlows | Effect::HoldSender | Effect::HoldAccount => {
                    code.advice == Advice::StopCampaign
                }
                Effect::HoldCampaign => {
                    matches!(code.advice, Advice::StopCampaign | Advice::FixTemplate)
                }
                Effect::Reject => code.advice != Advice::None,
            };
            assert!(fits, "{code:?}");
        }
    }

    #[test]
    fn the_table_of_document_001_is_complete() {
        for number in 30001..=30041 {
            let found = explain(&number.to_string());
            assert_eq!(found.len(), 1, "{number}");
            assert!(found[0].code.starts_with("EX_"), "{number}");
        }
        assert_eq!(explain("ex_message_delivered"), explain("30002"));
        // The document's example has this number with the same name.
        assert_eq!(explain("25001"), explain("30002"));
    }

    #[test]
    fn well_known_codes_have_their_expected_advice() {
        let advice = |code| explain(code).first().map(|code| code.advice);
        for (code, expected) in [
            ("130429", Advice::Wait),
            ("131056", Advice::Wait),
            ("131026", Advice::SkipPerson),
            ("131049", Advice::SkipPerson),
            ("131048", Advice::StopCampaign),
            ("368", Advice::StopCampaign),
            ("132000", Advice::FixTemplate),
            ("132015", Advice::FixTemplate),
        ] {
            assert_eq!(advice(code), Some(expected), "{code}");
        }
    }

    #[test]
    fn a_short_code_of_exotel_is_not_mistaken_for_one_of_meta() {
        for code in ["0", "1", "4", "100", "190", "200", "400"] {
            assert_eq!(of_meta_handed_on(code), None, "{code}");
        }
        assert!(of_meta_handed_on("132068").is_some() && of_meta_handed_on("368").is_some());
        assert_eq!(explain("404")[0].source, Source::Http);
        assert_eq!(explain("251")[0].code, "200");
    }
}
