//! What a response proves: the table in `docs/architecture.md`, for all providers.
//!
//! A provider parses a response's body ([`ParsedBody`]); this module decides what that proves together with the HTTP
//! status ([`ProviderResponse`]). Anything that is not proven is in doubt.

use std::time::Duration;

use serde_json::Value;

use super::HttpResponse;
use crate::campaign::codes::{Code, Effect};
use crate::campaign::{Doubt, DoubtCause};

/// The parsed body of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParsedBody {
    /// An entry for each message, in the request's order.
    Entries(Vec<Entry>),
    /// An error from the provider.
    Error {
        /// The provider's code, if any.
        code: Option<String>,
        /// The entry of the code table, if the code is known.
        known: Option<&'static Code>,
        /// Its text.
        text: String,
    },
    /// Not a body of this provider: it may come from a proxy.
    Foreign {
        /// The text, if any.
        text: String,
    },
}

/// What a response proves about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderResponse {
    /// An entry for each message, in the request's order.
    Entries(Vec<Entry>),
    /// No message was accepted; some message is invalid.
    Malformed {
        /// The provider's code.
        code: String,
        /// Its text.
        detail: String,
    },
    /// No message was accepted, and nothing within the scope can be sent.
    Refused {
        /// The scope that is refused.
        scope: Scope,
        /// The reason, and what to do.
        reason: String,
    },
    /// No message was accepted: a rate limit was exceeded.
    Limited {
        /// The scope of the limit.
        scope: Scope,
        /// The delay that the provider asks for, if any.
        retry_after: Option<Duration>,
        /// Its text.
        detail: String,
    },
    /// No message was accepted; a retry may succeed.
    TryAgain {
        /// The provider's code.
        code: String,
        /// Its text.
        detail: String,
    },
    /// It is unknown which messages were accepted.
    Unknown(Doubt),
}

/// What a response proves about one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The message was accepted.
    Accepted {
        /// The provider's id of the message.
        sid: String,
    },
    /// The message was rejected.
    Rejected {
        /// The provider's code.
        code: String,
        /// Its text.
        detail: String,
    },
    /// The message was not accepted, and nothing within the scope can be sent.
    Refused {
        /// The scope that is refused.
        scope: Scope,
        /// The reason, and what to do.
        reason: String,
    },
    /// The message was not accepted: a rate limit was exceeded.
    Limited {
        /// The scope of the limit.
        scope: Scope,
        /// The provider's text.
        detail: String,
    },
    /// The message was not accepted; a retry may succeed.
    TryAgain {
        /// The provider's code.
        code: String,
        /// The provider's text.
        detail: String,
    },
    /// It is unknown whether the message was accepted.
    Unknown(Doubt),
}

/// The scope of a refusal or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All campaigns of the account.
    Account,
    /// The campaign.
    Campaign,
    /// All campaigns that use the flow.
    Flow,
    /// All campaigns that send flows from the sender number; for a campaign that sends none, the account.
    Flows,
    /// All campaigns that send from the number.
    Sender,
}

/// Decides what a response proves about its request.
pub fn classify(reply: &HttpResponse, said: ParsedBody) -> ProviderResponse {
    let status = reply.status;
    let (code, known, text, is_theirs) = match said {
        ParsedBody::Entries(entries) => match status {
            200..=299 => return ProviderResponse::Entries(entries),
            // The status and the entries contradict each other.
            _ => return ProviderResponse::Unknown(DoubtCause::SuccessInError(status).into()),
        },
        ParsedBody::Error { code, known, text } => (code, known, text, true),
        ParsedBody::Foreign { text } => (None, None, text, false),
    };
    let detail = if text.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {text}") };
    let named = |code: Option<String>| code.unwrap_or_else(|| status.to_string());
    let refused =
        |scope, what: &str| ProviderResponse::Refused { scope, reason: format!("{detail}; {what}") };
    let remedy = known.map_or("", |code| code.remedy);
    let unknown = |cause: DoubtCause| ProviderResponse::Unknown(in_doubt(cause, &text));
    match (status, known.map(|code| code.effect)) {
        // A success without entries.
        (200..=299, _) if is_theirs => unknown(DoubtCause::ErrorInSuccess(status)),
        (200..=299, _) => unknown(DoubtCause::UnreadableBody(status)),
        // A proxy does not invent a provider's code, and the code says more than the status.
        (300..=599, Some(Effect::HoldAccount)) => refused(Scope::Account, remedy),
        (300..=599, Some(Effect::HoldCampaign)) => refused(Scope::Campaign, remedy),
        (300..=599, Some(Effect::HoldFlow)) => refused(Scope::Flow, remedy),
        (300..=599, Some(Effect::HoldFlows)) => refused(Scope::Flows, remedy),
        (300..=599, Some(Effect::HoldSender)) => refused(Scope::Sender, remedy),
        (300..=599, Some(Effect::SlowFlow)) => {
            ProviderResponse::Limited { scope: Scope::Flow, retry_after: reply.retry_after, detail }
        }
        (300..=599, Some(Effect::Slow)) | (429, _) => {
            ProviderResponse::Limited { scope: Scope::Account, retry_after: reply.retry_after, detail }
        }
        (300..=599, Some(Effect::Retry)) => ProviderResponse::TryAgain { code: named(code), detail },
        (300..=499, Some(Effect::Reject)) | (400, _) => {
            ProviderResponse::Malformed { code: named(code), detail }
        }
        (401, _) => refused(Scope::Account, "check the credentials of the account"),
        (402, _) => refused(Scope::Account, "check the account's plan and balance"),
        // Document 003: flows are not enabled for the WhatsApp business account of the number.
        (403, _) => refused(
            Scope::Flows,
            "the account or its sender number may not send this kind of message; ask the provider to enable it",
        ),
        (404, _) => refused(Scope::Campaign, "check account_sid, base_url and the ids in the message"),
        // RFC 9110: the resource is elsewhere, so nothing was done here.
        (301 | 302 | 307 | 308, _) => {
            refused(Scope::Campaign, "the provider's address redirects: check region and base_url")
        }
        // Refused before any message was processed; every message would be refused.
        (405..=407 | 409..=499, _) => ProviderResponse::Refused { scope: Scope::Campaign, reason: detail },
        // The documents say to retry, but only for the provider's own responses: the same status from a proxy proves
        // nothing.
        (500 | 503, _) if is_theirs => ProviderResponse::TryAgain { code: named(code), detail },
        _ => unknown(DoubtCause::HttpStatus(status)),
    }
}

/// Adds the text of the response to the cause of a doubt.
fn in_doubt(cause: DoubtCause, text: &str) -> Doubt {
    if text.is_empty() { cause.into() } else { Doubt { cause, detail: format!("{cause}: {text}") } }
}

/// Decides what a failed entry proves. Its message was not accepted.
pub(super) fn failed_entry(code: String, known: Option<&Code>, detail: String) -> Entry {
    let reason = |code: &Code| format!("{}: {detail}; {}", code.code, code.remedy);
    match known.map(|known| (known.effect, known)) {
        Some((Effect::HoldAccount, known)) => Entry::Refused { scope: Scope::Account, reason: reason(known) },
        Some((Effect::HoldCampaign, known)) => {
            Entry::Refused { scope: Scope::Campaign, reason: reason(known) }
        }
        Some((Effect::HoldFlow, known)) => Entry::Refused { scope: Scope::Flow, reason: reason(known) },
        Some((Effect::HoldFlows, known)) => Entry::Refused { scope: Scope::Flows, reason: reason(known) },
        Some((Effect::HoldSender, known)) => Entry::Refused { scope: Scope::Sender, reason: reason(known) },
        Some((Effect::SlowFlow, _)) => Entry::Limited { scope: Scope::Flow, detail },
        Some((Effect::Slow, _)) => Entry::Limited { scope: Scope::Account, detail },
        Some((Effect::Retry, _)) => Entry::TryAgain { code, detail },
        Some((Effect::None | Effect::Reject, _)) | None => Entry::Rejected { code, detail },
    }
}

/// Returns a string or number as text.
pub(super) fn to_text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Removes runs of seven digits or more, also with groups, brackets or digits of another script, as people write
/// phone numbers: `(0) 98765-43210`.
fn without_numbers(text: &str) -> String {
    const MIN_DIGITS: usize = 7;
    let belongs = |c: char| {
        c.is_numeric()
            || matches!(c, ' ' | '+' | '-' | '.' | '/' | '(' | ')' | '\u{a0}' | '\u{2010}'..='\u{2015}')
    };
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(start) = rest.find(|c: char| c.is_numeric() || matches!(c, '+' | '(')) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c| !belongs(c)).unwrap_or(from.len());
        // Non-digits at the end of the run belong to the text.
        let run = from.get(..end).unwrap_or_default();
        // `1005 (131026)` are two codes, and `+91 (98765) 43210` is a number.
        let bracket = run.char_indices().skip(1).find(|(_, c)| *c == '(' && !run.starts_with('+'));
        let run = bracket.and_then(|(at, _)| run.get(..at)).unwrap_or(run);
        let run = run.trim_end_matches(|c: char| !c.is_numeric());
        out.push_str(before);
        if run.chars().filter(|c| c.is_numeric()).count() >= MIN_DIGITS {
            out.push('…');
            rest = from.get(run.len()..).unwrap_or_default();
        } else {
            let shown = run.len().max(from.chars().next().map_or(0, char::len_utf8));
            out.push_str(from.get(..shown).unwrap_or_default());
            rest = from.get(shown..).unwrap_or_default();
        }
    }
    out.push_str(rest);
    out
}

/// Makes a provider's text safe to store and show: one short line without control characters and without phone
/// numbers. It is stored once for all messages with its code.
pub(super) fn short(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut line = without_numbers(&clean.split_whitespace().collect::<Vec<_>>().join(" "));
    if let Some((at, _)) = line.char_indices().nth(300) {
        line.truncate(at);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::codes::{self, Source};

    fn reply(status: u16) -> HttpResponse {
        HttpResponse { status, retry_after: None, body: "".into() }
    }

    fn theirs(status: u16) -> ProviderResponse {
        classify(&reply(status), ParsedBody::Error { code: None, known: None, text: "why".into() })
    }

    fn foreign(status: u16) -> ProviderResponse {
        classify(&reply(status), ParsedBody::Foreign { text: String::new() })
    }

    fn coded(status: u16, source: Source, code: &str) -> ProviderResponse {
        let known = codes::lookup(source, code);
        classify(&reply(status), ParsedBody::Error { code: Some(code.into()), known, text: "why".into() })
    }

    #[test]
    fn a_providers_text_is_one_line_without_phone_numbers() {
        assert_eq!(
            short("bad\n number:\u{1b}[31m +919876543210, code 1005"),
            "bad number: [31m …, code 1005"
        );
        for number in [
            "98765 43210",
            "098765-43210",
            "(0) 98765 43210",
            "+91 (98765) 43210",
            "+1 415.555.2671",
            "030/1234567",
            "９８７６５４３２１０",
            "\u{966}\u{96f}\u{96e}\u{96d}\u{96c}\u{96b}\u{96a}\u{969}",
            "98\u{a0}76\u{a0}54\u{a0}32\u{a0}10",
            "98\u{2013}76\u{2013}54\u{2013}32",
        ] {
            assert_eq!(
                short(&format!("for {number}: not on WhatsApp")),
                "for …: not on WhatsApp",
                "{number}"
            );
            assert_eq!(short(&format!("to={number}")), "to=…", "{number}");
        }
        for same in ["code 1005 (131026)", "10 in 24 h", "v1.2.3", "at 10:30", "+", "(a)", "2 + 2"] {
            assert_eq!(short(same), same);
        }
        assert_eq!(short(&"x".repeat(500)).chars().count(), 301);
    }

    #[test]
    fn a_status_proves_what_the_table_says() {
        let scope = |answer| match answer {
            ProviderResponse::Refused { scope, .. } => scope,
            other => panic!("{other:?}"),
        };
        for answers in [theirs, foreign] {
            assert!(matches!(answers(200), ProviderResponse::Unknown(_)));
            assert!(matches!(answers(400), ProviderResponse::Malformed { code, .. } if code == "400"));
            for status in [401, 402] {
                assert_eq!(scope(answers(status)), Scope::Account, "{status}");
            }
            assert_eq!(scope(answers(403)), Scope::Flows);
            for status in [301, 302, 307, 308, 404, 405, 413, 415] {
                assert_eq!(scope(answers(status)), Scope::Campaign, "{status}");
            }
            assert!(matches!(answers(429), ProviderResponse::Limited { scope: Scope::Account, .. }));
            for status in [300, 303, 304, 408, 502, 504, 599] {
                assert!(matches!(answers(status), ProviderResponse::Unknown { .. }), "{status}");
            }
        }
        for status in [500, 503] {
            assert!(matches!(theirs(status), ProviderResponse::TryAgain { .. }), "{status}");
            assert!(matches!(foreign(status), ProviderResponse::Unknown { .. }), "{status}");
        }
    }

    #[test]
    fn a_providers_code_says_more_than_its_status() {
        for (codes, expected) in [(["RBC001", "E110"], Scope::Account), (["WA401", "WA-401"], Scope::Sender)]
        {
            for (code, status) in
                codes.into_iter().flat_map(|code| [400, 401, 500].map(|status| (code, status)))
            {
                let answer = coded(status, Source::Kaleyra, code);
                assert!(
                    matches!(answer, ProviderResponse::Refused { scope, .. } if scope == expected),
                    "{code}"
                );
            }
        }
        assert!(
            matches!(coded(400, Source::Kaleyra, "WA400"), ProviderResponse::Malformed { code, .. } if code == "WA400")
        );
        assert!(matches!(coded(500, Source::Kaleyra, "WA500"), ProviderResponse::TryAgain { .. }));
        assert!(matches!(
            coded(400, Source::Meta, "130429"),
            ProviderResponse::Limited { scope: Scope::Account, .. }
        ));
        assert!(matches!(
            coded(400, Source::Meta, "132069"),
            ProviderResponse::Limited { scope: Scope::Flow, .. }
        ));
        assert!(matches!(
            coded(400, Source::Meta, "132068"),
            ProviderResponse::Refused { scope: Scope::Flow, .. }
        ));
        assert!(matches!(
            coded(400, Source::Meta, "132001"),
            ProviderResponse::Refused { scope: Scope::Campaign, .. }
        ));
    }

    #[test]
    fn a_doubt_has_its_own_detail_and_a_cause_that_others_share() {
        let doubt = |answer| match answer {
            ProviderResponse::Unknown(doubt) => (doubt.cause, doubt.detail),
            other => panic!("{other:?}"),
        };
        let of = |cause, detail: &str| (cause, detail.to_owned());
        assert_eq!(doubt(theirs(502)), of(DoubtCause::HttpStatus(502), "HTTP 502: why"));
        assert_eq!(doubt(foreign(502)), of(DoubtCause::HttpStatus(502), "HTTP 502"));
        assert_eq!(
            doubt(theirs(202)),
            of(DoubtCause::ErrorInSuccess(202), "HTTP 202, with an error in its body: why")
        );
        assert_eq!(
            doubt(foreign(202)),
            of(DoubtCause::UnreadableBody(202), "HTTP 202, with an unreadable body")
        );
    }

    #[test]
    fn a_success_with_an_error_proves_nothing() {
        let cause = |answer| match answer {
            ProviderResponse::Unknown(doubt) => doubt.cause,
            other => panic!("{other:?}"),
        };
        assert_eq!(cause(coded(202, Source::Kaleyra, "E110")), DoubtCause::ErrorInSuccess(202));
        for status in [400, 401, 429, 500, 502] {
            let entries = ParsedBody::Entries(vec![Entry::Accepted { sid: "s".into() }]);
            assert_eq!(cause(classify(&reply(status), entries)), DoubtCause::SuccessInError(status));
        }
    }

    #[test]
    fn the_retry_after_of_a_response_is_kept() {
        let reply = HttpResponse { status: 429, retry_after: Some(Duration::from_secs(9)), body: "".into() };
        let answer = classify(&reply, ParsedBody::Foreign { text: "slow".into() });
        let expected = ProviderResponse::Limited {
            scope: Scope::Account,
            retry_after: Some(Duration::from_secs(9)),
            detail: "HTTP 429: slow".into(),
        };
        assert_eq!(answer, expected);
    }
}
