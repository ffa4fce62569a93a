//! Why a campaign is in its state: what holds it, what it waits for, or who stopped it. The texts are created here; no
//! decision depends on them.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CampaignId, CampaignState, counted, notice::KeptNotice};

/// The reason of a campaign's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Reason {
    /// Waits for the start of the schedule.
    Start {
        /// Start of the schedule.
        opens: Timestamp,
    },
    /// Waits for the sending window.
    Window {
        /// Start of the window.
        opens: Timestamp,
    },
    /// Waits for permits of its limits.
    Limits {
        /// When the deferred messages are due, after a long wait.
        due: Option<Timestamp>,
        /// The provider's text about its flow, if that is throttled.
        throttled: Option<String>,
    },
    /// `WhatsApp` throttles the flow.
    Throttled {
        /// The flow.
        flow: String,
        /// The provider's text.
        detail: String,
    },
    /// The provider asked flowcast to slow down.
    RateLimited {
        /// Pause in sending, in seconds.
        seconds: u64,
        /// The provider's text.
        detail: String,
    },
    /// A request failed and is retried.
    Retrying {
        /// Number of the next attempt, from 1.
        attempt: u32,
        /// Maximum number of attempts.
        of: u32,
        /// Why the last one failed.
        detail: String,
    },
    /// No worker of the campaign can send from its account.
    Account {
        /// The problem of the account.
        detail: String,
    },
    /// The audience is temporarily unreadable.
    Planning {
        /// The cause.
        detail: String,
    },
    /// The ledger refuses writes, or the queue is unavailable.
    Backend {
        /// The problem.
        detail: String,
    },
    /// Redis may have lost recent writes, and workers compare it with what they wrote.
    Comparing {
        /// Number of workers that have not finished.
        workers: u64,
    },
    /// The provider has published a notice about something that the campaign uses.
    Notice {
        /// The notice; earlier versions stored only its text, as `detail`.
        #[serde(alias = "detail")]
        notice: KeptNotice,
        /// What the campaign also waits for.
        beside: Option<Box<Self>>,
    },
    /// An open breaker holds it together with other campaigns.
    Breaker {
        /// What the breaker is for, in words.
        breaker: String,
        /// Whether a worker probes it automatically.
        retries: bool,
        /// Why it is open.
        detail: String,
    },
    /// All attempts of a request failed.
    TriesFailed {
        /// Number of attempts.
        tries: u32,
        /// Why the last one failed.
        detail: String,
    },
    /// The outcome of many requests in a row is unknown.
    Doubts {
        /// Number of requests.
        requests: u32,
        /// Why the outcome of the last one is unknown.
        detail: String,
    },
    /// The provider refuses the campaign.
    Refused {
        /// The provider's text.
        detail: String,
    },
    /// It cannot be planned because of a problem with its job or audience.
    Unplannable {
        /// The problem.
        detail: String,
    },
    /// The audience has changed.
    AudienceChanged {
        /// Whether batches were already planned.
        planned: bool,
    },
    /// Redis was emptied while workers ran.
    Emptied {
        /// The campaign.
        id: CampaignId,
    },
    /// Redis lost recent writes, and workers that may have sent messages are gone.
    Forgotten {
        /// The campaign.
        id: CampaignId,
        /// Number of workers that are gone.
        workers: u64,
        /// Time from which they may have sent messages.
        from: Option<Timestamp>,
    },
    /// The share of rejected messages reached the job's `stop_when`.
    TooManyRejected {
        /// Number of rejected messages.
        rejected: u64,
        /// Number of settled messages.
        settled: u64,
        /// The limit of `stop_when`, in per cent.
        limit: u64,
    },
    /// The campaign expired before all messages were sent.
    Expired,
    /// An operator changed the state.
    Person {
        /// The new state.
        state: CampaignState,
    },
    /// The sending process was interrupted.
    Stopped,
    /// A text of an earlier version.
    Text {
        /// The text.
        text: String,
    },
}

impl Reason {
    /// Returns the JSON to store with the text, unless it is the text of an earlier version.
    pub fn data(&self) -> Option<String> {
        match self {
            Self::Text { .. } => None,
            reason => serde_json::to_string(reason).ok(),
        }
    }

    /// Reads a stored reason: its text and its JSON.
    ///
    /// If the two differ, another version wrote the text, and the text is the reason.
    pub fn read(text: Option<&str>, data: Option<&str>) -> Option<Self> {
        let text = text.filter(|text| !text.is_empty())?;
        let typed = data.and_then(|data| serde_json::from_str::<Self>(data).ok());
        let typed = typed.filter(|reason| reason.to_string() == text);
        Some(typed.unwrap_or_else(|| Self::Text { text: text.to_owned() }))
    }

    /// Returns whether it reports this problem of a backend.
    pub fn mentions(&self, problem: &str) -> bool {
        match self {
            Self::Backend { detail } => detail == problem,
            Self::Notice { beside: Some(beside), .. } => beside.mentions(problem),
            _ => false,
        }
    }

    /// Returns whether it includes a notice.
    pub fn passes_on(&self, notice: &KeptNotice) -> bool {
        matches!(self, Self::Notice { notice: known, .. } if known == notice)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { opens } => write!(f, "sending starts at {opens}"),
            Self::Window { opens } => write!(f, "outside the sending window, which opens at {opens}"),
            Self::Limits { due, throttled } => {
                f.write_str("waits for its limits")?;
                if let Some(detail) = throttled {
                    write!(f, " ({detail})")?;
                }
                due.map_or(Ok(()), |due| write!(f, "; deferred messages are due at {due:.0}"))
            }
            Self::Throttled { flow, detail } => {
                write!(f, "flow {flow} is throttled; flowcast starts with 10 messages an hour: {detail}")
            }
            Self::RateLimited { seconds, detail } => {
                write!(f, "rate-limited by the provider; resumes in {seconds} s: {detail}")
            }
            Self::Retrying { attempt, of, detail } => {
                write!(f, "waits for attempt {attempt} of {of}: {detail}")
            }
            Self::Account { detail } => {
                write!(f, "waits for a worker that can send from its account: {detail}")
            }
            Self::Planning { detail } | Self::Backend { detail } => write!(f, "waits: {detail}"),
            Self::Comparing { workers } => write!(
                f,
                "waits: Redis was restarted or failed over and may have lost recent writes; number of workers that have \
                 not yet compared Redis with what they wrote: {workers}"
            ),
            Self::Notice { notice, beside: Some(beside) } => write!(f, "{notice}; {beside}"),
            Self::Notice { notice, beside: None } => notice.fmt(f),
            Self::Breaker { breaker, retries: true, detail } => {
                write!(f, "{breaker} is held until a probe request succeeds: {detail}")
            }
            Self::Breaker { breaker, retries: false, detail } => write!(f, "{breaker} is held: {detail}"),
            Self::TriesFailed { tries, detail } => {
                write!(f, "{tries} attempts in a row failed; the last: {detail}")
            }
            Self::Doubts { requests, detail } => {
                write!(f, "the outcome of {requests} requests in a row is unknown; the last: {detail}")
            }
            Self::Refused { detail } | Self::Unplannable { detail } => f.write_str(detail),
            Self::AudienceChanged { planned: true } => {
                f.write_str("the audience has changed since the campaign was planned")
            }
            Self::AudienceChanged { planned: false } => {
                f.write_str("the audience has changed since the campaign was registered")
            }
            Self::Emptied { id } => write!(
                f,
                "Redis was emptied while workers ran; they restored what they know about this campaign, but the \
                 outcomes that earlier workers recorded are lost; run: flowcast recover {id}, which marks as in doubt the \
                 messages that may have been sent, and resumes"
            ),
            Self::Forgotten { id, workers, from } => {
                let workers = counted(*workers, "worker");
                write!(f, "Redis lost recent writes, and contact was lost with {workers}")?;
                match from {
                    Some(from) => write!(f, "; since {from:.0} they may have sent messages")?,
                    None => f.write_str("; they may have sent messages")?,
                }
                write!(f, "; to review and resume, run: flowcast recover {id}")
            }
            Self::TooManyRejected { rejected, settled, limit } => {
                write!(
                    f,
                    "{rejected} of {settled} messages were rejected; the limit in stop_when is {limit} %"
                )
            }
            Self::Expired => f.write_str("expires_at has passed"),
            Self::Person { state } => write!(f, "{state} by an operator"),
            Self::Stopped => f.write_str("interrupted from the keyboard or by a signal"),
            Self::Text { text } => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::notice::{Notice, NoticeSubject};
    use super::*;

    /// Returns a notice of a campaign that also waits for disk space.
    fn with_full_disk(notice: &KeptNotice) -> Reason {
        let beside = Some(Box::new(Reason::Backend { detail: "no room".into() }));
        Reason::Notice { notice: notice.clone(), beside }
    }

    #[test]
    fn a_stored_reason_is_read_and_a_text_of_an_earlier_version_stays() {
        let paused = KeptNotice::Notice(Notice {
            about: NoticeSubject::Template("offer".into()),
            event: "paused".into(),
            detail: "low quality".into(),
        });
        let text = "WhatsApp says: the template offer is paused (low quality)";
        let notice = with_full_disk(&paused);
        for reason in [
            Reason::Start { opens: Timestamp::UNIX_EPOCH },
            Reason::Person { state: CampaignState::Paused },
            Reason::Expired,
            notice.clone(),
            Reason::Notice { notice: paused.clone(), beside: None },
            Reason::Text { text: "waits for its limits".into() },
        ] {
            let (text, data) = (reason.to_string(), reason.data());
            assert_eq!(Reason::read(Some(&text), data.as_deref()), Some(reason));
        }
        assert_eq!(Reason::read(Some(""), None), None);
        // An earlier version changes only the text.
        let data = Reason::Expired.data();
        let earlier = Reason::Text { text: "no money".into() };
        assert_eq!(Reason::read(Some("no money"), data.as_deref()), Some(earlier));
        assert_eq!(notice.to_string(), format!("{text}; waits: no room"));
        assert!(notice.mentions("no room") && notice.passes_on(&paused));
        assert!(!notice.mentions(text) && !notice.passes_on(&KeptNotice::Text(text.into())));
    }

    #[test]
    fn a_notice_that_an_earlier_version_stored_as_text_is_read() {
        let text = "WhatsApp says: the template offer is paused";
        let data = format!(
            r#"{{"code":"notice","detail":"{text}","beside":{{"code":"backend","detail":"no room"}}}}"#
        );
        let notice = KeptNotice::Text(text.into());
        let reason = Reason::read(Some(&format!("{text}; waits: no room")), Some(&data));
        assert_eq!(reason, Some(with_full_disk(&notice)));
        assert!(reason.unwrap().passes_on(&notice));
    }
}
