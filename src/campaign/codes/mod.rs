//! The codes of providers, delivery reports and flowcast itself: what each means, what flowcast does
//! about it by itself, and what a person can do.
//!
//! One table serves the answers of providers, `flowcast explain`, the reports and `docs/reference/codes.md`.

mod table;

pub use table::CODES;

/// A code and what to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Who says it.
    pub source: Source,
    /// The code, as it is kept with a message.
    pub code: &'static str,
    /// The number that document 001 gives to an `EX_…` code, or Meta's name of a number.
    pub also: &'static str,
    /// What it does to a message, a campaign, an account.
    pub effect: Effect,
    /// What a person should do.
    pub advice: Advice,
    /// What it means.
    pub meaning: &'static str,
    /// What to do, in words.
    pub remedy: &'static str,
}

/// Who says a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Exotel's delivery reports (document 001).
    Exotel,
    /// Kaleyra's answers (document 002).
    Kaleyra,
    /// Meta's Cloud API; the providers hand its codes on.
    Meta,
    /// An HTTP status that stands as the code of one message (document 001).
    Http,
    /// flowcast.
    Flowcast,
}

/// What a code does when it comes in an answer. Nothing of a message that is refused so was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// No failure.
    None,
    /// The message is rejected.
    Reject,
    /// The message is tried again later.
    Retry,
    /// The account is slowed for every worker, and the message tried again.
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

/// What a person should do: one of four things, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing.
    None,
    /// Wait, and send it again.
    Wait,
    /// Leave this person out.
    SkipPerson,
    /// Stop, and mend the account, the number or the flow.
    StopCampaign,
    /// Mend the template or the content.
    FixTemplate,
}

impl Advice {
    /// Every one of them.
    pub const ALL: [Self; 5] =
        [Self::None, Self::Wait, Self::SkipPerson, Self::StopCampaign, Self::FixTemplate];

    /// In words.
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
    /// In words.
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
    /// What flowcast does by itself when an answer has the code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Reject => "rejects the message",
            Self::Retry => "retries the message later",
            Self::Slow => "slows the account down and retries the message",
            Self::SlowFlow => "slows every campaign with this flow down",
            Self::HoldFlow => "holds every campaign with this flow",
            Self::HoldCampaign => "holds the campaign",
            Self::HoldFlows => {
                "holds every campaign that sends flows from the number; if the campaign sends no flow, the account"
            }
            Self::HoldSender => "holds every campaign that sends from the number",
            Self::HoldAccount => "holds the account and all its campaigns",
        }
    }
}

impl Code {
    /// Meaning and remedy on one line.
    pub fn summary(&self) -> String {
        let Self { meaning, remedy, advice, .. } = self;
        match advice {
            Advice::None => format!("{meaning} {remedy}").trim_end().into(),
            advice => format!("{meaning} {}: {remedy}", capitalised(advice.as_str())),
        }
    }

    /// The same beside a text of the provider, which may say the meaning itself.
    pub fn beside(&self, text: &str) -> String {
        let summary = self.summary();
        let rest = summary.strip_prefix(self.meaning).filter(|_| text.contains(self.meaning));
        rest.map_or(summary.as_str(), str::trim_start).to_owned()
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// A code of one source, as an answer has it.
///
/// ```
/// use flowcast::campaign::codes::{self, Effect, Source};
///
/// assert_eq!(codes::of(Source::Kaleyra, "E110").unwrap().effect, Effect::HoldAccount);
/// assert_eq!(codes::of(Source::Meta, "130429").unwrap().effect, Effect::Slow);
/// ```
pub fn of(source: Source, code: &str) -> Option<&'static Code> {
    // Meta writes its permissions as a span of numbers.
    let code = match code.parse::<u32>() {
        Ok(200..=299) if source == Source::Meta => "200",
        _ => code,
    };
    CODES.iter().find(|known| known.source == source && known.code == code)
}

/// A code of Meta's that a provider hands on. Only its numbers of six digits, and 368, can't be
/// mistaken for another's.
pub fn of_meta_handed_on(code: &str) -> Option<&'static Code> {
    (code == "368" || code.len() == 6).then(|| of(Source::Meta, code)).flatten()
}

/// Whether a report with this code says that a message was not sent on, because its flow was throttled: sent again, it is
/// the first that its person gets.
pub fn is_unsent(code: &str) -> bool {
    of_meta_handed_on(code).is_some_and(|known| known.effect == Effect::SlowFlow)
}

/// A code that stands in a report, where nothing says whose it is; names and numbers both do.
pub fn in_report(code: &str) -> Option<&'static Code> {
    explain(code).into_iter().next()
}

/// The same with the text that came with it: Exotel's own name of a failure says more than its number.
pub fn reported(code: &str, text: &str) -> Option<&'static Code> {
    let name = text.split(':').next().filter(|name| name.starts_with("EX_"));
    name.and_then(in_report).or_else(|| in_report(code))
}

/// All that a code can mean, whoever says it; the likeliest first. Letters may be in any case.
pub fn explain(code: &str) -> Vec<&'static Code> {
    let is = |known: &&Code| known.code.eq_ignore_ascii_case(code);
    let mut found: Vec<&Code> = CODES.iter().filter(is).collect();
    found.extend(CODES.iter().filter(|known| {
        known.source == Source::Exotel && !is(known) && known.also.split(", ").any(|also| also == code)
    }));
    if found.is_empty() {
        found.extend(of(Source::Meta, code));
    }
    // A short number on a message is an HTTP status more often than one of Meta's.
    found.sort_by_key(|code| code.source != Source::Http);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_there_once_and_says_what_to_do() {
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
    fn what_flowcast_does_by_itself_agrees_with_what_it_advises() {
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
    fn document_001s_table_is_whole() {
        for number in 30001..=30041 {
            let found = explain(&number.to_string());
            assert_eq!(found.len(), 1, "{number}");
            assert!(found[0].code.starts_with("EX_"), "{number}");
        }
        assert_eq!(explain("ex_message_delivered"), explain("30002"));
        // The document's example has this number for the same name.
        assert_eq!(explain("25001"), explain("30002"));
    }

    #[test]
    fn the_four_actions_stand_as_people_expect_them() {
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
    fn a_short_number_of_exotels_is_never_taken_for_metas() {
        for code in ["0", "1", "4", "100", "190", "200", "400"] {
            assert_eq!(of_meta_handed_on(code), None, "{code}");
        }
        assert!(of_meta_handed_on("132068").is_some() && of_meta_handed_on("368").is_some());
        assert_eq!(explain("404")[0].source, Source::Http);
        assert_eq!(explain("251")[0].code, "200");
    }
}
