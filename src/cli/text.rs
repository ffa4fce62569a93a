//! Formats durations and campaigns for people.

use std::{fmt::Write, time::Duration};

use jiff::Timestamp;

use crate::campaign::{CampaignState, codes, thousands, visible};
use crate::ledger::Campaign;
use crate::views::funnel::Funnel;

/// Formats a duration: `850 ms`, `12.3 s`, `4 min 5 s`, `2 h 5 min`.
pub(super) fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{:.1} s", span.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} days {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Returns how long a campaign has been running, or ran.
fn elapsed(campaign: &Campaign) -> Option<Duration> {
    let end = campaign.finished_at.unwrap_or_else(Timestamp::now);
    Duration::try_from(end.duration_since(campaign.started_at?)).ok()
}

/// Describes a campaign in full: state, counts, skipped rows by reason, failures by code.
pub(super) fn summary(campaign: &Campaign) -> String {
    let mut text = String::new();
    let counts = &campaign.counts;
    let mut line = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    let name = campaign.name.as_deref().map(|name| format!(" ({})", visible(name))).unwrap_or_default();
    let rehearsal = if campaign.rehearsal { ", in the sandbox: nothing was really sent" } else { "" };
    let time = match (campaign.state, elapsed(campaign)) {
        (CampaignState::Completed, Some(time)) => format!(" in {}", duration(time)),
        _ => String::new(),
    };
    line(format!("campaign {}{name}: {}{time}{rehearsal}", campaign.id, campaign.state));
    if let Some(reason) = &campaign.reason {
        line(format!("  {}", visible(&reason.to_string())));
    }
    line(String::new());
    let total = counts.total.max(1) as f64;
    let mut row = |label: &str, count: u64| {
        let share = count as f64 * 100.0 / total;
        line(format!("  {label:<22}{:>14}{share:>8.1} %", thousands(count)));
    };
    row(if campaign.planned { "rows" } else { "rows planned so far" }, counts.total);
    row("accepted", counts.accepted);
    row("rejected", counts.rejected);
    for (code, count) in &campaign.rejected {
        row(&format!("  {}", visible(code)), *count);
    }
    row("in doubt", counts.in_doubt);
    row("skipped", counts.skipped);
    for (reason, count) in &campaign.skipped {
        row(&format!("  {reason}"), *count);
    }
    row("pending", counts.pending);
    if counts.sending > 0 {
        row("sending", counts.sending);
    }
    let funnel = Funnel::from(campaign);
    if !funnel.is_empty() {
        line(String::new());
        let accepted = counts.accepted.max(1) as f64;
        for step in &funnel.steps {
            let share = step.count as f64 * 100.0 / accepted;
            let times = step.times.map(|times| times.map(duration));
            let times = times.map(|[median, most]| format!("   median {median}, 95 % within {most}"));
            let (name, count) = (step.name, thousands(step.count));
            line(format!("  {name:<22}{count:>14}{share:>8.1} %{}", times.unwrap_or_default()));
        }
        let share = funnel.failed as f64 * 100.0 / accepted;
        line(format!("  {:<22}{:>14}{share:>8.1} %", "not delivered", thousands(funnel.failed)));
        for (code, count) in &campaign.undelivered {
            line(format!("    {:<20}{:>14}", visible(code), thousands(*count)));
        }
    }
    if !campaign.texts.is_empty() {
        line(String::new());
        for (code, detail) in &campaign.texts {
            line(format!("  {}: {}", visible(code), visible(detail)));
            if let Some(known) = codes::reported(code, detail) {
                line(format!("    {}", known.with_text(detail)));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_are_formatted() {
        let numbers: Vec<String> = [0, 999, 1000, 1_234_567].map(thousands).into();
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
        let span = |milliseconds| duration(Duration::from_millis(milliseconds));
        assert_eq!(
            [span(850), span(12_340), span(245_000), span(7_500_000), span(400_000_000)],
            ["850 ms", "12.3 s", "4 min 5 s", "2 h 5 min", "4 days 15 h"]
        );
    }
}
