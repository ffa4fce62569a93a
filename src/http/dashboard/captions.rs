//! The words of the pages: numbers, durations and states of campaigns as sentences. Decides nothing: it reads typed states and
//! reasons.

use std::time::Duration;

use jiff::Timestamp;

use crate::campaign::{CampaignState, Reason, SkipReason, counted, thousands, visible};
use crate::ledger::{AuditEntry, Campaign, OpenBreaker};
use crate::views::status::eta;

/// Returns a rounded duration, e.g. `about 12 minutes`.
pub(super) fn about(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..10 => return "a few seconds".into(),
        10..90 => (seconds.div_ceil(10) * 10, "second"),
        90..5400 => ((seconds + 30) / 60, "minute"),
        5400..172_800 => ((seconds + 1800) / 3600, "hour"),
        _ => ((seconds + 43_200) / 86_400, "day"),
    };
    format!("about {}", counted(number, unit))
}

/// Returns a share in percent, with one decimal below 10% and above 99%.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".into();
    }
    let share = part as f64 * 100.0 / whole as f64;
    match share {
        _ if part == whole => "100%".into(),
        _ if part == 0 => "0%".into(),
        ..0.1 => "under 0.1%".into(),
        99.0.. => format!("{:.1}%", share.min(99.9)),
        10.0.. => format!("{share:.0}%"),
        _ => format!("{share:.1}%").replace(".0%", "%"),
    }
}

/// Returns the size of a file with its unit.
pub(super) fn bytes(size: u64) -> String {
    match size {
        0..1000 => counted(size, "byte"),
        1000..1_000_000 => format!("{} kB", size.div_ceil(1000)),
        _ => format!("{:.1} MB", size as f64 / 1e6),
    }
}

/// Returns the seconds since a time.
pub(super) fn age(at: Timestamp) -> u64 {
    u64::try_from(Timestamp::now().duration_since(at).as_secs()).unwrap_or_default()
}

/// Caps a measured rate at the limit.
///
/// Responses arrive in bursts, so the measured rate may exceed it.
pub(super) fn within(rate: f64, most: Option<f64>) -> f64 {
    most.map_or(rate, |most| rate.min(most))
}

/// Returns a rate, e.g. `48/s` or `0.5/s`.
pub(super) fn rate(per_second: f64) -> String {
    if per_second >= 10.0 || per_second.fract() == 0.0 {
        format!("{}/s", thousands(per_second.round() as u64))
    } else {
        format!("{per_second:.1}/s")
    }
}

/// Returns the number of rows of a campaign, including those not planned yet.
pub(super) fn rows(campaign: &Campaign) -> u64 {
    if campaign.planned { campaign.counts.total } else { campaign.rows.max(campaign.counts.total) }
}

/// Returns the number of rows skipped because of their content.
pub(super) fn skipped(campaign: &Campaign) -> u64 {
    campaign.counts.skipped.saturating_sub(ended_before(campaign))
}

/// Returns the number of rows skipped because the campaign ended first.
fn ended_before(campaign: &Campaign) -> u64 {
    let count = |reason: SkipReason| campaign.skipped.get(reason.as_str()).copied().unwrap_or_default();
    count(SkipReason::Expired) + count(SkipReason::Cancelled)
}

/// Returns the number of recipients.
///
/// These are the rows without those skipped because of their content.
pub(super) fn people(campaign: &Campaign) -> u64 {
    rows(campaign).saturating_sub(skipped(campaign))
}

/// Returns the number of recipients whose message is still pending.
pub(super) fn unsent(campaign: &Campaign) -> u64 {
    let counts = &campaign.counts;
    let unplanned = rows(campaign).saturating_sub(counts.total);
    unplanned + counts.pending
}

/// Returns the number of recipients who get nothing because the campaign ended.
///
/// Together with pending, in-flight and settled messages they are all recipients.
pub(super) fn not_sent(campaign: &Campaign) -> u64 {
    ended_before(campaign) + if campaign.state.is_over() { unsent(campaign) } else { 0 }
}

/// Returns the settled share of a campaign, in thousandths.
pub(super) fn progress(campaign: &Campaign) -> u64 {
    let counts = &campaign.counts;
    let settled = (counts.total - counts.open()).saturating_sub(skipped(campaign));
    (settled * 1000).checked_div(people(campaign)).unwrap_or_default()
}

/// Returns text from outside on one line, with nothing that hides the rest.
pub(super) fn without_markup(text: &str) -> String {
    visible(text).into_owned()
}

/// Returns a campaign's name, or its ID if it has none.
pub(super) fn name(campaign: &Campaign) -> String {
    let named = campaign.name.as_deref().filter(|name| !name.trim().is_empty());
    without_markup(named.unwrap_or(campaign.id.as_str()))
}

/// Facts about a campaign from outside its record.
#[derive(Default)]
pub(super) struct CampaignContext<'k> {
    /// Limit, in messages per second.
    pub(super) most: Option<f64>,
    /// The open breaker that holds it.
    pub(super) held: Option<&'k OpenBreaker>,
}

/// Returns what a campaign waits for, or why it is on hold.
///
/// `most` is its limit, in messages per second.
pub(super) fn waits_for(reason: &Reason, most: Option<f64>) -> String {
    match reason {
        Reason::Limits { due: None, throttled: None } => match most {
            Some(most) => format!("sending at the limit ({})", rate(most)),
            None => "sending at the limit".into(),
        },
        Reason::Limits { due: Some(due), throttled: None } => {
            format!("sending at the limit; the next messages go out at {due:.0}")
        }
        Reason::Retrying { attempt, of, detail } => {
            format!(
                "the provider is having trouble ({}); retrying, attempt {attempt} of {of}",
                without_markup(detail)
            )
        }
        Reason::RateLimited { seconds, .. } => {
            format!("the provider asked to slow down; sending continues in {}", counted(*seconds, "second"))
        }
        Reason::Start { opens } => format!("sending starts at {opens:.0}"),
        Reason::Window { opens } => format!("outside the sending hours; sending continues at {opens:.0}"),
        Reason::Breaker { breaker, detail, .. } => without_markup(&format!("{breaker}: {detail}")),
        other => without_markup(&other.to_string()),
    }
}

/// Returns the state of a campaign in a sentence.
///
/// `acts` are its known audit entries, the newest first.
pub(super) fn sentence(campaign: &Campaign, acts: &[AuditEntry], known: &CampaignContext<'_>) -> String {
    let counts = &campaign.counts;
    let because = |what: &str| match &campaign.reason {
        Some(reason) => format!("{what}: {}.", waits_for(reason, known.most)),
        None => format!("{what}."),
    };
    match campaign.state {
        CampaignState::Scheduled if campaign.reason.is_none() => "Queued.".into(),
        CampaignState::Scheduled => match &campaign.reason {
            Some(Reason::Start { opens } | Reason::Window { opens }) => format!("Scheduled for {opens:.0}."),
            _ => because("Scheduled"),
        },
        CampaignState::Paused => {
            let by = acts.iter().find(|act| act.what == "pause");
            let by = by
                .map(|act| format!(" by {} at {:.0}", without_markup(&act.who), act.at))
                .unwrap_or_default();
            format!("Paused{by}. Nothing is sent until you resume.")
        }
        CampaignState::Held => match (&campaign.suspended_by, known.held) {
            (Some(breaker), Some(open)) => {
                format!(
                    "On hold, {}: {}.",
                    without_markup(&breaker.to_string()),
                    without_markup(&open.reason)
                )
            }
            _ => match &campaign.reason {
                Some(Reason::Breaker { breaker, detail, .. }) => {
                    format!(
                        "On hold, {}: {}.",
                        without_markup(breaker),
                        without_markup(detail).trim_end_matches('.')
                    )
                }
                _ => because("On hold"),
            },
        },
        CampaignState::Cancelled if counts.accepted == 0 => "Cancelled before anything was sent.".into(),
        CampaignState::Cancelled => {
            format!("Cancelled after {} had been accepted.", counted(counts.accepted, "message"))
        }
        CampaignState::Completed => {
            let mut text = format!(
                "Completed: {} of {} accepted",
                thousands(counts.accepted),
                counted(people(campaign), "message")
            );
            for (count, what) in [
                (campaign.delivery.delivered + campaign.delivery.read, "delivered"),
                (campaign.delivery.replied, "answered"),
                (counts.rejected, "rejected"),
                (counts.in_doubt, "in doubt"),
                (not_sent(campaign), "not sent"),
            ] {
                if count > 0 {
                    text += &format!(", {} {what}", thousands(count));
                }
            }
            text + "."
        }
        CampaignState::Running => {
            let done = percent(progress(campaign), 1000);
            let mut text = format!("Sending: {done} done");
            if campaign.rate > 0.0 {
                text += &format!(", {}", rate(within(campaign.rate, known.most)));
            }
            if let Some(left) = eta(campaign) {
                text += &format!(", {} left", about(left.as_secs()));
            }
            match &campaign.reason {
                Some(reason) => format!("{text}. {}", as_sentence(&waits_for(reason, known.most))),
                None => text + ".",
            }
        }
    }
}

/// Returns what became of a test, which has one recipient, in a sentence.
pub(super) fn sentence_of_test(test: &Campaign) -> String {
    let (counts, delivery) = (&test.counts, &test.delivery);
    let furthest = [
        (delivery.replied, "Answered."),
        (delivery.read, "Read."),
        (delivery.delivered, "Delivered."),
        (delivery.failed, "Not delivered."),
        (delivery.sent, "Sent; not delivered yet."),
        (counts.accepted, "Accepted by the provider; no delivery report yet."),
        (counts.rejected, "Rejected by the provider."),
        (counts.in_doubt, "In doubt: no answer from the provider; we will not send again until we know."),
    ];
    match furthest.into_iter().find(|(count, _)| *count > 0) {
        Some((_, text)) => text.into(),
        None if counts.skipped > 0 => "Not sent: this number is skipped.".into(),
        None if test.state == CampaignState::Running || test.state.is_over() => "Being sent.".into(),
        None => sentence(test, &[], &CampaignContext::default()),
    }
}

/// Returns a text with a capital first letter.
pub(super) fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Returns a text as a sentence: with a capital and a full stop.
pub(super) fn as_sentence(text: &str) -> String {
    let mut letters = text.trim().trim_end_matches('.').chars();
    // The name of a file or a field keeps its lower case.
    let is_name = text.split_whitespace().next().is_some_and(|word| word.contains(['.', '_', '/']));
    let upper = |first: char| if is_name { first.into() } else { first.to_uppercase().to_string() };
    let first = letters.next().map(upper).unwrap_or_default();
    let rest = letters.as_str();
    let stop = if rest.ends_with(['?', '!', '…']) { "" } else { "." };
    format!("{first}{rest}{stop}")
}

/// Returns the duration of a forecast, rounded.
pub(super) fn span(duration: Duration) -> String {
    about(duration.as_secs_f64().ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_shares_and_sizes_have_units() {
        let spans = [3, 42, 89, 90, 725, 5399, 7300, 200_000].map(about);
        let expected = [
            "a few seconds",
            "about 50 seconds",
            "about 90 seconds",
            "about 2 minutes",
            "about 12 minutes",
            "about 90 minutes",
            "about 2 hours",
            "about 2 days",
        ];
        assert_eq!(spans, expected);
        let shares =
            [(0, 0), (0, 9), (1, 9), (9, 9), (9999, 10_000), (1, 100_000)].map(|(a, b)| percent(a, b));
        assert_eq!(shares, ["–", "0%", "11%", "100%", "99.9%", "under 0.1%"]);
        assert_eq!(["no way.", "did you mean it?"].map(as_sentence), ["No way.", "Did you mean it?"]);
        assert_eq!([12, 12_345, 7_300_000].map(bytes), ["12 bytes", "13 kB", "7.3 MB"]);
        assert_eq!([48.4, 0.52, 5.0, 1234.0].map(rate), ["48/s", "0.5/s", "5/s", "1,234/s"]);
    }
}
