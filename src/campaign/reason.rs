//! Why a campaign stands where it stands: what holds it, what a running one waits for, who has stopped it. The text is made here and
//! nowhere read.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::notice::KeptNotice;
use super::{CampaignId, CampaignState, counted};

/// The reason of a campaign's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Reason {
    /// It waits for its start.
    Start {
        /// When its schedule opens.
        opens: Timestamp,
    },
    /// It waits for its window.
    Window {
        /// When that opens.
        opens: Timestamp,
    },
    /// It waits for tokens of its limits.
    Limits {
        /// When what is put off is due, where it has to wait long.
        due: Option<Timestamp>,
        /// What was said of its flow when that was throttled.
        throttled: Option<String>,
    },
    /// Its flow is throttled.
    Throttled {
        /// The flow.
        flow: String,
        /// What the provider said.
        detail: String,
    },
    /// The provider asked to wait.
    RateLimited {
        /// How many seconds nothing is sent.
        seconds: u64,
        /// What the provider said.
        detail: String,
    },
    /// A request failed and is made again.
    Retrying {
        /// The try that follows, from 1.
        attempt: u32,
        /// How many there are at the most.
        of: u32,
        /// What went wrong with the last one.
        detail: String,
    },
    /// Nobody who works on it can send from its account.
    Account {
        /// What is wrong with the account.
        detail: String,
    },
    /// Its audience can't be read now.
    Planning {
        /// What keeps it from being read.
        detail: String,
    },
    /// The ledger can't be written to, or the queue does not work.
    Backend {
        /// What is wrong with it.
        detail: String,
    },
    /// The ledger came back older than it was, and workers compare it with what they know.
    Comparing {
        /// How many have still to do so.
        workers: u64,
    },
    /// What the provider says of something that the campaign uses.
    Notice {
        /// What it says; earlier versions kept the text only, as `detail`.
        #[serde(alias = "detail")]
        notice: KeptNotice,
        /// What it waits for besides.
        beside: Option<Box<Self>>,
    },
    /// A breaker holds it, together with others.
    Breaker {
        /// What is held, as people call it.
        breaker: String,
        /// Whether it is tried again by itself.
        retries: bool,
        /// Why it is held.
        detail: String,
    },
    /// All tries of a request failed.
    TriesFailed {
        /// How many there were.
        tries: u32,
        /// What went wrong with the last one.
        detail: String,
    },
    /// The outcome of many requests in a row is unknown.
    Doubts {
        /// How many.
        requests: u32,
        /// Why that of the last one is.
        detail: String,
    },
    /// The provider refuses the campaign as it is.
    Refused {
        /// What it says.
        detail: String,
    },
    /// It can't be planned: something is wrong with its job or its audience.
    Unplannable {
        /// What is wrong.
        detail: String,
    },
    /// Its audience is not what it was.
    AudienceChanged {
        /// Whether batches of it were planned already.
        planned: bool,
    },
    /// The ledger was emptied while workers ran.
    Emptied {
        /// The campaign.
        id: CampaignId,
    },
    /// The ledger came back older than it was, and workers that may have sent are gone.
    Forgotten {
        /// The campaign.
        id: CampaignId,
        /// How many workers.
        workers: u64,
        /// From when on they may have sent.
        from: Option<Timestamp>,
    },
    /// As many messages were rejected as its job's `stop_when` forbids.
    TooManyRejected {
        /// How many were rejected.
        rejected: u64,
        /// Of how many.
        settled: u64,
        /// The share that `stop_when` says, in percent.
        limit: u64,
    },
    /// What was left of it has expired.
    Expired,
    /// A person has put it into this state.
    Person {
        /// The state.
        state: CampaignState,
    },
    /// The process that sent it was stopped.
    Stopped,
    /// What an earlier version said.
    Text {
        /// Its words.
        text: String,
    },
}

impl Reason {
    /// The JSON that a ledger keeps with the text; none of an earlier version's words.
    pub fn data(&self) -> Option<String> {
        match self {
            Self::Text { .. } => None,
            reason => serde_json::to_string(reason).ok(),
        }
    }

    /// Reads what a ledger keeps: the text, and the JSON behind it. Where the two differ, another version has written the text
    /// since, and that counts.
    pub fn read(text: Option<&str>, data: Option<&str>) -> Option<Self> {
        let text = text.filter(|text| !text.is_empty())?;
        let typed = data.and_then(|data| serde_json::from_str::<Self>(data).ok());
        let typed = typed.filter(|reason| reason.to_string() == text);
        Some(typed.unwrap_or_else(|| Self::Text { text: text.to_owned() }))
    }

    /// Whether it says that a backend is in trouble, and which.
    pub fn tells_of(&self, trouble: &str) -> bool {
        match self {
            Self::Backend { detail } => detail == trouble,
            Self::Notice { beside: Some(beside), .. } => beside.tells_of(trouble),
            _ => false,
        }
    }

    /// Whether it passes a notice on.
    pub fn passes_on(&self, notice: &KeptNotice) -> bool {
        matches!(self, Self::Notice { notice: known, .. } if known == notice)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { opens } => write!(f, "its schedule opens at {opens}"),
            Self::Window { opens } => write!(f, "outside its sending window, which opens at {opens}"),
            Self::Limits { due, throttled } => {
                f.write_str("waits for its limits")?;
                if let Some(detail) = throttled {
                    write!(f, " ({detail})")?;
                }
                due.map_or(Ok(()), |due| write!(f, "; what is put off is due at {due:.0}"))
            }
            Self::Throttled { flow, detail } => {
                write!(f, "flow {flow} is throttled, and sent at 10 messages an hour at first: {detail}")
            }
            Self::RateLimited { seconds, detail } => {
                write!(f, "the provider limits the rate, on in {seconds} s: {detail}")
            }
            Self::Retrying { attempt, of, detail } => write!(f, "try {attempt} of {of} follows: {detail}"),
            Self::Account { detail } => {
                write!(f, "waits for a worker that can send from its account: {detail}")
            }
            Self::Planning { detail } | Self::Backend { detail } => write!(f, "waits: {detail}"),
            Self::Comparing { workers } => write!(
                f,
                "waits: the ledger came back, and may have forgotten the last of what it was told; {} still to compare",
                counted(*workers, "worker")
            ),
            Self::Notice { notice, beside: Some(beside) } => write!(f, "{notice}; {beside}"),
            Self::Notice { notice, beside: None } => notice.fmt(f),
            Self::Breaker { breaker, retries: true, detail } => {
                write!(f, "{breaker} is held, and a worker tries it again by itself: {detail}")
            }
            Self::Breaker { breaker, retries: false, detail } => write!(f, "{breaker} is held: {detail}"),
            Self::TriesFailed { tries, detail } => {
                write!(f, "{tries} tries in a row failed, the last: {detail}")
            }
            Self::Doubts { requests, detail } => write!(
                f,
                "the outcome of {requests} requests in a row is unknown, of the last because: {detail}"
            ),
            Self::Refused { detail } | Self::Unplannable { detail } => f.write_str(detail),
            Self::AudienceChanged { planned: true } => {
                f.write_str("the audience has changed since the campaign was planned")
            }
            Self::AudienceChanged { planned: false } => {
                f.write_str("the audience has changed since the campaign was registered")
            }
            Self::Emptied { id } => write!(
                f,
                "the ledger was emptied while workers ran; what they know of this campaign is written again, and what \
                 others sent before is gone: to have all that may have been sent be in doubt, and go on: flowcast \
                 recover {id}"
            ),
            Self::Forgotten { id, workers, from } => {
                let workers = counted(*workers, "worker");
                write!(
                    f,
                    "the ledger came back older than it was, and {workers} that may have sent messages"
                )?;
                if let Some(from) = from {
                    write!(f, " between {from:.0} and its return")?;
                }
                write!(f, " can't say which; to see it and go on: flowcast recover {id}")
            }
            Self::TooManyRejected { rejected, settled, limit } => {
                write!(f, "{rejected} of {settled} messages were rejected, and stop_when says {limit} %")
            }
            Self::Expired => f.write_str("its expires_at passed"),
            Self::Person { state } => write!(f, "{state} by a person"),
            Self::Stopped => f.write_str("stopped from the keyboard or by a signal"),
            Self::Text { text } => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::notice::{Notice, Noticed};
    use super::*;

    /// A notice that is passed on while the disk is full.
    fn passed_on(notice: &KeptNotice) -> Reason {
        let beside = Some(Box::new(Reason::Backend { detail: "no room".into() }));
        Reason::Notice { notice: notice.clone(), beside }
    }

    #[test]
    fn what_is_stored_is_read_again_and_earlier_words_stay() {
        let paused = KeptNotice::Notice(Notice {
            about: Noticed::Template("offer".into()),
            event: "paused".into(),
            detail: "low quality".into(),
        });
        let text = "WhatsApp says: the template offer is paused (low quality)";
        let notice = passed_on(&paused);
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
        // An earlier version changes the text alone.
        let data = Reason::Expired.data();
        let earlier = Reason::Text { text: "no money".into() };
        assert_eq!(Reason::read(Some("no money"), data.as_deref()), Some(earlier));
        assert_eq!(notice.to_string(), format!("{text}; waits: no room"));
        assert!(notice.tells_of("no room") && notice.passes_on(&paused));
        assert!(!notice.tells_of(text) && !notice.passes_on(&KeptNotice::Text(text.into())));
    }

    #[test]
    fn a_notice_that_an_earlier_version_kept_as_text_is_read() {
        let text = "WhatsApp says: the template offer is paused";
        let data = format!(
            r#"{{"code":"notice","detail":"{text}","beside":{{"code":"backend","detail":"no room"}}}}"#
        );
        let notice = KeptNotice::Text(text.into());
        let reason = Reason::read(Some(&format!("{text}; waits: no room")), Some(&data));
        assert_eq!(reason, Some(passed_on(&notice)));
        assert!(reason.unwrap().passes_on(&notice));
    }
}
